//! A server of the worst kind, against the client that reads images.

#![no_main]

libfuzzer_sys::fuzz_target!(|script: &[u8]| {
    proto::nbd::fuzz::client(script);
});
