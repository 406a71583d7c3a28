"""The input of every statistic: one `Vote` per judgment, and the small tools all the others share (shares with intervals, weight caps).

A share is given with a Wilson interval whose sample size is shrunk by the design effect of its clusters, since votes on one prompt resemble
each other. Leaves out: where votes come from (a store turns its rows into `Vote`) and which votes to exclude (the caller's decision).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, get_args

import numpy as np
from scipy.stats import norm
from scipy.stats import t as student_t

Outcome = Literal["left", "right", "tie", "both_bad", "cannot_judge"]
OUTCOMES: tuple[str, ...] = get_args(Outcome)
DECISIVE = ("left", "right")
DIMENSION_VALUES = ("left", "right", "same")


@dataclass(frozen=True, slots=True)
class Vote:
    """One judgment of two texts, as it was displayed. A sequence of votes is in the order they were cast.

    ``left`` and ``right`` name what is compared and differ: systems for ratings, candidate ids where both texts come from one system.
    ``prompt`` is the unit that is resampled. ``strength`` is 1 slightly, 2 clearly, None not asked. ``dims`` holds "left", "right" or
    "same" per dimension. ``seconds`` is visible time; None, NaN and values <= 0 mean unknown. ``words_*`` None or 0 mean unknown. ``pair``
    identifies the two texts whichever side they are on; ``is_swap_of`` is the ``pair`` of which this vote is the swapped repeat, else ''.
    ``weight`` >= 0 multiplies the vote in every weighted statistic (0 leaves it out there). Raises ValueError for any other value.
    """

    annotator: str
    prompt: str
    left: str
    right: str
    outcome: Outcome
    strength: int | None = None
    dims: Mapping[str, str] = field(default_factory=dict)
    seconds: float | None = None
    words_left: int | None = None
    words_right: int | None = None
    pair: str = ""
    is_swap_of: str = ""
    weight: float = 1.0

    def __post_init__(self) -> None:
        if self.outcome not in OUTCOMES:
            raise ValueError(f"outcome {self.outcome!r} is not known; use one of {', '.join(OUTCOMES)}")
        if self.left == self.right:
            raise ValueError(f"left and right are both {self.left!r}; name the two systems, or the candidates where one system wrote both")
        if self.strength not in (None, 1, 2):
            raise ValueError(f"strength {self.strength!r} is not known; use 1 (slightly), 2 (clearly) or None (not asked)")
        if not (math.isfinite(self.weight) and self.weight >= 0):
            raise ValueError(f"weight {self.weight!r} must be a finite number of at least 0")
        for name, words in (("words_left", self.words_left), ("words_right", self.words_right)):
            if words is not None and not words >= 0:
                raise ValueError(f"{name} {words!r} must be a count of at least 0, or None where it is unknown")
        for name, value in self.dims.items():
            if value not in DIMENSION_VALUES:
                raise ValueError(f"dimension {name!r} has value {value!r}; use one of {', '.join(DIMENSION_VALUES)}")

    @property
    def unit(self) -> str:
        """The two texts judged: the original pair for a swapped repeat."""
        return self.is_swap_of or self.pair


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value with its 95% interval, ``low <= value <= high``."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class OutcomeCounts:
    """Votes by outcome. ``tie_rate`` is (tie + both_bad) over all but cannot_judge, None without any."""

    n: int
    left: int
    right: int
    tie: int
    both_bad: int
    cannot_judge: int
    tie_rate: float | None


def outcome_counts(votes: Iterable[Vote]) -> OutcomeCounts:
    """How many votes of each outcome, unweighted; the two kinds of tie are kept apart."""
    outcomes = [v.outcome for v in votes]
    n = {o: outcomes.count(o) for o in OUTCOMES}
    judged = len(outcomes) - n["cannot_judge"]
    return OutcomeCounts(len(outcomes), *(n[o] for o in OUTCOMES), tie_rate=(n["tie"] + n["both_bad"]) / judged if judged else None)


def weight_cap(n: int, cap: float) -> float:
    """Weight of each of an annotator's ``n`` votes, min(1, cap / n): nobody counts for more than ``cap`` votes. ValueError for cap <= 0."""
    if not cap > 0:
        raise ValueError(f"cap {cap!r} must be above 0: it is the most votes one annotator may count for")
    return min(1.0, cap / n) if n > 0 else 1.0


def cap_weights(votes: Sequence[Vote], cap: float) -> tuple[Vote, ...]:
    """The votes with each weight multiplied by ``weight_cap`` of its annotator's total; a vote of cannot_judge takes none of the total."""
    total: dict[str, int] = {}
    for v in votes:
        total[v.annotator] = total.get(v.annotator, 0) + (v.outcome != "cannot_judge")
    return tuple(replace(v, weight=v.weight * weight_cap(total[v.annotator], cap)) for v in votes)


def codes(labels: Sequence[str]) -> tuple[np.ndarray, tuple[str, ...]]:
    """Labels as integers 0..k-1 (int64, shape (n,)) and the k sorted names they stand for."""
    names = tuple(sorted(set(labels)))
    place = {name: i for i, name in enumerate(names)}
    return np.fromiter((place[label] for label in labels), dtype=np.int64, count=len(labels)), names


def t_quantile(n_clusters: int) -> float:
    """The 97.5% point of Student's t with n_clusters - 1 degrees of freedom (at least 1)."""
    return float(student_t.ppf(0.975, max(n_clusters - 1, 1)))


def effective_size(y: np.ndarray, weight: np.ndarray, cluster: np.ndarray, most: float | None = None) -> float:
    """How many independent unweighted votes carry as much about the mean of ``y`` (in [0, 1]) as these clustered, weighted ones.

    Kish's n over the design effect (cluster-robust variance over that of as many independent votes, both unbiased, so that independent
    votes count in full), at most ``most`` (Kish's n unless given), with the Korn-Graubard factor for few clusters. Where the mean is 0 or 1
    clustering cannot be seen, and each cluster counts once. 0 without votes.
    """
    total = weight.sum()
    if total <= 0:
        return 0.0
    kish = float(total**2 / (weight**2).sum())
    n_clusters = len(np.unique(cluster[weight > 0]))
    mean = float((weight * y).sum() / total)
    if n_clusters == 1 or not 0 < mean < 1:
        return min(kish, float(n_clusters))
    robust = (np.bincount(cluster, weight * (y - mean)) ** 2).sum() / total**2 * n_clusters / (n_clusters - 1)
    surplus = robust * (kish - 1)
    size = min(most or kish, kish * mean * (1 - mean) / surplus) if surplus > 0 else kish
    few = t_quantile(max(n_clusters, round(kish))) / t_quantile(n_clusters)
    return float(size * few**2)


def wilson(share: float, n: float, level: float = 0.95) -> Estimate:
    """Wilson's score interval of a share out of ``n`` > 0 votes; ``n`` need not be whole."""
    z = float(norm.ppf(0.5 + level / 2))
    center = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return Estimate(share, max(0.0, min(center - half, share)), min(1.0, max(center + half, share)))


def share_estimate(y: np.ndarray, weight: np.ndarray, cluster: np.ndarray, most: float | None = None) -> Estimate | None:
    """Weighted mean of ``y`` (float, (n,), in [0, 1]) with a Wilson interval of ``effective_size``; ``cluster`` int (n,). None if empty."""
    size = effective_size(y, weight, cluster, most)
    return wilson(float((weight * y).sum() / weight.sum()), size) if size > 0 else None
