"""The data card of an export: the README.md that ``datasets`` reads its configurations from and a person reads everything else from.

It says what was asked of whom, how far people agree, what was left out and why, and what the data cannot tell. It holds no time but those
of the judgments, so that the same campaign has the same card. Leaves out the files themselves (``annotate.export``).
"""

from __future__ import annotations

import html
import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from annotate.stats import Estimate, Vote, agreements, outcome_counts, self_consistency
from annotate.stats.votes import DECISIVE, codes, share_estimate
from annotate.transfer import Contents
from annotate.types import DIMENSIONS, OUTCOMES
from annotate.votes import OPINIONS, votes_of

N_RESAMPLES = 400
FEATURES: dict[str, dict[str, Any]] = {  # our column types in the words of datasets
    "text": {"dtype": "string"},
    "whole": {"dtype": "int64"},
    "number": {"dtype": "float64"},
    "flag": {"dtype": "bool"},
    "json": {"dtype": "json"},
    "texts": {"list": "string"},
    "chat": {"list": [{"name": "role", "dtype": "string"}, {"name": "content", "dtype": "string"}]},
    "dims": {"struct": [{"name": name, "dtype": "float64"} for name in DIMENSIONS]},
}


COLUMNS = {  # of judgments.*, the training files and their sidecars, in words
    "judgment_id": "the answer",
    "pair_id": "the two texts, whichever side they were on",
    "item_id": "what was to be written",
    "annotator_id": "who answered: a random number",
    "judge_kind": "human, llm or metric",
    "perspective": "how the judge says they read: native, learner, domain; compose for a visitor of the demo",
    "kind": "one-factor, system, or a check: gold, identical, swap (a pair again with its sides exchanged)",
    "agent": "the agent whose completion differs in a one-factor pair",
    "round": "the learning round that the pair was made for",
    "prompt": "what was asked for; in a training file the chat that the agent answered",
    "topic, title, reference": "what the judge saw above the texts; reference is all of it, as JSON",
    "lang, source": "language and corpus of the item",
    "text_a, text_b": "the texts; a stood left",
    "system_a, system_b": "who wrote them; never shown",
    "outcome": "A, B, tie (both good), both_bad or cannot_judge",
    "strength": "slightly or clearly, with A or B",
    "dim_style, dim_topic, dim_fluency": "A, B or same on that question, where answered",
    "tags, rationale": "reasons ticked, and the judge's own words",
    "ms_visible, ms_total": "milliseconds from the pair's appearance to the answer: while the page was visible, and in all",
    "input_kind": "keyboard, mouse, touch or api",
    "unblinded": "the names of the systems were on the screen",
    "current": "not revised later",
    "counted": "current and not excluded",
    "excluded": "the owner's reasons for leaving it out",
    "revision_of": "the earlier answer that this one replaces",
    "created_at": "when it was kept, UTC",
    "propensity": "probability that this pair was made, in sidecars, or given out next, in judgments",
    "propensity_offered": "mean probability with which its judges were given the pair",
    "shown_left_id, order_key": "the text on the left, and what its side was computed from",
    "ui_version, guideline_version": "the page and the guide that the judge saw",
    "chosen, rejected": "the completion that people prefer, and the other, as chat turns",
    "weight": "how much a pair should count, 0 to 1",
    "p, p_chosen, p_lo, p_hi": "P(chosen preferred) and its 95% interval",
    "completion, label": "for KTO: a completion, true where both were good, false where both were bad",
    "chosen_id, rejected_id, candidate_id": "the texts in campaign/candidates.jsonl",
    "n_judges, n_effective": "people who answered, and the sum of their weights",
    "n_chosen, n_rejected, n_tie, n_both_bad, n_decisive": "answers of each kind",
    "n_clear, n_slight, n_unblinded": "decisive answers that were clear, slight, unblinded",
    "strength_mean": "mean of -2 (rejected, clearly) to 2 (chosen, clearly)",
    "dims": "P(chosen preferred) on each question, a tie for half",
    "side_balance": "share of answers that saw the chosen text on the left",
    "rewards_chosen, rewards_rejected": "the automatic rewards of both texts: total, and its terms",
    "methodology_version": "how the figures were computed",
}


@dataclass(frozen=True, slots=True)
class DataFile:
    """One file of an export. ``config`` is its name for ``load_dataset``, '' for a copy of another in a second format."""

    name: str
    config: str
    columns: Mapping[str, str]
    n_rows: int
    sha256: str
    about: str


@dataclass(frozen=True, slots=True)
class Uses:
    """Where the answers went: ``used`` are in a training file, ``left_out`` counts the others by reason; ``thresholds`` by name."""

    used: int
    left_out: Mapping[str, int]
    thresholds: Mapping[str, float]
    include_unblinded: bool
    method: str


def card(contents: Contents, files: Sequence[DataFile], uses: Uses) -> str:
    """The text of README.md."""
    sections = (
        _title(contents),
        ("What was asked", _asked(contents)),
        ("Who judged", _who(contents)),
        ("How far they agree", _agreement(contents)),
        ("Files", _files(files)),
        ("Columns", _columns()),
        ("From answers to training rows", _training(uses)),
        ("Limits", _limits(contents)),
        ("License", _license(contents)),
    )
    head, *rest = sections
    return "\n".join([_front_matter(contents, files), str(head), *(f"\n## {name}\n\n{text}" for name, text in rest), ""])


def _front_matter(contents: Contents, files: Sequence[DataFile]) -> str:
    """YAML whose values are JSON, which YAML reads, so that nothing has to be quoted by other rules."""
    loadable = [f for f in files if f.config and f.n_rows]  # datasets cannot load a file without rows
    languages = sorted({i.lang for i in contents.items if re.fullmatch("[a-z]{2,3}", i.lang)})
    lines = ["---", "license: other", "pretty_name: Pairwise judgments of personalized texts", "tags: [preference, dpo, kto, trl]"]
    lines += [f"language: {json.dumps(languages)}"] if languages else []
    if loadable:
        lines += ["configs:"]
        for file in loadable:
            config = {"config_name": file.config, "data_files": file.name}
            lines.append("- " + json.dumps(config | ({"default": True} if file is loadable[0] else {})))
        lines += ["dataset_info:"]
        for file in loadable:
            features = [{"name": name, **FEATURES[kind]} for name, kind in file.columns.items()]
            lines.append("- " + json.dumps({"config_name": file.config, "features": features}))
    return "\n".join([*lines, "---"])


def _title(contents: Contents) -> str:
    times = [j.created_at for j in contents.judgments]
    when = f"given from {min(times)} to {max(times)}" if times else "none yet, so the files hold no judgments"
    counts = f"Items: {len(contents.items):,}, texts: {len(contents.candidates):,}, pairs: {len(contents.pairs):,}"
    return f"\n# Pairwise judgments of personalized texts\n\n{counts}, answers with all revisions: {len(contents.judgments):,}, {when}."


def _asked(contents: Contents) -> str:
    kinds = Counter(p.kind for p in contents.pairs)
    versions = Counter(j.guideline_version for j in contents.judgments)
    return (
        "Two texts stood side by side without a name, above them the topic and the writer's own texts or wishes. The question: which of "
        f"the two would this person rather have written. Answers: {', '.join(OUTCOMES)} (A is the text on the left, tie means both good); "
        f"for A and B slightly or clearly; and A, B or same for {', '.join(DIMENSIONS)}. Sides are balanced in blocks of four per person "
        "and kind of comparison; `shown_left_id` and `order_key` say which.\n\n"
        f"Pairs by kind: {_counts(kinds)}. In a one-factor pair only one completion of one agent differs; only such pairs train an agent. "
        f"Answers by version of the guidelines: {_counts(versions)}."
    )


def _who(contents: Contents) -> str:
    answered = Counter(j.annotator_id for j in contents.judgments if j.judgment_id in contents.current)
    judges = [a for a in contents.annotators if a.annotator_id in answered]
    most = max(answered.values(), default=0)
    share = f" The busiest gave {most / sum(answered.values()):.0%} of the answers that stand." if most else ""
    return (
        f"Judges: {len(judges):,} ({_counts(a.kind for a in judges)}); perspectives: {_counts(a.perspective for a in judges)}; languages: "
        f"{_counts(a.lang for a in judges)}; versions of the privacy notice agreed to: {_counts(a.consent for a in judges)}.{share} Ids "
        "are random; invite codes and sign-ins are never in these files, nicknames only where the owner asked for them."
    )


def _agreement(contents: Contents) -> str:
    pairs = {p.pair_id: p for p in contents.pairs}
    candidates = {c.candidate_id: c for c in contents.candidates}
    people = {a.annotator_id for a in contents.annotators if a.kind == "human"}
    counted = [j for j in contents.judgments if j.judgment_id in contents.counted and j.annotator_id in people and not j.unblinded]
    votes = votes_of([j for j in counted if pairs[j.pair_id].kind in OPINIONS.kinds], pairs, candidates)
    first = [v for v in votes if not v.is_swap_of]
    if not first:
        return "No answer of a person who saw nothing but the two texts counts yet, so nothing can be said."
    n = outcome_counts(first)
    said = f"{n.n:,} answers of people who saw nothing but the two texts count: {n.left} left, {n.right} right, {n.tie} both good, "
    lines = [
        f"{said}{n.both_bad} both bad, {n.cannot_judge} cannot judge. Intervals are 95%.",
        "",
        "| measure | value | of |",
        "|---|---|---|",
    ]
    for a in agreements(first, n_resamples=N_RESAMPLES):
        of = f"{a.n_pairs} pairs, {a.n_annotators} people"
        lines.append(f"| agreement, {a.dimension}: same answer of two people | {_share(a.raw)} | {of} |")
        lines.append(f"| Krippendorff's alpha, {a.dimension}, interval scale | {_number(a.alpha_interval)} | {a.n_judgments} answers |")
    repeats = self_consistency(votes)
    judged = [v for v in first if v.outcome != "cannot_judge"]
    decisive = [v for v in judged if v.outcome in DECISIVE]
    left = _part(decisive, [v.outcome == "left" for v in decisive])
    ties = _part(judged, [v.outcome not in DECISIVE for v in judged])
    lines.append(f"| self-consistency: same answer to a swapped repeat | {_share(repeats.same)} | {repeats.n} repeats |")
    lines.append(f"| left share of decisive answers | {_share(left)} | {len(decisive)} answers |")
    lines.append(f"| ties of both kinds | {_share(ties)} | {len(judged)} answers |")
    for kind in ("gold", "identical", "swap"):
        results = Counter(c.result for c in contents.checks if c.kind == kind and c.annotator_id in people)
        lines.append(f"| checks: {kind} | {_counts(results)} | {results.total()} answers |")
    lines += ["", "Low agreement is normal in a matter of taste: read it against self-consistency, its ceiling, not against 0.8."]
    return "\n".join(lines)


def _part(votes: Sequence[Vote], y: Sequence[bool]) -> Estimate | None:
    """The share of true ``y`` among votes, its interval by item."""
    return share_estimate(np.array(y, dtype=float), np.ones(len(votes)), codes([v.prompt for v in votes])[0])


def _files(files: Sequence[DataFile]) -> str:
    lines = ["| file | rows | configuration | what | sha256 |", "|---|---|---|---|---|"]
    for f in files:
        config = f"`{f.config}`" if f.config and f.n_rows else "no rows" if f.config else ""
        lines.append(f"| `{f.name}` | {f.n_rows:,} | {config} | {f.about} | `{f.sha256}` |")
    lines += [
        "",
        '`load_dataset(FOLDER, "dpo_style")` reads one configuration; a file without rows has none. `SHA256SUMS` lists every file, for '
        "`sha256sum -c SHA256SUMS`. `python -m annotate.transfer --db DB FOLDER` brings the campaign into another database; an export from "
        "there has the same bytes. Line n of a `_sidecar` file belongs to line n of the file it is named after.",
    ]
    return "\n".join(lines)


def _columns() -> str:
    rows = [f"| {', '.join(f'`{name}`' for name in names.split(', '))} | {about} |" for names, about in COLUMNS.items()]
    said = "The files under `campaign/` hold the rows of the database; their columns of the same names mean the same."
    return "\n".join([said, "", "| column | what it is |", "|---|---|", *rows])


def _training(uses: Uses) -> str:
    t = uses.thresholds
    text = (
        f"Method {uses.method}. P(chosen) and its 95% interval are the posterior of a hierarchical model that allows for the side and the "
        f"skill of who voted; nobody counts for more than {t['cap']:g} votes. A pair is in `dpo_AGENT` where P >= {t['p']:g} and at least "
        f"{t['n_clear']:g} people clearly or {t['n_slight']:g} slightly prefer the chosen text; every other pair with a decisive answer is "
        f"in `soft_AGENT`, with p as its soft label. `weight` = |2p - 1| * min(1, n_effective / {t['n_full']:g}). TRL's DPOTrainer drops "
        "this column: use it, or p, in a loss of your own, but not both. `kto_AGENT` holds both texts of a pair, desirable where tie (both "
        "good) is its leading answer, undesirable where both bad is. Answers with cannot_judge are in none."
    )
    if uses.include_unblinded:
        text += " Answers of people who saw more than the two texts are included, at the owner's wish; the sidecars count them."
    rows = [f"| {_cell(reason)} | {n:,} |" for reason, n in sorted(uses.left_out.items())]
    said = f"{uses.used:,} answers are behind the training files." + (" The others, by reason:" if rows else "")
    return "\n".join([text, "", said, *(["", "| left out because | answers |", "|---|---|", *rows] if rows else [])])


def _limits(contents: Contents) -> str:
    unblinded = sum(j.unblinded for j in contents.judgments)
    excluded = sum(e.active for e in contents.exclusions)
    own = sum(i.contributor_id is not None for i in contents.items)
    return "\n".join(
        [
            "- Taste differs: a preference here is of these judges, on these items; see the perspectives before averaging over them.",
            "- Few answers per pair: read the interval of p, not only p. A single vote moves a pair, never a conclusion.",
            f"- Answers by people who saw more than the two texts, marked `unblinded`: {unblinded:,}.",
            f"- Exclusions in force: {excluded:,}, each with its reason in `campaign/exclusions.jsonl`; the raw files keep the answers.",
            f"- Items that hold a visitor's own words (`contributor_id`): {own:,}.",
            "- Not in these files: settings and secrets, the audit trail. Free text by judges (rationales) is as they wrote it.",
            "- An export is a copy: when somebody asks to be erased, delete it and export again.",
        ]
    )


def _license(contents: Contents) -> str:
    return (
        f"The texts come from these sources, whose own terms apply: {_counts(i.source for i in contents.items)}. Before giving these files "
        "to anyone, see that those terms, and the privacy notice that the judges agreed to, allow it."
    )


def _counts(values: Iterable[str] | Counter[str]) -> str:
    counts = values if isinstance(values, Counter) else Counter(values)
    return ", ".join(f"{_cell(name) or 'not said'}: {n:,}" for name, n in sorted(counts.items())) or "none"


def _cell(text: str) -> str:
    """Text by people as plain words in Markdown: no markup, no table borders, one line."""
    return re.sub(r"([\\`*_\[\]|#])", r"\\\1", html.escape(" ".join(text.split()), quote=False))


def _share(e: Estimate | None) -> str:
    return "unknown" if e is None else f"{e.value:.1%} [{100 * e.low:.1f}, {100 * e.high:.1f}]"


def _number(e: Estimate | None) -> str:
    return "unknown" if e is None else f"{e.value:.2f} [{e.low:.2f}, {e.high:.2f}]"
