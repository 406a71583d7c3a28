"""Into a store from elsewhere, all or nothing: a whole campaign from an export folder, or pairs made by others from a file.

An *export folder* (``annotate.export``) brings items, texts, pairs, people, answers and exclusions with their ids and times, so that
exporting again gives the same bytes; whoever was erased here stays erased. A *file of pairs* (JSON Lines, a JSON array, CSV, Parquet, a
folder saved by ``datasets``) brings two texts a row; a row that cannot be taken is refused with its place and the reason, and the rest go
on. Which text was preferred elsewhere is kept in the trace and decides nothing here. Leaves out settings and secrets: a campaign has its
own.

    python -m annotate.transfer --db DB SOURCE
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import io
import json
import math
import re
import sqlite3
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, NamedTuple

from annotate import queries
from annotate.database import StoreError, connect_reader
from annotate.fields import MAX_TEXT, check_text
from annotate.intake import put_new, record, same_texts
from annotate.rows import select, table_of
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
    pair_of,
)
from annotate.writer import Transaction
from pat_core.config import load_config
from pat_core.llm.prompting import SPEAKERS
from pat_core.readers import Refusal, Row, decode
from pat_core.types import ADAPTER_ROLES

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

MAX_BYTES = 128 * 2**20
MAX_PASTED = 4 * 2**20
MAX_ROWS = 50_000
MAX_FILES = 100
MAX_DECODED = 512 * 2**20  # bytes of a Parquet file once unpacked; neither its size nor its footer says how many
MAX_MEMORY = 8 * 2**30  # address space of the command line tool
MAX_LISTED = 20  # statements, samples, neighbors of one row
PARQUET_BATCH = 100
ALIASES: dict[str, tuple[str, ...]] = {
    "prompt": ("prompt", "question", "instruction", "query"),
    "text_a": ("text_a", "a", "response_a", "completion_a", "answer_a", "output_a", "text_1", "response_1", "chosen"),
    "text_b": ("text_b", "b", "response_b", "completion_b", "answer_b", "output_b", "text_2", "response_2", "rejected"),
    "system_a": ("system_a", "model_a"),
    "system_b": ("system_b", "model_b"),
    "reference": ("reference",),
    "topic": ("topic",),
    "title": ("title",),
    "rating": ("rating", "stars"),
    "statements": ("statements",),
    "samples": ("samples",),
    "neighbors": ("neighbors", "neighbours"),
    "agent": ("agent",),
    "lang": ("lang", "language"),
    "source": ("source",),
    "split": ("split",),
}
KNOWN_COLUMNS = frozenset(alias for aliases in ALIASES.values() for alias in aliases)

_FORMULA = re.compile(r"'*[=+\-@\t\r]")
_PACKED = (b"\x1f\x8b", b"PK\x03\x04", b"7z\xbc\xaf", b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd")


def neutral(cell: str) -> str:
    """``cell`` so that no spreadsheet runs it: an apostrophe before = + - @ tab or return, and before what looks like such a cell."""
    return "'" + cell if _FORMULA.match(cell) else cell


def plain(cell: str) -> str:
    """What ``neutral`` was given."""
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell) else cell


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
        if not path.is_file() or path.stat().st_size > 8 * MAX_BYTES:
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


class Sheet(NamedTuple):
    """A file's rows as it has them, every row or its refusal in file order."""

    format: str
    rows: list[Row | Refusal]
    notes: tuple[str, ...] = ()


class Made(NamedTuple):
    item: Item
    candidates: tuple[Candidate, Candidate]
    pair: Pair


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


def made_from(values: dict[str, Any], label: str) -> Made:
    """The item, texts and pair of one row, whose columns may have any name in ALIASES. Raises ValueError saying what is wrong with it."""
    given, labeled = _given(values)
    prompt, messages, texts = _asked(given)
    agent = given.get("agent")
    if agent is not None and agent not in ADAPTER_ROLES:
        raise ValueError(f"agent {agent!r:.40} is not known; use one of {', '.join(ADAPTER_ROLES)}, or leave it out")
    rest = {name: given[name] for name in ("lang", "split") if name in given}
    item = Item(prompt, _reference(given), given.get("source", label), **rest)
    if agent == "generator":
        messages = messages or [["user", prompt]]
    candidates = []
    for text, side, preferred in zip(texts, "ab", ("chosen", "rejected"), strict=True):
        check_text(f"text_{side}", text, MAX_TEXT, empty=False)
        trace: dict[str, Any] = {"label": preferred} if labeled else {}
        if agent and messages:
            trace["completion"] = {"role": agent, "messages": messages, "prefix": "", "text": text}
        candidates.append(Candidate(item.item_id, text, given.get(f"system_{side}", "imported"), trace))
    kind = "one-factor" if agent else "system"
    return Made(item, (candidates[0], candidates[1]), pair_of(*candidates, kind, agent=agent, origin=f"import: {label}"))


def _given(values: dict[str, Any]) -> tuple[dict[str, Any], bool]:
    """Our field -> its value, without empty ones; and whether the texts came as chosen and rejected."""
    known = {_column(key): value for key, value in values.items() if value is not None and value != ""}
    given, taken = {}, {}
    for field, aliases in ALIASES.items():
        found = next((alias for alias in aliases if alias in known), None)
        if found is not None:
            given[field], taken[field] = known[found], found
    return given, (taken.get("text_a"), taken.get("text_b")) == ("chosen", "rejected")


def _column(name: object) -> str:
    return re.sub(r"[^a-z0-9]+", "_", str(name).lower()).strip("_")


def _asked(given: dict[str, Any]) -> tuple[str, list[list[str]], tuple[Any, Any]]:
    """The prompt in words, its chat messages if it has any, and the two texts; these may be chats too, as TRL writes them."""
    a, b, prompt = given.get("text_a"), given.get("text_b"), given.get("prompt")
    for side, text in (("a", a), ("b", b)):
        if text is None:
            raise ValueError(f"text_{side} is missing or empty")
    if isinstance(a, list) or isinstance(b, list):
        a, b = _turns("text_a", a), _turns("text_b", b)
        if prompt is None:  # the prompt is what both begin with
            shared = 0
            while shared < min(len(a), len(b)) - 1 and a[shared] == b[shared]:
                shared += 1
            prompt, a, b = [{"role": role, "content": text} for role, text in a[:shared]] or None, a[shared:], b[shared:]
        if [role for role, _ in a + b] != ["assistant", "assistant"]:
            raise ValueError("text_a and text_b must be one answer each, by the assistant, to the same prompt")
        a, b = a[0][1], b[0][1]
    messages = _turns("prompt", prompt) if isinstance(prompt, list) else []
    if messages:
        prompt = messages[-1][1]
    if prompt is None:
        prompt = _topic_prompt(given)
    return prompt, messages, (a, b)


def _topic_prompt(given: dict[str, Any]) -> str:
    topic, title = given.get("topic"), given.get("title")
    if not isinstance(topic, str):
        raise ValueError("prompt is missing or empty, and there is no topic either")
    return f"Review of {topic}: {title}" if isinstance(title, str) else f"Review of {topic}"


def _turns(name: str, value: object) -> list[list[str]]:
    """Chat messages as [speaker, text]; ValueError for anything else."""
    if not isinstance(value, list) or not value:
        raise ValueError(f"{name} must be text or a list of chat messages, as the other columns are")
    turns = []
    for message in value:
        role, content = (message.get("role"), message.get("content")) if isinstance(message, dict) else (None, None)
        if role not in SPEAKERS or not isinstance(content, str):
            raise ValueError(f"{name} holds a message that is no {{'role': {' | '.join(SPEAKERS)}, 'content': text}}")
        check_text(name, content, MAX_TEXT)
        turns.append([role, content])
    return turns


def _reference(given: dict[str, Any]) -> dict[str, Any]:
    """What the judge sees at the top: the ``reference`` column as it is, or one made of the single columns."""
    if "reference" not in given:
        return _made_reference(given)
    value = given["reference"]
    if isinstance(value, str):
        value = _parsed(value)
    if not isinstance(value, dict):
        raise ValueError("reference must be a JSON object with topic, title, rating, statements, samples or neighbors")
    _made_reference(value)
    return value


def _made_reference(given: dict[str, Any]) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for name in ("topic", "title"):
        made[name] = given.get(name) or ""
        check_text(name, made[name], MAX_TEXT)
    made["rating"] = _rating(given.get("rating"))
    for name in ("statements", "samples", "neighbors"):
        made[name] = _texts(name, given.get(name))
    return made


def _rating(value: object) -> float | None:
    if value is None or value == "":
        return None
    try:
        number = float(value) if isinstance(value, str | int | float) and not isinstance(value, bool) else math.nan
    except (ValueError, OverflowError):
        number = math.nan
    if not 1 <= number <= 5:
        raise ValueError(f"rating {value!r:.40} is not a number from 1 to 5; correct it or leave it empty")
    return number


def _texts(name: str, value: object) -> list[str]:
    """A list of texts; in a CSV it is one text, or a JSON list in one cell."""
    if isinstance(value, str):
        value = _parsed(value) if value.lstrip().startswith("[") else [value]
    value = [] if value is None else value
    if not isinstance(value, list) or len(value) > MAX_LISTED:
        raise ValueError(f"{name} must be a text or a list of at most {MAX_LISTED} texts")
    for text in value:
        check_text(name, text, MAX_TEXT)
    return value


# Files of pairs


def read_sheet(source: Path) -> Sheet:
    """The rows of a file, of the data files in a folder, or of a folder that ``datasets`` saved, at most MAX_ROWS."""
    if source.is_dir():
        if (source / "state.json").is_file() or (source / "dataset_dict.json").is_file():
            return Sheet("saved dataset", list(_limited(_saved(source))))
        files = sorted(p for p in source.rglob("*") if p.suffix.lower() in (".jsonl", ".json", ".csv", ".tsv", ".parquet") and p.is_file())
        if not files:
            raise ValueError(f"{source} holds no .jsonl, .json, .csv or .parquet file and was not saved by datasets")
        if len(files) > MAX_FILES:
            raise ValueError(f"{source} holds {len(files)} files of data, more than {MAX_FILES}; give the one with the pairs")
        sheets = {p.relative_to(source).as_posix(): read_sheet(p) for p in files}
        rows = [replace(row, where=f"{name}, {row.where}") for name, sheet in sheets.items() for row in sheet.rows]
        return Sheet(f"folder of {len(sheets)} files", list(_limited(rows)), tuple(n for sheet in sheets.values() for n in sheet.notes))
    if not source.is_file():
        raise ValueError(f"{source} is not there; give an export folder, or a JSON Lines, JSON, CSV or Parquet file of pairs")
    if source.stat().st_size > MAX_BYTES:
        raise ValueError(f"{source.name} is larger than {MAX_BYTES // 2**20} MB; cut it in pieces")
    data = source.read_bytes()
    if data.startswith(b"PAR1"):
        return Sheet("Parquet", list(_limited(_parquet(source))))
    if data.startswith(_PACKED):
        raise ValueError(f"{source.name} is compressed; unpack it first and give the file inside")
    text, notes = decode(data)
    return read_text(source.name, text)._replace(notes=tuple(notes))


def read_text(name: str, text: str) -> Sheet:
    """The rows of JSON Lines, a JSON array or CSV, told by content. ValueError where it is none of these or no column holds the texts."""
    text = text.removeprefix("\ufeff")
    start = text.lstrip()[:1]
    if not start:
        raise ValueError(f"{name} is empty; give a file with one pair of texts in each row")
    if start == "[":
        try:
            items = _parsed(text)
        except ValueError as error:
            raise ValueError(f"{name} is not valid JSON ({error}); is it cut off?") from error
        sheet = Sheet("JSON array", [_object(f"item {i}", item) for i, item in enumerate(_limited(items), start=1)])
    elif start == "{":
        lines = ((f"line {n}", line) for n, line in enumerate(text.split("\n"), start=1) if line.strip())
        sheet = Sheet("JSON Lines", [_line(where, line) for where, line in _limited(lines)])
    else:
        sheet = Sheet("CSV", list(_limited(_csv(name, text))))
    _require_columns(name, sheet.rows)
    return sheet


def _parsed(text: str) -> Any:
    """The JSON value, NaN and infinities being nothing; ValueError for what is not JSON or too deep."""
    try:
        return json.loads(text, parse_constant=lambda _: None)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _line(where: str, line: str) -> Row | Refusal:
    try:
        return _object(where, _parsed(line))
    except ValueError as error:
        return Refusal(where, f"not valid JSON: {error}")


def _object(where: str, value: object) -> Row | Refusal:
    return Row(where, value) if isinstance(value, dict) else Refusal(where, "not a JSON object")


def _require_columns(name: str, rows: Sequence[Row | Refusal]) -> None:
    """ValueError where none of the first thousand rows has the columns that a pair needs."""
    found = dict.fromkeys(key for row in rows[:1000] if isinstance(row, Row) for key in row.values)
    columns = {_column(key) for key in found}
    missing = [field for field in ("text_a", "text_b") if not columns & {*ALIASES[field]}]
    if missing and found:
        shown = ", ".join(repr(key[:40]) for key in list(found)[:20])
        accepted = " or ".join(ALIASES[missing[0]])
        raise ValueError(f"{name} has no column for {' and '.join(missing)}; it has {shown}. Call it {accepted}")


def _csv(name: str, text: str) -> Iterator[Row | Refusal]:
    first = text.lstrip("\r\n").split("\n", 1)[0]
    delimiter = max(",;\t|", key=first.count)
    if delimiter not in first:
        raise ValueError(f"{name} is no known format: not JSON, and its first line has no comma, semicolon, tab or bar")
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    header: list[str] | None = None
    while True:
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield Refusal(f"line {reader.line_num}", f"broken CSV row: {error}")
            continue
        if not any(cell.strip() for cell in cells):
            continue
        if header is None:
            header = [cell.strip() for cell in cells]
        elif len(cells) != len(header):
            yield Refusal(f"line {reader.line_num}", f"{len(cells)} columns instead of {len(header)}")
        else:
            yield Row(f"line {reader.line_num}", dict(zip(header, map(plain, cells), strict=True)))


def _parquet(path: Path) -> Iterator[Row]:
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            names = [name for name in file.schema_arrow.names if _column(name) in KNOWN_COLUMNS]
            _require_columns(path.name, [Row("", dict.fromkeys(file.schema_arrow.names))])
            n = size = 0
            for batch in file.iter_batches(PARQUET_BATCH, columns=names):
                size += batch.nbytes
                if size > MAX_DECODED:
                    raise ValueError(f"{path.name} unpacks to more than {MAX_DECODED // 2**20} MB; cut it in pieces")
                for values in batch.to_pylist():
                    n += 1
                    yield Row(f"row {n}", values)
    except (pyarrow.ArrowException, OSError) as error:
        raise ValueError(f"{path.name} is not a whole Parquet file: {str(error).splitlines()[0]}") from error


def _saved(folder: Path) -> Iterator[Row]:
    import datasets

    try:
        loaded = datasets.load_from_disk(str(folder))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{folder} is not a whole folder saved by datasets: {str(error).splitlines()[0]:.200}") from error
    splits = loaded if isinstance(loaded, dict) else {"": loaded}
    for name, split in splits.items():
        _require_columns(folder.name, [Row("", dict.fromkeys(split.column_names))])
        known = split.select_columns([c for c in split.column_names if _column(c) in KNOWN_COLUMNS])
        for n, values in enumerate(known, start=1):
            yield Row(f"{name} row {n}".strip(), values)


def _limited(rows: Iterable[Any]) -> Iterator[Any]:
    for n, row in enumerate(rows):
        if n >= MAX_ROWS:
            raise ValueError(f"there are more than {MAX_ROWS:,} rows; cut the file in pieces")
        yield row


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
