"""Learning runs beside the app: real processes on a tiny model while people vote, stopped, killed, gone on with; what votes would teach."""

from __future__ import annotations

import errno
import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from store_data import person, vote
from training_house import N_PAIRS, SMALL, House, add_pair, open_house

from annotate.jobs import Busy
from annotate.prospect import prospect
from annotate.store import open_store
from annotate.training import NICE, Order, Status, Training
from annotate.types import Candidate, Exclusion, Item, new_id, pair_of
from annotate.visit import Answer, Shown
from pat_core.adapters import chosen
from pat_core.dpo import Cancelled, Point, Standing
from pat_core.rounds_rollouts import Stopped
from pat_core.run_state import EVERY_SECONDS, RunFile, ended, is_alive, read_state

SLOWEST_VOTE = 1.0  # seconds, on two cores that train meanwhile; alone it takes a hundredth
WAIT = 150.0


@pytest.fixture(scope="module")
def house(tmp_path_factory) -> Iterator[House]:
    it = open_house(tmp_path_factory.getbasetemp(), "training")
    yield it
    it.close()


def until(met: Callable[[Status], bool], training: Training, seconds: float = WAIT) -> Status:
    end = time.monotonic() + seconds
    while not met(training.status):
        assert time.monotonic() < end, f"it never came to that: {training.status}"
        time.sleep(0.05)
    return training.status


def test_rewards_alone_are_those_of_live_use_and_need_no_votes(tmp_path):
    training = Training(tmp_path, tmp_path / "data.jsonl", tmp_path / "votes.db")
    alone, votes = (training.command(replace(SMALL, use=use), tmp_path) for use in ("automatic", "human"))
    assert alone[alone.index("--reward") + 1] == "reference-free" and "--db" not in alone
    assert votes[votes.index("--db") + 1] == str(tmp_path / "votes.db") and "--reward" not in votes


# A run on a tiny model


@pytest.fixture(scope="module")
def learned(house) -> tuple[Status, list[float], set[str], House]:
    """A whole run during which somebody votes: its end, how long each vote took, and the parts that a page would have seen."""
    training, seconds, seen = house.training(nice=NICE), [], set()
    carol = house.campaign.join("Carol", consent=True)
    training.start(SMALL)
    with pytest.raises(Busy, match=r"A run is at work already \(1 round of the style agent from people’s votes alone\)"):
        training.start(SMALL)
    n = 0
    while (status := training.status).running:
        seen.add(status.run.part if status.run else status.phase)
        shown = house.campaign.next_pair(carol.token) if n < 200 else None
        if shown is not None:
            began = time.monotonic()
            house.campaign.submit(carol.token, answer_of(shown))
            seconds.append(time.monotonic() - began)
        else:
            add_pair(house.campaign.store, 100 + n)
        n += 1
        time.sleep(0.1)
    return status, seconds, seen, house


def answer_of(shown: Shown) -> Answer:
    return Answer(new_id(), shown.assignment.pair_id, shown.ticket, "tie", input_kind="keyboard")


def test_a_run_is_published_and_serves_nobody_until_somebody_says_so(learned):
    status, _, seen, house = learned
    assert (status.phase, status.error) == ("done", "") and {"starting", "opening", "training"} <= seen
    [step] = status.steps
    assert step["mix"]["pairs"] == N_PAIRS and step["training"]["curve"][0]["loss"] == pytest.approx(0.693, abs=2e-3)
    assert step["version"] and (house.home / "adapters" / step["version"] / "manifest.json").is_file(), step["why"]
    assert chosen(house.home / "adapters") == {} and "not activated" in step["why"]
    assert len(step["examples"]) == 4 and all(e["before"]["text"] and e["after"]["text"] for e in step["examples"])


def test_nobody_waits_to_vote_while_it_trains(learned):
    _, seconds, _, house = learned
    assert len(seconds) >= 20 and max(seconds) < SLOWEST_VOTE, max(seconds)
    assert house.campaign.store.counts()["judgments"] >= len(seconds)


def test_an_app_that_was_restarted_stops_a_run_and_goes_on_with_what_it_had(house):
    first = house.training()
    first.start(replace(SMALL, rounds=2, seed=5))
    until(lambda s: len(s.steps) == 1, first)
    again = house.training()  # knows of the run by its folder alone
    assert again.status.phase == "working"
    with pytest.raises(Busy):
        again.start(SMALL)
    assert again.stop().phase in ("stopping", "stopped")
    stopped = again.wait(30)
    first.wait(5)
    assert (stopped.phase, len(stopped.steps)) == ("stopped", 1) and stopped.can_go_on
    kept = results(house, "round-1-style")
    pair, liked = add_pair(house.campaign.store, 900)
    vote(house.campaign.store, pair, house.ada, "A" if pair.lo_id == liked else "B")  # later than the run began: not for this one
    again.go_on()
    done = again.wait(WAIT)
    assert done.phase == "done" and [s["mix"]["pairs"] for s in done.steps] == [done.steps[0]["mix"]["pairs"]] * 2
    assert results(house, "round-1-style") == kept, "the first round was not learned again"
    with pytest.raises(ValueError, match="no run that was stopped or failed"):
        again.go_on()


def results(house: House, step: str) -> dict[Path, int]:
    return {p: p.stat().st_mtime_ns for p in house.home.glob(f"training/rounds-*/{step}/result.json")}


def test_a_run_that_is_killed_says_so_and_can_go_on(house):
    training = house.training()
    training.start(replace(SMALL, seed=9))
    status = until(lambda s: s.run is not None, training)
    os.kill(status.run.pid, signal.SIGKILL)
    dead = training.wait(10)
    assert dead.phase == "failed" and dead.can_go_on
    assert "ended from outside (before the first step)" in dead.error and "it goes on where it stood" in dead.error
    assert training.go_on().running
    training.close(60)
    assert training.status.phase == "stopped"


# What fails, in a sentence


def test_what_a_run_cannot_learn_from_arrives_as_its_sentence(tmp_path_factory, house):
    empty = open_house(tmp_path_factory.getbasetemp(), "all-ties")
    try:
        for judgment in empty.campaign.store.judgments():
            empty.campaign.store.exclude(Exclusion("a test", "owner", judgment_id=judgment.judgment_id))
        training = empty.training()
        training.start(SMALL)
        failed = training.wait(WAIT)
        assert failed.phase == "failed" and "there are no judgments yet" in failed.error
        missing = house.training(data=empty.folder / "nowhere.jsonl")
        missing.start(replace(SMALL, use="automatic"))
        assert missing.wait(WAIT).phase == "failed" and "nowhere.jsonl" in missing.status.error
    finally:
        empty.close()


class Scripted(Training):
    """Runs ``script`` in place of the learning."""

    script = ""

    def command(self, order: Order, folder: Path) -> list[str]:
        return ["-c", self.script]


def scripted(folder: Path, script: str, **changes: float) -> Training:
    training = Scripted(folder / "home", folder / "data.jsonl", folder / "votes.db", **changes)
    training.script = script
    return training


def test_one_that_never_began_says_what_it_printed(tmp_path):
    training = scripted(tmp_path, "import sys; print('loading'); sys.exit('error: PAT_MODEL=x: there is no such file')")
    training.start(SMALL)
    assert training.wait(20).phase == "failed"
    assert training.status.error == "It ended before it began: PAT_MODEL=x: there is no such file"


def test_one_that_does_not_listen_is_killed_after_a_while(tmp_path):
    training = scripted(
        tmp_path, "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf'); time.sleep(99)", grace_seconds=0.5
    )
    training.start(SMALL)
    [folder] = (tmp_path / "home" / "training" / "owner").iterdir()
    end = time.monotonic() + 20
    while "deaf" not in (folder / "output.txt").read_text():
        assert time.monotonic() < end
        time.sleep(0.05)
    assert training.stop().phase == "stopping"
    assert training.wait(10).phase == "stopped"


def test_an_order_is_checked_and_told_in_words():
    assert Order(rounds=2).sentence == "2 rounds of the style agent, topic agent and generator from votes and rewards, 16 prompts for each"
    for wrong in ({"use": "magic"}, {"roles": ()}, {"roles": ("style", "style")}, {"prompts": 1}, {"rounds": True}, {"prompts": 10**6}):
        with pytest.raises(ValueError, match=r"magic|roles|prompts|rounds"):
            Order(**wrong)


def test_the_next_run_asks_other_questions_once_the_last_has_ended(tmp_path):
    training = scripted(tmp_path, "import sys; sys.exit(1)")
    assert training.seed() == 0
    training.start(replace(SMALL, seed=4))
    training.wait(20)
    assert training.seed() == 4
    [folder] = (tmp_path / "home" / "training" / "owner").iterdir()
    (folder / "report.json").write_text("{}")
    assert training.seed() == 5


# The state of a run


def point(step: int) -> Point:
    return Point(step, 0.6, 0.1, 0.75, 0.01, 12.0, 11.0, 100 * step, float(step))


def test_a_state_is_read_as_it_was_written_and_tells_the_living_from_the_dead(tmp_path):
    path = tmp_path / "run" / "state.json"
    assert read_state(path) is None and not is_alive(path)
    with RunFile(path) as run:
        assert is_alive(path) and read_state(path).state == "working"
        run.part("rolling out", 1, "style")
        run.progress("Summaries", 2, 8)
        run.part("training", 1, "style")
        time.sleep(EVERY_SECONDS)
        run.standing(Standing("training", 500, 2000, 1.5, (point(1), point(2))))
        now = read_state(path)
        assert (now.part, now.round, now.role, now.done, now.total, now.minutes_left) == ("training", 1, "style", 500, 2000, 1.5)
        assert now.curve == (point(1), point(2)) and now.pid == os.getpid()
        run.part("evaluating", 1, "style")
        assert read_state(path).curve, "its curve stays for the step"
        run.step({"round": 1, "role": "style"})
        run.part("rolling out", 1, "topic")
        assert read_state(path).curve == ()
    end = read_state(path)
    assert (end.state, end.error, end.steps) == ("done", "", ({"round": 1, "role": "style"},)) and not is_alive(path)
    path.write_text("{")
    assert read_state(path) is None


@pytest.mark.parametrize("error", [Stopped("x"), Cancelled("x"), KeyboardInterrupt()])
def test_a_stop_is_no_failure(tmp_path, error):
    with pytest.raises(type(error)), RunFile(tmp_path / "state.json"):
        raise error
    assert read_state(tmp_path / "state.json").state == "stopped"


def test_every_failure_is_a_sentence(tmp_path):
    full = OSError(errno.ENOSPC, "No space left on device")
    for error, sentence in {
        full: "the disk is full, so the run was stopped; what it had published stays",
        MemoryError(): "the memory did not suffice",
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"): "the memory did not suffice",
        ValueError("all 12 judgments are ties"): "all 12 judgments are ties",
        KeyError("x"): "KeyError: 'x'",
    }.items():
        assert ended(error)[0] == "failed" and sentence in ended(error)[1]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full, which fails every write for want of space")
def test_a_state_that_cannot_be_written_never_ends_the_run(tmp_path):
    path = tmp_path / "state.json"
    (tmp_path / ".state.json.new").symlink_to("/dev/full")
    with RunFile(path) as run:
        run.part("training", 1, "style")
        assert (tmp_path / ".state.json.reserve").stat().st_size > 100_000, "room for telling the end"
        (tmp_path / ".state.json.new").unlink()
    assert read_state(path).state == "done" and not (tmp_path / ".state.json.reserve").exists()


# What would be trained


def test_the_prospect_is_what_a_run_learns_from(house, learned):
    p = prospect(house.campaign.store)
    style = p.role("style")
    assert style.human.n_pairs >= N_PAIRS and style.human.dropped["only ties"] > 0
    assert style.agreement.n_pairs >= N_PAIRS // 2
    assert p.role("topic").human.why == "nobody has judged a pair in which only this one differs"
    by_name = {who.nickname: who for who in p.people}
    assert by_name.keys() == {"Ada", "Bo", "Carol"} and p.people[0].n == max(who.n for who in p.people)
    assert sum(style.shares.values()) == pytest.approx(1)
    others = by_name["Carol"].shares.get("style", 0.0)  # ties, most of them on pairs that nobody else judged
    assert by_name["Ada"].shares["style"] > by_name["Bo"].shares["style"] > others
    assert "c1 = " in p.reward and style.by("automatic").n_pairs == 0


def test_people_who_vote_alike_agree(tmp_path):
    alike = open_house(tmp_path, "alike")  # without Carol, whose ties fall where they may
    try:
        agreement = prospect(alike.campaign.store).role("style").agreement
        assert agreement.raw.value == 1 and agreement.n_pairs == N_PAIRS // 2
    finally:
        alike.close()


def test_contradictions_ties_and_systems_are_told_apart(tmp_path):
    with open_store(tmp_path / "votes.db") as store:
        ada, bo = person(store, "Ada"), person(store, "Bo")
        (split, _), (clear, liked), (bad, _) = (add_pair(store, i, "style") for i in range(3))
        vote(store, split, ada, "A")
        vote(store, split, bo, "B")
        vote(store, clear, ada, "A" if clear.lo_id == liked else "B")
        vote(store, bad, bo, "both_bad")
        item = Item("Two systems")
        two = [Candidate(item.item_id, text, system) for text, system in (("One text.", "pat"), ("Another.", "none"))]
        systems = pair_of(*two, "system")
        store.add_pairs([systems], two, [item])
        vote(store, systems, bo, "A")
        found = prospect(store)
    style = found.role("style")
    assert (style.n_judged, style.n_answers, style.human.n_pairs) == (3, 4, 1)
    assert style.human.dropped == {"people are split": 1, "only ties": 1} and style.winners["both_bad"] == 1
    assert style.shares == {ada.annotator_id: 1.0}
    assert found.n_answers == 5 and found.role("topic").n_judged == found.role("generator").n_judged == 0


def test_ties_alone_and_one_judge_alone_are_said(tmp_path):
    with open_store(tmp_path / "votes.db") as store:
        ada = person(store, "Ada")
        assert prospect(store).people == () and prospect(store).reward == ""
        (first, _), (second, liked) = (add_pair(store, i) for i in range(2))
        vote(store, first, ada, "tie")
        assert "ties or both bad" in prospect(store).role("style").human.why
        vote(store, second, ada, "A" if second.lo_id == liked else "B")
        alone = prospect(store)
    assert alone.personal and any("this person's taste" in note for note in alone.role("style").human.notes)
