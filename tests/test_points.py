"""Points: what reviews mention, like and dislike."""

from pat_core.points import content_words, is_used, phrases_in, points, vocabulary
from pat_core.types import Review


def review(i: int, text: str, rating: float | None = None) -> Review:
    return Review(f"r{i}", f"u{i}", "t", "Norra kettle", "products", "", text, rating)


# The beep stands in three reviews and is blamed in each; the pour in two and is praised; the box in one only.
KETTLE = (
    review(1, "The beep is terrible. The pour is lovely.", 3),
    review(2, "I hate the beep. It came in a box.", 1),
    review(3, "The kettle is slow, I love the pour! The beep is awful.", 4),
)
WORDS = vocabulary([r.text for r in KETTLE] + ["The train was late.", "The room has a window.", "A dog and the cat."])


def test_the_most_shared_phrases_come_first_and_the_own_name_is_left_out():
    found = points(KETTLE, WORDS, about="Norra kettle")
    assert found.mentioned[0] == "beep"
    assert any("pour" in p for p in found.mentioned)
    assert not any("kettle" in p for p in found.mentioned)


def test_liking_follows_the_words_around_a_phrase():
    found = points(KETTLE, WORDS, about="Norra kettle")
    assert "beep" in found.disliked and "beep" not in found.liked
    assert any("pour" in p for p in found.liked) and not any("pour" in p for p in found.disliked)


def test_ratings_far_apart_are_a_dispute():
    found = points(KETTLE, WORDS)
    assert found.disputed and found.rating == 8 / 3 and found.n_reviews == 3
    assert not points(KETTLE[:1], WORDS).disputed


def test_others_do_not_name_points_of_their_own():
    found = points(KETTLE[:1], WORDS, others=(review(9, "The window. The window is good. The beep is bad."),))
    assert "window" not in found.mentioned and "beep" in found.mentioned


# "next" follows a determiner as often as "stop" does, and never ends a phrase.
USES = vocabulary(
    [
        "The next stop is far.",
        "My next stop was late.",
        "The stop is new.",
        "Your stop.",
        "The brush is soft.",
        "It is so soft! A soft brush.",
    ]
    + ["This brush was stiff.", "So stiff.", "It is heavy.", "So heavy."]
)


def test_an_adjective_is_a_quality_and_never_a_noun():
    assert USES.nouns == {"stop", "brush"}
    assert {"soft", "stiff", "heavy"} <= USES.qualities and not USES.qualities & {"stop", "brush", "next"}


def test_qualities_are_told_apart_by_praise_and_blame_and_the_most_shared_come_first():
    reviews = (
        review(1, "The brush is stiff.", 5),  # blame by its meaning, whatever the stars
        review(2, "It is stiff, so soft and heavy!", 5),
        review(3, "It is soft.", 5),
        review(4, "A heavy brush.", 1),
    )
    found = points(reviews[:3], USES, others=reviews[3:])
    assert found.praised_as == ("soft",) and found.blamed_as == ("stiff", "heavy")
    assert points(reviews[:1], USES, others=reviews[1:]).praised_as == ()  # others name nothing themselves


def test_what_a_summary_names_is_held_against_the_texts():
    summary = "Evidence: Reviewers mention the desk staff, the pool and the bed.\nWeigh the pool against the noise. Call it clean and old."
    named = phrases_in(summary)
    assert named == ("desk staff", "pool", "bed", "noise", "clean", "old")
    texts = ("The staff at the desk was kind. Clean beds.", "We heard noise at the desk.")
    assert [p for p in named if is_used(p, texts)] == ["desk staff", "bed", "noise", "clean"]


def test_nothing_to_say_is_no_error():
    found = points((), WORDS)
    assert found.mentioned == () and found.rating is None
    assert content_words("It is what it is!") == frozenset()
