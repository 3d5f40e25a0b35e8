//! The form of a backup: parts one behind the other, each under a checksum, and a closing part with
//! their number and a checksum of all. So what was cut off is not taken for all there was, and what
//! has rotted is not taken for what was said.
//!
//! Whoever receives one checks it while it comes: nothing of it has to be in memory.

use super::super::page::{Owner, PAGE_BYTES, Page};

/// The form that this program writes, and the newest that it reads.
pub const FORM: u16 = 1;

/// What a backup begins with.
const MAGIC: [u8; 8] = *b"VDbackup";
const MAGIC_BYTES: usize = MAGIC.len() + size_of::<u64>();
/// Kind, length and checksum.
const HEADER_BYTES: usize = 12;
/// Of a part without its header.
const PART_BYTES_MAX: usize = 2 * PAGE_BYTES;
/// Longest text that a part says; what is longer is cut.
const TEXT_BYTES_MAX: usize = 1024;

/// What a backup is made of, in this order: the pool, then each disk with its table, then each LU
/// with its pages. An LU that is said twice is the later one, and so is a page of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// With when it was begun, in seconds since 1970, and how many bytes its LUs have in slabs.
    Pool {
        id: Owner,
        name: String,
        made: u64,
        bytes: u64,
    },
    /// A disk as the node knew it, and its label.
    Disk {
        name: String,
        label: Page,
    },
    /// Of the disk that was said last.
    Table(Page),
    Lu {
        id: Owner,
        first_slab: u32,
    },
    /// Of the LU that was said last: of its root, or of a map.
    Page(Page),
    /// Something of that LU that could not be read.
    Lacks(String),
    /// That LU is complete; so many bytes in slabs have those that were.
    LuEnd {
        bytes: u64,
    },
}

/// Why something is no backup.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    #[error("it is no backup of a pool")]
    Other,
    #[error("it has form {0}, and this program knows forms up to {FORM}")]
    Newer(u16),
    #[error("it is damaged at byte {0}")]
    Rotten(u64),
    #[error("it ends at byte {0}, before all of it was said: it was cut off")]
    Cut(u64),
}

const POOL: [u8; 4] = *b"pool";
const DISK: [u8; 4] = *b"disk";
const TABLE: [u8; 4] = *b"tabl";
const LU: [u8; 4] = *b"lu  ";
const PAGE: [u8; 4] = *b"page";
const LACKS: [u8; 4] = *b"lack";
const LU_END: [u8; 4] = *b"luen";
const END: [u8; 4] = *b"end ";

/// A checksum that grows.
struct Sum(crc_fast::Digest);

impl Sum {
    fn new() -> Self {
        Self(crc_fast::Digest::new(crc_fast::CrcAlgorithm::Crc32Iscsi))
    }

    fn add(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    fn value(&self) -> u32 {
        self.0.finalize() as u32
    }
}

fn sum_of(kind: [u8; 4], payload: &[u8]) -> u32 {
    let mut sum = Sum::new();
    [&kind[..], &(payload.len() as u32).to_le_bytes(), payload].iter().for_each(|it| sum.add(it));
    sum.value()
}

/// Writes one.
pub struct Writer {
    /// What nobody has taken yet.
    out: Vec<u8>,
    bytes: u64,
    parts: u64,
    sum: Sum,
}

impl Default for Writer {
    fn default() -> Self {
        let mut writer = Self { out: Vec::new(), bytes: 0, parts: 0, sum: Sum::new() };
        let form = u64::from(FORM).to_le_bytes();
        writer.append(&[&MAGIC[..], &form].concat());
        writer
    }
}

impl Writer {
    pub fn put(&mut self, part: &Part) {
        let (kind, payload) = part.encode();
        self.put_raw(kind, &payload);
    }

    /// The closing part, and zeroes up to whole pages.
    pub fn close(&mut self) {
        let end = [&self.parts.to_le_bytes()[..], &self.sum.value().to_le_bytes()].concat();
        self.put_raw(END, &end);
        let rest = self.bytes.next_multiple_of(PAGE_BYTES as u64) - self.bytes;
        self.append(&vec![0; rest as usize]);
    }

    /// How many bytes there are to be taken.
    pub fn waiting(&self) -> usize {
        self.out.len()
    }

    pub fn take(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.out)
    }

    fn put_raw(&mut self, kind: [u8; 4], payload: &[u8]) {
        assert!(payload.len() <= PART_BYTES_MAX, "a part has {PART_BYTES_MAX} bytes at most");
        self.parts += 1;
        let (len, sum) = (payload.len() as u32, sum_of(kind, payload));
        let header = [kind, len.to_le_bytes(), sum.to_le_bytes()].concat();
        self.append(&[&header, payload].concat());
    }

    fn append(&mut self, bytes: &[u8]) {
        self.bytes += bytes.len() as u64;
        self.sum.add(bytes);
        self.out.extend_from_slice(bytes);
    }
}

/// Takes one apart as it comes, in pieces of whatever length.
pub struct Reader {
    /// What is not a whole part yet.
    rest: Vec<u8>,
    /// Where that begins.
    at: u64,
    parts: u64,
    sum: Sum,
    is_closed: bool,
}

impl Default for Reader {
    fn default() -> Self {
        Self { rest: Vec::new(), at: 0, parts: 0, sum: Sum::new(), is_closed: false }
    }
}

impl Reader {
    /// Tells of the parts that are whole now, with where what each carries begins.
    pub fn push(&mut self, bytes: &[u8], mut told: impl FnMut(u64, Part)) -> Result<(), Unfit> {
        self.rest.extend_from_slice(bytes);
        let mut taken = 0;
        while let Some(len) = self.next(taken, &mut told)? {
            self.sum.add(&self.rest[taken..taken + len]);
            self.at += len as u64;
            taken += len;
        }
        self.rest.drain(..taken);
        Ok(())
    }

    /// Nothing more comes.
    pub fn end(self) -> Result<(), Unfit> {
        match (self.is_closed, self.at) {
            (true, _) if self.rest.is_empty() => Ok(()),
            (false, 0) => Err(Unfit::Other),
            _ => Err(Unfit::Cut(self.at + self.rest.len() as u64)),
        }
    }

    /// Takes what begins there, and says how long it is; none if it is not all here.
    fn next(
        &mut self,
        from: usize,
        told: &mut impl FnMut(u64, Part),
    ) -> Result<Option<usize>, Unfit> {
        let (rest, rotten) = (&self.rest[from..], Unfit::Rotten(self.at));
        if self.is_closed {
            // Zeroes up to a whole page, as they come.
            let is_end = rest.len() < PAGE_BYTES && rest.iter().all(|byte| *byte == 0);
            return if is_end { Ok((!rest.is_empty()).then_some(rest.len())) } else { Err(rotten) };
        }
        if self.at == 0 {
            return begin(rest);
        }
        let Some((header, rest)) = rest.split_first_chunk::<HEADER_BYTES>() else {
            return Ok(None);
        };
        let (words, _) = header.as_chunks::<4>();
        let [kind, len, sum] = [words[0], words[1], words[2]];
        let len = u32::from_le_bytes(len) as usize;
        if len > PART_BYTES_MAX {
            return Err(rotten);
        }
        let Some(payload) = rest.get(..len) else { return Ok(None) };
        if sum_of(kind, payload) != u32::from_le_bytes(sum) {
            return Err(rotten);
        }
        if kind == END {
            let all = [&self.parts.to_le_bytes()[..], &self.sum.value().to_le_bytes()].concat();
            self.is_closed = payload == all;
            return if self.is_closed { Ok(Some(HEADER_BYTES + len)) } else { Err(rotten) };
        }
        let part = Part::decode(kind, payload).ok_or(rotten)?;
        self.parts += 1;
        told(self.at + HEADER_BYTES as u64, part);
        Ok(Some(HEADER_BYTES + len))
    }
}

fn begin(bytes: &[u8]) -> Result<Option<usize>, Unfit> {
    let known = bytes.len().min(MAGIC.len());
    if bytes[..known] != MAGIC[..known] {
        return Err(Unfit::Other);
    }
    let Some((form, _)) = bytes[known..].split_first_chunk() else { return Ok(None) };
    match u64::from_le_bytes(*form) {
        1 => Ok(Some(MAGIC_BYTES)),
        form => u16::try_from(form).map_or(Err(Unfit::Other), |form| Err(Unfit::Newer(form))),
    }
}

impl Part {
    fn encode(&self) -> ([u8; 4], Vec<u8>) {
        match self {
            Self::Pool { id, name, made, bytes } => {
                let numbers = [made.to_le_bytes(), bytes.to_le_bytes()].concat();
                (POOL, [&id[..], &numbers, &text(name)].concat())
            }
            Self::Disk { name, label } => (DISK, [&label.bytes()[..], &text(name)].concat()),
            Self::Table(page) => (TABLE, page.bytes().to_vec()),
            Self::Lu { id, first_slab } => (LU, [&id[..], &first_slab.to_le_bytes()].concat()),
            Self::Page(page) => (PAGE, page.bytes().to_vec()),
            Self::Lacks(what) => (LACKS, text(what)),
            Self::LuEnd { bytes } => (LU_END, bytes.to_le_bytes().to_vec()),
        }
    }

    fn decode(kind: [u8; 4], mut rest: &[u8]) -> Option<Self> {
        let from = &mut rest;
        let part = match kind {
            POOL => {
                let (id, made, bytes) = (take(from)?, number(from)?, number(from)?);
                Self::Pool { id, made, bytes, name: take_text(from)? }
            }
            DISK => Self::Disk { label: page(from)?, name: take_text(from)? },
            TABLE => Self::Table(page(from)?),
            LU => {
                let (id, slab) = (take(from)?, take(from)?);
                Self::Lu { id, first_slab: u32::from_le_bytes(slab) }
            }
            PAGE => Self::Page(page(from)?),
            LACKS => Self::Lacks(take_text(from)?),
            LU_END => Self::LuEnd { bytes: number(from)? },
            _ => return None,
        };
        rest.is_empty().then_some(part)
    }
}

/// As much of a text as a part says.
fn text(text: &str) -> Vec<u8> {
    text.as_bytes()[..text.floor_char_boundary(TEXT_BYTES_MAX)].to_vec()
}

fn take_text(from: &mut &[u8]) -> Option<String> {
    let all = std::mem::take(from);
    Some(str::from_utf8(all).ok()?.to_owned())
}

fn take<const N: usize>(from: &mut &[u8]) -> Option<[u8; N]> {
    let (bytes, rest) = from.split_first_chunk()?;
    *from = rest;
    Some(*bytes)
}

fn number(from: &mut &[u8]) -> Option<u64> {
    take(from).map(u64::from_le_bytes)
}

fn page(from: &mut &[u8]) -> Option<Page> {
    take(from).map(|bytes| Page::of_bytes(&bytes))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parts() -> Vec<Part> {
        let page = |byte| Page::of_bytes(&[byte; PAGE_BYTES]);
        vec![
            Part::Pool { id: [1; 16], name: "pool".to_owned(), made: 7, bytes: 9 },
            Part::Disk { name: "/dev/one".to_owned(), label: page(1) },
            Part::Table(page(2)),
            Part::Lu { id: [2; 16], first_slab: 3 },
            Part::Page(page(3)),
            Part::Lacks("page 1".to_owned()),
            Part::LuEnd { bytes: 9 },
        ]
    }

    fn written() -> Vec<u8> {
        let mut writer = Writer::default();
        parts().iter().for_each(|part| writer.put(part));
        writer.close();
        writer.take()
    }

    fn read(bytes: &[u8], piece: usize) -> Result<Vec<Part>, Unfit> {
        let (mut reader, mut parts) = (Reader::default(), Vec::new());
        for piece in bytes.chunks(piece) {
            reader.push(piece, |_, part| parts.push(part))?;
        }
        reader.end().map(|()| parts)
    }

    #[test]
    fn a_backup_says_what_was_put_into_it() {
        let bytes = written();
        assert!(bytes.len().is_multiple_of(PAGE_BYTES));
        for piece in [1, 13, 4096, bytes.len()] {
            assert_eq!(read(&bytes, piece), Ok(parts()));
        }
        assert_eq!(read(&[], 1), Err(Unfit::Other));
        assert_eq!(read(b"something else", 1), Err(Unfit::Other));
        let mut newer = bytes.clone();
        newer[MAGIC.len()] = 2;
        assert_eq!(read(&newer, 4096), Err(Unfit::Newer(2)));
    }

    #[test]
    fn what_was_cut_off_is_refused() {
        let bytes = written();
        for len in 0..bytes.len() - PAGE_BYTES {
            let why = read(&bytes[..len], 4096).unwrap_err();
            assert!(matches!(why, Unfit::Cut(_) | Unfit::Other), "{len}: {why}");
        }
        let more = [&bytes[..], b"more"].concat();
        assert!(matches!(read(&more, 4096), Err(Unfit::Rotten(_))));
    }

    proptest! {
        #[test]
        fn a_flipped_bit_is_found(at: prop::sample::Index, bit in 0..8) {
            let mut bytes = written();
            let end = bytes.iter().rposition(|byte| *byte != 0).unwrap();
            bytes[at.index(end + 1)] ^= 1_u8 << bit;
            prop_assert!(read(&bytes, 4096).is_err());
        }
    }
}
