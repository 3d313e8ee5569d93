//! `kimi-bridge consult`.

use std::fmt::Write as _;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use super::shutdown::ShutdownSignals;
use super::{output, status_line};
use crate::cli::Consult;
use crate::error::{Error, Kind, Result};
use crate::settings::Config;
use serde_json::{Value, json};

pub(super) async fn run(args: Consult, config: &Config, stop: &ShutdownSignals) -> Result<u8> {
    let as_json = args.json;
    if args.thread.is_none() && !(args.adopt.is_empty() && args.reject.is_empty()) {
        return Err(Error::new(
            Kind::Request,
            "--adopt and --reject answer the findings of a thread, and none is named",
            "Name it with --thread; `kimi-bridge threads` lists them.",
        ));
    }
    let role = args.role.unwrap_or_default();
    let mut fields = json!({
        "role": args.role,
        "message": args.message,
        "language": args.language,
        "timeout_seconds": args.timeout,
    });
    let current = &config.environment.current_dir;
    let work_dir = args.work_dir.as_ref().map(|dir| current.join(dir));
    if let Some(thread) = &args.thread {
        fields["thread_id"] = json!(thread);
        let adjudications = adjudications(&args);
        if !adjudications.is_empty() {
            fields["prior_exchange"] = json!({"adjudications": adjudications});
        }
        // A thread already has its folder.
        fields["work_dir"] = json!(work_dir.as_deref().map(utf8_path).transpose()?);
    } else {
        fields["work_dir"] = json!(utf8_path(work_dir.as_ref().unwrap_or(current))?);
    }
    fields["files"] = json!(args.files);
    if let Some(context) = args.context.clone() {
        fields["context"] = read_context(context, stop).await?;
    }
    let mut result = status_line::consult(status_line::request(fields), config, None, stop).await;
    if let Err(error) = &mut result
        && error.example.take().is_some()
    {
        let _ = write!(error.hint, " `kimi-bridge roles {role}` shows an example.");
    }
    output::show(&result?, as_json)
}

/// Returns the path of a folder as text, which a request needs.
fn utf8_path(folder: &Path) -> Result<&str> {
    folder.to_str().ok_or_else(|| {
        let message = format!("the path of the project is not UTF-8: {}", folder.display());
        Error::new(Kind::Request, message, "Rename the folder; Kimi and JSON need UTF-8.")
    })
}

/// Returns the verdicts of `--adopt` and `--reject`, as a request holds them.
fn adjudications(args: &Consult) -> Vec<Value> {
    let adopted = args.adopt.iter().map(|finding| json!({"finding": finding, "verdict": "ADOPT"}));
    let rejected = args.reject.iter().map(|answer| {
        let (finding, reason) = answer.split_once('=').unwrap_or((answer, ""));
        json!({"finding": finding, "verdict": "REJECT", "reasoning": reason})
    });
    adopted.chain(rejected).collect()
}

/// Reads the context from YAML or JSON. Standard input may never end, so a thread of its own reads, and a signal ends
/// the wait.
async fn read_context(path: PathBuf, stop: &ShutdownSignals) -> Result<Value> {
    let unreadable = |why: String| {
        Error::new(
            Kind::Request,
            format!("the context {} cannot be read: {why}", path.display()),
            "`kimi-bridge roles ROLE` prints an example to start from.",
        )
    };
    let from = path.clone();
    let reading = tokio::task::spawn_blocking(move || {
        if from == Path::new("-") {
            let mut text = String::new();
            std::io::stdin().read_to_string(&mut text).map(|_| text)
        } else {
            std::fs::read_to_string(&from)
        }
    });
    let text = tokio::select! {
        read = reading => read.map_err(|error| unreadable(error.to_string()))?,
        () = stop.asked.cancelled() => {
            return Err(Error::new(Kind::Cancelled, "the call was cancelled", "Nothing had been sent."));
        }
    };
    let text = text.map_err(|error| unreadable(error.to_string()))?;
    serde_yaml::from_str(text.trim_start_matches('\u{feff}'))
        .map_err(|error| unreadable(error.to_string()))
}
