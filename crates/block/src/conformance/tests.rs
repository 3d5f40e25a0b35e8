//! The suite under test: a sound toy device passes it, and each toy with one flaw is caught by the
//! test that is named for it.

mod toy;

use toy::{Flaw, ToyBench};

#[test]
fn a_sound_device_passes_and_nothing_is_skipped() {
    let bench = ToyBench::new(None, &[512, 4096]);
    bench.block_on(super::run(&bench)).expect(&[]);
}

#[test]
fn every_flaw_is_caught_by_name() {
    const FLAWS: &[(Flaw, &str)] = &[
        (Flaw::LiesAboutGeometry, "geometry"),
        (Flaw::TakesOneBlockTooMany, "range_edges"),
        (Flaw::OverflowsAtTheEnd, "range_edges"),
        (Flaw::TakesMisaligned, "alignment"),
        (Flaw::RefusesNothing, "zero_length"),
        (Flaw::TakesContradictions, "contradictions"),
        (Flaw::SaysInvalidForUnsupported, "unoffered"),
        (Flaw::CutsBlockNumbersTo32Bits, "far_end"),
        (Flaw::WritesThoughReadOnly, "read_only"),
        (Flaw::IsBornDirty, "fresh_reads_zero"),
        (Flaw::CountsOneByteLess, "fresh_reads_zero"),
        (Flaw::AnswersReadsEarly, "random_operations"),
        (Flaw::AnswersWritesEarly, "random_operations"),
        (Flaw::IsBusyWhenManyAsk, "many_in_flight"),
        (Flaw::SeesOnlyTheFirstPart, "scatter_lists"),
        (Flaw::DropsOddBytes, "scatter_lists"),
        (Flaw::CachesOnEachCore, "seen_elsewhere"),
        (Flaw::ZeroesNothing, "write_zeroes"),
        (Flaw::ZeroesTooMuch, "write_zeroes"),
        (Flaw::DiscardsNothing, "discard"),
        (Flaw::HidesData, "status"),
        (Flaw::SaysTooMuch, "status"),
        (Flaw::CopiesNothing, "copy"),
        (Flaw::Tears, "overlapping_writes"),
        (Flaw::Tears, "overlapping_writes_elsewhere"),
        (Flaw::DisturbsNeighbours, "neighbours"),
        (Flaw::DisturbsNeighbours, "neighbours_elsewhere"),
        (Flaw::ForgetsFlushes, "flush_under_load"),
        (Flaw::FlushesNothing, "power_cut"),
        (Flaw::IgnoresFua, "power_cut"),
        (Flaw::TearsAtPowerCut, "power_cut"),
        (Flaw::WritesOnMiscompare, "compare_and_write"),
        (Flaw::NamesAnotherByte, "compare_and_write"),
        (Flaw::ModifiesInTwoSteps, "compare_excludes_compare"),
        (Flaw::ModifiesBesideWrites, "compare_excludes_writes"),
        (Flaw::ModifiesForItsOwnCore, "compare_excludes_elsewhere"),
        (Flaw::WritesOverInsteadOfOr, "or_write"),
        (Flaw::WritesOverInsteadOfOr, "random_operations"),
        (Flaw::ModifiesInTwoSteps, "or_excludes_or"),
        (Flaw::ModifiesBesideWrites, "or_excludes_writes"),
        (Flaw::OrsBesideCompares, "or_excludes_compare"),
        (Flaw::ModifiesForItsOwnCore, "or_excludes_elsewhere"),
        (Flaw::LetsGoOfMemory, "dropped_read"),
        (Flaw::LetsGoOfMemory, "dropped_write"),
        (Flaw::HoldsMemoryForEver, "dropped_read"),
        (Flaw::ResizesInSilence, "resize"),
        (Flaw::KeepsWhatWasCutOff, "resize"),
        (Flaw::ResizesOneCore, "resize_elsewhere"),
        (Flaw::FailsWhatIsCutOff, "resize_under_load"),
    ];
    let through: Vec<_> = FLAWS
        .iter()
        .map(|(flaw, test)| {
            let bench = ToyBench::new(Some(*flaw), &[512]);
            let report = bench.block_on(super::run_those(&bench, |name| name == *test));
            (*flaw, *test, report)
        })
        .filter(|(_, _, report)| report.failed.is_empty())
        .collect();
    assert!(through.is_empty(), "flaws that got through: {through:#?}");
}
