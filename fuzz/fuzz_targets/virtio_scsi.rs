//! Any configuration, address and control request of a virtio-scsi driver, without rings.

#![no_main]

libfuzzer_sys::fuzz_target!(|script: &[u8]| {
    front::vhost_user::fuzz::virtio_scsi(script);
});
