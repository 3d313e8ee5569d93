//! System calls that no shell command makes: the test program itself tries one under the name `attempt`, and exits
//! with 0 when it got through.

use std::env;
use std::io::Write as _;
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::exit;

use nix::libc;
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, UnixAddr, sendto, socketpair};
use rustix::fs::{Mode, OFlags};
use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};

use super::world::{World, place};

const NAME: &str = "attempt";

/// Puts the program beside the world's `kimi`, where a script finds it as `"${0%/*}/attempt"`.
pub(crate) fn install(world: &World) {
    let folder = world.root().join("fake");
    std::fs::create_dir_all(&folder).unwrap();
    place(&env::current_exe().unwrap(), &folder.join(NAME));
}

/// Makes the attempt that the arguments name, when this process was started for one, and does not return then.
pub(crate) fn if_asked() {
    let args: Vec<String> = env::args().collect();
    if Path::new(&args[0]).file_name().is_none_or(|name| name != NAME) {
        return;
    }
    let args: Vec<&str> = args.iter().skip(1).map(String::as_str).collect();
    match attempt(&args) {
        Ok(()) => exit(0),
        Err(error) => {
            eprintln!("attempt: {error}");
            exit(1)
        }
    }
}

fn attempt(args: &[&str]) -> std::io::Result<()> {
    let process = |text: &str| Pid::from_raw(text.parse().unwrap()).unwrap();
    let number = |pid: &str| pid.parse::<libc::c_long>().unwrap();
    match *args {
        ["stream", path] => UnixStream::connect(path)?.write_all(b"x"),
        ["datagram", path] => {
            let (one, _other) =
                socketpair(AddressFamily::Unix, SockType::Datagram, None, SockFlag::empty())?;
            sendto(one.as_raw_fd(), b"x", &UnixAddr::new(path)?, MsgFlags::empty())?;
            Ok(())
        }
        ["limits", pid] => {
            let Rlimit { maximum, .. } = getrlimit(Resource::Core);
            let limit = Rlimit { current: Some(0), maximum };
            prlimit(Some(process(pid)), Resource::Core, limit).map(drop).map_err(Into::into)
        }
        ["priority", pid] => {
            rustix::process::setpriority_process(Some(process(pid)), 5).map_err(Into::into)
        }
        ["affinity", pid] => {
            let pid = nix::unistd::Pid::from_raw(pid.parse().unwrap());
            let cpus = nix::sched::sched_getaffinity(nix::unistd::Pid::from_raw(0))?;
            nix::sched::sched_setaffinity(pid, &cpus).map_err(Into::into)
        }
        ["input_priority", pid] => {
            // The best-effort class, level 7.
            raw(libc::SYS_ioprio_set, [1, number(pid), (2 << 13) | 7])
        }
        ["attribute", path] => {
            let flags = rustix::fs::XattrFlags::empty();
            rustix::fs::setxattr(path, "user.planted", b"x", flags).map_err(Into::into)
        }
        ["flag", path] => {
            let file = std::fs::File::open(path)?;
            let flags = rustix::fs::ioctl_getflags(&file);
            let flags = flags.unwrap_or(rustix::fs::IFlags::empty()) | rustix::fs::IFlags::NODUMP;
            rustix::fs::ioctl_setflags(&file, flags).map_err(Into::into)
        }
        ["shared_memory"] => {
            let key = 0x6b69_0000 + libc::c_long::from(rustix::process::geteuid().as_raw());
            raw(libc::SYS_shmget, [key, 4096, 0o1600])
        }
        ["key_ring"] => raw(libc::SYS_keyctl, [0, -3, 1]),
        // A null pointer.
        ["ring"] => allowed(libc::EFAULT, libc::SYS_io_uring_setup, [1, 0, 0]),
        ["read_attributes", path] => {
            let mut names = [0_u8; 1024];
            rustix::fs::listxattr(path, &mut names).map(drop).map_err(Into::into)
        }
        // A class that does not exist: EINVAL tells that the call itself is allowed.
        ["input_priority_of_all"] => allowed(libc::EINVAL, libc::SYS_ioprio_set, [3, 0, 7 << 13]),
        ["namespace"] => {
            let flags = libc::CLONE_NEWUSER | libc::CLONE_FS;
            allowed(libc::EINVAL, libc::SYS_clone, [flags.into(), 0, 0])
        }
        ["lease", path] => {
            let file = std::fs::File::open(path)?;
            raw(libc::SYS_fcntl, [file.as_raw_fd().into(), libc::F_SETLEASE.into(), 0])
        }
        // FAN_REPORT_FID
        ["notifications"] => raw(libc::SYS_fanotify_init, [0x200, 0, 0]),
        ["outlive_the_keeper"] => raw(libc::SYS_prctl, [libc::PR_SET_PDEATHSIG.into(), 0, 0]),
        ["deep", folder] => deep(folder),
        ["remove", folder] => std::fs::remove_dir_all(folder),
        ref other => panic!("there is no attempt {other:?}"),
    }
}

/// Makes a call whose arguments are wrong: this error tells that the call itself is allowed.
fn allowed(error: i32, call: libc::c_long, args: [libc::c_long; 3]) -> std::io::Result<()> {
    match raw(call, args) {
        Err(why) if why.raw_os_error() == Some(error) => Ok(()),
        other => other,
    }
}

/// Makes a tree of 3,000 levels, some of which only root may open, whom rights do not stop.
fn deep(folder: &str) -> std::io::Result<()> {
    let open = |folder: std::os::fd::BorrowedFd<'_>, name: &str| {
        rustix::fs::openat(folder, name, OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
    };
    let mut folder = open(rustix::fs::CWD, folder)?;
    for level in 0..3_000 {
        let name = if level == 0 { "deep" } else { "d" };
        let is_closed = level % 100 == 99 && rustix::process::geteuid().is_root();
        let mode = if is_closed { Mode::empty() } else { Mode::RWXU };
        rustix::fs::mkdirat(&folder, name, mode)?;
        let next = open(folder.as_fd(), name)?;
        folder = next;
    }
    Ok(())
}

#[expect(unsafe_code, reason = "calls that no crate offers, with plain numbers for arguments")]
fn raw(call: libc::c_long, [a, b, c]: [libc::c_long; 3]) -> std::io::Result<()> {
    // SAFETY: none of the calls above reads or writes memory of this process.
    let result = unsafe { libc::syscall(call, a, b, c) };
    if result < 0 { Err(std::io::Error::last_os_error()) } else { Ok(()) }
}
