//! What the embedded store writes to: a file seen through five calls, so that redb never opens a
//! path itself and every byte goes through whoever owns the file. [`MemoryBacking`] is the twin for
//! tests and simulation: it forgets or tears what was not synced, and dies at a write of one's
//! choice.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rt::Allocate;

/// Space that a store has beyond its end: as much again as it is large, within these bounds. A
/// failed write stops the store until it is opened anew, and a node with a full disk has to be told
/// what to remove from it.
const AHEAD_BYTES_MIN: u64 = 1 << 20;
const AHEAD_BYTES_MAX: u64 = 64 << 20;

/// A file of bytes with positions. Reads beyond the end are an error, growth reads as zeroes.
pub trait Backing: Send + Sync + 'static {
    fn size(&self) -> io::Result<u64>;
    fn resize(&self, size: u64) -> io::Result<()>;
    /// Sees to it, as far as that can be, that the file can still grow when its disk is full.
    fn provide(&self) {}
    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()>;
    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()>;
    /// Returns when everything written before is on stable storage.
    fn sync(&self) -> io::Result<()>;
}

impl Backing for rt::FileHandle {
    fn size(&self) -> io::Result<u64> {
        Ok(self.info()?.size)
    }

    fn resize(&self, size: u64) -> io::Result<()> {
        self.set_len(size)
    }

    fn provide(&self) {
        // Where it cannot be, a full disk is told when it is met.
        let _ = self.info().and_then(|info| {
            let ahead = info.size.clamp(AHEAD_BYTES_MIN, AHEAD_BYTES_MAX);
            self.allocate(Allocate::ReserveBeyond, 0, info.size + ahead)
        });
    }

    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        rt::FileHandle::read_at(self, out, offset)
    }

    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        rt::FileHandle::write_at(self, data, offset)
    }

    fn sync(&self) -> io::Result<()> {
        rt::FileHandle::sync(self)
    }
}

/// Bytes that survive or vanish together when power is lost.
const SECTOR_BYTES: usize = 512;

/// A backing in memory. Clones are the same bytes, so that a test can let a store die on one and
/// open another on what is left.
#[derive(Debug, Clone, Default)]
pub struct MemoryBacking {
    inner: Arc<Mutex<Memory>>,
}

#[derive(Debug, Default)]
struct Memory {
    /// What a running process sees.
    seen: Vec<u8>,
    /// What a power loss leaves for certain.
    durable: Vec<u8>,
    /// What happened since the last sync, in order.
    unsynced: Vec<Unsynced>,
    /// Writes, resizes and syncs so far.
    steps: u64,
    /// The step from which on everything fails.
    dies_at: Option<u64>,
}

#[derive(Debug)]
enum Unsynced {
    Write { offset: usize, data: Vec<u8> },
    Resize(usize),
}

impl MemoryBacking {
    pub fn new() -> MemoryBacking {
        MemoryBacking::default()
    }

    /// Everything from this step on fails, as if the process had been killed before it.
    pub fn die_at(&self, step: u64) {
        self.lock().dies_at = Some(step);
    }

    /// Writes, resizes and syncs so far.
    pub fn steps(&self) -> u64 {
        self.lock().steps
    }

    /// What a new process finds after the old one was killed: all that was written.
    pub fn after_kill(&self) -> MemoryBacking {
        let bytes = self.lock().seen.clone();
        MemoryBacking::holding(bytes)
    }

    /// What a new process finds after power was lost: all that was synced, and of the rest some
    /// sectors, chosen by `seed`.
    pub fn after_power_loss(&self, seed: u64) -> MemoryBacking {
        let memory = self.lock();
        let mut bytes = memory.durable.clone();
        let mut coin = Coin(seed);
        for change in &memory.unsynced {
            match change {
                Unsynced::Resize(size) if coin.toss() => bytes.resize(*size, 0),
                Unsynced::Resize(_) => {}
                Unsynced::Write { offset, data } => {
                    let mut at = *offset;
                    for sector in data.chunks(SECTOR_BYTES) {
                        if coin.toss() {
                            put(&mut bytes, at, sector);
                        }
                        at += sector.len();
                    }
                }
            }
        }
        MemoryBacking::holding(bytes)
    }

    fn holding(bytes: Vec<u8>) -> MemoryBacking {
        let memory = Memory { seen: bytes.clone(), durable: bytes, ..Memory::default() };
        MemoryBacking { inner: Arc::new(Mutex::new(memory)) }
    }

    fn lock(&self) -> MutexGuard<'_, Memory> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn step(&self) -> io::Result<MutexGuard<'_, Memory>> {
        let mut memory = self.lock();
        if memory.dies_at.is_some_and(|at| memory.steps >= at) {
            return Err(io::Error::other("the process is dead"));
        }
        memory.steps += 1;
        Ok(memory)
    }
}

impl Backing for MemoryBacking {
    fn size(&self) -> io::Result<u64> {
        Ok(self.lock().seen.len() as u64)
    }

    fn resize(&self, size: u64) -> io::Result<()> {
        let mut memory = self.step()?;
        memory.seen.resize(size as usize, 0);
        memory.unsynced.push(Unsynced::Resize(size as usize));
        Ok(())
    }

    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let memory = self.lock();
        let end = (offset as usize).saturating_add(out.len());
        match memory.seen.get(offset as usize..end) {
            Some(bytes) => out.copy_from_slice(bytes),
            None => return Err(io::ErrorKind::UnexpectedEof.into()),
        }
        Ok(())
    }

    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut memory = self.step()?;
        put(&mut memory.seen, offset as usize, data);
        memory.unsynced.push(Unsynced::Write { offset: offset as usize, data: data.to_vec() });
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let mut memory = self.step()?;
        memory.durable = memory.seen.clone();
        memory.unsynced.clear();
        Ok(())
    }
}

fn put(bytes: &mut Vec<u8>, at: usize, data: &[u8]) {
    let end = at + data.len();
    if bytes.len() < end {
        bytes.resize(end, 0);
    }
    bytes[at..end].copy_from_slice(data);
}

/// A fair coin that always falls the same way for the same seed (SplitMix64).
struct Coin(u64);

impl Coin {
    fn toss(&mut self) -> bool {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) & 1 == 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kill_keeps_what_was_written_and_power_loss_only_what_was_synced() {
        let disk = MemoryBacking::new();
        disk.write_at(0, &[1; 4096]).unwrap();
        disk.sync().unwrap();
        disk.write_at(0, &[2; 4096]).unwrap();
        let mut byte = [0];
        disk.after_kill().read_at(4095, &mut byte).unwrap();
        assert_eq!(byte, [2]);

        let mut found = std::collections::BTreeSet::new();
        for seed in 0..32 {
            let mut bytes = [0; 4096];
            disk.after_power_loss(seed).read_at(0, &mut bytes).unwrap();
            for sector in bytes.chunks(SECTOR_BYTES) {
                assert!(sector.iter().all(|byte| *byte == sector[0]));
                found.insert(sector[0]);
            }
        }
        assert_eq!(found, [1, 2].into());
    }

    #[test]
    fn a_dead_process_writes_nothing() {
        let disk = MemoryBacking::new();
        disk.die_at(1);
        disk.write_at(0, b"a").unwrap();
        assert!(disk.write_at(1, b"b").is_err());
        assert!(disk.sync().is_err());
        assert_eq!(disk.after_kill().size().unwrap(), 1);
    }
}
