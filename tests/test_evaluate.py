"""The command: a whole evaluation with a scripted model, going on after a cut, and sentences for bad input."""

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from doubles import HashEmbedder
from eval_data import corpus, read_results, scripted, small_nets
from test_server_engine import KEY, serving

from pat_core.benchmark import VISITORS
from pat_core.desk import Answer
from pat_core.evaluate import Wanted, evaluate, main, settings_of
from pat_core.predictions import PredictionsFile, RunFacts, read_predictions, read_run
from pat_core.scoring import results_to_json
from pat_core.systems import systems_for

FEW = ("none", "random", "lamp", "pat", "pat-wrong-user", "reference")
WANTED = Wanted(systems=FEW, limit=12, drafts=2)


@pytest.fixture(scope="module")
def cache(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def nets_are_small():
    with small_nets():
        yield


def facts(wanted: Wanted = WANTED) -> RunFacts:
    llm = scripted()
    settings = settings_of(corpus(), llm, wanted)
    return RunFacts(
        "small", "small.jsonl", wanted.task, wanted.part, "2026-01-02T03:04:05Z", "python ...", settings, llm.name, llm.adapters
    )


def run(cache: Path, path: Path | None = None, wanted: Wanted = WANTED, resume: bool = False, unit: int = 4):
    llm, told = scripted(), []
    out = PredictionsFile(path, facts(wanted), resume)
    results = evaluate(corpus(), llm, HashEmbedder(), cache, wanted, out, lambda *p: told.append(p), unit)
    return results, llm, told


def plain(path: Path) -> list[dict]:
    """The lines without the times, which no two runs share."""
    return [{**json.loads(line), "seconds": 0} for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="module")
def whole(cache, tmp_path_factory):
    """One run without a cut: its predictions file, its results and its model."""
    with small_nets():
        path = tmp_path_factory.mktemp("whole") / "p.jsonl"
        results, llm, told = run(cache, path)
    return path, results, llm, told


def test_every_system_answers_everybody_and_visitors_pat_alone(whole):
    path, results, _, told = whole
    rows = plain(path)
    people = {r["user_id"] for r in rows}
    visitors = {r["user_id"] for r in rows if r["history"] == VISITORS}
    assert len(people) == 12 == results.n_users and visitors
    assert {(r["user_id"], r["system"]) for r in rows if r["history"] != VISITORS} == {(u, s) for u in people for s in FEW}
    assert {r["system"] for r in rows if r["history"] == VISITORS} == {"pat", "pat-wrong-user"}
    assert len({r["run"] for r in rows}) == 1 and set(results.systems) == set(FEW) and VISITORS in results.gain
    assert results.systems["reference"].groups["all"]["rouge_1"].mean == 1
    counted = [(done, total) for label, done, total in told if label == "Writing texts"]
    n_written = sum(r["system"] not in ("random", "reference") for r in rows)
    assert counted[0] == (0, n_written) and counted[-1] == (n_written, n_written) and counted == sorted(counted)
    by_history = {r["user_id"]: r["history"] for r in rows if r["history"] != VISITORS}
    for r in rows:  # nothing to show is the same as nothing retrieved
        if r["system"] == "lamp" and by_history[r["user_id"]] == "0":
            twin = next(x for x in rows if x["system"] == "none" and x["user_id"] == r["user_id"])
            assert r["text"] == twin["text"] and r["prompt_sha256"] == twin["prompt_sha256"]


def test_no_text_was_asked_for_with_the_answer_in_the_prompt(whole):
    path, _, llm, _ = whole
    prompts = {Answer("", r.prompt).prompt_sha256: " ".join(text for _, text in r.prompt.messages) for r in llm.requests}
    asked = [r for r in plain(path) if r["prompt_sha256"]]
    assert len(asked) > 48 and not any(r["reference"] in prompts[r["prompt_sha256"]] for r in asked)


@pytest.mark.parametrize("share", [0.0, 0.03, 0.4, 0.75, 1.0])
def test_a_run_that_was_cut_goes_on_and_ends_as_if_it_had_not_been(share, whole, cache, tmp_path):
    path, results, llm, _ = whole
    text = path.read_text(encoding="utf-8")
    cut = tmp_path / "p.jsonl"
    cut.write_text(text[: int(len(text) * share)], encoding="utf-8")  # in the middle of a line, as kill -9 leaves it
    (tmp_path / "p.settings.json").write_text((path.parent / "p.settings.json").read_text())
    again, second, _ = run(cache, cut, resume=True)
    assert plain(cut) == plain(path)
    assert {s: r.groups["all"]["rouge_1"] for s, r in again.systems.items()} == {
        s: r.groups["all"]["rouge_1"] for s, r in results.systems.items()
    }
    assert again.facts.made_at == results.facts.made_at
    assert len(second.requests) < len(llm.requests) if share > 0.2 else len(second.requests) == len(llm.requests)
    assert (second.requests == []) == (share == 1.0)


def test_a_cut_in_the_middle_of_a_letter_is_only_a_cut(whole, cache, tmp_path):
    path = tmp_path / "p.jsonl"
    path.write_bytes(whole[0].read_bytes()[:3000] + "é".encode()[:1])
    run(cache, path, resume=True)
    assert plain(path) == plain(whole[0])


def test_predictions_of_another_run_are_refused_and_stay_as_they_are(whole, tmp_path):
    path = tmp_path / "p.jsonl"
    beside = tmp_path / "p.settings.json"
    path.write_text(whole[0].read_text(encoding="utf-8"), encoding="utf-8")
    beside.write_text((whole[0].parent / "p.settings.json").read_text())
    before = path.read_bytes(), beside.read_bytes()
    with pytest.raises(ValueError, match="seed is 1 now and was 0"):
        PredictionsFile(path, facts(replace(WANTED, seed=1)), resume=True)
    with pytest.raises(ValueError, match="drafts is 3 now and was 2; rounds is 2 now and was 1"):
        PredictionsFile(path, facts(replace(WANTED, drafts=3, rounds=2)), resume=True)
    other = replace(facts(), settings={**facts().settings, "engine": "another"})
    with pytest.raises(ValueError, match="engine is 'another' now and was 'a scripted double'"):
        PredictionsFile(path, other, resume=True)
    with pytest.raises(ValueError, match="is there already; add --resume"):
        PredictionsFile(path, facts())
    assert (path.read_bytes(), beside.read_bytes()) == before
    beside.unlink()
    with pytest.raises(ValueError, match="predictions of another run"):
        PredictionsFile(path, other, resume=True)
    assert path.read_bytes() == before[0]


def test_a_file_with_more_or_other_people_is_not_continued(whole, cache, tmp_path):
    path = tmp_path / "p.jsonl"
    text = whole[0].read_text(encoding="utf-8")
    path.write_text(text + text.splitlines()[0] + "\n", encoding="utf-8")
    with pytest.raises(ValueError, match="holds more than this run writes"):
        run(cache, path, resume=True)
    path.write_text(text.splitlines()[0] + "\nnonsense\n" + text, encoding="utf-8")
    with pytest.raises(ValueError, match="is no prediction"):
        run(cache, path, resume=True)


def test_everybody_is_answered_over_folds(cache, tmp_path):
    results, _, _ = run(cache, tmp_path / "p.jsonl", replace(WANTED, limit=None, systems=("none", "pat", "pat-wrong-user")), unit=20)
    assert results.n_users == 30 and results.gain["all"]["rouge_1"].n == 30


@pytest.mark.parametrize("task", ["short", "rating"])
def test_the_other_tasks_run_whole(task, cache):
    wanted = Wanted(task=task, systems=tuple(s.name for s in systems_for(task)), limit=6, drafts=2)
    results, _, _ = run(cache, None, wanted, unit=20)
    assert set(results.systems) == set(wanted.systems)
    assert ("mae" if task == "rating" else "rouge_1") in results.systems["pat"].groups["all"] and json.dumps(results_to_json(results))


def test_what_stands_beside_the_predictions_tells_the_run(whole):
    beside = json.loads((whole[0].parent / "p.settings.json").read_text())
    assert beside["settings"]["drafts"] == 2 and beside["settings"]["systems"] == list(FEW) and beside["settings"]["temperature"]
    assert (
        beside["seconds"] > 0
        and beside["tokens"] > 0
        and beside["run"] == plain(whole[0])[0]["run"]
        and len(beside["settings"]["fingerprint"]) == 16
    )
    lines, known = read_run(whole[0])
    assert len(lines) == len(plain(whole[0])) and known.settings["seed"] == 0


# The command


def test_predictions_are_scored_again_without_a_model(whole, tmp_path, capsys):
    assert main(["--score", str(whole[0]), "--json", str(tmp_path / "out.json")]) == 0
    results = read_results(tmp_path / "out.json")
    assert asdict(results)["systems"] == asdict(whole[1])["systems"] and results.facts.seconds == pytest.approx(
        whole[1].facts.seconds, abs=0.1
    )
    assert "| pat-wrong-user | 12 |" in capsys.readouterr().out


def jsonl(path: Path, reviews) -> Path:
    path.write_text("".join(json.dumps(asdict(r)) + "\n" for r in reviews), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "give one file to evaluate"),
        (["few.jsonl", "--task", "poem"], "--task poem is not known; choose from long, short, rating"),
        (["few.jsonl", "--part", "test"], "--part test is not known; choose from training, choosing, untouched, training+choosing"),
        (["few.jsonl", "--history", "3"], "--history 3 is not known"),
        (["few.jsonl", "--systems", "lama"], "no system is called 'lama'"),
        (["few.jsonl", "--systems", "title", "--task", "short"], "the system title does not apply to the task short"),
        (["few.jsonl", "--limit", "0"], "--limit must be at least 1, not 0"),
        (["few.jsonl", "--drafts", "0"], "--drafts must be from 1 to 64"),
        (["few.jsonl", "--resume"], "--resume needs --predictions"),
        (["few.jsonl", "--json", "nowhere/out.json"], "there is no folder"),
        (["few.jsonl", "--predictions", "few.jsonl"], "is there already; add --resume"),
        (["nothing.jsonl"], "nothing.jsonl is not a file"),
        (["one.jsonl"], "one (1 user) has nobody who can be held out for the task long"),
        (["empty.jsonl"], "holds no usable review"),
        (["few.jsonl", "--history", "2+"], "has nobody who can be held out with --history 2+"),
        (["--score", "few.jsonl"], "is no prediction"),
    ],
)  # fmt: skip
def test_bad_input_is_one_sentence_and_exit_code_2(arguments, sentence, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PAT_HOME", str(tmp_path / "home"))
    reviews = corpus().reviews
    jsonl(Path("few.jsonl"), [r for r in reviews if r.review_id.endswith("#0")])
    jsonl(Path("one.jsonl"), [replace(r, user_id="u", review_id=f"u#{i}") for i, r in enumerate(reviews)])
    jsonl(Path("empty.jsonl"), [replace(r, text="") for r in reviews])
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    told = capsys.readouterr().err.strip().splitlines()[-1]
    assert ended.value.code == 2 and sentence in told and "Traceback" not in told


def test_unfinished_predictions_are_not_scored(whole, tmp_path):
    path = tmp_path / "p.jsonl"
    path.write_text(whole[0].read_text(encoding="utf-8")[:-5], encoding="utf-8")
    with pytest.raises(ValueError, match="cut short; finish the run with --resume"):
        read_predictions(path)
    path.write_text(whole[0].read_text(encoding="utf-8"), encoding="utf-8")
    with pytest.raises(ValueError, match=r"p\.settings\.json is missing"):
        read_run(path)


def test_the_whole_command_with_a_model_on_a_server(tmp_path, monkeypatch, capsys):
    """From a file to tables, predictions, numbers and a report, through HTTP; a second start with --resume asks nothing."""
    reviews = [r for r in corpus().reviews if r.topic_id in ("kettle", "hostel")]
    data, out = jsonl(tmp_path / "two.jsonl", reviews), tmp_path / "p.jsonl"
    files = ["--predictions", str(out), "--json", str(tmp_path / "out.json"), "--html", str(tmp_path / "out.html")]
    command = [str(data), "--limit", "3", "--drafts", "2", "--systems", "none,copy-60", "pat", "--seed", "1", *files]
    with serving() as (server, url):
        for name, value in {"PAT_HOME": str(tmp_path / "home"), "PAT_LLM_URL": url, "PAT_LLM_KEY": KEY, "PAT_THREADS": "1"}.items():
            monkeypatch.setenv(name, value)
        server.models, server.pause = ["base-model"], 0
        assert main(command) == 0
        n_asked = len(server.bodies)
        assert n_asked == 3 * (2 + 2 + 2) and main([*command, "--resume"]) == 0 and len(server.bodies) == n_asked
    told = capsys.readouterr().out
    assert "| copy-60 | 3 |" in told and "No adapter was loaded, so PaT is untrained here." in told
    results = read_results(tmp_path / "out.json")
    assert results.facts.engine.startswith("base-model on 127.0.0.1") and results.facts.command.startswith("python -m pat_core.evaluate ")
    assert len(plain(out)) == 9 and "base-model" in (tmp_path / "out.html").read_text(encoding="utf-8")
    assert list((tmp_path / "home" / "results").glob("two-long-*.json")), "the app's Results page finds it"
