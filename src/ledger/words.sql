-- Writes the words of the thread ?1: request, answers and decision. JSON's escapes of line breaks and tabs
-- become spaces, since their letter would count as part of the word behind it. Of a very long result the
-- beginning is enough.

INSERT OR REPLACE INTO words (rowid, text)
    SELECT number, replace(replace(replace(replace(
        concat_ws(' ', row -> 'decision', row -> 'request', row -> 'challenge',
            (SELECT group_concat(substr(result, 1, 262144), ' ') FROM rounds WHERE thread_id = ?1)),
        '\\', ' '), '\n', ' '), '\t', ' '), '\r', ' ')
    FROM threads WHERE id = ?1;
