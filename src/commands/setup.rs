//! `kimi-bridge setup`: shows the planned changes in the files of hosts, asks for consent, applies them, and looks for
//! Kimi.

use std::fmt::Write as _;
use std::io::{BufRead as _, IsTerminal as _, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use similar::{ChangeTag, TextDiff};

use super::doctor::{one_section, with_tilde};
use super::output::print;
use super::render::{BAD, BOLD, DIM, GOOD, WARN, paragraph, styled, width};
use super::shutdown::ShutdownSignals;
use crate::cli::Setup;
use crate::doctor::{self, CheckStatus};
use crate::documents;
use crate::error::{Error, Kind, Result};
use crate::hosts::{self, Host, Scope};
use crate::kimi::text::clean;
use crate::redact::Secrets;
use crate::settings::{Config, nearest};
use crate::setup::{self, Applied, FileEdit, SetupPlan, SetupRequest};

pub(super) async fn run(args: &Setup, config: &Config, stop: &ShutdownSignals) -> Result<u8> {
    let scope = if args.project { Scope::Project } else { Scope::User };
    let hosts = args.hosts.iter().map(|name| find_host(name)).collect::<Result<_>>()?;
    let request = SetupRequest { hosts, scope, auto: args.auto, remove: args.remove };
    check_home_owner(&config.environment.home)?;
    if !args.remove {
        check_not_from_npx(config.environment.program.as_deref())?;
    }
    let plan = setup::plan(&request, config);
    let home = &config.environment.home;
    print(&plan_text(&plan, args, config))?;
    let changes: Vec<&FileEdit> = plan.edits.iter().filter(|edit| edit.changes()).collect();
    if plan.missing.len() == hosts::all().len() {
        let hint = "Name one to write its file all the same: `kimi-bridge setup codex`.";
        return Err(Error::new(Kind::Request, "no host that setup knows was found", hint));
    }
    if args.dry_run {
        print("\nNothing was changed: this was a dry run.\n")?;
        return exit_code(&plan);
    }
    if !changes.is_empty() && !args.yes && !confirm(changes.len(), stop).await? {
        print("Nothing was changed.\n")?;
        return exit_code(&plan);
    }
    let mut failed = None;
    if !changes.is_empty() {
        print("\n")?;
    }
    for edit in &changes {
        match setup::apply(edit, &config.environment).await {
            Ok(applied) => print(&outcome_text(edit, &applied, home))?,
            Err(error) => {
                print(&format!("{} {}\n", styled(BAD, "✗"), with_tilde(&error.message, home)))?;
                failed.get_or_insert(error);
            }
        }
    }
    if !args.remove {
        print(&state_and_next_steps(config, &plan, args, stop).await)?;
    }
    failed.map_or_else(|| exit_code(&plan), Err)
}

/// Returns the host of this name.
fn find_host(name: &str) -> Result<&'static Host> {
    let known = || hosts::all().iter().map(|host| host.id.as_str());
    hosts::all().iter().find(|host| host.id == name).ok_or_else(|| {
        let message = format!("`{name}` is no host that setup knows");
        let hint = match nearest(name, known()) {
            Some(near) => format!("Did you mean {near}?"),
            None => format!("Name one of these: {}.", known().collect::<Vec<_>>().join(", ")),
        };
        Error::new(Kind::Request, message, hint)
    })
}

/// Refuses to run in another user's home: the changed files would belong to this user, and that user could not use
/// them.
fn check_home_owner(home: &Path) -> Result<()> {
    let owner = std::fs::metadata(home).map(|home| home.uid());
    if owner.is_ok_and(|owner| owner != rustix::process::geteuid().as_raw()) {
        let hint = "Run it as that user, without sudo.";
        let message = format!("{} belongs to another user", home.display());
        return Err(Error::new(Kind::Request, message, hint));
    }
    Ok(())
}

/// Refuses a program that npx fetched: npm deletes it some day, and the registrations would then name a missing
/// program.
fn check_not_from_npx(program: Option<&Path>) -> Result<()> {
    if program.is_none_or(|program| program.iter().all(|folder| folder != "_npx")) {
        return Ok(());
    }
    let hint = "Install it (`npm install -g kimi-bridge`), then run `kimi-bridge setup`.";
    Err(Error::new(Kind::Request, "npx runs a copy of kimi-bridge that does not stay", hint))
}

/// Returns the plan as text for the user.
fn plan_text(plan: &SetupPlan, args: &Setup, config: &Config) -> String {
    let home = &config.environment.home;
    let scope = if args.project { Scope::Project } else { Scope::User };
    let mut text = String::new();
    let place = |file: &Path| with_tilde(&file.display().to_string(), home);
    for edit in plan.edits.iter().filter(|edit| edit.changes()) {
        let by = match edit.commands.last() {
            Some(words) => format!(", by `{} mcp {}`", edit.host.programs[0], words[1]),
            None => String::new(),
        };
        let name = styled(BOLD, &edit.host.name);
        let _ = writeln!(text, "{name}  {}{}", place(&edit.file), styled(DIM, &by));
        text += &changed_lines(edit, scope, config);
        text.push('\n');
    }
    for (host, file, why) in &plan.refused {
        let mark = styled(BAD.bold(), "✗");
        let name = styled(BOLD, &host.name);
        let _ = writeln!(text, "{mark} {name}  {}: {why}. It stays as it is.", place(file));
    }
    let unchanged = plan.edits.iter().filter(|edit| !edit.changes());
    let unchanged = unchanged.map(|edit| format!("{} ({})", edit.host.name, place(&edit.file)));
    let unchanged: Vec<String> = unchanged.collect();
    if !unchanged.is_empty() {
        let head = if args.remove { "Not registered in" } else { "Registered already in" };
        text += &paragraph(&format!("{head} {}.", unchanged.join(", ")), "", "", width());
    }
    if !plan.with_plugin.is_empty() {
        let names: Vec<&str> = plan.with_plugin.iter().map(|host| host.name.as_str()).collect();
        let _ = writeln!(text, "Brought along by the plugin in {}.", names.join(", "));
    }
    if !plan.missing.is_empty() && !args.remove {
        let names: Vec<&str> = plan.missing.iter().map(|host| host.name.as_str()).collect();
        let line = format!(
            "Not found: {}. To set one up all the same, name it: `kimi-bridge setup {}`.",
            names.join(", "),
            plan.missing[0].id
        );
        text += &styled(DIM, paragraph(&line, "", "", width()).trim_end());
    }
    text.trim_end().to_owned() + "\n"
}

/// Returns the lines that change. Hides the values of other servers, and of variables that the user set.
fn changed_lines(edit: &FileEdit, scope: Scope, config: &Config) -> String {
    let [before, after] = [&edit.before, &edit.after].map(|text| text.as_deref().unwrap_or(""));
    let mut hidden = Vec::new();
    let value = documents::parse(before, edit.host.format).unwrap_or_default();
    let ours = hosts::ours(edit.host, &value, scope, &config.environment);
    let ours: Vec<&str> = ours.iter().map(|one| one.name.as_str()).collect();
    foreign_texts(&value, "", false, &ours, &mut hidden);
    // The longest comes first, since one text may be part of another.
    hidden.sort_by_key(|text| std::cmp::Reverse(text.len()));
    let mut text = String::new();
    for change in TextDiff::from_lines(before, after).iter_all_changes() {
        if change.value().trim().is_empty() {
            continue;
        }
        let (mark, style) = match change.tag() {
            ChangeTag::Equal => continue,
            ChangeTag::Delete => ("-", BAD),
            ChangeTag::Insert => ("+", GOOD),
        };
        let line = hidden.iter().fold(change.value().trim_end().to_owned(), |line, text| {
            line.replace(&format!("\"{text}\""), "\"…\"").replace(&format!("'{text}'"), "'…'")
        });
        let line = Secrets::default().redact(&clean(&line)).into_text();
        let _ = writeln!(text, "  {}", styled(style, format!("{mark} {line}").trim_end()));
    }
    if edit.after.is_none() {
        let _ = writeln!(text, "  {}", styled(DIM, "(nothing else is in the file; it is removed)"));
    }
    text
}

/// Collects the texts of a file that must be hidden, plain and with escapes: all but those that setup itself writes
/// into our entry.
fn foreign_texts(value: &Value, key: &str, is_ours: bool, ours: &[&str], found: &mut Vec<String>) {
    match value {
        Value::String(text) => {
            let is_known = ["command", "args", "env_vars", "type"].contains(&key);
            if !(is_ours && (is_known || key.starts_with("KIMI_BRIDGE_"))) {
                let written = json!(text).to_string();
                found.extend([text.clone(), written[1..written.len() - 1].to_owned()]);
            }
        }
        Value::Array(items) => {
            for item in items {
                foreign_texts(item, key, is_ours, ours, found);
            }
        }
        Value::Object(fields) => {
            for (name, field) in fields {
                foreign_texts(field, name, is_ours || ours.contains(&name.as_str()), ours, found);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// Asks for consent to the changes. Fails without a terminal.
async fn confirm(changes: usize, stop: &ShutdownSignals) -> Result<bool> {
    if !std::io::stdin().is_terminal() {
        let hint = "Add --yes to make these changes, or --dry-run to see them only.";
        let message = "nothing was changed: there is no terminal to ask at";
        return Err(Error::new(Kind::Request, message, hint));
    }
    let these = if changes == 1 { "this change" } else { "these changes" };
    // If the terminal cannot be written to, reading the answer fails as well.
    let _ = write!(anstream::stderr(), "\nMake {these}? [y/N] ");
    let answer = tokio::task::spawn_blocking(|| {
        let mut line = String::new();
        std::io::stdin().lock().read_line(&mut line).map(|_| line)
    });
    let line = tokio::select! {
        () = stop.asked.cancelled() => {
            return Err(Error::new(Kind::Cancelled, "setup was interrupted", "Nothing was changed."));
        }
        line = answer => line,
    };
    let line = line.ok().and_then(std::io::Result::ok).unwrap_or_default();
    Ok(matches!(line.trim().to_lowercase().as_str(), "y" | "yes"))
}

fn outcome_text(edit: &FileEdit, applied: &Applied, home: &Path) -> String {
    let name = &edit.host.name;
    let near = |file: &PathBuf| with_tilde(&file.display().to_string(), home);
    let good = styled(GOOD, "✓");
    match applied {
        Applied::Written(backup) => {
            let kept = backup.as_ref().map(|file| format!("; before setup: {}", near(file)));
            format!("{good} {name}: {} changed{}\n", near(&edit.file), kept.unwrap_or_default())
        }
        Applied::Restored if edit.after.is_none() => {
            format!("{good} {name}: {} removed\n", near(&edit.file))
        }
        Applied::Restored => {
            format!("{good} {name}: {} is as it was before setup\n", near(&edit.file))
        }
        Applied::ByTheHost => {
            format!("{good} {name}: {} changed by {name} itself\n", near(&edit.file))
        }
        Applied::ToType(lines) => {
            let mark = styled(WARN, "!");
            let program = &edit.host.programs[0];
            let lines = lines.join("\n    ");
            format!(
                "{mark} {name}: `{program}` is not on PATH. Type this where it is:\n    {lines}\n"
            )
        }
    }
}

/// Returns the state of the registrations and of Kimi as text, and the next steps.
async fn state_and_next_steps(
    config: &Config,
    plan: &SetupPlan,
    args: &Setup,
    stop: &ShutdownSignals,
) -> String {
    let home = &config.environment.home;
    let report = doctor::examine(config, false, stop.watch()).await;
    let mut text = "\n".to_owned();
    let mut has_problem = false;
    for section in
        report.sections.iter().filter(|section| ["kimi", "hosts"].contains(&section.part))
    {
        text += &one_section(section, home, width());
        has_problem |= section.checks.iter().any(|check| check.status == CheckStatus::Problem);
    }
    let mut next = String::new();
    if has_problem {
        next += "Fix the problems above; `kimi-bridge doctor` looks again. ";
    }
    next += "Restart the hosts that are open. ";
    if args.project && plan.edits.iter().any(|edit| edit.host.by_project) {
        next += "Claude Code asks once whether to use a server of the project: choose to use it. ";
    }
    next += "Then say to your agent: \"Ask Kimi where this plan loses data.\"";
    text + &paragraph(&next, "", "", width())
}

/// Returns the exit code, or an error if a file of the plan cannot be changed.
fn exit_code(plan: &SetupPlan) -> Result<u8> {
    if plan.refused.is_empty() {
        return Ok(0);
    }
    let files = plan.refused.iter().map(|(_, file, why)| format!("{}: {why}", file.display()));
    let message = files.collect::<Vec<_>>().join("; ");
    Err(Error::new(Kind::Settings, message, "Fix the file, and run `kimi-bridge setup` again."))
}
