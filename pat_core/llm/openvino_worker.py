"""The process that holds OpenVINO's pipelines; ``openvino_engine`` starts it and talks to it in JSON lines.

A process of its own, because OpenVINO GenAI holds Python's global lock through every step (half a second while a prompt is read), in which
no other thread of a web server could answer; and because a crash in native code then ends one generation and not the app. Token ids in,
token ids out; it knows no text and no other module. It ends when its standard input does.

A job reads one prompt and writes a text for each of its ``ids``; a text that is stopped goes on unheard until the others have ended too.
Jobs wait, in order, until their ``blocks`` of memory are free: OpenVINO would start them, throw the work of others away to make room, and
where it did that to several texts of one prompt, find no room for them again.

In:  {"add": [{"ids": [id...], "pipeline", "blocks", "prompt": [token...], "config": {GenerationConfig's fields}}...]}, {"stop": [id...]}
Out: {"ready": true} once; {"tokens": {id: [token...]}, "ended": {id: "stop" | "length"}} after each step; {"error": text} after a failure.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import sys
import threading
from dataclasses import dataclass
from typing import Any, TextIO

import numpy as np
import openvino
import openvino_genai as ov_genai


@dataclass
class Job:
    """What was asked, the texts of it that still matter, and once it has started OpenVINO's request, whose sequence i is ``ids[i]``."""

    asked: dict[str, Any]
    heard: set[int]
    handle: ov_genai.GenerationHandle | None = None

    def start(self, pipeline: ov_genai.ContinuousBatchingPipeline) -> None:
        config = ov_genai.GenerationConfig()
        for name, value in self.asked["config"].items():
            setattr(config, name, set(value) if isinstance(value, list) else value)
        config.num_return_sequences = len(self.asked["ids"])
        prompt = openvino.Tensor(np.array([self.asked["prompt"]], dtype=np.int64))
        self.handle = pipeline.add_request(self.asked["ids"][0], prompt, config)

    def cancel(self) -> None:
        if self.handle:
            self.handle.cancel()


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the app, which ends this process by closing its input
    out = os.fdopen(os.dup(1), "w", encoding="utf-8", buffering=1)
    os.dup2(2, 1)  # whatever native code prints must not mix with the protocol
    try:
        settings = json.loads(sys.argv[1])
        pipelines = _open(settings)
    except RuntimeError as error:
        _send(out, {"error": str(error).strip().splitlines()[-1]})
        return
    _send(out, {"ready": True})
    inbox: queue.Queue[dict[str, Any] | None] = queue.Queue()
    threading.Thread(target=_read, args=(sys.stdin, inbox), daemon=True).start()
    with contextlib.suppress(BrokenPipeError):
        _serve(pipelines, settings["scheduler"]["num_kv_blocks"], inbox, out)


def _open(settings: dict[str, Any]) -> list[ov_genai.ContinuousBatchingPipeline]:
    scheduler = ov_genai.SchedulerConfig()
    for name, value in settings["scheduler"].items():
        setattr(scheduler, name, value)
    return [ov_genai.ContinuousBatchingPipeline(path, scheduler, "CPU", settings["properties"]) for path in settings["models"]]


def _read(source: TextIO, inbox: queue.Queue[dict[str, Any] | None]) -> None:
    for line in source:
        inbox.put(json.loads(line))
    inbox.put(None)


def _serve(
    pipelines: list[ov_genai.ContinuousBatchingPipeline], blocks: int, inbox: queue.Queue[dict[str, Any] | None], out: TextIO
) -> None:
    jobs: list[Job] = []
    while True:
        try:
            while not inbox.empty() or not (jobs or any(p.has_non_finished_requests() for p in pipelines)):
                message = inbox.get()
                if message is None:
                    return
                _obey(message, pipelines, jobs)
            for number, pipeline in enumerate(pipelines):
                _admit([job for job in jobs if job.asked["pipeline"] == number], pipeline, blocks)
            for pipeline in pipelines:  # one after another: two runtimes that spin side by side slow each other many times over
                if pipeline.has_non_finished_requests():
                    pipeline.step()
            _send(out, _news(jobs))
        except RuntimeError as error:
            _send(out, {"error": str(error)})
            for job in jobs:
                job.cancel()
            jobs.clear()


def _obey(message: dict[str, Any], pipelines: list[ov_genai.ContinuousBatchingPipeline], jobs: list[Job]) -> None:
    for pipeline in pipelines if "add" in message else ():  # stopped requests leave first, or they would shape the new batch
        while not jobs and pipeline.has_non_finished_requests():
            pipeline.step()
    jobs += [Job(asked, set(asked["ids"])) for asked in message.get("add", ())]
    for job in jobs if "stop" in message else ():
        job.heard.difference_update(message["stop"])
        if not job.heard:
            job.cancel()
    jobs[:] = [job for job in jobs if job.heard]


def _admit(jobs: list[Job], pipeline: ov_genai.ContinuousBatchingPipeline, blocks: int) -> None:
    """Start jobs of one pipeline in order while there are blocks for them."""
    free = blocks - sum(job.asked["blocks"] for job in jobs if job.handle)
    for job in jobs:
        if job.handle:
            continue
        free -= job.asked["blocks"]
        if free < 0:
            return
        job.start(pipeline)


def _news(jobs: list[Job]) -> dict[str, Any]:
    """The tokens that came with this step; jobs whose texts have all ended leave ``jobs``."""
    tokens: dict[int, list[int]] = {}
    ended: dict[int, str] = {}
    for job in jobs:
        while job.handle and job.handle.can_read():
            for sequence, output in job.handle.read().items():
                text_id = job.asked["ids"][sequence]
                if text_id not in job.heard:
                    continue
                tokens.setdefault(text_id, []).extend(output.generated_ids)
                if output.finish_reason != ov_genai.GenerationFinishReason.NONE:
                    ended[text_id] = "length" if output.finish_reason == ov_genai.GenerationFinishReason.LENGTH else "stop"
                    job.heard.discard(text_id)
        if job.handle and job.handle.get_status() == ov_genai.GenerationStatus.IGNORED:
            raise RuntimeError("no room left for the prompts of this batch")
        if not job.heard:
            job.cancel()
    jobs[:] = [job for job in jobs if job.heard]
    return {"tokens": tokens, "ended": ended}


def _send(out: TextIO, message: dict[str, Any]) -> None:
    out.write(json.dumps(message) + "\n")


if __name__ == "__main__":
    main()
