//! Slash commands that guide an agent through the loop. Their texts are in `templates/mcp/`; the rules are enforced
//! elsewhere.

use std::fmt::Write as _;

use rmcp::ErrorData;
use rmcp::model::{
    GetPromptRequestParams, GetPromptResult, ListPromptsResult, Prompt, PromptArgument,
    PromptMessage, Role,
};

/// A slash command.
pub(super) struct SlashCommand {
    pub(super) name: &'static str,
    title: &'static str,
    pub(super) description: &'static str,
    pub(super) argument: &'static Argument,
    pub(super) text: &'static str,
}

/// The argument of a command.
pub(super) struct Argument {
    pub(super) name: &'static str,
    description: &'static str,
    /// The text in front of the user's argument.
    label: &'static str,
}

const QUESTION: Argument = Argument {
    name: "question",
    description: "What to look at above all; without it, the proposal of this conversation",
    // Claude Code cuts an argument at its first space, even a quoted one, but also shows the model the whole command.
    label: "The user's question (where the host cut it to one word, the whole stands in the command itself)",
};
const THREAD_ID: Argument = Argument {
    name: "thread_id",
    description: "The thread to go on with; without it, the latest open one of this project",
    label: "The thread",
};

/// The text of a command, followed by the loop, which all commands share.
macro_rules! text {
    ($own:literal) => {
        concat!(
            include_str!(concat!("../../templates/mcp/", $own)),
            "\n",
            include_str!("../../templates/mcp/loop.md")
        )
    };
}

pub(super) const COMMANDS: [SlashCommand; 5] = [
    SlashCommand {
        name: "challenge",
        title: "Have the proposal challenged",
        description: "Have Kimi attack the current proposal, answer every finding, and record the decision.",
        argument: &QUESTION,
        text: text!("challenge.md"),
    },
    SlashCommand {
        name: "architect",
        title: "Have the design weighed",
        description: "Have Kimi weigh the current design against its requirements, and argue it to a decision.",
        argument: &QUESTION,
        text: text!("architect.md"),
    },
    SlashCommand {
        name: "debug",
        title: "Have the cause of a bug looked for",
        description: "Have Kimi look for the cause of a bug that two attempts did not find.",
        argument: &QUESTION,
        text: text!("debug.md"),
    },
    SlashCommand {
        name: "judge",
        title: "Have options judged",
        description: "Have Kimi choose between formed options by your criteria, in both orders.",
        argument: &QUESTION,
        text: text!("judge.md"),
    },
    SlashCommand {
        name: "adjudicate",
        title: "Go on with an argument",
        description: "Take up an earlier argument with Kimi where it stands, and bring it to a decision.",
        argument: &THREAD_ID,
        text: text!("adjudicate.md"),
    },
];

pub(super) fn list() -> ListPromptsResult {
    let prompts = COMMANDS.iter().map(|walk| {
        let argument = PromptArgument::new(walk.argument.name)
            .with_description(walk.argument.description)
            .with_required(false);
        Prompt::new(walk.name, Some(walk.description), Some(vec![argument])).with_title(walk.title)
    });
    ListPromptsResult::with_all_items(prompts.collect())
}

pub(super) fn get(request: &GetPromptRequestParams) -> Result<GetPromptResult, ErrorData> {
    let Some(walk) = COMMANDS.iter().find(|walk| walk.name == request.name) else {
        let names = COMMANDS.map(|walk| walk.name).join(", ");
        let message = format!("there is no prompt `{}`; there are {names}", request.name);
        return Err(ErrorData::invalid_params(message, None));
    };
    let Argument { name, label, .. } = walk.argument;
    let words = request.arguments.as_ref().and_then(|arguments| arguments.get(*name)?.as_str());
    let mut text = walk.text.to_owned();
    if let Some(words) = words.map(str::trim).filter(|words| !words.is_empty()) {
        let _ = write!(text, "\n{label}: {words}\n");
    }
    let message = PromptMessage::new_text(Role::User, text);
    Ok(GetPromptResult::new(vec![message]).with_description(walk.description))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn text_of(name: &str, arguments: &Value) -> String {
        let request: GetPromptRequestParams =
            serde_json::from_value(json!({"name": name, "arguments": arguments})).unwrap();
        let result = json!(get(&request).unwrap());
        result["messages"][0]["content"]["text"].as_str().unwrap().to_owned()
    }

    #[test]
    fn the_commands_as_a_model_reads_them() {
        let texts = COMMANDS.map(|walk| {
            let words = json!({walk.argument.name: "ab12"});
            format!("# {}\n\n{}", walk.name, text_of(walk.name, &words))
        });
        insta::assert_snapshot!(texts.join("\n\n"));
        insta::assert_json_snapshot!("prompt_list", list());
    }

    #[test]
    fn the_argument_of_a_command_is_optional() {
        for arguments in [json!(null), json!({}), json!({"question": "  "}), json!({"question": 7})]
        {
            assert!(
                !text_of("challenge", &arguments).contains("The user's question"),
                "{arguments}"
            );
        }
        assert!(
            text_of("challenge", &json!({"question": " is it safe? "}))
                .ends_with(" itself): is it safe?\n")
        );
    }
}
