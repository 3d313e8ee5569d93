//! Lays the functions that a server runs next to each other in the program, in the order in which
//! `release/functions` names them. The kernel maps a program in pieces of 64 KB and more, and what lies
//! between two functions that run is in memory with them: laid out by chance, a server keeps twice the
//! memory.
//!
//! The linker is told in a script. Whether it can be, with what the toolchain and the person have chosen,
//! is tried on a program of three lines; where it cannot, the program is the same and somewhat larger.

use std::error::Error;
use std::ffi::OsString;
use std::path::Path;
use std::process::Command;
use std::{env, fs};

const NAMES: &str = "release/functions";
/// What the functions are laid into; `release/find-functions` looks for it.
const SECTION: &str = ".text.ordered";
/// The one function that is laid in the trial.
const TRIED: &str = "kimi_bridge_is_laid";
/// Set by whoever wants none of it.
const UNORDERED: &str = "BUILD_UNORDERED";

pub(crate) fn lay_functions(out: &Path) -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed={NAMES}");
    println!("cargo:rerun-if-env-changed={UNORDERED}");
    let is = |variable, value| env::var(variable).is_ok_and(|found| found == value);
    let is_wanted = is("PROFILE", "release") && is("CARGO_CFG_TARGET_OS", "linux");
    if !is_wanted || env::var_os(UNORDERED).is_some() {
        return Ok(());
    }
    let path = out.join("functions.ld");
    fs::write(&path, script(&fs::read_to_string(NAMES)?))?;
    match try_out(&path, out) {
        Ok(()) => println!("cargo:rustc-link-arg-bin=kimi-bridge={}", argument(&path)?),
        Err(why) => println!(
            "cargo:warning=the functions are not laid out, so that a server keeps some 4 MB more in memory: {why}"
        ),
    }
    Ok(())
}

/// Adds a section to what the linker does by itself, and takes nothing from it.
fn script(names: &str) -> String {
    let names = names.lines().filter(|line| !line.starts_with('#'));
    let lines = [TRIED].into_iter().chain(names).map(|name| {
        // Where the compiler puts what it takes for common and for rare.
        format!("    *(.text.{name} .text.unlikely.{name})\n")
    });
    let lines: String = lines.collect();
    format!("SECTIONS {{\n  {SECTION} : {{\n{lines}  }}\n}} INSERT BEFORE .text;\n")
}

/// What the compiler hands on to the linker.
fn argument(script: &Path) -> Result<String, Box<dyn Error>> {
    let path = script.to_str().ok_or("the path of the build is no text")?;
    Ok(format!("-T{path}"))
}

/// Tries whether this linker takes the script, and does what it says.
fn try_out(script: &Path, out: &Path) -> Result<(), Box<dyn Error>> {
    let variable = |name| env::var_os(name).ok_or(format!("{name} is not set"));
    let (source, program) = (out.join("tried.rs"), out.join("tried"));
    let laid = format!("#[unsafe(no_mangle)] #[inline(never)] extern \"C\" fn {TRIED}() {{}}");
    fs::write(&source, format!("{laid} fn main() {{ {TRIED}() }}"))?;
    let mut rustc = Command::new(variable("RUSTC")?);
    rustc.args(["--edition", "2024", "--cap-lints", "allow", "--target"]).arg(variable("TARGET")?);
    rustc.args(["-C", &format!("link-arg={}", argument(script)?)]);
    rustc.arg(&source).arg("-o").arg(&program);
    if let Some(linker) = env::var_os("RUSTC_LINKER") {
        let mut chosen = OsString::from("linker=");
        chosen.push(linker);
        rustc.arg("-C").arg(chosen);
    }
    let flags = env::var("CARGO_ENCODED_RUSTFLAGS").unwrap_or_default();
    rustc.args(flags.split('\u{1f}').filter(|flag| !flag.is_empty()));
    let tried = rustc.output()?;
    if !tried.status.success() {
        let said = String::from_utf8_lossy(&tried.stderr);
        let mut errors = said.lines().map(str::trim).filter(|line| line.contains("error"));
        // What is wrong with the script, or else what is.
        let of_script = errors.clone().find(|line| line.contains(".ld:"));
        return Err(of_script.or(errors.next()).unwrap_or("the trial failed").into());
    }
    let bytes = fs::read(&program)?;
    fs::remove_file(&program)?;
    if bytes.windows(SECTION.len()).any(|bytes| bytes == SECTION.as_bytes()) {
        Ok(())
    } else {
        Err("the linker passes over the script".into())
    }
}
