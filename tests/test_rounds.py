"""Rounds: who is asked, what a rollout holds and is worth, what votes become, and a whole run on a random two-layer model."""

from __future__ import annotations

import json
import random
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from doubles import HashEmbedder, ScriptedLLM
from store_data import person, vote
from test_closed_loop import CACHE, corpus
from tiny_model import save_tiny_model

from annotate.lessons import lessons
from annotate.store import open_store
from annotate.types import Candidate, Item, Pair, pair_of
from pat_core.agents import AgentFacts
from pat_core.config import Config
from pat_core.corpus import part_of
from pat_core.credit import Dropped
from pat_core.dpo import DPOSettings
from pat_core.faithfulness import check_summary, measure, texts_of
from pat_core.graph import StyleGraph, open_style_graph
from pat_core.llm.types import LLM, Request
from pat_core.pipeline import Workbench
from pat_core.points import Points
from pat_core.preferences import Choice, Comparison
from pat_core.prompts import Messages, StyleFacts, TopicFacts
from pat_core.rounds import RoundSettings, learn, open_base
from pat_core.rounds_report import compared, fell, step_text, verdict
from pat_core.rounds_rollouts import (
    OPTIONS,
    Question,
    Stopped,
    Writer,
    comparison,
    part_of_facts,
    questions,
    read_out,
    roll_out,
    score_rollout,
    take_notes,
    trace_of,
    whole_sentences,
)
from pat_core.topics import TopicSearch
from pat_core.train import main
from pat_core.types import ADAPTER_ROLES, AGENTS, Reward

ADAPTERS = {"style": "style-1", "topic": "topic-1", "generator": "generator-1"}


def answer(request: Request) -> str:
    asked = request.prompt.messages[-1][1]
    if request.role == "style":
        return f" Similar writers use about {10 + request.seed % 3} words.\nGuidance: Write STYLE{request.seed % 3}."
    if request.role == "topic":
        return f" Reviewers mention the staff.\nGuidance: Praise TOPIC{request.seed % 3}."
    notes = next((f"noted {n}" for n in range(3) if f"STYLE{n}" in asked), "without style")
    return f"The staff were kind, seed {request.seed % 3} and {notes}, and we would come back here."


@pytest.fixture(scope="module")
def style_graph(tmp_path_factory) -> StyleGraph:
    return open_style_graph(corpus(), tmp_path_factory.getbasetemp() / CACHE)


@pytest.fixture
def bench(style_graph, tmp_path) -> Workbench:
    return Workbench(corpus(), style_graph, TopicSearch(corpus(), HashEmbedder(), tmp_path), ScriptedLLM(answer, ADAPTERS))


@pytest.fixture
def asked(bench) -> list[Question]:
    return questions(bench, 3, 0, "training")


def test_training_and_dev_questions_share_no_user_and_hide_the_answer(bench):
    training, dev = questions(bench, 12, 5, "training"), questions(bench, 12, 5, "choosing", "untouched")
    assert {part_of(q.query.user_id) for q in training} == {"training"}
    assert {part_of(q.query.user_id) for q in dev} <= {"choosing", "untouched"}
    assert len({q.query.user_id for q in training}) == min(12, sum(part_of(u) == "training" for u in bench.corpus.by_user))
    for q in training + dev:
        shown = " ".join(n.review.text for n in (*q.evidence.style_neighbors, *q.evidence.topic_neighbors))
        assert q.reference not in shown and q.reference not in " ".join(q.query.samples)
    assert [q.query for q in questions(bench, 12, 5, "training")] == [q.query for q in training]


def test_texts_are_asked_for_as_in_a_run(bench, asked):
    writer = Writer(bench.llm)
    roll_out(writer, "generator", asked[:1], take_notes(writer, asked[:1]), 2)
    own = {(r.role, r.seed): replace(r, key="") for r in bench.llm.requests}
    bench.llm.requests.clear()
    bench.vary(bench.run(asked[0].query, OPTIONS), "generator", 2, OPTIONS)
    run = {(r.role, r.seed): replace(r, key="") for r in bench.llm.requests if r.role != "base"}
    shared = own.keys() & run.keys()
    assert {role for role, _ in shared} == set(ADAPTER_ROLES) and all(own[k].prompt == run[k].prompt for k in shared if k[0] != "generator")
    texts = [r for r in bench.llm.requests if r.key.startswith("text-")]
    assert [replace(r, key="") for r in texts] == [own["generator", r.seed] for r in texts]


def test_style_candidates_are_written_with_one_partner_and_left_out_in_the_same_seeds(bench, asked):
    writer = Writer(bench.llm)
    [rollout, *_] = roll_out(writer, "style", asked, take_notes(writer, asked), 3, n_texts=2)
    assert len({c.text for c in rollout.candidates}) == len(rollout.candidates) == 3 and all(len(cell) == 2 for cell in rollout.texts)
    assert all("noted" in c.text for cell in rollout.texts for c in cell) and all("without style" in c.text for c in rollout.left_out)
    trace = trace_of(rollout, 1, "engine")
    assert trace.rounds[-1].style == rollout.candidates[1] and trace.output == rollout.texts[1][0].text


def test_candidates_after_the_first_name_part_of_the_facts_and_answer_the_whole_prompt(bench, asked):
    q = asked[0]
    style = StyleFacts(
        ("about 40 words", "first person (I)", "questions", "dashes"), ("personal", "calm"), ("so nice",), ("short and dry",)
    )
    topic = TopicFacts(
        Points(("staff", "bed", "view"), ("staff", "view"), ("bed",), 4.0, False, 3, ("kind", "calm"), ("loud",)), ((4.0, "ok"),)
    )
    q = replace(q, evidence=replace(q.evidence, facts=AgentFacts(style, topic)))
    writer = Writer(bench.llm)
    notes = take_notes(writer, [q])
    for agent in AGENTS:
        bench.llm.requests.clear()
        [rollout] = roll_out(writer, agent, [q], notes, 6, n_texts=1)
        first, *others = (r.prompt for r in sorted((r for r in bench.llm.requests if r.role == agent), key=lambda r: r.seed))
        assert {c.prompt for c in rollout.candidates} == {first} and len({first, *others}) > 3
    parts = [part_of_facts(AgentFacts(style, topic), agent, random.Random(i)) for i in range(60) for agent in AGENTS]
    for part in parts:
        cues, p = part.style.cues, part.topic.points
        assert (
            cues[0] == "about 40 words" and set(cues) <= set(style.cues) and part.style.tone and part.style.statements == ("short and dry",)
        )
        assert p.mentioned and {*p.liked, *p.disliked} <= set(p.mentioned) <= {"staff", "bed", "view"} and part.topic.quotes == topic.quotes
    assert all(any(f in part.style.cues for part in parts) and any(f not in part.style.cues for part in parts) for f in style.cues[1:])
    assert {part.topic.points.blamed_as for part in parts} == {(), ("loud",)}


def test_credit_of_a_summary_is_its_reward_above_the_text_without_it(bench, asked):
    writer = Writer(bench.llm)
    [rollout, *_] = roll_out(writer, "style", asked, take_notes(writer, asked), 3)
    worth = {"noted 0": 0.5, "noted 1": 0.2, "noted 2": 0.1, "without style": 0.46}

    def score(question: Question, text: str) -> Reward:
        return Reward(next(v for k, v in worth.items() if k in text), {}, {})

    scored = score_rollout(rollout, score)
    best = next(i for i, c in enumerate(rollout.candidates) if "STYLE0" in c.text)
    assert scored.rewards[best] == pytest.approx(0.5) and scored.differential.chosen == scored.raw.chosen == best
    assert (scored.differential.weight, scored.raw.weight) == (pytest.approx(0.4), 1)  # .04 above "left out", full at .1
    made = comparison(scored, scored.differential, "p")
    assert (made.agent, made.reward_a, made.reward_b) == ("style", pytest.approx(0.5), pytest.approx(0.1)) and "STYLE0" in made.a
    worth["without style"] = 0.6
    assert score_rollout(rollout, score).differential == Dropped("no better than left out")


def test_the_likelihood_of_what_was_written_is_a_summarys_reward(bench, asked):
    read: list[tuple[str, str]] = []

    def likelihood(messages: Messages, text: str) -> float:
        read.append((messages[-1][1], text))
        return -3.0 + next((0.5 * n for n in range(3) if f"STYLE{n}" in read[-1][0]), -0.5)

    writer = Writer(bench.llm)
    found = read_out(writer, "style", asked, take_notes(writer, asked), 3, likelihood)
    for q, scored in zip(asked, found, strict=True):
        worth = [-3.0 + 0.5 * int(c.text[-2]) for c in scored.rollout.candidates]  # "... STYLE2."
        assert scored.rewards == pytest.approx(worth) and scored.rollout.texts[0][0].text == q.reference
        assert (scored.differential.chosen, scored.differential.rejected) == (worth.index(max(worth)), worth.index(min(worth)))
        assert comparison(scored, scored.differential, "p").a == scored.rollout.candidates[scored.differential.chosen].text
    without = [text for text, _ in read if "How to write" not in text]
    assert len(without) == len(asked) and all("What to say: Reviewers mention the staff." in text for text in without)
    assert {text for _, text in read} == {q.reference for q in asked}


def test_a_text_cut_at_its_length_ends_with_a_sentence():
    assert whole_sentences("We stayed two nights. It was good. The break") == "We stayed two nights. It was good."
    assert (
        whole_sentences("Hm. The rest of this was never ended in any way at all")
        == "Hm. The rest of this was never ended in any way at all"
    )


def test_a_stop_is_heard_between_batches(bench, asked):
    cancel = threading.Event()
    cancel.set()
    with pytest.raises(Stopped):
        take_notes(Writer(bench.llm, cancel=cancel), asked)


def test_a_fall_beyond_noise_is_seen_by_the_paired_change(bench):
    dev = questions(bench, 8, 0, "choosing", "untouched")
    rows = [{"total": 0.2 + i / 10} for i in range(8)]
    assert fell(compared(dev, rows, [{"total": r["total"] - 0.01} for r in rows]))
    assert not fell(compared(dev, rows, [{"total": r["total"] + (-0.02 if i % 2 else 0.02)} for i, r in enumerate(rows)]))
    assert compared(dev, rows, rows)["gain"]["total"]["mean"] == 0


def test_what_is_published_and_the_reason_in_words():
    def said(mean: float, low: float, high: float, use: str) -> tuple[bool, str]:
        lets, why = verdict({"gain": {"total": {"mean": mean, "low": low, "high": high}}}, use)
        assert why.startswith(f"the dev slice's reward changes by {mean:+.4f} [{low:+.4f}, {high:+.4f}], ")
        return lets, why.split("], ")[1]

    for use in ("automatic", "human", "both"):
        assert said(0.02, 0.01, 0.03, use) == (True, "a rise beyond noise")
        assert said(0.0, -0.01, 0.01, use) == (True, "no fall, and no rise beyond noise")
        assert said(-0.02, -0.03, -0.01, use) == (False, "a fall beyond noise")
    free = {"reference_free": {"mean": 0.03, "low": 0.01, "high": 0.05}}
    lets, why = verdict({"gain": {"total": {"mean": -0.02, "low": -0.03, "high": -0.01}} | free}, "automatic", "reference_free")
    assert not lets and "without a reference changes by +0.0300 [+0.0100, +0.0500], that with one by -0.0200" in why
    likely = {"total": {"mean": 0.0, "low": -0.01, "high": 0.01}, "likelihood": {"mean": 0.05, "low": 0.01, "high": 0.09}}
    lets, why = verdict({"gain": likely}, "automatic", "likelihood")
    assert lets and "+0.0500 [+0.0100, +0.0900] nats a token" in why
    lets, why = verdict({"gain": {"total": {"mean": -0.01, "low": -0.03, "high": 0.01}} | free}, "automatic", "reference_free")
    assert lets and why.endswith("a rise beyond noise")
    lets, why = said(-0.01, -0.03, 0.02, "automatic")
    assert not lets and "a fall within noise, and what learned from this reward alone has to be level" in why
    for use in ("human", "both"):
        assert said(-0.01, -0.03, 0.02, use) == (True, "a fall within noise, which does not outweigh people's votes")


# Votes


def candidate(item: Item, text: str, role: str | None = "generator", system: str = "pat") -> Candidate:
    done = {"completion": {"role": role, "messages": [["user", "Write."]], "prefix": "", "text": text}} if role else {}
    return Candidate(item.item_id, text, system, {"rewards": {"total": len(text) / 100}, **done})


def test_votes_become_choices_between_the_two_answers_and_a_swap_counts_for_its_original(tmp_path):
    item = Item("Review of a kettle")
    texts = [candidate(item, t) for t in ("One text.", "Another text.")]
    copied = candidate(item, "A copy.", None, "copy")
    factor, system = pair_of(*texts, "one-factor", agent="generator"), pair_of(texts[0], copied, "system")
    gold = pair_of(texts[1], copied, "gold", expected=texts[1].candidate_id)
    swap = Pair(item.item_id, factor.lo_id, factor.hi_id, factor.lo_sha, factor.hi_sha, "swap", repeat_of=factor.pair_id)
    with open_store(tmp_path / "votes.db") as store:
        store.add_pairs([factor, system, gold, swap], [*texts, copied], [item])
        me, other = person(store), person(store, "Bo")
        for pair, outcome in ((factor, "A"), (system, "tie"), (gold, "A")):
            vote(store, pair, me, outcome)
        vote(store, swap, other, "B")
        comparisons, choices = lessons(store)
    by_id = {c.pair_id: c for c in comparisons}
    assert by_id.keys() == {factor.pair_id, system.pair_id}
    made = by_id[factor.pair_id]
    by_candidate = {c.candidate_id: c.text for c in texts}
    assert (made.agent, made.prompt) == ("generator", (("user", "Write."),))
    assert (made.a, made.b) == (by_candidate[factor.lo_id], by_candidate[factor.hi_id]) and made.reward_a == len(made.a) / 100
    assert by_id[system.pair_id].agent is None
    found = {(c.pair_id, c.annotator): (c.winner, c.a_left) for c in choices}
    assert found == {
        (factor.pair_id, me.annotator_id): ("a", True),
        (system.pair_id, me.annotator_id): ("tie", True),
        (factor.pair_id, other.annotator_id): ("b", True),
    }


# A whole run


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("home")
    save_tiny_model(folder / "model")
    return folder


def run(home: Path, style_graph: StyleGraph, votes=((), ()), cancel=None, tell=lambda text: None, **changes) -> dict:
    config = Config(home=home, model=str(home / "model"), engine="transformers", device="cpu", threads=1)
    few = {"prompts": 4, "candidates": 3, "dev": 4, "dpo": DPOSettings(learning_rate=1e-2, epochs=1)}
    settings = RoundSettings((Path("tiny.jsonl"),), **few | changes)
    search = TopicSearch(corpus(), HashEmbedder(), home / "cache")

    def opened(path: Path, llm: LLM) -> Workbench:
        return Workbench(corpus(), style_graph, search, llm)

    return learn(config, settings, home / "adapters", votes, cancel=cancel, tell=tell, open_corpus=opened)


def test_a_run_goes_through_every_role_and_says_what_happened(home, style_graph):
    said: list[str] = []
    report = run(home, style_graph, tell=said.append, roles=("topic", "generator"))
    assert [(s["round"], s["role"]) for s in report["steps"]] == [(1, "topic"), (1, "generator")] and len(said) == 2
    step = report["steps"][1]
    assert step["training"]["n_pairs"] == step["rollouts"]["differential"]["kept"] > 0 and "accuracy" in said[1]
    assert step["rollouts"]["icc"] is None and "between the summaries" not in said[1]  # a text is worth what it is
    assert step["rollouts"]["n_prompts"] == 4 and {"before", "after", "gain"} < step["dev"].keys()
    assert not (home / "adapters").exists() and step["version"] == ""
    assert json.loads(json.dumps(report)) == report and step_text(step) == said[1]


def test_a_run_holds_summaries_against_the_likelihood_of_what_was_written(home, style_graph):
    [step] = run(home, style_graph, roles=("topic",), reward="likelihood")["steps"]
    assert (
        step["rollouts"]["n_prompts"] == 4 and step["rollouts"]["reward_mean"] < -1
    )  # nats a token, of a random model over its vocabulary
    [rows] = [rows for path in home.glob("training/*/dev-0.json") if "likelihood" in (rows := json.loads(path.read_text()))[0]]
    assert all(row["likelihood"] < -1 and "rouge_1" in row for row in rows)
    with pytest.raises(ValueError, match="tells what a summary is worth"):
        RoundSettings((Path("x"),), reward="likelihood")


def test_a_run_that_was_stopped_goes_on_with_what_it_had(home, style_graph):
    cancel = threading.Event()
    with pytest.raises(Stopped):
        run(home, style_graph, cancel=cancel, tell=lambda text: cancel.set(), seed=4, roles=("generator", "topic"))
    [kept] = [p for p in home.glob("training/rounds-*/round-1-generator/result.json") if not (p.parent.parent / "report.json").exists()]
    before = kept.stat().st_mtime_ns
    report = run(home, style_graph, seed=4, roles=("generator", "topic"))
    assert kept.stat().st_mtime_ns == before and [s["role"] for s in report["steps"]] == ["generator", "topic"]


def test_votes_alone_teach_without_a_rollout(home, style_graph):
    prompt = (("user", "Write about the hotel."),)
    comparisons = [Comparison(f"p{i}", "generator", prompt, f"warm and kind. {'view ' * i}", "loud and cold.") for i in range(1, 7)]
    choices = [Choice(c.pair_id, "ada", "a", True, f"j{c.pair_id}") for c in comparisons]
    report = run(home, style_graph, (comparisons, choices), use="human", roles=("style", "generator"))
    style, generator = report["steps"]
    assert "nothing to train on" in style["why"] and generator["training"]["n_pairs"] == 6 and generator["rollouts"] == {}


def test_what_cannot_be_learned_from_is_said_in_a_sentence(home, style_graph, capsys):
    with pytest.raises(ValueError, match="no judgments yet"):
        run(home, style_graph, use="human")
    with pytest.raises(ValueError, match="candidates must be at least 2"):
        RoundSettings((Path("x"),), candidates=1)
    with pytest.raises(ValueError, match="texts must be at most 16, not 17"):
        RoundSettings((Path("x"),), texts=17)
    with pytest.raises(ValueError, match="server cannot be trained"):
        open_base(Config(home=home, llm_url="http://127.0.0.1:1"))
    assert main(["rounds", "--data", "nowhere.json", "--use", "both"]) == 2
    assert "name their database with --db" in capsys.readouterr().err


# Faithfulness


def test_claims_are_held_against_the_texts_they_are_about(bench, asked):
    q = asked[0]
    n = round(sum(len(t.split()) for t in texts_of(q)) / len(texts_of(q)) / 5) * 5
    found = check_summary(q, f"Similar writers use about {n} words, no exclamation marks and emoji. This person says: hates queues.")
    assert found.claims == (f"about {n} words", "no exclamation marks", "emoji") and found.true == found.claims[:2] and found.invented_words
    assert not check_summary(q, "This person sounds calm, and says: nothing yet.").invented_words  # which is true
    report = measure({"adapter": [found, check_summary(q, "Nothing to check.")]}, "tiny", "style-1")
    assert report.true_share["adapter"].mean == pytest.approx(2 / 3) and report.true_share["adapter"].n == 1
    assert report.claims["adapter"].mean == 1.5 and report.invented_words["adapter"] == 0.5 and "66.7%" in str(report)
