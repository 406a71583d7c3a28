"""Preference for one thing over one other: win rates of two systems, and P(A beats B) for a single judged pair of texts.

The second is what training reads: a hierarchical estimate that corrects the few votes on a pair for the side they were shown on and for the
skill of who voted. Leaves out the weighting and thresholds of training, which belong to the export.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import expit

from annotate.stats.model import PRIORS, Priors, counted, davidson
from annotate.stats.votes import DECISIVE, Estimate, Vote, codes, share_estimate


@dataclass(frozen=True, slots=True)
class WinRate:
    """``a`` against ``b`` (a < b): counts of votes, and shares with 95% intervals that allow for several votes per prompt.

    ``decisive`` is a's share of decisive votes, ``half_ties`` counts each tie or both_bad as half a win, ``side_balanced`` is the mean of
    a's decisive share when shown left and when shown right; each None where no vote allows it.
    """

    a: str
    b: str
    n_a: int
    n_b: int
    n_tie: int
    n_both_bad: int
    decisive: Estimate | None
    half_ties: Estimate | None
    side_balanced: float | None


def win_rates(votes: Sequence[Vote]) -> tuple[WinRate, ...]:
    """One row for each two systems that met, sorted by name; empty without votes."""
    met: dict[tuple[str, str], list[Vote]] = defaultdict(list)
    for v in counted(votes):
        met[min(v.left, v.right), max(v.left, v.right)].append(v)
    return tuple(_win_rate(a, b, met[a, b]) for a, b in sorted(met))


def score(vote: Vote, a: str) -> float:
    """1 where ``a`` won, 0 where it lost, 0.5 for either kind of tie."""
    if vote.outcome not in DECISIVE:
        return 0.5
    return float((vote.outcome == "left") == (vote.left == a))


def _win_rate(a: str, b: str, votes: list[Vote]) -> WinRate:
    y = np.array([score(v, a) for v in votes])
    weight = np.array([v.weight for v in votes])
    prompt, _ = codes([v.prompt for v in votes])
    decisive = y != 0.5
    on_left = np.array([v.left == a for v in votes])
    sides = [decisive & on_left, decisive & ~on_left]
    return WinRate(
        a,
        b,
        n_a=int((y == 1).sum()),
        n_b=int((y == 0).sum()),
        n_tie=sum(v.outcome == "tie" for v in votes),
        n_both_bad=sum(v.outcome == "both_bad" for v in votes),
        decisive=share_estimate(y[decisive], weight[decisive], prompt[decisive]),
        half_ties=share_estimate(y, weight, prompt, most=len(y) ** 2 / max(decisive.sum(), 1)),  # a half win varies less than a win
        side_balanced=float(np.mean([np.average(y[s], weights=weight[s]) for s in sides])) if all(s.any() for s in sides) else None,
    )


@dataclass(frozen=True, slots=True)
class PairPreference:
    """What people think of one pair: P(``a`` beats ``b``), a < b, as a posterior mean with its 95% interval.

    ``n_judges`` people; ``n_effective`` is the sum of their weights, each at most one vote; ``strength`` is the weighted mean of -2 (b
    clearly) .. 2 (a clearly), ties 0; ``n_slight`` and ``n_clear`` count decisive votes, one without a strength being slight.
    """

    pair: str
    a: str
    b: str
    p: Estimate
    n_judges: int
    n_effective: float
    n_a: int
    n_b: int
    n_tie: int
    n_both_bad: int
    n_slight: int
    n_clear: int
    strength: float


def pair_preferences(
    votes: Sequence[Vote], *, sd: float = math.pi / math.sqrt(3), clear: float = 2.0, priors: Priors = PRIORS
) -> tuple[PairPreference, ...]:
    """One row per judged pair (swapped repeats count with their original), sorted by ``pair``; empty without votes.

    The difference of a pair has a normal prior with mean 0 and standard deviation ``sd`` in logits; at the default P(a beats b) is about
    uniform beforehand, the Beta(1, 1) prior. Side, skill and ties are as ``davidson`` fits them to all votes. A vote of strength 2 counts
    as ``clear`` votes of strength 1. One person's several votes on a pair share that person's weight. ValueError for a vote without a
    pair, or where one pair names two different couples.
    """
    votes = counted(votes)
    if not votes:
        return ()
    if not all(v.unit for v in votes):
        raise ValueError("a vote has no pair id; pair_preferences needs Vote.pair to say which two texts were judged")
    if not (sd > 0 and clear > 0):
        raise ValueError(f"sd {sd!r} and clear {clear!r} must both be above 0")
    unit, names = codes([v.unit for v in votes])
    couples = dict(zip(unit.tolist(), [(min(v.left, v.right), max(v.left, v.right)) for v in votes], strict=True))
    for u, v in zip(unit.tolist(), votes, strict=True):
        if couples[u] != (min(v.left, v.right), max(v.left, v.right)):
            raise ValueError(f"pair {names[u]!r} holds both {couples[u]} and {(v.left, v.right)}; one pair id must name the same two texts")
    repeats = Counter((v.annotator, v.unit) for v in votes)
    weight = np.array([v.weight / repeats[v.annotator, v.unit] for v in votes])
    evidence = weight * [clear if v.strength == 2 and v.outcome in DECISIVE else 1.0 for v in votes]
    posterior = _posterior(votes, unit, evidence, sd, priors)
    rows: dict[int, list[int]] = defaultdict(list)
    for i, u in enumerate(unit.tolist()):
        rows[u].append(i)
    return tuple(_pair_row(names[u], couples[u], [votes[i] for i in rows[u]], weight[rows[u]], posterior[u]) for u in range(len(names)))


def _posterior(votes: list[Vote], unit: np.ndarray, weight: np.ndarray, sd: float, priors: Priors) -> list[Estimate]:
    """P(a beats b) of every unit by numerical integration over its difference in logits."""
    fit = davidson(votes, priors=priors)
    grid = np.linspace(-6 * sd, 6 * sd, 241)
    sign = np.array([1.0 if v.left < v.right else -1.0 for v in votes])
    pull = np.array([fit.left + fit.lefts[v.annotator] for v in votes])
    eta = (sign * [fit.skills[v.annotator] for v in votes])[:, None] * grid + pull[:, None]
    toward = np.array([{"left": 0.5, "right": -0.5}.get(v.outcome, 0.0) for v in votes])[:, None]
    tie = math.log(fit.tie)
    log_p = np.where(toward == 0, tie, toward * eta) - np.logaddexp(np.logaddexp(eta / 2, -eta / 2), tie)
    order = np.argsort(unit, kind="stable")
    starts = np.searchsorted(unit[order], np.arange(unit.max() + 1))
    log_post = np.add.reduceat((weight[:, None] * log_p)[order], starts) - (grid / sd) ** 2 / 2
    density = np.exp(log_post - log_post.max(axis=1, keepdims=True))
    density /= density.sum(axis=1, keepdims=True)
    mean = density @ expit(grid)
    cumulative = density.cumsum(axis=1) - density / 2
    return [
        Estimate(float(m), *(float(expit(np.interp(q, c, grid))) for q in (0.025, 0.975))) for m, c in zip(mean, cumulative, strict=True)
    ]


def _pair_row(pair: str, couple: tuple[str, str], votes: list[Vote], weight: np.ndarray, p: Estimate) -> PairPreference:
    a, b = couple
    scores = [score(v, a) for v in votes]
    decisive = [v for v in votes if v.outcome in DECISIVE]
    signed = [(2 * s - 1) * (v.strength or 1) for s, v in zip(scores, votes, strict=True)]
    return PairPreference(
        pair=pair,
        a=a,
        b=b,
        p=p,
        n_judges=len({v.annotator for v in votes}),
        n_effective=float(weight.sum()),
        n_a=scores.count(1.0),
        n_b=scores.count(0.0),
        n_tie=sum(v.outcome == "tie" for v in votes),
        n_both_bad=sum(v.outcome == "both_bad" for v in votes),
        n_slight=sum(v.strength != 2 for v in decisive),
        n_clear=sum(v.strength == 2 for v in decisive),
        strength=float(np.average(signed, weights=weight)),
    )
