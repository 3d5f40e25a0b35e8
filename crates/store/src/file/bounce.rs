//! Aligned memory for requests whose own memory or range does not suit direct I/O.
//!
//! Each thread has a pool: buffers are used again, so steady load allocates nothing, and what is
//! out at one time is limited; who comes then waits. Nobody who holds a buffer waits for anything
//! but the kernel, so the wait ends.

use std::cell::RefCell;
use std::future::poll_fn;
use std::task::{Poll, Waker};

use block::{Buffer, Sgl};

/// Longer requests go in pieces of this length.
pub(super) const PIECE_BYTES: usize = 1 << 20;
/// Largest buffer: what cannot go in pieces.
const BUFFER_BYTES_MAX: usize = 2 * PIECE_BYTES;
/// Smallest buffer; each class is twice the one before.
const CLASS_MIN_BYTES: usize = 4096;
const CLASSES: usize = (BUFFER_BYTES_MAX / CLASS_MIN_BYTES).trailing_zeros() as usize + 1;
/// Bytes that a thread has out at once.
const OUT_BYTES_MAX: usize = 32 << 20;
/// Spare bytes that a thread keeps.
const SPARE_BYTES_MAX: usize = 8 << 20;

#[derive(Default)]
struct Pool {
    spare: [Vec<Buffer>; CLASSES],
    spare_bytes: usize,
    out_bytes: usize,
    waiting: Vec<Waker>,
}

thread_local! {
    static POOL: RefCell<Pool> = RefCell::default();
}

/// A buffer out of the pool; back when it is dropped.
pub(super) struct Bounce {
    buffer: Option<Buffer>,
    class: usize,
}

impl Bounce {
    /// A buffer of at least this length, which is at most [`BUFFER_BYTES_MAX`]. What it holds is
    /// left over from others.
    pub(super) async fn take(len: usize) -> Self {
        let class = class_of(len);
        poll_fn(|cx| {
            POOL.with_borrow_mut(|pool| {
                if pool.out_bytes + bytes_of(class) > OUT_BYTES_MAX {
                    pool.waiting.push(cx.waker().clone());
                    return Poll::Pending;
                }
                pool.out_bytes += bytes_of(class);
                let spare = pool.spare[class].pop();
                if spare.is_some() {
                    pool.spare_bytes -= bytes_of(class);
                }
                let buffer = spare.unwrap_or_else(|| Buffer::zeroed(bytes_of(class)));
                Poll::Ready(Self { buffer: Some(buffer), class })
            })
        })
        .await
    }

    pub(super) fn sgl(&self, len: usize) -> Sgl<'_> {
        self.buffer.as_ref().map_or(Sgl::empty(), Buffer::sgl).slice(0, len)
    }
}

fn class_of(len: usize) -> usize {
    assert!(len <= BUFFER_BYTES_MAX, "a piece, or an exclusive step");
    len.div_ceil(CLASS_MIN_BYTES).max(1).next_power_of_two().trailing_zeros() as usize
}

const fn bytes_of(class: usize) -> usize {
    CLASS_MIN_BYTES << class
}

impl Drop for Bounce {
    fn drop(&mut self) {
        let Some(buffer) = self.buffer.take() else { return };
        let bytes = bytes_of(self.class);
        // At thread exit the pool may be gone already.
        let waiting = POOL.try_with(|pool| {
            let mut pool = pool.borrow_mut();
            pool.out_bytes -= bytes;
            // Whoever was dropped with I/O in flight leaves the memory to the kernel.
            if buffer.is_unshared() && pool.spare_bytes + bytes <= SPARE_BYTES_MAX {
                pool.spare_bytes += bytes;
                pool.spare[self.class].push(buffer);
            }
            std::mem::take(&mut pool.waiting)
        });
        waiting.into_iter().flatten().for_each(Waker::wake);
    }
}

#[cfg(test)]
mod tests {
    use std::pin::{Pin, pin};
    use std::task::Context;

    use super::*;

    fn now(future: Pin<&mut impl Future<Output = Bounce>>) -> Option<Bounce> {
        match future.poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(bounce) => Some(bounce),
            Poll::Pending => None,
        }
    }

    fn take(len: usize) -> Option<Bounce> {
        now(pin!(Bounce::take(len)))
    }

    #[test]
    fn buffers_are_used_again_unless_the_kernel_still_has_them() {
        for (len, class) in [(0, 0), (1, 0), (4096, 0), (4097, 1), (BUFFER_BYTES_MAX, CLASSES - 1)]
        {
            assert_eq!(class_of(len), class, "{len}");
        }
        let first = take(5000).unwrap();
        let at = first.sgl(5000).single().unwrap().at();
        assert_eq!(at as usize % 4096, 0);
        drop(first);
        let again = take(8192).unwrap();
        assert_eq!(again.sgl(1).single().unwrap().at(), at);
        let in_flight = again.sgl(8192).to_buf();
        drop(again);
        assert_ne!(take(8192).unwrap().sgl(1).single().unwrap().at(), at);
        drop(in_flight);
        POOL.with_borrow(|pool| assert_eq!(pool.out_bytes, 0));
    }

    #[test]
    fn who_comes_when_too_much_is_out_waits() {
        let mut held: Vec<_> =
            (0..OUT_BYTES_MAX / PIECE_BYTES).map(|_| take(PIECE_BYTES)).collect();
        assert!(held.iter().all(Option::is_some));
        let mut next = pin!(Bounce::take(1));
        assert!(now(next.as_mut()).is_none());
        held.pop();
        assert!(now(next.as_mut()).is_some());
        drop(held);
        POOL.with_borrow(|pool| assert!(pool.spare_bytes <= SPARE_BYTES_MAX));
    }
}
