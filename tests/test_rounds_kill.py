"""A learning run is killed with SIGKILL, again and again, and its files are damaged: in the end it gives what an undisturbed run gives.

By default it dies once in each part of a step and once at any moment. At 60 moments, which takes minutes:

    PAT_KILL_ROUNDS=60 python -m pytest tests/test_rounds_kill.py
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from learning_stage import Home, Stage, campaign, require_whole, stage

from annotate import archive
from pat_core.adapters import history, verify, versions
from pat_core.cache import file_sha256
from pat_core.rounds import Base, Work, begin

ROUNDS = int(os.environ.get("PAT_KILL_ROUNDS", 1))
SEED = int(os.environ.get("PAT_SEED", 0))
pytestmark = pytest.mark.skipif(os.name != "posix", reason="needs fork and SIGKILL")


@pytest.fixture(scope="module")
def ready(tmp_path_factory) -> Stage:
    return stage(tmp_path_factory.getbasetemp())


@pytest.fixture(scope="module")
def votes(tmp_path_factory) -> Path:
    return campaign(tmp_path_factory.mktemp("votes") / "votes.db")


@pytest.fixture(scope="module")
def whole(ready, votes, tmp_path_factory) -> tuple[Home, dict[str, Any]]:
    """The home and the report of a run that nobody disturbed."""
    home = ready.home(tmp_path_factory.mktemp("whole") / "home")
    return home, finished(home, votes)


def finished(home: Home, votes: Path) -> dict[str, Any]:
    """The report of the command run to its end."""
    ended = home.run("--db", votes, "--json", home.folder / "report.json")
    assert (ended.code, ended.error) == (0, ""), ended.err
    return json.loads((home.folder / "report.json").read_text("utf-8"))


def step_folder(home: Home) -> Path:
    return next(home.folder.glob("training/rounds-*/round-1-generator"), Path("nowhere"))


# What tells that a step has come to a part of it, in order
REACHED: dict[str, Callable[[Home], bool]] = {
    "rollouts": lambda home: any(home.folder.glob("training/rounds-*/dev-0.json")),
    "training": lambda home: any(step_folder(home).glob("checkpoint-*")),
    "evaluation": lambda home: (step_folder(home) / "report.json").is_file(),
    "publishing": lambda home: any(home.registry.glob(".new-*")),
}


def killed(home: Home, votes: Path, reached: Callable[[Home], bool], pause: float) -> bool:
    """Runs the command, kills it ``pause`` seconds after ``reached``; False where it ended before."""
    pid = home.start("--db", votes, "--json", home.folder / "report.json")
    while not reached(home) and Path(f"/proc/{pid}/task").is_dir() and not is_over(pid):
        time.sleep(0.002)
    time.sleep(pause)
    os.kill(pid, signal.SIGKILL)  # nobody but the server, which waits for it below, can give its id away
    ended = home.wait(pid)
    assert ended.code in (-signal.SIGKILL, 0), ended.err
    return ended.code != 0


def is_over(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"


def require_sound(home: Home, expected: str) -> None:
    """No half version is listed, and what is there is what an undisturbed run gives."""
    base = file_sha256(home.gguf)
    own = [v for v in versions(home.folder, base) if not v.shipped]
    assert [v.problem for v in own] == [""] * len(own) and {v.version for v in own} <= {expected}
    assert all(verify(home.registry / v.version, base).version == expected for v in own)


def outcome(report: dict[str, Any]) -> Any:
    """A report without times and without the place of the home."""
    if isinstance(report, dict):
        return {k: outcome(v) for k, v in report.items() if k not in ("minutes", "seconds", "adapter")}
    return [outcome(v) for v in report] if isinstance(report, list) else report


def require_same(home: Home, votes: Path, whole: tuple[Home, dict[str, Any]]) -> None:
    """Run to its end it gives the same report and the same version, published once."""
    there, report = whole
    [version] = there.versions
    assert outcome(finished(home, votes)) == outcome(report)
    assert home.versions == [version] and [c.version for c in history(home.registry)] == [version]
    for name in ("adapter_model.safetensors", "adapter_config.json"):
        assert (home.registry / version / name).read_bytes() == (there.registry / version / name).read_bytes()
    require_sound(home, version)


def moments() -> Iterator[tuple[str, Callable[[Home], bool], float]]:
    """Where the run dies: in each part, some way into it, and at any time since its start."""
    rng = random.Random(SEED)
    for name, reached in REACHED.items():
        yield name, reached, rng.uniform(0, 0.03)
    for _ in range(ROUNDS):
        yield "any moment", lambda home: True, rng.uniform(0, 2)


def test_a_run_that_is_killed_everywhere_ends_as_one_that_was_not(ready, votes, whole, tmp_path):
    home, rows = ready.home(tmp_path / "home"), archive.check(votes).rows
    [version] = whole[0].versions
    died = [name for name, reached, pause in moments() if killed(home, votes, reached, pause) and not require_sound(home, version)]
    assert set(REACHED) <= set(died)
    require_same(home, votes, whole)
    require_whole(votes, rows)


def damage(path: Path) -> None:
    """Turns the bits of the middle of a file."""
    content = bytearray(path.read_bytes())
    middle = slice(len(content) // 2, len(content) // 2 + 64)
    content[middle] = bytes(b ^ 0xFF for b in content[middle])
    path.write_bytes(content)


def test_what_a_dying_machine_damages_is_made_again(ready, votes, whole, tmp_path):
    home = ready.home(tmp_path / "home")
    assert killed(home, votes, lambda home: len(list(step_folder(home).glob("checkpoint-*/sealed.json"))) > 1, 0)
    step = step_folder(home)
    newest = max(step.glob("checkpoint-*/optimizer.pt"), key=lambda p: int(p.parent.name.split("-")[1]))
    state = json.loads(newest.with_name("trainer_state.json").read_text("utf-8"))
    damage(newest)
    rollouts = step / "rollouts.json"
    rollouts.write_bytes(rollouts.read_bytes()[:200])
    assert killed(home, votes, REACHED["evaluation"], 0)
    assert f"{newest.parent.name} is not whole and is passed over" in (home.streams / "err").read_text("utf-8")
    damage(step / "adapter" / "adapter_model.safetensors")
    (step / "dev.json").write_text("")
    for checkpoint in step.glob("checkpoint-*"):  # it died in deleting them, or a moment before
        shutil.rmtree(checkpoint)
    half = step / "checkpoint-12"
    half.mkdir()
    (half / "trainer_state.json").write_text(json.dumps(state | {"global_step": 12}))
    assert killed(home, votes, lambda home: any(step.glob("checkpoint-4/sealed.json")), 0)
    for path in (*step.glob("checkpoint-*/adapter_model.safetensors"), *step.glob("rows/*.arrow")):
        damage(path)
    require_same(home, votes, whole)


def test_only_a_run_that_did_not_end_and_lost_nothing_goes_on(tmp_path):
    def begun(**changes: Any) -> Work:
        """A run's folder after one step, with ``changes`` to its files; None takes one away."""
        work = Work.of(tmp_path, "rounds", str(changes))
        files = {
            "start.json": {"adapters": {"style": str(tmp_path / "old")}},
            "round-1-style/result.json": {"adapter": str(tmp_path / "new")},
        }
        for name, value in {**files, **changes}.items():
            (work.folder / name).parent.mkdir(exist_ok=True)
            (work.folder / name).write_text("" if value is None else json.dumps(value))
        begin(work, Base("model", None, "", {"topic": tmp_path / "serving"}))
        return work

    for name in ("old", "new"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "adapter_model.safetensors").touch()
    nowhere = str(tmp_path / "nowhere")
    kept = begun()
    assert kept.kept("start") == {"adapters": {"style": str(tmp_path / "old")}} and kept.kept("round-1-style/result")
    assert begun(**{"round-2-style/result.json": {"adapter": ""}}).kept("round-1-style/result")  # nothing came of that step
    for changes in (
        {"report.json": {}},
        {"start.json": {"adapters": {"style": nowhere}}},
        {"round-2-style/result.json": {"adapter": nowhere}},
        {"start.json": None},
    ):
        work = begun(**changes)
        assert work.kept("start") == {"adapters": {"topic": str(tmp_path / "serving")}}
        assert [p.name for p in work.folder.iterdir()] == ["start.json"] and not list(work.folder.parent.glob(".ended-*"))


def test_one_run_at_a_time_in_a_folder(ready, votes, tmp_path):
    home = ready.home(tmp_path / "home")
    first = home.start("--db", votes)
    while not any(home.folder.glob("training/rounds-*/start.json")):
        time.sleep(0.005)
    second = ready.commands.run(home.command("--db", votes), tmp_path, env=home.env)
    os.kill(first, signal.SIGKILL)
    home.wait(first)
    assert second.code == 1 and second.error == "error: another process is at work on the same run; wait for its end, or stop it"
