"""Where a learning run stands, in a file that another program reads: its part, its curve, what each step gave, how it ended and why.

The file is replaced whole, twice a second at most. A run holds a lock beside it for as long as it lives, so that a reader can tell a run
with nothing to say from one that was killed. A file that cannot be written never ends the run; some room is set aside so that the end can
be told on a full disk too. Leaves out the run (``rounds``) and who starts and shows it (``annotate.training``).
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock, Timeout

from pat_core.dpo import Cancelled, Point, Standing, TrainingError, lacks_memory, lacks_room
from pat_core.rounds_rollouts import Stopped

log = logging.getLogger(__name__)

State = Literal["working", "done", "stopped", "failed"]
Part = Literal["opening", "starting point", "rolling out", "training", "evaluating", "publishing"]
EVERY_SECONDS = 0.5
RESERVE_BYTES = 256 * 1024  # room for the last state on a full disk
FULL = "the disk is full, so the run was stopped; what it had published stays. Make room and start it again: it goes on where it stood"
NO_MEMORY = "the memory did not suffice, so the run was stopped; close other programs or ask for fewer prompts, and start it again"
STOPPED = "the same command goes on where it stood"


@dataclass(frozen=True, slots=True)
class RunState:
    """What a run says of itself. ``round`` and ``role`` are of the step at work, 0 and '' outside of one.

    ``done`` of ``total`` counts what ``label`` names: tokens while training, else requests or texts. ``minutes_left`` is for that, None
    until it can be told. ``steps`` are the steps that ended, as ``rounds`` reports them; ``curve`` is of the step at work.
    """

    state: State = "working"
    part: Part = "opening"
    round: int = 0
    role: str = ""
    label: str = ""
    done: int = 0
    total: int = 0
    minutes_left: float | None = None
    curve: tuple[Point, ...] = ()
    steps: tuple[dict[str, Any], ...] = ()
    error: str = ""
    pid: int = 0
    at: str = ""


class RunFile:
    """Writes ``path`` while it is open as a context, whose end it tells by the error it ended with. TrainingError where another run is."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.state = RunState(pid=os.getpid())
        self._lock = _lock(path)
        self._reserve = path.with_name(f".{path.name}.reserve")
        self._written = self._began = 0.0

    def __enter__(self) -> RunFile:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._lock.acquire(timeout=10)  # a reader holds it for a moment
        except Timeout as error:
            raise TrainingError(f"another run writes {self.path}; wait for its end, or stop it first") from error
        try:
            self._reserve.write_bytes(os.urandom(RESERVE_BYTES))
        except OSError as error:
            log.warning("%s: no room is set aside for the end of the run: %s", self._reserve, error)
        self._set(force=True)
        return self

    def __exit__(self, kind: object, error: BaseException | None, where: object) -> None:
        state, said = ended(error)
        self._reserve.unlink(missing_ok=True)
        self._set(force=True, state=state, error=said, minutes_left=None)
        self._lock.release()

    def part(self, part: Part, round: int = 0, role: str = "") -> None:
        """The run begins ``part``; a step's curve stays until the next step."""
        step = (round, role)
        kept = self.state.curve if step == (self.state.round, self.state.role) else ()
        self._set(force=True, part=part, round=round, role=role, label="", done=0, total=0, minutes_left=None, curve=kept)

    def progress(self, label: str, done: int, total: int) -> None:
        """``Progress`` of the part at work."""
        now = time.monotonic()
        if label != self.state.label or done < self.state.done:
            self._began = now
        passed = now - self._began
        left = passed * (total - done) / done / 60 if 0 < done < total and passed > 1 else None
        self._set(force=done >= total, label=label, done=done, total=total, minutes_left=left)

    def standing(self, standing: Standing) -> None:
        """How far the training at work is, in tokens."""
        label = "tokens, read by the starting version first" if standing.stage == "reference" else "tokens"
        left = standing.minutes_left
        self._set(label=label, done=standing.tokens, total=standing.all_tokens, minutes_left=left, curve=standing.curve)

    def step(self, step: Mapping[str, Any]) -> None:
        """A step has ended."""
        self._set(force=True, steps=(*self.state.steps, dict(step)))

    def _set(self, *, force: bool = False, **changes: Any) -> None:
        self.state = replace(self.state, **changes, at=datetime.now(UTC).isoformat(timespec="seconds"))
        now = time.monotonic()
        if not force and now - self._written < EVERY_SECONDS:
            return
        self._written = now
        new = self.path.with_name(f".{self.path.name}.new")
        try:
            new.write_text(json.dumps(asdict(self.state), ensure_ascii=False), encoding="utf-8")
            new.replace(self.path)
        except OSError as error:
            log.warning("%s was not written: %s", self.path, error)


def ended(error: BaseException | None) -> tuple[State, str]:
    """How a run ended that was left with ``error``, and why in a sentence."""
    if error is None:
        return "done", ""
    if isinstance(error, KeyboardInterrupt | Stopped | Cancelled):
        return "stopped", STOPPED
    return "failed", failure(error)


def failure(error: BaseException) -> str:
    """Why ``error`` ended a run and what to do, in a sentence."""
    said = str(error).strip()
    if isinstance(error, TrainingError) and said:
        return said
    if lacks_room(error):
        return FULL
    if lacks_memory(error):
        return NO_MEMORY
    known = isinstance(error, ValueError | OSError | RuntimeError) and said  # those that the program raises say what to do
    return said if known else f"{type(error).__name__}: {said}" if said else type(error).__name__


def read_state(path: Path) -> RunState | None:
    """The state in ``path``; None where there is none that can be read."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
        points = tuple(Point(**p) for p in value.pop("curve"))
        return RunState(**value | {"curve": points, "steps": tuple(value["steps"])})
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        log.warning("%s cannot be read: %s", path, error)
        return None


def is_alive(path: Path) -> bool:
    """Whether the run that writes ``path`` still lives."""
    if not path.parent.is_dir():
        return False
    lock = _lock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return True
    lock.release()
    return False


def _lock(path: Path) -> FileLock:
    return FileLock(path.with_name(f".{path.name}.lock"))
