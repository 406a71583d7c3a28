"""From judgments to votes, worked out by hand on four texts, and from a store to the statistics."""

from __future__ import annotations

from dataclasses import replace

import pytest
from store_data import answer, offer, person, vote

from annotate.stats import agreement, annotator_table, pair_preferences, ratings, reward_agreement, self_consistency
from annotate.store import open_store
from annotate.types import OUTCOMES, Assignment, Candidate, Exclusion, Item, JudgmentQuery, new_id, pair_of
from annotate.votes import OPINIONS, read_judged, read_votes, reward_gaps, votes_by_candidate, votes_of

ITEM = Item("Review of hotels: A week in Rome")
# two texts by pat with 3 and 5 words, one by none with 4, one constructed; rewards as different traces give them
PAT = Candidate(ITEM.item_id, "warm and quiet", "pat", {"rewards": {"total": 0.75, "terms": {"style": 0.5}}})
TWIN = Candidate(ITEM.item_id, "warm  and quiet\nat night", "pat", {"seed": 2, "rewards": {"total": 0.25, "terms": {"style": 1}}})
NONE = Candidate(ITEM.item_id, "It was very good", "none", {"rewards": {"total": 0.5}})
BROKEN = Candidate(ITEM.item_id, "It was ver", "check-cut")
TEXTS = (PAT, TWIN, NONE, BROKEN)
BY_ID = {c.candidate_id: c for c in TEXTS}

SYSTEM = pair_of(PAT, NONE, "system")
FACTOR = pair_of(PAT, TWIN, "one-factor", agent="generator")
GOLD = pair_of(NONE, BROKEN, "gold", expected=NONE.candidate_id)
SAME = pair_of(PAT, PAT, "identical", expected="tie")
SWAP = pair_of(PAT, NONE, "swap", repeat_of=SYSTEM.pair_id)
PAIRS = {p.pair_id: p for p in (SYSTEM, FACTOR, GOLD, SAME, SWAP)}


def judged(pair, left: Candidate, outcome="A", **details):
    """A judgment of ``pair`` with ``left`` on the left."""
    return answer(Assignment(pair.pair_id, new_id(), left.candidate_id, "key"), outcome, **details)


def the_vote(judgment, make=votes_of):
    (made,) = make([judgment], PAIRS, BY_ID)
    return made


def test_every_field_of_one_vote():
    judgment = judged(
        SYSTEM, PAT, "A", strength="clearly", dims={"style": "A", "topic": "B", "fluency": "same"}, ms_visible=1500, ms_total=9000
    )
    made = the_vote(judgment)
    assert (made.annotator, made.prompt, made.pair, made.is_swap_of) == (judgment.annotator_id, ITEM.item_id, SYSTEM.pair_id, "")
    assert (made.left, made.right, made.outcome, made.strength) == ("pat", "none", "left", 2)
    assert made.dims == {"style": "left", "topic": "right", "fluency": "same"}
    assert (made.seconds, made.words_left, made.words_right, made.weight) == (1.5, 3, 4, 1.0)


def test_sides_are_those_that_were_shown():
    for left, right in ((PAT, NONE), (NONE, PAT)):
        made = [the_vote(judged(SYSTEM, left, outcome)) for outcome in OUTCOMES]
        assert [v.outcome for v in made] == ["left", "right", "tie", "both_bad", "cannot_judge"]
        assert {(v.left, v.right) for v in made} == {(left.system, right.system)}
        assert (made[0].words_left, made[0].words_right) == (len(left.text.split()), len(right.text.split()))


def test_what_was_not_asked_or_measured_stays_unknown():
    made = the_vote(judged(SYSTEM, PAT, "B"))
    assert (made.strength, made.seconds, made.dims) == (None, None, {})
    assert the_vote(judged(SYSTEM, PAT, "B", strength="slightly")).strength == 1


def test_two_texts_of_one_system_are_named_by_their_ids():
    made = the_vote(judged(FACTOR, TWIN))
    assert (made.left, made.right, made.words_left) == (TWIN.candidate_id, PAT.candidate_id, 5)
    by_text = the_vote(judged(SYSTEM, NONE, "B"), votes_by_candidate)
    assert (by_text.left, by_text.right, by_text.outcome) == (NONE.candidate_id, PAT.candidate_id, "right")


def test_a_swapped_repeat_names_its_original():
    first = judged(SYSTEM, PAT, "A")
    again = replace(judged(SWAP, NONE, "B"), annotator_id=first.annotator_id)
    votes = votes_of([first, again], PAIRS, BY_ID)
    assert (votes[1].pair, votes[1].is_swap_of, votes[1].unit) == (SWAP.pair_id, SYSTEM.pair_id, votes[0].unit)
    assert (votes[1].left, votes[1].outcome) == ("none", "right")  # pat both times
    assert (self_consistency(votes).n_same, self_consistency(votes).n) == (1, 1)


def test_identical_pairs_are_left_out_and_order_is_kept():
    judgments = [judged(SAME, PAT, "tie"), judged(FACTOR, PAT), judged(SAME, PAT, "A"), judged(GOLD, BROKEN, "B")]
    votes = votes_of(judgments, PAIRS, BY_ID)
    assert [v.pair for v in votes] == [FACTOR.pair_id, GOLD.pair_id]
    assert (votes[1].left, votes[1].right) == ("check-cut", "none")
    assert len(votes_by_candidate(judgments, PAIRS, BY_ID)) == len(reward_gaps(judgments, PAIRS, BY_ID)) == 2


def test_reward_gaps_are_left_less_right_and_unknown_without_a_number():
    judgments = [judged(SYSTEM, PAT), judged(SYSTEM, NONE), judged(SAME, PAT), judged(FACTOR, TWIN), judged(GOLD, NONE)]
    assert reward_gaps(judgments, PAIRS, BY_ID) == (0.25, -0.25, -0.5, None)
    assert reward_gaps(judgments, PAIRS, BY_ID, "style") == (None, None, 0.5, None)
    assert reward_gaps(judgments, PAIRS, BY_ID, "warmth") == (None,) * 4


@pytest.mark.parametrize(
    "rewards", [None, 3, [0.5], {}, {"total": None}, {"total": "0.5"}, {"total": True}, {"total": 10**400}, {"terms": 0.5}]
)
def test_a_reward_of_another_shape_is_unknown(rewards):
    odd = Candidate(ITEM.item_id, "warm and quiet", "pat", {"rewards": rewards})
    pair = pair_of(odd, NONE, "system")
    found = {pair.pair_id: pair}, {odd.candidate_id: odd, NONE.candidate_id: NONE}
    for term in ("total", "style"):
        assert reward_gaps([judged(pair, odd)], *found, term) == (None,)


@pytest.fixture
def store(tmp_path):
    with open_store(tmp_path / "votes.db") as opened:
        opened.add_pairs([SYSTEM, FACTOR, GOLD, SAME, SWAP], TEXTS, [ITEM])
        yield opened


def left(pair, who, store, text, outcome):
    return store.record_judgment(answer(offer(store, pair, who, left=text.candidate_id), outcome))


def test_a_store_is_read_in_one_go(store):
    assert read_votes(store) == ()
    ada, bob, robot = person(store), person(store, "Bob"), person(store, "judge", kind="llm")
    kept = [left(SYSTEM, ada, store, PAT, "A"), left(FACTOR, bob, store, TWIN, "B"), left(SWAP, ada, store, NONE, "A")]
    left(GOLD, ada, store, NONE, "A")
    left(SAME, bob, store, PAT, "tie")
    left(SYSTEM, robot, store, PAT, "A")
    judged_ = read_judged(store)
    assert judged_.judgments == tuple(kept)
    assert set(judged_.pairs) == {SYSTEM.pair_id, FACTOR.pair_id, SWAP.pair_id}
    assert set(judged_.candidates) == {PAT.candidate_id, TWIN.candidate_id, NONE.candidate_id}
    votes = read_votes(store)
    assert votes == votes_of(kept, PAIRS, BY_ID)
    assert (self_consistency(votes).n, self_consistency(votes).n_opposite) == (1, 1)
    assert [v.left for v in read_votes(store, replace(OPINIONS, kinds=("system",), judge_kind=None))] == ["pat", "pat"]
    assert len(read_votes(store, JudgmentQuery(annotator_id=ada.annotator_id))) == 3  # the constructed check too
    store.exclude(Exclusion("one side only", "owner", annotator_id=ada.annotator_id))
    assert [v.annotator for v in read_votes(store)] == [bob.annotator_id]


def test_kept_votes_go_into_every_statistic(store):
    for i in range(6):
        who = person(store, f"p{i}")
        left(SYSTEM, who, store, PAT if i % 2 else NONE, "A" if i % 2 else "B")  # always pat
        left(FACTOR, who, store, TWIN if i % 2 else PAT, "A")  # always the left
    judged_ = read_judged(store)
    arguments = judged_.judgments, judged_.pairs, judged_.candidates
    by_text = {row.pair: row for row in pair_preferences(votes_by_candidate(*arguments))}
    system, factor = by_text[SYSTEM.pair_id], by_text[FACTOR.pair_id]
    wins = {system.a: system.n_a, system.b: system.n_b}
    assert wins == {PAT.candidate_id: 6, NONE.candidate_id: 0}
    assert factor.n_a == factor.n_b == 3 and factor.p.value == pytest.approx(0.5, abs=0.05)
    votes = votes_of(*arguments)
    assert ratings([v for v in votes if v.left in ("pat", "none")], n_resamples=5).ratings[0].system == "pat"
    assert reward_agreement(votes, reward_gaps(*arguments)).accuracy.value == pytest.approx(9 / 12)  # 6 for pat, 3 of 6 for the higher
    assert agreement(votes).raw.value == pytest.approx((15 + 6) / 30)  # all 15 couples of people on one pair, 3 + 3 of 15 on the other
    assert {row.left_share for row in annotator_table(votes)} == {0.5, 1.0}


def test_votes_on_erased_items_are_gone_and_the_others_stay(store):
    ada, bob = person(store), person(store, "Bob")
    own = Item("Review of hotels: Mine", contributor_id=ada.annotator_id)
    mine = [Candidate(own.item_id, text, "pat") for text in ("one", "two words")]
    pair = pair_of(*mine, "one-factor", agent="style")
    store.add_pairs([pair], mine, [own])
    vote(store, pair, bob)
    kept = left(SYSTEM, bob, store, PAT, "A")
    assert len(read_votes(store)) == 2
    store.erase(ada.annotator_id)
    assert read_votes(store) == votes_of([kept], PAIRS, BY_ID)
