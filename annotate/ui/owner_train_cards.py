"""What would be trained and which versions there are, as HTML. Pure: nouns -> str.

Everything from the store or a manifest passes ``html.escape`` here. Leaves out Gradio, every computation, and runs (``owner_run_cards``).
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from annotate.prospect import Prospect, RoleProspect
from annotate.report import percent
from annotate.training import NAMES, Order
from annotate.ui.owner_cards import NONE, fold, section, table
from annotate.ui.owner_run_cards import TITLES
from annotate.words import as_sentence, of, when
from pat_core.lineage import RoleVersions, VersionFacts
from pat_core.types import Role

OUTCOMES = {
    "a": "one text preferred",
    "b": "one text preferred",
    "tie": "equally good",
    "both_bad": "both bad",
    "cannot_judge": "cannot judge",
}
PEOPLE_SHOWN = 12
CHANGES_SHOWN = 12


# What would be trained


def would(p: Prospect) -> str:
    """For each role its pairs and what is left out; whether the reward predicts people; who counts how much."""
    if not p.n_answers:
        lead = "Nobody has judged a pair yet. A run can learn from the automatic reward alone, or wait for the first answers."
        return section("What would be trained", lead, "")
    lead = f"From {of(p.n_answers, 'answer')} by {of(len(p.people), 'person', 'people')} as they are now, without those that are left out."
    head = ("Role", "Pairs judged", "People agree", "From votes alone", "From votes and rewards", "Left out, and why")
    pairs = table("Pairs that votes give", head, [_role_row(r) for r in p.roles])
    said = [p.reward, *dict.fromkeys(note for r in p.roles for note in (*r.human.notes, *r.both.notes))]
    by_role = "".join(f"<li><b>{TITLES[r.role]}:</b> {escape(r.reward)}</li>" for r in p.roles if r.reward and r.n_judged)
    more = (
        f'<details data-fold="reward by role"><summary>Role by role</summary><ul class="pat-list">{by_role}</ul></details>'
        if by_role
        else ""
    )
    how = (
        "Only pairs in which one role alone differs train that role; pairs of two systems tell whether the reward predicts people. Ties "
        "and “both bad” never become a winner. An automatic run, and one from both, adds pairs of its own rollouts."
    )
    notes = "".join(f"<p>{escape(note)}</p>" for note in said if note)
    return section(
        "What would be trained", lead, f'{pairs}<div class="pat-said">{notes}{more}</div>{fold("How this is counted", how)}{_people(p)}'
    )


def _role_row(r: RoleProspect) -> tuple[str, ...]:
    raw = r.agreement.raw
    agree = NONE if raw is None else f'{percent(raw)} <span class="pat-muted">of {of(r.agreement.n_pairs, "pair")}</span>'
    return (
        TITLES[r.role],
        f'{r.n_judged:,} <span class="pat-muted">({of(r.n_answers, "answer")})</span>' if r.n_judged else "0",
        agree,
        f"<b>{r.human.n_pairs:,}</b>",
        f"<b>{r.both.n_pairs:,}</b>",
        f'<span class="pat-words">{_left_out(r)}</span>',
    )


def _left_out(r: RoleProspect) -> str:
    """Why comparisons give no pair, in a sentence; what differs with rewards is said apart."""
    if r.human.why:
        return escape(as_sentence(r.human.why))
    alone, both = dict(r.human.dropped or {}), dict(r.both.dropped or {})
    parts = [f"{n:,} × {reason}" for reason, n in alone.items()]
    parts += [f"with rewards {n:,} × {reason}" for reason, n in both.items() if alone.get(reason) != n]
    no_winner = [f"{r.winners[k]:,} {OUTCOMES[k]}" for k in ("tie", "both_bad", "cannot_judge") if r.winners.get(k)]
    answers = f'<br><span class="pat-muted">answers: {escape(", ".join(no_winner))}</span>' if no_winner else ""
    return (escape("; ".join(parts)) or "none") + answers


def _people(p: Prospect) -> str:
    """Those whose answers train, the heaviest first; how many others there are."""
    counted = sorted((who for who in p.people if who.shares), key=lambda who: -max(who.shares.values()))
    head = ("Person", "Answers", *(f"Share: {NAMES[r.role]}" for r in p.roles))
    rows = [
        (escape(who.nickname), f"{who.n:,}", *(f"{who.shares[r.role]:.0%}" if r.role in who.shares else NONE for r in p.roles))
        for who in counted[:PEOPLE_SHOWN]
    ]
    rest, idle = len(counted) - PEOPLE_SHOWN, len(p.people) - len(counted)
    more = [f"{of(rest, 'person', 'people')} more count as well."] if rest > 0 else []
    if idle:
        more.append(f"The answers of {of(idle, 'person', 'people')} train nobody: they are about pairs of two systems, or found no winner.")
    lead = "Each person’s share of the weight behind a role’s pairs. Beyond 100 answers somebody’s answers share the weight of 100."
    others = f'<p class="pat-muted">{" ".join(more)}</p>' if more else ""
    return section("Who counts how much", lead, (table("Who counts how much", head, rows) if rows else "") + others)


def plan(p: Prospect, order: Order) -> str:
    """What a run with this order would learn from, role by role."""
    said = []
    for role in order.roles:
        found = p.role(role).by(order.use)
        votes = of(found.n_pairs, "pair") + " of votes" if order.use != "automatic" and found.n_pairs else ""
        own = (
            "" if order.use == "human" else f"up to {of(order.prompts, 'pair')} of its own rollouts{' a round' if order.rounds > 1 else ''}"
        )
        none = f"nothing ({found.why or 'no pair has a winner'})" if order.use == "human" else ""
        said.append(f"<li><b>{TITLES[role]}:</b> {escape(' and '.join(x for x in (votes, own) if x) or none)}</li>")
    return f'<ul class="pat-list">{"".join(said)}</ul>'


# Versions


def versions(roles: Sequence[RoleVersions], trouble: str = "") -> str:
    """Every version of every role with what it learned from and the button that lets it serve. ``data-serve`` carries what it does."""
    alert = f'<div class="pat-notice pat-alert" role="alert"><p>{escape(trouble)}</p></div>' if trouble else ""
    lead = (
        "What you activate serves from the next text on, for everybody; a text that is being written ends with the version it began with."
    )
    return section("Versions", lead, alert + "".join(_versions_of(r) for r in roles))


def _versions_of(r: RoleVersions) -> str:
    title = f'<h4 class="pat-title">{TITLES.get(r.role, escape(r.role))}</h4>'
    if not r.versions:
        return (
            f'{title}<p class="pat-muted">{escape(r.serving) or "The base model alone"} serves it; there is no version to choose from.</p>'
        )
    head = ("Now", "Version", "Made", "Change of the reward", "Learned from", "Grew out of")
    rows = table(f"Versions of the {NAMES.get(r.role, r.role)}", head, [_version_row(r.role, v) for v in r.versions])
    back = ""
    if r.earlier is not None:
        to = escape(r.earlier) or "the shipped version"
        back = f'<p class="pat-back"><button type="button" data-serve="back {escape(r.role)}">Roll back to {to}</button></p>'
    return title + rows + back


def _version_row(role: Role, v: VersionFacts) -> tuple[str, ...]:
    if v.serving:
        now = "<b>serving</b>"
    elif v.problem:
        now = f'<span class="pat-refused" title="{escape(v.problem)}">refused</span>'
    else:
        act = f"activate {role} {v.version}"
        now = f'<button type="button" data-serve="{escape(act)}" aria-label="Activate {escape(v.version)}">Activate</button>'
    votes = f", {of(v.n_votes, 'vote')}" if v.n_votes else ""
    learned = f"{of(v.n_pairs, 'pair')}{votes}" if v.n_pairs else of(v.n_examples, "example") if v.n_examples else ""
    gain = NONE if v.gain is None else f"{v.gain.mean:+.3f} [{v.gain.low:+.3f}, {v.gain.high:+.3f}]"
    name = f"<code>{escape(v.version)}</code>" + (' <span class="pat-muted">shipped</span>' if v.shipped else "")
    why = f'<br><span class="pat-words pat-muted">{escape(v.problem)}</span>' if v.problem and not v.serving else ""
    return now, name + why, escape(when(v.made_at)) if v.made_at else NONE, gain, escape(learned) or NONE, escape(v.parent) or NONE


def history(roles: Sequence[RoleVersions]) -> str:
    """What began to serve when and through whom, the newest first."""
    changes = sorted((c for r in roles for c in r.changes), key=lambda c: c.at, reverse=True)[:CHANGES_SHOWN]
    if not changes:
        return ""
    body = [
        (when(c.at), TITLES.get(c.role, escape(c.role)), escape(c.version) or "the shipped version", escape(c.action), escape(c.by) or NONE)
        for c in changes
    ]
    return section(
        "History", "What began to serve, the newest first.", table("Changes", ("When (UTC)", "Role", "Version", "How", "By"), body)
    )
