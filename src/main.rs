//! The `ravelin` command: parse what was typed, pick a command, return its exit code.

use std::process::ExitCode;

fn main() -> ExitCode {
    ravelin::cli::main()
}
