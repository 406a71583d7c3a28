"""Opening the database file: what it must be, one writer, readers of their own, and every failure as a sentence.

The writer is one connection in one process, kept alone by a lock on a file beside the database; that also keeps clear of the WAL-reset bug
of SQLite before 3.51.3, which needs two connections that write or checkpoint. Readers cannot write. Leaves out what the rows mean.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Sequence
from pathlib import Path

from sqlite_utils import Database

from annotate.migrations import STEPS, Step, migrate, schema_version

APPLICATION_ID = 0x50615456  # "PaTV"
BUSY_SECONDS = 10
WRITER_PRAGMAS = {  # each is set at open and read back
    "journal_mode": "wal",
    "synchronous": 2,  # FULL: a commit has reached the disk when it returns
    "foreign_keys": 1,
    "busy_timeout": BUSY_SECONDS * 1000,
    "secure_delete": 1,
    "recursive_triggers": 1,
}
_HEADER = b"SQLite format 3\0"
_NETWORK_DISKS = ("nfs", "nfs4", "cifs", "smb3", "smbfs", "9p")


class StoreError(RuntimeError):
    """The database cannot be opened or used; the message says why and what to do. Nothing was overwritten."""


class NotSaved(StoreError):
    """This write is not confirmed; sending it again with the same id is safe."""


def lock_path(path: Path) -> Path:
    return path.with_name(path.name + ".lock")


def wal_path(path: Path) -> Path:
    return path.with_name(path.name + "-wal")


class WriterLock:
    """Held by the one process that writes, released by the system when that process dies.

    The lock is SQLite's own on an empty file: unlike flock it is not inherited over fork and works wherever the database does.
    """

    def __init__(self, path: Path) -> None:
        self._connection = sqlite3.connect(lock_path(path), timeout=0, isolation_level=None, check_same_thread=False)
        try:
            self._connection.execute("BEGIN EXCLUSIVE")
        except sqlite3.Error as error:
            self._connection.close()
            if "locked" not in str(error):
                raise
            raise StoreError(
                f"{path} is in use: another program, or another part of this one, writes to it. Close it, or open this for reading only."
            ) from error

    def release(self) -> None:
        self._connection.close()


def require_local_disk(path: Path, mounts: Path = Path("/proc/mounts")) -> None:
    """Raises StoreError where the folder of ``path`` is a network or bucket mount, on which SQLite's locks and fsync do not hold.

    Where ``mounts`` does not exist (not Linux) nothing is known and nothing is refused.
    """
    if not mounts.exists():
        return
    folder, best, kind = str(path.parent.resolve()), "", ""
    for line in mounts.read_text(encoding="utf-8", errors="replace").splitlines():
        _device, mount, this_kind, *_rest = line.split()
        mount = mount.replace("\\040", " ")
        if (folder == mount or folder.startswith(mount.rstrip("/") + "/")) and len(mount) >= len(best):
            best, kind = mount, this_kind
    if kind.startswith("fuse.") or kind in _NETWORK_DISKS:
        raise StoreError(f"{path} is on {best}, a network or bucket mount ({kind}), where SQLite can lose votes: keep it on a local disk.")


def inspect(path: Path, newest: int = STEPS[-1].number) -> int:
    """The schema version of the database at ``path``, after ``quick_check``; reads only.

    Raises StoreError, in words, for a file that is missing, empty, no SQLite database, another program's, of a newer version, or damaged.
    """
    hint = f"Nothing was changed. Move it away, or see: python -m annotate.store rebuild --db {path}"
    if not path.is_file():
        raise StoreError(f"{path} does not exist." if not path.exists() else f"{path} is not a file.")
    try:
        with path.open("rb") as file:
            header = file.read(len(_HEADER))
    except OSError as error:
        raise StoreError(f"{path} cannot be read ({error.strerror}): check its permissions.") from error
    if not header:
        raise StoreError(f"{path} is empty (0 bytes), which no store ever is. {hint}")
    if header != _HEADER:
        raise StoreError(f"{path} is not an SQLite database, or its first page is damaged. {hint}")
    db = None
    try:
        db = connect_reader(path)
        if db.execute("PRAGMA application_id").fetchone()[0] != APPLICATION_ID:
            raise StoreError(f"{path} is an SQLite database of another program. Nothing was changed; choose another file name.")
        version = schema_version(db)
        if version > newest:
            raise StoreError(f"{path} was written by a newer version (schema {version}, this program knows {newest}): update this program.")
        faults = [row[0] for row in db.execute("PRAGMA quick_check(3)")]
        if faults != ["ok"]:
            raise StoreError(f"{path} is damaged: {'; '.join(faults)}. {hint}")
    except sqlite3.OperationalError as error:
        raise StoreError(f"{path} cannot be read ({error}): copy it with its -wal file to a folder that can be written.") from error
    except sqlite3.DatabaseError as error:
        raise StoreError(f"{path} is damaged ({error}). {hint}") from error
    finally:
        if db is not None:
            db.close()
    return version


def require_writable(path: Path) -> None:
    """Raises StoreError where ``path`` or its folder cannot be written."""
    for place in (path, path.parent):
        if place.exists() and not os.access(place, os.W_OK):
            raise StoreError(f"{place} cannot be written: fix its permissions, or open the store for reading only.")


def connect_writer(path: Path, factory: type[sqlite3.Connection] = sqlite3.Connection) -> Database:
    """The writing connection, every pragma of WRITER_PRAGMAS set and read back; usable from any thread, by one at a time."""
    connection = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode=rw",
        uri=True,
        timeout=BUSY_SECONDS,
        isolation_level=None,
        check_same_thread=False,
        factory=factory,
    )
    try:
        db = Database(connection, execute_plugins=False)
        for name, value in WRITER_PRAGMAS.items():
            db.execute(f"PRAGMA {name} = {value}")
            found = db.execute(f"PRAGMA {name}").fetchone()[0]
            if found != value:
                raise StoreError(f"{path}: SQLite keeps {name} at {found!r}, not {value!r}; put the database on an ordinary local disk.")
    except BaseException:
        connection.close()
        raise
    return db


def connect_reader(path: Path) -> Database:
    """A connection that cannot write. On a read-only disk a database without a -wal file is read as the fixed file it is."""
    uri = f"{path.absolute().as_uri()}?mode=ro"
    wal = wal_path(path)
    if not os.access(path.parent, os.W_OK) and not (wal.exists() and wal.stat().st_size):
        uri += "&immutable=1"
    connection = sqlite3.connect(uri, uri=True, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)
    db = Database(connection, recursive_triggers=False, execute_plugins=False)
    db.execute("PRAGMA query_only = 1")
    return db


def open_draft(draft: Path) -> Database:
    """A fast connection to a file under construction, which ``publish`` makes durable; a draft that dies is thrown away."""
    draft.parent.mkdir(parents=True, exist_ok=True)
    draft.unlink(missing_ok=True)
    db = Database(sqlite3.connect(draft, isolation_level=None), execute_plugins=False)
    for pragma in ("journal_mode = memory", "synchronous = 0", "foreign_keys = 1"):
        db.execute(f"PRAGMA {pragma}")
    return db


def start_store(db: Database, store_id: str, steps: Sequence[Step] = STEPS) -> None:
    """Turn the empty database ``db`` into an empty store."""
    db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    migrate(db, steps)
    db.execute("INSERT INTO meta (one, store_id, seq, head) VALUES (1, ?, 0, ?)", [store_id, "0" * 64])


def publish(db: Database, draft: Path, path: Path) -> None:
    """Close ``db``, sync the draft and rename it to ``path``, which appears complete or not at all."""
    db.execute("PRAGMA journal_mode = delete")
    db.close()
    with draft.open("rb+") as file:
        os.fsync(file.fileno())
    os.replace(draft, path)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make a rename or a new file in ``folder`` durable, where the system lets folders be synced (not on Windows)."""
    if not hasattr(os, "O_DIRECTORY"):
        return
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
