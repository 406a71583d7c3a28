"""Any OpenAI-compatible chat server as an engine: vLLM, TGI, llama.cpp, Ollama or a hosted one, streamed over HTTP.

A batch is so many requests at once; the server batches them. The agents' adapters are addressed by model name, as vLLM serves LoRA
(``--lora-modules style=... topic=... generator=...``); a role the server does not list goes to the base model. The tokenizer is on the
server, so lengths are estimates and control tokens in texts are broken up by a space instead of being encoded as plain text. Leaves out
tools, images, and servers that know completions only.
"""

from __future__ import annotations

import asyncio
import json
import queue
import re
import threading
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any

import httpx

from pat_core.llm.prompting import check_batch, check_speakers, cut_at_word
from pat_core.llm.types import Event, LLMError, Request
from pat_core.types import ADAPTER_ROLES, Prompt

BYTES_PER_TOKEN = 4  # of English with the tokenizers of today's models; enough for limits that have slack
TIMEOUT = httpx.Timeout(120.0, connect=10.0)  # a busy server may take its time before the first token
MAX_LINE = 1_000_000  # characters of one server-sent event
# <|im_start|>, </s>, <start_of_turn>, [INST], <<SYS>> and their like: a space behind the first bracket makes them plain text
CONTROL = re.compile(
    r"<(?=[|\uff5c])|<(?=/?(?:s|bos|eos|pad|unk|start_of_turn|end_of_turn|think|tool_call)>)|<(?=</?SYS>>)|\[(?=/?INST\])", re.IGNORECASE
)
LOOPBACK = ("127.0.0.1", "localhost", "::1")


class ServerEngine:
    """A chat model behind ``url`` (which usually ends in /v1). ``model`` '' takes the first that the server lists."""

    def __init__(self, url: str, key: str = "", model: str = "", timeout: httpx.Timeout = TIMEOUT) -> None:
        try:
            self._host = httpx.URL(url).host
        except httpx.InvalidURL as error:
            raise ValueError(f"PAT_LLM_URL={url!r} is no address ({error}); use one like http://127.0.0.1:8000/v1") from error
        self._url = url.rstrip("/")
        self._model = model
        self._timeout = timeout
        self._prefix_switches = True  # until the server refuses them
        self._headers = {"Authorization": f"Bearer {key}"} if key else {}
        listed = self._list_models()
        if not model and not listed:
            raise LLMError(f"{self._url} lists no models; name the one to use in PAT_MODEL")
        if model and listed and model not in listed:
            raise LLMError(f"{self._url} has no model {model!r}; set PAT_MODEL to one of: {', '.join(listed[:10])}")
        self._model = model or next((m for m in listed if m not in ADAPTER_ROLES), listed[0])
        self.adapters: dict[str, str] = {role: role for role in ADAPTER_ROLES if role in listed}
        self.name = f"{self._model} on {self._host} (OpenAI-compatible server)"

    def prompt(self, messages: Sequence[tuple[str, str]], prefix: str = "") -> Prompt:
        """The messages as they are; control tokens in them are broken up when they are sent."""
        check_speakers(messages)
        return Prompt(tuple(messages), prefix)

    def n_tokens(self, text: str) -> int:
        return -(-len(text.encode("utf-8", "replace")) // BYTES_PER_TOKEN)

    def truncate(self, text: str, max_tokens: int) -> str:
        if self.n_tokens(text) <= max_tokens:
            return text
        kept = text.encode("utf-8", "replace")[: max(0, max_tokens) * BYTES_PER_TOKEN].decode("utf-8", "ignore")
        return cut_at_word(text, len(kept))

    def generate(self, requests: Sequence[Request], cancel: threading.Event | None = None) -> Iterator[Event]:
        """See ``LLM.generate``. All requests run at once; closing the iterator or ``cancel`` drops their connections."""
        check_batch(requests)
        return self._generate(requests, cancel or threading.Event())

    def _generate(self, requests: Sequence[Request], cancel: threading.Event) -> Iterator[Event]:
        news: queue.Queue[Event | LLMError] = queue.Queue()
        batch = _Background(self._run(requests, news))
        last = {r.key: Event(r.key, "", 0) for r in requests}
        try:
            while any(not e.finish for e in last.values()):
                if cancel.is_set():
                    for e in [e for e in last.values() if not e.finish]:
                        yield Event(e.key, e.text, e.n_tokens, "cancelled")
                    return
                try:
                    event = news.get(timeout=0.05)
                except queue.Empty:
                    batch.check()
                    continue
                if isinstance(event, LLMError):
                    raise event
                last[event.key] = event
                yield event
        finally:
            batch.stop()

    async def _run(self, requests: Sequence[Request], news: queue.Queue[Event | LLMError]) -> None:
        async with httpx.AsyncClient(**self._options()) as client:
            await asyncio.gather(*(self._answer(client, r, news) for r in requests))

    async def _answer(self, client: httpx.AsyncClient, request: Request, news: queue.Queue[Event | LLMError]) -> None:
        try:
            async for event in self._events(client, request):
                news.put(event)
        except LLMError as error:
            news.put(error)
        except httpx.HTTPError as error:
            news.put(self._unreachable(error))

    async def _events(self, client: httpx.AsyncClient, request: Request) -> AsyncIterator[Event]:
        prefix, limit = request.prompt.prefix, 40 * request.max_new_tokens  # characters, for a server that ignores max_tokens
        text, n_tokens, finish = "", 0, ""
        async with client.stream("POST", f"{self._url}/chat/completions", json=self._body(request)) as response:
            if response.status_code != 200:
                refusal = (await response.aread())[:2000]
                if prefix and self._prefix_switches and b"continue_final_message" in refusal:
                    self._prefix_switches = False
                    async for event in self._events(client, request):
                        yield event
                    return
                raise self._refused(response.status_code, refusal)
            async for data in _server_sent(response):
                piece, finish, n_tokens = self._read_chunk(data, finish, n_tokens)
                text += piece
                shown = text.removeprefix(prefix) if not prefix.startswith(text) else ""
                if piece and shown and not finish:
                    yield Event(request.key, shown, n_tokens)
                if len(text) > limit:
                    finish = "length"
                    break
        if not finish:
            raise LLMError(f"{self._url} broke off in the middle of an answer; try again, and look at the server's log")
        yield Event(request.key, text.removeprefix(prefix), n_tokens, finish)

    def _read_chunk(self, data: str, finish: str, n_tokens: int) -> tuple[str, str, int]:
        """(new text, finish, tokens so far) after one event's data."""
        try:
            chunk = json.loads(data)
            if "error" in chunk:
                raise LLMError(f"{self._url} reports: {reason_given(data.encode())}")
            usage = chunk.get("usage") or {}
            choice = (chunk.get("choices") or [{}])[0]
            piece = (choice.get("delta") or {}).get("content") or ""
            reason = choice.get("finish_reason")
            n_tokens = int(usage.get("completion_tokens") or n_tokens + bool(piece))
            return str(piece), finish or ("length" if reason == "length" else "stop" if reason else ""), n_tokens
        except (ValueError, AttributeError, TypeError, LookupError) as error:
            raise LLMError(f"{self._url} sent something that is no chat completion ({data[:80]!r}); is PAT_LLM_URL right?") from error

    def _body(self, request: Request) -> dict[str, Any]:
        """The JSON of one request; what is not in OpenAI's own API is sent only where it differs from the default."""
        sampling, prompt = request.sampling, request.prompt
        messages = [{"role": speaker, "content": neutralized(text)} for speaker, text in prompt.messages]
        body: dict[str, Any] = {
            "model": self.adapters.get(request.role, self._model),
            "messages": messages,
            "stream": True,
            "stream_options": {"include_usage": True},
            "max_tokens": request.max_new_tokens,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "seed": request.seed % 2**31,
        }
        if prompt.prefix:  # vLLM needs two switches to go on with a begun answer, llama.cpp goes on by itself
            messages.append({"role": "assistant", "content": neutralized(prompt.prefix)})
            if self._prefix_switches:
                body |= {"continue_final_message": True, "add_generation_prompt": False}
        if request.stop:
            body["stop"] = list(request.stop)
        if sampling.frequency_penalty:
            body["frequency_penalty"] = sampling.frequency_penalty
        if sampling.repetition_penalty != 1.0:
            body["repetition_penalty"] = sampling.repetition_penalty
        if request.min_new_tokens:
            body["min_tokens"] = request.min_new_tokens
        return body

    def _options(self) -> dict[str, Any]:
        # A redirect would carry texts and key to an address nobody named; a proxy cannot reach this machine.
        return {"headers": self._headers, "timeout": self._timeout, "follow_redirects": False, "trust_env": self._host not in LOOPBACK}

    def _list_models(self) -> list[str]:
        """Names of the server's models, [] for a server that has no list."""
        try:
            response = httpx.get(f"{self._url}/models", **self._options())
        except httpx.HTTPError as error:
            raise self._unreachable(error) from error
        if response.status_code in (404, 405, 501):
            return []
        if response.status_code != 200:
            raise self._refused(response.status_code, response.content[:2000])
        try:
            return [str(m["id"]) for m in response.json()["data"]]
        except (ValueError, KeyError, TypeError) as error:
            raise LLMError(
                f"{self._url}/models is no list of models; is it an OpenAI-compatible server? Most addresses end in /v1"
            ) from error

    def _unreachable(self, error: httpx.HTTPError) -> LLMError:
        if isinstance(error, httpx.TimeoutException):
            return LLMError(f"{self._url} did not answer in time; try again, or use fewer drafts or a faster server")
        if isinstance(error, httpx.ConnectError):
            return LLMError(f"{self._url} cannot be reached ({error}); start the server or correct PAT_LLM_URL")
        return LLMError(f"{self._url} broke off in the middle of an answer ({error}); try again, and look at the server's log")

    def _refused(self, status: int, body: bytes) -> LLMError:
        reason = reason_given(body)
        if status in (401, 403):
            return LLMError(f"{self._url} refuses the key; set PAT_LLM_KEY to one that it accepts")
        if 300 <= status < 400:
            return LLMError(f"{self._url} redirects elsewhere, which is not followed; put the final address into PAT_LLM_URL")
        if status == 404:
            return LLMError(f"{self._url} has no model {self._model!r} or no chat completions ({reason}); check PAT_LLM_URL, PAT_MODEL")
        if status in (429, 503):
            return LLMError(f"{self._url} is busy ({reason}); try again in a moment")
        return LLMError(f"{self._url} answered with status {status}: {reason}")


class _Background:
    """A coroutine that runs in a thread of its own until it ends or is stopped."""

    def __init__(self, coroutine: Any) -> None:
        self._loop = asyncio.new_event_loop()
        self._task = self._loop.create_task(coroutine)
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=(asyncio.wait([self._task]),), daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Raise what the coroutine raised, if it did."""
        if self._task.done() and not self._task.cancelled() and (error := self._task.exception()):
            raise error

    def stop(self) -> None:
        """Cancel what still runs, which closes its connections, and wait for that."""
        self._loop.call_soon_threadsafe(self._task.cancel)  # nothing where it has ended; the loop is closed here alone, so it is open
        self._thread.join(timeout=10)
        if not self._thread.is_alive():
            self._loop.close()


async def _server_sent(response: httpx.Response) -> AsyncIterator[str]:
    """The data of each server-sent event, up to [DONE]; raises LLMError for a line without end."""
    held = ""
    async for piece in response.aiter_text():
        held += piece
        *lines, held = held.split("\n")
        if len(held) > MAX_LINE:
            raise LLMError("the server sent a line without end; is PAT_LLM_URL right?")
        for line in lines:
            if not line.startswith("data:"):
                continue
            data = line.removeprefix("data:").strip()
            if data == "[DONE]":
                return
            yield data


def neutralized(text: str) -> str:
    """``text`` with its control tokens broken up, which a server would read as turns of the chat, and no lone surrogates."""
    return CONTROL.sub(lambda m: m.group() + " ", text.encode("utf-8", "replace").decode())


def reason_given(body: bytes) -> str:
    """The server's own words about an error, at most 200 characters."""
    try:
        error = json.loads(body)
        error = error.get("error", error)
        text = error.get("message", "") if isinstance(error, dict) else error
    except (ValueError, AttributeError):
        text = body.decode("utf-8", "replace")
    return " ".join(str(text).split())[:200] or "no reason given"
