//! Client memory: regions, and where an address lies in them.
//!
//! A [`Memory`] is an immutable table of regions with, during a migration, a dirty log. It is
//! replaced whole; requests in flight keep the one they began with through their pin, so that a
//! region can go under running rings without anything being unmapped that is still in use.

use std::ops::Deref;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use block::{MemPin, Part};
use proto::vhost_user::{LogArea, MemoryRegion};
use rt::os::memory::Mapping;

/// Bytes of guest memory that one bit of the dirty log stands for.
const LOG_PAGE_BYTES: u64 = 4096;

/// One region, mapped.
#[derive(Debug)]
pub struct Region {
    guest: u64,
    user: u64,
    size: u64,
    /// Where the region's first byte is mapped here.
    base: *mut u8,
    mapping: Mapping,
}

// SAFETY: `base` points into `mapping`, which may be used from any thread.
unsafe impl Send for Region {}
// SAFETY: as above.
unsafe impl Sync for Region {}

#[derive(Debug, thiserror::Error)]
pub enum MapError {
    #[error("memory region of {size} bytes at {guest:#x} wraps around the address space")]
    Wraps { guest: u64, size: u64 },
    #[error(
        "memory region of {size} bytes at guest address {guest:#x} cannot be mapped: {source}; \
         the client's memory must be shared (memory-backend-memfd with share=on)"
    )]
    Map { guest: u64, size: u64, source: std::io::Error },
    #[error("the dirty log cannot be mapped: {0}")]
    Log(std::io::Error),
}

impl Region {
    pub fn map(region: &MemoryRegion, fd: &OwnedFd) -> Result<Self, MapError> {
        let MemoryRegion { guest_address: guest, size, user_address: user, mmap_offset } = *region;
        let total = size.checked_add(mmap_offset).and_then(|total| usize::try_from(total).ok());
        let wraps = [guest, user].iter().any(|start| start.checked_add(size).is_none());
        let Some(total) = total.filter(|_| !wraps && size > 0) else {
            return Err(MapError::Wraps { guest, size });
        };
        // From the start of the file: an offset need not be aligned as huge pages want it.
        let mapping = Mapping::shared(fd, 0, total).map_err(|source| MapError::Map {
            guest,
            size,
            source,
        })?;
        let base = mapping.at().wrapping_add(mmap_offset as usize);
        Ok(Self { guest, user, size, base, mapping })
    }

    pub fn guest(&self) -> u64 {
        self.guest
    }

    pub fn user(&self) -> u64 {
        self.user
    }

    /// How many bytes from guest address `at` on lie in this region.
    #[inline]
    fn holds(&self, at: u64) -> u64 {
        let offset = at.wrapping_sub(self.guest);
        self.size.saturating_sub(offset)
    }

    #[inline]
    fn pointer(&self, at: u64) -> *mut u8 {
        self.base.wrapping_add((at - self.guest) as usize)
    }
}

/// The memory of a client at one time.
#[derive(Debug, Default)]
pub struct Memory {
    regions: Vec<Arc<Region>>,
    log: Option<Arc<Log>>,
}

impl Memory {
    pub fn new(regions: Vec<Arc<Region>>, log: Option<Arc<Log>>) -> Self {
        Self { regions, log }
    }

    pub fn regions(&self) -> &[Arc<Region>] {
        &self.regions
    }

    pub fn log(&self) -> Option<&Arc<Log>> {
        self.log.as_ref()
    }

    /// Whether the client has cut any of it, or the log.
    pub fn is_broken(&self) -> bool {
        self.regions.iter().any(|region| region.mapping.is_broken())
            || self.log.as_ref().is_some_and(|log| log.mapping.is_broken())
    }

    /// The bytes at a guest address, all in one region; `hint` remembers where the last ones were.
    #[inline]
    pub(super) fn find(&self, at: u64, len: u64, hint: &mut usize) -> Option<*mut u8> {
        if let Some(region) = self.regions.get(*hint)
            && region.holds(at) >= len.max(1)
        {
            return Some(region.pointer(at));
        }
        let index = self.regions.iter().position(|region| region.holds(at) >= len.max(1))?;
        *hint = index;
        Some(self.regions[index].pointer(at))
    }

    /// The bytes at a guest address, in as many parts as they have regions.
    #[inline]
    pub(super) fn parts(
        &self,
        at: u64,
        len: u32,
        hint: &mut usize,
        parts: &mut Vec<Part>,
    ) -> Option<()> {
        if let Some(pointer) = self.find(at, u64::from(len), hint) {
            parts.push(Part::new(pointer, len as usize));
            return Some(());
        }
        self.parts_across(at, u64::from(len), parts)
    }

    /// Regions that follow each other in guest memory look like one to a driver.
    #[cold]
    fn parts_across(&self, mut at: u64, mut left: u64, parts: &mut Vec<Part>) -> Option<()> {
        while left > 0 {
            let region = self.regions.iter().find(|region| region.holds(at) > 0)?;
            let len = region.holds(at).min(left);
            parts.push(Part::new(region.pointer(at), len as usize));
            at = at.checked_add(len)?;
            left -= len;
        }
        Some(())
    }

    /// The bytes at an address of the front end's own space, as it names rings.
    pub(super) fn find_user(&self, at: u64, len: u64) -> Option<*mut u8> {
        self.regions.iter().find_map(|region| {
            let offset = at.checked_sub(region.user)?;
            (offset < region.size && len <= region.size - offset)
                .then(|| region.base.wrapping_add(offset as usize))
        })
    }
}

/// Client memory as one core holds it: what pins of requests in flight keep alive.
#[derive(Clone)]
pub struct View {
    held: Rc<Held>,
    pin: MemPin,
}

struct Held(Arc<Memory>);

impl View {
    pub fn new(memory: Arc<Memory>) -> Self {
        let held = Rc::new(Held(memory));
        Self { pin: MemPin::new(held.clone()), held }
    }

    pub fn pin(&self) -> &MemPin {
        &self.pin
    }

    #[inline]
    pub fn is_same(&self, other: &Self) -> bool {
        Rc::ptr_eq(&self.held, &other.held)
    }
}

impl Deref for View {
    type Target = Memory;

    #[inline]
    fn deref(&self) -> &Memory {
        &self.held.0
    }
}

/// The dirty log of a migration: one bit for each page of guest memory that was written.
#[derive(Debug)]
pub struct Log {
    mapping: Mapping,
    bytes: u64,
    offset: usize,
}

impl Log {
    pub fn map(area: &LogArea, fd: &OwnedFd) -> Result<Self, MapError> {
        let total = area.mmap_size.checked_add(area.mmap_offset);
        let total = total.and_then(|total| usize::try_from(total).ok());
        let total = total.ok_or(MapError::Log(std::io::ErrorKind::InvalidInput.into()))?;
        let mapping = Mapping::shared(fd, 0, total).map_err(MapError::Log)?;
        Ok(Self { mapping, bytes: area.mmap_size, offset: area.mmap_offset as usize })
    }

    /// Marks the pages of these bytes. What lies beyond the log is not the guest's memory.
    pub fn mark(&self, at: u64, len: u64) {
        if len == 0 {
            return;
        }
        let last = at.saturating_add(len - 1) / LOG_PAGE_BYTES;
        for page in at / LOG_PAGE_BYTES..=last {
            if page / 8 >= self.bytes {
                return;
            }
            let byte = self.mapping.at().wrapping_add(self.offset + (page / 8) as usize);
            // SAFETY: within the mapping; the front end takes bits out atomically as well.
            unsafe { AtomicU8::from_ptr(byte) }.fetch_or(1 << (page % 8), Ordering::SeqCst);
        }
    }
}
