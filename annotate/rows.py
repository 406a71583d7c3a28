"""Nouns to rows and back, and the few ways a row may change: put, erase. Live writes and a replay of the journal use the same functions.

A *change* is what one journal line says: ``{"put": table, "row": {...}}`` or ``{"erase": annotator_id, "at": time}``. Leaves out
transactions and files.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any, TypeVar

from sqlite_utils import Database
from sqlite_utils.db import NotFoundError

from annotate.fields import canonical
from annotate.types import (
    Annotator,
    Assignment,
    Candidate,
    Erasure,
    Event,
    Exclusion,
    Export,
    Item,
    Judgment,
    Pair,
    Setting,
)

Noun = TypeVar("Noun", Setting, Erasure, Annotator, Item, Candidate, Pair, Assignment, Judgment, Exclusion, Event, Export)
Row = dict[str, Any]
Change = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Table:
    """How one noun is kept: its primary key, the fields kept as JSON or 0/1, the columns computed from it, whether rows may change."""

    name: str
    noun: type
    key: tuple[str, ...]
    json: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()
    computed: tuple[str, ...] = ()
    mutable: bool = False

    def row(self, noun: Any) -> Row:
        row: Row = {}
        for f in fields(self.noun):
            value = getattr(noun, f.name)
            if f.name in self.json:
                row[f.name + "_json"] = canonical(value)
            else:
                row[f.name] = int(value) if f.name in self.flags else value
        return row | {name: getattr(noun, name) for name in self.computed}

    def parse(self, row: Row) -> Any:
        values = {}
        for f in fields(self.noun):
            if f.name in self.json:
                value = json.loads(row[f.name + "_json"])
                values[f.name] = tuple(value) if f.name == "tags" else value
            else:
                values[f.name] = bool(row[f.name]) if f.name in self.flags else row[f.name]
        return self.noun(**values)


TABLES = (  # parents before children, so that a snapshot in this order can be replayed
    Table("settings", Setting, ("name",), json=("value",), mutable=True),
    Table("erasures", Erasure, ("annotator_id",), flags=("cleaned",), mutable=True),
    Table("annotators", Annotator, ("annotator_id",), mutable=True),
    Table("items", Item, ("item_id",), json=("reference",), computed=("item_id",)),
    Table("candidates", Candidate, ("candidate_id",), json=("trace",), computed=("candidate_id", "text_sha")),
    Table("pairs", Pair, ("pair_id",), computed=("pair_id",)),
    Table("assignments", Assignment, ("pair_id", "annotator_id"), mutable=True),
    Table("judgments", Judgment, ("seq",), json=("dims", "tags"), flags=("unblinded",)),
    Table("exclusions", Exclusion, ("exclusion_id",), flags=("active",), computed=("exclusion_id",), mutable=True),
    Table("events", Event, ("seq",), json=("detail",)),
    Table("exports", Export, ("export_id",), json=("query", "thresholds")),
)
_BY_NAME = {table.name: table for table in TABLES}
_BY_NOUN = {table.noun: table for table in TABLES}


def table_of(noun: type) -> Table:
    return _BY_NOUN[noun]


def select(db: Database, noun: type[Noun], **equals: Any) -> tuple[Noun, ...]:
    """All rows of a noun whose columns equal the values given (None matches NULL), in the order of their key."""
    table = table_of(noun)
    known = {f.name for f in fields(noun)} | set(table.computed)
    if unknown := sorted(set(equals) - known):
        raise ValueError(f"{noun.__name__} has no column {', '.join(unknown)}; use {', '.join(sorted(known))}")
    where = " AND ".join(f"{name} IS :{name}" for name in equals) or "1"
    rows = db.query(f"SELECT * FROM {table.name} WHERE {where} ORDER BY {', '.join(table.key)}", equals)
    return tuple(table.parse(row) for row in rows)


def find(db: Database, noun: type[Noun], **equals: Any) -> Noun | None:
    """The first row that ``select`` finds, or None."""
    found = select(db, noun, **equals)
    return found[0] if found else None


def apply(db: Database, change: Change) -> None:
    """Carry out one change inside the open transaction; a rule of the schema that it breaks raises sqlite3.IntegrityError."""
    if change.get("put") in _BY_NAME:
        _put(db, _BY_NAME[change["put"]], change["row"])
    elif "erase" in change:
        _erase(db, change["erase"], change["at"])
    else:
        raise ValueError(f"a change must erase or put into one of {', '.join(_BY_NAME)}, not {change.get('put')!r}")


def _put(db: Database, table: Table, row: Row) -> None:
    if table.mutable:
        key = tuple(row[name] for name in table.key)
        try:
            db.table(table.name).get(key)
        except NotFoundError:
            pass
        else:
            db.table(table.name).update(key, row)
            return
    db.table(table.name).insert(row)


def _erase(db: Database, annotator_id: str, at: str) -> None:
    """Delete every row of a person and the items they contributed, with all that hangs on those; leave a tombstone with counts."""
    who = {"who": annotator_id}
    own, item = "annotator_id = :who", "item_id IN (SELECT item_id FROM items WHERE contributor_id = :who)"
    pair = f"pair_id IN (SELECT pair_id FROM pairs WHERE {item})"
    vote = f"judgment_id IN (SELECT judgment_id FROM judgments WHERE {own} OR {pair})"

    def count(table: str, where: str) -> int:
        return db.execute(f"SELECT count(*) FROM {table} WHERE {where}", who).fetchone()[0]

    tombstone = Erasure(
        annotator_id,
        at,
        n_judgments=count("judgments", own),
        n_assignments=count("assignments", own),
        n_events=count("events", own),
        n_items=count("items", item),
        n_others=count("judgments", f"NOT {own} AND {pair}"),
    )
    _put(db, table_of(Erasure), table_of(Erasure).row(tombstone))  # first: it is what permits the deletions
    for table, where in (
        ("exclusions", f"{own} OR {pair} OR {vote}"),
        ("judgments", f"{own} OR {pair}"),
        ("assignments", f"{own} OR {pair}"),
        ("events", own),
        ("pairs", item),
        ("candidates", item),
        ("items", item),
        ("annotators", own),
    ):
        db.execute(f"DELETE FROM {table} WHERE {where}", who)


def snapshot(db: Database) -> Iterator[Change]:
    """Changes that put every row into an empty database; rows come in the order in which they were inserted."""
    for table in TABLES:
        for row in db.query(f"SELECT * FROM {table.name} ORDER BY rowid"):
            yield {"put": table.name, "row": row}


def position(db: Database) -> tuple[str, int, str]:
    """(store_id, number of the last change, chained hash of the journal up to it)."""
    return db.execute("SELECT store_id, seq, head FROM meta").fetchone()


def set_position(db: Database, seq: int, head: str) -> None:
    db.execute("UPDATE meta SET seq = ?, head = ?", [seq, head])


def content_hash(db: Database) -> str:
    """sha256 over every row of every table, in the order of their keys: equal exactly where two databases hold the same."""
    digest = hashlib.sha256(canonical(position(db)).encode())
    for table in TABLES:
        for row in db.query(f"SELECT * FROM {table.name} ORDER BY {', '.join(table.key)}"):
            digest.update(f"\n{table.name} {canonical(row)}".encode())
    return digest.hexdigest()


def counts(db: Database) -> dict[str, int]:
    return {table.name: db.execute(f"SELECT count(*) FROM {table.name}").fetchone()[0] for table in TABLES}
