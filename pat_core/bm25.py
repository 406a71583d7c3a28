"""BM25 of documents that are lists of tokens, by the library bm25s (Lu 2024, arXiv 2407.03618)."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence

import numpy as np

B = 0.75  # how much the length of a document counts (Robertson and Zaragoza 2009)
_NO_WORD = "\x00"  # stands in documents that are all empty, which the library does not take


class BM25:
    """Scores of documents for any query; idf as in Lucene, which is never negative. ``n_using`` counts the documents with each token."""

    def __init__(self, documents: Sequence[Sequence[str]], k1: float) -> None:
        import bm25s

        logging.getLogger("bm25s").setLevel(logging.WARNING)  # the import sets it to DEBUG
        self.n_using = Counter(token for document in documents for token in set(document))
        self._n_documents = len(documents)
        self._scorer = bm25s.BM25(method="lucene", k1=k1, b=B)
        self._scorer.index([list(d) for d in documents] if self.n_using else [[_NO_WORD]] * len(documents), show_progress=False)

    def scores(self, asked: Sequence[str]) -> np.ndarray:
        """(n,) one score for each document; a token that is asked twice counts twice."""
        known = [token for token in asked if token in self.n_using]
        return self._scorer.get_scores(known) if known else np.zeros(self._n_documents, np.float32)
