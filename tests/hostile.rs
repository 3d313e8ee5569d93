//! A model that was talked into using its five tools against the user, in both programs, with the sandbox and without
//! it: the hook refuses what lies outside of the project.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::support::answers::say_verdict;
use crate::support::kimi::Real;
use crate::support::model::{Model, Step};
use crate::support::world::World;
use crate::support::{both, one};

pub(crate) fn tests() -> Vec<Trial> {
    both("hostile::a_model_reads_nothing_of_the_home", reads)
        .into_iter()
        .chain(both("hostile::a_model_searches_no_secret_file", searches))
        .chain(both("hostile::a_model_fetches_nothing_of_this_machine", fetches))
        .chain([
            one(
                "hostile::a_model_fetches_through_a_proxy_on_loopback",
                Real::KimiCode,
                through_a_proxy,
            ),
            one("hostile::a_model_reads_its_own_long_output", Real::KimiCode, a_long_output),
        ])
        .collect()
}

/// The two ways in which the user may run Kimi.
const SANDBOX: [&str; 2] = ["required", "off"];

/// Returns everything that the model was shown when it makes these calls.
#[track_caller]
fn shown(
    real: Real,
    program: &Path,
    sandbox: &str,
    prepare: impl Fn(&World) -> Vec<(&'static str, Value)>,
) -> String {
    // The calls name places that are known only when the world is there.
    let calls = Arc::new(std::sync::Mutex::new(Vec::new()));
    let model = Model::start_with({
        let calls = Arc::clone(&calls);
        move |_, nth| match nth {
            0 => Step::Calls(calls.lock().unwrap().clone()),
            _ => say_verdict(),
        }
    });
    let world = World::with_real(real, program, &model).with(&[("KIMI_BRIDGE_SANDBOX", sandbox)]);
    let world = world.with(&[("KIMI_BRIDGE_READABLE", "~/open")]);
    *calls.lock().unwrap() = prepare(&world);
    let ran = world.consult(&[]);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    model.requests().last().unwrap().to_string()
}

fn write(path: &Path, text: &str) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

fn reads(real: Real, program: &Path) {
    for sandbox in SANDBOX {
        let seen = shown(real, program, sandbox, |world| {
            let (home, state) = (world.home(), world.state());
            let other = "sessions/w/other/agents/main/tool-results/x";
            let closed = [
                home.join(".bashrc"),
                home.join("other/main.rs"),
                home.join(".config/gh/note"),
                home.join(".kimi-code/mark"),
                home.join(".kimi/mark"),
                state.join("mark"),
                state.join("homes/kimi-code").join(other),
                state.join("homes/kimi-cli").join(other),
                world.root().join("elsewhere/a"),
            ];
            for (number, path) in closed.iter().enumerate() {
                write(path, &format!("planted-{number}\n"));
                assert!(fs::read_to_string(path).unwrap().contains("planted"), "the control");
            }
            std::os::unix::fs::symlink("../other", world.project().join("link")).unwrap();
            let open = [world.project().join("a.txt"), home.join("open/b.txt")];
            for (number, path) in open.iter().enumerate() {
                write(path, &format!("open-{number}\n"));
            }
            let mut paths: Vec<String> =
                closed.iter().chain(&open).map(|path| path.display().to_string()).collect();
            let private = world.private_home(real.name()).join("config.toml");
            paths.push(private.display().to_string());
            for path in [
                "~/.bashrc",
                "../other/main.rs",
                "link/main.rs",
                "/proc/self/environ",
                "src/../../.bashrc",
            ] {
                paths.push(path.to_owned());
            }
            let mut calls: Vec<_> =
                paths.iter().map(|path| (real.read_tool(), json!({"path": path}))).collect();
            for folder in [home, state] {
                let search =
                    json!({"pattern": "planted", "path": folder, "output_mode": "content"});
                calls.push(("Grep", search));
            }
            calls
        });
        assert!(!seen.contains("planted-"), "{sandbox}: {seen}");
        assert!(
            !seen.contains("telemetry = false") && !seen.contains("RUN_DIR="),
            "{sandbox}: {seen}"
        );
        for number in 0..2 {
            assert!(seen.contains(&format!("open-{number}")), "{sandbox}: {seen}");
        }
    }
}

fn searches(real: Real, program: &Path) {
    for sandbox in SANDBOX {
        let seen = shown(real, program, sandbox, |world| {
            let project = world.project();
            for (number, path) in
                ["conf/prod.tfvars", "conf/deep/.npmrc", "ID_RSA"].into_iter().enumerate()
            {
                write(&project.join(path), &format!("needle planted-{number}\n"));
            }
            write(&project.join("conf/open.txt"), "needle open-0\n");
            write(&project.join("conf/open.rs"), "needle open-1\n");
            std::os::unix::fs::symlink("conf", project.join("link")).unwrap();
            let search = |path: &str, glob: Option<&str>| {
                let path = project.join(path);
                let mut input = json!({"pattern": "needle", "path": path, "output_mode": "content", "include_ignored": true});
                if let Some(glob) = glob {
                    input["glob"] = json!(glob);
                }
                ("Grep", input)
            };
            let oddly = |path: &str| {
                let input = json!({"pattern": "needle", "path": path, "output_mode": "content"});
                ("Grep", input)
            };
            vec![
                search("", None),
                search("conf", Some("*.rs")),
                search("", Some("*")),
                search("", Some("**/*")),
                search("conf", Some("*.tfvars")),
                search("conf", Some("{a,prod}.tfvars")),
                search("conf", Some(".*")),
                search("link", None),
                search("conf/prod.tfvars", None),
                search("", Some("ID_*")),
                search("conf/..", None),
                search("conf/deep/../", None),
                oddly(&format!("/{}", project.display())),
                oddly(&format!("{}//conf", project.display())),
                oddly("conf/.."),
                oddly("././."),
                oddly("../tally"),
                oddly("~/tally/conf/../"),
                (
                    "Grep",
                    json!({"pattern": "needle", "output_mode": "content", "glob": "*", "aaa": "conf"}),
                ),
                (
                    "Grep",
                    json!({"pattern": "needle", "output_mode": "content", "glob": "*", "-A": "3"}),
                ),
                (
                    "Grep",
                    json!({"aaa": "conf/deep", "pattern": "needle", "path": "conf/..", "output_mode": "content"}),
                ),
            ]
        });
        assert!(!seen.contains("planted-"), "{sandbox}: {seen}");
        for number in 0..2 {
            assert!(seen.contains(&format!("open-{number}")), "{sandbox}: {seen}");
        }
    }
}

/// A server that answers everything with this text, and the number of requests so far.
fn serve(text: &'static str) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let (address, asked) = (listener.local_addr().unwrap(), Arc::new(AtomicUsize::new(0)));
    let count = Arc::clone(&asked);
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            count.fetch_add(1, Ordering::SeqCst);
            let mut stream = stream;
            let mut lines =
                BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok);
            // A proxy is first told where to connect.
            let mut head =
                || lines.by_ref().take_while(|line| !line.is_empty()).collect::<Vec<_>>();
            if head().first().is_some_and(|line| line.starts_with("CONNECT ")) {
                let _ = stream.write_all(b"HTTP/1.1 200 Connection Established\r\n\r\n");
                head();
            }
            let _ = write!(
                stream,
                "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{text}",
                text.len()
            );
        }
    });
    (address, asked)
}

fn fetches(real: Real, program: &Path) {
    for sandbox in SANDBOX {
        let (address, asked) = serve("planted-0");
        let port = address.port();
        let seen = shown(real, program, sandbox, |_| {
            let url = |host: &str| format!("http://{host}:{port}/");
            let hosts = [
                "127.0.0.1",
                "localhost",
                "127.1",
                "[::ffff:127.0.0.1]",
                "0.0.0.0",
                "2130706433",
                "x@127.0.0.1",
            ];
            hosts.map(|host| ("FetchURL", json!({"url": url(host)}))).to_vec()
        });
        assert!(!seen.contains("planted-"), "{sandbox}: {seen}");
        assert_eq!(asked.load(Ordering::SeqCst), 0, "{sandbox}");
        // The control.
        let mut stream = TcpStream::connect(address).unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        assert!(text.ends_with("planted-0"), "{text}");
    }
}

fn through_a_proxy(real: Real, program: &Path) {
    let (address, asked) = serve("the words of the proxy");
    let url = json!({"url": "http://1.1.1.1/"});
    let model = Model::start(vec![Step::Calls(vec![("FetchURL", url)]), say_verdict()]);
    let proxy = format!("http://{address}");
    let world = World::with_real(real, program, &model).with(&[("http_proxy", &proxy)]);
    let ran = world.consult(&[]);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let seen = model.requests().last().unwrap().to_string();
    assert!(seen.contains("the words of the proxy"), "{seen}");
    assert_eq!(asked.load(Ordering::SeqCst), 1);
}

fn a_long_output(real: Real, program: &Path) {
    for sandbox in SANDBOX {
        let model = Model::start_with(|request, nth| match nth {
            0 => {
                let search = json!({"pattern": "needle", "path": "long.txt", "output_mode": "content", "head_limit": 0});
                Step::Calls(vec![("Grep", search)])
            }
            1 => {
                let text = request.to_string();
                let path =
                    text.split("output_path: ").nth(1).unwrap_or_else(|| panic!("no path: {text}"));
                let path = path.split("\\n").next().unwrap();
                Step::Calls(vec![(
                    "Read",
                    json!({"path": path, "line_offset": 2_000, "n_lines": 1}),
                )])
            }
            _ => say_verdict(),
        });
        let world =
            World::with_real(real, program, &model).with(&[("KIMI_BRIDGE_SANDBOX", sandbox)]);
        let lines: Vec<String> =
            (0..3_000).map(|n| format!("needle {n} {}", "x".repeat(30))).collect();
        write(&world.project().join("long.txt"), &lines.join("\n"));
        let ran = world.consult(&[]);
        assert_eq!(ran.code, Some(0), "{ran:?}");
        let requests = model.requests();
        let last = requests.last().unwrap()["messages"].as_array().unwrap();
        let results: Vec<String> =
            last.iter().filter(|m| m["role"] == "tool").map(ToString::to_string).collect();
        assert!(
            results[1].contains("needle 1999") || results[1].contains("needle 2000"),
            "{results:#?}"
        );
    }
}
