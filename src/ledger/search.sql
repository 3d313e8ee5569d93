-- Version 2: the words of a thread are found by a number, since a search by its id goes through the
-- words of all threads.

CREATE TABLE searched (
    number      INTEGER PRIMARY KEY,
    thread_id   TEXT NOT NULL UNIQUE REFERENCES threads (id) ON DELETE CASCADE
) STRICT;

INSERT INTO searched (thread_id) SELECT id FROM threads;

-- A row's number is that of its thread in `searched`.
CREATE VIRTUAL TABLE numbered USING fts5 (thread_id UNINDEXED, text, tokenize = 'unicode61');

INSERT INTO numbered (rowid, thread_id, text)
    SELECT searched.number, words.thread_id, words.text
    FROM words JOIN searched ON searched.thread_id = words.thread_id;

DROP TABLE words;

ALTER TABLE numbered RENAME TO words;
