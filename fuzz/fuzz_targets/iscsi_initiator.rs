//! A target of the worst kind, against the initiator's machine.

#![no_main]

libfuzzer_sys::fuzz_target!(|script: &[u8]| {
    proto::iscsi::fuzz::initiator(script);
});
