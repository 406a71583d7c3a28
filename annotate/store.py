"""The store: real SQLite through sqlite-utils. Nouns in, nouns out; what a write returns has reached the disk twice.

``open_store`` gives the one writer of a database (others may read). A write changes rows inside a transaction, appends the same changes to
the journal with fsync, and commits with fsync before it returns (``annotate.journal`` says why in that order). A write that fails leaves
everything as it was, or, where even that cannot be known, is settled before the next one; sending it again with the same id is safe.
Leaves out which pair comes next (``annotate.schedule``), every statistic, and who may do what: callers authorize.

    python -m annotate.store check|backup|restore|rebuild|erase --db DB ...
"""

from __future__ import annotations

import argparse
import logging
import queue
import sqlite3
import sys
import uuid
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from sqlite_utils import Database

from annotate import archive, queries
from annotate.database import (
    NotSaved,
    StoreError,
    WriterLock,
    connect_reader,
    inspect,
    open_draft,
    publish,
    require_local_disk,
    require_writable,
    start_store,
)
from annotate.intake import AlreadyJudged, fit_to_judge, known, put_new, record, same_texts
from annotate.journal import journal_path, segments
from annotate.rows import Noun, content_hash, counts, find, select
from annotate.types import (
    Added,
    Annotator,
    Assignment,
    Candidate,
    Check,
    Erasure,
    Event,
    Exclusion,
    Export,
    Item,
    Judgment,
    JudgmentQuery,
    Load,
    Pair,
    Setting,
    timestamp,
)
from annotate.writer import Clock, Transaction, Writer

LEASE_SECONDS = 20 * 60.0
COUNTED = JudgmentQuery()  # current answers of people, without exclusions


@dataclass(frozen=True, slots=True)
class ErasureReport:
    """What an erasure did. ``copies`` still hold the person and are to be deleted by hand; ``exports`` may have carried their judgments."""

    erasure: Erasure
    copies: tuple[Path, ...]
    exports: tuple[Export, ...]


def utc_now() -> datetime:
    return datetime.now(UTC)


def open_store(
    path: str | Path,
    *,
    clock: Clock = utc_now,
    read_only: bool = False,
    factory: type[sqlite3.Connection] = sqlite3.Connection,
) -> Store:
    """The store at ``path``, made if there is none, checked and brought to today's schema; ``clock`` gives the time in UTC.

    ``read_only`` opens it beside another writer or on a read-only disk; every write then raises NotSaved. Raises StoreError, in words and
    with nothing overwritten, for a file that is damaged, empty, foreign, newer, on a network disk, not writable, or in use by a writer.
    """
    path = Path(path).absolute()
    try:
        if read_only:
            inspect(path)
            return Store(path, clock, None)
        require_local_disk(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        require_writable(path)
        lock = WriterLock(path)
        try:
            if not path.exists():
                _create(path)
            inspect(path)
            return Store(path, clock, Writer(path, clock, lock, factory))
        except BaseException:
            lock.release()
            raise
    except (sqlite3.Error, OSError) as error:
        raise StoreError(f"{path} could not be opened ({error}). Nothing was changed.") from error


def _create(path: Path) -> None:
    if archive.restoring_path(path).exists():
        raise StoreError(f"A restore of {path} was interrupted. Run it again: python -m annotate.store restore --db {path} --from COPY")
    if segments(journal_path(path)):
        raise StoreError(
            f"{path} is missing, but its journal {journal_path(path)} is there. Bring the votes back with python -m annotate.store rebuild "
            f"--db {path} --out COPY, then restore --db {path} --from COPY; or move the journal away to begin anew."
        )
    draft = path.with_name(path.name + ".new")
    db = open_draft(draft)
    start_store(db, str(uuid.uuid4()))
    publish(db, draft, path)


class Store:
    """An open store; make it with ``open_store``. Every method may be called from any thread."""

    def __init__(self, path: Path, clock: Clock, writer: Writer | None) -> None:
        self.path = path
        self._clock = clock
        self._writer = writer
        self._closed = False
        self._readers: queue.LifoQueue[Database] = queue.LifoQueue()

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the files and let others write."""
        self._closed = True
        while (db := self._idle_reader()) is not None:
            db.close()
        if self._writer is not None:
            self._writer.close()

    @contextmanager
    def transaction(self) -> Iterator[Transaction]:
        """One write, all or nothing; the methods below are what it is for. Raises NotSaved where nothing can be written."""
        if self._writer is None:
            raise NotSaved(f"{self.path} is open for reading only: nothing was saved.")
        with self._writer.transaction() as tx:
            yield tx

    @contextmanager
    def _reader(self) -> Iterator[Database]:
        """A reading connection for one caller at a time, kept for the next."""
        if self._closed:
            raise StoreError(f"{self.path} was closed; open it again to read.")
        db = self._idle_reader()
        try:
            db = db or connect_reader(self.path)
            yield db
        except BaseException as error:
            if db is not None:
                db.close()
            if isinstance(error, sqlite3.Error):
                raise StoreError(f"{self.path} could not be read ({error}). See python -m annotate.store check --db {self.path}") from error
            raise
        self._readers.put(db)

    def _idle_reader(self) -> Database | None:
        try:
            return self._readers.get_nowait()
        except queue.Empty:
            return None

    # What is compared

    def add_items(self, items: Iterable[Item], candidates: Iterable[Candidate] = ()) -> Added:
        """Add items and candidates; what is there already stays as it is."""
        return self.add_pairs((), candidates, items)

    def add_pairs(self, pairs: Iterable[Pair], candidates: Iterable[Candidate] = (), items: Iterable[Item] = ()) -> Added:
        """Add pairs, with the candidates and items they need, all or nothing.

        A pair of the same two texts, in either order, is added once; two equal texts are dropped unless the pair is an *identical* check.
        """
        with self.transaction() as tx:
            n_items = sum(put_new(tx, item, item_id=item.item_id) for item in items)
            n_candidates = sum(put_new(tx, c, candidate_id=c.candidate_id) for c in candidates)
            n_pairs = n_known = n_identical = 0
            for pair in pairs:
                if pair.lo_sha == pair.hi_sha and pair.kind != "identical":
                    n_identical += 1
                elif same_texts(tx.db, pair):
                    n_known += 1
                else:
                    tx.put(pair)
                    n_pairs += 1
            return Added(n_items, n_candidates, n_pairs, n_known, n_identical)

    # People

    def add_annotator(self, annotator: Annotator) -> Annotator:
        """Add someone; adding the same person again changes nothing. Raises ValueError for an id or identity in use, or erased."""
        with self.transaction() as tx:
            there = tx.find(Annotator, annotator_id=annotator.annotator_id)
            if there is not None:
                if replace(annotator, joined_at=there.joined_at) != there:
                    raise ValueError(f"annotator {annotator.annotator_id} exists with other details; use update_annotator to change them")
                return there
            if tx.find(Erasure, annotator_id=annotator.annotator_id):
                raise ValueError(f"annotator {annotator.annotator_id} was erased and cannot be added again")
            if annotator.identity_sha and tx.find(Annotator, identity_sha=annotator.identity_sha):
                raise ValueError("this invite code or account belongs to an annotator already; find that one by identity_sha")
            return tx.put(replace(annotator, joined_at=annotator.joined_at or tx.at))

    def update_annotator(self, annotator: Annotator) -> Annotator:
        """Change someone's details, status included. Raises ValueError for an unknown id."""
        with self.transaction() as tx:
            there = known(tx, annotator.annotator_id)
            return tx.put(replace(annotator, joined_at=there.joined_at))

    def erase(self, annotator_id: str) -> ErasureReport:
        """Remove a person: their rows, the items they contributed with every judgment on those, and all trace in the store's files.

        A tombstone keeps the random id and counts. Calling again finishes what was interrupted and lists the copies that remain. Raises
        ValueError for an unknown id, StoreError where the files could not be cleaned yet (the rows are gone; opening again finishes it).
        """
        theirs = JudgmentQuery(annotator_id=annotator_id, judge_kind=None, excluded=True, revisions=True)
        first_vote = min((judgment.created_at for judgment in self.judgments(theirs)), default="")
        with self.transaction() as tx:
            if tx.find(Erasure, annotator_id=annotator_id) is None:
                known(tx, annotator_id)
                tx.apply({"erase": annotator_id, "at": tx.at})
        self._writer.finish_erasures()
        with self._reader() as db:
            erasure = find(db, Erasure, annotator_id=annotator_id)
            exports = tuple(e for e in select(db, Export) if first_vote and e.at >= first_vote)
        return ErasureReport(erasure, archive.copies_holding(self.path, annotator_id), exports)

    # Answers

    def lease(self, assignment: Assignment, seconds: float = LEASE_SECONDS, capacity: int | None = None) -> Assignment | None:
        """Offer a pair to someone until ``seconds`` from now; an earlier offer is renewed and keeps its side and key.

        None where ``capacity`` other people have answered it (and count) or hold a running lease: choose another pair. Raises ValueError
        for an unknown pair or person or a wrong side, AlreadyJudged where this person has answered it.
        """
        with self.transaction() as tx:
            fit_to_judge(known(tx, assignment.annotator_id))
            if tx.find(Pair, pair_id=assignment.pair_id) is None:
                raise ValueError(f"there is no pair {assignment.pair_id}")
            own = {"pair_id": assignment.pair_id, "annotator_id": assignment.annotator_id}
            if (judged := queries.current(tx.db, **own)) is not None:
                raise AlreadyJudged("you have answered this pair; change that answer instead", judged)
            if capacity is not None and queries.n_others(tx.db, **own, now=tx.at) >= capacity:
                return None
            kept = tx.find(Assignment, **own) or assignment
            return tx.put(replace(kept, leased_at=tx.at, lease_until=timestamp(tx.now + timedelta(seconds=seconds))))

    def release(self, pair_id: str, annotator_id: str) -> None:
        """End a lease now, so that others may get the pair; a late answer still counts. Nothing happens where there is none."""
        with self.transaction() as tx:
            there = tx.find(Assignment, pair_id=pair_id, annotator_id=annotator_id)
            if there is not None and there.lease_until > tx.at:
                tx.put(replace(there, lease_until=tx.at))

    def record_judgment(self, judgment: Judgment) -> Judgment:
        """Keep one answer and return it as kept, committed. The same answer sent again gets the same reply and makes no second row.

        ``created_at`` is set unless given (an import gives it). Raises ValueError for an id used for another answer, an unknown or blocked
        person, a pair never shown or shown the other way round; AlreadyJudged for a second answer that is no revision of the current one.
        """
        with self.transaction() as tx:
            return record(tx, judgment)

    def revise(self, judgment: Judgment) -> Judgment:
        """``record_judgment`` for an answer that replaces the one named in ``revision_of``, which stays in the store."""
        if judgment.revision_of is None:
            raise ValueError("a revision names the judgment it replaces in revision_of")
        return self.record_judgment(judgment)

    def import_votes(self, assignments: Iterable[Assignment], judgments: Iterable[Judgment]) -> int:
        """Take over answers given elsewhere, in order, all or nothing; their times and ids stay. Returns how many were new."""
        with self.transaction() as tx:
            for assignment in assignments:
                put_new(tx, assignment, pair_id=assignment.pair_id, annotator_id=assignment.annotator_id)
            before = tx.seq
            for judgment in judgments:
                record(tx, judgment)
            return tx.seq - before

    def recent(self, annotator_id: str, n: int = 10) -> tuple[Judgment, ...]:
        """Someone's last ``n`` current answers, the newest first: what undo and edit work on."""
        with self._reader() as db:
            return queries.recent(db, annotator_id, n)

    def judged_pairs(self, annotator_id: str) -> frozenset[str]:
        """The ids of the pairs that somebody has answered, those that do not count included; quicker than reading the answers."""
        with self._reader() as db:
            return queries.judged_pairs(db, annotator_id)

    def judgments(self, query: JudgmentQuery = COUNTED) -> tuple[Judgment, ...]:
        """The judgments that ``query`` names, in the order they were kept."""
        with self._reader() as db:
            return queries.judgments(db, query)

    def checks(self, annotator_id: str | None = None) -> tuple[Check, ...]:
        """How current answers on gold, identical and swapped pairs came out, excluded ones too, in the order they were given."""
        with self._reader() as db:
            return queries.checks(db, annotator_id)

    def loads(self) -> tuple[Load, ...]:
        """How far each pair is now, by pair id: people whose answer counts, and running leases."""
        with self._reader() as db:
            return queries.loads(db, timestamp(self._clock()))

    def newest_pairs(self, n: int) -> tuple[tuple[Pair, str, str, str], ...]:
        """The ``n`` pairs added last, the newest first: pair, prompt, and both texts in the pair's own order."""
        with self._reader() as db:
            return queries.newest_pairs(db, n)

    # The ledger, the audit trail, settings

    def exclude(self, exclusion: Exclusion) -> Exclusion:
        """Enter or switch (``active``) one exclusion; the same target and reason are one entry. The switch goes to the events too."""
        with self.transaction() as tx:
            for noun, name in ((Judgment, "judgment_id"), (Annotator, "annotator_id"), (Pair, "pair_id")):
                value = getattr(exclusion, name)
                if value is not None and tx.find(noun, **{name: value}) is None:
                    raise ValueError(f"there is no {name.removesuffix('_id')} {value} to exclude")
            there = tx.find(Exclusion, exclusion_id=exclusion.exclusion_id)
            if there is not None and there.active == exclusion.active:
                return there
            vote = tx.find(Judgment, judgment_id=exclusion.judgment_id) if exclusion.judgment_id else None
            detail = {"exclusion_id": exclusion.exclusion_id, "active": exclusion.active, "by": exclusion.decided_by}
            who = exclusion.annotator_id or (vote and vote.annotator_id)
            tx.put(Event("exclusion", who, detail, tx.at, tx.seq + 1))
            return tx.put(replace(exclusion, decided_at=tx.at))

    def record_event(self, event: Event) -> Event:
        """Append to the audit trail and return the event as kept."""
        with self.transaction() as tx:
            return tx.put(replace(event, at=event.at or tx.at, seq=tx.seq + 1))

    def record_export(self, export: Export) -> Export:
        """Note an export; the same files noted again are one entry."""
        with self.transaction() as tx:
            return tx.find(Export, export_id=export.export_id) or tx.put(replace(export, at=export.at or tx.at))

    def set_setting(self, name: str, value: Any) -> None:
        """Keep a setting (any JSON value)."""
        with self.transaction() as tx:
            tx.put(Setting(name, value))

    def setting(self, name: str, default: Any = None) -> Any:
        found = self.find(Setting, name=name)
        return default if found is None else found.value

    # Reading

    def all(self, noun: type[Noun], **equals: Any) -> tuple[Noun, ...]:
        """All of a noun, or those whose fields or ids equal the values given, by id: ``store.all(Pair, kind="gold")``."""
        with self._reader() as db:
            return select(db, noun, **equals)

    def find(self, noun: type[Noun], **equals: Any) -> Noun | None:
        """The one that ``all`` finds, or None: ``store.find(Annotator, identity_sha=...)``."""
        with self._reader() as db:
            return find(db, noun, **equals)

    def counts(self) -> dict[str, int]:
        """Rows by table."""
        with self._reader() as db:
            return counts(db)

    def content_hash(self) -> str:
        """sha256 over every row: equal for a store and its rebuilt copy."""
        with self._reader() as db:
            return content_hash(db)

    def backup(self, out: Path | None = None) -> archive.Manifest:
        """Copy the store while it is in use (``annotate.archive.backup``)."""
        return archive.backup(self.path, out)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns 0, or 1 with a sentence on standard error."""
    parser = argparse.ArgumentParser(prog="python -m annotate.store", description="Look after an annotation database.")
    commands = parser.add_subparsers(dest="command", required=True)

    def command(name: str, text: str) -> argparse.ArgumentParser:
        found = commands.add_parser(name, help=text, description=text)
        found.add_argument("--db", type=Path, required=True, help="the database file")
        return found

    command("check", "Check every row and reference, and that the journal rebuilds exactly this database.")
    command("backup", "Copy the database, in use or not.").add_argument("--out", type=Path, help="default: a new file in DB.backups")
    command("restore", "Put a backup in the place of the database, which is moved aside.").add_argument(
        "--from", dest="copy", type=Path, required=True, help="a file that backup or rebuild wrote"
    )
    command("rebuild", "Make a copy from the journal alone.").add_argument("--out", type=Path, required=True)
    command("erase", "Remove a person and every trace of their text.").add_argument("--annotator", required=True, help="the annotator's id")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    try:
        print(_run(options))
    except (StoreError, ValueError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _run(options: argparse.Namespace) -> str:
    """Carry out one command; the answer in words."""
    if options.command == "check":
        report = archive.check(options.db)
        if report.problems:
            raise StoreError("\n".join([f"{options.db} has problems:", *report.problems]))
        rows = ", ".join(f"{n} {name}" for name, n in report.rows.items() if n)
        return f"{options.db} is sound at change {report.seq}: {rows or 'no rows'}. Its journal rebuilds it: content {report.content}"
    if options.command == "backup":
        return _copied(archive.backup(options.db, options.out))
    if options.command == "rebuild":
        return _copied(archive.rebuild(options.db, options.out))
    if options.command == "restore":
        done = archive.restore(options.db, options.copy)
        with open_store(options.db) as store:
            n = store.counts()["judgments"]
        again = f" People erased since that copy were erased again: {len(done.erased)}." if done.erased else ""
        return f"{options.db} is restored to change {done.manifest.seq} ({n} judgments).{again} What was there is in {done.aside}."
    inspect(options.db)  # a mistyped name is no new store
    with open_store(options.db) as store:
        report = store.erase(options.annotator)
    gone = report.erasure
    words = f"Erased: {gone.n_judgments} judgments, {gone.n_assignments} assignments, {gone.n_events} events, {gone.n_items} own items"
    copies = ["These copies still hold this person; delete them:", *map(str, report.copies)] if report.copies else ["No copy holds them."]
    return "\n".join([f"{words} (with {gone.n_others} judgments of others).", *copies])


def _copied(manifest: archive.Manifest) -> str:
    n = manifest.rows["judgments"]
    return f"{manifest.path}: change {manifest.seq}, {n} judgments, sha256 {manifest.sha256}, content {manifest.content}"


if __name__ == "__main__":
    sys.exit(main())
