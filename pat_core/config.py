"""Every knob of the program: its default, its unit, where it comes from. The only reader of the environment.

``Config`` is built once, by ``app.py`` or a ``main()``, and taken apart there: functions take the values they need, never a Config.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

ENGINES = ("auto", "openvino", "transformers", "server")
QUANTS = ("", "nf4", "int8")
DEMO_CORPUS = Path(__file__).resolve().parent.parent / "assets" / "demo_corpus.jsonl"


@dataclass(frozen=True, slots=True)
class Config:
    """Settings with the environment variable each one is read from."""

    home: Path  # PAT_HOME: weights, indexes, caches, the database; never in the repository
    model: str = "embedded"  # PAT_MODEL: embedded | hub id | local folder | file.gguf
    engine: str = "auto"  # PAT_ENGINE: auto | openvino | transformers | server
    quant: str = ""  # PAT_QUANT: '' | nf4 | int8, through bitsandbytes, CUDA only
    device: str = ""  # PAT_DEVICE: '' = cuda where present, else cpu
    llm_url: str = ""  # PAT_LLM_URL: an OpenAI-compatible server, for example http://127.0.0.1:8000/v1
    llm_key: str = ""  # PAT_LLM_KEY: its bearer token
    judge_url: str = ""  # PAT_JUDGE_URL: an OpenAI-compatible server whose model judges texts; '' turns judging off
    judge_model: str = ""  # PAT_JUDGE_MODEL: '' takes the first that this server lists
    judge_key: str = ""  # PAT_JUDGE_KEY: its bearer token
    embedder: str = "embedded"  # PAT_EMBEDDER: embedded | hub id | local folder
    threads: int = 2  # PAT_THREADS: CPU threads of the language model and of torch
    db: Path | None = None  # PAT_DB: the annotation database; None is annotations.db under home
    owner_token: str = ""  # PAT_OWNER_TOKEN: opens the Owner page; '' lets the app make one at each start and print it
    votes_repo: str = ""  # PAT_VOTES_REPO: private dataset for the votes' journal, on a Space only

    @property
    def annotations(self) -> Path:
        """The annotation database's file."""
        return self.db or self.home / "annotations.db"


def load_config(env: Mapping[str, str] = os.environ) -> Config:
    """The settings named in ``env``; raises ValueError naming a bad value, the accepted ones and what to do."""
    home = Path(env.get("PAT_HOME") or Path.home() / ".cache" / "pat-workbench").expanduser()
    config = Config(
        home=home,
        model=env.get("PAT_MODEL", "").strip() or "embedded",
        engine=env.get("PAT_ENGINE", "").strip().lower() or "auto",
        quant=env.get("PAT_QUANT", "").strip().lower(),
        device=env.get("PAT_DEVICE", "").strip().lower(),
        llm_url=env.get("PAT_LLM_URL", "").strip().rstrip("/"),
        llm_key=env.get("PAT_LLM_KEY", "").strip(),
        judge_url=env.get("PAT_JUDGE_URL", "").strip().rstrip("/"),
        judge_model=env.get("PAT_JUDGE_MODEL", "").strip(),
        judge_key=env.get("PAT_JUDGE_KEY", "").strip(),
        embedder=env.get("PAT_EMBEDDER", "").strip() or "embedded",
        threads=_threads(env.get("PAT_THREADS", "")),
        db=Path(env["PAT_DB"]).expanduser() if env.get("PAT_DB", "").strip() else None,
        owner_token=env.get("PAT_OWNER_TOKEN", "").strip(),
        votes_repo=env.get("PAT_VOTES_REPO", "").strip(),
    )
    _check_choice("PAT_ENGINE", config.engine, ENGINES)
    _check_choice("PAT_QUANT", config.quant, QUANTS)
    if config.engine == "server" and not config.llm_url:
        raise ValueError("PAT_ENGINE=server needs PAT_LLM_URL, for example PAT_LLM_URL=http://127.0.0.1:8000/v1")
    for name, url in (("PAT_LLM_URL", config.llm_url), ("PAT_JUDGE_URL", config.judge_url)):
        if url and not url.startswith(("http://", "https://")):
            raise ValueError(f"{name} must begin with http:// or https://, not {url!r}")
    if config.owner_token and len(config.owner_token) < 12:
        raise ValueError("PAT_OWNER_TOKEN is shorter than 12 characters and could be guessed: choose a longer one, or leave it out")
    return config


def _check_choice(name: str, value: str, accepted: tuple[str, ...]) -> None:
    if value not in accepted:
        shown = ", ".join(repr(a) for a in accepted)
        raise ValueError(f"{name}={value!r} is not known; use one of {shown}")


def _threads(value: str) -> int:
    """Threads to use: the value given, else the cores this process may run on, at most 8 (more do not help a 135M model)."""
    if not value.strip():
        return max(1, min(8, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1))
    if not value.strip().isdigit() or int(value) < 1:
        raise ValueError(f"PAT_THREADS={value!r} must be a whole number of at least 1")
    return int(value)
