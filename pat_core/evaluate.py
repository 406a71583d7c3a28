"""PaT and every rival on held-out reviews of a file: ``python -m pat_core.evaluate FILE``.

Each answer is one line of the predictions file, written unit by unit (some people, all systems), so that a run that was killed goes on
where it stopped and ends as if it had not been. Other uses: ``--score`` scores such a file again without a model, and ``--retrieval``
measures retrieval alone (``retrieval_eval``).
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
import logging
import shlex
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from pat_core.asked import Asked, gather
from pat_core.benchmark import GROUPS, TASKS, Case, LeakGuard, benchmark_cases, folds, visitor_cases, without_targets
from pat_core.config import Config, load_config
from pat_core.corpus import PARTS, Corpus, read_corpus
from pat_core.desk import Desk
from pat_core.embed import Embedder, encode_cached, open_embedder
from pat_core.graph import open_style_graph
from pat_core.llm import open_llm
from pat_core.llm.types import LLM, LLMError
from pat_core.llm_judge import JudgeReport, judge_file
from pat_core.llm_judge import render as render_judged
from pat_core.llm_judge import settings_of as judge_settings
from pat_core.pipeline import TEXT_SAMPLING, UNTRAINED_PENALTY, Workbench
from pat_core.predictions import Prediction, PredictionsFile, RunFacts, read_run
from pat_core.progress import Progress, terminal_progress
from pat_core.results_file import keep
from pat_core.retrieval_eval import evaluate_retrieval
from pat_core.retrieval_eval import render as render_retrieval
from pat_core.rounds_rollouts import OPTIONS
from pat_core.scoring import Results, predictions, render, results_to_json, score
from pat_core.systems import SYSTEMS, System, asked_of, systems_for
from pat_core.topics import TopicSearch, review_text

UNIT = 20  # people answered together: full batches, and not more than minutes lost by a kill
DEFAULT_DRAFTS = 8
CODE = (  # the modules that decide what is written: a run is not continued by another program
    "agents.py",
    "asked.py",
    "benchmark.py",
    "bm25.py",
    "cues.py",
    "desk.py",
    "graph.py",
    "metrics.py",
    "pipeline.py",
    "points.py",
    "prompts.py",
    "rewards.py",
    "rounds_rollouts.py",
    "style_net.py",
    "systems.py",
    "topics.py",
)


@dataclass(frozen=True)
class Wanted:
    """What a run is asked to do; every field is one of its settings."""

    task: str = "long"
    systems: tuple[str, ...] = ()
    part: str = "all"
    history: str = "all"
    limit: int | None = None
    seed: int = 0
    drafts: int = DEFAULT_DRAFTS
    k: int = 4
    rounds: int = 1


class Remembering:
    """An embedder that encodes no text twice: the same reviews are indexed without other targets in each fold."""

    def __init__(self, embedder: Embedder, texts: Sequence[str], cache: Path, progress: Progress | None = None) -> None:
        self._embedder = embedder
        self._known: dict[str, np.ndarray] = dict(zip(texts, encode_cached(embedder, texts, cache, progress), strict=True))

    @property
    def fingerprint(self) -> str:
        return self._embedder.fingerprint

    def encode(self, texts: Sequence[str], progress: Progress | None = None) -> np.ndarray:
        new = [t for t in dict.fromkeys(texts) if t not in self._known]
        if new:
            self._known |= dict(zip(new, self._embedder.encode(new, progress), strict=True))
        return np.stack([self._known[t] for t in texts]) if texts else self._embedder.encode(texts)


@dataclass(frozen=True)
class Fold:
    """A corpus without the targets of its cases, opened, and what was retrieved from it for each case."""

    bench: Workbench
    guard: LeakGuard
    asked: dict[str, Asked]


def evaluate(
    corpus: Corpus,
    llm: LLM,
    embedder: Embedder,
    cache: Path,
    wanted: Wanted,
    out: PredictionsFile,
    progress: Progress | None = None,
    unit: int = UNIT,
) -> Results:
    """Answers what ``out`` does not hold yet and scores everything. Raises ValueError, LeakError among them, and LLMError."""
    systems = systems_for(wanted.task, wanted.systems)
    cases = benchmark_cases(corpus, wanted.task, wanted.part, wanted.history, wanted.limit, wanted.seed)
    as_visitors = wanted.task == "long" and {"pat", "pat-wrong-user"} <= set(wanted.systems)
    parts = [[*fold, *(visitor_cases(corpus, fold, wanted.seed) if as_visitors else ())] for fold in folds(corpus, cases)]
    strangers = [case for part in parts for case in part] if "pat-wrong-user" in wanted.systems else []
    units = [(number, list(part[i : i + unit])) for number, part in enumerate(parts) for i in range(0, len(part), unit)]
    out.keep_whole_units([_lines_of(systems, one) for _, one in units])
    left = units[out.units :]
    if left:
        texts = Remembering(embedder, [review_text(r) for r in corpus.reviews], cache, progress)
    slow = [s for s in systems if s.kind not in ("baseline", "reference")]
    told = _count(progress, "Writing texts", sum(len(_lines_of(slow, one)) for _, one in left))
    for number, group in itertools.groupby(left, key=lambda numbered: numbered[0]):
        fold = _open_fold(corpus, parts[number], strangers, llm, texts, cache, wanted, progress)
        told(0)  # the clock of the time left starts here
        for _, one in group:
            desk = Desk(llm, fold.guard, wanted.drafts, wanted.rounds)
            lines: list[Prediction] = []
            for system in systems:
                asked = [fold.asked[case.case_id] for case in one if asked_of(system, case)]
                if asked:
                    lines += predictions(fold.bench, out.run, system, asked, system.answer(desk, asked), texts)
                told(len(asked) if system in slow else 0)
            out.add(lines, desk.seconds, desk.tokens)
    return score(out.lines, out.facts, wanted.seed)


def _open_fold(
    corpus: Corpus,
    cases: Sequence[Case],
    strangers: Sequence[Case],
    llm: LLM,
    texts: Embedder,
    cache: Path,
    wanted: Wanted,
    progress: Progress | None,
) -> Fold:
    rest = without_targets(corpus, cases)
    bench = Workbench(rest, open_style_graph(rest, cache, progress), TopicSearch(rest, texts, cache, progress), llm)
    asked = gather(bench, cases, wanted.k, wanted.seed, strangers, progress)
    return Fold(bench, LeakGuard(cases, rest), {a.case.case_id: a for a in asked})


def _lines_of(systems: Sequence[System], unit: Sequence[Case]) -> list[tuple[str, str, str]]:
    """What the lines of a unit are about, in their order: system, review, history."""
    return [(s.name, c.target.review_id, c.group) for s in systems for c in unit if asked_of(s, c)]


def _count(progress: Progress | None, label: str, total: int) -> Callable[[int], None]:
    """A function that adds to what is done and tells ``progress``."""
    done = 0

    def told(more: int) -> None:
        nonlocal done
        done += more
        if progress and total:
            progress(label, done, total)

    return told


# The command


def main(argv: Sequence[str] | None = None) -> int:
    """Prints the tables for a file; returns the exit status."""
    argv = list(sys.argv[1:] if argv is None else argv)
    parser = _parser()
    arguments = parser.parse_args(argv)
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    try:
        _check(arguments)
        if arguments.retrieval:
            return _retrieval(arguments)
        results = _rescored(arguments.score) if arguments.score else _evaluated(arguments, argv)
        print(render(results))
        judged = _judged(arguments)
        if judged:
            results = replace(results, judge=judged.to_json())
            print("", render_judged(judged), sep="\n")
        _write(results, arguments)
    except (ValueError, OSError, LLMError) as error:
        parser.exit(2, f"{error}\n")
    except KeyboardInterrupt:
        parser.exit(130, "stopped; the same command with --resume goes on\n" if arguments.predictions else "stopped\n")
    return 0


def _write(results: Results, arguments: argparse.Namespace) -> None:
    """The files that were asked for, and a copy of a new run for the app's Results page."""
    value = results_to_json(results)
    if arguments.json:
        arguments.json.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    if arguments.html:
        from pat_core.results_html import write_html  # draws with plotly, which nothing else here needs

        write_html(value, arguments.html)
    if arguments.file:
        keep(value, load_config().home)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m pat_core.evaluate", description="Measure PaT and its rivals on held-out reviews.")
    parser.add_argument("file", type=Path, nargs="?", help="a corpus or benchmark file")
    parser.add_argument("--task", default="long", help=f"what is to be written: {', '.join(TASKS)} (default long)")
    parser.add_argument("--systems", nargs="+", metavar="SYSTEM", help=f"all that apply by default: {', '.join(SYSTEMS)}")
    parser.add_argument("--history", default="all", help="people with so many other reviews: 0, 1, 2+, 1+ or all")
    parser.add_argument("--part", default="all", help=f"which people: {', '.join(PARTS)}, two with a plus between them, or all")
    parser.add_argument("--limit", type=int, help="people at most, all by default")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--drafts", type=int, default=DEFAULT_DRAFTS, help="texts to choose from, of every system with a model")
    parser.add_argument("--k", type=int, default=4, choices=(1, 2, 4), help="reviews of the topic that are read")
    parser.add_argument("--rounds", type=int, default=1, choices=(1, 2), help="rounds of the agents; the app has 2, which costs more")
    parser.add_argument("--predictions", type=Path, metavar="OUT.jsonl", help="one line for each person and system")
    parser.add_argument("--resume", action="store_true", help="go on with the predictions of the same run")
    parser.add_argument("--json", type=Path, metavar="OUT.json", help="also write the numbers here")
    parser.add_argument("--html", type=Path, metavar="OUT.html", help="also write the report here")
    parser.add_argument("--score", type=Path, metavar="PREDICTIONS.jsonl", help="score these predictions again, without a model")
    parser.add_argument("--judge", nargs="*", metavar="SYSTEM", help="also ask the model at PAT_JUDGE_URL: PaT against these, or all")
    parser.add_argument("--retrieval", type=Path, metavar="FILE", help="compare what is retrieved from this file instead")
    parser.add_argument("--no-topic", action="store_true", help="with --retrieval: leave out topic recall, which embeds every review")
    return parser


def _check(arguments: argparse.Namespace) -> None:
    """ValueError with a sentence for what argparse does not check."""
    if sum(bool(given) for given in (arguments.file, arguments.score, arguments.retrieval)) != 1:
        raise ValueError("give one file to evaluate, or --score PREDICTIONS.jsonl, or --retrieval FILE")
    accepted = {"task": TASKS, "part": (*PARTS, *map("+".join, itertools.combinations(PARTS, 2)), "all"), "history": (*GROUPS, "1+", "all")}
    for name, values in accepted.items():
        if getattr(arguments, name) not in values:
            raise ValueError(f"--{name} {getattr(arguments, name)} is not known; choose from {', '.join(values)}")
    if arguments.limit is not None and arguments.limit < 1:
        raise ValueError(f"--limit must be at least 1, not {arguments.limit}")
    if not 1 <= arguments.drafts <= 64:
        raise ValueError(f"--drafts must be from 1 to 64, not {arguments.drafts}")
    for out in (arguments.json, arguments.html, arguments.predictions):
        if out is not None and not out.absolute().parent.is_dir():
            raise ValueError(f"there is no folder {out.absolute().parent} to write {out.name} to")
    PredictionsFile.check(arguments.predictions, arguments.resume)
    _check_judge(arguments)


def _check_judge(arguments: argparse.Namespace) -> None:
    """ValueError where judging could not work after everything slow is done."""
    if arguments.judge is None:
        return
    if arguments.retrieval or not (arguments.predictions or arguments.score):
        raise ValueError("--judge needs texts to compare: give --predictions OUT.jsonl, or --score PREDICTIONS.jsonl")
    if arguments.task == "rating":
        raise ValueError("--judge compares texts; leave it out of --task rating")
    if unknown := [name for name in arguments.judge if name not in SYSTEMS]:
        raise ValueError(f"--judge {unknown[0]} is not known; choose from {', '.join(SYSTEMS)}")
    judge_settings(load_config(), None)


def _judged(arguments: argparse.Namespace) -> JudgeReport | None:
    """What a judge says of the predictions, None where nobody is asked."""
    if arguments.judge is None:
        return None
    return judge_file(arguments.score or arguments.predictions, load_config(), arguments.judge, progress=terminal_progress())


def _evaluated(arguments: argparse.Namespace, argv: Sequence[str]) -> Results:
    progress = terminal_progress()
    wanted = _wanted(arguments)
    config = _config()
    corpus, _ = read_corpus(arguments.file, progress=progress)
    benchmark_cases(corpus, wanted.task, wanted.part, wanted.history, 1, wanted.seed)  # a sentence before anything slow
    llm = open_llm(config, progress)
    facts = RunFacts(
        corpus=corpus.name,
        file=arguments.file.name,
        task=wanted.task,
        part=wanted.part,
        made_at=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        command=shlex.join(["python", "-m", "pat_core.evaluate", *argv]),
        settings=settings_of(corpus, llm, wanted),
        engine=llm.name,
        adapters=dict(llm.adapters),
        notes=notes_of(wanted, llm),
    )
    out = PredictionsFile(arguments.predictions, facts, arguments.resume)
    embedder = open_embedder(config.embedder, config.device)
    return evaluate(corpus, llm, embedder, config.home / "cache", wanted, out, progress)


def _wanted(arguments: argparse.Namespace) -> Wanted:
    names = None if arguments.systems is None else [name for given in arguments.systems for name in given.split(",") if name]
    systems = tuple(s.name for s in systems_for(arguments.task, names))
    a = arguments
    return Wanted(a.task, systems, a.part, a.history, a.limit, a.seed, a.drafts, a.k, a.rounds)


def settings_of(corpus: Corpus, llm: LLM, wanted: Wanted) -> dict[str, Any]:
    """Everything that decides what is written; a run is the same only where all of it is."""
    here = Path(__file__).parent
    sampling = {n: v for n, v in asdict(TEXT_SAMPLING).items() if n != "temperature"}
    return {
        "corpus": corpus.name,
        "fingerprint": corpus.fingerprint[:16],
        **{n: list(v) if isinstance(v, tuple) else v for n, v in asdict(wanted).items()},
        "temperature": OPTIONS.temperature,
        **sampling,
        "untrained_penalty": UNTRAINED_PENALTY,
        "engine": llm.name,
        "adapters": dict(sorted(llm.adapters.items())),
        "code": hashlib.sha256(b"".join((here / name).read_bytes() for name in CODE)).hexdigest()[:16],
    }


def notes_of(wanted: Wanted, llm: LLM) -> tuple[str, ...]:
    """Sentences that a reader of the figures has to know."""
    trained = ", ".join(f"{role} {version}" for role, version in sorted(llm.adapters.items()))
    notes = [
        f"Every system with a model writes {wanted.drafts} drafts for each text with the same model, temperature and length. Without an "
        f"adapter repetition is penalized by {UNTRAINED_PENALTY}, with one by {TEXT_SAMPLING.frequency_penalty}: what suits each best, "
        "chosen on other people.",
        "PaT chooses among its drafts by what it retrieved, the rivals by what their drafts have in common; nobody sees the reference.",
        "The targets of the people asked, and texts with the same words, leave the corpus before anything is trained or indexed, "
        "all of them or a fifth of the corpus at a time; every prompt was compared with the target that it is for.",
        f"Trained for PaT: {trained}." if trained else "No adapter was loaded, so PaT is untrained here.",
    ]
    if wanted.part != "untouched" and trained:
        chosen = "Adapters or settings" if "training" in wanted.part or wanted.part == "all" else "Settings"
        notes.append(f"{chosen} may have been made with some of these people; --part untouched leaves those out.")
    if wanted.task != "long":
        notes.append("The generator's adapter writes reviews: here the base model answers from the trained agents' notes.")
    return tuple(notes)


def _rescored(path: Path) -> Results:
    lines, facts = read_run(path)
    return score(lines, facts, facts.settings.get("seed", 0))


def _retrieval(arguments: argparse.Namespace) -> int:
    progress = terminal_progress()
    config = _config()
    corpus, _ = read_corpus(arguments.retrieval, progress=progress)
    search = None
    if not arguments.no_topic:
        search = TopicSearch(corpus, open_embedder(config.embedder, config.device), config.home / "cache", progress)
    report = evaluate_retrieval(corpus, search, arguments.limit, arguments.seed, progress)
    print(render_retrieval(report))
    if arguments.json:
        arguments.json.write_text(json.dumps(asdict(report), indent=1) + "\n", encoding="utf-8")
    return 0


def _config() -> Config:
    config = load_config()
    import torch

    torch.set_num_threads(config.threads)
    return config


if __name__ == "__main__":
    raise SystemExit(main())
