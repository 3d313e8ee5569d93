//! Kimi's last words, read as an answer in every role. What is read is what was said: written as JSON it
//! reads the same again, whatever stands around it, and nothing in it is hidden.
//!
//! An input is the words, or the line of Kimi's stream that holds them.

#![no_main]

mod visible;

use kimi_bridge::consult::Role;
use kimi_bridge::consult::answer::Answer;
use kimi_bridge::consult::reading::{Form, Reading, read};
use kimi_bridge::kimi::event::Event;
use libfuzzer_sys::fuzz_target;

use self::visible::{each_text, is_visible};

fuzz_target!(|input: &[u8]| {
    let text = String::from_utf8_lossy(input);
    let said = match Event::read(&text) {
        Some(Event::Assistant { text: Some(said), .. }) => said,
        _ => text.into_owned(),
    };
    let readings = Role::ALL.map(|role| read(&said, role));
    for (role, reading) in Role::ALL.into_iter().zip(&readings) {
        assert_eq!(&read(&said, role), reading);
        check(&said, role, reading);
    }
    // Only the judge's answer holds a verdict; for the rest the role says nothing about reading.
    let [skeptic, architect, debugger, _] = &readings;
    assert!(skeptic == architect && skeptic == debugger);
});

fn check(said: &str, role: Role, reading: &Reading) {
    assert!(reading.warnings.iter().all(|warning| is_visible(warning)), "{:?}", reading.warnings);
    let answer = match &reading.answer {
        Ok(answer) => answer,
        Err(violations) => {
            assert!(!violations.is_empty());
            for violation in violations {
                let is_place = violation.pointer.is_empty() || violation.pointer.starts_with('/');
                assert!(is_place && !violation.expected.is_empty(), "{violation:?}");
            }
            assert!(reading.warnings.is_empty() && reading.hidden == 0);
            return;
        }
    };
    if role == Role::Judge && answer.verdict.is_none() {
        // It was cut off before the verdict.
        assert_eq!(reading.form, Form::Cut);
        return;
    }
    assert_eq!(answer.verdict.is_some(), role == Role::Judge);
    let value = serde_json::to_value(answer).expect("an answer is JSON");
    each_text(&value, &mut |text| assert!(is_visible(text), "{text:?}"));

    let json = value.to_string();
    reads_as(&json, role, answer);
    let around = said.replace('{', "(");
    reads_as(&format!("{around}\n```json\n{json}\n```\n{around}"), role, answer);
    // In a string it is a text of another answer.
    let other = Answer { response: json, verdict: answer.verdict.clone(), ..Answer::default() };
    let other_json = serde_json::to_string(&other).expect("an answer is JSON");
    reads_as(&other_json, role, &other);
}

/// A text is read as just this answer.
fn reads_as(text: &str, role: Role, expected: &Answer) {
    let Reading { answer, warnings, hidden, .. } = read(text, role);
    let mut answer = answer.expect("what was an answer is one");
    // What is written of a number may be read as its neighbour.
    let scores = |answer: &Answer| answer.verdict.clone().unwrap_or_default().scores;
    for (at, expected) in scores(expected).into_iter().enumerate() {
        let score = &mut answer.verdict.as_mut().expect("it has scores").scores[at].score;
        assert!((*score - expected.score).abs() <= expected.score.abs() * 1e-15);
        *score = expected.score;
    }
    assert_eq!(&answer, expected);
    assert_eq!((warnings, hidden), (Vec::new(), 0));
}
