"""Cues: claims about texts that can be checked."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pat_core.cues import claims_asked, claims_in, cue_phrases, holds, pooled, rounded, tone, with_asked

LOUD = ("I LOVE it!!! You have to go! The cake!!", "So happy! I went twice! You will too!")
DRY = ("Beep audible at 3 m. Handle warm after 4 minutes. Pour steady. 79 for that.", "Zip caught 2 times. Hood large. 95 well spent.")


def test_cues_tell_a_loud_voice_from_a_dry_one():
    loud, dry = cue_phrases(LOUD), cue_phrases(DRY)
    assert loud[0] == "about 10 words" and dry[0] == "about 10 words"
    assert {"many exclamation marks", "first person (I)", "second person (you)"} <= set(loud)
    assert {"no exclamation marks", "numbers", "short sentences", "hardly any I"} <= set(dry)
    assert tone(LOUD)[0] == "excited" and "exact" in tone(DRY)


@given(st.lists(st.text(max_size=300), min_size=1, max_size=4))
def test_every_cue_of_any_texts_holds_of_them(texts):
    for phrase in cue_phrases(texts, 9)[1:]:
        assert holds(phrase, texts) is True
    assert tone(texts)


@pytest.mark.parametrize(("words", "said"), [(0, 5), (4, 5), (13, 15), (58, 60), (61, 60), (147, 150)])
def test_lengths_are_said_as_people_say_them(words, said):
    assert rounded(words) == said


def test_claims_are_found_in_a_summary_and_checked():
    summary = "Write about 10 words with no exclamation marks, emoji and first person (I). The draft is too long."
    assert claims_in(summary) == ("about 10 words", "no exclamation marks", "emoji", "first person (I)")
    assert [holds(c, LOUD) for c in claims_in(summary)] == [True, False, False, True]
    assert holds("charming", LOUD) is None


def test_no_texts_is_an_error():
    with pytest.raises(ValueError, match="at least one text"):
        pooled(())


def test_a_statement_of_taste_overrules_the_neighbors():
    cues = ("about 80 words", "many exclamation marks", "first person (I)")
    assert with_asked(cues, ("short and dry", "loves breakfast")) == ("about 20 words", "no exclamation marks", "first person (I)")
    assert with_asked(cues, ()) == cues


@pytest.mark.parametrize(
    ("statement", "asked"),
    [
        ("no exclamation marks", ("no exclamation marks",)),
        ("lots of exclamation marks, emoji", ("many exclamation marks", "emoji")),
        ("never says I", ("hardly any I",)),
        ("short sentences", ("short sentences",)),
        ("always mentions the staff", ()),
    ],
)
def test_what_a_statement_asks_for(statement, asked):
    assert set(claims_asked(statement)) == set(asked)
