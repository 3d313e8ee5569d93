//! The texts that the calling agent reads before a call: short and the key facts first, since hosts cut texts at 2,000
//! characters.

use crate::settings::Mode;

const WHAT: &str = include_str!("../../templates/mcp/what.md").trim_ascii_end();
const WHEN: &str = include_str!("../../templates/mcp/when.md").trim_ascii_end();
const AFTERWARDS: &str = include_str!("../../templates/mcp/afterwards.md").trim_ascii_end();
const CONSULT_KIMI: &str = include_str!("../../templates/mcp/consult_kimi.md").trim_ascii_end();

/// The server's instructions.
pub(super) fn instructions(mode: Mode) -> String {
    match mode {
        Mode::Disabled => format!(
            "{WHAT} It is switched off here. If the user asks for Kimi or a second opinion, call kimi_status \
             and tell them how to switch it on."
        ),
        Mode::Manual => {
            format!("{WHAT} Call consult_kimi only when the user asks for it.\n\n{AFTERWARDS}")
        }
        Mode::Auto => format!("{WHAT} {WHEN}\n\n{AFTERWARDS}"),
    }
}

/// The description of `consult_kimi`.
pub(super) fn consult_kimi(mode: Mode) -> String {
    let when = match mode {
        Mode::Disabled | Mode::Manual => {
            "Call it only when the user asks for Kimi, a second opinion or a review by another model."
        }
        Mode::Auto => WHEN,
    };
    CONSULT_KIMI.replace("{when}", when)
}

#[cfg(test)]
mod tests {
    use super::super::server::tools;
    use super::*;

    #[test]
    fn texts_fit_the_hosts_limits_and_say_when_to_call() {
        for mode in [Mode::Disabled, Mode::Manual, Mode::Auto] {
            let tools = tools(mode).into_iter();
            let texts = tools.map(|tool| tool.description.unwrap_or_default().into_owned());
            for text in texts.chain([instructions(mode)]) {
                assert!(
                    text.chars().count() < 2_000,
                    "{mode:?}: {} characters",
                    text.chars().count()
                );
            }
        }
        let all = [Mode::Disabled, Mode::Manual, Mode::Auto].map(|mode| {
            format!(
                "# {mode:?}\n\n{}\n\n## consult_kimi\n\n{}",
                instructions(mode),
                consult_kimi(mode)
            )
        });
        insta::assert_snapshot!(all.join("\n\n"));
    }
}
