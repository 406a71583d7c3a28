"""``python -m annotate.schedule make --data FILE --n 50 --kind one-factor|systems``: pairs made with the pipeline, kept in the database."""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from annotate import making
from annotate.database import StoreError
from annotate.store import open_store
from pat_core.config import load_config
from pat_core.corpus import read_corpus
from pat_core.llm.types import LLMError
from pat_core.progress import terminal_progress


class _Parser(argparse.ArgumentParser):
    """A parser that answers a mistake with one sentence."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"error: {message}\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line: 0, 2 for input that cannot be used, 1 where something else failed; then with a sentence on standard error."""
    parser = _Parser(prog="python -m annotate.schedule", description="Make pairs of texts for people to compare.")
    make = parser.add_subparsers(dest="command", required=True).add_parser("make", help="write pairs with the pipeline and keep them")
    make.add_argument("--data", type=Path, required=True, help="a corpus file; its reviews are held out one by one")
    make.add_argument("--n", type=int, required=True, help="pairs to judge; checks come on top")
    make.add_argument("--kind", required=True, help="one-factor (two summaries or texts of one agent) or systems (PaT and an alternative)")
    make.add_argument("--agent", help="style, topic, generator or all, for one-factor pairs (default: style and topic in turn)")
    make.add_argument("--db", type=Path, help="the database (default: annotations.db under PAT_HOME)")
    make.add_argument("--seed", type=int, help="another seed makes other pairs (default: the number of pairs in the database)")
    make.add_argument("--round", type=int, default=0, help="the learning round that the pairs belong to")
    make.add_argument("--json", action="store_true", help="print the report as JSON")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    try:
        print(_make(options))
    except StoreError as error:
        held = "is in use" in str(error)
        ways = "Another program, most likely the app, has the database open: make the pairs on its Owner page, or stop it and try again."
        print(f"error: {ways if held else error}", file=sys.stderr)
        return 1
    except (LLMError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2 if isinstance(error, FileNotFoundError) else 1
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped: the pairs made so far are in the database", file=sys.stderr)
        return 130
    return 0


def _make(options: argparse.Namespace) -> str:
    """Make pairs and keep each as it comes; the report, as text or JSON."""
    from pat_core.pipeline import open_workbench

    wish = making.Wish(options.n, options.kind, making.agents_named(options.agent, options.kind), options.round)
    config = load_config()
    progress = terminal_progress()
    making.require_targets(read_corpus(options.data, progress=progress)[0])  # before the model takes its time
    with open_store(options.db or config.home / "annotations.db") as store:
        seed = store.counts()["pairs"] if options.seed is None else options.seed
        bench = open_workbench(config, options.data, progress)
        report = making.keep(store, making.make(bench, wish, seed, progress=progress))
    return json.dumps(report.to_json(), ensure_ascii=False, indent=2) if options.json else str(report)


if __name__ == "__main__":
    sys.exit(main())
