"""The predictions of a run: one line for each answer, and beside the file what the run was.

A line holds all that scoring needs. Lines are written unit by unit (some people, all systems) and are on disk when a unit is done, so
that a run that was killed goes on where it stopped; a file of another run is refused and never mixed. Leaves out how answers come about.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from pat_core.benchmark import VISITORS, Task


@dataclass(frozen=True)
class Prediction:
    """One answer of one system to one case. ``copied`` is the longest run of words shared with a retrieved text, ``style`` the cosine of
    phi to the person's own text, ``consensus_distance`` 1 - cosine of meaning to the other reviews of the topic; None for ratings."""

    run: str
    user_id: str
    review_id: str
    system: str
    history: str
    task: Task
    topic: str
    title: str
    rating: float | None
    text: str
    reference: str
    prompt_sha256: str
    adapter: str
    seconds: float
    tokens: int
    copied: int | None = None
    style: float | None = None
    consensus_distance: float | None = None
    style_summary: str = ""
    topic_summary: str = ""
    drafts: tuple[str, ...] = ()
    own_texts: tuple[str, ...] = ()  # some that the person wrote besides, for a judge

    @property
    def case_id(self) -> tuple[str, bool]:
        return self.review_id, self.history == VISITORS

    def to_json(self) -> str:
        """The line of the file."""
        return json.dumps(asdict(self), ensure_ascii=False)

    @staticmethod
    def from_json(line: str) -> Prediction:
        """The prediction in a line; ValueError where it holds none."""
        try:
            value = json.loads(line)
            return Prediction(**value | {name: tuple(value.get(name, ())) for name in ("drafts", "own_texts")})
        except (TypeError, AttributeError, json.JSONDecodeError) as error:
            raise ValueError(f"this line is no prediction ({error}): {line[:80]!r}") from error


@dataclass(frozen=True)
class RunFacts:
    """What a run was: where it came from, how it was made, how long it took."""

    corpus: str
    file: str
    task: Task
    part: str
    made_at: str
    command: str
    settings: dict[str, Any]
    engine: str
    adapters: dict[str, str]
    seconds: float = 0.0
    tokens: int = 0
    notes: tuple[str, ...] = ()


class PredictionsFile:
    """The lines of one run, on disk where a path is given, and beside them OUT.settings.json, which says how they were made.

    Opening refuses a file of another run, and one that is there already unless ``resume``. ``facts`` grow by the time that units take.
    """

    def __init__(self, path: Path | None, facts: RunFacts, resume: bool = False) -> None:
        self.path, self.facts = path, facts
        self.run = run_id(facts.settings)
        self.lines: list[Prediction] = []
        self.units = 0
        self.check(path, resume)
        if path is None:
            return
        if path.exists():
            self._read()
        self._save_facts()

    @staticmethod
    def check(path: Path | None, resume: bool) -> None:
        """ValueError where a file would be overwritten, or where there is none to go on with."""
        if resume and path is None:
            raise ValueError("--resume needs --predictions, the file that a run before has begun")
        if path is not None and path.exists() and not resume:
            raise ValueError(f"{path} is there already; add --resume to go on with it, or give another file")

    def _read(self) -> None:
        beside = settings_path(self.path)
        if beside.exists():
            before = read_settings(beside)
            refuse_other_run(self.path, before.get("settings", {}), self.facts.settings)
            began, seconds, tokens = (before.get(name, 0) for name in ("made_at", "seconds", "tokens"))
            self.facts = replace(self.facts, made_at=str(began), seconds=float(seconds), tokens=int(tokens))
        self.lines = read_predictions(self.path, drop_cut_line=True)
        other = next((line.run for line in self.lines if line.run != self.run), "")
        if other:
            raise ValueError(f"{self.path} holds predictions of another run ({other}, not {self.run}); give another file")

    def keep_whole_units(self, units: Sequence[Sequence[tuple[str, str, str]]]) -> None:
        """Keeps the lines of those first units that are there whole, each given as (system, review, history) of its lines in order; what a
        cut left of the next one goes, to be written again."""
        have = [(line.system, line.review_id, line.history) for line in self.lines]
        at = 0
        for unit in units:
            if have[at : at + len(unit)] != list(unit):
                break
            at += len(unit)
            self.units += 1
        if at < len(have) and self.units == len(units):
            raise ValueError(f"{self.path} holds more than this run writes; it is of another run, give another file")
        self.lines = self.lines[:at]
        if self.path is not None and self.path.exists():
            _replace(self.path, "".join(line.to_json() + "\n" for line in self.lines))

    def add(self, lines: Sequence[Prediction], seconds: float, tokens: int) -> None:
        """The lines of a whole unit, on disk when this returns, and what they cost."""
        self.lines += lines
        self.units += 1
        self.facts = replace(self.facts, seconds=self.facts.seconds + seconds, tokens=self.facts.tokens + tokens)
        if self.path is None:
            return
        with open(self.path, "a", encoding="utf-8") as file:
            file.writelines(line.to_json() + "\n" for line in lines)
            file.flush()
            os.fsync(file.fileno())
        self._save_facts()

    def _save_facts(self) -> None:
        value = {"run": self.run, **asdict(self.facts)}
        _replace(settings_path(self.path), json.dumps(value, indent=1, ensure_ascii=False) + "\n")


def _replace(path: Path, text: str) -> None:
    """Puts ``text`` in the place of the file, whole or not at all."""
    new = path.with_name(f".{path.name}.new")
    with open(new, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)


def settings_path(predictions_path: Path) -> Path:
    """Where the settings of a predictions file stand."""
    return predictions_path.with_name(predictions_path.name.removesuffix(".jsonl") + ".settings.json")


def run_id(settings: Mapping[str, Any]) -> str:
    """16 hex digits that stand for these settings."""
    return hashlib.sha256(json.dumps(dict(settings), sort_keys=True, ensure_ascii=False).encode()).hexdigest()[:16]


def refuse_other_run(path: Path, theirs: Mapping[str, Any], mine: Mapping[str, Any]) -> None:
    """ValueError naming what differs where ``path`` was made with other settings."""
    differ = [n for n in dict.fromkeys([*mine, *theirs]) if json.dumps(theirs.get(n)) != json.dumps(mine.get(n))]
    if differ:
        told = "; ".join(f"{n} is {mine.get(n)!r} now and was {theirs.get(n)!r}" for n in differ)
        raise ValueError(f"{path} is of another run: {told}; give the settings of then, or another file")


def read_settings(path: Path) -> dict[str, Any]:
    """What stands beside a predictions file. ValueError where that is nothing of ours."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError) as error:
        raise ValueError(f"{path} cannot be read: {error}") from error
    if not isinstance(value, dict):
        raise ValueError(f"{path} holds no settings; it was not made by python -m pat_core.evaluate")
    return value


def read_predictions(path: Path, drop_cut_line: bool = False) -> list[Prediction]:
    """The predictions in a file; a last line that a kill cut short is dropped or refused. ValueError for anything else."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace" if drop_cut_line else "strict")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} cannot be read: {error}") from error
    whole, _, cut = text.rpartition("\n")
    if cut and not drop_cut_line:
        raise ValueError(f"the last line of {path} was cut short; finish the run with --resume first")
    return [Prediction.from_json(line) for line in whole.split("\n") if line.strip()]


def read_run(path: Path) -> tuple[list[Prediction], RunFacts]:
    """A finished predictions file and what its run was. ValueError where one of the two is missing or does not belong to the other."""
    lines, beside = read_predictions(path), settings_path(path)
    if not beside.exists():
        raise ValueError(f"{beside} is missing; it says how the predictions were made and belongs beside them")
    value = read_settings(beside)
    other = next((line.run for line in lines if line.run != value.get("run")), None)
    if other:
        raise ValueError(f"{path} holds predictions of another run ({other}) than {beside.name} tells of")
    try:
        facts = RunFacts(**{f.name: value[f.name] for f in fields(RunFacts)})
    except KeyError as error:
        raise ValueError(f"{beside} does not say {error}; it was not made by python -m pat_core.evaluate") from error
    return lines, replace(facts, notes=tuple(facts.notes))
