"""The visitor's part of the user-topic graph as inline SVG: the visitor, the people found for them, what those people reviewed.

Three columns laid out by networkx, drawn once for a desk and once for a phone (text in a scaled SVG would shrink beyond reading). Shapes
carry the meaning, colors repeat it. Leaves out everything farther than two steps, and the weakest nodes beyond ``MAX_PER_COLUMN``.
"""

from __future__ import annotations

from dataclasses import dataclass
from html import escape

import networkx as nx

MAX_PER_COLUMN = 12
LAYERS = {"visitor": 0, "user": 1, "topic": 2}


@dataclass(frozen=True, slots=True)
class Canvas:
    """A drawing's size in px, the x of each column, the row height, and how many characters a label of each column may take."""

    name: str
    width: int
    columns: tuple[int, int, int]
    row: int
    chars: tuple[int, int, int]
    font: int


WIDE = Canvas("wide", 760, (40, 200, 530), 28, (12, 24, 30), 13)
NARROW = Canvas("narrow", 350, (20, 74, 236), 27, (8, 15, 16), 11)


def picture(graph: nx.Graph, style_users: frozenset[str], topic_users: frozenset[str]) -> str:
    """Two SVGs (class ``pat-wide`` and ``pat-narrow``) and a legend; '' for a graph without people.

    Nodes carry ``kind`` ("visitor", "user", "topic"), ``label`` and ``score``. ``style_users`` and ``topic_users`` are the user ids that
    each trajectory retrieved: people in both get both marks.
    """
    part = nx.Graph(_trimmed(graph))
    users = [n for n, kind in part.nodes(data="kind") if kind == "user"]
    if not users:
        return ""
    shapes = {n: _shape(part.nodes[n]["label"], style_users, topic_users) for n in users}
    visitors = [n for n, kind in part.nodes(data="kind") if kind == "visitor"]
    # nearness in style is found by learning, not an edge of the data: drawn, but never in the graph itself
    part.add_edges_from((v, n) for v in visitors for n in users if shapes[n] in ("style", "both"))
    legend = (
        '<p class="pat-legend"><span><i class="pat-dot"></i>writes alike</span>'
        '<span><i class="pat-square"></i>reviewed the topic or one near it</span>'
        '<span><i class="pat-diamond"></i>a topic</span><span><i class="pat-line"></i>a review</span>'
        '<span><i class="pat-own"></i>what you write about</span></p>'
    )
    return "".join(_draw(part, canvas, shapes) for canvas in (WIDE, NARROW)) + legend


def _trimmed(graph: nx.Graph) -> nx.Graph:
    """At most ``MAX_PER_COLUMN`` people and topics: what the visitor writes about, then the best scored, then the best connected."""
    kept = [n for n, kind in graph.nodes(data="kind") if kind == "visitor"]
    own = {n for visitor in kept for n in graph.neighbors(visitor)}
    for kind in ("user", "topic"):
        nodes = [n for n, k in graph.nodes(data="kind") if k == kind]
        nodes.sort(key=lambda n: (n not in own, -(graph.nodes[n].get("score") or 0), -graph.degree(n), str(n)))
        kept += nodes[:MAX_PER_COLUMN]
    return graph.subgraph(kept)


def _shape(user_id: str, style_users: frozenset[str], topic_users: frozenset[str]) -> str:
    if user_id in style_users:
        return "both" if user_id in topic_users else "style"
    return "topic" if user_id in topic_users else "other"


def _positions(graph: nx.Graph, canvas: Canvas) -> tuple[dict, float]:
    """Node -> (x, y) in px and the height: networkx's layered layout, people by score, topics near the people who reviewed them."""
    of_kind = {kind: [n for n, k in graph.nodes(data="kind") if k == kind] for kind in LAYERS}
    people = sorted(of_kind["user"], key=lambda n: (-(graph.nodes[n].get("score") or 0), str(n)))
    rank = {n: i for i, n in enumerate(people)}

    def middle_rank(topic: object) -> float:
        reviewers = [rank[n] for n in graph.neighbors(topic) if n in rank]
        return sum(reviewers) / len(reviewers) if reviewers else len(people) / 2

    topics = sorted(of_kind["topic"], key=lambda n: (middle_rank(n), str(n)))
    layers = {LAYERS["visitor"]: of_kind["visitor"], LAYERS["user"]: people, LAYERS["topic"]: topics}
    layout = nx.multipartite_layout(graph, subset_key={layer: nodes for layer, nodes in layers.items() if nodes})
    height = max(2, *(len(nodes) for nodes in of_kind.values())) * canvas.row + 24
    reach = max(abs(y) for _, y in layout.values()) or 1.0
    half = (height - canvas.row - 12) / 2
    return {n: (canvas.columns[LAYERS[graph.nodes[n]["kind"]]], height / 2 + y / reach * half) for n, (_, y) in layout.items()}, height


def _draw(graph: nx.Graph, canvas: Canvas, shapes: dict) -> str:
    places, height = _positions(graph, canvas)
    labels = {n: _short(str(graph.nodes[n]["label"]), canvas.chars[LAYERS[graph.nodes[n]["kind"]]]) for n in graph.nodes}
    # a review's line leaves from where the name ends, so that it never runs through it
    ends = {n: places[n][0] + (15 + len(labels[n]) * canvas.font * 0.52 if graph.nodes[n]["kind"] == "user" else 0) for n in graph.nodes}
    edges = "".join(_edge(graph, a, b, places, ends) for a, b in graph.edges)
    nodes = "".join(_node(graph.nodes[n], labels[n], places[n], canvas, shapes.get(n, "other")) for n in places)
    n_users = sum(k == "user" for _, k in graph.nodes(data="kind"))
    n_topics = sum(k == "topic" for _, k in graph.nodes(data="kind"))
    names = ", ".join(str(graph.nodes[n]["label"]) for n in places if n in shapes)
    title, desc = f"pat-graph-title-{canvas.name}", f"pat-graph-desc-{canvas.name}"
    return (
        f'<svg class="pat-{canvas.name}" viewBox="0 0 {canvas.width} {height:.0f}" font-size="{canvas.font}" role="img"'
        f' aria-labelledby="{title} {desc}">'
        f'<title id="{title}">Your part of the graph</title>'
        f'<desc id="{desc}">You on the left, linked to those who write alike among {n_users} people ({escape(names)}), and on the right '
        f"the {n_topics} topics they reviewed.</desc>"
        f"{edges}{nodes}</svg>"
    )


def _short(label: str, chars: int) -> str:
    return label if len(label) <= chars else label[: chars - 1].rstrip() + "…"


def _edge(graph: nx.Graph, a: object, b: object, places: dict, ends: dict) -> str:
    if places[a][0] > places[b][0]:
        a, b = b, a
    kinds = {graph.nodes[a]["kind"], graph.nodes[b]["kind"]}
    role = "pat-own" if kinds == {"visitor", "topic"} else "pat-near" if "visitor" in kinds else "pat-review"
    x1, y1, (x2, y2) = ends[a], places[a][1], places[b]
    middle = (x1 + x2) / 2
    return f'<path class="{role}" d="M{x1:.1f} {y1:.1f}C{middle:.1f} {y1:.1f} {middle:.1f} {y2:.1f} {x2:.1f} {y2:.1f}"/>'


def _node(node: dict, short: str, place: tuple[float, float], canvas: Canvas, shape: str) -> str:
    x, y = place
    layer = LAYERS[node["kind"]]
    label = str(node["label"])
    score = "" if node.get("score") is None else f", {node['score']:.2f}"
    if layer == 0:
        mark = f'<circle class="pat-you" cx="{x}" cy="{y:.1f}" r="8"/>'
        text = f'<text x="{x}" y="{y + 22:.1f}" text-anchor="middle" class="pat-you">{escape(short)}</text>'
    else:
        mark = _diamond(x, y) if layer == 2 else _person(x, y, shape)
        text = f'<text x="{x + 11}" y="{y + canvas.font * 0.35:.1f}">{escape(short)}</text>'
    return f"<g><title>{escape(label + score)}</title>{mark}{text}</g>"


def _person(x: float, y: float, shape: str) -> str:
    circle = f'<circle class="pat-{"style" if shape != "other" else "other"}" cx="{x}" cy="{y:.1f}" r="6"/>'
    if shape == "both":
        return circle + f'<rect class="pat-topic" x="{x - 2.5}" y="{y - 2.5:.1f}" width="5" height="5"/>'
    return f'<rect class="pat-topic" x="{x - 5}" y="{y - 5:.1f}" width="10" height="10"/>' if shape == "topic" else circle


def _diamond(x: float, y: float) -> str:
    return f'<path class="pat-thing" d="M{x - 6} {y:.1f}L{x} {y - 6:.1f}L{x + 6} {y:.1f}L{x} {y + 6:.1f}Z"/>'
