"""Background jobs: one at a time, what was kept stays whatever happens, and visitors at the model go first."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from annotate.database import NotSaved
from annotate.jobs import Busy, Jobs, JobStatus, Step
from pat_core.types import Snapshot
from pat_core.ui.runs import Runs


class Making:
    """Five parts, each kept before it is said; waits for ``go`` before each where given, and fails before part ``fails_at``."""

    def __init__(self, fails_at: int = 99, error: Exception | None = None) -> None:
        self.kept: list[int] = []
        self.at = -1
        self.go: threading.Semaphore | None = None
        self.fails_at, self.error = fails_at, error or ValueError("the disk is full")

    def __call__(self, cancel: threading.Event) -> Iterator[Step]:
        for i in range(5):
            self.at = i
            if self.go:
                assert self.go.acquire(timeout=5)
            if i == self.fails_at:
                raise self.error
            self.kept.append(i)
            yield Step(i + 1, 5, f"{i + 1} pairs added")


def reach(jobs: Jobs, done: int) -> JobStatus:
    until = time.monotonic() + 5
    while jobs.status.done < done and time.monotonic() < until:
        time.sleep(0.005)
    return jobs.status


def test_a_job_says_how_far_it_is_and_how_it_ended():
    jobs, making = Jobs(), Making()
    assert jobs.status.sentence == "Nothing is being made." and not jobs.status.running
    making.go = threading.Semaphore(2)
    jobs.start("Making pairs", making)
    status = reach(jobs, 2)
    assert status.running and status.sentence == "Making pairs: 2 of 5. 2 pairs added." and status.seconds_left > 0
    making.go.release(3)
    ended = jobs.wait(5)
    assert ended.state == "done" and ended.sentence == "Making pairs: done. 5 pairs added." and ended.seconds_left is None


def test_a_second_job_is_refused_in_words_and_the_first_goes_on():
    jobs, making = Jobs(), Making()
    making.go = threading.Semaphore(1)
    jobs.start("Making pairs", making)
    reach(jobs, 1)
    with pytest.raises(Busy, match=r"Making pairs is at work \(1 of 5\)"):
        jobs.start("Another", Making())
    making.go.release(4)
    assert jobs.wait(5).kept == "5 pairs added"
    jobs.start("Another", Making())
    assert jobs.wait(5).name == "Another"


def test_stopping_ends_after_the_part_at_work_and_keeps_what_was_made():
    jobs, making = Jobs(), Making()
    making.go = threading.Semaphore(1)
    jobs.start("Making pairs", making)
    while making.at < 1:
        time.sleep(0.005)
    jobs.stop()
    assert jobs.status.state == "stopping"
    making.go.release()  # the part at work
    ended = jobs.wait(5)
    assert ended.state == "stopped" and making.kept == [0, 1] and ended.sentence == "Making pairs: stopped at 2 of 5. 2 pairs added."
    jobs.stop()
    assert jobs.status == ended


@pytest.mark.parametrize(
    ("error", "says"),
    [(NotSaved("The disk is full."), "The disk is full."), (ZeroDivisionError("by zero"), "ZeroDivisionError: by zero.")],
)
def test_a_failure_half_way_is_said_and_loses_nothing(error, says):
    jobs, making = Jobs(), Making(3, error)
    jobs.start("Making pairs", making)
    ended = jobs.wait(5)
    assert ended.state == "failed" and making.kept == [0, 1, 2]
    assert ended.sentence.startswith(f"Making pairs: failed at 3 of 5. {says}") and ended.sentence.endswith("3 pairs added.")
    jobs.start("Again", Making())
    assert jobs.wait(5).state == "done"


def test_a_failure_before_the_first_part_says_that_nothing_was_kept():
    jobs = Jobs()
    jobs.start("Making pairs", Making(0))
    assert jobs.wait(5).sentence == "Making pairs: failed at the beginning. The disk is full. Nothing was kept."


def test_visitors_get_the_model_between_any_two_parts():
    """On the real lock of the runs: a visitor who came during a part has the model before the next one."""
    runs, order = Runs(), []

    def visit(cancel: threading.Event) -> Iterator[Snapshot]:
        order.append("visitor")
        yield Snapshot("done", 0.0)

    class Meeting(Making):
        def __call__(self, cancel: threading.Event) -> Iterator[Step]:
            for step in super().__call__(cancel):
                order.append(step.done)
                if step.done in (2, 3):
                    threading.Thread(target=lambda: list(runs.follow(visit))).start()
                    time.sleep(0.2)  # the visitor now waits for the model, which this part holds
                yield step

    jobs = Jobs(runs.turn)
    jobs.start("Making pairs", Meeting())
    assert jobs.wait(5).state == "done"
    assert order == [1, 2, "visitor", 3, "visitor", 4, 5]


def test_a_job_that_waits_for_a_visitor_can_be_stopped():
    runs, making = Runs(), Making()
    jobs = Jobs(runs.turn)
    with runs.turn():
        jobs.start("Making pairs", making)
        jobs.stop()
    assert jobs.wait(5).state == "stopped" and making.kept == []
