//! `isotrace completions`.

use clap::CommandFactory as _;
use clap_complete::Shell;

use crate::args::Cli;
use crate::console;

/// Writes the completion script to the standard output.
pub fn run(shell: Shell) -> anyhow::Result<u8> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "isotrace", &mut script);
    console::print(&String::from_utf8(script)?)?;
    Ok(0)
}
