//! Memory that a device may be asked to fill or to read: named, pinned, never borrowed.
//!
//! A guest may write its memory at any time, so there is no `&[u8]` over it anywhere: a [`Part`] is
//! a raw address and a length, a [`MemPin`] keeps what it lies in mapped, an [`Sgl`] is a borrowed
//! list of parts with its pin, and an [`SglBuf`] owns both for an answer that comes later. Bytes
//! move by copies that the compiler cannot see through. [`Buffer`] is memory of our own in the same
//! terms. The one promise that everything here rests on is made in [`Sgl::new`].

#![allow(unsafe_code)]

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::any::Any;
use std::cell::RefCell;
use std::fmt;
use std::ops::{Deref, DerefMut, Range};
use std::ptr::NonNull;
use std::rc::Rc;

/// One stretch of memory. Laid out like the kernel's `iovec`, so a list of parts is one already.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct Part {
    at: *mut u8,
    len: usize,
}

impl Part {
    pub const fn new(at: *mut u8, len: usize) -> Self {
        Self { at, len }
    }

    pub const fn at(self) -> *mut u8 {
        self.at
    }

    pub const fn len(self) -> usize {
        self.len
    }

    pub const fn is_empty(self) -> bool {
        self.len == 0
    }

    fn ends_at(self, at: *mut u8) -> bool {
        self.at.wrapping_add(self.len) == at
    }

    /// The stretch from `skip` on, at most `len` long.
    fn cut(self, skip: usize, len: usize) -> Self {
        debug_assert!(skip <= self.len);
        Self { at: self.at.wrapping_add(skip), len: (self.len - skip).min(len) }
    }
}

impl fmt::Debug for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:p}+{:#x}", self.at, self.len)
    }
}

/// Keeps memory mapped for as long as it lives; cheap to clone, of one core.
#[derive(Clone)]
pub struct MemPin(Rc<dyn Any>);

impl MemPin {
    pub fn new(holder: Rc<dyn Any>) -> Self {
        Self(holder)
    }
}

impl fmt::Debug for MemPin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MemPin")
    }
}

/// A scatter list: parts in order, of which `skip` bytes are left out in front and `len` count.
#[derive(Clone, Copy, Debug)]
pub struct Sgl<'a> {
    parts: &'a [Part],
    skip: usize,
    len: usize,
    pin: Option<&'a MemPin>,
}

impl<'a> Sgl<'a> {
    /// # Safety
    /// For as long as any clone of `pin` lives, every byte of every part stays mapped, readable and
    /// writable (a fault on it is handled, as `rt` does for client memory), and no Rust reference
    /// to any of these bytes exists.
    pub unsafe fn new(parts: &'a [Part], pin: &'a MemPin) -> Self {
        let len = parts.iter().map(|part| part.len).sum();
        Self { parts, skip: 0, len, pin: Some(pin) }
    }

    pub const fn empty() -> Self {
        Self { parts: &[], skip: 0, len: 0, pin: None }
    }

    #[inline]
    pub const fn len(&self) -> usize {
        self.len
    }

    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub const fn pin(&self) -> Option<&'a MemPin> {
        self.pin
    }

    /// The bytes from `offset` on, `len` of them. Panics where they are not there.
    pub fn slice(&self, offset: usize, len: usize) -> Self {
        assert!(offset <= self.len && len <= self.len - offset, "slice within the list");
        let mut parts = self.parts;
        let mut skip = self.skip + offset;
        while let Some((first, rest)) = parts.split_first() {
            if skip < first.len {
                break;
            }
            skip -= first.len;
            parts = rest;
        }
        Self { parts, skip, len, pin: self.pin }
    }

    /// The parts, cut to what counts. None is empty.
    #[inline]
    pub fn parts(&self) -> Parts<'a> {
        Parts { parts: self.parts, skip: self.skip, left: self.len }
    }

    /// The whole list when it is one stretch.
    #[inline]
    pub fn single(&self) -> Option<Part> {
        let mut parts = self.parts();
        let first = parts.next()?;
        (first.len == self.len).then_some(first)
    }

    /// Whether every part starts and ends on a multiple of `align`, as direct I/O wants it.
    #[inline]
    pub fn is_aligned(&self, align: usize) -> bool {
        let mask = align - 1;
        self.parts().all(|part| (part.at as usize | part.len) & mask == 0)
    }

    pub fn to_buf(&self) -> SglBuf {
        let mut parts = PartVec::new();
        parts.extend(self.parts());
        SglBuf { parts, len: self.len, pin: self.pin.cloned() }
    }

    /// Copies `source` into the list at `offset`. Panics where it does not fit.
    pub fn copy_in(&self, offset: usize, source: &[u8]) {
        let mut from = source.as_ptr();
        for part in self.slice(offset, source.len()).parts() {
            // SAFETY: the part is mapped while the pin lives (`Sgl::new`), `from` has that many
            // bytes left because the slice is as long as `source`.
            unsafe { copy_bytes(part.at, from, part.len) };
            from = from.wrapping_add(part.len);
        }
    }

    /// Copies out of the list at `offset`. Panics where it is not that long.
    pub fn copy_out(&self, offset: usize, dest: &mut [u8]) {
        let mut to = dest.as_mut_ptr();
        for part in self.slice(offset, dest.len()).parts() {
            // SAFETY: as in `copy_in`, the other way.
            unsafe { copy_bytes(to, part.at, part.len) };
            to = to.wrapping_add(part.len);
        }
    }

    /// Copies from one list to another of the same length.
    pub fn copy_from(&self, source: &Sgl<'_>) {
        assert_eq!(self.len, source.len, "lists of one length");
        let mut offset = 0;
        for part in self.parts() {
            let mut to = part.at;
            for from in source.slice(offset, part.len).parts() {
                // SAFETY: both sides are mapped while their pins live (`Sgl::new`).
                unsafe { copy_bytes(to, from.at, from.len) };
                to = to.wrapping_add(from.len);
            }
            offset += part.len;
        }
    }

    pub fn fill_zero(&self) {
        for part in self.parts() {
            // SAFETY: the part is mapped and writable while the pin lives (`Sgl::new`).
            unsafe { zero_bytes(part.at, part.len) };
        }
    }

    /// The first byte in which the list differs from `bytes`, which is as long.
    pub fn first_difference(&self, bytes: &[u8]) -> Option<usize> {
        let mut copy = vec![0; bytes.len()];
        self.copy_out(0, &mut copy);
        copy.iter().zip(bytes).position(|(a, b)| a != b)
    }
}

/// The parts of an [`Sgl`], cut to what counts.
#[derive(Clone)]
pub struct Parts<'a> {
    parts: &'a [Part],
    skip: usize,
    left: usize,
}

impl Iterator for Parts<'_> {
    type Item = Part;

    #[inline]
    fn next(&mut self) -> Option<Part> {
        while self.left > 0 {
            let (first, rest) = self.parts.split_first()?;
            let part = first.cut(self.skip, self.left);
            self.parts = rest;
            self.skip = 0;
            if part.len > 0 {
                self.left -= part.len;
                return Some(part);
            }
        }
        None
    }
}

/// Parts and pin, owned: what a device keeps while it waits.
#[derive(Debug)]
pub struct SglBuf {
    parts: PartVec,
    len: usize,
    pin: Option<MemPin>,
}

impl SglBuf {
    pub fn sgl(&self) -> Sgl<'_> {
        Sgl { parts: &self.parts, skip: 0, len: self.len, pin: self.pin.as_ref() }
    }

    /// What a device must not do; the conformance suite shows that it catches one that does.
    #[cfg(test)]
    pub(crate) fn forget_pin(&mut self) {
        self.pin = None;
    }
}

/// Lists longer than this are given back to the allocator, not kept for the next request.
const POOLED_PARTS_MAX: usize = 256;
/// How many spare lists a thread keeps.
const POOLED_LISTS_MAX: usize = 1024;

thread_local! {
    static SPARE: RefCell<Vec<Vec<Part>>> = const { RefCell::new(Vec::new()) };
}

/// A list of parts out of a pool of its thread, so that steady load allocates nothing.
pub struct PartVec(Vec<Part>);

impl PartVec {
    pub fn new() -> Self {
        let spare = SPARE.try_with(|spare| spare.borrow_mut().pop());
        Self(spare.ok().flatten().unwrap_or_default())
    }
}

impl Default for PartVec {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for PartVec {
    fn drop(&mut self) {
        let mut list = std::mem::take(&mut self.0);
        if list.capacity() == 0 || list.capacity() > POOLED_PARTS_MAX {
            return;
        }
        list.clear();
        // At thread exit the pool may be gone already; then the list is simply freed.
        let _ = SPARE.try_with(|spare| {
            let mut spare = spare.borrow_mut();
            if spare.len() < POOLED_LISTS_MAX {
                spare.push(list);
            }
        });
    }
}

impl Deref for PartVec {
    type Target = Vec<Part>;

    fn deref(&self) -> &Vec<Part> {
        &self.0
    }
}

impl DerefMut for PartVec {
    fn deref_mut(&mut self) -> &mut Vec<Part> {
        &mut self.0
    }
}

impl fmt::Debug for PartVec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Alignment of every [`Buffer`]: a page, which suits direct I/O on every device.
pub const BUFFER_ALIGN: usize = 4096;

/// Memory of our own, page-aligned, read and written by copies like client memory.
#[derive(Clone, Debug)]
pub struct Buffer {
    part: Part,
    pin: MemPin,
}

struct Pages {
    at: NonNull<u8>,
    layout: Layout,
}

impl Drop for Pages {
    fn drop(&mut self) {
        // SAFETY: allocated with this layout in `Buffer::zeroed`, freed only here.
        unsafe { dealloc(self.at.as_ptr(), self.layout) }
    }
}

impl Buffer {
    pub fn zeroed(len: usize) -> Self {
        let layout = Layout::from_size_align(len.max(1), BUFFER_ALIGN).expect("a sane length");
        // SAFETY: the layout is not of size zero.
        let at = unsafe { alloc_zeroed(layout) };
        let Some(at) = NonNull::new(at) else { handle_alloc_error(layout) };
        Self { part: Part { at: at.as_ptr(), len }, pin: MemPin(Rc::new(Pages { at, layout })) }
    }

    pub fn from_bytes(bytes: &[u8]) -> Self {
        let buffer = Self::zeroed(bytes.len());
        buffer.write(0, bytes);
        buffer
    }

    pub fn len(&self) -> usize {
        self.part.len
    }

    pub fn is_empty(&self) -> bool {
        self.part.len == 0
    }

    pub fn sgl(&self) -> Sgl<'_> {
        let len = self.part.len;
        Sgl { parts: std::slice::from_ref(&self.part), skip: 0, len, pin: Some(&self.pin) }
    }

    /// A list over stretches of this memory, in any order and of any length. Panics where a stretch
    /// is not within it.
    pub fn scattered(&self, stretches: impl IntoIterator<Item = Range<usize>>) -> SglBuf {
        let mut parts = PartVec::new();
        parts.extend(stretches.into_iter().map(|Range { start, end }| {
            assert!(start <= end && end <= self.part.len, "a stretch of this buffer");
            Part { at: self.part.at.wrapping_add(start), len: end - start }
        }));
        let len = parts.iter().map(|part| part.len).sum();
        SglBuf { parts, len, pin: Some(self.pin.clone()) }
    }

    /// Whether nobody else holds this memory: no clone, no request in flight.
    pub fn is_unshared(&self) -> bool {
        Rc::strong_count(&self.pin.0) == 1
    }

    /// The bytes where they lie, unless somebody else holds this memory and might change them.
    pub fn bytes(&mut self) -> Option<&[u8]> {
        if !self.is_unshared() {
            return None;
        }
        // SAFETY: the pages are ours, of this length and initialised. Whoever writes to them does
        // so through this handle, which is borrowed for as long as the bytes are, or holds a pin,
        // and there is none.
        Some(unsafe { std::slice::from_raw_parts(self.part.at, self.part.len) })
    }

    pub fn write(&self, offset: usize, bytes: &[u8]) {
        self.sgl().copy_in(offset, bytes);
    }

    pub fn read(&self, offset: usize, bytes: &mut [u8]) {
        self.sgl().copy_out(offset, bytes);
    }

    pub fn to_vec(&self) -> Vec<u8> {
        let mut bytes = vec![0; self.len()];
        self.read(0, &mut bytes);
        bytes
    }
}

/// A list over memory of several owners, for one operation: what a socket sends at once.
///
/// It pins all of it, and is used again and again: while an operation still holds its pin, the next
/// list gets a new one, so steady use allocates nothing.
#[derive(Debug)]
pub struct Gather {
    parts: Vec<Part>,
    len: usize,
    pins: Rc<RefCell<Vec<MemPin>>>,
    /// `pins`, as whoever takes the list along holds it.
    pin: MemPin,
}

impl Gather {
    pub fn new() -> Self {
        let pins = Rc::new(RefCell::new(Vec::new()));
        Self { parts: Vec::new(), len: 0, pin: MemPin(pins.clone()), pins }
    }

    /// Names more memory. What goes on where the last part ended makes that one longer.
    pub fn push(&mut self, sgl: &Sgl<'_>) {
        let (mut parts, Some(pin)) = (sgl.parts(), sgl.pin) else { return };
        let mut pins = self.pins.borrow_mut();
        if pins.last().is_none_or(|last| !Rc::ptr_eq(&last.0, &pin.0)) {
            pins.push(pin.clone());
        } else if let (Some(last), Some(first)) = (self.parts.last_mut(), sgl.parts().next())
            && last.ends_at(first.at)
        {
            last.len += first.len;
            parts.next();
        }
        self.parts.extend(parts);
        self.len += sgl.len;
    }

    pub fn sgl(&self) -> Sgl<'_> {
        Sgl { parts: &self.parts, skip: 0, len: self.len, pin: Some(&self.pin) }
    }

    pub const fn len(&self) -> usize {
        self.len
    }

    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// How many parts it has: an operation takes a limited number.
    pub const fn parts_len(&self) -> usize {
        self.parts.len()
    }

    pub fn clear(&mut self) {
        self.parts.clear();
        self.len = 0;
        // Ours, and the one in `pin`.
        if Rc::strong_count(&self.pins) > 2 {
            self.pins = Rc::new(RefCell::new(Vec::new()));
            self.pin = MemPin(self.pins.clone());
        }
        self.pins.borrow_mut().clear();
    }
}

impl Default for Gather {
    fn default() -> Self {
        Self::new()
    }
}

/// Copies bytes that someone else may change meanwhile.
///
/// # Safety
/// Both ranges are mapped, and no Rust reference to the shared one exists. They do not overlap
/// unless they are the same client's memory, where any result is the client's own doing.
#[inline]
pub unsafe fn copy_bytes(to: *mut u8, from: *const u8, len: usize) {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    // SAFETY: promised by the caller. The instruction is opaque to the compiler, so concurrent
    // changes give torn bytes, never undefined behaviour; the direction flag is clear by the ABI.
    unsafe {
        std::arch::asm!(
            "rep movsb",
            inout("rcx") len => _,
            inout("rdi") to => _,
            inout("rsi") from => _,
            options(nostack, preserves_flags)
        );
    }
    #[cfg(any(not(target_arch = "x86_64"), miri))]
    for index in 0..len {
        // SAFETY: promised by the caller; volatile, because the other side may change meanwhile.
        unsafe { to.add(index).write_volatile(from.add(index).read_volatile()) };
    }
}

/// Zeroes bytes that someone else may look at meanwhile.
///
/// # Safety
/// As for [`copy_bytes`].
#[inline]
unsafe fn zero_bytes(to: *mut u8, len: usize) {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    // SAFETY: as in `copy_bytes`.
    unsafe {
        std::arch::asm!(
            "rep stosb",
            inout("rcx") len => _,
            inout("rdi") to => _,
            in("al") 0u8,
            options(nostack, preserves_flags)
        );
    }
    #[cfg(any(not(target_arch = "x86_64"), miri))]
    for index in 0..len {
        // SAFETY: as in `copy_bytes`.
        unsafe { to.add(index).write_volatile(0) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gather_pins_what_it_names_until_it_is_let_go() {
        let (head, data) = (Buffer::from_bytes(b"head"), Buffer::from_bytes(b"data"));
        let mut gather = Gather::new();
        gather.push(&head.sgl());
        gather.push(&data.sgl().slice(1, 2));
        let mut bytes = [0; 6];
        gather.sgl().copy_out(0, &mut bytes);
        assert_eq!(&bytes, b"headat");
        let taken = gather.sgl().to_buf();
        gather.clear();
        assert!(gather.is_empty() && gather.parts_len() == 0);
        assert!(!head.is_unshared() && !data.is_unshared(), "an operation holds it");
        gather.push(&head.sgl());
        drop(taken);
        assert!(!head.is_unshared() && data.is_unshared());
        gather.clear();
        assert!(head.is_unshared());
    }

    #[test]
    fn a_gather_joins_what_lies_together() {
        let (one, other) = (Buffer::from_bytes(b"abcdefgh"), Buffer::from_bytes(b"12"));
        let mut gather = Gather::new();
        for (start, len) in [(0, 2), (2, 3), (6, 2)] {
            gather.push(&one.sgl().slice(start, len));
        }
        gather.push(&other.sgl());
        gather.push(&Sgl::empty());
        assert_eq!(gather.parts_len(), 3);
        let mut bytes = [0; 9];
        gather.sgl().copy_out(0, &mut bytes);
        assert_eq!(&bytes, b"abcdegh12");
        gather.clear();
        assert!(one.is_unshared() && other.is_unshared());
    }

    #[test]
    fn bytes_are_shown_to_who_is_alone_with_them() {
        let mut buffer = Buffer::from_bytes(b"alone");
        assert_eq!(buffer.bytes(), Some(&b"alone"[..]));
        let taken = buffer.sgl().to_buf();
        assert_eq!(buffer.bytes(), None);
        drop(taken);
        buffer.write(0, b"A");
        assert_eq!(buffer.bytes(), Some(&b"Alone"[..]));
        assert_eq!(Buffer::zeroed(0).bytes(), Some(&[][..]));
    }

    fn list(lens: &[usize]) -> (Buffer, Vec<Part>) {
        let buffer = Buffer::zeroed(lens.iter().sum());
        let mut at = buffer.part.at;
        let parts = lens
            .iter()
            .map(|&len| {
                let part = Part::new(at, len);
                at = at.wrapping_add(len);
                part
            })
            .collect();
        (buffer, parts)
    }

    #[test]
    fn copies_cross_parts_of_every_shape() {
        let (buffer, parts) = list(&[1, 0, 7, 100, 0, 3]);
        // SAFETY: the parts lie in `buffer`, whose pin is given.
        let sgl = unsafe { Sgl::new(&parts, &buffer.pin) };
        let bytes: Vec<u8> = (0..111).collect();
        sgl.copy_in(0, &bytes);
        assert_eq!(buffer.to_vec(), bytes);
        for offset in 0..111 {
            for len in [0, 1, 5, 111 - offset] {
                let len = len.min(111 - offset);
                let mut out = vec![0; len];
                sgl.copy_out(offset, &mut out);
                assert_eq!(out, bytes[offset..offset + len]);
                let slice = sgl.slice(offset, len);
                assert_eq!(slice.parts().map(Part::len).sum::<usize>(), len);
                assert!(slice.parts().all(|part| !part.is_empty()));
                assert_eq!(slice.to_buf().sgl().first_difference(&out), None);
            }
        }
        assert_eq!(sgl.first_difference(&[0; 111]), Some(1));
    }

    #[test]
    fn lists_of_other_shapes_copy_into_each_other() {
        let (from, from_parts) = list(&[3, 50, 11]);
        let (to, to_parts) = list(&[40, 1, 23]);
        // SAFETY: the parts lie in the buffers whose pins are given.
        let (source, dest) =
            unsafe { (Sgl::new(&from_parts, &from.pin), Sgl::new(&to_parts, &to.pin)) };
        let bytes: Vec<u8> = (100..164).collect();
        source.copy_in(0, &bytes);
        dest.copy_from(&source);
        assert_eq!(to.to_vec(), bytes);
        dest.slice(10, 20).fill_zero();
        assert_eq!(to.to_vec()[10..30], [0; 20]);
        assert_eq!(to.to_vec()[30..], bytes[30..]);
    }

    #[test]
    fn an_owned_list_keeps_the_memory() {
        let buffer = Buffer::from_bytes(b"stay");
        let kept = buffer.sgl().to_buf();
        assert!(!buffer.is_unshared());
        drop(buffer);
        let mut out = [0; 4];
        kept.sgl().copy_out(0, &mut out);
        assert_eq!(&out, b"stay");
    }

    #[test]
    fn stretches_of_a_buffer_come_in_any_order() {
        let buffer = Buffer::from_bytes(b"0123456789");
        let list = buffer.scattered([7..9, 3..3, 0..4, 9..10]);
        let mut out = [0; 7];
        list.sgl().copy_out(0, &mut out);
        assert_eq!(&out, b"7801239");
        assert!(!buffer.is_unshared());
        drop(list);
        assert!(buffer.is_unshared());
    }

    #[test]
    #[should_panic(expected = "a stretch of this buffer")]
    fn a_stretch_beyond_the_buffer_is_our_own_bug() {
        let _ = Buffer::zeroed(8).scattered([0..1, 4..9]);
    }

    #[test]
    #[should_panic(expected = "slice within the list")]
    fn a_slice_beyond_the_end_is_our_own_bug() {
        let buffer = Buffer::zeroed(8);
        buffer.sgl().slice(4, 5);
    }
}
