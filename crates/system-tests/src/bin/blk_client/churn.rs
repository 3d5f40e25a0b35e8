//! Servers that are killed at any moment under a load whose every block is known.
//!
//! Several disks are written, zeroed, discarded and read at random places far apart and close
//! together, and in some rounds something is done to their pool beside them. The server is killed
//! whenever it comes, and its successor gets the rings as they are. A block has one request at a
//! time, so there is exactly one right answer to every read: what was answered before a kill is
//! there, and what was out is done, by either server, before it is answered. Of a snapshot that was
//! taken while nothing was out, a clone is read many kills later.

mod beside;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use system_tests::blk_client::Churned;
use system_tests::verify::BLOCK_BYTES;
use system_tests::verify::content::{Stamp, find, mix};
use system_tests::{Error, Result};

use crate::disk::{Disk, Op, SLOTS};
use crate::server::Server;
use beside::{Beside, strs};

/// Blocks of a disk that are used: this many one after the other, and as many anywhere.
const NEAR: u64 = 512;
const FAR: u64 = 512;
/// How long a server lives under the load, at most; and one of so many, which has the time to move
/// something, or of so many that have something to move.
const LIFE_MS: u64 = 120;
const LONG_LIFE_MS: u64 = 4000;
const LONG_EVERY: u64 = 16;
const LONG_EVERY_MOVING: u64 = 4;
/// Blocks of a disk that are read again after each kill; all of them every so often.
const READ_AGAIN: u64 = 64;
const ALL_AGAIN_EVERY: u32 = 16;
/// The snapshot whose contents are known, its clone, and who reads that.
const KEPT: &str = "kept";
const READ: &str = "read";
const READER: &str = "reader";

#[derive(clap::Args)]
pub struct Arguments {
    /// The sockets of the disks.
    #[arg(required = true)]
    sockets: Vec<PathBuf>,
    #[arg(long)]
    rounds: u32,
    #[arg(long, default_value_t = 1)]
    seed: u64,
    #[command(flatten)]
    beside: beside::Subjects,
    /// The socket of client `reader`, if snapshots are to be read.
    #[arg(long)]
    reader: Option<PathBuf>,
    /// Where the servers' output goes.
    #[arg(long)]
    log: PathBuf,
    /// The server's command line.
    #[arg(last = true, required = true)]
    server: Vec<String>,
}

/// What is out in a slot.
#[derive(Clone, Copy)]
struct Out {
    op: Op,
    index: usize,
    /// What the block holds when it is done.
    holds: Option<u64>,
}

/// A disk with what each of its blocks holds.
struct Known {
    disk: Disk,
    run: u64,
    places: Vec<u64>,
    holds: Vec<Option<u64>>,
    out: Vec<Option<Out>>,
}

pub struct Churn<'a> {
    arguments: &'a Arguments,
    server: Server,
    beside: Beside<'a>,
    disks: Vec<Known>,
    /// What the disks held when the snapshot was taken, if there is one.
    kept: Option<Vec<Vec<Option<u64>>>>,
    random: u64,
    sequence: u64,
    told: Churned,
}

impl Known {
    fn new(socket: &Path, run: u64) -> Result<Self> {
        let mut disk = Disk::new(socket)?;
        let blocks = disk.attach()?;
        let near = mix(run) % (blocks - NEAR);
        let far = (0..FAR).map(|index| mix(run ^ mix(index)) % blocks);
        let places: BTreeSet<u64> = (near..near + NEAR).chain(far).collect();
        let places: Vec<u64> = places.into_iter().collect();
        let (holds, out) = (vec![None; places.len()], vec![None; usize::from(SLOTS)]);
        Ok(Self { disk, run, places, holds, out })
    }

    fn is_in_use(&self, index: usize) -> bool {
        self.out.iter().flatten().any(|out| out.index == index)
    }

    fn place(&mut self, slot: u16, out: Out) {
        let mut bytes = vec![0xff; BLOCK_BYTES];
        if let (Op::Write(block), Some(sequence)) = (out.op, out.holds) {
            Stamp { run: self.run, block, sequence }.fill(&mut bytes);
        }
        self.disk.set_data(slot, &bytes);
        self.disk.place(slot, out.op);
        self.out[usize::from(slot)] = Some(out);
    }

    /// Takes note of what was answered; what is wrong with it.
    fn take_answers(&mut self, told: &mut Churned) -> Result<()> {
        self.disk.answers()?;
        for slot in 0..SLOTS {
            if self.disk.is_out(slot) {
                continue;
            }
            let Some(out) = self.out[usize::from(slot)].take() else { continue };
            match out.op {
                Op::Read(block) => {
                    told.reads += 1;
                    let found = find(&self.disk.data(slot), self.run, block);
                    if found != Ok(out.holds) {
                        let right = out.holds;
                        told.violations.push(format!("block {block}: {found:?}, not {right:?}"));
                    }
                }
                Op::Flush => told.flushes += 1,
                Op::Write(_) => told.writes += 1,
                Op::Discard(_) | Op::WriteZeroes(_) => told.erased += 1,
            }
            if !matches!(out.op, Op::Flush) {
                self.holds[out.index] = out.holds;
            }
        }
        Ok(())
    }

    fn read(&self, index: usize) -> Out {
        Out { op: Op::Read(self.places[index]), index, holds: self.holds[index] }
    }

    /// Reads these blocks, as many at a time as there are slots.
    fn read_again(&mut self, indexes: &[usize], told: &mut Churned) -> Result<()> {
        for group in indexes.chunks(usize::from(SLOTS)) {
            for (slot, &index) in (0..SLOTS).zip(group) {
                let out = self.read(index);
                self.place(slot, out);
            }
            self.disk.kick()?;
            self.settle(told)?;
        }
        Ok(())
    }

    fn settle(&mut self, told: &mut Churned) -> Result<()> {
        self.disk.wait()?;
        self.take_answers(told)
    }
}

impl<'a> Churn<'a> {
    pub fn new(arguments: &'a Arguments) -> Result<Self> {
        let server = Server::start(&arguments.server, &arguments.log)?;
        let runs = (0..).map(|number| mix(arguments.seed ^ mix(number)));
        let disks = arguments.sockets.iter().zip(runs);
        let disks = disks.map(|(socket, run)| Known::new(socket, run)).collect::<Result<_>>()?;
        let beside = Beside::new(&arguments.server[0], &arguments.beside);
        let (kept, random, told) = (None, mix(arguments.seed), Churned::default());
        Ok(Self { arguments, server, beside, disks, kept, random, sequence: 0, told })
    }

    pub fn run(mut self) -> Result<Churned> {
        for round in 1..=self.arguments.rounds {
            self.round(round)?;
            self.is_right(round)?;
        }
        while self.beside.is_missed() {
            self.server.kill()?;
            self.beside.between(0)?;
            self.server.restart()?;
        }
        if self.kept.is_some() {
            self.read_kept()?;
            self.is_right(self.arguments.rounds)?;
        }
        self.beside.finish(&mut self.told)?;
        Ok(self.told)
    }

    fn is_right(&self, round: u32) -> Result<()> {
        match self.told.violations.is_empty() {
            true => Ok(()),
            false => {
                let told = &self.told.violations[..self.told.violations.len().min(16)];
                Err(Error::new(format!("after kill {round}: {told:#?}")))
            }
        }
    }

    fn round(&mut self, round: u32) -> Result<()> {
        let every = if self.beside.has_to_move() { LONG_EVERY_MOVING } else { LONG_EVERY };
        let longest = match self.random().is_multiple_of(every) {
            true => LONG_LIFE_MS,
            false => LIFE_MS,
        };
        let life = Duration::from_micros(self.random() % (longest * 1000));
        let random = self.random();
        let beside = self.beside.begin(round, random)?;
        let begin = Instant::now();
        while begin.elapsed() < life {
            self.load()?;
        }
        self.told.kills += 1;
        self.server.kill()?;
        if let Some(mut beside) = beside {
            beside.wait()?;
        }
        let random = self.random();
        self.beside.between(random)?;
        self.server.restart()?;
        for known in &mut self.disks {
            known.disk.attach()?;
            known.settle(&mut self.told)?;
        }
        for index in 0..self.disks.len() {
            let count = self.disks[index].places.len();
            let again: Vec<usize> = match round % ALL_AGAIN_EVERY {
                0 => (0..count).collect(),
                _ => (0..READ_AGAIN).map(|_| self.random() as usize % count).collect(),
            };
            self.disks[index].read_again(&again, &mut self.told)?;
        }
        if self.arguments.reader.is_some() && round.is_multiple_of(ALL_AGAIN_EVERY) {
            match self.kept {
                None => self.keep()?,
                Some(_) => self.read_kept()?,
            }
        }
        self.beside.look(round, &mut self.told)
    }

    /// Takes a snapshot of all disks. Nothing is out.
    fn keep(&mut self) -> Result<()> {
        let names = self.beside.snapshots(KEPT);
        self.beside.command(&[&["snapshot", "create"], &strs(&names)[..]].concat())?;
        self.kept = Some(self.disks.iter().map(|known| known.holds.clone()).collect());
        Ok(())
    }

    /// Reads all of the snapshot, by clones, and removes it.
    fn read_kept(&mut self) -> Result<()> {
        let (Some(kept), Some(reader)) = (self.kept.take(), &self.arguments.reader) else {
            return Ok(());
        };
        let names = self.beside.snapshots(KEPT);
        for ((holds, known), name) in kept.into_iter().zip(&self.disks).zip(&names) {
            self.beside.command(&["clone", name, READ])?;
            self.beside.command(&["map", READ, "--to", READER, "--via", "vhost-user-blk"])?;
            let (run, places) = (known.run, known.places.clone());
            let all: Vec<usize> = (0..places.len()).collect();
            let out = vec![None; usize::from(SLOTS)];
            let mut clone = Known { disk: Disk::new(reader)?, run, places, holds, out };
            clone.disk.attach()?;
            clone.read_again(&all, &mut self.told)?;
            drop(clone);
            self.beside.command(&["unmap", READ, "--from", READER])?;
            self.beside.command(&["lu", "rm", READ])?;
            self.told.snapshots += 1;
        }
        self.beside.command(&[&["snapshot", "rm"], &strs(&names)[..]].concat())
    }

    /// Fills every slot that is free.
    fn load(&mut self) -> Result<()> {
        for at in 0..self.disks.len() {
            let mut told = std::mem::take(&mut self.told);
            let taken = self.disks[at].take_answers(&mut told);
            self.told = told;
            taken?;
            for slot in 0..SLOTS {
                if self.disks[at].out[usize::from(slot)].is_some() {
                    continue;
                }
                let random = self.random();
                let known = &self.disks[at];
                let index = (random >> 8) as usize % known.places.len();
                if known.is_in_use(index) {
                    continue;
                }
                let block = known.places[index];
                self.sequence += 1;
                let out = match random % 16 {
                    0..8 => Out { op: Op::Write(block), index, holds: Some(self.sequence) },
                    8..12 => known.read(index),
                    12 => Out { op: Op::WriteZeroes(block), index, holds: None },
                    13..15 => Out { op: Op::Discard(block), index, holds: None },
                    _ => Out { op: Op::Flush, index, holds: None },
                };
                self.disks[at].place(slot, out);
            }
            self.disks[at].disk.kick()?;
        }
        Ok(())
    }

    fn random(&mut self) -> u64 {
        self.random = mix(self.random);
        self.random
    }
}
