//! The fake Kimi at work: plays the script that lies beside it.

use std::convert::Infallible;
use std::env;
use std::fs;
use std::io::{self, Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Command, Stdio, exit};
use std::thread::sleep;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, poll};
use nix::sys::signal::{SigSet, Signal, raise};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::unistd::{alarm, pause};
use serde_json::json;

use super::{
    Child, Death, Dialect, FIRST_WORDS, GO, HERE, LAST_WORDS, Pipe, Place, SESSION, SO_FAR, Script,
    Step,
};

/// The argument that makes it a child with the steps that follow.
pub(crate) const AS_CHILD: &str = "--as-child";
/// What a [`Step::Bomb`] runs, with the program's path for a name and how many there are to be.
const BOMB: &str = r#"
    lurk() { local end=$((SECONDS + 600)); while ((SECONDS < end)); do read -r -t 600 -u 9 _; done; }
    bear() { trap '(trap "" TERM; lurk) &' TERM; lurk; }
    exec 9<&0
    for ((one = 0; one < $1; one++)); do
        case $((one % 20)) in
            0) setsid bash -c "$(declare -f lurk bear); bear" "$0" & ;;
            [1-9]) set -m; (bear) & set +m ;;
            *) (bear) & ;;
        esac
    done
"#;
/// Between two looks at a file that is waited for, milliseconds.
const MOMENT: u8 = 10;
/// Longer than any test waits, seconds: nobody is left for ever where the tests failed or were killed.
const EVER: u32 = 600;

/// Plays, when this process was started as the fake, and does not return then.
pub(crate) fn if_asked() {
    let mut args = env::args_os();
    let Some(program) = args.next().map(PathBuf::from) else { return };
    if program.file_name().is_none_or(|name| name != "kimi") {
        return;
    }
    let Some(script) = Script::beside(&program) else { return };
    alarm::set(EVER);
    let player = Player { program, dialect: script.dialect, said: Vec::new(), deaf: false };
    let mut args = args.map(|arg| arg.to_string_lossy().into_owned());
    let Err(error) = match args.next().as_deref() {
        Some("--version") => player.play(script.version),
        Some(AS_CHILD) => player.play_child(&args.next().unwrap_or_default()),
        _ => player.play(script.run),
    };
    // Whoever read what it wrote has left, most likely.
    let _ = writeln!(io::stderr(), "the fake Kimi: {error}");
    exit(1)
}

struct Player {
    program: PathBuf,
    dialect: Dialect,
    /// What was said and not yet written.
    said: Vec<u8>,
    /// Whether TERM passes it by.
    deaf: bool,
}

impl Player {
    fn play(mut self, steps: Vec<Step>) -> io::Result<Infallible> {
        for step in steps {
            self.step(step)?;
        }
        self.exit(0)
    }

    fn play_child(mut self, order: &str) -> io::Result<Infallible> {
        let child: Child = serde_json::from_str(order)?;
        match child.place {
            Place::Group | Place::OwnGroup => self.play(child.steps),
            Place::OwnSession => {
                rustix::process::setsid()?;
                self.play(child.steps)
            }
            Place::Orphan => {
                rustix::process::setsid()?;
                self.start(&Child { place: Place::Group, ..child })?;
                self.exit(0)
            }
        }
    }

    fn step(&mut self, step: Step) -> io::Result<()> {
        match step {
            Step::Version => self.say_version(),
            Step::Begin => self.begin()?,
            Step::Read => self.say_read(),
            Step::Say(text) => self.say_line(&json!({"role": "assistant", "content": text})),
            Step::SayAtLength(length) => {
                let text = [FIRST_WORDS, &"x".repeat(length), LAST_WORDS].concat();
                self.say_line(&json!({"role": "assistant", "content": text}));
            }
            Step::Calls(count) => self.say_calls(count),
            Step::Retry => self.say_line(&json!({"role": "meta", "type": "turn.step.retrying",
                "next_attempt": 2, "max_attempts": 10, "delay_ms": 60_000,
                "error_message": "429 slow down", "status_code": 429})),
            Step::Foreign(bytes) => {
                let ones = "1,".repeat((bytes - "{\"a\":[1]}".len()) / 2);
                self.said.extend(format!("{{\"a\":[{ones}1]}}\n").bytes());
            }
            Step::Bomb(count) => {
                self.write()?;
                // A pipe that holds itself open and never says anything is what they wait for.
                let (silent, held) = io::pipe()?;
                let mut bomb = Command::new("bash");
                bomb.args(["-c", BOMB]).arg(&self.program).arg(count.to_string());
                bomb.stdin(silent).stdout(held).stderr(Stdio::null()).status()?;
            }
            Step::Stop => {
                self.write()?;
                raise(Signal::SIGSTOP)?;
            }
            Step::Complain(text) => writeln!(io::stderr(), "{text}")?,
            Step::Session => self.say_session()?,
            Step::Raw(bytes) => self.said.extend(bytes),
            Step::NoNewline => drop(self.said.pop()),
            Step::Cut => self.cut()?,
            Step::Line(bytes) => self.line(bytes)?,
            Step::Flood(pipe) => self.flood(pipe)?,
            Step::CloseStdout => {
                self.write()?;
                rustix::stdio::dup2_stdout(fs::File::options().write(true).open("/dev/null")?)?;
            }
            Step::IgnoreTerm => {
                // Blocked is as good as ignored, and leaves nothing to a handler.
                self.deaf = true;
                SigSet::from(Signal::SIGTERM).thread_block()?;
            }
            Step::Child(child) => {
                self.write()?;
                self.start(&child)?;
            }
            Step::Mark(name) => {
                self.write()?;
                self.mark(&name)?;
            }
            Step::Await(name) => {
                self.write()?;
                while !self.home()?.join(&name).exists() {
                    sleep(Duration::from_millis(MOMENT.into()));
                }
            }
            Step::Hold => self.hold(Some(HERE), Some(GO))?,
            Step::AwaitTerm => self.hold(None, None)?,
            Step::Hang => {
                self.write()?;
                loop {
                    pause();
                }
            }
            Step::Exit(code) => return self.exit(code).map(|_| ()),
            Step::Die(death) => {
                self.write()?;
                let signal = match death {
                    Death::Segv => Signal::SIGSEGV,
                    Death::Kill => Signal::SIGKILL,
                };
                loop {
                    // The first SIGSEGV only takes Rust's own handler away.
                    raise(signal)?;
                }
            }
        }
        Ok(())
    }

    fn say_line(&mut self, line: &serde_json::Value) {
        self.said.extend(line.to_string().bytes());
        self.said.push(b'\n');
    }

    fn say_version(&mut self) {
        self.said.extend(match self.dialect {
            Dialect::KimiCode => &b"2.1.0\n"[..],
            Dialect::KimiCli => b"kimi, version 1.51.0\n",
        });
    }

    fn begin(&mut self) -> io::Result<()> {
        match self.dialect {
            Dialect::KimiCode => {
                self.said.extend(STARTED.bytes());
                Ok(())
            }
            Dialect::KimiCli => io::stdin().read_to_end(&mut Vec::new()).map(drop),
        }
    }

    fn say_read(&mut self) {
        let function = self.reading();
        let content = match self.dialect {
            Dialect::KimiCode => json!(SO_FAR),
            Dialect::KimiCli => json!([{"type": "text", "text": SO_FAR}]),
        };
        self.say_line(&json!({"role": "assistant", "content": content,
            "tool_calls": [{"type": "function", "id": "a", "function": function}]}));
    }

    fn say_calls(&mut self, count: usize) {
        let function = self.reading();
        for id in (0..count).map(|number| number.to_string()) {
            self.say_line(&json!({"role": "assistant", "content": [],
                "tool_calls": [{"type": "function", "id": id, "function": function}]}));
            self.say_line(
                &json!({"role": "tool", "tool_call_id": id, "content": "1\tuse std::fs;\n"}),
            );
        }
    }

    /// The call of the tool that reads a file.
    fn reading(&self) -> serde_json::Value {
        let name = match self.dialect {
            Dialect::KimiCode => "Read",
            Dialect::KimiCli => "ReadFile",
        };
        json!({"name": name, "arguments": json!({"path": "src/store.rs"}).to_string()})
    }

    fn say_session(&mut self) -> io::Result<()> {
        let resume = format!("To resume this session: kimi -r {SESSION}");
        match self.dialect {
            Dialect::KimiCode => {
                self.say_line(&json!({"role": "meta", "type": "session.resume_hint",
                    "session_id": SESSION, "command": format!("kimi -r {SESSION}"), "content": resume}));
                Ok(())
            }
            Dialect::KimiCli => writeln!(io::stderr(), "\n{resume}"),
        }
    }

    /// Writes what was said.
    fn write(&mut self) -> io::Result<()> {
        let mut stdout = io::stdout().lock();
        stdout.write_all(&std::mem::take(&mut self.said))?;
        stdout.flush()
    }

    fn cut(&mut self) -> io::Result<()> {
        let inside = self.said.iter().position(|byte| !byte.is_ascii()).map_or(0, |at| at + 1);
        let rest = self.said.split_off(inside);
        self.write()?;
        // Long enough for the first piece to be read alone, most of the time.
        sleep(Duration::from_millis(50));
        self.said = rest;
        self.write()
    }

    fn line(&mut self, bytes: Option<u64>) -> io::Result<()> {
        self.write()?;
        let mut stdout = io::stdout().lock();
        io::copy(&mut io::repeat(b'x').take(bytes.unwrap_or(u64::MAX)), &mut stdout)?;
        writeln!(stdout)
    }

    fn flood(&mut self, pipe: Pipe) -> io::Result<()> {
        self.write()?;
        // As much as is written to a pipe in one piece: another writer's lines stay whole.
        let piece = match pipe {
            Pipe::Stdout => STARTED.repeat(4096 / STARTED.len()),
            Pipe::Stderr => "a warning of no interest\n".repeat(160),
        };
        loop {
            match pipe {
                Pipe::Stdout => io::stdout().write_all(piece.as_bytes())?,
                Pipe::Stderr => io::stderr().write_all(piece.as_bytes())?,
            }
        }
    }

    /// Waits for a file or TERM, whichever comes first. Whoever finds the mark may end this process.
    fn hold(&mut self, mark: Option<&str>, until: Option<&str>) -> io::Result<()> {
        self.write()?;
        let term = SigSet::from(Signal::SIGTERM);
        term.thread_block()?;
        let signals = SignalFd::with_flags(&term, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?;
        if let Some(mark) = mark {
            self.mark(mark)?;
        }
        let until = until.map(|name| self.program.with_file_name(name));
        while !until.as_ref().is_some_and(|file| file.exists()) {
            if signals.read_signal()?.is_some() {
                break;
            }
            let mut wanted = [PollFd::new(signals.as_fd(), PollFlags::POLLIN)];
            poll(&mut wanted, MOMENT)?;
        }
        if !self.deaf {
            term.thread_unblock()?;
        }
        Ok(())
    }

    fn start(&self, child: &Child) -> io::Result<()> {
        let mut command = Command::new(&self.program);
        command.arg(AS_CHILD).arg(serde_json::to_string(child)?).stdin(Stdio::null());
        if !child.holds_pipes {
            command.stdout(Stdio::null()).stderr(Stdio::null());
        }
        if child.place == Place::OwnGroup {
            command.process_group(0);
        }
        let mut started = command.spawn()?;
        if child.place == Place::Orphan {
            started.wait()?;
        }
        Ok(())
    }

    fn home(&self) -> io::Result<PathBuf> {
        let home = env::var_os(self.dialect.home_variable());
        home.map(PathBuf::from).ok_or_else(|| io::Error::other("there is no private home"))
    }

    fn mark(&self, name: &str) -> io::Result<()> {
        fs::write(self.home()?.join(name), "")
    }

    fn exit(&mut self, code: i32) -> io::Result<Infallible> {
        self.write()?;
        exit(code)
    }
}

/// kimi-code's first line, which tells nothing.
const STARTED: &str = "{\"role\":\"meta\",\"type\":\"system.version\",\"version\":\"2.1.0\"}\n";
