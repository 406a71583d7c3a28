"""Constructed gold: a text spoiled so that it has to lose, whatever one's taste: it tells care from carelessness.

Four ways in turn: cut off in the middle of a word, about another topic, its words in disorder, a reference copied whole. Never an opinion.
"""

from __future__ import annotations

import random

from annotate.schedule import CHECK_SYSTEM
from annotate.types import Candidate, Item
from pat_core.points import content_words
from pat_core.types import Query, Trace

GOLD_WORDS = 12  # a text has to have so many before it is worth spoiling


class Spoiler:
    """Makes texts that have to lose, the ways in turn; remembers earlier texts to use them where they do not belong."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._elsewhere: list[tuple[Query, str]] = []
        self._ways = {"truncated": self._truncated, "topic": self._off_topic, "words": self._shuffled, "copy": self._copied}
        self._turn = rng.sample(sorted(self._ways), len(self._ways))

    def remember(self, query: Query, text: str) -> None:
        self._elsewhere.append((query, text))

    def spoiled(self, good: Candidate, item: Item, trace: Trace) -> tuple[str, Candidate] | None:
        """What is wrong with it, and a text that has to lose against ``good``; None where no way fits.

        The good text has to be long enough and speak of its topic: only then is the answer no matter of taste.
        """
        if len(good.text.split()) < GOLD_WORDS or not content_words(good.text) & _about(trace.query):
            return None
        for way in tuple(self._turn):
            text = self._ways[way](good.text, item, trace)
            if text and text.split() != good.text.split():
                self._turn.remove(way)
                self._turn.append(way)
                made_of = {"spoiled": way, "from": good.candidate_id}
                return way, Candidate(item.item_id, text, f"{CHECK_SYSTEM}-{way}", made_of)
        return None

    def _truncated(self, good: str, item: Item, trace: Trace) -> str:
        """The good text up to the middle of a word."""
        words = good.split()
        at = next((i for i in range(len(words) // 3, 2 * len(words) // 3) if len(words[i]) >= 5 and words[i][:3].isalpha()), 0)
        return " ".join([*words[:at], words[at][:3]]) if at else ""

    def _off_topic(self, good: str, item: Item, trace: Trace) -> str:
        """An earlier text that names its own topic and says no word of this one's name and title."""
        for query, text in reversed(self._elsewhere):
            said = content_words(text)
            if said & content_words(query.topic) and not said & _about(trace.query) and len(text.split()) >= GOLD_WORDS:
                return text
        return ""

    def _shuffled(self, good: str, item: Item, trace: Trace) -> str:
        """The words of the good text in disorder."""
        words = good.split()
        return " ".join(self._rng.sample(words, len(words)))

    def _copied(self, good: str, item: Item, trace: Trace) -> str:
        """A whole text from the reference, word for word, about something else."""
        shown = {*item.reference["samples"], *item.reference["neighbors"]}
        texts = (*trace.query.history, *(n.review for n in trace.style_neighbors))
        other = [r.text for r in texts if r.text in shown and r.topic_id != trace.query.topic_id and len(r.text.split()) >= GOLD_WORDS]
        return other[0] if other else ""


def _about(query: Query) -> frozenset[str]:
    return content_words(f"{query.topic} {query.title}")
