//! Initiators: sessions, commands, and what they expect to read.

use block::{Buffer, Sgl};
use proto::iscsi::Wishes;
use proto::iscsi::initiator::Config;
use rt::sim::Random;
use store::iscsi::{Answer, Command, Failure, Lost, Session};
use wire::iscsi::attribute;

use super::Env;
use super::server::{DISK_BYTES, Server, normal};

pub const INITIATOR: &str = "iqn.2026-11.org.viaduct.test:host";
pub const TARGET: &str = "iqn.2026-11.org.viaduct:test:web";
pub const LUN: [u8; 8] = [0; 8];
const BLOCK: u64 = 512;

pub fn config(wishes: Wishes) -> Config {
    Config {
        wishes,
        name: INITIATOR.to_owned(),
        isid: [0x80, 1, 2, 3, 4, 5],
        kind: normal(),
        chap: None,
        commands: 64,
    }
}

/// An initiator by the number of its ISID.
pub async fn open(env: &Env, server: &Server, wishes: Wishes, number: u8) -> Result<Session, Lost> {
    let mut config = config(wishes);
    config.isid[5] = number;
    Session::open(&env.core, &server.address, config).await
}

pub fn read_cdb(at: u64, bytes: usize) -> [u8; 16] {
    cdb(0x88, at, bytes)
}

pub fn write_cdb(at: u64, bytes: usize) -> [u8; 16] {
    cdb(0x8a, at, bytes)
}

fn cdb(opcode: u8, at: u64, bytes: usize) -> [u8; 16] {
    let mut cdb = [0; 16];
    cdb[0] = opcode;
    cdb[2..10].copy_from_slice(&(at / BLOCK).to_be_bytes());
    cdb[10..14].copy_from_slice(&((bytes as u64 / BLOCK) as u32).to_be_bytes());
    cdb
}

pub async fn read(session: &Session, at: u64, bytes: usize) -> Result<Vec<u8>, Failure> {
    let buffer = Buffer::from_bytes(&vec![0xee; bytes]);
    let (cdb, into) = (read_cdb(at, bytes), buffer.sgl());
    let command =
        Command { lun: LUN, cdb: &cdb, attribute: attribute::SIMPLE, out: Sgl::empty(), into };
    let answer = session.command(&command).await?;
    assert_good(&answer);
    assert_eq!(answer.outcome.received as usize, bytes);
    Ok(buffer.to_vec())
}

pub async fn write(session: &Session, at: u64, bytes: &[u8]) -> Result<Answer, Failure> {
    let buffer = Buffer::from_bytes(bytes);
    let (cdb, out) = (write_cdb(at, bytes.len()), buffer.sgl());
    let command =
        Command { lun: LUN, cdb: &cdb, attribute: attribute::SIMPLE, out, into: Sgl::empty() };
    session.command(&command).await
}

pub fn assert_good(answer: &Answer) {
    assert_eq!((answer.outcome.status, &answer.sense), (0, &None), "{answer:?}");
}

/// ABORTED COMMAND, PROTOCOL SERVICE CRC ERROR: nothing of it was done.
pub fn is_damaged(answer: &Answer) -> bool {
    answer.sense.as_ref().is_some_and(|it| (it[2] & 0xf, it[12], it[13]) == (0xb, 0x47, 5))
}

pub fn pattern(bytes: usize, seed: u64) -> Vec<u8> {
    let mut random = Random::new(seed);
    let words = (0..bytes.div_ceil(8)).flat_map(|_| random.draw().to_le_bytes());
    words.take(bytes).collect()
}

/// A part of the disk that one user has for itself, and what is there.
pub struct Region {
    start: u64,
    content: Vec<u8>,
    random: Random,
}

impl Region {
    /// The part with this number, of so many.
    pub fn new(number: u64, of: u64, random: Random) -> Self {
        let size = DISK_BYTES / of / BLOCK * BLOCK;
        Self { start: number * size, content: vec![0; size as usize], random }
    }

    /// A part whose content is made known by writing it.
    pub async fn fresh(session: &Session, random: Random) -> Self {
        let region = Self::new(255, 256, random);
        assert_good(&write(session, region.start, &region.content).await.unwrap());
        region
    }

    pub fn start(&self) -> u64 {
        self.start
    }

    pub fn len(&self) -> usize {
        self.content.len()
    }

    /// A place in it, of at most so many bytes.
    fn place(&mut self, bytes_max: usize) -> (usize, usize) {
        let blocks = self.content.len() as u64 / BLOCK;
        let most = (bytes_max as u64 / BLOCK).min(blocks);
        let count = *self.random.pick(&[1, 8, 16, 128, 512, 513, most]);
        let count = count.clamp(1, most);
        let at = self.random.below(blocks - count + 1);
        ((at * BLOCK) as usize, (count * BLOCK) as usize)
    }

    /// Writes or reads somewhere, and looks at what was read. A write that was damaged on its way
    /// is as good as one that never arrived.
    pub async fn step(&mut self, session: &Session, bytes_max: usize) -> Result<(), Failure> {
        let (at, bytes) = self.place(bytes_max);
        if self.random.coin() {
            let data = pattern(bytes, self.random.draw());
            let answer = write(session, self.start + at as u64, &data).await?;
            if is_damaged(&answer) {
                return Ok(());
            }
            assert_good(&answer);
            self.content[at..at + bytes].copy_from_slice(&data);
        } else {
            let found = read(session, self.start + at as u64, bytes).await?;
            assert!(found == self.content[at..at + bytes], "{bytes} bytes at {at} are others");
        }
        Ok(())
    }

    /// All of it is as it should be.
    pub async fn check(&mut self, session: &Session) -> Result<(), Failure> {
        let found = read(session, self.start, self.content.len()).await?;
        assert!(found == self.content, "what was written is not what is there");
        Ok(())
    }
}
