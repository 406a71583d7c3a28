"""Ratings of systems from votes: Davidson's model with cluster-bootstrap intervals, and evalica's Bradley-Terry and Newman beside it.

All ratings are on the Elo scale: 400 / ln 10 per logit with the mean at 1000, so a 60% win rate is 70 points. Tiers follow the half width
of the interval. Also the left side's pull and the adjustment for length, which are parameters of the same model. Leaves out the control of
any other format feature, since style is what is judged.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import evalica
import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.special import expit
from scipy.stats import binomtest
from scipy.stats import t as student_t

from annotate.stats.model import PRIORS, Design, Priors, Resample, Spread, counted, design, solve, spread, unpack
from annotate.stats.votes import DECISIVE, Estimate, Vote, codes, share_estimate, t_quantile

ELO_PER_LOGIT = 400 / math.log(10)
MEAN_RATING = 1000.0
ESTABLISHED, USABLE = 30.0, 60.0  # half widths in Elo points
Tier = Literal["preliminary", "usable", "established"]


@dataclass(frozen=True, slots=True)
class Rating:
    """One system. ``rating`` and its interval in Elo points; ``rank_best..rank_worst`` counts the systems that are surely above or below.

    ``group`` numbers the connected groups of systems: ratings of different groups cannot be compared. ``n`` counts its votes.
    """

    system: str
    rating: float
    low: float
    high: float
    tier: Tier
    rank_best: int
    rank_worst: int
    group: int
    n: int


@dataclass(frozen=True, slots=True)
class Preference:
    """P(``a`` beats ``b``) in a decisive vote by an average annotator with no pull to a side."""

    a: str
    b: str
    p: Estimate


@dataclass(frozen=True, slots=True)
class AnnotatorEffect:
    """``skill`` 1 is average, near 0 answers at random; ``left_share`` is how often this person would choose left between equals."""

    annotator: str
    skill: float
    left_share: float


@dataclass(frozen=True, slots=True)
class Ratings:
    """The leaderboard, best first in each group. ``preferences`` has a < b of one group; ``left_share`` and ``tie_rate`` are for equals."""

    ratings: tuple[Rating, ...]
    preferences: tuple[Preference, ...]
    left_share: Estimate
    tie_rate: float
    annotators: tuple[AnnotatorEffect, ...]
    n_votes: int
    n_prompts: int
    n_annotators: int
    n_groups: int
    resample: Resample


def ratings(
    votes: Sequence[Vote],
    *,
    resample: Resample = "prompts",
    n_resamples: int = 200,
    seed: int = 0,
    annotators: bool = True,
    priors: Priors = PRIORS,
) -> Ratings:
    """Rate the systems with Davidson's model; intervals are 95%, by bootstrap over ``resample`` and never narrower than the model's own.

    ``resample`` "both" also lets the annotators vary; with few of them that is rough. Raises ValueError where no vote is left.
    """
    return _rate(counted(votes), None, resample, n_resamples, seed, annotators, priors)[0]


def _rate(
    votes: list[Vote], x: np.ndarray | None, resample: Resample, n_resamples: int, seed: int, annotators: bool, priors: Priors
) -> tuple[Ratings, np.ndarray, Spread]:
    d = design(votes, x, annotators, priors)
    params = solve(d, d.weight)
    wide = spread(d, params, resample, n_resamples, seed)
    fit = unpack(params, d)
    n_groups, group = _groups(d)
    k = len(d.systems)
    left_half = wide.half_width(np.eye(d.n_core)[k + 1])
    result = Ratings(
        ratings=_leaderboard(d, params, wide, group),
        preferences=tuple(
            Preference(d.systems[a], d.systems[b], _share(*_difference(params, wide, a, b)))
            for a in range(k)
            for b in range(a + 1, k)
            if group[a] == group[b]
        ),
        left_share=_share(fit.left, left_half),
        tie_rate=fit.tie / (fit.tie + 2),
        annotators=tuple(AnnotatorEffect(r, fit.skills[r], float(expit(fit.left + fit.lefts[r]))) for r in d.annotators),
        n_votes=len(votes),
        n_prompts=int(d.prompt.max()) + 1,
        n_annotators=len(d.annotators),
        n_groups=n_groups,
        resample=resample,
    )
    return result, params, wide


def _groups(d: Design) -> tuple[int, np.ndarray]:
    k = len(d.systems)
    return connected_components(coo_array((np.ones(len(d.left)), (d.left, d.right)), shape=(k, k)), directed=False)


def _difference(params: np.ndarray, wide: Spread, a: int, b: int) -> tuple[float, float]:
    """theta_a - theta_b and half its interval, in logits."""
    contrast = np.zeros(len(wide.model))
    contrast[a], contrast[b] = 1, -1
    return float(params[a] - params[b]), wide.half_width(contrast)


def _share(logit: float, half: float) -> Estimate:
    return Estimate(*(float(expit(v)) for v in (logit, logit - half, logit + half)))


def _leaderboard(d: Design, params: np.ndarray, wide: Spread, group: np.ndarray) -> tuple[Rating, ...]:
    n = np.bincount(d.left[d.cell], minlength=len(d.systems)) + np.bincount(d.right[d.cell], minlength=len(d.systems))
    rows = []
    for a, system in enumerate(d.systems):
        peers = np.flatnonzero(group == group[a])
        contrast = np.zeros(len(wide.model))
        contrast[peers] = -1 / len(peers)
        contrast[a] += 1
        value = MEAN_RATING + ELO_PER_LOGIT * float(contrast @ params[: len(contrast)])
        half = ELO_PER_LOGIT * wide.half_width(contrast)
        gaps = [_difference(params, wide, a, b) for b in peers if b != a]
        above, below = sum(gap < -h for gap, h in gaps), sum(gap > h for gap, h in gaps)
        rows.append(Rating(system, value, value - half, value + half, tier(half), 1 + above, len(peers) - below, int(group[a]), int(n[a])))
    return tuple(sorted(rows, key=lambda r: (r.group, -r.rating)))


def tier(half_width: float) -> Tier:
    """How far a rating can be trusted, from half its 95% interval in Elo points."""
    return "established" if half_width <= ESTABLISHED else "usable" if half_width <= USABLE else "preliminary"


@dataclass(frozen=True, slots=True)
class PositionBias:
    """Does the left text win because it is on the left? Fields are None without a decisive vote.

    ``share`` is the share of left among decisive votes, its interval by prompt, ``p_binomial`` its exact two-sided test against one half
    (which takes votes as independent). ``at_parity`` is P(left) between equal systems from Davidson's model, ``p_model`` its test.
    """

    n_decisive: int
    n_left: int
    share: Estimate | None
    p_binomial: float | None
    at_parity: Estimate | None
    p_model: float | None


def position_bias(votes: Sequence[Vote], *, n_resamples: int = 200, seed: int = 0) -> PositionBias:
    """Test the pull of the left side, plainly and with the strengths of the systems taken out; the sides themselves may be unbalanced.

    The model's part has the prior of ``Priors`` on both, so that a system that only ever stood left is not taken for a side effect.
    """
    decisive = [v for v in counted(votes) if v.outcome in DECISIVE]
    if not decisive:
        return PositionBias(0, 0, None, None, None, None)
    left = np.array([v.outcome == "left" for v in decisive], dtype=float)
    share = share_estimate(left, np.array([v.weight for v in decisive]), codes([v.prompt for v in decisive])[0])
    d = design(decisive, None, False, PRIORS)
    params = solve(d, d.weight)
    wide = spread(d, params, "prompts", n_resamples, seed)
    half = wide.half_width(np.eye(d.n_core)[len(d.systems) + 1])
    logit = float(params[len(d.systems) + 1])
    return PositionBias(
        n_decisive=len(decisive),
        n_left=int(left.sum()),
        share=share,
        p_binomial=float(binomtest(int(left.sum()), len(decisive)).pvalue),
        at_parity=_share(logit, half),
        p_model=float(2 * student_t.sf(abs(logit) * t_quantile(wide.n_clusters) / half, max(wide.n_clusters - 1, 1))),
    )


@dataclass(frozen=True, slots=True)
class LengthAdjusted:
    """Ratings of the votes whose word counts are known, as they are and as they would be between texts of equal length.

    ``longer_share`` is how often the longer text won a decisive vote; ``effect`` is in logits per standard deviation of
    (words_left - words_right) / (words_left + words_right). ``n_unknown`` votes had no word counts and are in neither rating.
    """

    n_unknown: int
    longer_share: Estimate | None
    effect: Estimate
    raw: Ratings
    adjusted: Ratings


def length_adjusted(
    votes: Sequence[Vote], *, resample: Resample = "prompts", n_resamples: int = 200, seed: int = 0, priors: Priors = PRIORS
) -> LengthAdjusted:
    """Ratings with and without the length of the texts as a covariate; ValueError where no vote has both word counts."""
    all_counted = counted(votes)
    known = [v for v in all_counted if v.words_left and v.words_right]
    if not known:
        raise ValueError("no vote that counts has both words_left and words_right; lengths cannot be adjusted for without them")
    x = np.array([(v.words_left - v.words_right) / (v.words_left + v.words_right) for v in known])
    root_mean_square = math.sqrt((x**2).mean())
    scaled = (x / root_mean_square if root_mean_square > 0 else x)[:, None]
    raw, _, _ = _rate(known, None, resample, n_resamples, seed, True, priors)
    adjusted, params, wide = _rate(known, scaled, resample, n_resamples, seed, True, priors)
    at = len(adjusted.ratings) + 2
    beta, half = float(params[at]), wide.half_width(np.eye(len(wide.model))[at])
    chose = [i for i, v in enumerate(known) if v.outcome in DECISIVE and x[i] != 0]
    longer = np.array([(known[i].outcome == "left") == (x[i] > 0) for i in chose], dtype=float)
    chose_weight = np.array([known[i].weight for i in chose])
    return LengthAdjusted(
        n_unknown=len(all_counted) - len(known),
        longer_share=share_estimate(longer, chose_weight, codes([known[i].prompt for i in chose])[0]),
        effect=Estimate(beta, beta - half, beta + half),
        raw=raw,
        adjusted=adjusted,
    )


@dataclass(frozen=True, slots=True)
class PlainRatings:
    """evalica's ratings as (system, Elo points), best first; ``low`` and ``high`` by system are its percentile bootstrap over votes.

    They are empty without resamples, or where one of them leaves a system without a win. ``tie`` is Newman's tie parameter v (half of
    Davidson's exp(kappa)), None for Bradley-Terry, which counts a tie as half a win for each.
    """

    method: Literal["bradley_terry", "newman"]
    ratings: tuple[tuple[str, float], ...]
    low: dict[str, float]
    high: dict[str, float]
    tie: float | None


def bradley_terry(votes: Sequence[Vote], *, n_resamples: int = 0, seed: int = 0) -> PlainRatings:
    """Bradley-Terry by evalica, no prior, no annotator or side effects; ValueError where its maximum is not finite."""
    return _evalica("bradley_terry", votes, 0.5, n_resamples, seed)


def newman(votes: Sequence[Vote], *, n_resamples: int = 0, seed: int = 0) -> PlainRatings:
    """Newman's model with ties by evalica (Davidson's likelihood without a prior); ValueError where its maximum is not finite."""
    if not any(v.outcome in DECISIVE for v in counted(votes)):
        raise ValueError("Newman's model needs at least one decisive vote; there are only ties: use ratings(), which has a prior")
    return _evalica("newman", votes, 1.0, n_resamples, seed)


def _evalica(
    method: Literal["bradley_terry", "newman"], votes: Sequence[Vote], tie_weight: float, n_resamples: int, seed: int
) -> PlainRatings:
    votes = counted(votes)
    _check_finite(votes)
    winners = [{"left": evalica.Winner.X, "right": evalica.Winner.Y}.get(v.outcome, evalica.Winner.Draw) for v in votes]
    data = {"xs": [v.left for v in votes], "ys": [v.right for v in votes], "winners": winners, "weights": [v.weight for v in votes]}
    options = {"tie_weight": tie_weight, "tolerance": 1e-9, "limit": 10_000}
    low, high = {}, {}
    fit = getattr(evalica, method)(**data, **options)
    log_mean = np.log(fit.scores).mean()
    if n_resamples:
        boot = evalica.bootstrap(
            getattr(evalica, method), **data, **options, n_resamples=n_resamples, bootstrap_method="percentile", random_state=seed
        )
        if (boot.distribution > 0).all(axis=None):
            elo = MEAN_RATING + ELO_PER_LOGIT * np.log(boot.distribution).sub(np.log(boot.distribution).mean(axis=1), axis=0)
            low, high = elo.quantile(0.025).to_dict(), elo.quantile(0.975).to_dict()
    scores = tuple((str(s), float(MEAN_RATING + ELO_PER_LOGIT * (math.log(v) - log_mean))) for s, v in fit.scores.items())
    return PlainRatings(method, scores, low, high, tie=getattr(fit, "v", None))


def _check_finite(votes: Sequence[Vote]) -> None:
    """ValueError unless a chain of wins (a tie counts both ways) leads from every system to every other."""
    if not votes:
        raise ValueError("no vote counts: ratings need at least one vote other than cannot_judge with a weight above 0")
    side, systems = codes([v.left for v in votes] + [v.right for v in votes])
    left, right = side[: len(votes)], side[len(votes) :]
    above = np.array([v.outcome != "right" for v in votes])
    below = np.array([v.outcome != "left" for v in votes])
    edges = (np.concatenate([left[above], right[below]]), np.concatenate([right[above], left[below]]))
    n, part = connected_components(coo_array((np.ones(len(edges[0])), edges), shape=(len(systems),) * 2), connection="strong")
    if n > 1:
        apart = [min(s for s, p in zip(systems, part, strict=True) if p == i) for i in range(2)]
        raise ValueError(
            f"no finite ratings without a prior: wins do not lead both ways between {apart[0]!r} and {apart[1]!r}; "
            "collect more votes or use ratings(), which has a prior"
        )
