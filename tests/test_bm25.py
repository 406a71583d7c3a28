"""BM25 against a direct implementation of its formula and a value by hand."""

import logging
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pat_core.bm25 import BM25, B

DOCUMENTS = st.lists(st.lists(st.sampled_from("abcdef"), max_size=8), min_size=1, max_size=6)


def by_the_formula(asked: list[str], documents: list[list[str]], k1: float) -> list[float]:
    """The sum over the words asked of ln(1 + (n - m + .5) / (m + .5)) times / (times + k1 (1 - B + B words / mean words))."""
    mean = sum(map(len, documents)) / len(documents)
    scores = []
    for document in documents:
        score = 0.0
        for word in asked:
            times, using = document.count(word), sum(word in d for d in documents)
            if times:
                idf = math.log(1 + (len(documents) - using + 0.5) / (using + 0.5))
                score += idf * times / (times + k1 * (1 - B + B * len(document) / mean))
        scores.append(score)
    return scores


@given(DOCUMENTS, st.lists(st.sampled_from("abcdeg"), max_size=5), st.sampled_from([1.2, 1.5]))
def test_scores_are_those_of_the_formula(documents, asked, k1):
    assert BM25(documents, k1).scores(asked) == pytest.approx(by_the_formula(asked, documents, k1), abs=1e-5)


def test_by_hand():
    """2 and 4 words, mean 3; "a" is in one document: idf = ln(1 + 1.5 / 1.5), once in 2 words: 1 / (1 + 1.5 (.25 + .75 * 2/3))."""
    assert BM25([["a", "b"], ["b", "c", "d", "e"]], 1.5).scores(["a", "z"]) == pytest.approx([math.log(2) / (1 + 1.5 * 0.75), 0])


def test_the_library_says_nothing_while_it_counts():
    BM25([["a"]], 1.5)
    assert logging.getLogger("bm25s").getEffectiveLevel() >= logging.WARNING
