"""Do people agree: with each other, with themselves on swapped repeats (the ceiling), and with an automatic reward.

Alpha is Krippendorff's, by evalica; its interval resamples prompts and is ours (evalica's resamples pairs of answers as if they were
independent). Low agreement is normal in a matter of taste: read it against the ceiling, not against 0.8.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import evalica
import numpy as np
import pandas as pd
from scipy.special import expit, logit

from annotate.stats.votes import DECISIVE, Estimate, Vote, codes, share_estimate, t_quantile

OVERALL = "overall"
Metric = Literal["nominal", "ordinal", "interval"]


@dataclass(frozen=True, slots=True)
class Agreement:
    """Agreement on one dimension, or "overall", over the ``n_pairs`` pairs that at least two people judged.

    ``raw`` is the share of pairs of people that gave the same answer, of the first / a tie / the second text; ``alpha_nominal`` is over
    the same three answers, ``alpha_ordinal`` and ``alpha_interval`` over five (clearly, slightly, tie, slightly, clearly; a dimension has
    only three). both_bad counts as a tie. Alphas are None where everybody always gave one and the same answer, all four without pairs.
    """

    dimension: str
    n_pairs: int
    n_judgments: int
    n_annotators: int
    raw: Estimate | None
    alpha_nominal: Estimate | None
    alpha_ordinal: Estimate | None
    alpha_interval: Estimate | None


def dimensions(votes: Sequence[Vote]) -> tuple[str, ...]:
    """ "overall" and the dimensions anybody answered, sorted."""
    return (OVERALL, *sorted({name for v in votes for name in v.dims}))


def agreements(votes: Sequence[Vote], *, n_resamples: int = 1000, seed: int = 0) -> tuple[Agreement, ...]:
    """``agreement`` for every one of ``dimensions``."""
    return tuple(agreement(votes, name, n_resamples=n_resamples, seed=seed) for name in dimensions(votes))


def agreement(votes: Sequence[Vote], dimension: str = OVERALL, *, n_resamples: int = 1000, seed: int = 0) -> Agreement:
    """Agreement between people, on each one's last answer to a pair; without swapped repeats and cannot_judge, and without weights."""
    answers: dict[str, dict[str, int]] = defaultdict(dict)
    prompts: dict[str, str] = {}
    for v in votes:
        value = answer(v, dimension)
        if value is not None and not v.is_swap_of:
            answers[v.pair][v.annotator] = value
            prompts[v.pair] = v.prompt
    answers = {pair: given for pair, given in answers.items() if len(given) > 1}
    people = sorted({r for given in answers.values() for r in given})
    n_judgments = sum(len(given) for given in answers.values())
    if not answers:
        return Agreement(dimension, 0, 0, 0, None, None, None, None)
    table = pd.DataFrame(answers, index=people, dtype=float)
    prompt, _ = codes([prompts[pair] for pair in answers])
    counts = np.stack([(table == level).sum(axis=0).to_numpy() for level in range(-2, 3)], axis=1)
    three = np.stack([counts[:, :2].sum(axis=1), counts[:, 2], counts[:, 3:].sum(axis=1)], axis=1)
    raw = _raw(three, prompt)
    seeds = np.random.SeedSequence(seed).spawn(3)
    return Agreement(
        dimension,
        len(answers),
        n_judgments,
        len(people),
        raw,
        _alpha(np.sign(table), three, prompt, "nominal", raw, n_resamples, seeds[0]),
        _alpha(table, counts, prompt, "ordinal", raw, n_resamples, seeds[1]),
        _alpha(table, counts, prompt, "interval", raw, n_resamples, seeds[2]),
    )


def answer(vote: Vote, dimension: str = OVERALL) -> int | None:
    """The vote on a scale without sides: 2 clearly for the text whose name sorts first .. -2 for the other; 0 for ties; None unanswered."""
    if vote.outcome == "cannot_judge":
        return None
    choice = vote.outcome if dimension == OVERALL else vote.dims.get(dimension)
    if choice is None:
        return None
    if choice not in DECISIVE:
        return 0
    size = (vote.strength or 1) if dimension == OVERALL else 1
    return size if (choice == "left") == (vote.left < vote.right) else -size


def _raw(counts: np.ndarray, prompt: np.ndarray) -> Estimate:
    n = counts.sum(axis=1)
    pairs = n * (n - 1) / 2
    same = (counts * (counts - 1) / 2).sum(axis=1)
    return share_estimate(same / pairs, pairs, prompt, most=float(pairs.sum()))


def _alpha(
    table: pd.DataFrame,
    counts: np.ndarray,
    prompt: np.ndarray,
    metric: Metric,
    raw: Estimate,
    n_resamples: int,
    seed: np.random.SeedSequence,
) -> Estimate | None:
    """Alpha of ``table`` (people x pairs); its interval is t times the sd over resampled prompts, from ``counts`` (pairs, levels)."""
    point = evalica.alpha(table, distance=metric)
    if point.expected <= 0:
        return None
    n_prompts = int(prompt.max()) + 1
    draws = np.random.default_rng(seed).multinomial(n_prompts, np.full(n_prompts, 1 / n_prompts), size=n_resamples)
    resampled = alphas(counts, draws[:, prompt].astype(float), metric)
    resampled = resampled[np.isfinite(resampled)]
    sd = float(resampled.std()) if len(resampled) else 1.0
    half = t_quantile(n_prompts) * sd * math.sqrt(n_prompts / max(n_prompts - 1, 1))
    low, high = point.alpha - half, point.alpha + half
    if point.observed == 0 or n_prompts == 1:  # resampling cannot see a disagreement that has not happened yet
        chance = 1 - float(((counts.sum(axis=0) / counts.sum()) ** 2).sum())
        low = min(low, 1 - (1 - raw.low) / chance)
        high = max(high, 1 - (1 - raw.high) / chance)
    return Estimate(float(point.alpha), max(-1.0, min(float(low), point.alpha)), min(1.0, max(float(high), point.alpha)))


def alphas(counts: np.ndarray, weight: np.ndarray, metric: Metric) -> np.ndarray:
    """Krippendorff's alpha, (b,), for each row of ``weight`` (b, units); ``counts`` (units, levels) says how often each answer was given.

    Levels are equally spaced. Units need at least two answers. NaN where all answers are the same.
    """
    units, levels = counts.shape
    n = counts.sum(axis=1, keepdims=True)
    by_unit = counts[:, :, None] * counts[:, None, :] - counts[:, :, None] * np.eye(levels)
    coincidence = (weight @ (by_unit / (n - 1)[:, :, None]).reshape(units, -1)).reshape(-1, levels, levels)
    margin = coincidence.sum(axis=2)
    place = margin.cumsum(axis=1) - margin / 2 if metric == "ordinal" else np.broadcast_to(np.arange(levels), margin.shape)
    distance = 1 - np.eye(levels) if metric == "nominal" else (place[:, :, None] - place[:, None, :]) ** 2
    observed = (coincidence * distance).sum(axis=(1, 2))
    expected = (margin[:, :, None] * margin[:, None, :] * distance).sum(axis=(1, 2)) / (margin.sum(axis=1) - 1)
    return np.divide(expected - observed, expected, out=np.full(len(weight), np.nan), where=expected > 0)


@dataclass(frozen=True, slots=True)
class SelfConsistency:
    """Swapped repeats: the same person, the same two texts, the sides exchanged. The ceiling of ``Agreement.raw``.

    ``same`` is the share of repeats with the same answer (first, tie, second text), interval by person. Of the ``n_decisive`` that were
    decisive twice, ``n_opposite`` chose the other text, which on exchanged sides is the same side again.
    """

    n: int
    n_same: int
    same: Estimate | None
    n_decisive: int
    n_opposite: int
    by_annotator: dict[str, tuple[int, int]]


def self_consistency(votes: Sequence[Vote]) -> SelfConsistency:
    """Repeats against their originals; ``by_annotator`` gives (same, repeats). Repeats without an original, or unanswered, do not count.

    ``same`` is None without repeats. Raises ValueError where a repeat shows other texts than its original.
    """
    original = {(v.annotator, v.pair): v for v in votes if not v.is_swap_of}
    people, same, decisive, opposite = [], [], 0, 0
    for v in votes:
        first = original.get((v.annotator, v.is_swap_of)) if v.is_swap_of else None
        if first is None or answer(v) is None or answer(first) is None:
            continue
        if {v.left, v.right} != {first.left, first.right}:
            shown = f"{v.left!r} and {v.right!r}"
            raise ValueError(f"pair {v.pair!r} repeats {v.is_swap_of!r} but shows {shown}; a repeat shows the same two texts")
        signs = np.sign(answer(v)), np.sign(answer(first))
        people.append(v.annotator)
        same.append(float(signs[0] == signs[1]))
        decisive += int(0 not in signs)
        opposite += int(signs[0] * signs[1] < 0)
    by_annotator: dict[str, tuple[int, int]] = {}
    for person, agrees in zip(people, same, strict=True):
        n_same, n = by_annotator.get(person, (0, 0))
        by_annotator[person] = (n_same + int(agrees), n + 1)
    share = share_estimate(np.array(same), np.ones(len(same)), codes(people)[0])
    return SelfConsistency(len(same), int(sum(same)), share, decisive, opposite, by_annotator)


@dataclass(frozen=True, slots=True)
class RewardAgreement:
    """Does an automatic reward choose as people do? Over ``n`` decisive votes whose two texts have the reward.

    ``accuracy`` is the weighted share of votes where the chosen text has the higher reward, equal rewards (``n_equal``) counting half.
    ``auc`` is the chance that the reward's gap is higher where people chose its first text than where they chose its second, each vote
    taken both ways round so that no side matters. Both have intervals over prompts; None without votes. ``n_missing`` had no reward.
    """

    dimension: str
    n: int
    n_missing: int
    n_equal: int
    accuracy: Estimate | None
    auc: Estimate | None


def reward_agreement(
    votes: Sequence[Vote], gaps: Sequence[float | None], dimension: str = OVERALL, *, n_resamples: int = 400, seed: int = 0
) -> RewardAgreement:
    """People against a reward; ``gaps[i]`` is reward(left) - reward(right) of ``votes[i]``, None or NaN where unknown.

    Ties do not count. Raises ValueError where ``gaps`` is not as long as ``votes``.
    """
    if len(gaps) != len(votes):
        raise ValueError(f"there are {len(votes)} votes but {len(gaps)} reward gaps; give one gap, or None, for each vote")
    chosen, prompts, weights, n_missing = [], [], [], 0
    for v, gap in zip(votes, gaps, strict=True):
        choice = v.outcome if dimension == OVERALL else v.dims.get(dimension)
        if choice not in DECISIVE or v.weight == 0:
            continue
        if gap is None or math.isnan(gap):
            n_missing += 1
            continue
        chosen.append(gap if choice == "left" else -gap)
        prompts.append(v.prompt)
        weights.append(v.weight)
    gap, weight, (prompt, _) = np.array(chosen), np.array(weights), codes(prompts)
    accuracy = share_estimate((np.sign(gap) + 1) / 2, weight, prompt)
    auc = _auc_estimate(gap, weight, prompt, accuracy, n_resamples, seed) if accuracy else None
    return RewardAgreement(dimension, len(chosen), n_missing, int((gap == 0).sum()), accuracy, auc)


def _auc_estimate(gap: np.ndarray, weight: np.ndarray, prompt: np.ndarray, accuracy: Estimate, n_resamples: int, seed: int) -> Estimate:
    values, place = np.unique(np.concatenate([gap, -gap]), return_inverse=True)

    def auc(w: np.ndarray) -> float:
        first = np.bincount(place[: len(gap)], w, len(values))
        second = np.bincount(place[len(gap) :], w, len(values))
        return float(first @ (second.cumsum() - second / 2) / w.sum() ** 2)

    value, n_prompts = auc(weight), int(prompt.max()) + 1
    if n_prompts == 1 or value in (0.0, 1.0):
        return Estimate(value, min(value, accuracy.low), max(value, accuracy.high))
    draws = np.random.default_rng(seed).multinomial(n_prompts, np.full(n_prompts, 1 / n_prompts), size=n_resamples)
    logits = logit(np.clip([auc(weight * draw[prompt]) for draw in draws], 1e-6, 1 - 1e-6))
    half = t_quantile(n_prompts) * float(logits.std(ddof=1))
    return Estimate(value, float(expit(logit(value) - half)), float(expit(logit(value) + half)))
