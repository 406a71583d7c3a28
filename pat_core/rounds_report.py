"""What a step of the learning loop reports: what it rolled out, mixed, trained and gained, as JSON values and in words; whether it may be
published. Leaves out doing any of it (``rounds``).
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, Literal

import numpy as np

from pat_core.credit import REASONS, Selected, intraclass_correlation, tally
from pat_core.dpo import Report, data_facts
from pat_core.estimates import Estimate, estimate
from pat_core.metrics import n_words
from pat_core.preferences import Comparison, Mix, Mode
from pat_core.rounds_rollouts import Question, Scored, by_reference, without_reference

Credit = Literal["differential", "raw"]
Term = Literal["total", "reference_free", "likelihood"]  # of a dev row: the reward with a reference, the one without, the likelihood
JUDGES_TOLD = 5  # of those who count most


def verdict(dev: Mapping[str, Any], use: Mode, learned: Term = "total") -> tuple[bool, str]:
    """Whether a step that learned from the reward ``learned`` may be published, by the dev slice, and why, in words.

    Whatever it learned from, the reward with a reference may not fall beyond noise: a text can be written for the other one.
    """
    gain, held = dev["gain"][learned], dev["gain"]["total"]
    said = f"the dev slice's reward changes by {_interval(gain)}"
    if learned == "reference_free":
        said = f"the dev slice's reward without a reference changes by {_interval(gain)}, that with one by {_interval(held)}"
    if learned == "likelihood":
        said = (
            f"the log-likelihood of what people wrote changes by {_interval(gain)} nats a token, the reward of texts by {_interval(held)}"
        )
    if fell(dev):
        return False, f"{said}, a fall beyond noise"
    if gain["mean"] >= 0:
        return True, f"{said}, a rise beyond noise" if gain["low"] > 0 else f"{said}, no fall, and no rise beyond noise"
    if use == "automatic":
        return False, f"{said}, a fall within noise, and what learned from this reward alone has to be level at least"
    return True, f"{said}, a fall within noise, which does not outweigh people's votes"


def _interval(gain: Mapping[str, float]) -> str:
    return f"{gain['mean']:+.4f} [{gain['low']:+.4f}, {gain['high']:+.4f}]"


def fell(dev: Mapping[str, Any]) -> bool:
    """Whether the reward of the dev slice falls beyond noise: the whole interval of its change lies below 0."""
    return dev["gain"]["total"]["high"] < 0


def examples_of(dev: Sequence[Question], before: Sequence[Mapping[str, str]], after: Sequence[Mapping[str, str]]) -> list[dict[str, Any]]:
    """What was written for the same questions in the same seeds before a step and after it."""
    asked = [{"title": q.query.title, "topic": q.query.topic, "rating": q.query.rating} for q in dev]
    return [q | {"before": dict(old), "after": dict(new)} for q, old, new in zip(asked, before, after, strict=False)]


def dev_row(question: Question, text: str) -> dict[str, float]:
    value = by_reference(question, text)
    terms = value.terms if n_words(text) else dict.fromkeys(("rouge_1", "rouge_l", "meteor", "style", "length", "copy"), 0.0)
    free = without_reference(question, text).total
    return {"total": value.total, "reference_free": free, "words": float(n_words(text)), **terms}


def compared(dev: Sequence[Question], before: Sequence[Mapping[str, float]], after: Sequence[Mapping[str, float]]) -> dict[str, Any]:
    """Every term before and after, and the paired change, each as a mean over users with its 95% bootstrap interval."""

    def by_user(values: Sequence[float]) -> list[float]:
        groups: dict[str, list[float]] = defaultdict(list)
        for q, value in zip(dev, values, strict=True):
            groups[q.query.user_id].append(value)
        return [float(np.mean(v)) for v in groups.values()]

    found: dict[str, Any] = {"n_questions": len(dev), "before": {}, "after": {}, "gain": {}}
    for name in before[0]:
        old, new = ([row[name] for row in rows] for rows in (before, after))
        for part, values in (("before", old), ("after", new), ("gain", np.subtract(new, old).tolist())):
            found[part][name] = _rounded(estimate(by_user(values)))
    return found


def _rounded(value: Estimate) -> dict[str, float]:
    return {"mean": round(value.mean, 4), "low": round(value.low, 4), "high": round(value.high, 4), "n": value.n}


def ablation(scored: Sequence[Scored], credit: Credit) -> dict[str, Any]:
    """Rewards of the candidates, and what both credits make of them: pairs kept, prompts dropped and why, gaps and weights.

    ``icc`` is the share of a text's reward variance that lies between the summaries of a prompt, None for texts, which are themselves.
    """
    rewards = [r for s in scored for r in s.rewards]
    both = [(s.differential, s.raw) for s in scored if isinstance(s.differential, Selected) and isinstance(s.raw, Selected)]
    same = sum((d.chosen, d.rejected) == (r.chosen, r.rejected) for d, r in both)
    icc = intraclass_correlation(s.by_text for s in scored)
    return {
        "credit": credit,
        "icc": None if icc is None else round(icc, 4),
        "n_prompts": len(scored),
        "n_candidates": len(rewards),
        "reward_mean": float(np.mean(rewards)) if rewards else 0.0,
        "reward_best": float(np.mean([max(s.rewards) for s in scored if s.rewards])) if rewards else 0.0,
        "differential": asdict(tally(s.differential for s in scored)),
        "raw": asdict(tally(s.raw for s in scored)),
        "same_pair": same,
        "both_keep": len(both),
    }


def no_pair(rolled: Mapping[str, Any]) -> str:
    """Why no prompt of the rollouts gave a pair, in a sentence."""
    dropped = rolled[rolled["credit"]]["dropped"]
    return f"none of {rolled['n_prompts']} prompts gives a pair: " + "; ".join(f"{n} x {REASONS[reason]}" for reason, n in dropped.items())


def without_pairs(rolled: Mapping[str, Any] | None) -> dict[str, Any]:
    return {k: v for k, v in rolled.items() if k != "comparisons"} if rolled else {}


def comparison_from(row: Mapping[str, Any]) -> Comparison:
    return Comparison(**{**row, "prompt": tuple((speaker, text) for speaker, text in row["prompt"])})


def mix_facts(mix: Mix) -> dict[str, Any]:
    """Pairs, where they come from, what was dropped; who counts how much, without names; what votes say of the reward."""
    return {
        "pairs": len(mix.pairs),
        "sources": data_facts(mix.pairs)["sources"],
        "dropped": mix.dropped,
        "winners": mix.winners,
        "cap": mix.cap,
        "judges": [{"n": j.n, "counts": round(j.total, 2)} for j in mix.judges],
        "calibration": asdict(mix.calibration) if mix.calibration else None,
        "notes": list(mix.notes),
    }


def training_facts(report: Report, epochs: int) -> dict[str, Any]:
    """What DPO did. ``accuracy_unseen`` is the share of pairs told right before an update saw them: the first epoch's, but for its first
    update, before which nothing is preferred yet; None where that was all."""
    first_epoch = report.curve[1 : math.ceil(report.steps / epochs)]
    unseen = round(float(np.mean([p.accuracy for p in first_epoch])), 4) if first_epoch else None
    first, last = report.curve[0], report.curve[-1]
    return {
        "n_pairs": report.n_pairs,
        "n_too_long": report.n_too_long,
        "n_thinned": report.n_thinned,
        "steps": report.steps,
        "tokens": report.tokens,
        "seconds": report.seconds,
        "loss": [round(first.loss, 4), round(last.loss, 4)],
        "margin": round(last.margin, 4),
        "accuracy": round(last.accuracy, 4),
        "accuracy_unseen": unseen,
        "kl": round(last.kl, 5),
        "chosen_tokens": round(float(np.mean([p.chosen_tokens for p in report.curve])), 1),
        "rejected_tokens": round(float(np.mean([p.rejected_tokens for p in report.curve])), 1),
        "curve": [{k: round(v, 4) for k, v in asdict(p).items()} for p in report.curve],
    }


def _unseen(training: Mapping[str, Any]) -> str:
    share = training.get("accuracy_unseen")  # a step that an earlier version of this code finished has none
    return "" if share is None else f" ({share:.2f} of pairs not seen before)"


def step_text(step: Mapping[str, Any]) -> str:
    """A step for a terminal."""
    lines = [f"Round {step['round']}, {step['role']}" + (f" (from {step['parent']})" if step["parent"] else "")]
    if rolled := step["rollouts"]:
        for credit in ("differential", "raw"):
            t = rolled[credit]
            dropped = "; ".join(f"{n} x {REASONS[reason]}" for reason, n in t["dropped"].items()) or "none dropped"
            kept = f"{t['kept']} of {t['n']} prompts give a pair, mean gap {t['gap']:.3f}, weight {t['weight']:.2f}"
            lines.append(f"  {credit} credit: {kept}; {dropped}")
        lines.append(f"  {rolled['same_pair']} of {rolled['both_keep']} pairs are the same by both credits")
        if (icc := rolled.get("icc")) is not None:
            lines.append(f"  of the variance of a text's reward {max(icc, 0):.0%} lies between the summaries of a prompt")
        lines.append(f"  reward of a candidate {rolled['reward_mean']:.3f}, of the best of each prompt {rolled['reward_best']:.3f}")
    if mix := step.get("mix"):
        lines.append(f"  {mix['pairs']} pairs" + "".join(f"; {n} dropped: {reason}" for reason, n in mix["dropped"].items()))
        if judges := mix["judges"]:
            counted = ", ".join(f"{j['counts']:g} of {j['n']}" for j in judges[:JUDGES_TOLD])
            more = f" and {len(judges) - JUDGES_TOLD} more" if len(judges) > JUDGES_TOLD else ""
            lines.append(f"  votes that count, at most {mix['cap']:g} of one person: {counted}{more}")
        lines += [f"  {note}" for note in mix["notes"]]
    if t := step.get("training"):
        if t["n_thinned"]:
            lines.append(f"  trained on {t['n_pairs']} of them: {t['n_thinned']} light ones are represented by others")
        lines.append(
            f"  DPO: {t['steps']} updates, loss {t['loss'][0]:.3f} -> {t['loss'][1]:.3f}, margin {t['margin']:.2f}, "
            f"accuracy {t['accuracy']:.2f}{_unseen(t)}, KL {t['kl']:.4f} nats a token, "
            f"{t['chosen_tokens']:.0f} tokens chosen, {t['rejected_tokens']:.0f} rejected"
        )
    if dev := step.get("dev"):
        for name in dev["gain"]:
            old, new, gain = (dev[part][name] for part in ("before", "after", "gain"))
            lines.append(f"  dev {name}: {old['mean']:.3f} -> {new['mean']:.3f}, {_interval(gain)}")
    if minutes := step.get("minutes"):
        lines.append("  minutes: " + ", ".join(f"{name} {n:.1f}" for name, n in minutes.items()))
    return "\n".join([*lines, f"  {step['version'] or step['role']}: {step['why']}"])
