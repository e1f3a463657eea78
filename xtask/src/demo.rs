//! stub
#[derive(Debug, clap::Args)]
pub(crate) struct Args {}
pub(crate) fn main(_: &Args) -> anyhow::Result<()> {
    Ok(())
}
