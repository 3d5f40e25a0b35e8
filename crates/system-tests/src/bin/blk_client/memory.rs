//! The memory that the client shares with the server, in place of a guest's.
//!
//! One file in memory, mapped through `vm-memory`, whose accesses are volatile: the server, its
//! successor and the requests that the kernel still carries out for a dead one write here at any
//! time. Memory is only ever taken, never given back: whoever needs a buffer needs it to the end.

use std::cell::Cell;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::sync::atomic::Ordering;

use proto::vhost_user::MemoryRegion;
use rustix::fs::{MemfdFlags, memfd_create};
use system_tests::{Context, Result};
use vm_memory::{AtomicAccess, Bytes, FileOffset, GuestAddress, GuestMemoryMmap};

const BYTES: usize = 1 << 20;

pub struct Memory {
    map: GuestMemoryMmap,
    file: File,
    free: Cell<u64>,
}

/// A copy of all that was in the memory.
pub struct Snapshot {
    map: GuestMemoryMmap,
    bytes: Vec<u8>,
}

impl Memory {
    pub fn new() -> Result<Self> {
        let file = File::from(memfd_create("memory", MemfdFlags::CLOEXEC).context(what)?);
        file.set_len(BYTES as u64)?;
        let range = (GuestAddress(0), BYTES, Some(FileOffset::new(file.try_clone()?, 0)));
        let map = GuestMemoryMmap::from_ranges_with_files([range]).context(what)?;
        Ok(Self { map, file, free: Cell::new(0) })
    }

    /// As the server is told of it; the client's own addresses are the guest's.
    pub fn region(&self) -> Result<(MemoryRegion, OwnedFd)> {
        let size = BYTES as u64;
        let region = MemoryRegion { guest_address: 0, size, user_address: 0, mmap_offset: 0 };
        Ok((region, self.file.try_clone()?.into()))
    }

    /// Takes memory that nobody has taken.
    pub fn take(&self, len: u64, align: u64) -> u64 {
        let at = self.free.get().next_multiple_of(align);
        assert!(at + len <= BYTES as u64, "the memory is used up");
        self.free.set(at + len);
        at
    }

    pub fn write(&self, at: u64, bytes: &[u8]) {
        self.map.write_slice(bytes, GuestAddress(at)).expect("the address was taken here");
    }

    pub fn read(&self, at: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.map.read_slice(&mut bytes, GuestAddress(at)).expect("the address was taken here");
        bytes
    }

    pub fn store<T: AtomicAccess>(&self, at: u64, value: T) {
        let at = GuestAddress(at);
        self.map.store(value, at, Ordering::SeqCst).expect("the address was taken here");
    }

    pub fn load<T: AtomicAccess>(&self, at: u64) -> T {
        let at = GuestAddress(at);
        self.map.load(at, Ordering::SeqCst).expect("the address was taken here")
    }

    /// Takes the memory away from everybody who has mapped it; nothing of it may be touched after.
    pub fn cut(&self) -> Result<()> {
        Ok(self.file.set_len(0)?)
    }

    pub fn snapshot(&self) -> Snapshot {
        Snapshot { map: self.map.clone(), bytes: self.read(0, BYTES) }
    }
}

impl Snapshot {
    /// How many bytes of the memory have changed since.
    pub fn changed_bytes(&self) -> usize {
        let mut now = vec![0; BYTES];
        self.map.read_slice(&mut now, GuestAddress(0)).expect("all of the memory is mapped");
        self.bytes.iter().zip(&now).filter(|(then, now)| then != now).count()
    }
}

fn what() -> String {
    "make memory to share".into()
}
