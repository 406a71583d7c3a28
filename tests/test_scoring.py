"""Predictions -> results: what each figure is, worked out by hand on a few lines."""

import json
from dataclasses import replace

import numpy as np
import pytest
from doubles import HashEmbedder
from eval_data import corpus, opened, read_results, scripted, small_nets

from pat_core.benchmark import VISITORS, benchmark_cases
from pat_core.predictions import Prediction, RunFacts
from pat_core.results_file import read_results as read_report
from pat_core.scoring import (
    measures,
    predictions,
    render,
    results_to_json,
    score,
)
from pat_core.systems import SYSTEMS

FACTS = RunFacts("small", "small.jsonl", "long", "all", "2026-01-02T03:04:05Z", "python -m ...", {"seed": 0}, "a double", {}, 20.0, 900)
REFERENCE = "the kettle was warm"


def line(user: int, system: str, text: str, history: str = "0", **more) -> Prediction:
    about = {"run": "r", "user_id": f"u{user}", "review_id": f"u{user}#0", "system": system, "history": history, "task": "long"}
    known = {
        "topic": "the kettle",
        "title": "Warm",
        "rating": 4.0,
        "text": text,
        "reference": REFERENCE,
        "prompt_sha256": "",
        "adapter": "",
    }
    measured = {"seconds": 0.5, "tokens": 12, "copied": 2, "style": 0.5, "consensus_distance": 0.25}
    return Prediction(**about | known | measured | more)


def lines() -> list[Prediction]:
    """Four people: PaT always has two of four words, none has one for the first two people and two for the others."""
    pat = [line(i, "pat", "the kettle is new", style_summary="Calm.", topic_summary="Price.", style=0.5) for i in range(4)]
    none = [line(i, "none", "the new one" if i < 2 else "the kettle is new", history="0" if i < 3 else "1", style=0.2) for i in range(4)]
    pat[3] = replace(pat[3], history="1")
    return none + pat


def test_measures_of_a_line_are_those_of_its_text():
    m = measures(line(0, "pat", "the kettle is new"))
    assert m["rouge_1"] == m["rouge_l"] == pytest.approx(0.5)  # two of four words on both sides
    assert m["mean"] == pytest.approx((m["rouge_1"] + m["rouge_l"] + m["meteor"]) / 3)
    assert (m["words"], m["copy_rate"], m["style"], m["consensus_distance"], m["seconds"], m["tokens"]) == (4, 0.5, 0.5, 0.25, 0.5, 12)
    assert measures(line(0, "pat", "", copied=0))["copy_rate"] == 0
    assert "consensus_distance" not in measures(line(0, "pat", "a b", consensus_distance=None))


def test_ratings_are_scored_by_their_error():
    rated = [
        line(i, "pat", text, task="rating", reference="4", copied=None, style=None) for i, text in enumerate(["4", "2 stars", "5", "hm"])
    ]
    assert [measures(r)["mae"] for r in rated] == [0, 2, 1, 1]
    means = [line(i, "topic-mean", "4.5", task="rating", reference="4") for i in range(4)]
    results = score([*rated, *means], replace(FACTS, task="rating"))
    found = results.systems["pat"].groups["all"]
    assert found["mae"].mean == 1 and found["rmse"].mean == pytest.approx(np.sqrt(6 / 4)) and "rouge_1" not in found
    assert results.paired["topic-mean"]["mae"].mean == 0.5 and "MAE" in render(results)


def test_means_groups_and_differences_are_over_people():
    results = score(lines(), FACTS)
    assert results.n_users == 4 and results.tokens_per_second == 45 and results.meteor
    assert list(results.systems) == ["none", "pat"] and list(results.systems["pat"].groups) == ["all", "0", "1"]
    none, pat = (results.systems[s].groups for s in ("none", "pat"))
    assert pat["all"]["rouge_1"].mean == pytest.approx(0.5) and none["all"]["rouge_1"].mean == pytest.approx((2 * 2 / 7 + 2 * 0.5) / 4)
    assert (none["0"]["rouge_1"].n, none["1"]["rouge_1"].n) == (3, 1)
    d = results.paired["none"]["rouge_1"]
    assert (
        d.mean == pytest.approx(0.5 - none["all"]["rouge_1"].mean)
        and d.n == 4
        and d.relative == pytest.approx(d.mean / none["all"]["rouge_1"].mean)
    )
    assert results.gain == {} and results.judge is None


def test_the_personal_gain_is_against_the_wrong_user_by_history_and_for_visitors():
    wrong = [replace(x, system="pat-wrong-user", style=0.1) for x in lines() if x.system == "pat"]
    visitors = [line(3, s, "the kettle is new", history=VISITORS, style=v) for s, v in (("pat", 0.9), ("pat-wrong-user", 0.2))]
    results = score([*lines(), *wrong, *visitors], FACTS)
    assert {g: d["style"].mean for g, d in results.gain.items()} == pytest.approx({"all": 0.4, "0": 0.4, "1": 0.4, VISITORS: 0.7})
    assert results.gain["all"]["style"].n == 4 == results.systems["pat"].groups["all"]["style"].n, (
        "visitors are not counted among the people"
    )
    assert all(len(example.texts) == 3 for example in results.examples) and len(results.examples) == 4


def test_examples_stand_side_by_side_with_the_notes():
    first = score(lines(), FACTS).examples[0]
    assert (first.style_summary, first.topic_summary, first.reference) == ("Calm.", "Price.", REFERENCE)
    assert first.texts == {"none": "the new one", "pat": "the kettle is new"}
    many = [line(i, "pat", "a b") for i in range(30)]
    assert len(score(many, FACTS).examples) == 20


def test_results_survive_json_and_are_what_the_report_reads(tmp_path):
    results = score([*lines(), *(replace(x, system="pat-wrong-user") for x in lines() if x.system == "pat")], FACTS)
    value = results_to_json(results)
    (tmp_path / "r.json").write_text(json.dumps(value))
    assert read_results(tmp_path / "r.json") == results
    report = read_report(value)
    assert report.corpus == "small" and report.systems["pat"].of("rouge_1") == results.systems["pat"].groups["all"]["rouge_1"]
    assert report.paired["none"]["rouge_1"] == results.paired["none"]["rouge_1"] and report.seconds == 20
    assert {
        "corpus",
        "file",
        "task",
        "part",
        "made_at",
        "command",
        "settings",
        "engine",
        "adapters",
        "meteor",
        "n_users",
        "seconds",
    } <= set(value)


def test_the_tables_name_every_system_and_difference():
    text = render(score(lines(), FACTS))
    assert "| none | 4 | " in text and "| pat | 4 | 0.500 [0.500, 0.500]" in text and "history 1" in text and "45 tokens a second" in text
    assert "| none | 4 | +0.107" in text


def test_no_lines_are_a_sentence():
    with pytest.raises(ValueError, match="no predictions"):
        score([], FACTS)


def test_a_line_survives_the_file_and_nonsense_is_refused():
    p = line(1, "pat", "Ünïcode\n“quotes”", drafts=("a", "b"))
    assert Prediction.from_json(p.to_json()) == p and "\n" not in p.to_json()
    for text in ("{", "[]", "{}", '{"system": "pat"}', "7"):
        with pytest.raises(ValueError, match="is no prediction"):
            Prediction.from_json(text)


def test_answers_are_measured_against_what_was_retrieved(tmp_path):
    cases = benchmark_cases(corpus(), limit=3)
    with small_nets():
        bench, asked, desk = opened(cases, tmp_path, scripted())
    made = {
        n: predictions(bench, "r", SYSTEMS[n], asked, SYSTEMS[n].answer(desk, asked), HashEmbedder())
        for n in ("copy-60", "reference", "pat", "title")
    }
    for case, copied, own, pat, title in zip(cases, made["copy-60"], made["reference"], made["pat"], made["title"], strict=True):
        assert own.style == pytest.approx(1) and measures(own)["rouge_1"] == 1 and own.reference == case.target.text
        assert measures(copied)["copy_rate"] > 0.25 > measures(pat)["copy_rate"]
        assert 0 <= copied.consensus_distance < title.consensus_distance
        assert (
            pat.adapter == "generator-1" and len(pat.prompt_sha256) == 64 and pat.tokens > 0 and pat.style_summary and len(pat.drafts) == 3
        )
        assert (copied.prompt_sha256, copied.adapter, copied.tokens) == ("", "", 0)
        assert (pat.user_id, pat.history, pat.title) == (case.target.user_id, case.group, case.target.title)
