//! An initiator of the worst kind, logged in, against the target's machine.

#![no_main]

libfuzzer_sys::fuzz_target!(|script: &[u8]| {
    proto::iscsi::fuzz::target(script);
});
