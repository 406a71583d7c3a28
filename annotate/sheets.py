"""Files of pairs made elsewhere as rows, and a row as an item, two texts and their pair.

A file is JSON Lines, a JSON array, CSV or Parquet, told by content, or a folder of these, or one that ``datasets`` saved. A row that cannot
be taken is refused with its place and the reason, and the rest go on; so is one with a text that names its model or speaks as one. Which
text was preferred elsewhere is kept in the trace and decides nothing here. Leaves out the store: ``annotate.transfer`` adds what is made
here.
"""

from __future__ import annotations

import csv
import io
import json
import math
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from annotate.fields import MAX_TEXT, check_text
from annotate.guard import KNOWN_NAMES, leak, names_of
from annotate.types import Candidate, Item, Pair, pair_of
from pat_core.llm.prompting import SPEAKERS
from pat_core.readers import Refusal, Row, decode
from pat_core.types import ADAPTER_ROLES

MAX_BYTES = 128 * 2**20
MAX_ROWS = 50_000
MAX_FILES = 100
MAX_DECODED = 512 * 2**20  # bytes of a Parquet file once unpacked; neither its size nor its footer says how many
MAX_LISTED = 20  # statements, samples, neighbors of one row
PARQUET_BATCH = 100
KEPT = ("breaks off", "repeats itself")  # how a text ends or runs on gives nobody away, and may be what its owner asks about
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


class Sheet(NamedTuple):
    """A file's rows as it has them, every row or its refusal in file order."""

    format: str
    rows: list[Row | Refusal]
    notes: tuple[str, ...] = ()


class Made(NamedTuple):
    item: Item
    candidates: tuple[Candidate, Candidate]
    pair: Pair


# From a file to rows


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


# From a row to a pair


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
        system = given.get(f"system_{side}", "imported")
        secret = [name for name in (*KNOWN_NAMES, *names_of(system)) if name.lower() not in prompt.lower()]
        if (reason := leak(text, secret)) and reason not in KEPT:
            raise ValueError(f"text_{side} {reason}, so it cannot be judged blind")
        trace: dict[str, Any] = {"label": preferred} if labeled else {}
        if agent and messages:
            trace["completion"] = {"role": agent, "messages": messages, "prefix": "", "text": text}
        candidates.append(Candidate(item.item_id, text, system, trace))
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
