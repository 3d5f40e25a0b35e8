//! A back end of the worst kind against the machine of the front end's side.

#![no_main]

libfuzzer_sys::fuzz_target!(|script: &[u8]| {
    proto::vhost_user::fuzz::front_end(script);
});
