"""Any OpenAI-compatible server (vLLM, TGI, llama.cpp, Ollama): texts by ``POST {url}/chat/completions``, streamed.

A role with a model of its own name on the server (vLLM serves LoRA adapters as models) is written by that one, every other role by the base
model. The tokenizer is on the server, so prompts hold no token ids and lengths are estimates. What only some servers know (``min_tokens``,
continuing a prefix, ``repetition_penalty``) is sent and, where a server refuses it, left out from then on. Leaves out ``<think>`` passages
that a server does not keep apart from the text.
"""

from __future__ import annotations

import asyncio
import json
import logging
import queue
import re
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import httpx

from pat_core.llm.prompting import _overlap, check_batch, check_speakers, cut_at_word
from pat_core.llm.types import Event, LLMError, Request
from pat_core.types import ADAPTER_ROLES, Prompt

log = logging.getLogger(__name__)

TIMEOUT = httpx.Timeout(10, read=120)  # seconds; read is the longest wait for the next piece of an answer
CHARACTERS_PER_TOKEN = 4  # of English text, roughly, for today's vocabularies
MOST_STOPS = 4  # OpenAI's limit; any further stop string is looked for here
SECONDS_BETWEEN_LOOKS = 0.05  # at ``cancel``
CONTROL = re.compile(
    r"<\||<｜|</?s>|<</?SYS>>|\[/?(?:INST|SYSTEM_PROMPT|AVAILABLE_TOOLS|TOOL_RESULTS|TOOL_CALLS)\]|<(?:start|end)_of_turn>|<(?:bos|eos)>", re.IGNORECASE
)


class ServerEngine:
    """Models on the server at ``url`` (ends in /v1, mostly); ``key`` is its bearer token, ``model`` the base model, '' = the first one listed.

    Raises ValueError where the settings name no usable server or model, LLMError where the server cannot be asked.
    """

    def __init__(self, url: str, key: str = "", model: str = "") -> None:
        self._url = url.rstrip("/")
        self._host = _host(self._url)
        if not re.fullmatch(r"[!-~]*", key):  # not quoted: error texts reach screens and logs
            raise ValueError("PAT_LLM_KEY holds a space, a line break or a character outside ASCII; set it to the bare key")
        self._key = key
        self._headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._tls = httpx.create_ssl_context()  # takes longer to make than a request
        self._takes_extensions = True
        served = self._served(model)
        named = [name for name in served if name not in ADAPTER_ROLES]
        if not (model or served):
            raise ValueError(f"{self._host} lists no models; set PAT_MODEL to the name of the model it serves")
        self._model = model or (named or served)[0]
        if served and self._model not in served:
            log.warning("%s does not list the model %r; it lists %s", self._host, self._model, ", ".join(served))
        self.adapters: dict[str, str] = {role: role for role in ADAPTER_ROLES if role in served and role != self._model}
        self.name = f"{self._model} at {self._host} (OpenAI-compatible server)"

    def _served(self, model: str) -> tuple[str, ...]:
        """Names of the models the server lists, () where it has no list."""
        try:
            response = httpx.get(f"{self._url}/models", headers=self._headers, timeout=TIMEOUT, verify=self._tls)
        except httpx.HTTPError as error:
            raise self._unreachable(error) from error
        if response.status_code in (404, 405, 501):
            return ()
        if response.status_code != 200:
            raise self._refusal(response, model)
        try:
            return tuple(str(entry["id"]) for entry in response.json()["data"] or ())
        except (ValueError, KeyError, TypeError) as error:
            raise LLMError(f"{self._url}/models does not answer with a list of models; check PAT_LLM_URL (it often ends in /v1)") from error

    def prompt(self, messages: Sequence[tuple[str, str]], prefix: str = "") -> Prompt:
        """The messages as they are, without token ids; control tokens in them are neutralised when they are sent."""
        check_speakers(messages)
        return Prompt(tuple(messages), prefix)

    def n_tokens(self, text: str) -> int:
        """An estimate: one token for four characters begun."""
        return -(-len(text) // CHARACTERS_PER_TOKEN)

    def truncate(self, text: str, max_tokens: int) -> str:
        """The beginning of ``text`` with at most ``max_tokens`` tokens by the estimate of ``n_tokens``, cut at a word."""
        end = max(0, max_tokens) * CHARACTERS_PER_TOKEN
        return text if len(text) <= end else cut_at_word(text, end)

    def generate(self, requests: Sequence[Request], cancel: threading.Event | None = None) -> Iterator[Event]:
        """See ``LLM.generate``. All requests of the batch are on the server at once; closing the iterator ends their connections.

        ``n_tokens`` counts the pieces that came, and is the server's own count in the last event where the server gives one. A server that
        does not know ``min_tokens`` may end a text earlier.
        """
        check_batch(requests)
        for request in requests:
            check_speakers(request.prompt.messages)
        return self._generate(requests, cancel or threading.Event())

    def _generate(self, requests: Sequence[Request], cancel: threading.Event) -> Iterator[Event]:
        running = {r.key: Event(r.key, "", 0) for r in requests}
        inbox: queue.SimpleQueue[Event | Future[None]] = queue.SimpleQueue()
        closed = threading.Event()
        thread = ThreadPoolExecutor(1, thread_name_prefix="server-engine")
        batch = thread.submit(lambda: asyncio.run(self._run(requests, inbox.put, lambda: cancel.is_set() or closed.is_set())))
        batch.add_done_callback(inbox.put)
        try:
            while running and not cancel.is_set():
                try:
                    item = inbox.get(timeout=SECONDS_BETWEEN_LOOKS)
                except queue.Empty:
                    continue
                if isinstance(item, Future):
                    item.result()  # raises what went wrong
                    break
                running[item.key] = item
                if item.finish:
                    del running[item.key]
                yield item
            yield from (Event(e.key, e.text, e.n_tokens, "cancelled") for e in running.values())
        finally:
            closed.set()
            thread.shutdown(wait=False)

    async def _run(self, requests: Sequence[Request], tell: Callable[[Event], None], over: Callable[[], bool]) -> None:
        """Have every request answered; the first failure, or ``over``, ends all connections."""
        # An event loop, not a thread for each request: only a task can be ended while it waits for a connection or a first word.
        async with httpx.AsyncClient(headers=self._headers, timeout=TIMEOUT, verify=self._tls) as client:
            open_tasks = {asyncio.create_task(self._answer(client, r, tell)) for r in requests}
            try:
                while open_tasks and not over():
                    done, open_tasks = await asyncio.wait(open_tasks, timeout=SECONDS_BETWEEN_LOOKS, return_when=asyncio.FIRST_COMPLETED)
                    for task in done:
                        task.result()
            except httpx.HTTPError as error:
                raise self._unreachable(error) from error
            finally:
                for task in open_tasks:
                    task.cancel()
                await asyncio.gather(*open_tasks, return_exceptions=True)

    async def _answer(self, client: httpx.AsyncClient, request: Request, tell: Callable[[Event], None]) -> None:
        model = self.adapters.get(request.role, self._model)
        body = {"model": model, "stream": True} | _body(request)
        for extra in (_extensions(request), {}) if self._takes_extensions else ({},):
            async with client.stream("POST", f"{self._url}/chat/completions", json=body | extra) as response:
                if extra and response.status_code in (400, 422):
                    continue
                if response.status_code != 200:
                    await response.aread()
                    raise self._refusal(response, model)
                if not extra and self._takes_extensions:
                    log.info("%s refuses parameters outside OpenAI's API; they are left out from now on", self._host)
                    self._takes_extensions = False
                answer = _Answer(request)
                await self._read(response, answer, tell)
                tell(answer.event())
                return

    async def _read(self, response: httpx.Response, answer: _Answer, tell: Callable[[Event], None]) -> None:
        """Take the stream into ``answer`` until it has ended, telling of new text; raises LLMError for a stream that is broken."""
        finish, n_tokens, chosen, thought = "", 0, False, False
        async for chunk in self._chunks(response):
            if usage := chunk.get("usage"):
                n_tokens = usage.get("completion_tokens") or 0
            for choice in chunk.get("choices") or ():
                chosen = True
                delta = choice.get("delta") or {}
                thought = thought or bool(delta.get("reasoning_content") or delta.get("reasoning"))
                if answer.push(delta.get("content") or ""):
                    if answer.finish:
                        return
                    tell(answer.event())
                finish = choice.get("finish_reason") or finish
        if not chosen:
            raise LLMError(f"{self._host} sent an answer without any choices; check that PAT_LLM_URL and PAT_MODEL name a chat model")
        if finish in ("content_filter", "abort", "error"):
            raise LLMError(f"{self._host} broke a text off ({finish}); change the request, or look into the server's log")
        if thought and answer.empty:
            raise LLMError(f"the model at {self._host} only reasoned and wrote no text; turn its reasoning off on the server, or set another PAT_MODEL")
        answer.end("length" if finish == "length" else "stop", n_tokens)

    async def _chunks(self, response: httpx.Response) -> AsyncIterator[dict[str, Any]]:
        """The JSON objects of a server-sent event stream; one that ends without [DONE] or a finish reason is broken."""
        ended = found = False
        async for line in _lines(response):
            field, _, data = line.partition(":")
            if field not in ("data", "error"):  # llama.cpp has had events of the field "error"
                continue
            found, data = True, data.strip()
            if data == "[DONE]":
                return
            try:
                chunk = json.loads(data)
                if field == "error" or chunk.get("error"):
                    raise LLMError(f"{self._host} broke off: {self._safe(_detail(chunk))}. Try again, or look into the server's log")
                ended = ended or any(choice.get("finish_reason") for choice in chunk.get("choices") or ())
            except (ValueError, AttributeError, TypeError) as error:
                raise LLMError(
                    f"{self._host} sent something in its stream that is not the JSON of a chat completion: {self._safe(data)!r}. "
                    "Check that PAT_LLM_URL is an OpenAI-compatible server"
                ) from error
            yield chunk
        if not found:
            raise LLMError(f"{self._host} did not answer with an event stream; check that PAT_LLM_URL is an OpenAI-compatible API (often .../v1)")
        if not ended:
            raise LLMError(f"the stream from {self._host} broke off in the middle of a text; try again, or look into the server's log")

    def _refusal(self, response: httpx.Response, model: str) -> LLMError:
        """What an answer other than 200 means and what to do; ``response`` is read."""
        code = response.status_code
        try:
            detail = self._safe(_detail(response.json()))
        except ValueError:
            detail = ""  # a page in HTML, mostly
        said = f" ({code}{': ' + detail if detail else ''})"
        if code in (401, 403):
            return LLMError(f"{self._host} refused the key{said}; set PAT_LLM_KEY to one that is allowed to use it")
        if code == 404:
            return LLMError(f"{self._host} has no model {model!r} or no chat at that address{said}; check PAT_MODEL and PAT_LLM_URL (often .../v1)")
        if code == 429:
            return LLMError(f"{self._host} has reached its limit of requests{said}; wait a minute and try again, or check the account's quota")
        if code >= 500:
            return LLMError(f"{self._host} failed{said}; wait until it is ready and try again, or look into the server's log")
        if code < 400:
            return LLMError(f"{self._host} sends requests to another address{said}; set PAT_LLM_URL to the address of the API itself")
        return LLMError(f"{self._host} refused the request{said}; check PAT_MODEL, or shorten the texts where it says that they are too long")

    def _unreachable(self, error: httpx.HTTPError) -> LLMError:
        if isinstance(error, httpx.ReadTimeout):
            return LLMError(f"{self._host} sent nothing for {TIMEOUT.read:.0f} s; try again, or look into the server's log")
        if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout):
            return LLMError(f"no connection to {self._host} ({self._safe(str(error)) or 'timeout'}); start the server or check PAT_LLM_URL")
        return LLMError(f"the connection to {self._host} broke ({self._safe(str(error))}); try again, or look into the server's log")

    def _safe(self, text: str) -> str:
        """Words of a server fit for an error text: short, on one line, without the key."""
        return " ".join((text.replace(self._key, "***") if self._key else text).split())[:300].rstrip(". ")


class _Answer:
    """The text of one running request: pieces in, cumulative text out; a repeated prefix and everything from a stop string on are cut."""

    def __init__(self, request: Request) -> None:
        self.finish = ""
        self._request = request
        self._prefix = neutralize(request.prompt.prefix)
        self._raw = ""
        self._text = ""
        self._n_tokens = 0
        self._search_from = 0

    @property
    def empty(self) -> bool:
        return not self._raw

    def push(self, piece: str) -> bool:
        """Take the next piece; True when the text to show has changed. Sets ``finish`` at a stop string."""
        if not piece:
            return False
        before = self._text
        self._raw += piece
        self._n_tokens += 1
        self._update(ended=False)
        return bool(self.finish) or self._text != before

    def end(self, finish: str, n_tokens: int) -> None:
        """Close the text, releasing what was held back; ``n_tokens`` is the server's count, 0 where it gave none."""
        self._update(ended=True)
        self.finish = self.finish or finish
        self._n_tokens = n_tokens or self._n_tokens

    def event(self) -> Event:
        return Event(self._request.key, self._text, self._n_tokens, self.finish)

    def _update(self, ended: bool) -> None:
        text = without_repeat(self._raw, self._prefix, ended)
        if self._n_tokens < self._request.min_new_tokens:
            self._search_from = len(text)
        hits = [at for stop in self._request.stop if (at := text.find(stop, self._search_from)) >= 0]
        if hits:
            text, self.finish = text[: min(hits)], "stop"
        elif not ended:
            held = max((_overlap(text[self._search_from :], stop) for stop in self._request.stop), default=0)
            text = text[: len(text) - held]
        self._text = text


def neutralize(text: str) -> str:
    """``text`` with a space inside everything that servers may read as a control token (``<|im_start|>``, ``</s>``, ``[INST]``)."""
    return CONTROL.sub(lambda token: token[0][0] + " " + token[0][1:], text)


def without_repeat(text: str, prefix: str, ended: bool) -> str:
    """``text`` without ``prefix``, where the model wrote that again instead of going on from it; '' as long as this is open.

    A longer word that begins like the prefix's last one is no repetition.
    """
    wanted, said = prefix.strip(), text.lstrip()
    if not wanted:
        return text
    if not ended and wanted.startswith(said):
        return ""
    rest = said[len(wanted) :]
    if not said.startswith(wanted) or (rest and wanted[-1].isalnum() and rest[0].isalnum()):
        return text
    return rest.lstrip() if prefix[-1].isspace() else rest


def _body(request: Request) -> dict[str, Any]:
    """The parameters of OpenAI's own API."""
    prompt, sampling = request.prompt, request.sampling
    turns = (*prompt.messages, ("assistant", prompt.prefix)) if prompt.prefix else prompt.messages
    body: dict[str, Any] = {
        "messages": [{"role": speaker, "content": neutralize(text)} for speaker, text in turns],
        "max_tokens": request.max_new_tokens,
        "temperature": sampling.temperature,
    }
    if sampling.temperature > 0:
        # top_p also where it is 1: vLLM otherwise takes the model's own default
        body |= {"top_p": sampling.top_p, "seed": request.seed % 2**31}
    if sampling.frequency_penalty:
        body["frequency_penalty"] = sampling.frequency_penalty
    if request.stop:
        body["stop"] = list(request.stop[:MOST_STOPS])
    return body


def _extensions(request: Request) -> dict[str, Any]:
    """The parameters that not every server knows; most ignore what they do not know."""
    extra: dict[str, Any] = {"stream_options": {"include_usage": True}, "chat_template_kwargs": {"enable_thinking": False}}
    if request.prompt.prefix:
        extra |= {"continue_final_message": True, "add_generation_prompt": False}
    if request.min_new_tokens:
        extra["min_tokens"] = request.min_new_tokens
    if request.sampling.repetition_penalty != 1:
        extra["repetition_penalty"] = request.sampling.repetition_penalty
    return extra


async def _lines(response: httpx.Response) -> AsyncIterator[str]:
    """Lines of the stream. httpx's own also break at U+2028 and the like, which JSON may hold as they are."""
    rest = b""
    async for block in response.aiter_bytes():
        *lines, rest = (rest + block).split(b"\n")
        for line in lines:
            yield line.decode("utf-8", "replace").strip()
    yield rest.decode("utf-8", "replace").strip()


def _detail(body: Any) -> str:
    """The message in an error's JSON, wherever this kind of server puts it."""
    while isinstance(body, dict):
        body = body.get("error") or body.get("message") or body.get("detail") or ""
    return str(body)


def _host(url: str) -> str:
    """Host and port of ``url``; raises ValueError for one that is no plain address (it may hold a password, so it is not quoted)."""
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise ValueError("PAT_LLM_URL is no address; it looks like http://127.0.0.1:8000/v1") from error
    if parsed.scheme not in ("http", "https") or not parsed.host or parsed.userinfo or parsed.query or parsed.fragment:
        raise ValueError("PAT_LLM_URL must look like http://127.0.0.1:8000/v1, without a user, a password, '?' or '#'; a key goes into PAT_LLM_KEY")
    return parsed.netloc.decode("ascii")
