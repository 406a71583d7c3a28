"""Readable names for topics that have only an id: the key phrases of their reviews ("thumb sucking, nail polish").

Phrases of one or two content words are weighed by how many of the topic's reviews use them (a title counts as TITLE_WEIGHT texts) and by how few other
topics do (TF-IDF over topics). Leaves out any language model: a name has to be the same at every start, and cheap to make again without a held-out review.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations

TITLE_WEIGHT = 2
RARE = 1  # topics added to those that use a phrase: one used nowhere else is as likely a slip as a name
MIN_SHARE = 0.05  # of the reviews of a topic must use a phrase in its name
_WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)?|\d+[^\W\d_]+", re.UNICODE)
_STOP = frozenset(
    """a about above actually after again against all almost also although always am an and another any anyone anything are aren't around as at away back
    be because been before being below between both but by came can can't cannot come could couldn't did didn't do does doesn't doing don't done down
    during each either else enough especially even ever every everyone everything few first for from further get gets getting give given go goes going
    gone got had hadn't has hasn't have haven't having he he's her here hers herself him himself his how however i i'd i'll i'm i've if in into is
    isn't it it's its itself just know last least less let like little long lot lots made make makes making many may maybe me might mine more most
    much must my myself need needed needs never new next no none nor not nothing now of off often oh ok okay old on once one ones only onto or other others our
    ours ourselves out over own part per put quite rather re really right said same saw say says second see seem seemed seems seen several she should shouldn't
    since so some someone something still such sure take taken takes than that that's the their theirs them themselves then there there's these they they're
    they've thing things think this those though thought three through thru till time times to today together told too took toward tried try trying two
    under until up upon us use used uses using ve very via want wanted wants was wasn't way we we'd we'll we're we've well went were weren't what what's
    when where whether which while who whole whom whose why will with within without won't would wouldn't wow year years yes yet you you'd you'll you're
    you've your yours yourself able ago already bit both came couple day days different end far feel feels felt full gave half hour hours keep kept kind
    later left literally look looked looking looks main maybe min minute minutes month months night nights number place plus point probably reason several side
    soon start started stuff super thanks thank total totally type usually week weeks x guy guys don didn doesn isn wasn im ive cant wont dont didnt doesnt isnt
    gonna lol omg etc bc
    absolute absolutely amazing awesome awful bad beautiful best better bought buy buying came cheap cheaply cheaper cute definitely disappointed disappointing
    disappointment easily easy enjoy enjoyed excellent expected expensive fabulous fantastic favorite fine five four fun glad good great guess happy
    hard hate high highly honestly horrible hope idea impressed inexpensive item items junk liked loved love loves low lovely money nice nicely okay order
    ordered ordering overall perfect perfectly pleasant pleased poor poorly positive pretty price priced problem problems product products purchase purchased purchasing quality
    quick quickly read real received recommend recommended regular return returned returning review reviews satisfied seller send sent short simple simply small clean comfortable friendly helpful dissapointed incredible deal accidentally slightly tastefully extremely yummy yumm he'll she's he's it'll that'll hilarious funny comes breaks broke job
    big large huge star stars stay stayed staying terrible threw useless value waste wasted weird wonderful wonderfully work worked working works worse worst worth
    worthy wrong yuck package packaging arrived amazon description picture pictures shipping delivered delivery company people person friend friends family husband wife
    daughter son kids kid mom mother sister brother girlfriend boyfriend dad man woman everyone hotel hotels room rooms movie movies film place stay""".split()
)
_NEVER_FIRST = frozenset("hotel hotels room rooms movie movies film product".split())  # too general alone, fine beside another word ("room service")


@dataclass(frozen=True, slots=True)
class PhraseStats:
    """How many topics use each phrase, over ``n_topics``: what makes a phrase rare."""

    n_topics: int
    n_using: Counter[str]


def phrases(text: str) -> set[str]:
    """Content words of the text and pairs of neighboring ones, lower case."""
    found = set()
    for clause in re.split(r"[.,;:!?()\n\"/]+", text.lower().replace("’", "'")):
        words = _WORD.findall(clause)
        for i, word in enumerate(words):
            if _content(word):
                found.add(word)
            if i and (_content(word) or word in _NEVER_FIRST) and (_content(words[i - 1]) or words[i - 1] in _NEVER_FIRST) and word != words[i - 1]:
                found.add(f"{words[i - 1]} {word}")
    return found


def content_words(text: str) -> list[str]:
    """The words of the text that say what it is about, in order, lower case."""
    return [word for word in _WORD.findall(text.lower().replace("’", "'")) if _content(word)]


def _content(word: str) -> bool:
    return len(word) > 2 and word not in _STOP


def phrase_counts(texts: Iterable[tuple[str, str]]) -> Counter[str]:
    """How many of these (title, text) pairs use each phrase; a use in the title counts TITLE_WEIGHT more."""
    counts: Counter[str] = Counter()
    for title, text in texts:
        counts.update(phrases(text))
        for phrase in phrases(title):
            counts[phrase] += TITLE_WEIGHT
    return counts


def phrase_stats(counts: Sequence[Counter[str]]) -> PhraseStats:
    """The statistics that labels need, from the phrase counts of every topic."""
    n_using: Counter[str] = Counter()
    for topic in counts:
        n_using.update(topic.keys())
    return PhraseStats(len(counts), n_using)


def ranked_phrases(counts: Counter[str], n_reviews: int, stats: PhraseStats) -> list[str]:
    """The topic's phrases, the most telling first; ties in alphabetical order. From three reviews on a phrase needs more than one use."""

    def weight(phrase: str) -> float:
        rarity = math.log((stats.n_topics + 1) / (stats.n_using[phrase] + RARE))
        return counts[phrase] ** 0.6 * rarity * (1.4 if " " in phrase else 1.0)

    least = max(TITLE_WEIGHT + 1 if n_reviews > 5 else 2, MIN_SHARE * n_reviews) if n_reviews > 2 else 1
    often = [phrase for phrase, n in counts.items() if n >= least]
    return sorted(often if len(often) > 1 else counts, key=lambda phrase: (-weight(phrase), phrase))[:40]


def label(ranked: Sequence[str], taken: Collection[str] = ()) -> str:
    """The best two phrases that share no word and are not a name in ``taken``, else the best one, else ''."""
    for first, second in combinations(ranked, 2):
        words = [*first.split(), *second.split()]
        if len({stem(word) for word in words}) == len(words) and f"{first}, {second}" not in taken:
            return f"{first}, {second}"
    return next((phrase for phrase in ranked if phrase not in taken), "")


def stem(word: str) -> str:
    """The word without its commonest endings, so that "nail" and "nails" are one word in a name."""
    return re.sub(r"(?:'s|ies|es|s|ing|ed|y)$", "", word) if len(word) > 4 else word.removesuffix("s")
