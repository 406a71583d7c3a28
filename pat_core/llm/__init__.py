"""Language models: ``open_llm(config)`` chooses an engine and opens it; ``pat_core.llm.types`` is the protocol all of them follow.

A server where one is named; else transformers where there is CUDA; else OpenVINO for a llama-type GGUF, which the embedded model is; else
transformers. ``PAT_ENGINE`` overrides. Adapters come from the registry; only GGUF models have any.
"""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Mapping
from pathlib import Path

from pat_core.adapters import active_adapters
from pat_core.config import Config
from pat_core.llm.types import LLM, LLMError
from pat_core.progress import Progress
from pat_core.types import Role
from pat_core.weights import WeightsError, embedded_gguf, read_facts, reference_folder, serving_gguf, sha256, tokenizer_folder

log = logging.getLogger(__name__)


def open_llm(
    config: Config, progress: Progress | None = None, adapters: Mapping[Role, Path] | None = None, prefix_cache: bool = False
) -> LLM:
    """The model that ``config`` names, ready to generate: five seconds for the embedded model once its files are there.

    ``adapters`` are folders as peft saves them, by role; None takes the active versions of the registry, {} none. ``prefix_cache`` is
    OpenVINO's, see there. Raises ValueError for a setting that names nothing usable, LLMError where weights or a server are out of reach.
    """
    try:
        if _on_server(config):
            from pat_core.llm.server_engine import ServerEngine

            return ServerEngine(config.llm_url, config.llm_key, "" if config.model == "embedded" else config.model)
        gguf = _gguf(config, progress)
        if adapters is None:
            adapters = active_adapters(config.home, sha256(gguf)) if gguf else {}
        engine = config.engine if config.engine != "auto" else _choose(config, gguf, progress)
        if progress:
            progress("Loading the language model", 0, 1)
        if engine == "openvino":
            opened = _open_openvino(gguf, config, progress, adapters, prefix_cache)
        else:
            opened = _open_transformers(gguf, config, progress, adapters)
        if progress:
            progress("Loading the language model", 1, 1)
        return opened
    except WeightsError as error:
        raise LLMError(str(error)) from error


def adapter_base(config: Config, progress: Progress | None = None) -> str:
    """The sha256 of the GGUF whose adapters the registry may hold; '' for a model without any: on a server, from the hub, in a folder."""
    gguf = None if _on_server(config) else _gguf(config, progress)
    return sha256(gguf) if gguf else ""


def _on_server(config: Config) -> bool:
    return config.engine == "server" or (config.engine == "auto" and bool(config.llm_url))


def _gguf(config: Config, progress: Progress | None) -> Path | None:
    """The GGUF that PAT_MODEL names, None where it names a folder or a hub id."""
    if config.model == "embedded":
        return embedded_gguf(config.home, progress)
    path = Path(config.model).expanduser()
    if path.suffix.lower() != ".gguf":
        return None
    if not path.is_file():
        raise ValueError(f"PAT_MODEL={config.model!r}: there is no such file. Use embedded, a hub id, a local folder or a .gguf file")
    return path.resolve()


def _choose(config: Config, gguf: Path | None, progress: Progress | None) -> str:
    if config.quant or config.device.startswith("cuda") or (not config.device and _has_cuda()):
        return "transformers"
    if gguf is None or config.device not in ("", "cpu") or read_facts(gguf, config.home, progress).architecture != "llama":
        return "transformers"
    if importlib.util.find_spec("openvino_genai") is None:
        log.warning("openvino-genai is not installed, so the model runs through transformers, several times slower")
        return "transformers"
    return "openvino"


def _has_cuda() -> bool:
    import torch

    return torch.cuda.is_available()


def _open_openvino(gguf: Path | None, config: Config, progress: Progress | None, adapters: Mapping[Role, Path], prefix_cache: bool) -> LLM:
    from pat_core.llm.openvino_engine import OpenVINOEngine

    if gguf is None:
        raise ValueError(f"PAT_ENGINE=openvino runs GGUF files; PAT_MODEL={config.model!r} is none. Set PAT_ENGINE=transformers or auto")
    if config.quant:
        raise ValueError(f"PAT_QUANT={config.quant!r} is for CUDA through transformers; leave it empty with PAT_ENGINE=openvino")
    facts = read_facts(gguf, config.home, progress)
    if facts.architecture != "llama":
        raise ValueError(f"PAT_ENGINE=openvino runs llama-type models; {gguf.name} is of type {facts.architecture!r}. Set PAT_ENGINE=auto")
    served = serving_gguf(gguf, config.home, progress)
    merged = {role: (folder.name, serving_gguf(gguf, config.home, progress, folder)) for role, folder in adapters.items()}
    name = f"{gguf.stem.removesuffix('.' + facts.file_type)} ({facts.file_type})"
    tokenizer = tokenizer_folder(gguf, config.home, progress)
    return OpenVINOEngine(served, tokenizer, config.threads, name, merged, prefix_cache, facts.context)


def _open_transformers(gguf: Path | None, config: Config, progress: Progress | None, adapters: Mapping[Role, Path]) -> LLM:
    from pat_core.llm.transformers_engine import open_transformers

    model = str(reference_folder(gguf, config.home, progress)) if gguf else config.model
    name = gguf.stem if gguf else config.model.rstrip("/").rpartition("/")[2]
    return open_transformers(model, config.device, config.quant, config.threads, adapters, name)
