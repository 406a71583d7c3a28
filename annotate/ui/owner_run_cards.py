"""A learning run as HTML: how it goes with its curves, and what each step gave, with texts before and after. Pure: nouns -> str.

Curves are drawn as one line each over a scale that holds 0, or the whole of 0 to 1, with the numbers beside them. Everything that comes
from a run passes ``html.escape`` here. Leaves out Gradio and every computation.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from html import escape
from typing import Any, NamedTuple

from annotate.stats.votes import Estimate
from annotate.training import NAMES, Status
from annotate.ui.owner_cards import NONE, axis, mark, section, table
from annotate.words import as_sentence, duration, listed, of, when
from pat_core.credit import REASONS
from pat_core.dpo import Point
from pat_core.run_state import RunState

TITLES: Mapping[str, str] = {role: name.capitalize() for role, name in NAMES.items()}
PARTS = {
    "opening": "Opening the models and the reviews",
    "starting point": "Measuring where it starts, on people it never learns from",
    "rolling out": "Rolling out the {}: several candidates for each prompt, written out and scored",
    "training": "Training the {}",
    "evaluating": "Evaluating the trained {} on people it never learned from",
    "publishing": "Examining and publishing the {}",
}
TERMS = {
    "total": "Reward", "reference_free": "Reward without a reference", "rouge_1": "ROUGE-1", "rouge_l": "ROUGE-L", "meteor": "METEOR",
    "style": "Style", "length": "Length", "copy": "Copying", "words": "Words", "likelihood": "Log-likelihood",
}  # fmt: skip
LN2 = math.log(2)


def progress(s: Status) -> str:
    """How the newest run goes or went, in words, with its steps and a bar."""
    if s.order is None:
        return '<p class="pat-hint">No run has been started here yet.</p>'
    about = f'<p class="pat-facts"><span>{escape(as_sentence(s.order.sentence))}</span><span>started {when(s.started_at)} UTC</span></p>'
    if not s.running:
        kind = " pat-alert" if s.phase == "failed" else ""
        return f'<div class="pat-notice{kind}" role="status"><p>{escape(_ended(s))}</p></div>{_steps_list(s)}{about}'
    run = s.run
    value = f' value="{run.done / run.total:.3f}"' if run and run.total else ""
    bar = f'<progress aria-label="Progress of this part"{value}></progress><span class="pat-muted">{_left(run)}</span>'
    now = f'<p role="status"><b>{escape(_now(s))}</b></p><p class="pat-muted">{_counted(run)}</p>'
    return f'<div class="pat-run-now">{_steps_list(s)}{now}<div class="pat-opening">{bar}</div></div>{about}'


def _now(s: Status) -> str:
    if s.phase == "stopping":
        return "Stopping after the part at work; what it has done is kept"
    if s.run is None:
        return "Starting: the libraries are loading"
    return PARTS.get(s.run.part, s.run.part).format(NAMES.get(s.run.role, "role"))


def _counted(run: RunState | None) -> str:
    if run is None or not run.total:
        return "&nbsp;"
    if run.part == "training":
        return f"{run.done:,} of {run.total:,} {escape(run.label)}"
    return escape(f"{run.label}: {run.done:,} of {run.total:,}")


def _left(run: RunState | None) -> str:
    if run is None or run.minutes_left is None:
        return ""
    return f"about {duration(max(run.minutes_left * 60, 1))} left in this part"


def _steps_list(s: Status) -> str:
    """Every step of the run as past, now or to come."""
    if s.order is None:
        return ""
    done = {(step.get("round"), step.get("role")) for step in s.steps}
    now = (s.run.round, s.run.role) if s.run and s.running else None
    items = []
    for n in range(1, s.order.rounds + 1):
        for role in s.order.roles:
            kind = "pat-past" if (n, role) in done else "pat-now" if (n, role) == now else ""
            name = TITLES[role] if s.order.rounds == 1 else f"{n}. {TITLES[role]}"
            items.append(f'<li class="{kind}"{" aria-current=step" if kind == "pat-now" else ""}>{name}</li>')
    return f'<ol class="pat-steps" aria-label="Steps of the run">{"".join(items)}</ol>'


def _ended(s: Status) -> str:
    made = [step for step in s.steps if step.get("version")]
    match s.phase:
        case "done" if made:
            return f"Done. {_published(made)} Nothing of it serves yet: look at before and after, then activate what you want."
        case "done":
            return "Done. Nothing was published: below stands why."
        case "stopped":
            return f"Stopped: the same command goes on where it stood. {_published(made)}".strip()
        case _:
            return f"It failed. {as_sentence(s.error)} {_published(made)}".strip()


def _published(made: Sequence[Mapping[str, Any]]) -> str:
    return f"Published: {listed([step['version'] for step in made])}." if made else ""


# Curves


class _Curve(NamedTuple):
    """One measure of the training: how it is read, its name, its unit, the value to hold it against, and whether it is a share."""

    of: Callable[[Point], float]
    name: str
    unit: str
    line: float
    share: bool = False


CURVES = (
    _Curve(lambda p: p.loss, "Loss", "falls as it learns; the line is a coin’s", LN2),
    _Curve(lambda p: p.margin, "Margin", "how far chosen texts are ahead, in logits", 0.0),
    _Curve(lambda p: p.accuracy, "Accuracy", "share of pairs put right", 0.5, True),
    _Curve(lambda p: p.kl, "KL", "distance from the start, nats a token", 0.0),
)


def curves(points: Sequence[Point]) -> str:
    """Four small drawings over the updates so far; '' before the first."""
    if not points:
        return ""
    return f'<div class="pat-curves">{"".join(_drawn(curve, points) for curve in CURVES)}</div>'


def _drawn(curve: _Curve, points: Sequence[Point]) -> str:
    values = [curve.of(p) for p in points]
    finite = [v for v in values if math.isfinite(v)] or [0.0]
    low, high = (0.0, 1.0) if curve.share else _nice(min(0.0, curve.line, *finite), max(curve.line, *finite))
    first, last = points[0].step, max(points[-1].step, points[0].step + 1)

    def x(p: Point) -> float:
        return 100 * (p.step - first) / (last - first)

    def y(v: float) -> float:
        return 100 * (high - v) / (high - low)

    drawn = [(x(p), y(v), v) for p, v in zip(points, values, strict=True) if math.isfinite(v)]
    path = " ".join(f"{a:.2f},{b:.2f}" for a, b, _ in drawn)
    end = f'<i style="left:{drawn[-1][0]:.2f}%;top:{drawn[-1][1]:.2f}%"></i>' if drawn else ""
    said = f"{curve.name} by update: {_number(values[0])} at update {points[0].step}, {_number(values[-1])} at update {points[-1].step}."
    steps = f"<span>update {first}</span><span>{points[-1].step}</span>" if points[-1].step > first else f"<span>update {first}</span>"
    return (
        f'<figure role="img" aria-label="{escape(said)}"><figcaption><b>{curve.name}</b> <span>{_number(values[-1])}</span>'
        f'<small>{escape(curve.unit)}</small></figcaption><div class="pat-plot" aria-hidden="true"><p><span>{_number(high)}</span>'
        f'<span>{_number(low)}</span></p><div><svg viewBox="0 0 100 100" preserveAspectRatio="none">'
        f'<line x1="0" x2="100" y1="{y(curve.line):.2f}" y2="{y(curve.line):.2f}"></line><polyline points="{path}"></polyline></svg>'
        f"{end}</div>"
        f'<p class="pat-updates">{steps}</p></div></figure>'
    )


def _nice(low: float, high: float) -> tuple[float, float]:
    """Ends of a scale that holds both, of one or two digits."""
    span = max(high - low, 1e-3)
    unit = 10.0 ** math.floor(math.log10(span))
    unit = unit / 5 if span / unit < 2 else unit / 2 if span / unit < 5 else unit
    return math.floor(low / unit + 1e-9) * unit, math.ceil(high / unit - 1e-9) * unit or unit


def _number(v: float) -> str:
    if not math.isfinite(v):
        return "not a number"
    return f"{v:.3f}".rstrip("0").rstrip(".") if abs(v) < 0.1 else f"{v:.2f}"


# What came of it


def steps(s: Status) -> str:
    """Every ended step: what it learned from, how the dev slice changed, and texts before and after; the newest first."""
    return "".join(_step(step) for step in reversed(s.steps))


def _step(step: Mapping[str, Any]) -> str:
    name = f"Round {step['round']}, {NAMES.get(step['role'], step['role'])}"
    body = _learned(step) + _dev(step) + _trained(step)
    return section(name, _verdict(step), body + _before_after(step))


def _verdict(step: Mapping[str, Any]) -> str:
    """Whether it was published and whether that is an improvement, in a sentence."""
    dev = step.get("dev")
    if not dev:
        return f"Left as it was: {step['why']}."
    gain = dev["gain"]["total"]
    figure = f"{gain['mean']:+.3f} [{gain['low']:+.3f}, {gain['high']:+.3f}]"
    measured = f"the reward of {of(dev['n_questions'], 'held-out text')} by people it never learned from changes by {figure}"
    if not step.get("adapter"):
        return f"Not published: {measured}, a fall beyond noise."
    how = "an improvement beyond noise" if gain["low"] > 0 else "a change that may be noise"
    return (
        f"{'Published as ' + step['version'] if step.get('version') else 'Trained, without a registry to publish to'}: {measured}, {how}."
    )


def _learned(step: Mapping[str, Any]) -> str:
    """Pairs kept and dropped, and raw against differential credit."""
    parts = []
    if mix := step.get("mix"):
        dropped = {k: n for k, n in mix["dropped"].items() if k != "trains no agent"}
        left = "; ".join(f"{n:,} × {escape(reason)}" for reason, n in dropped.items())
        notes = "".join(f"<p>{escape(note)}</p>" for note in mix["notes"])
        parts.append(f"<p>Learned from <b>{of(mix['pairs'], 'pair')}</b>{'; left out: ' + left if left else ''}.</p>{notes}")
    rolled = step.get("rollouts")
    if rolled and "raw" in rolled:
        head = ("Credit", "Prompts", "Pairs kept", "Mean gap", "Mean weight", "Dropped, and why")
        rows = [_credit_row(name, rolled[name], rolled["credit"] == name) for name in ("differential", "raw")]
        parts.append(table("Raw and differential credit", head, rows))
        same = f"{rolled['same_pair']:,} of {of(rolled['both_keep'], 'pair')} are the same by both."
        rewards = f"Reward of a candidate {rolled['reward_mean']:.3f}, of the best of each prompt {rolled['reward_best']:.3f}."
        icc = rolled.get("icc")
        chance = "" if icc is None else f" {max(icc, 0):.0%} of the variance of a text’s reward lies between summaries, the rest is chance."
        parts.append(f'<p class="pat-muted">{same} {rewards}{chance}</p>')
    return "".join(parts)


def _credit_row(name: str, t: Mapping[str, Any], used: bool) -> tuple[str, ...]:
    dropped = "; ".join(f"{n:,} × {REASONS.get(reason, reason)}" for reason, n in t["dropped"].items()) or "none"  # type: ignore[call-overload]
    title = name.capitalize() + (' <span class="pat-muted">(used)</span>' if used else "")
    return (
        title,
        f"{t['n']:,}",
        f"{t['kept']:,}",
        f"{t['gap']:.3f}",
        f"{t['weight']:.2f}",
        f'<span class="pat-words">{escape(dropped)}</span>',
    )


def _dev(step: Mapping[str, Any]) -> str:
    """Every term of the reward before and after, with the paired change."""
    dev = step.get("dev")
    if not dev:
        return ""
    names = [name for name in TERMS if name in dev["gain"] and name != "words"]
    widest = max(max(abs(dev["gain"][name][end]) for name in names for end in ("low", "high")), 1e-3)
    _, high = _nice(0.0, widest)
    head = (
        "On people it never learned from",
        axis(-high, high, 0, (f"−{_number(high)}", "0", f"+{_number(high)}")),
        "Change",
        "Before",
        "After",
    )
    rows = []
    for name in [*names, *(n for n in ("words",) if n in dev["gain"])]:
        before, after, gain = (dev[part][name] for part in ("before", "after", "gain"))
        digits = 1 if name == "words" else 3
        change = f"{gain['mean']:+.{digits}f} [{gain['low']:+.{digits}f}, {gain['high']:+.{digits}f}]"
        drawn = NONE if name == "words" else mark(Estimate(gain["mean"], gain["low"], gain["high"]), -high, high, 0)
        rows.append((TERMS[name], drawn, change, f"{before['mean']:.{digits}f}", f"{after['mean']:.{digits}f}"))
    return table("Change of the dev slice", head, rows, drawn=1)


def _trained(step: Mapping[str, Any]) -> str:
    t = step.get("training")
    if not t:
        return ""
    minutes = ", ".join(f"{name} {n:.1f} min" for name, n in (step.get("minutes") or {}).items())
    said = (
        f"{of(t['steps'], 'update')} on {of(t['n_pairs'], 'pair')} and {t['tokens']:,} tokens; "
        f"loss {t['loss'][0]:.3f} to {t['loss'][1]:.3f}, "
        f"accuracy {t['accuracy']:.0%} in the last one. {minutes}."
    )
    points = [Point(**p) for p in t["curve"]]
    name = f"training {step['round']} {step['role']}"
    return f'<details data-fold="{escape(name)}"><summary>The training</summary><p>{escape(said)}</p>{curves(points)}</details>'


def _before_after(step: Mapping[str, Any]) -> str:
    """The same questions in the same seeds, by the version before and by the new one."""
    examples = step.get("examples")
    if not examples:
        return ""
    role = step["role"]
    rows = "".join(_example(e, role) for e in examples)
    return (
        f'<h4 class="pat-title">Before and after</h4><p class="pat-hint">The same {of(len(examples), "prompt")} in the same seeds, for '
        f'people it never learned from.</p><div class="pat-pairs">{rows}</div>'
    )


def _example(e: Mapping[str, Any], role: str) -> str:
    rating = f", {e['rating']:g} of 5" if isinstance(e.get("rating"), int | float) else ""
    title = f'<h5>{escape(str(e["title"]))} <span class="pat-muted">{escape(str(e["topic"]))}{rating}</span></h5>'
    before, after = e["before"], e["after"]
    texts = _two(before.get("text", ""), after.get("text", ""))
    notes = ""
    if role in ("style", "topic"):
        name = f"Its note{'' if before.get(role) != after.get(role) else ', which is the same'}"
        both = _two(before.get(role, ""), after.get(role, ""))
        notes = f'<details data-fold="{escape(str(e["title"]))} {role}"><summary>{name}</summary>{both}</details>'
    return f"<article>{title}{texts}{notes}</article>"


def _two(before: str, after: str) -> str:
    cells = "".join(
        f'<div><span class="pat-side">{side}</span><p class="pat-text">{escape(text) or "(no text)"}</p></div>'
        for side, text in (("Before", before), ("After", after))
    )
    return f'<div class="pat-two">{cells}</div>'
