"""Are the agents' notes true? ``python -m pat_core.faithfulness FILE`` checks their claims against the texts they are about.

What the style agent claims in the small vocabulary of ``cues`` (length, punctuation, person, case, listed words) is true of the neighbors'
texts or it is not; a thing or a quality that the topic agent names stands in them or does not. The adapters that serve are compared with
the model without any, which sees two worked examples instead, on the same people, none of whom was trained on. Leaves out what the notes
say beyond that: whether what is named is liked, and how common it is.
"""

from __future__ import annotations

import argparse
import json
import logging
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from pat_core.config import Config, load_config
from pat_core.cues import claims_in, holds
from pat_core.estimates import Estimate, estimate
from pat_core.llm.types import LLMError
from pat_core.points import is_used, phrases_in
from pat_core.progress import Progress, terminal_progress
from pat_core.prompts import NOTHING_YET
from pat_core.rounds import engine, open_base
from pat_core.rounds_rollouts import Question, Writer, open_bench, questions, take_notes
from pat_core.types import AGENTS, Agent, Role

_SAYS = re.compile(rf" says:(?! {NOTHING_YET}\b)")


@dataclass(frozen=True, slots=True)
class Checked:
    """One summary: its claims, which of them are true, and whether it reports words of a person who said nothing."""

    user_id: str
    summary: str
    claims: tuple[str, ...]
    true: tuple[str, ...]
    invented_words: bool


@dataclass(frozen=True, slots=True)
class Faithfulness:
    """What was found of ``agent``'s summaries, by system. ``true_share``: of the claims of a summary, over people whose summary makes any;
    ``claims``: how many it makes."""

    agent: Agent
    corpus: str
    adapter: str
    n_people: int
    true_share: dict[str, Estimate | None]
    claims: dict[str, Estimate]
    invented_words: dict[str, float]
    examples: dict[str, tuple[Checked, ...]]

    def __str__(self) -> str:
        who = f"{self.n_people} people of {self.corpus} who were not trained on"
        lines = [f"{self.agent.capitalize()} summaries of {who} ({self.adapter or 'no adapter'}):"]
        for system, share in self.true_share.items():
            found = (
                f"{share.mean:.1%} [{share.low:.1%}, {share.high:.1%}] of the checkable claims are true" if share else "no claim was made"
            )
            invented = f"; {self.invented_words[system]:.0%} invent words" if self.agent == "style" else ""
            lines.append(f"  {system}: {found}; {self.claims[system].mean:.1f} claims each{invented}")
        return "\n".join(lines)


def texts_of(question: Question, agent: Agent = "style") -> tuple[str, ...]:
    """What an agent's facts were measured from: the topic neighbors' texts; for style the person's own, where there are any, else the style
    neighbors'."""
    if agent == "topic":
        return tuple(n.review.text for n in question.evidence.topic_neighbors)
    return question.query.samples or tuple(n.review.text for n in question.evidence.style_neighbors)


def check_summary(question: Question, summary: str, agent: Agent = "style") -> Checked:
    """Every claim of ``summary`` held against the texts it is about."""
    texts = texts_of(question, agent)
    if agent == "topic":
        claims = phrases_in(summary)
        return Checked(question.query.user_id, summary, claims, tuple(c for c in claims if is_used(c, texts)), False)
    claims = claims_in(summary)
    says = not question.query.statements and _SAYS.search(summary) is not None
    return Checked(question.query.user_id, summary, claims, tuple(c for c in claims if holds(c, texts)), says)


def measure(checked: Mapping[str, Sequence[Checked]], corpus: str, adapter: str, agent: Agent = "style") -> Faithfulness:
    """The report on summaries by system; ValueError where there is none."""
    shares = {system: [len(c.true) / len(c.claims) for c in rows if c.claims] for system, rows in checked.items()}
    return Faithfulness(
        agent,
        corpus,
        adapter,
        max(map(len, checked.values())),
        {system: estimate(values) if values else None for system, values in shares.items()},
        {system: estimate([len(c.claims) for c in rows]) for system, rows in checked.items()},
        {system: sum(c.invented_words for c in rows) / len(rows) for system, rows in checked.items()},
        {system: tuple(rows[:3]) for system, rows in checked.items()},
    )


def run(config: Config, data: Path, agent: Agent, limit: int, seed: int = 0, progress: Progress | None = None) -> Faithfulness:
    """Both systems' summaries by ``agent`` for the same people of ``data``, at most ``limit``."""
    base = open_base(config, progress)
    systems: dict[str, Mapping[Role, Path]] = {"adapter": base.adapters, "model without adapter": {}}
    checked: dict[str, list[Checked]] = {}
    asked: list[Question] = []
    name = data.stem
    for system, adapters in systems.items():
        with engine(config, adapters, progress) as llm:
            if not asked:
                asked = questions(open_bench(config, data, llm, progress), limit, seed, "untouched")
            if not asked:
                raise ValueError(f"{name} has nobody outside the training half whose topic somebody else reviewed")
            notes = take_notes(Writer(llm, progress), asked, (agent,))
            checked[system] = [check_summary(q, n[agent].text, agent) for q, n in zip(asked, notes, strict=True)]
    return measure(checked, name, base.adapter_names.get(agent, ""), agent)


def main(argv: Sequence[str] | None = None) -> int:
    """``python -m pat_core.faithfulness``."""
    parser = argparse.ArgumentParser(prog="python -m pat_core.faithfulness", description="Check what the agents' summaries claim.")
    parser.add_argument("data", type=Path, metavar="FILE", help="a corpus or benchmark file")
    parser.add_argument("--agent", choices=AGENTS, default="style")
    parser.add_argument("--limit", type=int, default=100, help="people at most")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, metavar="OUT", help="also write the numbers here")
    args = parser.parse_args(argv)
    if args.limit < 1:
        parser.error("--limit must be at least 1")
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    try:
        found = run(load_config(), args.data, args.agent, args.limit, args.seed, terminal_progress())
    except (ValueError, OSError, LLMError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(found)
    if args.json:
        args.json.write_text(json.dumps(asdict(found), ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
