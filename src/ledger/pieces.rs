//! A result on its way into the ledger, a piece at a time: it may be as long as the evidence of a thousand
//! calls, and neither its JSON nor SQLite's copies of that are ever there as a whole.

use std::io;

use rusqlite::{Connection, Transaction, params};
use serde::Serialize;

use super::{RoundRow, put_round};

/// How long a piece is at most, bytes. Most results are one. `find.sql` counts on it.
const PIECE: usize = 32 * 1024;

/// Writes a round with its result, in place of what it had before.
pub(super) fn put_answered(
    change: &Transaction<'_>,
    thread: &str,
    round: &RoundRow,
    result: &impl Serialize,
) -> rusqlite::Result<()> {
    let mut forget =
        change.prepare_cached("DELETE FROM pieces WHERE thread_id = ?1 AND round = ?2")?;
    forget.execute(params![thread, round.number])?;
    let piece = Vec::with_capacity(PIECE);
    let mut pieces = Pieces { change, thread, round, written: 0, piece };
    serde_json::to_writer(&mut pieces, result)
        .map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))?;
    pieces.put()
}

/// Adds to a round's result what follows its first piece.
pub(super) fn add_rest(
    connection: &Connection,
    thread: &str,
    round: u8,
    result: &mut String,
) -> rusqlite::Result<()> {
    let mut query = connection.prepare_cached(
        "SELECT text FROM pieces WHERE thread_id = ?1 AND round = ?2 ORDER BY number",
    )?;
    let mut rest = query.query(params![thread, round])?;
    while let Some(piece) = rest.next()? {
        result.push_str(piece.get_ref(0)?.as_str()?);
    }
    Ok(())
}

/// Takes JSON, and writes a piece whenever one is full: the first with the round, the others behind it.
struct Pieces<'a> {
    change: &'a Transaction<'a>,
    thread: &'a str,
    round: &'a RoundRow,
    /// How many are written.
    written: u32,
    /// The one that fills.
    piece: Vec<u8>,
}

impl Pieces<'_> {
    /// Writes what there is in whole characters; the rest of one begins the next piece.
    fn put(&mut self) -> rusqlite::Result<()> {
        let text = str::from_utf8(&self.piece)
            .or_else(|cut| str::from_utf8(&self.piece[..cut.valid_up_to()]))
            .unwrap_or_default();
        if self.written == 0 {
            put_round(self.change, self.thread, self.round, Some(text))?;
        } else {
            let mut put = self.change.prepare_cached(
                "INSERT INTO pieces (thread_id, round, number, text) VALUES (?1, ?2, ?3, ?4)",
            )?;
            put.execute(params![self.thread, self.round.number, self.written, text])?;
        }
        self.written += 1;
        let end = text.len();
        self.piece.drain(..end);
        Ok(())
    }
}

impl io::Write for Pieces<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.piece.len() == PIECE {
            self.put().map_err(io::Error::other)?;
        }
        let taken = bytes.len().min(PIECE - self.piece.len());
        self.piece.extend_from_slice(&bytes[..taken]);
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde::Serializer;
    use serde::ser::{Error as _, SerializeSeq as _};
    use serde_json::json;

    use super::super::{Filter, Ledger, MIGRATIONS, ThreadRow, file};
    use super::*;
    use crate::error::{Error, Kind};

    fn thread(id: &str) -> ThreadRow {
        ThreadRow { id: id.into(), ..ThreadRow::default() }
    }

    fn round(number: u8) -> RoundRow {
        RoundRow { number, ..RoundRow::default() }
    }

    /// What is kept of a round, and in how many pieces.
    fn kept(ledger: &Ledger, id: &str, number: u8) -> (Option<String>, i64) {
        let (_, rounds) = ledger.thread(id).unwrap().unwrap();
        let result = rounds.into_iter().find(|(round, _)| round.number == number).unwrap().1;
        let first = i64::from(result.is_some());
        (result, first + pieces(ledger, id, number))
    }

    /// How many pieces follow the first.
    fn pieces(ledger: &Ledger, id: &str, number: u8) -> i64 {
        let count = "SELECT count(*) FROM pieces WHERE thread_id = ?1 AND round = ?2";
        ledger.read(|all| all.query_row(count, params![id, number], |row| row.get(0))).unwrap()
    }

    fn found(ledger: &Ledger, words: &str) -> Vec<String> {
        let filter = Filter { words: Some(words.into()), limit: 9, ..Filter::default() };
        ledger.threads(&filter).unwrap().into_iter().map(|row| row.id).collect()
    }

    #[test]
    fn a_result_of_any_length_comes_back_whole() {
        let dir = tempfile::tempdir().unwrap();
        let ledger = Ledger::open(dir.path()).unwrap();
        // Whatever stands before them, characters of four bytes lie across the ends of pieces.
        for (text, expected) in [
            (String::new(), 1),
            ("x".repeat(PIECE - 2), 1),
            ("x".repeat(PIECE - 1), 2),
            (format!("{}é", "x".repeat(PIECE - 2)), 2),
            ("🦀".repeat(PIECE), 5),
            (format!("x{}", "🦀".repeat(PIECE)), 5),
            (format!("xx{}", "数\"\n".repeat(PIECE)), 8),
        ] {
            ledger.save_answered(&thread("a"), &round(1), &text).unwrap();
            let json = serde_json::to_string(&text).unwrap();
            let about = (text.len(), text.chars().next());
            assert_eq!(kept(&ledger, "a", 1), (Some(json), expected), "{about:?}");
        }
    }

    #[test]
    fn another_result_takes_the_place_of_all_pieces() {
        let dir = tempfile::tempdir().unwrap();
        let ledger = Ledger::open(dir.path()).unwrap();
        let long = "x".repeat(3 * PIECE);
        let json = serde_json::to_string(&long).ok();
        ledger.save_answered(&thread("a"), &round(1), &long).unwrap();
        ledger.save_answered(&thread("a"), &round(2), &long).unwrap();
        // A round that is asked again keeps what it has until there is another.
        let again = RoundRow { error: Some("{}".into()), ..round(1) };
        ledger.save(&thread("a"), Some(&again)).unwrap();
        assert_eq!(kept(&ledger, "a", 1), (json.clone(), 4));
        ledger.save_answered(&thread("a"), &again, &"short").unwrap();
        assert_eq!(kept(&ledger, "a", 1), (Some("\"short\"".into()), 1));
        assert_eq!(kept(&ledger, "a", 2), (json, 4));
        assert_eq!(ledger.delete("a"), Ok(true));
        assert_eq!((pieces(&ledger, "a", 1), pieces(&ledger, "a", 2)), (0, 0));
    }

    #[test]
    fn words_are_found_across_the_ends_of_pieces_as_far_as_a_result_is_searched() {
        let dir = tempfile::tempdir().unwrap();
        let ledger = Ledger::open(dir.path()).unwrap();
        let searched = 262_144;
        for (id, before) in [("a", "x"), ("b", "数"), ("c", "🦀")] {
            let fill = before.repeat(PIECE / before.len() - 4);
            let more = before.repeat(searched - fill.chars().count() - 30);
            let text = format!("{fill} torn{id} {more} last{id}");
            ledger.save_answered(&thread(id), &round(1), &text).unwrap();
            for word in ["torn", "last"] {
                assert_eq!(found(&ledger, &format!("{word}{id}")), [id], "{word}");
            }
        }
        let far = format!("{} far", "x ".repeat(searched / 2));
        ledger.save_answered(&thread("d"), &round(1), &far).unwrap();
        assert_eq!(found(&ledger, "far"), [""; 0]);
    }

    #[test]
    fn a_ledger_from_before_there_were_pieces_loses_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let old = Connection::open(file(dir.path())).unwrap();
        for script in &MIGRATIONS[..3] {
            old.execute_batch(script).unwrap();
        }
        let long = format!("\"{} torn\"", "é ".repeat(PIECE));
        old.execute_batch("PRAGMA user_version = 3").unwrap();
        for (id, result) in [("a", long.as_str()), ("b", "\"whole\"")] {
            old.execute(
                "INSERT INTO threads (id, role, project, request, state, loop, opened_at, updated_at)
                 VALUES (?1, '', '', '', '', '', 0, 0)",
                [id],
            )
            .unwrap();
            old.execute(
                "INSERT INTO rounds (thread_id, number, opened_at, result) VALUES (?1, 1, 0, ?2)",
                [id, result],
            )
            .unwrap();
        }
        drop(old);
        let ledger = Ledger::open(dir.path()).unwrap();
        let rounds = |id| ledger.thread(id).unwrap().unwrap();
        assert_eq!(rounds("a"), (thread("a"), vec![(round(1), Some(long))]));
        assert_eq!(rounds("b"), (thread("b"), vec![(round(1), Some("\"whole\"".into()))]));
        assert_eq!(
            (found(&ledger, "torn"), found(&ledger, "whole")),
            (vec!["a".into()], vec!["b".into()])
        );
        ledger.save_answered(&thread("a"), &round(1), &"mended").unwrap();
        assert_eq!(kept(&ledger, "a", 1), (Some("\"mended\"".into()), 1));
        assert_eq!((found(&ledger, "torn"), found(&ledger, "mended")), (vec![], vec!["a".into()]));
    }

    /// Something that stops being JSON after some pieces.
    struct Broken;

    impl Serialize for Broken {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            let mut list = serializer.serialize_seq(None)?;
            list.serialize_element(&"x".repeat(3 * PIECE))?;
            Err(S::Error::custom("no more of it"))
        }
    }

    #[test]
    fn a_result_that_cannot_be_written_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let ledger = Ledger::open(dir.path()).unwrap();
        let long = "y".repeat(2 * PIECE);
        ledger.save_answered(&thread("a"), &round(1), &long).unwrap();
        let before = (ledger.thread("a").unwrap(), kept(&ledger, "a", 1));
        let check = |error: Error, expected: &str| {
            let told = format!("the ledger could not be written: {expected}");
            assert_eq!((error.kind, error.message), (Kind::Ledger, told));
            assert_eq!((ledger.thread("a").unwrap(), kept(&ledger, "a", 1)), before);
        };
        let other = ThreadRow { state: "settled".into(), ..thread("a") };
        check(ledger.save_answered(&other, &round(1), &Broken).unwrap_err(), "no more of it");
        check(ledger.save_answered(&other, &round(2), &Broken).unwrap_err(), "no more of it");
        let full = |pages: &str| {
            let pragma = format!("PRAGMA max_page_count = {pages}");
            ledger.read(|all| all.query_row(&pragma, [], |row| row.get::<_, i64>(0))).unwrap();
        };
        full("60");
        let longer = json!(["z".repeat(9 * PIECE)]);
        check(
            ledger.save_answered(&other, &round(1), &longer).unwrap_err(),
            "database or disk is full",
        );
        full("1000");
        ledger.save_answered(&other, &round(1), &longer).unwrap();
        assert_eq!(kept(&ledger, "a", 1), (Some(longer.to_string()), 10));
    }
}
