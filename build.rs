//! Turns `config/*.yaml`, which people edit, into JSON, which the program reads faster and with less code:
//! a server that has nothing to read in YAML never touches that parser. A file that cannot be read stops
//! the build. And it lays out the program's functions, so that a server stays small.

#[path = "release/order.rs"]
mod order;

use std::error::Error;
use std::path::{Path, PathBuf};
use std::{env, fs};

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=release/order.rs");
    println!("cargo:rerun-if-changed=config");
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("cargo sets OUT_DIR")?);
    for entry in fs::read_dir("config")? {
        let file = entry?.path();
        if file.extension().is_some_and(|extension| extension == "yaml") {
            convert(&file, &out).map_err(|error| format!("{}: {error}", file.display()))?;
        }
    }
    order::lay_functions(&out)
}

fn convert(file: &Path, out: &Path) -> Result<(), Box<dyn Error>> {
    // Not at once into JSON, which takes the last of two fields of one name for both.
    let value: serde_yaml::Value = serde_yaml::from_str(&fs::read_to_string(file)?)?;
    let name = file.with_extension("json");
    let name = name.file_name().ok_or("a file has a name")?;
    Ok(fs::write(out.join(name), serde_json::to_string(&value)?)?)
}
