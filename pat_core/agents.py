"""The two agents and their rounds: each reads its facts, from the second round on also the other's summary and the draft, and writes three
lines. Both are data for one function; they run in one batch. Leaves out: what the facts are made of (``retrieve``, ``pipeline``)."""

from __future__ import annotations

from dataclasses import dataclass

from pat_core.llm.types import LLM, Request, Sampling
from pat_core.prompts import LABELS, SUMMARY_PREFIX, StyleFacts, TopicFacts, style_messages, topic_messages
from pat_core.types import AGENTS, Agent, Completion, Query, Round

SUMMARY_TOKENS = 104
SUMMARY_SAMPLING = Sampling(frequency_penalty=0.1)


@dataclass(frozen=True, slots=True)
class AgentFacts:
    style: StyleFacts
    topic: TopicFacts


def agent_request(llm: LLM, agent: Agent, query: Query, facts: AgentFacts, previous: Round | None, sampling: Sampling, seed: int) -> Request:
    """The request for one agent's summary in one round; its key is the agent's name."""
    shots = not llm.adapters.get(agent)
    messages = (
        style_messages(facts.style, previous, shots=shots) if agent == "style" else topic_messages(query, facts.topic, previous, shots=shots)
    )
    return Request(
        key=agent,
        prompt=llm.prompt(messages, SUMMARY_PREFIX),
        role=agent,
        sampling=sampling,
        seed=seed,
        max_new_tokens=SUMMARY_TOKENS,
        stop=("\n\n",),
    )


def round_requests(llm: LLM, query: Query, facts: AgentFacts, previous: Round | None) -> tuple[Request, ...]:
    """Both agents' requests of one round, greedy so that a round changes only where its input changed."""
    return tuple(agent_request(llm, agent, query, facts, previous, SUMMARY_SAMPLING, query.seed) for agent in AGENTS)


def summary_text(generated: str) -> str:
    """The summary as shown and passed on: the forced first label, then what the model wrote, at most three labelled lines.

    Lines after the third label and repeated labels are cut; a text without line breaks stays as it is.
    """
    lines: list[str] = []
    seen: set[str] = set()
    for line in (SUMMARY_PREFIX + generated).splitlines():
        label, colon, rest = (part.strip() for part in line.partition(":"))
        labelled = bool(colon) and label in LABELS
        if label in seen or (len(seen) == len(LABELS) and not labelled):
            break
        seen |= {label} if labelled else set()
        if line.strip():
            lines.append(f"{label}: {' '.join(rest.split())}" if labelled else " ".join(line.split()))
    return "\n".join(lines)


def is_settled(previous: Round | None, style: Completion, topic: Completion) -> bool:
    """Whether this round changed nothing against the one before, so that no further round is needed."""
    return previous is not None and (previous.style.text, previous.topic.text) == (style.text, topic.text)
