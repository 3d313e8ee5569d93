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

/// Folders outside of the home that hold a user's or a service's secrets.
pub(crate) const PRIVATE_FOLDERS: [&str; 4] =
    ["/run/credentials", "/run/keys", "/run/secrets", "/run/user"];
