"""The annotation store when things break: a statement fails, the disk is full, the process dies at any line or any moment.

By default the process dies at 16 lines of each scenario and 4 times while people vote. At every line and 200 times, which takes minutes:

    PAT_KILL_ROUNDS=200 PAT_FAULT_POINTS=0 python -m pytest tests/test_store_faults.py -s
"""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest
from store_data import answer, fill, offer, person, vote

from annotate import archive
from annotate.database import NotSaved, StoreError, connect_writer
from annotate.migrations import STEPS, Step, migrate, schema_version
from annotate.store import Store, open_store
from annotate.types import Annotator, Judgment, JudgmentQuery, Pair

ROOT = Path(__file__).resolve().parents[1]
POINTS = int(os.environ.get("PAT_FAULT_POINTS", 16))  # places at which the process dies, per scenario; 0 is every line
ROUNDS = int(os.environ.get("PAT_KILL_ROUNDS", 4))
CANARY = "canary-7Q3"

pytestmark = pytest.mark.skipif(os.name != "posix", reason="needs fork and SIGKILL")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "votes.db"


def require_sound(path: Path) -> None:
    assert archive.check(path).problems == ()


# A statement fails


class Fault:
    """Makes connections whose statement number ``at`` raises, once it is armed: before it runs, after it ran, or from then on."""

    def __init__(self) -> None:
        self.at, self.mode, self.count = 0, "", 0

    def arm(self, at: int, mode: str) -> None:
        self.at, self.mode, self.count = at, mode, 0

    def factory(self) -> type[sqlite3.Connection]:
        fault = self

        class Failing(sqlite3.Connection):
            def execute(self, *arguments):
                fault.count += 1
                hit = fault.count == fault.at or (fault.mode == "from then on" and 0 < fault.at < fault.count)
                if hit and fault.mode != "after":
                    raise sqlite3.OperationalError("disk I/O error")
                cursor = super().execute(*arguments)
                if hit:
                    raise sqlite3.OperationalError("disk I/O error")
                return cursor

        return Failing


@pytest.mark.parametrize("mode", ["before", "after", "from then on"])
def test_any_statement_of_a_vote_may_fail(path, mode):
    fault = Fault()
    with open_store(path, factory=fault.factory()) as store:
        made, ada = fill(store, 60), person(store)
        given = [answer(offer(store, pair, ada)) for pair in made.pairs]
        fault.arm(0, "")
        store.record_judgment(given.pop())
        n_statements = fault.count
        assert 10 < n_statements < len(given)
        failures = 0
        for n in range(1, n_statements + 1):
            judgment, before = given.pop(), store.judgments()
            fault.arm(n, mode)
            replies = []
            try:
                replies.append(store.record_judgment(judgment))  # sqlite-utils tries a RELEASE twice, so some faults are no failure
            except NotSaved as error:
                assert "send it again" in str(error)
                failures += 1
            after = store.judgments()[len(before) :]
            assert [j.judgment_id for j in after] in ([], [judgment.judgment_id])
            assert replies in ([], list(after))
            fault.arm(0, "")
            kept = store.record_judgment(judgment)
            assert store.judgments() == (*before, kept)
        assert failures >= n_statements * 3 // 4
        require_sound(path)
    with open_store(path) as store:
        assert len(store.judgments()) == n_statements + 1
    require_sound(path)


def at_line(at: int, act: Callable[[], None], run: Callable[[], object], within: str = "/annotate/") -> int:
    """Run ``run``, with ``act`` called when line ``at`` (from 1) of the code ``within`` is reached. Returns how many lines ran."""
    n = 0

    def trace(frame, event, _argument):
        nonlocal n
        if within not in frame.f_code.co_filename:
            return None
        if event == "line":
            n += 1
            if n == at:
                act()
        return trace

    sys.settrace(trace)
    try:
        run()
    finally:
        sys.settrace(None)
    return n


def sample(n_lines: int) -> list[int]:
    """Half of POINTS are the last lines, where journal and commit happen; the others anywhere."""
    if not POINTS or n_lines <= POINTS:
        return list(range(1, n_lines + 1))
    tail = range(n_lines - POINTS // 2 + 1, n_lines + 1)
    return sorted(random.Random(0).sample(range(1, tail[0]), POINTS - len(tail))) + list(tail)


def disk_error() -> None:
    raise OSError(28, "No space left on device")


def test_any_line_of_the_journal_may_meet_a_full_disk(path):
    with open_store(path) as store:
        made, ada = fill(store, 100), person(store)
        given = [answer(offer(store, pair, ada)) for pair in made.pairs]
        first = given.pop()
        n_lines = at_line(0, disk_error, lambda: store.record_judgment(first), "/annotate/journal.py")
        for line in range(1, n_lines + 1):
            judgment, before = given.pop(), store.judgments()
            with pytest.raises((NotSaved, OSError), match="No space left"):
                at_line(line, disk_error, lambda judgment=judgment: store.record_judgment(judgment), "/annotate/journal.py")
            assert store.judgments() == before
            kept = store.record_judgment(judgment)
            assert store.judgments() == (*before, kept)
        require_sound(path)


# The disk is full


def test_a_full_database_refuses_votes_and_recovers(path):
    connections = []

    class Seen(sqlite3.Connection):
        def __init__(self, *arguments, **details):
            super().__init__(*arguments, **details)
            connections.append(self)

    with open_store(path, factory=Seen) as store:
        made, ada = fill(store, 40), person(store)
        given = [answer(offer(store, pair, ada), rationale="long " * 700) for pair in made.pairs]
        pages = connections[0].execute("PRAGMA page_count").fetchone()[0]
        connections[0].execute(f"PRAGMA max_page_count = {pages + 10}")
        kept, refused = [], []
        for judgment in given:
            try:
                kept.append(store.record_judgment(judgment))
            except NotSaved as error:
                assert "full" in str(error)
                refused.append(judgment)
        assert kept and refused
        assert store.judgments() == tuple(kept)
        connections[0].execute("PRAGMA max_page_count = 1000000")
        kept += [store.record_judgment(judgment) for judgment in refused]
        assert store.judgments() == tuple(kept)
        require_sound(path)


LIMITED = """
import resource, sys
from pathlib import Path
from annotate.database import NotSaved
from annotate.store import open_store
from store_data import *
path = Path(sys.argv[1])
with open_store(path) as store:
    made, ada = fill(store, 60), person(store)
    given = [answer(offer(store, pair, ada), rationale="long " * 700) for pair in made.pairs]
    largest = max(file.stat().st_size for file in path.parent.rglob("*") if file.is_file())
    resource.setrlimit(resource.RLIMIT_FSIZE, (largest + 100_000, resource.RLIM_INFINITY))
    kept, refused = [], []
    for judgment in given:
        try:
            kept.append(store.record_judgment(judgment))
        except NotSaved as error:
            refused.append(judgment)
    assert kept and refused, (len(kept), len(refused))
    assert [j.judgment_id for j in store.judgments()] == [j.judgment_id for j in kept]
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    kept += [store.record_judgment(judgment) for judgment in refused]
    assert sorted(map(repr, store.judgments())) == sorted(map(repr, kept))
print(len(kept), len(refused))
"""


@pytest.mark.slow
def test_files_that_cannot_grow_refuse_votes_and_recover(path):
    environment = os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}"}
    child = subprocess.run([sys.executable, "-c", LIMITED, path], env=environment, capture_output=True, text=True)
    assert child.returncode == 0, child.stderr
    assert child.stdout.startswith("60 ")
    require_sound(path)


# The process dies


def dies(at: int, run: Callable[[], object], path: Path | None = None) -> bool:
    """Run ``run`` in a fork that is killed by SIGKILL at line ``at`` of the package's code. True where it ended before that.

    With ``path`` the store there is opened first, and ``run`` gets it; lines count from then on.
    """
    child = os.fork()
    if child == 0:
        try:
            begin = run if path is None else partial(run, open_store(path))
            at_line(at, lambda: os.kill(os.getpid(), signal.SIGKILL), begin)
            os._exit(0)
        finally:
            os._exit(1)
    status = os.waitpid(child, 0)[1]
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return False
    assert os.WEXITSTATUS(status) == 0
    return True


@pytest.mark.slow
def test_death_at_any_line_of_the_first_start(tmp_path):
    n_lines = at_line(0, disk_error, lambda: open_store(tmp_path / "count" / "votes.db").close())
    for line in sample(n_lines):
        path = tmp_path / f"{line}" / "votes.db"
        dies(line, lambda path=path: open_store(path).close())
        with open_store(path) as store:
            vote(store, fill(store).pairs[0], person(store))
        require_sound(path)


@pytest.mark.slow
def test_death_at_any_line_of_a_vote(path):
    with open_store(path) as store:
        ada = person(store)
        first = answer(offer(store, fill(store, 1).pairs[0], ada))
    with open_store(path) as store:
        n_lines = at_line(0, disk_error, lambda: store.record_judgment(first))
    lines, survived = sample(n_lines), 0
    with open_store(path) as store:
        given = [answer(offer(store, pair, ada)) for pair in fill(store, len(lines), prompt="A hotel in Oslo").pairs]
    for line, judgment in zip(lines, given, strict=True):
        ended = dies(line, lambda store, judgment=judgment: store.record_judgment(judgment), path)
        with open_store(path) as store:
            there = store.all(Judgment, judgment_id=judgment.judgment_id)
            assert len(there) == 1 if ended else len(there) <= 1
            survived += len(there)
            store.record_judgment(judgment)
            assert len(store.all(Judgment, judgment_id=judgment.judgment_id)) == 1
    assert 0 < survived < len(lines)
    require_sound(path)


@pytest.mark.slow
def test_death_at_any_line_of_an_erasure(path, tmp_path):
    def enter(store: Store) -> Annotator:
        who = person(store, CANARY)
        vote(store, store.all(Pair)[0], who, rationale=CANARY)
        return who

    def traces() -> list[Path]:
        return [p for p in tmp_path.rglob("*") if p.is_file() and CANARY.encode() in p.read_bytes()]

    with open_store(path) as store:
        fill(store)
        who = enter(store)
    with open_store(path) as store:
        n_lines = at_line(0, disk_error, lambda: store.erase(who.annotator_id))
    begun = 0
    for line in sample(n_lines):
        with open_store(path) as store:
            who = enter(store)
        ended = dies(line, lambda store, who=who: store.erase(who.annotator_id), path)
        with open_store(path) as store:  # finishes what was begun
            there = store.find(Annotator, annotator_id=who.annotator_id)
            assert there is None or not ended
            assert bool(traces()) == (there is not None)
            begun += there is None
            assert store.erase(who.annotator_id).erasure.cleaned
            assert traces() == []
    assert 0 < begun < len(sample(n_lines))
    require_sound(path)


@pytest.mark.slow
def test_death_at_any_line_of_a_restore(path):
    with open_store(path) as store:
        made, ada = fill(store), person(store)
        vote(store, made.pairs[0], ada)
        copy = store.backup()
        vote(store, made.pairs[1], ada)
    later = archive.backup(path)
    n_lines = at_line(0, disk_error, lambda: archive.restore(path, Path(copy.path)))
    interrupted = 0
    for line in sample(n_lines):
        archive.restore(path, Path(later.path))
        dies(line, lambda: archive.restore(path, Path(copy.path)))
        try:
            with open_store(path) as store:
                assert store.content_hash() in (copy.content, later.content)
        except StoreError as error:
            assert "interrupted" in str(error) or "journal" in str(error)
            interrupted += 1
        archive.restore(path, Path(copy.path))
        with open_store(path) as store:
            assert store.content_hash() == copy.content
        require_sound(path)


@pytest.mark.slow
def test_death_at_any_line_of_a_migration(path):
    step = Step(STEPS[-1].number + 1, "colour", "ALTER TABLE items ADD COLUMN colour TEXT;\nCREATE TABLE extra (x TEXT) STRICT;\n")
    with open_store(path) as store:
        vote(store, fill(store).pairs[0], person(store))
    original = path.read_bytes()

    def upgrade() -> None:
        with closing(connect_writer(path)) as db:
            migrate(db, [*STEPS, step])

    n_lines = at_line(0, disk_error, upgrade)
    versions = set()
    for line in sample(n_lines):
        for file in path.parent.glob("votes.db-*"):
            file.unlink()
        path.write_bytes(original)
        dies(line, upgrade)
        with closing(connect_writer(path)) as db:
            version = schema_version(db)
            assert ("colour" in db.table("items").columns_dict) == ("extra" in db.table_names()) == (version == step.number)
            versions.add(version)
            assert db.execute("SELECT count(*) FROM judgments").fetchone() == (1,)
    assert step.number - 1 in versions


VOTERS = """
import sys
from concurrent.futures import ThreadPoolExecutor
from annotate.store import open_store
from annotate.types import Pair
from store_data import *
with open_store(sys.argv[1]) as store:
    pairs = store.all(Pair)
    def voter(i):
        who = person(store, f"p{i}")
        for pair in pairs:
            print(vote(store, pair, who, rationale="because " * 50).judgment_id + "\\n", end="", flush=True)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(voter, range(4)))
"""


@pytest.mark.slow
def test_kill_9_while_people_vote(path):
    with open_store(path) as store:
        fill(store, 400)
    environment = os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}"}
    moments = random.Random(os.environ.get("PAT_SEED", 0))
    acknowledged: list[str] = []
    for _ in range(ROUNDS):
        child = subprocess.Popen([sys.executable, "-c", VOTERS, path], env=environment, stdout=subprocess.PIPE, text=True)
        acknowledged.append(child.stdout.readline().strip())  # it is voting now
        time.sleep(moments.uniform(0, 0.4))
        child.kill()
        rest = child.stdout.read()
        child.wait()
        acknowledged += [line for line in rest.split("\n")[:-1] if line]
        with open_store(path) as store:
            kept = [j.judgment_id for j in store.judgments(JudgmentQuery(revisions=True))]
        assert len(kept) == len(set(kept))
        assert set(acknowledged) <= set(kept)
    assert len(acknowledged) > 2 * ROUNDS
    require_sound(path)
    print(f"{ROUNDS} kills, {len(acknowledged)} acknowledged votes, {len(kept)} kept")


def test_a_fork_may_not_write_through_its_parents_store(path):
    with open_store(path) as store:
        child = os.fork()
        if child == 0:
            try:
                person(store)
            except NotSaved:
                os._exit(7)
            os._exit(0)
        assert os.WEXITSTATUS(os.waitpid(child, 0)[1]) == 7
        assert person(store).nickname == "Ada"
