"""Serving on a CPU: OpenVINO GenAI's continuous batching straight from a GGUF file, four to six times as fast as transformers.

One pipeline per set of weights: the base model's, and one for each role that has an adapter (its own merged GGUF, since OpenVINO ignores
adapters of GGUF models). All are stepped in turn by the thread that iterates ``generate``: two runtimes that spin side by side slow each
other many times over. Leaves out GPUs and models that are not of the llama type; the transformers engine runs those.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pat_core.llm.prompting import ChatTokenizer, TextStream, check_batch, check_context, wait_for_turn
from pat_core.llm.types import Event, LLMError, Request
from pat_core.types import Prompt

if TYPE_CHECKING:
    import openvino_genai as ov_genai

KV_BLOCKS = 1024  # x 32 tokens = 32,768 tokens, for SmolLM2-135M about 400 MB when full
MAX_BATCH = 32


class OpenVINOEngine:
    """A llama-type GGUF model on this machine's CPU.

    ``adapters`` maps a role to (version, merged GGUF). With ``prefix_cache`` a prompt's known beginning costs nothing, but a repeated
    run may then differ in late tokens from the first one: turn it off where exact repetition matters.
    """

    def __init__(
        self,
        gguf: Path,
        tokenizer: ChatTokenizer,
        threads: int,
        name: str = "",
        adapters: Mapping[str, tuple[str, Path]] | None = None,
        prefix_cache: bool = True,
        context: int = 8192,
    ) -> None:
        adapters = adapters or {}
        self.name = f"{name or gguf.stem} on OpenVINO, {threads} thread{'' if threads == 1 else 's'}"
        self.adapters = {role: version for role, (version, _) in adapters.items()}
        self._tokenizer = tokenizer
        self._context = context
        files = {"base": gguf} | {role: path for role, (_, path) in adapters.items()}
        opened: dict[Path, ov_genai.ContinuousBatchingPipeline] = {}
        for path in files.values():
            if path not in opened:
                opened[path] = _open_pipeline(path, threads, prefix_cache)
        self._pipelines = {role: opened[path] for role, path in files.items()}
        self._lock = threading.Lock()  # not an RLock: a web server may close a generator in another thread than it ran in
        self._ids = itertools.count()

    def prompt(self, messages: Sequence[tuple[str, str]], prefix: str = "") -> Prompt:
        return self._tokenizer.prompt(messages, prefix)

    def n_tokens(self, text: str) -> int:
        return self._tokenizer.n_tokens(text)

    def truncate(self, text: str, max_tokens: int) -> str:
        return self._tokenizer.truncate(text, max_tokens)

    def generate(self, requests: Sequence[Request], cancel: threading.Event | None = None) -> Iterator[Event]:
        """See ``LLM.generate``. Batches of several threads run one after another; closing the iterator frees its requests."""
        check_batch(requests)
        check_context(requests, self._context)
        return self._generate(tuple(requests), cancel or threading.Event())

    def _generate(self, requests: tuple[Request, ...], cancel: threading.Event) -> Iterator[Event]:
        if not wait_for_turn(self._lock, cancel):
            yield from (Event(r.key, "", 0, "cancelled") for r in requests)
            return
        running: list[_Running] = []
        try:
            for request in requests:
                running.append(self._start(request))
            while any(not run.stream.finish for run in running):
                if cancel.is_set():
                    for run in running:
                        run.stream.end("cancelled")
                else:
                    _step(run.pipeline for run in running if not run.stream.finish)
                for run in running:
                    run.read()
                    if event := run.stream.news():
                        yield event
        except RuntimeError as error:
            raise LLMError(f"OpenVINO could not go on ({error}). Try a shorter input; if it happens again, set PAT_ENGINE=transformers") from error
        finally:
            _drain(running)
            self._lock.release()

    def _start(self, request: Request) -> _Running:
        import numpy as np
        import openvino as ov

        pipeline = self._pipelines.get(request.role, self._pipelines["base"])
        ids = ov.Tensor(np.array([request.prompt.token_ids], dtype=np.int64))
        handle = pipeline.add_request(next(self._ids), ids, _generation_config(request, self._tokenizer))
        return _Running(pipeline, handle, TextStream(request, self._tokenizer))


class _Running:
    """One request inside a pipeline."""

    def __init__(self, pipeline: ov_genai.ContinuousBatchingPipeline, handle: ov_genai.GenerationHandle, stream: TextStream) -> None:
        self.pipeline, self.handle, self.stream = pipeline, handle, stream

    def read(self) -> None:
        """Move the tokens that came into the stream; stop the request when the stream has ended."""
        import openvino_genai as ov_genai

        while not self.stream.finish and self.handle.can_read():
            for output in self.handle.read().values():
                for token_id in output.generated_ids:
                    self.stream.push(token_id)
                if output.finish_reason != ov_genai.GenerationFinishReason.NONE:
                    self.stream.end("length" if output.finish_reason == ov_genai.GenerationFinishReason.LENGTH else "stop")
        status = self.handle.get_status()
        if status == ov_genai.GenerationStatus.IGNORED and not self.stream.finish:
            raise RuntimeError("no room left in its cache")
        if self.stream.finish and status == ov_genai.GenerationStatus.RUNNING:
            self.handle.cancel()


def _open_pipeline(path: Path, threads: int, prefix_cache: bool) -> ov_genai.ContinuousBatchingPipeline:
    import openvino_genai as ov_genai

    scheduler = ov_genai.SchedulerConfig()
    scheduler.num_kv_blocks = KV_BLOCKS
    scheduler.max_num_seqs = MAX_BATCH
    scheduler.enable_prefix_caching = prefix_cache
    try:
        return ov_genai.ContinuousBatchingPipeline(str(path), scheduler, "CPU", {"INFERENCE_NUM_THREADS": threads})
    except RuntimeError as error:
        raise LLMError(f"OpenVINO cannot open {path} ({str(error).strip().splitlines()[-1]}). Set PAT_ENGINE=transformers") from error


def _generation_config(request: Request, tokenizer: ChatTokenizer) -> ov_genai.GenerationConfig:
    import openvino_genai as ov_genai

    config = ov_genai.GenerationConfig()
    config.max_new_tokens = request.max_new_tokens
    config.min_new_tokens = request.min_new_tokens
    config.repetition_penalty = request.sampling.repetition_penalty
    config.frequency_penalty = request.sampling.frequency_penalty
    config.do_sample = request.sampling.temperature > 0
    if config.do_sample:
        config.temperature = request.sampling.temperature
        config.top_p = request.sampling.top_p
        config.rng_seed = request.seed
    config.eos_token_id = tokenizer.tokenizer.eos_token_id
    config.stop_token_ids = set(tokenizer.end_ids)
    return config


def _step(pipelines: Iterable[ov_genai.ContinuousBatchingPipeline]) -> None:
    """One step of each pipeline that is named, once."""
    for pipeline in {id(p): p for p in pipelines}.values():
        if pipeline.has_non_finished_requests():
            pipeline.step()


def _drain(running: Sequence[_Running]) -> None:
    """Take every request out of its pipeline; a cancelled one leaves at the next step."""
    for run in running:
        run.handle.cancel()
    for pipeline in {id(run.pipeline): run.pipeline for run in running}.values():
        while pipeline.has_non_finished_requests():
            pipeline.step()
