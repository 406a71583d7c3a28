"""The schedule as properties: balance, no repeats, overlap, checks at their rates, reproducible order; and its command line."""

import json
import time
from collections import Counter
from dataclasses import dataclass, field, replace
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from store_data import SetClock, fill, person, vote

from annotate.schedule import (
    Offer,
    Plan,
    Pool,
    capacity,
    chances,
    comparison_of,
    next_offer,
    side_of,
    swap_of,
    verify_side,
)
from annotate.schedule.__main__ import main
from annotate.store import Store, open_store
from annotate.types import Assignment, Candidate, Item, Judgment, Load, Pair, new_id, pair_of

ANN, BOB = "00000000-0000-4000-8000-00000000000a", "00000000-0000-4000-8000-00000000000b"
NO_CHECKS = Plan(gold=0, swap=0, identical=0)


def texts(n: int, *systems: str) -> tuple[Item, list[Candidate]]:
    item = Item(f"Review of kettle {n}")
    return item, [Candidate(item.item_id, f"{system} text {n}.{i}", system, {"seed": i}) for i, system in enumerate(systems)]


def pool_of(n: int, secret: str = "s", n_checks: int = 0) -> Pool:
    """``n`` pairs to judge of three comparisons, and ``n_checks`` each of gold and identical."""
    systems, pairs = {}, []
    for i in range(n):
        _, (a, b) = texts(i, "pat", ("pat", "none", "copy")[i % 3])
        pairs.append(pair_of(a, b, "one-factor", agent="style") if i % 3 == 0 else pair_of(a, b, "system"))
        systems |= {a.candidate_id: a.system, b.candidate_id: b.system}
    for i in range(n, n + n_checks):
        _, (good, bad) = texts(i, "pat", ("check-words", "check-copy")[i % 2])
        pairs += [pair_of(good, bad, "gold", expected=good.candidate_id), pair_of(good, good, "identical", expected="tie")]
        systems |= {good.candidate_id: good.system, bad.candidate_id: bad.system}
    return Pool.of(pairs, systems, secret)


@dataclass
class Desk:
    """A campaign in memory: people take what the schedule offers and answer at once."""

    pool: Pool
    plan: Plan = NO_CHECKS
    assigned: dict[str, list[Assignment]] = field(default_factory=dict)
    judged: dict[str, dict[str, Judgment]] = field(default_factory=dict)
    loads: dict[str, Load] = field(default_factory=dict)
    n_new: int = 0

    def offer(self, who: str) -> Offer | None:
        assigned, judged = self.assigned.setdefault(who, []), self.judged.setdefault(who, {})
        return next_offer(who, pool=self.pool, loads=self.loads, assigned=assigned, judged=judged, plan=self.plan)

    def take(self, who: str) -> Offer | None:
        offer = self.offer(who)
        if offer is not None and not offer.resumed:
            if offer.new:
                self.n_new += 1
                self.pool = Pool.of([*self.pool.pairs.values(), offer.pair], self.pool.systems, self.pool.secret)
            given = Assignment(offer.pair.pair_id, who, offer.shown_left_id, offer.order_key, offer.propensity)
            self.assigned[who].append(given)
        return offer

    def answer(self, who: str, offer: Offer, outcome: str = "tie") -> None:
        pair_id = offer.pair.pair_id
        self.judged[who][pair_id] = Judgment(new_id(), pair_id, who, offer.shown_left_id, offer.order_key, outcome)
        self.loads[pair_id] = Load(pair_id, sum(pair_id in answers for answers in self.judged.values()), 0)

    def work(self, who: str, n: int, outcome: str = "tie") -> list[Offer]:
        offers = []
        for _ in range(n):
            if (offer := self.take(who)) is None:
                break
            self.answer(who, offer, outcome)
            offers.append(offer)
        return offers


@settings(max_examples=40, deadline=None)
@given(st.text(min_size=1), st.text(), st.text())
def test_every_block_of_four_has_two_of_each_side(secret, annotator_id, comparison):
    sides = [side_of(secret, annotator_id, comparison, i) for i in range(40)]
    assert all(sorted(sides[i : i + 4]) == ["first", "first", "second", "second"] for i in range(0, 40, 4))
    assert sides == [side_of(secret, annotator_id, comparison, i) for i in range(40)]


@settings(max_examples=8, deadline=None)
@given(st.text(min_size=1, max_size=8))
def test_sides_are_balanced_by_person_and_comparison_and_provable(secret):
    desk = Desk(pool_of(36, secret))
    offers = desk.work(ANN, 36)
    assert len({o.pair.pair_id for o in offers}) == 36  # everything once
    by_comparison: dict[str, list[bool]] = {}
    for o in offers:
        systems = sorted((desk.pool.systems[c], c) for c in (o.pair.lo_id, o.pair.hi_id))
        first = systems[0][1] if systems[0][0] != systems[1][0] else o.pair.lo_id
        by_comparison.setdefault(comparison_of(o.pair, desk.pool.systems), []).append(o.shown_left_id == first)
        assert verify_side(secret, ANN, o.pair, desk.pool.systems, o.shown_left_id, o.order_key)
        other = o.pair.hi_id if o.shown_left_id == o.pair.lo_id else o.pair.lo_id
        assert not verify_side(secret, ANN, o.pair, desk.pool.systems, other, o.order_key)
        assert not verify_side(secret, ANN, o.pair, desk.pool.systems, o.shown_left_id, "chosen by hand")
        assert len(o.order_key) <= 80
    assert sorted(by_comparison) == ["one-factor:style pat/pat", "system copy/pat", "system none/pat"]
    assert all(sum(lefts[i : i + 4]) == 2 for lefts in by_comparison.values() for i in range(0, 12, 4))


def test_people_get_different_orders_and_the_same_facts_the_same_offer():
    desk = Desk(pool_of(30))
    first = desk.offer(ANN)
    assert desk.offer(ANN) == first
    orders = [[o.pair.pair_id for o in Desk(pool_of(30)).work(who, 30)] for who in (ANN, BOB)]
    assert orders[0] != orders[1] and sorted(orders[0]) == sorted(orders[1])
    assert orders[0] == [o.pair.pair_id for o in Desk(pool_of(30)).work(ANN, 30)]
    assert orders[0] != [o.pair.pair_id for o in Desk(pool_of(30, "another secret")).work(ANN, 30)]


def test_what_is_open_comes_back_first_and_as_it_was_shown():
    desk = Desk(pool_of(9))
    desk.work(ANN, 2)
    open_offer = desk.take(ANN)
    again = desk.offer(ANN)
    assert again == replace(open_offer, resumed=True)
    desk.answer(ANN, again)
    assert desk.offer(ANN).pair != again.pair
    gone = Pool.of([p for p in desk.pool.pairs.values() if p != open_offer.pair], desk.pool.systems, "s")
    del desk.judged[ANN][open_offer.pair.pair_id]
    desk.pool = gone  # the owner put the open pair out of use: it does not come back
    assert desk.offer(ANN).pair != open_offer.pair and not desk.offer(ANN).resumed


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_propensities_are_probabilities_over_what_could_come(data):
    pool = pool_of(12)
    count = st.integers(0, 3)
    loads = {p: Load(p, data.draw(count), data.draw(count), data.draw(st.booleans())) for p in pool.pairs}
    plan = replace(NO_CHECKS, overlap=data.draw(st.sampled_from([0.0, 0.15, 0.5, 1.0])))
    chance = chances(pool, loads, frozenset(), plan)
    assert all(0 < p <= 1 for p in chance.values()) and (not chance or sum(chance.values()) == pytest.approx(1))
    for name, load in loads.items():
        needed = capacity(pool.pairs[name], load, plan, "s")
        assert (name in chance) == (load.n_judged + load.n_leased < needed) and needed <= plan.cap
    offer = next_offer(ANN, pool=pool, loads=loads, plan=plan)
    assert (offer is None) == (not chance) and (offer is None or offer.propensity == chance[offer.pair.pair_id])


def test_the_overlap_share_gets_a_second_judge_and_grows_from_the_beginning():
    desk = Desk(pool_of(600))
    people = [new_id() for _ in range(8)]
    for n in range(25):
        for who in people:
            desk.work(who, 1)
        if n == 12:
            half = Counter(load.n_judged for load in desk.loads.values())
    assert 0.08 < half[2] / (half[1] + half[2]) < 0.25 and half.total() < 200
    for _ in range(100):
        for who in people:
            desk.work(who, 1)
    whole = Counter(load.n_judged for load in desk.loads.values())
    assert set(whole) == {1, 2} and 0.11 < whole[2] / 600 < 0.19
    assert not any(desk.offer(who) for who in (*people, new_id()))


def test_a_further_judge_comes_only_after_opposite_decisive_votes_and_five_is_the_most(tmp_path):
    plan = replace(NO_CHECKS, overlap=1.0)
    with open_store(tmp_path / "votes.db") as store:

        def needed(*outcomes: str) -> int:
            (pair,) = fill(store, 1, prompt="/".join(outcomes) or "nobody").pairs
            for outcome in outcomes:
                vote(store, pair, person(store), outcome)
            (load,) = (found for found in store.loads() if found.pair_id == pair.pair_id)
            assert load.n_judged == len(outcomes)
            return capacity(pair, load, plan, "s")

        assert needed() == needed("A") == needed("A", "A") == needed("A", "tie") == needed("both_bad", "B") == 2
        assert needed("A", "B") == 3 and needed("A", "B", "A") == 2  # the third has settled it
        assert needed("A", "B", "tie") == 4 and needed("A", "B", "B", "A") == 5 and needed("A", "B", "B", "A", "tie") == 5
    assert capacity(pool_of(0, n_checks=1).pairs.popitem()[1], None, plan, "s") is None


def test_an_expired_lease_frees_the_pair_for_others():
    desk = Desk(pool_of(1), replace(NO_CHECKS, overlap=0))
    (name,) = desk.pool.pairs
    desk.loads[name] = Load(name, 0, 1)
    assert desk.offer(BOB) is None
    desk.loads[name] = Load(name, 0, 0)
    assert desk.offer(BOB) is not None


def test_checks_come_at_their_rates_and_swaps_late_enough_and_on_the_other_side():
    plan = Plan(overlap=0)
    desk = Desk(pool_of(700, n_checks=40), plan)
    offers = desk.work(ANN, 500)
    kinds = Counter(o.pair.kind for o in offers)
    assert (kinds["gold"], kinds["identical"]) == (20, 10) and 13 <= kinds["swap"] <= 16 and desk.n_new == kinds["swap"]
    place = {o.pair.pair_id: i for i, o in enumerate(offers)}
    assert len(place) == 500
    for i, o in enumerate(offers):
        assert verify_side("s", ANN, o.pair, desk.pool.systems, o.shown_left_id, o.order_key)
        if o.pair.kind == "swap":
            original = offers[place[o.pair.repeat_of]]
            assert i - place[o.pair.repeat_of] >= plan.swap_after
            assert {o.shown_left_id, original.shown_left_id} == {o.pair.lo_id, o.pair.hi_id}
            assert not verify_side("s", ANN, o.pair, desk.pool.systems, original.shown_left_id, o.order_key)
    golds = [i for i, o in enumerate(offers) if o.pair.kind == "gold"]
    assert len({b - a for a, b in pairwise(golds)}) > 5  # nobody can count to the next one
    assert {comparison_of(o.pair, desk.pool.systems) for o in offers if o.pair.kind == "gold"} == {"gold check/pat"}


def test_a_stored_swap_is_used_and_one_who_could_not_judge_is_not_asked_again():
    desk = Desk(pool_of(60), replace(NO_CHECKS, swap=0.25, swap_after=1, overlap=0))
    assert not any(o.pair.kind == "swap" for o in desk.work(ANN, 20, "cannot_judge"))
    desk = Desk(pool_of(60), desk.plan)
    desk.pool = Pool.of([p for q in desk.pool.pairs.values() for p in (q, swap_of(q))], desk.pool.systems, "s")
    swaps = [o for o in desk.work(ANN, 40) if o.pair.kind == "swap"]
    assert len(swaps) == 10 and not any(o.new for o in swaps)


def test_no_checks_are_given_to_someone_who_has_judged_everything():
    desk = Desk(pool_of(3, n_checks=30), Plan(gold=0.25, swap=0, identical=0.25))
    assert len([o for o in desk.work(ANN, 60) if o.pair.kind == "one-factor" or o.pair.kind == "system"]) == 3
    assert desk.offer(ANN) is None


def test_long_system_names_are_hashed_and_stay_provable():
    _, (a, b) = texts(0, "x" * 80, "y" * 80)
    pair, systems = pair_of(a, b, "system"), {a.candidate_id: a.system, b.candidate_id: b.system}
    offer = next_offer(ANN, pool=Pool.of([pair], systems, "s"), loads={}, plan=NO_CHECKS)
    assert len(offer.order_key) <= 80 and verify_side("s", ANN, pair, systems, offer.shown_left_id, offer.order_key)


def test_the_plan_survives_json_and_refuses_what_is_out_of_range():
    plan = Plan(overlap=0.3, cap=7)
    assert Plan.from_json(json.loads(json.dumps(plan.to_json()))) == plan and Plan.from_json({}) == Plan()
    for wrong in ({"overlap": 1.5}, {"gold": True}, {"cap": 0}, {"lease_seconds": 1.5}, {"gild": 0.1}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            Plan.from_json(wrong)
    with pytest.raises(ValueError, match="secret"):
        Pool.of([], {}, "")


def test_two_thousand_pairs_take_a_few_milliseconds():
    desk = Desk(pool_of(2000, n_checks=80), Plan())
    desk.work(ANN, 60)
    facts = {"loads": desk.loads, "assigned": desk.assigned[ANN], "judged": desk.judged[ANN], "plan": desk.plan}
    best = min(_seconds(lambda: next_offer(ANN, pool=desk.pool, **facts)) for _ in range(5))
    assert best < 0.05  # about 2 ms on an idle machine


def _seconds(call) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def test_offers_fit_the_store_and_are_leased_to_one_person_each(tmp_path):
    clock = SetClock()
    with open_store(tmp_path / "a.db", clock=clock) as store:
        people = [person(store, name) for name in ("Ann", "Bob", "Cora")]
        for i in range(2):
            item, two = texts(i, "pat", "none")
            store.add_pairs([pair_of(*two, "system")], two, [item])
        plan = replace(NO_CHECKS, overlap=0)
        systems = {c.candidate_id: c.system for c in store.all(Candidate)}
        pool = Pool.of(store.all(Pair), systems, "s")
        ann, bob = (_lease(store, pool, who.annotator_id, plan) for who in people[:2])
        assert ann.pair_id != bob.pair_id and _lease(store, pool, people[2].annotator_id, plan) is None
        clock.advance(seconds=plan.lease_seconds + 1)
        assert _lease(store, pool, people[2].annotator_id, plan).pair_id in (ann.pair_id, bob.pair_id)


def _lease(store: Store, pool: Pool, who: str, plan: Plan) -> Assignment | None:
    loads = {load.pair_id: load for load in store.loads()}
    offer = next_offer(who, pool=pool, loads=loads, assigned=store.all(Assignment, annotator_id=who), plan=plan)
    if offer is None:
        return None
    given = Assignment(offer.pair.pair_id, who, offer.shown_left_id, offer.order_key, offer.propensity)
    return store.lease(given, plan.lease_seconds, capacity(offer.pair, loads[offer.pair.pair_id], plan, pool.secret))


DEMO = ["make", "--data", "assets/demo_corpus.jsonl"]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([*DEMO, "--n", "0", "--kind", "systems"], "whole number from 1"),
        ([*DEMO, "--n", "some", "--kind", "systems"], "invalid int value"),
        ([*DEMO, "--n", "3", "--kind", "two-factor"], "use one-factor or systems"),
        ([*DEMO, "--n", "3", "--kind", "systems", "--agent", "style"], "one-factor pairs only"),
        ([*DEMO, "--n", "3", "--kind", "one-factor", "--agent", "critic"], "style, topic, generator or all"),
        (["make", "--data", "no/such.jsonl", "--n", "3", "--kind", "systems"], "no/such.jsonl"),
        (["make", "--n", "3", "--kind", "systems"], "--data"),
    ],
)
def test_the_command_answers_bad_input_with_a_sentence_and_status_2(arguments, sentence, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("PAT_HOME", str(tmp_path))
    try:
        status = main(arguments)
    except SystemExit as left:
        status = left.code
    said = capsys.readouterr().err.strip()
    assert status == 2 and sentence in said and "Traceback" not in said and len(said.splitlines()) == 1
    assert not list(tmp_path.iterdir())  # nothing was begun


def test_the_command_refuses_a_file_by_one_person_or_without_company(tmp_path, capsys):
    rows = [{"user_id": "ann", "topic_id": t, "topic": t, "title": "x", "text": f"Some words on the {t}."} for t in ("inn", "kettle")]
    for name, users, sentence in (("one", ("ann", "ann"), "one person only"), ("apart", ("ann", "ben"), "no review to hold out")):
        path = tmp_path / f"{name}.jsonl"
        path.write_text("\n".join(json.dumps({**row, "user_id": u}) for row, u in zip(rows, users, strict=True)))
        assert main(["make", "--data", str(path), "--n", "3", "--kind", "systems", "--db", str(tmp_path / "a.db")]) == 2
        assert sentence in capsys.readouterr().err
    assert not (tmp_path / "a.db").exists()


def test_the_command_says_what_to_do_where_the_app_has_the_database(tmp_path, capsys):
    with open_store(tmp_path / "a.db"):
        assert main([*DEMO, "--n", "3", "--kind", "systems", "--db", str(tmp_path / "a.db")]) == 1
    assert "Owner page" in capsys.readouterr().err
