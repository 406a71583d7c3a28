"""The user-topic graph: who is near whom in a graph small enough to know, and what nobody may see."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge

from pat_core import style_net
from pat_core.config import DEMO_CORPUS, load_config
from pat_core.corpus import Corpus, hold_out, read_corpus
from pat_core.cues import holds
from pat_core.graph import MAX_NODES, Measured, StyleGraph, open_style_graph, user_topic_graph, visitor_subgraph
from pat_core.stylometry import COLUMN
from pat_core.types import Preference, Query, Review

# Ten people at the fireworks shout, ten in the library are formal, and each wrote about a fair of their camp besides. Whoever asks about the
# fireworks is therefore nearest to the shouters, whoever asks about the library to the formal ones.
LOUD = ("OMG!!! We LOVED the {0}!! You HAVE to go!!", "SO good!!! I was SCREAMING at the {0}!!! wow!!", "YES!! The {0} again!! We can't stop!!!")
FORMAL = (
    "One would hesitate to call the {0} remarkable; it is, nevertheless, entirely adequate for the purpose of quiet study.",
    "The {0} is maintained with considerable diligence, and the arrangement of it leaves nothing to be desired.",
    "It is to be regretted that the {0} closes early; in every other respect it is beyond reproach.",
)
THINGS = ("rocket", "smoke", "music", "crowd", "finale", "bridge", "light", "show", "night", "river")


def review(user: str, topic: str, title: str, text: str, rating: float | None) -> Review:
    return Review(f"{user}/{topic}", user, topic, topic.title(), "places", title, text, rating)


def two_camps() -> Corpus:
    reviews = []
    for i, thing in enumerate(THINGS):
        reviews.append(review(f"loud{i}", "fireworks", f"{thing.upper()}!!!", LOUD[i % 3].format(thing), 5.0))
        reviews.append(review(f"loud{i}", "f-fair", "AGAIN!!", LOUD[(i + 1) % 3].format(thing + " fair"), 5.0))
        reviews.append(review(f"calm{i}", "library", f"On the {thing}", FORMAL[i % 3].format(thing), 3.0))
        reviews.append(review(f"calm{i}", "l-fair", "Some remarks", FORMAL[(i + 1) % 3].format(thing + " fair"), 3.0))
    return Corpus("camps", tuple(reviews))


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    return two_camps()


@pytest.fixture(scope="module")
def graph(corpus) -> StyleGraph:
    return StyleGraph(corpus, Measured.of(corpus))


def camps(neighbors) -> set[str]:
    return {n.review.user_id[:4] for n in neighbors}


@pytest.mark.parametrize(
    ("query", "camp"),
    [
        (Query("Fireworks", "", "fireworks", "places", 5.0), "loud"),
        (Query("Library", "", "library", "places", 3.0), "calm"),
        (Query("Something nobody reviewed", "On the opening hours", rating=3.0), "calm"),
    ],
)
def test_the_right_neighbors_are_found(graph, query, camp):
    assert camps(graph.neighbors(query, 4)) == {camp}


@pytest.fixture(scope="module")
def demo_graph() -> StyleGraph:
    return open_style_graph(read_corpus(DEMO_CORPUS)[0], load_config().home / "cache")


@pytest.mark.parametrize(
    ("query", "cue"),
    [
        (Query("Pen", "WHAT A PEN!!! LOVE IT!!"), "many exclamation marks"),
        (Query("Pen", "", preferences=(Preference("statement", "lots of exclamation marks"),)), "many exclamation marks"),
        (Query("Pen", "", preferences=(Preference("statement", "writes in lower case"),)), "lower-case sentence starts"),
        (Query("Pen", "", preferences=(Preference("sample", "Measured: 12 mm. Weight 31 g. Ink dries in 12 s."),)), "numbers"),
    ],
)
def test_people_of_the_demo_corpus_are_found_by_a_title_a_statement_or_a_sample(demo_graph, query, cue):
    """A topic nobody reviewed, so that only what the visitor says can tell."""
    assert holds(cue, [n.review.text for n in demo_graph.neighbors(query, 4)])


def test_neighbors_are_described(graph):
    found = graph.neighbors(Query("Fireworks", "ROCKETS!!!", "fireworks", "places", 5.0), 4)
    assert [n.agent for n in found] == ["style"] * 4 and [n.level for n in found] == [0] * 4
    scores = [n.score for n in found]
    assert scores == sorted(scores, reverse=True) and all(-1 <= s <= 1 for s in scores)
    assert all("many exclamation marks, as expected" in n.why and len(n.why) <= 3 for n in found)


def test_reasons_name_what_samples_share_and_what_was_asked_for(graph):
    sample = graph.neighbors(Query("x", "", preferences=(Preference("sample", "WOW!!! You HAVE to come!!!"),)), 3)
    assert all("both: many exclamation marks" in n.why for n in sample)
    asked = graph.neighbors(Query("Library", "", "library", preferences=(Preference("statement", "no exclamation marks"),)), 3)
    assert all("no exclamation marks, as asked" in n.why for n in asked)


def test_nobody_is_quoted_twice_before_everybody_has_been_once(graph):
    users = [n.review.user_id for n in graph.neighbors(Query("Fireworks", "", "fireworks"), 20)]
    assert len(users) == len(set(users)) == 20
    with_second = graph.neighbors(Query("Fireworks", "", "fireworks"), 30)
    assert len({n.review.review_id for n in with_second}) == 30 and len({n.review.user_id for n in with_second}) == 20


def test_nobody_is_their_own_neighbor_and_nothing_held_out_is_quoted(corpus, graph):
    for target in corpus.reviews:
        query = hold_out(corpus, target)
        found = graph.neighbors(query, 30)
        assert found and target.user_id not in {n.review.user_id for n in found}
        assert not query.held_out & {n.review.review_id for n in found}


def test_who_wrote_something_held_out_is_no_neighbor(graph):
    query = Query("Fireworks", "", "fireworks", held_out=frozenset({"loud3/fireworks"}))
    assert "loud3" not in {n.review.user_id for n in graph.neighbors(query, 30)}


def test_a_prediction_does_not_hear_what_is_held_out(corpus, graph):
    """The net and the scale are those of the whole corpus; only what a query may look at changes."""
    changed = Corpus("camps", tuple(r if r.review_id != "calm0/library" else review("calm0", "library", "!!!", "AAA!!! WE!! ME!!", 1.0) for r in corpus.reviews))
    other = StyleGraph(changed, Measured.of(changed), net=graph._net)
    other.scale, other._title_scale = graph.scale, graph._title_scale
    row = other._row["calm0/library"]
    keep = np.arange(len(corpus.reviews)) != row
    assert np.abs(other._phi[row] - graph._phi[row]).max() > 1
    other._phi, other._edges = np.where(keep[:, None], graph._phi, other._phi), np.where(keep[:, None], graph._edges, other._edges)
    other._category_sums = {"places": (other._phi.sum(axis=0), len(other._phi))}
    target = next(r for r in corpus.reviews if r.review_id == "calm0/library")
    query = hold_out(corpus, target)
    np.testing.assert_allclose(other.predict_phi(query), graph.predict_phi(query), atol=1e-4)
    heard = Query("Library", "", "library", "places", 3.0)
    assert np.abs(other.predict_phi(heard) - graph.predict_phi(heard)).max() > 1e-3


def test_queries_answered_together_are_answered_as_alone(corpus, graph):
    queries = [hold_out(corpus, r) for r in corpus.reviews[:20]] + [Query("x", "")]
    np.testing.assert_allclose(graph.predict(queries), np.stack([graph.predict_phi(q) for q in queries]), atol=1e-5)
    assert graph.predict(()).shape == (0, len(COLUMN))


def test_a_statement_sets_its_features_and_cannot_ask_for_less_than_none(graph):
    plain, asked = Query("Library", "", "library"), Query("Library", "", "library", preferences=(Preference("statement", "short, no exclamation marks"),))
    assert graph.predict_words(asked) < graph.predict_words(plain)
    none = graph.phi("word " * 2000)[COLUMN["exclamations"]]
    assert graph.predict_phi(asked)[COLUMN["exclamations"]] == pytest.approx(none, abs=0.02)


def test_vectors_have_length_one(graph):
    assert np.linalg.norm(graph.user_vectors, axis=1) == pytest.approx(1, abs=1e-5) and len(graph.user_vectors) == len(graph.users) == 20
    assert np.linalg.norm(graph.embed_query(Query("x", "hm"))) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("query", [Query("x", ""), Query("😀", "😀" * 100), Query("y", "z " * 5000), Query("no such topic", "a", "no-such-id"), Query("x", "b", rating=2.5)])
def test_odd_queries_have_neighbors(graph, query):
    assert len(graph.neighbors(query)) == 8 and np.isfinite(graph.predict_phi(query)).all()


def test_k_below_one_is_refused(graph):
    with pytest.raises(ValueError, match="k must be at least 1"):
        graph.neighbors(Query("x", ""), 0)


@pytest.mark.parametrize("n", [1, 2, 3])
def test_a_corpus_of_a_few_reviews_works(corpus, n, monkeypatch):
    monkeypatch.setattr(style_net, "STEPS", 3)
    few = Corpus("few", corpus.reviews[:n])
    small = StyleGraph(few, Measured.of(few))
    assert np.isfinite(small.predict_phi(Query("x", "hi"))).all()
    assert len(small.neighbors(Query("x", "hi"))) == (0 if n == 1 else n)


def test_reviews_without_ratings_titles_and_category_work(monkeypatch):
    monkeypatch.setattr(style_net, "STEPS", 3)
    bare = Corpus("bare", tuple(Review(f"r{i}", f"u{i}", f"t{i % 2}", "T", "", "", text.format("it"), None) for i, text in enumerate(LOUD + FORMAL)))
    assert len(StyleGraph(bare, Measured.of(bare)).neighbors(Query("T", "", "t0"), 4)) == 4


def test_training_is_deterministic_and_leaves_the_random_state(corpus, monkeypatch):
    monkeypatch.setattr(style_net, "STEPS", 5)
    torch.manual_seed(7)
    measured, query = Measured.of(corpus), Query("Library", "hm", "library")
    a, b, c = (StyleGraph(corpus, measured, seed=seed).predict_phi(query) for seed in (1, 1, 2))
    drawn = torch.rand(1)
    torch.manual_seed(7)
    assert drawn == torch.rand(1)
    np.testing.assert_array_equal(a, b)
    assert np.abs(a - c).max() > 1e-4


def test_masked_people_send_nothing_and_hear_their_topic():
    """Three reviews: user 0 on topics 0 and 1, user 1 on topic 0. Hiding (user 0, topic 0) leaves one review there, and (user 0, topic 1) known."""
    table = style_net.ReviewTable(
        phi=torch.tensor([[1.0, 0], [0, 1], [2, 2]]), edge=torch.tensor([[1.0], [2], [3]]), user=torch.tensor([0, 0, 1]),
        topic=torch.tensor([0, 1, 0]), category=torch.zeros(3, dtype=torch.long),
    )  # fmt: skip
    batch = style_net.masked(table, np.array([True, False, False]))
    assert batch.sent.tolist() == [[0, 1, 2], [2, 2, 3]] and batch.sent_topic.tolist() == [1, 0]
    assert batch.asked.tolist() == [[1]] and batch.asked_topic.tolist() == [0]
    assert batch.own.tolist() == [[0, 1, 2]] and batch.own_asker.tolist() == [0] and batch.own_topic.tolist() == [1]
    seen = style_net.reading(batch)[0].tolist()
    topic_mean, category_mean = [2 / (1 + style_net.TOPIC_PRIOR)] * 2, [2 / (2 + style_net.CATEGORY_PRIOR), 3 / (2 + style_net.CATEGORY_PRIOR)]
    assert seen == pytest.approx([*topic_mean, *category_mean, 1, 0, 1 / (1 + style_net.OWN_PRIOR)])
    whole = style_net.masked(table, np.array([True, True, False]))
    assert not len(whole.own) and whole.sent.tolist() == [[2, 2, 3]]


def test_the_linear_half_is_ridge_regression_and_judges_itself_on_unseen_parts():
    rng = torch.Generator().manual_seed(0)
    x, noise = (torch.randn(40, n, generator=rng, dtype=torch.float64) for n in (6, 3))
    y = torch.nn.functional.normalize(x[:, :3] + noise, dim=1)
    part, scored = torch.arange(40) % 4, torch.arange(40) < 30
    weights, bias, unseen = style_net.ridge(x, y, part, scored)

    def left_out(strength: float) -> np.ndarray:
        rows = [Ridge(alpha=strength).fit(x[part != p], y[part != p]).predict(x[i][None])[0] for i, p in enumerate(part[scored])]
        return np.array(rows)

    def cosine(rows: np.ndarray) -> float:
        return float((rows / np.linalg.norm(rows, axis=1, keepdims=True) * y[scored].numpy()).sum(axis=1).mean())

    best = max(style_net.RIDGES, key=lambda strength: cosine(left_out(strength)))
    np.testing.assert_allclose(unseen, left_out(best), atol=1e-9)
    oracle = Ridge(alpha=best).fit(x, y)
    np.testing.assert_allclose(weights, oracle.coef_, atol=1e-9)
    np.testing.assert_allclose(bias, oracle.intercept_, atol=1e-9)


def test_what_is_saved_comes_back(corpus, tmp_path, monkeypatch):
    monkeypatch.setattr(style_net, "STEPS", 5)
    query, work = Query("Library", "hm", "library"), []
    first = open_style_graph(corpus, tmp_path, lambda what, done, total: work.append((what, done, total)))
    assert {w[0] for w in work} == {"Measuring styles", "Learning styles"} and all(done <= total for _, done, total in work)
    work.clear()
    second = open_style_graph(corpus, tmp_path, lambda *w: work.append(w))
    assert work == []
    np.testing.assert_array_equal(first.predict_phi(query), second.predict_phi(query))
    assert first.neighbors(query) == second.neighbors(query)
    assert {p.suffix for p in tmp_path.rglob("*") if p.is_file()} == {".json", ".safetensors"}


def test_other_reviews_another_seed_and_another_order_are_trained_again(corpus, tmp_path, monkeypatch):
    monkeypatch.setattr(style_net, "STEPS", 2)
    open_style_graph(corpus, tmp_path)
    for other, seed in ((corpus.without({"loud0/f-fair"}), 0), (corpus, 1), (Corpus("camps", corpus.reviews[::-1]), 0)):
        work = []
        open_style_graph(other, tmp_path, lambda *w: work.append(w), seed=seed)
        assert work


@pytest.mark.parametrize("damage", ["flip", "cut", "manifest"])
def test_a_damaged_file_is_made_again(corpus, tmp_path, monkeypatch, damage):
    monkeypatch.setattr(style_net, "STEPS", 3)
    query = Query("Library", "hm", "library")
    before = open_style_graph(corpus, tmp_path).predict_phi(query)
    file = next(tmp_path.rglob("*.safetensors" if damage != "manifest" else "manifest.json"))
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 255
    file.write_bytes(data if damage == "flip" else data[: len(data) // 2])
    work = []
    np.testing.assert_array_equal(open_style_graph(corpus, tmp_path, lambda *w: work.append(w)).predict_phi(query), before)
    assert work
    work.clear()
    open_style_graph(corpus, tmp_path, lambda *w: work.append(w))
    assert not work


def test_the_whole_graph_has_a_node_for_each_user_and_topic(corpus):
    whole = user_topic_graph(corpus)
    assert sorted(kind for _, kind in whole.nodes(data="kind")) == ["topic"] * 4 + ["user"] * 20
    assert whole.number_of_edges() == 40 and whole.edges[("user", "loud3"), ("topic", "fireworks")]["reviews"] == ("loud3/fireworks",)


def test_the_visitors_part_is_small_and_holds_what_was_found(corpus, graph):
    query = hold_out(corpus, corpus.reviews[0])
    style = graph.neighbors(query, 8)
    part = visitor_subgraph(corpus, query, style, graph.neighbors(Query("Library", "", "library"), 16))
    assert len(part) <= MAX_NODES
    visitor = ("visitor", "loud0")
    assert set(part.neighbors(visitor)) == {("topic", "fireworks"), ("topic", "f-fair")}
    assert all(part.nodes[("user", n.review.user_id)]["score"] == n.score for n in style)
    assert all(part.has_edge(("user", n.review.user_id), ("topic", n.review.topic_id)) for n in style)
    assert not any(query.held_out & set(reviews) for _, _, reviews in part.edges(data="reviews"))
    assert visitor_subgraph(corpus, Query("Free", "x")).number_of_nodes() == 2
