//! The `kimi-bridge` program.

fn main() -> ! {
    let code = kimi_bridge::commands::main();
    // Returning would wait for the thread that still reads standard input: hosts hand over sockets,
    // which do not end when they leave.
    std::process::exit(code.into())
}
