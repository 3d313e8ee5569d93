-- Makes some threads found by all that they say: what was asked, what Kimi answered, what was decided. What
-- JSON writes for a line break or a tab would be part of the word behind it.

INSERT INTO searched (thread_id) SELECT id FROM threads WHERE NOT found ORDER BY id LIMIT 100
    ON CONFLICT (thread_id) DO NOTHING;

INSERT OR REPLACE INTO words (rowid, thread_id, text)
    SELECT number, id, concat_ws(' ', decision, rationale,
        replace(replace(replace(replace(
            concat_ws(' ', request, loop,
                -- One that is longer could not be read, most likely. The first piece and 32 more hold as many
                -- characters, whichever they are.
                (SELECT group_concat(substr(result || ifnull(
                        (SELECT group_concat(text, '' ORDER BY pieces.number) FROM pieces
                         WHERE pieces.thread_id = id AND round = rounds.number AND pieces.number <= 32), ''),
                    1, 262144), ' ')
                 FROM rounds WHERE thread_id = id)),
            '\\', ' '), '\n', ' '), '\t', ' '), '\r', ' '))
    FROM threads JOIN searched ON thread_id = id
    WHERE id IN (SELECT id FROM threads WHERE NOT found ORDER BY id LIMIT 100);

UPDATE threads SET found = 1
    WHERE id IN (SELECT id FROM threads WHERE NOT found ORDER BY id LIMIT 100);
