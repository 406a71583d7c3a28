"""Language models: ``open_llm(config)`` chooses an engine and opens it; ``pat_core.llm.types`` is the protocol all of them follow.

A server where one is named, transformers where there is CUDA, OpenVINO for a llama-type GGUF on a CPU (the embedded model is one), and
transformers for everything else. ``PAT_ENGINE`` overrides.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

from pat_core.config import Config
from pat_core.llm.types import LLM, LLMError
from pat_core.types import Role
from pat_core.weights import Progress, WeightsError, embedded_gguf, no_progress, read_facts, serving_gguf, tokenizer_folder

log = logging.getLogger(__name__)


def open_llm(
    config: Config, progress: Progress = no_progress, adapters: Mapping[Role, Path] | None = None, prefix_cache: bool = True
) -> LLM:
    """The model that ``config`` names, ready to generate; five seconds for the embedded model once it is on disk."""
    gguf = embedded_gguf(config.home, progress)
    return _open_openvino(gguf, config, progress, adapters or {}, prefix_cache)


def _open_openvino(gguf: Path, config: Config, progress: Progress, adapters: Mapping[Role, Path], prefix_cache: bool) -> LLM:
    from pat_core.llm.openvino_engine import OpenVINOEngine
    from pat_core.llm.prompting import ChatTokenizer

    facts = read_facts(gguf, config.home, progress)
    tokenizer = ChatTokenizer.from_folder(tokenizer_folder(gguf, config.home, progress))
    served = serving_gguf(gguf, config.home, progress)
    merged = {role: (folder.name, serving_gguf(gguf, config.home, progress, folder)) for role, folder in adapters.items()}
    progress(0.5, "Loading the language model")
    name = f"{gguf.stem.removesuffix('.' + facts.file_type)} ({facts.file_type})"
    return OpenVINOEngine(served, tokenizer, config.threads, name, merged, prefix_cache, facts.context)
