"""The closed loop in small: a random two-layer model, a simulated annotator, the real store, one round of DPO; and opposite tastes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from doubles import HashEmbedder
from tastes import long_and_loud, short_and_calm
from tiny_model import WORDS, save_tiny_model

from annotate.closed_loop import Case, Size, closed_loop, judged, load_taste
from annotate.store import open_store
from annotate.types import Judgment
from pat_core.config import Config
from pat_core.corpus import Corpus, part_of
from pat_core.dpo import DPOSettings
from pat_core.graph import open_style_graph
from pat_core.llm import open_llm
from pat_core.pipeline import Workbench
from pat_core.rounds import open_base
from pat_core.topics import TopicSearch
from pat_core.train import main
from pat_core.types import Review

TOPICS = ("Norra kettle", "Saltmarsh Inn", "Northline trains", "Pine cabin")
SIZE = Size(votes=60, cases=40, dpo=DPOSettings(learning_rate=1e-2, epochs=2))
CACHE = "tiny-cache"  # learning styles takes seconds, and the tests of the rounds use the same corpus
FIRST_HALF = frozenset(WORDS[::2])


def corpus() -> Corpus:
    users = [f"user-{i}" for i in range(24)]
    text = "The {t} was fine, the staff were kind and we would certainly come back to it in the spring."
    return Corpus(
        "tiny",
        tuple(
            Review(f"{u}-{i}", u, f"t{i}", t, "places", f"{t} by {u}", text.format(t=t) + f" Visit {n}.", 4.0)
            for n, u in enumerate(users)
            for i, t in enumerate(TOPICS)
        ),
    )


def likes_the_first_half(text: str) -> float:
    return float(sum(1 if w in FIRST_HALF else -1 for w in text.split() if w in WORDS))


def likes_the_second_half(text: str) -> float:
    return -likes_the_first_half(text)


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("home")
    save_tiny_model(folder / "model")
    return folder


@pytest.fixture(scope="module")
def run(home, tmp_path_factory) -> Callable[..., dict]:
    config = Config(home=home, model=str(home / "model"), engine="transformers", device="cpu", threads=1)
    made = corpus()
    graph = open_style_graph(made, tmp_path_factory.getbasetemp() / CACHE)
    search = TopicSearch(made, HashEmbedder(), home / "cache")

    def once(taste, seed=0) -> dict:
        bench = Workbench(made, graph, search, open_llm(config, adapters={}))
        return closed_loop(config, open_base(config), bench, taste, taste.__name__, seed, SIZE)

    return once


@pytest.fixture(scope="module")
def learned(run) -> dict:
    return run(likes_the_first_half)


def test_one_round_from_votes_alone_is_preferred_by_the_taste(learned):
    assert learned["win_rate"] >= 0.65 and learned["low"] > 0.5 and learned["n_decisive"] >= 20
    assert learned["taste_after"] > learned["taste_before"] and sum(learned["votes"].values()) == SIZE.votes
    assert set(learned["trained"]) == {"generator"} and set(learned["not_trained"]) == {"style", "topic"}
    assert json.loads(json.dumps(learned)) == learned


def test_the_votes_are_in_a_real_store_blind_and_in_both_places(learned, home):
    [path] = home.glob("training/closed-loop-*/*/votes.db")
    with open_store(path, read_only=True) as store:
        judgments = store.all(Judgment)
        assert len(judgments) == SIZE.votes and store.counts()["pairs"] == SIZE.votes
        assert {j.outcome for j in judgments} >= {"A", "B"} and not any(j.unblinded for j in judgments)


def test_a_different_taste_gives_a_different_model_that_the_first_does_not_like(learned, run):
    other = run(likes_the_second_half)
    assert other["win_rate"] >= 0.65 and other["taste_before"] == -learned["taste_before"]
    assert -other["taste_after"] < learned["taste_before"] < learned["taste_after"]
    assert other["trained"]["generator"]["sha256"] != learned["trained"]["generator"]["sha256"]


def test_the_same_seed_gives_the_same_model(learned, run):
    again = run(likes_the_first_half)
    assert again["trained"]["generator"]["sha256"] == learned["trained"]["generator"]["sha256"]
    assert again["examples"] == learned["examples"] and again["win_rate"] == learned["win_rate"]


def test_ties_decide_nothing_and_one_user_counts_once_in_the_interval():
    cases = [Case("a", "x", "x y"), Case("a", "x", "x y"), Case("b", "x y", "x"), Case("c", "same", "text")]
    found = judged(cases, lambda text: len(text.split()))
    assert (found["win_rate"], found["n_decisive"], found["n_cases"], found["n_users"]) == (0.6667, 3, 4, 2)
    assert (found["low"], found["high"]) == (0.0, 1.0)
    assert judged(cases, lambda text: 1.0)["n_decisive"] == 0


def test_a_taste_must_give_numbers():
    with pytest.raises(ValueError, match="finite number"):
        judged([Case("a", "x", "y")], lambda text: float("nan"))


def test_the_two_tastes_are_opposite():
    calm, loud = "A good breakfast. Quiet.", "WOW!! " + "We loved it all, every single minute of it! " * 4
    assert short_and_calm(calm) > short_and_calm(loud) and long_and_loud(calm) < long_and_loud(loud)


def test_a_taste_is_found_by_file_and_function_or_refused_in_a_sentence(capsys):
    file = str(Path(__file__).with_name("tastes.py"))
    assert load_taste(f"{file}:short_and_calm")("one two") == pytest.approx(-0.1)
    with pytest.raises(ValueError, match="no function 'nobody'"):
        load_taste(f"{file}:nobody")
    assert main(["closed-loop", "--taste", "nowhere.py:f"]) == 2
    assert "names no taste" in capsys.readouterr().err


def test_both_halves_have_people():
    users = corpus().by_user
    assert 8 <= sum(part_of(u) == "training" for u in users) <= len(users) - 8
