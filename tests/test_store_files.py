"""The files of a store: bad ones, migrations, the journal, copies, and what an erasure leaves in them."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from store_data import SetClock, answer, fill, person, vote

from annotate import archive
from annotate.database import WRITER_PRAGMAS, StoreError, connect_writer
from annotate.journal import journal_path, segments
from annotate.migrations import STEPS, Step, load_steps, migrate, schema_version
from annotate.store import main, open_store
from annotate.types import (
    Annotator,
    Assignment,
    Erasure,
    Event,
    Exclusion,
    Export,
    Pair,
    new_id,
)

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def clock():
    return SetClock()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "votes.db"


@pytest.fixture
def store(path, clock):
    with open_store(path, clock=clock) as opened:
        yield opened


def require_rebuilt(store):
    """The journal alone gives a database with the same rows."""
    report = archive.check(store.path)
    assert report.problems == ()
    assert report.content == report.rebuilt == store.content_hash()


# Files that are not a store


def make_bad_files(good: Path) -> dict[str, bytes]:
    data = good.read_bytes()
    foreign = sqlite3.connect(good.with_name("foreign.db"))
    foreign.execute("CREATE TABLE mine (x)")
    foreign.close()
    newer = shutil.copy(good, good.with_name("newer.db"))
    connection = sqlite3.connect(newer)
    connection.execute(f"PRAGMA user_version = {STEPS[-1].number + 1}")
    connection.close()
    return {
        "is empty": b"",
        "not an SQLite database": b"id,outcome\n1,A\n" * 1000,
        "another program": good.with_name("foreign.db").read_bytes(),
        "newer version": newer.read_bytes(),
        "is damaged": data[: len(data) // 2],
        "is damaged ": data[:8192] + bytes(b ^ 0xFF for b in data[8192:16384]) + data[16384:],
        "first page is damaged": b"\xff" * 100 + data[100:],
    }


def test_bad_files_are_refused_in_words_and_left_as_they_are(tmp_path):
    with open_store(tmp_path / "good.db") as store:
        fill(store, 30)
    for words, data in make_bad_files(tmp_path / "good.db").items():
        folder = tmp_path / words.replace(" ", "-")
        folder.mkdir()
        bad = folder / "votes.db"
        bad.write_bytes(data)
        for read_only in (False, True):
            with pytest.raises(StoreError, match=words.strip()):
                open_store(bad, read_only=read_only)
        assert bad.read_bytes() == data
        with pytest.raises(StoreError):
            archive.backup(bad)
    with pytest.raises(StoreError, match="does not exist"):
        open_store(tmp_path / "absent.db", read_only=True)
    with pytest.raises(StoreError, match="not a file"):
        open_store(tmp_path)


READ_ONLY = """
import os, sys
from annotate.store import open_store
from annotate.types import Pair
if os.getuid() == 0:  # root may write anywhere
    os.setgid(65534); os.setuid(65534)
try:
    open_store(sys.argv[1])
except RuntimeError as error:
    print(error)
with open_store(sys.argv[1], read_only=True) as store:
    print(len(store.all(Pair)), "pairs")
"""


@pytest.mark.skipif(os.name != "posix", reason="needs POSIX permissions")
@pytest.mark.parametrize("what", ["file", "folder"])
def test_a_read_only_file_or_folder_can_be_read(what):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "votes.db"
        with open_store(path) as store:
            fill(store)
        path.chmod(0o444)
        path.parent.chmod(0o555 if what == "folder" else 0o777)
        child = subprocess.run([sys.executable, "-c", READ_ONLY, path], cwd=ROOT, capture_output=True, text=True)
        path.parent.chmod(0o755)
    assert child.returncode == 0, child.stderr
    assert "cannot be written: fix its permissions" in child.stdout
    assert "4 pairs" in child.stdout


# Migrations

NEXT = Step(
    STEPS[-1].number + 1, "colour", "-- a new column;\nALTER TABLE items ADD COLUMN colour TEXT;\nCREATE TABLE extra (x TEXT) STRICT;\n"
)


def test_a_new_step_keeps_every_row(path):
    with open_store(path) as store:
        vote(store, fill(store).pairs[0], person(store))
        rows = store.counts()
    db = connect_writer(path)
    assert migrate(db, [*STEPS, NEXT]) == 1
    assert migrate(db, [*STEPS, NEXT]) == 0
    assert schema_version(db) == NEXT.number
    assert archive.counts(db) == rows
    assert db.execute("SELECT colour FROM items").fetchall() == [(None,)]
    db.close()
    with pytest.raises(StoreError, match="newer version"):
        open_store(path)


def test_a_step_that_fails_changes_nothing(path):
    open_store(path).close()
    db = connect_writer(path)
    before = db.schema
    broken = replace(NEXT, sql=NEXT.sql + "CREATE TABLE extra (x TEXT);")
    with pytest.raises(sqlite3.OperationalError, match="already exists"):
        migrate(db, [*STEPS, broken])
    assert (db.schema, schema_version(db)) == (before, STEPS[-1].number)
    with pytest.raises(ValueError, match="no semicolon"):
        migrate(db, [*STEPS, replace(NEXT, sql="CREATE TABLE more (x TEXT)")])
    assert (db.schema, schema_version(db)) == (before, STEPS[-1].number)
    db.close()


def test_steps_are_numbered_without_a_gap(tmp_path):
    for name in ("0001_a.sql", "0003_b.sql"):
        (tmp_path / name).write_text("SELECT 1;")
    with pytest.raises(ValueError, match=r"\[1, 3\]"):
        load_steps(tmp_path)


# Journal


def some_votes(path, n=3, **details):
    """A store with ``n`` answers of one person; closed. Returns (content hash, the answers)."""
    with open_store(path, **details) as store:
        made, ada = fill(store, n), person(store)
        votes = [vote(store, pair, ada, rationale=f"reason {i}") for i, pair in enumerate(made.pairs)]
        return store.content_hash(), votes


def test_a_lost_journal_is_written_anew(path):
    content, _ = some_votes(path)
    shutil.rmtree(journal_path(path))
    with open_store(path) as store:
        assert store.content_hash() == content
        require_rebuilt(store)


def test_a_lost_database_is_not_begun_anew_and_comes_back_from_the_journal(path, capsys):
    content, votes = some_votes(path)
    path.unlink()
    with pytest.raises(StoreError, match=r"its journal .* is there"):
        open_store(path)
    assert main(["rebuild", "--db", str(path), "--out", str(path.with_name("copy.db"))]) == 0
    assert main(["restore", "--db", str(path), "--from", str(path.with_name("copy.db"))]) == 0
    with open_store(path) as store:
        assert (store.content_hash(), store.judgments()) == (content, tuple(votes))
        require_rebuilt(store)
    assert content in capsys.readouterr().out


def change_last_segment(path, change):
    segment = segments(journal_path(path))[-1]
    for candidate in segments(journal_path(path)):
        if b"reason" in candidate.read_bytes():
            segment = candidate
    data = segment.read_bytes()
    segment.write_bytes(change(data))
    return segment


@pytest.mark.parametrize(
    "change",
    [
        lambda data: data.replace(b"reason 1", b"reason 9"),
        lambda data: data.replace(b'"outcome":"A"', b'"outcome":"B"', 1),
        lambda data: b"".join(line for line in data.splitlines(keepends=True) if b"reason 1" not in line),
        lambda data: data.replace(b'{"put"', b'{put"', 1),
        lambda data: data[: data.index(b"reason 1")],
        lambda data: data.replace(b'"snapshot":false', b'"snapshot":0x', 1),
        lambda data: b"",
    ],
    ids=["text", "outcome", "line lost", "no JSON", "cut", "header", "emptied"],
)
def test_an_altered_journal_is_found_put_aside_and_replaced(path, change, capsys):
    content, votes = some_votes(path)
    change_last_segment(path, change)
    assert main(["check", "--db", str(path)]) == 1
    assert "journal" in capsys.readouterr().err
    with open_store(path) as store:
        assert (store.content_hash(), store.judgments()) == (content, tuple(votes))
        require_rebuilt(store)
    assert list(path.with_name("votes.db.aside").rglob("*.jsonl"))


def test_a_block_cut_short_by_a_crash_does_not_count(path):
    content, _ = some_votes(path)
    segment = change_last_segment(path, lambda data: data + b'{"put":"judgments","row":{"seq":99}}\n{"commit":9')
    with open_store(path) as store:
        assert store.content_hash() == content
        person(store, "Bob")  # goes on in a segment of its own
        require_rebuilt(store)
    assert segment.exists()


def test_journal_of_another_database_is_refused(path, tmp_path):
    some_votes(path)
    some_votes(tmp_path / "other.db")
    shutil.rmtree(journal_path(path))
    shutil.copytree(journal_path(tmp_path / "other.db"), journal_path(path))
    with pytest.raises(StoreError, match="journal of another database"):
        open_store(path)


def test_an_older_copy_put_back_by_hand_catches_up(path):
    with open_store(path) as store:
        made, ada = fill(store), person(store)
        vote(store, made.pairs[0], ada)
    old = path.read_bytes()
    with open_store(path) as store:
        vote(store, made.pairs[1], ada)
        content = store.content_hash()
    path.write_bytes(old)
    with open_store(path) as store:
        assert store.content_hash() == content
        require_rebuilt(store)


def test_a_copy_with_another_history_is_refused(path):
    with open_store(path) as store:
        made, ada = fill(store), person(store)
    old = path.read_bytes(), {s.name: s.read_bytes() for s in segments(journal_path(path))}
    with open_store(path) as store:
        vote(store, made.pairs[0], ada)
        vote(store, made.pairs[1], ada)
    other = path.with_name("other.db")
    other.write_bytes(old[0])
    journal_path(other).mkdir()
    for name, data in old[1].items():
        (journal_path(other) / name).write_bytes(data)
    with open_store(other) as store:
        vote(store, made.pairs[2], ada)
    shutil.copy(other, path)
    with pytest.raises(StoreError, match="another copy took its place"):
        open_store(path)


def test_segments_stay_small(path, monkeypatch):
    monkeypatch.setattr("annotate.journal.MAX_SEGMENT", 2000)
    content, _ = some_votes(path, 12)
    assert len(segments(journal_path(path))) > 5
    with open_store(path) as store:
        assert store.content_hash() == content
        require_rebuilt(store)


# Copies


def test_backup_while_voting_restores_elsewhere(path, tmp_path):
    with open_store(path) as store:
        made, ada, bob = fill(store, 40), person(store), person(store, "Bob")
        acknowledged = [vote(store, pair, ada) for pair in made.pairs[:5]]
        with ThreadPoolExecutor(1) as pool:
            rest = pool.submit(lambda: [vote(store, pair, bob) for pair in made.pairs])
            manifest = store.backup()
            rest.result()
        assert manifest.rows["judgments"] >= 5
        later = store.content_hash()
        require_rebuilt(store)
    copy = Path(manifest.path)
    elsewhere = tmp_path / "elsewhere" / "votes.db"
    elsewhere.parent.mkdir()
    archive.restore(elsewhere, copy)
    with open_store(elsewhere) as other:
        assert other.content_hash() == manifest.content != later
        assert other.judgments()[:5] == tuple(acknowledged)
        require_rebuilt(other)


def test_only_whole_copies_are_restored(path, tmp_path):
    content, _ = some_votes(path)
    copy = tmp_path / "copy.db"
    archive.backup(path, copy)
    before = path.read_bytes()
    with pytest.raises(StoreError, match="exists; it is not overwritten"):
        archive.backup(path, copy)
    plain = tmp_path / "plain.db"
    shutil.copy(path, plain)
    with pytest.raises(StoreError, match="has no manifest"):
        archive.restore(path, plain)
    copy.write_bytes(copy.read_bytes()[:-1])
    with pytest.raises(StoreError, match="not the file its manifest describes"):
        archive.restore(path, copy)
    archive.manifest_path(copy).write_text("{}")
    with pytest.raises(StoreError, match="is not a manifest"):
        archive.restore(path, copy)
    assert path.read_bytes() == before
    with open_store(path) as store:
        assert store.content_hash() == content
        with pytest.raises(StoreError, match="in use"):
            archive.restore(path, Path(store.backup().path))


def test_restore_moves_aside_what_was_there(path):
    content, _ = some_votes(path)
    copy = Path(archive.backup(path).path)
    with open_store(path) as store:
        person(store, "Eve")
        later = store.content_hash()
    done = archive.restore(path, copy)
    with open_store(path) as store:
        assert store.content_hash() == content
        require_rebuilt(store)
    with open_store(done.aside / path.name) as old:
        assert old.content_hash() == later


def test_restore_over_a_damaged_database(path):
    content, _ = some_votes(path)
    copy = Path(archive.backup(path).path)
    damaged = path.read_bytes()[:5000]
    path.write_bytes(damaged)
    with pytest.raises(StoreError, match="damaged"):
        open_store(path)
    done = archive.restore(path, copy)
    assert (done.aside / path.name).read_bytes() == damaged
    with open_store(path) as store:
        assert store.content_hash() == content


def test_an_interrupted_restore_is_not_taken_for_a_new_store(path):
    some_votes(path)
    path.rename(archive.restoring_path(path))
    shutil.rmtree(journal_path(path))
    with pytest.raises(StoreError, match=r"restore .* was interrupted"):
        open_store(path)


# Erasing a person

CANARY = "canary-7Q3"


def canary_files(folder: Path) -> list[Path]:
    return [p for p in folder.rglob("*") if p.is_file() and CANARY.encode() in p.read_bytes()]


def test_an_erased_person_leaves_nothing_in_any_file(path, tmp_path):
    with open_store(path) as store:
        ada, bob = person(store, f"Ada {CANARY}", perspective=CANARY), person(store, "Bob")
        made = fill(store)
        own = fill(store, 2, prompt=f"my trip {CANARY}", contributor_id=ada.annotator_id)
        first = vote(store, made.pairs[0], ada, rationale=f"{CANARY} " * 200, tags=(CANARY,))
        store.revise(
            answer(store.all(Assignment, annotator_id=ada.annotator_id)[0], "tie", revision_of=first.judgment_id, rationale=CANARY)
        )
        kept = vote(store, made.pairs[0], bob)
        vote(store, own.pairs[0], bob)  # goes with the item
        store.exclude(Exclusion(f"says {CANARY}", "owner", judgment_id=first.judgment_id))
        store.exclude(Exclusion(f"odd {CANARY}", "owner", annotator_id=ada.annotator_id))
        store.exclude(Exclusion(f"leaks {CANARY}", "owner", pair_id=own.pairs[1].pair_id))
        store.record_event(Event("note", ada.annotator_id, {"text": CANARY}))
        export = store.record_export(Export("1" * 64, 2))
        copy = Path(store.backup().path)
        assert {p.name for p in canary_files(tmp_path)} >= {copy.name} and len(canary_files(tmp_path)) >= 3
        report = store.erase(ada.annotator_id)
        assert report.copies == (copy,)
        assert report.exports == (export,)
        assert report.erasure == Erasure(ada.annotator_id, report.erasure.erased_at, 2, 1, 3, 1, 1, cleaned=True)
        assert canary_files(tmp_path) == [copy]
        assert store.judgments() == (kept,)
        assert store.all(Pair) == tuple(sorted(made.pairs, key=lambda p: p.pair_id))
        assert store.all(Erasure) == (report.erasure,)
        with pytest.raises(ValueError, match="was erased"):
            store.add_annotator(ada)
        copy.unlink()
        assert store.erase(ada.annotator_id) == replace(report, copies=(), exports=())
        vote(store, made.pairs[1], bob)
        require_rebuilt(store)
        after = store.content_hash()
    assert canary_files(tmp_path) == []
    with open_store(path) as store:
        assert store.content_hash() == after
    rebuilt = archive.rebuild(path, tmp_path / "rebuilt.db")
    assert rebuilt.content == after


def test_append_only_holds_for_everybody_else_after_an_erasure(store):
    made, ada, bob = fill(store), person(store), person(store, "Bob")
    vote(store, made.pairs[0], ada)
    vote(store, made.pairs[0], bob)
    store.erase(ada.annotator_id)
    connection = sqlite3.connect(store.path, isolation_level=None)
    for sql in ("DELETE FROM judgments", "UPDATE judgments SET outcome = 'B'", "DELETE FROM erasures", "DELETE FROM annotators"):
        with pytest.raises(sqlite3.IntegrityError):
            connection.execute(sql)
    connection.close()


def test_a_restore_does_not_bring_an_erased_person_back(path, tmp_path):
    with open_store(path) as store:
        made, ada, bob = fill(store), person(store, CANARY), person(store, "Bob")
        vote(store, made.pairs[0], ada, rationale=CANARY)
        kept = vote(store, made.pairs[0], bob)
        copy = Path(store.backup().path)
        store.erase(ada.annotator_id)
    done = archive.restore(path, copy)
    assert done.erased == (ada.annotator_id,)
    with open_store(path) as store:
        assert store.judgments() == (kept,)
        assert store.all(Annotator) == (bob,)
        require_rebuilt(store)
        assert set(archive.copies_holding(path, ada.annotator_id)) == {copy, done.aside}
    assert canary_files(tmp_path) == [copy]


def test_a_restore_over_a_damaged_database_reads_erasures_from_the_journal(path):
    with open_store(path) as store:
        fill(store)
        ada = person(store)
        copy = Path(store.backup().path)
        store.erase(ada.annotator_id)
    path.write_bytes(b"")
    assert archive.restore(path, copy).erased == (ada.annotator_id,)


def test_erasing_an_unknown_person(store):
    with pytest.raises(ValueError, match="no annotator"):
        store.erase(new_id())


def test_an_erasure_waits_for_a_reader_and_is_finished_later(path, monkeypatch, tmp_path):
    monkeypatch.setitem(WRITER_PRAGMAS, "busy_timeout", 50)
    with open_store(path) as store:
        made, ada = fill(store), person(store, CANARY)
        vote(store, made.pairs[0], ada, rationale=CANARY)
        reader = sqlite3.connect(path, isolation_level=None)
        reader.execute("BEGIN")
        reader.execute("SELECT * FROM judgments").fetchall()
        with pytest.raises(StoreError, match=r"files of .* are not clean yet"):
            store.erase(ada.annotator_id)
        assert store.judgments() == () and canary_files(tmp_path)
    with open_store(path) as store:  # people can vote meanwhile
        assert [e.cleaned for e in store.all(Erasure)] == [False]
        vote(store, made.pairs[1], person(store, "Bob"))
        reader.close()
        assert store.erase(ada.annotator_id).erasure.cleaned
        assert canary_files(tmp_path) == []


# The command line


def test_commands(path, tmp_path, capsys):
    content, votes = some_votes(path)
    copy = tmp_path / "copy.db"
    assert main(["check", "--db", str(path)]) == 0
    assert main(["backup", "--db", str(path), "--out", str(copy)]) == 0
    assert main(["restore", "--db", str(path), "--from", str(copy)]) == 0
    out = capsys.readouterr().out
    assert out.count(content) == 2 and "3 judgments" in out and "What was there is in" in out
    assert json.loads(archive.manifest_path(copy).read_text())["content"] == content
    assert main(["backup", "--db", str(path), "--out", str(copy)]) == 1
    assert "not overwritten" in capsys.readouterr().err
    assert main(["erase", "--db", str(path), "--annotator", votes[0].annotator_id]) == 0
    assert (
        "Erased: 3 judgments, 3 assignments, 0 events, 0 own items (with 0 judgments of others).\nThese copies" in capsys.readouterr().out
    )
    assert main(["check", "--db", str(tmp_path / "absent.db")]) == 1
    assert "does not exist" in capsys.readouterr().err


def test_module_runs_from_the_shell(path):
    some_votes(path)
    done = subprocess.run([sys.executable, "-m", "annotate.store", "check", "--db", path], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert "is sound at change" in done.stdout
