"""What is known of the adapter versions: their manifests' facts in plain types; for each role what serves, since when, what else there is.

A manifest may come from anywhere, so nothing in it is trusted to be of the type it should be; its texts are cut here and escaped where they
are shown. Leaves out changing what serves (``serving``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from pat_core import adapters
from pat_core.adapters import Change, Manifest, Version
from pat_core.types import ADAPTER_ROLES, Role

LONGEST_TEXT = 200  # characters kept of a manifest's text


class Gain(NamedTuple):
    """A paired change of the dev slice's reward with its 95% interval, over ``n`` people."""

    mean: float
    low: float
    high: float
    n: int


@dataclass(frozen=True, slots=True)
class VersionFacts:
    """A version as a page shows it, in plain types whatever its manifest holds; texts are cut, not escaped.

    ``serving`` is true of the engine in place, ``problem`` says why the version may not serve. ``kind`` is what made it ("DPO round"),
    ``by`` who published it, ``data`` the files it learned from, ``sources`` how many pairs are of which origin. ``n_pairs``, ``n_examples``
    and ``n_votes`` are 0 and ``gain`` is None where the manifest names none; ``metrics`` and ``settings`` are the manifest's own.
    """

    version: str
    shipped: bool
    serving: bool
    problem: str = ""
    base: str = ""
    made_at: str = ""
    by: str = ""
    kind: str = ""
    parent: str = ""
    data: tuple[str, ...] = ()
    sources: Mapping[str, int] = field(default_factory=dict)
    n_pairs: int = 0
    n_examples: int = 0
    n_votes: int = 0
    gain: Gain | None = None
    metrics: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RoleVersions:
    """One role: ``serving`` is the version that writes for it, '' for the base model; ``since`` an ISO time, '' where no other ever did.

    ``chosen`` is the registry's version: another one than ``serving`` for moments, or where that could not be loaded. ``earlier`` is what
    going back would let serve, '' for the shipped version, None where there is none. ``versions`` the newest first, the shipped ones last;
    ``changes`` of this registry and ``shipped_changes`` before these versions were shipped, the newest first.
    """

    role: Role
    serving: str
    since: str = ""
    chosen: str = ""
    earlier: str | None = None
    versions: tuple[VersionFacts, ...] = ()
    changes: tuple[Change, ...] = ()
    shipped_changes: tuple[Change, ...] = ()

    def facts(self, version: str) -> VersionFacts | None:
        return next((v for v in self.versions if v.version == version), None)


def role_versions(home: Path, base_sha256: str, serving: Mapping[str, str]) -> tuple[RoleVersions, ...]:
    """Every role with what is known of it, where ``serving`` names the versions of the engine in place. Verifies all: half a second."""
    found, registry = adapters.versions(home, base_sha256), home / "adapters"
    chosen = {**adapters.chosen(adapters.SHIPPED), **{k: v for k, v in adapters.chosen(registry).items() if v}}
    shipped, own, before = adapters.chosen(adapters.SHIPPED), adapters.history(registry), adapters.history(adapters.SHIPPED)
    roles = []
    for role in ADAPTER_ROLES:
        now = serving.get(role, "")
        changes = tuple(c for c in own if c.role == role)
        since = next((c.at for c in changes if (c.version or shipped.get(role, "")) == now), "")
        roles.append(
            RoleVersions(
                role,
                now,
                since=since,
                chosen=chosen.get(role, ""),
                earlier=adapters.earlier(registry, role, base_sha256),
                versions=tuple(version_facts(v, now, (*own, *before)) for v in found if v.role == role),
                changes=changes,
                shipped_changes=tuple(c for c in before if c.role == role),
            )
        )
    return tuple(roles)


def version_facts(found: Version, serving: str, changes: tuple[Change, ...]) -> VersionFacts:
    """What a version's manifest and the registry's ``changes`` tell of it."""
    m = found.manifest
    by = next((c.by for c in changes if c.version == found.version and c.action == "published"), "")
    known = VersionFacts(found.version, found.shipped, found.version == serving, found.problem)
    return known if m is None else _read(m, known, by)


def _read(m: Manifest, known: VersionFacts, by: str) -> VersionFacts:
    data, metrics, settings = (value if isinstance(value, Mapping) else {} for value in (m.data, m.metrics, m.settings))
    files = data.get("files")
    names = files if isinstance(files, list) else [name for name, value in data.items() if isinstance(value, Mapping) and name != "sources"]
    sources = data.get("sources")
    return VersionFacts(
        known.version,
        known.shipped,
        known.serving,
        known.problem,
        base=_text(m.base),
        made_at=_text(m.made_at),
        by=_text(by),
        kind=_text(settings.get("kind")),
        parent=_text(m.parent),
        data=tuple(Path(_text(name)).name for name in names if _text(name)),
        sources={_text(k): _count(n) for k, n in sources.items()} if isinstance(sources, Mapping) else {},
        n_pairs=_count(data.get("n_pairs")),
        n_examples=_count(metrics.get("n_examples")),
        n_votes=len(m.judgment_ids),
        gain=_gain(metrics.get("dev")),
        metrics=metrics,
        settings=settings,
    )


def _text(value: object) -> str:
    return value[:LONGEST_TEXT] if isinstance(value, str) else ""


def _count(value: object) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 0


def _gain(dev: object) -> Gain | None:
    total = dev.get("total") if isinstance(dev, Mapping) else None
    values = [total.get(name) for name in ("mean", "low", "high")] if isinstance(total, Mapping) else [None]
    if not all(isinstance(v, int | float) and abs(v) < 1e6 for v in values):  # NaN compares false
        return None
    return Gain(*map(float, values), _count(total.get("n")))
