-- The ledger. Text in it is redacted before it gets here.

CREATE TABLE threads (
    number      INTEGER PRIMARY KEY,
    id          TEXT NOT NULL UNIQUE,
    -- The JSON of a `ThreadRow`.
    row         TEXT NOT NULL,
    project     TEXT AS (row ->> 'project'),
    state       TEXT AS (row ->> 'state'),
    updated_at  INTEGER AS (row ->> 'updated_at')
) STRICT;

CREATE INDEX threads_by_time ON threads (updated_at DESC);

CREATE TABLE rounds (
    thread_id   TEXT NOT NULL REFERENCES threads (id) ON DELETE CASCADE,
    number      INTEGER NOT NULL,
    -- The JSON of a `RoundRow`, and its result beside it.
    row         TEXT NOT NULL,
    result      TEXT,
    PRIMARY KEY (thread_id, number)
) STRICT;

-- Every run of Kimi: one brief, with the turn that asked for a better answer.
CREATE TABLE runs (
    number      INTEGER PRIMARY KEY,
    id          TEXT NOT NULL UNIQUE,
    -- The JSON of a `RunRow`.
    row         TEXT NOT NULL,
    thread_id   TEXT AS (row ->> 'thread_id')
) STRICT;

CREATE INDEX runs_by_thread ON runs (thread_id);

-- The text of each thread that is searched, in lower case, under its number. The index finds parts of words that have
-- three characters or more.
CREATE VIRTUAL TABLE texts USING fts5 (text, tokenize = 'trigram case_sensitive 1');

-- What is deleted leaves the index at once, not when its pages are merged.
INSERT INTO texts (texts, rank) VALUES ('secure-delete', 1);
