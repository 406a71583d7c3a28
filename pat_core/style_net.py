"""The learned part of the style trajectory: who writes like this, told from a topic, a title, a rating and whatever else the person wrote.

Two-layer GraphSAGE over the user-topic graph (paper: style trajectory). What an edge knows, the review's phi, title and rating, travels in the
message along it. It learns by masked style reconstruction: a share of the people is hidden, nothing of theirs is sent, and phi of what they
wrote is predicted from the neighborhood; a small link term asks which topics go with what a person wrote. Beside it stands a linear reading
of the same neighborhood, fitted in closed form; the two err differently and are averaged. Loads torch; leaves out reviews, files and search.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch_geometric.nn import SAGEConv

from pat_core.progress import Progress

TOPIC_PRIOR, OWN_PRIOR, CATEGORY_PRIOR = 3, 1, 10  # reviews of average style that every mean begins with: few reviews prove little
HIDDEN = 128
MEMBERS = 2
STEPS = 250
LEARNING_RATE, WEIGHT_DECAY = 1e-2, 1e-2
DROPOUT, INPUT_DROPOUT = 0.5, 0.3
INPUT_SCALE = 0.5  # brings phi, a few units long, near the size the layers are initialized for
SHARE_HIDDEN = 0.5
SHARE_OF_GAPS = 0.1  # of questions without topic, without title, without rating
LINK_WEIGHT, LINK_NEGATIVES = 0.05, 32
PARTS = 10  # the linear reading is fitted on everybody, each hidden in one of so many parts
RIDGES = (3.0, 10.0, 30.0, 100.0, 300.0, 1000.0)


@dataclass(frozen=True)
class ReviewTable:
    """A corpus in numbers, a row for each review: ``phi`` (n, d), ``edge`` (n, e) its title and rating, ids of ``user``, ``topic``, ``category`` (n,)."""

    phi: Tensor
    edge: Tensor
    user: Tensor
    topic: Tensor
    category: Tensor

    @property
    def message(self) -> Tensor:
        """(n, d + e) what a review sends."""
        return torch.cat([self.phi, self.edge], dim=1)


@dataclass(frozen=True)
class Batch:
    """A part of the graph and q questions about it, in tensors.

    ``sent`` (m, d + e) messages of visible reviews and the row of ``topics`` each goes to; ``topics`` (t, 1 + d) log(1 + reviews) and the mean phi
    of the category; ``asked`` (q, e) title and rating, and the topic asked about; ``own`` (w, d + e) known texts of the askers, whose they
    are, and on which topic.
    """

    sent: Tensor
    sent_topic: Tensor
    topics: Tensor
    asked: Tensor
    asked_topic: Tensor
    own: Tensor
    own_asker: Tensor
    own_topic: Tensor


class StyleNet(nn.Module):
    """Batch -> phi of what each asker would write (q, d), as long as phi of such texts is on average along it."""

    def __init__(self, d: int, e: int) -> None:
        super().__init__()
        self.linear = nn.ModuleList(nn.Linear(3 * d + e, d) for _ in range(2))  # for somebody without and with known texts
        self.members = nn.ModuleList(_Sage(d, e) for _ in range(MEMBERS))
        self.register_buffer("lengths", torch.ones(2))  # of a prediction, likewise

    def forward(self, batch: Batch) -> Tensor:
        warm = (_counts(batch.own_asker, len(batch.asked)) > 0).long()[:, None]
        seen = reading(batch)
        linear = torch.where(warm > 0, self.linear[1](seen), self.linear[0](seen))
        deep = sum(_unit(member(batch)[0]) for member in self.members)
        return _unit(_unit(linear) + _unit(deep)) * self.lengths[warm]


class _Sage(nn.Module):
    """One GraphSAGE: reviews -> topics -> the asker, and the asker's known texts with their topics -> the asker."""

    def __init__(self, d: int, e: int) -> None:
        super().__init__()
        self.to_topic = SAGEConv((d + e, 1 + d), HIDDEN)
        self.from_asked = SAGEConv((HIDDEN + e, 1), HIDDEN)
        self.from_own = SAGEConv((HIDDEN + d + e, 1), HIDDEN, root_weight=False)
        self.link = nn.Linear(HIDDEN, HIDDEN, bias=False)
        self.out = nn.Linear(HIDDEN, d)

    def forward(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """Predictions (q, d); for the link term the topics (t, h) and what the askers' known texts say (q, h)."""
        q, t = len(batch.asked), len(batch.topics)
        sent, asked, own = (self._input(x) for x in (batch.sent, batch.asked, batch.own))
        topics = torch.relu(self.to_topic(*_with_prior(sent, batch.topics, batch.sent_topic, TOPIC_PRIOR, t)))
        seen = functional.dropout(topics, DROPOUT, self.training)
        root = torch.log1p(_counts(batch.own_asker, q))[:, None]
        known = torch.cat([seen[batch.own_topic], own], dim=1)
        from_own = self.from_own(*_with_prior(known, root, batch.own_asker, OWN_PRIOR, q))
        one_each = torch.arange(q).repeat(2, 1)
        from_asked = self.from_asked((torch.cat([seen[batch.asked_topic], asked], dim=1), root), one_each)
        asker = functional.dropout(torch.relu(from_asked + from_own), DROPOUT, self.training)
        return self.out(asker), topics, self.link(from_own)

    def _input(self, x: Tensor) -> Tensor:
        return functional.dropout(x * INPUT_SCALE, INPUT_DROPOUT, self.training)


def reading(batch: Batch) -> Tensor:
    """What the linear half sees (q, 3 d + e): mean phi of the topic's reviews and of its category, title and rating, mean phi of own texts."""
    d = batch.topics.shape[1] - 1
    topic_mean = _prior_mean(batch.sent[:, :d], batch.sent_topic, len(batch.topics), TOPIC_PRIOR)
    own_mean = _prior_mean(batch.own[:, :d], batch.own_asker, len(batch.asked), OWN_PRIOR)
    return torch.cat([topic_mean[batch.asked_topic], batch.topics[batch.asked_topic, 1:], batch.asked, own_mean], dim=1)


def train_net(table: ReviewTable, seed: int = 0, progress: Progress | None = None) -> StyleNet:
    """Trains on all rows; the same table and seed give the same net. Leaves torch's random state as it was."""
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(seed)
        rng = np.random.default_rng(seed)
        net = StyleNet(table.phi.shape[1], table.edge.shape[1])
        _fit_linear(net, table, rng)
        for i, member in enumerate(net.members):
            _fit_member(member, table, rng, lambda step, i=i: progress and progress("Learning styles", i * STEPS + step, MEMBERS * STEPS))
        return net.eval()


def masked(table: ReviewTable, hidden: np.ndarray) -> Batch:
    """The graph without the ``hidden`` rows (n,) bool, and the question what each of them was, asked by its user with their other rows."""
    visible = np.flatnonzero(~hidden)
    asked = np.flatnonzero(hidden)
    asker, own = _own_rows(table.user.numpy(), asked, visible)
    n_topics = int(table.topic.max()) + 1
    return Batch(
        sent=table.message[visible],
        sent_topic=table.topic[visible],
        topics=_topic_rows(table, visible, n_topics),
        asked=table.edge[asked],
        asked_topic=table.topic[asked],
        own=table.message[own],
        own_asker=torch.from_numpy(asker),
        own_topic=table.topic[own],
    )


def _topic_rows(table: ReviewTable, visible: np.ndarray, n_topics: int) -> Tensor:
    category_of = torch.zeros(n_topics, dtype=torch.long)
    category_of[table.topic] = table.category
    category_mean = _prior_mean(table.phi[visible], table.category[visible], int(table.category.max()) + 1, CATEGORY_PRIOR)
    counts = torch.log1p(_counts(table.topic[visible], n_topics))
    return torch.cat([counts[:, None], category_mean[category_of]], dim=1)


def _own_rows(user: np.ndarray, asked: np.ndarray, visible: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For each pair of an asked row and a visible row of the same user: the asked row's place in ``asked``, and the visible row."""
    by_user = visible[np.argsort(user[visible], kind="stable")]
    first, last = (np.searchsorted(user[by_user], user[asked], side=side) for side in ("left", "right"))
    n = last - first
    starts = np.repeat(first - np.concatenate([[0], np.cumsum(n)[:-1]]), n) if len(n) else np.zeros(0, int)
    return np.repeat(np.arange(len(asked)), n), by_user[starts + np.arange(n.sum())]


@torch.no_grad()
def _fit_linear(net: StyleNet, table: ReviewTable, rng: np.random.Generator) -> None:
    """Fits both linear heads: the first on everybody hidden whole, the second also on reviews hidden alone, which are few in some corpora."""
    inputs, rows, warm, parts = [], [], [], []
    user = table.user.numpy()
    part_of = torch.from_numpy(rng.permutation(int(user.max()) + 1) % PARTS)
    for hidden in _partition(user, part_of.numpy(), rng):
        batch = masked(table, hidden)
        inputs.append(reading(batch).double())
        rows.append(np.flatnonzero(hidden))
        warm.append(_counts(batch.own_asker, len(batch.asked)) > 0)
        parts.append(part_of[table.user[hidden]])
    x, phi, warm, part = torch.cat(inputs), table.phi[np.concatenate(rows)].double(), torch.cat(warm), torch.cat(parts)
    for i, scored in enumerate((~warm, warm)):
        if not scored.any():  # nobody has written twice: the first head serves for visitors with samples too
            net.linear[i].load_state_dict(net.linear[0].state_dict())
            net.lengths[i] = net.lengths[0]
            continue
        used = scored | bool(i)
        weights, bias, unseen = ridge(x[used], _unit(phi[used]), part[used], scored[used])
        net.linear[i].weight.copy_(weights)
        net.linear[i].bias.copy_(bias)
        net.lengths[i] = max(0.1, float((_unit(unseen) * phi[scored]).sum(dim=1).mean()))


def ridge(x: Tensor, y: Tensor, part: Tensor, scored: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Ridge regression of unit rows y (n, d) on x (n, m): weights (d, m), bias (d,), predictions of the ``scored`` rows by fits without their part.

    Of ``RIDGES`` the strength whose predictions of unseen parts have the best cosine with y. Parts hold whole people: somebody's other
    texts would tell too much.
    """
    found = []
    for strength in RIDGES:
        unseen = torch.zeros_like(y)
        for p in part.unique():
            weights, bias = _solve(x[part != p], y[part != p], strength)
            unseen[part == p] = x[part == p] @ weights.T + bias
        found.append((float((_unit(unseen[scored]) * y[scored]).sum(dim=1).mean()), strength, unseen[scored]))
    _, strength, unseen = max(found, key=lambda f: f[0])
    return *_solve(x, y, strength), unseen


def _solve(x: Tensor, y: Tensor, strength: float) -> tuple[Tensor, Tensor]:
    if not len(x):
        return y.new_zeros(y.shape[1], x.shape[1]), y.new_zeros(y.shape[1])
    x_mean, y_mean = x.mean(dim=0), y.mean(dim=0)
    gram = (x - x_mean).T @ (x - x_mean) + strength * torch.eye(x.shape[1], dtype=x.dtype)
    weights = torch.linalg.solve(gram, (x - x_mean).T @ (y - y_mean)).T
    return weights, y_mean - weights @ x_mean


def _partition(user: np.ndarray, part_of: np.ndarray, rng: np.random.Generator) -> list[np.ndarray]:
    """Masks (n,) that hide each user once with everything, and each review of a user of several once alone with the rest of them known."""
    several = np.bincount(user)[user] > 1
    alone = rng.permutation(len(user)) % PARTS
    masks = [part_of[user] == part for part in range(PARTS)] + [several & (alone == part) for part in range(PARTS)]
    return [mask for mask in masks if mask.any()]


def _fit_member(member: _Sage, table: ReviewTable, rng: np.random.Generator, report) -> None:
    target = _unit(table.phi)
    user = table.user.numpy()
    n_users, n_topics = int(user.max()) + 1, int(table.topic.max()) + 1
    optimizer = torch.optim.AdamW(member.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
    member.train()
    for step in range(1, STEPS + 1):
        chosen, whole = rng.random(n_users) < SHARE_HIDDEN, rng.random(n_users) < 0.5
        hidden = chosen[user] & (whole[user] | (rng.random(len(user)) < 0.5))
        hidden[rng.integers(len(user))] = True
        batch = masked(table, hidden)
        predicted, topics, known = member(_with_gaps(batch, table, rng))
        loss = 1 - (_unit(predicted) * target[hidden]).sum(dim=1).mean()
        informed = _counts(batch.own_asker, len(batch.asked)) > 0
        if informed.any():
            others = torch.from_numpy(rng.integers(n_topics, size=(int(informed.sum()), LINK_NEGATIVES)))
            choices = torch.cat([batch.asked_topic[informed][:, None], others], dim=1)
            scores = torch.einsum("qh,qch->qc", known[informed], topics[choices]) / math.sqrt(HIDDEN)
            loss = loss + LINK_WEIGHT * functional.cross_entropy(scores, torch.zeros(len(scores), dtype=torch.long))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        report(step)
    member.eval()


def _with_gaps(batch: Batch, table: ReviewTable, rng: np.random.Generator) -> Batch:
    """The batch with some questions about a topic nobody reviewed, some without a title, some without a rating, as visitors ask them."""
    q, d = len(batch.asked), table.phi.shape[1]
    no_topic, no_title, no_rating = (torch.from_numpy(rng.random((q, 1)) < SHARE_OF_GAPS) for _ in range(3))
    title, rating = batch.asked[:, :d], batch.asked[:, d:]
    asked = torch.cat([title.masked_fill(no_title, 0.0), torch.where(no_rating, table.edge[:, d:].mean(dim=0), rating)], dim=1)
    topics = torch.cat([batch.topics, batch.topics.new_zeros(1, batch.topics.shape[1])])
    return replace(batch, asked=asked, topics=topics, asked_topic=torch.where(no_topic[:, 0], len(batch.topics), batch.asked_topic))


def _with_prior(source: Tensor, target: Tensor, edge_target: Tensor, n_prior: int, n: int) -> tuple[tuple[Tensor, Tensor], Tensor]:
    """Arguments of a mean SAGEConv in which every target also hears ``n_prior`` times from a node that says nothing."""
    silent = torch.full((n * n_prior,), len(source))
    edges = torch.stack([torch.cat([torch.arange(len(source)), silent]), torch.cat([edge_target, torch.arange(n).repeat(n_prior)])])
    return (torch.cat([source, source.new_zeros(1, source.shape[1])]), target), edges


def _prior_mean(values: Tensor, group: Tensor, n: int, n_prior: int) -> Tensor:
    total = values.new_zeros(n, values.shape[1]).index_add_(0, group, values)
    return total / (_counts(group, n) + n_prior)[:, None]


def _counts(group: Tensor, n: int) -> Tensor:
    return torch.bincount(group, minlength=n).float()


def _unit(x: Tensor) -> Tensor:
    return functional.normalize(x, dim=-1)
