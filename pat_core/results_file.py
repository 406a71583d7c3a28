"""The file of one evaluation, as the report and the Results page read it: checked value by value, whoever wrote it.

A number that is not one, or a list where a name belongs, is a sentence and not half a report; texts stay texts and are escaped where they
are shown. ``keep`` and ``find_reports`` are where finished runs go and where the page finds them. Leaves out how the figures are made.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pat_core.estimates import Difference, Estimate

VERSION = 1
TASKS = ("long", "short", "rating")
KINDS = ("ours", "rival", "baseline", "ablation", "control", "reference")
MAX_BYTES = 8 * 1024 * 1024
MAX_REPORTS = 60
MAX_SYSTEMS = 60
LARGEST = 1e12
OURS = "pat"

Measures = dict[str, Estimate]


@dataclass(frozen=True, slots=True)
class System:
    """One way to write, and its figures: group of people -> measure -> estimate."""

    name: str
    label: str
    kind: str
    description: str
    groups: dict[str, Measures]

    def of(self, measure: str, group: str = "all") -> Estimate | None:
        return self.groups.get(group, {}).get(measure)


@dataclass(frozen=True, slots=True)
class Example:
    """One person's request, what they wrote themselves, what the agents noted and what each system wrote."""

    topic: str
    title: str
    rating: str
    history: str
    reference: str
    style_summary: str
    topic_summary: str
    texts: dict[str, str]


@dataclass(frozen=True, slots=True)
class Duel:
    """What a judge model said of PaT against one rival; None where it decided nothing."""

    won: Estimate | None
    at_equal_length: float | None
    coverage: float | None
    n_pairs: int | None


@dataclass(frozen=True, slots=True)
class Report:
    """Everything of one evaluation. ``paired`` and ``gain`` are PaT minus another system and minus itself with another person's notes."""

    corpus: str
    file: str
    task: str
    part: str
    made_at: str
    command: str
    engine: str
    meteor: str
    settings: dict[str, str]
    adapters: dict[str, str]
    n_users: int
    seconds: float | None
    tokens_per_second: float | None
    systems: dict[str, System]
    paired: dict[str, dict[str, Difference]]
    gain: dict[str, dict[str, Difference]]
    examples: tuple[Example, ...]
    judge: str
    duels: dict[str, Duel]
    notes: tuple[str, ...]

    @property
    def measure(self) -> str:
        """The one figure that systems are ranked by."""
        return "mae" if self.task == "rating" else "mean"

    @property
    def up(self) -> bool:
        """Is more of ``measure`` better?"""
        return self.task != "rating"

    @property
    def groups(self) -> tuple[str, ...]:
        """Groups of people that any system has figures of, everybody first."""
        seen = dict.fromkeys(g for s in self.systems.values() for g in s.groups)
        known = [g for g in ("all", "0", "1", "2+", "visitors") if g in seen]
        return (*known, *(g for g in seen if g not in known))


@dataclass(frozen=True, slots=True)
class Found:
    """Reports by the id that a page may ask for, newest first, and a sentence for each file that is none."""

    reports: dict[str, Report]
    skipped: tuple[str, ...]


def read_results(value: object) -> Report:
    """The report in a parsed results file; ValueError names what is missing or wrong."""
    top = _object(value, "the file")
    if top.get("version") != VERSION:
        raise ValueError(
            f"version is {str(top.get('version'))!r:.40}, not {VERSION}: this is no results file of `python -m pat_core.evaluate --json`"
        )
    task = _text(top, "task")
    if task not in TASKS:
        raise ValueError(f"task {task!r:.40} is not known; use one of {', '.join(TASKS)}")
    systems = {name: _system(name, s) for name, s in _object(top.get("systems"), "systems").items()}
    if not systems or len(systems) > MAX_SYSTEMS:
        raise ValueError(f"systems holds {len(systems)} systems; from 1 to {MAX_SYSTEMS} can be shown")
    judge = _object(top.get("judge") or {}, "judge")
    notes = [*_list(top.get("notes") or [], "notes"), *_list(judge.get("notes") or [], "judge.notes")]
    return Report(
        **{name: _text(top, name) for name in ("corpus", "file", "part", "made_at", "command", "engine", "meteor")},
        task=task,
        settings={k: _said(v) for k, v in _object(top.get("settings") or {}, "settings").items()},
        adapters={k: _said(v) for k, v in _object(top.get("adapters") or {}, "adapters").items()},
        n_users=int(_number(top, "n_users")),
        seconds=_maybe(top, "seconds"),
        tokens_per_second=_maybe(top, "tokens_per_second"),
        systems=systems,
        paired=_differences(top, "paired"),
        gain=_differences(top, "gain"),
        examples=tuple(_example(e) for e in _list(top.get("examples") or [], "examples")),
        judge=_text(judge, "model"),
        duels={k: _duel(v, f"judge.rivals.{k}") for k, v in _object(judge.get("rivals") or {}, "judge.rivals").items()},
        notes=tuple(map(_said, notes)),
    )


def load(path: Path) -> Report:
    """The report in ``path``; ValueError with a sentence where there is none."""
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ValueError(f"it is larger than {MAX_BYTES // 1024**2} MB")
        return read_results(json.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise ValueError(error.strerror or str(error)) from None
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    except UnicodeDecodeError:
        raise ValueError("it is not UTF-8") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"it is not JSON ({error.msg} in line {error.lineno})") from None


def keep(results: Mapping[str, Any], home: Path) -> Path:
    """Puts a finished run where the Results page looks for it: ``home/results/<corpus>-<task>-<time>.json``. Never over another run.

    ValueError for what the page could not show.
    """
    report = read_results(results)
    folder = home / "results"
    folder.mkdir(parents=True, exist_ok=True)
    name = "-".join(_slug(part) for part in (report.corpus, report.task, report.made_at.replace(":", "").replace("-", "")))
    fresh = folder / f".{name}.{os.getpid()}.tmp"
    fresh.write_text(json.dumps(results, ensure_ascii=False, allow_nan=False, indent=1) + "\n", encoding="utf-8")
    number, path = 1, folder / f"{name}.json"
    while path.exists():
        number += 1
        path = folder / f"{name}-{number}.json"
    return fresh.rename(path)


def find_reports(folders: Sequence[Path]) -> Found:
    """The newest ``MAX_REPORTS`` reports of ``folders`` by the time they were made; of two with one name the first stays."""
    reports: dict[str, Report] = {}
    skipped: list[str] = []
    for folder in folders:
        files = [p for p in folder.glob("*.json") if p.is_file()] if folder.is_dir() else []
        newest = sorted(files, key=lambda p: (-p.stat().st_mtime, p.name))
        for path in newest[:MAX_REPORTS]:
            try:
                reports.setdefault(path.stem, load(path))
            except ValueError as error:
                skipped.append(f"{path.name} is left out: {error}.")
    newest_first = sorted(reports.items(), key=lambda item: (item[1].made_at, item[0]), reverse=True)
    return Found(dict(newest_first[:MAX_REPORTS]), tuple(skipped))


def _system(name: str, value: object) -> System:
    where = f"systems.{name}"
    of = _object(value, where)
    kind = _text(of, "kind") or "rival"
    if kind not in KINDS:
        raise ValueError(f"{where}.kind {kind!r:.40} is not known; use one of {', '.join(KINDS)}")
    groups: dict[str, Measures] = {}
    for group, measures in _object(of.get("groups"), f"{where}.groups").items():
        here = f"{where}.groups.{group}"
        groups[group] = {m: _estimate(e, f"{here}.{m}") for m, e in _object(measures, here).items() if e is not None}
    return System(name, _text(of, "label") or name, kind, _text(of, "description"), groups)


def _estimate(value: object, where: str) -> Estimate:
    of = _object(value, where)
    return Estimate(*(_number(of, k, where) for k in ("mean", "low", "high")), int(_number(of, "n", where)))


def _differences(top: Mapping[str, Any], name: str) -> dict[str, dict[str, Difference]]:
    return {
        key: {m: _difference(d, f"{name}.{key}.{m}") for m, d in _object(measures, f"{name}.{key}").items() if d is not None}
        for key, measures in _object(top.get(name) or {}, name).items()
    }


def _difference(value: object, where: str) -> Difference:
    of, e = _object(value, where), _estimate(value, where)
    needed = _maybe(of, "needed", where)
    return Difference(e.mean, e.low, e.high, e.n, _maybe(of, "relative", where), None if needed is None else int(needed))


def _duel(value: object, where: str) -> Duel:
    of = _object(value, where)
    pairs = _maybe(of, "pairs", where)
    rate = {"mean": of.get("win_rate"), "low": of.get("low"), "high": of.get("high"), "n": of.get("n")}
    return Duel(
        won=None if rate["mean"] is None else _estimate(rate, where),
        at_equal_length=_maybe(of, "length_adjusted", where),
        coverage=_maybe(of, "coverage", where),
        n_pairs=None if pairs is None else int(pairs),
    )


def _example(value: object) -> Example:
    of = _object(value, "an example")
    texts = {name: _said(text) for name, text in _object(of.get("texts") or {}, "the texts of an example").items()}
    names = ("topic", "title", "rating", "history", "reference", "style_summary", "topic_summary")
    return Example(**{name: _text(of, name) for name in names}, texts=texts)


def _object(value: object, where: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise ValueError(f"{where} holds {type(value).__name__} where an object with names is expected")
    return {_said(name): of for name, of in value.items()}


def _list(value: object, where: str) -> list[Any]:
    if not isinstance(value, list | tuple):
        raise ValueError(f"{where} holds {type(value).__name__} where a list is expected")
    return list(value)


def _text(of: Mapping[str, Any], name: str) -> str:
    return "" if of.get(name) is None else _said(of[name])


def _said(value: object) -> str:
    """Any value in words: a text without halves of characters, names with commas, a whole number without its point, the rest as JSON."""
    if isinstance(value, list | tuple) and all(isinstance(v, str) for v in value):
        value = ", ".join(value)
    elif isinstance(value, float) and value.is_integer():
        value = int(value)
    said = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return said.encode("utf-8", "replace").decode("utf-8")


def _number(of: Mapping[str, Any], name: str, where: str = "") -> float:
    value = of.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not -LARGEST < value < LARGEST:
        raise ValueError(f"{where}{'.' * bool(where)}{name} is {value!r:.40}, not a number that can be shown")
    return float(value)


def _maybe(of: Mapping[str, Any], name: str, where: str = "") -> float | None:
    return None if of.get(name) is None else _number(of, name, where)


def _slug(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9_+]+", "-", text).strip("-")[:60] or "run"
