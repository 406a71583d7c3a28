"""Questions to a judge model that are answered A, B or tie: several at once, over any OpenAI-compatible server, each asked only once.

An answer is read from the probabilities of its first token where the server gives them, and they say how certain it is; else from the
written words, which have to be a bare answer. What cannot be read is '', never a guess. A server that fails is asked again, more and more
slowly; then the run ends with a sentence, and every verdict so far is in the file. Leaves out what is asked and what follows from it
(``llm_judge``), and streaming.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import re
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import httpx

from pat_core.llm.server_engine import LOOPBACK, TIMEOUT, neutralized, reason_given
from pat_core.llm.types import LLMError
from pat_core.progress import Progress
from pat_core.prompts import Messages

log = logging.getLogger(__name__)

Answer = Literal["A", "B", "tie", ""]
N_TOP = 5  # alternatives of a token: no server that has them refuses so few
LONGEST_PAUSE = 60.0  # seconds
N_WRITTEN = 200  # characters kept of what a judge wrote
_PASSING = (408, 409, 425, 429)  # statuses, beside all from 500 on, that may be gone at the next try
_AROUND = " \t\r\n\u2581\u0120\u010a*_`'\"([{.:"  # spaces, as tokenizers also write them, and marks before or after a letter
_ARTICLE = re.compile(r"A (?!is\b)[a-z]")  # a sentence that begins with the word "a", not with the answer
_THOUGHTS = re.compile(r".*</think>", re.DOTALL)
_BARE = re.compile(
    r"[\s*_`'\"(\[]*(?:(?:the )?(?:answer|verdict)(?: is)?:?\s*)?(?:candidate |text )?[\s*_`'\"(\[]*"
    r"(a|b|(?:a )?tie)[*_`'\"]*(?:\s*$|[.!)\]]|\s*\n)",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class JudgeSettings:
    """Which model judges, and how it is asked. ValueError for a value that cannot be."""

    url: str  # an OpenAI-compatible server, usually ending in /v1
    model: str = ""  # '' takes the first that the server lists
    key: str = field(default="", repr=False)
    certainty: float = 0.7  # an answer of less probability decides nothing; 0 takes all
    parallel: int = 4  # requests at once
    answer_tokens: int = 16  # more for a model that reasons before it answers
    retries: int = 4  # after a failure that may pass
    pause: float = 1.0  # seconds before the first retry, doubled before each next one
    verdicts: Path | None = None  # where verdicts are kept; None keeps them in memory
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.url.startswith(("http://", "https://")):
            raise ValueError(f"the judge's address {self.url!r} must begin with http:// or https://; set PAT_JUDGE_URL to one that does")
        if not 0 <= self.certainty <= 1:
            raise ValueError(f"certainty {self.certainty!r} must be a probability from 0 (every answer counts) to 1")
        for name, least in (("parallel", 1), ("answer_tokens", 1), ("retries", 0), ("pause", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, not {getattr(self, name)}")


@dataclass(frozen=True, slots=True)
class Verdict:
    """One answer, '' where none could be read. ``certainty`` in [0, 1] is its probability, None where it is unknown."""

    answer: Answer
    certainty: float | None = None
    written: str = ""


class Judge:
    """The model behind ``settings.url``. Raises LLMError where the server is out of reach or refuses, ValueError for an unusable file."""

    def __init__(self, settings: JudgeSettings) -> None:
        try:
            host = httpx.URL(settings.url).host
        except httpx.InvalidURL as error:
            raise ValueError(f"PAT_JUDGE_URL={settings.url!r} is no address ({error}); use one like http://127.0.0.1:8000/v1") from error
        self._settings, self._url = settings, settings.url.rstrip("/")
        self._lock, self._reached = threading.Lock(), False
        self._optional = {"logprobs", "seed", "temperature", "max_tokens"}  # what is sent until the server refuses it
        self._client = httpx.Client(
            headers={"Authorization": f"Bearer {settings.key}"} if settings.key else {},
            timeout=TIMEOUT,
            follow_redirects=False,  # a redirect would carry texts and key to an address nobody named
            trust_env=host not in LOOPBACK,
        )
        self._kept = read_verdicts(settings.verdicts) if settings.verdicts else {}
        self.model = self._choose_model(settings.model)
        shown = Path(self.model).name if self.model.startswith("/") else self.model  # llama.cpp names a model by its file
        self.name = f"{shown} on {host}"

    def ask(self, questions: Sequence[Messages], progress: Progress | None = None) -> list[Verdict]:
        """A verdict for each question, in order; equal questions and those in the file are not asked again."""
        keys = [self._key(messages) for messages in questions]
        missing = {key: messages for key, messages in zip(keys, questions, strict=True) if key not in self._kept}
        done, stop = len(set(keys)) - len(missing), threading.Event()
        total = done + len(missing)
        if missing and self._settings.verdicts:
            _end_line(self._settings.verdicts)
        with ThreadPoolExecutor(self._settings.parallel) as pool:
            try:
                answers = [pool.submit(self._answer, key, messages, stop) for key, messages in missing.items()]
                for n, answer in enumerate(as_completed(answers), done + 1):
                    answer.result()
                    if progress:
                        progress("Asking the judge", n, total)
            finally:  # after a failure or Ctrl-C nobody waits for what has not begun
                stop.set()
                pool.shutdown(cancel_futures=True)
        return [self._kept[key] for key in keys]

    def close(self) -> None:
        """Drops the connections."""
        self._client.close()

    def _answer(self, key: str, messages: Messages, stop: threading.Event) -> None:
        if stop.is_set():
            return
        try:
            verdict = read_verdict(self._complete(messages, stop))
        except LLMError:
            if stop.is_set():  # another request has failed before; its failure is told
                return
            stop.set()
            raise
        line = json.dumps({"key": key, "model": self.model, **asdict(verdict)})
        with self._lock:
            self._kept[key] = verdict
            if self._settings.verdicts:
                with self._settings.verdicts.open("a", encoding="utf-8", newline="\n") as file:
                    file.write(line + "\n")

    def _key(self, messages: Messages) -> str:
        asked = json.dumps([self.model, self._settings.answer_tokens, *messages], ensure_ascii=False)
        return hashlib.sha256(asked.encode("utf-8", "replace")).hexdigest()

    def _complete(self, messages: Messages, stop: threading.Event) -> Mapping[str, Any]:
        """The first choice of a chat completion; what the server refuses of OpenAI's options is left out from then on."""
        while True:
            sent = frozenset(self._optional)
            response = self._send("POST", "/chat/completions", stop, self._body(messages, sent))
            if response.status_code == 200:
                return _choice(response) or {}
            refused = sent & _named(response.content) if response.status_code in (400, 422) else frozenset()
            if not refused:
                raise self._refused(response)
            self._optional -= refused

    def _body(self, messages: Messages, sent: frozenset[str]) -> dict[str, Any]:
        body: dict[str, Any] = {
            "model": self.model,
            "messages": [{"role": speaker, "content": neutralized(text)} for speaker, text in messages],
            "max_tokens" if "max_tokens" in sent else "max_completion_tokens": self._settings.answer_tokens,
        }
        if "temperature" in sent:
            body["temperature"] = 0
        if "seed" in sent:
            body["seed"] = self._settings.seed
        if "logprobs" in sent:
            body |= {"logprobs": True, "top_logprobs": N_TOP}
        return body

    def _send(self, method: str, path: str, stop: threading.Event, body: object = None) -> httpx.Response:
        """The server's answer to a request; failures that may pass are tried again, then raised as LLMError."""
        trouble, wanted = "", 0.0
        for attempt in range(self._settings.retries + 1):
            pause = max(wanted, self._settings.pause * 2 ** (attempt - 1)) if attempt else 0.0
            if attempt and stop.wait(min(pause, LONGEST_PAUSE)):
                break
            try:
                response = self._client.request(method, self._url + path, json=body)
            except httpx.HTTPError as error:
                if isinstance(error, httpx.ConnectError) and not self._reached:
                    raise LLMError(f"{self._url} cannot be reached ({error}); start the server or correct PAT_JUDGE_URL") from error
                trouble = str(error) or type(error).__name__
                continue
            self._reached = True
            trouble = _passing_trouble(response, body is not None)
            if not trouble:
                return response
            after = response.headers.get("Retry-After", "")
            wanted = float(after) if after.isdecimal() else 0.0
        kept = f"; the verdicts so far are in {self._settings.verdicts.name}" if self._settings.verdicts else ""
        raise LLMError(f"{self._url} failed {attempt + 1} times in a row ({trouble}){kept}; run the command again when the server is well")

    def _refused(self, response: httpx.Response) -> LLMError:
        status, reason = response.status_code, reason_given(response.content[:2000])
        if status in (401, 403):
            return LLMError(f"{self._url} refuses the key; set PAT_JUDGE_KEY to one that it accepts")
        if 300 <= status < 400:
            return LLMError(f"{self._url} redirects elsewhere, which is not followed; put the final address into PAT_JUDGE_URL")
        if status == 404:
            return LLMError(f"{self._url} has no chat completions by {self.model!r} ({reason}); check PAT_JUDGE_URL and PAT_JUDGE_MODEL")
        return LLMError(f"{self._url} answered with status {status}: {reason}")

    def _choose_model(self, wanted: str) -> str:
        self.model = wanted
        response = self._send("GET", "/models", threading.Event())
        if response.status_code in (404, 405):
            listed = []
        elif response.status_code != 200:
            raise self._refused(response)
        else:
            try:
                listed = [str(m["id"]) for m in response.json()["data"]]
            except (ValueError, KeyError, TypeError) as error:
                raise LLMError(f"{self._url}/models is no list of models; most addresses of such servers end in /v1") from error
        if wanted and listed and wanted not in listed:
            raise LLMError(f"{self._url} has no model {wanted!r}; set PAT_JUDGE_MODEL to one of: {', '.join(listed[:10])}")
        if not wanted and not listed:
            raise LLMError(f"{self._url} lists no models; name the one to use in PAT_JUDGE_MODEL")
        return wanted or listed[0]


def read_verdict(choice: Mapping[str, Any]) -> Verdict:
    """What one chat completion answers: by its first token where that is A, B or tie, in every spelling, else by its words."""
    message = choice.get("message")
    content = message.get("content") if isinstance(message, dict) else None
    written = _THOUGHTS.sub("", content).strip() if isinstance(content, str) else ""
    said, kept = written_answer(written), written[:N_WRITTEN]
    token, options = _answer_token(choice)
    begun = "" if _ARTICLE.match(written) else _letter(token)
    if not begun or said not in ("", begun):
        return Verdict(said, None, kept)
    shares: dict[Answer, float] = {"A": 0.0, "B": 0.0, "tie": 0.0}
    for option, probability in options.items():
        if letter := _letter(option):
            shares[letter] += probability
    best = max(shares.values())
    leaders = [letter for letter, share in shares.items() if share == best]
    answer = leaders[0] if len(leaders) == 1 else "tie"
    return Verdict(answer, min(1.0, shares[answer]), kept)


def written_answer(text: str) -> Answer:
    """The answer that ``text`` is, alone or before a full stop or bracket; '' for everything else, as no longer sentence is interpreted."""
    found = _BARE.match(text)
    if not found:
        return ""
    said = found[1].lower()
    return "A" if said == "a" else "B" if said == "b" else "tie"


def read_verdicts(path: Path) -> dict[str, Verdict]:
    """The verdicts of a file by their keys, {} of none. Lines torn by a kill are left out; ValueError for another kind of file."""
    if not path.exists():
        return {}
    kept, torn = {}, 0
    with path.open(encoding="utf-8", errors="replace") as file:
        for n, line in enumerate(file, 1):
            try:
                row = json.loads(line)
            except ValueError:
                torn += bool(line.strip())
                continue
            if not (isinstance(row, dict) and isinstance(row.get("key"), str) and row.get("answer") in ("A", "B", "tie", "")):
                raise ValueError(f"line {n} of {path} is no verdict of a judge; name another file with --verdicts, or move this one away")
            certainty = row.get("certainty")
            kept[row["key"]] = Verdict(row["answer"], None if certainty is None else float(certainty), str(row.get("written", "")))
    if torn:
        log.warning("%d broken lines of %s are left out; their questions are asked again", torn, path)
    return kept


def _end_line(path: Path) -> None:
    """Makes sure that ``path`` can be written and that the next line begins on its own."""
    try:
        with path.open("ab+") as file:
            if file.tell():
                file.seek(-1, 2)
                if file.read() != b"\n":
                    file.write(b"\n")
    except OSError as error:
        raise ValueError(f"verdicts cannot be kept in {path} ({error}); name another file with --verdicts") from error


def _named(refusal: bytes) -> frozenset[str]:
    """The optional fields that a refusal speaks of."""
    words = {"logprobs": b"logprob", "seed": b"seed", "temperature": b"temperature", "max_tokens": b"max_completion_tokens"}
    return frozenset(name for name, word in words.items() if word in refusal)


def _passing_trouble(response: httpx.Response, completion: bool) -> str:
    """What is wrong with an answer that may be right at the next try, '' for nothing."""
    status = response.status_code
    if status in _PASSING or status >= 500:
        return f"status {status}: {reason_given(response.content[:2000])}"
    if completion and status == 200 and _choice(response) is None:
        return f"it sent something that is no chat completion: {reason_given(response.content[:2000])[:80]!r}"
    return ""


def _choice(response: httpx.Response) -> dict[str, Any] | None:
    """The first choice of a chat completion, None for anything else."""
    try:
        choice = response.json()["choices"][0]
    except (ValueError, LookupError, TypeError):
        return None
    return choice if isinstance(choice, dict) else None


def _answer_token(choice: Mapping[str, Any]) -> tuple[str, dict[str, float]]:
    """The first token of the answer, thoughts and marks before it left out, and the probabilities of what could stand there; '' of none."""
    try:
        tokens = choice["logprobs"]["content"]
        begin = 1 + max((i for i, t in enumerate(tokens) if "</think>" in t["token"]), default=-1)
        first = next(t for t in tokens[begin:] if t["token"].strip(_AROUND))
        options = {t["token"]: float(t["logprob"]) for t in (first, *first["top_logprobs"])}
    except (KeyError, TypeError, ValueError, AttributeError, StopIteration):
        return "", {}
    return first["token"], {token: math.exp(min(0.0, p)) for token, p in options.items() if not math.isnan(p)}


def _letter(token: str) -> Answer:
    """The answer that a token begins, '' for none; 'a' alone may begin any sentence and is none."""
    bare = token.strip(_AROUND)
    if bare in ("A", "B"):
        return "A" if bare == "A" else "B"
    return "tie" if bare and "tie".startswith(bare.lower()) else ""
