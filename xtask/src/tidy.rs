//! `xtask tidy`: the house rules that neither rustfmt nor clippy knows.
//!
//! Arrows between crates come from `cargo metadata`; everything else is read from the tokens of the
//! sources, so words in comments and strings are never mistaken for code. A finding says where,
//! which rule, and what to do. There is no way to silence one beside changing the rule.

use std::fmt;
use std::path::Path;

use crate::{Result, workspace};

mod arrows;
mod calls;
mod leftovers;
mod shape;
mod source;

use source::Source;

/// One breach of a rule.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    file: String,
    line: usize,
    rule: &'static str,
    advice: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}: {}", self.file, self.line, self.rule, self.advice)
    }
}

/// A rule that looks at one file.
type FileRule = fn(&Source, &mut Vec<Finding>);

const FILE_RULES: [FileRule; 10] = [
    shape::header,
    shape::file_length,
    shape::function_length,
    shape::line_length,
    calls::unsafe_code,
    calls::banned_calls,
    leftovers::words,
    leftovers::macros,
    leftovers::attributes,
    leftovers::simulation_by_cfg,
];

/// Checks the workspace and prints what is not in order.
pub fn run() -> Result<()> {
    let root = workspace::root();
    let metadata = cargo_metadata::MetadataCommand::new().current_dir(&root).no_deps().exec()?;
    let mut findings = arrows::check(&arrows::packages_of(&metadata));
    let architecture = std::fs::read_to_string(root.join("ARCHITECTURE.md")).unwrap_or_default();
    findings.extend(arrows::reasons(&arrows::packages_of(&metadata), &architecture));
    let sources = sources(&root)?;
    for source in &sources {
        check_file(source, &mut findings);
    }
    findings.sort();
    for finding in &findings {
        println!("{finding}");
    }
    match findings.len() {
        0 => {
            println!("tidy: {} files", sources.len());
            Ok(())
        }
        count => Err(format!("{count} findings").into()),
    }
}

fn check_file(source: &Source, findings: &mut Vec<Finding>) {
    for rule in FILE_RULES {
        rule(source, findings);
    }
}

/// All Rust sources of the workspace.
fn sources(root: &Path) -> Result<Vec<Source>> {
    let mut paths = Vec::new();
    for dir in ["crates", "xtask", "fuzz"] {
        collect(&root.join(dir), &mut paths)?;
    }
    let mut sources = Vec::new();
    for path in paths {
        let name = path.strip_prefix(root)?.to_string_lossy().into_owned();
        let text = std::fs::read_to_string(&path)?;
        sources.push(Source::parse(&name, text).map_err(|error| format!("{name}: {error}"))?);
    }
    source::mark_test_modules(&mut sources);
    Ok(sources)
}

fn collect(dir: &Path, paths: &mut Vec<std::path::PathBuf>) -> Result<()> {
    let Ok(entries) = std::fs::read_dir(dir) else { return Ok(()) };
    for entry in entries {
        let path = entry?.path();
        if path.is_dir() && !path.ends_with("target") {
            collect(&path, paths)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            paths.push(path);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
