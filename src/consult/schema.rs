//! JSON Schemas, derived from the types.

use schemars::generate::SchemaSettings;
use schemars::transform::{RecursiveTransform, Transform as _};
use schemars::{JsonSchema, Schema};
use serde_json::{Map, Value, json};

use super::role::{Architect, Debugger, Judge, Role, Skeptic};

/// The schema of a type: inline, and without keywords that some client refuses.
pub(crate) fn for_type<T: JsonSchema>() -> Value {
    let settings = SchemaSettings::draft2020_12().with(|settings| {
        settings.inline_subschemas = true;
        settings.meta_schema = None;
    });
    let settings = settings.with_transform(RecursiveTransform(tidy));
    settings.into_generator().into_root_schema_for::<T>().to_value()
}

/// Removes integer formats and `null` types, which clients warn about, and titles and empty defaults, which cost
/// tokens. The constants of a documented enum become one `enum`.
fn tidy(schema: &mut Schema) {
    for keyword in ["format", "title", "default"] {
        schema.remove(keyword);
    }
    if let Some(Value::Array(kinds)) = schema.get_mut("type") {
        kinds.retain(|kind| kind != "null");
        if let [only] = kinds.as_slice() {
            let only = only.clone();
            schema.insert("type".to_owned(), only);
        }
    }
    let Some(Value::Array(variants)) = schema.get("oneOf") else { return };
    let names: Option<Vec<Value>> =
        variants.iter().map(|variant| variant.get("const").cloned()).collect();
    if let Some(names) = names {
        schema.remove("oneOf");
        schema.insert("type".to_owned(), json!("string"));
        schema.insert("enum".to_owned(), Value::Array(names));
    }
}

/// The schema of one role's context.
pub(crate) fn context(role: Role) -> Value {
    match role {
        Role::Skeptic => for_type::<Skeptic>(),
        Role::Architect => for_type::<Architect>(),
        Role::Debugger => for_type::<Debugger>(),
        Role::Judge => for_type::<Judge>(),
    }
}

/// The schema of a whole request in a role.
pub(crate) fn request(role: Role) -> Value {
    let mut schema = request_frame();
    schema["properties"]["context"] = context(role);
    schema["properties"]["message"]["pattern"] = json!(r"\S");
    schema["required"] = json!(["message", "context"]);
    schema
}

/// The schema of a request that continues a thread and may repeat its fields.
pub(crate) fn continuation() -> Value {
    let mut schema = request_frame();
    schema["required"] = json!(["thread_id"]);
    schema
}

/// The input schema of the tool: flat at the top, with one `context` for all roles. It costs tokens in every
/// conversation, so fields have only a description: the tool's description names the fields of each role, and refusals
/// name the limits.
pub(crate) fn tool_input() -> Value {
    let mut fields: Map<String, Value> = Map::new();
    for role in Role::ALL {
        for (name, field) in context(role)["properties"].as_object().into_iter().flatten() {
            fields.entry(name).or_insert_with(|| field.clone());
        }
    }
    let mut schema = request_frame();
    schema["properties"]["context"] = json!({"type": "object", "properties": fields});
    let limits = [
        "pattern",
        "additionalProperties",
        "minItems",
        "minLength",
        "maxLength",
        "minimum",
        "maximum",
    ];
    for (_, field) in schema["properties"].as_object_mut().into_iter().flatten() {
        without(field, &limits);
    }
    let context = schema["properties"]["context"]["properties"].as_object_mut();
    for (_, field) in context.into_iter().flatten() {
        without(field, &["description"]);
    }
    schema
}

/// Removes keywords from a schema and its parts, but no field with such a name.
pub(crate) fn without(schema: &mut Value, keywords: &[&str]) {
    let remove = |schema: &mut Schema| {
        if let Some(object) = schema.as_object_mut() {
            object.retain(|name, _| !keywords.contains(&name.as_str()));
        }
    };
    if let Ok(schema) = <&mut Schema>::try_from(schema) {
        RecursiveTransform(remove).transform(schema);
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
                "description": "`user` only if the user asked for Kimi in this conversation, else `agent`",
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
                                "finding": {"type": "string", "pattern": "^F[1-9][0-9]{0,5}$"},
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
