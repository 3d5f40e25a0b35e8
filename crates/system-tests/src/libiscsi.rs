//! libiscsi's conformance suite (`iscsi-test-cu` 1.19), one test at a time.
//!
//! A test is a process of its own under a time limit, so one that hangs or crashes is seen as such.
//! It is made to say everything (`-V`): only then it tells what it leaves out, and which commands
//! it sends. The suite knows of write protection in one test; the others fail on a read-only unit
//! when they write, as they must. Which of them write is read from what they send, not from a list
//! ([`Verdict::Protected`]).

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};

use crate::cache::Cache;
use crate::debian::Tree;
use crate::{Context, Error, Result};

/// The names that libiscsi's tools log in with by themselves.
pub const TOOL: &str = "iqn.2007-10.com.github:sahlberg:libiscsi:iscsi-test";
pub const SECOND_TOOL: &str = "iqn.2007-10.com.github:sahlberg:libiscsi:iscsi-test-2";

/// Longest time of one test. The suite looks once a minute whether a SANITIZE has ended.
const TEST_LIMIT: Duration = Duration::from_secs(180);
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// No target can pass it: libiscsi 1.19 waits for a reconnection that no longer happens after a
/// reset. LOGICAL UNIT RESET has tests of our own.
pub const BROKEN: &str = "ALL.iSCSITMF.LUNResetSimpleAsync";
/// With several logical blocks in a physical one it asks for the status of one address and wants
/// that of another.
pub const ONE_BLOCK_PER_PHYSICAL: &str = "ALL.GetLBAStatus.UnmapSingle";
/// It wants a SANITIZE that takes longer than six seconds.
pub const SLOW_SANITIZE: &str = "ALL.Sanitize.Reset";
/// Beginnings of the names of tests for commands that the product does not offer.
pub const NOT_OFFERED: [&str; 2] = ["ALL.WriteAtomic16.", "ALL.Sanitize.CryptoErase"];

/// Commands that write the medium, as the suite calls them.
const WRITING: [&str; 8] = [
    "COMPAREANDWRITE",
    "EXTENDED COPY",
    "ORWRITE",
    "SANITIZE",
    "UNMAP",
    "WRITE1",
    "WRITESAME",
    "WRITEVERIFY",
];
/// What the suite calls a skip and is none: the part of a test for a command that is not offered,
/// and the rest of one which has just seen zero blocks refused, as WSNZ promises.
const NOT_SKIPS: [&str; 2] =
    ["SANITIZE CRYPTO_ERASE is not implemented", " does not support 0-blocks."];

/// How a test ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    Passed,
    /// It, or a part of it, did not run; why.
    Skipped(String),
    /// It wants to write a unit that is read-only.
    Protected,
    /// What it printed.
    Failed(String),
}

/// A unit as the suite reaches it.
#[derive(Clone, Debug)]
pub struct Unit {
    pub name: String,
    pub url: String,
    pub is_read_only: bool,
}

/// The suite, with the names of its tests.
#[derive(Debug)]
pub struct Suite {
    tree: Tree,
    pub tests: Vec<String>,
}

impl Suite {
    pub fn fetch() -> Result<Self> {
        let tree = Tree::fetch(&Cache::open()?, "libiscsi", &["libiscsi-bin"], None)?;
        let output = tree.command("iscsi-test-cu")?.arg("-l").output()?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let is_test = |line: &&str| line.starts_with("ALL.") && line.matches('.').count() == 2;
        let tests: Vec<_> =
            text.lines().map(str::trim).filter(is_test).map(str::to_owned).collect();
        match tests.len() > 200 {
            true => Ok(Self { tree, tests }),
            false => Err(Error::new(format!("iscsi-test-cu lists {} tests", tests.len()))),
        }
    }

    /// Runs one test. The unit's URL is given twice, for the tests that want two paths.
    pub fn run(&self, test: &str, unit: &Unit) -> Result<Verdict> {
        let said = tempfile::tempfile()?;
        let mut command = self.tree.command("iscsi-test-cu")?;
        command.args(["-d", "-S", "-n", "-V", "-t", test, &unit.url, &unit.url]);
        command.stdin(Stdio::null()).stdout(said.try_clone()?).stderr(said.try_clone()?);
        let mut child = command.spawn().context(|| "start iscsi-test-cu".into())?;
        let deadline = Instant::now() + TEST_LIMIT;
        while child.try_wait()?.is_none() {
            if Instant::now() > deadline {
                child.kill()?;
                child.wait()?;
                return Ok(Verdict::Failed(format!("it hangs\n{}", text_of(said)?)));
            }
            thread::sleep(LOOK_AGAIN);
        }
        Ok(judge(&text_of(said)?, unit.is_read_only))
    }
}

fn text_of(mut file: File) -> Result<String> {
    use std::io::{Read, Seek};
    file.rewind()?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// The suite's own exit code says nothing of its tests.
fn judge(text: &str, is_read_only: bool) -> Verdict {
    if !text.contains("Run Summary") {
        return Verdict::Failed(text.to_owned());
    }
    if text.contains("had failures") {
        return match is_read_only && has_written(text) {
            true => Verdict::Protected,
            false => Verdict::Failed(text.to_owned()),
        };
    }
    let is_skip = |line: &&str| {
        line.contains("[SKIPP") && !NOT_SKIPS.iter().any(|words| line.contains(words))
    };
    match text.lines().find(is_skip) {
        Some(line) => Verdict::Skipped(line.trim().to_owned()),
        None => Verdict::Passed,
    }
}

/// Whether the first thing that went wrong is a command that writes: those are announced when they
/// are sent, or queued, or known by their sense.
fn has_written(text: &str) -> bool {
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    let wrong = lines.iter().position(|line| line.starts_with("[FAILED]"));
    let end = wrong.or_else(|| lines.iter().position(|line| line.contains("had failures")));
    let is_writing = |sent: &str| WRITING.iter().any(|command| sent.starts_with(command));
    let is_later = |line: &str| line.contains("dispatched") || line.contains("queued");
    let sent = lines[..end.unwrap_or(lines.len())].iter().rev().find_map(|line| {
        let announced = line.strip_prefix("Send ").map(is_writing);
        announced.or((is_later(line) && is_writing(line)).then_some(true))
    });
    let is_refused = wrong.is_some_and(|at| lines[at].contains("DATA PROTECTION"));
    is_refused || sent == Some(true)
}

/// What the tests came to on several units.
#[derive(Debug, Default)]
pub struct Tally {
    verdicts: BTreeMap<String, Vec<(String, Verdict)>>,
}

impl Tally {
    pub fn note(&mut self, test: &str, unit: &Unit, verdict: Verdict) {
        self.verdicts.entry(test.to_owned()).or_default().push((unit.name.clone(), verdict));
    }

    pub fn has_passed(&self, test: &str) -> bool {
        let of = self.verdicts.get(test);
        of.is_some_and(|of| of.iter().any(|(_, verdict)| *verdict == Verdict::Passed))
    }

    /// Tests that were tried and passed nowhere, with what they said.
    pub fn never_passed(&self) -> Vec<(&str, String)> {
        let tried = self.verdicts.iter().filter(|(test, _)| !self.has_passed(test));
        tried.map(|(test, of)| (test.as_str(), format!("{:?}", of.last()))).collect()
    }

    pub fn failures(&self) -> Vec<String> {
        let all = self.verdicts.iter().flat_map(|(test, of)| of.iter().map(move |it| (test, it)));
        all.filter_map(|(test, (unit, verdict))| match verdict {
            Verdict::Failed(text) => Some(format!("{test} on {unit}: {text}")),
            _ => None,
        })
        .collect()
    }
}

/// Figures of each unit, one line each.
impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut counts: BTreeMap<&str, [u32; 4]> = BTreeMap::new();
        for (unit, verdict) in self.verdicts.values().flatten() {
            let place = match verdict {
                Verdict::Passed => 0,
                Verdict::Skipped(_) => 1,
                Verdict::Protected => 2,
                Verdict::Failed(_) => 3,
            };
            counts.entry(unit).or_default()[place] += 1;
        }
        for (unit, [passed, skipped, protected, failed]) in counts {
            write!(f, "{unit}: {passed} passed, {skipped} skipped")?;
            writeln!(f, ", {protected} want to write what is read-only, {failed} failed")?;
        }
        let never = self.never_passed();
        writeln!(f, "never run unskipped: {}", never.len())?;
        never.iter().try_for_each(|(test, why)| writeln!(f, "  {test} {why:.120}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(lines: &[&str], is_read_only: bool) -> Verdict {
        judge(&[lines, &["Run Summary: ..."]].concat().join("\n"), is_read_only)
    }

    #[test]
    fn a_test_that_writes_what_is_read_only_has_not_failed() {
        let refused = [
            "    Send WRITESAME10 (Expecting SUCCESS) LBA:0 blocks:1",
            "    [FAILED] WRITESAME10 failed with wrong sense.",
            "Suite WriteSame10, Test Simple had failures:",
        ];
        assert_eq!(judged(&refused, true), Verdict::Protected);
        assert!(matches!(judged(&refused, false), Verdict::Failed(_)));
        let queued = [
            "    Send MODESENSE6 (Expecting SUCCESS)",
            "    WRITE10 queued: (CmdSN=0x1)",
            "    dispatched",
            "    ABORT queued: (RefCmdSN=0x1)",
            "Suite iSCSITMF, Test A had failures:",
            "    Send PRIN/READ_KEYS",
        ];
        assert_eq!(judged(&queued, true), Verdict::Protected);
    }

    #[test]
    fn what_else_goes_wrong_there_has() {
        let read = [
            "    Send WRITE10 (Expecting CHECK_CONDITION) LBA:0 blocks:1",
            "    [OK] WRITE10 returned CHECK_CONDITION",
            "    Send READ10 (Expecting SUCCESS) LBA:0 blocks:1",
            "    [FAILED] READ10 command failed with status 2",
            "Suite Read10, Test Simple had failures:",
        ];
        assert!(matches!(judged(&read, true), Verdict::Failed(_)));
        assert!(matches!(judge("it crashed", true), Verdict::Failed(_)));
    }

    #[test]
    fn what_is_left_out_is_seen() {
        let why = "[SKIPPED] Logical unit is not removable.";
        assert_eq!(judged(&[why], false), Verdict::Skipped(why.to_owned()));
        assert_eq!(
            judged(&["[SKIPPED] SANITIZE CRYPTO_ERASE is not implemented"], false),
            Verdict::Passed
        );
    }
}
