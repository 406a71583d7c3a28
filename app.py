"""The program: settings -> objects -> pages -> server. ``python app.py [--host ADDRESS] [--port N] [--data FILE] [--no-browser]``.

The page answers first and the models load behind it. Leaves out everything else: each view is built by its own module, and a new one is
a line in ``VIEWS``.
"""

from __future__ import annotations

import argparse
import logging
import os
import secrets
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from pat_core.config import DEMO_CORPUS, Config, load_config

if TYPE_CHECKING:
    import gradio as gr

    from annotate.campaign import Campaign
    from annotate.jobs import Jobs
    from annotate.training import Training
    from pat_core.progress import Progress
    from pat_core.ui.opening import EngineRoom, Opening
    from pat_core.ui.runs import Runs

log = logging.getLogger("pat")
EXAMPLES = Path(__file__).resolve().parent / "assets" / "examples.json"
SHIPPED_RESULTS = Path(__file__).resolve().parent / "assets" / "results"


class Desk(NamedTuple):
    """What every view is built from."""

    opening: Opening
    runs: Runs
    campaign: Campaign
    jobs: Jobs
    results: tuple[Path, ...] = (SHIPPED_RESULTS,)  # folders of evaluations
    training: Training | None = None  # runs that the owner starts; None for none


class View(NamedTuple):
    """A page: its name, its path ('' for the first one) and what lays it out inside the current page of the Blocks."""

    name: str
    path: str
    build: Callable[[gr.Blocks, Desk], None]


def _compose(demo: gr.Blocks, desk: Desk) -> None:
    from annotate.ui.choice import build_choice
    from pat_core.ui.compose import build_compose
    from pat_core.ui.form import load_examples

    build_compose(demo, desk.opening, desk.runs, load_examples(EXAMPLES), after_run=partial(build_choice, campaign=desk.campaign))


def _annotate(demo: gr.Blocks, desk: Desk) -> None:
    from annotate.protocol import PageProtocol
    from annotate.ui.page import build_annotate

    build_annotate(demo, PageProtocol(desk.campaign), sign_in=bool(os.environ.get("OAUTH_CLIENT_ID")))  # set on a Space with hf_oauth


def _owner(demo: gr.Blocks, desk: Desk) -> None:
    from annotate.ui.owner import build_owner

    build_owner(demo, desk.campaign, desk.opening, desk.jobs, desk.training)


def _results(demo: gr.Blocks, desk: Desk) -> None:
    from pat_core.ui.results import build_results

    build_results(demo, desk.results)


VIEWS = (
    View("Compose", "", _compose),
    View("Annotate", "annotate", _annotate),
    View("Results", "results", _results),
    View("Owner", "owner", _owner),
)


def build_app(desk: Desk, views: tuple[View, ...] = VIEWS) -> gr.Blocks:
    """The whole app, not yet launched, with its queue: one run on the model at a time, at most 100 waiting."""
    import gradio as gr

    with gr.Blocks(title="PaT Workbench", analytics_enabled=False, delete_cache=(3600, 3600), fill_width=True) as demo:
        views[0].build(demo, desk)
    for view in views[1:]:
        with demo.route(view.name, f"/{view.path}", show_in_navbar=False):
            view.build(demo, desk)
    return demo.queue(api_open=False, max_size=100, default_concurrency_limit=8)


def launch_settings(on_space: bool) -> dict[str, Any]:
    """Arguments of ``launch`` that are the same for every start; on a Space the hub's page may frame the app."""
    from starlette.middleware import Middleware

    from pat_core.ui import theme
    from pat_core.ui.middleware import Guard

    ancestors = ("'self'", "https://huggingface.co", "https://*.hf.space") if on_space else ("'self'",)
    return {
        "theme": theme.theme(),
        "css": theme.css(),
        "app_kwargs": {"middleware": [Middleware(Guard, frame_ancestors=ancestors)], "docs_url": None, "redoc_url": None},
        "_frontend": False,  # else Gradio asks itself for its page once and gives up where many pages reconnect after a restart
        "footer_links": [],
        "allowed_paths": [],
        "max_file_size": "1mb",
        "enable_monitoring": False,
        "mcp_server": False,
        "pwa": False,
        "quiet": True,
        "run_history": False,
        "share": False,
        "show_error": False,
        "ssr_mode": False,
        "state_session_capacity": 500,
        "strict_cors": True,
    }


def open_engine_room(
    config: Config, data: Path, between: Callable[[], AbstractContextManager[object]] = nullcontext
) -> Callable[[Progress], EngineRoom]:
    """What the opening thread does; imports the heavy half of the program only there. ``between`` is where engines may be exchanged."""

    def load(report: Progress) -> EngineRoom:
        from pat_core.llm import adapter_base, open_llm
        from pat_core.pipeline import open_workbench, trace_to_json
        from pat_core.progress import terminal_progress
        from pat_core.serving import Serving
        from pat_core.ui.opening import EngineRoom

        in_terminal = terminal_progress()

        def both(label: str, done: int, total: int) -> None:
            report(label, done, total)
            in_terminal(label, done, total)

        bench = open_workbench(config, data, both)
        serving = Serving(bench, config.home, adapter_base(config), lambda adapters: open_llm(config, adapters=adapters), between)
        serving.watch()
        return EngineRoom(bench, trace_to_json, serving)

    return load


def open_votes(config: Config, owner_token: str, space_id: str) -> Campaign:
    """The annotation campaign. On a Space, whose disk does not last, its votes come from a private dataset and go there."""
    from huggingface_hub import get_token

    from annotate.campaign import Campaign, open_campaign
    from annotate.database import StoreError
    from annotate.mirror import open_repo

    try:
        repo = open_repo(space_id, get_token() or "", config.votes_repo)
    except ValueError as error:
        log.warning("%s", error)
        return open_campaign(config.annotations, owner_token, ephemeral=True)
    except StoreError as error:  # another campaign must not begin in place of the one that cannot be reached
        return Campaign(config.annotations, None, owner_token, fault=str(error))
    return open_campaign(config.annotations, owner_token, repo=repo)


def main(argv: list[str] | None = None) -> int:
    """Serve until interrupted. 0 after a clean end, 2 for a setting, file or port that cannot be used."""
    args = _arguments(argv)
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    for talkative in ("httpx", "bm25s", "sentence_transformers"):
        logging.getLogger(talkative).setLevel(logging.WARNING)
    try:
        config = load_config()
        if not args.data.is_file():
            raise ValueError(
                f"There is no file {args.data}. Give --data a JSONL, CSV, Parquet or JSON file of reviews, "
                "or leave it out for the demo corpus."
            )
        scratch = config.home / "gradio"
        scratch.mkdir(parents=True, exist_ok=True)
    except (ValueError, OSError) as error:
        return _refuse(str(error))
    # Gradio reads both when it is imported, so it is imported after this
    os.environ.update(GRADIO_TEMP_DIR=str(scratch), GRADIO_ANALYTICS_ENABLED="False")
    from annotate.jobs import Jobs
    from annotate.training import Training
    from pat_core.ui.opening import Opening
    from pat_core.ui.runs import Runs

    on_space = bool(os.environ.get("SPACE_ID"))
    owner_token = config.owner_token or secrets.token_urlsafe(16)
    campaign = open_votes(config, owner_token, os.environ.get("SPACE_ID", ""))
    if campaign.fault:
        log.warning("%s Until that is put right no vote can be saved; the rest of the app works.", campaign.fault)
    runs = Runs()
    opening = Opening(open_engine_room(config, args.data, runs.between))
    training = Training(config.home, args.data, campaign.path, config.threads)
    desk = Desk(opening, runs, campaign, Jobs(runs.turn), (config.home / "results", SHIPPED_RESULTS), training)
    demo = build_app(desk)
    host = "0.0.0.0" if on_space else args.host  # a Space is reached through the hub's proxy only
    try:
        _, url, _ = demo.launch(
            server_name=host,
            server_port=args.port,
            prevent_thread_lock=True,
            inbrowser=not (args.no_browser or on_space),
            **launch_settings(on_space),
        )
    except OSError:
        campaign.close()
        return _refuse(
            f"Port {args.port or 7860} on {host} is taken or not allowed: choose another with --port, "
            "or leave --port out to get the next free one."
        )
    print(f"PaT Workbench: {url}  (Ctrl-C ends it)", flush=True)
    shown = "the one in PAT_OWNER_TOKEN" if config.owner_token else owner_token
    print(f"Judge pairs: {url}annotate   Owner page: {url}owner, token: {shown}", flush=True)
    desk.opening.start()
    _wait_for_signal()
    print("Ending.", flush=True)
    desk.runs.stop_all()
    desk.jobs.stop()
    training.close()
    desk.jobs.wait(10)
    demo.close(verbose=False)
    campaign.close()
    serving = desk.opening.room.serving if desk.opening.room else None
    if not desk.opening.finished.is_set() or (serving and not serving.stop(5)):
        # a thread is inside native code that nothing can interrupt, and tearing the interpreter down under it aborts the process
        logging.shutdown()
        os._exit(0)
    return 0


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="app.py", description="PaT Workbench in the browser.")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default 127.0.0.1, this machine only)")
    parser.add_argument("--port", type=int, default=None, help="port; without it 7860 or the next free one")
    parser.add_argument("--data", type=Path, default=DEMO_CORPUS, metavar="FILE", help="reviews to work with (default: the demo corpus)")
    parser.add_argument("--no-browser", action="store_true", help="do not open a browser")
    args = parser.parse_args(argv)
    if args.port is not None and not 1 <= args.port <= 65535:
        parser.error(f"--port {args.port} must be from 1 to 65535")
    return args


def _refuse(sentence: str) -> int:
    print(f"app.py: {sentence}", file=sys.stderr)
    return 2


def _wait_for_signal() -> None:
    ended = threading.Event()
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, lambda *_: ended.set())
    while not ended.wait(1.0):  # an untimed wait would not see the signal on Windows
        pass


if __name__ == "__main__":
    sys.exit(main())
