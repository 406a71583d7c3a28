"""A visitor's input: kept, refused with a sentence, never cut in silence."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pat_core.query import build_query, clean_rating, clean_text, clean_whole, parse_preference

TOPICS = {"kettle": "Norra gooseneck kettle"}


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("short and dry", "statement"),
        ("always mentions the staff", "statement"),
        ("no exclamation marks", "statement"),
        ("Stopped working after two weeks. Not happy.", "sample"),
        ("I loved the pool and we stayed for three nights in the small room by the sea", "sample"),
    ],
)
def test_samples_are_told_from_statements(text, kind):
    assert parse_preference(text).kind == kind


def test_a_rated_text_is_a_sample_and_the_guess_can_be_overruled():
    assert parse_preference("short and dry", 4).kind == "sample"
    assert parse_preference("short and dry", None, "sample").kind == "sample"
    assert parse_preference("  \n ") is None
    with pytest.raises(ValueError, match="'sample' or a 'statement'"):
        parse_preference("x", None, "poem")


@pytest.mark.parametrize("value", [math.nan, math.inf, 0, 6, "five", True, [3], {"rating": 3}])
def test_a_rating_that_is_none_is_refused_with_the_value(value):
    with pytest.raises(ValueError, match="from 1 to 5"):
        clean_rating(value)


def test_ratings_that_are_some():
    assert [clean_rating(v) for v in (None, "", 3, "4.5")] == [None, None, 3.0, 4.5]


def test_control_characters_go_and_everything_else_stays():
    assert clean_text("a\x00b\u202a <script>\ud800 \N{SMILING FACE WITH SUNGLASSES}\r\nnew", "x", 99).startswith("ab <script> \N{SMILING FACE WITH SUNGLASSES}\nnew")


def test_too_much_text_is_refused_not_cut():
    with pytest.raises(ValueError, match="1,000,000 characters; at most 2,000"):
        parse_preference("x" * 1_000_000)


@pytest.mark.parametrize("topic", ["", "   ", "\N{SMILING FACE WITH SUNGLASSES}", "!!!"])
def test_a_topic_without_words_is_asked_for(topic):
    with pytest.raises(ValueError, match="Choose a topic"):
        build_query(topic, topics=TOPICS)


def test_an_unknown_topic_id_is_refused_and_a_known_one_brings_its_name():
    with pytest.raises(ValueError, match="no topic with the id"):
        build_query("kettle", topics=TOPICS, topic_id="toaster")
    assert build_query("anything", topics=TOPICS, topic_id="kettle").topic == "Norra gooseneck kettle"


def test_other_languages_and_markup_are_text():
    query = build_query("чайник <b>Norra</b>", "Очень хорошо", topics=TOPICS, rating=5, seed=7)
    assert (query.topic, query.title, query.topic_id, query.seed) == ("чайник <b>Norra</b>", "Очень хорошо", "", 7)


@pytest.mark.parametrize("value", [1.5, -1, 10**12, math.nan, "7", None, True])
def test_whole_numbers_are_whole_and_in_range(value):
    with pytest.raises(ValueError, match="whole number"):
        clean_whole(value, "The seed", 0, 100)


@given(st.text(max_size=400))
def test_any_text_is_taken_or_refused_with_a_sentence(text):
    try:
        query = build_query(text, text[:100], topics=TOPICS)
    except ValueError as error:
        assert str(error).endswith(".")
    else:
        assert query.topic and "\x00" not in query.topic
