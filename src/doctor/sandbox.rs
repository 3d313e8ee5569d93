//! The checks of the sandbox, and of the start of Kimi inside it.

use super::check::Check;
use super::kimi;
use crate::error::Kind;
use crate::kimi::confinement::decide;
use crate::kimi::examination::{Examination, Start};
use crate::sandbox::{Kernel, Sandbox, kernel};
use crate::settings::{Config, SandboxSetting};

pub(super) fn checks(config: &Config, found: &Examination) -> Vec<Check> {
    let available = kernel();
    let setting = config.settings.sandbox;
    let mut checks = vec![landlock(available, setting), sandbox_setting(setting, available)];
    let held = decide(setting, available).map(|(sandbox, _)| sandbox);
    if let (Ok(program), Some(start), Ok(held)) = (&found.used, &found.start, held) {
        let what = format!("{} {}", program.dialect, program.version);
        checks.push(match start {
            Start::Succeeded(took) => {
                let inside = match held {
                    Sandbox::Landlock => " inside the sandbox",
                    Sandbox::None => "",
                };
                Check::ok("start", format!("{what} starts{inside}, in {:.1} s", took.as_secs_f64()))
            }
            Start::OnlyOutside { why, .. } => {
                let check = Check::error("start", &why.error);
                match kimi::opening(config, start) {
                    Some(remedy) => check.with_remedy(remedy),
                    None => check,
                }
            }
            Start::Failed(error) => Check::problem(
                "start",
                error.kind,
                format!("{what} does not start, not even outside the sandbox: {}", error.message),
                &error.hint,
            ),
            Start::NotKimi(output) => Check::problem(
                "start",
                Kind::Spawn,
                format!("{what} does not start, not even outside the sandbox: {output}"),
                Kind::Spawn.hint(),
            ),
        });
    }
    checks.extend(config.settings.readable.iter().map(|path| {
        let shown = path.display();
        if path.exists() {
            return Check::note("readable", format!("{shown} is open to Kimi"));
        }
        let remedy = "Fix the path, or take it out of `readable`.";
        Check::warning("readable", format!("{shown} does not exist"), remedy)
    }));
    if !config.settings.keeper
        && decide(setting, available).is_ok_and(|(held, _)| held == Sandbox::None)
    {
        checks.push(Check::warning(
            "keeper",
            "off: processes of Kimi may outlive a call",
            "Set `keeper: true`.",
        ));
    }
    checks
}

fn landlock(kernel: Kernel, setting: SandboxSetting) -> Check {
    if !cfg!(target_os = "linux") {
        return Check::note("kernel", "there is no sandbox on this system, only on Linux");
    }
    if !kernel.files && setting == SandboxSetting::Off {
        return Check::note("kernel", "no Landlock");
    }
    if !kernel.files {
        let remedy = "Use Linux 6.2 or later with Landlock enabled (`lsm=` of the kernel's command line names it).";
        return Check::warning("kernel", "no Landlock", remedy);
    }
    let gaps = kernel.gaps().join(", ");
    if !kernel.is_enough() {
        let says = format!("an early Landlock; it does not close {gaps}");
        return Check::warning("kernel", says, "Use Linux 6.2 or later.");
    }
    Check::ok(
        "kernel",
        match gaps.as_str() {
            "" => "Landlock, with every known feature".to_owned(),
            gaps => format!("Landlock; it does not close {gaps}"),
        },
    )
}

/// Checks the effect of the setting on this kernel.
fn sandbox_setting(setting: SandboxSetting, kernel: Kernel) -> Check {
    let name = match setting {
        SandboxSetting::Auto => "auto",
        SandboxSetting::Required => "required",
        SandboxSetting::Off => "off",
    };
    match decide(setting, kernel) {
        Err(error) => Check::error("setting", &error),
        Ok((Sandbox::Landlock, None)) => {
            Check::ok("setting", format!("{name}: Kimi reads the project and writes nothing"))
        }
        Ok((Sandbox::Landlock, Some(warning))) => {
            Check::note("setting", format!("{name}: {warning}"))
        }
        Ok((Sandbox::None, _)) => {
            let says = format!(
                "{name}: only its tool list, its private home and its environment limit Kimi"
            );
            let remedy = match setting {
                SandboxSetting::Off => "Set `sandbox: auto`.",
                SandboxSetting::Auto | SandboxSetting::Required => {
                    "To refuse every call without a sandbox, set `sandbox: required`."
                }
            };
            Check::warning("setting", says, remedy)
        }
    }
}
