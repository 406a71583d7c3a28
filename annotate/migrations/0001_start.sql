-- Schema 1. Every rule that a row can break is here, so that no program can write what another cannot read.
-- Times are UTC text with milliseconds; ids ending in _id are sha256 of the content, but annotators' and judgments', which are random UUIDs.

CREATE TABLE meta (  -- one row: which store this is and how far its journal goes
    one INTEGER PRIMARY KEY NOT NULL CHECK (one = 1),
    store_id TEXT NOT NULL CHECK (length(store_id) = 36),
    seq INTEGER NOT NULL CHECK (seq >= 0),  -- changes ever made; also the number of the last one
    head TEXT NOT NULL CHECK (length(head) = 64)  -- chained hash of all journal blocks up to seq
) STRICT;

CREATE TABLE settings (
    name TEXT PRIMARY KEY NOT NULL CHECK (length(name) BETWEEN 1 AND 80),
    value_json TEXT NOT NULL CHECK (json_valid(value_json))
) STRICT;

CREATE TABLE erasures (  -- an entry permits the deletion of this person's rows, and remains as the tombstone
    annotator_id TEXT PRIMARY KEY NOT NULL CHECK (length(annotator_id) = 36),
    erased_at TEXT NOT NULL CHECK (erased_at IS strftime('%Y-%m-%dT%H:%M:%fZ', erased_at)),
    n_judgments INTEGER NOT NULL CHECK (n_judgments >= 0),
    n_assignments INTEGER NOT NULL CHECK (n_assignments >= 0),
    n_events INTEGER NOT NULL CHECK (n_events >= 0),
    n_items INTEGER NOT NULL CHECK (n_items >= 0),
    n_others INTEGER NOT NULL CHECK (n_others >= 0),
    cleaned INTEGER NOT NULL CHECK (cleaned IN (0, 1))
) STRICT;

CREATE TABLE annotators (
    annotator_id TEXT PRIMARY KEY NOT NULL CHECK (length(annotator_id) = 36),
    nickname TEXT NOT NULL CHECK (length(nickname) BETWEEN 1 AND 80 AND instr(nickname, char(0)) = 0),
    kind TEXT NOT NULL CHECK (kind IN ('human', 'llm', 'metric')),
    perspective TEXT NOT NULL CHECK (length(perspective) <= 80),
    lang TEXT NOT NULL CHECK (length(lang) <= 80),
    status TEXT NOT NULL CHECK (status IN ('active', 'paused', 'blocked')),
    consent TEXT NOT NULL CHECK (length(consent) <= 80),
    identity_sha TEXT UNIQUE CHECK (length(identity_sha) = 64),
    joined_at TEXT NOT NULL CHECK (joined_at IS strftime('%Y-%m-%dT%H:%M:%fZ', joined_at))
) STRICT;

CREATE TABLE items (
    item_id TEXT PRIMARY KEY NOT NULL CHECK (length(item_id) = 64),
    prompt TEXT NOT NULL CHECK (length(prompt) BETWEEN 1 AND 20000 AND instr(prompt, char(0)) = 0),
    reference_json TEXT NOT NULL CHECK (json_valid(reference_json) AND json_type(reference_json) = 'object'),
    source TEXT NOT NULL CHECK (length(source) <= 80),
    lang TEXT NOT NULL CHECK (length(lang) <= 80),
    split TEXT NOT NULL CHECK (length(split) <= 80),
    contributor_id TEXT REFERENCES annotators (annotator_id)
) STRICT;
CREATE INDEX items_contributor ON items (contributor_id);

CREATE TABLE candidates (
    candidate_id TEXT PRIMARY KEY NOT NULL CHECK (length(candidate_id) = 64),
    item_id TEXT NOT NULL REFERENCES items (item_id),
    text TEXT NOT NULL CHECK (length(text) BETWEEN 1 AND 50000 AND instr(text, char(0)) = 0),
    text_sha TEXT NOT NULL CHECK (length(text_sha) = 64),
    system TEXT NOT NULL CHECK (length(system) BETWEEN 1 AND 80),
    trace_json TEXT NOT NULL CHECK (json_valid(trace_json) AND json_type(trace_json) = 'object'),
    UNIQUE (item_id, candidate_id, text_sha)
) STRICT;

CREATE TABLE pairs (
    pair_id TEXT PRIMARY KEY NOT NULL CHECK (length(pair_id) = 64),
    item_id TEXT NOT NULL,
    lo_id TEXT NOT NULL,
    hi_id TEXT NOT NULL,
    lo_sha TEXT NOT NULL,
    hi_sha TEXT NOT NULL,
    kind TEXT NOT NULL CHECK (kind IN ('one-factor', 'system', 'gold', 'identical', 'swap')),
    agent TEXT CHECK (agent IN ('style', 'topic', 'generator')),
    expected TEXT,
    repeat_of TEXT UNIQUE,
    propensity REAL NOT NULL CHECK (propensity > 0 AND propensity <= 1),
    round INTEGER NOT NULL CHECK (round >= 0),
    origin TEXT NOT NULL CHECK (length(origin) <= 80),
    CHECK (lo_id <= hi_id),
    CHECK ((kind = 'identical') = (lo_sha = hi_sha)),
    CHECK ((kind = 'one-factor') = (agent IS NOT NULL)),
    CHECK ((kind = 'swap') = (repeat_of IS NOT NULL)),
    CHECK (CASE kind WHEN 'gold' THEN expected IS lo_id OR expected IS hi_id WHEN 'identical' THEN expected IS 'tie' ELSE expected IS NULL END),
    UNIQUE (pair_id, item_id, lo_id, hi_id),
    FOREIGN KEY (item_id, lo_id, lo_sha) REFERENCES candidates (item_id, candidate_id, text_sha),
    FOREIGN KEY (item_id, hi_id, hi_sha) REFERENCES candidates (item_id, candidate_id, text_sha),
    FOREIGN KEY (repeat_of, item_id, lo_id, hi_id) REFERENCES pairs (pair_id, item_id, lo_id, hi_id)
) STRICT;
CREATE UNIQUE INDEX pairs_content ON pairs (item_id, min(lo_sha, hi_sha), max(lo_sha, hi_sha)) WHERE kind <> 'swap';
CREATE INDEX pairs_lo ON pairs (lo_id);
CREATE INDEX pairs_hi ON pairs (hi_id);

CREATE TABLE assignments (
    pair_id TEXT NOT NULL REFERENCES pairs (pair_id),
    annotator_id TEXT NOT NULL REFERENCES annotators (annotator_id),
    shown_left_id TEXT NOT NULL,
    order_key TEXT NOT NULL CHECK (length(order_key) BETWEEN 1 AND 80),
    propensity REAL NOT NULL CHECK (propensity > 0 AND propensity <= 1),
    leased_at TEXT NOT NULL CHECK (leased_at IS strftime('%Y-%m-%dT%H:%M:%fZ', leased_at)),
    lease_until TEXT NOT NULL CHECK (lease_until IS strftime('%Y-%m-%dT%H:%M:%fZ', lease_until)),
    PRIMARY KEY (pair_id, annotator_id),
    UNIQUE (pair_id, annotator_id, shown_left_id, order_key)
) STRICT;
CREATE INDEX assignments_annotator ON assignments (annotator_id);

CREATE TABLE judgments (
    seq INTEGER PRIMARY KEY NOT NULL CHECK (seq > 0),
    judgment_id TEXT NOT NULL UNIQUE CHECK (length(judgment_id) = 36),
    pair_id TEXT NOT NULL,
    annotator_id TEXT NOT NULL,
    shown_left_id TEXT NOT NULL,
    order_key TEXT NOT NULL,
    outcome TEXT NOT NULL CHECK (outcome IN ('A', 'B', 'tie', 'both_bad', 'cannot_judge')),
    strength TEXT CHECK (strength IS NULL OR (strength IN ('slightly', 'clearly') AND outcome IN ('A', 'B'))),
    dims_json TEXT NOT NULL CHECK (json_valid(dims_json) AND json_type(dims_json) = 'object'),
    tags_json TEXT NOT NULL CHECK (json_valid(tags_json) AND json_type(tags_json) = 'array'),
    rationale TEXT NOT NULL CHECK (length(rationale) <= 4000 AND instr(rationale, char(0)) = 0),
    ms_visible INTEGER CHECK (ms_visible IS NULL OR (ms_total IS NOT NULL AND ms_visible BETWEEN 0 AND ms_total)),
    ms_total INTEGER CHECK (ms_total >= 0),
    input_kind TEXT NOT NULL CHECK (input_kind IN ('keyboard', 'mouse', 'touch', 'api')),
    ui_version TEXT NOT NULL CHECK (length(ui_version) <= 80),
    guideline_version TEXT NOT NULL CHECK (length(guideline_version) <= 80),
    unblinded INTEGER NOT NULL CHECK (unblinded IN (0, 1)),
    revision_of TEXT UNIQUE CHECK (revision_of <> judgment_id),
    created_at TEXT NOT NULL CHECK (created_at IS strftime('%Y-%m-%dT%H:%M:%fZ', created_at)),
    UNIQUE (judgment_id, pair_id, annotator_id),
    -- a pair never shown, or shown the other way round, cannot be judged
    FOREIGN KEY (pair_id, annotator_id, shown_left_id, order_key)
        REFERENCES assignments (pair_id, annotator_id, shown_left_id, order_key),
    FOREIGN KEY (revision_of, pair_id, annotator_id) REFERENCES judgments (judgment_id, pair_id, annotator_id)
) STRICT;
-- One chain of revisions per pair and person, each revised at most once (revision_of is UNIQUE): so exactly one current answer, without
-- ever updating a row.
CREATE UNIQUE INDEX judgments_first ON judgments (pair_id, annotator_id) WHERE revision_of IS NULL;
CREATE INDEX judgments_annotator ON judgments (annotator_id, seq);
CREATE INDEX judgments_pair ON judgments (pair_id);

CREATE TABLE exclusions (
    exclusion_id TEXT PRIMARY KEY NOT NULL CHECK (length(exclusion_id) = 64),
    judgment_id TEXT REFERENCES judgments (judgment_id),
    annotator_id TEXT REFERENCES annotators (annotator_id),
    pair_id TEXT REFERENCES pairs (pair_id),
    reason TEXT NOT NULL CHECK (length(reason) BETWEEN 1 AND 500),
    decided_by TEXT NOT NULL CHECK (length(decided_by) BETWEEN 1 AND 80),
    active INTEGER NOT NULL CHECK (active IN (0, 1)),
    decided_at TEXT NOT NULL CHECK (decided_at IS strftime('%Y-%m-%dT%H:%M:%fZ', decided_at)),
    CHECK ((judgment_id IS NOT NULL) + (annotator_id IS NOT NULL) + (pair_id IS NOT NULL) = 1)
) STRICT;
CREATE INDEX exclusions_judgment ON exclusions (judgment_id);
CREATE INDEX exclusions_annotator ON exclusions (annotator_id);
CREATE INDEX exclusions_pair ON exclusions (pair_id);

CREATE TABLE events (
    seq INTEGER PRIMARY KEY NOT NULL CHECK (seq > 0),
    at TEXT NOT NULL CHECK (at IS strftime('%Y-%m-%dT%H:%M:%fZ', at)),
    kind TEXT NOT NULL CHECK (length(kind) BETWEEN 1 AND 80),
    annotator_id TEXT REFERENCES annotators (annotator_id),
    detail_json TEXT NOT NULL CHECK (json_valid(detail_json) AND json_type(detail_json) = 'object')
) STRICT;
CREATE INDEX events_annotator ON events (annotator_id);

CREATE TABLE exports (
    export_id TEXT PRIMARY KEY NOT NULL CHECK (length(export_id) = 64),
    at TEXT NOT NULL CHECK (at IS strftime('%Y-%m-%dT%H:%M:%fZ', at)),
    n INTEGER NOT NULL CHECK (n >= 0),
    query_json TEXT NOT NULL CHECK (json_valid(query_json) AND json_type(query_json) = 'object'),
    thresholds_json TEXT NOT NULL CHECK (json_valid(thresholds_json) AND json_type(thresholds_json) = 'object'),
    method TEXT NOT NULL CHECK (length(method) <= 80)
) STRICT;

-- What a table constraint cannot say. None of these looks at a value that can change later, so a replay of the journal meets the same answers.

CREATE TRIGGER annotators_erased BEFORE INSERT ON annotators
WHEN NEW.annotator_id IN (SELECT annotator_id FROM erasures)
BEGIN SELECT RAISE(ABORT, 'this person was erased and cannot be added again'); END;

CREATE TRIGGER assignments_side BEFORE INSERT ON assignments
WHEN NOT EXISTS (SELECT 1 FROM pairs WHERE pair_id = NEW.pair_id AND NEW.shown_left_id IN (lo_id, hi_id))
BEGIN SELECT RAISE(ABORT, 'shown_left_id is not one of the two texts of this pair'); END;

CREATE TRIGGER assignments_swapped BEFORE INSERT ON assignments
WHEN EXISTS (
    SELECT 1 FROM pairs JOIN assignments AS first ON first.pair_id = pairs.repeat_of
    WHERE pairs.pair_id = NEW.pair_id AND first.annotator_id = NEW.annotator_id AND first.shown_left_id = NEW.shown_left_id
)
BEGIN SELECT RAISE(ABORT, 'a swapped repeat has to show the sides the other way round'); END;

CREATE TRIGGER assignments_fixed BEFORE UPDATE ON assignments
WHEN NEW.pair_id IS NOT OLD.pair_id OR NEW.annotator_id IS NOT OLD.annotator_id
    OR NEW.shown_left_id IS NOT OLD.shown_left_id OR NEW.order_key IS NOT OLD.order_key
BEGIN SELECT RAISE(ABORT, 'the side of an assignment never changes'); END;

CREATE TRIGGER judgments_dims BEFORE INSERT ON judgments
WHEN EXISTS (
    SELECT 1 FROM json_each(NEW.dims_json) WHERE key NOT IN ('style', 'topic', 'fluency') OR value IS NULL OR value NOT IN ('A', 'B', 'same')
)
BEGIN SELECT RAISE(ABORT, 'dims holds an unknown dimension or answer'); END;

-- INSERT OR REPLACE deletes without asking the delete trigger unless a connection turns recursive_triggers on.
CREATE TRIGGER judgments_no_replace BEFORE INSERT ON judgments
WHEN EXISTS (SELECT 1 FROM judgments WHERE seq = NEW.seq)
    OR EXISTS (SELECT 1 FROM judgments WHERE judgment_id = NEW.judgment_id)
    OR EXISTS (SELECT 1 FROM judgments WHERE revision_of = NEW.revision_of)
    OR EXISTS (
        SELECT 1 FROM judgments
        WHERE NEW.revision_of IS NULL AND pair_id = NEW.pair_id AND annotator_id = NEW.annotator_id AND revision_of IS NULL
    )
BEGIN SELECT RAISE(ABORT, 'judgments are append-only: this one exists'); END;

CREATE TRIGGER judgments_no_update BEFORE UPDATE ON judgments
BEGIN SELECT RAISE(ABORT, 'judgments are append-only: add a revision'); END;
CREATE TRIGGER events_no_update BEFORE UPDATE ON events
BEGIN SELECT RAISE(ABORT, 'events are append-only'); END;
CREATE TRIGGER exports_no_update BEFORE UPDATE ON exports
BEGIN SELECT RAISE(ABORT, 'exports are append-only'); END;
CREATE TRIGGER items_no_update BEFORE UPDATE ON items
BEGIN SELECT RAISE(ABORT, 'items do not change: add a new one'); END;
CREATE TRIGGER candidates_no_update BEFORE UPDATE ON candidates
BEGIN SELECT RAISE(ABORT, 'candidates do not change: add a new one'); END;
CREATE TRIGGER pairs_no_update BEFORE UPDATE ON pairs
BEGIN SELECT RAISE(ABORT, 'pairs do not change: add a new one'); END;

CREATE VIEW erased_items AS SELECT item_id FROM items WHERE contributor_id IN (SELECT annotator_id FROM erasures);

CREATE TRIGGER judgments_no_delete BEFORE DELETE ON judgments
WHEN OLD.annotator_id NOT IN (SELECT annotator_id FROM erasures)
    AND OLD.pair_id NOT IN (SELECT pair_id FROM pairs WHERE item_id IN erased_items)
BEGIN SELECT RAISE(ABORT, 'judgments are append-only: exclude it, or erase the person'); END;
CREATE TRIGGER assignments_no_delete BEFORE DELETE ON assignments
WHEN OLD.annotator_id NOT IN (SELECT annotator_id FROM erasures)
    AND OLD.pair_id NOT IN (SELECT pair_id FROM pairs WHERE item_id IN erased_items)
BEGIN SELECT RAISE(ABORT, 'assignments are deleted only with an erased person'); END;
CREATE TRIGGER events_no_delete BEFORE DELETE ON events
WHEN OLD.annotator_id IS NULL OR OLD.annotator_id NOT IN (SELECT annotator_id FROM erasures)
BEGIN SELECT RAISE(ABORT, 'events are append-only'); END;
CREATE TRIGGER exports_no_delete BEFORE DELETE ON exports
BEGIN SELECT RAISE(ABORT, 'exports are append-only'); END;
CREATE TRIGGER annotators_no_delete BEFORE DELETE ON annotators
WHEN OLD.annotator_id NOT IN (SELECT annotator_id FROM erasures)
BEGIN SELECT RAISE(ABORT, 'annotators are deleted only by erasing them'); END;
CREATE TRIGGER items_no_delete BEFORE DELETE ON items
WHEN OLD.item_id NOT IN erased_items
BEGIN SELECT RAISE(ABORT, 'items are deleted only with an erased person'); END;
CREATE TRIGGER candidates_no_delete BEFORE DELETE ON candidates
WHEN OLD.item_id NOT IN erased_items
BEGIN SELECT RAISE(ABORT, 'candidates are deleted only with an erased person'); END;
CREATE TRIGGER pairs_no_delete BEFORE DELETE ON pairs
WHEN OLD.item_id NOT IN erased_items
BEGIN SELECT RAISE(ABORT, 'pairs are deleted only with an erased person'); END;
CREATE TRIGGER erasures_no_delete BEFORE DELETE ON erasures
BEGIN SELECT RAISE(ABORT, 'the record of an erasure stays'); END;

CREATE VIEW current_judgments AS
SELECT * FROM judgments WHERE NOT EXISTS (SELECT 1 FROM judgments AS later WHERE later.revision_of = judgments.judgment_id);

CREATE VIEW choices AS  -- a current judgment in terms of the texts instead of the sides
SELECT
    current_judgments.judgment_id, current_judgments.annotator_id, pairs.*,
    CASE outcome
        WHEN 'A' THEN shown_left_id
        WHEN 'B' THEN CASE shown_left_id WHEN lo_id THEN hi_id ELSE lo_id END
        ELSE outcome
    END AS choice
FROM current_judgments JOIN pairs USING (pair_id);

CREATE VIEW checks AS  -- computed, so that an edited answer is never graded by what it was before
SELECT
    judgment_id, pair_id, annotator_id, kind,
    CASE kind WHEN 'swap' THEN before ELSE expected END AS expected,
    CASE
        WHEN choice = 'cannot_judge' THEN 'unknown'
        WHEN kind = 'gold' THEN iif(choice = expected, 'ok', 'fail')
        WHEN kind = 'identical' THEN iif(choice IN ('tie', 'both_bad'), 'ok', 'fail')
        WHEN before IS NULL OR before = 'cannot_judge' THEN 'unknown'
        ELSE iif(choice = before, 'ok', 'fail')
    END AS result
FROM (
    SELECT
        choices.*,
        (SELECT first.choice FROM choices AS first WHERE first.pair_id = choices.repeat_of AND first.annotator_id = choices.annotator_id) AS before
    FROM choices WHERE kind IN ('gold', 'identical', 'swap')
);
