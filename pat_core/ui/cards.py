"""A run as HTML: neighbors, the agents' rounds, the texts side by side, and what each agent contributed. Pure: nouns -> str.

Everything from data, model or visitor passes ``html.escape`` here and goes to ``gr.HTML`` as its plain value. Never through a Handlebars
``{{ }}`` template: Gradio compiles what Handlebars returns as a JavaScript template literal, so ``${...}`` in a review would run. Leaves
out the graph's picture (``graph_picture``) and Gradio.
"""

from __future__ import annotations

import re
from collections import Counter
from html import escape

from pat_core.types import Agent, Alternative, Completion, Contribution, Draft, Neighbor, Reward, Snapshot, Trace
from pat_core.ui.form import ALTERNATIVE_NAMES, Form
from pat_core.ui.opening import Status

LEVELS = ("on the same topic", "on a topic the same people reviewed", "on a topic near it in meaning", "near the request, on any topic")
STAGES = (("retrieving", "Neighbors"), ("reasoning", "Two agents"), ("writing", "The text"))
_STAGE_SENTENCES = {
    "retrieving": "Looking for people who write alike and for reviews of the topic",
    "reasoning": "Both agents are reasoning",
    "writing": "Writing the drafts and the alternatives",
}
_QUOTE_CHARS = 230  # longer reviews are folded
_CARDS_SHOWN = 4  # the rest of a column is folded


def opening(status: Status, engine: str) -> str:
    """The line under the title: corpus and engine once ready, progress before, what went wrong otherwise."""
    if status.state == "ready":
        return f'<p class="pat-facts"><span>{escape(status.sentence)}</span><span>{escape(engine)}</span></p>'
    if status.state == "failed":
        return f'<div class="pat-notice pat-alert" role="alert"><b>The models could not be opened.</b> {escape(status.sentence)}</div>'
    left = f"about {_duration(status.seconds_left)} left" if status.seconds_left is not None else ""
    percent = "" if status.share is None else f"{status.share:.0%}"
    bar = '<progress aria-label="Start-up progress"' + ("" if status.share is None else f' value="{status.share:.3f}"') + "></progress>"
    return (
        f'<div class="pat-opening"><span>Starting up: {escape(_lower_first(status.sentence))}</span>{bar}'
        f'<span class="pat-muted">{" · ".join(x for x in (percent, left) if x)}</span></div>'
    )


def notice(sentences: tuple[str, ...], *, alert: bool = False) -> str:
    """Sentences under the Write button; '' for none. An alert is read out at once by screen readers."""
    if not sentences:
        return ""
    body = "".join(f"<p>{escape(s)}</p>" for s in sentences)
    return f'<div class="pat-notice{" pat-alert" if alert else ""}" role="{"alert" if alert else "note"}">{body}</div>'


def known_topic(n_reviews: int, category: str) -> str:
    """What the corpus has on the chosen topic, in one line."""
    kind = f" · {escape(category)}" if category else ""
    return f'<p class="pat-hint">In the corpus: {n_reviews} review{"" if n_reviews == 1 else "s"}{kind}.</p>'


def free_topic(name: str, similar: tuple[str, ...]) -> str:
    """What happens with a topic of one's own, and topics of the corpus that may have been meant; '' while there is no name."""
    if not name:
        return ""
    return (
        '<p class="pat-hint">Nobody in this corpus has reviewed that. The topic agent will fall back on reviews near it in meaning.</p>'
        + similar_topics(similar)
    )


def similar_topics(names: tuple[str, ...]) -> str:
    """Topics as buttons; ``data-pick`` carries the name."""
    buttons = "".join(f'<button type="button" data-pick="{escape(name)}">{escape(name)}</button>' for name in names)
    return f'<div class="pat-similar" role="group" aria-label="Topics of the corpus">{buttons}</div>' if names else ""


def examples(items: dict[str, tuple[str, str, Form]]) -> str:
    """The worked examples as buttons; ``data-pick`` carries the id."""
    buttons = "".join(
        f'<button type="button" data-pick="{escape(key)}"><b>{escape(name)}</b><span>{escape(about)}</span></button>'
        for key, (name, about, _) in items.items()
    )
    return f'<div class="pat-examples" role="group" aria-label="Worked examples">{buttons}</div>'


def empty() -> str:
    """What the right side will show, before the first run."""
    return (
        '<ol class="pat-empty">'
        "<li><b>Neighbors.</b> People who write alike, and what reviewers say about the topic.</li>"
        "<li><b>Two agents.</b> One reasons about style, one about the topic; each reads the other and refines.</li>"
        "<li><b>The text.</b> Both lines of reasoning fused into one review, beside what simpler methods write.</li></ol>"
    )


def progress(snapshot: Snapshot | None, *, fused_again: bool = False) -> str:
    """Where the run is. Only whole stages are announced to screen readers; the seconds are not."""
    if snapshot is None:
        return '<div class="pat-progress" role="status">Waiting for the model</div>'
    names = [name for name, _ in STAGES]
    stopped_at = 2 if snapshot.drafts else 1 if snapshot.rounds else 0
    at = names.index(snapshot.stage) if snapshot.stage in names else len(names) if snapshot.stage == "done" else stopped_at
    steps = "".join(
        f'<li class="{"pat-past" if i < at else "pat-now" if i == at else ""}"{" aria-current=step" if i == at else ""}>'
        f'<button type="button" data-go="pat-h{i + 1}">{label}</button></li>'
        for i, (_, label) in enumerate(STAGES)
    )
    if snapshot.stage == "done":
        sentence = "Fused again with your summaries" if fused_again else "Done"
    elif snapshot.stage == "stopped":
        sentence = "Stopped. What was written so far stays below"
    else:
        sentence = _STAGE_SENTENCES[snapshot.stage]
        if snapshot.stage == "reasoning" and snapshot.rounds:
            sentence += f", round {snapshot.rounds[-1].index + 1}"
    return (
        f'<div class="pat-progress"><ol class="pat-steps">{steps}</ol>'
        f'<span role="status" aria-live="polite">{sentence}</span>'
        f'<span class="pat-muted" aria-hidden="true">{snapshot.seconds:.1f} s</span></div>'
    )


def failure(sentence: str) -> str:
    return f'<div class="pat-notice pat-alert" role="alert">{escape(sentence)}</div>'


def neighbors(snapshot: Snapshot, picture: str) -> str:
    """Both trajectories' neighbors in two columns, then the visitor's part of the graph."""
    if not snapshot.style_neighbors and not snapshot.topic_neighbors:
        return ""
    levels = Counter(n.level for n in snapshot.topic_neighbors)
    found = ", ".join(f"{count} {LEVELS[level]}" for level, count in sorted(levels.items())) or "none"
    people = len({n.review.user_id for n in snapshot.style_neighbors})
    return _section(
        1,
        "Neighbors",
        "Whose voice may guide this text, and what there is to say.",
        '<div class="pat-two">'
        + _column("style", "People who write alike", f"{people} of them, nearest in the style graph", snapshot.style_neighbors)
        + _column("topic", "Reviews to draw on", found, snapshot.topic_neighbors)
        + "</div>"
        + (
            f'<details class="pat-graph" data-fold="graph" data-open open><summary>Your part of the graph</summary>{picture}</details>'
            if picture
            else ""
        ),
    )


def rounds(snapshot: Snapshot) -> str:
    """The two agents' reasoning side by side, round by round, with the draft between rounds."""
    if not snapshot.rounds:
        return ""
    finished = {r.index: r for r in snapshot.trace.rounds} if snapshot.trace else {}
    parts = []
    for live in snapshot.rounds:
        done = finished.get(live.index)
        writing = snapshot.stage == "reasoning" and live is snapshot.rounds[-1]
        columns = "".join(
            _agent_text(agent, text, done and getattr(done, agent), live=writing and not live.draft)
            for agent, text in (("style", live.style), ("topic", live.topic))
        )
        draft = (
            f'<div class="pat-draft"><h5>Draft that both agents read next</h5><p{_caret(writing)}>{escape(live.draft)}</p></div>'
            if live.draft
            else ""
        )
        settled = (
            '<p class="pat-muted">Nothing changed against the round before, so the agents stopped here.</p>'
            if done and done.settled
            else ""
        )
        parts.append(f'<div class="pat-round"><h4>Round {live.index + 1}</h4><div class="pat-two">{columns}</div>{settled}{draft}</div>')
    return _section(2, "Two agents", "Each sees its own neighbors, then the other’s summary and the draft.", "".join(parts))


def results(snapshot: Snapshot, kept: Trace | None = None) -> str:
    """The fused text beside the alternatives, the folded drafts and the contribution of each agent.

    ``kept`` is the run whose summaries were edited and are fused again; its alternatives stand until the new trace is there.
    """
    trace = snapshot.trace
    if trace is None and not snapshot.drafts and not snapshot.alternatives:
        return ""
    left = _fused(trace, kept is not None) if trace else _live_drafts(snapshot)
    if trace or kept:
        others = "".join(_alternative(a) for a in (trace or kept).alternatives)  # type: ignore[union-attr]
    else:
        caret = _caret(snapshot.stage == "writing")
        others = "".join(
            f'<article class="pat-card"><h4>{escape(ALTERNATIVE_NAMES.get(name, name))}</h4>'
            f'<p class="pat-text"{caret}>{escape(text)}</p></article>'
            for name, text in snapshot.alternatives.items()
        )
    beside = f'<div class="pat-others"><h3>The same request, other methods</h3>{others}</div>' if others else ""
    return _section(
        3,
        "The text",
        "One text from both summaries. The generator never sees a neighbor’s words.",
        f'<div class="pat-result"><div>{left}</div>{beside}</div>',
    )


def contribution(share: Contribution) -> str:
    """Diverging bars of the two-agent Shapley values, and what they mean in words."""
    scale = max(abs(share.style), abs(share.topic), 1e-9)
    rows = "".join(_bar(agent, value, value / scale) for agent, value in (("style", share.style), ("topic", share.topic)))
    negative = [name for name, value in (("style", share.style), ("topic", share.topic)) if value <= -0.005]
    caution = (
        f" A negative value means that, by this reward, the text was better off without the {' or the '.join(negative)} agent."
        if negative
        else ""
    )
    return (
        f'<figure class="pat-share"><figcaption><h4>What each agent contributed</h4></figcaption>{rows}'
        f"<p>{_moved('style', share.style)}, {_moved('topic', share.topic)}. "
        f"Together they took the reward from {share.neither:.2f} with neither summary to {share.full:.2f} with both.{caution}</p>"
        '<details data-fold="shapley"><summary>How this is measured</summary><p>The request is also written with neither '
        f"summary ({share.neither:.2f}), with style only ({share.style_only:.2f}) and with topic only ({share.topic_only:.2f}); the "
        f"drafts, which have both, average {share.full:.2f}. Each agent’s Shapley value is its mean gain over both orders of joining; "
        "the two add up to the whole difference.</p></details></figure>"
    )


def _section(number: int, title: str, lead: str, body: str) -> str:
    return (
        f'<section class="pat-section" aria-labelledby="pat-h{number}"><header><h2 id="pat-h{number}"><span>{number}</span> {title}</h2>'
        f"<p>{lead}</p></header>{body}</section>"
    )


def _agent(agent: Agent, label: str) -> str:
    return f'<span class="pat-agent pat-{agent}"><span class="pat-mark" aria-hidden="true">{agent[0].upper()}</span>{label}</span>'


def _column(agent: Agent, title: str, found: str, items: tuple[Neighbor, ...]) -> str:
    cards = [_neighbor(n, f"{agent}-{i}") for i, n in enumerate(items)] or ['<p class="pat-muted">Nothing was found.</p>']
    rest = "".join(cards[_CARDS_SHOWN:])
    more = f'<details data-fold="{agent}-rest"><summary>{len(cards) - _CARDS_SHOWN} more</summary>{rest}</details>' if rest else ""
    shown = "".join(cards[:_CARDS_SHOWN])
    return f'<div class="pat-column pat-{agent}"><h3>{_agent(agent, title)}</h3><p class="pat-muted">{escape(found)}</p>{shown}{more}</div>'


def _neighbor(n: Neighbor, key: str) -> str:
    rating = "" if n.review.rating is None else f'<span class="pat-muted">rated {n.review.rating:g} of 5</span>'
    why = "".join(f"<li>{escape(w)}</li>" for w in n.why)
    level = f"<li><b>Level {n.level}</b></li>" if n.agent == "topic" else ""  # the first of its reasons says the level in words
    return (
        f'<article class="pat-card"><header><b>{escape(n.review.user_id)}</b>{rating}'
        '<span class="pat-score" title="Score from -1 to 1, higher is nearer">'
        f'<i style="--share:{max(0.0, min(1.0, n.score)):.2f}"></i>{n.score:.2f}</span>'
        f'</header><p class="pat-about"><b>{escape(n.review.title)}</b> <span class="pat-muted">on {escape(n.review.topic)}</span></p>'
        f'<ul class="pat-why">{level}{why}</ul>{_quote(n.review.text, key)}</article>'
    )


def _quote(text: str, key: str) -> str:
    if len(text) <= _QUOTE_CHARS:
        return f'<blockquote class="pat-text">{escape(text)}</blockquote>'
    beginning = text[:_QUOTE_CHARS].rsplit(maxsplit=1)[0]
    return (
        f'<details class="pat-quote" data-fold="{key}"><summary><span class="pat-beginning">{escape(beginning)} …</span>'
        f'<span class="pat-more">all {len(text.split())} words</span></summary>'
        f'<blockquote class="pat-text">{escape(text)}</blockquote></details>'
    )


def _agent_text(agent: str, text: str, done: Completion | None, *, live: bool) -> str:
    facts = f'<span class="pat-muted">{done.n_tokens} tokens · {done.seconds:.1f} s</span>' if done else ""
    lines = "".join(_labelled(line) for line in text.splitlines() if line.strip())
    body = lines or ("<p></p>" if live else '<p class="pat-muted">Nothing yet.</p>')
    label = _agent("style" if agent == "style" else "topic", f"{agent.capitalize()} agent")
    return f'<div class="pat-trace pat-{agent}"><h5>{label}{facts}</h5><div class="pat-text"{_caret(live)}>{body}</div></div>'


def _labelled(line: str) -> str:
    """A line of a summary; a leading "Evidence:" or the like is set apart."""
    match = re.match(r"\s*([A-Z][a-z]+(?: [a-z]+)?):\s*(.*)", line)
    return f"<p><b>{escape(match[1])}</b> {escape(match[2])}</p>" if match else f"<p>{escape(line)}</p>"


def _caret(live: bool) -> str:
    return " data-live" if live else ""


def _live_drafts(snapshot: Snapshot) -> str:
    if not snapshot.drafts:
        return ""
    live = snapshot.stage == "writing"
    rest = "".join(
        f'<li><h5>Draft {i}</h5><p class="pat-text"{_caret(live)}>{escape(text)}</p></li>' for i, text in enumerate(snapshot.drafts[1:], 2)
    )
    more = (
        f'<details data-fold="drafts"><summary>The other {len(snapshot.drafts) - 1} drafts</summary>'
        f'<ol class="pat-drafts">{rest}</ol></details>'
        if rest
        else ""
    )
    note = "as far as it got" if not live else f"the best of {len(snapshot.drafts)} will be chosen" if rest else "the only one"
    return (
        f'<article class="pat-card pat-fused"><h3>PaT <span class="pat-muted">draft 1, {note}</span></h3>'
        f'<p class="pat-text"{_caret(live)}>{escape(snapshot.drafts[0])}</p></article>{more}'
    )


def _fused(trace: Trace, fused_again: bool) -> str:
    chosen = trace.drafts[trace.chosen]
    how = "from your edited summaries" if fused_again else "style and topic, fused"
    several = len(trace.drafts) > 1
    why = f'<p class="pat-muted">Draft {trace.chosen + 1} of {len(trace.drafts)}, the one with the highest reward.</p>' if several else ""
    drafts = "".join(_draft(i, d, i == trace.chosen) for i, d in enumerate(trace.drafts))
    folded = (
        f'<details data-fold="drafts"><summary>All {len(trace.drafts)} drafts and their rewards</summary>'
        f'<ol class="pat-drafts">{drafts}</ol></details>'
    )
    return (
        f'<article class="pat-card pat-fused"><h3>PaT <span class="pat-muted">{how}</span></h3>'
        f'<p class="pat-text">{escape(trace.output)}</p>'
        f"{_facts(trace.output, chosen.completion, trace.copy_rate)}{_reward(chosen.reward, 'fused')}{why}</article>"
        f"{folded if several else ''}{contribution(trace.contribution) if trace.contribution else ''}"
    )


def _draft(i: int, draft: Draft, chosen: bool) -> str:
    mark = ' <b class="pat-chosen">chosen</b>' if chosen else ""
    return (
        f"<li{' class=pat-is-chosen' if chosen else ''}><h5>Draft {i + 1} · reward {draft.reward.total:.2f}{mark}</h5>"
        f'<p class="pat-text">{escape(draft.completion.text)}</p>{_reward(draft.reward, f"draft-{i}", label="terms")}</li>'
    )


def _alternative(a: Alternative) -> str:
    body = f'<p class="pat-text">{escape(a.text)}</p>' if a.text else '<p class="pat-muted">It wrote nothing.</p>'
    name = escape(ALTERNATIVE_NAMES.get(a.name, a.name))
    return (
        f'<article class="pat-card"><h4>{name}</h4>{body}{_facts(a.text, a.completion, a.copy_rate)}{_reward(a.reward, a.name)}</article>'
    )


def _facts(text: str, completion: Completion | None, copy_rate: float) -> str:
    seconds = (
        f'<span title="From the request to its last token; the texts of one batch share this time">{completion.seconds:.1f} s</span>'
        if completion
        else ""
    )
    cut = '<span title="It reached the token limit">cut at the limit</span>' if completion and completion.finish == "length" else ""
    n_words = len(text.split())
    return (
        f'<p class="pat-facts"><span>{n_words} word{"" if n_words == 1 else "s"}</span>{seconds}'
        f'<span title="Share of the text that stands word for word in a retrieved review">{copy_rate:.0%} copied</span>{cut}</p>'
    )


def _reward(reward: Reward, key: str, label: str = "") -> str:
    rows = "".join(
        f"<tr><th scope=row>{escape(name.replace('_', ' '))}</th><td>{value:+.2f}</td><td>{reward.weights.get(name, 0):g}</td></tr>"
        for name, value in reward.terms.items()
    )
    summary = label or f"Reward {reward.total:.2f}"
    hover = "; ".join(f"{name.replace('_', ' ')} {value:+.2f}" for name, value in reward.terms.items())
    return (
        f'<details class="pat-reward" data-fold="reward-{escape(key)}"><summary title="{escape(hover)}">{summary}</summary>'
        "<table><thead><tr><th scope=col>term</th><th scope=col>value</th><th scope=col>weight</th></tr></thead>"
        f"<tbody>{rows}</tbody></table></details>"
    )


def _bar(agent: Agent, value: float, share: float) -> str:
    side = "pat-plus" if value >= 0 else "pat-minus"
    return (
        f'<div class="pat-bar pat-{agent}">{_agent(agent, agent.capitalize())}'
        f'<span class="pat-track" aria-hidden="true"><i class="{side}" style="--share:{abs(share):.3f}"></i></span>'
        f"<b>{value:+.2f}</b></div>"
    )


def _moved(name: str, value: float) -> str:
    subject = "The style summary" if name == "style" else "the topic summary"
    if abs(value) < 0.005:
        return f"{subject} made no difference"
    return f"{subject} {'raised' if value > 0 else 'lowered'} the reward by {abs(value):.2f}"


def _duration(seconds: float) -> str:
    return f"{max(1, round(seconds))} s" if seconds < 90 else f"{round(seconds / 60)} min"


def _lower_first(sentence: str) -> str:
    """The first letter lowered, unless the word is a name or an abbreviation."""
    return sentence if sentence[1:2].isupper() else sentence[:1].lower() + sentence[1:]
