//! JSON Schemas made from the types, and one way to say what does not fit them.

use std::sync::{LazyLock, OnceLock};

use jsonschema::error::{TypeKind, ValidationErrorKind};
use jsonschema::{ValidationError, Validator};
use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, Schema};
use serde_json::{Map, Value, json};

use super::fits::fits;
use super::role::{Architect, Debugger, Judge, Role, Skeptic};
use crate::error::Violation;
use crate::settings::nearest;

/// The pattern of a text that is not blank.
pub(super) const NOT_BLANK: &str = r"\S";
/// The pattern of a finding's name.
pub(super) const FINDING: &str = "^F[1-9][0-9]{0,5}$";

/// The schema of a type: inline, with nothing that some client is known to stumble over.
#[must_use]
pub fn of<T: JsonSchema>() -> Value {
    let settings = SchemaSettings::draft2020_12().with(|settings| {
        settings.inline_subschemas = true;
        settings.meta_schema = None;
    });
    let schema: Schema = settings.into_generator().into_root_schema_for::<T>();
    let mut schema = schema.to_value();
    tidy(&mut schema);
    schema
}

/// Integer formats make ajv clients print warnings, `null` in a type is a portability warning, and
/// titles and defaults of nothing only cost tokens.
fn tidy(schema: &mut Value) {
    match schema {
        Value::Object(object) => {
            one_enum(object);
            let is_schema = object.get("type").is_some_and(|kind| !kind.is_object());
            if is_schema {
                object.remove("format");
                object.remove("title");
                object.remove("default");
                if let Some(Value::Array(kinds)) = object.get_mut("type") {
                    kinds.retain(|kind| kind != "null");
                    if let [only] = kinds.as_slice() {
                        object["type"] = only.clone();
                    }
                }
            }
            object.values_mut().for_each(tidy);
        }
        Value::Array(values) => values.iter_mut().for_each(tidy),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// An enum whose variants are documented comes as one constant a variant.
fn one_enum(schema: &mut Map<String, Value>) {
    let Some(Value::Array(variants)) = schema.get("oneOf") else { return };
    let names: Vec<Value> =
        variants.iter().filter_map(|variant| variant.get("const").cloned()).collect();
    if names.len() == variants.len() {
        schema.remove("oneOf");
        schema.insert("type".to_owned(), json!("string"));
        schema.insert("enum".to_owned(), Value::Array(names));
    }
}

/// The schema of one role's context.
#[must_use]
pub fn of_context(role: Role) -> Value {
    match role {
        Role::Skeptic => of::<Skeptic>(),
        Role::Architect => of::<Architect>(),
        Role::Debugger => of::<Debugger>(),
        Role::Judge => of::<Judge>(),
    }
}

/// The schema of a whole request in this role.
#[must_use]
pub fn of_request(role: Role) -> Value {
    let mut schema = request_frame();
    schema["properties"]["context"] = of_context(role);
    schema["properties"]["message"]["pattern"] = json!(NOT_BLANK);
    schema["required"] = json!(["message", "context"]);
    strict_findings(&mut schema);
    schema
}

/// A finding is named `F` and a number; new ones are numbered on from there.
fn strict_findings(schema: &mut Value) {
    let items = &mut schema["properties"]["prior_exchange"]["properties"]["adjudications"]["items"];
    items["properties"]["finding"]["pattern"] = json!(FINDING);
}

/// The schema of a request that continues a thread: what the thread knows is not said again.
#[must_use]
pub fn of_continuation() -> Value {
    let mut schema = request_frame();
    if let Some(fields) = schema["properties"].as_object_mut() {
        fields.retain(|name, _| !["context", "work_dir", "files"].contains(&name.as_str()));
    }
    schema["required"] = json!(["thread_id"]);
    strict_findings(&mut schema);
    schema
}

/// The input schema of the tool: flat at the top, and one `context` for all roles. Every conversation
/// pays for it, so the tool's description says what a role needs, the fields say only what they are, and
/// what is wrong with a request is for the refusal to say.
#[must_use]
pub fn of_tool_input() -> Value {
    let mut fields: Map<String, Value> = Map::new();
    for role in Role::ALL {
        for (name, field) in of_context(role)["properties"].as_object().into_iter().flatten() {
            fields.entry(name).or_insert_with(|| field.clone());
        }
    }
    let mut schema = request_frame();
    schema["properties"]["context"] = json!({"type": "object", "properties": fields});
    for (_, field) in schema["properties"].as_object_mut().into_iter().flatten() {
        without_limits(field);
    }
    let context = schema["properties"]["context"]["properties"].as_object_mut();
    for (_, field) in context.into_iter().flatten() {
        without_words(field);
    }
    schema
}

/// Without what a refusal says as well.
fn without_limits(schema: &mut Value) {
    without(
        schema,
        &[
            "pattern",
            "additionalProperties",
            "minItems",
            "minLength",
            "maxLength",
            "minimum",
            "maximum",
        ],
    );
}

/// Without descriptions: the names of the fields tell what they hold.
fn without_words(schema: &mut Value) {
    without(schema, &["description"]);
}

/// Removes keywords from a schema and all that it is made of, but no field of such a name.
pub fn without(schema: &mut Value, keywords: &[&str]) {
    let Some(object) = schema.as_object_mut() else { return };
    object.retain(|name, _| !keywords.contains(&name.as_str()));
    if let Some(fields) = object.get_mut("properties").and_then(Value::as_object_mut) {
        fields.values_mut().for_each(|field| without(field, keywords));
    }
    if let Some(items) = object.get_mut("items") {
        without(items, keywords);
    }
}

fn request_frame() -> Value {
    json!({
        "type": "object",
        "additionalProperties": false,
        "properties": {
            "role": {
                "type": "string",
                "enum": Role::ALL,
                "default": Role::default(),
            },
            "message": {"type": "string", "description": "The question, in your words"},
            "context": {"type": "object"},
            "work_dir": {
                "type": "string",
                "minLength": 1,
                "description": "The project's folder; default: the host's project",
            },
            "files": {
                "type": "array",
                "items": {"type": "string", "minLength": 1},
                "description": "Paths in the project worth reading first",
            },
            "initiated_by": {
                "type": "string",
                "enum": ["user", "agent"],
                "default": "user",
                "description": "Who wants this consultation: `agent` when the user did not ask for it",
            },
            "thread_id": {
                "type": "string",
                "minLength": 1,
                "description": "Continue this thread: with it, prior_exchange and nothing else is needed",
            },
            "prior_exchange": {
                "type": "object",
                "additionalProperties": false,
                "required": ["adjudications"],
                "description": "Your answer to the round before: every open finding, ADOPT or REJECT",
                "properties": {
                    "round": {"type": "integer", "minimum": 1, "maximum": 3},
                    "adjudications": {
                        "type": "array",
                        "items": {
                            "type": "object",
                            "additionalProperties": false,
                            "required": ["finding", "verdict"],
                            "properties": {
                                "finding": {"type": "string"},
                                "verdict": {"type": "string", "enum": ["ADOPT", "REJECT"]},
                                "reasoning": {"type": "string", "description": "Required for a REJECT"},
                            },
                        },
                    },
                    "kimi_response": {"type": "string", "description": "Kimi's answer, where no thread_id is known"},
                },
            },
            "timeout_seconds": {"type": "integer", "minimum": 1, "maximum": 86400},
            "max_result_chars": {"type": "integer", "minimum": 2000},
            "language": {
                "type": "string",
                "minLength": 1,
                "maxLength": 40,
                "description": "Of the answer; default: the question's",
            },
        },
    })
}

/// A schema that values are measured against.
#[derive(Debug)]
pub struct Checker {
    pub(super) schema: Value,
    /// Compiled for the first value that may not fit.
    validator: OnceLock<Option<Validator>>,
}

/// The schemas, made from the types by a test: a server that only reads them has no use for what makes them.
const OF_REQUEST: [&str; 4] = [
    include_str!("schemas/skeptic.json"),
    include_str!("schemas/architect.json"),
    include_str!("schemas/debugger.json"),
    include_str!("schemas/judge.json"),
];
const OF_CONTINUATION: &str = include_str!("schemas/continuation.json");
const OF_ANSWER: &str = include_str!("schemas/answer.json");

impl Checker {
    fn new(schema: &str) -> Checker {
        // Nothing fits a schema that is none; a test reads them all.
        let schema = serde_json::from_str(schema).unwrap_or(Value::Bool(false));
        Checker { schema, validator: OnceLock::new() }
    }

    /// The checker of a whole request in this role.
    #[must_use]
    pub fn of_request(role: Role) -> &'static Checker {
        static CHECKERS: [OnceLock<Checker>; 4] = [const { OnceLock::new() }; 4];
        let at = Role::ALL.iter().position(|&one| one == role).unwrap_or_default();
        CHECKERS[at].get_or_init(|| Checker::new(OF_REQUEST[at]))
    }

    /// The checker of a request that continues a thread.
    #[must_use]
    pub fn of_continuation() -> &'static Checker {
        static CHECKER: LazyLock<Checker> = LazyLock::new(|| Checker::new(OF_CONTINUATION));
        &CHECKER
    }

    /// The checker of what Kimi answers.
    #[must_use]
    pub fn of_answer() -> &'static Checker {
        static CHECKER: LazyLock<Checker> = LazyLock::new(|| Checker::new(OF_ANSWER));
        &CHECKER
    }

    /// Everything about the value that does not fit, in the order of the value.
    #[must_use]
    pub fn violations(&self, value: &Value) -> Vec<Violation> {
        if fits(&self.schema, value) { Vec::new() } else { self.refusals(value) }
    }

    /// The same, as the validator says it.
    pub(super) fn refusals(&self, value: &Value) -> Vec<Violation> {
        let compiled = || jsonschema::validator_for(&self.schema).ok();
        let Some(validator) = self.validator.get_or_init(compiled) else {
            return vec![Violation {
                pointer: String::new(),
                expected: "a schema that compiles; this is a fault of kimi-bridge".to_owned(),
                did_you_mean: None,
            }];
        };
        validator.iter_errors(value).flat_map(|error| self.violations_of(&error)).collect()
    }

    fn violations_of(&self, error: &ValidationError<'_>) -> Vec<Violation> {
        let at = error.instance_path().to_string();
        let one =
            |pointer: String, expected: String| Violation { pointer, expected, did_you_mean: None };
        match error.kind() {
            ValidationErrorKind::Required { property } => {
                let name = property.as_str().unwrap_or_default();
                let pointer = format!("{at}/{}", escape(name));
                let what = self.description(&pointer).unwrap_or("a value");
                vec![one(pointer, format!("required and missing: {what}"))]
            }
            ValidationErrorKind::AdditionalProperties { unexpected } => {
                unexpected.iter().map(|name| self.unknown_field(&at, name)).collect()
            }
            kind => vec![one(at, expected(kind, error))],
        }
    }

    /// A field that the schema does not know: where was it meant to stand?
    fn unknown_field(&self, at: &str, name: &str) -> Violation {
        let pointer = format!("{at}/{}", escape(name));
        let here: Vec<&str> = self.fields(at);
        let mut did_you_mean =
            nearest(name, here.iter().copied()).map(|near| format!("{at}/{}", escape(near)));
        let mut expected = match here.as_slice() {
            [] => "no such field".to_owned(),
            known => format!("no such field; known are {}", known.join(", ")),
        };
        if did_you_mean.is_none() && at.is_empty() && self.fields("/context").contains(&name) {
            did_you_mean = Some(format!("/context/{}", escape(name)));
        }
        if did_you_mean.is_none() && at == "/context" {
            let roles: Vec<&str> = Role::ALL
                .iter()
                .filter(|&&role| !of_context(role)["properties"][name].is_null())
                .map(|role| role.name())
                .collect();
            if !roles.is_empty() {
                expected =
                    format!("{expected}; `{name}` belongs to the role {}", roles.join(" and "));
            }
        }
        Violation { pointer, expected, did_you_mean }
    }

    fn fields(&self, at: &str) -> Vec<&str> {
        self.schema_at(at)
            .and_then(|schema| schema["properties"].as_object())
            .map(|fields| fields.keys().map(String::as_str).collect())
            .unwrap_or_default()
    }

    fn description(&self, pointer: &str) -> Option<&str> {
        self.schema_at(pointer)?["description"].as_str()
    }

    fn schema_at(&self, pointer: &str) -> Option<&Value> {
        pointer.split('/').skip(1).try_fold(&self.schema, |schema, part| {
            if part.bytes().all(|byte| byte.is_ascii_digit()) && schema.get("items").is_some() {
                schema.get("items")
            } else {
                schema.get("properties")?.get(part.replace("~1", "/").replace("~0", "~"))
            }
        })
    }
}

fn expected(kind: &ValidationErrorKind, error: &ValidationError<'_>) -> String {
    match kind {
        ValidationErrorKind::Type { kind } => {
            let wanted = match kind {
                TypeKind::Single(one) => one.to_string(),
                TypeKind::Multiple(many) => {
                    many.iter().map(|one| one.to_string()).collect::<Vec<_>>().join(" or ")
                }
            };
            format!("expected {} {wanted}, found {}", article(&wanted), name_of(error.instance()))
        }
        ValidationErrorKind::Enum { options } => {
            let options: Vec<String> =
                options.as_array().into_iter().flatten().map(plain).collect();
            format!("expected one of {}, found {}", options.join(", "), short(error.instance()))
        }
        ValidationErrorKind::MinItems { limit } => format!("expected {limit} or more items"),
        ValidationErrorKind::Pattern { pattern } if pattern.starts_with("^F") => {
            "expected a finding, such as F1".to_owned()
        }
        ValidationErrorKind::MinLength { .. } | ValidationErrorKind::Pattern { .. } => {
            "expected a text that is not blank".to_owned()
        }
        ValidationErrorKind::MaxLength { limit } => format!("expected {limit} characters or less"),
        ValidationErrorKind::Minimum { limit } => format!("expected {limit} or more"),
        ValidationErrorKind::Maximum { limit } => format!("expected {limit} or less"),
        _ => error.to_string(),
    }
}

fn article(noun: &str) -> &'static str {
    if noun.starts_with(['a', 'e', 'i', 'o']) { "an" } else { "a" }
}

fn name_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn short(value: &Value) -> String {
    let text = value.to_string();
    let cut = crate::kimi::text::first_chars(&text, 60);
    if cut.len() < text.len() { format!("{cut}…") } else { text }
}

fn escape(name: &str) -> String {
    name.replace('~', "~0").replace('/', "~1")
}

/// Holds a schema against the file below `src` that it is kept in, or keeps it there. As texts: the order of
/// the fields is what a model reads.
#[cfg(test)]
#[track_caller]
pub(crate) fn expect_kept(file: &str, made: &Value, kept: &str) {
    let made = format!("{made:#}\n");
    if std::env::var("INSTA_UPDATE").is_ok_and(|update| update == "always") {
        std::fs::write(format!("{}/src/{file}", env!("CARGO_MANIFEST_DIR")), made).unwrap();
    } else {
        let remedy = "the types have changed: INSTA_UPDATE=always cargo test, and read the diff";
        assert_eq!(kept, made, "{file}: {remedy}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(role: Role, request: &Value, expected: &[&str]) {
        let violations: Vec<_> =
            Checker::of_request(role).violations(request).iter().map(ToString::to_string).collect();
        assert_eq!(violations, expected, "{request}");
    }

    #[test]
    fn the_schemas_are_made_from_the_types() {
        let of_requests = Role::ALL.map(|role| (role.name(), of_request(role)));
        let others =
            [("continuation", of_continuation()), ("answer", of::<super::super::answer::Answer>())];
        let kept = OF_REQUEST.into_iter().chain([OF_CONTINUATION, OF_ANSWER]);
        for ((name, made), kept) in of_requests.into_iter().chain(others).zip(kept) {
            expect_kept(&format!("consult/schemas/{name}.json"), &made, kept);
        }
    }

    #[test]
    fn every_example_fits_its_role() {
        for role in Role::ALL {
            check(role, &role.example(), &[]);
        }
    }

    #[test]
    fn every_violation_is_named_with_its_place_and_what_was_expected() {
        check(
            Role::Skeptic,
            &json!({"message": "", "context": {"proposed_aproach": "x", "goals": []}, "tiemout_seconds": "5"}),
            &[
                "/message: expected a text that is not blank",
                "/context/proposed_approach: required and missing: What you propose, in enough detail to attack",
                "/context/goals: expected 1 or more items",
                "/context/proposed_aproach: no such field; known are proposed_approach, goals, constraints, \
                 known_risks (did you mean /context/proposed_approach?)",
                "/tiemout_seconds: no such field; known are role, message, context, work_dir, files, initiated_by, \
                 thread_id, prior_exchange, timeout_seconds, max_result_chars, language (did you mean /timeout_seconds?)",
            ],
        );
        check(
            Role::Debugger,
            &json!({"message": "m", "context": {"symptoms": "s", "expected_behavior": " ",
                "tried_approaches": ["restart", {"approach": "a"}]}}),
            &[
                "/context/expected_behavior: expected a text that is not blank",
                "/context/tried_approaches/0: expected an object, found a string",
                "/context/tried_approaches/1/outcome: required and missing: What came of it",
            ],
        );
        check(
            Role::Judge,
            &json!({"message": "m", "context": {"options": [{"name": "a", "summary": "s", "pros": "fast"}],
                "criteria": "speed"}, "timeout_seconds": 0}),
            &[
                "/context/options: expected 2 or more items",
                "/context/options/0/pros: expected an array, found a string",
                "/context/criteria: expected an array, found a string",
                "/timeout_seconds: expected 1 or more",
            ],
        );
    }

    #[test]
    fn a_field_in_the_wrong_place_or_of_another_role_is_told_where_it_belongs() {
        check(
            Role::Skeptic,
            &json!({"message": "m", "goals": ["g"], "context":
                {"proposed_approach": "p", "goals": ["g"], "symptoms": "s"}}),
            &[
                "/context/symptoms: no such field; known are proposed_approach, goals, constraints, known_risks; \
                 `symptoms` belongs to the role debugger",
                "/goals: no such field; known are role, message, context, work_dir, files, initiated_by, \
                 thread_id, prior_exchange, timeout_seconds, max_result_chars, language (did you mean /context/goals?)",
            ],
        );
    }

    #[test]
    fn the_input_schema_of_the_tool_is_flat_and_says_which_role_needs_a_field() {
        insta::assert_json_snapshot!(of_tool_input());
    }
}
