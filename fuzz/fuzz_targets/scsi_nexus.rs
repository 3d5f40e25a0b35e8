//! Clients of the worst kind at a disk and at an optical drive: CDBs of every operation code, data
//! of every length, task management.

#![no_main]

libfuzzer_sys::fuzz_target!(|script: &[u8]| {
    target::scsi::fuzz::nexus(script);
});
