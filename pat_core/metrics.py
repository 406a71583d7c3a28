"""What can be measured of a text: by itself (words, variety), against its sources (copying), against a reference (ROUGE, METEOR, style).

ROUGE and METEOR are computed as in the benchmarks' own evaluation (rouge-score without stemming; NLTK's METEOR on NLTK's word tokens), so
that figures compare. The synonyms of METEOR need WordNet's data; where it is not installed, ``meteor_matching`` says that they are left
out. Leaves out judgments by people or models.
"""

from __future__ import annotations

import itertools
import logging
import re
from collections.abc import Callable, Sequence
from functools import cache
from typing import TYPE_CHECKING, Protocol
from zipfile import BadZipFile

import numpy as np

from pat_core.stylometry import words_of

if TYPE_CHECKING:
    from rouge_score.rouge_scorer import RougeScorer

log = logging.getLogger(__name__)

_AFTER_SENTENCE = re.compile(r"(?<=[.!?])\s+")


class Lemma(Protocol):
    def name(self) -> str: ...


class Synset(Protocol):
    def lemmas(self) -> Sequence[Lemma]: ...


class Synonyms(Protocol):
    """A thesaurus as METEOR asks it: the meanings of a word, each with the words that share it. NLTK's WordNet reader is one."""

    def synsets(self, word: str) -> Sequence[Synset]: ...


class NoSynonyms:
    """The thesaurus that knows no word: METEOR then matches equal words and equal stems."""

    def synsets(self, word: str) -> Sequence[Synset]:
        return ()


def n_words(text: str) -> int:
    return len(text.split())


def variety(text: str) -> float:
    """Distinct bigrams over bigrams in [0, 1] (distinct-2, arXiv 1510.03055); 1 for fewer than two words."""
    words = words_of(text)
    pairs = list(itertools.pairwise(words))
    return len(set(pairs)) / len(pairs) if pairs else 1.0


def longest_shared_run(text: str, sources: Sequence[str]) -> int:
    """Words in the longest run of ``text`` that also stands in one of ``sources``; case and punctuation do not count."""
    words = words_of(text)
    return max((_longest_common_run(words, words_of(source)) for source in sources), default=0)


def copy_rate(text: str, sources: Sequence[str]) -> float:
    """``longest_shared_run`` over the words of ``text``, in [0, 1]; 0 for an empty text."""
    n = len(words_of(text))
    return longest_shared_run(text, sources) / n if n else 0.0


def _longest_common_run(a: list[str], b: list[str]) -> int:
    best, ending = 0, [0] * (len(b) + 1)
    for word in a:
        row = [0] * (len(b) + 1)
        for j, other in enumerate(b, 1):
            if word == other:
                row[j] = ending[j - 1] + 1
        best = max(best, max(row))
        ending = row
    return best


def rouge_1(text: str, reference: str) -> float:
    """F measure of shared words in [0, 1] (ROUGE-1, aclanthology W04-1013), by rouge-score without stemming.

    Only a-z and 0-9 count, as in rouge-score: texts in other scripts score 0.
    """
    return float(_rouge().score(reference, text)["rouge1"].fmeasure)


def rouge_l(text: str, reference: str) -> float:
    """F measure of the longest common subsequence of words in [0, 1] (ROUGE-L, aclanthology W04-1013), words as in ``rouge_1``."""
    return float(_rouge().score(reference, text)["rougeL"].fmeasure)


@cache
def _rouge() -> RougeScorer:
    from rouge_score.rouge_scorer import RougeScorer  # takes seconds to import, and only training and evaluation need it

    return RougeScorer(["rouge1", "rougeL"], use_stemmer=False)


def meteor(text: str, reference: str, synonyms: Synonyms | None = None) -> float:
    """METEOR in [0, 1) by NLTK (alpha .9, beta 3, gamma .5; Lavie and Agarwal 2007): recall counts nine times, broken order costs.

    Words match that are equal, share a stem, or are ``synonyms``: WordNet unless given, none where its data is not installed.
    """
    from nltk.translate.meteor_score import single_meteor_score

    if synonyms is None:
        synonyms = NoSynonyms() if wordnet() is None else wordnet()
    return float(single_meteor_score(meteor_tokens(reference), meteor_tokens(text), wordnet=synonyms))


def meteor_tokens(text: str) -> list[str]:
    """Words and punctuation marks by NLTK's word tokenizer; a sentence ends at . ! or ? before a space, which needs no trained model."""
    from nltk.tokenize import NLTKWordTokenizer

    return [token for sentence in _AFTER_SENTENCE.split(text) for token in NLTKWordTokenizer().tokenize(sentence)]


@cache
def wordnet() -> Synonyms | None:
    """NLTK's WordNet, or None where its data is not installed whole (``python -m nltk.downloader wordnet`` installs it)."""
    from nltk.corpus import wordnet as reader

    try:
        reader.synsets("word")  # the data is read at the first question
    except LookupError:
        return None
    except (OSError, BadZipFile) as error:
        log.warning("WordNet's data cannot be read and is not used: %s", error)
        return None
    return reader


def meteor_matching() -> str:
    """What METEOR matches on this machine, in words for a report."""
    return "equal words, stems and WordNet synonyms" if wordnet() else "equal words and stems (no WordNet data)"


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    """Cosine of two vectors in [-1, 1]; 0 where either has no length."""
    scale = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(np.clip(a @ b / scale, -1, 1)) if scale else 0.0


def style_cosine(text: str, reference: str, phi: Callable[[str], np.ndarray]) -> float:
    """Style similarity of two texts: the cosine of their standardized style features ``phi`` (d,), in [-1, 1]; 0 for an average style."""
    return cosine(phi(text), phi(reference))
