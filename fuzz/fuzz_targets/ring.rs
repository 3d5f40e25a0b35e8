//! A driver of the worst kind against the split ring, in memory between forbidden pages.

#![no_main]

libfuzzer_sys::fuzz_target!(|script: &[u8]| {
    front::vhost_user::fuzz::ring(script);
});
