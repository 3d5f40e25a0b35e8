//! Guest memory: regions, each a file in memory that is mapped here as a guest has it mapped and
//! shared with the back end as a front end shares it.

use std::cell::Cell;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use proto::vhost_user::MemoryRegion;
use rt::os::memory::anonymous_file;
use vm_memory::{AtomicAccess, ByteValued, Bytes, FileOffset, GuestAddress, GuestMemoryMmap};

/// A front end maps guest memory somewhere else than the guest sees it.
const USER_BASE: u64 = 0x7e00_0000_0000;

/// Where a region starts in its file: not at its beginning, and not where huge pages would.
const FILE_OFFSET: u64 = 0x3000;

pub struct Guest {
    memory: GuestMemoryMmap,
    regions: Vec<(MemoryRegion, Arc<File>)>,
    free: Cell<u64>,
}

impl Guest {
    /// Regions by guest address and size.
    pub fn new(places: &[(u64, u64)]) -> Self {
        let regions: Vec<_> = places.iter().map(|&(at, size)| region(at, size)).collect();
        let ranges = regions.iter().map(|(region, file)| {
            let file = FileOffset::from_arc(file.clone(), region.mmap_offset);
            (GuestAddress(region.guest_address), region.size as usize, Some(file))
        });
        let memory = GuestMemoryMmap::from_ranges_with_files(ranges).unwrap();
        let free = Cell::new(places[0].0);
        Self { memory, regions, free }
    }

    /// One region of 4 MiB at zero.
    pub fn plain() -> Self {
        Self::new(&[(0, 4 << 20)])
    }

    pub fn region(&self, index: usize) -> (MemoryRegion, OwnedFd) {
        let (region, file) = &self.regions[index];
        (*region, file.try_clone().unwrap().into())
    }

    pub fn regions(&self) -> Vec<(MemoryRegion, OwnedFd)> {
        (0..self.regions.len()).map(|index| self.region(index)).collect()
    }

    /// Cuts a region's file to this much of the region.
    pub fn truncate(&self, index: usize, bytes: u64) {
        self.regions[index].1.set_len(FILE_OFFSET + bytes).unwrap();
    }

    /// The front end's address of a guest address.
    pub fn user(&self, at: u64) -> u64 {
        let holds =
            |(region, _): &&(MemoryRegion, _)| at.wrapping_sub(region.guest_address) < region.size;
        let (region, _) = self.regions.iter().find(holds).expect("an address in a region");
        region.user_address + (at - region.guest_address)
    }

    /// Takes memory of the first region that nobody has taken.
    pub fn alloc(&self, len: u64, align: u64) -> u64 {
        let at = self.free.get().next_multiple_of(align);
        let (region, _) = &self.regions[0];
        assert!(at + len <= region.guest_address + region.size, "guest memory is used up");
        self.free.set(at + len);
        at
    }

    /// Memory with these bytes in it.
    pub fn put(&self, bytes: &[u8]) -> u64 {
        let at = self.alloc(bytes.len() as u64, 16);
        self.write(at, bytes);
        at
    }

    pub fn write(&self, at: u64, bytes: &[u8]) {
        self.memory.write_slice(bytes, GuestAddress(at)).unwrap();
    }

    pub fn read(&self, at: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.memory.read_slice(&mut bytes, GuestAddress(at)).unwrap();
        bytes
    }

    pub fn write_as<T: ByteValued>(&self, at: u64, value: T) {
        self.memory.write_obj(value, GuestAddress(at)).unwrap();
    }

    pub fn load<T: AtomicAccess>(&self, at: u64) -> T {
        self.memory.load(GuestAddress(at), Ordering::SeqCst).unwrap()
    }

    pub fn store<T: AtomicAccess>(&self, at: u64, value: T) {
        self.memory.store(value, GuestAddress(at), Ordering::SeqCst).unwrap();
    }

    /// What `virtio-queue` wants to see.
    pub fn memory(&self) -> &GuestMemoryMmap {
        &self.memory
    }
}

fn region(guest_address: u64, size: u64) -> (MemoryRegion, Arc<File>) {
    let file = anonymous_file(c"guest-memory", FILE_OFFSET + size).unwrap();
    let user_address = USER_BASE + guest_address;
    let region = MemoryRegion { guest_address, size, user_address, mmap_offset: FILE_OFFSET };
    (region, Arc::new(File::from(file)))
}
