-- Version 3: a thread's words are taken up when somebody searches, not whenever it is saved.

-- Whether the search knows the thread as it now is.
ALTER TABLE threads ADD COLUMN found INTEGER NOT NULL DEFAULT 0;
