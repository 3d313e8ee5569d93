//! Documents made from a record: Markdown to commit beside the code, or one HTML page. Outside text is escaped or
//! fenced, so that it cannot break either.

mod account;
mod exchange;
mod html;
mod markdown;
mod marks;
mod prose;
mod words;

#[cfg(test)]
pub(crate) mod fixture;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Serde, Value as Jinja};
use minijinja::{Environment, UndefinedBehavior};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;

use self::account::Account;
use self::exchange::Said;
pub(crate) use self::html::html;
pub(crate) use self::markdown::markdown;
pub(crate) use self::words::Tone;
use super::record::Record;
use super::thread::RejectionReply;
use crate::error::{Error, Kind, Result};
use crate::job::texts::each_text;
use crate::kimi::text::clean;

/// Renders a record with the template `thread`. `medium` adds the escaping and the filters of one medium to the common
/// ones.
pub(crate) fn render(
    record: &Record,
    templates: &[(&'static str, &'static str)],
    medium: impl FnOnce(&mut Environment<'static>),
) -> Result<String> {
    let record = cleaned(record);
    fill("thread", Serde(&Account::new(&record)).into(), templates, medium)
}

/// Renders values with the template `name`, with the filters of [`render`].
pub(crate) fn fill(
    name: &str,
    values: Jinja,
    templates: &[(&'static str, &'static str)],
    medium: impl FnOnce(&mut Environment<'static>),
) -> Result<String> {
    let mut environment = environment();
    medium(&mut environment);
    templates
        .iter()
        .try_for_each(|(name, source)| environment.add_template(name, source))
        .and_then(|()| environment.get_template(name)?.render(values))
        .map_err(|error| at_fault(&error))
}

/// The filters that all media share.
fn environment() -> Environment<'static> {
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::SemiStrict);
    let all = &mut environment;
    add(all, "status", words::status);
    add(all, "severity", words::severity);
    add(all, "state", words::state);
    add(all, "outcome", words::outcome);
    add(all, "said", words::said);
    add(all, "reply", |reply: RejectionReply| words::said(Said::from(&reply)));
    add(all, "subject", words::subject);
    add(all, "line_range", |citation| words::line_range(&citation));
    add(all, "winner", |choice| words::winner(&choice).to_owned());
    add(all, "target", |call| words::target(&call).to_owned());
    add(all, "failure", |report| words::failure(&report));
    add(all, "number", |number: f64| number.to_string());
    add(all, "duration", words::duration);
    add(all, "date", words::date);
    environment
}

/// Adds a filter for one value of a record.
fn add<A: DeserializeOwned + 'static, B: Serialize + 'static>(
    environment: &mut Environment<'_>,
    name: &'static str,
    show: impl Fn(A) -> B + Send + Sync + 'static,
) {
    environment.add_filter(name, move |value: Serde<A>| Jinja::from(Serde(show(value.0))));
}

/// Removes template lines that hold only a tag.
pub(crate) fn trim_tag_lines(environment: &mut Environment<'_>) {
    let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
    environment.set_syntax(syntax.unwrap_or_default());
}

/// The record without invisible characters and terminal controls.
fn cleaned(record: &Record) -> Record {
    let mut value = json!(record);
    each_text(&mut value, &mut |text| *text = clean(text).into_owned());
    serde_json::from_value(value).unwrap_or_else(|_| record.clone())
}

fn at_fault(error: &dyn std::fmt::Display) -> Error {
    Error::new(
        Kind::Crashed,
        format!("the record could not be written: {error:#}"),
        "This is a fault of kimi-bridge; please report it.",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_json_reads_back_as_the_same_record() {
        for record in fixture::all() {
            let text = serde_json::to_string(&record).unwrap();
            assert_eq!(serde_json::from_str::<Record>(&text).unwrap(), record);
        }
    }

    #[test]
    fn invisible_characters_are_removed_from_a_record() {
        let record = cleaned(&fixture::argued());
        let text = format!("{record:?}");
        assert!(!text.contains("\\u{202e}") && !text.contains("\\u{1b}"), "{text}");
    }
}
