"""annotate.stats against independent oracles: evalica, brute force, numbers worked out by hand, and simulation with a known truth.

Every simulation has fixed seeds. PAT_CAMPAIGNS=200 simulates that many campaigns wherever the coverage of intervals is counted.
"""

import dataclasses
import itertools
import math
import os
import subprocess
import sys
import time

import evalica
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import approx_fprime, minimize
from scipy.special import expit
from scipy.stats import norm
from sklearn.metrics import roc_auc_score

from annotate.stats import (
    Estimate,
    Priors,
    Vote,
    agreement,
    agreements,
    always_valid,
    annotator_table,
    bradley_terry,
    cap_weights,
    davidson,
    detectable_win_rate,
    length_adjusted,
    newman,
    outcome_counts,
    pair_preferences,
    position_bias,
    power_meter,
    ratings,
    reward_agreement,
    self_consistency,
    tier,
    votes_needed,
    votes_to_flip,
    weight_cap,
    win_rates,
)
from annotate.stats.agreement import alphas
from annotate.stats.annotators import longest_run, run_chance
from annotate.stats.model import PRIORS, _loss, design
from annotate.stats.votes import share_estimate

ELO = 400 / math.log(10)
THETA = (0.6, 0.1, -0.2, -0.5)


def vote(outcome="left", left="a", right="b", prompt="p", annotator="r", **more) -> Vote:
    return Vote(annotator, prompt, left, right, outcome, **({"pair": prompt} | more))


def simulate(
    seed, n_prompts=60, per_prompt=6, theta=THETA, tie=-0.3, left=0.15, n_annotators=8, sd_skill=0.3, sd_left=0.2, sd_prompt=0, sd_taste=0
) -> list[Vote]:
    """Votes of Davidson's model written out plainly; skills have mean 1, tastes vary by prompt and by annotator."""
    rng = np.random.default_rng(seed)
    k, n = len(theta), n_prompts * per_prompt
    skill = np.exp(rng.normal(0, sd_skill, n_annotators))
    skill /= skill.mean()
    pull = rng.normal(0, sd_left, n_annotators)
    taste = rng.normal(0, 1, (n_annotators, k)) * sd_taste
    worth = np.array(theta) + rng.normal(0, 1, (n_prompts, k)) * sd_prompt
    vote_, prompt = np.arange(n), np.repeat(np.arange(n_prompts), per_prompt)
    i, r = rng.integers(k, size=n), rng.integers(n_annotators, size=n)
    j = (i + rng.integers(1, k, size=n)) % k
    value = worth[prompt] + taste[r]
    eta = skill[r] * (value[vote_, i] - value[vote_, j]) + left + pull[r]
    return [
        vote(outcome, f"s{a}", f"s{b}", f"p{p}", f"r{who}", pair=f"{p}/{q % per_prompt}")
        for q, (outcome, a, b, p, who) in enumerate(zip(outcomes(rng, eta, tie), i, j, prompt, r, strict=True))
    ]


def outcomes(rng: np.random.Generator, eta: np.ndarray, tie: float) -> list[str]:
    """Draws of left : right : tie at odds exp(eta / 2) : exp(-eta / 2) : exp(tie)."""
    odds = np.exp([eta / 2, -eta / 2, np.full_like(eta, tie)])
    chance = (odds / odds.sum(axis=0)).cumsum(axis=0)
    return [("left", "right", "tie")[drawn] for drawn in (rng.random(len(eta)) > chance[:2]).sum(axis=0)]


def campaigns(n: int) -> range:
    """The seeds of ``n`` simulated campaigns, or of as many as PAT_CAMPAIGNS says."""
    return range(int(os.environ.get("PAT_CAMPAIGNS", n)))


def inside(estimate: Estimate, truth: float) -> bool:
    return estimate.low <= truth <= estimate.high


def assert_covers(hits, low=0.90, high=0.985) -> None:
    """Two standard errors of a hundred intervals stay within these bounds around 95%."""
    share = float(np.mean(hits))
    assert low <= share <= high, f"95% intervals cover the truth {share:.1%} of the time"


# the input


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"outcome": "won"}, "use one of left, right, tie, both_bad, cannot_judge"),
        ({"outcome": ["left"]}, "not known"),
        ({"right": "a"}, "name the two systems"),
        ({"strength": 3}, "1 \\(slightly\\), 2 \\(clearly\\)"),
        ({"weight": math.nan}, "finite number"),
        ({"weight": -1.0}, "at least 0"),
        ({"words_left": -3}, "count of at least 0"),
        ({"words_right": math.nan}, "count of at least 0"),
        ({"dims": {"style": "a"}}, "use one of left, right, same"),
    ],
)
def test_a_bad_vote_is_refused_in_words(change, words):
    with pytest.raises(ValueError, match=words):
        vote(**change)


def test_outcome_counts_keep_the_kinds_of_tie_apart():
    counts = outcome_counts([vote(o) for o in ("left", "left", "right", "tie", "both_bad", "cannot_judge")])
    assert dataclasses.astuple(counts) == (6, 2, 1, 1, 1, 1, 2 / 5)


def test_no_annotator_counts_for_more_than_the_cap():
    votes = [vote(annotator="busy")] * 50 + [vote(annotator="busy", outcome="cannot_judge")] * 9 + [vote(annotator="new")] * 3
    capped = cap_weights(votes, 10)
    assert sum(v.weight for v in capped if v.annotator == "busy" and v.outcome == "left") == pytest.approx(10)
    assert [v.weight for v in capped if v.annotator == "new"] == [1, 1, 1]
    assert weight_cap(40, 10) == 0.25
    with pytest.raises(ValueError, match="above 0"):
        weight_cap(5, 0)


# the model


def test_the_gradient_is_that_of_the_loss():
    votes = simulate(1, n_prompts=20)
    x = np.random.default_rng(0).normal(size=(len(votes), 1))
    d = design(votes, x, True, Priors())
    weight = np.bincount(d.cell, d.weight)
    share = np.bincount(d.judge, d.weight) / d.weight.sum()
    at = np.random.default_rng(2).normal(0, 0.4, len(d.precision))
    numeric = approx_fprime(at, lambda p: _loss(p, d, weight, share)[0], 1e-6)
    assert np.abs(numeric - _loss(at, d, weight, share)[1]).max() < 1e-6


def test_a_step_too_far_meets_finite_skills():
    d = design(simulate(1, n_prompts=20), None, True, Priors())
    weight, share = np.bincount(d.cell, d.weight), np.bincount(d.judge, d.weight) / d.weight.sum()
    without_first = np.where(np.arange(len(share)) == 0, 0, share) / share[1:].sum()
    at = np.zeros(len(d.precision))
    at[d.n_core] = 2000.0  # log skill of the first annotator
    for part in (share, without_first):
        loss, gradient = _loss(at, d, weight, part)
        assert math.isfinite(loss) and np.isfinite(gradient).all()


def log_posterior(counts: dict, theta, kappa, left, priors=PRIORS) -> np.ndarray:
    """Davidson's penalized likelihood straight from its formula; ``counts`` maps (i, j) to (left, right, tie) counts. Broadcasts."""
    total = -(sum(t**2 for t in theta) / priors.system**2 + kappa**2 / priors.tie**2 + left**2 / priors.left**2) / 2
    for (i, j), n in counts.items():
        a, b = np.exp(theta[i] + left), np.exp(theta[j])
        tie = np.exp(kappa) * np.sqrt(a * b)
        z = a + b + tie
        total = total + n[0] * np.log(a / z) + n[1] * np.log(b / z) + n[2] * np.log(tie / z)
    return total


def votes_of(counts: dict) -> list[Vote]:
    return [
        vote(outcome, f"s{i}", f"s{j}", f"{i}{j}{outcome}{q}")
        for (i, j), n in counts.items()
        for outcome, count in zip(("left", "right", "tie"), n, strict=True)
        for q in range(count)
    ]


def test_davidson_of_two_systems_is_the_top_of_a_brute_force_grid():
    counts = {(0, 1): (14, 5, 6), (1, 0): (9, 11, 3)}
    fit = davidson(votes_of(counts), annotators=False)
    center, step = np.zeros(4), 0.4  # theta_0, theta_1, kappa, left
    for _ in range(5):
        axes = [c + step * np.linspace(-4, 4, 13) for c in center]
        t0, t1, kappa, left = np.meshgrid(*axes, indexing="ij", sparse=True)
        values = log_posterior(counts, (t0, t1), kappa, left)
        center = np.array([axis[i] for axis, i in zip(axes, np.unravel_index(values.argmax(), values.shape), strict=True)])
        step /= 3
    assert [*fit.strengths.values(), math.log(fit.tie), fit.left] == pytest.approx(center, abs=0.01)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(*[st.integers(0, 12)] * 3), min_size=6, max_size=6).filter(lambda rows: sum(map(sum, rows)) > 0))
def test_davidson_of_three_systems_cannot_be_beaten_by_a_slow_optimizer(rows):
    counts = dict(zip(itertools.permutations(range(3), 2), rows, strict=True))
    fit = davidson(votes_of(counts), annotators=False)
    theta = [fit.strengths.get(f"s{i}", 0.0) for i in range(3)]
    ours = log_posterior(counts, theta, math.log(fit.tie), fit.left)
    slow = minimize(lambda p: -log_posterior(counts, p[:3], p[3], p[4]), np.zeros(5), method="Powell", options={"ftol": 1e-10})
    assert ours >= -slow.fun - 1e-5


def test_without_priors_davidson_is_newman_and_without_ties_bradley_terry():
    votes = simulate(3, n_prompts=100, per_prompt=5)
    flat = Priors(system=100, tie=100, left=1e-6)
    ours, theirs = davidson(votes, annotators=False, priors=flat), newman(votes)
    assert {s: 1000 + ELO * t for s, t in ours.strengths.items()} == pytest.approx(dict(theirs.ratings), abs=0.5)
    assert ours.tie / 2 == pytest.approx(theirs.tie, rel=1e-3)
    decisive = [v for v in votes if v.outcome != "tie"]
    ours, theirs = davidson(decisive, annotators=False, priors=flat), bradley_terry(decisive)
    assert {s: 1000 + ELO * t for s, t in ours.strengths.items()} == pytest.approx(dict(theirs.ratings), abs=0.5)


def test_evalicas_bootstrap_of_votes_agrees_with_ours_where_every_vote_is_its_own_prompt():
    votes = [dataclasses.replace(v, prompt=str(i)) for i, v in enumerate(simulate(4, tie=-9)) if v.outcome != "tie"]
    theirs = bradley_terry(votes, n_resamples=300)
    for row in ratings(votes, annotators=False, n_resamples=300).ratings:
        assert row.high - row.low == pytest.approx(theirs.high[row.system] - theirs.low[row.system], rel=0.2)


def test_weights_count_as_repeated_votes():
    votes = simulate(5, n_prompts=15)
    twice = [dataclasses.replace(v, weight=2.0) if i % 2 else v for i, v in enumerate(votes)]
    repeated = [v for i, v in enumerate(votes) for _ in range(1 + i % 2)]
    assert davidson(twice).strengths == pytest.approx(davidson(repeated).strengths, abs=1e-4)


def test_skill_and_side_of_each_annotator_are_recovered():
    rng = np.random.default_rng(0)
    people = {"sharp": (1.8, 0.0), "average": (1.0, 0.0), "lefty": (1.0, 0.9), "coin": (0.05, 0.0), "averse": (1.0, -0.9)}
    votes = []
    for r, (skill, pull) in people.items():
        for q in range(500):
            i, j = rng.choice(4, 2, replace=False)
            outcome = "left" if rng.random() < expit(skill * 1.5 * (THETA[i] - THETA[j]) + pull) else "right"
            votes.append(vote(outcome, f"s{i}", f"s{j}", f"p{q}", r))
    found = {e.annotator: e for e in ratings(votes, n_resamples=10).annotators}
    assert found["sharp"].skill > 1.3 > 0.5 > found["coin"].skill
    assert found["lefty"].left_share == pytest.approx(expit(0.9), abs=0.06)
    assert found["averse"].left_share == pytest.approx(expit(-0.9), abs=0.06)
    assert found["average"].left_share == pytest.approx(0.5, abs=0.06)


def test_many_annotators_with_few_votes_do_not_stretch_the_gaps():
    fits = [davidson(simulate(s, n_prompts=150, n_annotators=30, sd_skill=0.5)).strengths for s in range(20)]
    gap = np.mean([f["s0"] - f["s3"] for f in fits])
    assert gap == pytest.approx(1.1, rel=0.07)  # a plain joint maximum gives 1.25


# ratings


@pytest.mark.parametrize(
    ("resample", "scenario"),
    [
        ("prompts", {"sd_prompt": 0.8}),
        ("prompts", {"per_prompt": 4}),
        ("both", {"n_prompts": 80, "sd_prompt": 0.5, "sd_taste": 0.5, "n_annotators": 15}),
    ],
)
def test_rating_intervals_cover_the_truth(resample, scenario):
    """The truth is what a campaign of 40,000 votes says."""
    big = davidson(simulate(99, **(scenario | {"n_prompts": 8000, "n_annotators": 200}))).strengths
    hits = []
    for seed in campaigns(40):
        result = ratings(simulate(seed, **scenario), resample=resample, n_resamples=30, seed=seed)
        hits += [r.low <= 1000 + ELO * big[r.system] <= r.high for r in result.ratings]
        hits += [inside(p.p, expit(big[p.a] - big[p.b])) for p in result.preferences]
    assert_covers(hits)


def test_clustered_votes_widen_the_interval():
    votes = simulate(6, n_prompts=20, per_prompt=15, sd_prompt=1.5)
    alone = [dataclasses.replace(v, prompt=str(i)) for i, v in enumerate(votes)]
    by_prompt, by_vote = ratings(votes).ratings[0], ratings(alone).ratings[0]
    assert by_prompt.high - by_prompt.low > 1.2 * (by_vote.high - by_vote.low)


def test_tastes_of_annotators_widen_the_interval_of_both():
    votes = simulate(7, n_prompts=80, n_annotators=12, sd_taste=1.0)
    prompts, both = (ratings(votes, resample=r, n_resamples=80).ratings[0] for r in ("prompts", "both"))
    assert both.high - both.low > 1.2 * (prompts.high - prompts.low)


def test_ratings_are_reproducible_and_on_the_elo_scale():
    counts = {(0, 1): (300, 200, 0), (1, 0): (200, 300, 0)}
    first, again = ratings(votes_of(counts)), ratings(votes_of(counts))
    assert first == again
    top, bottom = first.ratings
    assert (top.system, top.rank_best, top.rank_worst, bottom.rank_best) == ("s0", 1, 1, 2)
    assert top.rating - bottom.rating == pytest.approx(70.4, abs=1.0)  # a 60% win rate
    assert (top.rating + bottom.rating) / 2 == pytest.approx(1000)
    assert inside(first.preferences[0].p, 0.6)
    assert first.left_share.value == pytest.approx(0.5, abs=0.01)


def test_tiers_follow_half_the_interval():
    assert [tier(h) for h in (29.9, 30, 30.1, 60, 61)] == ["established", "established", "usable", "usable", "preliminary"]


def test_four_systems_reach_the_published_half_widths():
    # annotation.md section 5: 4 systems, uniform pairing, 400 votes each: +-26 Elo points
    votes = simulate(8, n_prompts=800, per_prompt=1, tie=-9, theta=(0.1, 0.0, 0.0, -0.1), sd_skill=0, sd_left=0, left=0)
    widths = [(r.high - r.low) / 2 for r in ratings(votes, annotators=False).ratings]
    assert np.mean(widths) == pytest.approx(26, rel=0.15)


def test_unanimous_votes_do_not_look_certain():
    five = [vote(prompt=str(i)) for i in range(5)]
    assert {r.tier for r in ratings(five).ratings} == {"preliminary"}
    assert win_rates(five)[0].decisive.low < 0.6


def test_systems_that_never_met_are_not_compared():
    votes = [vote("left", "a", "b", str(i)) for i in range(9)] + [vote("right", "c", "d", str(i)) for i in range(9)]
    result = ratings(votes)
    assert result.n_groups == 2
    assert [(p.a, p.b) for p in result.preferences] == [("a", "b"), ("c", "d")]
    assert sum(r.rating for r in result.ratings if r.group == 0) == pytest.approx(2000)
    with pytest.raises(ValueError, match="wins do not lead both ways"):
        bradley_terry(votes)
    assert votes_to_flip(votes) is None


# side and length


def test_position_bias_is_found_and_its_interval_covers():
    results = [position_bias(simulate(s, n_prompts=50, left=0.3, sd_left=0, sd_skill=0), n_resamples=30) for s in campaigns(50)]
    assert_covers([inside(r.at_parity, expit(0.3)) for r in results])
    assert np.mean([r.p_model < 0.05 for r in results]) > 0.4


def test_without_a_side_effect_it_is_rarely_claimed():
    scenario = {"n_prompts": 40, "left": 0, "sd_left": 0, "sd_skill": 0, "sd_prompt": 0.5}
    results = [position_bias(simulate(s, **scenario), n_resamples=30) for s in campaigns(80)]
    assert np.mean([r.p_model < 0.05 for r in results]) <= 0.11


def test_position_bias_takes_unbalanced_sides_out_of_the_share():
    # the better system is on the left three times in four and wins three times in four wherever it is: nobody minds the side
    sides = [(a_left, a_wins) for a_left in (1, 1, 1, 0) for a_wins in (1, 1, 1, 0)] * 50
    votes = [
        vote("left" if a_left == a_wins else "right", *(("a", "b") if a_left else ("b", "a")), prompt=str(i))
        for i, (a_left, a_wins) in enumerate(sides)
    ]
    result = position_bias(votes)
    assert result.share.value == 0.625 and result.share.low > 0.55 and result.p_binomial < 1e-6
    assert result.at_parity.value == pytest.approx(0.5, abs=0.01) and result.p_model > 0.9
    assert win_rates(votes)[0].side_balanced == pytest.approx(0.75)


def test_a_side_that_never_changed_is_not_called_bias():
    assert position_bias([vote(prompt=str(i)) for i in range(100)]).p_model > 0.05


def _lengthy(seed, effect) -> list[Vote]:
    rng = np.random.default_rng(seed)
    i = rng.integers(3, size=240)
    j = (i + rng.integers(1, 3, size=240)) % 3
    words = rng.integers(50, 150, (2, 240)) + 30 * np.array([i, j])  # the weaker systems write more
    eta = -0.3 * (i - j) + effect * (words[0] - words[1]) / words.sum(axis=0)
    return [
        vote(outcome, f"s{a}", f"s{b}", f"p{p // 4}", f"r{p % 5}", words_left=int(x), words_right=int(y))
        for p, (outcome, a, b, x, y) in enumerate(zip(outcomes(rng, eta, -0.4), i, j, *words, strict=True))
    ]


def test_length_adjustment_recovers_the_preference_between_equal_lengths():
    results = [length_adjusted(_lengthy(seed, 3.0), n_resamples=25) for seed in campaigns(40)]

    def hits(rated):
        return [inside(q.p, expit(0.6)) for r in results for q in rated(r).preferences if (q.a, q.b) == ("s0", "s2")]

    assert_covers(hits(lambda r: r.adjusted), high=0.99)
    assert np.mean(hits(lambda r: r.raw)) < 0.5
    assert np.mean([r.longer_share.value for r in results]) > 0.55
    assert np.mean([r.effect.low > 0 for r in results]) > 0.6


def test_votes_without_word_counts_are_counted_and_left_out():
    votes = _lengthy(0, 1.0)
    result = length_adjusted([*votes, vote("left", "s0", "s1"), vote("left", "s0", "s1", words_left=3, words_right=0)], n_resamples=5)
    assert (result.n_unknown, result.raw.n_votes) == (2, len(votes))
    with pytest.raises(ValueError, match="no vote that counts has both"):
        length_adjusted([vote()])


# win rates and single pairs


def test_win_rates_count_by_hand():
    votes = [vote("left", "b", "a", "1"), vote("left", "a", "b", "2"), vote("right", "b", "a", "3"), vote("tie", prompt="4")]
    (row,) = win_rates([*votes, vote("both_bad", prompt="5"), vote("cannot_judge", prompt="6"), vote("left", weight=0.0)])
    assert (row.a, row.b, row.n_a, row.n_b, row.n_tie, row.n_both_bad) == ("a", "b", 2, 1, 1, 1)
    assert row.decisive.value == pytest.approx(2 / 3)
    assert row.half_ties.value == pytest.approx(3 / 5)
    assert row.side_balanced == pytest.approx((1 + 1 / 2) / 2)


def test_win_rate_intervals_of_clustered_votes_cover():
    truth = float(np.mean(expit(0.5 + np.random.default_rng(1).normal(size=200_000))))
    decisive, half_ties = [], []
    for seed in campaigns(200):
        rng = np.random.default_rng(seed)
        wins = rng.random((50, 4)) < expit(0.5 + rng.normal(size=(50, 1)))
        tie = rng.random((50, 4)) < 0.25
        votes = [vote("tie" if tie[p, q] else "left" if wins[p, q] else "right", prompt=str(p)) for p in range(50) for q in range(4)]
        (row,) = win_rates(votes)
        decisive.append(inside(row.decisive, truth))
        half_ties.append(inside(row.half_ties, 0.75 * truth + 0.125))
    assert_covers(decisive)
    assert_covers(half_ties)


def test_an_interval_of_independent_votes_is_wilsons():
    y = np.array([1.0] * 13 + [0.0] * 7)
    ours = share_estimate(y, np.ones(20), np.arange(20))
    z, p, n = norm.ppf(0.975), 0.65, 20
    roots = np.roots([1 + z * z / n, -(2 * p + z * z / n), p * p])  # (p - q)^2 = z^2 q (1 - q) / n
    assert sorted(roots) == pytest.approx([ours.low, ours.high], abs=1e-9)


def test_pair_preference_is_the_exact_posterior():
    votes = [vote("left", "a", "b", annotator="x"), vote("right", "b", "a", annotator="y"), vote("tie", annotator="z")]
    (row,) = pair_preferences(votes)
    fit = davidson(votes)
    delta = np.linspace(-14, 14, 20001)
    log_post = norm.logpdf(delta, scale=math.pi / math.sqrt(3))
    for v in votes:
        eta = fit.skills[v.annotator] * delta * (1 if v.left == "a" else -1) + fit.left + fit.lefts[v.annotator]
        odds = {"left": np.exp(eta / 2), "right": np.exp(-eta / 2), "tie": fit.tie * np.ones_like(eta)}
        log_post = log_post + np.log(odds[v.outcome] / sum(odds.values()))
    weight = np.exp(log_post - log_post.max())
    weight /= weight.sum()
    low, high = (expit(np.interp(q, weight.cumsum(), delta)) for q in (0.025, 0.975))
    assert dataclasses.astuple(row.p) == pytest.approx((weight @ expit(delta), low, high), abs=2e-3)


def test_pair_preferences_cover_and_are_calibrated():
    hits, said, true = [], [], []
    for seed in range(8):
        rng = np.random.default_rng(seed)
        skill = np.exp(rng.normal(0, 0.4, 10))
        skill /= skill.mean()
        delta, votes = rng.normal(0, 1.8, 150), []
        for p in range(150):
            for r in rng.choice(10, rng.integers(1, 5), replace=False):
                swap = rng.random() < 0.5
                eta = skill[r] * delta[p] * (-1 if swap else 1) + 0.2
                odds = np.exp([eta / 2, -eta / 2, -0.4])
                outcome = ("left", "right", "tie")[rng.choice(3, p=odds / odds.sum())]
                sides = (f"{p}b", f"{p}a") if swap else (f"{p}a", f"{p}b")
                votes.append(vote(outcome, *sides, prompt=str(p), annotator=f"r{r}"))
        for row in pair_preferences(votes):
            p = expit(delta[int(row.pair)])
            hits.append(inside(row.p, p))
            said.append(row.p.value)
            true.append(p)
    assert_covers(hits, low=0.93, high=0.97)
    said, true = np.array(said), np.array(true)
    for low in (0.0, 0.25, 0.5, 0.75):
        group = (said >= low) & (said < low + 0.25)
        assert said[group].mean() == pytest.approx(true[group].mean(), abs=0.04)


def test_clear_votes_and_several_judges_move_a_pair_further():
    background = [vote(o, "c", "d", str(i), f"r{i % 4}", pair="other") for i, o in enumerate(["left", "right", "tie"] * 8)]

    def p(*votes):
        return next(r for r in pair_preferences([*background, *votes]) if r.pair == "p")

    slight, clear = p(vote(annotator="r1", strength=1)), p(vote(annotator="r1", strength=2))
    both = p(vote(annotator="r1", strength=1), vote("right", "b", "a", annotator="r2", strength=1))
    same_person = p(vote(annotator="r1"), vote("right", "b", "a", annotator="r1", pair="q", is_swap_of="p"))
    # with a uniform prior one vote makes 2/3 of 1/2 and two votes 3/4; a win says a little more where ties are common
    assert 0 < slight.p.value - 2 / 3 < 0.05 and 0 < clear.p.value - 3 / 4 < 0.05
    assert slight.p.value < both.p.value and both.n_effective == 2
    assert (same_person.n_effective, same_person.n_judges) == (1, 1)
    assert same_person.p.value < both.p.value
    assert (clear.n_clear, clear.n_slight, clear.strength, both.strength) == (1, 0, 2.0, 1.0)


def test_pair_preferences_refuse_unclear_pairs():
    with pytest.raises(ValueError, match="no pair id"):
        pair_preferences([vote(pair="")])
    with pytest.raises(ValueError, match="must name the same two texts"):
        pair_preferences([vote(), vote(left="c")])


# enough votes?


def test_the_power_table_of_the_design_is_reproduced():
    assert [votes_needed(p) for p in (0.52, 0.55, 0.57, 0.60, 0.65, 0.70)] == [4904, 783, 399, 194, 85, 47]
    assert votes_needed(0.40) == votes_needed(0.60)
    votes = [vote("left" if i % 5 else "tie", *(("a", "b") if i % 2 else ("b", "a")), prompt=str(i)) for i in range(100)]
    meter = power_meter(votes, "a", "b")
    assert [r.needed_with_ties for r in meter.rows] == [6130, 979, 499, 243, 107, 59]
    assert (meter.n_decisive, meter.tie_rate) == (80, pytest.approx(0.2))
    assert [r.missing for r in meter.rows] == [4904 - 80, 783 - 80, 399 - 80, 194 - 80, 5, 0]


@given(st.floats(0.51, 0.99))
def test_what_can_be_detected_undoes_what_is_needed(p):
    assert detectable_win_rate(votes_needed(p)) <= p + 1e-9
    assert detectable_win_rate(votes_needed(p) - 1) is None or detectable_win_rate(votes_needed(p) - 1) > p - 1e-9


def test_power_by_simulation():
    wins = np.random.default_rng(0).binomial(194, 0.6, 20_000)
    z = (wins / 194 - 0.5) / math.sqrt(0.25 / 194)
    assert np.mean(np.abs(z) > norm.ppf(0.975)) == pytest.approx(0.8, abs=0.03)


def test_clustered_votes_count_for_less_in_the_meter():
    one_prompt_each = [vote("left" if i < 60 else "right", prompt=str(i)) for i in range(100)]
    ten_alike = [vote("left" if i < 60 else "right", prompt=str(i // 10)) for i in range(100)]
    assert power_meter(one_prompt_each, "a", "b").n_effective == pytest.approx(100, rel=0.02)
    assert power_meter(ten_alike, "a", "b").n_effective < 15


@pytest.mark.parametrize("bad", [0.5, 0.0, 1.0, 1.2, math.nan])
def test_votes_needed_refuses_what_no_number_shows(bad):
    with pytest.raises(ValueError, match="between 0 and 1"):
        votes_needed(bad)


def test_the_always_valid_interval_survives_looking_at_every_step():
    paths = np.random.default_rng(0).random((150, 400)).__lt__(0.5).cumsum(axis=1)
    looks = range(10, 400, 15)
    wrong = [any(not inside(always_valid(int(path[n - 1]), n), 0.5) for n in looks) for path in paths]
    assert np.mean(wrong) <= 0.05
    fixed = [any(abs(path[n - 1] / n - 0.5) > 1.96 * 0.5 / math.sqrt(n) for n in looks) for path in paths]
    assert np.mean(fixed) > 0.15  # what looking again and again at a plain interval would do


@given(st.integers(0, 400), st.integers(0, 400))
def test_the_always_valid_interval_holds_its_share(wins, losses):
    e = always_valid(wins, wins + losses)
    assert 0 <= e.low <= e.value <= e.high <= 1


def test_two_systems_flip_at_the_counted_number():
    votes = [vote(prompt=str(i)) for i in range(10)] + [vote("right", prompt=str(i)) for i in range(6)] + [vote("tie")] * 5
    flip = votes_to_flip(votes)
    assert (flip.leader, flip.challenger, flip.n_drop, flip.n_switch, flip.exact) == ("a", "b", 5, 3, True)
    assert flip.share == 5 / 21
    weighted = [dataclasses.replace(votes[0], weight=4.5), *votes[1:]]
    assert votes_to_flip(weighted).n_drop == 5  # 4.5 + 1 + 1 + 1 make 7.5, the margin of 13.5 - 6
    assert votes_to_flip(votes[:10]).n_drop is None  # with nobody for b, leaving out votes cannot put b ahead
    assert votes_to_flip(votes[:6] + votes[10:16]) is None  # tied


def _leads(wins: np.ndarray, leader: int) -> np.ndarray:
    """Whether ``leader`` has the highest penalized Bradley-Terry strength, for each of ``wins`` (b, k, k), by plain gradient ascent."""
    theta, met = np.zeros(wins.shape[:2]), wins + wins.transpose(0, 2, 1)
    step = 1 / (met.sum(axis=2).max() / 2 + 0.25)
    for _ in range(2000):
        gap = theta[:, :, None] - theta[:, None, :]
        theta += step * ((wins - met * expit(gap)).sum(axis=2) - theta / 4)
    return (theta[:, leader, None] >= theta - 1e-6).all(axis=1)


@pytest.mark.parametrize("seed", range(6))
def test_three_systems_flip_near_the_exhaustive_minimum(seed):
    votes = simulate(seed, n_prompts=7, per_prompt=2, theta=(0.7, 0.0, -0.7), tie=-9)
    flip = votes_to_flip(votes)
    wins = np.zeros((len(votes), 3, 3))
    for i, v in enumerate(votes):
        won, lost = (v.left, v.right) if v.outcome == "left" else (v.right, v.left)
        wins[i, int(won[1]), int(lost[1])] = 1
    leader = int(flip.leader[1])
    assert _leads(wins.sum(axis=0, keepdims=True), leader).all() and not flip.exact

    def can_flip(n):
        left_out = np.array(list(itertools.combinations(range(len(votes)), n)))
        return not _leads(wins.sum(axis=0) - wins[left_out].sum(axis=1), leader).all()

    exact = next(n for n in range(1, len(votes)) if can_flip(n))
    assert exact <= flip.n_drop <= exact + 1


# agreement


def test_alpha_of_krippendorffs_published_example():
    # Krippendorff 2011, "Computing Krippendorff's Alpha-Reliability", part C: 4 observers, 12 units, values 1-5
    values = [
        [1, 2, 3, 3, 2, 1, 4, 1, 2, None, None, None],
        [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, None, 3],
        [None, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, None],
        [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, None],
    ]
    counts = np.array([[sum(row[u] == level for row in values) for level in range(1, 6)] for u in range(12)])
    counts = counts[counts.sum(axis=1) > 1]
    once = np.ones((1, len(counts)))
    assert alphas(counts, once, "nominal")[0] == pytest.approx(0.743, abs=5e-4)
    assert alphas(counts, once, "ordinal")[0] == pytest.approx(0.815, abs=5e-4)
    assert alphas(counts, once, "interval")[0] == pytest.approx(0.849, abs=5e-4)


def test_alpha_worked_out_by_hand():
    # Four pairs, two judges: aa, ab, bb, aa. Coincidences: aa 2 + 2, bb 2, ab 1, ba 1; n_a = 5, n_b = 3, n = 8.
    # Observed 2/8, expected 2 * 5 * 3 / (8 * 7) = 30/56, alpha = 1 - (2/8) / (30/56) = 8/15.
    answers = ["aa", "ab", "bb", "aa"]
    votes = [
        vote("left" if (x == "a") == (r == 0) else "right", *(("a", "b") if r == 0 else ("b", "a")), prompt=f"p{u}", annotator=f"r{r}")
        for u, given_answers in enumerate(answers)
        for r, x in enumerate(given_answers)
    ]
    result = agreement(votes)
    assert (result.n_pairs, result.n_judgments, result.n_annotators) == (4, 8, 2)
    assert result.raw.value == pytest.approx(3 / 4)
    assert result.alpha_nominal.value == pytest.approx(8 / 15)
    assert result.alpha_interval.value == pytest.approx(8 / 15)  # with two values every distance is the same


def _judged(seed, n_prompts, pairs_per_prompt=1, judges=3, sd_prompt=0.0) -> list[Vote]:
    rng = np.random.default_rng(seed)
    votes = []
    for p in range(n_prompts):
        base = rng.normal(0, sd_prompt) if sd_prompt else 0.0
        for q in range(pairs_per_prompt):
            worth = base + rng.normal(0, 1.2)
            for r in rng.choice(12, judges, replace=False):
                z = worth + rng.logistic()
                outcome = "tie" if abs(z) < 0.5 else "left" if z > 0 else "right"
                dims = {"style": "same" if outcome == "tie" else outcome}
                strength = None if outcome == "tie" else 2 if abs(z) > 2 else 1
                votes.append(vote(outcome, prompt=f"p{p}", annotator=f"r{r}", pair=f"{p}/{q}", strength=strength, dims=dims))
    return votes


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 4))
def test_resampled_alpha_is_evalicas_alpha_on_the_repeated_pairs(seed, judges):
    votes = _judged(seed, 25, judges=judges)
    table: dict[str, dict[str, float]] = {}
    for v in votes:
        table.setdefault(v.pair, {})[v.annotator] = {"left": 1, "right": -1}.get(v.outcome, 0) * (v.strength or 1)
    draw = np.random.default_rng(seed).integers(0, 3, len(table))
    draw[:2] = 1
    frame = pd.DataFrame({f"{pair} {i}": table[pair] for pair, n in zip(table, draw, strict=True) for i in range(n)})
    counts = np.array([[list(answers.values()).count(level) for level in range(-2, 3)] for answers in table.values()])
    for metric in ("nominal", "interval", "ordinal"):
        ours = alphas(counts, draw[None].astype(float), metric)[0]
        assert ours == pytest.approx(evalica.alpha(frame.astype(float), metric).alpha, abs=1e-9) or math.isnan(ours)


def test_agreement_intervals_cover_with_several_pairs_per_prompt():
    scenario = {"n_prompts": 40, "pairs_per_prompt": 2, "sd_prompt": 0.8}
    big = agreement(_judged(99, **(scenario | {"n_prompts": 6000})), n_resamples=2)
    names = ("raw", "alpha_nominal", "alpha_ordinal", "alpha_interval")
    hits = {name: [] for name in names}
    for seed in campaigns(100):
        result = agreement(_judged(seed, **scenario), n_resamples=200, seed=seed)
        for name in names:
            hits[name].append(inside(getattr(result, name), getattr(big, name).value))
    for name in names:
        assert_covers(hits[name])


def test_agreement_reads_dimensions_and_leaves_out_repeats_and_abstentions():
    votes = _judged(0, 30)
    overall, style = agreements(votes)
    assert (overall.dimension, style.dimension) == ("overall", "style")
    assert style.raw.value == overall.raw.value  # the simulated style answer is the overall one, without its strength
    assert style.alpha_nominal.value == pytest.approx(overall.alpha_nominal.value)
    abstention = vote("cannot_judge", prompt="p0", annotator="new", pair="0/0")
    repeat = vote("left", "b", "a", "p0", "r1", pair="again", is_swap_of="0/0")
    assert agreement([*votes, abstention, repeat]) == overall


def test_sides_do_not_matter_to_agreement():
    votes = _judged(1, 30)
    other = {"left": "right", "right": "left"}
    swapped = [dataclasses.replace(v, left=v.right, right=v.left, outcome=other.get(v.outcome, v.outcome)) for v in votes]
    mixed = [pair[i % 2] for i, pair in enumerate(zip(votes, swapped, strict=True))]
    assert agreement(mixed) == agreement(votes)


def test_full_agreement_is_not_taken_as_certain():
    votes = [vote("left" if p % 2 else "right", prompt=f"p{p}", annotator=r) for p in range(8) for r in "xy"]
    result = agreement(votes)
    assert result.alpha_nominal.value == 1 and 0 < result.alpha_nominal.low < 0.5
    assert agreement([vote(prompt=f"p{p}", annotator=r) for p in range(8) for r in "xy"]).alpha_nominal is None  # one answer only


def test_self_consistency_by_hand():
    def twice(pair, person, first, second):
        return [
            vote(first, "a", "b", pair, person),
            vote(second, "b", "a", pair, person, pair=f"{pair}-swap", is_swap_of=pair),
        ]

    votes = [
        *twice("1", "x", "left", "right"),  # a both times
        *twice("2", "x", "left", "left"),  # a, then b: the left side both times
        *twice("3", "y", "tie", "both_bad"),  # neither both times
        *twice("4", "y", "tie", "left"),  # changed, but not to the opposite
        *twice("5", "y", "left", "cannot_judge"),
        vote("left", "b", "a", "6", "z", pair="6-swap", is_swap_of="6"),  # no original
    ]
    result = self_consistency(votes)
    assert (result.n, result.n_same, result.n_decisive, result.n_opposite) == (4, 2, 2, 1)
    assert result.by_annotator == {"x": (1, 2), "y": (1, 2)}
    assert result.same.value == 0.5
    with pytest.raises(ValueError, match="same two texts"):
        self_consistency([vote("left", pair="1"), vote("left", "a", "c", pair="2", is_swap_of="1")])


def test_self_consistency_is_the_ceiling_of_agreement_between_people_of_one_taste():
    rng = np.random.default_rng(0)
    votes = []
    for p in range(600):
        worth = rng.normal(0, 1.5)
        for person in ("x", "y"):
            first, second = rng.random(2) < expit(worth)
            votes.append(vote("left" if first else "right", prompt=f"p{p}", annotator=person))
            votes.append(vote("right" if second else "left", "b", "a", f"p{p}", person, pair=f"p{p}-swap", is_swap_of=f"p{p}"))
    ceiling = self_consistency(votes).same
    assert agreement(votes).raw.value == pytest.approx(ceiling.value, abs=0.05)


# automatic rewards


def _rewarded(seed, n_prompts, per_prompt=3):
    rng = np.random.default_rng(seed)
    votes, gaps = [], []
    for p in range(n_prompts):
        noise = rng.normal()
        for _ in range(per_prompt):
            gap = rng.normal()
            votes.append(vote("left" if rng.random() < expit(1.2 * gap + 0.5 * noise) else "right", prompt=f"p{p}"))
            gaps.append(gap + 0.5 * rng.normal())
    return votes, gaps


def test_auc_and_accuracy_are_scikit_learns():
    votes, gaps = _rewarded(0, 60)
    gaps = [round(g, 1) for g in gaps]
    result = reward_agreement(votes, gaps)
    toward = np.array([g if v.outcome == "left" else -g for v, g in zip(votes, gaps, strict=True)])
    labels = np.repeat([1, 0], len(toward))
    assert result.auc.value == pytest.approx(roc_auc_score(labels, np.concatenate([toward, -toward])))
    assert result.accuracy.value == pytest.approx(np.mean((toward > 0) + 0.5 * (toward == 0)))
    assert result.n_equal == (toward == 0).sum() > 0


def test_reward_intervals_cover():
    big = reward_agreement(*_rewarded(99, 20_000), n_resamples=2)
    accuracy, auc = [], []
    for seed in campaigns(120):
        result = reward_agreement(*_rewarded(seed, 30), n_resamples=120, seed=seed)
        accuracy.append(inside(result.accuracy, big.accuracy.value))
        auc.append(inside(result.auc, big.auc.value))
    assert_covers(accuracy)
    assert_covers(auc)


def test_a_perfect_reward_on_few_votes_is_not_taken_as_certain():
    result = reward_agreement([vote(prompt=str(i)) for i in range(6)], [1.0] * 6)
    assert (result.auc.value, result.accuracy.value) == (1, 1)
    assert result.auc.low < 0.7
    against = reward_agreement([vote(prompt=str(i)) for i in range(6)], [-1.0] * 6)
    assert against.auc.value == 0 and against.auc.high > 0.3


def test_missing_rewards_and_dimensions():
    votes = [vote("left", dims={"style": "right"}), vote("tie"), vote("right", dims={"style": "same"}), vote("left")]
    overall = reward_agreement(votes, [1.0, 1.0, math.nan, None])
    assert (overall.n, overall.n_missing, overall.accuracy.value) == (1, 2, 1.0)
    assert reward_agreement(votes, [1.0] * 4, "style").accuracy.value == 0.0
    with pytest.raises(ValueError, match="4 votes but 1 reward gaps"):
        reward_agreement(votes, [1.0])


# annotators


def test_annotator_table_flags_the_clicker_and_not_the_honest():
    rng = np.random.default_rng(0)
    honest = [vote(("left", "right")[rng.integers(2)], prompt=str(i), annotator="honest") for i in range(300)]
    clicker = [vote("left" if i % 15 else "right", prompt=str(i), annotator="clicker") for i in range(60)]
    table = {r.annotator: r for r in annotator_table([*honest, *clicker], {"clicker": ["ok", "fail", "unknown", "fail"], "absent": ["ok"]})}
    assert not table["honest"].left_flag and not table["honest"].run_flag
    assert table["honest"].longest_run >= 8  # which is no reason to flag: in 300 fair votes such a run is likely
    assert table["clicker"].left_flag and table["clicker"].run_flag and table["clicker"].longest_run == 14
    assert (table["clicker"].gold_ok, table["clicker"].gold_fail, table["clicker"].gold_unknown) == (1, 2, 1)
    assert (table["absent"].n, table["absent"].gold_ok, table["absent"].left_share) == (0, 1, None)
    with pytest.raises(ValueError, match="use one of ok, fail, unknown"):
        annotator_table([], {"x": ["passed"]})


def test_the_left_band_holds_99_percent_of_fair_voters():
    rng = np.random.default_rng(0)
    votes = [vote(("left", "right")[side], annotator=f"r{r}") for r in range(400) for side in rng.integers(2, size=40)]
    assert np.mean([row.left_flag for row in annotator_table(votes)]) <= 0.025


@pytest.mark.parametrize(("n", "length"), [(1, 1), (5, 3), (8, 8), (10, 4), (12, 2), (7, 9)])
def test_run_chance_by_listing_every_sequence(n, length):
    sequences = itertools.product("lr", repeat=n)
    assert run_chance(n, length) == pytest.approx(np.mean([longest_run(s) >= length for s in sequences]))


def test_pace_is_judged_against_the_own_median():
    def timed(seconds, annotator):
        return [vote(prompt=str(i), annotator=annotator, seconds=s, words_left=50, words_right=50) for i, s in enumerate(seconds)]

    slow = [60.0 + i % 7 for i in range(20)]
    rushing = [40.0] * 10 + [10.0] * 10
    broken = [math.nan, -3.0, 0.0, None, math.inf]
    table = {r.annotator: r for r in annotator_table(timed([*slow, 4.0], "slow") + timed(rushing, "rushing") + timed(broken, "broken"))}
    assert table["slow"].seconds_per_word == pytest.approx(0.63, abs=0.02)
    assert (table["slow"].n_fast, table["slow"].n_timed) == (1, 21)
    assert table["rushing"].drift == pytest.approx(math.log(1 / 4))
    assert (table["broken"].n_timed, table["broken"].seconds_per_word, table["broken"].drift) == (0, None, None)


# everything at once

DEGENERATE = {
    "nothing": [],
    "only abstentions": [vote("cannot_judge")] * 3,
    "weight 0": [vote(weight=0.0)],
    "one vote": [vote()],
    "one judge, one prompt": [vote("left", pair=str(i)) for i in range(6)],
    "all ties": [vote("tie", prompt=str(i), annotator=f"r{i % 3}") for i in range(12)],
    "all bad": [vote("both_bad", prompt=str(i), annotator=f"r{i % 3}") for i in range(12)],
    "contradictory": [vote("left"), vote("left", "b", "a", annotator="s")] * 4,
    "unanimous": [vote("left", prompt=str(i), annotator=f"r{j}") for i in range(4) for j in range(3)],
    "disconnected": [vote("left", "a", "b", "1"), vote("right", "c", "d", "2"), vote("tie", "c", "d", "2", "s")],
    "no seconds": [vote("left", prompt=str(i), seconds=math.nan, words_left=0, words_right=9) for i in range(5)],
    "heavy": [vote("left", weight=1e6), vote("right", "b", "c", "q", weight=1e-6), vote("tie", "a", "c", "z")],
}
DESCRIPTIVE = {
    "outcome_counts": outcome_counts,
    "cap_weights": lambda votes: cap_weights(votes, 5),
    "win_rates": win_rates,
    "pair_preferences": pair_preferences,
    "position_bias": lambda votes: position_bias(votes, n_resamples=10),
    "agreements": lambda votes: agreements(votes, n_resamples=20),
    "self_consistency": self_consistency,
    "power_meter": lambda votes: power_meter(votes, "a", "b"),
    "votes_to_flip": votes_to_flip,
    "reward_agreement": lambda votes: reward_agreement(votes, [1.0] * len(votes), n_resamples=20),
    "annotator_table": annotator_table,
}
MODELS = {
    "ratings": lambda votes: ratings(votes, n_resamples=10),
    "ratings by both": lambda votes: ratings(votes, n_resamples=10, resample="both"),
    "davidson": davidson,
    "bradley_terry": lambda votes: bradley_terry(votes, n_resamples=20),
    "newman": newman,
    "length_adjusted": lambda votes: length_adjusted(votes, n_resamples=10),
}


def plain_values(result):
    """Every leaf of a result; anything but plain Python values fails."""
    if dataclasses.is_dataclass(result) and not isinstance(result, Vote):
        for f in dataclasses.fields(result):
            yield from plain_values(getattr(result, f.name))
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(result, dataclasses.fields(result)[0].name, 0)
    elif isinstance(result, tuple):
        for item in result:
            yield from plain_values(item)
    elif isinstance(result, dict):
        yield from plain_values((*result.keys(), *result.values()))
    else:
        yield result


@pytest.mark.parametrize("case", DEGENERATE)
@pytest.mark.parametrize("name", [*DESCRIPTIVE, *MODELS])
def test_degenerate_votes_give_finite_answers_or_a_sentence(name, case):
    if name in DESCRIPTIVE:
        result = DESCRIPTIVE[name](DEGENERATE[case])
    else:
        try:
            result = MODELS[name](DEGENERATE[case])
        except ValueError as error:
            assert len(str(error).split()) > 8
            return
    for value in plain_values(result):
        assert type(value) in (int, float, str, bool, type(None), Vote), (value, type(value))
        assert not isinstance(value, float) or math.isfinite(value)


@pytest.mark.parametrize("name", ["ratings", "ratings by both", "davidson"])
@pytest.mark.parametrize("case", [c for c in DEGENERATE if c not in ("nothing", "only abstentions", "weight 0")])
def test_the_penalized_model_answers_any_votes(name, case):
    assert MODELS[name](DEGENERATE[case])


def test_unknown_settings_are_refused():
    with pytest.raises(ValueError, match="use one of prompts, annotators, both"):
        ratings([vote()], resample="votes")
    with pytest.raises(ValueError, match="at least 2"):
        ratings([vote()], n_resamples=1)
    with pytest.raises(ValueError, match="prior skill"):
        Priors(skill=0.0)
    with pytest.raises(ValueError, match="with itself"):
        power_meter([], "a", "a")


def test_ten_thousand_votes_take_seconds():
    votes = simulate(0, n_prompts=2000, per_prompt=5, n_annotators=40)
    start = time.process_time()
    result = ratings(votes)
    assert time.process_time() - start < 10
    assert {r.tier for r in result.ratings} == {"established"}


def test_neither_database_nor_screen_is_imported():
    code = "import annotate.stats, sys; print(*({'sqlite3', 'sqlite_utils', 'gradio', 'torch'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == ""
