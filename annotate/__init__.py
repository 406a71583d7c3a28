"""Blind pairwise judgments by people: what is shown, what was answered, and what can be learned from it."""
