"""How a text is written, as named numbers and as words: the phi of the paper's style trajectory, and the same measures as readable cues.

``features`` measures (length, punctuation, case, person, hedges, function words ...), ``StyleScale`` puts the measures against a corpus,
``cues`` says the unusual ones in plain words, and one table of claims (``CLAIMS``) serves cues, statements of taste and the check of what
a summary claims. English word lists; texts in other scripts keep their length, punctuation and case features. Leaves out: neural style
encoders, and polarity (praise and complaint count alike as evaluative words, so that the rating does not become the style).
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

STYLOMETRY_VERSION = "1"  # part of every cache key that holds phi

_FUNCTION_WORDS = tuple(
    "the a an this that these those and but or so if because when while as than then of to in on at for with from by about into out up "
    "down off over after before is are was were be been have has had do did would could will can not no all some any more much it its "
    "they them there what which who how just also".split()
)
_PERSONS = {
    "person_i": "i me my mine myself i'm i've i'd i'll im ive",
    "person_we": "we us our ours ourselves we're we've we'd we'll weve",
    "person_you": "you your yours yourself you're you've you'd you'll youre u ur",
}
_LEXICONS = {
    "hedges": (
        "maybe perhaps possibly probably somewhat fairly seem seems seemed guess suppose apparently roughly almost kinda sorta might"
        "|kind of|sort of|a bit|a little|i think|i feel like|more or less|not sure"
    ),
    "intensifiers": (
        "very really extremely absolutely totally completely super incredibly highly definitely truly literally seriously insanely "
        "ridiculously utterly sooo soooo"
    ),
    "evaluative": (
        "good great nice excellent amazing awesome wonderful perfect perfectly beautiful love loved loves lovely best better happy pleased "
        "fantastic favorite favourite enjoy enjoyed recommend friendly helpful comfortable easy clean cute pretty fun bad terrible awful "
        "horrible worst worse poor poorly disappointed disappointing disappointment hate hated waste useless broken broke cheap dirty rude "
        "annoying ugly uncomfortable sad unfortunately"
    ),
}
_WORD = re.compile(r"[^\W\d_]+(?:['\u2019][^\W\d_]+)*")
_SENTENCE_END = re.compile(r"(?:[.!?\u2026\u3002\uff01\uff1f]+[\"'\u201d\u2019)\]]*(?=\s|$)|[\u3002\uff01\uff1f]|\n)\s*")
_EMOJI = re.compile("[\U0001f000-\U0001faff\u2600-\u27bf\u2b50\u2b55\u231a\u231b\u2328\u23e9-\u23f3]")
_EMOTICON = re.compile(r"(?<!\S)(?:[:;=8xX][-'^o]?[()\[\]DPp/\\|*]+|<3+|[xX]D+|\^_*\^|:'\(|[(][:;])(?=[\s.,!?]|$)")
_CONTRACTION = re.compile(r"\b(?:\w+n't|\w+'(?:re|ve|ll|d|m)|(?:it|that|there|here|what|who|he|she|let|how|where)'s)\b")
_BARE_CONTRACTION = re.compile(r"\b(?:dont|cant|wont|didnt|doesnt|isnt|wasnt|couldnt|wouldnt|shouldnt|havent|im|ive|thats|youre|theyre)\b")
_LONG_VOWEL = re.compile(r"([^\W\d_])\1\1")
_NUMBER = re.compile(r"\d+(?:[.,:/]\d+)*")
_MARKS = {
    "exclamations": re.compile(r"[!\uff01]"),
    "questions": re.compile(r"[?\uff1f]"),
    "ellipses": re.compile(r"\.{2,}|\u2026"),
    "commas": re.compile(r"[,\uff0c\u3001]"),
    "semicolons": re.compile(r";(?![-'^o]?[()DPp])"),
    "colons": re.compile(r"(?<!\d):(?![-'^o]?[()DPp/\\|*])"),
    "quotes": re.compile("[\"\u201c\u201d\u00ab\u00bb]"),
    "brackets": re.compile(r"(?<![:;=8xX'^-])[(\[](?![:;])"),
    "dashes": re.compile(r"[\u2013\u2014]|--+|(?<=\s)-(?=\s)"),
    "doubled_marks": re.compile(r"[!?]{2,}"),
}
_PER_SENTENCE = ("exclamations", "questions", "ellipses", "semicolons", "colons", "quotes", "brackets", "dashes", "doubled_marks", "emoticons", "emoji")
_PER_100_WORDS = (
    "commas", "numbers", "person_i", "person_we", "person_you", "contractions", "bare_contractions", "hedges", "intensifiers", "evaluative",
    "long_vowels", "lower_i",
)  # fmt: skip
_SHARES = ("all_caps", "lower_starts", "impersonal", "long_words")
_SHAPE = ("log_words", "log_sentences", "log_sentence_words", "word_length", "type_token", "log_breaks", "open_end")
SURFACE_NAMES = _SHAPE + _PER_SENTENCE + _PER_100_WORDS + _SHARES
FEATURE_NAMES = SURFACE_NAMES + tuple(f"word_{w}" for w in _FUNCTION_WORDS)
_COLUMN = {name: i for i, name in enumerate(FEATURE_NAMES)}
# A rate over n words is about n / (n + m) signal; m per kind of feature, chosen for same-author AUC on Amazon reviews (README: measured).
_SHRINK_WORDS = np.array([0.0 if n in _SHAPE else 60.0 if n.startswith("word_") else 15.0 for n in FEATURE_NAMES])


def _phrases(lexicon: str) -> re.Pattern[str]:
    words, *phrases = lexicon.split("|")
    return re.compile(r"\b(?:" + "|".join(re.escape(w) for w in [*phrases, *words.split()]) + r")\b")


_LEXICON = {name: _phrases(words) for name, words in _LEXICONS.items()}
_PERSON_WORDS = {name: frozenset(words.split()) for name, words in _PERSONS.items()}


def words_of(text: str) -> list[str]:
    """Lower-case words of ``text`` in order, curly apostrophes made straight."""
    return [w.lower().replace("\u2019", "'") for w in _WORD.findall(text)]


def sentences_of(text: str) -> list[str]:
    """The sentences of ``text`` that hold a word; line breaks end a sentence."""
    return [s for s in _SENTENCE_END.split(text) if s and _WORD.search(s)]


def measure(text: str) -> dict[str, float]:
    raw_words = _WORD.findall(text)
    words = [w.lower().replace("\u2019", "'") for w in raw_words]
    sentences = sentences_of(text)
    n, s = len(words), len(sentences)
    lower = text.lower().replace("\u2019", "'")
    counts: dict[str, int] = {}
    for w in words:
        counts[w] = counts.get(w, 0) + 1
    value = {
        "log_words": math.log1p(n),
        "log_sentences": math.log1p(s),
        "log_sentence_words": math.log1p(n / max(s, 1)),
        "word_length": sum(map(len, words)) / max(n, 1),
        "type_token": math.log(len(counts)) / math.log(n) if n > 1 else 1.0,
        "log_breaks": math.log1p(len(re.findall(r"\n+", text.strip()))),
        "open_end": float(n > 0 and text.rstrip()[-1].isalnum()),
    }
    found = {name: len(pattern.findall(text)) for name, pattern in _MARKS.items()}
    found |= {"emoticons": len(_EMOTICON.findall(text)), "emoji": len(_EMOJI.findall(text)), "numbers": len(_NUMBER.findall(text))}
    found |= {name: sum(counts.get(w, 0) for w in person) for name, person in _PERSON_WORDS.items()}
    found |= {name: len(pattern.findall(lower)) for name, pattern in _LEXICON.items()}
    found |= {
        "contractions": len(_CONTRACTION.findall(lower)),
        "bare_contractions": len(_BARE_CONTRACTION.findall(lower)),
        "long_vowels": len(_LONG_VOWEL.findall(text)),
        "lower_i": sum(w == "i" or w.startswith(("i'", "i\u2019")) for w in raw_words),
    }
    value |= {name: found[name] / max(s, 1) for name in _PER_SENTENCE}
    value |= {name: 100 * found[name] / max(n, 1) for name in _PER_100_WORDS}
    value |= {f"word_{w}": 100 * counts.get(w, 0) / max(n, 1) for w in _FUNCTION_WORDS}
    long_enough = [w for w in raw_words if len(w) > 1]
    person = _PERSON_WORDS["person_i"] | _PERSON_WORDS["person_we"] | _PERSON_WORDS["person_you"]
    value["all_caps"] = sum(w.isupper() for w in long_enough) / max(len(long_enough), 1)
    value["lower_starts"] = sum(_WORD.search(x)[0][0].islower() for x in sentences) / max(s, 1)
    value["impersonal"] = sum(person.isdisjoint(words_of(x)) for x in sentences) / max(s, 1)
    value["long_words"] = sum(len(w) > 6 for w in words) / max(n, 1)
    return value
