//! Any configuration and any request of a virtio-blk driver, without rings.

#![no_main]

libfuzzer_sys::fuzz_target!(|script: &[u8]| {
    front::vhost_user::fuzz::virtio_blk(script);
});
