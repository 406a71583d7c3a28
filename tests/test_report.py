"""The report on a store worked out by hand, on one with nothing in it, and how long it takes on a busy one."""

from __future__ import annotations

import json
import math
import random
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from store_data import NOON, answer, fill, offer, person, vote

from annotate.report import as_text, main, report, sentences
from annotate.store import Store, open_store
from annotate.types import Annotator, Assignment, Candidate, Exclusion, Item, Judgment, new_id, pair_of, timestamp

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


if __name__ == "__main__":
    pass
