//! Kimi's stream, from bytes to evidence. However the bytes arrive, the same lines come of them; what is
//! kept of a run is bounded, shows nothing that nobody can see, and holds none of the user's secrets.
//!
//! An input is a header, which says how the stream arrives, and the stream.

#![no_main]

mod visible;

use std::path::Path;
use std::sync::LazyLock;

use kimi_bridge::hidden::Cleaned;
use kimi_bridge::kimi::event::{Call, Event};
use kimi_bridge::kimi::evidence::Trace;
use kimi_bridge::kimi::lines::{Line, LineSplitter};
use kimi_bridge::kimi::{Dialect, Seen};
use kimi_bridge::redact::Secrets;
use libfuzzer_sys::fuzz_target;
use serde_json::{Map, Value};

use self::visible::{each_text, is_visible};

/// The limit of a line, six sizes of pieces, and what is made more of.
const HEADER: usize = 8;
const LIMITS: [usize; 4] = [1024 * 1024, 16, 200, 4096];
/// Stands in a stream for a text that is longer than the part of a tool's result that is read.
const LONG: &str = "%LONG%";
/// In the reader's dictionary too.
const SECRET: &str = "q8Zr2LmXv9WcYb4s";

const MOST_CALLS: usize = 1_000;
const SUMMARY_CHARS: usize = 800;
const ARG_CHARS: usize = 2_000;
const NAME_CHARS: usize = 100;
/// What is shown of an argument, and the words before it.
const ACTIVITY_CHARS: usize = 80 + 40;

static SECRETS: LazyLock<Secrets> = LazyLock::new(|| {
    let vars = [("ACME_TOKEN".to_owned(), SECRET.to_owned())];
    Secrets::load(Path::new("/nonexistent"), &vars).expect("there is no file to be wrong")
});

fuzz_target!(|input: &[u8]| {
    let Some((header, stream)) = input.split_at_checked(HEADER) else { return };
    let limit = LIMITS[usize::from(header[0]) % LIMITS.len()];
    let (long, turns) = match header[7] {
        255 => (true, 1),
        254 => (false, 400),
        _ => (false, 1),
    };
    let mut lines = lines(stream, &header[1..7], limit);
    if long {
        let long = "1\\t\\u0031\\n".repeat(40_000);
        for line in &mut lines {
            *line = line.replacen(LONG, &long, 1);
        }
    }
    let events: Vec<Event<'_>> = lines.iter().filter_map(|line| event(line)).collect();
    for dialect in Dialect::ALL {
        let first = traced(dialect, &events, turns);
        assert_eq!(first, traced(dialect, &events, turns));
    }
});

/// The lines of a stream, which are the same however it is cut, and what a plain split says.
fn lines(stream: &[u8], sizes: &[u8], limit: usize) -> Vec<String> {
    let split = |pieces: &mut dyn Iterator<Item = &[u8]>| {
        let mut lines = LineSplitter::new(limit);
        let mut seen = Vec::new();
        let mut take = |line: Line<'_>| {
            seen.push(match line {
                Line::Whole(text) => Ok(text.into_owned()),
                Line::TooLong(bytes) => Err(bytes),
            });
        };
        pieces.for_each(|piece| lines.push(piece, &mut take));
        lines.finish(&mut take);
        seen
    };
    let at_once = split(&mut [stream].into_iter());
    assert_eq!(split(&mut pieces(stream, sizes)), at_once);

    let mut plain: Vec<&[u8]> = stream.split(|&byte| byte == b'\n').collect();
    plain.pop_if(|last| last.is_empty());
    assert_eq!(at_once.len(), plain.len());
    for (line, plain) in at_once.iter().zip(plain) {
        let text = String::from_utf8_lossy(plain.strip_suffix(b"\r").unwrap_or(plain));
        match line {
            Ok(line) => assert!(plain.len() <= limit && *line == text),
            Err(bytes) => assert!(*bytes == plain.len() as u64 && plain.len() > limit),
        }
    }
    at_once.into_iter().flatten().collect()
}

/// The stream in pieces of these sizes, over and over; none is nothing.
fn pieces<'a>(mut stream: &'a [u8], sizes: &'a [u8]) -> impl Iterator<Item = &'a [u8]> {
    let mut sizes = sizes.iter().cycle();
    std::iter::from_fn(move || {
        let size = usize::from(*sizes.next()?).clamp(1, stream.len().max(1));
        let (piece, rest) = stream.split_at_checked(size)?;
        stream = rest;
        Some(piece)
    })
}

/// The event of a line, which keeps to what the line says.
fn event(line: &str) -> Option<Event<'_>> {
    let event = Event::read(line);
    assert_eq!(event.is_none(), line.trim().is_empty());
    // Control characters in a text, which JSON forbids, are read over.
    let object = serde_json::from_str::<Map<String, Value>>(line).ok();
    match event.as_ref()? {
        // An object in which a field comes twice is none.
        Event::Plain(text) => assert_eq!(*text, line),
        Event::ToolResult { id: _, text, is_cut } => {
            // Of a long result the beginning is read.
            let content = object.as_ref().and_then(|object| object.get("content"));
            if let Some(whole) = content.and_then(Value::as_str) {
                assert!(whole.starts_with(text.as_str()));
                assert!(whole == text || *is_cut);
            }
        }
        Event::Unknown(text) => assert!(is_visible(text)),
        Event::Retrying(retry) => assert!(is_visible(&retry.message)),
        Event::Started | Event::Session(_) => assert!(line.trim_start().starts_with('{')),
        Event::Assistant { text, calls: _, more_calls: _ } => {
            let once = Cleaned::new(text.as_deref().unwrap_or_default());
            let twice = Cleaned::new(&once.text);
            assert!(is_visible(&once.text));
            assert_eq!((&twice.text, twice.hidden), (&once.text, 0));
        }
    }
    event
}

/// What a run showed whose turns are these events.
fn traced(dialect: Dialect, events: &[Event<'_>], turns: usize) -> Seen {
    let mut trace = Trace::new(dialect, &SECRETS);
    let (mut called, mut answered) = (0, 0);
    for turn in 0..turns {
        let id_in_turn = |id: &str| if turns > 1 { format!("{turn}{id}") } else { id.to_owned() };
        for event in events {
            match event {
                Event::Assistant { text: _, calls, more_calls } => {
                    let calls = calls.iter().cloned();
                    let calls = calls.map(|call| Call { id: id_in_turn(&call.id), ..call });
                    let calls: Vec<Call> = calls.collect();
                    called += calls.len();
                    trace.calls(calls);
                    trace.more_calls(*more_calls);
                    called += more_calls;
                }
                Event::ToolResult { id, text, is_cut } => {
                    trace.result(&id_in_turn(id), text);
                    if *is_cut {
                        trace.cut();
                    }
                    answered += 1;
                }
                Event::Started
                | Event::Retrying(_)
                | Event::Session(_)
                | Event::Plain(_)
                | Event::Unknown(_) => {}
            }
            if turns == 1 {
                let activity = trace.activity();
                assert!(is_kept(&activity) && !activity.contains('\n'), "{activity:?}");
                assert!(activity.chars().count() <= ACTIVITY_CHARS, "{activity:?}");
            }
        }
    }
    let seen = trace.finish();
    check(&seen, called, answered);
    seen
}

fn check(seen: &Seen, called: usize, answered: usize) {
    assert!(seen.evidence.len() <= MOST_CALLS);
    assert!(seen.evidence.len() + seen.not_kept <= called);
    let succeeded = seen.evidence.iter().filter(|call| call.ok).count();
    assert!(succeeded <= answered);
    assert!(seen.incomplete || answered > 0 || called == 0);
    let shows = |tool: &str| matches!(tool, "ReadFile" | "Grep");
    assert!(
        seen.shown.is_empty() || seen.evidence.iter().any(|call| call.ok && shows(&call.tool)),
        "files were shown by no call"
    );
    // A search names a file from its own folder.
    assert!(seen.shown.keys().all(|path| path.chars().count() <= ARG_CHARS + 1 + 1024));
    for call in &seen.evidence {
        for (text, most) in [
            (&call.tool, NAME_CHARS),
            (&call.tool_call_id, NAME_CHARS),
            (&call.summary, SUMMARY_CHARS),
        ] {
            assert!(is_kept(text) && text.chars().count() <= most, "{text:?}");
        }
        let mut visit = |text: &str| {
            assert!(is_kept(text) && text.chars().count() <= ARG_CHARS, "{text:?}");
        };
        each_text(&Value::Object(call.args.clone()), &mut visit);
        assert!(call.shown.keys().all(|path| is_kept(path)));
        assert!(call.args.len() <= 32);
        assert!(call.args.keys().all(|name| name.chars().count() <= NAME_CHARS));
    }
}

/// Whether a text may be shown.
fn is_kept(text: &str) -> bool {
    is_visible(text) && !text.contains(SECRET)
}
