"""Learning runs started from the Owner page: a process of their own beside the app, so that pages and votes go on, and where it stands.

A run is ``python -m pat_core.train rounds`` with a folder under PAT_HOME that holds its order, its state (``pat_core.run_state``), what it
printed and its report; so a page that is loaded again, or an app that was restarted, finds it. One runs at a time. It publishes without
activating. A run that was stopped, killed or failed goes on with the same command, on the answers it began with. Leaves out learning
(``pat_core.rounds``) and trainings that somebody starts in a terminal.
"""

from __future__ import annotations

import json
import logging
import os
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from annotate.jobs import Busy
from annotate.store import utc_now
from annotate.types import timestamp
from annotate.words import listed, of
from pat_core.preferences import MODES, Mode
from pat_core.run_state import RunState, failure, is_alive, read_state
from pat_core.types import ADAPTER_ROLES, Role

log = logging.getLogger(__name__)

Phase = Literal["idle", "starting", "working", "stopping", "stopped", "done", "failed"]
ROOT = Path(__file__).resolve().parents[1]
ORDER, STATE, OUTPUT, REPORT, STOP = "order.json", "state.json", "output.txt", "report.json", "stop"
NICE = 10  # of the process: whoever looks at a page or votes comes first
GRACE_SECONDS = 90.0  # between asking it to end and killing it; a batch of texts on a slow machine takes less
KEPT = 30  # runs whose folders stay
MAX_PROMPTS, MAX_ROUNDS = 1000, 20
NAMES: Mapping[str, str] = {"style": "style agent", "topic": "topic agent", "generator": "generator"}
ONE_THREAD = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")  # libraries that would take every core otherwise


@dataclass(frozen=True, slots=True)
class Order:
    """What a run does: ``pat_core.rounds.RoundSettings`` as far as a page offers it. ``until`` is a time of the store."""

    use: Mode = "both"
    roles: tuple[Role, ...] = ADAPTER_ROLES
    prompts: int = 16
    rounds: int = 1
    candidates: int = 4
    dev: int = 40
    seed: int = 0
    until: str = ""

    def __post_init__(self) -> None:
        if self.use not in MODES:
            raise ValueError(f"use {self.use!r:.20} is not known; choose one of {', '.join(MODES)}")
        if not self.roles or set(self.roles) - set(ADAPTER_ROLES) or len(set(self.roles)) < len(self.roles):
            raise ValueError(f"roles {self.roles!r:.60} must name at least one of {', '.join(ADAPTER_ROLES)}, each once")
        for name, low, high in (("prompts", 2, MAX_PROMPTS), ("rounds", 1, MAX_ROUNDS), ("candidates", 2, 16), ("dev", 2, 1000)):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
                raise ValueError(f"{name} must be a whole number from {low:,} to {high:,}, not {value!r:.20}")

    @property
    def n_steps(self) -> int:
        return self.rounds * len(self.roles)

    @property
    def sentence(self) -> str:
        """What was asked for, in words."""
        learns = {"human": "people’s votes alone", "automatic": "the automatic reward alone", "both": "votes and rewards"}[self.use]
        who = listed([NAMES[role] for role in self.roles])
        asked = "" if self.use == "human" else f", {of(self.prompts, 'prompt')} for each"
        return f"{of(self.rounds, 'round')} of the {who} from {learns}{asked}"


@dataclass(frozen=True, slots=True)
class Status:
    """How the newest run goes or went. ``run`` is its own state, None before it has told any; ``error`` says why it failed."""

    phase: Phase = "idle"
    order: Order | None = None
    started_at: str = ""
    run: RunState | None = None
    error: str = ""

    @property
    def running(self) -> bool:
        return self.phase in ("starting", "working", "stopping")

    @property
    def can_go_on(self) -> bool:
        return self.phase in ("stopped", "failed")

    @property
    def steps(self) -> tuple[dict[str, Any], ...]:
        return self.run.steps if self.run else ()


@dataclass
class Training:
    """Starts, watches and ends runs on the corpus ``data`` and the campaign in ``db``; every method may be called from any thread.

    ``env`` is added to this process's environment for the run's; ``threads`` bounds what it computes with.
    """

    home: Path
    data: Path
    db: Path
    threads: int = 2
    env: Mapping[str, str] = field(default_factory=dict)
    clock: Callable[[], datetime] = utc_now
    grace_seconds: float = GRACE_SECONDS
    nice: int = NICE

    def __post_init__(self) -> None:
        self.home, self.data, self.db = (path.absolute() for path in (self.home, self.data, self.db))
        self._folder = self.home / "training" / "owner"
        self._lock = threading.RLock()
        self._mine: tuple[Path, subprocess.Popen[bytes]] | None = None

    def start(self, order: Order) -> Status:
        """Begin a run and return at once. Raises Busy, in words, while one is at work, ValueError where it cannot be begun."""
        with self._lock:
            self._require_idle()
            now = self.clock()
            order = Order(**asdict(order) | {"until": timestamp(now)})
            folder = self._folder / now.strftime("%Y%m%d-%H%M%S-%f")
            command = self.command(order, folder)
            try:
                folder.mkdir(parents=True)
                (folder / ORDER).write_text(json.dumps(asdict(order) | {"command": command}, indent=1), encoding="utf-8")
                self._spawn(folder, command)
            except OSError as error:
                shutil.rmtree(folder, ignore_errors=True)
                raise ValueError(f"The run could not be started: {failure(error)}.") from error
            self._prune()
            return self.status

    def go_on(self) -> Status:
        """Start the newest run again where it stood, with the same command. ValueError where there is none that could go on."""
        with self._lock:
            self._require_idle()
            folder = self._newest()
            command = _command(folder) if folder is not None and self.status.can_go_on else None
            if folder is None or command is None:
                raise ValueError("There is no run that was stopped or failed, so there is none to go on with.")
            for leftover in (STOP, STATE):
                (folder / leftover).unlink(missing_ok=True)
            self._spawn(folder, command)
            return self.status

    def stop(self) -> Status:
        """Ask the run to end where nothing is lost, and see to it that it does: it is killed once ``grace_seconds`` have passed.

        Nothing happens where none is at work.
        """
        with self._lock:
            folder = self._newest()
            if folder is None or not self.status.running:
                return self.status
            asked = folder / STOP
            if not asked.is_file():
                asked.touch()
                self._signal(folder, signal.SIGTERM)
                threading.Thread(target=self._kill_after_grace, args=(folder,), name="training-stop", daemon=True).start()
            elif time.time() - asked.stat().st_mtime > self.grace_seconds:  # asked by an app that was gone before it could see to it
                self._kill(folder)
            return self.status

    @property
    def status(self) -> Status:
        with self._lock:
            folder = self._newest()
            if folder is None:
                return Status()
            order, started_at = _order(folder)
            alive, run = self._is_alive(folder), read_state(folder / STATE)  # in this order: a run that ends in between has told how
            phase, error = self._phase(folder, alive, run)
            return Status(phase, order, started_at, run, error)

    def seed(self) -> int:
        """The seed of the next run: that of the newest, so that it goes on where that stood, or the next one where that has ended."""
        folder = self._newest()
        order, _ = _order(folder) if folder else (None, "")
        return order.seed + (folder / REPORT).is_file() if order and folder else 0

    def close(self, seconds: float = 10.0) -> None:
        """Ask a run of this app to end and wait a little: it goes on where it stood once somebody says so."""
        if self._mine is not None and self._mine[1].poll() is None:
            self.stop()
            try:
                self._mine[1].wait(seconds)
            except subprocess.TimeoutExpired:
                log.warning("the training process (%d) is still ending", self._mine[1].pid)

    def wait(self, seconds: float) -> Status:
        """The status once nothing is at work any more, or after ``seconds``."""
        end = time.monotonic() + seconds
        while self.status.running and time.monotonic() < end:
            time.sleep(0.1)
        return self.status

    def command(self, order: Order, folder: Path) -> list[str]:
        """What is run, after the interpreter. Rewards alone are those of live use, which a round can learn (README: Training)."""
        lessons = ["--reward", "reference-free"] if order.use == "automatic" else ["--db", str(self.db), "--until", order.until]
        numbers = {name: str(getattr(order, name)) for name in ("rounds", "prompts", "candidates", "dev", "seed")}
        return [
            *("-m", "pat_core.train", "rounds", "--data", str(self.data), *lessons, "--use", order.use, "--roles", *order.roles),
            *(part for name, value in numbers.items() for part in (f"--{name}", value)),
            *("--no-activate", "--progress-file", str(folder / STATE), "--json", str(folder / REPORT)),
        ]

    def _require_idle(self) -> None:
        status = self.status
        if status.running and status.order:
            raise Busy(f"A run is at work already ({status.order.sentence}): wait for its end, or stop it first.")
        if any(is_alive(folder / STATE) for folder in self._runs()):
            raise Busy("An earlier run is still ending: try again in a moment.")

    def _spawn(self, folder: Path, command: Sequence[str]) -> None:
        gently = ["nice", "-n", str(self.nice)] if shutil.which("nice") else []
        threads = str(self.threads)
        env = {**os.environ, **dict.fromkeys(ONE_THREAD, threads), "TOKENIZERS_PARALLELISM": "false", **self.env}
        env |= {"PAT_HOME": str(self.home), "PAT_THREADS": threads, "PYTHONUNBUFFERED": "1"}
        env["PYTHONPATH"] = os.pathsep.join(filter(None, (str(ROOT), env.get("PYTHONPATH"))))
        slowly = {"creationflags": subprocess.BELOW_NORMAL_PRIORITY_CLASS} if sys.platform == "win32" else {"start_new_session": True}
        with (folder / OUTPUT).open("wb") as output:
            process = subprocess.Popen(
                [*gently, sys.executable, *command],
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                **slowly,
            )
        log.info("training started (%d): python %s", process.pid, shlex.join(command))
        self._mine = (folder, process)

    def _is_alive(self, folder: Path) -> bool:
        if self._mine is not None and self._mine[0] == folder:
            return self._mine[1].poll() is None
        return is_alive(folder / STATE)

    def _phase(self, folder: Path, alive: bool, run: RunState | None) -> tuple[Phase, str]:
        """How the run goes, or went and why it failed."""
        asked_to_stop = (folder / STOP).is_file()
        if alive:
            return "stopping" if asked_to_stop else "working" if run else "starting", ""
        if run is not None and run.state != "working":
            return run.state, run.error if run.state == "failed" else ""
        if asked_to_stop:
            return "stopped", ""
        return "failed", _killed(run) if run else _last_words(folder)

    def _signal(self, folder: Path, number: signal.Signals) -> None:
        """Send ``number`` to the run's process; one of an earlier app is known by its own word, and only while it holds its lock."""
        if self._mine is not None and self._mine[0] == folder:
            self._mine[1].send_signal(number)
        elif is_alive(folder / STATE) and (run := read_state(folder / STATE)) is not None and run.pid > 1:
            os.kill(run.pid, number)

    def _kill_after_grace(self, folder: Path) -> None:
        end = time.monotonic() + self.grace_seconds
        while time.monotonic() < end:
            if not self._is_alive(folder):
                return
            time.sleep(0.1)
        self._kill(folder)

    def _kill(self, folder: Path) -> None:
        log.warning("the training process did not end within %.0f s and is killed", self.grace_seconds)
        self._signal(folder, getattr(signal, "SIGKILL", signal.SIGTERM))

    def _runs(self) -> list[Path]:
        return sorted(folder.parent for folder in self._folder.glob(f"*/{ORDER}"))

    def _newest(self) -> Path | None:
        return max(self._runs(), default=None)

    def _prune(self) -> None:
        for folder in self._runs()[:-KEPT]:
            shutil.rmtree(folder, ignore_errors=True)


def _order(folder: Path) -> tuple[Order | None, str]:
    """The order in a run's folder and when it was given; None where it cannot be read."""
    try:
        value = json.loads((folder / ORDER).read_text(encoding="utf-8"))
        value.pop("command", None)
        order = Order(**value | {"roles": tuple(value["roles"])})
        return order, order.until
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        log.warning("%s cannot be read: %s", folder / ORDER, error)
        return None, ""


def _command(folder: Path) -> list[str] | None:
    """The command in a run's folder; None where it cannot be read."""
    try:
        command = json.loads((folder / ORDER).read_text(encoding="utf-8"))["command"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return command if isinstance(command, list) and all(isinstance(part, str) for part in command) else None


def _last_words(folder: Path) -> str:
    """Why a run ended that never told where it stood: the last thing it printed."""
    try:
        lines = [line.strip() for line in (folder / OUTPUT).read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    except OSError:
        lines = []
    said = next((line for line in reversed(lines) if line.startswith("error: ")), lines[-1] if lines else "it printed nothing")
    return f"It ended before it began: {said.removeprefix('error: ')}"


def _killed(run: RunState) -> str:
    where = f"round {run.round}, {NAMES.get(run.role, run.role)}" if run.role else "before the first step"
    return (
        f"The process was ended from outside ({where}): it was killed, the machine went down, or its memory ran out. "
        "What it had done is kept: it goes on where it stood."
    )
