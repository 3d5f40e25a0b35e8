//! The shape of files: they say what they are, and neither they, nor their functions, nor their
//! lines are too long.

use super::Finding;
use super::source::{Kind, Source};

const FILE_LINES_MAX: usize = 1000;
const FUNCTION_LINES_MAX: usize = 70;
const LINE_COLUMNS_MAX: usize = 100;
/// A constant of this many lines is a table, and a table may be as long as its standard's.
const TABLE_LINES_MIN: usize = 10;

pub fn header(source: &Source, findings: &mut Vec<Finding>) {
    if !source.text.starts_with("//!") {
        let advice = "open the file with a `//!` paragraph: what it is, why so, what is not here";
        findings.push(finding(source, 1, "header", advice.into()));
    }
}

pub fn file_length(source: &Source, findings: &mut Vec<Finding>) {
    if source.is_test {
        return;
    }
    let tables = tables(source);
    let is_counted = |line: &usize| {
        let is_in_table = tables.iter().any(|&(first, last)| (first..=last).contains(line));
        !is_in_table && !source.is_test_line(*line)
    };
    let lines = (1..=source.text.lines().count()).filter(is_counted).count();
    if lines > FILE_LINES_MAX {
        let advice = format!("{lines} lines without tests and tables: split it by noun");
        findings.push(finding(source, 1, "file length", advice));
    }
}

pub fn function_length(source: &Source, findings: &mut Vec<Finding>) {
    for (at, pair) in source.tokens.windows(2).enumerate() {
        let (true, Some(name)) = (pair[0].is_ident("fn"), pair[1].ident()) else { continue };
        let end = source.end_of_item(at) - 1;
        let (first, last) = (pair[0].line, source.tokens[end].end_line);
        let lines = last + 1 - first;
        if lines > FUNCTION_LINES_MAX {
            let advice =
                format!("`{name}` has {lines} lines: cut it at its steps, or make a table");
            findings.push(finding(source, first, "function length", advice));
        }
    }
}

pub fn line_length(source: &Source, findings: &mut Vec<Finding>) {
    // What a program prints may be wide, and a test quotes it as it is.
    let quotes: Vec<(usize, usize)> = source
        .tokens
        .iter()
        .filter(|token| matches!(token.kind, Kind::Literal(_)) && token.end_line > token.line)
        .filter(|token| source.is_test_line(token.line))
        .map(|token| (token.line, token.end_line))
        .collect();
    for (index, line) in source.text.lines().enumerate() {
        let number = index + 1;
        let is_quoted = quotes.iter().any(|&(first, last)| (first..=last).contains(&number));
        let columns = line.chars().count();
        // A row of a table cannot be broken.
        let is_row = line.trim_start().starts_with("//! |");
        if columns > LINE_COLUMNS_MAX && !is_quoted && !is_row {
            let advice = format!("{columns} columns: break it at {LINE_COLUMNS_MAX}");
            findings.push(finding(source, number, "line length", advice));
        }
    }
}

/// First and last lines of constants that are long arrays.
fn tables(source: &Source) -> Vec<(usize, usize)> {
    let tokens = &source.tokens;
    let mut tables = Vec::new();
    for (at, token) in tokens.iter().enumerate() {
        let name = tokens.get(at + 1).and_then(|next| next.ident());
        let is_item = (token.is_ident("const") || token.is_ident("static"))
            && name.is_some_and(|name| !["fn", "unsafe", "extern"].contains(&name));
        if !is_item {
            continue;
        }
        let Some(value) = value_of(source, at) else { continue };
        let last = tokens[tokens[value].mate].line;
        if tokens[value].opens('[') && last + 1 - token.line >= TABLE_LINES_MIN {
            tables.push((token.line, last));
        }
    }
    tables
}

/// The index of a constant's value, behind `=` and `&`.
fn value_of(source: &Source, mut at: usize) -> Option<usize> {
    loop {
        let token = source.tokens.get(at)?;
        if token.is(';') {
            return None;
        }
        if token.is('=') {
            break;
        }
        at = token.mate.max(at) + 1;
    }
    let after = source.tokens.get(at + 1)?;
    Some(if after.is('&') { at + 2 } else { at + 1 })
}

fn finding(source: &Source, line: usize, rule: &'static str, advice: String) -> Finding {
    Finding { file: source.path.clone(), line, rule, advice }
}
