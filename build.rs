//! Turns `config/*.yaml`, which people edit, into JSON, which the program reads faster and with less code:
//! a server that has nothing to read in YAML never touches that parser. What is a pattern there becomes a
//! table of the program's, with the words that it needs, so that a server takes no pattern apart either. A
//! file that cannot be read stops the build.

#[path = "src/redact/form.rs"]
mod form;
#[path = "build/tables.rs"]
mod tables;
#[path = "build/words.rs"]
mod words;

use std::error::Error;
use std::path::{Path, PathBuf};
use std::{env, fs};

fn main() -> Result<(), Box<dyn Error>> {
    for read in ["build.rs", "build", "config", "src/redact/form.rs"] {
        println!("cargo:rerun-if-changed={read}");
    }
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("cargo sets OUT_DIR")?);
    for entry in fs::read_dir("config")? {
        let file = entry?.path();
        if file.extension().is_some_and(|extension| extension == "yaml") {
            convert(&file, &out).map_err(|error| format!("{}: {error}", file.display()))?;
        }
    }
    Ok(())
}

fn convert(file: &Path, out: &Path) -> Result<(), Box<dyn Error>> {
    // Not at once into JSON, which takes the last of two fields of one name for both.
    let mut value: serde_yaml::Value = serde_yaml::from_str(&fs::read_to_string(file)?)?;
    let name = file.file_stem().and_then(|name| name.to_str()).ok_or("a file has a name")?;
    if name == "injection" {
        return Ok(fs::write(out.join("injection.rs"), tables::of_injection(value)?)?);
    }
    if name == "secrets" {
        let values = value.as_mapping_mut().and_then(|keys| keys.remove("values"));
        let values = values.ok_or("there are no `values`")?;
        fs::write(out.join("secrets.rs"), tables::of_secrets(values)?)?;
    }
    Ok(fs::write(out.join(name).with_extension("json"), serde_json::to_string(&value)?)?)
}
