"""Adapter versions: published whole, verified before use, gone back from; the shipped ones behind the registry's own."""

import errno
import json
import math
import os
import threading

import numpy as np
import pytest
from safetensors.numpy import save_file

from pat_core import adapters
from pat_core.adapters import (
    KEPT,
    AdapterError,
    activate,
    active_adapters,
    history,
    judgments_sha256,
    publish,
    read_manifest,
    roll_back,
    verify,
    versions,
)
from pat_core.lora import CANARIES, canary, check_lora, check_served, gibberish
from pat_core.types import ADAPTER_ROLES

BASE = "b" * 64
CONFIG = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "bias": "none", "target_modules": ["v_proj", "q_proj"]}
REAL_SHIPPED = adapters.SHIPPED


@pytest.fixture(autouse=True)
def no_shipped(tmp_path, monkeypatch):
    monkeypatch.setattr(adapters, "SHIPPED", tmp_path / "shipped")


def lora(seed: int = 0) -> dict[str, np.ndarray]:
    """The tensors of a LoRA of rank 4 on two projections of two layers."""
    rng = np.random.default_rng(seed)
    names = [f"base_model.model.model.layers.{i}.self_attn.{p}" for i in range(2) for p in ("q_proj", "v_proj")]
    halves = {"A": (4, 16), "B": (16, 4)}
    return {f"{n}.lora_{h}.weight": rng.normal(0, 0.02, shape).astype(np.float16) for n in names for h, shape in halves.items()}


def save(folder, tensors=None, **config):
    folder.mkdir(exist_ok=True)
    (folder / "adapter_config.json").write_text(json.dumps(CONFIG | {"base_model_name_or_path": "/home/somebody/model"} | config))
    save_file(lora() if tensors is None else tensors, folder / "adapter_model.safetensors")
    return folder


@pytest.fixture
def trained(tmp_path):
    return save(tmp_path / "trained")


def published(trained, registry, role="style", **more):
    return publish(trained, registry, role, "SmolLM2", BASE, data={"demo": 1}, settings={"rank": 4}, metrics={"loss": 1.5}, **more)


def series(tmp_path, n, role="style"):
    """``n`` different versions published one after the other, the oldest first."""
    made = []
    for i in range(n):
        made.append(published(save(tmp_path / "trained", lora(i)), tmp_path / "adapters", role, by=f"owner {i}").version)
        os.utime(tmp_path / "adapters" / made[-1], (i, i))
    return made


def serving(tmp_path, role="style"):
    return active_adapters(tmp_path, BASE)[role].name


# Publishing


def test_a_published_version_is_named_by_its_content_and_served(trained, tmp_path):
    manifest = published(trained, tmp_path / "adapters", parent="style-0", judgment_ids=("b", "a", "b"))
    assert manifest.version.startswith("style-") and manifest.parent == "style-0"
    assert manifest.judgment_ids == ("a", "b") and manifest.judgments_sha256 == judgments_sha256(["b", "a"]) != judgments_sha256(["a"])
    folder = tmp_path / "adapters" / manifest.version
    assert verify(folder, BASE) == manifest == read_manifest(folder)
    assert active_adapters(tmp_path, BASE) == {"style": folder}
    assert published(trained, tmp_path / "adapters") == manifest  # again: the same version, not a second one
    config = json.loads((folder / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "SmolLM2" and config["target_modules"] == ["q_proj", "v_proj"]  # no path of this machine
    assert sorted(p.name for p in folder.iterdir()) == ["adapter_config.json", "adapter_model.safetensors", "manifest.json"]


def test_the_shipped_versions_are_sound_and_of_one_base():
    manifests = [read_manifest(p) for p in REAL_SHIPPED.glob("*-*")]
    assert {m.role for m in manifests} == set(ADAPTER_ROLES) and len({m.base_sha256 for m in manifests}) == 1
    for m in manifests:
        assert verify(REAL_SHIPPED / m.version, m.base_sha256) == m


def test_the_registry_goes_before_the_shipped_and_a_damaged_one_falls_back(trained, tmp_path):
    shipped = published(trained, tmp_path / "shipped")
    first = published(save(trained, lora(1)), tmp_path / "adapters")
    second = published(save(trained, lora(2)), tmp_path / "adapters")
    assert serving(tmp_path) == second.version
    for damaged, then in ((second, first), (first, shipped)):  # what served before, then the shipped one
        (tmp_path / "adapters" / damaged.version / "adapter_model.safetensors").write_bytes(b"zzz")
        assert serving(tmp_path) == then.version


def test_a_version_that_fails_its_examination_is_not_published(trained, tmp_path):
    before = published(trained, tmp_path / "adapters")
    seen = []

    def examine(folder):
        seen.append(verify(folder, BASE).version)
        if len(seen) == 1:
            raise AdapterError("the canary died")
        return {"canary": "fine"}

    better = save(tmp_path / "better", lora(1))
    with pytest.raises(AdapterError, match="canary died"):
        published(better, tmp_path / "adapters", examine=examine)
    assert serving(tmp_path) == before.version and [p.name for p in (tmp_path / "adapters").glob("*-*")] == [before.version]
    after = published(better, tmp_path / "adapters", examine=examine)
    assert after.metrics == {"loss": 1.5, "examined": {"canary": "fine"}} and seen == [after.version] * 2
    assert read_manifest(tmp_path / "adapters" / after.version) == after and serving(tmp_path) == after.version


def test_a_full_disk_leaves_the_registry_as_it_was(trained, tmp_path):
    before = published(trained, tmp_path / "adapters")

    def full(folder):
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(AdapterError, match=r"disk of .* is full"):
        published(save(tmp_path / "better", lora(1)), tmp_path / "adapters", examine=full)
    assert serving(tmp_path) == before.version and not list((tmp_path / "adapters").glob(".new-*"))


def test_a_version_that_was_damaged_is_mended_by_publishing_it_again(trained, tmp_path):
    manifest = published(trained, tmp_path / "adapters")
    (tmp_path / "adapters" / manifest.version / "adapter_model.safetensors").write_bytes(b"zzz")
    assert active_adapters(tmp_path, BASE) == {}
    assert published(trained, tmp_path / "adapters").version == manifest.version == serving(tmp_path)


def test_many_publishers_at_once_lose_nothing(tmp_path):
    folders = [save(tmp_path / f"trained-{i}", lora(i)) for i in range(6)]
    threads = [threading.Thread(target=published, args=(folder, tmp_path / "adapters")) for folder in folders]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    changes = history(tmp_path / "adapters")
    assert len({c.version for c in changes}) == 6 and changes[0].version == serving(tmp_path)
    assert [c.previous for c in changes] == [*(c.version for c in changes[1:]), ""]


# Going back


def test_rolling_back_step_by_step_to_the_shipped_version(trained, tmp_path):
    shipped = published(save(trained, lora(99)), tmp_path / "shipped").version
    first, second, third = series(tmp_path, 3)
    registry = tmp_path / "adapters"
    assert roll_back(registry, "style", BASE, by="Ada") == second == serving(tmp_path)
    assert roll_back(registry, "style", BASE) == first == serving(tmp_path)
    assert roll_back(registry, "style", BASE) == "" and serving(tmp_path) == shipped
    with pytest.raises(AdapterError, match="no earlier version for style"):
        roll_back(registry, "style", BASE)
    activate(registry, "style", third, BASE, by="Bob")
    assert serving(tmp_path) == third and roll_back(registry, "style", BASE) == ""
    told = [(c.action, c.version, c.previous, c.by) for c in history(registry)]
    assert told[1] == ("activated", third, "", "Bob") and told[4] == ("rolled back", second, third, "Ada")
    assert told[-1] == ("published", first, "", "owner 0") and all(c.at.endswith("+00:00") for c in history(registry))


def test_rolling_back_passes_over_a_damaged_version(tmp_path):
    first, second, third = series(tmp_path, 3)
    (tmp_path / "adapters" / second / "manifest.json").write_text("{}")
    assert serving(tmp_path) == third and roll_back(tmp_path / "adapters", "style", BASE) == first == serving(tmp_path)


def test_the_roles_are_gone_back_from_one_by_one(tmp_path):
    first, _ = series(tmp_path, 2)
    topic = series(tmp_path, 1, "topic")[0]
    roll_back(tmp_path / "adapters", "style", BASE)
    assert (serving(tmp_path), serving(tmp_path, "topic")) == (first, topic)


def test_the_last_versions_are_kept_and_older_ones_go_with_what_was_merged_of_them(tmp_path):
    merged = tmp_path / "weights" / "q8-1"
    merged.mkdir(parents=True)
    oldest = series(tmp_path, 1)[0]
    (merged / f"SmolLM2.{oldest}.gguf").write_bytes(b"")
    made = [oldest, *series(tmp_path, KEPT + 3)[1:]]
    assert sorted(p.name for p in (tmp_path / "adapters").glob("style-*")) == sorted(made[-KEPT - 1 :])
    assert not merged.exists()
    for version in reversed(made[-KEPT - 1 : -1]):
        assert roll_back(tmp_path / "adapters", "style", BASE) == version


def test_a_shipped_version_can_be_chosen_over_ones_own(trained, tmp_path):
    shipped = published(save(trained, lora(99)), tmp_path / "shipped").version
    series(tmp_path, 1)
    activate(tmp_path / "adapters", "style", shipped, BASE)
    assert active_adapters(tmp_path, BASE)["style"] == tmp_path / "shipped" / shipped


def test_what_is_listed(trained, tmp_path):
    shipped = published(save(trained, lora(99)), tmp_path / "shipped").version
    first, second = series(tmp_path, 2)
    published(trained, tmp_path / "adapters", "topic")
    (tmp_path / "adapters" / first / "adapter_config.json").write_text("{}")
    listed = {v.version: v for v in versions(tmp_path, BASE)}
    assert [v.role for v in listed.values()] == ["style"] * 3 + ["topic"] and list(listed)[2] == shipped
    assert [v.version for v in listed.values() if v.serving and v.role == "style"] == [second]
    assert "damaged" in listed[first].problem and not listed[second].problem and listed[shipped].shipped
    assert listed[second].manifest.metrics == {"loss": 1.5}


def test_what_is_not_there_or_refused_cannot_be_activated(trained, tmp_path):
    registry = tmp_path / "adapters"
    version = published(trained, registry).version
    for name in ("style-0", "", "../trained", f"../adapters/{version}/.."):
        with pytest.raises(AdapterError, match="no adapter version"):
            activate(registry, "style", name)
    with pytest.raises(AdapterError, match="is for style, not for topic"):
        activate(registry, "topic", version)
    with pytest.raises(AdapterError, match="not the model that is loaded"):
        activate(registry, "style", version, "c" * 64)
    for content in ("{ not json", "[]", '{"style": 7, "previous": 3, "history": [1, {"role": "style"}]}'):
        (registry / "active.json").write_text(content)
        assert active_adapters(tmp_path, BASE) == {}
    activate(registry, "style", version)
    assert serving(tmp_path) == version


# Refusing


@pytest.mark.parametrize("name", ["adapter_config.json", "adapter_model.safetensors"])
def test_a_changed_or_missing_file_is_refused(trained, tmp_path, name):
    folder = tmp_path / "adapters" / published(trained, tmp_path / "adapters").version
    content = bytearray((folder / name).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / name).write_bytes(content)
    with pytest.raises(AdapterError, match=f"damaged: {name}"):
        verify(folder, BASE)
    (folder / name).unlink()
    with pytest.raises(AdapterError, match=f"damaged: {name}"):
        verify(folder, BASE)


def test_another_base_model_or_role_is_refused(trained, tmp_path):
    folder = tmp_path / "adapters" / published(trained, tmp_path / "adapters").version
    with pytest.raises(AdapterError, match="not the model that is loaded"):
        verify(folder, "c" * 64)
    assert active_adapters(tmp_path, "c" * 64) == {}
    manifest = json.loads((folder / "manifest.json").read_text())
    for changed, sentence in (({"role": "poet"}, "unknown role 'poet'"), ({"role": []}, "no readable"), ({"files": []}, "no readable")):
        (folder / "manifest.json").write_text(json.dumps(manifest | changed))
        with pytest.raises(AdapterError, match=sentence):
            verify(folder, BASE)


def without(tensors, *parts):
    return {name: t for name, t in tensors.items() if not all(p in name for p in parts)}


def with_value(value):
    tensors = lora()
    tensors[next(iter(tensors))][0, 0] = value
    return tensors


DAMAGED = {
    "NaN": (with_value(math.nan), {}, "holds nan"),
    "infinite": (with_value(math.inf), {}, "holds inf"),
    "huge": (with_value(30_000), {}, "holds 3"),
    "half the tensors": (without(lora(), "layers.1", "q_proj"), {}, "1 of 2 layers"),
    "one half of a module": (without(lora(), "layers.1", "q_proj", "lora_B"), {}, "lacks its other half"),
    "a module": (without(lora(), "v_proj"), {}, "no weights for v_proj"),
    "nothing": ({}, {}, "is empty"),
    "wrong keys": ({name.replace("base_model.model.", ""): t for name, t in lora().items()}, {}, "does not fit"),
    "other keys": (lora() | {"lm_head.weight": np.zeros((2, 2), np.float16)}, {}, "does not fit"),
    "wrong rank": (lora(), {"r": 8}, "LoRA of rank 8"),
    "no rank": (lora(), {"r": 0}, "has rank 0"),
    "shapes": (
        lora() | {k: np.zeros((4, 8), np.float16) for k in lora() if "1.self_attn.q_proj.lora_A" in k},
        {},
        "in one shape or several",
    ),
    "alpha": (lora(), {"lora_alpha": 1e9}, r"alpha 1000000000\.0"),
    "alpha NaN": (lora(), {"lora_alpha": math.nan}, "alpha nan"),
    "alpha negative": (lora(), {"lora_alpha": -8}, "alpha -8"),
    "DoRA": (lora(), {"use_dora": True}, "not a plain LoRA .use_dora"),
    "saved modules": (lora(), {"modules_to_save": ["lm_head"]}, "not a plain LoRA"),
    "another method": (lora(), {"peft_type": "IA3"}, "not a plain LoRA .IA3"),
}


@pytest.mark.parametrize("kind", DAMAGED)
def test_each_kind_of_damaged_adapter_is_refused_and_the_old_one_serves_on(tmp_path, kind):
    before = published(save(tmp_path / "good"), tmp_path / "adapters").version
    tensors, config, sentence = DAMAGED[kind]
    bad = save(tmp_path / "bad", tensors, **config)
    with pytest.raises(AdapterError, match=sentence):
        check_lora(bad)
    with pytest.raises(AdapterError, match=sentence):
        published(bad, tmp_path / "adapters")
    assert serving(tmp_path) == before and len(list((tmp_path / "adapters").glob("*-*"))) == 1


def test_files_cut_off_pickles_and_missing_ones_are_refused(trained, tmp_path):
    whole = (trained / "adapter_model.safetensors").read_bytes()
    for content in (b"", whole[: len(whole) // 2], b"\x80\x04pickle"):
        (trained / "adapter_model.safetensors").write_bytes(content)
        with pytest.raises(AdapterError, match="cannot be read"):
            published(trained, tmp_path / "adapters")
    (trained / "adapter_model.safetensors").write_bytes(whole)
    (trained / "adapter_model.bin").write_bytes(b"\x80\x04")
    with pytest.raises(AdapterError, match="can run code"):
        published(trained, tmp_path / "adapters")
    (trained / "adapter_model.bin").unlink()
    folder = tmp_path / "adapters" / published(trained, tmp_path / "adapters").version
    (folder / "adapter_model.BIN").write_bytes(b"")
    with pytest.raises(AdapterError, match="can run code"):
        verify(folder, BASE)
    (trained / "adapter_config.json").unlink()
    with pytest.raises(AdapterError, match=r"adapter_config\.json is missing"):
        published(trained, tmp_path / "adapters")
    with pytest.raises(AdapterError, match="unknown role 'base'"):
        published(trained, tmp_path / "adapters", "base")


# Examining


class Engine:
    """Answers each chat with a fixed text, or one by its prompt, and finds likely what it would write."""

    def __init__(self, answer, likely=-1.0, unlikely=-4.0):
        self.answer, self.likely, self.unlikely = answer, likely, unlikely

    def write(self, messages):
        return self.answer[messages[-1][1]] if isinstance(self.answer, dict) else self.answer

    def score(self, messages, text):
        return self.likely if text == self.write(messages) else self.unlikely


GOOD = "Evidence: Similar writers use about 30 words."
PROMPTS = [messages for messages, _ in CANARIES.values()]


def test_the_canary_passes_what_writes_and_refuses_what_does_not():
    assert canary("style", Engine(GOOD).write, Engine(GOOD).score) == {"canary": GOOD, "canary_log_prob": -4.0}
    for text, wrong in (
        ("", "has no word"),
        (" \n!!!", "has no word"),
        ("fine \ufffd\ufffd", "broken characters"),
        ("Evidence <|im_start|> fine", "control tokens"),
        ("a 1,2,3,4;5;6%%%%", "mostly not letters"),
        ("ha" * 40, "endless word"),
        ("the staff " * 12, "repeats itself"),
    ):
        assert wrong in gibberish(text)
        with pytest.raises(AdapterError, match=f"failed its canary.*{wrong}"):
            canary("topic", Engine(text).write, Engine(text).score)
    for value in (math.nan, -math.inf, -10.8):
        with pytest.raises(AdapterError, match="mean log-probability of"):
            canary("generator", Engine(GOOD).write, Engine("", unlikely=value).score)


def test_ordinary_texts_are_no_gibberish():
    for messages, text in CANARIES.values():
        assert gibberish(text) == "" and messages[-1][0] == "user"


def test_the_merged_model_has_to_write_what_the_adapter_writes():
    adapter = Engine({p[-1][1]: f"{GOOD} Number {i}." for i, p in enumerate(PROMPTS)})
    same = Engine(dict(adapter.answer))
    assert check_served(adapter.write, adapter.score, same.write, PROMPTS) == {"served_equal": 3, "served_asked": 3, "served_gap": 0.0}
    parted = Engine(adapter.answer | {PROMPTS[0][-1][1]: "Evidence: Similar writers use 31 words."})
    near = Engine(adapter.answer, unlikely=-1.2)  # a near tie that rounding turned
    found = check_served(near.write, near.score, parted.write, PROMPTS)
    assert found == {"served_equal": 2, "served_asked": 3, "served_gap": 0.2}
    with pytest.raises(AdapterError, match=r"the merged model is not the adapter: it writes.*3.00 nats"):
        check_served(adapter.write, adapter.score, parted.write, PROMPTS)
    with pytest.raises(AdapterError, match=r"the merged model is not the adapter.*has no word"):
        check_served(near.write, near.score, Engine("").write, PROMPTS)
