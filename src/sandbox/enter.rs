//! The calls of Landlock.

use std::ffi::OsString;
use std::io;
use std::os::fd::AsFd as _;

use landlock::{
    ABI, Access as _, AccessFs, BitFlags, CompatLevel, Compatible as _, PathBeneath,
    RestrictionStatus, Ruleset, RulesetAttr as _, RulesetCreated, RulesetCreatedAttr as _,
    RulesetError, RulesetStatus, Scope, make_bitflags,
};
use rustix::fs::{FileType, Mode, OFlags};
use rustix::thread::{CapabilitySet, capabilities, set_capabilities};

use super::filter;
use super::kernel::Kernel;
use super::rules::Access;

/// The newest rights that are used here. An older kernel enforces those that it knows.
const NEWEST: ABI = ABI::V9;

/// Finds out the abilities of this kernel's Landlock, by requiring each right in turn.
pub(super) fn kernel() -> Kernel {
    let files = |abi: ABI| {
        let ruleset = Ruleset::default().set_compatibility(CompatLevel::HardRequirement);
        ruleset.handle_access(AccessFs::from_all(abi)).and_then(Ruleset::create).is_ok()
    };
    let scopes = Ruleset::default()
        .set_compatibility(CompatLevel::HardRequirement)
        .scope(Scope::from_all(ABI::V6))
        .and_then(Ruleset::create)
        .is_ok();
    Kernel {
        files: files(ABI::V2),
        truncation: files(ABI::V3),
        devices: files(ABI::V5),
        scopes,
        sockets: files(ABI::V9),
        calls: filter::EXISTS,
    }
}

/// Builds the ruleset for the kernel. A path that does not exist any more opens nothing.
pub(super) fn ruleset(rules: &[(Access, OsString)]) -> Result<RulesetCreated, RulesetError> {
    let mut ruleset = Ruleset::default()
        .handle_access(AccessFs::from_all(NEWEST))?
        .scope(Scope::from_all(NEWEST))?
        .create()?;
    for (access, path) in rules {
        // The paths had no links, so a link was created since.
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let Ok(opened) = rustix::fs::open(path, flags, Mode::empty()) else { continue };
        let kind = rustix::fs::fstat(&opened).map(|stat| FileType::from_raw_mode(stat.st_mode));
        let rights = match kind {
            Ok(FileType::Directory) => rights(*access),
            Ok(FileType::Symlink) | Err(_) => continue,
            Ok(_) => rights(*access) & AccessFs::from_file(NEWEST),
        };
        if !rights.is_empty() {
            ruleset = ruleset.add_rule(PathBeneath::new(opened.as_fd(), rights))?;
        }
    }
    Ok(ruleset)
}

/// Stops this process and its descendants from sending signals to other processes. Returns whether the kernel enforces
/// it.
pub(super) fn keep_signals_inside() -> bool {
    let entered = Ruleset::default()
        .set_compatibility(CompatLevel::HardRequirement)
        .scope(Scope::Signal)
        .and_then(Ruleset::create)
        .and_then(RulesetCreated::restrict_self);
    entered.is_ok_and(|entered| entered.ruleset == RulesetStatus::FullyEnforced)
}

fn rights(access: Access) -> BitFlags<AccessFs> {
    let read = make_bitflags!(AccessFs::{ReadFile | ReadDir});
    match access {
        Access::List => AccessFs::ReadDir.into(),
        Access::Read => read,
        Access::Run => read | AccessFs::Execute,
        Access::Write => {
            let devices = make_bitflags!(AccessFs::{MakeChar | MakeBlock | IoctlDev});
            read | (AccessFs::from_write(NEWEST) & !devices)
        }
        Access::Device => make_bitflags!(AccessFs::{ReadFile | WriteFile | Truncate}),
    }
}

/// Enforces a ruleset for this thread and its descendants.
pub(super) fn enter(ruleset: RulesetCreated) -> io::Result<()> {
    let entered = ruleset.restrict_self().map_err(io::Error::other)?;
    let RestrictionStatus { ruleset, no_new_privs, .. } = entered;
    if !no_new_privs || ruleset == RulesetStatus::NotEnforced {
        return Err(io::Error::from_raw_os_error(rustix::io::Errno::NOSYS.raw_os_error()));
    }
    drop_capabilities()
}

/// Removes root's capabilities, with which a process could read the memory of others despite Landlock. The right to read
/// files of other owners stays, since containers often need it and Landlock limits it. A program that is executed
/// regains nothing, since no new privileges are allowed.
fn drop_capabilities() -> io::Result<()> {
    let mut sets = capabilities(None)?;
    let kept = CapabilitySet::DAC_OVERRIDE;
    sets.effective &= kept;
    sets.permitted &= kept;
    sets.inheritable = CapabilitySet::empty();
    Ok(set_capabilities(None, sets)?)
}
