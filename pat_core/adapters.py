"""Adapter versions: folders of safetensors with a manifest, found under PAT_HOME and among the shipped ones, verified before use.

A version is named by its content (role and the first twelve hex digits of its weights' sha256). safetensors carries no checksum and peft
loads damaged or foreign adapters without a word, so nothing is served that does not match its manifest and the base model, and nothing is
published that is not a plain, finite LoRA and passes its examination: a canary, and the merged model that is served writing as the adapter
does. ``active.json`` says which version serves each role; beside it stand what served before, for going back, and every change with who
and when. Leaves out training, merging (``weights``) and loading (``llm``).
"""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import os
import shutil
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock

from pat_core.cache import file_sha256
from pat_core.lora import CONFIG, FILES, WEIGHTS, AdapterError, check_lora, read_config, refuse_pickles
from pat_core.types import ADAPTER_ROLES, Role

__all__ = [
    "AdapterError", "Change", "Manifest", "NotWritten", "Version", "activate", "active_adapters", "chosen", "earlier", "history", "publish",
    "roll_back", "versions", "with_version",
]  # fmt: skip

log = logging.getLogger(__name__)

Action = Literal["published", "activated", "rolled back"]

SHIPPED = Path(__file__).resolve().parent.parent / "assets" / "adapters"
MANIFEST = "manifest.json"
REPORT = "report.json"
KEPT = 5  # versions of a role that can be gone back to
HISTORY = 300  # changes remembered in a registry


class NotWritten(AdapterError):
    """There was no room for a version, with which nothing is wrong: publishing it again is safe."""


@dataclass(frozen=True, slots=True)
class Manifest:
    """What an adapter version is: ``base`` names the model and ``base_sha256`` its weights file; ``files`` maps names to sha256.

    ``data`` describes what it learned from; ``judgment_ids`` are the votes among it and ``judgments_sha256`` their hash, '' without any.
    """

    role: Role
    version: str
    base: str
    base_sha256: str
    files: Mapping[str, str]
    data: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, Any] = field(default_factory=dict)
    parent: str = ""
    judgment_ids: tuple[str, ...] = ()
    judgments_sha256: str = ""
    made_at: str = ""


@dataclass(frozen=True, slots=True)
class Change:
    """A version began to serve ``role`` in place of ``previous``; '' is the shipped version. ``at`` is an ISO time in UTC."""

    role: Role
    version: str
    previous: str
    action: Action
    by: str
    at: str


@dataclass(frozen=True, slots=True)
class Version:
    """A version as it is found: ``problem`` says why it is refused, '' where it may serve; ``manifest`` is None where unreadable."""

    role: str
    version: str
    shipped: bool
    serving: bool
    problem: str
    manifest: Manifest | None


# Publishing


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
    judgment_ids: Sequence[str] = (),
    by: str = "",
    examine: Callable[[Path], Mapping[str, Any]] | None = None,
    activate: bool = True,
    report: Mapping[str, Any] | None = None,
) -> Manifest:
    """Copies a trained PEFT folder into ``registry`` as a new version, whole or not at all, and makes it the active one of its role,
    unless ``activate`` is False: then it waits there for somebody to activate it.

    ``examine`` gets the version's folder before anything is served from it; what it returns stands in the manifest's metrics under
    "examined", and its AdapterError refuses the version. ``report`` is put beside the weights. Older versions than the last ``KEPT`` are
    deleted. Raises AdapterError, NotWritten where the disk is full, and then the registry is as it was.
    """
    if role not in ADAPTER_ROLES:
        raise AdapterError(f"unknown role {role!r}; known: {', '.join(ADAPTER_ROLES)}")
    missing = [name for name in FILES if not (trained / name).is_file()]
    if missing:
        raise AdapterError(f"{trained} is not a trained adapter: {missing[0]} is missing")
    refuse_pickles(trained)
    version = f"{role}-{file_sha256(trained / WEIGHTS)[:12]}"
    votes = tuple(sorted(set(judgment_ids)))
    about = {"data": dict(data), "settings": dict(settings), "metrics": dict(metrics), "parent": parent, "made_at": _now()}
    made = Manifest(role, version, base, base_sha256, {}, **about, judgment_ids=votes, judgments_sha256=judgments_sha256(votes))
    staging = registry / f".new-{uuid.uuid4().hex}"
    try:
        folder = staging / version
        made = _stage(trained, folder, made)
        if report is not None:
            _write_json(folder / REPORT, report)
        verify(folder, base_sha256)
        if examine:
            made = replace(made, metrics={**made.metrics, "examined": dict(examine(folder))})
            _write_json(folder / MANIFEST, asdict(made))
        with _locked(registry):
            manifest = _settle(folder, registry, made)
            if activate:
                _State.write(registry, _State.read(registry).serve(role, version, "published", by))
            _prune(registry)
        return manifest
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise NotWritten(f"the disk of {registry} is full, so {version} was not published; make room and publish it again") from error
        raise
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def judgments_sha256(judgment_ids: Sequence[str]) -> str:
    """One hash of a set of votes, whatever their order; '' for none."""
    return hashlib.sha256("\n".join(sorted(set(judgment_ids))).encode()).hexdigest() if judgment_ids else ""


def _stage(trained: Path, folder: Path, made: Manifest) -> Manifest:
    """The version's folder with a manifest that has its hashes; no path of this machine is left in it."""
    folder.mkdir(parents=True)
    shutil.copyfile(trained / WEIGHTS, folder / WEIGHTS)
    config = read_config(trained) | {"base_model_name_or_path": made.base, "inference_mode": True}
    if isinstance(config.get("target_modules"), list):
        config["target_modules"] = sorted(config["target_modules"])  # peft writes a set, in any order
    _write_json(folder / CONFIG, config)
    made = replace(made, files={name: file_sha256(folder / name) for name in FILES})
    _write_json(folder / MANIFEST, asdict(made))
    _sync(folder / WEIGHTS)
    return made


def _settle(folder: Path, registry: Path, made: Manifest) -> Manifest:
    """Moves the staged folder to its place; the same version that is there already, and intact, stays."""
    target = registry / made.version
    if target.exists():
        try:
            return verify(target, made.base_sha256)
        except AdapterError as error:
            log.warning("%s is replaced: %s", target, error)
            target.rename(folder.parent / "replaced")
    folder.rename(target)
    _sync(registry)
    return made


def _prune(registry: Path) -> None:
    """Deletes versions that nobody can go back to, their merged models, and what killed publishers left a day ago."""
    state = _State.read(registry)
    for role in ADAPTER_ROLES:
        by_age = sorted((f for f in registry.glob(f"{role}-*") if f.is_dir()), key=lambda f: f.stat().st_mtime, reverse=True)
        kept = {state.active.get(role), *state.previous.get(role, ())}
        for folder in by_age[KEPT + 1 :]:
            if folder.name not in kept:
                shutil.rmtree(folder)
                for merged in registry.parent.glob(f"weights/q8-*/*.{folder.name}.gguf"):
                    shutil.rmtree(merged.parent, ignore_errors=True)
    for staging in registry.glob(".new-*"):
        if time.time() - staging.stat().st_mtime > 86_400:
            shutil.rmtree(staging, ignore_errors=True)


# Which version serves


def activate(registry: Path, role: Role, version: str, base_sha256: str | None = None, by: str = "") -> None:
    """Makes ``version``, of ``registry`` or shipped, the one that serves ``role``; AdapterError if it is not there, or is refused.

    Without ``base_sha256`` the version is held against the model that its own manifest names.
    """
    with _locked(registry):
        folder = _folder(registry, version)
        if not version or not (folder / MANIFEST).is_file():
            raise AdapterError(f"There is no adapter version {version!r} in {registry}")
        manifest = verify(folder, read_manifest(folder).base_sha256 if base_sha256 is None else base_sha256)
        if manifest.role != role:
            raise AdapterError(f"{version} is for {manifest.role}, not for {role}")
        _State.write(registry, _State.read(registry).serve(role, version, "activated", by))


def roll_back(registry: Path, role: Role, base_sha256: str, by: str = "") -> str:
    """Lets the version serve that served before, damaged ones passed over; returns it, '' for the shipped one. AdapterError without one."""
    with _locked(registry):
        state = _State.read(registry)
        version, before = _earlier(state, registry, role, base_sha256)
        if version is not None:
            _State.write(registry, state.go_back(role, version, before, by))
            return version
    raise AdapterError(f"there is no earlier version for {role} to go back to")


def earlier(registry: Path, role: Role, base_sha256: str) -> str | None:
    """The version that ``roll_back`` would let serve, '' for the shipped one, None where there is none to go back to."""
    return _earlier(_State.read(registry), registry, role, base_sha256)[0]


def _earlier(state: _State, registry: Path, role: Role, base_sha256: str) -> tuple[str | None, tuple[str, ...]]:
    """The newest earlier version that may serve, and those before it."""
    before = list(state.previous.get(role, ()))
    while before:
        version = before.pop()
        problem = version and _problem(_folder(registry, version), base_sha256, role)
        if not problem:
            return version, tuple(before)
        log.warning("passed over: %s", problem)
    return None, ()


def with_version(home: Path, base_sha256: str, role: Role, version: str) -> dict[Role, Path]:
    """``active_adapters`` as they were if ``version``, '' for the shipped one, served ``role``; AdapterError where it may not."""
    registry = home / "adapters"
    others = {r: folder for r, folder in active_adapters(home, base_sha256).items() if r != role}
    name = version or chosen(SHIPPED).get(role, "")
    if not name:  # nothing is shipped for this role: the base model serves it
        return others
    folder = _folder(registry, name)
    if not (folder / MANIFEST).is_file():
        raise AdapterError(f"There is no adapter version {name!r} in {registry}")
    problem = _problem(folder, base_sha256, role)
    if problem:
        raise AdapterError(problem)
    return others | {role: folder}


def active_adapters(home: Path, base_sha256: str) -> dict[Role, Path]:
    """The verified folder to serve for each role: the registry's under ``home``, else what served there before, else the shipped one.

    A version that fails is logged and passed over, so that a damaged adapter never stops the app.
    """
    registry = home / "adapters"
    own, shipped = _State.read(registry), _State.read(SHIPPED)
    found: dict[Role, Path] = {}
    for role in ADAPTER_ROLES:
        wanted = [own.active[role], *reversed(own.previous.get(role, ()))] if role in own.active else []
        names = dict.fromkeys(version or shipped.active.get(role, "") for version in [*wanted, ""])
        for folder in [_folder(registry, name) for name in names if name]:
            problem = _problem(folder, base_sha256, role)
            if not problem:
                found[role] = folder
                break
            log.warning("adapter not served: %s", problem)
    return found


def versions(home: Path, base_sha256: str) -> tuple[Version, ...]:
    """Every version there is, by role, the newest first, the shipped ones last."""
    serving = active_adapters(home, base_sha256)
    found = []
    for registry in (home / "adapters", SHIPPED):
        for folder in registry.glob("*-*"):
            if folder.name.startswith(".") or not folder.is_dir() or (registry == SHIPPED and any(v.version == folder.name for v in found)):
                continue
            try:
                manifest = read_manifest(folder)
            except AdapterError:
                manifest = None
            role = manifest.role if manifest else folder.name.rpartition("-")[0]
            is_serving = serving.get(role) == folder
            found.append(Version(role, folder.name, registry == SHIPPED, is_serving, _problem(folder, base_sha256, role), manifest))
    order = {role: i for i, role in enumerate(ADAPTER_ROLES)}
    found.sort(key=lambda v: v.manifest.made_at if v.manifest else "", reverse=True)
    return tuple(sorted(found, key=lambda v: (order.get(v.role, len(order)), v.shipped)))


def chosen(registry: Path) -> dict[str, str]:
    """The version that a registry's file names for each role, not verified."""
    return dict(_State.read(registry).active)


def history(registry: Path) -> tuple[Change, ...]:
    """Which version began to serve when and through whom, the newest change first."""
    return tuple(reversed(_State.read(registry).history))


@dataclass(frozen=True, slots=True)
class _State:
    """What ``active.json`` holds: role -> version on its top level, ``previous`` (the newest last) and ``history`` beside."""

    active: Mapping[str, str]
    previous: Mapping[str, tuple[str, ...]]
    history: tuple[Change, ...]

    @classmethod
    def read(cls, registry: Path) -> _State:
        try:
            value = json.loads((registry / "active.json").read_text(encoding="utf-8"))
        except FileNotFoundError:
            return cls({}, {}, ())
        except (OSError, ValueError) as error:
            log.warning("%s cannot be read: %s", registry / "active.json", error)
            return cls({}, {}, ())
        value = value if isinstance(value, dict) else {}
        active = {k: v for k, v in value.items() if k in ADAPTER_ROLES and isinstance(v, str)}
        previous, changes = value.get("previous"), value.get("history")
        earlier = {k: tuple(map(str, v)) for k, v in previous.items() if isinstance(v, list)} if isinstance(previous, dict) else {}
        known = dict.fromkeys(Change.__slots__, "")
        rows = [c for c in changes if isinstance(c, dict)] if isinstance(changes, list) else []
        return cls(active, earlier, tuple(Change(**known | {k: str(v) for k, v in c.items() if k in known}) for c in rows))

    @classmethod
    def write(cls, registry: Path, state: _State) -> None:
        value = {**state.active, "previous": {k: list(v) for k, v in state.previous.items()}, "history": [asdict(c) for c in state.history]}
        _write_json(registry / "active.json", value)

    def serve(self, role: Role, version: str, action: Action, by: str) -> _State:
        """The state in which ``version`` serves; the same one if it does already."""
        now = self.active.get(role, "")
        if now == version:
            return self
        previous = {**self.previous, role: (*self.previous.get(role, ()), now)[-KEPT:]}
        return _State({**self.active, role: version}, previous, self._with(Change(role, version, now, action, by, _now())))

    def go_back(self, role: Role, version: str, earlier: tuple[str, ...], by: str) -> _State:
        active = {k: v for k, v in self.active.items() if k != role} | ({role: version} if version else {})
        change = Change(role, version, self.active.get(role, ""), "rolled back", by, _now())
        return _State(active, {**self.previous, role: earlier}, self._with(change))

    def _with(self, change: Change) -> tuple[Change, ...]:
        return (*self.history, change)[-HISTORY:]


# Verifying


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a version's folder; AdapterError where it is missing or not one."""
    try:
        value = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        manifest = Manifest(**value | {"judgment_ids": tuple(value.get("judgment_ids", ()))})
        if not (isinstance(manifest.role, str) and isinstance(manifest.files, dict)):
            raise TypeError("role is no text, or files no object")
        return manifest
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise AdapterError(f"{folder} has no readable {MANIFEST}: {error}") from error


def verify(folder: Path, base_sha256: str) -> Manifest:
    """The manifest of a version whose files are those it names, that belongs to the base model and holds a sound LoRA; AdapterError
    otherwise."""
    manifest = read_manifest(folder)
    if manifest.role not in ADAPTER_ROLES:
        raise AdapterError(f"{folder.name} is for an unknown role {manifest.role!r}; known: {', '.join(ADAPTER_ROLES)}")
    if manifest.base_sha256 != base_sha256:
        raise AdapterError(f"{folder.name} was trained on {manifest.base}, which is not the model that is loaded")
    refuse_pickles(folder)
    for name in FILES:
        if not (folder / name).is_file() or file_sha256(folder / name) != manifest.files.get(name):
            raise AdapterError(f"{folder.name} is damaged: {name} is missing or differs from its manifest")
    check_lora(folder)
    return manifest


def _problem(folder: Path, base_sha256: str, role: str) -> str:
    """Why the version in ``folder`` must not serve ``role``, '' if it may."""
    try:
        manifest = verify(folder, base_sha256)
    except AdapterError as error:
        return str(error)
    return "" if manifest.role == role else f"{folder.name} is for {manifest.role}, not for {role}"


# Files


def _folder(registry: Path, version: str) -> Path:
    """Where ``version`` is, in the registry or among the shipped; a name that is a path leads nowhere."""
    name = Path(version).name or "-"
    return registry / name if (registry / name).is_dir() else SHIPPED / name


def _locked(registry: Path) -> FileLock:
    registry.mkdir(parents=True, exist_ok=True)
    return FileLock(registry / ".lock")


def _write_json(path: Path, value: Mapping[str, Any]) -> None:
    """``value`` at ``path``, on the disk, in place of what was there."""
    new = path.with_name(f".{path.name}.new")
    with new.open("w", encoding="utf-8") as file:
        file.write(json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n")
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)
    _sync(path.parent)


def _sync(path: Path) -> None:
    """Puts a file's content, or a folder's names, on the disk; systems that cannot open folders do without."""
    try:
        handle = os.open(path, os.O_RDONLY)
    except PermissionError:
        return
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
