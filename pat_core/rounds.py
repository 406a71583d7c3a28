"""The learning loop: rounds in which each role in turn is rolled out, paired by credit, trained by DPO and published (method: DPO rounds).

A step is one role in one round. Its rollouts, its checkpoints and its result are kept in a folder of the run, so that a run that was
killed goes on in the middle of a step; the same command once more, after a run has ended, is a new run. A version is published unless the
fixed dev slice, users of the *choosing* part, who are never trained on, falls beyond noise: the 95% interval of the paired change, by
bootstrap over users, lies below 0. The engine is closed while a step trains and opened again with what was published. Leaves out where
votes come from.
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from pat_core.adapters import active_adapters, publish
from pat_core.config import Config
from pat_core.credit import REASONS, Selected, tally
from pat_core.dpo import DPOSettings, Report, Standing, data_facts, judgment_ids, train_preferences
from pat_core.evaluate import Estimate, estimate
from pat_core.llm import open_llm
from pat_core.llm.types import LLM
from pat_core.metrics import meteor_matching, n_words
from pat_core.pipeline import Workbench
from pat_core.preferences import Choice, Comparison, Mix, Mode, mixed_pairs
from pat_core.progress import Progress
from pat_core.rounds_rollouts import (
    Notes,
    Question,
    Scored,
    Stopped,
    Writer,
    by_reference,
    comparison,
    means,
    open_bench,
    questions,
    roll_out,
    score_rollout,
    take_notes,
    without_reference,
    write_texts,
)
from pat_core.train import examiner
from pat_core.types import ADAPTER_ROLES, Role
from pat_core.weights import embedded_gguf, reference_folder, sha256

log = logging.getLogger(__name__)

Credit = Literal["differential", "raw"]
DEV_SEED = 1_000_003  # the dev slice is the same for every run on the same files
DEV_TEXTS = 2  # texts for each dev question; one alone is as noisy as what is to be seen
TRAINED = "adapter"  # the folder of a trained adapter that is not published


@dataclass(frozen=True, slots=True)
class RoundSettings:
    """What a run does: ``prompts`` questions and ``candidates`` each for a step, ``dev`` questions to evaluate on.

    ``use`` *automatic* learns from rewards against what people really wrote; *human* from votes alone; *both* from both, and then rewards
    are those without a reference, which votes calibrate. ``credit`` *raw* is the ablation: the higher reward wins, whatever the text
    without the summary got, and all pairs weigh the same.
    """

    data: tuple[Path, ...]
    rounds: int = 1
    prompts: int = 32
    candidates: int = 4
    roles: tuple[Role, ...] = ADAPTER_ROLES
    use: Mode = "automatic"
    credit: Credit = "differential"
    dev: int = 40
    seed: int = 0
    dpo: DPOSettings = DPOSettings(learning_rate=2e-4, epochs=2)  # noqa: RUF009 - frozen

    def __post_init__(self) -> None:
        if not self.data:
            raise ValueError("name at least one corpus file to roll out on")
        for name, low in (("rounds", 1), ("prompts", 2), ("candidates", 2), ("dev", 2)):
            if getattr(self, name) < low:
                raise ValueError(f"{name} must be at least {low}, not {getattr(self, name)}")
        if self.candidates > 16:
            raise ValueError(f"candidates must be at most 16, not {self.candidates}")

    def facts(self) -> dict[str, Any]:
        return asdict(self) | {"data": [path.name for path in self.data]}


@dataclass(frozen=True)
class Base:
    """The model that learns: as transformers loads it, its GGUF where it is one, and the adapters it starts from."""

    folder: Path | str
    gguf: Path | None
    sha256: str
    adapters: Mapping[Role, Path]

    @property
    def adapter_names(self) -> dict[str, str]:
        return {role: path.name for role, path in self.adapters.items()}


@dataclass(frozen=True)
class Work:
    """A run's folder. ``once`` makes a JSON value the first time and reads it afterwards."""

    folder: Path

    @classmethod
    def of(cls, home: Path, kind: str, facts: object) -> Work:
        key = hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()[:12]
        folder = home / "training" / f"{kind}-{key}"
        folder.mkdir(parents=True, exist_ok=True)
        return cls(folder)

    def once(self, name: str, make: Callable[[], Any]) -> Any:
        path = self.folder / f"{name}.json"
        if path.is_file():
            return json.loads(path.read_text(encoding="utf-8"))
        path.parent.mkdir(parents=True, exist_ok=True)
        new = path.with_name(f".{path.name}.new")
        new.write_text(json.dumps(make(), ensure_ascii=False, allow_nan=False), encoding="utf-8")
        new.replace(path)
        return json.loads(path.read_text(encoding="utf-8"))


def open_base(config: Config, progress: Progress | None = None) -> Base:
    """The model that ``config`` names with the adapters that serve it now. ValueError for one that is on a server."""
    if config.engine == "server" or (config.engine == "auto" and config.llm_url):
        raise ValueError("a model on a server cannot be trained from here; unset PAT_LLM_URL, or train where the model's files are")
    if config.model != "embedded" and not config.model.endswith(".gguf"):
        return Base(config.model, None, "", {})
    gguf = embedded_gguf(config.home, progress) if config.model == "embedded" else Path(config.model).expanduser().resolve()
    digest = sha256(gguf)
    return Base(reference_folder(gguf, config.home, progress), gguf, digest, active_adapters(config.home, digest))


@contextmanager
def engine(config: Config, adapters: Mapping[Role, Path], progress: Progress | None = None) -> Iterator[LLM]:
    """The fast engine with ``adapters``; merged models of adapters that are not published are deleted in the end."""
    llm = open_llm(config, progress, adapters=adapters)
    try:
        yield llm
    finally:
        if hasattr(llm, "close"):
            llm.close()
        for merged in (config.home / "weights").glob(f"q8-*/*.{TRAINED}.gguf"):
            shutil.rmtree(merged.parent, ignore_errors=True)


def standing_progress(label: str, progress: Progress | None) -> Callable[[Standing], None] | None:
    """DPO's standing as steps of a bar, in tokens."""
    return (lambda s: progress(label, s.tokens, s.all_tokens)) if progress else None


# The loop


def learn(
    config: Config,
    settings: RoundSettings,
    registry: Path,
    votes: tuple[Sequence[Comparison], Sequence[Choice]] = ((), ()),
    *,
    progress: Progress | None = None,
    cancel: threading.Event | None = None,
    tell: Callable[[str], None] = print,
    open_corpus: Callable[[Path, LLM], Workbench] | None = None,
) -> dict[str, Any]:
    """All rounds; the report as JSON values, and each step's text through ``tell`` as it ends.

    ``open_corpus`` makes the workbench on a file, ``open_bench`` unless given. Raises ValueError, LLMError, TrainingError, AdapterError or
    Stopped, each with a sentence; what was published before stays.
    """
    if settings.use != "automatic" and not votes[1]:
        raise ValueError("there are no judgments yet; let people judge some pairs first, or learn from the automatic reward alone")
    base = open_base(config, progress)
    work = _unfinished(config.home, [settings.facts(), data_facts_of(votes), str(registry)], base)
    opened = open_corpus or partial(_opened, config, progress)
    return _Loop(config, settings, registry, votes, base, work, progress, cancel or threading.Event(), tell, opened).run()


def _opened(config: Config, progress: Progress | None, data: Path, llm: LLM) -> Workbench:
    return open_bench(config, data, llm, progress)


def data_facts_of(votes: tuple[Sequence[Comparison], Sequence[Choice]]) -> str:
    """One hash of the votes that are learned from; '' for none."""
    rows = sorted(f"{c.pair_id} {c.annotator} {c.winner} {c.judgment_id}" for c in votes[1])
    return hashlib.sha256("\n".join(rows).encode()).hexdigest() if rows else ""


def _unfinished(home: Path, facts: object, base: Base) -> Work:
    """The folder of a run with these facts that was begun and not ended, emptied where the last one had ended."""
    work = Work.of(home, "rounds", facts)
    if (work.folder / "report.json").is_file():
        shutil.rmtree(work.folder)
        work.folder.mkdir()
    started = work.once("start", lambda: {"adapters": {role: str(path) for role, path in base.adapters.items()}})
    assert isinstance(started, dict)
    return work


class _Loop:
    """One run: the adapters as they stand, the dev slice and its rewards under them. Lives as long as the run."""

    def __init__(
        self,
        config: Config,
        settings: RoundSettings,
        registry: Path,
        votes: tuple[Sequence[Comparison], Sequence[Choice]],
        base: Base,
        work: Work,
        progress: Progress | None,
        cancel: threading.Event,
        tell: Callable[[str], None],
        open_corpus: Callable[[Path, LLM], Workbench],
    ) -> None:
        self.config, self.settings, self.registry, self.votes, self.base, self.work = config, settings, registry, votes, base, work
        self.progress, self.cancel, self.tell, self.open_corpus = progress, cancel, tell, open_corpus
        start = work.once("start", dict)["adapters"]
        self.adapters: dict[Role, Path] = {role: Path(path) for role, path in start.items()}
        self.score = without_reference if settings.use == "both" else by_reference
        self.asked: list[list[Question]] = []
        self.dev: list[Question] = []
        self.dev_notes: tuple[tuple[str, ...], list[Notes]] | None = None

    def run(self) -> dict[str, Any]:
        started = time.monotonic()
        with engine(self.config, self.adapters, self.progress) as llm:
            self._gather(llm)
            rows = self.work.once("dev-0", lambda: self._dev_rows(llm, self.adapters))
        steps = []
        for index in range(self.settings.rounds):
            for role in self.settings.roles:
                step = self._step(index, role, rows)
                steps.append({k: v for k, v in step.items() if k != "dev_rows"})
                if step["adapter"]:
                    self.adapters[role] = Path(step["adapter"])
                    rows = step["dev_rows"]
        report = {
            "settings": self.settings.facts(),
            "meteor": meteor_matching(),
            "start": self.work.once("start", dict)["adapters"],
            "end": {role: path.name for role, path in self.adapters.items()},
            "steps": steps,
            "minutes": round((time.monotonic() - started) / 60, 1),
        }
        report["start"] = {role: Path(path).name for role, path in report["start"].items()}
        return self.work.once("report", lambda: report)

    def _gather(self, llm: LLM) -> None:
        """Questions of every file in equal shares: for each round its own, and the dev slice."""
        per_round: list[list[Question]] = [[] for _ in range(self.settings.rounds)]
        n_files = len(self.settings.data)
        for i, path in enumerate(self.settings.data):
            bench = self.open_corpus(path, llm)
            n, n_dev = (len(range(i, whole, n_files)) for whole in (self.settings.prompts, self.settings.dev))
            self.dev += questions(bench, n_dev, DEV_SEED, "choosing")
            if self.settings.use != "human":
                found = questions(bench, n * self.settings.rounds, self.settings.seed, "training")
                for index, part in enumerate(per_round):
                    part += found[index * n : (index + 1) * n]
        self.asked = per_round
        if len(self.dev) < 2:
            raise ValueError("these files have fewer than two people outside the training half, so nothing can be evaluated")
        if self.settings.use != "human" and not all(per_round):
            raise ValueError("these files have too few reviews to ask about for so many rounds; ask for fewer prompts or rounds")

    def _step(self, index: int, role: Role, rows: list[dict[str, float]]) -> dict[str, Any]:
        """One role in one round. ``adapter`` in what it returns is the folder that goes on, '' where the old one does."""
        name = f"round-{index + 1}-{role}"
        if self.cancel.is_set():
            raise Stopped("the learning was stopped; the same command goes on where it stood")
        done = self.work.once(f"{name}/result", lambda: self._made_step(index, role, name, rows))
        self.tell(step_text(done))
        return done

    def _made_step(self, index: int, role: Role, name: str, rows: list[dict[str, float]]) -> dict[str, Any]:
        started = time.monotonic()
        facts: dict[str, Any] = {"round": index + 1, "role": role, "parent": self.adapters[role].name if role in self.adapters else ""}
        rolled = self.work.once(f"{name}/rollouts", lambda: self._rolled(index, role)) if self.settings.use != "human" else None
        seconds = {"rollouts": time.monotonic() - started}
        try:
            mix = self._mix(role, rolled)
        except ValueError as error:
            nothing = {"adapter": "", "version": "", "why": f"nothing to train on: {error}"}
            return facts | nothing | {"rollouts": _shown(rolled), "dev_rows": rows}
        began = time.monotonic()
        trained = train_preferences(
            self.base.folder,
            self.adapters.get(role),
            mix.pairs,
            self.work.folder / name,
            replace(self.settings.dpo, seed=self.settings.seed),
            device=self.config.device,
            threads=self.config.threads,
            progress=standing_progress(f"Training the {role}", self.progress),
            cancel=self.cancel,
        )
        seconds["training"] = time.monotonic() - began
        began = time.monotonic()
        changed = self.adapters | {role: trained.adapter}
        with engine(self.config, changed, self.progress) as llm:
            after = self.work.once(f"{name}/dev", lambda: self._dev_rows(llm, changed))
        seconds["evaluation"] = time.monotonic() - began
        facts |= {
            "rollouts": _shown(rolled),
            "mix": {"pairs": len(mix.pairs), "dropped": mix.dropped, "winners": mix.winners, "notes": list(mix.notes)},
            "training": _training(trained),
            "dev": compared(self.dev, rows, after),
            "minutes": {k: round(v / 60, 2) for k, v in seconds.items()},
        }
        return facts | self._decide(role, mix, trained, facts) | {"dev_rows": after}

    def _rolled(self, index: int, role: Role) -> dict[str, Any]:
        """Rollouts and their pairs, with both credits' tallies, as JSON values."""
        with engine(self.config, self.adapters, self.progress) as llm:
            writer = Writer(llm, self.progress, self.cancel)
            asked = self.asked[index]
            rolled = roll_out(writer, role, asked, take_notes(writer, asked), self.settings.candidates)
        scored = [score_rollout(r, self.score) for r in rolled]
        found = [(i, s, s.raw if self.settings.credit == "raw" else s.differential) for i, s in enumerate(scored)]
        comparisons = [comparison(s, chosen, f"round-{index + 1}-{i}") for i, s, chosen in found if isinstance(chosen, Selected)]
        return {"comparisons": [asdict(c) for c in comparisons], **_ablation(scored, self.settings.credit), "tokens": writer.tokens}

    def _mix(self, role: Role, rolled: Mapping[str, Any] | None) -> Mix:
        """The step's pairs: of the rollouts, and of the votes about this role (those about systems calibrate)."""
        own = [_comparison(c) for c in rolled["comparisons"]] if rolled else []
        judged = [] if self.settings.use == "automatic" else [c for c in self.votes[0] if c.agent in (role, None)]
        known = {c.pair_id for c in judged}
        return mixed_pairs([*judged, *own], [c for c in self.votes[1] if c.pair_id in known], mode=self.settings.use)

    def _dev_rows(self, llm: LLM, adapters: Mapping[Role, Path]) -> list[dict[str, float]]:
        """For each dev question the mean of every term over its texts. The agents' notes are kept while their adapters stay."""
        writer = Writer(llm, self.progress, self.cancel)
        agents = tuple(str(adapters.get(role, "")) for role in ("style", "topic"))
        if self.dev_notes is None or self.dev_notes[0] != agents:
            self.dev_notes = (agents, take_notes(writer, self.dev))
        written = write_texts(writer, self.dev, self.dev_notes[1], DEV_TEXTS, "Texts of the dev slice")
        return [means(_row(q, c.text) for c in texts) for q, texts in zip(self.dev, written, strict=True)]

    def _decide(self, role: Role, mix: Mix, trained: Report, facts: Mapping[str, Any]) -> dict[str, str]:
        """Publishes the trained adapter unless the dev slice falls; which folder serves the role from here on, and why."""
        gain = facts["dev"]["gain"]["total"]
        said = f"the dev slice's reward changes by {gain['mean']:+.4f} [{gain['low']:+.4f}, {gain['high']:+.4f}]"
        if fell(facts["dev"]):
            return {"adapter": "", "version": "", "why": f"not published: {said}, a fall beyond noise"}
        if self.base.gguf is None:
            why = f"goes on unpublished, since only GGUF models have a registry: {said}"
            return {"adapter": str(trained.adapter), "version": "", "why": why}
        manifest = publish(
            trained.adapter,
            self.registry,
            role,
            self.base.gguf.stem,
            self.base.sha256,
            data=data_facts(mix.pairs) | {"files": [path.name for path in self.settings.data]},
            settings={"kind": "DPO round", "use": self.settings.use, "credit": self.settings.credit, **asdict(self.settings.dpo)},
            metrics={"dev": facts["dev"]["gain"], **{k: v for k, v in facts["training"].items() if k != "curve"}},
            parent=facts["parent"],
            judgment_ids=judgment_ids(mix.pairs),
            by="rounds",
            examine=examiner(self.config, self.base.gguf, role),
        )
        folder = self.registry / manifest.version
        (folder / "report.json").write_text(json.dumps(facts, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
        return {"adapter": str(folder), "version": manifest.version, "why": f"published: {said}"}


# What is reported


def fell(dev: Mapping[str, Any]) -> bool:
    """Whether the reward of the dev slice falls beyond noise: the whole interval of its change lies below 0."""
    return dev["gain"]["total"]["high"] < 0


def _row(question: Question, text: str) -> dict[str, float]:
    value = by_reference(question, text)
    terms = value.terms if n_words(text) else dict.fromkeys(("rouge_1", "rouge_l", "meteor", "style", "length", "copy"), 0.0)
    free = without_reference(question, text).total
    return {"total": value.total, "reference_free": free, "words": float(n_words(text)), **terms}


def compared(dev: Sequence[Question], before: Sequence[Mapping[str, float]], after: Sequence[Mapping[str, float]]) -> dict[str, Any]:
    """Every term before and after, and the paired change, each as a mean over users with its 95% bootstrap interval."""

    def by_user(values: Sequence[float]) -> list[float]:
        groups: dict[str, list[float]] = defaultdict(list)
        for q, value in zip(dev, values, strict=True):
            groups[q.query.user_id].append(value)
        return [float(np.mean(v)) for v in groups.values()]

    found: dict[str, Any] = {"n_questions": len(dev), "before": {}, "after": {}, "gain": {}}
    for name in before[0]:
        old, new = ([row[name] for row in rows] for rows in (before, after))
        for part, values in (("before", old), ("after", new), ("gain", np.subtract(new, old).tolist())):
            found[part][name] = _rounded(estimate(by_user(values)))
    return found


def _rounded(value: Estimate) -> dict[str, float]:
    return {"mean": round(value.mean, 4), "low": round(value.low, 4), "high": round(value.high, 4), "n": value.n}


def _ablation(scored: Sequence[Scored], credit: Credit) -> dict[str, Any]:
    """Rewards of the candidates, and what both credits make of them: pairs kept, prompts dropped and why, gaps and weights."""
    rewards = [r for s in scored for r in s.rewards]
    both = [(s.differential, s.raw) for s in scored if isinstance(s.differential, Selected) and isinstance(s.raw, Selected)]
    same = sum((d.chosen, d.rejected) == (r.chosen, r.rejected) for d, r in both)
    return {
        "credit": credit,
        "n_prompts": len(scored),
        "n_candidates": len(rewards),
        "reward_mean": float(np.mean(rewards)) if rewards else 0.0,
        "reward_best": float(np.mean([max(s.rewards) for s in scored if s.rewards])) if rewards else 0.0,
        "differential": asdict(tally(s.differential for s in scored)),
        "raw": asdict(tally(s.raw for s in scored)),
        "same_pair": same,
        "both_keep": len(both),
    }


def _shown(rolled: Mapping[str, Any] | None) -> dict[str, Any]:
    return {k: v for k, v in rolled.items() if k != "comparisons"} if rolled else {}


def _comparison(row: Mapping[str, Any]) -> Comparison:
    return Comparison(**{**row, "prompt": tuple((speaker, text) for speaker, text in row["prompt"])})


def _training(report: Report) -> dict[str, Any]:
    first, last = report.curve[0], report.curve[-1]
    return {
        "n_pairs": report.n_pairs,
        "n_too_long": report.n_too_long,
        "steps": report.steps,
        "tokens": report.tokens,
        "seconds": report.seconds,
        "loss": [round(first.loss, 4), round(last.loss, 4)],
        "margin": round(last.margin, 4),
        "accuracy": round(last.accuracy, 4),
        "kl": round(last.kl, 5),
        "chosen_tokens": round(float(np.mean([p.chosen_tokens for p in report.curve])), 1),
        "rejected_tokens": round(float(np.mean([p.rejected_tokens for p in report.curve])), 1),
        "curve": [{k: round(v, 4) for k, v in asdict(p).items()} for p in report.curve],
    }


def step_text(step: Mapping[str, Any]) -> str:
    """A step for a terminal."""
    lines = [f"Round {step['round']}, {step['role']}" + (f" (from {step['parent']})" if step["parent"] else "")]
    if rolled := step["rollouts"]:
        for credit in ("differential", "raw"):
            t = rolled[credit]
            dropped = "; ".join(f"{n} x {REASONS[reason]}" for reason, n in t["dropped"].items()) or "none dropped"
            kept = f"{t['kept']} of {t['n']} prompts give a pair, mean gap {t['gap']:.3f}, weight {t['weight']:.2f}"
            lines.append(f"  {credit} credit: {kept}; {dropped}")
        lines.append(f"  {rolled['same_pair']} of {rolled['both_keep']} pairs are the same by both credits")
        lines.append(f"  reward of a candidate {rolled['reward_mean']:.3f}, of the best of each prompt {rolled['reward_best']:.3f}")
    if mix := step.get("mix"):
        lines.append(f"  {mix['pairs']} pairs" + "".join(f"; {n} dropped: {reason}" for reason, n in mix["dropped"].items()))
        lines += [f"  {note}" for note in mix["notes"]]
    if t := step.get("training"):
        lines.append(
            f"  DPO: {t['steps']} updates, loss {t['loss'][0]:.3f} -> {t['loss'][1]:.3f}, margin {t['margin']:.2f}, "
            f"accuracy {t['accuracy']:.2f}, KL {t['kl']:.4f} nats a token, "
            f"{t['chosen_tokens']:.0f} tokens chosen, {t['rejected_tokens']:.0f} rejected"
        )
    if dev := step.get("dev"):
        for name in dev["gain"]:
            old, new, gain = (dev[part][name] for part in ("before", "after", "gain"))
            change = f"{gain['mean']:+.4f} [{gain['low']:+.4f}, {gain['high']:+.4f}]"
            lines.append(f"  dev {name}: {old['mean']:.3f} -> {new['mean']:.3f}, {change}")
    if minutes := step.get("minutes"):
        lines.append("  minutes: " + ", ".join(f"{name} {n:.1f}" for name, n in minutes.items()))
    return "\n".join([*lines, f"  {step['version'] or step['role']}: {step['why']}"])
