"""Who voted how: one row per person with the signs of careless clicking, to review and weigh, never to exclude by itself.

Every check is tri-state (ok, fail, unknown), so that a check that broke is not read as a failed one. Leaves out skill: see the ratings.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import binom

from annotate.stats.votes import DECISIVE, Vote

RUN_LENGTH, RUN_CHANCE = 8, 0.01
CHECK_RESULTS = ("ok", "fail", "unknown")


@dataclass(frozen=True, slots=True)
class AnnotatorRow:
    """One person. ``left_share`` of decisive votes is flagged outside ``left_band``, where 99% of fair coins lie; None without such votes.

    ``longest_run`` of one side (ties neither count nor break it) is flagged at 8 or more where fair coins would show it less than once in
    100 people (``run_chance``). ``seconds_per_word`` is a median; ``n_fast`` votes took at most a third of it and lie three robust standard
    deviations under it, in logs; ``drift`` is the log of the last quarter's median over the first quarter's (-0.7 is twice as fast), None
    under 8 timed votes. The ``gold_*`` count check results.
    """

    annotator: str
    n: int
    n_decisive: int
    n_cannot_judge: int
    left_share: float | None
    left_band: tuple[float, float] | None
    left_flag: bool
    longest_run: int
    run_chance: float
    run_flag: bool
    n_timed: int
    seconds_per_word: float | None
    n_fast: int
    drift: float | None
    gold_ok: int
    gold_fail: int
    gold_unknown: int


def annotator_table(votes: Sequence[Vote], gold: Mapping[str, Sequence[str]] | None = None) -> tuple[AnnotatorRow, ...]:
    """One row per person in ``votes`` (in the order they were cast) or ``gold`` (results of constructed checks), sorted by name.

    Weights do not matter here. Raises ValueError for a check result other than ok, fail or unknown.
    """
    gold = gold or {}
    cast: dict[str, list[Vote]] = {name: [] for name in sorted({v.annotator for v in votes} | set(gold))}
    for v in votes:
        cast[v.annotator].append(v)
    return tuple(_row(name, own, gold.get(name, ())) for name, own in cast.items())


def _row(name: str, votes: list[Vote], results: Sequence[str]) -> AnnotatorRow:
    for result in results:
        if result not in CHECK_RESULTS:
            raise ValueError(f"check result {result!r} of {name!r} is not known; use one of {', '.join(CHECK_RESULTS)}")
    sides = [v.outcome for v in votes if v.outcome in DECISIVE]
    n, n_left = len(sides), sides.count("left")
    band = tuple(float(b) / n for b in binom.interval(0.99, n, 0.5)) if n else None
    run = longest_run(sides)
    chance = run_chance(n, run)
    pace = [p for p in map(_log_pace, votes) if p is not None]
    return AnnotatorRow(
        annotator=name,
        n=len(votes),
        n_decisive=n,
        n_cannot_judge=sum(v.outcome == "cannot_judge" for v in votes),
        left_share=n_left / n if n else None,
        left_band=band,
        left_flag=band is not None and not band[0] <= n_left / n <= band[1],
        longest_run=run,
        run_chance=chance,
        run_flag=run >= RUN_LENGTH and chance < RUN_CHANCE,
        n_timed=len(pace),
        seconds_per_word=math.exp(np.median(pace)) if pace else None,
        n_fast=_count_fast(np.array(pace)),
        drift=_drift(np.array(pace)),
        gold_ok=list(results).count("ok"),
        gold_fail=list(results).count("fail"),
        gold_unknown=list(results).count("unknown"),
    )


def longest_run(sides: Sequence[str]) -> int:
    """The length of the longest stretch of equal neighbors, 0 of nothing."""
    longest = current = 0
    for i, side in enumerate(sides):
        current = current + 1 if i and side == sides[i - 1] else 1
        longest = max(longest, current)
    return longest


def run_chance(n: int, length: int) -> float:
    """The probability that ``n`` fair coins show a run of at least ``length`` equal sides somewhere; exact, 1 for lengths up to 1."""
    if length <= 1:
        return 1.0
    if n < length:
        return 0.0
    needed = length - 1  # repeats of the coin before, each with probability one half
    without = [1.0] * needed + [1 - 0.5**needed]
    for m in range(needed + 1, n):
        without.append(without[m - 1] - 0.5 ** (needed + 1) * without[m - needed - 1])
    return min(1.0, max(0.0, 1 - without[n - 1]))


def _log_pace(vote: Vote) -> float | None:
    """Log seconds per word, None where the time or the length is unknown."""
    words = (vote.words_left or 0) + (vote.words_right or 0)
    if vote.seconds is None or not (math.isfinite(vote.seconds) and vote.seconds > 0) or words <= 0:
        return None
    return math.log(vote.seconds / words)


def _count_fast(pace: np.ndarray) -> int:
    if not len(pace):
        return 0
    middle = np.median(pace)
    robust_sd = 1.4826 * np.median(np.abs(pace - middle))
    return int((pace <= middle - max(3 * robust_sd, math.log(3))).sum())


def _drift(pace: np.ndarray) -> float | None:
    quarter = len(pace) // 4
    return float(np.median(pace[-quarter:]) - np.median(pace[:quarter])) if quarter >= 2 else None
