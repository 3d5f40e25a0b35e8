//! How things are printed: a table for people, JSON or YAML for programs. JSON and YAML are the
//! API's own answer, so a script that reads one can read the other.

use std::io::{self, Write};

use model::ApiError;
use serde::Serialize;

use crate::args::Format;

/// Writes to standard output; that nobody reads it any more is no error.
pub fn print(text: &str) -> Result<(), ApiError> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(ApiError::failed(format!("cannot write the output: {error}")))
        }
        _ => Ok(()),
    }
}

/// Prints a value; `table` makes the form for people.
pub fn show<T: Serialize>(
    format: Format,
    value: &T,
    table: impl FnOnce(&T) -> String,
) -> Result<(), ApiError> {
    print(&match format {
        Format::Table => table(value),
        Format::Json => json(value)?,
        Format::Yaml => yaml(value)?,
    })
}

pub fn json<T: Serialize>(value: &T) -> Result<String, ApiError> {
    let text = serde_json::to_string_pretty(value);
    text.map(|text| text + "\n").map_err(|error| ApiError::failed(error.to_string()))
}

pub fn yaml<T: Serialize>(value: &T) -> Result<String, ApiError> {
    serde_saphyr::to_string(value).map_err(|error| ApiError::failed(error.to_string()))
}

/// Space between two columns.
const GAP: &str = "  ";

/// Lines of cells under a heading, each column as wide as its widest cell.
pub fn table<const N: usize>(heading: [&str; N], rows: &[[String; N]]) -> String {
    let width = |column: usize| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        cells.chain([heading[column].len()]).max().unwrap_or(0)
    };
    let widths: [usize; N] = std::array::from_fn(width);
    let mut text = String::new();
    let mut line = |cells: [&str; N]| {
        let mut line = String::new();
        for (cell, width) in cells.iter().zip(widths) {
            line.push_str(&format!("{cell:width$}{GAP}"));
        }
        text.push_str(line.trim_end());
        text.push('\n');
    };
    line(heading);
    for row in rows {
        line(std::array::from_fn(|column| row[column].as_str()));
    }
    text
}

/// Names and values under each other.
pub fn list(pairs: &[(&str, String)]) -> String {
    let width = pairs.iter().map(|(name, _)| name.len() + 1).max().unwrap_or(0);
    let line = |(name, value): &(&str, String)| format!("{:width$} {value}\n", format!("{name}:"));
    pairs.iter().map(line).collect()
}

/// So many, in words.
pub fn counted(count: impl TryInto<u64>, what: &str) -> String {
    match count.try_into().unwrap_or(u64::MAX) {
        1 => format!("1 {what}"),
        count => format!("{count} {what}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let row = |a: &str, b: &str| [a.to_owned(), b.to_owned()];
        assert_eq!(
            table(["NAME", "SIZE"], &[row("a", "10GiB"), row("longer", "")]),
            "NAME    SIZE\na       10GiB\nlonger\n"
        );
        assert_eq!(list(&[("a", "1".into()), ("long", "2".into())]), "a:    1\nlong: 2\n");
    }
}
