"""Text to tokens and back, the same for every engine that runs a model in this process.

Texts by people and by the model go into a chat template as data: control tokens in them are encoded as plain text, so a review cannot
open a turn of its own. Coming back, text is released only when it is whole: no half character, nothing of a stop string.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pat_core.llm.types import Event, Request
from pat_core.types import Prompt

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

SPEAKERS = ("system", "user", "assistant")
# A model that opens a new turn has ended its own, so these count as end of turn beside the tokenizer's own end token.
TURN_TOKENS = ("<|im_end|>", "<|im_start|>", "<|endoftext|>", "<|eot_id|>", "<|end_of_text|>", "<end_of_turn>", "<|end|>", "</s>")


class ChatTokenizer:
    """A transformers tokenizer with a chat template. Safe to use from several threads."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, more_end_ids: Sequence[int] = ()) -> None:
        if not tokenizer.chat_template:
            raise ValueError("this model has no chat template; PAT_MODEL must name an instruction-tuned model (often '...-Instruct')")
        self.tokenizer = tokenizer
        added = tokenizer.get_added_vocab()
        own = () if tokenizer.eos_token_id is None else (tokenizer.eos_token_id,)
        self.end_ids = frozenset((*own, *more_end_ids, *(added[t] for t in TURN_TOKENS if t in added)))
        # Encoding with split_special_tokens flips a switch of the shared Rust tokenizer.
        self._lock = threading.Lock()

    @classmethod
    def from_folder(cls, folder: Path | str, more_end_ids: Sequence[int] = ()) -> ChatTokenizer:
        from transformers import AutoTokenizer

        return cls(AutoTokenizer.from_pretrained(folder, trust_remote_code=False), more_end_ids)

    def prompt(self, messages: Sequence[tuple[str, str]], prefix: str = "") -> Prompt:
        """The chat prompt with its token ids, ``prefix`` the first words of the answer; raises ValueError for an unknown speaker."""
        check_speakers(messages)
        chat = [{"role": speaker, "content": _encodable(text)} for speaker, text in messages]
        with self._lock:
            ids = self._template(chat) + (self._encode(prefix) if prefix else [])
        return Prompt(tuple(messages), prefix, tuple(ids))

    def _template(self, chat: list[dict[str, str]]) -> list[int]:
        from jinja2.exceptions import TemplateError

        options = {"tokenize": True, "return_dict": False, "add_generation_prompt": True, "sanitize_control_tokens": True}
        try:
            # enable_thinking is read by templates of reasoning models and ignored by all others
            return list(self.tokenizer.apply_chat_template(chat, **options, enable_thinking=False))
        except TemplateError:
            if chat[0]["role"] != "system" or len(chat) < 2:
                raise
            # Some templates (Gemma) refuse a system turn: its text then opens the first user turn.
            first = {"role": chat[1]["role"], "content": chat[0]["content"] + "\n\n" + chat[1]["content"]}
            return list(self.tokenizer.apply_chat_template([first, *chat[2:]], **options, enable_thinking=False))

    def _encode(self, text: str) -> list[int]:
        return self.tokenizer.encode(_encodable(text), add_special_tokens=False, split_special_tokens=True)

    def n_tokens(self, text: str) -> int:
        with self._lock:
            return len(self._encode(text))

    def truncate(self, text: str, max_tokens: int) -> str:
        """The longest beginning of at most ``max_tokens`` tokens, cut at a word where there is one."""
        text = _encodable(text)
        with self._lock:
            coded = self.tokenizer(text, add_special_tokens=False, split_special_tokens=True, return_offsets_mapping=True)
        offsets = coded["offset_mapping"]
        if len(offsets) <= max_tokens:
            return text
        end = offsets[max_tokens][0] if max_tokens > 0 else 0
        return cut_at_word(text, end)

    def decode(self, ids: Sequence[int]) -> str:
        return self.tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)


def check_speakers(messages: Sequence[tuple[str, str]]) -> None:
    """Raise ValueError unless there is a message and every speaker is known."""
    if not messages:
        raise ValueError("a prompt needs at least one message")
    for speaker, _ in messages:
        if speaker not in SPEAKERS:
            raise ValueError(f"unknown speaker {speaker!r} in a prompt; use one of {', '.join(SPEAKERS)}")


def check_batch(requests: Sequence[Request]) -> None:
    """Raise ValueError when keys repeat or a number is out of range; engines call it before they start."""
    keys = [r.key for r in requests]
    if len(set(keys)) != len(keys):
        raise ValueError(f"request keys must be unique in a batch, got {keys}")
    for r in requests:
        s = r.sampling
        if r.max_new_tokens < 1 or not 0 <= r.min_new_tokens <= r.max_new_tokens:
            raise ValueError(f"request {r.key!r}: need 0 <= min_new_tokens <= max_new_tokens and max_new_tokens >= 1")
        if not (0 <= s.temperature <= 10 and 0 < s.top_p <= 1 and 0.1 <= s.repetition_penalty <= 10 and -2 <= s.frequency_penalty <= 2):
            raise ValueError(
                f"request {r.key!r}: {s} is out of range: temperature 0 to 10, top_p above 0 up to 1, repetition_penalty 0.1 to 10, "
                "frequency_penalty -2 to 2"
            )
        if "" in r.stop:
            raise ValueError(f"request {r.key!r}: a stop string must not be empty")


def check_context(requests: Sequence[Request], context: int) -> None:
    """Raise ValueError when a request has no token ids or does not fit into the model's ``context`` tokens."""
    for r in requests:
        n = len(r.prompt.token_ids)
        if not n or n + r.max_new_tokens > context:
            raise ValueError(
                f"request {r.key!r}: {n} prompt tokens and {r.max_new_tokens} new ones; this model takes 1 to {context} in all. "
                "Shorten the texts in the prompt"
            )


def wait_for_turn(lock: threading.Lock, cancel: threading.Event) -> bool:
    """Acquire ``lock``; False, without it, when ``cancel`` is set before."""
    while not lock.acquire(timeout=0.05):
        if cancel.is_set():
            return False
    return True


def _encodable(text: str) -> str:
    """``text`` with "?" for lone surrogates, which no tokenizer takes."""
    return text.encode("utf-8", "replace").decode()


def cut_at_word(text: str, end: int) -> str:
    """``text[:end]`` without a word cut in two, or the bare cut when it holds a single word."""
    kept = text[:end]
    if end < len(text) and not text[end].isspace() and kept and not kept[-1].isspace():
        space = max(kept.rfind(" "), kept.rfind("\n"), kept.rfind("\t"))
        kept = kept[:space] if space > 0 else kept
    return kept.rstrip()


class TextStream:
    """The text of one running request: tokens in, releasable text out, and whether it has ended.

    Only whole characters are released, and nothing that may still turn out to be the beginning of a stop string. A stop string counts
    from the request's ``min_new_tokens``-th token on.
    """

    def __init__(self, request: Request, tokenizer: ChatTokenizer) -> None:
        self.request = request
        self.n_tokens = 0
        self.finish = ""
        self._tokenizer = tokenizer
        self._ids: list[int] = []
        self._decoded = ""  # of _ids[:_read]
        self._from = 0  # decoding starts one settled piece earlier: some tokenizers write the first token of a text differently
        self._read = 0
        self._search_from = 0
        self._shown = 0
        self._sent = ("", "")

    def push(self, token_id: int) -> None:
        """Take the next token; sets ``finish`` when it ends the text."""
        if self.finish:
            return
        if token_id in self._tokenizer.end_ids:
            self.end("stop")
            return
        self.n_tokens += 1
        self._ids.append(token_id)
        self._decode()
        self._look_for_stop()
        if not self.finish and self.n_tokens >= self.request.max_new_tokens:
            self.end("length")

    def end(self, finish: str) -> None:
        """Close the text: what was held back is released, but for bytes that make no character."""
        if self.finish:
            return
        self.finish = finish
        rest = self._tokenizer.decode(self._ids[self._from :])
        settled = len(self._tokenizer.decode(self._ids[self._from : self._read]))
        self._decoded += rest[settled:].rstrip("\ufffd")
        self._shown = len(self._decoded)

    def _decode(self) -> None:
        settled = self._tokenizer.decode(self._ids[self._from : self._read])
        now = self._tokenizer.decode(self._ids[self._from :])
        if len(now) > len(settled) and not now.endswith("\ufffd"):
            self._decoded += now[len(settled) :]
            self._from, self._read = self._read, len(self._ids)

    def _look_for_stop(self) -> None:
        if self.n_tokens < self.request.min_new_tokens:
            self._search_from = self._shown = len(self._decoded)
            return
        hits = [at for stop in self.request.stop if (at := self._decoded.find(stop, self._search_from)) >= 0]
        if hits:
            self._decoded = self._decoded[: min(hits)]
            self._shown, self.finish = len(self._decoded), "stop"
            return
        held = max((_overlap(self._decoded[self._search_from :], stop) for stop in self.request.stop), default=0)
        self._shown = len(self._decoded) - held

    def news(self) -> Event | None:
        """What to tell since the last call, or None when nothing changed."""
        event = Event(self.request.key, self._decoded[: self._shown], self.n_tokens, self.finish)
        if (event.text, event.finish) == self._sent:
            return None
        self._sent = (event.text, event.finish)
        return event


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of ``text`` that is a beginning of ``stop``, but not all of it."""
    return next((n for n in range(min(len(stop) - 1, len(text)), 0, -1) if text.endswith(stop[:n])), 0)
