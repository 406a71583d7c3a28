"""The append-only JSONL beside the database: every change of every transaction, chained by hashes, from which the database can be rebuilt.

A journal is a folder of *segments*. A segment begins with a header line (which store, which schema, after which change it goes on) and
holds *blocks*: the changes of one transaction, one per line, closed by a commit line with the number of the last change and the sha256 of
the hash before and the block's lines. A line altered, lost or added breaks the chain. A block without its commit line was cut short by a
crash, was never acknowledged, and does not count. A *snapshot* segment holds all rows at one moment and replaces every older segment: it is
written after a migration, a restore and an erasure, which must leave nothing behind.

Order of a write (``annotate.writer``): the rows are changed inside a transaction, the block is appended and fsynced, the transaction
commits with fsync, and only then is it acknowledged. So what was acknowledged is in both; a crash in between leaves one block too many
here, which the next start replays. A process starts a new segment for its first write and never appends to an older one.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path

from annotate.database import sync_folder
from annotate.fields import canonical
from annotate.rows import Change

MAX_SEGMENT = 8 * 2**20  # bytes; a mirror that uploads whole files stays cheap
SNAPSHOT_BLOCK = 500  # rows


@dataclass(frozen=True, slots=True)
class Header:
    """First line of a segment, which goes on after change number ``after`` with chained hash ``head``; a snapshot is the state there."""

    store_id: str
    schema: int
    after: int
    head: str
    snapshot: bool = False


@dataclass(frozen=True, slots=True)
class Block:
    """The changes of one transaction; ``seq`` and ``head`` are the position after it. Blocks of a snapshot all share its position."""

    changes: tuple[Change, ...]
    seq: int
    head: str


def journal_path(database: Path) -> Path:
    """The folder beside the database. Not ``-journal``, a name that SQLite uses itself."""
    return database.with_name(database.name + ".segments")


def encode(changes: Sequence[Change], seq: int, head: str) -> tuple[bytes, str]:
    """The block of ``changes`` as bytes, and the chained hash after it."""
    lines = [canonical(change) for change in changes]
    chained = _chain(head, lines)
    return "".join(line + "\n" for line in [*lines, canonical({"commit": seq, "sha": chained})]).encode(), chained


def _chain(head: str, lines: Iterable[str]) -> str:
    return hashlib.sha256("\n".join([head, *lines]).encode()).hexdigest()


class Journal:
    """Writes segments into ``folder``; one process at a time (the store's lock sees to that)."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._segment: Path | None = None
        self._handle = -1
        self._size = 0

    def append(self, block: bytes, start: Header) -> None:
        """Write and fsync one block; ``start`` describes the position before it. Raises OSError, after which ``cut`` is due."""
        if self._segment is None or self._size > MAX_SEGMENT:
            self.close()
            self.folder.mkdir(parents=True, exist_ok=True)
            self._segment = self.folder / f"{start.after:012d}-{uuid.uuid4()}.jsonl"
            self._handle = os.open(self._segment, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)
            block = canonical(asdict(start)).encode() + b"\n" + block
            sync_folder(self.folder)
        view = memoryview(block)
        while view:
            view = view[os.write(self._handle, view) :]
        os.fsync(self._handle)
        self._size += len(block)

    def mark(self) -> tuple[Path | None, int]:
        """Where the journal ends now, for ``cut``."""
        return self._segment, self._size

    def cut(self, mark: tuple[Path | None, int]) -> None:
        """Take back everything appended since ``mark``. Raises OSError where the disk does not allow it."""
        segment, size = mark
        if self._segment is not None and self._segment != segment:  # opened since
            self._segment.unlink(missing_ok=True)
            sync_folder(self.folder)
            self.close()
        elif self._segment is not None:
            os.ftruncate(self._handle, size)
            os.fsync(self._handle)
            self._size = size

    def rewrite(self, start: Header, changes: Iterable[Change]) -> None:
        """Replace the whole journal by a snapshot: the new segment appears complete or not at all, then the older ones are removed."""
        self.close()
        self.folder.mkdir(parents=True, exist_ok=True)
        name = f"{start.after:012d}-{uuid.uuid4()}.jsonl"
        draft = self.folder / (name + ".new")
        for left_over in self.folder.glob("*.new"):
            left_over.unlink()
        with draft.open("wb") as file:
            header = canonical(asdict(start))
            file.write(header.encode() + b"\n")
            head, rows, changes = _chain(header, ()), 0, iter(changes)
            while block := list(islice(changes, SNAPSHOT_BLOCK)):
                text, head = encode(block, start.after, head)
                file.write(text)
                rows += len(block)
            file.write(canonical({"end": rows}).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, self.folder / name)
        sync_folder(self.folder)
        for segment in segments(self.folder):
            if segment.name != name:
                segment.unlink()
        sync_folder(self.folder)

    def set_aside(self, place: Path) -> None:
        """Move the whole journal to ``place`` (a new folder), for a person to look at."""
        self.close()
        shutil.move(self.folder, place)

    def close(self) -> None:
        if self._handle >= 0:
            os.close(self._handle)
        self._segment, self._handle, self._size = None, -1, 0


def segments(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.jsonl")) if folder.is_dir() else []


def read(folder: Path) -> tuple[Header, Iterator[Block]] | None:
    """The newest snapshot's header and all blocks from it on, in order; None where there is no journal.

    Raises ValueError naming file and line, here or while iterating, where the history is broken; blocks that came before that were good.
    """
    headers = {path: header for path in segments(folder) if (header := _header(path)) is not None}
    snapshots = [path for path, h in headers.items() if h.snapshot]
    if not headers:
        return None
    if not snapshots:
        raise ValueError(f"{folder} has no snapshot segment to start from")
    first = max(snapshots, key=lambda path: (headers[path].after, headers[path].schema))
    start = headers[first]
    later = sorted((h.after, path) for path, h in headers.items() if not h.snapshot and h.after >= start.after)
    return start, _follow(first, start, [(path, headers[path]) for _, path in later])


def _header(path: Path) -> Header | None:
    """None for a segment whose first line was cut short: nothing in it was ever acknowledged."""
    with path.open("rb") as file:
        line = file.readline()
    if not line.endswith(b"\n"):
        return None
    try:
        return Header(**json.loads(line))
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path}, line 1: not a header ({error})") from error


def _follow(snapshot: Path, header: Header, later: list[tuple[Path, Header]]) -> Iterator[Block]:
    seq, head = header.after, header.head
    for block in _blocks(snapshot, _chain(canonical(asdict(header)), ()), end_line=True):
        yield Block(block.changes, seq, head)
    for path, start in later:
        blocks = _blocks(path, start.head)
        if (start.store_id, start.schema, start.after, start.head) != (header.store_id, header.schema, seq, head):
            if next(blocks, None) is None:
                continue  # the process that opened it died before its first commit
            raise ValueError(f"{path} goes on after change {start.after}, but the journal before it ends at {seq}")
        for block in blocks:
            if block.seq != seq + len(block.changes):
                raise ValueError(f"{path}: a block of {len(block.changes)} changes after change {seq} ends at {block.seq}")
            yield block
            seq, head = block.seq, block.head


def _blocks(path: Path, head: str, *, end_line: bool = False) -> Iterator[Block]:
    """The committed blocks of one segment. ``end_line``: the last line has to say how many rows there were."""
    lines: list[str] = []
    changes: list[Change] = []
    rows = 0
    with path.open("rb") as file:
        file.readline()
        for number, raw in enumerate(file, start=2):
            if not raw.endswith(b"\n"):
                break
            try:
                text = raw[:-1].decode()
                line = json.loads(text)
                keys = set(line)
            except (ValueError, TypeError) as error:
                raise ValueError(f"{path}, line {number}: not JSON ({error})") from error
            if keys == {"commit", "sha"}:
                head = _chain(head, lines)
                if line["sha"] != head:
                    raise ValueError(f"{path}, line {number}: the lines before it were altered")
                yield Block(tuple(changes), line["commit"], head)
                rows += len(changes)
                lines, changes = [], []
            elif end_line and line == {"end": rows} and not changes:
                return
            else:
                lines.append(text)
                changes.append(line)
    if end_line:
        raise ValueError(f"{path}: the snapshot was cut short after {rows} rows")
