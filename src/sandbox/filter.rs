//! The system calls that a program in the sandbox may not make, since Landlock does not decide about them: they
//! reach other processes, or change files that may only be read. A refused call fails with the error that programs
//! expect, or does nothing.

use std::collections::BTreeMap;
use std::env::consts::ARCH;
use std::ops::RangeInclusive;

use nix::libc;
use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition,
    SeccompFilter, SeccompRule,
};

/// True if there is a filter for this processor.
pub(super) const EXISTS: bool = true;

/// Calls that are refused whatever their arguments.
const REFUSED: &[libc::c_long] = &[
    // A ring opens sockets and files without the calls that are filtered here.
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    // Key rings, shared memory, semaphores and queues of the user's other processes.
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_keyctl,
    libc::SYS_shmget,
    libc::SYS_shmat,
    libc::SYS_shmctl,
    libc::SYS_semget,
    libc::SYS_semop,
    libc::SYS_semtimedop,
    libc::SYS_semctl,
    libc::SYS_msgget,
    libc::SYS_msgsnd,
    libc::SYS_msgrcv,
    libc::SYS_msgctl,
    libc::SYS_mq_open,
    libc::SYS_mq_unlink,
    // Attributes of files that may only be read.
    libc::SYS_setxattr,
    libc::SYS_lsetxattr,
    libc::SYS_fsetxattr,
    libc::SYS_removexattr,
    libc::SYS_lremovexattr,
    libc::SYS_fremovexattr,
    SYS_SETXATTRAT,
    SYS_REMOVEXATTRAT,
    // Flags and owners of files that may only be read.
    SYS_FILE_SETATTR,
    libc::SYS_fchown,
    libc::SYS_fchownat,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_chown,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_lchown,
    // Memory and descriptors of other processes.
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_process_madvise,
    libc::SYS_process_mrelease,
    libc::SYS_pidfd_getfd,
    // Other views of the system.
    libc::SYS_unshare,
    libc::SYS_setns,
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    // The names of files that other processes use.
    libc::SYS_fanotify_init,
];

/// Calls that change the rights of a file, also of one that may only be read. They succeed and do nothing: kimi-code
/// gives up its login where it cannot set the rights of a renewed token, which it made with those rights. Times stay
/// open, since both programs set those of their locks and read them again.
const WITHOUT_EFFECT: &[libc::c_long] = &[
    libc::SYS_fchmod,
    libc::SYS_fchmodat,
    SYS_FCHMODAT2,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_chmod,
];

/// Calls that read extended attributes, also of a file that may not be opened. They fail as on a file system that has
/// none.
const WITHOUT_ATTRIBUTES: &[libc::c_long] = &[
    libc::SYS_getxattr,
    libc::SYS_lgetxattr,
    libc::SYS_fgetxattr,
    libc::SYS_listxattr,
    libc::SYS_llistxattr,
    libc::SYS_flistxattr,
    SYS_GETXATTRAT,
    SYS_LISTXATTRAT,
];

/// Calls whose arguments a filter cannot see. They fail as on an older kernel, and C libraries then use other calls.
const HIDDEN: &[libc::c_long] = &[libc::SYS_clone3];

/// An argument of a call, and a value of it that is refused.
const VALUES: &[(libc::c_long, u8, libc::c_int)] = &[
    // All processes of the user.
    (libc::SYS_setpriority, 0, PRIO_USER),
    (libc::SYS_ioprio_set, 0, IOPRIO_WHO_USER),
    // The program's end with its keeper.
    (libc::SYS_prctl, 0, libc::PR_SET_PDEATHSIG),
    // A lease delays writers of the file; a notification reports the changes in a folder.
    (libc::SYS_fcntl, 1, libc::F_SETLEASE),
    (libc::SYS_fcntl, 1, libc::F_NOTIFY),
];
const PRIO_USER: libc::c_int = 2;
const IOPRIO_WHO_USER: libc::c_int = 3;

/// New namespaces, in which a process has all rights.
const NAMESPACES: [libc::c_int; 7] = [
    libc::CLONE_NEWNS,
    libc::CLONE_NEWCGROUP,
    libc::CLONE_NEWUTS,
    libc::CLONE_NEWIPC,
    libc::CLONE_NEWUSER,
    libc::CLONE_NEWPID,
    libc::CLONE_NEWNET,
];

/// Calls that change a process, each with the position of the argument that names it. Only 0, the caller, is allowed.
const OF_A_PROCESS: &[(libc::c_long, u8)] = &[
    (libc::SYS_prlimit64, 0),
    (libc::SYS_sched_setaffinity, 0),
    (libc::SYS_sched_setattr, 0),
    (libc::SYS_sched_setparam, 0),
    (libc::SYS_sched_setscheduler, 0),
    (libc::SYS_migrate_pages, 0),
    (libc::SYS_move_pages, 0),
    (libc::SYS_setpriority, 1),
    (libc::SYS_ioprio_set, 1),
];

/// The families of sockets that may be opened: the network, and the kernel's answers about it. A Unix socket with
/// a path would reach the agents, buses and daemons of the user.
const FAMILIES: [libc::c_int; 3] = [libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK];

/// Kinds of `socketpair` that can be connected to a path later. Node needs the others.
const CONNECTABLE: [libc::c_int; 2] = [libc::SOCK_DGRAM, libc::SOCK_RAW];
/// The bits of a socket's type that tell its kind; the others are flags.
const KIND_OF_SOCKET: u64 = 0xf;

/// The commands of `ioctl` that are allowed: those of terminals and pipes, and those of sockets. Others change flags of
/// files that may only be read, or make folders on some file systems.
const COMMANDS: [RangeInclusive<libc::c_int>; 2] = [0x5400..=0x54ff, 0x8900..=0x89ff];
/// Settings of a terminal, as new C libraries ask for them (`TCGETS2` and `TCSETS2` with its two kinds).
const TERMINAL: [u32; 4] = [0x802c_542a, 0x402c_542b, 0x402c_542c, 0x402c_542d];
/// Commands that type into a terminal or change the machine's console (`TIOCSTI`, `TIOCLINUX`, `TIOCCONS`).
const TYPING: [libc::c_int; 3] = [0x5412, 0x541c, 0x541d];

// Too new for the table of numbers; the same on all systems.
const SYS_FCHMODAT2: libc::c_long = 452;
const SYS_SETXATTRAT: libc::c_long = 463;
const SYS_GETXATTRAT: libc::c_long = 464;
const SYS_LISTXATTRAT: libc::c_long = 465;
const SYS_REMOVEXATTRAT: libc::c_long = 466;
const SYS_FILE_SETATTR: libc::c_long = 469;

/// The numbers of calls that only x32 has. Each is a copy of another call.
const ONLY_X32: RangeInclusive<i64> = 512..=547;
/// The bit of the x32 calls of x86-64, which have numbers of their own for the same work.
const X32: libc::c_long = 0x4000_0000;

type SyscallRules = BTreeMap<i64, Vec<SeccompRule>>;

/// Compiles the filters for this machine.
pub(super) fn programs() -> Result<Vec<BpfProgram>, BackendError> {
    let whatever = |calls: &[libc::c_long]| calls.iter().map(|&call| (call, Vec::new())).collect();
    let mut rules: SyscallRules = whatever(REFUSED);
    for &(call, argument, value) in VALUES {
        rules.entry(call).or_default().push(rule([condition(argument, SeccompCmpOp::Eq, value)?])?);
    }
    for &(call, argument) in OF_A_PROCESS {
        rules.entry(call).or_default().push(rule([condition(argument, SeccompCmpOp::Ne, 0)?])?);
    }
    let other = FAMILIES.iter().map(|&family| condition(0, SeccompCmpOp::Ne, family));
    rules.insert(libc::SYS_socket, vec![rule(other.collect::<Result<Vec<_>, _>>()?)?]);
    let connectable = CONNECTABLE
        .iter()
        .map(|&kind| rule([condition(1, SeccompCmpOp::MaskedEq(KIND_OF_SOCKET), kind)?]));
    rules.insert(libc::SYS_socketpair, connectable.collect::<Result<_, _>>()?);
    let namespaces = NAMESPACES.iter().map(|&flag| {
        rule([condition(0, SeccompCmpOp::MaskedEq(u64::from(flag.cast_unsigned())), flag)?])
    });
    rules.insert(libc::SYS_clone, namespaces.collect::<Result<_, _>>()?);
    if ARCH == "x86_64" {
        rules.extend(ONLY_X32.map(|call| (call | X32, Vec::new())));
    }
    let commands = BTreeMap::from([(libc::SYS_ioctl, other_commands()?)]);
    Ok(vec![
        compiled(rules, libc::EPERM)?,
        // As for a file whose file system does not know the command.
        compiled(commands, libc::ENOTTY)?,
        compiled(whatever(WITHOUT_EFFECT), 0)?,
        compiled(whatever(WITHOUT_ATTRIBUTES), libc::ENOTSUP)?,
        compiled(whatever(HIDDEN), libc::ENOSYS)?,
    ])
}

/// The commands of `ioctl` that are refused.
fn other_commands() -> Result<Vec<SeccompRule>, BackendError> {
    let command = |operator, value| condition(1, operator, value);
    let [files, sockets] = COMMANDS;
    let mut above = vec![command(SeccompCmpOp::Gt, *sockets.end())?];
    for settings in TERMINAL {
        above.push(command(SeccompCmpOp::Ne, settings.cast_signed())?);
    }
    let between =
        [command(SeccompCmpOp::Gt, *files.end())?, command(SeccompCmpOp::Lt, *sockets.start())?];
    let below = [command(SeccompCmpOp::Lt, *files.start())?];
    let mut refused = vec![rule(above)?, rule(between)?, rule(below)?];
    for typing in TYPING {
        refused.push(rule([command(SeccompCmpOp::Eq, typing)?])?);
    }
    Ok(refused)
}

/// A filter in which the calls of these rules fail with an error; 0 lets them succeed without being made.
fn compiled(mut rules: SyscallRules, error: libc::c_int) -> Result<BpfProgram, BackendError> {
    if ARCH == "x86_64" {
        let x32 = rules.iter().map(|(call, rules)| (call | X32, rules.clone()));
        let x32: Vec<_> = x32.collect();
        rules.extend(x32);
    }
    let refuse = SeccompAction::Errno(error.cast_unsigned());
    SeccompFilter::new(rules, SeccompAction::Allow, refuse, ARCH.try_into()?)?.try_into()
}

/// A rule that holds where all conditions do.
fn rule(conditions: impl Into<Vec<SeccompCondition>>) -> Result<SeccompRule, BackendError> {
    SeccompRule::new(conditions.into())
}

fn condition(
    argument: u8,
    operator: SeccompCmpOp,
    value: libc::c_int,
) -> Result<SeccompCondition, BackendError> {
    let value = u64::from(value.cast_unsigned());
    SeccompCondition::new(argument, SeccompCmpArgLen::Dword, operator, value)
}
