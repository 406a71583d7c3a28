"""A small campaign to vote on and a clock that tests move."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from annotate.store import Store
from annotate.types import Annotator, Assignment, Candidate, Item, Judgment, Pair, new_id, pair_of

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)


class SetClock:
    """Says the time it was set to."""

    def __init__(self) -> None:
        self.now = NOON

    def __call__(self) -> datetime:
        return self.now

    def advance(self, **by: float) -> None:
        self.now += timedelta(**by)


@dataclass(frozen=True)
class Campaign:
    """One item with candidates 0..n and the system pairs (0, 1), (0, 2) and so on."""

    item: Item
    candidates: tuple[Candidate, ...]
    pairs: tuple[Pair, ...]


def campaign(n: int = 4, prompt: str = "A hotel in Rome", contributor_id: str | None = None) -> Campaign:
    item = Item(prompt, {"topic": "hotels", "samples": ["Loved it!!"]}, "demo", contributor_id=contributor_id)
    texts = [Candidate(item.item_id, f"text {i}", "pat" if i else "none", {"seed": i, "rewards": {"style": i / 10}}) for i in range(n + 1)]
    return Campaign(item, tuple(texts), tuple(pair_of(texts[0], text, "system", origin="test") for text in texts[1:]))


def fill(store: Store, n: int = 4, **details: str) -> Campaign:
    made = campaign(n, **details)
    store.add_pairs(made.pairs, made.candidates, [made.item])
    return made


def person(store: Store, nickname: str = "Ada", **details: str) -> Annotator:
    return store.add_annotator(Annotator(new_id(), nickname, **details))


def offer(store: Store, pair: Pair, who: Annotator, left: str | None = None, **details: float) -> Assignment | None:
    return store.lease(Assignment(pair.pair_id, who.annotator_id, left or pair.lo_id, "key"), **details)


def answer(shown: Assignment, outcome: str = "A", **details: object) -> Judgment:
    return Judgment(
        details.pop("judgment_id", None) or new_id(),
        shown.pair_id,
        shown.annotator_id,
        shown.shown_left_id,
        shown.order_key,
        outcome,
        **details,
    )


def vote(store: Store, pair: Pair, who: Annotator, outcome: str = "A", **details: object) -> Judgment:
    return store.record_judgment(answer(offer(store, pair, who), outcome, **details))
