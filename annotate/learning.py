"""The learning commands that may need votes: ``python -m pat_core.train rounds`` and ``closed-loop`` end here.

The core knows no votes, so its command line hands these two over by name. Leaves out everything that learns (``pat_core.rounds``,
``closed_loop``).
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn, get_args

from annotate.closed_loop import Size, as_text, closed_loop, load_taste
from annotate.database import StoreError
from annotate.lessons import lessons
from annotate.store import open_store
from pat_core.adapters import NotWritten
from pat_core.config import DEMO_CORPUS, Config, load_config
from pat_core.dpo import Cancelled, DPOSettings, TrainingError, lacks_memory, lacks_room
from pat_core.llm import open_llm
from pat_core.llm.types import LLMError
from pat_core.preferences import MODES
from pat_core.progress import Progress, terminal_progress
from pat_core.rounds import RewardKind, RoundSettings, learn, open_base
from pat_core.rounds_rollouts import Stopped, open_bench
from pat_core.run_state import STOPPED, RunFile, failure
from pat_core.types import ADAPTER_ROLES
from pat_core.weights import WeightsError


class _Parser(argparse.ArgumentParser):
    """A parser that answers a mistake with one sentence."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"error: {message}\n")


def main(arguments: Sequence[str]) -> int:
    """``arguments`` begin with rounds or closed-loop: 0, 2 for input that nothing can be learned from, 1 where something else failed.

    Either is told in a sentence on stderr; what was published before stays, and the same command goes on where it stood.
    """
    parser = _Parser(prog="python -m pat_core.train")
    commands = parser.add_subparsers(dest="command", required=True)
    _rounds_options(commands.add_parser("rounds", help="DPO rounds from automatic rewards, from votes, or from both"))
    _closed_loop_options(commands.add_parser("closed-loop", help="whether one round learns the taste of a simulated annotator"))
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    try:
        (_rounds if options.command == "rounds" else _closed_loop)(load_config(), options)
    except NotWritten as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except (ValueError, FileNotFoundError) as error:
        print(f"error: {failure(error)}", file=sys.stderr)
        return 1 if lacks_memory(error) or lacks_room(error) else 2
    except (KeyboardInterrupt, Stopped, Cancelled):
        print(f"stopped: {STOPPED}", file=sys.stderr)
        return 130
    except (StoreError, LLMError, WeightsError, TrainingError, OSError, MemoryError) as error:
        print(f"error: {failure(error)}", file=sys.stderr)
        return 1
    except (RuntimeError, SystemError) as error:  # what torch, hnswlib and others raise where memory or disks run out
        if not (lacks_memory(error) or lacks_room(error)):
            raise
        print(f"error: {failure(error)}", file=sys.stderr)
        return 1
    return 0


def _rounds_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", type=Path, action="append", required=True, metavar="FILE", help="a corpus file; again for more")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--prompts", type=int, default=32, help="held-out reviews asked about, for each round and role")
    parser.add_argument("--candidates", type=int, default=4, help="summaries or texts for each of them")
    parser.add_argument("--texts", type=int, default=2, help="texts for each summary, whose mean reward says what it is worth")
    parser.add_argument("--roles", nargs="+", choices=ADAPTER_ROLES, default=list(ADAPTER_ROLES), help="in this order")
    parser.add_argument("--db", type=Path, help="a campaign's database: learn from its votes too")
    parser.add_argument("--use", choices=MODES, help="human votes, automatic rewards or both (default: both with --db, else automatic)")
    parser.add_argument(
        "--reward",
        choices=get_args(RewardKind),
        default="reference",
        help="hold texts against what was really written, or not, as in live use (with --use both always the latter); for summaries also "
        "how probable they make what was really written",
    )
    parser.add_argument("--credit", choices=("differential", "raw"), default="differential", help="raw is the ablation")
    parser.add_argument("--dev", type=int, default=40, help="held-out reviews of people never trained on, for the evaluation")
    parser.add_argument("--out", type=Path, help="the registry to publish to (default: adapters under PAT_HOME)")
    parser.add_argument("--no-activate", action="store_true", help="publish without serving it: somebody looks at it and activates it")
    parser.add_argument("--until", default="", metavar="TIME", help="learn from answers given until then, such as 2026-11-24T17:00:00.000Z")
    parser.add_argument("--progress-file", type=Path, metavar="FILE", help="keep in FILE where the run stands, for another program")
    _common_options(parser, RoundSettings((Path(),)).dpo)


def _closed_loop_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--taste", required=True, metavar="FILE.py:function", help="a function from a text to a number; the code is run")
    parser.add_argument("--data", type=Path, default=DEMO_CORPUS, metavar="FILE", help="a corpus file (default: the demo corpus)")
    parser.add_argument("--votes", type=int, default=Size().votes)
    parser.add_argument("--cases", type=int, default=Size().cases, help="held-out texts that the taste judges at the end")
    _common_options(parser, Size().dpo)


def _common_options(parser: argparse.ArgumentParser, dpo: DPOSettings) -> None:
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--learning-rate", type=float, default=dpo.learning_rate)
    parser.add_argument("--beta", type=float, default=dpo.beta)
    parser.add_argument("--epochs", type=int, default=dpo.epochs)
    parser.add_argument("--precision", choices=("auto", "float32", "bfloat16"), default=dpo.precision)
    parser.add_argument("--json", type=Path, metavar="OUT", help="also write the report here")


def _dpo(default: DPOSettings, options: argparse.Namespace) -> DPOSettings:
    given = {name: getattr(options, name) for name in ("learning_rate", "beta", "epochs", "precision", "seed")}
    return replace(default, **given)


def _rounds(config: Config, options: argparse.Namespace) -> None:
    with RunFile(options.progress_file) if options.progress_file else nullcontext() as watch, stoppable() as cancel:
        if options.use in ("human", "both") and options.db is None:
            raise ValueError(f"--use {options.use} learns from votes: name their database with --db")
        settings = RoundSettings(
            tuple(options.data),
            options.rounds,
            options.prompts,
            options.candidates,
            options.texts,
            tuple(options.roles),
            options.use or ("both" if options.db else "automatic"),
            options.reward,
            options.credit,
            options.dev,
            options.seed,
            _dpo(RoundSettings((Path(),)).dpo, options),
        )
        votes: tuple = ((), ())
        if options.db is not None:
            with open_store(options.db, read_only=True) as store:
                votes = lessons(store, options.until)
        registry, progress = options.out or config.home / "adapters", _told(terminal_progress(), watch)
        _check_out(options.json)
        report = learn(config, settings, registry, votes, progress=progress, cancel=cancel, watch=watch, activate=not options.no_activate)
        _write(options.json, report)
        if not any("training" in step for step in report["steps"]):
            reasons = dict.fromkeys(step["why"].removeprefix("nothing to train on: ") for step in report["steps"])
            raise ValueError(f"nothing was trained: {'; '.join(reasons)}")


def _check_out(path: Path | None) -> None:
    """ValueError where ``path`` cannot be written; said before a run and not at its end."""
    if path and not (path.parent.is_dir() and os.access(path if path.exists() else path.parent, os.W_OK) and not path.is_dir()):
        raise ValueError(f"--json {path} cannot be written; name a file in a folder that is there")


def _write(path: Path | None, result: Mapping[str, Any]) -> None:
    if path:
        path.write_text(json.dumps(result, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


def _told(bar: Progress, watch: RunFile | None) -> Progress:
    """Tells a bar and the run's file. Trainings tell the file of themselves, with their curves."""
    if watch is None:
        return bar

    def both(label: str, done: int, total: int) -> None:
        bar(label, done, total)
        if watch.state.part != "training":
            watch.progress(label, done, total)

    return both


@contextmanager
def stoppable() -> Iterator[threading.Event]:
    """An event that SIGINT or SIGTERM sets, so that a run ends where nothing is lost; the second of them interrupts it at once."""
    cancel = threading.Event()

    def heard(number: int, frame: object) -> None:
        if cancel.is_set():
            raise KeyboardInterrupt
        cancel.set()
        print("stopping after the part at work; once more ends it at once", file=sys.stderr, flush=True)

    if threading.current_thread() is not threading.main_thread():  # only there signals are heard
        yield cancel
        return
    before = {number: signal.signal(number, heard) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield cancel
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _closed_loop(config: Config, options: argparse.Namespace) -> None:
    _check_out(options.json)
    taste = load_taste(options.taste)
    size = Size(options.votes, options.cases, _dpo(Size().dpo, options))
    progress = terminal_progress()
    base = open_base(config, progress)
    bench = open_bench(config, options.data, open_llm(config, progress, adapters=base.adapters), progress)
    result = closed_loop(config, base, bench, taste, options.taste.rpartition("/")[2], options.seed, size, progress)
    print(as_text(result))
    _write(options.json, result)
