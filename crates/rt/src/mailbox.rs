//! What other threads have to say to a core: a lock-free queue and the word "I sleep".
//!
//! Any thread pushes; the core takes everything at once. A push is one compare-and-swap on the head
//! of a list, a take is one swap and a reversal, so there is no lock that a preempted pusher could
//! hold. Before a core sleeps it says so ([`Mailbox::sleep`]) and looks once more; whoever pushes
//! after that rings the doorbell, exactly once per sleep. The doorbell itself is the driver's.

#![allow(unsafe_code)]

use std::ptr;

#[cfg(loom)]
use loom::sync::atomic::{AtomicBool, AtomicPtr, Ordering, fence};
#[cfg(not(loom))]
use std::sync::atomic::{AtomicBool, AtomicPtr, Ordering, fence};

pub(crate) struct Mailbox<T> {
    head: AtomicPtr<Letter<T>>,
    asleep: AtomicBool,
}

struct Letter<T> {
    content: T,
    next: *mut Letter<T>,
}

impl<T> Mailbox<T> {
    pub(crate) fn new() -> Self {
        Self { head: AtomicPtr::new(ptr::null_mut()), asleep: AtomicBool::new(false) }
    }

    /// Leaves a letter. True: the core sleeps and this caller must ring its doorbell.
    #[must_use = "a sleeping core must be woken"]
    pub(crate) fn push(&self, content: T) -> bool {
        let letter = Box::into_raw(Box::new(Letter { content, next: ptr::null_mut() }));
        let mut head = self.head.load(Ordering::Relaxed);
        loop {
            // SAFETY: the letter is ours until the exchange below publishes it.
            unsafe { (*letter).next = head };
            let swap =
                self.head.compare_exchange_weak(head, letter, Ordering::Release, Ordering::Relaxed);
            match swap {
                Ok(_) => break,
                Err(now) => head = now,
            }
        }
        // Either this sees `asleep`, or the sleeper's second look sees the letter.
        fence(Ordering::SeqCst);
        self.asleep.load(Ordering::Relaxed) && self.asleep.swap(false, Ordering::Relaxed)
    }

    /// Whether there is something to take: one load, for a core that is spinning.
    pub(crate) fn is_empty(&self) -> bool {
        self.head.load(Ordering::Relaxed).is_null()
    }

    /// Takes every letter, oldest first.
    pub(crate) fn take(&self) -> Letters<T> {
        let mut newest = self.head.swap(ptr::null_mut(), Ordering::Acquire);
        let mut oldest = ptr::null_mut();
        while !newest.is_null() {
            // SAFETY: the swap made the whole list ours; each letter came from `Box::into_raw`.
            unsafe {
                let next = (*newest).next;
                (*newest).next = oldest;
                oldest = newest;
                newest = next;
            }
        }
        Letters { next: oldest }
    }

    /// Says that the core is about to sleep. False: there is a letter, do not.
    #[must_use]
    pub(crate) fn sleep(&self) -> bool {
        self.asleep.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        if self.head.load(Ordering::Relaxed).is_null() {
            return true;
        }
        self.awake();
        false
    }

    pub(crate) fn awake(&self) {
        self.asleep.store(false, Ordering::Relaxed);
    }
}

impl<T> Drop for Mailbox<T> {
    fn drop(&mut self) {
        drop(self.take());
    }
}

// SAFETY: a letter is handed over whole from the pusher to the taker, by release and acquire.
unsafe impl<T: Send> Send for Mailbox<T> {}
// SAFETY: as above; nothing of a letter is shared.
unsafe impl<T: Send> Sync for Mailbox<T> {}

/// Letters taken out of a mailbox.
pub(crate) struct Letters<T> {
    next: *mut Letter<T>,
}

impl<T> Iterator for Letters<T> {
    type Item = T;

    fn next(&mut self) -> Option<T> {
        if self.next.is_null() {
            return None;
        }
        // SAFETY: the list is ours and each letter came from `Box::into_raw`.
        let letter = unsafe { Box::from_raw(self.next) };
        self.next = letter.next;
        Some(letter.content)
    }
}

impl<T> Drop for Letters<T> {
    fn drop(&mut self) {
        self.for_each(drop);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn letters_come_in_the_order_of_each_sender_and_all_arrive() {
        const SENDERS: u64 = 4;
        const EACH: u64 = if cfg!(miri) { 20 } else { 20_000 };
        let mailbox = Arc::new(Mailbox::new());
        let senders: Vec<_> = (0..SENDERS)
            .map(|sender| {
                let mailbox = mailbox.clone();
                std::thread::spawn(move || {
                    for number in 0..EACH {
                        let _ = mailbox.push((sender, number));
                    }
                })
            })
            .collect();
        let mut next = [0; SENDERS as usize];
        while next.iter().sum::<u64>() < SENDERS * EACH {
            for (sender, number) in mailbox.take() {
                assert_eq!(number, next[sender as usize]);
                next[sender as usize] += 1;
            }
        }
        senders.into_iter().for_each(|sender| sender.join().unwrap());
        assert!(mailbox.is_empty());
    }

    #[test]
    fn letters_that_nobody_takes_are_freed() {
        let content = Arc::new(());
        let mailbox = Mailbox::new();
        assert!(!mailbox.push(content.clone()));
        assert!(!mailbox.push(content.clone()));
        let mut letters = mailbox.take();
        letters.next();
        drop(letters);
        assert!(!mailbox.push(content.clone()));
        drop(mailbox);
        assert_eq!(Arc::strong_count(&content), 1);
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use super::*;
    use loom::sync::Arc;
    use loom::sync::atomic::AtomicUsize;

    /// Whatever the interleaving: either the sleeper sees the letter before it sleeps, or exactly
    /// one sender rings.
    #[test]
    fn no_letter_is_slept_over() {
        loom::model(|| {
            let mailbox = Arc::new(Mailbox::new());
            let rings = Arc::new(AtomicUsize::new(0));
            let senders: Vec<_> = (0..2)
                .map(|number| {
                    let (mailbox, rings) = (mailbox.clone(), rings.clone());
                    loom::thread::spawn(move || {
                        if mailbox.push(number) {
                            rings.fetch_add(1, Ordering::SeqCst);
                        }
                    })
                })
                .collect();
            let mut taken = mailbox.take().count();
            let slept = mailbox.sleep();
            senders.into_iter().for_each(|sender| sender.join().unwrap());
            let rung = rings.load(Ordering::SeqCst);
            taken += mailbox.take().count();
            assert_eq!(taken, 2);
            assert!(rung <= 1);
            if slept && rung == 0 {
                // Nobody rang, so both letters were in before the first take.
                assert!(mailbox.asleep.load(Ordering::SeqCst));
            }
        });
    }
}
