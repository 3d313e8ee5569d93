//! The user's login, keys and providers, as far as files and variables show them. Only the expiry of a token and the
//! presence of a key are read, so no secret stays in memory.

use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use toml::{Table, Value};

use super::dialect::Dialect;
use super::token_file::{FOLDER, Stored, TOKEN_BYTES, TOKENS};
use super::untrusted::Folder;
use super::users::{self, OPENAI, uses_openai};
use crate::error::{Error, Kind};
use crate::settings::Environment;

/// The login of a dialect.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Login {
    /// The files of `credentials/`.
    pub(crate) tokens: Vec<Token>,
    /// The variable that holds a key, if it is set.
    pub(crate) key_variable: Option<&'static str>,
    /// The variable that is set without the key that it needs. kimi-code then sends requests without a key, even if it
    /// is logged in.
    pub(crate) lacks_key: Option<&'static str>,
    /// The variable with the address of a service, if it is set. A local service may need no key.
    pub(crate) service_variable: Option<&'static str>,
    /// The providers of the user's `config.toml`.
    pub(crate) providers: Vec<Provider>,
    /// The error of a `config.toml` that cannot be used.
    pub(crate) unreadable: Option<Error>,
}

/// A file that holds a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Token {
    pub(crate) file: PathBuf,
    pub(crate) state: TokenState,
}

/// The validity of a token, by its file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TokenState {
    /// The token is valid, or Kimi can renew it.
    Good,
    /// The token has expired and cannot be renewed.
    Expired,
    /// The file does not have the format of Kimi's tokens.
    Unclear,
}

/// A provider of models.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Provider {
    pub(crate) name: String,
    /// The address, if `config.toml` has one.
    pub(crate) base_url: Option<String>,
    pub(crate) key: Key,
}

/// The source of a provider's key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Key {
    /// The key is in `config.toml`.
    Written,
    /// The key is in this variable; true if the variable is set.
    Variable(String, bool),
    /// There is no key: the provider uses a login, or needs none.
    None,
}

impl Login {
    /// Returns whether there is a token or a key. Only a run shows whether the service accepts it.
    pub(crate) fn has_credentials(&self) -> bool {
        let has_key = |provider: &Provider| provider.key != Key::None;
        !self.tokens.is_empty() || self.key_variable.is_some() || self.providers.iter().any(has_key)
    }

    /// Returns an error if no run can succeed. A provider without a key is accepted, because a service may need none.
    pub(crate) fn problem(&self, dialect: Dialect) -> Option<Error> {
        if let Some(error) = &self.unreadable {
            return Some(error.clone());
        }
        if let Some(variable) = self.lacks_key {
            let message = format!(
                "{variable} is set without KIMI_MODEL_API_KEY: Kimi asks without a key, and fails"
            );
            return Some(Error::new(Kind::NotLoggedIn, message, "Set both, or neither."));
        }
        let is_configured =
            self.has_credentials() || self.service_variable.is_some() || !self.providers.is_empty();
        (!is_configured).then(|| {
            let message = format!("{dialect} has no login, no key and no provider");
            Error::from_kind(Kind::NotLoggedIn, message)
        })
    }
}

/// Finds the login of a dialect.
pub(crate) fn find(environment: &Environment, dialect: Dialect) -> Login {
    let user = users::data_folder(environment, dialect);
    let key = match dialect {
        Dialect::KimiCode => "KIMI_MODEL_API_KEY",
        Dialect::KimiCli => "KIMI_API_KEY",
    };
    let key_variable = environment.var(key).map(|_| key);
    let lacks_key = match dialect {
        Dialect::KimiCode if key_variable.is_none() => {
            environment.var("KIMI_MODEL_NAME").map(|_| "KIMI_MODEL_NAME")
        }
        Dialect::KimiCode | Dialect::KimiCli => None,
    };
    let service_variable = match dialect {
        Dialect::KimiCode => None,
        Dialect::KimiCli => environment.var("KIMI_BASE_URL").map(|_| "KIMI_BASE_URL"),
    };
    let (providers, unreadable) = match users::config(&user) {
        Ok(config) => (providers(&config, environment, dialect), None),
        Err(error) => (Vec::new(), Some(error)),
    };
    Login {
        tokens: tokens(&user),
        key_variable,
        lacks_key,
        service_variable,
        providers,
        unreadable,
    }
}

fn providers(config: &Table, environment: &Environment, dialect: Dialect) -> Vec<Provider> {
    let is_openai = uses_openai(config, dialect);
    let configured = config.get("providers").and_then(Value::as_table).into_iter().flatten();
    let provider = |(name, provider): (&String, &Value)| {
        let text = |field: &str| provider.get(field).and_then(Value::as_str).map(str::to_owned);
        let is_openai = is_openai && text("type").is_some_and(|kind| kind.starts_with("openai_"));
        let variable = text("api_key_env").or_else(|| is_openai.then(|| OPENAI[0].to_owned()));
        let key = match (text("api_key").filter(|key| !key.is_empty()), variable) {
            (Some(_), _) => Key::Written,
            (None, Some(variable)) => {
                let is_set = environment.var(&variable).is_some();
                Key::Variable(variable, is_set)
            }
            (None, None) => Key::None,
        };
        Provider { name: name.clone(), base_url: text("base_url"), key }
    };
    configured.map(provider).collect()
}

fn tokens(user: &Path) -> Vec<Token> {
    let path = user.join(FOLDER);
    let Ok(folder) = Folder::trusted(&path) else { return Vec::new() };
    let names = folder.entries(TOKENS).unwrap_or_default();
    let mut tokens: Vec<Token> = names
        .into_iter()
        .filter(|name| Path::new(name).extension().is_some_and(|extension| extension == "json"))
        .map(|name| Token {
            state: folder
                .read(&name, TOKEN_BYTES)
                .map_or(TokenState::Unclear, |bytes| state(&bytes)),
            file: path.join(name),
        })
        .collect();
    tokens.sort_by(|a, b| a.file.cmp(&b.file));
    tokens
}

fn state(bytes: &[u8]) -> TokenState {
    let stored = serde_json::from_slice(bytes).ok();
    let Some(Stored { access_token, refresh_token, expires_at }) = stored else {
        return TokenState::Unclear;
    };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
    match (access_token, refresh_token) {
        (_, true) => TokenState::Good,
        (true, false) if expires_at <= 0.0 || expires_at > now => TokenState::Good,
        (true, false) => TokenState::Expired,
        (false, false) => TokenState::Unclear,
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_token_is_judged_by_its_expiry_only() {
        let check = |text: &str, expected| {
            assert_eq!(state(text.as_bytes()), expected, "{text}");
        };
        let past_and_future = [1e9, 9e9];
        for time in past_and_future {
            check(
                &format!(
                    r#"{{"access_token":"a","refresh_token":"r","expires_at":{time},"scope":"s"}}"#
                ),
                TokenState::Good,
            );
        }
        check(
            r#"{"access_token":"a","refresh_token":"","expires_at":1700000000.5}"#,
            TokenState::Expired,
        );
        check(r#"{"access_token":"a","expires_at":9000000000}"#, TokenState::Good);
        check(r#"{"access_token":"a"}"#, TokenState::Good);
        check("{}", TokenState::Unclear);
        check("token", TokenState::Unclear);
        check(r#"{"access_token":["a"]}"#, TokenState::Unclear);
    }

    #[test]
    fn keys_are_found_without_their_values() {
        let home = tempfile::tempdir().unwrap();
        let user = home.path().join(".kimi-code");
        fs::create_dir_all(user.join("credentials")).unwrap();
        fs::write(user.join("credentials/kimi-code.json"), "{}").unwrap();
        fs::write(user.join("credentials/.lock"), "").unwrap();
        let config = r#"
            [providers.a]
            base_url = "https://a.example/v1"
            api_key = "sk-a"
            [providers.b]
            api_key = ""
            api_key_env = "B_KEY"
            [providers.c]
            api_key_env = "C_KEY"
            [providers."managed:kimi-code"]
            type = "kimi"
        "#;
        fs::write(user.join("config.toml"), config).unwrap();
        let vars = [("B_KEY", "sk-b"), ("KIMI_API_KEY", "sk-c"), ("KIMI_MODEL_NAME", "k")];
        let environment = Environment {
            home: home.path().to_owned(),
            vars: vars.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
            ..Environment::default()
        };
        let provider = |name: &str, base_url: Option<&str>, key| Provider {
            name: name.to_owned(),
            base_url: base_url.map(str::to_owned),
            key,
        };
        let found = find(&environment, Dialect::KimiCode);
        assert!(found.has_credentials());
        assert_eq!(
            found,
            Login {
                tokens: vec![Token {
                    file: user.join("credentials/kimi-code.json"),
                    state: TokenState::Unclear
                }],
                key_variable: None,
                lacks_key: Some("KIMI_MODEL_NAME"),
                service_variable: None,
                providers: vec![
                    provider("a", Some("https://a.example/v1"), Key::Written),
                    provider("b", None, Key::Variable("B_KEY".to_owned(), true)),
                    provider("c", None, Key::Variable("C_KEY".to_owned(), false)),
                    provider("managed:kimi-code", None, Key::None),
                ],
                unreadable: None,
            }
        );
        assert_eq!(
            find(&environment, Dialect::KimiCli),
            Login {
                tokens: vec![],
                key_variable: Some("KIMI_API_KEY"),
                lacks_key: None,
                service_variable: None,
                providers: vec![],
                unreadable: None,
            }
        );
        assert!(!find(&Environment::default(), Dialect::KimiCli).has_credentials());
    }

    #[test]
    fn kimi_needs_a_login_a_key_or_a_provider() {
        let check =
            |dialect: Dialect, vars: &[(&str, &str)], config: &str, expected: Option<&str>| {
                let home = tempfile::tempdir().unwrap();
                let folder = home.path().join(dialect.home_folder());
                fs::create_dir_all(&folder).unwrap();
                fs::write(folder.join("config.toml"), config).unwrap();
                let vars = vars
                    .iter()
                    .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                    .collect();
                let environment =
                    Environment { home: home.path().to_owned(), vars, ..Environment::default() };
                let problem = find(&environment, dialect).problem(dialect);
                assert_eq!(
                    problem.as_ref().map(|error| error.message.as_str()),
                    expected,
                    "{dialect} {config}"
                );
                assert!(problem.is_none_or(|error| error.kind == Kind::NotLoggedIn));
            };
        let config_of_p = "[providers.p]\ntype = 'kimi'\n";
        let (code, cli) = (Dialect::KimiCode, Dialect::KimiCli);
        check(code, &[], "", Some("kimi-code has no login, no key and no provider"));
        check(cli, &[], "", Some("kimi-cli has no login, no key and no provider"));
        check(
            code,
            &[("KIMI_API_KEY", "k")],
            "",
            Some("kimi-code has no login, no key and no provider"),
        );
        check(cli, &[("KIMI_API_KEY", "k")], "", None);
        check(cli, &[("KIMI_BASE_URL", "http://127.0.0.1:9")], "", None);
        check(code, &[("KIMI_MODEL_NAME", "m"), ("KIMI_MODEL_API_KEY", "k")], "", None);
        let lacks =
            "KIMI_MODEL_NAME is set without KIMI_MODEL_API_KEY: Kimi asks without a key, and fails";
        check(code, &[("KIMI_MODEL_NAME", "m")], config_of_p, Some(lacks));
        for dialect in [code, cli] {
            check(dialect, &[], config_of_p, None);
        }
        let openai = "default_model = 'm'\n[models.m]\nprovider = 'p'\n[providers.p]\ntype = 'openai_legacy'\n";
        check(cli, &[("OPENAI_API_KEY", "k")], openai, None);
    }
}
