//! Lays the functions that a server runs next to each other in the program, in the order in which
//! `release/functions` names them. The kernel maps a program in pieces of 64 KB and more, and what lies
//! between two functions that run is in memory with them: laid out by chance, a server keeps twice the
//! memory.
//!
//! The linker is told in a script. Whether it can be, with what the toolchain and the person have chosen,
//! is tried on a program of three lines; where it cannot, the program is the same and somewhat larger.

use std::collections::BTreeSet;
use std::error::Error;
use std::ffi::OsString;
use std::path::Path;
use std::process::Command;
use std::{env, fs};

const NAMES: &str = "release/functions";
/// What the functions are laid into.
const SECTION: &str = ".text.ordered";
/// The one function that is laid in the trial.
const TRIED: &str = "kimi_bridge_is_laid";

pub(crate) fn lay_functions(out: &Path) -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed={NAMES}");
    let is = |variable, value| env::var(variable).is_ok_and(|found| found == value);
    if !is("PROFILE", "release") || !is("CARGO_CFG_TARGET_OS", "linux") {
        return Ok(());
    }
    let names = fs::read_to_string(NAMES)?;
    let names: Vec<&str> = names.lines().filter(|line| !line.starts_with('#')).collect();
    let path = out.join("functions.ld");
    fs::write(&path, script(&names))?;
    if is_understood(&path, out).unwrap_or(false) {
        println!("cargo:rustc-link-arg-bin=kimi-bridge={}", argument(&path));
    } else {
        println!(
            "cargo:warning=this linker lays no functions out: a server keeps some 4 MB more in memory"
        );
    }
    Ok(())
}

/// Adds a section to what the linker does by itself, and takes nothing from it.
fn script(names: &[&str]) -> String {
    // What this very compiler calls them stands first and close together. Another one gives other marks to
    // the same names; then those stand together that are called the same but for the mark.
    let alike: BTreeSet<String> = names.iter().map(|name| without_marks(name)).collect();
    let exact = [TRIED].into_iter().chain(names.iter().copied());
    let lines = exact.chain(alike.iter().map(String::as_str)).map(|name| {
        // Where the compiler puts what it takes for common and for rare.
        format!("    *(.text.{name} .text.unlikely.{name})\n")
    });
    let lines: String = lines.collect();
    format!("SECTIONS {{\n  {SECTION} : {{\n{lines}  }}\n}} INSERT BEFORE .text;\n")
}

/// A pattern of the names that differ from this one in no more than the compiler's marks: the digest at
/// the end of a name in the older form, and the crates' in the newer one.
fn without_marks(name: &str) -> String {
    if let Some((path, _)) = name.rsplit_once("17h").filter(|_| name.starts_with("_ZN")) {
        return format!("{path}17h*");
    }
    let mut parts = name.split("Cs");
    let first = parts.next().unwrap_or_default().to_owned();
    let rest = parts.map(|part| part.split_once('_').map_or(part, |(_, rest)| rest));
    rest.fold(first, |name, rest| name + "Cs*_" + rest)
}

fn argument(script: &Path) -> String {
    format!("-Wl,-T,{}", script.display())
}

/// Whether this linker takes the script, and does what it says.
fn is_understood(script: &Path, out: &Path) -> Result<bool, Box<dyn Error>> {
    let variable = |name| env::var_os(name).ok_or(name);
    let (source, program) = (out.join("tried.rs"), out.join("tried"));
    let main = format!("fn main() {{ {TRIED}() }}");
    fs::write(
        &source,
        format!("#[unsafe(no_mangle)] #[inline(never)] extern \"C\" fn {TRIED}() {{}} {main}"),
    )?;
    let mut rustc = Command::new(variable("RUSTC")?);
    rustc.args(["--edition", "2024", "--target"]).arg(variable("TARGET")?);
    rustc.args(["-C", &format!("link-arg={}", argument(script))]);
    rustc.arg(&source).arg("-o").arg(&program);
    if let Some(linker) = env::var_os("RUSTC_LINKER") {
        let mut chosen = OsString::from("linker=");
        chosen.push(linker);
        rustc.arg("-C").arg(chosen);
    }
    let flags = env::var("CARGO_ENCODED_RUSTFLAGS").unwrap_or_default();
    rustc.args(flags.split('\u{1f}').filter(|flag| !flag.is_empty()));
    if !rustc.output()?.status.success() {
        return Ok(false);
    }
    let program = fs::read(&program)?;
    Ok(program.windows(SECTION.len()).any(|bytes| bytes == SECTION.as_bytes()))
}
