//! What must not stay behind, and what must never come: notes to oneself, debugging aids, silenced
//! warnings, skipped tests, and a simulation chosen at compile time.

use super::Finding;
use super::source::{Kind, Source, Token};

/// Written apart, so that this file does not find itself.
const WORDS: [&str; 2] = [concat!("TO", "DO"), concat!("FIX", "ME")];
const MACROS: [&str; 3] = ["dbg", "todo", "unimplemented"];

pub fn words(source: &Source, findings: &mut Vec<Finding>) {
    for (index, line) in source.text.lines().enumerate() {
        let is_word = |word: &str| WORDS.contains(&word);
        let mut words = line.split(|c: char| !c.is_alphanumeric() && c != '_');
        if words.any(is_word) {
            let advice = "do it now, or open an issue and say what is missing in the docs";
            findings.push(finding(source, index + 1, "leftover", advice));
        }
    }
}

pub fn macros(source: &Source, findings: &mut Vec<Finding>) {
    for pair in source.tokens.windows(2) {
        let is_macro = pair[0].ident().is_some_and(|name| MACROS.contains(&name));
        if is_macro && pair[1].is('!') {
            findings.push(finding(source, pair[0].line, "leftover", "finish it or take it out"));
        }
    }
}

pub fn attributes(source: &Source, findings: &mut Vec<Finding>) {
    for open in source.attributes() {
        let tokens = &source.tokens[open + 1..source.tokens[open].mate];
        let line = source.tokens[open].line;
        if tokens.first().is_some_and(|token| token.is_ident("ignore")) {
            let advice = "a test that does not run proves nothing: run it or remove it";
            findings.push(finding(source, line, "ignored test", advice));
        }
        let silences = |token: &Token| token.is_ident("allow") || token.is_ident("expect");
        let is_dead = |token: &Token| token.is_ident("dead_code") || token.is_ident("unused");
        if tokens.iter().any(silences) && tokens.iter().any(is_dead) {
            let advice = "remove the dead code; version control remembers it";
            findings.push(finding(source, line, "dead code", advice));
        }
    }
}

/// `rt::os` and `rt::sim` are always both compiled; a value chooses when a core is made.
pub fn simulation_by_cfg(source: &Source, findings: &mut Vec<Finding>) {
    let is_sim = |token: &Token| match &token.kind {
        Kind::Ident(name) => name == "sim",
        Kind::Literal(text) => text.trim_matches('"') == "sim",
        _ => false,
    };
    for (at, token) in source.tokens.iter().enumerate() {
        let is_cfg = token.is_ident("cfg") || token.is_ident("cfg_attr");
        let next = at + 1 + usize::from(source.tokens.get(at + 1).is_some_and(|it| it.is('!')));
        let Some(open) = source.tokens.get(next).filter(|it| it.opens('(')) else { continue };
        if is_cfg && source.tokens[next..open.mate].iter().any(is_sim) {
            let advice = "choose os or sim by a value when the core is made";
            findings.push(finding(source, token.line, "sim by cfg", advice));
        }
    }
}

fn finding(source: &Source, line: usize, rule: &'static str, advice: &str) -> Finding {
    Finding { file: source.path.clone(), line, rule, advice: advice.to_owned() }
}
