"""Statistics of pairwise judgments: pure functions from a sequence of `Vote` to frozen results; no storage, no screen.

``votes`` is the input, ``model`` Davidson's model, and ``ratings``, ``pairs``, ``power``, ``agreement`` and ``annotators`` the questions.
Descriptive functions answer an empty sequence with zeros, None and (); models raise ValueError. No result holds NaN; every draw is seeded.
"""

from annotate.stats.agreement import agreement, agreements, dimensions, reward_agreement, self_consistency
from annotate.stats.annotators import annotator_table
from annotate.stats.model import Priors, davidson
from annotate.stats.pairs import pair_preferences, win_rates
from annotate.stats.power import always_valid, detectable_win_rate, power_meter, votes_needed, votes_to_flip
from annotate.stats.ratings import bradley_terry, length_adjusted, newman, position_bias, ratings, tier
from annotate.stats.votes import OUTCOMES, Estimate, Vote, cap_weights, outcome_counts, weight_cap

__all__ = [
    "OUTCOMES",
    "Estimate",
    "Priors",
    "Vote",
    "agreement",
    "agreements",
    "always_valid",
    "annotator_table",
    "bradley_terry",
    "cap_weights",
    "davidson",
    "detectable_win_rate",
    "dimensions",
    "length_adjusted",
    "newman",
    "outcome_counts",
    "pair_preferences",
    "position_bias",
    "power_meter",
    "ratings",
    "reward_agreement",
    "self_consistency",
    "tier",
    "votes_needed",
    "votes_to_flip",
    "weight_cap",
    "win_rates",
]
