"""Texts -> vectors: the real embedded model, and the cache of vectors with a counting embedder."""

import hashlib
import json

import numpy as np
import pytest

from pat_core.cache import is_whole, save_folder
from pat_core.embed import SentenceEmbedder, encode_cached, open_embedder


class CountingEmbedder:
    """Vectors drawn from each text's hash; counts how many texts it has encoded."""

    def __init__(self, fingerprint="counting", dim=8):
        self.fingerprint, self.dim, self.n_encoded = fingerprint, dim, 0

    def encode(self, texts, progress=None):
        self.n_encoded += len(texts)
        rows = [np.random.default_rng(list(hashlib.sha256(t.encode()).digest())).normal(size=self.dim) for t in texts]
        vectors = np.array(rows, np.float32).reshape(len(texts), self.dim)
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.fixture(scope="module")
def embedder():
    return open_embedder("embedded")


def test_real_vectors_are_unit_rows_in_order_and_close_in_meaning(embedder):
    seen = []
    texts = [
        "The kettle boils water quickly.",
        "",
        "My train was an hour late, again. " * 40,
        "This kettle makes water boil fast",
        "😀",
        "Der Zug kam zu spät",
    ]
    vectors = embedder.encode(texts, lambda *step: seen.append(step))
    assert vectors.shape == (6, 384) and vectors.dtype == np.float32
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert vectors[0] @ vectors[3] > 0.5 > vectors[0] @ vectors[2] + 0.3
    assert seen[-1] == ("Embedding texts", 6, 6)
    alone = np.concatenate([embedder.encode([text]) for text in texts])
    assert np.allclose(alone, vectors, atol=1e-5)  # sorting and padding change nothing
    assert embedder.encode([]).shape == (0, 384)


def test_fingerprint_names_the_model_files(embedder, tmp_path):
    assert embedder.fingerprint == open_embedder("embedded").fingerprint == open_embedder(str(embedder.folder)).fingerprint
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    before = SentenceEmbedder(tmp_path).fingerprint
    (tmp_path / "model.safetensors").write_bytes(b"Weights")
    assert SentenceEmbedder(tmp_path).fingerprint != before


@pytest.mark.parametrize("setting", ["nonsense", "/no/such/folder", "./here", "a/b/c"])
def test_a_wrong_setting_says_what_is_accepted(setting):
    with pytest.raises(ValueError, match="use 'embedded'"):
        open_embedder(setting)


def test_a_hub_id_without_network_says_what_to_do():
    with pytest.raises(ValueError, match=r"cannot be fetched .* or use 'embedded'"):
        open_embedder("nobody-here/no-such-model")


def test_a_folder_without_a_model_says_so(tmp_path):
    with pytest.raises(ValueError, match="holds no usable sentence-transformers model"):
        open_embedder(str(tmp_path)).encode(["a"])


def test_a_static_model_which_has_no_token_limit_serves_too(tmp_path):
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.models import StaticEmbedding
    from tokenizers import Tokenizer, models, pre_tokenizers

    tokenizer = Tokenizer(models.WordLevel({"[UNK]": 0, "quiet": 1, "room": 2}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    SentenceTransformer(modules=[StaticEmbedding(tokenizer, embedding_dim=8)], device="cpu").save(str(tmp_path))
    vectors = SentenceEmbedder(tmp_path, "cpu").encode(["quiet room", "room", "quiet room"])
    assert vectors.shape == (3, 8) and np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert (vectors[0] == vectors[2]).all() and vectors[0] @ vectors[1] < 0.999


def test_cache_is_used_for_the_same_texts_and_model_only(tmp_path):
    embedder = CountingEmbedder()
    first = encode_cached(embedder, ["a", "b"], tmp_path)
    assert np.array_equal(encode_cached(embedder, ["a", "b"], tmp_path), first) and embedder.n_encoded == 2
    encode_cached(embedder, ["b", "a"], tmp_path)
    encode_cached(embedder, ["a", "b\n"], tmp_path)
    assert embedder.n_encoded == 6
    other = CountingEmbedder("other model", dim=4)
    assert encode_cached(other, ["a", "b"], tmp_path).shape == (2, 4) and other.n_encoded == 2


@pytest.mark.parametrize("damage", ["flip", "cut", "delete", "other array", "manifest", "no files"])
def test_a_damaged_cache_is_made_again(tmp_path, damage):
    embedder = CountingEmbedder()
    texts = ["a", "b", "c"]
    good = encode_cached(embedder, texts, tmp_path)
    (vectors,) = tmp_path.rglob("vectors.npy")
    manifest = vectors.with_name("manifest.json")
    data = bytearray(vectors.read_bytes())
    if damage == "flip":
        data[-3] ^= 0x40
        vectors.write_bytes(data)
    elif damage == "cut":
        vectors.write_bytes(data[: len(data) // 2])
    elif damage == "delete":
        vectors.unlink()
    elif damage == "other array":
        np.save(vectors, np.zeros((2, 2)))
    elif damage == "manifest":
        manifest.write_text("[" * 10_000)
    else:
        manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "files": {}}))
        vectors.unlink()
    assert np.array_equal(encode_cached(embedder, texts, tmp_path), good) and embedder.n_encoded == 6
    assert np.array_equal(encode_cached(embedder, texts, tmp_path), good) and embedder.n_encoded == 6


def test_where_nothing_can_be_written_vectors_still_come(tmp_path, caplog):
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    embedder = CountingEmbedder()
    assert encode_cached(embedder, ["a"], blocked).shape == (1, 8)
    assert "cached" in caplog.text


def test_a_write_that_fails_half_way_leaves_the_old_folder(tmp_path):
    folder, facts = tmp_path / "made", {"n": 1}
    assert save_folder(folder, lambda new: (new / "a").write_text("old") and None, facts)

    def fails(new):
        (new / "a").write_text("half")
        raise OSError(28, "No space left on device")

    assert not save_folder(folder, fails, facts)
    assert is_whole(folder, facts) and (folder / "a").read_text() == "old" and [p.name for p in tmp_path.iterdir()] == ["made"]
    assert save_folder(folder, lambda new: (new / "a").write_text("new") and None, {"n": 2})
    assert not is_whole(folder, facts) and is_whole(folder, {"n": 2}) and (folder / "a").read_text() == "new"
