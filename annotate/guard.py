"""What keeps a text from being judged blind: it names the model, speaks as an assistant, refuses, breaks off, or is no text at all.

A name is masked and a broken end is cut back to the last whole sentence where enough remains; everything else drops the text before
anybody sees it, not after votes were given. Reviews speak of models, lamps and copies, and casual writers leave out the last full stop:
only clear signs count. Leaves out judging quality: a bad text that gives nothing away is what people are asked about.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace
from functools import lru_cache

from annotate.types import Candidate
from pat_core.metrics import n_words, variety

MASK = "[name]"
KNOWN_NAMES = ("PaT", "PGraphRAG", "LaMP", "SmolLM", "ChatGPT", "GPT-3", "GPT-4", "GPT-5", "OpenAI", "DeepSeek", "Qwen", "Hugging Face")
KEPT_SHARE = 0.5  # of the words have to remain where a broken end is cut off
LOOP_WORDS, LOOP_PERIOD = 12, 60  # words said again before a loop is called one; the longest phrase looked for
MIN_VARIETY, VARIETY_WORDS = 0.5, 24  # distinct bigrams over bigrams in a text of so many words


def _any(*patterns: str) -> re.Pattern[str]:
    return re.compile("|".join(patterns), re.IGNORECASE | re.MULTILINE)


_AI = r"(?:a\.?i\.?|artificial intelligence)"
_MODEL = rf"(?:(?:{_AI}[- ])?(?:large )?language model|{_AI}[- ](?:assistant|chatbot|model|system|program)|chatbot)"
_WHO = r"\b(?:as|being|i'?m|i am|you'?re|you are) (?:just |only |actually )?an? (?:[a-z-]+,? ){0,2}?"
_I_AM = r"i(?:'m| am| was) "
_GLADLY = r"\A\W*(?:sure|certainly|of course|absolutely)\b[\s,.!:-]*"
_CANNOT = r"i ?(?:cannot|can ?not|can'?t|am (?:not able|unable) to|'m (?:not able|unable) to|won'?t|will not) "
_SIGNS = {
    "holds control tokens": _any(
        r"<\s*\|[^<>\n]{0,40}\|\s*>", r"</?s>", r"\[/?INST\]", r"<(?:start|end)_of_turn>", "\ufffd", r"^(?:user|assistant)[ \t]*(?::|$)"
    ),
    "speaks as an assistant": _any(
        rf"{_WHO}{_MODEL}\b(?! (?:users?|fan|developer|engineer|researcher|expert|company|designer))",
        rf"\b(?:assistant|{_AI}|model),? (?:named|called) \S+ (?:trained|made|created|developed) by\b",
        rf"{_WHO}{_AI}(?=\s*(?:[,.;!?]|$| (?:i|and|so|that|trained)\b))",
        rf"\b{_I_AM}(?:an? \w+ \w+ )?(?:trained|developed|created|built|made) by (?:openai|anthropic|google|meta|hugging|alibaba)\b",
        rf"\b{_I_AM}(?:claude|llama|gemini|mistral|bard|copilot)\b(?=[,.!]| and i can| from)",
        r"\bmy (?:training data|knowledge cut-?off)\b",
        rf"{_GLADLY}(?:here(?:'s| is| are)|i(?:'d| would|'ll| can| will) (?:be happy|be glad|help|write))",
        r"\bi(?:'m| am) here to (?:help|assist)\b(?! [\"'])",
        r"\bhow (?:can|may) i (?:help|assist) you\b",
    ),
    "refuses": _any(
        rf"\b{_CANNOT}(?:\w+ )?(?:assist|help (?:you )?with (?:that|this|your)|fulfil|comply|(?:generate|create) (?:content|text|that))",
        rf"\A\W*(?:i'?m|i am|we are)? ?(?:sorry|afraid)[,.!]? (?:but )?{_CANNOT}(?:help|write|provide|generate|create|do that|complete)\b",
        r"\bi (?:do not|don'?t) have (?:personal (?:opinions|experiences|feelings|preferences)|access to (?:real-time|the internet))",
    ),
    "shows its instructions": _any(
        r"^(?:evidence|inference|guidance|how to write|what to say|review of|title|stars) ?:",
        r"^(?:the same person|another person(?: who gave [\d.]+ stars)?) wrote ?:",
    ),
}
_NEVER_LAST = frozenset({"the", "a", "an", "and", "or", "but", "because", "than", "our", "your", "their"})
_WHOLE_END = re.compile(r"[.!?…][^\w,;:(\[{<“‘/&—–-]*\Z")  # a closing mark, then at most quotes, closed brackets or emoji
_OPEN_END = re.compile(r"(?:[,;:(\[{<“‘/&]|\w-|—|–)\s*\Z")
_EMOTICON_END = re.compile(r"(?:[:;=8xX]['\-]?[()\[\]/\\|]+|[(\[]['\-]?[:;=]|-_+-)\s*\Z")
_SENTENCE_END = re.compile(r"[.!?…]+[\"'”’)\]]*(?=\s)")
_LONG_RUN = re.compile(r"(\w)\1{39,}|(?=\S{0,7}\w)(\S{2,8}?)\2{14,}|(\S)\3{199,}")
_MENDED = ("names the model", "breaks off")


def leak(text: str, names: Iterable[str] = KNOWN_NAMES, finish: str = "") -> str:
    """Why ``text`` must not be shown as it is, '' where it may; ``finish`` says how its writing ended (``Completion.finish``)."""
    if not any(c.isalnum() for c in text):
        return "is empty"
    plain = text.replace("’", "'").replace("‘", "'")
    for reason, sign in _SIGNS.items():
        if sign.search(plain):
            return reason
    if _loops(text):
        return "repeats itself"
    if _pattern(names).search(text):
        return "names the model"
    return "breaks off" if breaks_off(text, finish) else ""


def masked(text: str, names: Iterable[str] = KNOWN_NAMES) -> str:
    """``text`` with every name replaced by ``MASK``."""
    return _pattern(names).sub(MASK, text)


def breaks_off(text: str, finish: str = "") -> bool:
    """Whether a text ends in the middle: its writing was cut ("length", "cancelled") and no sentence ends there, or a clear sign shows it.

    Clear signs: an article or a joining word at the end, an open bracket, a comma or dash, half a word with a hyphen.
    """
    if _WHOLE_END.search(text):
        return False
    if finish in ("length", "cancelled") or _NEVER_LAST.intersection(text.split()[-1:]):
        return True
    return bool(_OPEN_END.search(text)) and not _EMOTICON_END.search(text)


def whole_sentences(text: str) -> str:
    """``text`` up to its last whole sentence, '' where that is less than ``KEPT_SHARE`` of its words."""
    ends = [m.end() for m in _SENTENCE_END.finditer(text)]
    kept = text[: ends[-1]] if ends else ""
    return kept if n_words(kept) >= KEPT_SHARE * n_words(text) else ""


def guard(candidate: Candidate, names: Iterable[str] = KNOWN_NAMES, *, about: str = "") -> Candidate | str:
    """The candidate as it may be shown, or the reason why it must not be; the engine in its trace adds to ``names``.

    Where it was mended the trace says so under "guard": "masked", "cut". A text that is to train the generator is never mended but dropped:
    what people saw has to be what it wrote. A name that stands in ``about``, the topic that was asked for, belongs to it and stays.
    """
    trace = candidate.trace
    secret = [n for n in (*names, *names_of(trace.get("engine", ""))) if not _pattern((n,)).search(about)]
    finish = trace.get("finish", "")
    reason = leak(candidate.text, secret, finish)
    if not reason:
        return candidate
    if reason not in _MENDED or trace.get("completion", {}).get("role") == "generator":
        return reason
    text = masked(candidate.text, secret)
    done = ["masked"] if text != candidate.text else []
    if breaks_off(text, finish):
        text = whole_sentences(text)
        done.append("cut")
    return replace(candidate, text=text, trace={**trace, "guard": done}) if text else "breaks off"


def names_of(engine: str) -> tuple[str, ...]:
    """Names by which a text could give away ``engine`` ("SmolLM2-135M-Instruct (Q4_1) on OpenVINO"): the model's, its family's.

    Only names that no review would use by chance: with a digit or a capital inside the word, and four letters or more.
    """
    title = re.split(r" \(| on ", engine, maxsplit=1)[0].rstrip("/").rpartition("/")[2]
    parts = re.split(r"([-_ ])", title)
    heads = ["".join(parts[:i]) for i in range(len(parts), 0, -2)]
    heads.append(re.sub(r"[\d.]+\Z", "", heads[-1]))
    return tuple(dict.fromkeys(h for h in heads if len(h) >= 4 and re.search(r"\d|[a-z][A-Z]|[A-Z]{2}[a-z]", h)))


def _pattern(names: Iterable[str]) -> re.Pattern[str]:
    return _compiled(tuple(sorted({n for n in names if n.strip()}, key=lambda n: (-len(n), n))))


@lru_cache(maxsize=256)
def _compiled(names: tuple[str, ...]) -> re.Pattern[str]:
    """One pattern for all names: whole words, a version number after them included; up to four letters only as they are spelled."""
    if not names:
        return re.compile(r"(?!)")
    forms = [re.escape(n) if len(n) <= 4 else "(?i:" + "[-_ ]?".join(map(re.escape, re.split(r"[-_ ]", n))) + ")" for n in names]
    return re.compile(rf"(?<![A-Za-z0-9])(?:{'|'.join(forms)})(?:[-_]?\d+(?:\.\d+)*)?[a-z]?(?![A-Za-z0-9])")


def _loops(text: str) -> bool:
    """Whether the same words come again and again, or the same characters without an end. A shouted word or a row of marks is style."""
    if _LONG_RUN.search(text):
        return True
    words = text.lower().split()
    for period in range(1, min(len(words) // 2, LOOP_PERIOD) + 1):
        run = 0
        for a, b in zip(words, words[period:], strict=False):
            run = run + 1 if a == b else 0
            if run >= max(LOOP_WORDS, 2 * period):
                return True
    return len(words) >= VARIETY_WORDS and variety(text) < MIN_VARIETY
