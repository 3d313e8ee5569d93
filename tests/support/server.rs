//! `kimi-bridge serve` spoken to line by line, as a host does, in both protocol eras.

use std::collections::VecDeque;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use super::world::{World, running_with, wait_until};

/// How long a test waits for one line before it gives up.
const PATIENCE: Duration = Duration::from_secs(60);

/// Which way of speaking.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Era {
    /// `initialize` first.
    Legacy,
    /// No handshake; every request says who asks.
    Modern,
}

/// A server under test.
pub(crate) struct Server {
    era: Era,
    child: Child,
    stdin: Option<ChildStdin>,
    lines: Receiver<String>,
    next_id: u64,
    /// Held as long as nobody reads what the server writes.
    unheard: Option<Sender<()>>,
    /// What came before it was waited for.
    early: VecDeque<Value>,
    /// The notifications seen so far.
    pub(crate) notifications: Vec<Value>,
}

impl Server {
    /// Starts a server in the project, and greets it where the era asks for that.
    pub(crate) fn start(world: &World, era: Era) -> Server {
        Server::start_in(world, era, &world.project())
    }

    /// The same in another folder.
    pub(crate) fn start_in(world: &World, era: Era, folder: &Path) -> Server {
        let mut server = Server::spawn(world.bridge(&["serve"]).current_dir(folder), era);
        server.unheard = None;
        if era == Era::Legacy {
            let greeting = json!({"protocolVersion": "2025-06-18", "capabilities": {},
                "clientInfo": {"name": "test", "version": "1"}});
            server.request("initialize", greeting);
            server.send(&json!({"jsonrpc": "2.0", "method": "notifications/initialized"}));
        }
        server
    }

    /// Starts one for a host that is busy elsewhere: it reads nothing until a while after it has left.
    pub(crate) fn start_unheard(world: &World, era: Era) -> Server {
        Server::spawn(&mut world.bridge(&["serve"]), era)
    }

    fn spawn(command: &mut Command, era: Era) -> Server {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = channel();
        let (unheard, heard) = channel();
        std::thread::spawn(move || {
            // Nothing is ever sent: it returns when the other end is dropped.
            let _ = heard.recv();
            for line in stdout.lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        let stdin = child.stdin.take();
        Server {
            era,
            child,
            stdin,
            lines,
            next_id: 0,
            unheard: Some(unheard),
            early: VecDeque::new(),
            notifications: Vec::new(),
        }
    }

    /// The process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The keepers that this server started.
    pub(crate) fn keepers(&self) -> Vec<(Pid, String)> {
        running_with(&format!(" confine {} ", self.pid()))
    }

    /// The most memory that it has taken so far, bytes.
    #[cfg(target_os = "linux")]
    pub(crate) fn peak_memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        peak.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
    }

    /// Sends a request and returns its id.
    pub(crate) fn ask(&mut self, method: &str, mut params: Value) -> u64 {
        self.next_id += 1;
        if self.era == Era::Modern {
            params["_meta"]["io.modelcontextprotocol/protocolVersion"] = json!("2026-07-28");
            params["_meta"]["io.modelcontextprotocol/clientInfo"] =
                json!({"name": "test", "version": "1"});
            params["_meta"]["io.modelcontextprotocol/clientCapabilities"] = json!({});
        }
        let id = self.next_id;
        self.send(&json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params}));
        id
    }

    /// Starts one that no host has greeted.
    pub(crate) fn start_ungreeted(world: &World) -> Server {
        let mut server = Server::start_unheard(world, Era::Legacy);
        server.unheard = None;
        server
    }

    /// Sends a line of any bytes.
    pub(crate) fn send_bytes(&mut self, line: &[u8]) {
        let stdin = self.stdin.as_mut().unwrap();
        stdin.write_all(line).and_then(|()| stdin.write_all(b"\n")).unwrap();
    }

    /// Sends any line.
    pub(crate) fn send(&mut self, message: &Value) {
        writeln!(self.stdin.as_mut().unwrap(), "{message}").unwrap();
    }

    /// Waits for the answer to a request: its `result`, or its `error`.
    #[track_caller]
    pub(crate) fn answer(&mut self, id: u64) -> Value {
        if let Some(at) = self.early.iter().position(|message| message["id"] == id) {
            return outcome(&self.early.remove(at).unwrap());
        }
        loop {
            let line = self.lines.recv_timeout(PATIENCE).expect("the server answers");
            let message: Value =
                serde_json::from_str(&line).expect("stdout holds the protocol only");
            if message.get("id").is_none() {
                self.notifications.push(message);
            } else if message["id"] == id {
                return outcome(&message);
            } else {
                self.early.push_back(message);
            }
        }
    }

    /// Asks and waits.
    #[track_caller]
    pub(crate) fn request(&mut self, method: &str, params: Value) -> Value {
        let id = self.ask(method, params);
        self.answer(id)
    }

    /// Calls a tool and waits.
    #[track_caller]
    pub(crate) fn call(&mut self, tool: &str, arguments: &Value) -> Value {
        self.request("tools/call", json!({"name": tool, "arguments": arguments}))
    }

    /// Waits until a notification has come for which the test holds.
    #[track_caller]
    pub(crate) fn wait_for(&mut self, test: impl Fn(&Value) -> bool) {
        while !self.notifications.iter().any(&test) {
            let line = self.lines.recv_timeout(PATIENCE).expect("the server says something");
            let message: Value = serde_json::from_str(&line).unwrap();
            if message.get("id").is_none() {
                self.notifications.push(message);
            } else {
                self.early.push_back(message);
            }
        }
    }

    /// Closes the input and waits for the end; the lines that came meanwhile are returned too.
    pub(crate) fn close(mut self) -> (ExitStatus, Vec<Value>) {
        drop(self.stdin.take());
        self.last_lines()
    }

    /// Sends a signal and waits for the end; the lines that came meanwhile are returned too.
    pub(crate) fn signal(mut self, signal: Signal) -> (ExitStatus, Vec<Value>) {
        let pid = Pid::from_raw(self.pid().cast_signed()).unwrap();
        kill_process(pid, signal).unwrap();
        self.last_lines()
    }

    fn last_lines(&mut self) -> (ExitStatus, Vec<Value>) {
        if let Some(unheard) = self.unheard.take() {
            std::thread::sleep(Duration::from_millis(300));
            drop(unheard);
        }
        let status = self.ended();
        let rest = self.lines.iter().filter_map(|line| match serde_json::from_str(&line) {
            Ok(message) => Some(message),
            Err(error) => {
                // Only one that is killed may leave half a line.
                assert_eq!(status.code(), None, "{error}: {line}");
                None
            }
        });
        (status, std::mem::take(&mut self.early).into_iter().chain(rest).collect())
    }

    #[track_caller]
    fn ended(&mut self) -> ExitStatus {
        let mut status = None;
        wait_until("the server ends", || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        wait_until("its keepers end", || self.keepers().is_empty());
        status.unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The result or the error of an answer.
pub(crate) fn outcome(message: &Value) -> Value {
    message.get("result").or_else(|| message.get("error")).cloned().unwrap_or_default()
}
