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
        // An exchange, so that it comes after what any sender has put there; a store does too, but
        // the model checker does not know it, and next to a sleep it costs nothing.
        self.asleep.swap(true, Ordering::Relaxed);
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
    use loom::model::Builder;
    use loom::sync::{Arc, Condvar, Mutex};
    use loom::thread::{self, JoinHandle};

    /// Every interleaving with so many forced switches. Without a bound the model did not end in
    /// ten minutes; with this one it takes seconds and finds a missing fence or second look.
    const PREEMPTIONS_MAX: usize = 3;

    fn model(f: impl Fn() + Send + Sync + 'static) {
        let mut builder = Builder::new();
        builder.preemption_bound = Some(PREEMPTIONS_MAX);
        builder.check(f);
    }

    /// A doorbell as the kernel has it: a ring that nobody waits for is kept for who does.
    #[derive(Default)]
    struct Bell {
        rung: Mutex<bool>,
        changed: Condvar,
        /// How often it was rung.
        rings: Mutex<u32>,
    }

    impl Bell {
        fn ring(&self) {
            *self.rings.lock().unwrap() += 1;
            *self.rung.lock().unwrap() = true;
            self.changed.notify_one();
        }

        fn wait(&self) {
            let mut rung = self.rung.lock().unwrap();
            while !*rung {
                rung = self.changed.wait(rung).unwrap();
            }
            *rung = false;
        }
    }

    #[derive(Default)]
    struct Line {
        mailbox: Mailbox<(usize, usize)>,
        bell: Bell,
    }

    impl Default for Mailbox<(usize, usize)> {
        fn default() -> Self {
            Self::new()
        }
    }

    fn sender(line: &Arc<Line>, number: usize, letters: usize) -> JoinHandle<()> {
        let line = line.clone();
        thread::spawn(move || {
            for letter in 0..letters {
                if line.mailbox.push((number, letter)) {
                    line.bell.ring();
                }
            }
        })
    }

    /// A core as its loop does it: takes, sleeps when there is nothing, until all have come. A
    /// letter that is slept over is a deadlock, which the model reports.
    fn receive(line: &Line, senders: usize, letters: usize) {
        let mut next = vec![0; senders];
        let mut sleeps = 0;
        loop {
            for (number, letter) in line.mailbox.take() {
                assert_eq!(next[number], letter, "each sender's letters come in order");
                next[number] += 1;
            }
            if next.iter().all(|count| *count == letters) {
                break;
            }
            sleeps += 1;
            if line.mailbox.sleep() {
                line.bell.wait();
                line.mailbox.awake();
            }
        }
        assert!(*line.bell.rings.lock().unwrap() <= sleeps, "at most one ring for each sleep");
    }

    #[test]
    fn two_senders_wake_a_core_that_sleeps() {
        model(|| {
            let line = Arc::new(Line::default());
            let senders = [sender(&line, 0, 1), sender(&line, 1, 1)];
            receive(&line, 2, 1);
            senders.into_iter().for_each(|sender| sender.join().unwrap());
        });
    }

    #[test]
    fn a_sender_of_several_letters_wakes_as_often_as_it_must() {
        model(|| {
            let line = Arc::new(Line::default());
            let sender = sender(&line, 0, 3);
            receive(&line, 1, 3);
            sender.join().unwrap();
        });
    }

    #[test]
    fn letters_left_behind_are_freed_once() {
        model(|| {
            let line = Arc::new(Line::default());
            let senders = [sender(&line, 0, 1), sender(&line, 1, 1)];
            let taken = line.mailbox.take().count();
            senders.into_iter().for_each(|sender| sender.join().unwrap());
            assert_eq!(taken + line.mailbox.take().count(), 2);
        });
    }
}
