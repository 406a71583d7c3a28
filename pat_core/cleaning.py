"""Noise that published review files carry, taken out of texts and of users (method: benchmark facts).

Four things are cut from a text: markup, "collected as part of a promotion" tags, the "... More" of a truncated page with the half sentence
before it, and a reply by the management glued to the end. Two are taken out of a file: reviews that repeat another one of their
topic, and display names that many people share. Each is counted by the caller. Leaves out spelling and translation: they are style.
"""

from __future__ import annotations

import html
import re
import unicodedata
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

from pat_core.types import Review

SHARED_NAME_REVIEWS = 20  # a bare word such as "Dave" with as many reviews is many people ...
SHARED_NAME_REPEATS = 2  # ... and so is one with as many second opinions on topics it has already reviewed
REPEAT_WORDS = 6  # texts of two users on one topic that are shorter than this may agree by chance ("good")

_CONTROL = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b\u200e\u200f\u202a-\u202e\u2028\u2029\u2060\u2066-\u2069\ufeff\ufff9-\ufffb\U000e0000-\U000e007f]"
)
_SURROGATE = re.compile("[\ud800-\udfff]")
_BREAK = re.compile(r"<\s*/?\s*(?:br|p|div|li|ul|ol)\s*/?\s*>", re.I)
_TAG = re.compile(r"</?[a-zA-Z][^<>]{0,200}>")
_MEDIA = re.compile(r"\[\[(?:VIDEOID|ASIN|IMAGEID)[^\]]*\]\]")
_PROMOTION = re.compile(
    r"\s*[\[(]?\s*this review was (?:collected|submitted) as part of (?:a|an?\s\w+) (?:promotion|sweepstakes)\.?\s*[\])]?\s*", re.I
)
# What follows "... More" can only be a reply.
_MORE = re.compile(r"\s*(?:\.\.\.|…)\s*More(?=\s*$|\s*[A-Z\d\"'])|(?<=[a-z.!?])More(?=Thank|Dear|Aloha|Hi\b|Hello|We\b)")
_SALUTATION = re.compile(r"\s*\b(?:dear|hi|hello)\s+[^.!?,]{1,30}[.,!]?$", re.I)
_SENTENCE_END = re.compile(r"[.!?][)\"'”’]?(?=\s)")

_THANKS = r"thank(?:s|\s?you)\b"
_OPENER = re.compile(
    r"dear\s+[^.!?\n]{1,40}?(?:[,:!\-–]|(?=thank|we\b))"
    r"|(?:hello|hi|greetings|good (?:morning|afternoon|evening|day))\b[ ,]?[^.!?\n]{0,30}?[,!.\-–]?\s*"
    r"(?=thank|we\b|we're|it was|i am|i'm|on behalf)"
    rf"|(?:[\w.]{{2,25}}\s?[,\-–]\s?)?{_THANKS}[^.!?]{{0,80}}?\b(?:your?|for (?:the|such|\w+ing|recently))\b"
    r"|on behalf of (?:the|our|my|all|every)|aloha\b|it (?:seems|sounds) (?:that|like) your"
    r"|(?:first,? )?(?:i|we) (?:would like|'d like|want|wish) to (?:thank|apologi[sz]e)"
    r"|we (?:really |truly |sincerely |greatly |so )?(?:appreciate|thank|apologi[sz]e)\b"
    r"|(?:(?:we(?:'re| are| were|re)|i(?:'m| am| was)) )?(?:so |very |truly |really |incredibly |extremely )?"
    r"(?:sorry|glad|happy|pleased|delighted|thrilled|grateful) (?:to (?:hear|know|learn|see|read)|that you|you)\b"
    r"|(?:please accept )?(?:my|our) (?:sincere(?:st)? )?apologies",
    re.I,
)
_TO_GUEST = re.compile(
    r"\byour (?:\w+ ){0,2}?(?:stay|visit|experience|feedback|reviews?|comments?|words|ratings?|compliments?|input)\b"
    r"|\byour (?:\w+ ){0,2}?(?:business|loyalty|patronage)\b"
    r"|\b(?:seeing|see|welcom\w+|hav\w+|serv\w+|host\w+|accomm?odate) you\b|\byou(?:'ve| have)? (?:enjoyed|chose)\b"
    r"|for (?:staying (?:with|at)|choosing|being (?:our|such|a) (?:\w+ ){0,2}guest)",
    re.I,
)
_CUES = tuple(
    re.compile(cue, re.I)
    for cue in (
        r"\byour (?:\w+ ){0,2}?(?:stay|visit|experience|trip)\b",
        r"\byour (?:\w+ ){0,2}?(?:feedback|reviews?|comments?|words|ratings?|compliments?|input|time)\b"
        r"|take the time|taking (?:the|a|your|some) ?\w* ?(?:time|moment)",
        r"\b(?:seeing|see|welcom\w+|having|have|serv\w+|host\w+) you\b",
        r"(?:general|front office|guest services?|guest relations|hotel|assistant|operations) ?manager"
        r"|director of|guest service|\bmanagement\b",
        r"(?:sincerely|regards|warmly|respectfully|cordially|best|cheers),|be well,|regards\b",
        rf"{_THANKS} (?:so much |again |very much )?for (?:staying|choosing|taking|sharing|being our|your)",
        r"\bour (?:valued |honou?red |wonderful |future |past )?(?:guests?|team|staff|property|hotel|members|associates)\b",
        r"\bwe (?:really |truly |sincerely |greatly )?(?:appreciate|apologi[sz]e|hope|look forward|strive|value|would love)"
        r"|\bwe are (?:so |very )?\w*(?:sorry|glad|happy|pleased|delighted|thrilled)",
        r"tripadvisor|trip advisor|\d{3}[-.) ]{1,2}\d{3}[-. ]\d{4}|please (?:feel free|contact|call|let us know|ask for|do not hesitate)",
        r"^(?:dear|hello|hi|greetings)\b",
    )
)
_GENERIC_NAME = re.compile(
    r"(?:an? )?(?:(?:verified|amazon|kindle|google|bestbuy|walmart|tripadvisor|happy|valued|hotel|site|private)[ _-]?)*"
    r"(?:anonymous|traveler|traveller|customer|guest|user|reviewer|buyer|purchaser|shopper|member|unknown|nobody|none|null|nan|n/?a|anon|visitor)",
    re.I,
)


def plain_text(text: str) -> str:
    """The text without what breaks files, screens and prompts (lone surrogates, control, bidi and tag characters), its line ends \\n."""
    return _CONTROL.sub("", _SURROGATE.sub("\N{REPLACEMENT CHARACTER}", unix_lines(text))).strip()


def unix_lines(text: str) -> str:
    """The text with \\n at the end of every line."""
    return text.replace("\r\n", "\n").replace("\r", "\n")


def clean_text(text: str) -> tuple[str, tuple[str, ...]]:
    """The text without noise, and the kinds of noise that were in it; the text may come out empty."""
    kinds = []
    for kind, cut in (
        ("markup removed", _without_markup),
        ("promotion tag cut", _without_promotion),
        ("truncated text cut to its last whole sentence", _without_more),
        ("management reply cut", without_reply),
    ):
        shorter = cut(text)
        if shorter != text:
            kinds.append(kind)
            text = shorter
    return text, tuple(kinds)


def _without_markup(text: str) -> str:
    if not any(mark in text for mark in "<&["):
        return text
    shorter = html.unescape(_TAG.sub("", _BREAK.sub("\n", _MEDIA.sub("", text))))
    return text if shorter == text else plain_text(re.sub(r"\n{3,}", "\n\n", shorter))


def _without_promotion(text: str) -> str:
    shorter = _PROMOTION.sub(" ", text)
    return text if shorter == text else shorter.strip()


def _without_more(text: str) -> str:
    """Without "... More" and what follows it; the unfinished sentence before it goes too when at least half of the text stays."""
    found = _MORE.search(text)
    if not found:
        return text
    kept = text[: found.start()]
    ends = [m.end() for m in _SENTENCE_END.finditer(kept)]
    return kept[: ends[-1]] if ends and ends[-1] >= len(kept) / 2 else kept.rstrip(" ,;")


def without_reply(text: str) -> str:
    """The guest's own words: everything from the first sentence that opens a reply by the management, if what follows is one, is cut.

    A reply needs an opening, a turn to the guest ("your stay", "see you") and two cues in all; one that is the whole text needs four.
    """
    for found in _OPENER.finditer(text):
        start = found.start()
        before, reply = text[:start].rstrip(), text[start:]
        glued = before and before[-1].isalnum() and text[start].isupper() and not text[start - 1].isspace()
        if before and before[-1] not in ".!?)\"'”…:*,-" and not glued and not text[start].isupper():
            continue
        if not _TO_GUEST.search(reply):
            continue
        if sum(bool(cue.search(reply)) for cue in _CUES) >= (2 if before else 4):
            return _SALUTATION.sub("", before.rstrip(" -–*,"))
    return text


def same_words(text: str) -> str:
    """A key under which texts that differ only in case, spacing and punctuation are the same."""
    return " ".join(re.findall(r"\w+", unicodedata.normalize("NFKC", text).casefold()))


def repeats(reviews: Sequence[Review]) -> set[str]:
    """Ids of reviews that repeat another one of their topic: by the same user at any length, by another from REPEAT_WORDS words on.

    Of such a set a benchmark target (id ending in #0) stays before others, then the first of the file.
    """
    kept: dict[tuple[str, str], set[str]] = defaultdict(set)
    dropped = set()
    for review in sorted(reviews, key=lambda r: not r.review_id.endswith("#0")):
        words = same_words(review.text) or review.text
        users = kept[review.topic_id, words]
        if review.user_id in users or (users and len(words.split()) >= REPEAT_WORDS):
            dropped.add(review.review_id)
        else:
            users.add(review.user_id)
    return dropped


def split_shared_names(reviews: Sequence[Review]) -> tuple[list[Review], int]:
    """The reviews with each one under a shared display name as its own user (its id is the review's), and how many names were split.

    Shared are generic names ("A verified traveler", "Anonymous"), and bare capitalized words ("Dave") with SHARED_NAME_REVIEWS reviews
    or with SHARED_NAME_REPEATS further reviews of topics already reviewed.
    """
    topics: dict[str, list[str]] = defaultdict(list)
    for review in reviews:
        topics[review.user_id].append(review.topic_id)
    shared = {user for user, theirs in topics.items() if len(theirs) > 1 and _is_shared(user, theirs)}
    return [replace(r, user_id=r.review_id) if r.user_id in shared else r for r in reviews], len(shared)


def _is_shared(user: str, topics: list[str]) -> bool:
    if _GENERIC_NAME.fullmatch(user.strip()):
        return True
    bare = user.isalpha() and user[0].isupper() and len(user) <= 12
    return bare and (len(topics) >= SHARED_NAME_REVIEWS or len(topics) - len(set(topics)) >= SHARED_NAME_REPEATS)
