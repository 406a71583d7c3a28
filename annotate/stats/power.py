"""Are there enough votes? How many a difference needs, what the ones in hand can show, and how few of them hold up the winner.

The sample size is the normal approximation of the two-sided test of a decisive share against one half. Leaves out costs and schedules.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import brentq
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.special import betaln, expit
from scipy.stats import norm

from annotate.stats.model import counted
from annotate.stats.pairs import score
from annotate.stats.votes import Estimate, Vote, codes, effective_size

WIN_RATES = (0.52, 0.55, 0.57, 0.60, 0.65, 0.70)


def votes_needed(win_rate: float, *, power: float = 0.8, alpha: float = 0.05) -> int:
    """Independent decisive votes needed to tell a true ``win_rate`` from one half; ValueError unless it is in (0, 1) and not 0.5."""
    if not 0 < win_rate < 1 or win_rate == 0.5:
        raise ValueError(f"win_rate {win_rate!r} must be between 0 and 1 and not 0.5: no number of votes shows a difference of 0")
    return math.ceil(_needed(win_rate, power, alpha))


def _needed(win_rate: float, power: float, alpha: float) -> float:
    for name, value in (("power", power), ("alpha", alpha)):
        if not 0 < value < 1:
            raise ValueError(f"{name} {value!r} must be between 0 and 1, for example 0.8 for power and 0.05 for alpha")
    spread = norm.ppf(1 - alpha / 2) / 2 + norm.ppf(power) * math.sqrt(win_rate * (1 - win_rate))
    return (spread / (win_rate - 0.5)) ** 2


def detectable_win_rate(n: float, *, power: float = 0.8, alpha: float = 0.05) -> float | None:
    """The smallest true win rate above one half that ``n`` independent decisive votes would show; None where even 100% would not."""
    top = 1 - 1e-12
    if n < _needed(top, power, alpha):
        return None
    return float(brentq(lambda p: _needed(p, power, alpha) - n, 0.5 + 1e-6, top)) if n < _needed(0.5 + 1e-6, power, alpha) else 0.5 + 1e-6


def always_valid(wins: float, n: float, *, alpha: float = 0.05) -> Estimate:
    """The share wins / n with an interval that holds at every look at once, so that voting may stop whenever it leaves out one half.

    The confidence sequence of Robbins' mixture martingale with a uniform prior. ``n`` may be 0 (value 0.5, all of [0, 1]).
    """
    if n <= 0:
        return Estimate(0.5, 0.0, 1.0)
    share = wins / n
    evidence = betaln(wins + 1, n - wins + 1) - math.log(1 / alpha)

    def outside(p: float) -> float:
        """Above 0 where ``p`` is rejected."""
        return evidence - wins * math.log(p) - (n - wins) * math.log1p(-p)

    edge = 1e-12
    low = 0.0 if outside(edge) <= 0 or share <= edge else brentq(outside, edge, share if share < 1 else 1 - edge)
    high = 1.0 if outside(1 - edge) <= 0 or share >= 1 - edge else brentq(outside, share if share > 0 else edge, 1 - edge)
    return Estimate(share, float(low), float(high))


@dataclass(frozen=True, slots=True)
class PowerRow:
    """To show ``win_rate``: decisive votes needed, with the expected ties on top, and how many decisive ones are still missing."""

    win_rate: float
    needed: int
    needed_with_ties: int
    missing: int


@dataclass(frozen=True, slots=True)
class PowerMeter:
    """What the votes between ``a`` and ``b`` can show. ``n_effective`` <= ``n_decisive`` allows for weights and several votes per prompt.

    ``detectable`` is None with too few votes. ``win_rate`` of a holds at every look (see ``always_valid``), over ``n_effective`` votes, and
    ``settled`` says that it leaves out one half. ``missing`` is in real votes, at the design effect seen so far.
    """

    a: str
    b: str
    n_decisive: int
    n_effective: float
    tie_rate: float
    detectable: float | None
    win_rate: Estimate
    settled: bool
    rows: tuple[PowerRow, ...]


def power_meter(votes: Sequence[Vote], a: str, b: str, *, power: float = 0.8, alpha: float = 0.05) -> PowerMeter:
    """The meter for two systems, well defined without a vote; ValueError where ``a`` and ``b`` are the same."""
    if a == b:
        raise ValueError(f"a power meter compares two systems, not {a!r} with itself")
    met = [v for v in counted(votes) if {v.left, v.right} == {a, b}]
    y = np.array([score(v, a) for v in met])
    weight = np.array([v.weight for v in met])
    decisive = y != 0.5
    n = int(decisive.sum())
    tie_rate = 1 - n / len(met) if met else 0.0
    prompt, _ = codes([v.prompt for v in met])
    size = effective_size(y[decisive], weight[decisive], prompt[decisive])
    share = float(np.average(y[decisive], weights=weight[decisive])) if n else 0.5
    valid = always_valid(share * size, size, alpha=alpha)
    per_vote = size / n if n else 1.0
    rows = []
    for rate in WIN_RATES:
        needed = votes_needed(rate, power=power, alpha=alpha)
        with_ties = math.ceil(needed / (1 - tie_rate)) if tie_rate < 1 else needed
        rows.append(PowerRow(rate, needed, with_ties, max(0, math.ceil((needed - size) / per_vote))))
    detectable = detectable_win_rate(size, power=power, alpha=alpha)
    return PowerMeter(a, b, n, size, tie_rate, detectable, valid, not valid.low <= 0.5 <= valid.high, tuple(rows))


@dataclass(frozen=True, slots=True)
class Flip:
    """How fragile first place is: the fewest votes that, left out or answered the other way, put ``challenger`` strictly above ``leader``.

    ``n_drop`` and ``n_switch`` are None where no number does. ``exact`` for two systems; for more both are upper bounds. ``share`` is
    n_drop / n_votes.
    """

    leader: str
    challenger: str
    n_drop: int | None
    n_switch: int | None
    n_votes: int
    share: float | None
    exact: bool


def votes_to_flip(votes: Sequence[Vote]) -> Flip | None:
    """The fewest votes to flip the winner of Bradley-Terry with half wins for ties.

    None where there is no winner to flip: no vote, a tied first place, or groups of systems that never met.

    Two systems: the leader's heaviest votes first, which is exact. More: votes are ranked by their influence on the gap between leader
    and challenger (the Newton step of a fit that has a normal prior of sd 2 on strengths), the shortest prefix that flips a refit is found
    by bisection, and the easiest challenger is reported (Broderick et al. 2020; Huang et al. 2025).
    """
    votes = counted(votes)
    if not votes:
        return None
    side, systems = codes([v.left for v in votes] + [v.right for v in votes])
    left, right = side[: len(votes)], side[len(votes) :]
    y = np.array([score(v, v.left) for v in votes])
    weight = np.array([v.weight for v in votes])
    if connected_components(coo_array((weight, (left, right)), shape=(len(systems),) * 2), directed=False)[0] > 1:
        return None
    if len(systems) == 2:
        return _flip_two(systems, np.where(left == 0, y, 1 - y), weight)
    k = len(systems)
    theta, _ = _strengths(left, right, y, weight, k)
    order = np.argsort(-theta, kind="stable")
    if theta[order[0]] - theta[order[1]] < 1e-9:
        return None
    found = []
    for challenger in order[1:]:
        counts = [_prefix(left, right, y, weight, k, int(order[0]), int(challenger), switch) for switch in (False, True)]
        found.append((counts[0], counts[1], systems[challenger]))
    n_drop, n_switch, challenger = min(found, key=lambda f: (f[0] is None, f[0] or 0, f[1] is None, f[1] or 0))
    share = None if n_drop is None else n_drop / len(votes)
    return Flip(systems[order[0]], challenger, n_drop, n_switch, len(votes), share, exact=False)


def _flip_two(systems: tuple[str, ...], y: np.ndarray, weight: np.ndarray) -> Flip | None:
    margin = float((weight * (2 * y - 1)).sum())
    if abs(margin) < 1e-9:
        return None
    leads = 0 if margin > 0 else 1
    heaviest = np.sort(weight[y == 1 - leads])[::-1]
    n_drop = _shortest(heaviest, abs(margin))
    n_switch = _shortest(2 * heaviest, abs(margin))
    return Flip(systems[leads], systems[1 - leads], n_drop, n_switch, len(y), None if n_drop is None else n_drop / len(y), exact=True)


def _shortest(gains: np.ndarray, margin: float) -> int | None:
    """How many of the descending ``gains`` add up to more than ``margin``; None where all do not."""
    above = np.flatnonzero(gains.cumsum() > margin + 1e-9)
    return int(above[0]) + 1 if len(above) else None


def _strengths(left: np.ndarray, right: np.ndarray, y: np.ndarray, weight: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Penalized Bradley-Terry strengths (k,), in logits, and the inverse of the information (k, k), by Newton's method on pair counts."""
    n = np.bincount(left * k + right, weight, k * k).reshape(k, k)
    wins = np.bincount(left * k + right, weight * y, k * k).reshape(k, k)
    n, wins = n + n.T, wins + (n - wins).T
    theta = np.zeros(k)
    for _ in range(100):
        p = expit(theta[:, None] - theta[None, :])
        information = -n * p * (1 - p)
        information += np.diag(0.25 - information.sum(axis=1))
        step = np.linalg.solve(information, (wins - n * p).sum(axis=1) - 0.25 * theta)
        theta = theta + step * min(1.0, 2.0 / max(np.abs(step).max(), 1e-12))
        if np.abs(step).max() < 1e-10:
            break
    return theta, np.linalg.inv(information)


def _prefix(
    left: np.ndarray, right: np.ndarray, y: np.ndarray, weight: np.ndarray, k: int, leader: int, challenger: int, switch: bool
) -> int | None:
    """The shortest prefix of the most influential votes whose removal (or reversal) puts the challenger above the leader in a refit."""
    theta, covariance = _strengths(left, right, y, weight, k)
    toward = covariance[leader] - covariance[challenger]
    slope = weight * (toward[left] - toward[right])
    gain = slope * (2 * y - 1) if switch else slope * (y - expit(theta[left] - theta[right]))
    order = np.argsort(-gain, kind="stable")
    order = order[gain[order] > 0]

    def flips(n: int) -> bool:
        changed_y, changed_weight = y.copy(), weight.copy()
        if switch:
            changed_y[order[:n]] = 1 - y[order[:n]]
        else:
            changed_weight[order[:n]] = 0
        refit, _ = _strengths(left, right, changed_y, changed_weight, k)
        return bool(refit[challenger] > refit[leader] + 1e-9)

    if not len(order) or not flips(len(order)):
        return None
    low, high = 0, len(order)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if flips(middle) else (middle, high)
    return high
