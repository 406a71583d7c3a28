"""Which words two texts share with what the judge holds them against: the evidence for "sounds like this person", made visible.

A word counts when it carries content (``pat_core.points``), so that "the" and "was" do not light up. Leaves out how marks look.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable

from pat_core.points import content_words

Segments = list[list]  # [text, 0 or 1]: the whole text in order, marked parts apart

# Words that carry a text and not what it is about
_COMMON = frozenset("like every right put well second good got still away around another while because".split())
_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")


def marked(text: str, words: Collection[str]) -> Segments:
    """``text`` cut into segments; those that are one of ``words`` (lower case) are marked. Joined, they are ``text`` again."""
    found: Segments = []
    end = 0
    for match in _WORD.finditer(text):
        if match.group().lower() in words:
            if match.start() > end:
                found.append([text[end : match.start()], 0])
            found.append([match.group(), 1])
            end = match.end()
    if end < len(text):
        found.append([text[end:], 0])
    return found


def shared(text: str, others: Iterable[str]) -> frozenset[str]:
    """The content words of ``text`` that one of ``others`` has too."""
    return (content_words(text) - _COMMON) & frozenset().union(*(content_words(other) for other in others))
