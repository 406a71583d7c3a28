"""What is asked of the judgments in SQL: which are current, which count, who holds a running lease, and any selection of them."""

from __future__ import annotations

from typing import Any

from sqlite_utils import Database

from annotate.rows import table_of
from annotate.types import Check, Judgment, JudgmentQuery, Load, Pair

# Of the judgments j. Looked up one by one: a list of all excluded votes would be built at every lease and searched row by row.
_COUNTED = """NOT EXISTS (SELECT 1 FROM exclusions WHERE active AND exclusions.annotator_id = j.annotator_id)
    AND NOT EXISTS (SELECT 1 FROM exclusions WHERE active AND exclusions.pair_id = j.pair_id)
    AND NOT EXISTS (
        SELECT 1 FROM pairs AS swapped JOIN exclusions ON exclusions.pair_id = swapped.repeat_of
        WHERE active AND swapped.pair_id = j.pair_id
    )
    AND NOT EXISTS (
        SELECT 1 FROM judgments AS named JOIN exclusions USING (judgment_id)
        WHERE active AND named.pair_id = j.pair_id AND named.annotator_id = j.annotator_id
    )"""  # an excluded judgment takes its revisions with it, an excluded pair its swapped repeat
_OPINION = """NOT unblinded AND EXISTS (
    SELECT 1 FROM annotators WHERE annotators.annotator_id = j.annotator_id AND annotators.kind = 'human'
)"""
_RUNNING = """leased_at <= :now AND lease_until > :now AND NOT EXISTS (
    SELECT 1 FROM judgments WHERE judgments.pair_id = assignments.pair_id AND judgments.annotator_id = assignments.annotator_id
)"""  # a lease that begins in the future was given before the clock was set back: it does not run


def current(db: Database, pair_id: str, annotator_id: str) -> Judgment | None:
    """What one person answers on one pair as it stands now."""
    row = next(db.query("SELECT * FROM current_judgments WHERE pair_id = ? AND annotator_id = ?", [pair_id, annotator_id]), None)
    return None if row is None else table_of(Judgment).parse(row)


def judged_pairs(db: Database, annotator_id: str) -> frozenset[str]:
    """The pairs that somebody has answered."""
    return frozenset(row[0] for row in db.execute("SELECT DISTINCT pair_id FROM judgments WHERE annotator_id = ?", [annotator_id]))


def recent(db: Database, annotator_id: str, n: int) -> tuple[Judgment, ...]:
    """Someone's last ``n`` current answers, the newest first."""
    rows = db.query("SELECT * FROM current_judgments WHERE annotator_id = ? ORDER BY seq DESC LIMIT ?", [annotator_id, n])
    return tuple(map(table_of(Judgment).parse, rows))


def judgments(db: Database, query: JudgmentQuery) -> tuple[Judgment, ...]:
    """The judgments that ``query`` names, in the order they were kept."""
    where = ["seq > :after_seq"]
    values: dict[str, Any] = {"after_seq": query.after_seq, "limit": -1 if query.limit is None else query.limit}
    for column, value in (
        ("annotator_id", query.annotator_id),
        ("pair_id", query.pair_id),
        ("agent", query.agent),
        ("round", query.round),
        ("judge_kind", query.judge_kind),
        ("unblinded", query.unblinded),
    ):
        if value is not None:
            where.append(f"{column} = :{column}")
            values[column] = value
    if query.kinds:
        names = {f"kind_{i}": kind for i, kind in enumerate(query.kinds)}
        where.append(f"pair_kind IN ({', '.join(':' + name for name in names)})")
        values |= names
    if not query.excluded:
        where.append(_COUNTED)
    sql = f"""
        SELECT * FROM (
            SELECT j.*, pairs.kind AS pair_kind, pairs.agent, pairs.round, annotators.kind AS judge_kind
            FROM {"judgments" if query.revisions else "current_judgments"} AS j
            JOIN pairs USING (pair_id) JOIN annotators USING (annotator_id)
        ) AS j WHERE {" AND ".join(where)} ORDER BY seq LIMIT :limit"""
    return tuple(map(table_of(Judgment).parse, db.query(sql, values)))


def checks(db: Database, annotator_id: str | None) -> tuple[Check, ...]:
    """How current answers on check pairs came out, in the order they were given."""
    sql = "SELECT checks.* FROM checks JOIN judgments USING (judgment_id) WHERE :who IS NULL OR checks.annotator_id = :who ORDER BY seq"
    return tuple(Check(**row) for row in db.query(sql, {"who": annotator_id}))


def loads(db: Database, now: str) -> tuple[Load, ...]:
    """How far each pair is at ``now``, by pair id: only people's blind answers bring it on."""
    sql = f"""
        SELECT pairs.pair_id, coalesce(judged.n, 0) AS n_judged, coalesce(leased.n, 0) AS n_leased, coalesce(judged.split, 0) AS split
        FROM pairs
        LEFT JOIN (
            SELECT pair_id, count(*) AS n, sum(outcome IN ('A', 'B')) > 0
                AND sum(iif((outcome = 'A') = (shown_left_id = lo_id), 1, -1) * (outcome IN ('A', 'B'))) = 0 AS split
            FROM current_judgments AS j JOIN pairs USING (pair_id) WHERE {_COUNTED} AND {_OPINION} GROUP BY pair_id
        ) AS judged USING (pair_id)
        LEFT JOIN (SELECT pair_id, count(*) AS n FROM assignments WHERE {_RUNNING} GROUP BY pair_id) AS leased USING (pair_id)
        ORDER BY pairs.pair_id"""
    return tuple(Load(**row | {"split": bool(row["split"])}) for row in db.query(sql, {"now": now}))


def newest_pairs(db: Database, n: int) -> tuple[tuple[Pair, str, str, str], ...]:
    """The ``n`` pairs added last, the newest first, each with its item's prompt and both texts, ``lo`` first."""
    sql = """SELECT pairs.*, items.prompt AS asked, lo.text AS lo_text, hi.text AS hi_text FROM pairs JOIN items USING (item_id)
        JOIN candidates AS lo ON lo.candidate_id = lo_id JOIN candidates AS hi ON hi.candidate_id = hi_id
        ORDER BY pairs.rowid DESC LIMIT ?"""
    return tuple((table_of(Pair).parse(row), row["asked"], row["lo_text"], row["hi_text"]) for row in db.query(sql, [n]))


def n_others(db: Database, pair_id: str, annotator_id: str, now: str) -> int:
    """How many other people have a counted answer or a running lease on a pair."""
    sql = f"""SELECT count(*) FROM (
        SELECT annotator_id FROM current_judgments AS j WHERE pair_id = :pair AND annotator_id <> :who AND {_COUNTED} AND {_OPINION}
        UNION SELECT annotator_id FROM assignments WHERE pair_id = :pair AND annotator_id <> :who AND {_RUNNING})"""
    return db.execute(sql, {"pair": pair_id, "who": annotator_id, "now": now}).fetchone()[0]
