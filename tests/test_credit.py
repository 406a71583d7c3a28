"""Credits worked out by hand, their properties, and which prompts give a training pair."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pat_core.credit import (
    REASONS,
    Dropped,
    Selected,
    full_grid,
    grid_of,
    grid_shapley,
    intraclass_correlation,
    leave_one_out,
    mismatched_credit,
    raw_rewards,
    select,
    select_raw,
    shapley,
    sibling_credit,
    star,
    tally,
)

#        t0    t1    left out
HAND = {(0, 0): 0.5, (0, 1): 0.5, (0, None): 0.1,
        (1, 0): 0.4, (1, 1): 0.2, (1, None): 0.25,
        (None, 0): 0.2, (None, 1): 0.3, (None, None): 0.05}  # fmt: skip
GRID = grid_of(tuple(HAND), tuple(HAND.values()))


@given(st.integers(1, 6), st.data())
def test_the_star_is_2n_plus_1_texts_around_one_partner_of_each_kind(n, data):
    style, topic = data.draw(st.integers(0, n - 1)), data.draw(st.integers(0, n - 1))
    cells = star(n, n, style=style, topic=topic)
    assert len(cells) == len(set(cells)) == 2 * n + 1
    assert {(i, topic) for i in (*range(n), None)} | {(style, j) for j in (*range(n), None)} == set(cells)


@given(st.integers(1, 5))
def test_the_full_grid_is_n_squared_plus_2n_plus_1(n):
    cells = full_grid(n, n)
    assert len(cells) == len(set(cells)) == n * n + 2 * n + 1 and (None, None) in cells
    assert set(star(n, n)) <= set(cells)


def test_there_is_no_star_around_a_partner_that_does_not_exist():
    for sizes in ({"n_style": 0, "n_topic": 1}, {"n_style": 2, "n_topic": 2, "topic": 2}):
        with pytest.raises(ValueError, match="does not exist"):
            star(**sizes)


def test_leave_one_out_by_hand():
    assert leave_one_out(GRID, "style") == pytest.approx([0.25, 0.05])  # (.3 + .2) / 2 and (.2 - .1) / 2
    assert leave_one_out(GRID, "topic") == pytest.approx([0.275, 0.175])  # (.4 + .15) / 2 and (.4 - .05) / 2
    assert raw_rewards(GRID, "style") == pytest.approx([0.5, 0.3])


def test_a_star_gives_the_credit_against_its_one_partner():
    cells = star(2, 2, style=0, topic=1)
    part = grid_of(cells, [HAND[c] for c in cells])
    assert leave_one_out(part, "style") == pytest.approx([0.2, -0.1])  # against t1 alone: .5 - .3 and .2 - .3
    assert leave_one_out(part, "topic") == pytest.approx([0.4, 0.4])  # against s0 alone


def test_candidates_are_only_compared_with_the_same_partners():
    cells = [c for c in HAND if c not in ((1, 1), (None, 0))]  # t0 lacks "left out", t1 lacks s1
    with pytest.raises(ValueError, match="no partner was written with every style candidate"):
        leave_one_out(grid_of(cells, [HAND[c] for c in cells]), "style")


def test_several_texts_of_a_cell_are_averaged():
    twice = grid_of(((0, 0), (0, 0), (None, 0), (0, None)), (0.2, 0.4, 0.1, 0.0))
    assert leave_one_out(twice, "style") == pytest.approx([0.2])
    with pytest.raises(ValueError, match="2 texts and 1 rewards"):
        grid_of(((0, 0), (None, 0)), (0.1,))


floats = st.floats(-1, 1)


@given(st.lists(floats, min_size=16, max_size=16))
def test_a_fixed_left_out_text_does_not_reorder_candidates(rewards):
    grid = grid_of(full_grid(3, 3), rewards)
    shift = raw_rewards(grid, "style") - leave_one_out(grid, "style")
    assert shift == pytest.approx(np.full(3, shift[0]))


@given(st.lists(floats, min_size=16, max_size=16))
def test_credits_of_style_and_topic_are_each_others_mirror(rewards):
    cells = full_grid(3, 3)
    mirrored = grid_of([(j, i) for i, j in cells], rewards)
    assert leave_one_out(grid_of(cells, rewards), "style") == pytest.approx(leave_one_out(mirrored, "topic"))


@given(st.lists(floats, min_size=2, max_size=6), floats)
def test_sibling_credits_sum_to_zero_and_ignore_a_shift(rewards, shift):
    credit = sibling_credit(rewards)
    others = [np.mean(rewards[:i] + rewards[i + 1 :]) for i in range(len(rewards))]
    assert credit == pytest.approx(np.array(rewards) - others, abs=1e-12)
    assert sum(credit) == pytest.approx(0, abs=1e-9)
    assert sibling_credit([r + shift for r in rewards]) == pytest.approx(credit, abs=1e-9)


def test_mismatched_user_credit_by_hand():
    assert mismatched_credit([0.4, 0.1], [0.3, 0.1]) == pytest.approx([0.2, -0.1])
    with pytest.raises(ValueError, match="at least one other user"):
        mismatched_credit([0.4], [])
    with pytest.raises(ValueError, match="no siblings"):
        sibling_credit([0.4])


lists = st.lists(floats, min_size=1, max_size=4)


@given(lists, lists, lists, lists)
def test_shapley_values_add_up(full, style_only, topic_only, neither):
    split = shapley(full, style_only, topic_only, neither)
    assert split.style + split.topic == pytest.approx(split.full - split.neither)
    swapped = shapley(full, topic_only, style_only, neither)
    assert (swapped.style, swapped.topic) == (pytest.approx(split.topic), pytest.approx(split.style))


def test_shapley_of_a_grid_by_hand_and_never_of_a_star():
    split = grid_shapley(GRID)  # means: both .4, style only .175, topic only .25, neither .05
    assert (split.style, split.topic) == (pytest.approx(0.1375), pytest.approx(0.2125))
    cells = star(2, 2)
    with pytest.raises(ValueError, match="at least one text"):
        grid_shapley(grid_of(cells, [HAND[c] for c in cells]))


def test_selection_by_hand():
    texts = ("dry", "loud", "warm")
    assert select(texts, (0.05, -0.1, 0.02)) == Selected(chosen=0, rejected=1, gap=pytest.approx(0.15), weight=pytest.approx(0.5))
    assert select(texts, (0.3, 0.1, 0.2)).weight == 1.0  # never above 1
    assert select(texts, (0.1, 0.1, 0.0)).chosen == 0  # of equals the first


def test_equal_texts_are_one_candidate_with_their_mean_credit():
    found = select(("dry", "loud", " dry\n", ""), (0.3, 0.05, -0.1, 9.0))
    assert found == Selected(chosen=0, rejected=1, gap=pytest.approx(0.05), weight=pytest.approx(1.0))  # (.3 - .1) / 2 = .1 against .05


@pytest.mark.parametrize(
    ("texts", "credits", "reason"),
    [
        (("dry",), (0.1,), "too few candidates"),
        ((), (), "too few candidates"),
        (("dry", " "), (0.3, 0.1), "empty"),
        (("dry", "loud"), (0.3, float("nan")), "not a number"),
        (("dry", "loud"), (0.3, float("-inf")), "not a number"),
        (("dry", "loud"), (0.3, 0.3), "all equal"),
        (("dry", "dry "), (0.3, 0.1), "all equal"),
        (("dry", "loud"), (0.3, 0.28), "gap under threshold"),
        (("dry", "loud"), (0.0, -0.2), "no better than left out"),
    ],
)
def test_why_a_prompt_gives_no_pair(texts, credits, reason):
    assert select(texts, credits) == Dropped(reason)
    assert reason in REASONS
    if reason != "no better than left out":
        assert select_raw(texts, credits) == Dropped(reason)


def test_raw_selection_knows_no_left_out_text_and_weighs_all_pairs_alike():
    assert select_raw(("dry", "loud"), (0.0, -0.2)) == Selected(chosen=0, rejected=1, gap=pytest.approx(0.2), weight=1.0)


def test_a_nan_reward_reaches_the_gate():
    cells = full_grid(2, 1)
    credit = leave_one_out(grid_of(cells, [float("nan"), *[0.1] * (len(cells) - 1)]), "style")
    assert select(("dry", "loud"), credit) == Dropped("not a number")


def test_thresholds_must_make_sense():
    with pytest.raises(ValueError, match="min_gap nan"):
        select(("dry", "loud"), (0.3, 0.1), min_gap=float("nan"))
    with pytest.raises(ValueError, match="full_credit 0"):
        select(("dry", "loud"), (0.3, 0.1), full_credit=0)
    with pytest.raises(ValueError, match="2 candidates and 1 credits"):
        select(("dry", "loud"), (0.3,))


def test_a_tally_counts_what_became_of_the_prompts():
    outcomes = [Selected(0, 1, 0.2, 1.0), Selected(1, 0, 0.1, 0.5), Dropped("empty"), Dropped("all equal"), Dropped("empty")]
    report = tally(outcomes)
    assert (report.n, report.kept, report.dropped) == (5, 2, {"empty": 2, "all equal": 1})
    assert (report.gap, report.weight) == (pytest.approx(0.15), pytest.approx(0.75))
    assert tally([]).kept == 0


@given(st.lists(st.tuples(st.sampled_from("abcd "), st.floats(-1, 1)), max_size=6))
def test_a_selection_is_the_best_against_the_worst_of_texts_that_differ(candidates):
    texts, credits = [t for t, _ in candidates], [c for _, c in candidates]
    found = select(texts, credits)
    if isinstance(found, Selected):
        assert texts[found.chosen] != texts[found.rejected] and texts[found.chosen].strip() and texts[found.rejected].strip()
        assert found.gap >= 0.03 and 0 < found.weight <= 1


# How much a choice among candidates can be about


def test_the_share_between_candidates_is_that_of_a_table_worked_out_by_hand():
    # candidates' means 2, 4 and 6, seeds' means 8/3 and 16/3: MSB = 2 * (4 + 0 + 4) / 2 = 8,
    # rests of +-1/3, +-1/3 and +-2/3: MSE = (1/9 + 1/9 + 4/9) * 2 / (2 * 1) = 2/3
    assert intraclass_correlation([[[1, 3], [3, 5], [4, 8]]]) == pytest.approx((8 - 2 / 3) / (8 + 2 / 3))
    # and a second prompt of two candidates 2 apart in crossed seeds: MSB = (16 + 0) / (2 + 1), MSE = (4/3 + 4) / (2 + 1)
    both = [[[1, 3], [3, 5], [4, 8]], [[13, 15], [15, 13]]]
    assert intraclass_correlation(both) == pytest.approx((16 / 3 - 16 / 9) / (16 / 3 + 16 / 9))
    assert intraclass_correlation([[[1, 9], [2, 10]]]) == 1 and intraclass_correlation([[[1, 3], [3, 1]]]) == -1
    for nothing in ([], [[[1], [2]]], [[[1, 2]]], [[[1, 2], [1, 2]]]):
        assert intraclass_correlation(nothing) is None


def test_the_share_between_candidates_is_found_in_noise():
    rng = np.random.default_rng(5)
    cells = [rng.normal(size=(6, 1)) * 0.5 + rng.normal(size=(6, 4)) + rng.normal(size=4) for _ in range(500)]
    assert intraclass_correlation(cells) == pytest.approx(0.2, abs=0.03)
    assert intraclass_correlation([rng.normal(size=(6, 4)) for _ in range(500)]) == pytest.approx(0, abs=0.03)
