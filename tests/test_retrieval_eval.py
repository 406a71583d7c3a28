"""The retrieval evaluation: what is held out stays unseen, and its numbers are what they say."""

import json
from dataclasses import asdict, replace

import numpy as np
import pytest
from eval_data import small_nets

from pat_core.benchmark import held_out_cases
from pat_core.corpus import Corpus
from pat_core.graph import Measured, StyleGraph
from pat_core.retrieval_eval import STYLE_SYSTEMS, _fold_scores, evaluate_retrieval, hidden_cases, render, ridge_predictions
from pat_core.types import Review

LOUD, CALM = "We LOVED the {}!!! You HAVE to go!!", "One would hesitate to call the {} remarkable; it is, however, adequate."


@pytest.fixture(autouse=True)
def nets_are_small():
    with small_nets():
        yield


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    """Twelve people, two topics; the first two of each camp wrote twice."""
    reviews = []
    for i, thing in enumerate(("rocket", "smoke", "music", "crowd", "bridge", "light")):
        for camp, text, topic in (("loud", LOUD, "fair"), ("calm", CALM, "library")):
            reviews.append(Review(f"{camp}{i}#0", f"{camp}{i}", topic, topic, "", f"The {thing}", text.format(thing), float(i % 5 + 1)))
            if i < 2:
                reviews.append(Review(f"{camp}{i}#1", f"{camp}{i}", "park", "park", "", "Park", text.format("park " + thing), 3.0))
    return Corpus("camps", tuple(reviews))


def test_cases_are_grouped_by_history_and_hold_the_target_out(corpus):
    cases = held_out_cases(corpus)
    assert sorted(c.group for c in cases) == ["0"] * 8 + ["1"] * 4
    assert all(c.target.review_id in c.query.held_out and c.target not in c.query.history for c in cases)
    assert len(held_out_cases(corpus, 3)) == 3
    hidden = hidden_cases(corpus)
    assert len(hidden) == len(corpus.reviews) and not any(c.query.history for c in hidden)
    assert all({r.review_id for r in corpus.by_user[c.target.user_id]} <= c.query.held_out for c in hidden)


def test_a_changed_target_changes_no_prediction(corpus):
    """Scale, net and ridge of a fold are those of the rest: another text by the held-out user leads to the same predictions."""
    target = corpus.by_id["loud3#0"]
    other = Corpus(
        "camps", tuple(replace(r, text="Nothing at all; nothing, in 17 parts (really).") if r is target else r for r in corpus.reviews)
    )
    predictions = []
    for one in (corpus, other):
        case = next(c for c in held_out_cases(one) if c.target.review_id == "loud3#0")
        rest = one.without(case.query.held_out)
        graph = StyleGraph(rest, Measured.of(rest))
        predictions.append(
            (graph.predict([case.query]), ridge_predictions(graph, [case.query]), [n.review for n in graph.neighbors(case.query)])
        )
    np.testing.assert_array_equal(predictions[0][0], predictions[1][0])
    np.testing.assert_array_equal(predictions[0][1], predictions[1][1])
    assert predictions[0][2] == predictions[1][2]


def test_a_score_is_the_cosine_with_the_texts_retrieved(corpus):
    """Everybody in a camp writes alike, so whoever shares the topic is near, and the mean of both camps is not."""
    cases = [c for c in held_out_cases(corpus) if c.target.review_id in ("loud3#0", "calm4#0")]
    scores = _fold_scores(corpus, Measured.of(corpus), cases, 0, None)
    assert all(set(s) == set(STYLE_SYSTEMS) and all(-1 <= v <= 1 for v in s.values()) for s in scores)
    assert all(s["same topic"] > 0.8 > s["random users"] for s in scores)


def test_the_whole_evaluation_reports_every_group_and_system(corpus):
    report = evaluate_retrieval(corpus, None)
    assert set(report.style) == {"0", "0, history hidden", "1"}
    assert set(report.style["0"]) == set(STYLE_SYSTEMS) and "graph" not in report.gain["0"]
    gain, graph, ridge = report.gain["0"]["ridge"], report.style["0"]["graph"], report.style["0"]["ridge"]
    assert gain.mean == pytest.approx(graph.mean - ridge.mean)
    text = render(report)
    assert all(f"| {system} |" in text for system in STYLE_SYSTEMS) and json.dumps(asdict(report))


def test_a_corpus_in_which_nobody_shares_a_topic_is_refused(corpus):
    alone = Corpus("alone", tuple(replace(r, topic_id=r.review_id) for r in corpus.reviews))
    with pytest.raises(ValueError, match="nothing can be held out"):
        evaluate_retrieval(alone, None)
