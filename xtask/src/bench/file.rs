//! A file full of data, for as long as it is measured: no holes, nothing that compresses.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use crate::Result;

const CHUNK_BYTES: usize = 1 << 20;

/// Removed when dropped.
pub struct Filled(PathBuf);

impl Filled {
    pub fn make(dir: &Path, size: u64) -> Result<Self> {
        let path = dir.join("disk.img");
        let mut file = File::create(&path).map_err(|error| format!("{path:?}: {error}"))?;
        let filled = Self(path);
        let mut random = 0x2545_f491_4f6c_dd1d_u64;
        let mut chunk = vec![0u8; CHUNK_BYTES];
        let mut left = size;
        while left > 0 {
            for word in chunk.chunks_exact_mut(8) {
                random ^= random << 13;
                random ^= random >> 7;
                random ^= random << 17;
                word.copy_from_slice(&random.to_ne_bytes());
            }
            let len = left.min(CHUNK_BYTES as u64);
            file.write_all(&chunk[..len as usize])?;
            left -= len;
        }
        file.sync_all()?;
        // Direct I/O would have to throw out what of it is cached, the first time at each place.
        rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed)?;
        Ok(filled)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Filled {
    fn drop(&mut self) {
        // What cannot be removed stays in the build directory.
        drop(std::fs::remove_file(&self.0));
    }
}
