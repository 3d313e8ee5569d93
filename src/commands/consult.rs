//! `kimi-bridge consult`.

use std::fmt::Write as _;
use std::io::Read as _;
use std::path::Path;

use serde_json::{Map, Value, json};
use tokio_util::sync::CancellationToken;

use crate::cli::Consult;
use crate::consult::Request;
use crate::error::{Error, Kind, Result};
use crate::settings::Loaded;

pub(super) async fn run(args: Consult, loaded: &Loaded, stop: &CancellationToken) -> Result<u8> {
    let as_json = args.json;
    let work_dir = args.work_dir.clone().unwrap_or_else(|| loaded.environment.current_dir.clone());
    let mut fields = Map::new();
    fields.insert("role".to_owned(), json!(args.role));
    fields.insert("message".to_owned(), json!(args.message));
    fields.insert("context".to_owned(), read_context(&args.context)?);
    fields.insert("work_dir".to_owned(), json!(loaded.environment.current_dir.join(work_dir)));
    fields.insert("files".to_owned(), json!(args.files));
    fields.insert("language".to_owned(), json!(args.language));
    fields.insert("timeout_seconds".to_owned(), json!(args.timeout));
    if as_json {
        // Nothing cuts what goes to a file or a pipe.
        fields.insert("max_result_chars".to_owned(), json!(usize::MAX / 2));
    }
    let mut result = super::consult_live(Request(fields), loaded, None, stop).await;
    if let Err(error) = &mut result
        && error.example.take().is_some()
    {
        let _ = write!(error.hint, " `kimi-bridge roles {}` shows an example.", args.role);
    }
    if let (Err(error), true) = (&result, as_json) {
        super::print(&super::json(&error.report())?)?;
    }
    super::show(&result?, as_json)
}

/// YAML or JSON: the first holds the second.
fn read_context(path: &Path) -> Result<Value> {
    let unreadable = |why: String| {
        Error::new(
            Kind::Request,
            format!("the context {} cannot be read: {why}", path.display()),
            "`kimi-bridge roles ROLE` prints an example to start from.",
        )
    };
    let text = if path == Path::new("-") {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).map(|_| text)
    } else {
        std::fs::read_to_string(path)
    };
    let text = text.map_err(|error| unreadable(error.to_string()))?;
    serde_yaml::from_str(&text).map_err(|error| unreadable(error.to_string()))
}
