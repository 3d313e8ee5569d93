//! What the agent may do with the tool, and how a person changes that.

use serde::Serialize;

/// How much the agent may do with the tool.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Mode {
    /// `consult_kimi` is not offered.
    Disabled,
    /// Only when the user asks.
    Manual,
    /// Also unasked.
    Auto,
}

impl Mode {
    /// The mode in words, and how to change it: in the environment, or by the option of the plugin.
    pub(crate) fn hint(self, in_plugin: bool) -> &'static str {
        match (self, in_plugin) {
            (Mode::Disabled, _) => {
                "consult_kimi is off. The user turns it on by setting KIMI_BRIDGE_TOOL_ENABLED=1 in the \
                 server's environment (and KIMI_BRIDGE_AUTO_ENABLED=1 to let the agent consult unasked), \
                 then restarts the server."
            }
            (Mode::Manual, false) => {
                "Only when the user asks. KIMI_BRIDGE_AUTO_ENABLED=1 lets the agent consult unasked."
            }
            (Mode::Manual, true) => {
                "Only when the user asks. The option `Consult Kimi unasked` of the plugin lets the agent consult \
                 unasked: `/plugin configure kimi-bridge@kimi-bridge`."
            }
            (Mode::Auto, false) => {
                "The agent may consult unasked. KIMI_BRIDGE_AUTO_ENABLED=0 stops that."
            }
            (Mode::Auto, true) => {
                "The agent may consult unasked. The option `Consult Kimi unasked` of the plugin stops that: \
                 `/plugin configure kimi-bridge@kimi-bridge`."
            }
        }
    }
}
