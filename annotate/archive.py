"""Copies of a store: backup, restore, rebuild from the journal, a full check, and the list of copies that an erasure has to reach.

A *copy* is one database file with a manifest beside it (``NAME.json``: sha256, schema, position, rows, content hash). ``restore`` takes
nothing else: a plain ``cp`` of a live database without its -wal is not a copy. What a restore replaces is moved to ``DB.aside``, never
deleted.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from sqlite_utils import Database

from annotate.database import (
    StoreError,
    WriterLock,
    connect_reader,
    inspect,
    open_draft,
    publish,
    require_local_disk,
    require_writable,
    start_store,
    wal_path,
)
from annotate.fields import canonical
from annotate.journal import Block, journal_path, read
from annotate.migrations import STEPS, migrate, schema_version
from annotate.rows import apply, content_hash, counts, find, position, select, set_position
from annotate.types import Annotator, Erasure, timestamp


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a copy is: ``sha256`` of the file, ``content`` hash of its rows, ``seq`` the last change in it."""

    path: str
    sha256: str
    store_id: str
    schema: int
    seq: int
    content: str
    rows: dict[str, int]
    made_at: str


@dataclass(frozen=True, slots=True)
class CheckReport:
    """``problems`` is empty for a sound store; ``content`` is the content hash of the database, ``rebuilt`` of its journal replayed."""

    problems: tuple[str, ...]
    rows: dict[str, int]
    seq: int
    content: str
    rebuilt: str


@dataclass(frozen=True, slots=True)
class Restored:
    """What a restore did: where the files it replaced are, and whose erasure (annotator ids) was carried out again on the restored rows."""

    manifest: Manifest
    aside: Path
    erased: tuple[str, ...]


def manifest_path(copy: Path) -> Path:
    return copy.with_name(copy.name + ".json")


def restoring_path(path: Path) -> Path:
    return path.with_name(path.name + ".restoring")


def new_aside(path: Path) -> Path:
    """A new folder beside the database for files that something else takes the place of."""
    folder = path.with_name(path.name + ".aside") / _stamp()
    folder.mkdir(parents=True)
    return folder


def _stamp() -> str:
    return f"{datetime.now(UTC):%Y%m%dT%H%M%S.%fZ}"


def backup(path: Path, out: Path | None = None) -> Manifest:
    """Copy the store at ``path``, in use or not, to ``out`` (default: a new file in ``DB.backups``), as it was at one moment."""
    inspect(path)
    source = connect_reader(path)
    try:
        return _write_copy(path, out or path.with_name(path.name + ".backups") / f"{_stamp()}.db", lambda db: source.conn.backup(db.conn))
    finally:
        source.close()


def rebuild(path: Path, out: Path) -> Manifest:
    """A copy made from the journal of ``path`` alone; the database may be missing or damaged. Raises StoreError where the journal is."""
    return _write_copy(path, out, lambda db: replay_all(path, db))


def _write_copy(path: Path, out: Path, fill: Callable[[Database], None]) -> Manifest:
    for place in (out, manifest_path(out)):
        if place.exists():
            raise StoreError(f"{place} exists; it is not overwritten. Choose another name.")
    draft = out.with_name(out.name + ".new")
    db = open_draft(draft)
    try:
        fill(db)
        store_id, seq, _head = position(db)
        schema, content, rows = schema_version(db), content_hash(db), counts(db)
        publish(db, draft, out)
    except BaseException:
        db.close()
        draft.unlink(missing_ok=True)
        raise
    manifest = Manifest(str(out.resolve()), _sha256(out), store_id, schema, seq, content, rows, timestamp(datetime.now(UTC)))
    _write_synced(manifest_path(out), canonical(asdict(manifest)) + "\n")
    with _copies_list(path).open("a", encoding="utf-8") as file:
        file.write(canonical({"path": manifest.path, "made_at": manifest.made_at}) + "\n")
    return manifest


def _write_synced(path: Path, text: str) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def replay_all(path: Path, db: Database, upto: int | None = None) -> None:
    """Build the store in the empty database ``db`` from the journal of ``path``, up to change ``upto``, and bring it to today's schema."""
    try:
        found = read(journal_path(path))
        if found is None:
            raise StoreError(f"{journal_path(path)} holds no journal to rebuild from.")
        header, blocks = found
        start_store(db, header.store_id, STEPS[: header.schema])
        set_position(db, header.after, header.head)
        replay(db, (block for block in blocks if upto is None or block.seq <= upto))
    except (ValueError, sqlite3.IntegrityError) as error:
        raise StoreError(f"The journal is damaged: {error}. Restore the newest backup instead.") from error
    migrate(db)


def replay(db: Database, blocks: Iterable[Block]) -> None:
    """Carry out ``blocks`` in one transaction."""
    db.execute("BEGIN IMMEDIATE")
    try:
        for block in blocks:
            for change in block.changes:
                apply(db, change)
            set_position(db, block.seq, block.head)
        db.execute("COMMIT")
    except BaseException:
        db.rollback()
        raise


def check(path: Path) -> CheckReport:
    """Every row and index, every reference, every line of the journal, and whether the journal rebuilds exactly this database."""
    inspect(path)
    db = connect_reader(path)
    problems: list[str] = []
    rebuilt = ""
    try:
        db.execute("BEGIN")  # one moment, while others may write
        problems += [row[0] for row in db.execute("PRAGMA integrity_check(20)") if row[0] != "ok"]
        problems += [f"row {row[1]} of {row[0]} lacks its row in {row[2]}" for row in db.execute("PRAGMA foreign_key_check")]
        seq, content, rows = position(db)[1], content_hash(db), counts(db)
    finally:
        db.close()
    with tempfile.TemporaryDirectory(prefix="annotate-check-") as folder:
        copy = open_draft(Path(folder) / "rebuilt.db")
        try:
            replay_all(path, copy, upto=seq)
            rebuilt = content_hash(copy)
            if rebuilt != content:
                problems.append(f"the journal ends at change {position(copy)[1]} with other rows than the database at change {seq}")
        except (StoreError, OSError) as error:
            problems.append(str(error))
        finally:
            copy.close()
    return CheckReport(tuple(problems), rows, seq, content, rebuilt)


def verify(copy: Path) -> Manifest:
    """The manifest of a copy that is byte for byte what was written; raises StoreError for anything else."""
    try:
        manifest = Manifest(**json.loads(manifest_path(copy).read_text(encoding="utf-8")))
    except FileNotFoundError as error:
        raise StoreError(f"{copy} has no manifest {manifest_path(copy).name}: restore takes only what backup or rebuild wrote.") from error
    except (OSError, ValueError, TypeError) as error:
        raise StoreError(f"{manifest_path(copy)} is not a manifest ({error}).") from error
    if not copy.is_file() or _sha256(copy) != manifest.sha256:
        raise StoreError(f"{copy} is not the file its manifest describes (another sha256): it was changed or cut short. Use another one.")
    inspect(copy)
    return manifest


def restore(path: Path, copy: Path) -> Restored:
    """Put ``copy`` in the place of the store at ``path``, which must not be open; what was there is moved aside.

    Everything after the copy is gone from the store (``rebuild`` keeps it), but for erasures: people erased since stay erased.
    """
    manifest = verify(copy)
    require_local_disk(path)
    require_writable(path)
    lock = WriterLock(path)
    try:
        draft = restoring_path(path)
        erasures = _known_erasures(path)
        shutil.copyfile(copy, draft)
        erased = _erase_again(draft, erasures)
        aside = new_aside(path)
        for file in (path, wal_path(path), path.with_name(path.name + "-shm"), journal_path(path)):
            if file.exists():
                shutil.move(file, aside)
        publish(_open_plain(draft), draft, path)
    finally:
        lock.release()
    return Restored(manifest, aside, erased)


def _open_plain(path: Path) -> Database:
    db = Database(sqlite3.connect(path, isolation_level=None), execute_plugins=False)
    db.execute("PRAGMA foreign_keys = 1")
    return db


def _known_erasures(path: Path) -> dict[str, str]:
    """Who was erased and when, as the database at ``path`` says, or its journal as far as that can be read."""
    try:
        inspect(path)
        db = connect_reader(path)
        try:
            return {e.annotator_id: e.erased_at for e in select(db, Erasure)}
        finally:
            db.close()
    except StoreError:
        return _erasures_in_journal(path)


def _erasures_in_journal(path: Path) -> dict[str, str]:
    erased = {}
    try:
        _header, blocks = read(journal_path(path)) or (None, ())
        for block in blocks:
            for change in block.changes:
                if "erase" in change:
                    erased[change["erase"]] = change["at"]
                elif change.get("put") == "erasures":
                    erased[change["row"]["annotator_id"]] = change["row"]["erased_at"]
    except ValueError:
        pass  # what came before the damage is kept
    return erased


def _erase_again(draft: Path, erasures: dict[str, str]) -> tuple[str, ...]:
    db = _open_plain(draft)
    try:
        migrate(db)
        again = tuple(who for who in erasures if find(db, Annotator, annotator_id=who))  # not those the copy knows to be erased
        for who in again:
            apply(db, {"erase": who, "at": erasures[who]})
    finally:
        db.close()
    return again


def copies_of(path: Path) -> tuple[Path, ...]:
    """Copies of the store at ``path`` that still exist: what backup and rebuild wrote, and everything moved aside."""
    listed = []
    if _copies_list(path).exists():
        listed = [Path(json.loads(line)["path"]) for line in _copies_list(path).read_text(encoding="utf-8").splitlines()]
    aside = path.with_name(path.name + ".aside")
    return tuple(dict.fromkeys([p for p in listed if p.exists()] + sorted(aside.iterdir() if aside.is_dir() else ())))


def copies_holding(path: Path, annotator_id: str) -> tuple[Path, ...]:
    """Copies that hold rows of a person, or might: a folder moved aside and a file that cannot be read are always among them."""
    return tuple(copy for copy in copies_of(path) if _may_hold(copy, annotator_id))


def _may_hold(copy: Path, annotator_id: str) -> bool:
    try:
        inspect(copy)
    except StoreError:
        return True
    db = connect_reader(copy)
    try:
        return db.execute("SELECT count(*) FROM annotators WHERE annotator_id = ?", [annotator_id]).fetchone()[0] > 0
    finally:
        db.close()


def _copies_list(path: Path) -> Path:
    return path.with_name(path.name + ".copies.jsonl")
