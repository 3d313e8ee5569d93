//! `kimi-bridge guard`: the hook that both programs run before they call a tool. It refuses the secret
//! files of the project by exit code 2 and a word on standard error, which is how a hook refuses.

use std::ffi::OsString;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::redact::Secrets;
use crate::sandbox::SecretFiles;

/// How a hook refuses.
const REFUSED: u8 = 2;
/// What is read of a call; a longer one names no file.
const CALL_BYTES: u64 = 1_000_000;

/// `args` holds the folder of the user's settings.
pub(super) fn main(mut args: impl Iterator<Item = OsString>) -> u8 {
    let config_dir = PathBuf::from(args.next().unwrap_or_default());
    // In the sandbox that folder is closed; there the kernel refuses what the user added.
    let secrets = Secrets::load(&config_dir, &[]).unwrap_or_default();
    let files = SecretFiles::with(secrets.files());
    let files = files.as_deref().unwrap_or(SecretFiles::built_in());
    let mut call = String::new();
    let read = std::io::stdin().take(CALL_BYTES).read_to_string(&mut call);
    let call: Value = read.ok().and_then(|_| serde_json::from_str(&call).ok()).unwrap_or_default();
    match refused(&call, files) {
        Some(path) => {
            let _ = writeln!(
                std::io::stderr(),
                "{} is closed to this consultation: its name or content says that it holds a secret",
                path.display()
            );
            REFUSED
        }
        None => 0,
    }
}

/// The secret file that a call names, if it names one.
fn refused(call: &Value, secret: &SecretFiles) -> Option<PathBuf> {
    let project = Path::new(call["cwd"].as_str()?);
    let input = call.get("tool_input").or(call.get("toolInput"))?;
    let named = ["path", "file_path"].iter().filter_map(|name| input.get(name)?.as_str());
    named.map(PathBuf::from).find(|path| secret.is_secret(project, path))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_call_that_names_a_secret_file_is_refused() {
        let project = tempfile::tempdir().unwrap();
        let project = project.path();
        std::fs::create_dir_all(project.join("conf/.aws")).unwrap();
        std::fs::write(project.join("conf/.aws/config"), "").unwrap();
        std::fs::write(project.join("deploy.pem"), "-----BEGIN PRIVATE KEY-----").unwrap();
        std::fs::write(project.join("public.pem"), "-----BEGIN CERTIFICATE-----").unwrap();
        std::os::unix::fs::symlink("deploy.pem", project.join("harmless.txt")).unwrap();
        let check = |path: &str, expected: bool| {
            let call = json!({"cwd": project, "tool_name": "Read", "tool_input": {"path": path}});
            assert_eq!(refused(&call, SecretFiles::built_in()).is_some(), expected, "{path}");
        };
        check(".env", true);
        check("sub/.env.production", true);
        check(".env.example", false);
        check("conf/.aws/config", true);
        check("deploy.pem", true);
        check("harmless.txt", true);
        check("public.pem", false);
        check(project.join("deploy.pem").to_str().unwrap(), true);
        check("src/main.rs", false);
        assert_eq!(refused(&json!({}), SecretFiles::built_in()), None);
        assert_eq!(
            refused(
                &json!({"cwd": "/", "tool_input": {"pattern": ".env"}}),
                SecretFiles::built_in()
            ),
            None
        );
    }
}
