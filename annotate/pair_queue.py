"""The queue of one open store: which pairs wait for a judge, as of a moment ago, and reserving the next one for somebody.

Thousands of pairs are too many to read at every request, so a *picture* of the queue is kept in memory and read anew every second; the
store itself refuses a pair that others took meanwhile. What visitors of Compose chose between is theirs: nobody else ever gets it to judge.
Leaves out who may ask (``campaign``) and the choice itself (``schedule``).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

from annotate.gate import Refusal
from annotate.intake import AlreadyJudged
from annotate.schedule import Offer, Plan, Pool, capacity, chances, next_offer
from annotate.store import Store
from annotate.types import Assignment, Candidate, Exclusion, Judgment, JudgmentQuery, Load, Pair

COMPOSE = "compose"  # origin of pairs that visitors chose between themselves
PICTURE_SECONDS = 1.0
TRIES = 20  # at a pair that others take first


@dataclass(frozen=True, slots=True)
class Picture:
    """How far every pair is; ``open_ids`` want another judge. A pair reserved since is noted in ``loads``, for everybody to see."""

    read_at: float
    plan: Plan
    pool: Pool
    loads: dict[str, Load]
    open_ids: frozenset[str]


class Given(NamedTuple):
    """A pair reserved for somebody, and which of their pairs it is, counted from 1."""

    assignment: Assignment
    number: int


def answers_of(store: Store, annotator_id: str) -> dict[str, Judgment]:
    """Somebody's current answers by pair, those that do not count included."""
    query = JudgmentQuery(annotator_id=annotator_id, judge_kind=None, excluded=True)
    return {j.pair_id: j for j in store.judgments(query)}


class PairQueue:
    """The queue of ``store``; ``secret`` decides on order and sides. Every method may be called from any thread."""

    def __init__(self, store: Store, secret: str) -> None:
        self._store = store
        self._secret = secret
        self._turns = tuple(threading.Lock() for _ in range(64))
        self._reading = threading.Lock()
        self._picture: Picture | None = None
        self._pool: tuple[tuple[int, frozenset[str]], Pool] | None = None

    def open_ids(self, plan: Plan) -> frozenset[str]:
        """Pairs that want another judge."""
        return self._look(plan).open_ids

    def forget(self) -> None:
        """Read everything anew: rows were deleted."""
        with self._reading:
            self._picture = self._pool = None

    def take(self, annotator_id: str, plan: Plan) -> Given | None:
        """What this person should judge now: what they left unanswered, else a new pair; None where nothing is left for them.

        Raises Refusal where others were faster again and again.
        """
        with self._turns[hash(annotator_id) % len(self._turns)]:  # two tabs of one person get the same pair
            fresh = False
            for _ in range(TRIES):
                judged = answers_of(self._store, annotator_id)  # at each try: another tab may have answered meanwhile
                assigned = sorted(self._store.all(Assignment, annotator_id=annotator_id), key=lambda a: a.leased_at)
                picture = self._look(plan, fresh)
                offer = next_offer(annotator_id, pool=picture.pool, loads=picture.loads, assigned=assigned, judged=judged, plan=plan)
                if offer is not None:
                    if (kept := self._reserve(annotator_id, offer, picture)) is not None:
                        return Given(kept, len(judged) + 1)
                elif fresh:
                    return None
                else:
                    fresh = True
        raise Refusal("busy", "Many people are taking pairs at this moment: try again in a few seconds.")

    def _reserve(self, annotator_id: str, offer: Offer, picture: Picture) -> Assignment | None:
        """The pair, reserved; None where others took it a moment ago, or this person answered it in another tab."""
        pair_id = offer.pair.pair_id
        if offer.new:
            self._add_swap(offer.pair)
        load = picture.loads.get(pair_id) or Load(pair_id, 0, 0)
        room = None if offer.resumed else capacity(offer.pair, load, picture.plan, self._secret)
        assignment = Assignment(pair_id, annotator_id, offer.shown_left_id, offer.order_key, offer.propensity)
        try:
            kept = self._store.lease(assignment, picture.plan.lease_seconds, room)
        except AlreadyJudged:
            return None
        if not offer.resumed:  # somebody holds it, this person or whoever was faster
            picture.loads[pair_id] = replace(load, n_leased=load.n_leased + 1)
        return kept

    def _add_swap(self, pair: Pair) -> None:
        """Keep a swapped repeat in store and pool; all other pairs are known already, and reading them again takes long."""
        with self._reading:
            n = self._store.add_pairs([pair]).pairs
            if self._pool is not None:
                (count, excluded), pool = self._pool
                self._pool = (count + n, excluded), pool.with_swap(pair)
            if self._picture is not None:
                self._picture = replace(self._picture, pool=self._picture.pool.with_swap(pair))

    def _look(self, plan: Plan, fresh: bool = False) -> Picture:
        """The picture under ``plan``; with ``fresh`` one that was not read before this call."""
        oldest = time.monotonic() - (0.0 if fresh else PICTURE_SECONDS)
        picture = self._picture
        if not _serves(picture, plan, oldest):
            with self._reading:  # one reads, the others wait for what it saw
                if not _serves(self._picture, plan, oldest):
                    self._picture = self._read(plan)
                picture = self._picture
        return picture

    def _read(self, plan: Plan) -> Picture:
        at, pool = time.monotonic(), self._current_pool()
        loads = {load.pair_id: load for load in self._store.loads()}
        return Picture(at, plan, pool, loads, frozenset(chances(pool, loads, (), plan)))

    def _current_pool(self) -> Pool:
        """All pairs that count, but for those of visitors. A pair never changes, so only their number and the ledger are asked again."""
        excluded = frozenset(e.pair_id for e in self._store.all(Exclusion, active=True) if e.pair_id)
        key = (self._store.counts()["pairs"], excluded)
        if self._pool is None or self._pool[0] != key:
            known = self._pool[1].systems if self._pool else {}
            pairs = {name: p for p in self._store.all(Pair) if p.origin != COMPOSE and (name := p.pair_id) not in excluded}
            systems = dict(self._systems(pairs, known))
            whole = {name: p for name, p in pairs.items() if p.lo_id in systems and p.hi_id in systems}  # not what was erased just now
            self._pool = (key, Pool.of(whole, systems, self._secret))
        return self._pool[1]

    def _systems(self, pairs: Mapping[str, Pair], known: Mapping[str, str]) -> Iterator[tuple[str, str]]:
        """Who wrote the texts of ``pairs``, by id; only texts that are not ``known`` are read, since each brings its whole trace."""
        for name in dict.fromkeys(name for p in pairs.values() for name in (p.lo_id, p.hi_id)):
            if name in known:
                yield name, known[name]
            elif (there := self._store.find(Candidate, candidate_id=name)) is not None:
                yield name, there.system


def _serves(picture: Picture | None, plan: Plan, oldest: float) -> bool:
    return picture is not None and picture.plan == plan and picture.read_at >= oldest
