//! The sample project, which is compiled into the binary.

use std::fs;
use std::io;
use std::path::Path;

const FILES: [(&str, &str); 3] = [
    ("Cargo.toml", include_str!("../../demo/tally/Cargo.toml")),
    ("src/main.rs", include_str!("../../demo/tally/src/main.rs")),
    ("src/store.rs", include_str!("../../demo/tally/src/store.rs")),
];

/// Writes the sample into a folder.
pub(super) fn unpack(project: &Path) -> io::Result<()> {
    fs::create_dir_all(project.join("src"))?;
    FILES.iter().try_for_each(|(name, text)| fs::write(project.join(name), text))
}

/// Returns whether a folder holds exactly the sample.
pub(super) fn is_unchanged(project: &Path) -> bool {
    let as_written = |(name, text): &(&str, &str)| {
        fs::read_to_string(project.join(name)).is_ok_and(|now| now == *text)
    };
    let entries = |folder: &Path| fs::read_dir(folder).map_or(0, Iterator::count);
    FILES.iter().all(as_written) && entries(project) == 2 && entries(&project.join("src")) == 2
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_change_to_the_sample_is_detected() {
        let folder = tempfile::tempdir().unwrap();
        let check = |change: fn(&Path) -> io::Result<()>, expected| {
            let project = folder.path().join("p");
            unpack(&project).unwrap();
            change(&project).unwrap();
            assert_eq!(is_unchanged(&project), expected);
            fs::remove_dir_all(project).unwrap();
        };
        check(|_| Ok(()), true);
        check(|project| fs::write(project.join("src/store.rs"), "x"), false);
        check(|project| fs::write(project.join("new"), ""), false);
        check(|project| fs::write(project.join("src/new"), ""), false);
        check(|project| fs::remove_file(project.join("Cargo.toml")), false);
    }
}
