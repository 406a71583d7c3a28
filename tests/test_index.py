"""Vectors -> nearest rows: hnswlib against exact search as the oracle, and files that must never reach hnswlib."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from pat_core import index as index_module
from pat_core.embed import encode_cached, open_embedder
from pat_core.index import EXACT_BELOW, VectorIndex, unit_rows

DEMO = Path(__file__).resolve().parent.parent / "assets" / "demo_corpus.jsonl"


def random_vectors(n, dim=48, seed=0):
    return unit_rows(np.random.default_rng(seed).normal(size=(n, dim)))


def recall(index, queries, k=10):
    found, _ = index.search(queries, k)
    oracle, _ = index.exact(queries, k)
    return np.mean([len(set(a) & set(b)) / k for a, b in zip(found, oracle, strict=True)])


def test_three_rows_worked_out_by_hand():
    # cosines of (1, 0) with (2, 0), (1, 1), (0, 3): 1, 0.7071, 0
    ids, scores = VectorIndex(np.array([[2, 0], [1, 1], [0, 3]])).search(np.array([5, 0]), 5)
    assert ids.tolist() == [[0, 1, 2]] and np.allclose(scores, [[1, 0.7071, 0]], atol=1e-4)


def test_recall_on_random_vectors():
    """In 384 dimensions random vectors are the hardest case there is: no structure for the graph to follow."""
    for dim in (48, 384):
        index = VectorIndex(random_vectors(3000, dim))
        assert recall(index, random_vectors(200, dim, seed=1)) >= 0.95


def test_recall_on_real_embeddings(tmp_path):
    rows = [json.loads(line) for line in DEMO.read_text(encoding="utf-8").splitlines()]
    texts = [text for row in rows for text in (row["title"], row["text"][:80])]
    index = VectorIndex(encode_cached(open_embedder("embedded"), texts, tmp_path))
    assert len(index) > EXACT_BELOW and recall(index, index.vectors[::3]) >= 0.95


def test_answers_do_not_depend_on_the_path_taken(monkeypatch):
    vectors, queries = random_vectors(1200), random_vectors(20, seed=1)
    approximate, exact = VectorIndex(vectors), VectorIndex(vectors)
    exact._graph = None  # as for few rows
    allowed = np.ones(1200, bool)
    allowed[::50] = False
    ids, scores = approximate.search(queries, 5, allowed)
    oracle_ids, oracle_scores = exact.search(queries, 5, allowed)
    assert np.mean(ids == oracle_ids) > 0.95 and allowed[ids].all()
    assert np.allclose(scores[ids == oracle_ids], oracle_scores[ids == oracle_ids], atol=1e-6)
    assert (np.diff(scores, axis=1) <= 0).all()


@given(
    hnp.arrays(np.float32, st.tuples(st.integers(1, 30), st.integers(1, 6)), elements=st.floats(-5, 5, width=32)).filter(
        lambda a: (np.linalg.norm(a, axis=1) > 1e-3).all()
    ),
    st.integers(1, 40),
    st.randoms(),
)
@settings(max_examples=60, deadline=None)
def test_exact_search_properties(vectors, k, random):
    allowed = np.array([random.random() < 0.7 for _ in vectors])
    ids, scores = VectorIndex(vectors).search(vectors, k, allowed)
    assert ids.shape == scores.shape == (len(vectors), min(k, allowed.sum()))
    assert allowed[ids].all() and all(len(set(row)) == len(row) for row in ids)
    assert (np.abs(scores) <= 1 + 1e-5).all() and (np.diff(scores, axis=1) <= 1e-6).all()


def test_second_start_loads_the_same_index(tmp_path, monkeypatch):
    vectors, queries = random_vectors(1000), random_vectors(30, seed=1)
    steps = []
    first = VectorIndex(vectors, tmp_path, lambda *step: steps.append(step)).search(queries, 10)
    assert steps[-1] == ("Building the index", 1000, 1000)
    again = VectorIndex(vectors, tmp_path, lambda *_: pytest.fail("built again")).search(queries, 10)
    assert np.array_equal(first[0], again[0]) and np.array_equal(first[1], again[1])
    rebuilt = VectorIndex(vectors).search(queries, 10)
    assert np.array_equal(first[0], rebuilt[0])


@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "other dimension", "manifest facts", "manifest gone"])
def test_a_damaged_file_never_reaches_hnswlib(tmp_path, monkeypatch, damage):
    """A flipped byte would crash the process on a query, another dimension would answer nonsense: both have to be built again."""
    vectors = random_vectors(800)
    expected = VectorIndex(vectors, tmp_path).search(vectors[:5], 10)
    (graph,) = tmp_path.rglob("graph.bin")
    manifest = graph.with_name("manifest.json")
    data = bytearray(graph.read_bytes())
    if damage == "flip":
        data[len(data) // 2] ^= 0xFF
        graph.write_bytes(data)
    elif damage == "cut":
        graph.write_bytes(data[:100])
    elif damage == "empty":
        graph.write_bytes(b"")
    elif damage == "other dimension":
        other = tmp_path / "other"
        VectorIndex(random_vectors(800, dim=16), other)
        graph.write_bytes(next(other.rglob("graph.bin")).read_bytes())
    elif damage == "manifest facts":
        manifest.write_text(manifest.read_text().replace('"count": 800', '"count": 799'))
    else:
        manifest.unlink()
    steps = []
    index = VectorIndex(vectors, tmp_path, lambda *step: steps.append(step))
    assert steps, "it was loaded, not built again"
    found = index.search(vectors[:5], 10)
    assert np.array_equal(found[0], expected[0])
    VectorIndex(vectors, tmp_path, lambda *_: pytest.fail("the repaired file was not used"))


def test_an_index_of_another_library_version_is_not_loaded(tmp_path, monkeypatch):
    vectors = random_vectors(600)
    VectorIndex(vectors, tmp_path)
    monkeypatch.setattr(index_module.importlib.metadata, "version", lambda name: "9.9.9")
    steps = []
    VectorIndex(vectors, tmp_path, lambda *step: steps.append(step))
    assert steps


class FailingGraph:
    """hnswlib's answer when fewer rows are reachable than asked for."""

    def set_ef(self, ef):
        pass

    def knn_query(self, queries, k, num_threads):
        raise RuntimeError("Cannot return the results in a contiguous 2D array. Probably ef or M is too small")


def test_a_failing_graph_is_answered_exactly(caplog):
    index = VectorIndex(random_vectors(700))
    expected = index.exact(index.vectors[:4], 6)
    index._graph = FailingGraph()
    found = index.search(index.vectors[:4], 6)
    assert np.array_equal(found[0], expected[0]) and "searching exactly" in caplog.text


@pytest.mark.parametrize(
    ("query", "sentence"),
    [(np.full(48, np.nan), "NaN"), (np.full(48, np.inf), "NaN or infinity"), (np.zeros(48), "length 0"), (np.ones(47), "47 dimensions"),
     (np.ones((2, 2, 48)), "shape")],
)  # fmt: skip
def test_bad_queries_raise(query, sentence):
    for n in (20, 700):
        with pytest.raises(ValueError, match=sentence):
            VectorIndex(random_vectors(n)).search(query, 3)


def test_bad_rows_k_and_masks_raise():
    with pytest.raises(ValueError, match="length 0"):
        VectorIndex(np.zeros((3, 4)))
    index = VectorIndex(random_vectors(20))
    with pytest.raises(ValueError, match="at least 1"):
        index.search(index.vectors, 0)
    with pytest.raises(ValueError, match="mask of 20 booleans"):
        index.search(index.vectors, 1, np.array([1, 2]))
    assert index.search(index.vectors[:2], 3, np.zeros(20, bool))[0].shape == (2, 0)


def test_threads_get_the_same_answers():
    index = VectorIndex(random_vectors(1500))
    queries = random_vectors(40, seed=2)
    ks = [1 + i % 20 for i in range(40)]
    expected = [index.search(q, k)[0].tolist() for q, k in zip(queries, ks, strict=True)]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda pair: index.search(*pair)[0].tolist(), zip(queries, ks, strict=True)))
    assert found == expected
