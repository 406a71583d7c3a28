"""The real training command in a process of its own that starts in no time: a server that has imported everything forks for each run.

A fork has its own memory, limits and standard streams, can be killed with SIGKILL, and ends with the exit status of ``python -m
pat_core.train``. The server itself computes nothing and starts no thread, so its forks inherit a clean process. Run as a script it is that
server: one JSON object on each line in, one out.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import resource
import subprocess
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
QUIET = {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "OMP_NUM_THREADS": "1", "TQDM_DISABLE": "1", "PYTHONWARNINGS": "ignore"}

NEEDED = (
    "annotate.learning", "bm25s", "datasets", "nltk.translate.meteor_score", "nltk.corpus", "pat_core.dpo_trainer", "peft",
    "rouge_score.rouge_scorer", "scipy.stats", "sentence_transformers", "sklearn.linear_model", "torch_geometric.nn",
)  # fmt: skip


@dataclass(frozen=True)
class Ended:
    """How a run ended: ``code`` as a shell would see it, -9 where it was killed; ``error`` the sentence on stderr that begins so."""

    code: int
    out: str
    err: str

    @property
    def error(self) -> str:
        return "\n".join(line for line in self.err.splitlines() if line.startswith("error:"))


class Commands:
    """The server. Close it at the end."""

    def __init__(self) -> None:
        environment = os.environ | QUIET | {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}"}
        self._process = subprocess.Popen(
            [sys.executable, __file__], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, encoding="utf-8", bufsize=1
        )
        self._lock = threading.Lock()

    def run(self, arguments: list[str], folder: Path, **asked: Any) -> Ended:
        """A whole run; ``asked`` as for ``start``."""
        return self.wait(self.start(arguments, folder, **asked), folder)

    def start(
        self, arguments: list[str], folder: Path, env: Mapping[str, str] | None = None, limits: Mapping[str, int] | None = None
    ) -> int:
        """The process id of a run begun. Its streams go to files in ``folder``; ``limits`` are rlimits by name, "AS" and "DATA" in bytes
        above what the process has at its start."""
        folder.mkdir(parents=True, exist_ok=True)
        return self._ask({"start": arguments, "folder": str(folder), "env": dict(env or {}), "limits": dict(limits or {})})

    def wait(self, pid: int, folder: Path) -> Ended:
        code = self._ask({"wait": pid})
        return Ended(code, (folder / "out").read_text("utf-8"), (folder / "err").read_text("utf-8"))

    def _ask(self, message: Mapping[str, Any]) -> int:
        with self._lock:
            self._process.stdin.write(json.dumps(message) + "\n")
            return int(self._process.stdout.readline())

    def close(self) -> None:
        self._process.stdin.close()
        self._process.wait()


def _serve() -> None:
    for name in NEEDED:
        importlib.import_module(name)
    from transformers import AutoTokenizer, BertModel, LlamaForCausalLM, PreTrainedTokenizerFast  # noqa: F401

    import pat_core.train

    gc.freeze()
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8", buffering=1)
    os.dup2(2, 1)
    for line in iter(sys.stdin.readline, ""):
        message = json.loads(line)
        if "wait" in message:
            status = os.waitpid(message["wait"], 0)[1]
            answers.write(f"{-os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)}\n")
            continue
        pid = os.fork()
        if pid == 0:
            _become(message, pat_core.train.main)
        answers.write(f"{pid}\n")


def _become(message: Mapping[str, Any], main) -> None:
    folder = Path(message["folder"])
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    for name, number in (("out", 1), ("err", 2)):
        os.dup2(os.open(folder / name, os.O_CREAT | os.O_WRONLY | os.O_TRUNC), number)
    os.chdir(ROOT)
    os.environ.update(message["env"])
    for name, value in message["limits"].items():
        has = _size() if name in ("AS", "DATA") else 0
        resource.setrlimit(getattr(resource, f"RLIMIT_{name}"), (has + value, resource.RLIM_INFINITY))
    try:
        code = main(message["start"])
    except SystemExit as ended:
        code = ended.code or 0
    except BaseException:
        import traceback

        traceback.print_exc()
        code = 70
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _size() -> int:
    """Bytes of address space that this process has."""
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


if __name__ == "__main__":
    _serve()
