//! The read-only sandbox that the kernel enforces: the paths that a program may open, and the helper process that sets
//! up the limits. This room knows paths and processes, and does not know Kimi.
//!
//! The bridge works out the [`Rules`] (it may read everything, so it can look for secret files), and
//! a helper, `kimi-bridge confine`, enters them just before it becomes the parent of the program. The
//! server itself is never restricted.
//!
//! What the rules cannot do: Landlock decides about files, signals and abstract sockets. It does not
//! close the network, which Kimi needs, nor (before Linux 7.1) sockets that have a path; on x86-64, ARM64 and RISC-V
//! with 64 bits a filter of system calls closes those, and other ways to other processes.

#[cfg(target_os = "linux")]
mod descendants;
#[cfg(target_os = "linux")]
mod enter;
#[cfg(all(
    target_os = "linux",
    target_pointer_width = "64",
    any(target_arch = "x86_64", target_arch = "aarch64", target_arch = "riscv64")
))]
mod filter;
/// The processors for which there is a filter; the calls have other numbers on others.
#[cfg(all(
    target_os = "linux",
    not(all(
        target_pointer_width = "64",
        any(target_arch = "x86_64", target_arch = "aarch64", target_arch = "riscv64")
    ))
))]
mod filter {
    pub(super) const EXISTS: bool = false;

    pub(super) fn programs() -> std::io::Result<Vec<seccompiler::BpfProgram>> {
        Ok(Vec::new())
    }
}
pub(crate) mod keeper;
mod kernel;
pub(crate) mod order;
pub(crate) mod rules;
pub(crate) mod secret_files;
mod system;

use std::sync::OnceLock;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub(crate) use self::kernel::Kernel;
pub(crate) use self::order::Order;
pub(crate) use self::rules::{Rules, SandboxRequest};
pub(crate) use self::secret_files::SecretFiles;
pub(crate) use self::system::SYSTEM_FOLDERS;

/// The sandbox that the kernel enforced while Kimi ran.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Sandbox {
    /// Landlock: no writes outside the private folders, no reads in the home outside the project
    Landlock,
    /// Nothing: the tool list, the private home and the environment held alone
    None,
}

/// Asks the kernel for its abilities, once.
pub(crate) fn kernel() -> Kernel {
    static KERNEL: OnceLock<Kernel> = OnceLock::new();
    #[cfg(target_os = "linux")]
    return *KERNEL.get_or_init(enter::kernel);
    #[cfg(not(target_os = "linux"))]
    *KERNEL.get_or_init(Kernel::default)
}

/// Closes every descriptor that this process inherited besides standard input, output and error: a child could
/// write through one that a host left open. Must run before anything else is opened.
pub(crate) fn close_inherited_descriptors() {
    #[cfg(target_os = "linux")]
    {
        let open = std::fs::read_dir("/proc/self/fd").into_iter().flatten().flatten();
        let numbers = open.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
        for descriptor in numbers.filter(|&number| number > 2).collect::<Vec<_>>() {
            // The descriptor of the listing itself is closed by now.
            let _ = nix::unistd::close(descriptor);
        }
    }
}
