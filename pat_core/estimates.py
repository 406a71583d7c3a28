"""Means with their uncertainty: 95% bootstrap intervals over people, and paired differences between two systems for the same people.

People are the unit: they are drawn again with replacement, everything that belongs to one goes along. Leaves out models of the noise.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

N_BOOTSTRAP = 2000
BLOCK = 2_000_000  # values drawn at once: 16 MB
Z_LEVEL, Z_POWER = 1.959964, 0.841621  # a two-sided test at 5%, and 80% power


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean over ``n`` held-out people with its 95% bootstrap interval."""

    mean: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        return f"{self.mean:.3f} [{self.low:.3f}, {self.high:.3f}]"


@dataclass(frozen=True, slots=True)
class Difference:
    """The mean difference a - b of ``n`` people with its 95% bootstrap interval.

    ``relative`` is mean(a) / mean(b) - 1, None where mean(b) is 0. ``needed`` people show this difference with 80% power at 5%; None where
    there is no difference.
    """

    mean: float
    low: float
    high: float
    n: int
    relative: float | None
    needed: int | None

    def __str__(self) -> str:
        return f"{self.mean:+.3f} [{self.low:+.3f}, {self.high:+.3f}]"


def estimate(values: Sequence[float], seed: int = 0) -> Estimate:
    """Mean and percentile bootstrap interval over the values; ValueError for none."""
    if not len(values):
        raise ValueError("no values to average")
    array = np.asarray(values, dtype=np.float64)
    low, high = np.percentile(_bootstrap_means(array, seed), [2.5, 97.5])
    return Estimate(float(array.mean()), float(low), float(high), len(array))


def root_estimate(squares: Sequence[float], seed: int = 0) -> Estimate:
    """The root of the mean of ``squares`` and its interval: the percentile bootstrap keeps its coverage under a root."""
    of = estimate(squares, seed)
    return Estimate(math.sqrt(of.mean), math.sqrt(of.low), math.sqrt(of.high), of.n)


def paired(a: Sequence[float], b: Sequence[float], seed: int = 0) -> Difference:
    """``a`` minus ``b``, value by value for the same people. ValueError where the two are not of one length, and for none."""
    if len(a) != len(b):
        raise ValueError(f"{len(a)} and {len(b)} values cannot be paired; give one of each for every person")
    differences = np.asarray(a, dtype=np.float64) - np.asarray(b, dtype=np.float64)
    of = estimate(differences, seed)
    base = float(np.mean(b))
    relative = of.mean / base if base else None
    return Difference(of.mean, of.low, of.high, of.n, relative, needed(of.mean, float(differences.std(ddof=1)) if of.n > 1 else 0.0))


def needed(mean: float, sd: float) -> int | None:
    """People needed for a paired test at 5% to show a mean difference with 80% power: ((1.96 + 0.84) sd / mean)^2, rounded up.

    None where ``mean`` is 0, and at least 2.
    """
    return max(2, math.ceil(((Z_LEVEL + Z_POWER) * sd / mean) ** 2)) if mean else None


def _bootstrap_means(array: np.ndarray, seed: int) -> np.ndarray:
    """(N_BOOTSTRAP,) means of samples drawn with replacement, drawn in blocks so that many values take little memory."""
    rng = np.random.default_rng(seed)
    rows = max(1, BLOCK // len(array))
    sizes = [min(rows, N_BOOTSTRAP - start) for start in range(0, N_BOOTSTRAP, rows)]
    return np.concatenate([array[rng.integers(len(array), size=(size, len(array)))].mean(axis=1) for size in sizes])
