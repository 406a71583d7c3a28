"""Topic neighbors on a corpus small enough to work out by hand, properties on random ones, and real data with the real embedder."""

import re
import time
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pat_core.corpus import Corpus, benchmark_target, hold_out, read_corpus
from pat_core.embed import open_embedder
from pat_core.topics import TopicSearch
from pat_core.types import Query, Review

AXES = ({"kettle", "teapot", "water", "boils", "tea", "leaks"}, {"toaster", "bread", "burns", "crumbs"}, {"tent", "rain", "dry", "camping"})


class AxisEmbedder:
    """Counts words on three hand-set axes, so that cosines can be worked out by hand; texts off every axis point to a fourth."""

    fingerprint = "axes"

    def encode(self, texts, progress=None):
        rows = [[sum(word in axis for word in re.findall(r"\w+", text.lower())) for axis in AXES] for text in texts]
        vectors = np.array([[*row, 0.0 if any(row) else 1.0] for row in rows], np.float32).reshape(len(texts), 4)
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def review(review_id, user_id, topic, rating, text, title=""):
    return Review(review_id, user_id, topic, topic.capitalize(), "", title, text, float(rating))


# Four topics. Kettle and toaster share a reviewer (bob); the teapot lies on the kettle's axis (cosine 1) and shares nobody; the tent is far
# from all.
REVIEWS = (
    review("k1", "ann", "kettle", 5, "Boils water in a minute."),
    review("k2", "bob", "kettle", 1, "Leaks water."),
    review("k3", "ann", "kettle", 4, "Still boils water."),
    review("t1", "bob", "toaster", 2, "Burns bread."),
    review("t2", "cat", "toaster", 5, "Good bread, few crumbs."),
    review("p1", "dan", "teapot", 5, "Tea for two, water stays warm."),
    review("n1", "eve", "tent", 3, "Dry in the rain."),
)
KETTLE = Query(topic="Kettle", title="", topic_id="kettle")


@pytest.fixture
def search(tmp_path):
    return TopicSearch(Corpus("tiny", REVIEWS), AxisEmbedder(), tmp_path)


def found(neighbors):
    return [(n.review.review_id, n.level) for n in neighbors]


def test_levels_worked_out_by_hand(search):
    levels = [{n.review.review_id for n in level} for level in search.levels(KETTLE)]
    assert levels == [{"k1", "k2", "k3"}, {"t1", "t2"}, {"p1"}, {"n1"}]


def test_a_level_is_entered_only_while_there_are_too_few(search):
    assert {n.level for n in search.neighbors(KETTLE, 3)} == {0}
    assert [n.level for n in search.neighbors(KETTLE, 4)] == [0, 0, 0, 1]
    assert [n.level for n in search.neighbors(KETTLE, 6)] == [0, 0, 0, 1, 1, 2]
    assert [n.level for n in search.neighbors(KETTLE, 99)] == [0, 0, 0, 1, 1, 2, 3]


def test_ranking_within_a_level_worked_out_by_hand(search):
    # Title "leaks": BM25 gives k2 rank 1, the others rank 2 each; every kettle text has cosine 1, so rank 1; no rating is stated: rank 1.
    # Fused and scaled by 61 / 2.5: k2 = 1, the others (61/62 + 1 + 0.5) / 2.5 = 0.99355. Ann's second review comes after k1, in file order.
    neighbors = search.neighbors(replace(KETTLE, title="leaks"), 3)
    assert found(neighbors) == [("k2", 0), ("k1", 0), ("k3", 0)]
    assert [round(n.score, 5) for n in neighbors] == [1.0, 0.99355, 0.99355]
    assert neighbors[0].why == ("same topic", "shares: leaks") and neighbors[1].why == ("same topic", "close in meaning")


def test_a_stated_rating_aligns(search):
    # Nearness 1 - |difference| / 2 to a stated 5: k1 1, k3 0.5, k2 -1: alignment ranks 1, 2, 3, all else equal.
    neighbors = search.neighbors(replace(KETTLE, rating=5.0), 2)
    assert found(neighbors) == [("k1", 0), ("k2", 0)], "ann's second review may not come before bob's first"
    assert "rated 5 like you" in neighbors[0].why and "rated 5 like you" not in neighbors[1].why
    assert found(search.neighbors(replace(KETTLE, rating=1.0), 1)) == [("k2", 0)]


def test_people_who_agreed_before_come_first(search):
    # Zoe gave the toaster 2, as bob did (agreement 1); cat gave it 5 (agreement -0.5, but she has no kettle review). Ann is unknown: 0.
    zoe = replace(KETTLE, user_id="zoe", history=(review("z1", "zoe", "toaster", 2, "Burned mine."),))
    neighbors = search.neighbors(zoe, 2)
    assert found(neighbors)[0] == ("k2", 0) and "agrees with you on 1 topic" in neighbors[0].why


def test_one_author_gets_a_second_place_only_after_all_others(search):
    assert {n.review.user_id for n in search.neighbors(KETTLE, 2)} == {"ann", "bob"}


def test_own_and_held_out_reviews_are_never_neighbors(search):
    bob = Query(topic="Kettle", title="leaks", topic_id="kettle", user_id="bob", held_out=frozenset({"k2", "k3"}))
    ids = {n.review.review_id for n in search.neighbors(bob, 99)}
    assert not ids & {"k2", "t1", "k3"} and "k1" in ids
    # Only bob joins the toaster to the kettle: without his reviews it is no longer co-reviewed.
    assert all(n.review.topic_id != "toaster" for n in search.levels(bob)[1])


def test_a_free_text_topic_starts_at_level_2(search):
    neighbors = search.neighbors(Query(topic="tea kettle", title="boils"), 4)
    assert {n.level for n in neighbors} == {2} and {n.review.topic_id for n in neighbors} == {"kettle", "teapot"}
    far = search.neighbors(Query(topic="submarine", title=""), 2)
    assert {n.level for n in far} == {3} and all(n.why[0] == "nothing is near; the closest there is" for n in far)


def test_wrong_topic_id_and_k_raise(search):
    with pytest.raises(ValueError, match="no topic has the id 'sofa'"):
        search.neighbors(replace(KETTLE, topic_id="sofa"))
    with pytest.raises(ValueError, match="at least 1"):
        search.neighbors(KETTLE, 0)


@pytest.mark.parametrize(
    ("text", "topic_id"),
    [
        ("kettle", "kettle"),
        (" KETTLE! ", "kettle"),
        ("Ketttle", "kettle"),
        ("tea pot", "teapot"),
        ("a kettle of fish", ""),
        ("", ""),
        ("😀", ""),
        ("pot", ""),
    ],
)
def test_match_topic(search, text, topic_id):
    assert search.match_topic(text) == topic_id


def test_match_topic_by_words_of_one_name(tmp_path):
    named = [
        replace(REVIEWS[0], topic="Norra gooseneck kettle"),
        replace(REVIEWS[3], topic="Osk robot vacuum cleaner"),
        replace(REVIEWS[6], topic="Osk robot mop"),
    ]
    search = TopicSearch(Corpus("names", tuple(named)), AxisEmbedder(), tmp_path)
    assert (
        search.match_topic("robot vacuum") == "toaster"
        and search.match_topic("Osk robot") == ""
        and search.match_topic("Norra kettle") == "kettle"
    )


words = st.lists(st.sampled_from([*sorted(set.union(*AXES)), "good", "shoe", "été", "😀"]), min_size=1, max_size=6).map(" ".join)
random_reviews = st.lists(
    st.tuples(st.sampled_from("abcde"), st.sampled_from(["kettle", "tent", "sofa"]), st.sampled_from([None, 1.0, 3.0, 5.0]),
              words | st.just(""), words),
    min_size=1, max_size=14,
)  # fmt: skip


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=random_reviews,
    topic=words,
    title=words | st.just(""),
    k=st.integers(1, 6),
    pick=st.integers(0, 99),
    rating=st.sampled_from([None, 1.0, 4.0]),
)
def test_properties(tmp_path, rows, topic, title, k, pick, rating):
    reviews = tuple(Review(f"r{i}", user, name, name, "", head, text, stars) for i, (user, name, stars, head, text) in enumerate(rows))
    corpus = Corpus("random", reviews)
    search = TopicSearch(corpus, AxisEmbedder(), tmp_path)
    target = reviews[pick % len(reviews)]
    for query in (replace(hold_out(corpus, target), rating=rating), Query(topic=topic, title=title, rating=rating)):
        neighbors = search.neighbors(query, k)
        ids = [n.review.review_id for n in neighbors]
        others = [r for r in reviews if r.review_id not in query.held_out and (not query.user_id or r.user_id != query.user_id)]
        assert len(set(ids)) == len(ids) == min(k, len(others)) and set(ids) <= {r.review_id for r in others}
        assert [n.level for n in neighbors] == sorted(n.level for n in neighbors)
        assert all(0 < n.score <= 1 and n.why and n.agent == "topic" for n in neighbors)
        assert all((n.level == 0) == (n.review.topic_id == query.topic_id) for n in neighbors)
        assert search.neighbors(query, k) == neighbors


def test_real_data(amazon_dev, tmp_path):
    corpus, _ = read_corpus(amazon_dev)
    kept = sorted(corpus.by_topic, key=lambda t: (-len(corpus.by_topic[t]), t))[60:90]
    corpus = Corpus("part of amazon_dev", tuple(r for t in kept for r in corpus.by_topic[t]), corpus.labeled)
    embedder = open_embedder("embedded")
    search = TopicSearch(corpus, embedder, tmp_path)
    again = TopicSearch(corpus, embedder, tmp_path)
    targets = [t for t in (benchmark_target(corpus, user) for user in list(corpus.by_user)[::8]) if t is not None]
    seconds = []
    for target in targets:
        query = hold_out(corpus, target)
        start = time.perf_counter()
        neighbors = search.neighbors(query)
        seconds.append(time.perf_counter() - start)
        assert len(neighbors) == 4 and neighbors == again.neighbors(query)
        assert all(n.review.review_id not in query.held_out and n.review.user_id != target.user_id for n in neighbors)
        assert neighbors[0].level == 0 or len(corpus.by_topic[target.topic_id]) == 1
        assert all(n.review.text != target.text for n in neighbors)
    assert np.median(seconds) < 0.5  # tens of milliseconds on idle cores
    nail = search.neighbors(Query(topic="nail polish that lasts", title=""), 4)
    assert any("nail" in f"{n.review.topic} {n.review.title} {n.review.text}".lower() for n in nail)
