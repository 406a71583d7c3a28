"""Fixtures shared by all tests: offline always, and where the real benchmark files are."""

import os
import shutil
from pathlib import Path

import pytest

os.environ.update(HF_HUB_OFFLINE="1", GRADIO_ANALYTICS_ENABLED="False", NO_PROXY="127.0.0.1,localhost", TOKENIZERS_PARALLELISM="false")
CHROMIUM_ARGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip
DATA = Path(os.environ.get("PAT_TEST_DATA") or Path(__file__).resolve().parents[2] / "shared" / "data")


def benchmark_file(name: str) -> Path:
    """A real benchmark file such as amazon_dev.json; missing ones fail under CI and skip with a reason elsewhere."""
    path = DATA / name
    if not path.exists():
        reason = f"{name} is not in {DATA}: set PAT_TEST_DATA to the folder that holds the PGraphRAG dev splits"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    return path


@pytest.fixture(scope="session")
def amazon_dev() -> Path:
    return benchmark_file("amazon_dev.json")


@pytest.fixture(scope="session")
def hotel_dev() -> Path:
    return benchmark_file("hotel_dev.json")


@pytest.fixture(scope="session")
def gap_dev() -> Path:
    return benchmark_file("gap_dev.json")


@pytest.fixture(scope="session")
def embedded_home() -> Path:
    """A PAT_HOME that holds the embedded model; fetched once, as a visitor's first start does, and never deleted by a test."""
    from pat_core.config import load_config
    from pat_core.weights import embedded_gguf

    home = load_config().home
    embedded_gguf(home)
    return home


@pytest.fixture(scope="module")
def browser():
    """A real Chromium, driven by Playwright; a missing one fails under CI and skips with a reason elsewhere."""
    playwright = pytest.importorskip("playwright.sync_api", reason="pip install playwright (its own browsers are not needed)")
    names = ("chromium", "chromium-browser", "google-chrome")
    found = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, names)), None)
    if not found:
        reason = "no Chromium on this machine: run tests/install_chromium.sh, or set CHROMIUM to its path"
        pytest.fail(reason) if os.environ.get("CI") else pytest.skip(reason)
    playwright.expect.set_options(timeout=15_000)  # two busy cores make a page slow, not wrong
    with playwright.sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=found, args=CHROMIUM_ARGS)
        yield chromium
        chromium.close()
