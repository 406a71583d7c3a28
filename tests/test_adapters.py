"""Adapter versions: published whole, verified before use, the shipped ones behind the registry's own."""

import json

import pytest

from pat_core import adapters
from pat_core.adapters import AdapterError, activate, active_adapters, publish, read_manifest, verify

BASE = "b" * 64


@pytest.fixture
def trained(tmp_path):
    folder = tmp_path / "trained"
    folder.mkdir()
    (folder / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    (folder / "adapter_model.safetensors").write_bytes(b"weights")
    return folder


@pytest.fixture(autouse=True)
def no_shipped(tmp_path, monkeypatch):
    monkeypatch.setattr(adapters, "SHIPPED", tmp_path / "shipped")


def published(trained, registry, role="style"):
    return publish(trained, registry, role, "SmolLM2", BASE, data={"demo": 1}, settings={"rank": 8}, metrics={"loss": 1.5})


def test_a_published_version_is_named_by_its_content_and_served(trained, tmp_path):
    manifest = published(trained, tmp_path / "adapters")
    assert manifest.version.startswith("style-")
    assert verify(tmp_path / "adapters" / manifest.version, BASE) == manifest == read_manifest(tmp_path / "adapters" / manifest.version)
    assert active_adapters(tmp_path, BASE) == {"style": tmp_path / "adapters" / manifest.version}
    assert published(trained, tmp_path / "adapters") == manifest  # again: the same version, not a second one


def test_the_registry_goes_before_the_shipped_and_a_damaged_one_falls_back(trained, tmp_path):
    shipped = published(trained, tmp_path / "shipped")
    (trained / "adapter_model.safetensors").write_bytes(b"better weights")
    own = published(trained, tmp_path / "adapters")
    assert active_adapters(tmp_path, BASE)["style"].name == own.version != shipped.version
    (tmp_path / "adapters" / own.version / "adapter_model.safetensors").write_bytes(b"better weightz")
    assert active_adapters(tmp_path, BASE)["style"].name == shipped.version


@pytest.mark.parametrize("name", ["adapter_config.json", "adapter_model.safetensors"])
def test_a_changed_or_missing_file_is_refused(trained, tmp_path, name):
    folder = tmp_path / "adapters" / published(trained, tmp_path / "adapters").version
    (folder / name).write_bytes(b"x")
    with pytest.raises(AdapterError, match=f"damaged: {name}"):
        verify(folder, BASE)
    (folder / name).unlink()
    with pytest.raises(AdapterError, match=f"damaged: {name}"):
        verify(folder, BASE)


def test_another_base_model_or_role_is_refused(trained, tmp_path):
    folder = tmp_path / "adapters" / published(trained, tmp_path / "adapters").version
    with pytest.raises(AdapterError, match="not the model that is loaded"):
        verify(folder, "c" * 64)
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps(manifest | {"role": "poet"}))
    with pytest.raises(AdapterError, match="unknown role 'poet'"):
        verify(folder, BASE)


def test_what_is_not_there_cannot_be_activated_or_read(tmp_path):
    with pytest.raises(AdapterError, match="no adapter version"):
        activate(tmp_path, "style", "style-0")
    (tmp_path / "adapters").mkdir()
    (tmp_path / "adapters" / "active.json").write_text("{ not json")
    assert active_adapters(tmp_path, BASE) == {}
