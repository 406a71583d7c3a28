"""The one writer of a store: a transaction changes rows and the journal together, or neither.

Also brings the two together at the start, after a crash or an upgrade, and cleans the files after an erasure. Leaves out what a write means
(``annotate.store``).
"""

from __future__ import annotations

import logging
import os
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlite_utils import Database

from annotate import archive
from annotate.database import NotSaved, StoreError, WriterLock, connect_writer
from annotate.journal import Header, Journal, encode, journal_path, read
from annotate.migrations import migrate, schema_version
from annotate.rows import Change, Noun, apply, find, position, select, snapshot, table_of
from annotate.types import Erasure, timestamp

log = logging.getLogger(__name__)

Clock = Callable[[], datetime]


class Transaction:
    """The changes made so far in the open transaction; ``seq`` numbers the last."""

    def __init__(self, db: Database, seq: int, now: datetime) -> None:
        self.db = db
        self.seq = seq
        self.now = now
        self.changes: list[Change] = []

    @property
    def at(self) -> str:
        return timestamp(self.now)

    def apply(self, change: Change) -> None:
        apply(self.db, change)
        self.changes.append(change)
        self.seq += 1

    def put(self, noun: Noun) -> Noun:
        table = table_of(type(noun))
        self.apply({"put": table.name, "row": table.row(noun)})
        return noun

    def find(self, noun: type[Noun], **equals: Any) -> Noun | None:
        return find(self.db, noun, **equals)


class Writer:
    """Owns the writing connection and the journal of ``path`` while it holds ``lock``; usable from any thread."""

    def __init__(self, path: Path, clock: Clock, lock: WriterLock, factory: type[sqlite3.Connection]) -> None:
        self.path = path
        self._clock = clock
        self._lock = lock
        self._factory = factory
        self._mutex = threading.Lock()
        self._pid = os.getpid()
        self._closed = False
        self._unsettled = False
        self._journal = Journal(journal_path(path))
        self._db = connect_writer(path, factory)
        try:
            self._settle()
            log.info("%s: SQLite %s, one writer, at change %d", path, sqlite3.sqlite_version, self._seq)
            self._finish_at_start()
        except BaseException:
            self._db.close()
            raise

    def close(self) -> None:
        """Close the files and let go of the lock; a second call does nothing."""
        with self._mutex:
            if not self._closed:
                self._closed = True
                self._journal.close()
                self._db.close()
                self._lock.release()

    @contextmanager
    def transaction(self) -> Iterator[Transaction]:
        """One transaction, alone: on success its changes are in the journal and committed when the block ends."""
        with self._mutex:
            self._require_usable()
            mark = self._journal.mark()
            tx = Transaction(self._db, self._seq, self._clock())
            try:
                self._db.execute("BEGIN IMMEDIATE")
                yield tx
                self._commit(tx)
            except BaseException as error:
                self._take_back(mark)
                if isinstance(error, sqlite3.IntegrityError):
                    raise ValueError(_in_words(error)) from error
                if isinstance(error, sqlite3.Error | OSError):
                    raise NotSaved(f"This was not saved ({error}). Nothing is lost that was saved before; please send it again.") from error
                raise

    def _require_usable(self) -> None:
        if self._closed:
            raise NotSaved(f"{self.path} was closed: nothing was saved.")
        if self._pid != os.getpid():
            raise NotSaved("The store was opened by another process (before a fork): open it again in this one. Nothing was saved.")
        if self._unsettled:
            self._reconnect()

    def _commit(self, tx: Transaction) -> None:
        if not tx.changes:
            self._db.execute("COMMIT")
            return
        block, head = encode(tx.changes, tx.seq, self._head)
        self._db.execute("UPDATE meta SET seq = ?, head = ?", [tx.seq, head])
        self._journal.append(block, self._header())
        self._db.execute("COMMIT")
        self._seq, self._head = tx.seq, head

    def _header(self, *, is_snapshot: bool = False) -> Header:
        return Header(self._store_id, self._schema, self._seq, self._head, is_snapshot)

    def _take_back(self, mark: tuple[Path | None, int]) -> None:
        """Undo a failed transaction, then its block in the journal; what cannot be undone now is settled before the next write."""
        try:
            if self._db.conn.in_transaction:
                self._db.execute("ROLLBACK")
            if position(self._db)[1] == self._seq:
                self._journal.cut(mark)
            else:  # the commit had happened before the error came
                self._read_position()
        except (sqlite3.Error, OSError) as error:
            log.warning("a failed write could not be undone yet (%s); it is settled before the next", error)
            self._unsettled = True

    def _reconnect(self) -> None:
        try:
            self._db.close()
            self._journal.close()
            self._db = connect_writer(self.path, self._factory)
            self._settle()
        except (sqlite3.Error, OSError) as error:
            raise NotSaved(f"This was not saved: the database cannot be used at the moment ({error}). Please send it again.") from error
        self._unsettled = False

    def _read_position(self) -> None:
        self._store_id, self._seq, self._head = position(self._db)
        self._schema = schema_version(self._db)

    def _settle(self) -> None:
        """Bring database and journal together: replay what a crash left only in the journal, migrate, replace a journal that is no use."""
        self._read_position()
        reason = self._catch_up()
        if migrate(self._db):
            reason = reason or "the schema changed"
        self._read_position()
        if reason:
            log.info("%s: a new journal is written, because %s", self.path, reason)
            self._journal.rewrite(self._header(is_snapshot=True), snapshot(self._db))

    def _catch_up(self) -> str:
        """Replay the blocks that the database lacks. Returns why the journal has to be written anew, '' where it need not."""
        folder = journal_path(self.path)
        try:
            found = read(folder)
            if found is None:
                return "there was none"
            header, blocks = found
            self._require_own(header)
            seq, head, reached = header.after, header.head, (header.after, header.head) == (self._seq, self._head)
            for block in blocks:
                seq, head = block.seq, block.head
                if reached and seq > self._seq:
                    archive.replay(self._db, [block])
                    log.info("%s: %d changes up to %d came back from the journal", self.path, len(block.changes), seq)
                reached = reached or (seq, head) == (self._seq, self._head)
            if not reached and seq >= self._seq:
                raise StoreError(
                    f"{self.path} (change {self._seq}) is not the database that {folder} describes (up to change {seq}): another copy took "
                    f"its place. Use python -m annotate.store restore to do that, or move {folder} away to go on from this database."
                )
        except ValueError as error:
            return self._set_aside(str(error))
        if not reached:
            return self._set_aside(f"it ended at change {seq} and the database at {self._seq}")
        return "its schema was older" if header.schema != self._schema else ""

    def _require_own(self, header: Header) -> None:
        if header.store_id != self._store_id:
            raise StoreError(f"{journal_path(self.path)} is the journal of another database; move it away, then open {self.path} again.")

    def _set_aside(self, reason: str) -> str:
        place = archive.new_aside(self.path)
        log.warning("the journal of %s was moved to %s, because %s", self.path, place, reason)
        self._journal.set_aside(place)
        return reason

    def _finish_at_start(self) -> None:
        try:
            self.finish_erasures()
        except StoreError as error:  # people can vote meanwhile; the erasure stays marked as not cleaned
            log.warning("%s", error)

    def finish_erasures(self) -> None:
        """Make the files forget what erased rows held: the database by VACUUM and an emptied -wal, the journal by writing it anew."""
        with self._mutex:
            self._require_usable()
            waiting = select(self._db, Erasure, cleaned=0)
            if not waiting:
                return
            try:
                self._db.execute("VACUUM")
                if self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]:
                    raise sqlite3.OperationalError("another program reads the database and holds its -wal file")
                self._journal.rewrite(self._header(is_snapshot=True), snapshot(self._db))
            except (sqlite3.Error, OSError) as error:
                raise StoreError(
                    f"The rows of {len(waiting)} erased people are deleted, but the files of {self.path} are not clean yet ({error}). "
                    "Close other programs that use it, free disk space if that is the cause, and erase again."
                ) from error
        with self.transaction() as tx:
            for erasure in waiting:
                tx.put(replace(erasure, cleaned=True))


def _in_words(error: sqlite3.IntegrityError) -> str:
    if "FOREIGN KEY" in str(error):
        return "this names something that is not in the store (an item, candidate, pair, person or answer); add that first"
    return f"the database refuses this: {error}"
