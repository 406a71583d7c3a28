"""Into a store from elsewhere, all or nothing: a whole campaign from an export folder, or pairs made by others from a file.

An *export folder* (``annotate.export``) brings items, texts, pairs, people, answers and exclusions with their ids and times, so that
exporting again gives the same bytes; whoever was erased here stays erased. A *file of pairs* (``annotate.sheets``) brings two texts a row.
Leaves out settings and secrets: a campaign has its own.

    python -m annotate.transfer --db DB SOURCE
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import sqlite3
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from annotate import queries
from annotate.database import StoreError, connect_reader
from annotate.intake import put_new, record, same_texts
from annotate.rows import select, table_of
from annotate.sheets import MAX_ROWS, Made, Sheet, made_from, read_sheet, read_text
from annotate.store import Store, open_store
from annotate.types import (
    Added,
    Annotator,
    Assignment,
    Candidate,
    Check,
    Erasure,
    Event,
    Exclusion,
    Item,
    Judgment,
    JudgmentQuery,
    Pair,
)
from annotate.writer import Transaction
from pat_core.config import load_config
from pat_core.readers import Refusal, Row

CAMPAIGN = "campaign"  # the folder inside an export that holds all rows
SUMS = "SHA256SUMS"
FILES: dict[str, type] = {
    "items": Item,
    "candidates": Candidate,
    "pairs": Pair,
    "annotators": Annotator,
    "assignments": Assignment,
    "judgments": Judgment,
    "exclusions": Exclusion,
}
NOT_EXPORTED = {Annotator: ("identity_sha",), Judgment: ("seq",)}

MAX_EXPORT_BYTES = 2**30  # of one file of an export
MAX_PASTED = 4 * 2**20
MAX_MEMORY = 8 * 2**30  # address space of the command line tool


# A whole campaign


@dataclass(frozen=True, slots=True)
class Contents:
    """A campaign at one moment: rows by id, judgments in the order they were kept.

    Of a store only: the ids of judgments that stand (``current``) and count (``counted``), and how the checks came out.
    """

    items: tuple[Item, ...] = ()
    candidates: tuple[Candidate, ...] = ()
    pairs: tuple[Pair, ...] = ()
    annotators: tuple[Annotator, ...] = ()
    assignments: tuple[Assignment, ...] = ()
    judgments: tuple[Judgment, ...] = ()
    exclusions: tuple[Exclusion, ...] = ()
    current: frozenset[str] = frozenset()
    counted: frozenset[str] = frozenset()
    checks: tuple[Check, ...] = ()


@dataclass(frozen=True, slots=True)
class Taken:
    """What an import of a campaign added. ``erased`` counts people of it who were erased here: nothing of theirs came in."""

    added: Added
    annotators: int
    judgments: int
    exclusions: int
    erased: int
    refused: tuple[Refusal, ...]


def contents_of(path: Path) -> Contents:
    """Everything in the database at ``path`` as it is at one moment, while others may write."""
    db = connect_reader(path)
    try:
        db.execute("BEGIN")

        def ids(**query: Any) -> frozenset[str]:
            return frozenset(j.judgment_id for j in queries.judgments(db, JudgmentQuery(judge_kind=None, **query)))

        rows = {name: select(db, noun) for name, noun in FILES.items()}
        return Contents(**rows, current=ids(excluded=True), counted=ids(), checks=queries.checks(db, None))
    finally:
        db.close()


def columns_of(noun: type, without: Iterable[str] = ()) -> tuple[str, ...]:
    """The columns of a noun in an export: its fields and the ids computed from them, but those of ``without`` and NOT_EXPORTED."""
    hidden = {*without, *NOT_EXPORTED.get(noun, ())}
    return tuple(name for name in (*(f.name for f in fields(noun)), *table_of(noun).computed) if name not in hidden)


def row_of(noun: Any, without: Iterable[str] = ()) -> dict[str, Any]:
    """A noun as one line of an export."""
    return {name: getattr(noun, name) for name in columns_of(type(noun), without)}


def is_export(folder: Path) -> bool:
    return (folder / CAMPAIGN).is_dir() and (folder / SUMS).is_file()


def read_export(folder: Path) -> Contents:
    """The campaign in an export folder. Raises ValueError for a file that is missing, was changed since, or holds what no store does."""
    sums = dict(reversed(line.split("  ", 1)) for line in (folder / SUMS).read_text(encoding="utf-8").splitlines() if "  " in line)
    rows: dict[str, tuple[Any, ...]] = {}
    for name, noun in FILES.items():
        path = folder / CAMPAIGN / f"{name}.jsonl"
        if not path.is_file() or path.stat().st_size > MAX_EXPORT_BYTES:
            raise ValueError(f"{path} is missing or too large: this is not a whole export; export again")
        data = path.read_bytes()
        if hashlib.sha256(data).hexdigest() != sums.get(f"{CAMPAIGN}/{name}.jsonl"):
            raise ValueError(f"{path} is not the file that {SUMS} describes: it was changed or cut short. Export again")
        rows[name] = tuple(_nouns(path.name, noun, data))
    return Contents(**rows)


def _nouns(name: str, noun: type, data: bytes) -> Iterator[Any]:
    for n, line in enumerate(data.split(b"\n"), start=1):
        if line:
            try:
                yield _noun(noun, json.loads(line))
            except (ValueError, TypeError, RecursionError) as error:
                raise ValueError(f"{name}, line {n}: {error}") from error


def _noun(noun: type, row: object) -> Any:
    if not isinstance(row, dict):
        raise ValueError("not a JSON object")
    if missing := [name for name in columns_of(noun, ("nickname",)) if name not in row]:
        raise ValueError(f"{', '.join(missing)} is missing")
    known = {f.name for f in fields(noun)}
    values = {key: value for key, value in row.items() if key in known}
    if noun is Annotator:
        values.setdefault("nickname", f"person-{row['annotator_id'][:8]}")
    if noun is Judgment:
        values["tags"] = tuple(row["tags"])
    made = noun(**values)
    for key in table_of(noun).computed:
        if row.get(key) != getattr(made, key):
            raise ValueError(f"{key} {row.get(key)!r:.80} is not the id of this row's content")
    return made


def take_over(store: Store, contents: Contents, source: str = "an export") -> Taken:
    """Add what ``store`` lacks of ``contents``; what it has stays as it is, so a second time changes nothing.

    An answer that contradicts one that stands here, or hangs on a pair that is another one here, is refused and the rest go on.
    """
    with store.transaction() as tx:
        gone = {erasure.annotator_id for erasure in select(tx.db, Erasure)}
        people = [a for a in contents.annotators if a.annotator_id not in gone]
        new_people = [a for a in people if put_new(tx, replace(a, status="active"), annotator_id=a.annotator_id)]
        items = {i.item_id: i for i in contents.items if i.contributor_id not in gone}
        n_items = sum(put_new(tx, item, item_id=item_id) for item_id, item in items.items())
        texts = [c for c in contents.candidates if c.item_id in items]
        n_candidates = sum(put_new(tx, c, candidate_id=c.candidate_id) for c in texts)
        pairs = [p for p in contents.pairs if p.item_id in items]
        refused: list[Refusal] = []
        n_pairs, here = _take_pairs(tx, pairs, refused)
        n_judgments = _take_answers(tx, contents, here, gone, refused)
        n_exclusions = sum(put_new(tx, e, exclusion_id=e.exclusion_id) for e in contents.exclusions if _applies(tx, e))
        for annotator in new_people:
            if annotator.status != "active":  # only now: someone paused or blocked could not have given answers
                tx.put(annotator)
        n_erased = len(contents.annotators) - len(people)
        added = Added(n_items, n_candidates, n_pairs, len(here) - n_pairs)
        if tx.changes:
            counts = {"source": source, "pairs": n_pairs, "annotators": len(new_people), "judgments": n_judgments, "refused": len(refused)}
            tx.put(Event("import", None, counts, tx.at, tx.seq + 1))
        return Taken(added, len(new_people), n_judgments, n_exclusions, n_erased, tuple(refused))


def _take_pairs(tx: Transaction, pairs: Iterable[Pair], refused: list[Refusal]) -> tuple[int, set[str]]:
    """How many pairs are new, and the ids of all that the store now holds as they were given."""
    n_new, here = 0, set()
    for pair in sorted(pairs, key=lambda p: p.kind == "swap"):  # after what they repeat
        there = tx.find(Pair, pair_id=pair.pair_id)
        if there is None and not same_texts(tx.db, pair):
            tx.put(pair)
            n_new += 1
        elif there is None or there != pair:
            what = "these two texts are another pair here" if there is None else "this pair has another kind or origin here"
            refused.append(Refusal(f"pair {pair.pair_id}", f"{what}, so answers on it cannot be taken over"))
            continue
        here.add(pair.pair_id)
    return n_new, here


def _take_answers(tx: Transaction, contents: Contents, here: set[str], gone: set[str], refused: list[Refusal]) -> int:
    swaps = {pair.pair_id for pair in contents.pairs if pair.kind == "swap"}
    for a in sorted(contents.assignments, key=lambda a: a.pair_id not in swaps):  # a repeat can have been answered before its original
        if a.pair_id in here and a.annotator_id not in gone:
            try:
                put_new(tx, a, pair_id=a.pair_id, annotator_id=a.annotator_id)
            except sqlite3.IntegrityError as error:
                refused.append(Refusal(f"pair {a.pair_id} as shown to {a.annotator_id}", str(error)))
    before = tx.seq
    for judgment in contents.judgments:
        if judgment.pair_id in here and judgment.annotator_id not in gone:
            try:
                record(tx, judgment)
            except ValueError as error:
                refused.append(Refusal(f"answer {judgment.judgment_id}", str(error)))
    return tx.seq - before


def _applies(tx: Transaction, exclusion: Exclusion) -> bool:
    """Whether what ``exclusion`` names is in the store."""
    targets = ((Judgment, "judgment_id"), (Annotator, "annotator_id"), (Pair, "pair_id"))
    return any(
        getattr(exclusion, name) is not None and tx.find(noun, **{name: getattr(exclusion, name)}) is not None for noun, name in targets
    )


# Pairs made elsewhere


@dataclass(frozen=True, slots=True)
class Imported:
    """What an import of pairs did: the file's ``format``, its rows, what was new, and each row that was refused, with place and reason."""

    format: str
    n_rows: int
    added: Added
    refused: tuple[Refusal, ...]
    notes: tuple[str, ...] = ()


def import_pairs(store: Store, source: Path) -> Imported:
    """Add the pairs in a file, a folder of such files, or a folder that ``datasets`` saved; ValueError where none of it can be read."""
    return _keep(store, _label(source.name), read_sheet(source))


def import_text(store: Store, name: str, text: str) -> Imported:
    """Add the pairs in a text that somebody pasted or dropped, called ``name``; ValueError where it is no JSON Lines, JSON or CSV."""
    if not isinstance(text, str) or not isinstance(name, str):
        raise ValueError("a pasted file must be text; for Parquet use python -m annotate.transfer")
    label = _label(name)
    if len(text.encode("utf-8", "replace")) > MAX_PASTED:
        raise ValueError(f"{label} is larger than {MAX_PASTED // 2**20} MB; use python -m annotate.transfer for it, or cut it in pieces")
    return _keep(store, label, read_text(label, text))


def _label(name: str) -> str:
    """A file's name as items and pairs keep it: printable, short, without folders."""
    return "".join(c for c in re.split(r"[/\\]", name)[-1].encode("utf-8", "replace").decode() if c.isprintable())[:60] or "pairs"


def _keep(store: Store, label: str, sheet: Sheet) -> Imported:
    refused, made = [], []
    for row in sheet.rows:
        try:
            if isinstance(row, Row):
                made.append(made_from(row.values, label))
            else:
                refused.append(row)
        except ValueError as error:
            refused.append(Refusal(row.where, str(error)))
    with store.transaction() as tx:
        added = _add(tx, made)
        if tx.changes:
            counts = {"source": label, "rows": len(sheet.rows), "pairs": added.pairs, "refused": len(refused)}
            tx.put(Event("import", None, counts, tx.at, tx.seq + 1))
    return Imported(sheet.format, len(sheet.rows), added, tuple(refused), sheet.notes)


def _add(tx: Transaction, made: Iterable[Made]) -> Added:
    n: Counter[str] = Counter()
    for item, candidates, pair in made:
        if pair.lo_sha == pair.hi_sha:
            n["identical"] += 1
        elif same_texts(tx.db, pair):
            n["known"] += 1
        else:
            n["items"] += put_new(tx, item, item_id=item.item_id)
            n["candidates"] += sum(put_new(tx, c, candidate_id=c.candidate_id) for c in candidates)
            tx.put(pair)
            n["pairs"] += 1
    return Added(**n)


# The command line


def in_words(done: Taken | Imported) -> str:
    """What an import did, for a person: counts, then the refused rows."""
    a = done.added
    if isinstance(done, Taken):
        said = (
            f"New items: {a.items}, pairs: {a.pairs}, people: {done.annotators}, answers: {done.judgments}, exclusions: {done.exclusions}."
        )
        said += f" People who were erased here and stay so: {done.erased}." if done.erased else ""
    else:
        said = f"{done.format}, rows: {done.n_rows}. New pairs: {a.pairs}, on new items: {a.items}."
        said += f" Dropped, because both texts are the same: {a.identical}." if a.identical else ""
    said += f" Pairs that were here already: {a.known}." if a.known else ""
    reasons = Counter(refusal.reason for refusal in done.refused)
    if done.refused:
        said += f" Refused: {len(done.refused)}."
        for reason, n in reasons.most_common(20):
            first = next(refusal.where for refusal in done.refused if refusal.reason == reason)
            said += f"\n  {first}{f' and {n - 1} more' if n > 1 else ''}: {reason}"
    return said


def import_any(store: Store, source: Path) -> Taken | Imported:
    """``take_over`` an export folder, ``import_pairs`` from anything else."""
    if is_export(source):
        return take_over(store, read_export(source), source.name)
    return import_pairs(store, source)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns 0, or 1 with a sentence on standard error."""
    parser = argparse.ArgumentParser(prog="python -m annotate.transfer", description="Import a campaign, or pairs made elsewhere.")
    parser.add_argument("--db", type=Path, help="the database file, made if there is none (default: the app's own)")
    parser.add_argument("source", type=Path, help="an export folder, or a JSON Lines, JSON, CSV or Parquet file, or a folder of datasets")
    options = parser.parse_args(arguments)
    try:
        with open_store(options.db or load_config().annotations) as store:
            print(in_words(import_any(store, options.source)))
    except (StoreError, ValueError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    except MemoryError:
        print(f"{options.source} needs more memory than an honest file of {MAX_ROWS:,} pairs; nothing was imported.", file=sys.stderr)
        return 1
    return 0


def _limit_memory() -> None:
    """Let a file that unpacks to any size end in MemoryError, where the system knows such a limit (not on Windows)."""
    try:
        import resource
    except ImportError:
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    if soft == resource.RLIM_INFINITY or soft > MAX_MEMORY:
        resource.setrlimit(resource.RLIMIT_AS, (MAX_MEMORY, hard))


if __name__ == "__main__":
    _limit_memory()
    sys.exit(main())
