"""What the store refuses: bad values by the nouns, in sentences, and everything again by the schema, whoever writes."""

from __future__ import annotations

import math
import re
import sqlite3
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from store_data import NOON, SetClock, answer, campaign, fill, offer, person, vote

from annotate.fields import MAX_RATIONALE
from annotate.store import open_store
from annotate.types import (
    Annotator,
    Assignment,
    Candidate,
    Event,
    Exclusion,
    Export,
    Item,
    Judgment,
    Pair,
    new_id,
    pair_of,
    timestamp,
)


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


# Bad input

SURROGATE, NUL, LONG = "half \ud800", "a\0b", "x" * 10**6
DEEP = {}
for _ in range(20_000):
    DEEP = {"a": DEEP}
NOT_TEXT = (None, 7, math.nan, True, [], ["A"], {}, {"path": "/etc/passwd"}, b"A")
BAD_JUDGMENTS = [
    *(("outcome", v) for v in ("C", "a", "", "A ", *NOT_TEXT)),
    *(("strength", v) for v in ("very", "", 1, True, [], math.nan)),
    *(("rationale", v) for v in (SURROGATE, NUL, LONG, *NOT_TEXT)),
    *(("dims", v) for v in (None, [], "A", {"style": "C"}, {"style": None}, {"price": "A"}, {7: "A"}, {"style": ["A"]}, DEEP)),
    *(("tags", v) for v in (None, ["a"], "a", ("a", "a"), (1,), ("",), (SURROGATE,), (NUL,), (LONG,), tuple(map(str, range(21))))),
    *((name, v) for name in ("ms_visible", "ms_total") for v in (-1, 1.5, math.nan, math.inf, True, "7", [], 10**12)),
    ("ms_visible", 2000),
    *(("unblinded", v) for v in (None, 0, 1, "true", math.nan)),
    *((name, v) for name in ("judgment_id", "annotator_id") for v in ("", "x", "../x", str(new_id()).upper(), LONG, *NOT_TEXT)),
    *((name, v) for name in ("pair_id", "shown_left_id") for v in ("", "x", "F" * 64, "'; drop table judgments;--", LONG, *NOT_TEXT)),
    *((name, v) for name in ("order_key", "ui_version", "guideline_version") for v in (SURROGATE, NUL, LONG, *NOT_TEXT)),
    *(("input_kind", v) for v in ("brain", "", *NOT_TEXT)),
    *(("created_at", v) for v in ("yesterday", "2026-11-23", "2026-11-23T08:30:00Z", *NOT_TEXT)),
]


@pytest.mark.parametrize(("name", "value"), BAD_JUDGMENTS, ids=lambda v: f"{v!r:.25}" if v is not DEEP else "deep")
def test_bad_judgment_is_refused_in_a_sentence(name, value):
    shown = Assignment("a" * 64, new_id(), "b" * 64, "key")
    good = answer(shown, "A", ms_visible=900, ms_total=1000)
    with pytest.raises(ValueError, match=r"\w+ .{10,}") as refused:
        replace(good, **{name: value})
    assert len(str(refused.value)) < 400


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Item(" "), "prompt is empty"),
        (lambda: Item("p", {"a": math.nan}), "cannot be written as JSON"),
        (lambda: Item("p", {"a": {1}}), "cannot be written as JSON"),
        (lambda: Item("p", {"a": SURROGATE}), "lone surrogate"),
        (lambda: Item("p", {"a": [NUL]}), "NUL"),
        (lambda: Item("p", {NUL: 1}), "NUL"),
        (lambda: Item("p", DEEP), "cannot be written as JSON"),
        (lambda: Item("p", {"a": LONG}), "at most 400,000"),
        (lambda: Item("p", contributor_id="me"), "not a UUID"),
        (lambda: Candidate("0" * 64, "", "pat"), "text is empty"),
        (lambda: Candidate("0" * 64, LONG, "pat"), "at most 50,000"),
        (lambda: Annotator(new_id(), ""), "nickname is empty"),
        (lambda: Annotator(new_id(), "a", kind="robot"), "use one of human, llm, metric"),
        (lambda: Assignment("0" * 64, new_id(), "0" * 64, "k", propensity=0), "above 0"),
        (lambda: Assignment("0" * 64, new_id(), "0" * 64, "k", propensity=math.nan), "above 0"),
        (lambda: Exclusion("why", "owner"), "exactly one"),
        (lambda: Exclusion("", "owner", pair_id="0" * 64), "reason is empty"),
        (lambda: Event("x", detail={"a": math.inf}), "cannot be written as JSON"),
        (lambda: Export("x", 1), "not a sha256"),
        (lambda: timestamp(NOON.replace(tzinfo=None)), "no time zone"),
    ],
)
def test_other_nouns_check_themselves(make, words):
    with pytest.raises(ValueError, match=words):
        make()


def test_backslash_u0000_spelled_out_is_text_and_no_nul():
    assert Item("p", {"a": "\\u0000", "b": "\\\\u0000"}).reference["a"] == "\\u0000"


def test_pairs_check_themselves():
    made = campaign(1)
    a, b = made.candidates
    for kind, details, words in (
        ("one-factor", {}, "names its agent"),
        ("system", {"agent": "style"}, "names its agent"),
        ("one-factor", {"agent": "editor"}, "use one of style, topic, generator"),
        ("one-factor", {"agent": "base"}, "use one of style, topic, generator"),
        ("duel", {}, "use one of one-factor"),
        ("gold", {}, "does not fit a gold pair"),
        ("gold", {"expected": "0" * 64}, "does not fit"),
        ("system", {"expected": a.candidate_id}, "does not fit"),
        ("identical", {"expected": "tie"}, "two equal texts"),
        ("swap", {}, "names the pair it repeats"),
        ("system", {"propensity": 1.5}, "above 0 and at most 1"),
        ("system", {"round": -1}, "whole number"),
    ):
        with pytest.raises(ValueError, match=words):
            pair_of(a, b, kind, **details)
    with pytest.raises(ValueError, match="different items"):
        pair_of(a, replace(b, item_id="0" * 64), "system")
    with pytest.raises(ValueError, match="pair_of, which orders"):
        replace(made.pairs[0], lo_id=made.pairs[0].hi_id, hi_id=made.pairs[0].lo_id)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rationale=st.text(max_size=60), tag=st.text(max_size=20), nickname=st.text(max_size=30))
def test_any_text_is_kept_exactly_or_refused(store, rationale, tag, nickname):
    made = campaign(1) if store.all(Pair) else fill(store, 1)
    try:
        ada = store.add_annotator(Annotator(new_id(), nickname))
        shown = offer(store, made.pairs[0], ada)
        given_ = answer(shown, rationale=rationale, tags=(tag,))
    except ValueError as refused:
        assert any(word in str(refused) for word in ("empty", "surrogate", "NUL"))
        return
    kept = store.record_judgment(given_)
    found = store.find(Judgment, judgment_id=kept.judgment_id)
    assert (found.rationale, found.tags, store.find(Annotator, annotator_id=ada.annotator_id).nickname) == (rationale, (tag,), nickname)


def test_the_longest_rationale_is_kept(store):
    kept = vote(store, fill(store).pairs[0], person(store), rationale="🎈" * MAX_RATIONALE)
    assert store.judgments() == (kept,)


# The schema itself, met by a program that does not know the nouns


@pytest.fixture
def outsider(store):
    """A plain connection to a store with one answer, its revision, an event and an export."""
    made = fill(store)
    ada = person(store)
    shown = offer(store, made.pairs[0], ada)
    first = store.record_judgment(answer(shown))
    store.revise(answer(shown, "tie", revision_of=first.judgment_id))
    offer(store, made.pairs[1], ada)
    store.record_event(Event("login", ada.annotator_id))
    store.record_export(Export("1" * 64, 1))
    connection = sqlite3.connect(store.path, isolation_level=None)
    connection.execute("PRAGMA foreign_keys = 1")
    yield connection
    connection.close()


COLUMNS = """seq judgment_id pair_id annotator_id shown_left_id order_key outcome strength dims_json tags_json rationale ms_visible ms_total
    input_kind ui_version guideline_version unblinded revision_of created_at""".split()  # noqa: SIM905
UNJUDGED = "FROM assignments WHERE pair_id NOT IN (SELECT pair_id FROM judgments))"
FRESH = {
    "seq": "99",
    "judgment_id": f"'{new_id()}'",
    "pair_id": f"(SELECT pair_id {UNJUDGED}",
    "shown_left_id": f"(SELECT shown_left_id {UNJUDGED}",
}
SAME_PAIR = {"pair_id": "pair_id", "shown_left_id": "shown_left_id"}


def insert(verb: str = "INSERT", **changed: str) -> str:
    """A copy of the first judgment for the pair that is offered and not judged, with some columns changed."""
    values = FRESH | changed
    copied = ", ".join(values.get(column, column) for column in COLUMNS)
    return f"{verb} INTO judgments ({', '.join(COLUMNS)}) SELECT {copied} FROM judgments WHERE revision_of IS NULL"


def copy_pair(**changed: str) -> str:
    columns = "pair_id item_id lo_id hi_id lo_sha hi_sha kind agent expected repeat_of propensity round origin".split()  # noqa: SIM905
    return f"INSERT INTO pairs SELECT {', '.join(changed.get(column, column) for column in columns)} FROM pairs LIMIT 1"


REPLACED = insert("INSERT OR REPLACE", seq="seq", judgment_id="judgment_id", outcome="'B'", **SAME_PAIR)
OTHER_PAIR = "(SELECT pair_id FROM pairs EXCEPT SELECT pair_id FROM assignments LIMIT 1)"
OTHER_ASSIGNMENT = f"""INSERT INTO assignments
    SELECT {OTHER_PAIR}, annotator_id, pair_id, order_key, propensity, leased_at, lease_until FROM assignments LIMIT 1"""
NEVER_SHOWN = "(SELECT pair_id FROM pairs WHERE pair_id NOT IN (SELECT pair_id FROM assignments))"
OTHER_SIDE = "UPDATE assignments SET shown_left_id = (SELECT hi_id FROM pairs WHERE pairs.pair_id = assignments.pair_id)"
NO_TARGET = f"INSERT INTO exclusions VALUES ('{'0' * 64}', NULL, NULL, NULL, 'why', 'owner', 1, '2026-11-23T12:00:00.000Z')"
EXISTS = "append-only: this one exists"
BROKEN_RULES = [
    ("UPDATE judgments SET outcome = 'B'", "append-only: add a revision"),
    ("DELETE FROM judgments", "append-only: exclude it, or erase"),
    (REPLACED, EXISTS),
    (insert("INSERT OR REPLACE", **SAME_PAIR), EXISTS),
    (insert(**SAME_PAIR), EXISTS),
    (insert(revision_of="judgment_id", **SAME_PAIR), EXISTS),
    (insert(revision_of="(SELECT judgment_id FROM judgments WHERE revision_of IS NOT NULL)"), "FOREIGN KEY"),
    (insert(revision_of=FRESH["judgment_id"]), "revision_of <> judgment_id"),
    (insert(pair_id=NEVER_SHOWN), "FOREIGN KEY"),
    (insert(shown_left_id="pair_id"), "FOREIGN KEY"),
    (insert(order_key="'forged'"), "FOREIGN KEY"),
    (insert(outcome="'C'"), "outcome IN"),
    (insert(outcome="NULL"), "NOT NULL constraint failed: judgments.outcome"),
    (insert(outcome="'tie'", strength="'clearly'"), "strength IS NULL OR"),
    (insert(strength="'very'"), "strength IS NULL OR"),
    (insert(dims_json="""'{"price":"A"}'"""), "dims holds an unknown"),
    (insert(dims_json="""'{"style":"C"}'"""), "dims holds an unknown"),
    (insert(dims_json="""'{"style":null}'"""), "dims holds an unknown"),
    (insert(dims_json="'[]'"), "json_type(dims_json) = 'object'"),
    (insert(dims_json="'{'"), "malformed JSON"),
    (insert(tags_json="'{}'"), "json_type(tags_json) = 'array'"),
    (insert(rationale="printf('%.*c', 4001, 'x')"), "length(rationale) <= 4000"),
    (insert(rationale="'a' || char(0) || 'b'"), "instr(rationale, char(0)) = 0"),
    (insert(rationale="x'00'"), "cannot store BLOB"),
    (insert(ms_visible="2", ms_total="1"), "ms_visible BETWEEN 0 AND ms_total"),
    (insert(ms_visible="2", ms_total="NULL"), "ms_visible BETWEEN 0 AND ms_total"),
    (insert(ms_visible="NULL", ms_total="-1"), "ms_total >= 0"),
    (insert(ms_visible="NULL", ms_total="'soon'"), "cannot store TEXT"),
    (insert(input_kind="'brain'"), "input_kind IN"),
    (insert(unblinded="2"), "unblinded IN (0, 1)"),
    (insert(created_at="'2026-13-40T00:00:00.000Z'"), "created_at IS strftime"),
    ("UPDATE events SET kind = 'x'", "events are append-only"),
    ("DELETE FROM events", "events are append-only"),
    ("UPDATE exports SET n = 2", "exports are append-only"),
    ("DELETE FROM exports", "exports are append-only"),
    ("UPDATE candidates SET text = 'x'", "candidates do not change"),
    ("UPDATE items SET prompt = 'x'", "items do not change"),
    ("UPDATE pairs SET kind = 'gold'", "pairs do not change"),
    ("DELETE FROM pairs", "only with an erased person"),
    ("DELETE FROM items", "only with an erased person"),
    ("DELETE FROM candidates", "only with an erased person"),
    ("DELETE FROM assignments", "only with an erased person"),
    ("DELETE FROM annotators", "only by erasing them"),
    (OTHER_SIDE, "side of an assignment never changes"),
    (OTHER_ASSIGNMENT, "not one of the two texts"),
    ("UPDATE assignments SET propensity = 9e999", "propensity <= 1"),
    ("UPDATE assignments SET propensity = 9e999 - 9e999", "NOT NULL constraint failed: assignments.propensity"),
    ("UPDATE annotators SET status = 'asleep'", "status IN"),
    ("INSERT INTO meta SELECT 2, store_id, seq, head FROM meta", "one = 1"),
    (NO_TARGET, "(judgment_id IS NOT NULL) + "),
    (copy_pair(lo_id="hi_id", hi_id="lo_id", lo_sha="hi_sha", hi_sha="lo_sha"), "lo_id <= hi_id"),
    (copy_pair(pair_id=f"'{'0' * 64}'"), "pairs_content"),
    (copy_pair(pair_id=f"'{'0' * 64}'", lo_sha="hi_sha"), "(kind = 'identical') = (lo_sha = hi_sha)"),
    (copy_pair(pair_id=f"'{'0' * 64}'", kind="'gold'"), "CASE kind WHEN 'gold'"),
    (copy_pair(pair_id=f"'{'0' * 64}'", agent="'style'"), "(kind = 'one-factor') = (agent IS NOT NULL)"),
    (copy_pair(pair_id=f"'{'0' * 64}'", kind="'one-factor'", agent="'base'"), "agent IN ('style', 'topic', 'generator')"),
    (copy_pair(pair_id=f"'{'0' * 64}'", kind="'swap'"), "(kind = 'swap') = (repeat_of IS NOT NULL)"),
]


def test_the_insert_that_breaks_these_rules_is_otherwise_good(outsider):
    outsider.execute("BEGIN")
    assert outsider.execute(insert()).rowcount == 1
    outsider.execute("ROLLBACK")


@pytest.mark.parametrize(("sql", "reason"), BROKEN_RULES)
def test_the_schema_refuses(outsider, sql, reason):
    before = list(outsider.iterdump())
    with pytest.raises(sqlite3.Error, match=re.escape(reason)):
        outsider.execute(sql)
    assert list(outsider.iterdump()) == before
