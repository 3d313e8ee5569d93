//! The protection that a kernel offers.

use serde::Serialize;

/// The abilities of this kernel's Landlock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[expect(clippy::struct_excessive_bools, reason = "each came with a version of its own")]
pub(crate) struct Kernel {
    /// Opening, creating, renaming and removing files (Linux 5.13 and 5.19)
    pub(crate) files: bool,
    /// Emptying files (6.2)
    pub(crate) truncation: bool,
    /// Commands to devices (6.10)
    pub(crate) devices: bool,
    /// Signals to other processes, and abstract sockets (6.12)
    pub(crate) scopes: bool,
    /// Sockets that have a path (7.1)
    pub(crate) sockets: bool,
    /// The filter of system calls (no kernel's doing: it is written for some processors only)
    pub(crate) calls: bool,
}

impl Kernel {
    /// Returns whether a program can be stopped from every change to a file.
    pub(crate) fn is_enough(self) -> bool {
        self.files && self.truncation
    }

    /// The missing abilities, in words; none for a kernel without Landlock.
    pub(crate) fn gaps(self) -> Vec<&'static str> {
        let gaps = [
            (self.truncation, "emptying files"),
            (self.devices, "commands to devices"),
            (self.scopes, "signals and abstract sockets"),
            (self.sockets || self.calls, "sockets that have a path"),
            (self.calls, "owners, rights and attributes of files"),
            (self.calls, "limits and priorities of other processes"),
        ];
        gaps.into_iter().filter(|(closed, _)| !closed).map(|(_, what)| what).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gap_is_named_unless_something_closes_it() {
        let all = Kernel {
            files: true,
            truncation: true,
            devices: true,
            scopes: true,
            sockets: true,
            calls: true,
        };
        assert_eq!(all.gaps(), Vec::<&str>::new());
        assert_eq!(Kernel { sockets: false, ..all }.gaps(), Vec::<&str>::new());
        let unfiltered =
            ["owners, rights and attributes of files", "limits and priorities of other processes"];
        assert_eq!(Kernel { calls: false, ..all }.gaps(), unfiltered);
        let without = Kernel { calls: false, sockets: false, ..all };
        assert_eq!(without.gaps(), [&["sockets that have a path"][..], &unfiltered].concat());
    }
}
