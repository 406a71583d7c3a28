"""What a write has to satisfy, asked inside its transaction, so that a refusal is a sentence and not the name of a constraint.

The schema refuses the same things; this is for the person who reads the answer.
"""

from __future__ import annotations

from dataclasses import replace

from sqlite_utils import Database

from annotate.queries import current
from annotate.rows import Noun, table_of
from annotate.types import Annotator, Assignment, Judgment, Pair
from annotate.writer import Transaction


class AlreadyJudged(ValueError):
    """This person has answered this pair; ``judgment`` is the current answer, which a revision can replace."""

    def __init__(self, sentence: str, judgment: Judgment) -> None:
        super().__init__(sentence)
        self.judgment = judgment


def put_new(tx: Transaction, noun: Noun, **ids: str) -> bool:
    """Put a noun unless one with these ids is there; true where it was new."""
    if tx.find(type(noun), **ids) is not None:
        return False
    tx.put(noun)
    return True


def same_texts(db: Database, pair: Pair) -> bool:
    """Whether the store holds a pair of the same two texts in either order (for a swap: a swap of the same pair)."""
    sql = """SELECT 1 FROM pairs WHERE pair_id = :pair_id OR (:repeat_of IS NULL AND kind <> 'swap' AND item_id = :item_id
        AND min(lo_sha, hi_sha) = min(:lo_sha, :hi_sha) AND max(lo_sha, hi_sha) = max(:lo_sha, :hi_sha))"""
    return db.execute(sql, table_of(Pair).row(pair)).fetchone() is not None


def known(tx: Transaction, annotator_id: str) -> Annotator:
    """The annotator with this id; raises ValueError where there is none."""
    there = tx.find(Annotator, annotator_id=annotator_id)
    if there is None:
        raise ValueError(f"there is no annotator {annotator_id!r:.60}; add_annotator adds one")
    return there


def fit_to_judge(annotator: Annotator) -> None:
    """Raises ValueError for someone paused or blocked."""
    if annotator.status != "active":
        raise ValueError(f"this annotator is {annotator.status}; the owner can set the status to active")


def record(tx: Transaction, judgment: Judgment) -> Judgment:
    """The judgment as kept: as it is there already, or put now. ``Store.record_judgment`` says what raises."""
    there = tx.find(Judgment, judgment_id=judgment.judgment_id)
    if there is not None:
        if replace(judgment, seq=there.seq, created_at=there.created_at) != there:
            raise ValueError(f"the id {judgment.judgment_id} was used for another answer; every answer needs an id of its own")
        return there
    fit_to_judge(known(tx, judgment.annotator_id))
    _require_shown(tx, judgment)
    _require_in_order(tx, judgment)
    return tx.put(replace(judgment, seq=tx.seq + 1, created_at=judgment.created_at or tx.at))


def _require_shown(tx: Transaction, judgment: Judgment) -> None:
    shown = tx.find(Assignment, pair_id=judgment.pair_id, annotator_id=judgment.annotator_id)
    if shown is None:
        raise ValueError("this pair was never shown to this annotator, so it cannot be judged; ask for the next pair")
    if (shown.shown_left_id, shown.order_key) != (judgment.shown_left_id, judgment.order_key):
        raise ValueError("the answer names other sides than those that were shown; reload the page and answer again")


def _require_in_order(tx: Transaction, judgment: Judgment) -> None:
    standing = current(tx.db, judgment.pair_id, judgment.annotator_id)
    if standing is None:
        if judgment.revision_of is not None:
            raise ValueError("there is no answer of this annotator on this pair to revise")
    elif judgment.revision_of is None:
        raise AlreadyJudged("you have answered this pair; change that answer instead", standing)
    elif judgment.revision_of != standing.judgment_id:
        raise AlreadyJudged("this answer was changed already, perhaps in another tab; reload to see what stands now", standing)
