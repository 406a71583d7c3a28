"""A campaign as files: all it takes to set it up elsewhere, one flat table of answers for analysts, training files for TRL, a data card.

The folder appears whole or not at all. Its bytes depend on the campaign and the options alone: no time of the export, no path, no name of
the machine; so an export of its import is the same (``annotate.transfer``). People are random ids: nicknames come only with
``--with-names``, and what identifies somebody (invite code, sign-in) never; the imported person is then called after the id. Reads beside
a running app and writes nothing to the store.

    python -m annotate.export --db DB --out FOLDER
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import math
import os
import shutil
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

from annotate.card import DataFile, Uses, card
from annotate.database import StoreError, sync_folder
from annotate.fields import canonical
from annotate.sheets import neutral
from annotate.stats import Vote, cap_weights, pair_preferences
from annotate.stats.pairs import PairPreference
from annotate.store import Store, open_store
from annotate.transfer import CAMPAIGN, FILES, SUMS, Contents, columns_of, contents_of, row_of
from annotate.types import DIMENSIONS, Annotator, Candidate, Export, Judgment, Pair
from annotate.votes import votes_by_candidate
from pat_core.config import load_config
from pat_core.llm.prompting import SPEAKERS, TURN_TOKENS
from pat_core.preferences import CAP
from pat_core.types import ADAPTER_ROLES

METHOD = "1"  # of weights and thresholds; a change of either is a new number
DIGITS = 4  # of every estimate, so that a last bit of some other processor is not in the files

FLAT: dict[str, str] = {
    "judgment_id": "text", "pair_id": "text", "item_id": "text", "annotator_id": "text", "judge_kind": "text", "perspective": "text",
    "kind": "text", "agent": "text", "round": "whole", "prompt": "text", "topic": "text", "title": "text", "lang": "text", "source": "text",
    "text_a": "text", "text_b": "text", "system_a": "text", "system_b": "text", "outcome": "text", "strength": "text",
    **{f"dim_{name}": "text" for name in DIMENSIONS}, "tags": "texts", "rationale": "text", "ms_visible": "whole", "ms_total": "whole",
    "input_kind": "text", "unblinded": "flag", "current": "flag", "counted": "flag", "excluded": "texts", "revision_of": "text",
    "created_at": "text", "propensity": "number", "shown_left_id": "text", "order_key": "text", "ui_version": "text",
    "guideline_version": "text", "reference": "text",
}  # fmt: skip
_RAW_TYPES = {
    "reference": "json", "trace": "json", "dims": "json", "tags": "texts", "round": "whole", "ms_visible": "whole", "ms_total": "whole",
    "propensity": "number", "unblinded": "flag", "active": "flag", "current": "flag",
}  # fmt: skip
_DPO = {"prompt": "chat", "chosen": "chat", "rejected": "chat", "weight": "number"}
_SIDECAR = {
    "pair_id": "text", "item_id": "text", "chosen_id": "text", "rejected_id": "text", "p_chosen": "number", "p_lo": "number",
    "p_hi": "number", "n_judges": "whole", "n_effective": "number", "n_chosen": "whole", "n_rejected": "whole", "n_tie": "whole",
    "n_both_bad": "whole", "n_clear": "whole", "n_slight": "whole", "n_unblinded": "whole", "strength_mean": "number", "dims": "dims",
    "side_balance": "number", "weight": "number", "propensity": "number", "propensity_offered": "number", "rewards_chosen": "json",
    "rewards_rejected": "json", "round": "whole", "lang": "text", "methodology_version": "text",
}  # fmt: skip
_KTO = {"prompt": "chat", "completion": "chat", "label": "flag"}
_KTO_SIDECAR = {
    "pair_id": "text", "candidate_id": "text", "n_judges": "whole", "n_tie": "whole", "n_both_bad": "whole", "n_decisive": "whole",
    "n_unblinded": "whole", "methodology_version": "text",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Options:
    """What goes into the training files. A pair is a preference where P >= ``p`` and ``n_clear`` people clearly or ``n_slight`` slightly
    agree; from ``n_full`` effective judges on it has its whole weight; ``cap`` is the most votes that one person may count for."""

    include_unblinded: bool = False
    with_names: bool = False
    p: float = 0.65
    n_clear: int = 1
    n_slight: int = 2
    n_full: float = 2.0
    cap: float = CAP

    def __post_init__(self) -> None:
        if not 0.5 < self.p < 1:
            raise ValueError(f"the threshold {self.p:g} must lie between 0.5 and 1: it is a probability of the chosen text")
        if not (self.n_clear >= 1 and self.n_slight >= 1 and self.n_full > 0 and self.cap > 0):
            raise ValueError("the numbers of clear and slight answers must be at least 1, the others above 0")

    @property
    def thresholds(self) -> dict[str, float]:
        return {name: value for name, value in asdict(self).items() if name not in ("include_unblinded", "with_names")}


OPTIONS = Options()


class Line(NamedTuple):
    """One line of a training file and the line of its sidecar."""

    values: dict[str, Any]
    sidecar: dict[str, Any]


class Training(NamedTuple):
    """Lines by file name without ending; ``used`` answers are behind them, ``left_out`` counts the others by reason."""

    lines: dict[str, list[Line]]
    used: int
    left_out: Counter[str]


def export(store: Store, out: Path, options: Options = OPTIONS) -> Export:
    """Write the campaign to the new or empty folder ``out``, whole or not at all, and say what was exported (the store is not told).

    Raises ValueError for a folder that holds something, StoreError or OSError where the store cannot be read or the folder not written.
    """
    out = out.absolute()
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(f"{out} exists and is not an empty folder; nothing was written. Choose a new folder for the export")
    contents = contents_of(store.path)
    out.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    try:
        export_id = _write(contents, draft, options)
        if out.exists():
            out.rmdir()
        os.replace(draft, out)
        sync_folder(out.parent)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise
    asked = {"include_unblinded": options.include_unblinded, "with_names": options.with_names}
    return Export(export_id, len(contents.judgments), asked, options.thresholds, METHOD)


def _write(contents: Contents, folder: Path, options: Options) -> str:
    """Write every file and return the sha256 of the list of their hashes."""
    training = training_lines(contents, options)
    flat = flat_rows(contents)
    files = [_lines(folder, "judgments", FLAT, flat, "every answer with what was shown, for analysts")]
    files += [_parquet(folder, flat), _csv(folder, flat)]
    for name, lines in training.lines.items():
        kind, _, agent = name.partition("_")
        columns, sidecar, about = _TRAINING_FILES[kind]
        files.append(_lines(folder, name, columns, [line.values for line in lines], about.format(agent=agent)))
        files.append(_lines(folder, f"{name}_sidecar", sidecar, [line.sidecar for line in lines], f"what is behind each line of {name}"))
    (folder / CAMPAIGN).mkdir()
    for name, noun in FILES.items():
        hidden = () if options.with_names or noun is not Annotator else ("nickname",)
        rows = [row_of(value, hidden) for value in getattr(contents, name)]
        if noun is Judgment:
            rows = [row | {"current": row["judgment_id"] in contents.current} for row in rows]
        files.append(_lines(folder, f"{CAMPAIGN}/{name}", _raw_columns(noun, hidden), rows, f"all {name}, to import elsewhere"))
    checks = [asdict(check) for check in contents.checks]
    columns = dict.fromkeys(("judgment_id", "pair_id", "annotator_id", "kind", "expected", "result"), "text")
    files.append(_lines(folder, f"{CAMPAIGN}/checks", columns, checks, "how answers to checks came out (computed)"))
    uses = Uses(training.used, training.left_out, options.thresholds, options.include_unblinded, METHOD)
    readme = card(contents, files, uses)
    (folder / "README.md").write_text(readme, encoding="utf-8", newline="\n")
    sums = {f.name: f.sha256 for f in files} | {"README.md": hashlib.sha256(readme.encode()).hexdigest()}
    listed = "".join(f"{sha}  {name}\n" for name, sha in sorted(sums.items()))
    (folder / SUMS).write_text(listed, encoding="utf-8", newline="\n")
    return hashlib.sha256(listed.encode()).hexdigest()


_TRAINING_FILES = {
    "dpo": (_DPO, _SIDECAR, "preferences for DPO of the {agent} adapter"),
    "soft": (_DPO | {"p": "number"}, _SIDECAR, "less certain preferences for the {agent} adapter, with P(chosen) as p"),
    "kto": (_KTO, _KTO_SIDECAR, "both good and both bad, for KTO of the {agent} adapter"),
}


def _raw_columns(noun: type, hidden: Iterable[str]) -> dict[str, str]:
    names = (*columns_of(noun, hidden), *(("current",) if noun is Judgment else ()))
    return {name: _RAW_TYPES.get(name, "text") for name in names}


def _lines(folder: Path, name: str, columns: Mapping[str, str], rows: Sequence[Mapping[str, Any]], about: str) -> DataFile:
    digest = hashlib.sha256()
    with (folder / f"{name}.jsonl").open("wb") as file:
        for row in rows:
            line = canonical(row).encode() + b"\n"
            digest.update(line)
            file.write(line)
    return DataFile(f"{name}.jsonl", name.replace("/", "_"), columns, len(rows), digest.hexdigest(), about)


def _parquet(folder: Path, flat: Sequence[Mapping[str, Any]]) -> DataFile:
    import pyarrow
    import pyarrow.parquet

    types = {"text": pyarrow.string(), "whole": pyarrow.int64(), "number": pyarrow.float64(), "flag": pyarrow.bool_()}
    types["texts"] = pyarrow.list_(pyarrow.string())
    schema = pyarrow.schema([(name, types[kind]) for name, kind in FLAT.items()])
    path = folder / "judgments.parquet"
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(list(flat), schema=schema), path)
    return DataFile(path.name, "", FLAT, len(flat), hashlib.sha256(path.read_bytes()).hexdigest(), "the same as Parquet")


def _csv(folder: Path, flat: Sequence[Mapping[str, Any]]) -> DataFile:
    """UTF-8 with a mark and every cell quoted, as spreadsheets need it; no cell is a formula."""
    path = folder / "judgments.csv"
    with path.open("w", encoding="utf-8-sig", newline="") as file:
        writer = csv.writer(file, quoting=csv.QUOTE_ALL, lineterminator="\n")
        writer.writerow(FLAT)
        writer.writerows([_cell(row[name]) for name in FLAT] for row in flat)
    about = "the same for spreadsheets; a cell that a spreadsheet would run begins with an apostrophe"
    return DataFile(path.name, "", FLAT, len(flat), hashlib.sha256(path.read_bytes()).hexdigest(), about)


def _cell(value: object) -> str:
    if value is None:
        return ""
    return neutral(value if isinstance(value, str) else canonical(value))


# The flat table


def flat_rows(contents: Contents) -> list[dict[str, Any]]:
    """One row of FLAT per answer, revisions too, in the order they were kept."""
    items = {i.item_id: i for i in contents.items}
    candidates = {c.candidate_id: c for c in contents.candidates}
    pairs = {p.pair_id: p for p in contents.pairs}
    people = {a.annotator_id: a for a in contents.annotators}
    propensity = {(a.pair_id, a.annotator_id): a.propensity for a in contents.assignments}
    excluded = _exclusion_reasons(contents)
    rows = []
    for j in contents.judgments:
        pair, who = pairs[j.pair_id], people[j.annotator_id]
        item = items[pair.item_id]
        left = candidates[j.shown_left_id]
        right = candidates[pair.hi_id if j.shown_left_id == pair.lo_id else pair.lo_id]
        row = {name: getattr(j, name) for name in FLAT if hasattr(j, name)} | {"tags": list(j.tags)}
        row |= {"item_id": pair.item_id, "judge_kind": who.kind, "perspective": who.perspective, "kind": pair.kind, "agent": pair.agent}
        row |= {
            "round": pair.round,
            "prompt": item.prompt,
            "lang": item.lang,
            "source": item.source,
            "reference": canonical(item.reference),
        }
        row |= {name: str(item.reference.get(name) or "") for name in ("topic", "title")}
        row |= {"text_a": left.text, "text_b": right.text, "system_a": left.system, "system_b": right.system}
        row |= {f"dim_{name}": j.dims.get(name) for name in DIMENSIONS}
        row |= {"current": j.judgment_id in contents.current, "counted": j.judgment_id in contents.counted}
        row |= {"excluded": excluded(j), "propensity": propensity[j.pair_id, j.annotator_id]}
        rows.append(row)
    return rows


def _exclusion_reasons(contents: Contents) -> Callable[[Judgment], list[str]]:
    """The reasons for which a judgment is excluded now; an excluded judgment takes its revisions with it."""
    chain = {j.judgment_id: (j.pair_id, j.annotator_id) for j in contents.judgments}
    reasons: dict[object, set[str]] = defaultdict(set)
    for e in contents.exclusions:
        if e.active:
            reasons[e.annotator_id or e.pair_id or chain[e.judgment_id]].add(e.reason)
    return lambda j: sorted(reasons[j.annotator_id] | reasons[j.pair_id] | reasons[j.pair_id, j.annotator_id])


# Training files


class Lesson(NamedTuple):
    """What the agent of a one-factor pair was asked, and what it answered in each of the two cases, by candidate id."""

    prompt: list[dict[str, str]]
    answers: dict[str, list[dict[str, str]]]


def training_lines(contents: Contents, options: Options = OPTIONS) -> Training:
    """DPO, soft-label and KTO lines of every agent, by pair id."""
    pairs = {p.pair_id: p for p in contents.pairs}
    candidates = {c.candidate_id: c for c in contents.candidates}
    langs = {i.item_id: i.lang for i in contents.items}
    offered = {(a.pair_id, a.annotator_id): a.propensity for a in contents.assignments}
    opinions, by_pair, left_out = _sorted_out(contents, pairs, options)
    votes = cap_weights(votes_by_candidate(opinions, pairs, candidates), options.cap)
    votes_on = defaultdict(list)
    for v in votes:
        if v.outcome != "cannot_judge":
            votes_on[v.unit].append(v)
    preferences = {p.pair: p for p in pair_preferences(votes)}
    lines: dict[str, list[Line]] = {f"{kind}_{agent}": [] for kind in _TRAINING_FILES for agent in ADAPTER_ROLES}
    used = 0
    for pair_id, judged in sorted(by_pair.items()):
        pair = pairs[pair_id]
        lesson = lesson_of(pair, candidates)
        if isinstance(lesson, str):
            left_out[lesson] += len(judged)
            continue
        facts = {"pair_id": pair_id, "n_unblinded": sum(j.unblinded for j in judged), "methodology_version": METHOD}
        found = [("kto", line) for line in _unpaired(lesson, preferences[pair_id], votes_on[pair_id], facts)]
        if any(_won(v) for v in votes_on[pair_id]):
            facts |= {"item_id": pair.item_id, "lang": langs[pair.item_id], "round": pair.round, "propensity": pair.propensity}
            facts["propensity_offered"] = _rounded(sum(offered[j.pair_id, j.annotator_id] for j in judged) / len(judged))
            found.append(_preference(lesson, preferences[pair_id], votes_on[pair_id], candidates, options, facts))
        for kind, line in found:
            lines[f"{kind}_{pair.agent}"].append(line)
        if found:
            used += len(judged)
        else:
            left_out["on a pair that is as often both good as both bad"] += len(judged)
    return Training(lines, used, left_out)


def _sorted_out(
    contents: Contents, pairs: Mapping[str, Pair], options: Options
) -> tuple[list[Judgment], dict[str, list[Judgment]], Counter[str]]:
    """Answers that are opinions; those of them on one-factor pairs that could be judged, by pair; how many are neither, by reason."""
    kinds = {a.annotator_id: a.kind for a in contents.annotators}
    opinions, by_pair, left_out = [], defaultdict(list), Counter()
    for j in contents.judgments:
        pair = pairs[j.pair_id]
        unit = pairs[pair.repeat_of] if pair.repeat_of else pair
        reason = _why_unused(j, contents, kinds[j.annotator_id], unit, options)
        if not reason:
            opinions.append(j)
            if unit.kind != "one-factor":
                reason = "on a pair of two systems, which trains no agent"
            elif j.outcome == "cannot_judge":
                reason = "cannot judge"
        if reason:
            left_out[reason] += 1
        else:
            by_pair[unit.pair_id].append(j)
    return opinions, by_pair, left_out


def _why_unused(j: Judgment, contents: Contents, judge_kind: str, unit: Pair, options: Options) -> str:
    """Why an answer is no opinion to learn from, '' where it is one."""
    if j.judgment_id not in contents.current:
        return "revised by a later answer"
    if judge_kind != "human":
        return f"by a judge that is no person ({judge_kind})"
    if j.judgment_id not in contents.counted:
        return "excluded by the owner (reasons in campaign/exclusions.jsonl)"
    if unit.kind in ("gold", "identical"):
        return "on a constructed check"
    if j.unblinded and not options.include_unblinded:
        return "by someone who saw more than the two texts"
    return ""


def lesson_of(pair: Pair, candidates: Mapping[str, Candidate]) -> Lesson | str:
    """What a one-factor pair can teach its agent, or why nothing."""
    kept = {c: candidates[c].trace.get("completion") for c in (pair.lo_id, pair.hi_id)}
    if not all(_whole(completion, pair.agent) for completion in kept.values()):
        return "on a pair whose completions were not kept"
    lo, hi = kept.values()
    if lo["messages"] != hi["messages"]:
        return "on a pair whose two completions answer different prompts"
    answers = {c: _with_prefix(completion) for c, completion in kept.items()}
    if answers[pair.lo_id] == answers[pair.hi_id]:
        return "on a pair whose two completions are the same"
    prompt = [{"role": role, "content": text} for role, text in lo["messages"]]
    if any(token in text for token in TURN_TOKENS for text in (*answers.values(), *(m["content"] for m in prompt))):
        return "on a pair that holds a control token of a chat template"
    return Lesson(prompt, {c: [{"role": "assistant", "content": text}] for c, text in answers.items()})


def _whole(completion: object, agent: str | None) -> bool:
    """Whether this is a completion of ``agent`` as ``Candidate.trace`` describes it; a trace may come from a file."""
    if not isinstance(completion, dict) or completion.get("role") != agent:
        return False
    messages, texts = completion.get("messages"), (completion.get("text"), completion.get("prefix", ""))
    turns = [tuple(m) if isinstance(m, list) and len(m) == 2 else ("", None) for m in messages] if isinstance(messages, list) else []
    spoken = all(role in SPEAKERS and isinstance(text, str) for role, text in turns)
    return bool(turns) and spoken and all(isinstance(text, str) for text in texts) and bool("".join(texts).strip())


def _with_prefix(completion: Mapping[str, Any]) -> str:
    """The answer with the words it was made to begin with; a summary holds them already."""
    prefix, text = completion.get("prefix", ""), completion["text"]
    return text if text.startswith(prefix) else prefix + text


def _preference(
    lesson: Lesson,
    pref: PairPreference,
    votes: Sequence[Vote],
    candidates: Mapping[str, Candidate],
    options: Options,
    facts: Mapping[str, Any],
) -> tuple[str, Line]:
    """The line of a pair with decisive votes, and which file it belongs to: dpo or soft."""
    chosen, rejected, p, low, high = pref.a, pref.b, pref.p.value, pref.p.low, pref.p.high
    if p < 0.5:
        chosen, rejected, p, low, high = rejected, chosen, 1 - p, 1 - high, 1 - low
    p = _rounded(p)
    wins = [v for v in votes if _won(v) == chosen]
    clear = {v.annotator for v in wins if v.strength == 2}
    slight = {v.annotator for v in wins} - clear  # people: a swapped repeat is no second opinion
    n_effective = _rounded(pref.n_effective)
    weight = _rounded((2 * p - 1) * min(1.0, n_effective / options.n_full))
    sidecar = {
        **facts,
        "chosen_id": chosen,
        "rejected_id": rejected,
        "p_chosen": p,
        "p_lo": _rounded(low),
        "p_hi": _rounded(high),
        "n_judges": pref.n_judges,
        "n_effective": n_effective,
        "n_chosen": len(wins),
        "n_rejected": sum(_won(v) == rejected for v in votes),
        "n_tie": pref.n_tie,
        "n_both_bad": pref.n_both_bad,
        "n_clear": len(clear),
        "n_slight": len(slight),
        "strength_mean": _rounded(pref.strength if chosen == pref.a else -pref.strength),
        "dims": {name: _dimension(name, chosen, votes) for name in DIMENSIONS},
        "side_balance": _rounded(sum(v.left == chosen for v in votes) / len(votes)),
        "weight": weight,
        "rewards_chosen": _rewards(candidates[chosen]),
        "rewards_rejected": _rewards(candidates[rejected]),
    }
    values = {"prompt": lesson.prompt, "chosen": lesson.answers[chosen], "rejected": lesson.answers[rejected], "weight": weight}
    if p >= options.p and (len(clear) >= options.n_clear or len(slight) >= options.n_slight):
        return "dpo", Line(values, sidecar)
    return "soft", Line(values | {"p": p}, sidecar)


def _won(vote: Vote) -> str | None:
    return {"left": vote.left, "right": vote.right}.get(vote.outcome)


def _dimension(name: str, chosen: str, votes: Sequence[Vote]) -> float | None:
    """P(the chosen text is better in this respect) with a Beta(1, 1) prior, "same" counting half; None where nobody said."""
    said = [(v, v.dims[name]) for v in votes if name in v.dims]
    if not said:
        return None
    points = sum(v.weight * (0.5 if side == "same" else float((v.left if side == "left" else v.right) == chosen)) for v, side in said)
    return _rounded((1 + points) / (2 + sum(v.weight for v, _ in said)))


def _rewards(candidate: Candidate) -> dict[str, Any] | None:
    """The automatic rewards in a trace, None where there are none that are numbers."""
    kept = candidate.trace.get("rewards")
    if not isinstance(kept, dict) or not _is_number(kept.get("total")):
        return None
    terms = kept.get("terms")
    return {"total": kept["total"], "terms": {k: v for k, v in terms.items() if _is_number(v)} if isinstance(terms, dict) else {}}


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _unpaired(lesson: Lesson, pref: PairPreference, votes: Sequence[Vote], facts: Mapping[str, Any]) -> list[Line]:
    """Both texts as desirable where both good is the leading answer, undesirable where both bad is, none where neither is."""
    weight: Counter[str] = Counter()
    for v in votes:
        weight["decisive" if _won(v) else v.outcome] += v.weight
    label = weight["tie"] > weight["both_bad"]
    leading = max(weight["tie"], weight["both_bad"])
    if weight["tie"] == weight["both_bad"] or leading <= weight["decisive"]:
        return []
    counts = {"n_judges": pref.n_judges, "n_tie": pref.n_tie, "n_both_bad": pref.n_both_bad, "n_decisive": pref.n_a + pref.n_b}
    return [
        Line({"prompt": lesson.prompt, "completion": answer, "label": label}, {**facts, **counts, "candidate_id": candidate_id})
        for candidate_id, answer in sorted(lesson.answers.items())
    ]


def _rounded(value: float) -> float:
    return round(value, DIGITS) + 0.0  # never -0.0


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns 0, or 1 with a sentence on standard error."""
    parser = argparse.ArgumentParser(prog="python -m annotate.export", description="Write a campaign as files, training files included.")
    parser.add_argument("--db", type=Path, help="the database file, in use or not (default: the app's own)")
    parser.add_argument("--out", type=Path, required=True, help="a new or empty folder")
    parser.add_argument("--with-names", action="store_true", help="write nicknames too (default: random ids only)")
    parser.add_argument("--include-unblinded", action="store_true", help="train on answers of people who saw more than the two texts too")
    parser.add_argument("--threshold", type=float, default=OPTIONS.p, metavar="P", help=f"least P(chosen) of a preference ({OPTIONS.p})")
    given = parser.parse_args(arguments)
    try:
        options = Options(given.include_unblinded, given.with_names, given.threshold)
        with open_store(given.db or load_config().annotations, read_only=True) as store:
            done = export(store, given.out, options)
        print(f"{given.out}: {done.n} answers, export {done.export_id}. README.md says what is in it. Nothing left this machine.")
    except (StoreError, ValueError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
