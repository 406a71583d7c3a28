"""The user-topic graph: to look at (networkx), and to find people who write as somebody would (method: style trajectory).

``StyleGraph`` predicts phi of the text asked for with ``style_net`` and takes the people whose own phi lies nearest, as a set: each next one is
the one that brings the mean of the chosen nearest to the prediction. A visitor is a node with an edge to the topic; samples and history add
edges, a statement of taste sets features of the prediction. Leaves out what to say: that is ``topics``.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import networkx as nx
import numpy as np

from pat_core.cache import facts_key, is_whole, save_folder
from pat_core.corpus import Corpus
from pat_core.cues import CLAIMS, LENGTH_SLACK, cue_phrases, holds
from pat_core.index import VectorIndex
from pat_core.progress import Progress
from pat_core.stylometry import COLUMN, StyleScale, features, statement_cues
from pat_core.types import Neighbor, Query, Review

if TYPE_CHECKING:
    from pat_core.style_net import Batch, ReviewTable, StyleNet

CODE = ("stylometry.py", "style_net.py")  # their sources are part of the cache key: what they make changes when they do
POOL, POOL_SHARE = 100, 0.1  # the set is chosen among this share of the people, the nearest: at most 100, at least twice as many as asked for
MAX_WHY = 3
SURE_Z = 0.1  # a prediction nearer to the mean than this says nothing about a feature
WISH_WEIGHT = 2.0  # of what is asked for in words beside a prediction that fills a hundred features
RATING_WEIGHT = 3.0  # of the rating beside the title's phi, which is several units long
MAX_NODES = 30  # of the picture
CHUNK = 16  # queries predicted at once: each brings a copy of its topic

_CLAIM_OF = {claim.phrase: claim for claim in CLAIMS}
_COLUMN_OF_CLAIM = {"words": "log_words", "sentence_words": "log_sentence_words", "any_contractions": "contractions", "breaks": "log_breaks"}


def user_topic_graph(corpus: Corpus) -> nx.Graph:
    """Users and topics as nodes ("user", id) and ("topic", id) with ``kind`` and ``label``; an edge for each pair with its ``reviews``."""
    graph = nx.Graph()
    for review in corpus.reviews:
        _add_review(graph, review)
    return graph


def visitor_subgraph(corpus: Corpus, query: Query, style: Sequence[Neighbor] = (), topic: Sequence[Neighbor] = ()) -> nx.Graph:
    """The part of the graph around a query: the visitor, the topic asked about, their history, the neighbors and what those reviewed.

    Nodes carry ``kind`` (visitor, user, topic), ``label`` and ``score`` (best score of a neighbor, 0 for others); at most ``MAX_NODES`` nodes.
    """
    graph = nx.Graph()
    visitor, asked = ("visitor", query.user_id), ("topic", query.topic_id)
    graph.add_node(visitor, kind="visitor", label=query.user_id or "you", score=1.0)
    graph.add_node(asked, kind="topic", label=query.topic, score=1.0)
    graph.add_edge(visitor, asked, reviews=())
    for review in query.history[: MAX_NODES // 3]:
        _add_topic(graph, review)
        graph.add_edge(visitor, ("topic", review.topic_id), reviews=(review.review_id,))
    found = sorted((*style, *topic), key=lambda n: -n.score)
    for neighbor in found:
        if len(graph) + 2 <= MAX_NODES or ("user", neighbor.review.user_id) in graph:
            _add_review(graph, neighbor.review, neighbor.score)
    for neighbor in found:  # what else they reviewed shows how they hang together; the round of first topics is drawn before
        for review in corpus.by_user.get(neighbor.review.user_id, ()):
            is_known = ("topic", review.topic_id) in graph
            if review.review_id not in query.held_out and (is_known or len(graph) < MAX_NODES) and ("user", review.user_id) in graph:
                _add_review(graph, review)
    return graph


def _add_topic(graph: nx.Graph, review: Review) -> None:
    node = ("topic", review.topic_id)
    if node not in graph:
        graph.add_node(node, kind="topic", label=review.topic, score=0.0)


def _add_review(graph: nx.Graph, review: Review, score: float = 0.0) -> None:
    user, topic = ("user", review.user_id), ("topic", review.topic_id)
    if user not in graph:
        graph.add_node(user, kind="user", label=review.user_id, score=score)
    _add_topic(graph, review)
    known = graph.edges[user, topic]["reviews"] if graph.has_edge(user, topic) else ()
    graph.add_edge(user, topic, reviews=known if review.review_id in known else (*known, review.review_id))


@dataclass(frozen=True)
class Measured:
    """``features`` of every review's text and title, (n, d) each, in the order of the corpus."""

    texts: np.ndarray
    titles: np.ndarray

    @staticmethod
    def of(corpus: Corpus, progress: Progress | None = None) -> Measured:
        step = 500
        texts, titles = [], []
        for start in range(0, len(corpus.reviews), step):
            part = corpus.reviews[start : start + step]
            texts.append(features([r.text for r in part]))
            titles.append(features([r.title for r in part]))
            if progress:
                progress("Measuring styles", start + len(part), len(corpus.reviews))
        return Measured(np.concatenate(texts), np.concatenate(titles))


class StyleGraph:
    """A corpus, its styles in numbers and the net trained on them. Not changed by queries; ``scale`` is that of the texts."""

    def __init__(self, corpus: Corpus, measured: Measured, net: StyleNet | None = None, seed: int = 0, progress: Progress | None = None) -> None:
        """Trains a net where none is given. ValueError for a corpus without reviews."""
        if not corpus.reviews:
            raise ValueError("a style graph needs at least one review")
        from pat_core.style_net import train_net  # torch_geometric takes seconds to load

        self.corpus, self.measured = corpus, measured
        self.scale = StyleScale.fit(measured.texts)
        self._title_scale = StyleScale.fit(measured.titles)
        self._phi = self.scale.standardize(measured.texts)
        self._row = {review.review_id: i for i, review in enumerate(corpus.reviews)}
        self.rows_of_user = _rows_by(r.user_id for r in corpus.reviews)
        self.rows_of_topic = _rows_by(r.topic_id for r in corpus.reviews)
        categories = _rows_by(r.category for r in corpus.reviews)
        self._category_sums = {name: (self._phi[rows].sum(axis=0), len(rows)) for name, rows in categories.items()}
        rated = [r.rating for r in corpus.reviews if r.rating is not None]
        self._rating_shares = _rating_steps(rated).mean(axis=0) if rated else np.full(5, 0.2)
        self._edges = np.hstack([self._title_phi([r.title for r in corpus.reviews], measured.titles), self._ratings([r.rating for r in corpus.reviews])])
        self._net = net or train_net(self._table(), seed, progress)
        styles = np.stack([self._phi[rows].mean(axis=0) for rows in self.rows_of_user.values()])
        distinct = np.linalg.norm(styles, axis=1) > 1e-6  # who writes exactly like the average has no direction
        self.users = tuple(u for u, keep in zip(self.rows_of_user, distinct, strict=True) if keep)
        self._index = VectorIndex(styles[distinct]) if self.users else None

    @property
    def user_vectors(self) -> np.ndarray:
        """(n_users, d) float32, rows of length 1 in the order of ``users``: the mean phi of each."""
        return self._index.vectors if self._index else np.zeros((0, self._phi.shape[1]), np.float32)

    def phi(self, text: str) -> np.ndarray:
        """phi of a text (d,) on the scale of this corpus."""
        return self.scale.phi_of(text)

    def predict_phi(self, query: Query) -> np.ndarray:
        """The expected phi (d,) of the text asked for; nothing held out and nothing else by its user than the history is looked at."""
        return self.predict((query,))[0]

    def predict_words(self, query: Query) -> float:
        """The expected number of words of the text asked for."""
        return self.scale.words(self.predict_phi(query))

    def embed_query(self, query: Query) -> np.ndarray:
        """The direction in which neighbors are sought: ``predict_phi`` at length 1, (d,) float32."""
        return _unit(self.predict_phi(query))

    def predict(self, queries: Sequence[Query]) -> np.ndarray:
        """``predict_phi`` of each query, float32 (q, d)."""
        import torch

        predicted = []
        with torch.inference_mode():
            for start in range(0, len(queries), CHUNK):
                predicted.append(self._net(self._batch(queries[start : start + CHUNK])).numpy())
        found = np.concatenate(predicted) if predicted else np.zeros((0, self._phi.shape[1]), np.float32)
        for vector, query in zip(found, queries, strict=True):
            for feature, wish in self._wishes(query).items():
                vector[COLUMN[feature]] = wish
        return found

    def neighbors(self, query: Query, k: int = 8) -> tuple[Neighbor, ...]:
        """Up to ``k`` reviews by people who write as this person would, nearest person first; never the user, never a held-out review.

        ``score`` is the cosine of a person's mean phi and the prediction. Nobody is quoted twice before everybody has been once. ValueError for
        k < 1.
        """
        if k < 1:
            raise ValueError(f"k must be at least 1, not {k}")
        predicted = self.predict_phi(query)
        return self._described(query, predicted, self.choose(query, predicted, k))

    def choose(self, query: Query, direction: np.ndarray, k: int = 8) -> list[int]:
        """Rows of the corpus whose mean phi points along ``direction`` (d,), chosen one by one, one for each of the nearest people first."""
        rows = self._candidates(query, direction, max(2 * k, min(POOL, int(POOL_SHARE * len(self.users)))))
        unit = _unit(direction)
        total, chosen = np.zeros_like(unit), []
        quoted: dict[str, int] = defaultdict(int)
        users = np.array([self.corpus.reviews[row].user_id for row in rows])
        left = np.ones(len(rows), bool)
        while left.any() and len(chosen) < k:
            times = np.array([quoted[user] for user in users])
            open_ = np.flatnonzero(left & (times == times[left].min()))
            sums = total + self._phi[rows[open_]]
            best = open_[int(np.argmax(sums @ unit / np.maximum(np.linalg.norm(sums, axis=1), 1e-9)))]
            total += self._phi[rows[best]]
            quoted[users[best]] += 1
            left[best] = False
            chosen.append(int(rows[best]))
        return chosen

    def nearest(self, query: Query, direction: np.ndarray, k: int = 8) -> list[int]:
        """As ``choose``, but the nearest people one by one, each with their nearest review: the plain search, for comparison."""
        rows = self._candidates(query, direction, k)
        best: dict[str, int] = {}
        for row in rows[np.argsort(-(self._phi[rows] @ direction) / np.maximum(np.linalg.norm(self._phi[rows], axis=1), 1e-9), kind="stable")]:
            best.setdefault(self.corpus.reviews[row].user_id, int(row))
        return list(best.values())[:k]

    def allowed_users(self, query: Query) -> np.ndarray:
        """Mask over ``users``: not the asker, nobody who wrote something held out."""
        barred = {query.user_id} | {self.corpus.reviews[self._row[i]].user_id for i in query.held_out if i in self._row}
        return np.array([user not in barred for user in self.users], dtype=bool)

    def save(self, folder: Path, facts: dict[str, str | int]) -> bool:
        """Writes the net and the measures, whole or not at all; False, with a warning, where the disk does not take them."""
        import torch
        from safetensors.torch import save_file

        tensors = {f"net.{name}": value.contiguous() for name, value in self._net.state_dict().items()}
        tensors |= {"texts": torch.from_numpy(self.measured.texts), "titles": torch.from_numpy(self.measured.titles)}
        return save_folder(folder, lambda new: save_file(tensors, new / "style_graph.safetensors"), facts)

    @staticmethod
    def load(corpus: Corpus, folder: Path, facts: dict[str, str | int]) -> StyleGraph | None:
        """What ``save`` wrote for these facts; None where it is missing, damaged or made from something else."""
        if not is_whole(folder, facts):
            return None
        from safetensors.torch import load_file

        from pat_core.style_net import StyleNet

        tensors = load_file(folder / "style_graph.safetensors")
        measured = Measured(tensors["texts"].numpy(), tensors["titles"].numpy())
        state = {name.removeprefix("net."): value for name, value in tensors.items() if name.startswith("net.")}
        net = StyleNet(len(COLUMN), len(COLUMN) + 5)
        net.load_state_dict(state)
        return StyleGraph(corpus, measured, net.eval())

    def _described(self, query: Query, predicted: np.ndarray, rows: Sequence[int]) -> tuple[Neighbor, ...]:
        position = {user: i for i, user in enumerate(self.users)}
        unit = _unit(predicted)
        reasons = _Reasons(query, self._wishes(query), predicted, self.scale.words(predicted))
        found = []
        for row in rows:
            review = self.corpus.reviews[row]
            score = float(np.clip(self.user_vectors[position[review.user_id]] @ unit, -1, 1))
            found.append(Neighbor("style", review, score, reasons.why(review.text)))
        return tuple(sorted(found, key=lambda n: -n.score))

    def _candidates(self, query: Query, direction: np.ndarray, n: int) -> np.ndarray:
        """Rows of the reviews of the ``n`` people nearest to ``direction`` that may be quoted."""
        allowed = self.allowed_users(query)
        if self._index is None or not allowed.any() or not np.linalg.norm(direction) > 1e-9:
            return np.zeros(0, int)
        ids, _ = self._index.search(direction[None], n, allowed)
        return np.array([row for i in ids[0] for row in self.rows_of_user[self.users[i]]], dtype=int)

    def _wishes(self, query: Query) -> dict[str, float]:
        """What the statements ask for, nothing below what a text without the feature has; of two wishes for a feature the first counts."""
        wishes: dict[str, float] = {}
        for statement in query.statements:
            wishes = {f: WISH_WEIGHT * z for f, z in statement_cues(statement).items()} | wishes
        without = -self.scale.mean / self.scale.sd
        return {f: wish if f.startswith("log_") else max(wish, float(without[COLUMN[f]])) for f, wish in wishes.items()}

    def _title_phi(self, titles: Sequence[str], measured: np.ndarray) -> np.ndarray:
        """phi of the titles on the scale of titles (n, d); 0 where there is no title."""
        return self._title_scale.standardize(measured) * np.array([[bool(t.strip())] for t in titles], dtype=np.float32)

    def _ratings(self, ratings: Sequence[float | None]) -> np.ndarray:
        """(n, 5) weight of each rating: between two for a half, the corpus' shares for none."""
        known = np.array([r is not None for r in ratings])
        steps = _rating_steps([r or 0.0 for r in ratings])
        return (RATING_WEIGHT * np.where(known[:, None], steps, self._rating_shares)).astype(np.float32)

    def _table(self) -> ReviewTable:
        import torch

        from pat_core.style_net import ReviewTable

        reviews = self.corpus.reviews
        ids = [_numbered([getattr(r, name) for r in reviews]) for name in ("user_id", "topic_id", "category")]
        return ReviewTable(torch.from_numpy(self._phi), torch.from_numpy(self._edges), *map(torch.from_numpy, ids))

    def _batch(self, queries: Sequence[Query]) -> Batch:
        import torch

        from pat_core.style_net import Batch

        parts = _Parts(self)
        for query in queries:
            parts.add(query)
        edges = np.hstack([self._title_phi([q.title for q in queries], features([q.title for q in queries])), self._ratings([q.rating for q in queries])])
        sent = np.hstack([self._phi[parts.sent], self._edges[parts.sent]])
        own = np.stack(parts.own) if parts.own else np.zeros((0, sent.shape[1]), np.float32)
        as_ids = [torch.tensor(ids, dtype=torch.long) for ids in (parts.sent_topic, parts.asked_topic, parts.own_asker, parts.own_topic)]
        as_rows = [torch.from_numpy(np.asarray(rows, dtype=np.float32)) for rows in (sent, np.stack(parts.topics), edges, own)]
        return Batch(as_rows[0], as_ids[0], as_rows[1], as_rows[2], as_ids[1], as_rows[3], as_ids[2], as_ids[3])


class _Parts:
    """Rows of a batch while queries are added. Every query has topics of its own, since each bars other reviews."""

    def __init__(self, graph: StyleGraph) -> None:
        self.graph = graph
        self.sent: list[int] = []
        self.sent_topic: list[int] = []
        self.topics: list[np.ndarray] = []
        self.asked_topic: list[int] = []
        self.own: list[np.ndarray] = []
        self.own_asker: list[int] = []
        self.own_topic: list[int] = []

    def add(self, query: Query) -> None:
        graph, asker = self.graph, len(self.asked_topic)
        barred = {graph._row[i] for i in query.held_out if i in graph._row} | set(graph.rows_of_user.get(query.user_id, ()))
        seen: dict[str, int] = {}
        self.asked_topic.append(self._topic(query.topic_id, query.category, barred))
        seen[query.topic_id] = self.asked_topic[-1]
        known = [r for r in query.history if r.review_id not in query.held_out]
        for review in known:
            if review.topic_id not in seen:
                seen[review.topic_id] = self._topic(review.topic_id, review.category, barred)
        samples = [p for p in query.preferences if p.kind == "sample"]
        if samples and "" not in seen:
            seen[""] = self._topic("", query.category, barred)
        texts = [(r.text, r.title, r.rating, r.topic_id) for r in known] + [(p.text, "", p.rating, "") for p in samples]
        if not texts:
            return
        phi = graph.scale.standardize(features([t[0] for t in texts]))
        edges = np.hstack([graph._title_phi([t[1] for t in texts], features([t[1] for t in texts])), graph._ratings([t[2] for t in texts])])
        self.own.extend(np.hstack([phi, edges]))
        self.own_asker.extend([asker] * len(texts))
        self.own_topic.extend(seen[t[3]] for t in texts)

    def _topic(self, topic_id: str, category: str, barred: set[int]) -> int:
        from pat_core.style_net import CATEGORY_PRIOR

        graph, place = self.graph, len(self.topics)
        rows = [row for row in graph.rows_of_topic.get(topic_id, ()) if row not in barred]
        if topic_id in graph.rows_of_topic:
            category = graph.corpus.reviews[graph.rows_of_topic[topic_id][0]].category
        self.sent.extend(rows)
        self.sent_topic.extend([place] * len(rows))
        total, n = graph._category_sums.get(category, (np.zeros(len(COLUMN), np.float32), 0))
        gone = [row for row in barred if graph.corpus.reviews[row].category == category]
        mean = (total - graph._phi[gone].sum(axis=0)) / (n - len(gone) + CATEGORY_PRIOR)
        self.topics.append(np.concatenate([[np.log1p(len(rows))], mean]).astype(np.float32))
        return place


class _Reasons:
    """Why a text is near a query, in words: claims that hold of it and of the asker's samples, were asked for, or were expected."""

    def __init__(self, query: Query, wishes: Mapping[str, float], predicted: np.ndarray, n_words: float) -> None:
        self.samples = query.samples
        self.own = frozenset(cue_phrases(query.samples, len(CLAIMS))) if query.samples else frozenset()
        self.wishes, self.predicted, self.n_words = wishes, predicted, n_words

    def why(self, text: str) -> tuple[str, ...]:
        """At most ``MAX_WHY`` reasons, never none."""
        given = [reason for phrase in cue_phrases([text], len(CLAIMS)) if (reason := self._reason(phrase))]
        return tuple(given[:MAX_WHY]) or ("close on the whole, in no single trait",)

    def _reason(self, phrase: str) -> str:
        claim = _CLAIM_OF.get(phrase)
        if claim is None:  # the length
            if self.samples:
                return f"both: {phrase}" if holds(phrase, self.samples) else ""
            n = float(phrase.split()[1])
            return f"{phrase}, as expected" if abs(n - self.n_words) <= max(5.0, LENGTH_SLACK * n) else ""
        if phrase in self.own:
            return f"both: {phrase}"
        column = _COLUMN_OF_CLAIM.get(claim.feature, claim.feature)
        side = 1.0 if claim.high == float("inf") else -1.0 if claim.low == 0 else 0.0
        if side * self.wishes.get(column, 0.0) > 0:
            return f"{phrase}, as asked"
        return f"{phrase}, as expected" if not self.samples and side * self.predicted[COLUMN[column]] > SURE_Z else ""


def open_style_graph(corpus: Corpus, cache_dir: Path | None = None, progress: Progress | None = None, *, seed: int = 0) -> StyleGraph:
    """The style graph of a corpus: from ``cache_dir`` where the same reviews were trained on before, else trained and put there."""
    facts = {"corpus": corpus.fingerprint, "order": _order(corpus), "code": _code(), "seed": seed}
    folder = cache_dir / "style_graph" / facts_key(facts) if cache_dir else None
    loaded = StyleGraph.load(corpus, folder, facts) if folder else None
    if loaded:
        return loaded
    graph = StyleGraph(corpus, Measured.of(corpus, progress), seed=seed, progress=progress)
    if folder:
        graph.save(folder, facts)
    return graph


def _code() -> str:
    """sha256 of the modules that decide what a stored graph holds."""
    here = Path(__file__).parent
    return hashlib.sha256(b"".join((here / name).read_bytes() for name in CODE)).hexdigest()


def _order(corpus: Corpus) -> str:
    """sha256 of the review ids in file order: the measures are stored in it, and the fingerprint does not tell it."""
    return hashlib.sha256("\n".join(r.review_id for r in corpus.reviews).encode()).hexdigest()


def _rows_by(values: Iterable[str]) -> dict[str, list[int]]:
    rows: dict[str, list[int]] = defaultdict(list)
    for row, value in enumerate(values):
        rows[value].append(row)
    return dict(rows)


def _numbered(values: Sequence[str]) -> np.ndarray:
    """Each value's number in order of first appearance (n,)."""
    numbers: dict[str, int] = {}
    return np.array([numbers.setdefault(v, len(numbers)) for v in values], dtype=np.int64)


def _rating_steps(ratings: Sequence[float]) -> np.ndarray:
    """(n, 5): 1 at the rating, shared by two for one between them."""
    return np.maximum(0.0, 1 - np.abs(np.arange(1, 6) - np.array(ratings, dtype=float)[:, None]))


def _unit(vector: np.ndarray) -> np.ndarray:
    return vector / max(float(np.linalg.norm(vector)), 1e-9)
