//! Fields that a caller repeats beside `thread_id`. The thread already has them, so they are compared and not used.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::consult::request::{Context, Continuation};
use crate::redact::Secrets;
use crate::settings::Config;

/// The warning about fields that differ from those of the thread, which apply.
pub(super) fn warning(
    call: &Continuation,
    own: &Context,
    secrets: &Secrets,
    config: &Config,
) -> Option<String> {
    let project = config.environment.project_dir();
    let real = |path: PathBuf| path.canonicalize().unwrap_or(path);
    let in_project = |file: &Path| {
        let path = real(own.work_dir.join(file));
        path.strip_prefix(&own.work_dir).map(Path::to_owned).unwrap_or(path)
    };
    let context = |given: &Value| {
        let mut given = given.clone();
        secrets.redact_all(&mut given);
        own.about.role().read_context(given).is_ok_and(|about| about == own.about)
    };
    let files = |given: &Vec<PathBuf>| {
        let given: BTreeSet<PathBuf> = given.iter().map(|file| in_project(file)).collect();
        given == own.files.iter().cloned().collect()
    };
    let repeated = [
        ("role", call.role.map(|role| role == own.about.role())),
        ("context", call.context.as_ref().map(context)),
        ("work_dir", call.work_dir.as_ref().map(|given| real(project.join(given)) == own.work_dir)),
        ("files", call.files.as_ref().map(files)),
    ];
    let differing = repeated.iter().filter(|(_, same)| *same == Some(false));
    let differing: Vec<&str> = differing.map(|(name, _)| *name).collect();
    (!differing.is_empty()).then(|| {
        format!(
            "not used, since the thread keeps what it was opened with: {}. A changed proposal needs a new thread",
            differing.join(", ")
        )
    })
}
