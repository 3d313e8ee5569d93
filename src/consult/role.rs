//! The four roles and their contexts. Schemas, examples and refusals are all derived from these types.

use std::fmt;
use std::sync::LazyLock;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The role that Kimi takes.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema, clap::ValueEnum,
)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Attacks a proposal.
    #[default]
    Skeptic,
    /// Weighs a design against its requirements.
    Architect,
    /// Looks for the cause of a bug.
    Debugger,
    /// Chooses between formed options.
    Judge,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The context of a skeptic.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Skeptic {
    /// What you propose, in enough detail to attack
    #[schemars(regex(pattern = r"\S"))]
    pub proposed_approach: String,
    /// What it must achieve
    #[schemars(length(min = 1), inner(regex(pattern = r"\S")))]
    pub goals: Vec<String>,
    /// What it must respect
    #[serde(default)]
    #[schemars(inner(regex(pattern = r"\S")))]
    pub constraints: Vec<String>,
    /// Risks you see yourself
    #[serde(default)]
    #[schemars(inner(regex(pattern = r"\S")))]
    pub known_risks: Vec<String>,
}

/// The context of an architect.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Architect {
    /// The design as it stands or is planned
    #[schemars(regex(pattern = r"\S"))]
    pub current_design: String,
    /// What the design must meet
    #[schemars(length(min = 1), inner(regex(pattern = r"\S")))]
    pub requirements: Vec<String>,
    /// Designs you considered
    #[serde(default)]
    #[schemars(inner(regex(pattern = r"\S")))]
    pub alternatives: Vec<String>,
    /// What it must respect
    #[serde(default)]
    #[schemars(inner(regex(pattern = r"\S")))]
    pub constraints: Vec<String>,
}

/// The context of a debugger.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Debugger {
    /// What happens, with the exact error
    #[schemars(regex(pattern = r"\S"))]
    pub symptoms: String,
    /// What should happen
    #[schemars(regex(pattern = r"\S"))]
    pub expected_behavior: String,
    /// What you tried, two or more
    #[schemars(length(min = 2))]
    pub tried_approaches: Vec<TriedApproach>,
    /// How to make it happen
    #[serde(default)]
    #[schemars(inner(regex(pattern = r"\S")))]
    pub repro_steps: Vec<String>,
    /// Relevant output
    #[serde(default)]
    pub logs: String,
    /// What you suspect
    #[serde(default)]
    pub hypothesis: String,
}

/// An attempt to fix a bug, and its outcome.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TriedApproach {
    /// What was tried
    #[schemars(regex(pattern = r"\S"))]
    pub approach: String,
    /// What came of it
    #[schemars(regex(pattern = r"\S"))]
    pub outcome: String,
}

/// The context of a judge.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Judge {
    /// The options, two or more
    #[schemars(length(min = 2))]
    pub options: Vec<JudgeOption>,
    /// What they are judged by, the most important first
    #[schemars(length(min = 1), inner(regex(pattern = r"\S")))]
    pub criteria: Vec<String>,
    /// What it must respect
    #[serde(default)]
    #[schemars(inner(regex(pattern = r"\S")))]
    pub constraints: Vec<String>,
}

/// An option for the judge.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct JudgeOption {
    /// A short name, unlike the others'
    #[schemars(regex(pattern = r"\S"))]
    pub name: String,
    /// What it is
    #[schemars(regex(pattern = r"\S"))]
    pub summary: String,
    /// What speaks for it
    #[serde(default)]
    #[schemars(inner(regex(pattern = r"\S")))]
    pub pros: Vec<String>,
    /// What speaks against it
    #[serde(default)]
    #[schemars(inner(regex(pattern = r"\S")))]
    pub cons: Vec<String>,
}

/// The context of a request, checked for its role.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum RoleContext {
    /// A proposal to attack.
    Skeptic(Skeptic),
    /// A design to weigh.
    Architect(Architect),
    /// A bug to explain.
    Debugger(Debugger),
    /// Options to choose between.
    Judge(Judge),
}

impl RoleContext {
    /// The role of this context.
    #[must_use]
    pub fn role(&self) -> Role {
        match self {
            RoleContext::Skeptic(_) => Role::Skeptic,
            RoleContext::Architect(_) => Role::Architect,
            RoleContext::Debugger(_) => Role::Debugger,
            RoleContext::Judge(_) => Role::Judge,
        }
    }
}

impl Role {
    /// Every role, in the order of lists.
    pub const ALL: [Role; 4] = [Role::Skeptic, Role::Architect, Role::Debugger, Role::Judge];

    /// The name on the wire.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Role::Skeptic => "skeptic",
            Role::Architect => "architect",
            Role::Debugger => "debugger",
            Role::Judge => "judge",
        }
    }

    /// The purpose of the role, a sentence.
    #[must_use]
    pub fn purpose(self) -> &'static str {
        match self {
            Role::Skeptic => {
                "Attacks a proposal: what breaks, under which circumstances, and where the code shows it."
            }
            Role::Architect => "Weighs a design against its requirements and names what to change.",
            Role::Debugger => "Looks for the cause of a bug that two attempts did not find.",
            Role::Judge => "Chooses between formed options by the criteria you give.",
        }
    }

    /// Parses a context that was checked against the role's schema.
    pub fn read_context(self, context: Value) -> Result<RoleContext, serde_json::Error> {
        Ok(match self {
            Role::Skeptic => RoleContext::Skeptic(serde_json::from_value(context)?),
            Role::Architect => RoleContext::Architect(serde_json::from_value(context)?),
            Role::Debugger => RoleContext::Debugger(serde_json::from_value(context)?),
            Role::Judge => RoleContext::Judge(serde_json::from_value(context)?),
        })
    }

    /// A complete request that would be accepted.
    #[must_use]
    pub fn example(self) -> Value {
        EXAMPLES[self.name()].clone()
    }
}

#[expect(clippy::expect_used, reason = "the file is compiled in, and a test reads every example")]
static EXAMPLES: LazyLock<Value> = LazyLock::new(|| {
    let file = include_str!("../../config/examples.yaml");
    serde_yaml::from_str(file).expect("config/examples.yaml is readable")
});
