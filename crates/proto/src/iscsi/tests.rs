//! Random peers and the fuzz targets' corpora, by the scripts of [`fuzz`](super::fuzz), and that
//! these scripts reach what they are there for.

use super::fuzz;
use proptest::prelude::*;
use std::path::Path;

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, ..ProptestConfig::default() })]

    #[test]
    fn no_initiator_breaks_a_target(script in prop::collection::vec(any::<u8>(), 0..1200)) {
        fuzz::target(&script);
    }

    #[test]
    fn no_login_breaks_a_target(script in prop::collection::vec(any::<u8>(), 0..300)) {
        fuzz::login(&script);
    }

    #[test]
    fn no_target_breaks_an_initiator(script in prop::collection::vec(any::<u8>(), 0..800)) {
        fuzz::initiator(&script);
    }
}

/// Knuth's MMIX generator: the same scripts on every run.
fn scripts(count: usize, length: usize) -> Vec<Vec<u8>> {
    let mut state = 1_u64;
    let mut byte = || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 56) as u8
    };
    (0..count).map(|_| (0..length).map(|_| byte()).collect()).collect()
}

/// A generator that never gets past the first check would prove nothing.
#[test]
fn random_scripts_get_everywhere() {
    let reached: Vec<_> = scripts(400, 400).iter().map(|script| fuzz::target(script)).collect();
    let sum = |of: fn(&fuzz::Reached) -> usize| reached.iter().map(of).sum::<usize>();
    let counts = [
        sum(|it| it.commands),
        sum(|it| it.written),
        sum(|it| it.faults),
        sum(|it| it.managements),
        sum(|it| it.answers),
        sum(|it| it.rejects),
        sum(|it| usize::from(it.has_ended)),
        sum(|it| usize::from(!it.has_ended)),
    ];
    assert!(counts.iter().all(|count| *count > 20), "{counts:?}");
    let logins = scripts(400, 60).iter().filter(|script| fuzz::login(script)).count();
    assert!((20..380).contains(&logins), "{logins} logins");
    let done: usize = scripts(400, 400).iter().map(|script| fuzz::initiator(script)).sum();
    assert!(done > 200, "{done} commands done");
}

/// Seeds and findings of the fuzz target of this name.
fn corpus(target: &str) -> Vec<Vec<u8>> {
    let corpora = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus");
    let files = std::fs::read_dir(corpora.join(target)).unwrap();
    files.map(|file| std::fs::read(file.unwrap().path()).unwrap()).collect()
}

#[test]
fn the_corpora_are_survived() {
    for (target, run) in [
        ("iscsi_target", (|script| _ = fuzz::target(script)) as fn(&[u8])),
        ("iscsi_login", |script| _ = fuzz::login(script)),
        ("iscsi_initiator", |script| _ = fuzz::initiator(script)),
    ] {
        let scripts = corpus(target);
        assert!(scripts.len() > 5, "{target} has {} scripts", scripts.len());
        scripts.iter().for_each(|script| run(script));
    }
}
