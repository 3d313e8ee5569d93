//! A fake Kimi for faults: one program, both dialects, and a script that says what it does.
//!
//! The program is this very test program, started under the name `kimi` with a script beside it
//! ([`play`]); so it needs nothing installed, and starts at once. It runs inside the sandbox like any
//! Kimi, and may write into its private home alone: that is where the files lie by which it and a test
//! wait for each other.

pub(crate) mod play;

use std::env;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::world::World;

/// The file that a [`Step::Hold`] makes.
pub(crate) const HERE: &str = "here";
/// The file that ends a [`Step::Hold`].
pub(crate) const GO: &str = "go";
/// The session that it names.
pub(crate) const SESSION: &str = "session-1";
/// What it says beside its call of a tool.
pub(crate) const SO_FAR: &str = "so far";
/// An answer without findings, as Kimi gives it.
pub(crate) const ANSWER: &str = r#"{"response":"r","findings":[]}"#;
/// How a text begins that is no answer.
pub(crate) const FIRST_WORDS: &str = "I would not. ";
/// How it ends.
pub(crate) const LAST_WORDS: &str = " Reject it.";
/// The script's file, beside the program.
const SCRIPT: &str = "script.json";

/// Which Kimi it passes for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Dialect {
    KimiCode,
    KimiCli,
}

impl Dialect {
    pub(crate) const ALL: [Dialect; 2] = [Dialect::KimiCode, Dialect::KimiCli];

    /// Its name on the wire.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Dialect::KimiCode => "kimi-code",
            Dialect::KimiCli => "kimi-cli",
        }
    }

    /// The variable that names its private home.
    fn home_variable(self) -> &'static str {
        match self {
            Dialect::KimiCode => "KIMI_CODE_HOME",
            Dialect::KimiCli => "KIMI_SHARE_DIR",
        }
    }
}

/// What the program does when it is asked for its version, and when it is asked a question.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Script {
    pub(crate) dialect: Dialect,
    pub(crate) version: Vec<Step>,
    pub(crate) run: Vec<Step>,
}

/// One thing that it does. What it says is held back until a step that waits or ends, so that no pause
/// falls between two lines but those of the script.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Step {
    /// Says its version.
    Version,
    /// Begins as the dialect does: kimi-code with a line, kimi-cli by reading its prompt.
    Begin,
    /// Says [`SO_FAR`] and calls the tool that reads a file, under the id `a`.
    Read,
    /// Says this, with which its turn is over.
    Say(String),
    /// Says a text without an answer, of this many characters between [`FIRST_WORDS`] and [`LAST_WORDS`].
    SayAtLength(usize),
    /// Calls a tool this many times, and is answered.
    Calls(usize),
    /// Tells of a request to the service that is tried again.
    Retry,
    /// Writes a line of JSON that no reader knows, of this many bytes.
    Foreign(usize),
    /// Says this on standard error, at once.
    Complain(String),
    /// Names [`SESSION`], where the dialect does.
    Session,
    /// Writes these bytes.
    Raw(Vec<u8>),
    /// Takes back the line ending that was said last.
    NoNewline,
    /// Writes what it said in two pieces, cut inside the first character that is not ASCII.
    Cut,
    /// Writes this many bytes without a line ending, and then one; for ever without a number.
    Line(Option<u64>),
    /// Writes harmless lines for ever.
    Flood(Pipe),
    /// Closes standard output.
    CloseStdout,
    /// Lets every later TERM pass.
    IgnoreTerm,
    /// Starts another program of its kind.
    Child(Child),
    /// Starts this many processes, some in groups and sessions of their own, each of which starts another
    /// one for every TERM.
    Bomb(usize),
    /// Stops itself, until somebody lets it go on.
    Stop,
    /// Makes an empty file in the private home.
    Mark(String),
    /// Waits for a file in the private home.
    Await(String),
    /// Makes [`HERE`] and waits for [`GO`] beside the program, or for TERM, which it survives this once.
    Hold,
    /// Waits for TERM, which it survives this once.
    AwaitTerm,
    /// Waits for ever.
    Hang,
    /// Ends with this code.
    Exit(i32),
    /// Ends by this signal, sent to itself.
    Die(Death),
}

/// One of the pipes that it writes to.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) enum Pipe {
    Stdout,
    Stderr,
}

/// A signal that it ends by.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) enum Death {
    Segv,
    Kill,
}

/// A program that it starts and does not wait for.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Child {
    pub(crate) place: Place,
    /// Whether it holds standard output and standard error open.
    pub(crate) holds_pipes: bool,
    pub(crate) steps: Vec<Step>,
}

/// Where a child stands among the processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Place {
    /// In its parent's group.
    Group,
    /// In a group of its own.
    OwnGroup,
    /// In a session of its own.
    OwnSession,
    /// In a session whose first process has ended: what a daemon does, by forking twice.
    Orphan,
}

impl Script {
    /// A program that answers `--version` as it should, and then does this.
    pub(crate) fn new(dialect: Dialect, run: Vec<Step>) -> Script {
        Script { dialect, version: vec![Step::Version], run }
    }

    /// One that answers.
    pub(crate) fn answering(dialect: Dialect) -> Script {
        Script::new(dialect, vec![Step::Begin, Step::Say(ANSWER.to_owned()), Step::Session])
    }

    /// A machine whose `kimi` follows it.
    pub(crate) fn world(&self) -> World {
        let world = World::new();
        let program = world.root().join("fake/kimi");
        fs::create_dir_all(program.parent().unwrap()).unwrap();
        symlink(env::current_exe().unwrap(), &program).unwrap();
        self.install(&world);
        // Something that leads to a model, or nothing is started.
        world.with(&[
            ("KIMI_PATH", &program.display().to_string()),
            ("KIMI_API_KEY", "sk-scripted"),
            ("KIMI_MODEL_NAME", "scripted"),
            ("KIMI_MODEL_API_KEY", "sk-scripted"),
        ])
    }

    /// Gives it to the `kimi` that is there already.
    pub(crate) fn install(&self, world: &World) {
        fs::write(world.root().join("fake").join(SCRIPT), serde_json::to_vec(self).unwrap())
            .unwrap();
    }

    /// The script beside a program, if there is one.
    fn beside(program: &Path) -> Option<Script> {
        serde_json::from_slice(&fs::read(program.with_file_name(SCRIPT)).ok()?).ok()
    }
}
