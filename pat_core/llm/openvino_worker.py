"""The process that holds OpenVINO's pipelines; ``openvino_engine`` starts it and talks to it in JSON lines.

A process of its own, because OpenVINO GenAI holds Python's global lock through every step (half a second while a prompt is read), in which
no other thread of a web server could answer; and because a crash in native code then ends one generation and not the app. Token ids in,
token ids out; it knows no text and no other module. It ends when its standard input does.

In:  {"add": [{"id", "pipeline", "ids", "config": {GenerationConfig's fields}}...]}, {"stop": [id...]}
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
from typing import Any, TextIO

import numpy as np
import openvino
import openvino_genai as ov_genai


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the app, which ends this process by closing its input
    out = os.fdopen(os.dup(1), "w", encoding="utf-8", buffering=1)
    os.dup2(2, 1)  # whatever native code prints must not mix with the protocol
    try:
        pipelines = _open(json.loads(sys.argv[1]))
    except RuntimeError as error:
        _send(out, {"error": str(error).strip().splitlines()[-1]})
        return
    _send(out, {"ready": True})
    inbox: queue.Queue[dict[str, Any] | None] = queue.Queue()
    threading.Thread(target=_read, args=(sys.stdin, inbox), daemon=True).start()
    with contextlib.suppress(BrokenPipeError):
        _serve(pipelines, inbox, out)


def _open(settings: dict[str, Any]) -> list[ov_genai.ContinuousBatchingPipeline]:
    scheduler = ov_genai.SchedulerConfig()
    for name, value in settings["scheduler"].items():
        setattr(scheduler, name, value)
    return [ov_genai.ContinuousBatchingPipeline(path, scheduler, "CPU", settings["properties"]) for path in settings["models"]]


def _read(source: TextIO, inbox: queue.Queue[dict[str, Any] | None]) -> None:
    for line in source:
        inbox.put(json.loads(line))
    inbox.put(None)


def _serve(pipelines: list[ov_genai.ContinuousBatchingPipeline], inbox: queue.Queue[dict[str, Any] | None], out: TextIO) -> None:
    handles: dict[int, ov_genai.GenerationHandle] = {}
    while True:
        busy = [p for p in pipelines if p.has_non_finished_requests()]
        while not busy or not inbox.empty():
            message = inbox.get()
            if message is None:
                return
            try:
                _obey(message, pipelines, handles)
            except RuntimeError as error:
                _send(out, {"error": str(error)})
            busy = [p for p in pipelines if p.has_non_finished_requests()]
        try:
            for pipeline in busy:  # one after another: two runtimes that spin side by side slow each other many times over
                pipeline.step()
            _send(out, _news(handles))
        except RuntimeError as error:
            _send(out, {"error": str(error)})
            for handle in handles.values():
                handle.cancel()
            handles.clear()


def _obey(message: dict[str, Any], pipelines: list[ov_genai.ContinuousBatchingPipeline], handles: dict[int, Any]) -> None:
    for pipeline in pipelines if "add" in message else ():  # stopped requests leave first, or they would shape the new batch
        while not handles and pipeline.has_non_finished_requests():
            pipeline.step()
    for request in message.get("add", ()):
        config = ov_genai.GenerationConfig()
        for name, value in request["config"].items():
            setattr(config, name, set(value) if isinstance(value, list) else value)
        ids = openvino.Tensor(np.array([request["ids"]], dtype=np.int64))
        handles[request["id"]] = pipelines[request["pipeline"]].add_request(request["id"], ids, config)
    for request_id in message.get("stop", ()):
        if handle := handles.pop(request_id, None):
            handle.cancel()


def _news(handles: dict[int, ov_genai.GenerationHandle]) -> dict[str, Any]:
    """The tokens that came with this step; requests that have ended leave ``handles``."""
    tokens: dict[int, list[int]] = {}
    ended: dict[int, str] = {}
    for request_id, handle in list(handles.items()):
        while handle.can_read():
            for output in handle.read().values():
                tokens.setdefault(request_id, []).extend(output.generated_ids)
                if output.finish_reason != ov_genai.GenerationFinishReason.NONE:
                    ended[request_id] = "length" if output.finish_reason == ov_genai.GenerationFinishReason.LENGTH else "stop"
        if handle.get_status() == ov_genai.GenerationStatus.IGNORED:
            raise RuntimeError("no room left for the prompts of this batch")
        if request_id in ended:
            del handles[request_id]
    return {"tokens": tokens, "ended": ended}


def _send(out: TextIO, message: dict[str, Any]) -> None:
    out.write(json.dumps(message) + "\n")


if __name__ == "__main__":
    main()
