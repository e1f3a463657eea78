//! The `pipelock` binary: hands the command line to the cli room and exits with its code.

fn main() -> std::process::ExitCode {
    pipelock::cli::main()
}
