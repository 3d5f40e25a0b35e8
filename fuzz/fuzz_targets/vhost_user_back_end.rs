//! A front end of the worst kind against the machine of our side of the socket.

#![no_main]

libfuzzer_sys::fuzz_target!(|script: &[u8]| {
    proto::vhost_user::fuzz::back_end(script);
});
