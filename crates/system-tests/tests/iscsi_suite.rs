//! libiscsi's conformance suite against the real binary, on units of every kind, with header
//! digests, CHAP and mutual CHAP.
//!
//! | unit | what it is | what runs there |
//! |---|---|---|
//! | `thin` | a file, 512-byte blocks on 4 KiB | everything |
//! | `read-only` | the same, mapped read-only | everything |
//! | `removable` | the same, with a medium that can be ejected | everything |
//! | `simple` | memory, 512-byte blocks | what wants one block in a physical one |
//! | `long` | nothing at all, but so much of it that to overwrite it takes a while | what wants that |
//!
//! A sample runs each test where it first passes; `cargo xtask bar iscsi-suite` runs every test
//! everywhere.

use std::fs;
use std::path::Path;
use std::time::Instant;

use system_tests::iscsi::{node, target_of};
use system_tests::libiscsi::{
    BROKEN, NOT_OFFERED, ONE_BLOCK_PER_PHYSICAL, SECOND_TOOL, SLOW_SANITIZE, Suite, TOOL, Tally,
    Unit,
};
use system_tests::{Node, Result, in_full};

const SECRET: &str = "secret-of-the-tool";
const SECRET_OF_NODE: &str = "secret-of-the-node";

/// Units that everything runs on: their name, how they are made, how they are mapped.
const UNITS: [(&str, &[&str], &[&str]); 3] = [
    ("thin", &["--size", "256M"], &[]),
    ("read-only", &["--size", "256M"], &["--read-only"]),
    ("removable", &["--size", "256M", "--removable"], &[]),
];
const SIMPLE: &str = "simple";
const SIMPLE_LUN: usize = UNITS.len();
const LONG: &str = "long";
/// How long it is at first.
const LONG_GIB: u64 = 64;
const LONG_LUN: usize = SIMPLE_LUN + 1;

/// How the suite logs in.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Login {
    Plain,
    HeaderDigest,
    Chap,
    MutualChap,
}

struct Bench {
    suite: Suite,
    node: Node,
    portal: String,
    dir: tempfile::TempDir,
}

impl Bench {
    fn new() -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let suite = Suite::fetch()?;
        let (node, portal) = node(&dir.path().join("node"), 0)?;
        node.cli(&["client", "create", "tool", "--iqn", TOOL, "--iqn", SECOND_TOOL])?;
        for (name, making, mapping) in UNITS {
            node.cli(&[&["lu", "create", name], making].concat())?;
            node.cli(&[&["map", name, "--to", "tool", "--via", "iscsi"], mapping].concat())?;
        }
        let simple = ["--size", "64M", "--backing", "memory", "--block-size", "512"];
        let size = format!("{LONG_GIB}G");
        let long = ["--size", &size, "--backing", "null"];
        for (name, making) in [(SIMPLE, &simple[..]), (LONG, &long)] {
            node.cli(&[&["lu", "create", name], making].concat())?;
            node.cli(&["map", name, "--to", "tool", "--via", "iscsi"])?;
        }
        Ok(Self { suite, node, portal, dir })
    }

    fn log_in_by(&self, login: Login) -> Result<()> {
        let own = secret(self.dir.path(), "own", SECRET)?;
        let mutual = secret(self.dir.path(), "mutual", SECRET_OF_NODE)?;
        let chap = ["client", "chap", "tool"];
        match login {
            Login::Plain | Login::HeaderDigest => return Ok(()),
            Login::Chap => self.node.cli(&[&chap[..], &["--secret-file", &own]].concat())?,
            Login::MutualChap => {
                let files = ["--secret-file", &own, "--mutual-secret-file", &mutual];
                self.node.cli(&[&chap[..], &files].concat())?
            }
        };
        Ok(())
    }

    fn unit(&self, login: Login, lun: usize) -> Result<Unit> {
        let name = UNITS.iter().map(|unit| unit.0).chain([SIMPLE, LONG]).nth(lun);
        let name = name.unwrap_or_default().to_owned();
        let (portal, target) = (&self.portal, target_of(&self.node, "tool")?);
        let (user, query) = match login {
            Login::Plain => (String::new(), String::new()),
            Login::HeaderDigest => (String::new(), "?header_digest=crc32c".to_owned()),
            Login::Chap => (format!("tool%{SECRET}@"), String::new()),
            Login::MutualChap => {
                let mutual = format!("?target_user=viaduct&target_password={SECRET_OF_NODE}");
                (format!("tool%{SECRET}@"), mutual)
            }
        };
        let is_read_only = name == "read-only";
        let url = format!("iscsi://{user}{portal}/{target}/{lun}{query}");
        Ok(Unit { name, url, is_read_only })
    }

    /// Makes an overwrite of the long unit take long: as long as the suite's own one, measured,
    /// says. Nothing is stored there, so what it finds then does not matter.
    fn lengthen(&self, unit: &Unit) -> Result<()> {
        const OVERWRITES: f64 = 3.0;
        const SECONDS: f64 = 20.0;
        let begin = Instant::now();
        self.suite.run("ALL.Sanitize.Overwrite", unit)?;
        let size = (OVERWRITES / begin.elapsed().as_secs_f64() * SECONDS).ceil() as u64;
        let size = format!("{}G", size * LONG_GIB);
        println!("{LONG}: {size} takes {SECONDS} s to overwrite");
        self.node.cli(&["lu", "resize", LONG, "--size", &size]).map(drop)
    }

    /// Runs these tests on the units that all can run on, and the rest where it can.
    fn run(&self, login: Login, is_wanted: impl Fn(&str) -> bool) -> Result<Tally> {
        let mut tally = Tally::default();
        let elsewhere = [BROKEN, ONE_BLOCK_PER_PHYSICAL, SLOW_SANITIZE];
        let tests = self.suite.tests.iter().filter(|test| is_wanted(test));
        let tests: Vec<_> = tests.filter(|test| !elsewhere.contains(&test.as_str())).collect();
        for lun in 0..UNITS.len() {
            let unit = self.unit(login, lun)?;
            let begin = Instant::now();
            for test in &tests {
                if in_full() || !tally.has_passed(test) {
                    tally.note(test, &unit, self.suite.run(test, &unit)?);
                }
            }
            println!("{}: {:.0} s", unit.name, begin.elapsed().as_secs_f64());
        }
        if is_wanted(ONE_BLOCK_PER_PHYSICAL) {
            let unit = self.unit(login, SIMPLE_LUN)?;
            let verdict = self.suite.run(ONE_BLOCK_PER_PHYSICAL, &unit)?;
            tally.note(ONE_BLOCK_PER_PHYSICAL, &unit, verdict);
        }
        if in_full() && is_wanted(SLOW_SANITIZE) {
            let unit = self.unit(login, LONG_LUN)?;
            self.lengthen(&unit)?;
            tally.note(SLOW_SANITIZE, &unit, self.suite.run(SLOW_SANITIZE, &unit)?);
        }
        Ok(tally)
    }

    fn shows(&self, login: Login, is_wanted: impl Fn(&str) -> bool) -> Result<()> {
        self.log_in_by(login)?;
        let tally = self.run(login, is_wanted)?;
        println!("{tally}");
        assert!(tally.failures().is_empty(), "{}", tally.failures().join("\n"));
        let is_offered = |test: &str| !NOT_OFFERED.iter().any(|name| test.starts_with(name));
        let never = tally.never_passed();
        let never: Vec<_> = never.iter().filter(|(test, _)| is_offered(test)).collect();
        assert!(never.is_empty(), "{never:?}");
        Ok(())
    }
}

fn secret(dir: &Path, name: &str, secret: &str) -> Result<String> {
    let path = dir.join(name);
    fs::write(&path, secret)?;
    Ok(path.display().to_string())
}

/// A few tests that move data both ways, if it is only a sample.
fn few(test: &str) -> bool {
    in_full() || ["ALL.Read10.", "ALL.Write10.", "ALL.iSCSI"].iter().any(|it| test.starts_with(it))
}

#[test]
fn the_conformance_suite_of_libiscsi_passes() -> Result<()> {
    Bench::new()?.shows(Login::Plain, |_| true)
}

#[test]
fn the_conformance_suite_of_libiscsi_passes_with_header_digests() -> Result<()> {
    Bench::new()?.shows(Login::HeaderDigest, few)
}

#[test]
fn the_conformance_suite_of_libiscsi_passes_with_chap() -> Result<()> {
    Bench::new()?.shows(Login::Chap, few)
}

#[test]
fn the_conformance_suite_of_libiscsi_passes_with_mutual_chap() -> Result<()> {
    Bench::new()?.shows(Login::MutualChap, few)
}
