//! Where text goes: the two streams, their colours and width.

use std::io::{self, IsTerminal, Write};

use crate::args::Color;

/// The standard output as a reader sees it.
#[derive(Debug, Clone, Copy)]
pub struct Console {
    /// Whether to write colours to it.
    pub colour: bool,
    /// Its columns.
    pub width: usize,
    /// Whether somebody is looking.
    pub terminal: bool,
}

/// Columns where there is no terminal: lines of a log, in which names are better whole.
const WIDTH: usize = 120;

impl Console {
    /// What the standard output is.
    pub fn new(color: Color) -> Self {
        let stdout = io::stdout();
        let terminal = stdout.is_terminal();
        let colour = match color {
            Color::Always => true,
            Color::Never => false,
            // Heeds NO_COLOR, CLICOLOR, CLICOLOR_FORCE and TERM=dumb.
            Color::Auto => anstream::AutoStream::choice(&stdout) != anstream::ColorChoice::Never,
        };
        let width = terminal_size::terminal_size_of(&stdout).map_or(WIDTH, |(w, _)| usize::from(w.0));
        Self { colour, width, terminal }
    }
}

/// Writes to the standard output. A reader that has gone (`| head`) is no error.
pub fn print(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result,
    }
}

/// Writes one line to the standard error; there is nobody left to tell if that fails.
pub fn complain(head: &str, message: &str) {
    let stderr = io::stderr();
    let colour = anstream::AutoStream::choice(&stderr) != anstream::ColorChoice::Never;
    let style = anstyle::AnsiColor::Red.on_default().bold();
    let head = if colour { format!("{style}{head}{style:#}") } else { head.to_owned() };
    let message = message.split('\n').map(str::trim).filter(|l| !l.is_empty()).collect::<Vec<_>>().join("; ");
    let _ = writeln!(stderr.lock(), "{head} {}", isotrace_report::printable(&message));
}
