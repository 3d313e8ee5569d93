//! Rewrites errors for the shell: they name the fields of an MCP tool, but a shell user knows only flags.

use crate::error::{Error, Violation};

/// The replacements in hints. A longer word comes before the words that it contains.
const WORDS: [(&str, &str); 7] = [
    ("thread_id alone", "--thread ID alone"),
    ("prior_exchange.adjudications", "--adopt FINDING and --reject FINDING=REASON"),
    ("timeout_seconds", "--timeout"),
    ("thread_id", "--thread"),
    ("work_dir", "--work-dir"),
    ("record_decision", "`kimi-bridge threads decide`"),
    ("consult_kimi", "`kimi-bridge consult`"),
];

/// The flags of the fields of a request, by the beginning of a field's pointer. The fields of the context have no
/// flags: they come from a file.
const FIELDS: [(&str, &str); 10] = [
    ("/prior_exchange", "--adopt, --reject"),
    ("/timeout_seconds", "--timeout"),
    ("/thread_id", "--thread"),
    ("/rationale", "--rationale"),
    ("/decision", "--decision"),
    ("/work_dir", "--work-dir"),
    ("/language", "--language"),
    ("/message", "--message"),
    ("/files", "--file"),
    ("/role", "--role"),
];

/// Replaces fields by flags in the hint of an error and in the pointers of its problems.
pub(super) fn at_the_shell(error: &Error) -> Error {
    let mut error = error.clone();
    for (field, flag) in WORDS {
        error.hint = error.hint.replace(field, flag);
    }
    error.violations = error.violations.into_iter().map(violation).collect();
    error
}

fn violation(mut violation: Violation) -> Violation {
    violation.pointer = flag(&violation.pointer);
    violation.did_you_mean = violation.did_you_mean.map(|near| flag(&near));
    violation
}

fn flag(pointer: &str) -> String {
    let found = FIELDS.iter().find(|(field, _)| pointer.starts_with(field));
    found.map_or(pointer, |(_, flag)| flag).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;

    #[test]
    fn hints_and_problems_name_flags_instead_of_fields() {
        let check = |hint: &str, pointer: &str, expected: (&str, &str)| {
            let error = Error {
                violations: vec![Violation::new(pointer, "expected")],
                ..Error::new(Kind::Request, "the timeout_seconds of the settings", hint)
            };
            let shown = at_the_shell(&error);
            assert_eq!((shown.hint.as_str(), shown.violations[0].pointer.as_str()), expected);
            assert_eq!(shown.message, error.message);
        };
        check("Raise `timeout_seconds`.", "/timeout_seconds", ("Raise `--timeout`.", "--timeout"));
        check("Call with thread_id alone.", "/files/0", ("Call with --thread ID alone.", "--file"));
        check(
            "Record it with record_decision.",
            "/prior_exchange/adjudications/0/reasoning",
            ("Record it with `kimi-bridge threads decide`.", "--adopt, --reject"),
        );
        check("", "/context/goals", ("", "/context/goals"));
        check("", "KIMI_BRIDGE_LANG", ("", "KIMI_BRIDGE_LANG"));
    }
}
