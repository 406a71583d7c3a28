"""Davidson's model of pairwise preference with ties, extended by the annotator's skill, the left side's pull and covariates.

For a vote by person r on system i (left) against j (right): eta = s_r (theta_i - theta_j) + b + b_r + x beta; left : right : tie have odds
exp(eta / 2) : exp(-eta / 2) : exp(kappa) (Davidson 1970; skill and side in the spirit of NoisyBradleyTerry). Fitted by penalized
likelihood, so that any data give finite answers. A tie and "both bad" are one category here; people's different use of ties is left
out, and so is negative skill: who answers against everyone gets a skill near 0.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from scipy import sparse
from scipy.optimize import minimize

from annotate.stats.votes import Vote, codes, t_quantile

Resample = Literal["prompts", "annotators", "both"]
RESAMPLE = ("prompts", "annotators", "both")


@dataclass(frozen=True, slots=True)
class Priors:
    """Standard deviations, in logits, of the zero-mean normal priors; a penalty of value^2 / (2 sd^2) each.

    ``system`` 2 puts 95% of ratings within 680 Elo of the field's mean; ``skill`` is on log s_r; ``tie`` on kappa; ``covariate`` on beta.
    """

    system: float = 2.0
    tie: float = 2.0
    left: float = 1.0
    covariate: float = 1.0
    skill: float = 0.5
    annotator_left: float = 0.5

    def __post_init__(self) -> None:
        for name in ("system", "tie", "left", "covariate", "skill", "annotator_left"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"prior {name}={getattr(self, name)!r} must be a finite standard deviation above 0, in logits")


PRIORS = Priors()


@dataclass(frozen=True, slots=True)
class Davidson:
    """The penalized fit. ``strengths`` theta per system, mean 0 in each connected group; ``tie`` exp(kappa), ``left`` b in logits.

    ``skills`` s_r have a mean of 1 over votes; ``lefts`` b_r are in logits. Both are constant where ``annotators=False``.
    """

    strengths: dict[str, float]
    tie: float
    left: float
    covariates: tuple[float, ...]
    skills: dict[str, float]
    lefts: dict[str, float]


@dataclass(frozen=True, slots=True)
class Design:
    """Votes as arrays. Equal votes share one of m cells; ``cell`` (n,) maps votes to cells, ``result`` is 0 left, 1 right, 2 tie.

    Parameters are laid out as [theta (k), kappa, b, beta (p), log s (r), b_r (r)], the last two only ``with_annotators``. ``precision``
    is that of each one's prior; ``weight``, ``prompt`` and ``judge`` are per vote, the rest per cell.
    """

    systems: tuple[str, ...]
    annotators: tuple[str, ...]
    left: np.ndarray
    right: np.ndarray
    annotator: np.ndarray
    result: np.ndarray
    x: np.ndarray
    cell: np.ndarray
    weight: np.ndarray
    prompt: np.ndarray
    judge: np.ndarray
    with_annotators: bool
    precision: np.ndarray = field(repr=False)

    @property
    def n_core(self) -> int:
        """How many parameters come before the annotators'."""
        return len(self.systems) + 2 + self.x.shape[1]


def counted(votes: Sequence[Vote]) -> list[Vote]:
    """The votes that say something about preference: not cannot_judge, weight above 0."""
    return [v for v in votes if v.outcome != "cannot_judge" and v.weight > 0]


def design(votes: Sequence[Vote], x: np.ndarray | None, with_annotators: bool, priors: Priors) -> Design:
    """Arrays of ``counted`` votes with covariates ``x`` (n, p); ValueError where no vote is left to compare two systems."""
    if not votes:
        raise ValueError("no vote counts: a model of preferences needs at least one vote other than cannot_judge with a weight above 0")
    side, systems = codes([v.left for v in votes] + [v.right for v in votes])
    judge, annotators = codes([v.annotator for v in votes])
    prompt, _ = codes([v.prompt for v in votes])
    result = np.array([{"left": 0, "right": 1}.get(v.outcome, 2) for v in votes])
    x = np.zeros((len(votes), 0)) if x is None else x
    rows = np.column_stack([side[: len(votes)], side[len(votes) :], judge, result, x])
    cells, cell = np.unique(rows, axis=0, return_inverse=True)
    left, right, annotator, outcome = cells[:, :4].T.astype(np.int64)
    sds = [priors.system] * len(systems) + [priors.tie, priors.left] + [priors.covariate] * x.shape[1]
    if with_annotators:
        sds += [priors.skill] * len(annotators) + [priors.annotator_left] * len(annotators)
    weight = np.array([v.weight for v in votes], dtype=float)
    return Design(
        systems,
        annotators,
        left,
        right,
        annotator,
        outcome,
        cells[:, 4:],
        cell.ravel(),
        weight,
        prompt,
        judge,
        with_annotators,
        1 / np.square(sds),
    )


def _skills(params: np.ndarray, d: Design, share: np.ndarray) -> np.ndarray:
    """s_r (r,), scaled so that the mean over votes is 1; ``share`` (r,) is each annotator's part of the votes."""
    if not d.with_annotators:
        return np.ones(len(d.annotators))
    log_skill = params[d.n_core : d.n_core + len(d.annotators)]
    skill = np.exp(np.minimum(log_skill - log_skill[share > 0].max(), 100.0))  # whoever a resample left out has no bound from the votes
    return skill / (share @ skill)


def _predict(params: np.ndarray, d: Design, skills: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of every cell: the skill (m,), the strength gap times the skill (m,), and log P of left, right, tie (3, m)."""
    k, n = len(d.systems), d.n_core
    skill = skills[d.annotator]
    pull = skill * (params[d.left] - params[d.right])
    eta = pull + params[k + 1] + d.x @ params[k + 2 : n]
    if d.with_annotators:
        eta = eta + params[n + len(skills) :][d.annotator]
    logits = np.stack([eta / 2, -eta / 2, np.full_like(eta, params[k])])
    logits -= logits.max(axis=0)
    return skill, pull, logits - np.log(np.exp(logits).sum(axis=0))


def _loss(params: np.ndarray, d: Design, weight: np.ndarray, share: np.ndarray) -> tuple[float, np.ndarray]:
    """Penalized negative log-likelihood per unit of weight, and its gradient.

    Skill is integrated out to first order (Laplace: half the log of its information per annotator is added), because the joint
    maximum over many skills overstates the gaps between systems, by 10-17% at 30 votes per person.
    """
    k, n, r, total = len(d.systems), d.n_core, len(d.annotators), weight.sum()
    skills = _skills(params, d, share)
    skill, pull, log_p = _predict(params, d, skills)
    p_left, p_right, p_tie = np.exp(log_p)
    loss = -(weight * log_p[d.result, np.arange(len(weight))]).sum() + (d.precision * params**2).sum() / 2
    by_eta = weight * ((p_left - p_right) - (d.result == 0) + (d.result == 1)) / 2
    by_tie = weight * (p_tie - (d.result == 2))
    by_pull = np.zeros_like(by_eta)
    if d.with_annotators:
        mean, square = (p_left - p_right) / 2, (p_left + p_right) / 4
        variance = square - mean * mean
        pull_square = pull * pull
        apart = weight * ((1 - share) ** 2)[d.annotator]  # skill is relative: someone who cast all the votes has none to learn
        information = np.bincount(d.annotator, apart * variance * pull_square, r) + d.precision[n]
        loss += np.log(information / d.precision[n]).sum() / 2
        each = apart / (2 * information[d.annotator])
        by_eta += each * pull_square * mean * (0.25 - 3 * square + 2 * mean * mean)
        by_tie += each * pull_square * p_tie * (mean * mean - variance)
        by_pull = each * 2 * variance * pull
    by_pull += by_eta
    grad = d.precision * params
    grad[:k] += np.bincount(d.left, by_pull * skill, k) - np.bincount(d.right, by_pull * skill, k)
    grad[k] += by_tie.sum()
    grad[k + 1] += by_eta.sum()
    grad[k + 2 : n] += d.x.T @ by_eta
    if d.with_annotators:
        by_skill = np.bincount(d.annotator, by_pull * pull, r)
        grad[n : n + r] += by_skill - share * skills * by_skill.sum()
        grad[n + r :] += np.bincount(d.annotator, by_eta, r)
    return loss / total, grad / total


def solve(d: Design, weight: np.ndarray, start: np.ndarray | None = None, step: np.ndarray | None = None) -> np.ndarray:
    """The parameters that maximize the penalized likelihood of votes weighted by ``weight`` (n,).

    ``start`` and ``step``, a square root of the covariance there, make a refit of nearly the same votes take a few iterations.
    """
    cells = np.bincount(d.cell, weight, len(d.left))
    share = np.bincount(d.judge, weight, len(d.annotators)) / weight.sum()
    if start is None or step is None:
        options = {"maxiter": 1000, "gtol": 1e-7, "ftol": 1e-14}
        return minimize(_loss, np.zeros(len(d.precision)), (d, cells, share), method="L-BFGS-B", jac=True, options=options).x

    def scaled(z: np.ndarray) -> tuple[float, np.ndarray]:
        loss, grad = _loss(start + step @ z, d, cells, share)
        return loss, step.T @ grad

    z = minimize(scaled, np.zeros(len(start)), method="L-BFGS-B", jac=True, options={"maxiter": 100, "gtol": 1e-5, "ftol": 1e-9}).x
    return start + step @ z


def unpack(params: np.ndarray, d: Design) -> Davidson:
    """The parameter vector as a named result."""
    k, n, r = len(d.systems), d.n_core, len(d.annotators)
    skill = _skills(params, d, np.bincount(d.judge, d.weight, r) / d.weight.sum())
    left = params[n + r :] if d.with_annotators else np.zeros(r)
    return Davidson(
        strengths=dict(zip(d.systems, params[:k].tolist(), strict=True)),
        tie=float(np.exp(params[k])),
        left=float(params[k + 1]),
        covariates=tuple(params[k + 2 : n].tolist()),
        skills=dict(zip(d.annotators, skill.tolist(), strict=True)),
        lefts=dict(zip(d.annotators, left.tolist(), strict=True)),
    )


def davidson(votes: Sequence[Vote], *, annotators: bool = True, priors: Priors = PRIORS) -> Davidson:
    """Fit the model to all votes but cannot_judge; ``annotators=False`` gives everyone skill 1 and the same pull to the left.

    Raises ValueError where no vote is left. All ties, separated or disconnected data give finite, shrunk answers.
    """
    d = design(counted(votes), None, annotators, priors)
    return unpack(solve(d, d.weight), d)


@dataclass(frozen=True, slots=True)
class Spread:
    """How uncertain the core parameters are, as covariances (n_core, n_core): from resampling ``n_clusters`` clusters, from the model's own
    information, and what ``n_judges`` annotators who differ in taste add (zeros unless they were resampled too).
    """

    resampled: np.ndarray
    model: np.ndarray
    n_clusters: int
    judges: np.ndarray
    n_judges: int

    def half_width(self, contrast: np.ndarray) -> float:
        """Half the 95% interval of ``contrast @ params``: from resampling or the model, whichever is wider, and the annotators' part.

        The model's part keeps a few unanimous votes, which resample to themselves, from looking certain.
        """
        variance = max(contrast @ self.resampled @ contrast, contrast @ self.model @ contrast)
        by_judges = max(contrast @ self.judges @ contrast, 0.0)
        return math.sqrt(t_quantile(self.n_clusters) ** 2 * variance + t_quantile(self.n_judges) ** 2 * by_judges)


def spread(d: Design, params: np.ndarray, resample: Resample, n_resamples: int, seed: int) -> Spread:
    """Covariances of the core parameters around ``params``; ``resample`` says what is drawn with replacement.

    "both" adds to the bootstrap over prompts the one over annotators less the one over votes (as in Cameron, Gelbach and Miller 2011),
    since drawing both at once would triple the part of the variance that is plain vote noise. Rough with fewer than about 10 annotators.
    """
    if resample not in RESAMPLE:
        raise ValueError(f"resample {resample!r} is not known; use one of {', '.join(RESAMPLE)}")
    if n_resamples < 2:
        raise ValueError(f"n_resamples {n_resamples!r} must be at least 2; 200 gives interval widths to about 5%")
    rng = np.random.default_rng(seed)
    covariance = np.linalg.inv(_information(d, params))
    step = np.linalg.cholesky(covariance) * math.sqrt(d.weight.sum())
    cluster = d.judge if resample == "annotators" else d.prompt
    resampled = _bootstrap_covariance(d, params, step, cluster, n_resamples, rng)
    judges = np.zeros_like(resampled)
    if resample == "both":
        votes = np.arange(len(d.weight))
        judges = _bootstrap_covariance(d, params, step, d.judge, n_resamples, rng)
        judges -= _bootstrap_covariance(d, params, step, votes, n_resamples, rng)
    return Spread(resampled, covariance[: d.n_core, : d.n_core], int(cluster.max()) + 1, judges, len(d.annotators))


def _bootstrap_covariance(
    d: Design, params: np.ndarray, step: np.ndarray, cluster: np.ndarray, n: int, rng: np.random.Generator
) -> np.ndarray:
    n_clusters = int(cluster.max()) + 1
    if n_clusters == 1:
        return np.zeros((d.n_core, d.n_core))
    draws = rng.multinomial(n_clusters, np.full(n_clusters, 1 / n_clusters), size=n)
    fits = np.array([solve(d, d.weight * draw[cluster], params, step)[: d.n_core] for draw in draws])
    return np.cov(fits, rowvar=False) * n_clusters / (n_clusters - 1)


def _information(d: Design, params: np.ndarray) -> np.ndarray:
    """The penalized Fisher information of all parameters at ``params``."""
    k, n, m, r = len(d.systems), d.n_core, len(d.left), len(d.annotators)
    weight = np.bincount(d.cell, d.weight, m)
    share = np.bincount(d.judge, d.weight, r) / d.weight.sum()
    skills = _skills(params, d, share)
    skill, pull, log_p = _predict(params, d, skills)
    p_left, p_right, p_tie = np.exp(log_p)
    columns = [d.left, d.right, *(np.full(m, i) for i in range(k + 1, n))]
    values = [skill, -skill, np.ones(m), *d.x.T]
    if d.with_annotators:
        columns += [n + d.annotator, n + r + d.annotator]
        values += [pull, np.ones(m)]
    rows = np.tile(np.arange(m), len(values))
    eta = sparse.csr_array((np.concatenate(values), (rows, np.concatenate(columns))), shape=(m, len(params)))
    information = (eta.T @ sparse.diags_array(weight * ((p_left + p_right) - (p_left - p_right) ** 2) / 4) @ eta).toarray()
    with_tie = eta.T @ (-weight * (p_left - p_right) * p_tie / 2)
    information[k] += with_tie
    information[:, k] += with_tie
    information[k, k] += (weight * p_tie * (1 - p_tie)).sum()
    if d.with_annotators:  # log skill enters as its distance from the log of the mean skill
        one, mean = np.zeros(len(params)), np.zeros(len(params))
        one[n : n + r], mean[n : n + r] = 1, share * skills
        information -= np.outer(information @ one, mean)
        information -= np.outer(mean, one @ information)
    return information + np.diag(d.precision)
