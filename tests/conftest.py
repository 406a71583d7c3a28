"""Fixtures shared by all tests: offline always, and where the real benchmark files are."""

import os
from pathlib import Path

import pytest

os.environ.update(HF_HUB_OFFLINE="1", GRADIO_ANALYTICS_ENABLED="False", NO_PROXY="127.0.0.1,localhost", TOKENIZERS_PARALLELISM="false")
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
