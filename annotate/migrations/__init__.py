"""Numbered schema steps, one ``NNNN_name.sql`` file each; each is applied in one transaction together with its version number.

A released step is never edited: a change of the schema is a new file. ``PRAGMA user_version`` holds the number of the last step applied.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from sqlite_utils import Database


@dataclass(frozen=True, slots=True)
class Step:
    """One schema step: ``sql`` brings version ``number - 1`` to ``number``."""

    number: int
    name: str
    sql: str


def load_steps(folder: Path) -> tuple[Step, ...]:
    """The steps in ``folder`` in order. Raises ValueError where the numbers are not 1, 2, 3 and so on."""
    files = sorted(folder.glob("[0-9][0-9][0-9][0-9]_*.sql"))
    steps = tuple(Step(int(file.name[:4]), file.stem[5:], file.read_text(encoding="utf-8")) for file in files)
    if [s.number for s in steps] != list(range(1, len(steps) + 1)):
        raise ValueError(f"the steps in {folder} are numbered {[s.number for s in steps]}; number them 1, 2, 3 without a gap")
    return steps


STEPS = load_steps(Path(__file__).parent)


def schema_version(db: Database) -> int:
    """The number of the last step applied, 0 for a database without any."""
    return db.execute("PRAGMA user_version").fetchone()[0]


def migrate(db: Database, steps: Sequence[Step] = STEPS) -> int:
    """Apply the steps that ``db`` lacks and return their count; a step that fails leaves the version before it, unchanged."""
    missing = [step for step in steps if step.number > schema_version(db)]
    for step in missing:
        db.execute("BEGIN IMMEDIATE")
        try:
            for statement in _statements(step.sql):
                db.execute(statement)
            db.execute(f"PRAGMA user_version = {step.number}")
            db.execute("COMMIT")
        except BaseException:
            db.rollback()
            raise
    return len(missing)


def _statements(script: str) -> Iterator[str]:
    """The statements of a script one by one: ``executescript`` would commit before the first."""
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""
    if statement.strip() and not all(line.startswith("--") or not line.strip() for line in statement.splitlines()):
        raise ValueError(f"the last statement has no semicolon: {statement.strip():.80}")
