//! The stream of PDUs as it arrives: header with additional segments and digest, data, padding,
//! digest. Both roles.
//!
//! ```text
//!   Header ──▶ Data ──▶ Tail ──▶ Header        Data and Tail are left out when there is no data
//! ```
//!
//! Headers are looked at where they lie, so they must lie there whole. Data passes in pieces: the
//! owner puts it where it belongs, or it is collected here (short texts), or thrown away.

use super::digest::Digest;
use super::error::Violation;
use super::head::pad_bytes;
use wire::iscsi::{BHS_BYTES, DIGEST_BYTES, Header};
use zerocopy::FromBytes;

/// Longest additional header segments of one PDU: an extended CDB of 260 bytes and a bidirectional
/// length, with room to spare.
pub const AHS_BYTES_MAX: usize = 272;

/// Longest header with everything that belongs to it: so much must fit into the owner's buffer.
pub const HEADER_BYTES_MAX: usize = BHS_BYTES + AHS_BYTES_MAX + DIGEST_BYTES;

/// Room for texts and pings that a connection keeps: a thousand idle ones must not cost much.
const COLLECTED_KEPT_BYTES: usize = 8192;

/// What becomes of the data of the PDU that is coming in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// The owner puts it where it belongs.
    Placed,
    /// It is collected here.
    Collected,
    Discarded,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    Header,
    Data { left: u32, fate: Fate },
    Tail,
}

/// A header that has arrived whole.
pub(super) struct Arrived<'a> {
    pub header: &'a Header,
    pub ahs: &'a [u8],
    /// Bytes that it took, its digest among them.
    pub length: usize,
}

pub(super) struct Receiver {
    pub header_digest: bool,
    pub data_digest: bool,
    /// Longest data segment allowed.
    pub data_bytes_max: u32,
    stage: Stage,
    length: u32,
    digest: Digest,
    collected: Vec<u8>,
}

impl Receiver {
    pub fn new(data_bytes_max: u32) -> Self {
        Self {
            header_digest: false,
            data_digest: false,
            data_bytes_max,
            stage: Stage::Header,
            length: 0,
            digest: Digest::new(),
            collected: Vec::new(),
        }
    }

    #[inline]
    pub fn stage(&self) -> Stage {
        self.stage
    }

    /// The header at the start of `bytes`, or how many bytes it takes at least.
    #[inline]
    pub fn header<'a>(&self, bytes: &'a [u8]) -> Result<Result<Arrived<'a>, usize>, Violation> {
        let Ok((header, rest)) = Header::ref_from_prefix(bytes) else {
            return Ok(Err(BHS_BYTES));
        };
        let ahs_bytes = header.ahs_bytes();
        if ahs_bytes > AHS_BYTES_MAX {
            return Err(Violation::AhsLength { bytes: ahs_bytes, max: AHS_BYTES_MAX });
        }
        let digest_bytes = if self.header_digest { DIGEST_BYTES } else { 0 };
        let length = BHS_BYTES + ahs_bytes + digest_bytes;
        if bytes.len() < length {
            return Ok(Err(length));
        }
        if self.header_digest {
            let (covered, digest) = bytes[..length].split_at(BHS_BYTES + ahs_bytes);
            if Digest::of(covered) != digest {
                return Err(Violation::HeaderDigest);
            }
        }
        let data = header.data_bytes();
        if data > self.data_bytes_max {
            return Err(Violation::DataLength { bytes: data, max: self.data_bytes_max });
        }
        Ok(Ok(Arrived { header, ahs: &rest[..ahs_bytes], length }))
    }

    /// Data of the PDU whose header was just handled follows.
    #[inline]
    pub fn expect(&mut self, header: &Header, fate: Fate) {
        self.length = header.data_bytes();
        self.digest = Digest::new();
        self.collected.clear();
        self.stage = match self.length {
            0 => Stage::Header,
            left => Stage::Data { left, fate },
        };
    }

    /// Nobody wants the rest of the data that is coming in.
    pub fn discard(&mut self) {
        if let Stage::Data { fate, .. } = &mut self.stage {
            *fate = Fate::Discarded;
        }
    }

    /// The owner has taken so many bytes; `digest` is the one from [`digest`](Self::digest), fed
    /// with them.
    pub fn placed(&mut self, count: u32, digest: Digest) {
        let Stage::Data { left, fate } = &mut self.stage else {
            panic!("{count} bytes of data placed where none is coming in");
        };
        assert!(*left >= count, "{count} bytes placed of {left}", left = *left);
        *left -= count;
        if *left == 0 {
            self.stage = Stage::Tail;
        } else {
            self.stage = Stage::Data { left: *left, fate: *fate };
        }
        self.digest = digest;
    }

    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// Collects or discards; how many bytes were taken.
    pub fn take(&mut self, bytes: &[u8]) -> usize {
        let Stage::Data { left, fate } = self.stage else { return 0 };
        let count = bytes.len().min(left as usize);
        let taken = &bytes[..count];
        if fate == Fate::Collected {
            self.collected.extend_from_slice(taken);
        }
        let digest = if self.data_digest { self.digest.update(taken) } else { self.digest };
        self.placed(count as u32, digest);
        count
    }

    /// Padding and digest at the start of `bytes`: how many bytes they take, and whether the digest
    /// is right; nothing when they are not there yet.
    pub fn tail(&mut self, bytes: &[u8]) -> Option<(usize, bool)> {
        let pad = pad_bytes(self.length);
        let length = self.tail_bytes();
        let tail = bytes.get(..length)?;
        self.stage = Stage::Header;
        if !self.data_digest {
            return Some((length, true));
        }
        let digest = self.digest.update(&tail[..pad]).finish();
        Some((length, digest == tail[pad..]))
    }

    pub fn tail_bytes(&self) -> usize {
        pad_bytes(self.length) + if self.data_digest { DIGEST_BYTES } else { 0 }
    }

    /// What was collected; its room is to be given back with [`give_back`](Self::give_back).
    pub fn collected(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.collected)
    }

    pub fn give_back(&mut self, collected: Vec<u8>) {
        if collected.capacity() <= COLLECTED_KEPT_BYTES {
            self.collected = collected;
        }
    }
}
