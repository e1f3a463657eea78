//! Benchmarks, run by `cargo xtask bench SUITE`. Every figure stands beside another one from the same run: machines are
//! noisy, ratios less so. Results go to bench/results as Markdown.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command line program")]
#![allow(clippy::disallowed_methods, reason = "the load, not the product; without threads there is no figure")]

mod client;
mod cpu;
mod detect;
mod kernel;
mod load;
mod origin;
mod peers;
mod proxy;
mod scan;
mod setting;
mod subject;

use anyhow::{Result, bail};

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["kernel"] => kernel::run(None),
        ["kernel", part] => kernel::run(Some(part)),
        ["scan"] => scan::run(),
        ["detect", corpus, folders @ ..] => detect::run(corpus.as_ref(), folders),
        ["scan", files @ ..] => scan::files(files),
        ["proxy"] => proxy::run(None),
        ["proxy", part] => proxy::run(Some(part)),
        // What the suites start inside the cgroup: this same program.
        ["connect", addr, count] => load::connect(addr.parse()?, count.parse()?),
        ["load", route, plain, tls, roots] => client::main(route, plain.parse()?, tls.parse()?, roots),
        _ => bail!("usage: pipelock-bench kernel [connect|http|start] | proxy [PART] | scan | detect CORPUS [TREE…]"),
    }
}
