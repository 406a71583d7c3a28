"""Input that nothing can be learned from, and machines that give out, through the real command on a real store and a tiny real model.

Each is told in one sentence and an exit code; the registry is as it was, byte for byte, and so are the votes; the next proper run works.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from forked_command import Ended
from learning_stage import KIND, PLAIN, Factor, Home, Stage, add, candidate, choose, contents, factor, require_whole, stage
from store_data import NOON, person
from tiny_gguf import save_tiny_gguf

from annotate import archive
from annotate.lessons import lessons
from annotate.store import Store, open_store
from annotate.types import Assignment, Item, Judgment, Pair, new_id, pair_of, timestamp
from pat_core.adapters import active_adapters, versions
from pat_core.cache import file_sha256
from pat_core.preferences import MODES, mixed_pairs
from pat_core.types import ADAPTER_ROLES

pytestmark = pytest.mark.skipif(os.name != "posix", reason="needs fork and limits of a process")
HUMAN = ("--use", "human")
NO_MEMORY = "error: the memory did not suffice, so the run was stopped"
FULL = "error: the disk is full, so the run was stopped"


@pytest.fixture(scope="module")
def ready(tmp_path_factory) -> Stage:
    return stage(tmp_path_factory.getbasetemp())


@pytest.fixture(scope="module")
def votes(ready) -> Path:
    """A store in which one person judged."""
    return ready.votes


@pytest.fixture(scope="module")
def lived_in(ready) -> Home:
    """A home in whose registry a version serves."""
    return ready.lived_in


def copy_of(home: Home, folder: Path) -> Home:
    """Another home with the same registry, in which no run was begun."""
    shutil.copytree(home.folder, folder, ignore=shutil.ignore_patterns("training"))
    return replace(home, folder=folder)


def report_of(home: Home, *more: str | Path) -> dict[str, Any]:
    """The report of a run that succeeds."""
    [report] = reports_of({home: more})
    return report


def reports_of(runs: dict[Home, Sequence[str | Path]]) -> list[dict[str, Any]]:
    """The reports of runs that succeed side by side."""
    begun = [(home, home.start(*more, "--json", report_file(home))) for home, more in runs.items()]
    for ended in [home.wait(pid) for home, pid in begun]:
        assert (ended.code, ended.error) == (0, ""), ended.err
    return [json.loads(report_file(home).read_text("utf-8")) for home in runs]


def report_file(home: Home) -> Path:
    return home.streams / "report.json"


def require_sentence(ended: Ended, code: int, *said: str) -> None:
    """It failed with ``code`` and said why in one line."""
    assert ended.code == code, ended.err
    assert ended.error.count("\n") == 0 and ended.error.startswith("error: ") and "Traceback" not in ended.err, ended.err
    assert all(words in ended.error for words in said), ended.error


# Votes that teach nothing


def everything(store: Store, *answers: str) -> None:
    """Person i gives answer i to each of four pairs of the generator."""
    made = [factor(i) for i in range(4)]
    add(store, made)
    for i, answer in enumerate(answers):
        who = person(store, f"person {i}")
        for one in made:
            choose(store, one, who, answer)


def against_themselves(store: Store) -> None:
    """One person prefers one text, and the other one when the sides are exchanged."""
    made, who = [factor(i) for i in range(4)], person(store)
    add(store, made)
    for f in made:
        p = f.pair
        swapped = replace(f, pair=Pair(p.item_id, p.lo_id, p.hi_id, p.lo_sha, p.hi_sha, "swap", repeat_of=p.pair_id))
        store.add_pairs([swapped.pair])
        choose(store, f, who, "good")
        choose(store, swapped, who, "bad")


TEACHES_NOTHING: dict[str, tuple[Callable[[Store], None], tuple[str, ...], str]] = {
    "no pairs": (lambda store: None, HUMAN, "there are no judgments yet"),
    "no judgments": (everything, (), "there are no judgments yet"),
    "cannot judge": (lambda store: everything(store, "cannot_judge"), HUMAN, "there are no judgments yet"),
    "ties": (lambda store: everything(store, "tie", "tie"), HUMAN, "all 8 judgments are ties or both bad"),
    "both bad": (lambda store: everything(store, "both_bad", "tie"), ("--use", "both"), "all 8 judgments are ties or both bad"),
    "opposite": (lambda store: everything(store, "good", "bad"), HUMAN, "the 8 judgments contradict each other"),
    "opposite, with rewards": (lambda store: everything(store, "good", "bad"), (), "the 8 judgments contradict each other"),
    "against themselves": (against_themselves, HUMAN, "the 8 judgments contradict each other"),
    "another role": (lambda store: everything(store, "good"), (*HUMAN, "--roles", "style"), "the votes teach generator, and none of"),
}


def test_votes_that_teach_nothing_are_told_at_once_and_change_nothing(lived_in, tmp_path):
    before, made = contents(lived_in.registry), set((lived_in.folder / "training").iterdir())
    for name, (fill, arguments, sentence) in TEACHES_NOTHING.items():
        path = tmp_path / f"{name}.db"
        with open_store(path) as store:
            fill(store)
        kept, rows = contents(tmp_path), archive.check(path).rows
        require_sentence(lived_in.run("--db", path, *arguments), 2, sentence)
        assert contents(lived_in.registry) == before and contents(tmp_path) == kept
        require_whole(path, rows)
    assert set((lived_in.folder / "training").iterdir()) == made  # nothing was rolled out first


def test_a_store_that_cannot_be_read_is_told_and_left_alone(lived_in, votes, tmp_path):
    newer, text, other = tmp_path / "newer.db", tmp_path / "text.db", tmp_path / "other.db"
    shutil.copy(votes, newer)
    with sqlite3.connect(newer) as db:
        db.execute("PRAGMA user_version = 99")
    text.write_text("not a database, but some text that is long enough to be one")
    with sqlite3.connect(other) as db:
        db.execute("CREATE TABLE t (x)")
    kept, before = contents(tmp_path), contents(lived_in.registry)
    for path, code, sentence in (
        (newer, 1, "was written by a newer version (schema 99"),
        (text, 1, "is not an SQLite database"),
        (other, 1, "of another program"),
        (tmp_path / "none.db", 1, "does not exist"),
    ):
        require_sentence(lived_in.run("--db", path, *HUMAN), code, str(path), sentence)
    require_sentence(lived_in.run("--db", votes, *HUMAN, "--json", tmp_path / "no" / "report.json"), 2, "cannot be written")
    require_sentence(lived_in.run("--db", votes, *HUMAN, "--data", tmp_path / "none.jsonl"), 2, "none.jsonl")
    assert contents(tmp_path) == kept and contents(lived_in.registry) == before


# Votes that teach


def test_one_judge_is_enough_and_called_personal(lived_in, votes):
    [step] = json.loads((lived_in.folder / "report.json").read_text("utf-8"))["steps"]
    assert step["version"] in lived_in.versions and step["mix"]["judges"] == [{"n": 8, "counts": 8}]
    assert any("all judgments are one person's" in note for note in step["mix"]["notes"])
    assert json.loads((lived_in.registry / step["version"] / "report.json").read_text("utf-8"))["mix"] == step["mix"]
    require_whole(votes, {"annotators": 1, "judgments": 8, "pairs": 8})


def test_a_spammer_with_10_000_votes_does_not_outweigh_three_people(ready, tmp_path):
    path, n = tmp_path / "votes.db", 10_000
    with open_store(path) as store:
        honest, spam = [factor(i) for i in range(180)], all_pairs(100)
        add(store, [*honest, *spam])
        people, spammer = [person(store, name) for name in ("Ada", "Bo", "Cy")], person(store, "spammer")
        for i, made in enumerate(honest):
            choose(store, made, people[i % 3], "good")
        at = timestamp(NOON)
        given = [(Assignment(f.pair.pair_id, spammer.annotator_id, f.pair.lo_id, "key", 1.0, at, at), f) for f in spam]
        store.import_votes([a for a, _ in given], [_against(a, f) for a, f in given])
    home = ready.home(tmp_path / "home")
    [step] = report_of(home, "--db", path, *HUMAN, "--learning-rate", "4e-3")["steps"]
    mix, trained = step["mix"], step["training"]
    assert mix["pairs"] == n + 180 and mix["cap"] == 100
    assert mix["judges"] == [{"n": n, "counts": 100}, *[{"n": 60, "counts": 60}] * 3]
    assert any("1 of 4 judges gave more than 100 judgments and count for 100 each" in note for note in mix["notes"])
    assert trained["n_pairs"] == 180 + 400 and trained["n_thinned"] == n - 400  # 100 votes' weight in pairs of a quarter each
    assert step["dev"]["gain"]["rouge_1"]["mean"] > 0  # it writes more of the kind words, which three people prefer, than before


def all_pairs(n: int) -> list[Factor]:
    """Each of ``n`` kind texts about one place against each of ``n`` plain ones."""
    item = Item("Review of a place with many guests")
    texts = ((" ".join(words[(i + k) % len(words)] for k in range(12)) + f" {i}." for i in range(n)) for words in (KIND, PLAIN))
    good, bad = ([candidate(item, text) for text in several] for several in texts)
    return [Factor(item, a, b, pair_of(a, b, "one-factor", agent="generator")) for a in good for b in bad]


def _against(assignment: Assignment, made: Factor) -> Judgment:
    outcome = "A" if made.bad.candidate_id == assignment.shown_left_id else "B"
    return Judgment(new_id(), assignment.pair_id, assignment.annotator_id, assignment.shown_left_id, assignment.order_key, outcome)


def test_rewards_that_are_no_numbers_are_unknown_and_people_decide(ready, tmp_path):
    path, rewards = tmp_path / "votes.db", ("NaN", 10**400, True, None, -(10**400), {"total": 1})
    with open_store(path) as store, pytest.raises(ValueError, match="cannot be written as JSON"):
        add(store, [factor(99, rewards=(float("nan"), 0.1))])
    with open_store(path) as store:
        made, ada = [factor(i, rewards=(rewards[i % 6], 0.1)) for i in range(12)], person(store)
        add(store, made)
        for one in made:
            choose(store, one, ada)
    [step] = report_of(ready.home(tmp_path / "home"), "--db", path)["steps"]
    assert step["mix"]["pairs"] == 12 and step["mix"]["sources"] == {"human": 12} and step["mix"]["calibration"] is None
    assert any("12 of 12 comparisons have a reward that is missing or not a number" in note for note in step["mix"]["notes"])
    assert step["rollouts"] == {}  # a reward about which nothing is known pairs nothing, so none was asked for


# What the campaign's pairs are, by hand


def mixed_campaign(path: Path) -> Path:
    """Three people. Generator: 14 pairs with a winner, of which one by a changed mind, one by two against one and one by a swapped repeat
    beside its original; 2 tied, 1 both bad, 1 split. Style: 3 with a winner, 1 tied. Topic: 2. Systems: 6, which train nobody.
    """
    with open_store(path) as store:
        ada, bo, cy = (person(store, name) for name in ("Ada", "Bo", "Cy"))
        texts = [factor(i, rewards=(0.3 + i / 50, 0.1)) for i in range(18)]
        style, topic = [factor(i, "style") for i in range(20, 24)], [factor(i, "topic") for i in range(30, 32)]
        add(store, [*texts, *style, *topic])
        for made in texts[:11]:
            choose(store, made, ada)
        choose(store, texts[11], bo, "bad")
        change_mind(store, texts[11], bo)
        for who, answer in ((ada, "good"), (bo, "good"), (cy, "bad")):
            choose(store, texts[12], who, answer)
        choose(store, texts[13], cy)
        choose(store, swapped(store, texts[13]), cy)
        for made, who, answer in ((texts[14], ada, "tie"), (texts[15], bo, "tie"), (texts[16], cy, "both_bad")):
            choose(store, made, who, answer)
        choose(store, texts[17], ada, "good")
        choose(store, texts[17], cy, "bad")
        for made, answer in zip([*style, *topic], ("good", "good", "bad", "tie", "good", "good"), strict=True):
            choose(store, made, bo, answer)
        for i in range(40, 46):
            choose(store, of_systems(store, i), cy)
    return path


def change_mind(store: Store, made: Factor, who: Any) -> None:
    [before] = store.recent(who.annotator_id, 1)
    other = {"A": "B", "B": "A"}[before.outcome]
    store.revise(replace(before, judgment_id=new_id(), outcome=other, revision_of=before.judgment_id, created_at="", seq=0))


def swapped(store: Store, made: Factor) -> Factor:
    p = made.pair
    pair = Pair(p.item_id, p.lo_id, p.hi_id, p.lo_sha, p.hi_sha, "swap", repeat_of=p.pair_id)
    store.add_pairs([pair])
    return replace(made, pair=pair)


def of_systems(store: Store, i: int) -> Factor:
    base = factor(i)
    copied = candidate(base.item, base.bad.text, None, 0.1, "copy")
    own = candidate(base.item, base.good.text, None, 0.4)
    made = Factor(base.item, own, copied, pair_of(own, copied, "system"))
    add(store, [made])
    return made


def test_each_use_of_a_campaign_gives_the_pairs_that_it_should(ready, tmp_path):
    path = mixed_campaign(tmp_path / "votes.db")
    rows, homes = archive.check(path).rows, [ready.home(tmp_path / use) for use in MODES]
    more = ("--dev", "2", "--db", path, "--use")
    runs = [(*more, "human", "--roles", *ADAPTER_ROLES), (*more, "automatic"), (*more, "both")]
    human, automatic, both = reports_of(dict(zip(homes, runs, strict=True)))
    by_role = {s["role"]: s["mix"] for s in human["steps"]}
    assert {role: mix["pairs"] for role, mix in by_role.items()} == {"style": 3, "topic": 2, "generator": 14}
    assert by_role["generator"]["dropped"] == {"trains no agent": 6, "only ties": 3, "people are split": 1}
    assert by_role["style"]["dropped"] == {"only ties": 1, "trains no agent": 6}
    votes = by_role["generator"]["winners"]
    assert votes["a"] + votes["b"] == 11 + 1 + 3 + 2 + 2 + 6 and (votes["tie"], votes["both_bad"]) == (2, 1)
    assert sorted(j["n"] for j in by_role["generator"]["judges"]) == [3, 1 + 2 + 1 + 1 + 6, 11 + 1 + 1 + 1]  # Bo, Cy, Ada
    [step] = both["steps"]
    mix, kept = step["mix"], step["rollouts"]["differential"]["kept"]
    assert mix["calibration"]["low"] > 0 and mix["calibration"]["n"] == 25 and kept > 0
    assert mix["pairs"] == 14 + kept and mix["sources"] == {"both": 14, "metric": kept}
    assert f"c1 = {mix['calibration']['c1']:.2f} [{mix['calibration']['low']:.2f}, " in " ".join(mix["notes"])
    [step] = automatic["steps"]
    assert step["mix"]["sources"] == {"metric": step["rollouts"]["differential"]["kept"]} and step["mix"]["judges"] == []
    require_whole(path, rows)
    with open_store(path, read_only=True) as store:
        texts = {f"{text.good.text}": text.bad.text for text in (factor(i, rewards=(0.3 + i / 50, 0.1)) for i in range(14))}
        pairs = mixed_pairs(*lessons(store), mode="human").pairs
    assert {p.chosen: p.rejected for p in pairs if p.agent == "generator"} == texts


# Models


def model(ready: Stage, folder: Path, **details: Any) -> Home:
    """A home with another model."""
    home = ready.home(folder)
    return replace(home, gguf=save_tiny_gguf(folder.with_suffix(".gguf"), **details))


@pytest.mark.parametrize(
    ("writes", "code", "sentence"),
    [
        ("blanks", 2, "nothing was trained: none of 4 prompts gives a pair: 4 x fewer than two candidates have any text"),
        ("the same", 2, "nothing was trained: none of 4 prompts gives a pair: 4 x all candidates are the same text"),
        ("not a number", 1, "the model could not go on"),
    ],
)
def test_a_model_that_gives_nothing_to_compare_teaches_nothing(ready, tmp_path, writes, code, sentence):
    home = model(ready, tmp_path / "home", writes=writes)
    require_sentence(home.run("--json", tmp_path / "report.json"), code, sentence)
    assert home.versions == []
    if code == 2:
        assert json.loads((tmp_path / "report.json").read_text())["steps"][0]["version"] == ""


def test_another_base_model_neither_starts_from_an_adapter_nor_goes_on_with_a_run(lived_in, votes, tmp_path):
    home = copy_of(lived_in, tmp_path / "home")
    [version] = home.versions
    pid = home.start("--db", votes, *HUMAN)
    while not any(home.folder.glob("training/rounds-*/round-1-generator/run.sha256")):
        time.sleep(0.005)
    os.kill(pid, 9)
    assert home.wait(pid).code == -9
    other = replace(home, gguf=save_tiny_gguf(tmp_path / "other.gguf", seed=1))
    report, own_report = reports_of({other: ("--db", votes, *HUMAN), home: ("--db", votes, *HUMAN)})
    assert f"{version} was trained on tiny, which is not the model that is loaded" in (other.streams / "err").read_text("utf-8")
    assert report["start"] == {} and report["steps"][0]["parent"] == "" and own_report["steps"][0]["parent"] == version
    learned, own = report["steps"][0]["version"], own_report["steps"][0]["version"]  # "" where the other one's random texts fell
    serving, own_serving = (active_adapters(home.folder, file_sha256(one.gguf)).get("generator") for one in (other, home))
    assert serving == (home.registry / learned if learned else None)  # what one model learned serves that model alone
    assert own_serving == home.registry / own and own and version not in (own, learned)


# Machines that give out


def require_unharmed(home: Home, votes: Path, before: dict[str, str], rows: dict[str, int]) -> None:
    """The registry is as it was, and the next proper run adds a version to it."""
    assert contents(home.registry) == before
    require_whole(votes, rows)
    assert report_of(home, "--db", votes, *HUMAN)["steps"][0]["version"]
    assert [v.problem for v in versions(home.folder, file_sha256(home.gguf)) if not v.shipped] == ["", ""]


def test_memory_that_runs_out_at_the_start_in_training_and_after_it_is_told(lived_in, votes, tmp_path):
    rows, before, home = archive.check(votes).rows, contents(lived_in.registry), copy_of(lived_in, tmp_path / "home")
    require_sentence(home.run("--db", votes, *HUMAN, limits={"AS": 2**25}), 1, NO_MEMORY)
    for moment in ("run.sha256", "report.json"):
        pid = home.start("--db", votes, *HUMAN)
        while not any(home.folder.glob(f"training/rounds-*/round-1-generator/{moment}")):
            time.sleep(0.002)
        size = int(Path(f"/proc/{pid}/statm").read_text().split()[0]) * resource.getpagesize()
        resource.prlimit(pid, resource.RLIMIT_AS, (size, resource.RLIM_INFINITY))
        require_sentence(home.wait(pid), 1, NO_MEMORY)
    require_unharmed(home, votes, before, rows)


@contextmanager
def small_disk(at: Path, kilobytes: int) -> Iterator[bool]:
    """A folder ``at`` on a disk of its own; False where one may not be made, since one is not root: then on an ordinary one."""
    at.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", str(at)], capture_output=True)
    try:
        yield made.returncode == 0
    finally:
        if made.returncode == 0:
            subprocess.run(["umount", "-l", str(at)], check=True)


def test_a_full_disk_is_told_wherever_it_is_met(lived_in, votes, tmp_path):
    rows, before, disk = archive.check(votes).rows, contents(lived_in.registry), tmp_path / "disk"
    with small_disk(disk, 8_000) as small:
        home, filler = copy_of(lived_in, disk / "home"), disk / "filler"
        for size in (33_000,):  # bytes that a file may have: too few for a checkpoint
            require_sentence(home.run("--db", votes, *HUMAN, "--seed", "3", limits={"FSIZE": size}), 1, FULL)
        for free in (8, 150) if small else ():  # kilobytes
            filler.write_bytes(bytes(max(0, shutil.disk_usage(disk).free - free * 1024)))
            require_sentence(home.run("--db", votes, *HUMAN), 1, "disk", "full")
            filler.unlink()
        require_unharmed(home, votes, before, rows)
