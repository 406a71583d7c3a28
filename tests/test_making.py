"""Making pairs with the real pipeline on a tiny corpus and a scripted model: what a pair holds, its checks, what is dropped, a stop."""

import json
import random
import threading
from collections import Counter
from itertools import islice

import pytest
from doubles import HashEmbedder, ScriptedLLM
from test_pipeline import corpus

from annotate.fields import canonical
from annotate.making import (
    HISTORY_SIZES,
    RANDOM_SHARE,
    Wish,
    agents_named,
    difference,
    held_out_queries,
    keep,
    make,
    require_targets,
)
from annotate.schedule import Plan
from annotate.schedule.__main__ import main as schedule_main
from annotate.store import open_store
from annotate.traces import alternative_of, candidate_of, item_of, reference_of
from annotate.types import Candidate, Item, Pair
from pat_core.config import DEMO_CORPUS
from pat_core.corpus import Corpus, read_corpus
from pat_core.graph import StyleGraph, open_style_graph
from pat_core.llm.types import Request
from pat_core.pipeline import Workbench
from pat_core.topics import TopicSearch
from pat_core.types import AGENTS, Preference, Query, RunOptions

WORDS = ("slow", "warm", "loud", "fine", "cheap", "old", "bright", "quick", "quiet", "sturdy", "funny", "plain", "heavy", "sharp")


def written(request: Request) -> str:
    """Agents that vary with their seed; texts of some twenty words that name their topic and vary with their prompt and seed."""
    rng = random.Random(f"{request.prompt.messages[-1]} {request.seed}")
    if request.role in AGENTS:
        return f" Similar writers are {rng.choice(WORDS)} and {rng.choice(WORDS)}.\nGuidance: Be {rng.choice(WORDS)}."
    topic = request.prompt.messages[-1][1].partition("\n")[0].removeprefix("Review of: ")
    return f"The {topic} is " + ", ".join(rng.choices(WORDS, k=6)) + f", and I found it {rng.choice(WORDS)} for a month, so I will be back."


@pytest.fixture(scope="module")
def style_graph(tmp_path_factory) -> StyleGraph:
    return open_style_graph(corpus(), tmp_path_factory.mktemp("cache"))


@pytest.fixture
def bench(style_graph, tmp_path) -> Workbench:
    versions = {"style": "style-1", "generator": "generator-1"}
    return Workbench(corpus(), style_graph, TopicSearch(corpus(), HashEmbedder(), tmp_path), ScriptedLLM(written, versions))


def test_one_factor_pairs_differ_in_one_summary_and_keep_how_they_came_about(bench):
    *batches, last = make(bench, Wish(8, "one-factor", round=2), seed=5)
    assert [b.pairs[0].agent for b in batches] == ["style", "topic"] * 4 and last.pairs == () and last.report.n_to_judge == 8
    for batch in batches:
        pair, by_id = batch.pairs[0], {c.candidate_id: c for c in batch.candidates}
        a, b = by_id[pair.lo_id], by_id[pair.hi_id]
        other = "topic" if pair.agent == "style" else "style"
        assert (pair.kind, pair.round, pair.origin) == ("one-factor", 2, "made") and a.text != b.text and 0 < pair.propensity <= 1
        assert a.trace["summaries"][other] == b.trace["summaries"][other] and a.trace["summaries"] != b.trace["summaries"]
        assert all(a.trace[same] == b.trace[same] for same in ("seed", "sampler", "adapters", "engine", "propensity"))
        for c in (a, b):
            done = c.trace["completion"]
            assert done["role"] == pair.agent and done["prefix"] + done["text"] == c.trace["summaries"][pair.agent]
            assert done["messages"] == a.trace["completion"]["messages"] and c.trace["messages"][-1][0] == "user"
            assert c.trace["adapters"] == {"style": "style-1", "generator": "generator-1"} and c.trace["finish"] == "stop"
            assert c.trace["sampler"] == {
                "temperature": 0.4,
                "top_p": 0.95,
                "repetition_penalty": 1.0,
                "frequency_penalty": 0.2,
                "n_drafts": 1,
            }
            assert {"style", "topic", "length"} <= c.trace["rewards"]["terms"].keys() and 0 <= c.trace["copy_rate"] <= 1


def test_the_generators_pairs_differ_in_the_text_and_its_seed_alone(bench):
    batch = next(make(bench, Wish(1, "one-factor", agents_named("generator"))))
    a, b = batch.candidates
    assert a.trace["messages"] == b.trace["messages"] == a.trace["completion"]["messages"] and a.trace["seed"] != b.trace["seed"]
    assert (a.trace["completion"]["prefix"], a.trace["completion"]["text"]) == ("", a.text)


def test_system_pairs_meet_every_alternative_in_turn_and_lamp_only_with_texts_of_the_person(bench):
    batches = list(make(bench, Wish(16, "systems"), seed=1))[:-1]
    met = Counter()
    for batch in batches:
        pat, other = batch.candidates[:2]
        assert pat.system == "pat" and {pat.candidate_id, other.candidate_id} == {batch.pairs[0].lo_id, batch.pairs[0].hi_id}
        known = bool(batch.items[0].reference["samples"])
        assert batch.pairs[0].propensity == other.trace["propensity"] == (1 / 4 if known else 1 / 3)
        assert known or other.system != "lamp"
        assert ("messages" in other.trace) == (other.system != "copy") and "summaries" not in other.trace
        met[other.system] += 1
    assert met.keys() == {"none", "lamp", "pgraphrag", "copy"} and max(met.values()) <= 7


def test_the_held_out_text_enters_nothing(bench):
    for kind in ("one-factor", "systems"):
        for query, batch in zip(held_out_queries(bench.corpus, 3), make(bench, Wish(10, kind), seed=3), strict=False):
            said = canonical([[i.reference for i in batch.items], [[c.text, c.trace] for c in batch.candidates]])
            assert query.held_out and not [r for r in query.held_out if bench.corpus.by_id[r].text in said]


def test_checks_come_at_their_shares_and_can_be_stored(bench, tmp_path):
    with open_store(tmp_path / "a.db") as store:
        report = keep(store, make(bench, Wish(50, "systems"), seed=2))
        pairs = store.all(Pair)
        by_id = {c.candidate_id: c for c in store.all(Candidate)}
        again = keep(store, make(bench, Wish(5, "systems"), seed=2))
    kinds = Counter(p.kind for p in pairs)
    assert kinds == {"system": 50, "gold": 2, "identical": 1, "swap": 2} and report.stored == len(pairs) and report.known == 0
    assert again.stored == 0 and again.known == 5  # the same seed makes the same pairs
    for pair in pairs:
        if pair.kind == "gold":
            bad = by_id[pair.lo_id if pair.expected == pair.hi_id else pair.hi_id]
            assert bad.system.startswith("check-") and by_id[pair.expected].system == "pat"
        if pair.kind == "identical":
            assert by_id[pair.lo_id].text == by_id[pair.hi_id].text
    assert str(report).startswith("50 of 50 pairs to judge") and json.loads(json.dumps(report.to_json()))["n_to_judge"] == 50


def test_few_pairs_have_no_checks_and_from_twenty_five_on_there_is_one_of_each(bench):
    assert list(make(bench, Wish(6, "systems")))[-1].report.made.keys() <= {f"system {n}" for n in ("none", "lamp", "pgraphrag", "copy")}
    made = list(make(bench, Wish(25, "systems")))[-1].report.made
    assert made["identical"] == made["swap"] == 1 == sum(n for name, n in made.items() if name.startswith("gold"))


def test_gold_is_spoiled_in_four_ways_and_never_a_matter_of_taste(bench):
    plan = Plan(gold=0.25)
    seen = {}
    for batch in make(bench, Wish(40, "systems"), seed=4, plan=plan):
        by_id = {c.candidate_id: c for c in batch.candidates}
        for pair in batch.pairs:
            if pair.kind == "gold":
                good = by_id.pop(pair.expected)
                bad = next(c for c in (by_id.get(pair.lo_id), by_id.get(pair.hi_id)) if c)
                seen[bad.system] = (batch.items[0], good.text, bad.text)
    assert seen.keys() == {"check-truncated", "check-topic", "check-words", "check-copy"}
    _, good, bad = seen["check-truncated"]
    assert good.startswith(bad) and good[len(bad)].isalpha() and bad[-1].isalpha() and len(bad) < 0.7 * len(good)
    _, good, bad = seen["check-words"]
    assert sorted(good.split()) == sorted(bad.split()) and good != bad
    item, good, bad = seen["check-copy"]
    assert bad in item.reference["samples"] + item.reference["neighbors"] and item.reference["topic"] not in bad
    item, good, bad = seen["check-topic"]
    assert item.reference["topic"] in good and item.reference["topic"] not in bad


def test_what_the_guard_refuses_is_counted_and_too_much_of_it_ends_the_making(bench):
    def leaky(request: Request) -> str:
        text = written(request)
        return (
            {0: "As an AI language model, I like it.", 1: f"{text} SmolLM wrote it."}.get(request.seed % 3, text)
            if request.role != "style"
            else text
        )

    bench.llm.answer = leaky
    *batches, last = make(bench, Wish(6, "one-factor", ("generator",)), seed=0)
    assert sum(bool(b.pairs) for b in batches) == 6
    assert last.report.dropped["text: speaks as an assistant"] and last.report.dropped["text: names the model"]
    assert not any("AI" in c.text or "SmolLM" in c.text for b in batches for c in b.candidates)
    bench.llm.answer = lambda request: "As an AI language model, I like it."
    *batches, only = make(bench, Wish(6, "systems"))
    assert not any(b.pairs for b in batches)
    assert only.report.stopped == "too many texts had to be dropped" and only.pairs == () and only.report.n_runs == 20


def test_names_are_masked_in_texts_that_do_not_train_the_generator(bench):
    bench.llm.answer = lambda request: written(request) + ("" if request.role in AGENTS else " PaT says so.")
    *batches, last = make(bench, Wish(3, "one-factor", ("topic",)))
    assert all(c.text.endswith("[name] says so.") and c.trace["guard"] == ["masked"] for b in batches for c in b.candidates)
    assert last.report.mended["masked"] >= 6


def test_summaries_that_break_off_and_equal_texts_are_not_compared(bench):
    bench.llm.answer = lambda request: " on" * 200 if request.role == "style" and request.sampling.temperature else written(request)
    *_, only = make(bench, Wish(2, "one-factor", ("style",)))
    assert only.report.dropped["style summary breaks off"] == 20 and only.report.n_to_judge == 0  # five equal ones are one
    bench.llm.answer = lambda request: written(request) if request.role in AGENTS else "Always the same words about it."
    *_, only = make(bench, Wish(2, "one-factor"))
    assert only.report.dropped == {"pair: no two different texts": 20}


def test_a_stop_keeps_what_was_made(bench, tmp_path):
    cancel, told = threading.Event(), []

    def progress(what: str, done: int, total: int) -> None:
        told.append((done, total))
        if done == 2:
            cancel.set()

    with open_store(tmp_path / "a.db") as store:
        report = keep(store, make(bench, Wish(9, "one-factor"), progress=progress, cancel=cancel))
        assert report.stopped == "by hand" and report.n_to_judge == report.stored == len(store.all(Pair)) == 2
    assert told == [(0, 9), (1, 9), (2, 9)]


def test_queries_are_spread_over_people_topics_and_history_sizes_and_repeat_for_a_seed():
    demo, _ = read_corpus(DEMO_CORPUS)
    queries = list(islice(held_out_queries(demo, 7), 48))
    assert len({q.user_id for q in queries}) == 48 and max(Counter(q.topic_id for q in queries).values()) <= 3
    assert Counter(len(q.history) for q in queries) == dict.fromkeys(HISTORY_SIZES, 12)
    assert queries == list(islice(held_out_queries(demo, 7), 48)) != list(islice(held_out_queries(demo, 8), 48))
    for q in queries:
        own = {r.review_id for r in demo.by_user[q.user_id]}
        known = {r.review_id for r in q.history}
        assert q.held_out >= own - known and not q.held_out & known
    again = list(islice(held_out_queries(corpus(), 0), 30))  # a file of ten reviews is asked again, with other seeds
    assert max(Counter(q.held_out for q in again).values()) > 1 and len({q.seed for q in again}) == 30


def test_the_most_different_two_are_chosen_mostly_and_every_two_can_be(bench):
    for batch in make(bench, Wish(4, "one-factor")):
        for pair in batch.pairs:
            n_twos = 10  # of five candidates
            assert pair.propensity in (pytest.approx(RANDOM_SHARE / n_twos), pytest.approx(1 - RANDOM_SHARE + RANDOM_SHARE / n_twos))
    assert difference("a b c", "A B C") == 0 and difference("a b", "c d") == 1 and 0 < difference("a b c d", "a b x d") < 1


def test_the_reference_shows_the_persons_texts_and_others_only_where_there_is_nothing_else(bench):
    trace = bench.run(Query(topic="Norra kettle", title="", topic_id="kettle"), RunOptions(n_drafts=1))
    neighbors = trace.style_neighbors
    assert reference_of(trace.query, neighbors)["neighbors"] and not reference_of(trace.query, neighbors)["samples"]
    stated = Query("kettle", "", preferences=(Preference("statement", "short and dry"), Preference("sample", "word " * 200)))
    shown = reference_of(stated, neighbors)
    assert shown["neighbors"] == [] and shown["statements"] == ["short and dry"] and len(shown["samples"][0].split()) == 151
    item = item_of(trace.query, neighbors, source="tiny" * 40)
    assert item.prompt == "Review of Norra kettle" and len(item.source) == 80
    assert candidate_of(item, trace).text == trace.output
    assert [alternative_of(item, trace, a).system for a in trace.alternatives] == ["none", "lamp", "pgraphrag", "copy"]


@pytest.mark.parametrize("wrong", [{"n": 0}, {"n": True}, {"kind": "pairs"}, {"agents": ()}, {"agents": ("base",)}, {"round": -1}])
def test_a_wish_that_cannot_be_fulfilled_is_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong)).removesuffix("s")):
        Wish(**{"n": 3, "kind": "one-factor", **wrong})


def test_a_corpus_without_company_is_refused(bench):
    alone = Corpus("alone", corpus().by_user["anna"])
    with pytest.raises(ValueError, match="one person only"):
        require_targets(alone)
    with pytest.raises(ValueError, match="no review to hold out"):
        require_targets(Corpus("apart", (corpus().by_id["anna-inn"], corpus().by_id["ben-kettle"])))
    assert agents_named("all") == ("style", "topic", "generator")


def test_the_command_makes_stores_and_reports_and_a_second_call_makes_others(bench, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("pat_core.pipeline.open_workbench", lambda config, data, progress: bench)
    rows = [{"user_id": r.user_id, "topic_id": r.topic_id, "topic": r.topic, "title": r.title, "text": r.text} for r in corpus().reviews]
    data = tmp_path / "tiny.jsonl"
    data.write_text("\n".join(map(json.dumps, rows)))
    command = ["make", "--data", str(data), "--n", "3", "--kind", "one-factor", "--agent", "all", "--db", str(tmp_path / "a.db")]
    assert schedule_main([*command, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["made"] == {"one-factor style": 1, "one-factor topic": 1, "one-factor generator": 1} and report["seed"] == 0
    assert schedule_main(command) == 0
    assert "3 of 3 pairs to judge made with seed 3" in capsys.readouterr().out
    with open_store(tmp_path / "a.db", read_only=True) as store:
        assert len(store.all(Pair)) == 6 and all(i.split in ("train", "held-out") for i in store.all(Item))
