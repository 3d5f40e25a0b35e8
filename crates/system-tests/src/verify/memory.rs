//! A working set in memory that is changed and checked all the time, page by page.
//!
//! Every pass finds in each page what the pass before left there and writes the next thing. A page
//! that a live migration forgot to send again shows an older pass.

use std::sync::atomic::Ordering;

use super::Run;
use super::content::mix;

const PAGE_WORDS: usize = 4096 / 8;

/// Works on a set of this size until the run is over.
pub fn watch(mib: usize, run: &Run) {
    let pages = mib * 256;
    let mut words = vec![0_u64; pages * PAGE_WORDS];
    let mut pass = 0;
    words.chunks_exact_mut(PAGE_WORDS).enumerate().for_each(|(page, words)| fill(words, page, 0));
    while !run.is_over() {
        for (page, words) in words.chunks_exact_mut(PAGE_WORDS).enumerate() {
            if let Some(at) = first_difference(words, page, pass) {
                let found = words[at];
                run.error(format!("page {page} of the working set, word {at}: {found:x}"));
            }
            fill(words, page, pass + 1);
        }
        pass += 1;
        run.memory_passes.fetch_add(1, Ordering::Relaxed);
    }
}

fn seed(page: usize, pass: u64) -> u64 {
    mix(pass ^ ((page as u64) << 32))
}

fn fill(words: &mut [u64], page: usize, pass: u64) {
    let seed = seed(page, pass);
    for (at, word) in words.iter_mut().enumerate() {
        *word = seed.wrapping_add(at as u64);
    }
}

fn first_difference(words: &[u64], page: usize, pass: u64) -> Option<usize> {
    let seed = seed(page, pass);
    words.iter().enumerate().position(|(at, word)| *word != seed.wrapping_add(at as u64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_older_pass_and_another_page_differ() {
        let mut page = vec![0; PAGE_WORDS];
        fill(&mut page, 7, 3);
        assert_eq!(first_difference(&page, 7, 3), None);
        assert!(first_difference(&page, 7, 4).is_some());
        assert!(first_difference(&page, 8, 3).is_some());
    }
}
