"""Measures against a reference, by hand and against plain implementations."""

import os
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nltk import word_tokenize

from pat_core.metrics import NoSynonyms, cosine, meteor, meteor_matching, meteor_tokens, rouge_1, rouge_l, style_cosine, wordnet

words = st.lists(st.sampled_from(["a", "bed", "the", "beep", "was", "warm", "warmly", "beds", "6", "am"]), max_size=12)
sentences = words.map(" ".join)


def f_measure(hits: int, n_text: int, n_reference: int) -> float:
    return 2 * hits / (n_text + n_reference) if hits else 0.0  # 2PR / (P + R) with P = hits / n_text, R = hits / n_reference


def longest_subsequence(a: list[str], b: list[str]) -> int:
    if not (a and b):
        return 0
    if a[0] == b[0]:
        return 1 + longest_subsequence(a[1:], b[1:])
    return max(longest_subsequence(a[1:], b), longest_subsequence(a, b[1:]))


def test_rouge_by_hand():
    reference = "The cat sat on a mat."
    assert rouge_1("the cat, sat!", reference) == pytest.approx(2 / 3)  # precision 3/3, recall 3/6
    assert rouge_l("the cat, sat!", reference) == pytest.approx(2 / 3)
    assert rouge_1("sat the cat", reference) == pytest.approx(2 / 3)  # order does not count here
    assert rouge_l("sat the cat", reference) == pytest.approx(4 / 9)  # "the cat": precision 2/3, recall 2/6
    assert rouge_1("", reference) == rouge_l("", reference) == rouge_1("x", "") == 0


@given(words, words)
def test_rouge_against_plain_counting(text, reference):
    hits = sum((Counter(text) & Counter(reference)).values())
    a, b = " ".join(text), " ".join(reference)
    assert rouge_1(a, b) == pytest.approx(f_measure(hits, len(text), len(reference)))


@given(words.map(lambda w: w[:7]), words.map(lambda w: w[:7]))
def test_rouge_l_against_plain_recursion(text, reference):
    hits = longest_subsequence(text, reference)
    assert rouge_l(" ".join(text), " ".join(reference)) == pytest.approx(f_measure(hits, len(text), len(reference)))


def test_meteor_by_hand():
    # 3 matches in one chunk: P = 1, R = 1/2, F = PR / (.9 P + .1 R) = 10/19, penalty .5 (1/3)^3 = 1/54
    assert meteor("the cat sat", "the cat sat on a mat", NoSynonyms()) == pytest.approx(10 / 19 * 53 / 54)
    # the same words in two chunks: penalty .5 (2/3)^3 = 4/27
    assert meteor("sat the cat", "the cat sat on a mat", NoSynonyms()) == pytest.approx(10 / 19 * 23 / 27)
    assert meteor("beds", "bed", NoSynonyms()) == pytest.approx(0.5)  # one stem in one chunk: F = 1, penalty .5
    assert meteor("couch", "bed", NoSynonyms()) == meteor("", "bed") == meteor("bed", "") == 0


@dataclass(frozen=True)
class Word:
    text: str

    def name(self) -> str:
        return self.text


@dataclass(frozen=True)
class Meaning:
    words: tuple[Word, ...]

    def lemmas(self) -> tuple[Word, ...]:
        return self.words


class Furniture:
    """A thesaurus of one meaning, in WordNet's shape."""

    def synsets(self, word: str) -> tuple[Meaning, ...]:
        meaning = Meaning((Word("couch"), Word("sofa")))
        return (meaning,) if word in ("couch", "sofa") else ()


def test_meteor_takes_synonyms_from_a_thesaurus():
    assert meteor("a couch", "a sofa", Furniture()) == pytest.approx(1 - 0.5 / 8)  # two matches, one chunk
    assert meteor("a couch", "a sofa", NoSynonyms()) < 0.5


def test_the_report_says_what_meteor_matches():
    assert ("no WordNet" in meteor_matching()) == (wordnet() is None)
    assert meteor("the bed was warm", "a warm bed") > 0  # with or without the data


def test_wordnet_data_that_is_not_whole_is_told_and_not_used(tmp_path):
    (tmp_path / "corpora" / "wordnet").mkdir(parents=True)
    code = "from pat_core.metrics import meteor, meteor_matching; print(meteor_matching(), meteor('beds', 'bed'))"
    environment = {**os.environ, "NLTK_DATA": str(tmp_path)}  # comes before every other place
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[0] == "equal words and stems (no WordNet data) 0.5"
    assert "cannot be read and is not used" in done.stderr


@given(sentences, sentences)
def test_measures_stay_in_range_and_know_themselves(a, b):
    assert 0 <= meteor(a, b, NoSynonyms()) < 1
    assert rouge_1(a, b) == pytest.approx(rouge_1(b, a)) and 0 <= rouge_l(a, b) <= rouge_1(a, b) + 1e-9
    if a:
        assert rouge_1(a, a) == rouge_l(a, a) == 1 and meteor(a, a, NoSynonyms()) >= 0.5


def test_tokens_are_nltk_words_without_its_sentence_model():
    sentence = "It's $5, isn't it (or 6)?"
    assert meteor_tokens(sentence) == word_tokenize(sentence, preserve_line=True)
    assert meteor_tokens("Loud. Very loud!") == ["Loud", ".", "Very", "loud", "!"]


def test_style_similarity_is_the_cosine_of_phi():
    def phi(text: str) -> np.ndarray:
        return np.array([text.count("!"), text.count(",") - 1], float)

    assert style_cosine("!", "!,", phi) == pytest.approx(1 / 2**0.5)  # (1, -1) against (1, 0)
    assert style_cosine(",", "!", phi) == 0  # a style without any deviation has no direction
    assert cosine(np.array([1.0, 1.0]), np.array([-2.0, -2.0])) == pytest.approx(-1)
    assert np.isnan(cosine(np.array([np.nan]), np.array([1.0])))
