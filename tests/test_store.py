"""The annotation store on real SQLite: what it keeps, how it is asked, who may write, and that any history is kept and rebuilt."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule, run_state_machine_as_test
from sqlite_utils import Database
from store_data import NOON, SetClock, answer, campaign, fill, offer, person, vote

from annotate import archive
from annotate.database import WRITER_PRAGMAS, NotSaved, StoreError, connect_writer, require_local_disk
from annotate.intake import AlreadyJudged
from annotate.store import open_store
from annotate.types import (
    OUTCOMES,
    Added,
    Annotator,
    Assignment,
    Candidate,
    Event,
    Exclusion,
    Export,
    Item,
    Judgment,
    JudgmentQuery,
    Load,
    Pair,
    Setting,
    new_id,
    pair_of,
    timestamp,
    winner,
)
from pat_core.types import ADAPTER_ROLES

ROOT = Path(__file__).resolve().parents[1]
HISTORIES = int(os.environ.get("PAT_HISTORIES", 25))


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


def everything(store):
    return {noun: store.all(noun) for noun in (Setting, Annotator, Item, Candidate, Pair, Assignment, Judgment, Exclusion, Event, Export)}


def require_rebuilt(store):
    """The journal alone gives a database with the same rows."""
    report = archive.check(store.path)
    assert report.problems == ()
    assert report.content == report.rebuilt == store.content_hash()


# What is kept


def test_nouns_come_back_equal_after_reopening(path, clock):
    with open_store(path, clock=clock) as store:
        made = fill(store)
        ada = person(store, "Ada", perspective="native", lang="it", consent="2026-11", identity_sha="0" * 64)
        shown = offer(store, made.pairs[0], ada)
        full = answer(
            shown,
            "B",
            strength="clearly",
            dims={"style": "B", "topic": "same"},
            tags=("short", "Ünïcode 🎈"),
            rationale="line 1\nline 2 \u202e",
            ms_visible=900,
            ms_total=1000,
            input_kind="keyboard",
            ui_version="1",
            guideline_version="2",
            unblinded=True,
        )
        kept = store.record_judgment(full)
        store.set_setting("overlap", {"target": 2, "share": 0.15})
        store.record_event(Event("login", ada.annotator_id, {"route": "/annotate"}))
        store.record_export(Export("1" * 64, 1, {"kinds": ["system"]}, {"p": 0.65}, "1"))
        store.exclude(Exclusion("too fast", "owner", judgment_id=kept.judgment_id))
        before = everything(store)
    assert kept == replace(full, seq=kept.seq, created_at=timestamp(NOON))
    with open_store(path) as store:
        assert everything(store) == before
        assert all(before.values())
        assert store.find(Candidate, candidate_id=made.candidates[1].candidate_id) == made.candidates[1]
        assert store.find(Pair, pair_id="0" * 64) is None
        assert store.setting("overlap") == {"target": 2, "share": 0.15}
        assert store.setting("absent", 7) == 7
        require_rebuilt(store)


def test_unknown_column_is_refused(store):
    with pytest.raises(ValueError, match="Pair has no column colour; use "):
        store.all(Pair, colour="red")


def test_same_pair_in_either_order_is_added_once(store):
    made = campaign(2)
    a, b, c = made.candidates
    assert store.add_items([made.item], made.candidates) == Added(items=1, candidates=3)
    assert store.add_pairs([pair_of(a, b, "system"), pair_of(b, a, "system"), pair_of(a, c, "one-factor", agent="style")]) == Added(
        pairs=2, known=1
    )
    twin = replace(b, trace={"seed": 99})  # the same text from another seed
    assert store.add_pairs([pair_of(a, twin, "system")], [twin]) == Added(candidates=1, known=1)
    before = store.content_hash()
    assert store.add_pairs([pair_of(b, a, "system")], made.candidates, [made.item]) == Added(known=1)
    assert store.content_hash() == before


def test_identical_texts_are_dropped_unless_they_are_a_check(store):
    made = campaign(1)
    a, b = made.candidates
    twin = replace(a, trace={"seed": 99})
    added = store.add_pairs(
        [pair_of(a, twin, "system"), pair_of(a, a, "system"), pair_of(b, b, "identical", expected="tie")], [a, b, twin], [made.item]
    )
    assert added == Added(items=1, candidates=3, pairs=1, identical=2)
    assert [p.kind for p in store.all(Pair)] == ["identical"]


def test_import_is_all_or_nothing(store):
    made = campaign(2)
    before = store.content_hash()
    with pytest.raises(ValueError, match="not in the store"):
        store.add_pairs(made.pairs, made.candidates[:2], [made.item])
    assert store.content_hash() == before
    assert store.add_pairs(made.pairs, made.candidates, [made.item]).pairs == 2


def test_import_of_votes_given_elsewhere(tmp_path, store):
    made = fill(store)
    ada = person(store)
    first = vote(store, made.pairs[0], ada)
    store.revise(replace(answer(store.all(Assignment)[0], "B"), revision_of=first.judgment_id))
    vote(store, made.pairs[1], ada, "tie")
    with open_store(tmp_path / "elsewhere.db") as other:
        other.add_pairs(store.all(Pair), store.all(Candidate), store.all(Item))
        other.add_annotator(ada)
        votes = store.all(Assignment), store.all(Judgment)
        assert other.import_votes(*votes) == 3
        assert other.import_votes(*votes) == 0
        assert [replace(j, seq=None) for j in other.all(Judgment)] == [replace(j, seq=None) for j in store.all(Judgment)]
        assert other.all(Assignment) == store.all(Assignment)


# One answer


def test_the_same_answer_sent_again_is_one_row_and_the_same_reply(store, clock):
    shown = offer(store, fill(store).pairs[0], person(store))
    given = answer(shown, rationale="because")
    kept = store.record_judgment(given)
    clock.advance(hours=1)
    assert store.record_judgment(given) == kept
    assert store.judgments() == (kept,)


def test_an_id_used_for_another_answer_is_refused(store):
    shown = offer(store, fill(store).pairs[0], person(store))
    kept = store.record_judgment(answer(shown, "A"))
    with pytest.raises(ValueError, match="used for another answer"):
        store.record_judgment(answer(shown, "B", judgment_id=kept.judgment_id))
    assert store.judgments() == (kept,)


def test_fifty_parallel_identical_submits_make_one_row(store):
    given = answer(offer(store, fill(store).pairs[0], person(store)))
    gate = threading.Barrier(50)

    def submit(_):
        gate.wait()
        return store.record_judgment(given)

    with ThreadPoolExecutor(50) as pool:
        replies = set(map(repr, pool.map(submit, range(50))))
    assert len(replies) == 1
    assert len(store.judgments()) == 1


def test_a_hundred_people_at_once_make_a_hundred_rows(store):
    pair = fill(store, 1).pairs[0]
    shown = [offer(store, pair, person(store, f"p{i}")) for i in range(100)]
    gate = threading.Barrier(100)

    def submit(assignment):
        gate.wait()
        return store.record_judgment(answer(assignment)).seq

    with ThreadPoolExecutor(100) as pool:
        numbers = list(pool.map(submit, shown))
    assert len(set(numbers)) == 100 == len(store.judgments())
    require_rebuilt(store)


def test_a_second_answer_is_a_revision_or_refused(store):
    made = fill(store)
    ada = person(store)
    shown = offer(store, made.pairs[0], ada)
    first = store.record_judgment(answer(shown, "A"))
    with pytest.raises(AlreadyJudged, match="change that answer") as refused:
        store.record_judgment(answer(shown, "B"))
    assert refused.value.judgment == first
    second = store.revise(answer(shown, "B", revision_of=first.judgment_id))
    with pytest.raises(AlreadyJudged, match="another tab"):
        store.revise(answer(shown, "tie", revision_of=first.judgment_id))
    third = store.revise(answer(shown, "tie", revision_of=second.judgment_id))
    assert store.judgments() == (third,)
    assert store.judgments(JudgmentQuery(revisions=True)) == (first, second, third)
    with pytest.raises(ValueError, match="names the judgment it replaces"):
        store.revise(answer(shown, "A"))
    with pytest.raises(ValueError, match="no answer of this annotator"):
        store.revise(answer(offer(store, made.pairs[1], ada), revision_of=third.judgment_id))


def test_recent_gives_the_last_answers_newest_first(store):
    made = fill(store, 12)
    ada, bob = person(store), person(store, "Bob")
    votes = [vote(store, pair, ada) for pair in made.pairs]
    vote(store, made.pairs[0], bob)
    assert store.recent(ada.annotator_id) == tuple(reversed(votes))[:10]
    edited = store.revise(answer(store.all(Assignment, pair_id=votes[3].pair_id)[0], "tie", revision_of=votes[3].judgment_id))
    assert store.recent(ada.annotator_id, 2) == (edited, votes[-1])


def test_a_pair_never_shown_or_shown_otherwise_cannot_be_judged(store):
    made = fill(store)
    ada, bob = person(store), person(store, "Bob")
    shown = offer(store, made.pairs[0], ada)
    for forged, words in (
        (replace(answer(shown), pair_id=made.pairs[1].pair_id), "never shown"),
        (replace(answer(shown), annotator_id=bob.annotator_id), "never shown"),
        (replace(answer(shown), pair_id="f" * 64), "never shown"),
        (replace(answer(shown), annotator_id=new_id()), "no annotator"),
        (replace(answer(shown), shown_left_id=made.pairs[0].hi_id), "other sides"),
        (replace(answer(shown), order_key="another"), "other sides"),
    ):
        with pytest.raises(ValueError, match=words):
            store.record_judgment(forged)
    store.update_annotator(replace(ada, status="blocked"))
    with pytest.raises(ValueError, match="annotator is blocked"):
        store.record_judgment(answer(shown))
    assert store.judgments() == ()


def test_winner_names_the_text_whichever_side_it_was_on():
    made = campaign(1)
    pair = made.pairs[0]
    for left, right in ((pair.lo_id, pair.hi_id), (pair.hi_id, pair.lo_id)):
        shown = Assignment(pair.pair_id, new_id(), left, "key")
        assert [winner(pair, answer(shown, o)) for o in OUTCOMES] == [left, right, None, None, None]


# Leases


def test_a_pair_is_offered_to_no_more_people_than_wanted(store, clock):
    pair = fill(store).pairs[0]
    ada, bob, eve = person(store), person(store, "Bob"), person(store, "Eve")
    assert offer(store, pair, ada, capacity=2, seconds=60).lease_until == timestamp(NOON.replace(minute=1))
    assert offer(store, pair, bob, capacity=2, seconds=60) is not None
    assert offer(store, pair, eve, capacity=2, seconds=60) is None
    assert offer(store, pair, ada, capacity=2, seconds=60) is not None  # one's own offer is no obstacle
    store.release(pair.pair_id, bob.annotator_id)
    assert offer(store, pair, eve, capacity=2, seconds=60) is not None
    assert Load(pair.pair_id, 0, 2) in store.loads()
    clock.advance(seconds=61)
    assert Load(pair.pair_id, 0, 0) in store.loads()
    late = store.record_judgment(answer(store.find(Assignment, annotator_id=ada.annotator_id)))
    assert store.judgments() == (late,)
    assert Load(pair.pair_id, 1, 0) in store.loads()
    with pytest.raises(AlreadyJudged):
        offer(store, pair, ada)


def test_an_expired_offer_is_renewed_with_the_same_side(store, clock):
    pair = fill(store).pairs[0]
    ada = person(store)
    first = offer(store, pair, ada, left=pair.hi_id)
    clock.advance(days=1)
    again = store.lease(Assignment(pair.pair_id, ada.annotator_id, pair.lo_id, "another key"))
    assert (again.shown_left_id, again.order_key) == (first.shown_left_id, first.order_key)
    assert again.leased_at > first.leased_at


def test_a_clock_set_back_frees_pairs_and_keeps_the_order_of_answers(store, clock):
    made = fill(store)
    ada, bob = person(store), person(store, "Bob")
    first = vote(store, made.pairs[0], ada)
    offer(store, made.pairs[1], ada)
    clock.advance(days=-1)
    assert offer(store, made.pairs[1], bob, capacity=1) is not None
    second = vote(store, made.pairs[2], ada)
    assert second.created_at < first.created_at
    assert store.judgments() == (first, second)


def test_twenty_people_ask_for_one_pair_at_once(store):
    pair = fill(store, 1).pairs[0]
    people = [person(store, f"p{i}") for i in range(20)]
    with ThreadPoolExecutor(20) as pool:
        got = list(pool.map(lambda who: offer(store, pair, who, capacity=2), people))
    assert sum(a is not None for a in got) == 2


def test_offers_that_cannot_be(store):
    made = fill(store)
    ada = person(store)
    for assignment, words in (
        (Assignment("0" * 64, ada.annotator_id, "0" * 64, "key"), "no pair"),
        (Assignment(made.pairs[0].pair_id, new_id(), made.pairs[0].lo_id, "key"), "no annotator"),
        (Assignment(made.pairs[0].pair_id, ada.annotator_id, "0" * 64, "key"), "not one of the two texts"),
    ):
        with pytest.raises(ValueError, match=words):
            store.lease(assignment)


# Checks


def test_checks_are_graded_from_what_stands_now(store):
    made = campaign(3)
    a, b, c, _ = made.candidates
    gold = pair_of(a, b, "gold", expected=a.candidate_id)
    same = pair_of(c, c, "identical", expected="tie")
    plain = pair_of(a, c, "system")
    swap = pair_of(a, c, "swap", repeat_of=plain.pair_id)
    store.add_pairs([gold, same, plain, swap], made.candidates, [made.item])
    ada, bob = person(store), person(store, "Bob")

    def left(outcome, winner_id, pair):
        """The outcome that names ``winner_id`` when ``pair.lo_id`` is on the left."""
        return outcome if winner_id is None else ("A" if winner_id == pair.lo_id else "B")

    vote(store, gold, ada, left(None, a.candidate_id, gold))
    vote(store, gold, bob, left(None, b.candidate_id, gold))
    vote(store, same, ada, "both_bad")
    vote(store, same, bob, "A")
    first = vote(store, plain, ada, left(None, a.candidate_id, plain))
    with pytest.raises(ValueError, match="the other way round"):
        offer(store, swap, ada, left=swap.lo_id)
    shown = offer(store, swap, ada, left=swap.hi_id)
    store.record_judgment(answer(shown, "B" if a.candidate_id == swap.lo_id else "A"))
    vote(store, swap, bob, "A")  # Bob never saw the original
    results = {(c.kind, c.annotator_id == ada.annotator_id): c.result for c in store.checks()}
    assert results == {
        ("gold", True): "ok",
        ("gold", False): "fail",
        ("identical", True): "ok",
        ("identical", False): "fail",
        ("swap", True): "ok",
        ("swap", False): "unknown",
    }
    original = store.find(Assignment, pair_id=plain.pair_id, annotator_id=ada.annotator_id)
    store.revise(answer(original, "tie", revision_of=first.judgment_id))
    assert [c.result for c in store.checks(ada.annotator_id) if c.kind == "swap"] == ["fail"]
    golden = store.find(Judgment, pair_id=gold.pair_id, annotator_id=bob.annotator_id)
    shown = store.find(Assignment, pair_id=gold.pair_id, annotator_id=bob.annotator_id)
    store.revise(answer(shown, "cannot_judge", revision_of=golden.judgment_id))
    assert [c.result for c in store.checks(bob.annotator_id) if c.kind == "gold"] == ["unknown"]
    require_rebuilt(store)


# Asking for judgments


def test_queries(store):
    made = campaign(3)
    a, b, c, d = made.candidates
    pairs = [pair_of(a, b, "system"), pair_of(a, c, "one-factor", agent="topic", round=3), pair_of(a, d, "gold", expected=a.candidate_id)]
    store.add_pairs(pairs, made.candidates, [made.item])
    ada, robot = person(store), person(store, "judge-1", kind="llm")
    system, factor, gold = (vote(store, pair, ada, unblinded=i == 0) for i, pair in enumerate(pairs))
    machine = vote(store, pairs[0], robot)

    def ask(**query):
        return store.judgments(JudgmentQuery(**query))

    assert ask() == (system, factor, gold)
    assert ask(judge_kind="llm") == (machine,)
    assert ask(judge_kind=None, pair_id=pairs[0].pair_id) == (system, machine)
    assert ask(annotator_id=robot.annotator_id) == ()
    assert ask(kinds=("gold", "one-factor")) == (factor, gold)
    assert ask(agent="topic") == ask(round=3) == (factor,)
    assert ask(unblinded=True) == (system,)
    assert ask(unblinded=False) == (factor, gold)
    assert ask(after_seq=system.seq, limit=1) == (factor,)


def test_a_pair_of_every_agent_is_kept_and_found(store):
    made, ada = campaign(len(ADAPTER_ROLES)), person(store)
    first, *others = made.candidates
    pairs = [pair_of(first, other, "one-factor", agent=agent) for other, agent in zip(others, ADAPTER_ROLES, strict=True)]
    store.add_pairs(pairs, made.candidates, [made.item])
    for pair in pairs:
        assert store.all(Pair, agent=pair.agent) == (pair,)
        kept = vote(store, pair, ada)
        assert store.judgments(JudgmentQuery(agent=pair.agent)) == (kept,)
    require_rebuilt(store)


def test_excluded_votes_do_not_count_until_switched_on_again(store):
    made = fill(store)
    ada, bob = person(store), person(store, "Bob")
    one, two = vote(store, made.pairs[0], ada), vote(store, made.pairs[0], bob)
    by_vote = store.exclude(Exclusion("too fast", "rule", judgment_id=one.judgment_id))
    assert store.exclude(replace(by_vote, decided_at="")) == by_vote
    assert store.judgments() == (two,)
    assert store.judgments(JudgmentQuery(excluded=True)) == (one, two)
    assert store.judged_pairs(ada.annotator_id) == {made.pairs[0].pair_id} and store.judged_pairs(new_id()) == frozenset()
    shown = store.find(Assignment, annotator_id=ada.annotator_id)
    edited = store.revise(answer(shown, "B", revision_of=one.judgment_id))  # a revision does not slip out of the exclusion
    assert store.judgments() == (two,)
    assert Load(made.pairs[0].pair_id, 1, 0) in store.loads()
    by_person = store.exclude(Exclusion("one side only", "owner", annotator_id=ada.annotator_id))
    store.exclude(replace(by_vote, active=False))
    assert store.judgments() == (two,)
    store.exclude(replace(by_person, active=False))
    assert store.judgments() == (two, edited)
    store.exclude(Exclusion("names the model", "owner", pair_id=made.pairs[0].pair_id))
    assert store.judgments() == ()
    assert [(e.detail["active"], e.detail["by"]) for e in store.all(Event)] == [
        (True, "rule"),
        (True, "owner"),
        (False, "rule"),
        (False, "owner"),
        (True, "owner"),
    ]
    with pytest.raises(ValueError, match="no pair"):
        store.exclude(Exclusion("why", "owner", pair_id="0" * 64))
    require_rebuilt(store)


def test_the_newest_pairs_come_with_what_was_asked_and_their_texts(store):
    made, later = fill(store, 2), fill(store, 1, prompt="A kettle")
    texts = {c.candidate_id: c.text for c in (*made.candidates, *later.candidates)}
    asked = dict.fromkeys(made.pairs[::-1], "A hotel in Rome")
    newest = [(p, prompt, texts[p.lo_id], texts[p.hi_id]) for p, prompt in ({later.pairs[0]: "A kettle"} | asked).items()]
    assert store.newest_pairs(9) == tuple(newest) and store.newest_pairs(1) == tuple(newest[:1])


def test_an_excluded_pair_takes_its_swapped_repeat_with_it(store):
    made = fill(store, 1)
    (pair,) = made.pairs
    swapped = replace(pair, kind="swap", repeat_of=pair.pair_id)
    store.add_pairs([swapped])
    ada = person(store)
    vote(store, pair, ada)
    store.record_judgment(answer(offer(store, swapped, ada, left=pair.hi_id), "B"))
    assert len(store.judgments()) == 2
    store.exclude(Exclusion("names the model", "owner", pair_id=pair.pair_id))
    assert store.judgments() == ()


def test_only_peoples_blind_answers_bring_a_pair_on_and_say_whether_it_is_split(store):
    (pair,) = fill(store, 1).pairs
    vote(store, pair, person(store, "a model", kind="llm"))
    vote(store, pair, person(store, "a visitor"), unblinded=True)
    assert store.loads() == (Load(pair.pair_id, 0, 0),)
    for nickname, outcome, split in (("Ada", "A", False), ("Bob", "B", True), ("Cora", "tie", True), ("Dan", "B", False)):
        vote(store, pair, person(store, nickname), outcome)
        assert store.loads()[0].split is split
    assert store.loads()[0].n_judged == 4


def test_people(store):
    ada = person(store, identity_sha="a" * 64)
    assert store.add_annotator(replace(ada, joined_at="")) == ada
    with pytest.raises(ValueError, match="update_annotator"):
        store.add_annotator(replace(ada, nickname="Eve"))
    with pytest.raises(ValueError, match="belongs to an annotator already"):
        person(store, "Eve", identity_sha="a" * 64)
    renamed = store.update_annotator(replace(ada, nickname="Countess", joined_at=""))
    assert store.find(Annotator, identity_sha="a" * 64) == renamed == replace(ada, nickname="Countess")
    with pytest.raises(ValueError, match="no annotator"):
        store.update_annotator(Annotator(new_id(), "nobody"))


def test_no_column_could_hold_an_address(store):
    connection = sqlite3.connect(store.path)
    columns = {column for table in Database(connection).tables for column in table.columns_dict}
    connection.close()
    assert "annotator_id" in columns
    assert not columns & {"ip", "address", "email", "user_agent", "session", "cookie"}


# One writer


def test_the_writer_is_set_up_as_promised(path):
    seen = []

    class Seen(sqlite3.Connection):
        def __init__(self, *arguments, **details):
            super().__init__(*arguments, **details)
            seen.append(self)

    with open_store(path, factory=Seen):
        assert {name: seen[0].execute(f"PRAGMA {name}").fetchone()[0] for name in WRITER_PRAGMAS} == WRITER_PRAGMAS
        assert (WRITER_PRAGMAS["synchronous"], WRITER_PRAGMAS["journal_mode"]) == (2, "wal")


def test_no_vote_reads_a_whole_table(path):
    statements = []

    class Traced(sqlite3.Connection):
        def __init__(self, *arguments, **details):
            super().__init__(*arguments, **details)
            self.set_trace_callback(statements.append)

    with open_store(path, factory=Traced) as store:
        made, ada = fill(store), person(store)
        store.exclude(Exclusion("test", "owner", annotator_id=person(store, "Bob").annotator_id))
        statements.clear()
        shown = offer(store, made.pairs[0], ada, capacity=2)
        kept = store.record_judgment(answer(shown))
        store.revise(answer(shown, "tie", revision_of=kept.judgment_id))
        asked = [sql for sql in statements if sql.split()[0].upper() in ("SELECT", "INSERT", "UPDATE")]
        connection = sqlite3.connect(path)
        plans = {sql: [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {sql}")] for sql in asked}
        connection.close()
    assert any("exclusions" in sql for sql in plans) and any("INSERT INTO" in sql.upper() and "judgments" in sql for sql in plans)
    tables = [step.split()[1] for plan in plans.values() for step in plan if step.startswith("SCAN ")]
    assert {name for name in tables if not name.startswith("(subquery")} <= {"meta", "sqlite_master", "CONSTANT"}


def test_a_pragma_that_does_not_hold_is_refused(tmp_path):
    memory = tmp_path / "x.db"
    sqlite3.connect(memory).execute("VACUUM")

    class Stubborn(sqlite3.Connection):
        def execute(self, sql, *arguments):
            return super().execute(sql.replace("journal_mode = wal", "journal_mode = delete"), *arguments)

    with pytest.raises(StoreError, match="keeps journal_mode at 'delete'"):
        connect_writer(memory, Stubborn)


def test_a_second_writer_is_refused_and_may_read(store, path):
    made = fill(store)
    with pytest.raises(StoreError, match="in use"):
        open_store(path)
    with open_store(path, read_only=True) as reader:
        assert len(reader.all(Pair)) == len(made.pairs)
        with pytest.raises(NotSaved, match="reading only"):
            person(reader)
        ada = person(store)
        assert reader.all(Annotator) == (ada,)


def test_another_process_is_refused_while_the_first_lives(store, path):
    code = f"from annotate.store import open_store; open_store({str(path)!r})"
    child = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert child.returncode == 1 and "is in use" in child.stderr
    store.close()
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True).returncode == 0


def test_readers_cannot_write(store):
    with store._reader() as db, pytest.raises(sqlite3.OperationalError, match="readonly"):
        db.execute("DELETE FROM settings")


def test_many_read_while_one_votes(store):
    made, ada = fill(store, 30), person(store)
    gate = threading.Barrier(20)

    def read(_):
        gate.wait()
        lengths = []
        while len(lengths) < 200 and (not lengths or lengths[-1] < len(made.pairs)):
            lengths.append(len(store.judgments()))
        return lengths

    with ThreadPoolExecutor(20) as pool:
        seen = pool.map(read, range(20))
        for pair in made.pairs:
            vote(store, pair, ada)
        for lengths in seen:
            assert lengths == sorted(lengths)


def test_a_closed_store_says_so(path):
    store = open_store(path)
    store.close()
    store.close()
    with pytest.raises(NotSaved, match="was closed"):
        person(store)
    with pytest.raises(StoreError, match="was closed"):
        store.all(Pair)


def test_network_mounts_are_refused(tmp_path):
    mounts = tmp_path / "mounts"
    for kind in ("nfs4", "cifs", "fuse.hf-mount", "9p"):
        mounts.write_text(f"/dev/vda / ext4 rw 0 0\nremote {tmp_path} {kind} rw 0 0\n")
        with pytest.raises(StoreError, match=f"bucket mount \\({kind}\\)"):
            require_local_disk(tmp_path / "deep" / "votes.db", mounts)
    mounts.write_text(f"remote /elsewhere nfs4 rw 0 0\n/dev/vda {tmp_path} ext4 rw 0 0\nremote {tmp_path}x nfs4 rw 0 0\n")
    require_local_disk(tmp_path / "votes.db", mounts)


# Anything in any order


class StoreMachine(RuleBasedStateMachine):
    """People join, vote, revise, are excluded and erased, and the store is reopened, against a model of plain dictionaries."""

    folder: Path

    @initialize(n=st.integers(1, 4))
    def start(self, n):
        self.path = self.folder / new_id() / "votes.db"
        self.clock = SetClock()
        self.store = open_store(self.path, clock=self.clock)
        self.pairs = fill(self.store, n).pairs
        self.people: dict[str, Annotator] = {}
        self.answers: dict[tuple[str, str], list[Judgment]] = {}
        self.excluded: set[str] = set()  # ids of people, pairs and single answers

    def teardown(self):
        if hasattr(self, "store"):
            report = archive.check(self.path)
            self.store.close()
            assert report.problems == () and report.content == report.rebuilt

    def someone(self, i):
        return list(self.people.values())[i % len(self.people)]

    @rule()
    def join(self):
        who = person(self.store, f"p{len(self.people)}")
        self.people[who.annotator_id] = who

    @precondition(lambda self: self.people)
    @rule(i=st.integers(0), p=st.integers(0), outcome=st.sampled_from(OUTCOMES), hours=st.integers(-30, 30), twice=st.booleans())
    def answer_or_revise(self, i, p, outcome, hours, twice):
        who, pair = self.someone(i), self.pairs[p % len(self.pairs)]
        chain = self.answers.setdefault((pair.pair_id, who.annotator_id), [])
        self.clock.advance(hours=hours)
        if chain:
            shown = self.store.find(Assignment, pair_id=pair.pair_id, annotator_id=who.annotator_id)
            given_ = answer(shown, outcome, revision_of=chain[-1].judgment_id)
        else:
            given_ = answer(offer(self.store, pair, who), outcome)
        chain.append(self.store.record_judgment(given_))
        if twice:
            assert self.store.record_judgment(given_) == chain[-1]

    @precondition(lambda self: self.people)
    @rule(i=st.integers(0), what=st.sampled_from(["annotator_id", "pair_id", "judgment_id"]), active=st.booleans())
    def exclude(self, i, what, active):
        given_ = [judgment.judgment_id for chain in self.answers.values() for judgment in chain]
        ids = {"annotator_id": list(self.people), "pair_id": [p.pair_id for p in self.pairs], "judgment_id": given_}[what]
        if ids:
            target = ids[i % len(ids)]
            self.store.exclude(Exclusion("test", "owner", active=active, **{what: target}))
            (self.excluded.add if active else self.excluded.discard)(target)

    @precondition(lambda self: self.people)
    @rule(i=st.integers(0))
    def erase(self, i):
        who = self.someone(i).annotator_id
        erased = self.store.erase(who).erasure
        gone = [self.answers.pop(key) for key in list(self.answers) if key[1] == who]
        assert erased.n_judgments == sum(map(len, gone))
        del self.people[who]

    @rule()
    def reopen(self):
        before = self.store.content_hash()
        self.store.close()
        self.store = open_store(self.path, clock=self.clock)
        assert self.store.content_hash() == before

    @invariant()
    def current_answers_are_the_last_of_each_chain(self):
        if hasattr(self, "store"):
            last = [
                chain[-1]
                for key, chain in self.answers.items()
                if chain and not self.excluded & {*key, *(judgment.judgment_id for judgment in chain)}
            ]
            assert list(self.store.judgments()) == sorted(last, key=lambda j: j.seq)
            n_judged = Counter(judgment.pair_id for judgment in last)
            assert {load.pair_id: load.n_judged for load in self.store.loads()} == {p.pair_id: n_judged[p.pair_id] for p in self.pairs}


def test_any_history_is_kept_and_rebuilt(tmp_path):
    StoreMachine.folder = tmp_path
    run_state_machine_as_test(StoreMachine, settings=settings(max_examples=HISTORIES, stateful_step_count=14, deadline=None))
