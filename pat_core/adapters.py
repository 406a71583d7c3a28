"""Adapter versions: folders of safetensors with a manifest, found under PAT_HOME and among the shipped ones, verified before use.

A version is named by its content (role and the first twelve hex digits of its weights' sha256). safetensors carries no checksum and peft
loads damaged or foreign adapters without a word, so nothing is served that does not match its manifest and the base model. Leaves out, for
now: canary runs and roll back.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pat_core.types import ADAPTER_ROLES, Role

log = logging.getLogger(__name__)

SHIPPED = Path(__file__).resolve().parent.parent / "assets" / "adapters"
MANIFEST = "manifest.json"
FILES = ("adapter_config.json", "adapter_model.safetensors")


class AdapterError(ValueError):
    """An adapter version that must not be served; the message says what is wrong with it."""


@dataclass(frozen=True, slots=True)
class Manifest:
    """What an adapter version is: ``base`` names the model and ``base_sha256`` its weights file; ``files`` maps names to sha256."""

    role: Role
    version: str
    base: str
    base_sha256: str
    files: Mapping[str, str]
    data: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, Any] = field(default_factory=dict)
    parent: str = ""


def publish(
    trained: Path,
    registry: Path,
    role: Role,
    base: str,
    base_sha256: str,
    *,
    data: Mapping[str, Any],
    settings: Mapping[str, Any],
    metrics: Mapping[str, Any],
    parent: str = "",
) -> Manifest:
    """Copies a trained PEFT folder into ``registry`` as a new version, whole or not at all, and makes it the active one of its role."""
    files = {name: _sha256(trained / name) for name in FILES}
    version = f"{role}-{files['adapter_model.safetensors'][:12]}"
    manifest = Manifest(role, version, base, base_sha256, files, dict(data), dict(settings), dict(metrics), parent)
    target, new = registry / version, registry / f".new-{version}-{os.getpid()}"
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir(parents=True)
    for name in FILES:
        shutil.copyfile(trained / name, new / name)
    (new / MANIFEST).write_text(json.dumps(asdict(manifest), indent=2, sort_keys=True) + "\n", encoding="utf-8")
    if target.exists():
        shutil.rmtree(target)
    new.rename(target)
    activate(registry, role, version)
    return manifest


def activate(registry: Path, role: Role, version: str) -> None:
    """Makes ``version`` the one that ``registry`` serves for ``role``; AdapterError if it is not there."""
    if not (registry / version / MANIFEST).is_file():
        raise AdapterError(f"There is no adapter version {version!r} in {registry}")
    active = {**_active(registry), role: version}
    new = registry / ".active.json.new"
    new.write_text(json.dumps(active, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    new.replace(registry / "active.json")


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a version's folder; AdapterError where it is missing or not one."""
    try:
        return Manifest(**json.loads((folder / MANIFEST).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise AdapterError(f"{folder} has no readable {MANIFEST}: {error}") from error


def verify(folder: Path, base_sha256: str) -> Manifest:
    """The manifest of a version whose files are those it names and that belongs to the base model; AdapterError otherwise."""
    manifest = read_manifest(folder)
    if manifest.role not in ADAPTER_ROLES:
        raise AdapterError(f"{folder.name} is for an unknown role {manifest.role!r}; known: {', '.join(ADAPTER_ROLES)}")
    if manifest.base_sha256 != base_sha256:
        raise AdapterError(f"{folder.name} was trained on {manifest.base}, which is not the model that is loaded")
    for name in FILES:
        if not (folder / name).is_file() or _sha256(folder / name) != manifest.files.get(name):
            raise AdapterError(f"{folder.name} is damaged: {name} is missing or differs from its manifest")
    return manifest


def active_adapters(home: Path, base_sha256: str) -> dict[Role, Path]:
    """The verified folder to serve for each role: the registry's under ``home`` first, else the shipped one, else none.

    A version that fails is logged and passed over, so that a damaged adapter never stops the app.
    """
    chosen: dict[Role, Path] = {}
    for registry in (home / "adapters", SHIPPED):
        for role, version in _active(registry).items():
            if role in chosen or role not in ADAPTER_ROLES:
                continue
            try:
                verify(registry / version, base_sha256)
            except AdapterError as error:
                log.warning("adapter not served: %s", error)
                continue
            chosen[role] = registry / version
    return chosen


def _active(registry: Path) -> dict[Role, str]:
    try:
        value = json.loads((registry / "active.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        log.warning("%s cannot be read: %s", registry / "active.json", error)
        return {}
    return {k: v for k, v in value.items() if isinstance(v, str)} if isinstance(value, dict) else {}


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
