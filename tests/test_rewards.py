"""The reference-free reward and its split between the agents."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pat_core.metrics import copy_rate, longest_shared_run, variety
from pat_core.rewards import RewardContext, cosine, reference_free_reward, shapley


def phi(text: str) -> np.ndarray:
    """Two features by hand: exclamation marks and commas."""
    return np.array([text.count("!"), text.count(",")], float)


CONTEXT = RewardContext(
    phi=phi,
    target_phi=np.array([1.0, 0.0]),
    target_words=6,
    topic_texts=("the beep woke the house", "a beep and a warm handle"),
    retrieved_texts=("the beep woke the house at six in the morning again",),
    title="Handle with care",
)


def test_terms_by_hand():
    reward = reference_free_reward("The beep is loud, the handle!", CONTEXT)
    assert reward.terms["style"] == pytest.approx(1 / 2**0.5)  # one mark, one comma against (1, 0)
    assert reward.terms["topic"] == pytest.approx((1.0 + 0.5) / 4)  # beep in both neighbors, handle in one
    assert reward.terms["title"] == pytest.approx(1 / 2)  # handle, not care
    assert reward.terms["length"] == 0  # six words asked, six written
    assert reward.terms["copy"] == 0
    assert reward.total == pytest.approx(sum(reward.weights[k] * v for k, v in reward.terms.items()))


def test_copying_and_repeating_cost():
    copied = reference_free_reward("the beep woke the house at six", CONTEXT)
    repeated = reference_free_reward("the beep the beep the beep", CONTEXT)
    assert copied.terms["copy"] == pytest.approx(-2 / 7)  # seven shared words, five of them free
    assert repeated.terms["variety"] == pytest.approx(2 / 5)
    assert reference_free_reward("  ", CONTEXT).total == -1


def test_shared_runs_by_hand():
    assert longest_shared_run("A Beep, woke the cat", ("the beep woke the house",)) == 3
    assert copy_rate("", ("x",)) == 0 and copy_rate("woke the", ("she woke the cat",)) == 1
    assert variety("one") == 1


rewards = st.lists(st.floats(-1, 1), min_size=1, max_size=4)


@given(rewards, rewards, rewards, rewards)
def test_shapley_values_add_up(full, style_only, topic_only, neither):
    split = shapley(full, style_only, topic_only, neither)
    assert split.style + split.topic == pytest.approx(split.full - split.neither)
    swapped = shapley(full, topic_only, style_only, neither)
    assert (swapped.style, swapped.topic) == (pytest.approx(split.topic), pytest.approx(split.style))


def test_shapley_needs_all_four():
    with pytest.raises(ValueError, match="at least one text"):
        shapley([1.0], [], [1.0], [0.0])


def test_cosine_of_nothing_is_zero():
    assert cosine(np.zeros(2), np.ones(2)) == 0
