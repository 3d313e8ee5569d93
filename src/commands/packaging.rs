//! `kimi-bridge completions` and `kimi-bridge man`: the files that a package installs beside the program.

use std::fs;

use clap::CommandFactory as _;

use super::output;
use crate::cli::{Cli, Completions, Man};
use crate::error::{Error, Kind, Result};

pub(super) fn completions(args: &Completions) -> Result<u8> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "kimi-bridge", &mut script);
    output::print(&String::from_utf8_lossy(&script))?;
    Ok(0)
}

pub(super) fn man_pages(args: &Man) -> Result<u8> {
    fs::create_dir_all(&args.folder)
        .and_then(|()| clap_mangen::generate_to(Cli::command(), &args.folder))
        .map_err(|error| {
            let message = format!("{}: {error}", args.folder.display());
            Error::new(Kind::Request, message, "Name a folder that can be written to.")
        })?;
    Ok(0)
}
