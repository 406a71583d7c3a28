"""What can be counted in a text: words, variety, how much is copied. Measures against a reference join here with the evaluation."""

from __future__ import annotations

from collections.abc import Sequence

from pat_core.stylometry import words_of


def n_words(text: str) -> int:
    return len(text.split())


def variety(text: str) -> float:
    """Distinct bigrams over bigrams in [0, 1] (distinct-2, arXiv 1510.03055); 1 for fewer than two words."""
    words = words_of(text)
    pairs = list(zip(words, words[1:], strict=False))
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
