"""Which pair comes next for whom and which text stands left: pure functions of a secret, so that every choice can be made again.

A person first gets back what is open. Otherwise a check where one is due (one in every 25 of a person's pairs is constructed gold, one
in 33 a swapped repeat, one in 50 two equal texts, each at a keyed place of its block), else a pair to judge. Sides are balanced in blocks
of four per person and comparison. Leaves out keeping anything: ``annotate.store`` leases and stores.
"""

from __future__ import annotations

import hashlib
import hmac
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from itertools import combinations
from typing import Any, Literal

from annotate.fields import check_whole
from annotate.types import Assignment, Judgment, Load, Pair

Side = Literal["first", "second"]
SIDES: tuple[Side, Side] = ("first", "second")
BLOCK = 4
_BLOCKS = tuple(tuple("first" if i in firsts else "second" for i in range(BLOCK)) for firsts in combinations(range(BLOCK), BLOCK // 2))
CHECK_SYSTEM = "check"  # constructed texts, whatever is wrong with them: system "check-..."
LEAST_FURTHER = 0.05  # chance of a pair that waits for a further judge, so that opposite answers are settled even without an overlap
MAX_COMPARISON = 56  # characters; a longer one is named by a hash, so that an order key stays below 80


@dataclass(frozen=True, slots=True)
class Plan:
    """How pairs are handed out (annotation.md section 12). Shares: ``overlap`` of the pairs get a second judge; ``gold``, ``swap`` and
    ``identical`` of a person's pairs are checks. A swapped repeat comes ``swap_after`` pairs later at the soonest; ``cap`` judges at most.

    The rest is for whoever talks to the person: ``warn_fails`` failed golds in the last ``fail_window`` bring a message, ``review_fails`` a
    look by the owner; a break is proposed after ``break_seconds`` or ``break_pairs``.
    """

    overlap: float = 0.15
    gold: float = 0.04
    swap: float = 0.03
    identical: float = 0.02
    swap_after: int = 20
    cap: int = 5
    lease_seconds: int = 20 * 60
    fail_window: int = 10
    warn_fails: int = 2
    review_fails: int = 4
    break_seconds: int = 25 * 60
    break_pairs: int = 60

    def __post_init__(self) -> None:
        for name, most in (("overlap", 1.0), ("gold", 0.25), ("swap", 0.25), ("identical", 0.25)):
            share = getattr(self, name)
            if isinstance(share, bool) or not isinstance(share, int | float) or not 0 <= share <= most:
                raise ValueError(f"{name} {share!r:.60} must be a share from 0 to {most:g}")
        for name, low, high in (
            ("swap_after", 1, 1000),
            ("cap", 1, 100),
            ("lease_seconds", 30, 7 * 24 * 3600),
            ("fail_window", 1, 1000),
            ("warn_fails", 1, 1000),
            ("review_fails", 1, 1000),
            ("break_seconds", 60, 24 * 3600),
            ("break_pairs", 1, 100_000),
        ):
            check_whole(name, getattr(self, name), low, high)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Plan:
        """The plan that ``value`` describes, defaults where it is silent. ValueError for a knob that is not known or out of range."""
        known = {f.name for f in fields(cls)}
        if strange := sorted(set(value) - known):
            raise ValueError(f"the plan knows no {', '.join(strange)[:80]}; it has {', '.join(sorted(known))}")
        return cls(**value)


@dataclass(frozen=True, slots=True)
class Offer:
    """The pair to show next, as an assignment needs it. ``new``: a swap pair that the store does not have yet.

    ``resumed``: this person has it already, open or expired, and may always finish it: lease it without a capacity.
    """

    pair: Pair
    shown_left_id: str
    order_key: str
    propensity: float
    new: bool = False
    resumed: bool = False


@dataclass(frozen=True)
class Pool:
    """Pairs indexed once, for callers that ask often: see ``next_offer``. Make it anew when pairs are added or put out of use.

    Excluded pairs are simply not in it. ``draws`` holds the pairs to judge, each with a number in [0, 1) that decides on a second judge.
    """

    secret: str
    pairs: Mapping[str, Pair]
    systems: Mapping[str, str]
    draws: Mapping[str, float]
    checks: Mapping[str, tuple[str, ...]]
    swaps: Mapping[str, str]

    @classmethod
    def of(cls, pairs: Iterable[Pair] | Mapping[str, Pair], systems: Mapping[str, str], secret: str) -> Pool:
        """``systems`` maps the candidates' ids to who wrote them. Raises ValueError for an empty secret."""
        if not secret:
            raise ValueError("sides and order need a secret; keep a random one with the campaign")
        by_id = dict(sorted(pairs.items() if isinstance(pairs, Mapping) else ((p.pair_id, p) for p in pairs)))
        return cls(
            secret=secret,
            pairs=by_id,
            systems=systems,
            draws={name: _second_judge_draw(secret, name) for name, p in by_id.items() if p.kind in ("one-factor", "system")},
            checks={kind: tuple(name for name, p in by_id.items() if p.kind == kind) for kind in ("gold", "identical")},
            swaps={p.repeat_of: name for name, p in by_id.items() if p.repeat_of is not None},
        )

    def with_swap(self, pair: Pair) -> Pool:
        """This pool and one more swapped repeat of a pair in it."""
        return replace(self, pairs={**self.pairs, pair.pair_id: pair}, swaps={**self.swaps, pair.repeat_of: pair.pair_id})


def next_offer(
    annotator_id: str,
    *,
    pool: Pool,
    loads: Mapping[str, Load],
    assigned: Sequence[Assignment] = (),
    judged: Mapping[str, Judgment] | None = None,
    plan: Plan = Plan(),
) -> Offer | None:
    """What this person sees next, None when nothing is left for them. The same facts give the same offer: asking twice is harmless.

    ``loads``: how far each pair is; ``assigned``: all that this person was ever given, oldest first; ``judged``: their current answers by
    pair. The propensity is the chance of this pair among those to judge (``chances``), or among the checks of its kind, that could have
    come now.
    """
    answers = judged or {}
    for shown in assigned:
        if shown.pair_id not in answers and shown.pair_id in pool.pairs:
            return Offer(pool.pairs[shown.pair_id], shown.shown_left_id, shown.order_key, shown.propensity, resumed=True)
    seen = {shown.pair_id for shown in assigned} | answers.keys()
    to_judge = chances(pool, loads, seen, plan)
    if not to_judge:
        return None  # checks alone measure nobody's taste
    u = _unit(pool.secret, "next", annotator_id, len(assigned))
    for kind in _due_checks(annotator_id, pool, assigned, plan):
        if kind == "swap":
            if originals := _repeatable(pool, assigned, answers, plan):
                return _swap_offer(pool, originals[int(u * len(originals))], 1 / len(originals))
        elif open_checks := [name for name in pool.checks[kind] if name not in seen]:
            return _offer(annotator_id, pool, open_checks[int(u * len(open_checks))], 1 / len(open_checks), assigned)
    chosen = _drawn(to_judge, u)
    return _offer(annotator_id, pool, chosen, to_judge[chosen], assigned)


def chances(pool: Pool, loads: Mapping[str, Load], seen: Iterable[str], plan: Plan) -> dict[str, float]:
    """The pairs to judge that could come now for someone who has ``seen`` others, each with its probability; they sum to one.

    Pairs that nobody has judged or holds share what is left by pairs that wait for a further judge, and these get twice the share at which
    they arise: so agreement is known from the beginning, not only when every pair has been judged once. Within both all are alike.
    """
    gone, fresh, further = frozenset(seen), [], []
    for name, draw in pool.draws.items():  # by id
        if name not in gone:
            load = loads.get(name)
            if load is None or not load.n_judged + load.n_leased:
                fresh.append(name)
            elif load.n_judged + load.n_leased < _target(draw, load, plan):
                further.append(name)
    share = min(0.5, max(LEAST_FURTHER, 2 * plan.overlap / (1 + plan.overlap))) if fresh and further else float(bool(further))
    return dict.fromkeys(fresh, (1 - share) / max(1, len(fresh))) | dict.fromkeys(further, share / max(1, len(further)))


def capacity(pair: Pair, load: Load | None, plan: Plan, secret: str) -> int | None:
    """How many people this pair needs now, for ``Store.lease``; None for a check, which everybody gets."""
    if pair.kind not in ("one-factor", "system"):
        return None
    return _target(_second_judge_draw(secret, pair.pair_id), load, plan)


def swap_of(pair: Pair) -> Pair:
    """The swapped repeat of ``pair``."""
    return replace(pair, kind="swap", agent=None, expected=None, repeat_of=pair.pair_id)


def side_of(secret: str, annotator_id: str, comparison: str, position: int) -> Side:
    """Which of the two stands left at this person's pair ``position`` (from 0) of a comparison: two and two in every block of four."""
    block, place = divmod(position, BLOCK)
    return _BLOCKS[_number(secret, "side", annotator_id, comparison, block) % len(_BLOCKS)][place]


def comparison_of(pair: Pair, systems: Mapping[str, str]) -> str:
    """What is compared, in words: kind, agent and both systems; constructed texts are one system. Sides are balanced within it."""
    return _comparison(f"{pair.kind}:{pair.agent}" if pair.agent else pair.kind, pair, systems)


def verify_side(secret: str, annotator_id: str, pair: Pair, systems: Mapping[str, str], shown_left_id: str, order_key: str) -> bool:
    """Whether ``order_key`` and the secret give just this side: nobody chose it by hand. False for a key of another make.

    A key reads "b4 POSITION COMPARISON", and "swap POSITION COMPARISON" for a repeat: the side opposite to that of the original.
    """
    parsed = _parsed(order_key)
    if parsed is None:
        return False
    rule, position, comparison = parsed
    side = side_of(secret, annotator_id, comparison, position)
    if rule == "b4":
        return comparison == comparison_of(pair, systems) and shown_left_id == _left(pair, systems, side)
    kinds = ("system", *(f"one-factor:{agent}" for agent in ("style", "topic", "generator")))
    originals = {_comparison(kind, pair, systems) for kind in kinds}
    return pair.kind == "swap" and comparison in originals and shown_left_id == _left(pair, systems, SIDES[side == "first"])


def _offer(annotator_id: str, pool: Pool, name: str, propensity: float, assigned: Sequence[Assignment]) -> Offer:
    pair = pool.pairs[name]
    comparison = comparison_of(pair, pool.systems)
    earlier = [p for shown in assigned if (p := _parsed(shown.order_key)) and p[0] == "b4" and p[2] == comparison]
    position = max((p[1] for p in earlier), default=-1) + 1  # not their count: an erasure may have taken some
    side = side_of(pool.secret, annotator_id, comparison, position)
    return Offer(pair, _left(pair, pool.systems, side), f"b4 {position} {comparison}", propensity)


def _swap_offer(pool: Pool, original: Assignment, propensity: float) -> Offer:
    pair = pool.pairs[original.pair_id]
    left = pair.hi_id if original.shown_left_id == pair.lo_id else pair.lo_id
    stored = pool.swaps.get(original.pair_id)
    return Offer(pool.pairs[stored] if stored else swap_of(pair), left, _swap_key(original), propensity, new=stored is None)


def _swap_key(original: Assignment) -> str:
    return original.order_key.replace("b4", "swap", 1)


def _due_checks(annotator_id: str, pool: Pool, assigned: Sequence[Assignment], plan: Plan) -> Iterable[str]:
    """The checks that this person should get now: in each block of 1/rate positions one, from its keyed place on until it came."""
    position = len(assigned)
    for kind, rate in (("gold", plan.gold), ("swap", plan.swap), ("identical", plan.identical)):
        if rate <= 0:
            continue
        block = int(position * rate + 1e-9)
        start, end = (math.ceil(n / rate - 1e-9) for n in (block, block + 1))
        place = start + _number(pool.secret, kind, annotator_id, block) % (end - start)
        came = any((p := pool.pairs.get(shown.pair_id)) and p.kind == kind for shown in assigned[start:])
        if position >= place and not came:
            yield kind


def _repeatable(pool: Pool, assigned: Sequence[Assignment], judged: Mapping[str, Judgment], plan: Plan) -> list[Assignment]:
    """Pairs that this person judged long enough ago and has not seen swapped; those they could not judge would tell nothing."""
    swapped = {shown.order_key for shown in assigned if shown.order_key.startswith("swap ")}
    return [
        shown
        for shown in assigned[: max(0, len(assigned) - plan.swap_after + 1)]
        if shown.pair_id in pool.draws
        and shown.pair_id in judged
        and judged[shown.pair_id].outcome != "cannot_judge"
        and shown.order_key.startswith("b4 ")
        and _swap_key(shown) not in swapped
    ]


def _target(draw: float, load: Load | None, plan: Plan) -> int:
    """People that a pair needs: one, two for the overlap share, and one more than have judged while their votes are opposite."""
    n = 1 + (draw < plan.overlap)
    if load and load.n_judged >= 2 and load.split:
        n = max(n, load.n_judged + 1)
    return min(n, plan.cap)


def _drawn(chance: dict[str, float], u: float) -> str:
    """The key at ``u`` in [0, 1) of the cumulated chances."""
    for name, p in chance.items():
        u -= p
        if u < 0:
            return name
    return next(reversed(chance))  # rounding left a little


def _left(pair: Pair, systems: Mapping[str, str], side: Side) -> str:
    """The id that stands left: "first" is the alphabetically first system's text, or ``lo`` where one system wrote both."""
    lo, hi = (_system(systems[name]) for name in (pair.lo_id, pair.hi_id))
    first, second = (pair.lo_id, pair.hi_id) if lo <= hi else (pair.hi_id, pair.lo_id)
    return first if side == "first" else second


def _system(name: str) -> str:
    return CHECK_SYSTEM if name.startswith(f"{CHECK_SYSTEM}-") else name


def _comparison(kind: str, pair: Pair, systems: Mapping[str, str]) -> str:
    text = f"{kind} {'/'.join(sorted(_system(systems[name]) for name in (pair.lo_id, pair.hi_id)))}"
    return text if len(text) <= MAX_COMPARISON else f"{kind} #{hashlib.sha256(text.encode()).hexdigest()[:16]}"


def _parsed(order_key: str) -> tuple[str, int, str] | None:
    """Rule, position and comparison of an order key; None for a key of another make."""
    rule, _, rest = order_key.partition(" ")
    position, _, comparison = rest.partition(" ")
    if rule not in ("b4", "swap") or not (position.isascii() and position.isdigit()):
        return None
    return rule, int(position), comparison


def _number(secret: str, *parts: object) -> int:
    """A whole number below 2**64 that only the secret explains."""
    digest = hmac.digest(secret.encode(), "\x1f".join(map(str, parts)).encode(), "sha256")
    return int.from_bytes(digest[:8], "big")


def _unit(secret: str, *parts: object) -> float:
    """A number in [0, 1) that only the secret explains."""
    return (_number(secret, *parts) >> 11) / 2**53


def _second_judge_draw(secret: str, pair_id: str) -> float:
    return _unit(secret, "overlap", pair_id)
