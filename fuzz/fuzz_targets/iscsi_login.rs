//! Anything that can be said in a login, against the target's machine.

#![no_main]

libfuzzer_sys::fuzz_target!(|script: &[u8]| {
    proto::iscsi::fuzz::login(script);
});
