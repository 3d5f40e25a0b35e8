//! Peers of the worst kind on both ends of the back-end channel.

#![no_main]

libfuzzer_sys::fuzz_target!(|script: &[u8]| {
    proto::vhost_user::fuzz::channel(script);
});
