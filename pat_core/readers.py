"""Files of reviews, whatever they are, as rows in our field names, one dict each with the place it came from.

The format is told by content: Parquet, CSV, JSON Lines (ours, Amazon Reviews 2023, or any with known column names), a JSON array of such
rows, and the PGraphRAG split (a list of ``{"id", "profile": [...]}``). A row that cannot be parsed becomes a ``Refusal`` and the rest go
on; a file that cannot be parsed at all raises. Leaves out compressed files, and values: those are checked in ``corpus``.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

MAX_BYTES = 512 * 2**20  # a whole JSON file is held in memory, three times while it is parsed
MAX_ROWS = 300_000
MAX_FIELD = 1_000_000  # characters; the CSV reader gives up on a row beyond this, so that a lost quote cannot swallow the file
PARQUET_BATCH = 1000  # rows decoded at a time: 23 kB of Parquet can hold 200 MB, and its footer does not say so
REQUIRED = ("user_id", "text")
GUESSES: dict[str, tuple[str, ...]] = {
    "review_id": ("review_id", "reviewid"),
    "user_id": (
        "user_id",
        "userid",
        "user",
        "reviewer_id",
        "reviewer",
        "customer_id",
        "author_id",
        "author",
        "username",
        "reviews_username",
    ),
    "topic_id": ("topic_id", "parent_asin", "asin", "product_id", "item_id", "business_id", "hotel_id", "gmap_id", "pid", "item", "id"),
    "topic": ("topic", "product_title", "product_name", "product", "item_name", "hotel_name", "hotel", "name"),
    "category": ("category", "main_category", "product_category", "categories", "domain"),
    "title": ("title", "review_title", "review_headline", "headline", "summary", "reviews_title"),
    "text": ("text", "review_text", "reviewtext", "review_body", "body", "review", "content", "comment", "reviews_text"),
    "rating": ("rating", "star_rating", "stars", "score", "overall", "reviews_rating"),
    "time": ("time", "timestamp", "date", "review_date", "review_time", "unixreviewtime", "reviews_date"),
}
FIELDS = tuple(GUESSES)


@dataclass(frozen=True, slots=True)
class Row:
    """One row in our field names, values as the file has them; ``where`` is for people ("line 12", "user 3, review 1")."""

    where: str
    values: dict[str, object]


@dataclass(frozen=True, slots=True)
class Refusal:
    """A row that is not taken: where and why. ``reason`` is one of few, so that reasons can be counted; ``detail`` shows the value."""

    where: str
    reason: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Rows:
    """A parsed file: ``format`` in words, ``notes`` on its encoding and columns, every row or its refusal in file order."""

    format: str
    rows: tuple[Row | Refusal, ...]
    notes: tuple[str, ...] = ()


def read_rows(path: Path, columns: Mapping[str, str] | None = None) -> Rows:
    """All rows of the file; ``columns`` maps our field names to the file's, over what is guessed from common names.

    Raises ValueError when the file is missing, empty, too large, of no known format, or lacks a column for user, topic or text.
    """
    unknown = sorted(set(columns or {}) - set(FIELDS))
    if unknown:
        raise ValueError(f"no field is called {unknown[0]!r}; a column can be given for {', '.join(FIELDS)}")
    data = _bytes_of(path)
    if data.startswith(b"PAR1"):
        return _mapped("Parquet", *_parquet(path), columns)
    if data.startswith((b"\x1f\x8b", b"PK\x03\x04", b"7z\xbc\xaf", b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd")):
        raise ValueError(f"{path.name} is compressed; unpack it first and give the file inside")
    text, notes = decode(data)
    del data
    if not text.strip():
        raise ValueError(f"{path.name} is empty; give a file with one review in each row")
    if "\x00" in text[:4096] and text[:4096].count("\x00") > 40:
        raise ValueError(f"{path.name} is not a text file; accepted are JSON, JSON Lines, CSV and Parquet")
    rows = _text_rows(path.name, text, columns)
    return Rows(rows.format, rows.rows, (*notes, *rows.notes))


def decode(data: bytes) -> tuple[str, list[str]]:
    """The text and notes on how it was decoded: UTF-8 or UTF-16; a line that is not UTF-8 is taken as Windows-1252, alone."""
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        return data.decode("utf-16", "replace"), ["UTF-16"]
    head = data[:2000]
    if len(head) >= 8 and head[1::2].count(0) > len(head) // 3 and head[::2].count(0) < len(head) // 20:
        return data.decode("utf-16-le", "replace"), ["UTF-16 without a mark"]
    try:
        return data.decode("utf-8-sig"), []
    except UnicodeDecodeError:
        pass
    lines, n_other = [], 0
    for line in data.removeprefix(b"\xef\xbb\xbf").split(b"\n"):
        try:
            lines.append(line.decode("utf-8"))
        except UnicodeDecodeError:
            n_other += 1
            lines.append(line.decode("cp1252", "replace"))
    return "\n".join(lines), [f"{n_other} lines were not UTF-8 and were read as Windows-1252 (latin-1)"]


def _bytes_of(path: Path) -> bytes:
    if not path.is_file():
        raise ValueError(f"{path} is not a file; give a JSON, JSON Lines, CSV or Parquet file of reviews")
    size = path.stat().st_size
    if size > MAX_BYTES:
        raise ValueError(f"{path.name} has {size / 2**20:,.0f} MB, more than {MAX_BYTES // 2**20} MB; cut a sample from it first")
    try:
        return path.read_bytes()
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from error


def _text_rows(name: str, text: str, columns: Mapping[str, str] | None) -> Rows:
    start = text.lstrip()[:1]
    if start == "[":
        items = _whole_json(name, text)
        if any(isinstance(item, dict) and "profile" in item for item in items):
            return Rows("PGraphRAG split (JSON)", tuple(_limited(_profiles(items))))
        numbered = ((f"item {i}", item) for i, item in enumerate(items, 1))
        return _mapped("JSON array", _keys(items), _objects(numbered), columns)
    if start == "{":
        lines = ((f"line {i}", _parsed(line)) for i, line in enumerate(text.split("\n"), 1) if line.strip())
        parsed = list(_limited(lines))
        if not any(isinstance(value, dict) for _, value in parsed):
            none = f"none of its {len(parsed)} lines is a JSON object"
            raise ValueError(f"{name} begins like JSON Lines, but {none}; is it cut or pretty-printed?")
        keys = _keys([value for _, value in parsed])
        kind = "Amazon Reviews 2023 (JSON Lines)" if "parent_asin" in keys else "JSON Lines"
        return _mapped(kind, keys, _objects(parsed), columns)
    return _mapped("CSV", *_csv(name, text), columns)


def _whole_json(name: str, text: str) -> list[object]:
    value = _parsed(text)
    if isinstance(value, Refusal):
        raise ValueError(f"{name} is not valid JSON ({value.detail}); is the file cut off?")
    return value


def _parsed(text: str) -> object:
    """The JSON value, or a Refusal. NaN, Infinity and integers of 20 digits and more stay strings: only their own field is refused."""
    try:
        return json.loads(text, parse_constant=str, parse_int=lambda digits: int(digits) if len(digits) < 20 else digits)
    except RecursionError:
        return Refusal("", "not valid JSON", "nested too deeply")
    except ValueError as error:
        return Refusal("", "not valid JSON", str(error))


def _keys(values: list[object]) -> list[str]:
    return list(dict.fromkeys(key for value in values[:1000] if isinstance(value, dict) for key in value))


def _objects(items) -> Iterator[Row | Refusal]:
    for where, value in items:
        if isinstance(value, Refusal):
            yield Refusal(where, value.reason, value.detail)
        elif not isinstance(value, dict):
            yield Refusal(where, "not a JSON object", repr(value)[:60])
        else:
            yield Row(where, value)


def _profiles(items: list[object]) -> Iterator[Row | Refusal]:
    """Reviews in profile order; their ids end in #0 for the benchmark's target, #1 and so on for the history."""
    position: dict[str, int] = {}
    for i, item in enumerate(items, 1):
        profile = item.get("profile") if isinstance(item, dict) else None
        if not isinstance(profile, list):
            yield Refusal(f"user {i}", "no profile list", repr(item)[:60])
            continue
        user = item.get("id")
        for j, review in enumerate(profile, 1):
            where = f"user {i}, review {j}"
            if not isinstance(review, dict):
                yield Refusal(where, "not a JSON object", repr(review)[:60])
                continue
            n = position[str(user)] = position.get(str(user), -1) + 1
            values = {name: review.get(name) for name in ("title", "text", "rating")}
            yield Row(where, {"review_id": f"{user}#{n}", "user_id": user, "topic_id": review.get("pid"), **values})


def _csv(name: str, text: str) -> tuple[list[str], Iterator[Row | Refusal]]:
    header_line = text.lstrip("\r\n").split("\n", 1)[0]
    delimiter = max(",;\t|", key=header_line.count)
    if delimiter not in header_line:
        raise ValueError(f"{name} is no known format: not JSON, not Parquet, and its first line has no comma, semicolon, tab or bar")
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    before = csv.field_size_limit(MAX_FIELD)
    try:
        rows = list(_limited(_csv_rows(reader)))
    finally:
        csv.field_size_limit(before)
    if not rows or isinstance(rows[0], Refusal):
        raise ValueError(f"{name} does not begin with a row of column names")
    header = [column.strip() for column in rows[0][1]]
    return header, _ragged(header, rows[1:])


def _csv_rows(reader) -> Iterator[tuple[str, list[str]] | Refusal]:
    while True:
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield Refusal(f"line {reader.line_num}", "broken CSV row", str(error))
            continue
        if any(field.strip() for field in fields):
            yield f"line {reader.line_num}", fields


def _ragged(header: list[str], rows: list[tuple[str, list[str]] | Refusal]) -> Iterator[Row | Refusal]:
    for row in rows:
        if isinstance(row, Refusal):
            yield row
        elif len(row[1]) != len(header):
            yield Refusal(row[0], "wrong number of columns", f"{len(row[1])} instead of {len(header)}")
        else:
            yield Row(row[0], dict(zip(header, row[1], strict=True)))


def _parquet(path: Path) -> tuple[list[str], Iterator[Row | Refusal]]:
    import pyarrow
    import pyarrow.parquet

    def rows() -> Iterator[Row]:
        n = 0
        for batch in file.iter_batches(PARQUET_BATCH):
            for values in batch.to_pylist():
                n += 1
                yield Row(f"row {n}", values)

    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            return file.schema_arrow.names, iter(list(_limited(rows())))
    except (pyarrow.ArrowException, OSError) as error:
        raise ValueError(f"{path.name} is not a whole Parquet file: {str(error).splitlines()[0]}") from error


def _limited(rows: Iterator) -> Iterator:
    for n, row in enumerate(rows):
        if n >= MAX_ROWS:
            raise ValueError(f"the file has more than {MAX_ROWS:,} rows; cut a sample from it first")
        yield row


def _mapped(format: str, names: list[str], rows: Iterator[Row | Refusal], columns: Mapping[str, str] | None) -> Rows:
    mapping = guess_columns(names, columns)
    other = {ours: theirs for ours, theirs in mapping.items() if ours != theirs}
    notes = (f"columns taken: {', '.join(f'{ours} from {theirs}' for ours, theirs in other.items())}",) if other else ()

    def renamed(row: Row | Refusal) -> Row | Refusal:
        return row if isinstance(row, Refusal) else Row(row.where, {ours: row.values.get(theirs) for ours, theirs in mapping.items()})

    return Rows(format, tuple(map(renamed, _limited(rows))), notes)


def guess_columns(names: list[str], given: Mapping[str, str] | None = None) -> dict[str, str]:
    """Our field name -> the file's column: those given, then common names; ValueError when user, text or both topic fields have none."""
    mapping = dict(given or {})
    for ours, theirs in mapping.items():
        if theirs not in names:
            raise ValueError(f"no column is called {theirs!r} (given for {ours}); the file has {_shown(names)}")
    plain = {re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_"): name for name in reversed(names)}
    for ours, guesses in GUESSES.items():
        free = [plain[guess] for guess in guesses if guess in plain and plain[guess] not in mapping.values()]
        if ours not in mapping and free:
            mapping[ours] = free[0]
    missing = [field for field in REQUIRED if field not in mapping]
    if "topic_id" not in mapping and "topic" not in mapping:
        missing.append("topic_id")
    if missing:
        raise ValueError(f"no column holds {' or '.join(missing)}; the file has {_shown(names)}; name it with --column {missing[0]}=NAME")
    return mapping


def _shown(names: list[str]) -> str:
    return ", ".join(repr(name[:40]) for name in names[:20]) or "none"
