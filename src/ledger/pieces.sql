-- Version 4: a long result is kept in pieces, so that it is written without being there as a whole.

-- What follows of a result that is longer than the piece of it in `rounds`. It has row numbers: without, each
-- comparison of two keys would read a whole piece.
CREATE TABLE pieces (
    thread_id   TEXT NOT NULL,
    round       INTEGER NOT NULL,
    -- From 1, in their order.
    number      INTEGER NOT NULL,
    text        TEXT NOT NULL,
    PRIMARY KEY (thread_id, round, number),
    FOREIGN KEY (thread_id, round) REFERENCES rounds (thread_id, number) ON DELETE CASCADE
) STRICT;
