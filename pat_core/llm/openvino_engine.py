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
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

from pat_core.llm.prompting import ChatTokenizer, TextStream, check_batch, check_context, wait_for_turn
from pat_core.llm.types import Event, LLMError, Request
from pat_core.types import Prompt

log = logging.getLogger(__name__)

KV_BLOCKS = 512  # of all pipelines together, x 32 tokens; for SmolLM2-135M 23 kB a token, so 380 MB when full
BLOCK = 32  # tokens
MAX_BATCH = 32
GROUP = 8  # texts that share the reading of their prompt
# float32 arithmetic and float16 keys and values: as fast as OpenVINO's default (bfloat16 and 8 bits, where the CPU has them) and nearer to
# the reference, at most 0.2 nats from its best token against 0.4. Matrices are multiplied in 8 bits either way; switching that off
# (DYNAMIC_QUANTIZATION_GROUP_SIZE 0) gains little and costs 1.7 times the time.
PRECISION = {"INFERENCE_PRECISION_HINT": "f32", "KV_CACHE_PRECISION": "f16"}
SECONDS_WITHOUT_A_STEP = 120  # after which the process is taken for dead


class OpenVINOEngine:
    """A llama-type GGUF model on this machine's CPU.

    ``adapters`` maps a role to (version, merged GGUF). ``memory`` is how many tokens all pipelines together hold at once; what has no room
    waits. With ``prefix_cache`` the beginning that a prompt shares with an earlier one costs nothing, but the same batch may then give
    another text the second time, where two tokens were nearly equal: it is off by default.

    Sampled requests that are not streamed and differ only in key and seed share the reading of their prompt, up to ``GROUP`` of them: 0.6
    of the time for four texts of 180 + 85 tokens. OpenVINO tells of such texts when the last of them has ended, so a stop string saves no
    time there, and a cancelled one is empty. It has one random sequence for all, which the lowest of the seeds starts: the text of a key
    depends on the other seeds in its batch. The same batch gives the same texts, in whatever order its requests stand.
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
        memory: int = KV_BLOCKS * BLOCK,
    ) -> None:
        adapters = adapters or {}
        self.name = f"{name or gguf.stem} on OpenVINO, {threads} thread{'' if threads == 1 else 's'}"
        self.adapters = {role: version for role, (version, _) in adapters.items()}
        self._context = context
        files = {"base": gguf} | {role: path for role, (_, path) in adapters.items()}
        models = sorted(set(files.values()))
        self._pipelines = {role: models.index(path) for role, path in files.items()}
        blocks = max(memory // BLOCK // len(models), -(-context // BLOCK))  # the longest request must fit
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
        streams = {r.key: TextStream(r, self._tokenizer) for r in requests}
        heard: dict[int, list[TextStream]] = {}  # who gets a text, by the number that the other process knows it by
        jobs = []
        for group in _groups(requests, self._settings["scheduler"]["num_kv_blocks"]):
            ids = [next(self._ids) for _ in group]
            heard |= {i: [streams[r.key] for r in same] for i, same in zip(ids, group, strict=True)}
            jobs.append(self._job(ids, group[0][0]))
        try:
            if not self._worker.alive:
                log.warning("the process that held the language model has ended and is started again")
                self._worker = _Worker(self._settings)
                self._worker.wait_until_ready()
            self._worker.send({"add": jobs})
            while any(not s.finish for s in streams.values()):
                self._advance(heard, cancel)
                for stream in streams.values():
                    if event := stream.news():
                        yield event
        finally:
            self._worker.send({"stop": list(heard)})
            self._lock.release()

    def _advance(self, heard: Mapping[int, Sequence[TextStream]], cancel: threading.Event) -> None:
        """Take one step's tokens into the streams, or end them all when ``cancel`` is set."""
        if cancel.is_set():
            for stream in itertools.chain(*heard.values()):
                stream.end("cancelled")
            return
        message = self._worker.receive()
        for text_id, tokens in message["tokens"].items():
            streams = heard.get(int(text_id), ())  # none where the batch was closed
            for stream, token in itertools.product(streams, tokens):
                stream.push(token)
            if streams and streams[0].finish and text_id not in message["ended"]:
                self._worker.send({"stop": [int(text_id)]})
        for text_id, finish in message["ended"].items():
            for stream in heard.get(int(text_id), ()):
                stream.end(finish)

    def _job(self, ids: Sequence[int], request: Request) -> dict[str, Any]:
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
        blocks = _blocks(request, len(ids))
        return {"ids": ids, "pipeline": pipeline, "blocks": blocks, "prompt": request.prompt.token_ids, "config": config}


def _groups(requests: Sequence[Request], blocks: int) -> list[list[list[Request]]]:
    """Requests that share the reading of a prompt, the lowest seed first; those with equal seeds, which get one text, in one inner list.

    Greedy and streamed requests stay alone. A group has at most ``GROUP`` texts, and no more than ``blocks`` of memory hold at once.
    """
    by_prompt: dict[Request, dict[int, list[Request]]] = {}
    for request in sorted(requests, key=lambda r: (r.seed, r.key)):  # so that their order does not matter
        alone = request.streamed or request.sampling.temperature == 0
        alike = request if alone else replace(request, key="", seed=0)
        by_prompt.setdefault(alike, {}).setdefault(request.seed, []).append(request)
    groups = []
    for alike, by_seed in by_prompt.items():
        size = next((n for n in range(GROUP, 1, -1) if _blocks(alike, n) <= blocks), 1)
        texts = list(by_seed.values())
        groups += [texts[i : i + size] for i in range(0, len(texts), size)]
    return groups


def _blocks(request: Request, n: int) -> int:
    """The memory that ``n`` texts of one prompt take at most: they share its whole blocks."""
    shared, rest = divmod(len(request.prompt.token_ids), BLOCK)
    return shared + n * -(-(rest + request.max_new_tokens) // BLOCK)


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
