"""The summaries that facts imply."""

from dataclasses import replace

from pat_core.cues import claims_in, cue_phrases, holds, tone
from pat_core.points import Points
from pat_core.prompts import StyleFacts, TopicFacts
from pat_core.summaries import style_summary, topic_summary
from pat_core.types import Query

TEXTS = ("I went there (twice) and it was fine. I would go again.", "I liked it (mostly) and I said so.")
FACTS = StyleFacts(cue_phrases(TEXTS), tone(TEXTS), statements=("hates small talk",))
KETTLE = TopicFacts(Points(("beep", "pour", "dial"), ("pour",), ("beep",), 3.0, True, 3))


def test_all_that_a_style_summary_claims_is_true_of_the_texts():
    claims = claims_in(style_summary(FACTS))
    assert len(claims) >= 3
    assert all(holds(c, TEXTS) for c in claims)


def test_a_draft_that_misses_the_style_is_told_what_it_lacks():
    corrected = style_summary(FACTS, "Good! " * 40)
    assert "The draft is too long." in corrected and "The draft lacks" in corrected
    assert style_summary(FACTS, TEXTS[0]).endswith("The draft fits.")


def test_the_rating_decides_between_praise_and_complaint():
    assert "Praise the pour." in topic_summary(Query("Kettle", "", rating=5), KETTLE)
    assert "Complain about the beep." in topic_summary(Query("Kettle", "", rating=1), KETTLE)
    assert "Weigh the pour against the beep." in topic_summary(Query("Kettle", "", rating=3), KETTLE)


def test_a_draft_that_leaves_points_out_is_told_which():
    assert topic_summary(Query("Kettle", ""), KETTLE, "The beep, the beeps!").endswith("The draft leaves out the pour and the dial.")
    assert topic_summary(Query("Kettle", ""), KETTLE, "beep pour dial").endswith("The draft covers it.")


def test_the_qualities_that_go_with_the_rating_are_called_for():
    kettle = TopicFacts(replace(KETTLE.points, praised_as=("quick",), blamed_as=("loud",)))
    assert all(
        "They like the pour, dislike the beep, and call it quick and loud." in topic_summary(Query("Kettle", "", rating=r), kettle)
        for r in (1, 3, 5)
    )
    assert topic_summary(Query("Kettle", "", rating=5), kettle).endswith("Call it quick.")
    assert topic_summary(Query("Kettle", "", rating=1), kettle).endswith("Call it loud.")
    assert topic_summary(Query("Kettle", "", rating=3), kettle).endswith("Call it quick and loud.")
