"""phi: values counted by hand, and sane for anything anybody types."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pat_core.stylometry import (
    COLUMN,
    FEATURE_NAMES,
    StyleScale,
    features,
    measure,
    phi,
    sentences_of,
    statement_cues,
    style_similarity,
    words_of,
)

CORPUS = [
    "I love it! We went twice. You should too!!",
    "the room was cold, the staff were kind, and that is all there is to say about the place.",
    "Beep audible at 3 m. Handle warm after 4 minutes.",
    "honestly... kinda meh, dont bother :)",
    "It is, I think, a rather good lamp; the neck (alas) droops.\nIt has drooped since June.",
]


def test_values_counted_by_hand():
    v = measure("I love it! We DON'T go... maybe you will? ok")
    assert words_of("I love it! We DON'T go... maybe you will? ok") == ["i", "love", "it", "we", "don't", "go", "maybe", "you", "will", "ok"]
    assert sentences_of("I love it! We DON'T go... maybe you will? ok") == ["I love it", "We DON'T go", "maybe you will", "ok"]
    assert v["log_words"] == pytest.approx(math.log(11)) and v["log_sentences"] == pytest.approx(math.log(5))
    assert v["exclamations"] == v["questions"] == v["ellipses"] == 1 / 4
    assert v["person_i"] == v["person_we"] == v["person_you"] == v["hedges"] == v["evaluative"] == v["contractions"] == 10.0
    assert v["all_caps"] == pytest.approx(1 / 9)  # "I" is no shout
    assert v["lower_starts"] == 1 / 2 and v["impersonal"] == 1 / 4
    assert v["word_it"] == v["word_will"] == 10.0 and v["type_token"] == 1.0 and v["open_end"] == 1.0


@pytest.mark.parametrize(
    ("text", "feature", "value"),
    [
        ("so good :) and :( too", "emoticons", 2),
        ("see (the note) at 8) or http://x.y", "emoticons", 0),
        ("wow 😀🎉", "emoji", 2),
        ("Sooo good", "long_vowels", 50),
        ("i am here and i'm fine", "lower_i", 100 / 3),
        ("cost 1,200.50 on 3/4", "numbers", 100),
        ("well - yes \u2014 no -- maybe well-known", "dashes", 3),
        ("a (b) c [d]", "brackets", 2),
        ("one;two ;) three", "semicolons", 1),
        ("no way!! what?! yes!", "doubled_marks", 2 / 3),
        ("one\n\ntwo\nthree", "log_breaks", math.log(3)),
        ("Done.", "open_end", 0),
        ("don\u2019t", "contractions", 100),
        ("dont", "bare_contractions", 100),
    ],
)
def test_single_features(text, feature, value):
    assert measure(text)[feature] == pytest.approx(value)


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=400))
def test_any_text_has_finite_features_in_range(text):
    v = measure(text)
    assert list(v) and set(v) == set(FEATURE_NAMES) and all(math.isfinite(x) and x >= 0 for x in v.values())
    assert all(0 <= v[name] <= 1 for name in ("all_caps", "lower_starts", "impersonal", "long_words", "open_end"))
    z = phi([text], StyleScale.fit(features(CORPUS)))
    assert z.dtype == np.float32 and z.shape == (1, len(FEATURE_NAMES)) and np.isfinite(z).all() and np.abs(z).max() <= 4


@pytest.mark.parametrize("text", ["", "😀" * 50, "Привет, мир! Как дела?", "素晴らしい。また来ます！", "\x00\u200b", "a" * 10**6, "(((:-)!?.. ' " * 80_000])
def test_odd_and_huge_texts_are_measured(text):
    assert all(math.isfinite(x) for x in measure(text).values())


def test_other_scripts_keep_punctuation_and_length():
    v = measure("Привет, мир! Как дела?")
    assert v["exclamations"] == v["questions"] == 1 / 2 and v["log_words"] == pytest.approx(math.log(5))


def test_features_have_a_row_for_each_text_and_a_column_for_each_name():
    x = features(CORPUS)
    assert x.shape == (5, len(FEATURE_NAMES)) and x.dtype == np.float64 and features([]).shape == (0, len(FEATURE_NAMES))
    assert x[2, COLUMN["numbers"]] == pytest.approx(measure(CORPUS[2])["numbers"])


def test_the_scale_centers_lengths_and_leaves_constant_features_out():
    scale = StyleScale.fit(features(CORPUS))
    z = phi(CORPUS, scale)
    assert z[:, COLUMN["log_words"]].mean() == pytest.approx(0, abs=1e-5) and z[:, COLUMN["log_words"]].std() == pytest.approx(1, abs=1e-5)
    assert not z[:, COLUMN["emoji"]].any()  # nobody uses any
    assert not phi(["😀 😀"], scale)[0, COLUMN["emoji"]]
    assert not phi(CORPUS[:1], StyleScale.fit(features(CORPUS[:1]))).any()


def test_short_texts_say_less_about_rates_than_long_ones():
    scale = StyleScale.fit(features(CORPUS))
    once, often = phi(["Wow! It is.", "Wow! It is. " * 20], scale)[:, COLUMN["exclamations"]]
    assert 0 < once < often


def test_a_length_comes_back_from_phi():
    scale = StyleScale.fit(features(CORPUS))
    assert scale.words(scale.phi_of(CORPUS[1])) == pytest.approx(19, abs=0.01)


def test_similarity_tells_voices_apart():
    scale = StyleScale.fit(features(CORPUS))
    loud, louder, dry = ["You HAVE to go!!! We love it!"], ["We went! You would LOVE it!!!"], ["Handle warm at 60. Beep audible at 3 m."]
    assert style_similarity(loud, loud, scale) == pytest.approx(1)
    assert style_similarity(loud, louder, scale) > 0.5 > style_similarity(loud, dry, scale)
    with pytest.raises(ValueError, match="at least one text"):
        style_similarity([], loud, scale)
    with pytest.raises(ValueError, match="at least one text"):
        StyleScale.fit(features([]))


@pytest.mark.parametrize(
    ("statement", "up", "down"),
    [
        ("short and dry", set(), {"log_words", "exclamations"}),
        ("lots of exclamation marks", {"exclamations"}, set()),
        ("no exclamation marks", set(), {"exclamations"}),
        ("uses emoji", {"emoji"}, set()),
        ("formal", {"long_words"}, {"contractions", "exclamations"}),
        ("never formal", {"contractions"}, {"long_words"}),
        ("lower case", {"lower_starts"}, set()),
        ("long and detailed", {"log_words"}, set()),
        ("never says I", {"impersonal"}, {"person_i"}),
        ("short sentences", set(), {"log_sentence_words"}),
        ("never uses commas but asks lots of questions", {"questions"}, {"commas"}),
        ("no emoji and short", set(), {"emoji", "log_words"}),
    ],
)
def test_statements_of_taste_ask_for_features(statement, up, down):
    wishes = statement_cues(statement)
    assert wishes.keys() <= set(FEATURE_NAMES)
    assert up == {f for f, z in wishes.items() if z > 0} & (up | down) and down == {f for f, z in wishes.items() if z < 0} & (up | down)


def test_a_wish_for_one_thing_does_not_touch_another():
    assert statement_cues("short sentences").keys() == {"log_sentence_words"}


@pytest.mark.parametrize("statement", ["", "always mentions the staff", "likes dogs", "I was there a long time", "knows a lot about boots"])
def test_statements_that_name_nothing_measurable_ask_for_nothing(statement):
    assert statement_cues(statement) == {}
