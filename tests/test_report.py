"""The report on a store worked out by hand, on one with nothing in it, and how long it takes on a busy one."""

from __future__ import annotations

import json
import math
import random
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from functools import partial
from pathlib import Path

import pytest
from store_data import NOON, answer, fill, offer, person, vote

from annotate.figures import Tally
from annotate.report import Report, as_json, as_text, main, report, sentences
from annotate.stats.agreement import Agreement
from annotate.store import Store, open_store
from annotate.types import Annotator, Assignment, Candidate, Exclusion, Item, Judgment, Pair, new_id, pair_of, timestamp
from annotate.ui import owner_cards as cards

SYSTEMS = {"pat": 0.9, "none": 0.0, "lamp": 0.4, "pgraphrag": 0.5, "copy": -0.3}
WORDS = ("the", "slow", "pour", "of", "a", "morning", "kettle", "and", "train", "that", "you", "hear", "from", "every", "room", "lodge")


def simulate(store: Store, n_votes: int = 300, n_people: int = 8, *, seed: int = 1, overlap: float = 0.3) -> tuple[Annotator, ...]:
    """People with one taste vote on texts of five systems, now and then on a check; the last of them always clicks left."""
    rng = random.Random(seed)
    people = tuple(
        store.add_annotator(Annotator(new_id(), f"Judge {i + 1}", perspective=("native", "learner")[i % 2])) for i in range(n_people)
    )
    items, candidates, pairs, assignments, judgments = [], [], [], [], []
    while len(judgments) < n_votes:
        item = Item(f"Review {len(items)} of a lodge", {"topic": "lodge", "samples": ["Slow pour! Early train."]}, "test")
        systems = rng.sample(sorted(SYSTEMS), 2)
        texts = [_text(rng, item, s) for s in systems]
        pair = pair_of(*texts, "system", origin="test")
        items.append(item)
        candidates += texts
        pairs.append(pair)
        who = rng.sample(people, 2 if rng.random() < overlap else 1)
        for one in who:
            _judge(rng, pair, texts, one, people[-1], assignments, judgments)
        if rng.random() < 0.08:
            repeat = pair_of(*texts, "swap", repeat_of=pair.pair_id)
            pairs.append(repeat)
            _judge(rng, repeat, texts, who[0], people[-1], assignments, judgments, left=_other(pair, assignments[-len(who)].shown_left_id))
        if rng.random() < 0.08:
            broken = Candidate(item.item_id, "the slow the slow the", "check-cut")
            candidates.append(broken)
            pairs.append(pair_of(texts[0], broken, "gold", expected=texts[0].candidate_id))
            _judge(rng, pairs[-1], [texts[0], broken], rng.choice(people), people[-1], assignments, judgments)
    store.add_pairs(pairs, candidates, items)
    store.import_votes(assignments, judgments)
    return people


def _text(rng: random.Random, item: Item, system: str) -> Candidate:
    words = " ".join(rng.choices(WORDS, k=rng.randint(20, 60)))
    reward = SYSTEMS[system] / 2 + rng.gauss(0, 0.5)
    return Candidate(item.item_id, words, system, {"rewards": {"total": reward, "terms": {"style": reward / 2, "topic": rng.random()}}})


def _other(pair, left: str) -> str:
    return pair.hi_id if left == pair.lo_id else pair.lo_id


def _judge(rng, pair, texts, who, careless, assignments, judgments, left=None) -> None:
    left = left or rng.choice((pair.lo_id, pair.hi_id))
    by_id = {c.candidate_id: SYSTEMS.get(c.system, -3.0) + _quirk(c) + _quirk(c, who) for c in texts}
    gap = (by_id[left] - by_id[_other(pair, left)]) * 3
    odds = [math.exp(gap / 2), math.exp(-gap / 2), 0.35, 0.05]
    outcome = "A" if who is careless else rng.choices(("A", "B", "tie", "both_bad"), odds)[0]
    at = _at(len(judgments))
    assignments.append(Assignment(pair.pair_id, who.annotator_id, left, "key", leased_at=at, lease_until=at))
    seconds = rng.lognormvariate(3.2, 0.4)
    strength = rng.choice(("slightly", "clearly")) if outcome in "AB" else None
    dims = {name: outcome if outcome in "AB" and rng.random() < 0.6 else rng.choice(("A", "B", "same")) for name in ("style", "topic")}
    judgments.append(
        Judgment(
            new_id(), pair.pair_id, who.annotator_id, left, "key", outcome, strength, dims,
            ms_visible=int(seconds * 1000), ms_total=int(seconds * 1100), created_at=at,
        )
    )  # fmt: skip


def _quirk(text: Candidate, who: Annotator | None = None) -> float:
    """How good a text is beside its system's mean; with ``who``, how much more that person likes it: the same whenever it is asked."""
    return random.Random(text.candidate_id + (who.nickname if who else "")).gauss(0, 0.5)


def _at(n: int) -> str:
    return timestamp(NOON + timedelta(hours=n / 3 - 400))


class Small:
    """Four pairs of PaT against no personalization, judged by three people, with answers whose figures can be worked out by hand.

        pair      Ada     Bob     Cyd         agreement: pairs 0, 1, 2 have two people; 0 and 2 the same answer, so 2 of 3
        0         pat     pat                 PaT won 4 of 5 decisive votes, 2 of 7 are ties
        1         pat     none                the reward is higher for PaT throughout, so it agrees in 4 of 5
        2         tie             both_bad    all decisive votes: 4 for PaT, 1 against: leaving out 4, or turning 2, flips it
        3         pat

    Ada answers pair 0 again with the sides exchanged, the same way. Ada is right on the gold pair, Bob wrong; Cyd cannot judge the two
    equal texts.
    """

    def __init__(self, store: Store) -> None:
        self.store = store
        self.ada, self.bob, self.cyd = (store.add_annotator(Annotator(new_id(), name)) for name in ("Ada", "Bob", "Cyd"))
        self.pairs = []
        for i in range(4):
            item = Item(f"Review {i}", {"topic": "lodge"}, "test")
            pat, none = (Candidate(item.item_id, f"{s} text {i}", s, {"rewards": {"total": r}}) for s, r in (("pat", 0.5), ("none", 0.1)))
            broken = Candidate(item.item_id, "text cut", "check-cut")
            self.pairs.append(pair_of(pat, none, "system"))
            store.add_pairs([self.pairs[-1]], [pat, none, broken], [item])
        self.gold = pair_of(pat, broken, "gold", expected=pat.candidate_id)
        self.same = pair_of(none, none, "identical", expected="tie")
        self.swap = pair_of(*self._texts(self.pairs[0]), "swap", repeat_of=self.pairs[0].pair_id)
        store.add_pairs([self.gold, self.same, self.swap])
        for i, who, choice in (
            (0, self.ada, "pat"), (0, self.bob, "pat"), (1, self.ada, "pat"), (1, self.bob, "none"), (2, self.ada, "tie"),
            (2, self.cyd, "both_bad"), (3, self.ada, "pat"),
        ):  # fmt: skip
            self.choose(self.pairs[i], who, choice)
        self.choose(self.swap, self.ada, "pat", left=self.pairs[0].hi_id)
        self.choose(self.gold, self.ada, "pat")
        self.choose(self.gold, self.bob, "check-cut")
        self.choose(self.same, self.cyd, "cannot_judge")

    def _texts(self, pair: Pair) -> tuple[Candidate, ...]:
        return tuple(self.store.find(Candidate, candidate_id=name) for name in (pair.lo_id, pair.hi_id))

    def choose(self, pair: Pair, who: Annotator, choice: str, left: str | None = None, **details: object) -> Judgment:
        """Answer with the system that wins, or with an outcome that is no side; ``left`` defaults to the lower id."""
        shown = offer(self.store, pair, who, left)
        winner = next((name for name, c in zip((pair.lo_id, pair.hi_id), self._texts(pair), strict=True) if c.system == choice), None)
        outcome = choice if winner is None else "A" if winner == shown.shown_left_id else "B"
        return self.store.record_judgment(answer(shown, outcome, **details))


quick = partial(report, n_resamples=20)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with open_store(tmp_path / "votes.db") as opened:
        yield opened


def overall(r: Report) -> Agreement:
    return next(a for a in r.agreement if a.dimension == "overall")


def test_figures_that_can_be_worked_out_by_hand(store):
    Small(store)
    r = quick(store)
    system = next(row for row in r.queue if row.kind == "system")
    assert (system.n, system.n_open, system.n_one, system.n_two, system.n_more, system.n_split, system.n_leased) == (4, 0, 1, 3, 0, 1, 0)
    assert (overall(r).n_pairs, overall(r).n_annotators, round(overall(r).raw.value, 9)) == (3, 3, round(2 / 3, 9))
    assert (r.repeats.n, r.repeats.n_same) == (1, 1)
    assert (r.outcomes.n, r.outcomes.tie, r.outcomes.both_bad, round(r.tie_rate.value, 9)) == (7, 1, 1, round(2 / 7, 9))
    (rate,) = r.win_rates
    assert (rate.a, rate.b, rate.n_a, rate.n_b, rate.n_tie, rate.n_both_bad, rate.decisive.value) == ("none", "pat", 1, 4, 1, 1, 0.2)
    assert (r.flip.leader, r.flip.n_drop, r.flip.n_switch, r.flip.n_votes, r.flip.exact) == ("pat", 4, 2, 7, True)
    assert (r.rewards[0].term, r.rewards[0].agreement.n, r.rewards[0].agreement.accuracy.value) == ("total", 5, 0.8)
    assert r.checks == {"gold": Tally(1, 1, 0), "identical": Tally(0, 0, 1), "swap": Tally(1, 0, 0)}
    assert [m.b for m in r.power] == ["none"] and r.power[0].n_decisive == 5
    people = {p.annotator.nickname: p for p in r.people}
    assert [p.n for p in people.values()] == [6, 3, 2] and people["Ada"].repeats == (1, 1) and people["Bob"].checks == Tally(0, 1, 0)
    assert r.n_current == 11 and r.n_excluded == 0 and r.ledger == ()
    said = sentences(r)
    assert said["queue"].startswith("4 of 4 pairs have an answer, 3 of them from two people or more; 0 wait for their first.")
    assert "People agree on 67% [" in said["agreement"] and "of 3 pairs judged twice or more (3 people)" in said["agreement"]
    assert "The ceiling from swapped repeats is 100% [" in said["agreement"] and "1 pair came back" in said["agreement"]
    assert "hangs on 4 votes of 7 (57.1%)" in said["flip"] and "2 answered the other way" in said["flip"]
    assert "Of 3 answers to constructed checks 1 were right, 1 wrong and 1 could not be graded." in said["checks"]
    assert "80% [" in said["reward"] and "covers one half" in said["reward"]


def test_exclusions_take_their_votes_out_of_every_figure_and_can_be_switched_back(store):
    small = Small(store)
    before = quick(store)
    entry = store.exclude(Exclusion("clicked at random", "owner", annotator_id=small.bob.annotator_id))
    r = quick(store, before)
    assert (overall(r).n_pairs, r.outcomes.n, r.n_excluded) == (1, 5, 3)
    assert [(row.target, row.n_votes, row.exclusion.active) for row in r.ledger] == [("all answers of Bob", 3, True)]
    assert "3 answers of 11 (27.3%) are excluded by 1 active entry of 1." in sentences(r)["excluded"]
    bob = next(p for p in r.people if p.annotator == small.bob)
    assert bob.n == 3 and bob.n_excluded == 3 and bob.checks.fail == 1, "whoever is left out can still be looked at"
    store.exclude(replace(entry, active=False))
    again = quick(store, r)
    assert replace(again, at="", basis=(), ledger=()) == replace(before, at="", basis=(), ledger=())


def test_answers_of_other_judges_and_of_those_who_saw_more_count_apart(store):
    small = Small(store)
    small.choose(small.pairs[3], small.bob, "none", unblinded=True)
    machine = store.add_annotator(Annotator(new_id(), "A model", "llm"))
    small.choose(small.pairs[3], machine, "none")
    r = quick(store)
    assert (r.outcomes.n, r.n_unblinded, r.n_other_judges, r.win_rates[0].n_b) == (7, 1, 1, 4)
    assert "1 answer by people who saw more" in sentences(r)["excluded"] and "a model or a metric" in sentences(r)["excluded"]


def test_what_changes_without_an_answer_is_seen_in_a_report_that_reuses_the_last(store):
    small = Small(store)
    before = quick(store)
    store.update_annotator(replace(small.cyd, status="blocked"))
    offer(store, small.pairs[3], small.bob)
    r = quick(store, before)
    assert r.ratings is before.ratings, "the slow half is kept"
    assert [p.annotator.status for p in r.people] == ["active", "active", "blocked"]
    assert next(row for row in r.queue if row.kind == "system").n_leased == 1


def one_vote(store: Store) -> None:
    vote(store, fill(store, 1).pairs[0], person(store))


def only_ties(store: Store) -> None:
    for pair in fill(store, 3).pairs:
        vote(store, pair, person(store, "Ada" + pair.pair_id[:3]), "tie")


def only_cannot_judge(store: Store) -> None:
    vote(store, fill(store, 1).pairs[0], person(store), "cannot_judge")


def one_factor(store: Store) -> None:
    item = Item("Review", {}, "test")
    for i in range(6):
        texts = [Candidate(item.item_id, f"text {i} {j}", "pat", {"rewards": {"total": float(j)}}) for j in range(2)]
        pair = pair_of(*texts, "one-factor", agent="style")
        store.add_pairs([pair], texts, [item])
        vote(store, pair, person(store, f"P{i}"), "A")


def joined(store: Store) -> None:
    person(store)
    fill(store, 2)


@pytest.mark.parametrize("make", [lambda store: None, joined, one_vote, only_ties, only_cannot_judge, one_factor])
def test_little_data_gives_sentences_and_no_nan(store, make):
    make(store)
    r = quick(store)
    said = sentences(r)
    assert all(text.endswith(".") and "nan" not in text.lower() and "None" not in text for text in said.values()), said
    assert json.loads(as_json(r))["sentences"] == said  # allow_nan=False refuses NaN and infinity
    assert "At 20" in as_text(r)
    for panel in (cards.overview, cards.queue, cards.days, cards.systems, cards.agreement, cards.rewards, cards.ledger):
        assert "nan" not in panel(r).lower()
    if make is one_factor:
        assert r.ratings is None and r.bias.n_decisive == 6 and r.rewards[0].agreement.n == 6
        assert "no ratings" in said["systems"]
    if make is joined:
        assert said["people"] == "Nobody has judged anything yet; 1 person has joined." and "2 wait for their first" in said["queue"]


def test_two_thousand_votes_take_a_moment_and_the_same_again_hardly_any(store):
    people = simulate(store, 2_000, 20)
    began = time.process_time()
    r = report(store)
    first = time.process_time() - began
    again = report(store, r)
    assert first < 60 and time.process_time() - began - first < first / 3, "3 s and 0.3 s on two idle cores"
    assert replace(again, at="") == replace(r, at="")
    assert r.ratings.ratings[0].system == "pat" and r.ratings.resample == "both"
    careless = next(p for p in r.people if p.annotator == people[-1])
    assert careless.votes.left_flag and "chose the left text in 100%" in "; ".join(careless.concerns)
    assert [g.perspective for g in r.groups] == ["learner", "native"] and all(g.focus.value > 0.5 for g in r.groups)
    assert sum(n for _, n in r.days) == r.n_current


def test_the_command_line_says_it_in_words_and_in_json(store, capsys, tmp_path):
    Small(store)
    assert main(["--db", str(store.path)]) == 0  # beside the program that writes
    said = capsys.readouterr().out
    assert "People agree on 67%" in said and "Ada" in said and "Elo points" in said
    assert main(["--db", str(store.path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["n_current"] == 11
    assert main(["--db", str(tmp_path / "none.db")]) == 1
    assert "none.db" in capsys.readouterr().err and not (tmp_path / "none.db").exists()


def test_hostile_names_and_reasons_are_text_on_every_panel(store):
    small = Small(store)
    hostile = "<img src=x onerror=alert(1)> ${window.pwned=1} {{constructor}}"
    store.update_annotator(replace(small.ada, nickname=hostile[:80], perspective=hostile[:80]))
    store.exclude(Exclusion(hostile, hostile[:80], annotator_id=small.ada.annotator_id))
    store.exclude(Exclusion(hostile, "owner", judgment_id=store.judgments()[0].judgment_id, active=False))
    r = quick(store)
    for panel in (cards.overview, cards.systems, cards.ledger):
        assert "<img" not in panel(r)
    assert "&lt;img" in cards.ledger(r)
