//! Counting allocations: the allocator of this program counts, per thread, how often it is asked.

#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

#[global_allocator]
static COUNTING: Counting = Counting;

thread_local! {
    static COUNT: Cell<u64> = const { Cell::new(0) };
}

/// Allocations and reallocations that this thread has asked for so far.
pub fn of_this_thread() -> u64 {
    COUNT.with(Cell::get)
}

struct Counting;

fn count() {
    // A thread that ends has no count any more, and nobody to read it.
    let _ = COUNT.try_with(|count| count.set(count.get() + 1));
}

// SAFETY: every call goes to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: as above.
        unsafe { System.realloc(block, layout, size) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(block, layout) }
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn an_allocation_is_counted_on_its_thread_only() {
        let before = super::of_this_thread();
        drop(std::hint::black_box(Box::new(1)));
        assert_eq!(super::of_this_thread(), before + 1);
        let there = std::thread::spawn(|| {
            let before = super::of_this_thread();
            drop(std::hint::black_box(vec![1, 2, 3]));
            super::of_this_thread() - before
        });
        assert_eq!(there.join().unwrap(), 1);
    }
}
