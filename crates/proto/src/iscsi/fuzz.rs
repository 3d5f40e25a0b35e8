//! Hostile peers: bytes taken as a script of what a peer sends and what the owner does, run against
//! the machines, with their promises checked after every step. The property tests run it on random
//! scripts, the fuzz targets on those that a fuzzer finds.

mod initiator;
mod login;
mod target;

pub use initiator::initiator;
pub use login::login;
pub use target::{Reached, target};

use super::digest::Digest;
use super::head::Trailer;
use wire::iscsi::{Header, LoginRequest, Opcode, Pdu, Uint24};
use zerocopy::{FromBytes, IntoBytes};

const INITIATOR: &str = "iqn.2026-11.org.example:host";
const TARGET: &str = "iqn.2026-11.org.viaduct:c:host";

/// Numbers that mean something somewhere: flags, limits, tags, lengths.
const WORDS: [u32; 20] = [
    0,
    0,
    0,
    1,
    2,
    3,
    7,
    8,
    9,
    16,
    100,
    511,
    512,
    513,
    1000,
    4096,
    8192,
    0x1_0000,
    0x7fff_ffff,
    u32::MAX,
];

struct Script<'a>(&'a [u8]);

impl<'a> Script<'a> {
    fn next(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    /// The next number below `limit`; zero at the end of the script.
    fn below(&mut self, limit: usize) -> usize {
        usize::from(self.next().unwrap_or(0)) % limit
    }

    fn one_in(&mut self, count: usize) -> bool {
        self.below(count) == 1
    }

    fn word(&mut self) -> u32 {
        WORDS[self.below(WORDS.len())]
    }

    fn take(&mut self, count: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(count.min(self.0.len()));
        self.0 = rest;
        taken
    }
}

/// The bytes of a PDU, often damaged: some header byte changed, a digest wrong, an end missing.
fn pdu_bytes<P: Pdu>(pdu: &P, data: usize, digests: bool, script: &mut Script<'_>) -> Vec<u8> {
    let mut header = Header::read_from_bytes(pdu.as_bytes()).expect("headers have one size");
    header.data_segment_length = Uint24::new(data as u32);
    if script.one_in(64) {
        let at = script.below(48);
        header.as_mut_bytes()[at] = script.word() as u8;
    }
    let mut bytes = header.as_bytes().to_vec();
    if script.one_in(96) {
        let words = script.below(6);
        bytes[4] = words as u8;
        bytes.extend((0..4 * words).map(|_| script.word() as u8));
    }
    if digests {
        let digest = Digest::of(&bytes);
        bytes.extend_from_slice(&digest);
    }
    let segment = vec![0x42; data];
    bytes.extend_from_slice(&segment);
    let digest = digests.then(|| Digest::new().update(&segment));
    bytes.extend_from_slice(Trailer::new(data as u32, digest).as_bytes());
    if script.one_in(96) {
        let at = script.below(bytes.len());
        bytes[at] ^= 1 << script.below(8);
    }
    bytes
}

fn login_request(flags: u8) -> LoginRequest {
    LoginRequest {
        opcode: Opcode::LOGIN_REQUEST.0 | 0x40,
        flags,
        isid: [0x80, 1, 2, 3, 4, 5],
        initiator_task_tag: 1.into(),
        cmd_sn: 1.into(),
        ..LoginRequest::default()
    }
}

fn with_text<P: Pdu>(pdu: &P, text: &[u8]) -> Vec<u8> {
    let mut header = Header::read_from_bytes(pdu.as_bytes()).expect("headers have one size");
    header.data_segment_length = Uint24::new(text.len() as u32);
    let trailer = Trailer::new(text.len() as u32, None);
    [header.as_bytes(), text, trailer.as_bytes()].concat()
}

/// Numbers of a target as they were sent: they never go back.
#[derive(Default)]
struct Numbers {
    last: Option<(u32, u32, u32)>,
}

impl Numbers {
    /// StatSN, ExpCmdSN and MaxCmdSN of a PDU.
    fn check(&mut self, header: &[u8]) {
        let word = |at: usize| {
            u32::from_be_bytes(header[at..at + 4].try_into().expect("four bytes are four bytes"))
        };
        let now = (word(24), word(28), word(32));
        // A Data-In without status has no StatSN.
        let is_told = header[0] != Opcode::DATA_IN.0 || header[1] & 1 != 0;
        if let Some(last) = self.last {
            assert!(!is_told || !super::serial::is_before(now.0, last.0), "StatSN goes back");
            assert!(!super::serial::is_before(now.1, last.1), "ExpCmdSN goes back");
            assert!(!super::serial::is_before(now.2, last.2), "MaxCmdSN goes back");
            self.last = Some((if is_told { now.0 } else { last.0 }, now.1, now.2));
        } else {
            self.last = Some(now);
        }
    }
}
