//! This machine's apt sources, reduced to Debian's own suites of the release, with backports added.
//!
//! Both forms are read: one-line `.list` and deb822 `.sources`. What is kept is kept as it stands
//! (addresses, keys, options), so a mirror or a proxy of the machine goes on being used.

use std::fs;
use std::path::Path;

use super::{BACKPORTS, RELEASE};
use crate::{Error, Result};

/// Files for a private `sources.list.d`: name and content.
pub fn of_this_machine(etc_apt: &Path) -> Result<Vec<(String, String)>> {
    let mut kept = Vec::new();
    let mut paths = vec![etc_apt.join("sources.list")];
    if let Ok(entries) = fs::read_dir(etc_apt.join("sources.list.d")) {
        paths.extend(entries.filter_map(|entry| Some(entry.ok()?.path())));
    }
    paths.sort();
    for path in paths {
        let Ok(text) = fs::read_to_string(&path) else { continue };
        let extension = path.extension().and_then(|extension| extension.to_str());
        let text = match extension {
            Some("list") => from_lines(&text),
            Some("sources") => from_stanzas(&text),
            _ => continue,
        };
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned());
        if let (Some(name), false) = (name, text.is_empty()) {
            kept.push((name, text));
        }
    }
    if kept.iter().any(|(_, text)| text.contains(BACKPORTS)) {
        return Ok(kept);
    }
    Err(Error::new(format!(
        "no apt source of this machine has Debian's suite {RELEASE}: add one under {}",
        etc_apt.display()
    )))
}

/// `deb [options] address suite component...`
fn from_lines(text: &str) -> String {
    let mut kept = String::new();
    for line in text.lines().map(str::trim) {
        let Some(rest) = line.strip_prefix("deb ") else { continue };
        let (options, rest) = match rest.trim_start().strip_prefix('[') {
            Some(rest) => match rest.split_once(']') {
                Some((options, rest)) => (format!("[{options}] "), rest),
                None => continue,
            },
            None => (String::new(), rest),
        };
        let mut words = rest.split_whitespace();
        let (Some(address), Some(suite)) = (words.next(), words.next()) else { continue };
        let components = words.collect::<Vec<_>>().join(" ");
        if !is_of_the_release(suite) {
            continue;
        }
        kept.push_str(&format!("deb {options}{address} {suite} {components}\n"));
        if suite == RELEASE {
            kept.push_str(&format!("deb {options}{address} {BACKPORTS} {components}\n"));
        }
    }
    kept
}

/// Stanzas of `Field: value`, apart by empty lines.
fn from_stanzas(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    let stanzas = lines.split(|line| line.trim().is_empty());
    stanzas.filter_map(stanza_with_backports).collect::<Vec<_>>().join("\n")
}

fn stanza_with_backports(lines: &[&str]) -> Option<String> {
    let field = |name: &str| {
        lines.iter().find_map(|line| {
            let (field, value) = line.split_once(':')?;
            field.eq_ignore_ascii_case(name).then_some(value.trim())
        })
    };
    let types = field("Types")?;
    let enabled = !field("Enabled").is_some_and(|value| value.eq_ignore_ascii_case("no"));
    if !enabled || !types.split_whitespace().any(|word| word == "deb") {
        return None;
    }
    let mut suites: Vec<&str> =
        field("Suites")?.split_whitespace().filter(|suite| is_of_the_release(suite)).collect();
    if suites.is_empty() {
        return None;
    }
    if suites.contains(&RELEASE) && !suites.contains(&BACKPORTS) {
        suites.push(BACKPORTS);
    }
    let mut stanza = String::new();
    for line in lines {
        let is_suites = line.to_ascii_lowercase().starts_with("suites:");
        let line =
            if is_suites { format!("Suites: {}", suites.join(" ")) } else { line.to_string() };
        stanza.push_str(&line);
        stanza.push('\n');
    }
    Some(stanza)
}

/// Debian's own suites; others' (`bookworm-pgdg`, `cloud-sdk-bookworm`) only cost time.
fn is_of_the_release(suite: &str) -> bool {
    let rest = suite.trim_end_matches('/').strip_prefix(RELEASE);
    rest.is_some_and(|rest| ["", "-updates", "-security", "-backports", "/updates"].contains(&rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_sources_get_backports_beside_the_release() {
        let text = "# c\ndeb [signed-by=/k] http://mirror/debian bookworm main\n\
                    deb-src http://mirror/debian bookworm main\n\
                    deb http://mirror/security bookworm-security main\n\
                    deb http://other cloud-sdk-bookworm main\n";
        assert_eq!(
            from_lines(text),
            "deb [signed-by=/k] http://mirror/debian bookworm main\n\
             deb [signed-by=/k] http://mirror/debian bookworm-backports main\n\
             deb http://mirror/security bookworm-security main\n"
        );
    }

    #[test]
    fn stanzas_get_backports_and_keep_the_rest() {
        let text = "Types: deb\n# c\nURIs: http://mirror/debian\nSuites: bookworm bookworm-updates\n\
                    Components: main\nSigned-By: /k\n\n\
                    Types: deb\nURIs: http://other\nSuites: nodistro\nComponents: main\n\n\
                    Enabled: no\nTypes: deb\nURIs: http://mirror/off\nSuites: bookworm\n";
        assert_eq!(
            from_stanzas(text),
            "Types: deb\n# c\nURIs: http://mirror/debian\n\
             Suites: bookworm bookworm-updates bookworm-backports\nComponents: main\nSigned-By: /k\n"
        );
    }

    #[test]
    fn a_machine_without_the_release_is_told_so() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("sources.list"), "deb http://mirror sid main\n").unwrap();
        let error = of_this_machine(dir.path()).unwrap_err().to_string();
        assert!(error.contains("suite bookworm"), "{error}");
    }
}
