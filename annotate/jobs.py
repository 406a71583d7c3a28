"""One background job at a time, such as making pairs: a thread, how far it is, a way to stop it, and one sentence about how it ended.

A job is an iterator of steps, and each step is carried out in a *turn* on the model, so that visitors go first: between two steps the job
lets go of it. A step keeps what it made before it says so; where a job fails or is stopped half way, what it kept stays. Leaves out what a
job does, and jobs that outlive the program.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Literal

from annotate.database import StoreError
from pat_core.llm.types import LLMError

log = logging.getLogger(__name__)

Turn = Callable[[], AbstractContextManager[object]]
PAUSE_SECONDS = 0.05  # between two steps, so that whoever waits for the model is first at its lock
State = Literal["idle", "running", "stopping", "done", "stopped", "failed"]


@dataclass(frozen=True, slots=True)
class Step:
    """What a job has done by now: ``done`` of ``total`` parts, and in words what it has kept ("24 pairs added")."""

    done: int
    total: int
    kept: str


@dataclass(frozen=True, slots=True)
class JobStatus:
    """How the newest job goes or went. ``seconds`` since it began or in all, ``seconds_left`` by the pace so far, None where unknown."""

    state: State = "idle"
    name: str = ""
    done: int = 0
    total: int = 0
    kept: str = ""
    error: str = ""
    seconds: float = 0.0

    @property
    def running(self) -> bool:
        return self.state in ("running", "stopping")

    @property
    def seconds_left(self) -> float | None:
        return self.seconds / self.done * (self.total - self.done) if self.running and self.done else None

    @property
    def sentence(self) -> str:
        far = f"{self.done:,} of {self.total:,}" if self.total else "the beginning"
        kept = f" {self.kept}." if self.kept else " Nothing was kept yet." if self.running else " Nothing was kept."
        match self.state:
            case "idle":
                return "Nothing is being made."
            case "running":
                return f"{self.name}: {far if self.total else 'just begun'}.{kept}"
            case "stopping":
                return f"{self.name}: stopping after the part at work, {far}.{kept}"
            case "done":
                return f"{self.name}: done.{kept}"
            case "stopped":
                return f"{self.name}: stopped at {far}.{kept}"
            case "failed":
                return f"{self.name}: failed at {far}. {self.error}{kept}"


Work = Callable[[threading.Event], Iterator[Step]]


class Busy(ValueError):
    """Another job is at work; the message says which and how far."""


class Jobs:
    """Runs one job at a time. ``turn()`` is entered for each step and left after it (``pat_core.ui.runs.Runs.turn``)."""

    def __init__(self, turn: Turn = nullcontext) -> None:
        self._turn = turn
        self._lock = threading.Lock()
        self._status = JobStatus()
        self._began = 0.0
        self._cancel = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def status(self) -> JobStatus:
        with self._lock:
            return replace(self._status, seconds=time.monotonic() - self._began) if self._status.running else self._status

    def start(self, name: str, work: Work) -> None:
        """Begin ``work(cancel)`` in a thread and return at once. Raises Busy, in words, while another job is at work."""
        with self._lock:
            if self._status.running:
                s = self._status
                raise Busy(f"{s.name} is at work ({s.done:,} of {s.total:,}): wait for its end, or stop it first.")
            self._status, self._began, self._cancel = JobStatus("running", name), time.monotonic(), threading.Event()
            self._thread = threading.Thread(target=self._run, args=(work, self._cancel), name="job", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """Ask the job to end after the step at work; nothing happens where there is none."""
        with self._lock:
            if self._status.running:
                self._status = replace(self._status, state="stopping")
                self._cancel.set()

    def wait(self, seconds: float | None = None) -> JobStatus:
        """The status once the job has ended, or after ``seconds``."""
        if self._thread is not None:
            self._thread.join(seconds)
        return self.status

    def _run(self, work: Work, cancel: threading.Event) -> None:
        state, error = "done", ""
        try:
            state = self._follow(work(cancel), cancel)
        except (ValueError, OSError, StoreError, LLMError) as failure:  # these say what to do
            log.warning("%s failed: %s", self._status.name, failure)
            said = str(failure).strip().rstrip(".")
            state, error = "failed", f"{said[:1].upper()}{said[1:]}."
        except Exception as failure:  # the top of this thread: whatever it is, the page has to say so
            log.exception("%s failed", self._status.name)
            state, error = "failed", f"{type(failure).__name__}: {failure}. The terminal shows where."
        with self._lock:
            self._status = replace(self._status, state=state, error=error, seconds=time.monotonic() - self._began)

    def _follow(self, steps: Iterator[Step], cancel: threading.Event) -> State:
        """Take the steps one turn at a time; how it ended."""
        while not cancel.is_set():
            with self._turn():
                step = None if cancel.is_set() else next(steps, None)
            if step is None:
                break
            with self._lock:
                self._status = replace(self._status, done=step.done, total=step.total, kept=step.kept)
            cancel.wait(PAUSE_SECONDS)
        return "stopped" if cancel.is_set() and self._status.done < max(self._status.total, 1) else "done"
