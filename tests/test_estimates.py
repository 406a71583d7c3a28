"""Means and paired differences: what they are, and that their intervals hold what they promise."""

import numpy as np
import pytest

from pat_core.estimates import Estimate, estimate, needed, paired, root_estimate


def test_an_estimate_is_the_mean_and_its_bootstrap_interval():
    values = np.random.default_rng(0).normal(0.3, 0.2, 400)
    e = estimate(values)
    assert e.mean == pytest.approx(values.mean()) and e.n == 400
    half = 1.96 * values.std() / 20
    assert e.low == pytest.approx(values.mean() - half, abs=0.003) and e.high == pytest.approx(values.mean() + half, abs=0.003)
    assert estimate([0.5]) == Estimate(0.5, 0.5, 0.5, 1)
    with pytest.raises(ValueError, match="no values"):
        estimate([])


def test_many_values_are_drawn_in_blocks_and_give_the_same_interval(monkeypatch):
    values = np.random.default_rng(1).random(300)
    whole = estimate(values)
    monkeypatch.setattr("pat_core.estimates.BLOCK", 1000)
    assert estimate(values) == whole


def test_intervals_hold_the_truth_about_as_often_as_they_say():
    """Skewed values as ROUGE has them, 60 people, 400 repetitions: 95% intervals of their mean and of a paired difference."""
    rng = np.random.default_rng(2)
    held = {"mean": 0, "difference": 0}
    for seed in range(400):
        a, noise = rng.beta(2, 8, 60), rng.normal(0.02, 0.05, 60)
        e, d = estimate(a, seed), paired(a + noise, a, seed)
        held["mean"] += e.low <= 0.2 <= e.high
        held["difference"] += d.low <= 0.02 <= d.high
    assert all(0.91 <= n / 400 <= 0.98 for n in held.values()), held


def test_a_paired_difference_knows_who_belongs_together():
    base = np.random.default_rng(3).random(50)
    d = paired(base + 0.1, base)
    assert d.mean == pytest.approx(0.1) and d.low == pytest.approx(0.1) and d.relative == pytest.approx(0.1 / base.mean())
    assert paired([0.2, 0.4], [0.0, 0.0]).relative is None and paired(base, base).needed is None
    turned = paired(base, base[::-1])
    assert turned.low < 0 < turned.high
    with pytest.raises(ValueError, match="cannot be paired"):
        paired([1, 2], [1])


def test_the_people_needed_follow_from_mean_and_spread():
    """By hand: ((1.960 + 0.8416) * 0.09 / 0.03)^2 = 8.405^2 = 70.6, so 71 people."""
    assert needed(0.03, 0.09) == 71 == needed(-0.03, 0.09)
    assert needed(0.0, 0.1) is None and needed(0.1, 0.0) == 2
    a = np.array([0.12, -0.06] * 30)  # mean .03; sd of 60 values .0908
    assert paired(a, np.zeros(60)).needed == 72


def test_so_many_people_do_show_the_difference_four_times_in_five():
    rng, shown = np.random.default_rng(4), 0
    for _ in range(600):
        sample = rng.normal(0.03, 0.09, needed(0.03, 0.09))
        shown += abs(sample.mean()) / (sample.std(ddof=1) / np.sqrt(len(sample))) > 1.994
    assert 0.75 < shown / 600 < 0.85


def test_the_root_of_a_mean_square_keeps_the_interval():
    squares = [0.0, 1.0, 4.0, 1.0]
    e, root = estimate(squares), root_estimate(squares)
    assert root.mean == pytest.approx(np.sqrt(1.5)) and (root.low, root.high) == (np.sqrt(e.low), np.sqrt(e.high))
