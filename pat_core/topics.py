"""Topic trajectory: what others wrote on this topic and, where too few did, on topics farther and farther away (method, section 2).

Level 0 reviews of the same topic; level 1 of topics that the same people reviewed; level 2 of topics near in meaning; level 3 any review
near the question. Within a level BM25 and meaning are fused by reciprocal rank, then aligned with the person's ratings. Leaves out style.
"""

from __future__ import annotations

import difflib
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pat_core.bm25 import BM25
from pat_core.cleaning import same_words
from pat_core.corpus import Corpus
from pat_core.embed import Embedder, encode_cached
from pat_core.index import VectorIndex, unit_rows
from pat_core.labels import content_words, stem
from pat_core.progress import Progress
from pat_core.types import Neighbor, Query, Review

N_LEVELS = 4
K1 = 1.2  # of BM25: Robertson's value, for short texts
RRF = 60  # reciprocal rank fusion, 1 / (RRF + rank): Cormack, Clarke and Buettcher, SIGIR 2009
ALIGNMENT_WEIGHT = 0.5  # of the alignment ranking, against 1 for BM25 and 1 for meaning: who agrees matters less than what is said
NEAR_TOPICS = 10  # topics of level 2
NEAR_TOPIC_COSINE = 0.4  # 9 of 10 pairs of topics are less alike than this, by the embedded model
NEAR_REVIEWS = 60  # candidates of level 3 from each of BM25 and meaning
CLOSE_COSINE = 0.5  # from here on a card says that the meaning is close
LABEL_RATIO = 0.85  # likeness of two topic names that are the same but for spelling


@dataclass(frozen=True, slots=True)
class _Question:
    """A query with what every level needs of it. ``vector`` (d,) is its meaning; ``bm25`` (n,) and ``cosine`` (n,) score every review."""

    query: Query
    words: frozenset[str]
    topic_vector: np.ndarray
    vector: np.ndarray
    bm25: np.ndarray
    cosine: np.ndarray
    allowed: np.ndarray  # (n,) not the person's own, not held out
    agreement: dict[str, tuple[float, int]]  # other user -> mean agreement in [-1, 1], number of shared topics


class TopicSearch:
    """Finds topic neighbors in one corpus. Making it embeds every review, once for each data and model (cached in ``cache_dir``)."""

    def __init__(self, corpus: Corpus, embedder: Embedder, cache_dir: Path, progress: Progress | None = None) -> None:
        self.corpus, self.embedder = corpus, embedder
        self.reviews = corpus.reviews
        self._row = {review.review_id: i for i, review in enumerate(self.reviews)}
        self._rows_of_topic: dict[str, list[int]] = defaultdict(list)
        for i, review in enumerate(self.reviews):
            self._rows_of_topic[review.topic_id].append(i)
        self._topic_ids = list(self._rows_of_topic)
        self._number = {topic_id: i for i, topic_id in enumerate(self._topic_ids)}
        self._topic_of_row = np.array([self._number[review.topic_id] for review in self.reviews])
        vectors = encode_cached(embedder, [review_text(review) for review in self.reviews], cache_dir, progress)
        self._index = VectorIndex(vectors, cache_dir, progress)
        names = encode_cached(embedder, [corpus.topics[topic_id] for topic_id in self._topic_ids], cache_dir, progress)
        topics = zip(self._rows_of_topic.values(), unit_rows(names), strict=True)
        topic_vectors = [self._topic_vector(rows, name) for rows, name in topics]
        self._topic_index = VectorIndex(np.stack(topic_vectors), cache_dir, progress)
        self._bm25 = BM25([_tokens(review_text(review)) for review in self.reviews], K1)
        self._by_label = {same_words(corpus.topics[topic_id]): topic_id for topic_id in reversed(self._topic_ids)}

    def neighbors(self, query: Query, k: int = 4) -> tuple[Neighbor, ...]:
        """Up to ``k`` reviews by others, of the lowest levels that have them, best first within a level.

        A score is the fused rank in its level, 1 = first by every ranking. No author has a second one before every other author of the
        level has one. Raises ValueError for a topic id that the corpus does not have, and for k < 1.
        """
        if k < 1:
            raise ValueError(f"k must be at least 1, not {k}")
        question = self._question(query)
        chosen: list[Neighbor] = []
        authors: Counter[str] = Counter()
        for level, rows in enumerate(self._levels(question)):
            ranked = self._ranked(question, rows)
            for row, score in _fair(ranked, [self.reviews[row].user_id for row, _ in ranked], authors)[: k - len(chosen)]:
                authors[self.reviews[row].user_id] += 1
                chosen.append(self._neighbor(question, row, score, level))
            if len(chosen) == k:
                break
        return tuple(chosen)

    def levels(self, query: Query, limit: int = 20) -> tuple[tuple[Neighbor, ...], ...]:
        """The best ``limit`` candidates of each of the four levels, whether or not ``neighbors`` would go down to it."""
        question = self._question(query)
        return tuple(
            tuple(self._neighbor(question, row, score, level) for row, score in self._ranked(question, rows)[:limit])
            for level, rows in enumerate(self._levels(question))
        )

    def match_topic(self, text: str) -> str:
        """The topic that a person means by these words: its id, its name, its name misspelt, or words of one name only; else ''."""
        if text in self._rows_of_topic:
            return text
        words = same_words(text)
        if not words:
            return ""
        if words in self._by_label:
            return self._by_label[words]
        near = difflib.get_close_matches(words, self._by_label, n=1, cutoff=LABEL_RATIO)
        if near:
            return self._by_label[near[0]]
        wanted = set(words.split())
        holding = [topic_id for label, topic_id in self._by_label.items() if len(wanted) > 1 and wanted <= set(label.split())]
        return holding[0] if len(holding) == 1 else ""

    def _question(self, query: Query) -> _Question:
        if query.topic_id and query.topic_id not in self._rows_of_topic:
            unknown = f"no topic has the id {query.topic_id!r} in {self.corpus.name}"
            raise ValueError(f"{unknown}; choose one from the list, or enter the topic as free text")
        text = f"{query.title}. {query.topic}".strip(". ")
        vector, label = unit_rows(self.embedder.encode([text, query.topic or text]))
        tokens = _tokens(text)
        allowed = self._allowed(query)
        rows = [row for row in self._rows_of_topic.get(query.topic_id, ()) if allowed[row]]
        return _Question(
            query=query,
            words=frozenset(tokens),
            topic_vector=self._topic_vector(rows, label),
            vector=vector,
            bm25=self._bm25.scores(tokens),
            cosine=self._index.vectors @ vector,
            allowed=allowed,
            agreement=self._agreement(query, allowed),
        )

    def _allowed(self, query: Query) -> np.ndarray:
        """(n,) False for the person's own reviews and for those held out."""
        own = self.corpus.by_user.get(query.user_id, ()) if query.user_id else ()
        barred = [self._row[review_id] for review_id in {*query.held_out, *(r.review_id for r in own)} if review_id in self._row]
        allowed = np.ones(len(self.reviews), bool)
        allowed[barred] = False
        return allowed

    def _topic_vector(self, rows: Sequence[int], label: np.ndarray) -> np.ndarray:
        """(d,) mean of the reviews' vectors, and of the topic's name with the weight of all of them."""
        reviews = self._index.vectors[list(rows)].mean(axis=0) if rows else 0
        return unit_rows(reviews + label)[0]

    def _levels(self, question: _Question) -> Iterator[list[int]]:
        """Rows allowed of levels 0 to 3; a review is in one level only. Each level is made when it is asked for."""
        seen_topics = {question.query.topic_id}
        yield self._allowed_rows(question, seen_topics)
        joined = self._joined_topics(question)
        yield self._allowed_rows(question, joined)
        seen_topics |= joined
        near = self._near_topics(question, seen_topics)
        yield self._allowed_rows(question, near)
        yield self._near_reviews(question, seen_topics | near)

    def _allowed_rows(self, question: _Question, topic_ids: set[str]) -> list[int]:
        rows = (row for topic_id in topic_ids for row in self._rows_of_topic.get(topic_id, ()))
        return sorted(row for row in rows if question.allowed[row])

    def _joined_topics(self, question: _Question) -> set[str]:
        """Other topics reviewed by the people who reviewed this one."""
        query = question.query
        people = {self.reviews[row].user_id for row in self._rows_of_topic.get(query.topic_id, ()) if question.allowed[row]}
        return {review.topic_id for user_id in people for review in self.corpus.by_user[user_id]} - {query.topic_id}

    def _near_topics(self, question: _Question, seen: set[str]) -> set[str]:
        unseen = ~np.isin(np.arange(len(self._topic_ids)), self._numbers(seen))
        ids, cosines = self._topic_index.search(question.topic_vector, NEAR_TOPICS, allowed=unseen)
        return {self._topic_ids[i] for i, cosine in zip(ids[0], cosines[0], strict=True) if cosine >= NEAR_TOPIC_COSINE}

    def _near_reviews(self, question: _Question, seen: set[str]) -> list[int]:
        left = question.allowed & ~np.isin(self._topic_of_row, self._numbers(seen))
        ids, _ = self._index.search(question.vector, NEAR_REVIEWS, allowed=left)
        bm25 = np.where(left, question.bm25, 0)
        best = np.argsort(-bm25, kind="stable")[:NEAR_REVIEWS]
        return sorted({int(row) for row in ids[0]} | {int(row) for row in best if bm25[row] > 0})

    def _numbers(self, topic_ids: set[str]) -> list[int]:
        return [self._number[topic_id] for topic_id in topic_ids if topic_id in self._number]

    def _ranked(self, question: _Question, rows: list[int]) -> list[tuple[int, float]]:
        """(row, fused score in (0, 1]) of these rows, best first, ties in file order."""
        if not rows:
            return []
        alignment = np.array([self._alignment(question, self.reviews[row]) for row in rows])
        parts = ((question.bm25[rows], 1.0), (question.cosine[rows], 1.0), (alignment, ALIGNMENT_WEIGHT))
        fused = sum(weight / (RRF + _ranks(scores)) for scores, weight in parts)
        fused = fused * (RRF + 1) / sum(weight for _, weight in parts)
        order = np.argsort(-fused, kind="stable")
        return [(rows[i], float(fused[i])) for i in order]

    def _agreement(self, query: Query, allowed: np.ndarray) -> dict[str, tuple[float, int]]:
        """For everyone who rated a topic of the person's history: 1 - |difference| / 2, in [-1, 1], over the shared topics."""
        shared: dict[str, dict[str, float]] = defaultdict(dict)
        for own in query.history:
            for row in self._rows_of_topic.get(own.topic_id, ()):
                review = self.reviews[row]
                if own.rating is not None and review.rating is not None and allowed[row]:
                    shared[review.user_id][own.topic_id] = 1 - abs(own.rating - review.rating) / 2
        return {user_id: (sum(topics.values()) / len(topics), len(topics)) for user_id, topics in shared.items()}

    def _alignment(self, question: _Question, review: Review) -> float:
        """[-1, 1]: the author's agreement with the person on shared topics and the rating's nearness to the stated one; 0 = not known."""
        parts = []
        if review.user_id in question.agreement:
            parts.append(question.agreement[review.user_id][0])
        if question.query.rating is not None and review.rating is not None:
            parts.append(1 - abs(question.query.rating - review.rating) / 2)
        return sum(parts) / len(parts) if parts else 0.0

    def _neighbor(self, question: _Question, row: int, score: float, level: int) -> Neighbor:
        return Neighbor("topic", self.reviews[row], min(1.0, score), self._why(question, row, level), level)

    def _why(self, question: _Question, row: int, level: int) -> tuple[str, ...]:
        review, query = self.reviews[row], question.query
        shared = self._shared_words(question, review)
        is_near = shared or question.cosine[row] >= NEAR_TOPIC_COSINE
        last = "a review near your words" if is_near else "nothing is near; the closest there is"
        why = [("same topic", "a topic the same people reviewed", "a topic near in meaning", last)[level]]
        if review.rating is not None and review.rating == query.rating:
            why.append(f"rated {review.rating:g} like you")
        agreement, n_shared = question.agreement.get(review.user_id, (0.0, 0))
        if agreement >= 0.5:
            why.append(f"agrees with you on {n_shared} topic{'s' if n_shared > 1 else ''}")
        if shared:
            why.append("shares: " + ", ".join(shared))
        elif question.cosine[row] >= CLOSE_COSINE:
            why.append("close in meaning")
        return tuple(why)

    def _shared_words(self, question: _Question, review: Review) -> list[str]:
        """At most three words of the review that the question has too, the rarest first."""
        spelled: dict[str, str] = {}
        for word in content_words(review_text(review)):
            if stem(word) in question.words:
                spelled.setdefault(stem(word), word)
        return [spelled[s] for s in sorted(spelled, key=lambda s: (self._bm25.n_using[s], s))[:3]]


def review_text(review: Review) -> str:
    """What is searched and embedded of a review."""
    return f"{review.title}. {review.text}".strip(". ") or review.topic


def _tokens(text: str) -> list[str]:
    return [stem(word) for word in content_words(text)]


def _ranks(scores: np.ndarray) -> np.ndarray:
    """Rank from 1, highest first; equal scores share the best rank among them."""
    rounded = np.round(scores.astype(np.float64), 6)  # float32 products differ in the last digit between batch sizes
    return 1 + np.searchsorted(np.sort(-rounded), -rounded, side="left")


def _fair(ranked: list[tuple[int, float]], authors: list[str], already: Counter[str]) -> list[tuple[int, float]]:
    """The ranked rows so that every author's first comes before anyone's second, counting what they have already."""
    nth = Counter(already)
    turns = []
    for position, author in enumerate(authors):
        turns.append((nth[author], position))
        nth[author] += 1
    return [ranked[position] for _, position in sorted(turns)]
