"""What is serving, for everyone: a quiet fold at the foot of Compose with each role's version, where it comes from and what came before.

Names of people who changed something are left to the owner's pages. Everything from a manifest or a registry is escaped here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pat_core.adapters import Change
    from pat_core.lineage import Gain, RoleVersions, VersionFacts
    from pat_core.ui.opening import EngineRoom

TITLES: Mapping[str, str] = {"style": "Style agent", "topic": "Topic agent", "generator": "Generator"}
ACTIONS: Mapping[str, str] = {"published": "newly trained", "activated": "chosen", "rolled back": "back again"}
SOURCES: Mapping[str, str] = {
    "metric": "preferred by the automatic reward",
    "human": "preferred by people’s votes",
    "both": "preferred by votes and the reward together",
}
CHANGES_SHOWN = 8


def versions_html(room: EngineRoom | None) -> str:
    """The fold; '' until the models are open."""
    if room is None or room.serving is None:
        return ""
    return fold(room.serving.versions(), room.workbench.engine, bool(room.serving.trouble))


def fold(roles: Sequence[RoleVersions], engine: str, trouble: bool = False) -> str:
    """``roles`` in words under the name of the base model; ``trouble`` where what was chosen could not be loaded."""
    names = ", ".join(f"<span>{escape(r.serving)}</span>" for r in roles if r.serving) or "the base model alone"
    note = (
        '<p class="pat-hint">A newer choice could not be loaded, so what served before serves on. The owner’s page says why.</p>'
        if trouble
        else ""
    )
    html = (
        '<details class="pat-serving" data-fold="serving"><summary>What is serving '
        f'<span class="pat-muted">{names}</span></summary>'
        f"<p>One base model writes everything: <b>{escape(engine)}</b>. Each role has its own adapter over it, a few megabytes that it "
        "learned for this task; the alternatives run without any. A newer version takes its place between two runs, never within one.</p>"
        f'{note}<div class="pat-roles">{"".join(_role(r) for r in roles)}</div></details>'
    )
    return html.encode("utf-8", "replace").decode()  # a lone surrogate in a manifest could not be sent


def _role(role: RoleVersions) -> str:
    title = TITLES.get(role.role, role.role)
    if not role.serving:
        body = "<p>The base model, without an adapter.</p>"
    else:
        facts = role.facts(role.serving)
        rows = _rows(role, facts) if facts else [("Where from", "Served under this name; nothing else is known of it here.")]
        body = f"<p><code>{escape(role.serving)}</code></p><dl>{''.join(f'<dt>{name}</dt><dd>{text}</dd>' for name, text in rows)}</dl>"
    return f'<section aria-label="{escape(title)}"><h4>{escape(title)}</h4>{body}{_history(role)}</section>'


def _rows(role: RoleVersions, facts: VersionFacts) -> list[tuple[str, str]]:
    """Names and escaped texts of what is said about the version that serves."""
    since = when(role.since) if role.since else "the first start: it came with the program" if facts.shipped else "it was put here"
    rows = [("Serving since", escape(since))]
    if facts.made_at or facts.kind:
        rows.append(("Made", escape(" ".join(x for x in (when(facts.made_at), f"by a {facts.kind}" if facts.kind else "") if x))))
    if learned := _learned(facts):
        rows.append(("Learned from", learned))
    rows.append(("Measured change", _measured(facts)))
    rows.append(("Grew out of", f"<code>{escape(facts.parent)}</code>" if facts.parent else "the base model"))
    return rows


def _learned(facts: VersionFacts) -> str:
    counts = [(facts.n_pairs, "pair of texts", "pairs of texts"), (facts.n_examples, "example", "examples")]
    said = next((f"{n:,} {one if n == 1 else many}" for n, one, many in counts if n), "")
    origins = [SOURCES.get(name, f"from {name}") for name in facts.sources]
    if len(origins) > 1:
        origins = [f"{n:,} {origin}" for n, origin in zip(facts.sources.values(), origins, strict=True)]
    if origins and said:
        said += f", {', '.join(origins)}"
    if facts.n_votes:
        said += f"; {facts.n_votes:,} vote{'' if facts.n_votes == 1 else 's'} among them"
    files = f"files: {', '.join(facts.data)}" if facts.data else ""
    return escape("; ".join(x for x in (said, files) if x))


def _measured(facts: VersionFacts) -> str:
    if facts.gain is None:
        return escape("none: it was taught its form from examples" if facts.kind == "warm start" else "none is known")
    return (
        f"<b>{_figure(facts.gain)}</b> in the mean reward of texts for {facts.gain.n:,} people it never learned from (the dev slice), with "
        f"its 95% interval: {_verdict(facts.gain)}"
    )


def _figure(gain: Gain) -> str:
    return f"{gain.mean:+.3f} [{gain.low:+.3f}, {gain.high:+.3f}]"


def _verdict(gain: Gain) -> str:
    if gain.low > 0:
        return "better, beyond noise"
    return "worse, beyond noise" if gain.high < 0 else "it may be noise"


def _history(role: RoleVersions) -> str:
    """What served before, newest first: here, and before the versions were shipped."""
    here = [_change(c, role) for c in role.changes[:CHANGES_SHOWN]]
    before = [_change(c, role) for c in role.shipped_changes[: max(0, CHANGES_SHOWN - len(here))]]
    if not here and not before:
        return ""
    parts = [("Here", here), ("Before it came with the program", before)]
    lists = "".join(f"<h5>{title}</h5><ol>{''.join(rows)}</ol>" for title, rows in parts if rows)
    return f'<details data-fold="serving-{escape(role.role)}"><summary>Its history</summary>{lists}</details>'


def _change(change: Change, role: RoleVersions) -> str:
    facts = role.facts(change.version)
    gain = f"; measured change {_figure(facts.gain)}" if facts and facts.gain else ""
    version, before = (f"<code>{escape(name)}</code>" if name else "the shipped version" for name in (change.version, change.previous))
    action = escape(ACTIONS.get(change.action, change.action))
    return f'<li><span class="pat-muted">{escape(when(change.at))}</span> {version} {action}, after {before}{gain}</li>'


def when(at: str) -> str:
    """An ISO time as people write it, in UTC; what is no time as it is."""
    try:
        time = datetime.fromisoformat(at)
        time = time.astimezone(UTC) if time.tzinfo else time
    except (ValueError, OverflowError):
        return at
    return f"{time.day} {time:%B %Y, %H:%M} UTC"
