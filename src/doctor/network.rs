//! The checks of the network settings and of the connection to the service.

use std::time::Duration;

use super::check::Check;
use crate::kimi::Dialect;
use crate::kimi::login;
use crate::kimi::network::{self, Endpoint};
use crate::kimi::text::first_chars;
use crate::settings::Environment;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// The characters of `no_proxy` that are shown.
const NO_PROXY_LIMIT: usize = 120;

pub(super) fn checks(environment: &Environment, dialect: Dialect) -> Vec<Check> {
    let mut checks = addresses("proxy", environment, &network::PROXIES, "http://host:port");
    if checks.is_empty() {
        checks.push(Check::ok("proxy", "none is set"));
    }
    for name in ["no_proxy", "NO_PROXY"] {
        if let Some(list) = environment.var(name) {
            checks.push(Check::note(
                "proxy",
                format!("{name} = {}", first_chars(list, NO_PROXY_LIMIT)),
            ));
        }
    }
    let variables = network::address_variables(dialect);
    checks.extend(addresses("address", environment, &variables, "https://host/path"));
    for provider in login::find(environment, dialect).providers {
        if let Some(url) = provider.base_url.as_deref().and_then(network::displayable) {
            checks
                .push(Check::note("address", format!("{url}, of the provider {}", provider.name)));
        }
    }
    checks.extend(network::certificates(environment).map(|(name, path)| {
        let says = format!("{name} = {}", path.display());
        if path.exists() {
            Check::ok("certificates", says)
        } else {
            let says = format!("{says}, which does not exist");
            Check::warning("certificates", says, format!("Unset {name}, or put the file there."))
        }
    }));
    checks
}

/// Checks that the variables which are set hold an address.
fn addresses(check: &str, environment: &Environment, names: &[&str], form: &str) -> Vec<Check> {
    let set = names.iter().filter_map(|name| Some((name, environment.var(name)?)));
    set.map(|(name, url)| match network::displayable(url) {
        Some(url) => Check::note(check, format!("{name} = {url}")),
        None => Check::warning(
            check,
            format!("{name} is not an address with a scheme and a host"),
            format!("Write it as {form}."),
        ),
    })
    .collect()
}

/// Checks the connection to the service, or to its proxy.
pub(super) async fn reached(environment: &Environment, dialect: Dialect) -> Check {
    let Some(endpoint) = Endpoint::find(environment, dialect) else {
        return Check::warning(
            "service",
            "its address cannot be read",
            "Fix the addresses listed above, or the `base_url` in Kimi's config.toml.",
        );
    };
    let proxy = endpoint.proxy.map(|name| format!(", which {name} names")).unwrap_or_default();
    let what = format!("{}:{}{proxy}", endpoint.host, endpoint.port);
    // The timeout also covers the resolver, whose own limit is longer.
    let reached = tokio::time::timeout(2 * CONNECT_TIMEOUT, endpoint.reach(CONNECT_TIMEOUT)).await;
    match reached.unwrap_or_else(|_| Err("its name was not resolved in time".to_owned())) {
        Ok(took) => Check::ok("service", format!("{what} was reached in {} ms", took.as_millis())),
        Err(why) => Check::warning(
            "service",
            format!("{what} was not reached: {why}"),
            "Check the network and the firewall; set HTTPS_PROXY where a proxy is the only way out.",
        ),
    }
}
