//! The verifier against files: it must pass on a good one and fail on every kind of bad one.

use std::fs;
use std::path::Path;

use super::*;

fn load(device: &Path) -> Load {
    fs::write(device, vec![0; 1 << 20]).unwrap();
    Load {
        device: device.to_path_buf(),
        mib: 1,
        threads: 4,
        seconds: None,
        overlap: false,
        memory_mib: 0,
        fresh: true,
        seed: 1,
        buffered: true,
    }
}

/// Lets the load run until it has done this many requests.
fn until_requests(count: u64) -> impl FnOnce(&Run) {
    move |run| {
        while run.requests() < count {
            std::thread::yield_now();
        }
    }
}

#[test]
fn a_good_file_passes() {
    // Not in the overlapping mode: a filesystem does not promise that a read beside a write through
    // the page cache sees whole blocks.
    let dir = tempfile::tempdir().unwrap();
    let mut load = load(&dir.path().join("disk"));
    load.memory_mib = 1;
    let report = load.run(until_requests(2000)).unwrap().check().unwrap();
    assert!(report.reads > 0 && report.writes > 0 && report.flushes > 0);
    assert!(report.held_checks > 0 && report.memory_passes > 0);
}

/// Runs a load over a file that `harm` changes while it runs, and returns what was found.
fn errors_after(harm: impl FnOnce(&Path)) -> String {
    let dir = tempfile::tempdir().unwrap();
    let disk = dir.path().join("disk");
    let load = load(&disk);
    let report = load.run(|run| {
        until_requests(2000)(run);
        harm(&disk);
    });
    let report = report.unwrap();
    assert!(report.error_count > 0 && report.clone().check().is_err());
    report.errors.join("\n")
}

#[test]
fn lost_writes_are_found() {
    let errors = errors_after(|disk| fs::write(disk, vec![0; 1 << 20]).unwrap());
    assert!(errors.contains("read the first content"), "{errors}");
}

#[test]
fn an_older_state_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let disk = dir.path().join("disk");
    let report = load(&disk).run(|run| {
        until_requests(1000)(run);
        let old = fs::read(&disk).unwrap();
        let requests = run.requests();
        until_requests(requests + 2000)(run);
        fs::write(&disk, old).unwrap();
    });
    assert!(report.unwrap().error_count > 0);
}

#[test]
fn a_device_that_ends_early_fails() {
    let errors = errors_after(|disk| {
        fs::File::options().write(true).open(disk).unwrap().set_len(0).unwrap()
    });
    // The next write may make the file long again: then what lay there reads as if never written.
    let said = ["read of", "sectors hold", "read the first content"];
    assert!(said.iter().any(|what| errors.contains(what)), "{errors}");
}

#[test]
fn a_run_without_writes_proves_nothing() {
    assert!(Report { ok: true, ..Report::default() }.check().is_err());
}
