//! Random peers and the fuzz targets' corpora, by the scripts of [`fuzz`](crate::vhost_user::fuzz),
//! and that these scripts reach what they are there for.

use crate::vhost_user::{Request, fuzz};
use proptest::prelude::*;
use std::collections::HashSet;
use std::mem::discriminant;
use std::path::Path;

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn no_front_end_breaks_a_back_end(script in prop::collection::vec(any::<u8>(), 0..1500)) {
        fuzz::back_end(&script);
    }

    #[test]
    fn no_back_end_breaks_a_front_end(script in prop::collection::vec(any::<u8>(), 0..600)) {
        fuzz::front_end(&script);
    }

    #[test]
    fn nothing_breaks_the_channel(script in prop::collection::vec(any::<u8>(), 0..600)) {
        fuzz::channel(&script);
    }
}

/// A generator that never gets past the first check would prove nothing.
#[test]
fn random_scripts_reach_the_owner_with_most_requests() {
    let mut state = 1_u64;
    let mut byte = || {
        // Knuth's MMIX generator: the same scripts on every run.
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 56) as u8
    };
    let mut kinds = HashSet::new();
    for _ in 0..8000 {
        let script: Vec<u8> = (0..400).map(|_| byte()).collect();
        kinds.extend(fuzz::back_end(&script).iter().map(discriminant::<Request<()>>));
    }
    // Of 27 kinds six are answered without the owner, and a few need two lucky numbers at once.
    assert!(kinds.len() >= 16, "{} kinds", kinds.len());
}

/// Seeds and findings of the fuzz target of this name.
fn corpus(target: &str) -> Vec<Vec<u8>> {
    let corpora = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus");
    let files = std::fs::read_dir(corpora.join(target)).unwrap();
    files.map(|file| std::fs::read(file.unwrap().path()).unwrap()).collect()
}

#[test]
fn the_corpora_reach_the_owner_and_are_survived() {
    let reached: Vec<_> =
        corpus("vhost_user_back_end").iter().flat_map(|script| fuzz::back_end(script)).collect();
    let kinds: HashSet<_> = reached.iter().map(discriminant::<Request<()>>).collect();
    assert!(kinds.len() >= 16, "{} kinds", kinds.len());
    for (target, run) in [
        ("vhost_user_front_end", fuzz::front_end as fn(&[u8])),
        ("vhost_user_channel", fuzz::channel),
    ] {
        let scripts = corpus(target);
        assert!(scripts.len() > 5, "{target} has {} scripts", scripts.len());
        scripts.iter().for_each(|script| run(script));
    }
}
