"""Serving on a CPU: OpenVINO GenAI's continuous batching straight from GGUF files, four to six times as fast as transformers.

One pipeline per set of weights: the base model's, and one for each role that has an adapter (its own merged GGUF, since OpenVINO ignores
adapters of GGUF models). All live in one process beside this one (``openvino_worker``); here are the tokenizer, the texts and the queue of
batches. Leaves out GPUs and models that are not of the llama type; the transformers engine runs those.
"""

from __future__ import annotations

import itertools
import json
import logging
import queue
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from pat_core.llm.prompting import ChatTokenizer, TextStream, check_batch, check_context, wait_for_turn
from pat_core.llm.types import Event, LLMError, Request
from pat_core.types import Prompt

log = logging.getLogger(__name__)

KV_BLOCKS = 512  # of all pipelines together, x 32 tokens; for SmolLM2-135M 23 kB a token, so 380 MB when full
MAX_BATCH = 32
# float32 arithmetic and float16 keys and values: as fast as OpenVINO's default (bfloat16 and 8 bits, where the CPU has them) and nearer to
# the reference, at most 0.2 nats from its best token against 0.4. Matrices are multiplied in 8 bits either way; switching that off
# (DYNAMIC_QUANTIZATION_GROUP_SIZE 0) gains little and costs 1.7 times the time.
PRECISION = {"INFERENCE_PRECISION_HINT": "f32", "KV_CACHE_PRECISION": "f16"}
SECONDS_WITHOUT_A_STEP = 120  # after which the process is taken for dead


class OpenVINOEngine:
    """A llama-type GGUF model on this machine's CPU.

    ``adapters`` maps a role to (version, merged GGUF). With ``prefix_cache`` the beginning that a prompt shares with an earlier one costs
    nothing, but the same batch may then give another text the second time, where two tokens were nearly equal: it is off by default.
    """

    def __init__(
        self,
        gguf: Path,
        tokenizer_folder: Path,
        threads: int,
        name: str = "",
        adapters: Mapping[str, tuple[str, Path]] | None = None,
        prefix_cache: bool = False,
        context: int = 8192,
    ) -> None:
        adapters = adapters or {}
        self.name = f"{name or gguf.stem} on OpenVINO, {threads} thread{'' if threads == 1 else 's'}"
        self.adapters = {role: version for role, (version, _) in adapters.items()}
        self._context = context
        files = {"base": gguf} | {role: path for role, (_, path) in adapters.items()}
        models = sorted(set(files.values()))
        self._pipelines = {role: models.index(path) for role, path in files.items()}
        blocks = max(KV_BLOCKS // len(models), -(-context // 32))  # the longest request must fit
        self._settings = {
            "models": [str(path) for path in models],
            "scheduler": {"num_kv_blocks": blocks, "max_num_seqs": MAX_BATCH, "enable_prefix_caching": prefix_cache},
            "properties": PRECISION | {"INFERENCE_NUM_THREADS": threads},
        }
        self._lock = threading.Lock()  # not an RLock: a web server may close a generator in another thread than it ran in
        self._ids = itertools.count()
        self._worker = _Worker(self._settings)
        self._tokenizer = ChatTokenizer.from_folder(tokenizer_folder)  # while the other process loads the model
        self._worker.wait_until_ready()

    def prompt(self, messages: Sequence[tuple[str, str]], prefix: str = "") -> Prompt:
        return self._tokenizer.prompt(messages, prefix)

    def n_tokens(self, text: str) -> int:
        return self._tokenizer.n_tokens(text)

    def truncate(self, text: str, max_tokens: int) -> str:
        return self._tokenizer.truncate(text, max_tokens)

    def close(self) -> None:
        """End the process that holds the model; a later ``generate`` starts it again."""
        self._worker.close()

    def generate(self, requests: Sequence[Request], cancel: threading.Event | None = None) -> Iterator[Event]:
        """See ``LLM.generate``. Batches of several threads run one after another; closing the iterator frees its requests."""
        check_batch(requests)
        check_context(requests, self._context)
        return self._generate(requests, cancel or threading.Event())

    def _generate(self, requests: Sequence[Request], cancel: threading.Event) -> Iterator[Event]:
        if not wait_for_turn(self._lock, cancel):
            yield from (Event(r.key, "", 0, "cancelled") for r in requests)
            return
        streams = {next(self._ids): TextStream(r, self._tokenizer) for r in requests}
        try:
            if not self._worker.alive:
                log.warning("the process that held the language model has ended and is started again")
                self._worker = _Worker(self._settings)
                self._worker.wait_until_ready()
            self._worker.send({"add": [self._job(i, s.request) for i, s in streams.items()]})
            while any(not s.finish for s in streams.values()):
                self._advance(streams, cancel)
                for stream in streams.values():
                    if event := stream.news():
                        yield event
        finally:
            self._worker.send({"stop": list(streams)})
            self._lock.release()

    def _advance(self, streams: Mapping[int, TextStream], cancel: threading.Event) -> None:
        """Take one step's tokens into the streams, or end them all when ``cancel`` is set."""
        if cancel.is_set():
            for stream in streams.values():
                stream.end("cancelled")
            return
        message = self._worker.receive()
        for request_id, tokens in message["tokens"].items():
            if stream := streams.get(int(request_id)):  # else of a batch that was closed
                for token in tokens:
                    stream.push(token)
                if stream.finish and request_id not in message["ended"]:
                    self._worker.send({"stop": [int(request_id)]})
        for request_id, finish in message["ended"].items():
            if stream := streams.get(int(request_id)):
                stream.end(finish)

    def _job(self, request_id: int, request: Request) -> dict[str, Any]:
        sampling = request.sampling
        config: dict[str, Any] = {
            "max_new_tokens": request.max_new_tokens,
            "min_new_tokens": request.min_new_tokens,
            "repetition_penalty": sampling.repetition_penalty,
            "frequency_penalty": sampling.frequency_penalty,
            "eos_token_id": min(self._tokenizer.end_ids),
            "stop_token_ids": sorted(self._tokenizer.end_ids),
        }
        if sampling.temperature > 0:
            config |= {"do_sample": True, "temperature": sampling.temperature, "top_p": sampling.top_p, "rng_seed": request.seed % 2**32}
        pipeline = self._pipelines.get(request.role, self._pipelines["base"])
        return {"id": request_id, "pipeline": pipeline, "ids": request.prompt.token_ids, "config": config}


class _Worker:
    """The process with the pipelines; it loads while the caller goes on."""

    def __init__(self, settings: Mapping[str, Any]) -> None:
        # -P: the script's own folder holds a types.py, which must not stand in for the standard library's
        command = [sys.executable, "-P", str(Path(__file__).with_name("openvino_worker.py")), json.dumps(settings)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, encoding="utf-8", bufsize=1)
        self._inbox: queue.Queue[dict[str, Any] | None] = queue.Queue()
        threading.Thread(target=_collect, args=(self._process.stdout, self._inbox), daemon=True).start()

    def wait_until_ready(self) -> None:
        self.receive()

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def send(self, message: Mapping[str, Any]) -> None:
        """Hand ``message`` over; nothing happens where the process has ended, which the next ``receive`` tells."""
        try:
            self._process.stdin.write(json.dumps(message) + "\n")
        except (OSError, ValueError):
            return

    def receive(self) -> dict[str, Any]:
        """The next message; raises LLMError when there is none or it tells of a failure."""
        try:
            message = self._inbox.get(timeout=SECONDS_WITHOUT_A_STEP)
        except queue.Empty:
            self.close()
            raise LLMError(f"OpenVINO did nothing for {SECONDS_WITHOUT_A_STEP} s and was ended; try again") from None
        if message is None:
            code = self._process.wait()
            raise LLMError(f"the OpenVINO process ended with code {code}; try again. If that happens often, set PAT_ENGINE=transformers")
        if "error" in message:
            raise LLMError(f"OpenVINO cannot go on: {message['error']}. Try shorter texts, or set PAT_ENGINE=transformers")
        return message

    def close(self) -> None:
        self._process.stdin.close()
        try:
            self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def _collect(source: IO[str], inbox: queue.Queue[dict[str, Any] | None]) -> None:
    for line in source:
        inbox.put(json.loads(line))
    inbox.put(None)
