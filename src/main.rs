//! The `ravelin` command: parse what was typed, pick a command, return its exit code.

use std::process::ExitCode;

/// Requests allocate a score of small blocks that live and die on one thread, which is what it is best at.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    ravelin::cli::main()
}
