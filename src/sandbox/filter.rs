//! The system calls that a program in the sandbox may not make, since Landlock does not decide about them: they
//! reach other processes, or change files that may only be read. A refused call fails with EPERM.

use std::collections::BTreeMap;
use std::env::consts::ARCH;

use nix::libc;
use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition,
    SeccompFilter, SeccompRule,
};

/// Whether there is a filter for this processor.
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
    // Owners of files that may only be read. kimi-code needs rights and times, to renew its login.
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
];

/// Calls that change a process, and which argument names it. Only 0, the caller itself, is allowed.
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

// Too new for the table of numbers; the same on all systems.
const SYS_SETXATTRAT: libc::c_long = 463;
const SYS_REMOVEXATTRAT: libc::c_long = 466;

/// The bit of the x32 calls of x86-64, which have numbers of their own for the same work.
const X32: libc::c_long = 0x4000_0000;

/// Compiles the filter for this machine.
pub(super) fn program() -> Result<Option<BpfProgram>, BackendError> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = BTreeMap::new();
    rules.extend(REFUSED.iter().map(|&call| (call, Vec::new())));
    for &(call, argument) in OF_A_PROCESS {
        let other = condition(argument, SeccompCmpOp::Ne, 0)?;
        rules.insert(call, vec![SeccompRule::new(vec![other])?]);
    }
    let other = FAMILIES.iter().map(|&family| condition(0, SeccompCmpOp::Ne, family));
    rules.insert(libc::SYS_socket, vec![SeccompRule::new(other.collect::<Result<_, _>>()?)?]);
    let connectable = CONNECTABLE.iter().map(|&kind| {
        SeccompRule::new(vec![condition(1, SeccompCmpOp::MaskedEq(KIND_OF_SOCKET), kind)?])
    });
    rules.insert(libc::SYS_socketpair, connectable.collect::<Result<_, _>>()?);
    if ARCH == "x86_64" {
        let x32 = rules.iter().map(|(call, rules)| (call | X32, rules.clone()));
        let x32: Vec<_> = x32.collect();
        rules.extend(x32);
    }
    let refuse = SeccompAction::Errno(libc::EPERM.cast_unsigned());
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, refuse, ARCH.try_into()?)?;
    filter.try_into().map(Some)
}

fn condition(
    argument: u8,
    operator: SeccompCmpOp,
    value: libc::c_int,
) -> Result<SeccompCondition, BackendError> {
    let value = u64::from(value.cast_unsigned());
    SeccompCondition::new(argument, SeccompCmpArgLen::Dword, operator, value)
}
