"""Unit vectors -> nearest rows: hnswlib behind a verified manifest, exact search as its fallback and its oracle.

An hnswlib file is a disposable cache: the library does not check what it loads (a flipped byte crashes the process, another dimension
answers nonsense), so a file is loaded only when its manifest names exactly these vectors, this library and these parameters, and its hash
is right; else it is built again. Leaves out adding and deleting rows: new data is a new index.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import logging
import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pat_core.cache import facts_key, is_whole, save_folder
from pat_core.progress import Progress

EXACT_BELOW = 500  # rows up to which one matrix product is faster than a graph walk
M, EF_CONSTRUCTION, EF_SEARCH, SEED = 24, 200, 320, 0
BUILD_STEP = 2000  # rows added between two progress reports

log = logging.getLogger(__name__)


class VectorIndex:
    """Cosine search over the rows of ``vectors`` (n, d). Same vectors, same answers; one lock, so threads may share it."""

    def __init__(self, vectors: np.ndarray, cache_dir: Path | None = None, progress: Progress | None = None) -> None:
        """Loads the index from ``cache_dir`` or builds it there; raises ValueError for rows that are not finite or have no length."""
        self.vectors = unit_rows(vectors)
        self._lock = threading.Lock()
        self._graph = self._open(cache_dir, progress) if len(self.vectors) > EXACT_BELOW else None

    def __len__(self) -> int:
        return len(self.vectors)

    def search(self, queries: np.ndarray, k: int, allowed: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Ids (q, m) and cosines (q, m) of the nearest rows, nearest first, ties by lower id; m = min(k, rows allowed).

        ``allowed`` is a mask (n,). Raises ValueError for queries of another dimension, not finite or without length.
        """
        queries, n_allowed = self._checked(queries, k, allowed)
        n_barred = len(self) - n_allowed
        fetched = k + n_barred
        if self._graph is None or fetched >= len(self) // 2 or n_barred > EXACT_BELOW:
            return self._exact(queries, min(k, n_allowed), allowed)
        try:
            with self._lock:
                self._graph.set_ef(max(EF_SEARCH, 2 * fetched))
                ids, _ = self._graph.knn_query(queries, k=fetched, num_threads=1)
        except RuntimeError as error:  # fewer rows reachable than asked for
            log.warning("approximate search failed (%s); searching exactly", error)
            return self._exact(queries, min(k, n_allowed), allowed)
        return self._ranked(queries, ids.astype(np.int64), k, allowed)

    def exact(self, queries: np.ndarray, k: int, allowed: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """As ``search``, comparing every row: the oracle of the approximate answer."""
        queries, n_allowed = self._checked(queries, k, allowed)
        return self._exact(queries, min(k, n_allowed), allowed)

    def _exact(self, queries: np.ndarray, k: int, allowed: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        rows = np.arange(len(self)) if allowed is None else np.flatnonzero(allowed)
        if k == 0:
            return np.zeros((len(queries), 0), np.int64), np.zeros((len(queries), 0), np.float32)
        scores = queries @ self.vectors[rows].T
        order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
        return rows[order].astype(np.int64), np.take_along_axis(scores, order, axis=1)

    def _ranked(self, queries: np.ndarray, ids: np.ndarray, k: int, allowed: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        """The best k allowed of each row of candidate ids, scored by the same product as the exact search."""
        scores = np.einsum("qd,qcd->qc", queries, self.vectors[ids])
        if allowed is not None:
            scores = np.where(allowed[ids], scores, -np.inf)
        order = np.lexsort((ids, -scores), axis=1)[:, :k]
        return np.take_along_axis(ids, order, axis=1), np.take_along_axis(scores, order, axis=1).astype(np.float32)

    def _checked(self, queries: np.ndarray, k: int, allowed: np.ndarray | None) -> tuple[np.ndarray, int]:
        queries = unit_rows(queries)
        if queries.shape[1] != self.vectors.shape[1]:
            dims = f"{queries.shape[1]} dimensions, the index has {self.vectors.shape[1]}"
            raise ValueError(f"a query has {dims}; encode both with one model")
        if k < 1:
            raise ValueError(f"k must be at least 1, not {k}")
        if allowed is not None and (allowed.dtype != bool or allowed.shape != (len(self),)):
            raise ValueError(f"allowed must be a mask of {len(self)} booleans, not {allowed.dtype} of shape {allowed.shape}")
        return queries, len(self) if allowed is None else int(allowed.sum())

    def _open(self, cache_dir: Path | None, progress: Progress | None):
        import hnswlib

        n, dim = self.vectors.shape
        facts = {
            "vectors": hashlib.sha256(np.ascontiguousarray(self.vectors).tobytes()).hexdigest(),
            "count": n,
            "dim": dim,
            "space": "cosine",
            "library": f"hnswlib {importlib.metadata.version('hnswlib')}",
            "m": M,
            "ef_construction": EF_CONSTRUCTION,
            "seed": SEED,
        }
        graph = hnswlib.Index(space="cosine", dim=dim)
        folder = cache_dir / "index" / facts_key(facts) if cache_dir else None
        if folder and is_whole(folder, facts):
            graph.load_index(str(folder / "graph.bin"), max_elements=n)
            return graph
        graph.init_index(max_elements=n, M=M, ef_construction=EF_CONSTRUCTION, random_seed=SEED)
        for start in range(0, n, BUILD_STEP):
            rows = self.vectors[start : start + BUILD_STEP]
            # More threads would link rows in an order that cannot be repeated.
            graph.add_items(rows, np.arange(start, start + len(rows)), num_threads=1)
            if progress:
                progress("Building the index", start + len(rows), n)
        if folder:
            save_folder(folder, lambda new: graph.save_index(str(new / "graph.bin")), facts)
        return graph


def unit_rows(vectors: np.ndarray | Sequence[Sequence[float]]) -> np.ndarray:
    """(n, d) float32 with rows of length 1; one vector becomes one row. ValueError for NaN, infinity, a row of length 0, another shape."""
    rows = np.atleast_2d(np.asarray(vectors, dtype=np.float32))
    if rows.ndim != 2 or rows.shape[1] == 0:
        raise ValueError(f"vectors must have the shape (n, d), not {rows.shape}")
    if not np.isfinite(rows).all():
        raise ValueError("a vector holds NaN or infinity; check the text it was made from and the model")
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    if (lengths < 1e-12).any():
        raise ValueError("a vector has length 0 and no direction; a text without any feature has to be left out")
    return np.ascontiguousarray(rows / lengths)
