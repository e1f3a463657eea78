//! Developer tasks: what plain cargo cannot do. Run as `cargo xtask …` (an alias in .cargo/config.toml).
//!
//! One file per task. Tasks say what they do on stderr; what they are asked for goes to stdout. They promise to need
//! nothing but a stable Rust toolchain at first: what else is missing is installed or named.

mod bench;
mod demo;
mod e2e;
mod ebpf;
mod fuzz;
mod readme;
mod rooms;
mod run;
mod setup;
mod size;
mod tally;
mod test;
mod vm;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Developer tasks of pipelock.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    Setup(setup::Args),
    Bench(bench::Args),
    BuildEbpf(ebpf::Args),
    Demo(demo::Args),
    Test(test::Args),
    E2e(e2e::Args),
    Fuzz(fuzz::Args),
    Rooms(rooms::Args),
    Size(size::Args),
    Readme(readme::Args),
    Vm(vm::Args),
}

fn main() -> ExitCode {
    let done = match Cli::parse().task {
        Task::Setup(args) => setup::main(&args),
        Task::Bench(args) => bench::main(&args),
        Task::BuildEbpf(args) => ebpf::main(&args),
        Task::Demo(args) => demo::main(&args),
        Task::Test(args) => test::main(&args),
        Task::E2e(args) => e2e::main(&args),
        Task::Fuzz(args) => fuzz::main(&args),
        Task::Rooms(args) => rooms::main(&args),
        Task::Size(args) => size::main(&args),
        Task::Readme(args) => readme::main(&args),
        Task::Vm(args) => vm::main(&args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            run::say(&format!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}
