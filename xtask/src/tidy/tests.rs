//! Every rule of tidy against a small sample that breaks it, and against its neighbour that does
//! not.

use super::arrows::{Dependency, Package};
use super::*;

/// The rules that a sample breaks, as `line: rule`.
fn rules(path: &str, text: &str) -> Vec<String> {
    let text = format!("//! A sample.\n{text}");
    let mut sources = vec![Source::parse(path, text).unwrap()];
    source::mark_test_modules(&mut sources);
    let mut findings = Vec::new();
    check_file(&sources[0], &mut findings);
    findings.iter().map(|finding| format!("{}: {}", finding.line, finding.rule)).collect()
}

fn assert_rules(path: &str, text: &str, expected: &[&str]) {
    assert_eq!(rules(path, text), expected, "in:\n{text}");
}

const PURE: &str = "crates/volume/src/limit.rs";

#[test]
fn a_file_says_what_it_is() {
    let source = Source::parse(PURE, "use block::Device;\n".into()).unwrap();
    let mut findings = Vec::new();
    check_file(&source, &mut findings);
    assert_eq!(findings[0].rule, "header");
}

#[test]
fn files_are_short_without_tests_and_tables() {
    let code = "const A: u8 = 1;\n".repeat(1000);
    assert_rules(PURE, &code, &["1: file length"]);
    assert_rules("crates/volume/src/limit/tests.rs", &code, &[]);
    let tests = format!("#[cfg(test)]\nmod tests {{\n{code}}}\n");
    assert_rules(PURE, &tests, &[]);
    let table = format!("const TABLE: [u8; 1000] = [\n{}];\n", "    1,\n".repeat(1000));
    assert_rules(PURE, &table, &[]);
}

#[test]
fn functions_are_short() {
    let body = "    call();\n".repeat(69);
    assert_rules(PURE, &format!("fn long() {{\n{body}}}\n"), &["2: function length"]);
    let body = "    call();\n".repeat(68);
    assert_rules(PURE, &format!("fn short() {{\n{body}}}\n"), &[]);
    let method = format!(
        "impl A {{\n    fn f(\n        a: u8,\n    ) -> [u8; 2]\n    {{\n{body}    }}\n}}\n"
    );
    assert_rules(PURE, &method, &["3: function length"]);
}

#[test]
fn lines_are_short() {
    let columns = "a".repeat(98);
    assert_rules(PURE, &format!("// {columns}\n"), &["2: line length"]);
    assert_rules(PURE, &format!("// {}\n", &columns[1..]), &[]);
    assert_rules(PURE, &format!("//! | {columns} |\n"), &[]);
    let quote = format!("const TEXT: &str = \"\n{columns}{columns}\n\";\n");
    assert_rules(PURE, &quote, &["3: line length"]);
    assert_rules("crates/volume/tests/a.rs", &quote, &[]);
}

#[test]
fn unsafe_stands_only_in_its_places() {
    let code = "fn f() {\n    unsafe { g() }\n}\n";
    assert_rules(PURE, code, &["3: unsafe"]);
    assert_rules("xtask/src/main.rs", code, &["3: unsafe"]);
    assert_rules("crates/block/src/device.rs", "unsafe impl Send for A {}\n", &["2: unsafe"]);
    assert_rules("crates/front/src/vhost_user/blk.rs", code, &["3: unsafe"]);
    for place in ["block/src/mem.rs", "rt/src/os/ring.rs", "front/src/vhost_user/ring/split.rs"] {
        assert_rules(&format!("crates/{place}"), code, &[]);
    }
    assert_rules(PURE, "// unsafe\nconst A: &str = \"unsafe\";\n", &[]);
}

#[test]
fn calls_to_the_world_are_found_however_they_are_written() {
    let samples = [
        "use std::time::Instant;\n",
        "use std::{time::{Duration, Instant}, io};\n",
        "use std::time;\nfn f() -> A { time::Instant::now() }\n",
        "use std::time as clock;\nfn f() { clock::SystemTime::now(); }\n",
        "fn f() { let a = ::std::thread::spawn(g); }\n",
        "use std::fs::{self, File};\n",
        "use std::fs as files;\n",
        "use std::os::unix::fs::FileExt as _;\n",
        "use std::net::*;\n",
        "use std::net::TcpStream;\n",
        "fn f() { println!(\"{}\", std::process::id()); }\n",
        "use tokio::sync::mpsc;\n",
        "use uuid::Uuid;\nfn f() -> Uuid { Uuid::new_v4() }\n",
        "fn f() { rand::random() }\n",
        "fn f() { libc::mmap(); }\n",
    ];
    for sample in samples {
        let found = rules(PURE, sample);
        assert!(found.iter().any(|rule| rule.ends_with("banned call")), "in:\n{sample}");
    }
}

#[test]
fn data_and_tests_and_other_crates_may() {
    let data = "use std::time::Duration;\nuse std::net::{IpAddr, SocketAddr};\nuse uuid::Uuid;\n\
                use crate::fs::File;\nfn f(rand: u8) -> u8 { rand }\n";
    assert_rules(PURE, data, &[]);
    let call = "use std::time::Instant;\n";
    assert_rules("crates/rt/src/os/clock.rs", call, &[]);
    assert_rules("crates/system-tests/src/guest.rs", call, &[]);
    assert_rules("crates/volume/tests/limit.rs", call, &[]);
    assert_rules(PURE, "#[cfg(test)]\nmod tests {\n    use std::time::Instant;\n}\n", &[]);
    assert_rules(PURE, "#[cfg(not(test))]\nuse std::time::Instant;\n", &["3: banned call"]);
    assert_rules("crates/node/src/api/server.rs", "use tokio::net::TcpListener;\n", &[]);
    assert_rules("crates/node/src/plan.rs", "use tokio::net::TcpListener;\n", &["2: banned call"]);
}

#[test]
fn a_module_that_only_tests_have_is_a_test() {
    let parent = "//! .\n#[cfg(test)]\npub(crate) mod fixture;\nmod real;\n";
    let child = "//! .\nuse std::time::Instant;\n";
    let source = |path: &str, text: &str| Source::parse(path, text.to_owned()).unwrap();
    let mut sources = vec![
        source("crates/kv/src/lib.rs", parent),
        source("crates/kv/src/fixture.rs", child),
        source("crates/kv/src/fixture/disk.rs", child),
        source("crates/kv/src/real.rs", child),
    ];
    source::mark_test_modules(&mut sources);
    let tests: Vec<bool> = sources.iter().map(|source| source.is_test).collect();
    assert_eq!(tests, [false, true, true, false]);
}

#[test]
fn nothing_is_left_over() {
    let note = concat!("// TO", "DO: later\n");
    assert_rules(PURE, note, &["2: leftover"]);
    assert_rules(PURE, concat!("/* FIX", "ME */\n"), &["2: leftover"]);
    assert_rules(PURE, "fn f() { dbg!(1); }\n", &["2: leftover"]);
    assert_rules(PURE, "fn f() { todo!() }\n", &["2: leftover"]);
    assert_rules(PURE, "#[test]\n#[ignore]\nfn f() {}\n", &["3: ignored test"]);
    assert_rules(PURE, "#[ignore = \"slow\"]\nfn f() {}\n", &["2: ignored test"]);
    assert_rules(PURE, "#[allow(dead_code)]\nfn f() {}\n", &["2: dead code"]);
    assert_rules(PURE, "#![expect(unused)]\n", &["2: dead code"]);
    assert_rules(PURE, "#[cfg_attr(a, allow(dead_code))]\nfn f() {}\n", &["2: dead code"]);
}

#[test]
fn the_simulation_is_chosen_by_a_value() {
    for code in [
        "#[cfg(sim)]\nfn f() {}\n",
        "#[cfg(feature = \"sim\")]\nfn f() {}\n",
        "#[cfg(any(test, not(sim)))]\nfn f() {}\n",
        "fn f() { if cfg!(sim) {} }\n",
    ] {
        assert_rules("crates/rt/src/lib.rs", code, &["2: sim by cfg"]);
    }
    assert_rules("crates/rt/src/lib.rs", "mod sim;\nuse sim::Core;\n", &[]);
}

fn package(name: &str, dependencies: &[(&str, bool, bool)]) -> Package {
    let dependency = |&(name, is_ours, is_for_tests): &(&str, bool, bool)| Dependency {
        name: name.to_owned(),
        is_ours,
        is_for_tests,
    };
    Package {
        name: name.to_owned(),
        manifest: format!("crates/{name}/Cargo.toml"),
        features: Vec::new(),
        dependencies: dependencies.iter().map(dependency).collect(),
    }
}

#[test]
fn arrows_point_up() {
    let good = [
        package("volume", &[("block", true, false), ("rt", true, false), ("rt", true, true)]),
        package("rt", &[("block", true, false), ("wire", true, true)]),
        package("node", &[("kv", true, false)]),
    ];
    assert_eq!(arrows::check(&good), []);
    let bad = [
        package("block", &[("wire", true, false)]),
        package("target", &[("rt", true, false)]),
        package("rt", &[("store", true, true)]),
        package("attic", &[]),
    ];
    let advice: Vec<String> =
        arrows::check(&bad).into_iter().map(|finding| finding.advice).collect();
    assert_eq!(
        advice,
        [
            "block may not depend on wire",
            "target may not depend on rt",
            "rt may not depend on store",
            "attic is no room of the house: see DESIGN §2",
        ]
    );
}

#[test]
fn no_feature_picks_the_simulation() {
    let mut package = package("rt", &[]);
    package.features = vec!["sim".into()];
    assert_eq!(arrows::check(&[package])[0].rule, "sim by cfg");
}

#[test]
fn a_foreign_crate_has_a_reason() {
    let packages = [package("rt", &[("io-uring", false, false), ("block", true, false)])];
    assert_eq!(arrows::reasons(&packages, "| `io-uring` | the kernel's door |"), []);
    assert_eq!(arrows::reasons(&packages, "")[0].rule, "dependency");
}
