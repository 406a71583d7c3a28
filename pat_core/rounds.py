"""The learning loop: rounds in which each role in turn is rolled out, paired by credit, trained by DPO and published (method: DPO rounds).

A step is one role in one round. Its rollouts, its checkpoints and its result are kept in a folder of the run, so that a run that was
killed goes on in the middle of a step; the same command once more, after a run has ended, is a new run. Whether a version is published is
for the fixed dev slice to say, users of the *choosing* part, who are never trained on, by the paired change of their mean reward. A step
that learned from that reward alone has to be level with what it came from at least. Where votes decide the pairs, the reward is not what
people were asked for: only a fall beyond noise keeps such a step back, the 95% interval by bootstrap over users lying below 0. The engine
is closed while a step trains and opened again with what was published. Leaves out where votes come from.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Literal, cast

from filelock import FileLock, Timeout

from pat_core.adapters import AdapterError, NotWritten, active_adapters, publish
from pat_core.cache import file_sha256
from pat_core.config import Config
from pat_core.credit import Selected
from pat_core.dpo import WEIGHTS, DPOSettings, Report, Standing, TrainingError, data_facts, judgment_ids, train_preferences
from pat_core.llm import open_llm
from pat_core.llm.types import LLM
from pat_core.metrics import meteor_matching
from pat_core.pipeline import Workbench
from pat_core.preferences import Choice, Comparison, Mix, Mode, about, calibrate, mixed_pairs
from pat_core.progress import Progress
from pat_core.prompts import Messages
from pat_core.rounds_report import (
    Credit,
    Term,
    ablation,
    compared,
    comparison_from,
    dev_row,
    examples_of,
    mix_facts,
    no_pair,
    step_text,
    training_facts,
    verdict,
    without_pairs,
)
from pat_core.rounds_rollouts import (
    Notes,
    Question,
    Stopped,
    Writer,
    by_reference,
    comparison,
    means,
    open_bench,
    questions,
    read_out,
    roll_out,
    score_rollout,
    take_notes,
    text_messages,
    without_reference,
    write_texts,
)
from pat_core.run_state import Part, RunFile
from pat_core.train import Reference, examiner
from pat_core.types import ADAPTER_ROLES, AGENTS, Agent, Role
from pat_core.weights import embedded_gguf, reference_folder, sha256

log = logging.getLogger(__name__)

DEV_SEED = 1_000_003  # the dev slice is the same for every run on the same files
DEV_TEXTS = 2  # texts for each dev question; one alone is as noisy as what is to be seen
SHOWN = 5  # dev questions whose texts are kept, before and after each step
RewardKind = Literal["reference", "reference-free", "likelihood"]
TRAINED = "adapter"  # the folder of a trained adapter that is not published


@dataclass(frozen=True, slots=True)
class RoundSettings:
    """What a run does: ``prompts`` questions and ``candidates`` each for a step, ``dev`` questions to evaluate on.

    A summary's reward is the mean over the ``texts`` written from it, for those differ more than the worth of two summaries does.
    ``use`` *automatic* learns from rewards; *human* from votes alone; *both* from both. ``reward`` *reference* holds texts against what
    people really wrote; *reference-free* does not, as in live use: it says the same of a text whoever wrote the reference, so that fewer
    pairs are chosen by luck, and it is what votes calibrate, so *both* takes it always. *likelihood* is for the agents alone: how probable
    a summary makes what people really wrote to the generator, so that no text is written and nothing is left to luck.

    ``credit`` *raw* is the ablation: the higher reward wins, whatever there is without the summary, and all pairs weigh the same.
    """

    data: tuple[Path, ...]
    rounds: int = 1
    prompts: int = 32
    candidates: int = 4
    texts: int = 2
    roles: tuple[Role, ...] = ADAPTER_ROLES
    use: Mode = "automatic"
    reward: RewardKind = "reference"
    credit: Credit = "differential"
    dev: int = 40
    seed: int = 0
    dpo: DPOSettings = DPOSettings(learning_rate=2e-4, epochs=2)  # noqa: RUF009 - frozen

    def __post_init__(self) -> None:
        if not self.data:
            raise ValueError("name at least one corpus file to roll out on")
        for name, low in (("rounds", 1), ("prompts", 2), ("candidates", 2), ("texts", 1), ("dev", 2)):
            if getattr(self, name) < low:
                raise ValueError(f"{name} must be at least {low}, not {getattr(self, name)}")
        for name in ("candidates", "texts"):
            if getattr(self, name) > 16:
                raise ValueError(f"{name} must be at most 16, not {getattr(self, name)}")
        if self.reward == "likelihood" and (self.use != "automatic" or not set(self.roles) <= set(AGENTS)):
            raise ValueError("reward 'likelihood' tells what a summary is worth: name --roles style topic, without votes, or take another")

    @property
    def learned(self) -> Term:
        """The term of the dev rows that the rollouts are chosen by."""
        if self.reward == "likelihood":
            return "likelihood"
        return "reference_free" if self.use == "both" or self.reward == "reference-free" else "total"

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
    """A run's folder. ``once`` makes a JSON value the first time and reads it afterwards; one that was damaged is made again."""

    folder: Path

    @classmethod
    def of(cls, home: Path, kind: str, facts: object) -> Work:
        key = hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()[:12]
        folder = home / "training" / f"{kind}-{key}"
        folder.mkdir(parents=True, exist_ok=True)
        return cls(folder)

    def once(self, name: str, make: Callable[[], Any]) -> Any:
        path = self.folder / f"{name}.json"
        found = self.kept(name)
        if found is not None:
            return found
        path.parent.mkdir(parents=True, exist_ok=True)
        new = path.with_name(f".{path.name}.new")
        text = json.dumps(make(), ensure_ascii=False, allow_nan=False)
        with new.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        new.replace(path)
        return json.loads(text)

    def kept(self, name: str) -> Any:
        """The value called ``name``, None where it is not there or cannot be read."""
        path = self.folder / f"{name}.json"
        try:
            return json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except ValueError as error:
            log.warning("%s is damaged (%s) and is made again", path, error)
            return None

    def empty(self) -> None:
        """Leaves nothing in the folder. It is renamed first, so that a run that dies meanwhile leaves no half of it to go on from."""
        ended = self.folder.with_name(f".ended-{uuid.uuid4().hex}")
        self.folder.rename(ended)
        self.folder.mkdir()
        for leftover in self.folder.parent.glob(".ended-*"):
            shutil.rmtree(leftover, ignore_errors=True)


def open_base(config: Config, progress: Progress | None = None) -> Base:
    """The model that ``config`` names with the adapters that serve it now. ValueError for one that is on a server."""
    if config.engine == "server" or (config.engine == "auto" and config.llm_url):
        raise ValueError("a model on a server cannot be trained from here; unset PAT_LLM_URL, or train where the model's files are")
    if config.model != "embedded" and not config.model.endswith(".gguf"):
        return Base(config.model, None, "", {})
    gguf = embedded_gguf(config.home, progress) if config.model == "embedded" else Path(config.model).expanduser().resolve()
    if not gguf.is_file():
        raise ValueError(f"PAT_MODEL={config.model!r}: there is no such file. Use embedded, a hub id, a local folder or a .gguf file")
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
    watch: RunFile | None = None,
    activate: bool = True,
) -> dict[str, Any]:
    """All rounds; the report as JSON values, and each step's text through ``tell`` as it ends.

    ``open_corpus`` makes the workbench on a file, ``open_bench`` unless given. ``watch`` is told part by part how it goes. Without
    ``activate`` what is published serves in this run only, until somebody activates it. Raises ValueError, LLMError, TrainingError,
    AdapterError or Stopped, each with a sentence; what was published before stays.
    """
    require_teaching(settings, votes)
    base = open_base(config, progress)
    files = [file_sha256(path) if path.is_file() else "" for path in settings.data]
    known = data_facts_of(votes) if settings.use != "automatic" else ""
    work = Work.of(config.home, "rounds", [settings.facts(), files, known, str(registry), base.sha256 or str(base.folder)])
    opened = open_corpus or partial(_opened, config, progress)
    stop = cancel or threading.Event()
    with _alone(work):
        begin(work, base)
        return _Loop(config, settings, registry, votes, base, work, progress, stop, tell, opened, watch, activate).run()


def require_teaching(settings: RoundSettings, votes: tuple[Sequence[Comparison], Sequence[Choice]]) -> None:
    """ValueError, in a sentence, where votes are to teach and teach none of the roles: said now and not after hours."""
    if settings.use == "automatic":
        return
    if not votes[1]:
        raise ValueError("there are no judgments yet; let people judge some pairs first, or learn from the automatic reward alone")
    if settings.use == "both" and any(rewards_count(role, votes) for role in settings.roles):
        return
    taught = {pair.agent for pair in mixed_pairs(*votes, mode="human").pairs}
    if not taught & set(settings.roles):
        raise ValueError(f"the votes teach {' and '.join(sorted(taught))}, and none of the roles asked for: {', '.join(settings.roles)}")


def rewards_count(role: Role, votes: tuple[Sequence[Comparison], Sequence[Choice]]) -> bool:
    """Whether the votes that concern ``role`` show that the automatic reward predicts people: else no reward gets into its labels."""
    fit = calibrate(*about(role, *votes))
    return fit is not None and fit.predicts


def _opened(config: Config, progress: Progress | None, data: Path, llm: LLM) -> Workbench:
    return open_bench(config, data, llm, progress)


def data_facts_of(votes: tuple[Sequence[Comparison], Sequence[Choice]]) -> str:
    """One hash of the votes that are learned from; '' for none."""
    rows = sorted(f"{c.pair_id} {c.annotator} {c.winner} {c.judgment_id}" for c in votes[1])
    return hashlib.sha256("\n".join(rows).encode()).hexdigest() if rows else ""


@contextmanager
def _alone(work: Work) -> Iterator[None]:
    """One run at a time in ``work``; the lock of a run that dies is free."""
    lock = FileLock(work.folder.with_name(f".{work.folder.name}.lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise TrainingError("another process is at work on the same run; wait for its end, or stop it") from error
    try:
        yield
    finally:
        lock.release()


def begin(work: Work, base: Base) -> None:
    """Leaves in ``work`` what a run that was begun and did not end can go on with: nothing where the last one ended, or where an adapter
    it started from, or made, is gone."""
    start = work.kept("start")
    used = [*start["adapters"].values()] if start else []
    used += [r["adapter"] for p in work.folder.glob("round-*/result.json") if (r := work.kept(f"{p.parent.name}/result")) and r["adapter"]]
    if (work.folder / "report.json").is_file() or not start or not all((Path(folder) / WEIGHTS).is_file() for folder in used):
        work.empty()
    work.once("start", lambda: {"adapters": {role: str(path) for role, path in base.adapters.items()}})


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
        watch: RunFile | None,
        activate: bool,
    ) -> None:
        self.config, self.settings, self.registry, self.votes, self.base, self.work = config, settings, registry, votes, base, work
        self.progress, self.cancel, self.tell, self.open_corpus = progress, cancel, tell, open_corpus
        self.watch, self.activate = watch, activate
        start = work.once("start", dict)["adapters"]
        self.adapters: dict[Role, Path] = {role: Path(path) for role, path in start.items()}
        self.score = without_reference if settings.learned == "reference_free" else by_reference
        self.asked: list[list[Question]] = []
        self.dev: list[Question] = []
        self.dev_notes: tuple[tuple[str, ...], list[Notes]] | None = None
        self.shown: list[dict[str, str]] = []

    def run(self) -> dict[str, Any]:
        started = time.monotonic()
        with engine(self.config, self.adapters, self.progress) as llm:
            self._gather(llm)
            self._part("starting point")
            rows = self.work.once("dev-0", lambda: self._dev_rows(llm, self.adapters, "dev-0"))
            self.shown = self._texts("dev-0")
        steps = []
        for index in range(self.settings.rounds):
            for role in self.settings.roles:
                step = self._step(index, role, rows)
                steps.append({k: v for k, v in step.items() if k != "dev_rows"})
                if step["adapter"]:
                    self.adapters[role] = Path(step["adapter"])
                    rows = step["dev_rows"]
                    self.shown = [example["after"] for example in step.get("examples", ())]
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
        if self.watch:
            self.watch.step({k: v for k, v in done.items() if k != "dev_rows"})
        return done

    def _part(self, part: Part, index: int = -1, role: str = "") -> None:
        if self.watch:
            self.watch.part(part, index + 1, role)

    def _standing(self, standing: Standing, bar: Callable[[Standing], None] | None) -> None:
        if bar:
            bar(standing)
        if self.watch:
            self.watch.standing(standing)

    def _made_step(self, index: int, role: Role, name: str, rows: list[dict[str, float]]) -> dict[str, Any]:
        started = time.monotonic()
        facts: dict[str, Any] = {"round": index + 1, "role": role, "parent": self.adapters[role].name if role in self.adapters else ""}
        rolled = self.work.once(f"{name}/rollouts", lambda: self._rolled(index, role)) if self._rolls(role) else None
        seconds = {"rollouts": time.monotonic() - started}
        try:
            mix = self._mix(role, rolled)
        except ValueError as error:
            nothing = {"adapter": "", "version": "", "why": f"nothing to train on: {error}"}
            return facts | nothing | {"rollouts": without_pairs(rolled), "dev_rows": rows}
        began = time.monotonic()
        self._part("training", index, role)
        bar = standing_progress(f"Training the {role}", self.progress)
        trained = train_preferences(
            self.base.folder,
            self.adapters.get(role),
            mix.pairs,
            self.work.folder / name,
            replace(self.settings.dpo, seed=self.settings.seed),
            device=self.config.device,
            threads=self.config.threads,
            progress=partial(self._standing, bar=bar),
            cancel=self.cancel,
        )
        seconds["training"] = time.monotonic() - began
        began = time.monotonic()
        self._part("evaluating", index, role)
        changed = self.adapters | {role: trained.adapter}
        with engine(self.config, changed, self.progress) as llm:
            after = self.work.once(f"{name}/dev", lambda: self._dev_rows(llm, changed, f"{name}/dev"))
        seconds["evaluation"] = time.monotonic() - began
        facts |= {
            "rollouts": without_pairs(rolled),
            "mix": mix_facts(mix),
            "training": training_facts(trained, self.settings.dpo.epochs),
            "dev": compared(self.dev, rows, after),
            "minutes": {k: round(v / 60, 2) for k, v in seconds.items()},
        }
        self._part("publishing", index, role)
        examples = examples_of(self.dev, self.shown, self._texts(f"{name}/dev"))
        return facts | self._decide(role, mix, trained, facts) | {"examples": examples, "dev_rows": after}

    def _rolls(self, role: Role) -> bool:
        """Whether rollouts of ``role`` can give pairs: never where votes alone decide, or where they say that the reward means nothing."""
        return self.settings.use == "automatic" or (self.settings.use == "both" and rewards_count(role, self.votes))

    def _rolled(self, index: int, role: Role) -> dict[str, Any]:
        """Rollouts and their pairs, with both credits' tallies, as JSON values."""
        self._part("rolling out", index, role)
        with engine(self.config, self.adapters, self.progress) as llm:
            writer = Writer(llm, self.progress, self.cancel)
            asked = self.asked[index]
            notes, k = take_notes(writer, asked), self.settings.candidates
            if self.settings.reward == "likelihood":
                scored = read_out(writer, cast("Agent", role), asked, notes, k, self._likelihood)
            else:
                scored = [score_rollout(r, self.score) for r in roll_out(writer, role, asked, notes, k, self.settings.texts)]
        found = [(i, s, s.raw if self.settings.credit == "raw" else s.differential) for i, s in enumerate(scored)]
        comparisons = [comparison(s, chosen, f"round-{index + 1}-{i}") for i, s, chosen in found if isinstance(chosen, Selected)]
        return {"comparisons": [asdict(c) for c in comparisons], **ablation(scored, self.settings.credit), "tokens": writer.tokens}

    def _mix(self, role: Role, rolled: Mapping[str, Any] | None) -> Mix:
        """The step's pairs: of the rollouts, and of the votes about this role (those about systems calibrate)."""
        own = [comparison_from(c) for c in rolled["comparisons"]] if rolled else []
        judged, choices = ((), ()) if self.settings.use == "automatic" else about(role, *self.votes)
        if rolled and not own and not judged:
            raise ValueError(no_pair(rolled))
        return mixed_pairs([*judged, *own], choices, mode=self.settings.use)

    def _dev_rows(self, llm: LLM, adapters: Mapping[Role, Path], name: str) -> list[dict[str, float]]:
        """For each dev question the mean of every term over its texts; the first questions' texts are kept beside, under ``name``.

        The agents' notes are kept while their adapters stay.
        """
        writer = Writer(llm, self.progress, self.cancel)
        agents = tuple(str(adapters.get(role, "")) for role in ("style", "topic"))
        if self.dev_notes is None or self.dev_notes[0] != agents:
            self.dev_notes = (agents, take_notes(writer, self.dev))
        written = write_texts(writer, self.dev, self.dev_notes[1], DEV_TEXTS, "Texts of the dev slice")
        first = zip(self.dev_notes[1][:SHOWN], written, strict=False)
        self.work.once(f"{name}-texts", lambda: [{agent: c.text for agent, c in n.items()} | {"text": t[0].text} for n, t in first])
        rows = [means(dev_row(q, c.text) for c in texts) for q, texts in zip(self.dev, written, strict=True)]
        if self.settings.reward == "likelihood":
            for row, q, note in zip(rows, self.dev, self.dev_notes[1], strict=True):
                row["likelihood"] = self._likelihood(text_messages(llm, q, note["style"].text, note["topic"].text), q.reference)
        return rows

    def _likelihood(self, messages: Messages, text: str) -> float:
        """How probable the generator that serves finds ``text``. It stays the same: where likelihoods count, only agents learn."""
        return self._generator.score(messages, text, half=self.settings.dpo.precision == "bfloat16")

    @cached_property
    def _generator(self) -> Reference:
        import torch

        device = "cuda" if torch.cuda.is_available() and self.config.device != "cpu" else "cpu"
        return Reference.load(self.base.folder, self.adapters.get("generator"), device)

    def _texts(self, name: str) -> list[dict[str, str]]:
        """Text and summaries for the first dev questions as ``_dev_rows`` kept them under ``name``."""
        return self.work.once(f"{name}-texts", list)

    def _decide(self, role: Role, mix: Mix, trained: Report, facts: Mapping[str, Any]) -> dict[str, str]:
        """Publishes the trained adapter where the dev slice lets it; which folder serves the role from here on, and why.

        Where it is published without being activated, it serves the rest of this run only.
        """
        lets, said = verdict(facts["dev"], self.settings.use, "total" if self.settings.use == "both" else self.settings.learned)
        if not lets:
            return {"adapter": "", "version": "", "why": f"not published: {said}"}
        if self.base.gguf is None:
            why = f"goes on unpublished, since only GGUF models have a registry: {said}"
            return {"adapter": str(trained.adapter), "version": "", "why": why}
        try:
            manifest = publish(
                trained.adapter,
                self.registry,
                role,
                self.base.gguf.stem,
                self.base.sha256,
                data=data_facts(mix.pairs) | {"files": [path.name for path in self.settings.data]},
                settings={
                    "kind": "DPO round",
                    **{name: getattr(self.settings, name) for name in ("use", "reward", "credit")},
                    **asdict(self.settings.dpo),
                },
                metrics={"dev": facts["dev"]["gain"], **{k: v for k, v in facts["training"].items() if k != "curve"}},
                parent=facts["parent"],
                judgment_ids=judgment_ids(mix.pairs),
                by="rounds",
                examine=examiner(self.config, self.base.gguf, role),
                activate=self.activate,
                report=facts,
            )
        except NotWritten:
            raise
        except AdapterError as error:  # such a version is the outcome of a step, and no reason to end the others
            return {"adapter": "", "version": "", "why": f"not published: {error}"}
        how = "published" if self.activate else "published, not activated"
        return {"adapter": str(self.registry / manifest.version), "version": manifest.version, "why": f"{how}: {said}"}
