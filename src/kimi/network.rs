//! The route from this machine to Kimi's service: proxies, addresses and certificates. It sends nothing, apart from
//! opening a connection.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use fluent_uri::Uri;
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;
use toml::Value;

use super::dialect::Dialect;
use super::users::{self, OPENAI, uses_openai};
use crate::settings::Environment;

/// The variables that name a proxy. For each scheme, the first one that is set counts.
pub(crate) const PROXIES: [&str; 6] =
    ["https_proxy", "HTTPS_PROXY", "http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"];
/// The variables that name files or folders with certificates.
const CERTIFICATES: [&str; 4] =
    ["SSL_CERT_FILE", "SSL_CERT_DIR", "NODE_EXTRA_CA_CERTS", "REQUESTS_CA_BUNDLE"];
/// The default service of both programs after a login.
const SERVICE: &str = "https://api.kimi.com/coding/v1";
/// The default service of kimi-code for a model and a key from the environment.
const PLATFORM: &str = "https://api.moonshot.ai/v1";
/// The longest part of a path that is shown. A longer one may be a key.
const SHOWN_PART: usize = 16;
/// The longest part with digits that is shown, such as `v1beta`. A longer one may be a key.
const SHOWN_VERSION: usize = 6;

/// The certificate variables that are set, with their paths.
pub(crate) fn certificates(
    environment: &Environment,
) -> impl Iterator<Item = (&'static str, PathBuf)> + '_ {
    CERTIFICATES.into_iter().filter_map(|name| Some((name, PathBuf::from(environment.var(name)?))))
}

/// The variables that replace the address of the service.
pub(crate) fn address_variables(dialect: Dialect) -> [&'static str; 4] {
    let own = match dialect {
        Dialect::KimiCode => "KIMI_MODEL_BASE_URL",
        Dialect::KimiCli => "KIMI_BASE_URL",
    };
    [own, "KIMI_CODE_BASE_URL", "KIMI_CODE_OAUTH_HOST", "KIMI_OAUTH_HOST"]
}

/// Removes the user, the password, the query and possible keys from an address; `None` if it has no host.
pub(crate) fn displayable(url: &str) -> Option<String> {
    let url = Uri::parse(url.trim()).ok()?;
    let authority = url.authority().filter(|authority| !authority.host().is_empty())?;
    let port = authority.port().map(|port| format!(":{port}")).unwrap_or_default();
    // The path of a gateway may contain a key.
    let is_word = |part: &str| part.chars().all(|c| c.is_ascii_alphabetic() || "-_.".contains(c));
    let is_shown =
        |part: &str| part.len() <= SHOWN_PART && (is_word(part) || part.len() <= SHOWN_VERSION);
    let parts = url.path().as_str().split('/');
    let path: Vec<&str> = parts.map(|part| if is_shown(part) { part } else { "…" }).collect();
    Some(format!("{}://{}{port}{}", url.scheme(), authority.host(), path.join("/")))
}

/// The host that a run connects to first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Endpoint {
    pub(crate) host: String,
    pub(crate) port: u16,
    /// The variable that names the host, if the host is a proxy.
    pub(crate) proxy: Option<&'static str>,
}

impl Endpoint {
    /// Finds the service of a dialect, or the proxy before it.
    pub(crate) fn find(environment: &Environment, dialect: Dialect) -> Option<Endpoint> {
        let service = service(environment, dialect);
        let direct = Endpoint::parse(&service, None)?;
        let no_proxy = ["no_proxy", "NO_PROXY"].iter().find_map(|name| environment.var(name));
        if no_proxy.is_some_and(|list| excepts(list, &direct.host)) {
            return Some(direct);
        }
        let scheme = if service.starts_with("http:") { "http_proxy" } else { "https_proxy" };
        let counts =
            |name: &&str| [scheme, "all_proxy"].contains(&name.to_ascii_lowercase().as_str());
        let proxy = PROXIES.into_iter().filter(counts).find(|name| environment.var(name).is_some());
        match proxy {
            Some(name) => Endpoint::parse(environment.var(name)?, Some(name)),
            None => Some(direct),
        }
    }

    fn parse(url: &str, proxy: Option<&'static str>) -> Option<Endpoint> {
        let url = Uri::parse(url.trim()).ok()?;
        let authority = url.authority()?;
        let default = match url.scheme().as_str() {
            "http" => 80,
            "https" => 443,
            _ => 1080,
        };
        let port = authority.port_to_u16().ok()?.unwrap_or(default);
        Some(Endpoint { host: authority.host().to_owned(), port, proxy })
    }

    /// Resolves the host and connects to it. Returns the time that this took, or the reason why it failed.
    pub(crate) async fn reach(&self, limit: Duration) -> Result<Duration, String> {
        let start = Instant::now();
        let addresses = lookup_host(format!("{}:{}", self.host, self.port))
            .await
            .map_err(|error| format!("its name does not resolve: {error}"))?;
        let mut why = "its name has no address".to_owned();
        for address in addresses {
            match timeout(limit, TcpStream::connect(address)).await {
                Ok(Ok(_)) => return Ok(start.elapsed()),
                Ok(Err(error)) => why = format!("no connection to {address}: {error}"),
                Err(error) => why = format!("no connection to {address}: {error}"),
            }
        }
        Err(why)
    }
}

/// Returns whether a `no_proxy` list holds a host.
fn excepts(list: &str, host: &str) -> bool {
    list.split(',').map(str::trim).any(|entry| {
        let name = entry.split(':').next().unwrap_or_default();
        let name = name.trim_start_matches("*.").trim_start_matches('.');
        let is_subdomain = host.strip_suffix(name).is_some_and(|rest| rest.ends_with('.'));
        entry == "*" || (!name.is_empty() && (host == name || is_subdomain))
    })
}

/// Returns the address of the service that a dialect uses.
fn service(environment: &Environment, dialect: Dialect) -> String {
    let var = |name: &str| environment.var(name).map(str::to_owned);
    let default = || var("KIMI_CODE_BASE_URL").unwrap_or_else(|| SERVICE.to_owned());
    let from_environment = match dialect {
        Dialect::KimiCode => var("KIMI_MODEL_NAME")
            .map(|_| var("KIMI_MODEL_BASE_URL").unwrap_or_else(|| PLATFORM.to_owned())),
        Dialect::KimiCli => var("KIMI_BASE_URL"),
    };
    from_environment.or_else(|| configured(environment, dialect)).unwrap_or_else(default)
}

/// Returns the address in the user's `config.toml` for the default model.
fn configured(environment: &Environment, dialect: Dialect) -> Option<String> {
    let config = users::config(&users::data_folder(environment, dialect)).ok()?;
    if uses_openai(&config, dialect)
        && let Some(url) = environment.var(OPENAI[1])
    {
        return Some(url.to_owned());
    }
    let text = |value: &Value, field: &str| Some(value.get(field)?.as_str()?.to_owned());
    let model = config.get("models")?.get(config.get("default_model")?.as_str()?)?;
    text(config.get("providers")?.get(text(model, "provider")?)?, "base_url")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(vars: &[(&str, &str)]) -> Environment {
        Environment {
            vars: vars.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect(),
            home: "/nowhere".into(),
            ..Environment::default()
        }
    }

    #[test]
    fn a_displayed_address_holds_no_secret() {
        let check = |url: &str, expected: Option<&str>| {
            assert_eq!(displayable(url).as_deref(), expected, "{url}");
        };
        check("http://proxy:3128", Some("http://proxy:3128"));
        check("http://me:s3cret@proxy:3128/", Some("http://proxy:3128/"));
        check("socks5://me@[::1]:1080", Some("socks5://[::1]:1080"));
        check("https://api.kimi.com/coding/v1?key=s#s", Some("https://api.kimi.com/coding/v1"));
        check("https://gateway/v1/0123456789abcdef0/x", Some("https://gateway/v1/…/x"));
        check(
            "https://gateway/v1beta/k3y5/s3cretk/open-ai",
            Some("https://gateway/v1beta/k3y5/…/open-ai"),
        );
        check("http://me:s3%cret@proxy", None);
        check("me:s3cret@proxy:3128", None);
        check("proxy:3128", None);
        check("http://", None);
    }

    #[test]
    fn a_run_connects_to_the_proxy_or_to_the_service() {
        let check = |vars: &[(&str, &str)], dialect, host: &str, port, proxy| {
            let expected = Endpoint { host: host.to_owned(), port, proxy };
            assert_eq!(Endpoint::find(&environment(vars), dialect), Some(expected), "{vars:?}");
        };
        let (code, cli) = (Dialect::KimiCode, Dialect::KimiCli);
        check(&[], code, "api.kimi.com", 443, None);
        check(&[("KIMI_CODE_BASE_URL", "https://x.example:8443/v1")], cli, "x.example", 8443, None);
        check(&[("KIMI_MODEL_NAME", "k")], code, "api.moonshot.ai", 443, None);
        check(&[("KIMI_BASE_URL", "http://127.0.0.1:9/v1")], cli, "127.0.0.1", 9, None);
        let all = ("ALL_PROXY", "socks5://u:p@socks");
        let https = ("HTTPS_PROXY", "http://proxy:3128");
        check(&[all], code, "socks", 1080, Some("ALL_PROXY"));
        check(&[all, https], code, "proxy", 3128, Some("HTTPS_PROXY"));
        check(&[("HTTP_PROXY", "http://proxy")], code, "api.kimi.com", 443, None);
        for list in ["*", "a, api.kimi.com", ".kimi.com", "*.kimi.com:443"] {
            check(&[https, ("NO_PROXY", list)], code, "api.kimi.com", 443, None);
        }
        check(&[https, ("NO_PROXY", "i.com,")], code, "proxy", 3128, Some("HTTPS_PROXY"));
    }

    #[test]
    fn the_service_of_the_default_model_is_read_from_kimis_settings() {
        let home = tempfile::tempdir().unwrap();
        std::fs::create_dir(home.path().join(".kimi")).unwrap();
        let config = "default_model = 'k'\n[models.k]\nprovider = 'p'\n[providers.p]\nbase_url = 'http://here:1/v1'";
        std::fs::write(home.path().join(".kimi/config.toml"), config).unwrap();
        let environment = Environment { home: home.path().to_owned(), ..Environment::default() };
        let endpoint = |dialect| Endpoint::find(&environment, dialect).unwrap().host;
        assert_eq!(endpoint(Dialect::KimiCli), "here");
        assert_eq!(endpoint(Dialect::KimiCode), "api.kimi.com");
        std::fs::write(
            home.path().join(".kimi/config.toml"),
            config.replace("[providers.p]", "[providers.p]\ntype = 'openai_legacy'"),
        )
        .unwrap();
        let vars = [("OPENAI_BASE_URL".to_owned(), "http://there:1/v1".to_owned())].into();
        let environment = Environment { vars, ..environment.clone() };
        let endpoint = Endpoint::find(&environment, Dialect::KimiCli).unwrap();
        assert_eq!(endpoint.host, "there");
    }

    #[tokio::test]
    async fn a_host_is_reached_or_the_reason_is_returned() {
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let endpoint = Endpoint { host: "127.0.0.1".to_owned(), port, proxy: None };
        let patience = Duration::from_secs(5);
        assert!(endpoint.reach(patience).await.is_ok());
        drop(listener);
        let why = endpoint.reach(patience).await.unwrap_err();
        assert!(why.starts_with(&format!("no connection to 127.0.0.1:{port}: ")), "{why}");
        let unknown = Endpoint { host: "unknown.invalid".to_owned(), ..endpoint };
        let why = unknown.reach(patience).await.unwrap_err();
        assert!(why.starts_with("its name does not resolve: "), "{why}");
    }
}
