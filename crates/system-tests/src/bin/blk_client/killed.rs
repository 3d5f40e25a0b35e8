//! One server after the other is killed with requests in the kernel.
//!
//! A round: writes A and reads R are out, and the store holds them back; the server is killed, and
//! its successor started at once; reads N come while nobody serves; another disk of the successor
//! works; the client attaches to its own; after a while the store lets the dead server's requests
//! go. Until they have ended nothing may be answered, and nobody may touch the memory. Then the
//! first answers must come soon. When A, R and N are answered, the
//! client gives the buffers of A and R another content, as a guest would that uses its memory
//! again, and writes B where A went. Then B must be there and stay there, and the buffers must stay
//! as they are: a late A would put something else over B, a late R over the memory.

use std::ops::Range;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use system_tests::blk_client::Round;
use system_tests::verify::BLOCK_BYTES;
use system_tests::verify::content::{Stamp, find, mix};
use system_tests::{Context, Error, Result};

use crate::Arguments;
use crate::disk::{Disk, Op};
use crate::late::Lane;
use crate::memory::Snapshot;
use crate::server::Server;

const GROUP: u16 = 5;
const WRITES: Range<u16> = 0..GROUP;
const READS: Range<u16> = GROUP..2 * GROUP;
/// Requests that come while nobody serves; later the writes of B.
const NEXT: Range<u16> = 2 * GROUP..3 * GROUP;
const READ_BACK: u16 = 3 * GROUP;
/// Of the reads, so many are of blocks that are being written.
const READS_OF_WRITTEN: u64 = 2;

/// Blocks that are used.
const BLOCKS: u64 = 64;
const RUN: u64 = 0x1a7e;
/// The content of memory that is used for something else: no write ever had this sequence.
const REUSED: u64 = u64::MAX;

/// The client kills so soon after its requests at the latest,
const LIFE_MS: u64 = 300;
/// and in one of so many rounds before the server can have made much of them.
const SHORT_LIFE_EVERY: u64 = 4;
const SHORT_LIFE_US: u64 = 3000;
/// The dead server's requests wait so long once its successor has started.
const HOLD_MIN_MS: u64 = 1000;
const HOLD_MS: u64 = 2000;
/// The dead server's requests have ended when none has passed for this long.
const QUIET: Duration = Duration::from_millis(200);
const LOOK_AGAIN: Duration = Duration::from_millis(2);

pub struct Killed {
    disk: Disk,
    server: Server,
    lane: Lane,
    /// The socket of another disk.
    neighbour: PathBuf,
    random: u64,
    /// The sequence of the last write that was answered, for each block.
    sequences: Vec<u64>,
    violations: Vec<String>,
}

/// What the store did with the dead server's requests.
struct Released {
    at: Instant,
    ended_at: Instant,
    requests: u64,
    /// Bytes of the memory that changed while they were held.
    changed_bytes: usize,
}

impl Killed {
    pub fn new(arguments: &Arguments) -> Result<Self> {
        let server = Server::start(&arguments.server, &arguments.log)?;
        let mut disk = Disk::new(&arguments.socket)?;
        if disk.attach()? < BLOCKS {
            return Err(Error::new(format!("the disk must have {BLOCKS} blocks")));
        }
        let killed = Self {
            disk,
            server,
            lane: Lane::new(&arguments.lane, &arguments.device),
            neighbour: arguments.neighbour.clone(),
            random: arguments.seed,
            sequences: vec![0; BLOCKS as usize],
            violations: Vec::new(),
        };
        killed.write_all()
    }

    fn write_all(mut self) -> Result<Self> {
        for block in 0..BLOCKS {
            self.fill(READ_BACK, block, 0);
            self.disk.perform(READ_BACK, Op::Write(block))?;
        }
        Ok(self)
    }

    pub fn round(&mut self) -> Result<Round> {
        let first = self.random() % BLOCKS;
        let passed = self.leave_requests_out(first)?;
        let reaped_in = self.server.kill()?;
        let reaped_at = Instant::now();
        self.place_reads(NEXT, first);
        self.disk.kick()?;
        let before = self.disk.memory.snapshot();
        self.server.restart()?;
        Disk::new(&self.neighbour)?.read_one().context(|| "another disk".into())?;
        let neighbour_at = Instant::now();
        let hold = Duration::from_millis(HOLD_MIN_MS + self.random() % HOLD_MS);
        let released = self.release_after(hold, passed, before);
        self.disk.attach()?;
        let attached_at = Instant::now();
        let answers = self.disk.wait()?;
        self.judge_reads(first);
        self.reuse_memory(first)?;
        self.read_back(first, "at once")?;
        let released = match released.join() {
            Ok(released) => released?,
            Err(_) => return Err(Error::new("the thread that lets requests go is gone")),
        };
        self.read_back(first, "after all had ended")?;
        self.judge_memory();
        self.judge_times(&answers, &released);
        let ms = |at: Instant| (at - reaped_at).as_millis() as u64;
        let answered = |at: Option<&Instant>| ms(at.copied().unwrap_or(reaped_at));
        Ok(Round {
            late_requests: released.requests,
            reaped_in_ms: reaped_in.as_millis() as u64,
            neighbour_ms: ms(neighbour_at),
            attached_ms: ms(attached_at),
            released_ms: ms(released.at),
            ended_ms: ms(released.ended_at),
            first_answer_ms: answered(answers.first()),
            last_answer_ms: answered(answers.last()),
            violations: std::mem::take(&mut self.violations),
        })
    }

    /// A and R, which the store holds back; how many requests have passed it so far.
    fn leave_requests_out(&mut self, first: u64) -> Result<u64> {
        self.lane.hold()?;
        self.lane.take(self.server.pid())?;
        let passed = self.lane.passed()?;
        for (index, slot) in WRITES.enumerate() {
            let block = block(first, index as u64);
            self.fill(slot, block, self.sequences[block as usize] + 1);
            self.disk.place(slot, Op::Write(block));
        }
        self.place_reads(READS, first);
        self.disk.kick()?;
        thread::sleep(match self.random() % SHORT_LIFE_EVERY {
            0 => Duration::from_micros(self.random() % SHORT_LIFE_US),
            _ => Duration::from_millis(self.random() % LIFE_MS),
        });
        match self.disk.answers()?.is_empty() {
            true => Ok(passed),
            false => Err(Error::new("the store does not hold requests back")),
        }
    }

    /// A thread that lets the dead server's requests go after a while, and sees them end.
    fn release_after(
        &self,
        hold: Duration,
        passed: u64,
        before: Snapshot,
    ) -> thread::JoinHandle<Result<Released>> {
        let lane = self.lane.clone();
        thread::spawn(move || {
            thread::sleep(hold);
            let changed_bytes = before.changed_bytes();
            let at = Instant::now();
            lane.release()?;
            let (mut ended_at, mut last) = (at, passed);
            while ended_at.elapsed() < QUIET {
                let now = lane.passed()?;
                if now != last {
                    (ended_at, last) = (Instant::now(), now);
                }
                thread::sleep(LOOK_AGAIN);
            }
            Ok(Released { at, ended_at, requests: last - passed, changed_bytes })
        })
    }

    fn place_reads(&mut self, slots: Range<u16>, first: u64) {
        for slot in slots {
            self.disk.set_data(slot, &[0; BLOCK_BYTES]);
            self.disk.place(slot, Op::Read(read_block(first, slot)));
        }
    }

    /// A read beside a write may return what was there before, or what was written.
    fn judge_reads(&mut self, first: u64) {
        for slot in READS.chain(NEXT) {
            let block = read_block(first, slot);
            let before = self.sequences[block as usize];
            let is_written = (block + BLOCKS - first) % BLOCKS < u64::from(GROUP);
            let right = before..=before + u64::from(is_written);
            match find(&self.disk.data(slot), RUN, block) {
                Ok(Some(sequence)) if right.contains(&sequence) => {}
                found => self.violations.push(format!("read of {block}: {found:?}, not {right:?}")),
            }
        }
    }

    /// A is answered: its buffers and those of the reads are used for something else, and B goes
    /// where A went.
    fn reuse_memory(&mut self, first: u64) -> Result<()> {
        for slot in WRITES.chain(READS) {
            self.fill(slot, u64::from(slot), REUSED);
        }
        for (index, slot) in NEXT.enumerate() {
            let block = block(first, index as u64);
            self.sequences[block as usize] += 2;
            self.fill(slot, block, self.sequences[block as usize]);
            self.disk.place(slot, Op::Write(block));
        }
        self.disk.kick()?;
        self.disk.wait().map(drop)
    }

    fn read_back(&mut self, first: u64, when: &str) -> Result<()> {
        for index in 0..u64::from(2 * GROUP) {
            let block = block(first, index);
            self.disk.perform(READ_BACK, Op::Read(block))?;
            let right = self.sequences[block as usize];
            match find(&self.disk.data(READ_BACK), RUN, block) {
                Ok(Some(sequence)) if sequence == right => {}
                found => {
                    let what = format!("block {block}, read {when}: {found:?}, not {right}");
                    self.violations.push(what);
                }
            }
        }
        Ok(())
    }

    fn judge_memory(&mut self) {
        for slot in WRITES.chain(READS) {
            let found = find(&self.disk.data(slot), RUN, u64::from(slot));
            if found != Ok(Some(REUSED)) {
                let what = format!("the memory that request {slot} used was changed: {found:?}");
                self.violations.push(what);
            }
        }
    }

    /// Whoever left nothing in the kernel need not be waited for.
    fn judge_times(&mut self, answers: &[Instant], released: &Released) {
        if released.requests == 0 {
            return;
        }
        let early = answers.iter().filter(|at| **at < released.at).count();
        if early > 0 {
            let what = format!("{early} answers while the dead server's requests were held back");
            self.violations.push(what);
        }
        if released.changed_bytes > 0 {
            let bytes = released.changed_bytes;
            let what = format!("{bytes} bytes of memory changed while they were held back");
            self.violations.push(what);
        }
    }

    fn fill(&self, slot: u16, block: u64, sequence: u64) {
        let mut bytes = vec![0; BLOCK_BYTES];
        Stamp { run: RUN, block, sequence }.fill(&mut bytes);
        self.disk.set_data(slot, &bytes);
    }

    fn random(&mut self) -> u64 {
        self.random = mix(self.random);
        self.random
    }
}

/// The blocks of a round: first those that are written, then others that are only read.
fn block(first: u64, index: u64) -> u64 {
    (first + index) % BLOCKS
}

fn read_block(first: u64, slot: u16) -> u64 {
    let index = u64::from(slot % GROUP);
    block(first, if index < READS_OF_WRITTEN { index } else { u64::from(GROUP) + index })
}
