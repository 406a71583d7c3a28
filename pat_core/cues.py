"""The style of some texts in words: claims that can be checked, from a fixed small vocabulary.

A cue is a claim ("no exclamation marks", "about 45 words") that holds of a set of texts or does not, by one measured number and a band; the
same table reads cues out of texts and checks what a summary claims about them. Leaves out what stylometry cannot count.
"""

from __future__ import annotations

import re
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pat_core.stylometry import measure, statement_cues, words_of

LENGTH_SLACK = 0.3  # "about n words" holds within this share of n, and within 5 words in any case
_ABOUT = re.compile(r"about (\d+) words")


@dataclass(frozen=True, slots=True)
class Claim:
    """``phrase`` is true of texts whose pooled ``feature`` lies in [``low``, ``high``); ``rank`` orders cues, the lower the sooner."""

    phrase: str
    feature: str
    low: float
    high: float
    rank: int


_NO_END = float("inf")
# Bands by the quartiles of the demo corpus and the three benchmark dev files: a cue should tell people apart, not describe everybody.
CLAIMS: tuple[Claim, ...] = (
    Claim("no exclamation marks", "exclamations", 0, 0.03, 1),
    Claim("few exclamation marks", "exclamations", 0.03, 0.15, 3),
    Claim("some exclamation marks", "exclamations", 0.15, 0.4, 2),
    Claim("many exclamation marks", "exclamations", 0.4, _NO_END, 0),
    Claim("first person (I)", "person_i", 3.5, _NO_END, 2),
    Claim("first person (we)", "person_we", 2, _NO_END, 1),
    Claim("second person (you)", "person_you", 2, _NO_END, 2),
    Claim("hardly any I", "person_i", 0, 1, 2),
    Claim("lower-case sentence starts", "lower_starts", 0.5, _NO_END, 0),
    Claim("words in capitals", "all_caps", 0.04, _NO_END, 1),
    Claim("emoji", "emoji", 0.06, _NO_END, 0),
    Claim("emoticons", "emoticons", 0.06, _NO_END, 0),
    Claim("ellipses", "ellipses", 0.12, _NO_END, 1),
    Claim("questions", "questions", 0.12, _NO_END, 1),
    Claim("semicolons", "semicolons", 0.12, _NO_END, 1),
    Claim("brackets", "brackets", 0.12, _NO_END, 1),
    Claim("dashes", "dashes", 0.12, _NO_END, 1),
    Claim("numbers", "numbers", 3, _NO_END, 1),
    Claim("short sentences", "sentence_words", 0, 9, 1),
    Claim("long sentences", "sentence_words", 19, _NO_END, 1),
    Claim("no contractions", "any_contractions", 0, 0.3, 2),
    Claim("contractions", "any_contractions", 2.5, _NO_END, 3),
    Claim("hedges (maybe, a bit)", "hedges", 1.5, _NO_END, 2),
    Claim("intensifiers (very, really)", "intensifiers", 2.2, _NO_END, 2),
    Claim("paragraph breaks", "breaks", 0.9, _NO_END, 3),
)
_BY_PHRASE = {claim.phrase: claim for claim in CLAIMS}
_TONES: tuple[tuple[str, str, float, float], ...] = (
    ("excited", "exclamations", 0.4, _NO_END),
    ("casual", "lower_starts", 0.4, _NO_END),
    ("emphatic", "all_caps", 0.04, _NO_END),
    ("careful", "hedges", 1.5, _NO_END),
    ("questioning", "questions", 0.15, _NO_END),
    ("terse", "words", 0, 22),
    ("chatty", "words", 80, _NO_END),
    ("exact", "numbers", 3, _NO_END),
    ("detached", "impersonal", 0.75, _NO_END),
    ("personal", "person_i", 6, _NO_END),
    ("companionable", "person_we", 3, _NO_END),
    ("opinionated", "evaluative", 8, _NO_END),
    ("calm", "exclamations", 0, 0.03),
    ("plain", "words", 0, _NO_END),
)


def pooled(texts: Sequence[str]) -> dict[str, float]:
    """The measures of ``texts`` together: each rate is the mean over texts, ``words`` and ``sentence_words`` are medians."""
    if not texts:
        raise ValueError("at least one text is needed to tell a style")
    measures = [measure(t) for t in texts]
    pool = {name: statistics.fmean(m[name] for m in measures) for name in measures[0]}
    pool["words"] = statistics.median(len(words_of(t)) for t in texts)
    pool["sentence_words"] = statistics.median(len(words_of(t)) / max(1, round(2.718281828 ** m["log_sentences"] - 1)) for t, m in zip(texts, measures, strict=True))
    pool["any_contractions"] = pool["contractions"] + pool["bare_contractions"]
    pool["breaks"] = statistics.fmean(t.strip().count("\n") for t in texts)
    return pool


def cue_phrases(texts: Sequence[str], k: int = 6) -> tuple[str, ...]:
    """At most ``k`` claims that hold of ``texts``: the length first, then the most telling."""
    return phrases_of(pooled(texts), k)


def phrases_of(pool: Mapping[str, float], k: int = 6) -> tuple[str, ...]:
    """``cue_phrases`` from pooled measures."""
    held = [c for c in CLAIMS if c.low <= pool[c.feature] < c.high]
    return (f"about {rounded(pool['words'])} words", *(c.phrase for c in sorted(held, key=lambda c: c.rank)[: k - 1]))


def tone(texts: Sequence[str], k: int = 2) -> tuple[str, ...]:
    """At most ``k`` words for how ``texts`` sound, from their measures; never empty."""
    return tones_of(pooled(texts), k)


def tones_of(pool: Mapping[str, float], k: int = 2) -> tuple[str, ...]:
    """``tone`` from pooled measures."""
    return tuple(word for word, feature, low, high in _TONES if low <= pool[feature] < high)[:k]


def rounded(words: float) -> int:
    """A number of words as one would say it: to 5 below 60, to 10 above, at least 5."""
    step = 5 if words < 60 else 10
    return max(5, int(step * round(words / step)))


def words_asked(phrase: str) -> float:
    """The number of words in "about n words"; ValueError for any other phrase."""
    about = _ABOUT.fullmatch(phrase)
    if about is None:
        raise ValueError(f"{phrase!r} is not a length; expected 'about N words'")
    return float(about[1])


def holds(phrase: str, texts: Sequence[str]) -> bool | None:
    """Whether a claim is true of ``texts``; None for a phrase outside the vocabulary."""
    about = _ABOUT.fullmatch(phrase)
    pool = pooled(texts)
    if about:
        n = int(about[1])
        return abs(pool["words"] - n) <= max(5.0, LENGTH_SLACK * n)
    claim = _BY_PHRASE.get(phrase)
    return None if claim is None else claim.low <= pool[claim.feature] < claim.high


def claims_in(summary: str) -> tuple[str, ...]:
    """The checkable claims that ``summary`` makes, in its order; the longest phrase wins where one holds another."""
    found: list[tuple[int, str]] = [(m.start(), m[0]) for m in _ABOUT.finditer(summary)]
    left = summary
    for phrase in sorted(_BY_PHRASE, key=len, reverse=True):
        at = left.find(phrase)
        while at >= 0:
            found.append((at, phrase))
            left = left[:at] + " " * len(phrase) + left[at + len(phrase) :]
            at = left.find(phrase)
    return tuple(dict.fromkeys(phrase for _, phrase in sorted(found)))


# Wishes of a statement (``statement_cues``), by feature and sign, as claims; lengths are the demo corpus' lower and upper fifth.
_WISHED: Mapping[tuple[str, bool], str] = {
    ("log_words", False): "about 20 words",
    ("log_words", True): "about 90 words",
    ("exclamations", False): "no exclamation marks",
    ("exclamations", True): "many exclamation marks",
    ("person_i", False): "hardly any I",
    ("person_i", True): "first person (I)",
    ("person_we", True): "first person (we)",
    ("person_you", True): "second person (you)",
    ("lower_starts", True): "lower-case sentence starts",
    ("all_caps", True): "words in capitals",
    ("emoji", True): "emoji",
    ("emoticons", True): "emoticons",
    ("ellipses", True): "ellipses",
    ("questions", True): "questions",
    ("semicolons", True): "semicolons",
    ("brackets", True): "brackets",
    ("dashes", True): "dashes",
    ("numbers", True): "numbers",
    ("log_sentence_words", False): "short sentences",
    ("log_sentence_words", True): "long sentences",
    ("contractions", False): "no contractions",
    ("contractions", True): "contractions",
    ("hedges", True): "hedges (maybe, a bit)",
    ("intensifiers", True): "intensifiers (very, really)",
    ("log_breaks", True): "paragraph breaks",
}


def claims_asked(statement: str) -> tuple[str, ...]:
    """The claims a statement of taste asks of a text ("short and dry": about 20 words, no exclamation marks); () if it names nothing
    that is measured."""
    wished = (_WISHED.get((feature, z > 0)) for feature, z in statement_cues(statement).items() if abs(z) >= 1)
    return tuple(dict.fromkeys(claim for claim in wished if claim))


def with_asked(cues: Sequence[str], statements: Sequence[str], k: int = 6) -> tuple[str, ...]:
    """``cues`` where statements of taste have the last word: what they ask for replaces every cue on the same measure."""
    asked = [phrase for statement in statements for phrase in claims_asked(statement)]
    taken = {_feature(phrase) for phrase in asked}
    kept = [c for c in cues if _feature(c) not in taken]
    length = next((c for c in (*asked, *kept) if _ABOUT.fullmatch(c)), None)
    others = [c for c in dict.fromkeys([*asked, *kept]) if c != length]
    return (*((length,) if length else ()), *others)[:k]


def _feature(phrase: str) -> str:
    return "words" if _ABOUT.fullmatch(phrase) else _BY_PHRASE[phrase].feature
