//! The write verifier: a load on a block device that knows what every read must return.
//!
//! It runs in a guest while its server is killed, moved or cut off, and proves that no acknowledged
//! write was lost, that no older write landed on a newer one, and that nothing failed. Every write
//! carries what it is ([`content`]); what may be read is kept in memory per block ([`register`]).
//! Threads do one request each, so their number is the queue depth. In the strict mode a block has
//! one request at a time, so exactly one content is right; in the overlapping mode requests collide
//! and a read may return what any linear order allows.
//!
//! For live migration two more things are watched: buffers that a read filled are looked at again
//! long after (the server wrote them: were their pages moved?), and a working set in memory is
//! changed and checked all the time ([`memory`]). Not here: power loss, which needs a journal
//! outside the machine.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use serde::{Deserialize, Serialize};

use crate::{Context, Error, Result};

pub mod content;
pub mod memory;
pub mod register;

use content::{Buffer, Stamp};
use register::{Registers, Ticket};

/// A device is used in blocks of this size: the largest logical block there is.
pub const BLOCK_BYTES: usize = 4096;
/// A request spans up to this many blocks.
const BLOCKS_PER_REQUEST_MAX: u64 = 8;
/// Buffers that each thread keeps to look at again.
const BUFFERS_HELD: usize = 16;
/// Of 16 requests, how many write.
const WRITES_OF_16: u64 = 10;
/// Requests of one thread between two flushes.
const REQUESTS_PER_FLUSH: u64 = 64;
/// Tries to find blocks that nobody else is using before doing without this turn.
const CLAIM_TRIES: usize = 8;
/// Errors that are told in words; the others are counted.
const ERRORS_TOLD_MAX: usize = 16;

/// What to run.
#[derive(Clone, Debug, clap::Args)]
pub struct Load {
    /// The device or file; everything on it is overwritten.
    pub device: PathBuf,
    /// How much of it to use.
    #[arg(long, default_value_t = 16)]
    pub mib: u64,
    /// Requests in flight.
    #[arg(long, default_value_t = 8)]
    pub threads: u32,
    /// How long; without it until the input ends.
    #[arg(long)]
    pub seconds: Option<u64>,
    /// Let requests collide.
    #[arg(long)]
    pub overlap: bool,
    /// A working set in memory that is checked beside the load.
    #[arg(long, default_value_t = 0)]
    pub memory_mib: usize,
    /// Blocks not yet written must read as zeroes.
    #[arg(long)]
    pub fresh: bool,
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Go through the page cache, for files that do not take direct I/O.
    #[arg(long)]
    pub buffered: bool,
}

/// What came out, printed as one line of JSON.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Report {
    pub ok: bool,
    pub reads: u64,
    pub writes: u64,
    pub flushes: u64,
    /// Buffers filled by an earlier read and found unchanged.
    pub held_checks: u64,
    /// Times the working set in memory was checked and changed whole.
    pub memory_passes: u64,
    /// The slowest request.
    pub slowest_ms: u64,
    /// The longest time in which no request at all ended.
    pub longest_gap_ms: u64,
    pub elapsed_ms: u64,
    pub error_count: u64,
    pub errors: Vec<String>,
}

impl Report {
    /// The report in what `verify` printed.
    pub fn parse(stdout: &str) -> Result<Self> {
        let line = stdout.lines().last().context(|| "verify printed nothing".into())?;
        serde_json::from_str(line).context(|| format!("not a report of verify: {line}"))
    }

    /// This report if all is well, or what was not.
    pub fn check(self) -> Result<Self> {
        match self.ok && self.writes + self.memory_passes > 0 {
            true => Ok(self),
            false => Err(Error::new(format!("verify found: {self:#?}"))),
        }
    }
}

/// Shared by all threads of one run.
pub struct Run {
    pub stop: AtomicBool,
    started: Instant,
    last_end_us: AtomicU64,
    gap_us: AtomicU64,
    slowest_us: AtomicU64,
    reads: AtomicU64,
    writes: AtomicU64,
    flushes: AtomicU64,
    held_checks: AtomicU64,
    pub(crate) memory_passes: AtomicU64,
    errors: Mutex<(u64, Vec<String>)>,
}

impl Default for Run {
    fn default() -> Self {
        Self {
            stop: AtomicBool::new(false),
            started: Instant::now(),
            last_end_us: AtomicU64::new(0),
            gap_us: AtomicU64::new(0),
            slowest_us: AtomicU64::new(0),
            reads: AtomicU64::new(0),
            writes: AtomicU64::new(0),
            flushes: AtomicU64::new(0),
            held_checks: AtomicU64::new(0),
            memory_passes: AtomicU64::new(0),
            errors: Mutex::new((0, Vec::new())),
        }
    }
}

impl Run {
    pub fn is_over(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    pub fn error(&self, what: String) {
        let mut errors = self.errors.lock().unwrap_or_else(PoisonError::into_inner);
        errors.0 += 1;
        if errors.1.len() < ERRORS_TOLD_MAX {
            errors.1.push(what);
        }
    }

    /// Requests that have ended well or not.
    pub fn requests(&self) -> u64 {
        let counters = [&self.reads, &self.writes, &self.flushes];
        counters.iter().map(|counter| counter.load(Ordering::Relaxed)).sum()
    }

    pub fn report(&self) -> Report {
        let errors = self.errors.lock().unwrap_or_else(PoisonError::into_inner);
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let ms_of = |counter: &AtomicU64| of(counter) / 1000;
        Report {
            ok: errors.0 == 0,
            reads: of(&self.reads),
            writes: of(&self.writes),
            flushes: of(&self.flushes),
            held_checks: of(&self.held_checks),
            memory_passes: of(&self.memory_passes),
            slowest_ms: ms_of(&self.slowest_us),
            longest_gap_ms: ms_of(&self.gap_us),
            elapsed_ms: u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX),
            error_count: errors.0,
            errors: errors.1.clone(),
        }
    }

    /// Does one request and keeps its times.
    fn timed<T>(&self, counter: &AtomicU64, request: impl FnOnce() -> T) -> T {
        let begin = self.now_us();
        let result = request();
        let end = self.now_us();
        counter.fetch_add(1, Ordering::Relaxed);
        self.slowest_us.fetch_max(end - begin, Ordering::Relaxed);
        let last = self.last_end_us.fetch_max(end, Ordering::Relaxed);
        self.gap_us.fetch_max(end.saturating_sub(last), Ordering::Relaxed);
        result
    }

    fn now_us(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX)
    }
}

impl Load {
    /// Runs the load; `until` returns when it should end, and is told of the run.
    pub fn run(&self, until: impl FnOnce(&Run)) -> Result<Report> {
        let blocks = (self.mib << 20) / BLOCK_BYTES as u64;
        if blocks < BLOCKS_PER_REQUEST_MAX || self.threads == 0 {
            return Err(Error::new("--mib and --threads must be at least 1"));
        }
        let target = Target {
            file: self.open()?,
            run_id: content::mix(self.seed),
            registers: Registers::new(blocks, !self.overlap, self.fresh),
            run: Run::default(),
        };
        std::thread::scope(|scope| {
            for thread in 0..u64::from(self.threads) {
                let seed = content::mix(self.seed ^ (thread << 32));
                let target = &target;
                scope.spawn(move || Worker::new(target, seed).work());
            }
            if self.memory_mib > 0 {
                scope.spawn(|| memory::watch(self.memory_mib, &target.run));
            }
            until(&target.run);
            target.run.stop.store(true, Ordering::Relaxed);
        });
        target.verify_all();
        Ok(target.run.report())
    }

    fn open(&self) -> Result<File> {
        let mut options = OpenOptions::new();
        options.read(true).write(true);
        if !self.buffered {
            options.custom_flags(libc::O_DIRECT);
        }
        options.open(&self.device).context(|| format!("open {}", self.device.display()))
    }
}

/// What the threads of a load work on.
struct Target {
    file: File,
    /// Tells this run's writes from those of an earlier one.
    run_id: u64,
    registers: Registers,
    run: Run,
}

impl Target {
    fn stamp(&self, block: u64, sequence: u64) -> Stamp {
        Stamp { run: self.run_id, block, sequence }
    }

    fn write(&self, first: u64, count: u64, buffer: &mut Buffer) {
        let tickets: Vec<Ticket> =
            (first..first + count).map(|block| self.registers.begin_write(block)).collect();
        let bytes = buffer.bytes(count);
        for (ticket, block) in tickets.iter().zip(bytes.chunks_exact_mut(BLOCK_BYTES)) {
            self.stamp(ticket.block, ticket.sequence).fill(block);
        }
        let at = first * BLOCK_BYTES as u64;
        match self.run.timed(&self.run.writes, || self.file.write_all_at(bytes, at)) {
            Ok(()) => tickets.iter().for_each(|ticket| self.registers.end_write(ticket)),
            Err(error) => self.run.error(format!("write of {count} blocks at {first}: {error}")),
        }
    }

    /// Reads into the buffer; what each block of it holds, if all was right.
    fn read(&self, first: u64, count: u64, buffer: &mut Buffer) -> Vec<Option<Stamp>> {
        let begun: Vec<u64> =
            (first..first + count).map(|block| self.registers.begin_read(block)).collect();
        let bytes = buffer.bytes(count);
        let at = first * BLOCK_BYTES as u64;
        let result = self.run.timed(&self.run.reads, || self.file.read_exact_at(bytes, at));
        if let Err(error) = &result {
            self.run.error(format!("read of {count} blocks at {first}: {error}"));
        }
        let blocks = (first..).zip(begun).zip(bytes.chunks_exact(BLOCK_BYTES));
        let judged = blocks.map(|((block, began), bytes)| {
            let found = match &result {
                Ok(()) => content::find(bytes, self.run_id, block),
                Err(_) => Ok(None),
            };
            let verdict = match (&result, &found) {
                (Ok(()), Ok(sequence)) => self.registers.end_read(block, began, *sequence),
                _ => self.registers.abandon_read(block),
            };
            let complaint = found.as_ref().err().cloned().or(verdict.err());
            if let Some(complaint) = complaint {
                self.run.error(format!("block {block}: {complaint}"));
                return None;
            }
            found.ok().flatten().map(|sequence| self.stamp(block, sequence))
        });
        judged.collect()
    }

    fn flush(&self) {
        if let Err(error) = self.run.timed(&self.run.flushes, || self.file.sync_data()) {
            self.run.error(format!("flush: {error}"));
        }
    }

    fn verify_all(&self) {
        let mut buffer = Buffer::new(BLOCKS_PER_REQUEST_MAX);
        let mut first = 0;
        while first < self.registers.len() {
            let count = BLOCKS_PER_REQUEST_MAX.min(self.registers.len() - first);
            self.read(first, count, &mut buffer);
            first += count;
        }
    }
}

/// A buffer that a read filled, and what is in it.
struct Held {
    buffer: Buffer,
    holds: Vec<Option<Stamp>>,
}

struct Worker<'a> {
    target: &'a Target,
    random: u64,
    held: Vec<Held>,
    requests: u64,
}

impl<'a> Worker<'a> {
    fn new(target: &'a Target, seed: u64) -> Self {
        let empty = || Held { buffer: Buffer::new(BLOCKS_PER_REQUEST_MAX), holds: Vec::new() };
        let held = (0..BUFFERS_HELD).map(|_| empty()).collect();
        Self { target, random: seed, held, requests: 0 }
    }

    fn work(mut self) {
        let mut outgoing = Buffer::new(BLOCKS_PER_REQUEST_MAX);
        while !self.target.run.is_over() {
            self.step(&mut outgoing);
        }
        for index in 0..self.held.len() {
            self.look_again(index);
        }
    }

    fn step(&mut self, outgoing: &mut Buffer) {
        let Some((first, count)) = self.claim() else {
            std::thread::yield_now();
            return;
        };
        if self.random() % 16 < WRITES_OF_16 {
            self.target.write(first, count, outgoing);
        } else {
            let index = usize::try_from(self.random() % BUFFERS_HELD as u64).unwrap_or(0);
            self.look_again(index);
            let held = &mut self.held[index];
            held.holds = self.target.read(first, count, &mut held.buffer);
        }
        self.target.registers.release(first, count);
        self.requests += 1;
        if self.requests.is_multiple_of(REQUESTS_PER_FLUSH) {
            self.target.flush();
        }
    }

    fn claim(&mut self) -> Option<(u64, u64)> {
        for _ in 0..CLAIM_TRIES {
            let count = 1 + self.random() % BLOCKS_PER_REQUEST_MAX;
            let first = self.random() % (self.target.registers.len() - count + 1);
            if self.target.registers.claim(first, count) {
                return Some((first, count));
            }
        }
        None
    }

    /// What a read once put into memory must still be there.
    fn look_again(&mut self, index: usize) {
        let held = &mut self.held[index];
        let count = held.holds.len() as u64;
        let blocks = held.buffer.bytes(count).chunks_exact(BLOCK_BYTES);
        for (stamp, bytes) in held.holds.drain(..).zip(blocks) {
            let Some(stamp) = stamp else { continue };
            let found = content::find(bytes, stamp.run, stamp.block);
            if found != Ok(Some(stamp.sequence)) {
                let what = format!("memory that a read had filled changed: {stamp:?}, {found:?}");
                self.target.run.error(what);
            }
            self.target.run.held_checks.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn random(&mut self) -> u64 {
        self.random = content::mix(self.random);
        self.random
    }
}

#[cfg(test)]
mod tests;
