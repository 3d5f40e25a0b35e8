//! What a read of a block may return: each block is a linearizable register.
//!
//! A write that has ended is over when another one, begun after that end, has ended too, or when a
//! later read returned another write: from then on no read that begins may return it. Writes that
//! overlap in time may land in either order. A write that failed may land at any time. Blocks
//! nobody wrote yet hold their first content, which is zeroes if the device is fresh and not looked
//! at otherwise.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// One write under way.
#[derive(Clone, Copy, Debug)]
pub struct Ticket {
    pub block: u64,
    /// Unique in the run, and the time at which the write began.
    pub sequence: u64,
}

/// All blocks of a device. Times are ticks of one counter.
#[derive(Debug)]
pub struct Registers {
    blocks: Vec<Register>,
    clock: AtomicU64,
    exclusive: bool,
}

#[derive(Debug)]
struct Register {
    /// Held by the one request on this block, in the strict mode.
    claimed: AtomicBool,
    history: Mutex<History>,
}

#[derive(Debug)]
struct History {
    writes: Vec<Write>,
    reads_under_way: u32,
}

/// A write, or the first content (sequence 0, ended at 0).
#[derive(Clone, Copy, Debug)]
struct Write {
    sequence: u64,
    ended: Option<u64>,
    /// No read that begins after this may return it.
    over: Option<u64>,
}

const FIRST_CONTENT: u64 = 0;

impl Registers {
    pub fn new(blocks: u64, exclusive: bool, fresh: bool) -> Self {
        let first = Write { sequence: FIRST_CONTENT, ended: Some(0), over: None };
        // Unknown content is no entry: reads before the first write are not judged.
        let writes = if fresh { vec![first] } else { Vec::new() };
        let register = || Register {
            claimed: AtomicBool::new(false),
            history: Mutex::new(History { writes: writes.clone(), reads_under_way: 0 }),
        };
        let blocks = (0..blocks).map(|_| register()).collect();
        Self { blocks, clock: AtomicU64::new(1), exclusive }
    }

    pub fn len(&self) -> u64 {
        self.blocks.len() as u64
    }

    pub fn is_empty(&self) -> bool {
        self.blocks.is_empty()
    }

    /// Takes these blocks for one request; fails when another request has one of them.
    pub fn claim(&self, first: u64, count: u64) -> bool {
        if !self.exclusive {
            return true;
        }
        for block in first..first + count {
            if self.register(block).claimed.swap(true, Ordering::Acquire) {
                self.release(first, block - first);
                return false;
            }
        }
        true
    }

    pub fn release(&self, first: u64, count: u64) {
        for block in first..first + count {
            self.register(block).claimed.store(false, Ordering::Release);
        }
    }

    pub fn begin_write(&self, block: u64) -> Ticket {
        let mut history = self.history(block);
        let sequence = self.tick();
        history.writes.push(Write { sequence, ended: None, over: None });
        Ticket { block, sequence }
    }

    pub fn end_write(&self, ticket: &Ticket) {
        let mut history = self.history(ticket.block);
        let now = self.tick();
        for write in &mut history.writes {
            if write.sequence == ticket.sequence {
                write.ended = Some(now);
            } else if write.ended.is_some_and(|ended| ended < ticket.sequence) {
                write.over = write.over.or(Some(now));
            }
        }
        history.forget();
    }

    /// The time at which the read began, which its end wants to know.
    pub fn begin_read(&self, block: u64) -> u64 {
        let mut history = self.history(block);
        history.reads_under_way += 1;
        self.tick()
    }

    /// Judges what a read returned: the sequence it found, or nothing for zeroes.
    pub fn end_read(&self, block: u64, began: u64, found: Option<u64>) -> Result<(), String> {
        let mut history = self.history(block);
        let now = self.tick();
        history.reads_under_way -= 1;
        let found = found.unwrap_or(FIRST_CONTENT);
        let verdict = history.judge(began, found);
        if verdict.is_ok() {
            // What had ended before this read began lies under what the read returned.
            for write in &mut history.writes {
                let is_under = write.ended.is_some_and(|ended| ended < began);
                if is_under && write.sequence != found {
                    write.over = write.over.or(Some(now));
                }
            }
        }
        history.forget();
        verdict
    }

    /// A read that failed says nothing.
    pub fn abandon_read(&self, block: u64) -> Result<(), String> {
        self.history(block).reads_under_way -= 1;
        Ok(())
    }

    fn tick(&self) -> u64 {
        self.clock.fetch_add(1, Ordering::SeqCst)
    }

    fn history(&self, block: u64) -> MutexGuard<'_, History> {
        self.register(block).history.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn register(&self, block: u64) -> &Register {
        let index = usize::try_from(block).expect("blocks of a device fit in memory");
        &self.blocks[index]
    }
}

impl History {
    fn judge(&self, began: u64, found: u64) -> Result<(), String> {
        let was_written = self.writes.iter().any(|write| write.ended.is_some());
        match self.writes.iter().find(|write| write.sequence == found) {
            Some(write) if write.over.is_none_or(|over| over > began) => Ok(()),
            None if !was_written && found == FIRST_CONTENT => Ok(()),
            _ => Err(format!("read {}; may hold {}", name(found), self.may_hold(began))),
        }
    }

    fn may_hold(&self, began: u64) -> String {
        let may = self.writes.iter().filter(|write| write.over.is_none_or(|over| over > began));
        may.map(|write| name(write.sequence)).collect::<Vec<_>>().join(" or ")
    }

    /// What is over for every read under way need not be kept.
    fn forget(&mut self) {
        if self.reads_under_way == 0 {
            self.writes.retain(|write| write.over.is_none());
        }
    }
}

fn name(sequence: u64) -> String {
    match sequence {
        FIRST_CONTENT => "the first content".to_owned(),
        _ => format!("write {sequence}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(registers: &Registers) -> u64 {
        let ticket = registers.begin_write(0);
        registers.end_write(&ticket);
        ticket.sequence
    }

    fn read(registers: &Registers, found: u64) -> Result<(), String> {
        let began = registers.begin_read(0);
        registers.end_read(0, began, Some(found))
    }

    #[test]
    fn a_read_returns_the_last_write_and_no_older() {
        let registers = Registers::new(1, true, true);
        let (first, second) = (write(&registers), write(&registers));
        assert!(read(&registers, first).is_err());
        assert!(read(&registers, FIRST_CONTENT).is_err());
        assert!(read(&registers, second).is_ok());
    }

    #[test]
    fn a_lost_first_write_is_seen() {
        for fresh in [true, false] {
            let registers = Registers::new(1, true, fresh);
            assert!(read(&registers, FIRST_CONTENT).is_ok());
            write(&registers);
            assert!(read(&registers, FIRST_CONTENT).is_err());
        }
    }

    #[test]
    fn a_read_beside_a_write_may_return_either() {
        let registers = Registers::new(1, false, true);
        let first = write(&registers);
        let second = registers.begin_write(0);
        for _ in 0..2 {
            assert!(read(&registers, first).is_ok());
        }
        assert!(read(&registers, second.sequence).is_ok());
    }

    #[test]
    fn a_read_begun_before_the_end_of_a_write_may_return_the_older() {
        let registers = Registers::new(1, false, true);
        let first = write(&registers);
        let began = registers.begin_read(0);
        write(&registers);
        write(&registers);
        assert!(registers.end_read(0, began, Some(first)).is_ok());
        assert!(read(&registers, first).is_err());
    }

    #[test]
    fn overlapping_writes_land_in_one_order_and_stay() {
        let registers = Registers::new(1, false, true);
        let (a, b) = (registers.begin_write(0), registers.begin_write(0));
        registers.end_write(&a);
        registers.end_write(&b);
        assert!(read(&registers, a.sequence).is_ok());
        assert!(read(&registers, a.sequence).is_ok());
        // A write that comes late, over what was already seen.
        assert!(read(&registers, b.sequence).is_err());
    }

    #[test]
    fn a_claimed_block_has_one_request() {
        let registers = Registers::new(8, true, true);
        assert!(registers.claim(2, 3));
        assert!(!registers.claim(0, 3));
        assert!(registers.claim(0, 2));
        registers.release(2, 3);
        assert!(registers.claim(2, 3));
    }
}
