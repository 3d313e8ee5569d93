-- Version 1 of the ledger. Text in it is redacted before it gets here.

CREATE TABLE threads (
    id          TEXT PRIMARY KEY,
    role        TEXT NOT NULL,
    project     TEXT NOT NULL,
    -- The request of the first round, a JSON object.
    request     TEXT NOT NULL,
    state       TEXT NOT NULL,
    -- The challenge loop, a JSON object that the consult room reads and writes.
    loop        TEXT NOT NULL,
    -- Which Kimi remembers the conversation, and under which session.
    dialect     TEXT,
    session_id  TEXT,
    decision    TEXT,
    rationale   TEXT,
    -- Seconds since 1970, UTC, like all times here.
    decided_at  INTEGER,
    opened_at   INTEGER NOT NULL,
    updated_at  INTEGER NOT NULL
) STRICT;

CREATE INDEX threads_by_time ON threads (updated_at DESC);

CREATE TABLE rounds (
    thread_id   TEXT NOT NULL REFERENCES threads (id) ON DELETE CASCADE,
    number      INTEGER NOT NULL,
    opened_at   INTEGER NOT NULL,
    -- Absent while Kimi has not answered: the round is unfinished.
    closed_at   INTEGER,
    -- What Kimi answered, checked, a JSON object.
    result      TEXT,
    -- Why it did not, a JSON object.
    error       TEXT,
    -- The compressed file with everything that Kimi wrote.
    transcript  TEXT,
    PRIMARY KEY (thread_id, number)
) STRICT, WITHOUT ROWID;

-- All that a thread says, for the search.
CREATE VIRTUAL TABLE words USING fts5 (thread_id UNINDEXED, text, tokenize = 'unicode61');
