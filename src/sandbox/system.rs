//! The system's own part of the file system.

/// Folders of the system, with programs and settings for everybody, which may be read wherever the home lies.
pub(crate) const SYSTEM_FOLDERS: [&str; 11] = [
    "/bin",
    "/etc",
    "/lib",
    "/lib32",
    "/lib64",
    "/nix/store",
    "/opt",
    "/sbin",
    "/snap",
    "/usr",
    "/Library",
];
