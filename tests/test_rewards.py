"""The reward with and without a reference, every term by hand."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pat_core.metrics import copy_rate, longest_shared_run, meteor, variety
from pat_core.rewards import REFERENCE_WEIGHTS, WEIGHTS, RewardContext, cosine, reference_free_reward, reward


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
REFERENCE = "The handle is warm, the beep is not!"


def test_terms_by_hand():
    free = reference_free_reward("The beep is loud, the handle!", CONTEXT)
    assert free.terms["style"] == pytest.approx(1 / 2**0.5)  # one mark, one comma against (1, 0)
    assert free.terms["topic"] == pytest.approx((1.0 + 0.5) / 4)  # beep in both neighbors, handle in one
    assert free.terms["title"] == pytest.approx(1 / 2)  # handle, not care
    assert free.terms["length"] == 0  # six words asked, six written
    assert free.terms["copy"] == 0
    assert free.total == pytest.approx(sum(free.weights[k] * v for k, v in free.terms.items()))


def test_terms_against_a_reference_by_hand():
    text = "The beep is loud!"
    got = reward(text, CONTEXT, REFERENCE)
    assert got.terms["rouge_1"] == pytest.approx(6 / 12)  # the, beep, is: precision 3/4, recall 3/8
    assert got.terms["rouge_l"] == pytest.approx(6 / 12)  # "the beep is" stands in this order
    assert got.terms["meteor"] == meteor(text, REFERENCE)
    assert got.terms["style"] == pytest.approx(1 / 2**0.5)  # (1, 0) against the reference's (1, 1), not against the predicted style
    assert got.terms["length"] == pytest.approx(-np.log(2))  # four words against eight
    assert got.terms["copy"] == 0
    words = np.mean([got.terms[k] for k in ("rouge_1", "rouge_l", "meteor")])
    assert got.total == pytest.approx(words + 0.25 * got.terms["style"] + 0.1 * got.terms["length"])
    assert reward(REFERENCE, CONTEXT, REFERENCE).total > got.total


def test_without_a_reference_it_is_the_reference_free_reward():
    text = "The beep is loud, the handle!"
    assert reward(text, CONTEXT) == reference_free_reward(text, CONTEXT)
    only_style = {**dict.fromkeys(WEIGHTS, 0.0), "style": 1.0}
    assert reward(text, CONTEXT, weights=only_style).total == pytest.approx(1 / 2**0.5)


@pytest.mark.parametrize("reference", [None, REFERENCE])
def test_copying_costs_the_same_in_both(reference):
    copied = reward("the beep woke the house at six", CONTEXT, reference)
    assert copied.terms["copy"] == pytest.approx(-2 / 7)  # seven shared words, five of them free
    assert copied.weights["copy"] == 0.3


def test_repeating_costs():
    assert reference_free_reward("the beep the beep the beep", CONTEXT).terms["variety"] == pytest.approx(2 / 5)


@pytest.mark.parametrize("reference", [None, REFERENCE])
def test_an_empty_text_gets_minus_one(reference):
    assert reward(" \n ", CONTEXT, reference).total == -1


@pytest.mark.parametrize("reference", [None, REFERENCE])
def test_what_would_be_no_number_is_a_sentence(reference):
    broken = dataclasses.replace(CONTEXT, phi=lambda text: np.array([np.nan, 0.0]))
    with pytest.raises(ValueError, match=r"reward of 'loud' is not a number \(style = nan"):
        reward("loud", broken, reference)
    weights = WEIGHTS if reference is None else REFERENCE_WEIGHTS
    with pytest.raises(ValueError, match="copy"):
        reward("loud", CONTEXT, reference, {**weights, "copy": np.inf})


def test_a_length_that_is_none_is_a_sentence():
    with pytest.raises(ValueError, match="length = nan"):
        reward("loud", dataclasses.replace(CONTEXT, target_words=np.inf))


def test_weights_must_name_the_terms_and_the_reference_must_say_something():
    with pytest.raises(ValueError, match=r"weights name \['bleu'\]"):
        reward("loud", CONTEXT, REFERENCE, {"bleu": 1.0})
    with pytest.raises(ValueError, match="the reference is empty"):
        reward("loud", CONTEXT, " ")


texts = st.text(alphabet="ab !,.\n\u00e9\u4e2d", max_size=40)


@given(texts, texts.filter(lambda text: text.split()))
def test_rewards_are_finite_and_in_range(text, reference):
    for got in (reward(text, CONTEXT), reward(text, CONTEXT, reference)):
        assert all(-1 <= v <= 1 + 1e-9 for v in got.terms.values())
        assert -1 <= got.total <= 1.25 + 1e-9


def test_shared_runs_by_hand():
    assert longest_shared_run("A Beep, woke the cat", ("the beep woke the house",)) == 3
    assert copy_rate("", ("x",)) == 0 and copy_rate("woke the", ("she woke the cat",)) == 1
    assert variety("one") == 1


def test_cosine_of_nothing_is_zero():
    assert cosine(np.zeros(2), np.ones(2)) == 0
