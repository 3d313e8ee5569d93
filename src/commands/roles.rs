//! `kimi-bridge roles`: the context that each role needs, taken from the types that also validate a request.

use std::fmt::Write as _;

use serde_json::Value;

use super::output;
use super::render::{BOLD, DIM, styled};
use crate::cli::Roles;
use crate::consult::{Role, schema};
use crate::error::Result;

pub(super) fn run(args: &Roles) -> Result<u8> {
    let text = match args.role {
        Some(role) => one(role),
        None => all(),
    };
    output::print(&text)?;
    Ok(0)
}

fn all() -> String {
    let mut text = String::new();
    for role in Role::ALL {
        let _ =
            writeln!(text, "{}  {}", styled(BOLD, &format!("{:<10}", role.name())), role.purpose());
        let _ = writeln!(text, "            {}", styled(DIM, &needs(role)));
    }
    text.push_str("\n`kimi-bridge roles ROLE` shows one with an example.\n");
    text
}

fn needs(role: Role) -> String {
    let named = |required: bool| {
        let fields = fields(role).into_iter().filter(|field| field.required == required);
        fields.map(|field| field.name).collect::<Vec<_>>().join(", ")
    };
    format!("requires {}; takes {}", named(true), named(false))
}

fn one(role: Role) -> String {
    let mut text = format!("{}: {}\n\n", styled(BOLD, role.name()), role.purpose());
    for field in fields(role) {
        let mark = if field.required { "required" } else { "" };
        let _ = writeln!(text, "  {:<18} {:<9} {}", field.name, mark, field.what);
    }
    let example = role.example();
    let context = serde_yaml::to_string(&example["context"]).unwrap_or_default();
    let message = example["message"].as_str().unwrap_or_default();
    let _ = writeln!(text, "\n{}\n", styled(DIM, "# An example: save it as context.yaml, and ask"));
    text.push_str(&context);
    let command =
        format!("kimi-bridge consult --role {role} --message \"{message}\" --context context.yaml");
    let _ = writeln!(text, "\n{}", styled(BOLD, &command));
    text
}

struct Field {
    name: String,
    required: bool,
    what: String,
}

fn fields(role: Role) -> Vec<Field> {
    let schema = schema::context(role);
    let required = schema["required"].as_array().cloned().unwrap_or_default();
    let properties = schema["properties"].as_object().into_iter().flatten();
    properties
        .map(|(name, field)| Field {
            name: if field["type"] == "array" { format!("{name}[]") } else { name.clone() },
            required: required.contains(&Value::String(name.clone())),
            what: field["description"].as_str().unwrap_or_default().to_owned(),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_and_one_role() {
        let text = format!("{}\n====\n{}", all(), one(Role::Debugger));
        insta::assert_snapshot!(anstream::adapter::strip_str(&text).to_string());
    }
}
