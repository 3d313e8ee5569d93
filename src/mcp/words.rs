//! The texts that the calling agent reads before a call: short and the key facts first, since hosts cut texts at 2,000
//! characters.

use crate::settings::{Config, Mode};

const WHAT: &str = include_str!("../../templates/mcp/what.md").trim_ascii_end();
const WHEN: &str = include_str!("../../templates/mcp/when.md").trim_ascii_end();
const AFTERWARDS: &str = include_str!("../../templates/mcp/afterwards.md").trim_ascii_end();
const SHOWN_BY_AGENT: &str = include_str!("../../templates/mcp/shown_by_agent.md").trim_ascii_end();
const SHOWN_BY_PLUGIN: &str =
    include_str!("../../templates/mcp/shown_by_plugin.md").trim_ascii_end();
const CONSULT_KIMI: &str = include_str!("../../templates/mcp/consult_kimi.md").trim_ascii_end();

/// The server's instructions.
pub(super) fn instructions(config: &Config) -> String {
    let in_plugin = config.environment.is_in_a_plugin();
    let shown = if in_plugin { SHOWN_BY_PLUGIN } else { SHOWN_BY_AGENT };
    let afterwards = AFTERWARDS.replace("{shown}", shown);
    match config.mode() {
        Mode::Disabled if !config.misfits.is_empty() => format!(
            "{WHAT} {} If the user asks for Kimi or a second opinion, tell them so.",
            config.mode_hint()
        ),
        Mode::Disabled => format!(
            "{WHAT} It is switched off here. If the user asks for Kimi or a second opinion, call kimi_status \
             and tell them how to switch it on."
        ),
        Mode::Manual => {
            format!("{WHAT} Call consult_kimi only when the user asks for it.\n\n{afterwards}")
        }
        Mode::Auto => format!("{WHAT} {WHEN}\n\n{afterwards}"),
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
    use crate::settings::{Environment, load, load_what_fits};

    const IN_PLUGIN: [(&str, &str); 1] = [("CLAUDE_PLUGIN_ROOT", "/plugin")];

    /// A server in this mode, in a plugin or by itself.
    fn serving(mode: Mode, vars: &[(&str, &str)]) -> Config {
        let vars = vars.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let environment = Environment {
            vars: vars.collect(),
            config_dir: "/none".into(),
            ..Environment::default()
        };
        let on = |on: bool| u8::from(on).to_string();
        let tool = ("tool_enabled", on(mode != Mode::Disabled));
        load(environment, &[tool, ("auto_enabled", on(mode == Mode::Auto))]).unwrap()
    }

    #[test]
    fn texts_fit_the_hosts_limits_and_say_when_to_call() {
        for mode in [Mode::Disabled, Mode::Manual, Mode::Auto] {
            let tools = tools(mode).into_iter();
            let texts = tools.map(|tool| tool.description.unwrap_or_default().into_owned());
            let by_place = [&[][..], &IN_PLUGIN].map(|vars| instructions(&serving(mode, vars)));
            for text in texts.chain(by_place) {
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
                instructions(&serving(mode, &[])),
                consult_kimi(mode)
            )
        });
        insta::assert_snapshot!(all.join("\n\n"));
    }

    #[test]
    fn where_a_plugin_shows_the_findings_the_agent_does_not() {
        let of = |vars| instructions(&serving(Mode::Manual, vars));
        assert_eq!(of(&IN_PLUGIN), of(&[]).replace(SHOWN_BY_AGENT, SHOWN_BY_PLUGIN));
        assert_ne!(of(&IN_PLUGIN), of(&[]));
    }

    #[test]
    fn a_server_that_cannot_serve_says_which_setting_is_wrong() {
        let vars = [("KIMI_BRIDGE_TIMEOUT_SECONDS".to_owned(), "15m".to_owned())];
        let environment =
            Environment { vars: vars.into(), config_dir: "/none".into(), ..Environment::default() };
        let config = load_what_fits(environment, &[("tool_enabled", "1".to_owned())]).unwrap();
        let expected = format!(
            "{WHAT} {} If the user asks for Kimi or a second opinion, tell them so.",
            config.mode_hint()
        );
        assert_eq!(instructions(&config), expected);
    }
}
