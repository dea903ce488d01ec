//! Standard output and standard error.
//!
//! `println!` ends the program with a panic where a reader has left; everything here returns that as an error.

use serde::Serialize;
use std::io::{self, IsTerminal, Write};

/// Whether `stream` is a terminal that wants colours (<https://no-color.org>).
fn coloured(stream: &impl IsTerminal) -> bool {
    stream.is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty())
}

/// `text` between the escape sequence `code` and its end, where `stream` shows colours.
fn styled(stream: &impl IsTerminal, code: &str, text: &str) -> String {
    if coloured(stream) { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
}

/// `text` as a heading on standard output: bold on a terminal.
pub fn heading(text: &str) -> String {
    styled(&io::stdout(), "1", text)
}

/// Reports an error on standard error.
pub fn error(reason: &str) {
    note(&format!("{} {reason}", styled(&io::stderr(), "1;31", "error:")));
}

/// Writes a line to standard error. Where that is closed there is nobody to tell.
pub fn note(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}

/// Writes text to standard output as it comes: at once to a terminal, in whole lines elsewhere.
///
/// # Errors
/// Those of standard output.
pub fn text(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    if out.is_terminal() { out.flush() } else { Ok(()) }
}

/// Writes a piece of an answer to standard output, as [`text`] does.
///
/// # Errors
/// Those of standard output.
pub fn answer(piece: &str) -> io::Result<()> {
    if io::stdout().is_terminal() { text(&printable(piece)) } else { text(piece) }
}

/// `text` from a model without the control characters that would steer a terminal; lines and tabs stay.
pub fn printable(text: &str) -> String {
    let steers = |c: char| c.is_control() && c != '\n' && c != '\t';
    text.chars().map(|c| if steers(c) { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

/// Writes a value as one line of JSON to standard output.
///
/// # Errors
/// Those of standard output.
pub fn json(value: &impl Serialize) -> io::Result<()> {
    let mut line = serde_json::to_vec(value)?;
    line.push(b'\n');
    let mut out = io::stdout().lock();
    out.write_all(&line)?;
    out.flush()
}

/// A number of bytes for people: `91.7 MB` of 10⁶ bytes each, as files are measured.
pub fn size(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["kB", "MB", "GB", "TB"];
    if bytes < 1000 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1e3;
    let mut unit = 0;
    // What would be shown as 1000.0 belongs to the next unit.
    while value >= 999.95 && unit + 1 < UNITS.len() {
        value /= 1e3;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_cannot_steer_the_terminal() {
        assert_eq!(printable("a\x1b[2J\rb\u{9b}c\td\n"), "a\u{fffd}[2J\u{fffd}b\u{fffd}c\td\n");
    }

    #[test]
    fn sizes_have_the_unit_that_keeps_them_short() {
        let cases = [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (999_949, "999.9 kB"), (999_950, "1.0 MB")];
        for (bytes, text) in cases {
            assert_eq!(size(bytes), text);
        }
        assert_eq!(size(91_726_624), "91.7 MB");
        assert_eq!(size(u64::MAX), "18446744.1 TB");
    }
}
