//! What the verifier writes: blocks that say what they are in every sector.
//!
//! Each sector of 512 bytes names the run, the block, the sequence of the write and its own place,
//! is filled from these, and ends in a checksum; so a lost, torn, misplaced or mixed write is told
//! apart from each other, and a report can say which it was.

use super::BLOCK_BYTES;

const SECTOR_BYTES: usize = 512;
const WORD_BYTES: usize = 8;
const WORDS: usize = SECTOR_BYTES / WORD_BYTES;
const MAGIC: u64 = u64::from_le_bytes(*b"viaduct!");
const HEAD_WORDS: usize = 5;

/// What one block holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    pub run: u64,
    pub block: u64,
    pub sequence: u64,
}

impl Stamp {
    /// Fills a block with this.
    pub fn fill(self, block: &mut [u8]) {
        for (index, sector) in block.chunks_exact_mut(SECTOR_BYTES).enumerate() {
            let words = self.sector(index as u64);
            for (word, bytes) in words.iter().zip(sector.chunks_exact_mut(WORD_BYTES)) {
                bytes.copy_from_slice(&word.to_le_bytes());
            }
        }
    }

    fn sector(self, index: u64) -> [u64; WORDS] {
        let mut words = [0; WORDS];
        words[..HEAD_WORDS].copy_from_slice(&[MAGIC, self.run, self.block, self.sequence, index]);
        let mut filler = mix(self.run ^ mix(self.block ^ mix(self.sequence ^ mix(index))));
        let mut sum = filler;
        for word in &mut words[HEAD_WORDS..WORDS - 1] {
            *word = filler;
            filler = filler.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(7);
            sum ^= filler;
        }
        words[WORDS - 1] = sum;
        words
    }
}

/// The sequence that a block holds; nothing for zeroes; in words what is wrong otherwise.
pub fn find(bytes: &[u8], run: u64, block: u64) -> Result<Option<u64>, String> {
    if bytes.iter().all(|byte| *byte == 0) {
        return Ok(None);
    }
    let sequence = word(bytes, 3);
    let expected = Stamp { run, block, sequence };
    for (index, sector) in bytes.chunks_exact(SECTOR_BYTES).enumerate() {
        let words = expected.sector(index as u64);
        let is_right = (0..WORDS).all(|at| word(sector, at) == words[at]);
        if !is_right {
            return Err(describe(bytes, run, block));
        }
    }
    Ok(Some(sequence))
}

/// One word for each sector of a block that is not as it should be.
fn describe(bytes: &[u8], run: u64, block: u64) -> String {
    let sectors = bytes.chunks_exact(SECTOR_BYTES).enumerate();
    let told = sectors.map(|(index, sector)| {
        if sector.iter().all(|byte| *byte == 0) {
            return "zeroes".to_owned();
        }
        let stamp =
            Stamp { run: word(sector, 1), block: word(sector, 2), sequence: word(sector, 3) };
        let place = word(sector, 4);
        let words = stamp.sector(place);
        if word(sector, 0) != MAGIC || !(0..WORDS).all(|at| word(sector, at) == words[at]) {
            return format!("garbage {:02x?}", &sector[..WORD_BYTES]);
        }
        let sequence = stamp.sequence;
        match (stamp.run == run, stamp.block == block, place == index as u64) {
            (true, true, true) => format!("write {sequence}"),
            (true, _, _) => format!("write {sequence} of block {} sector {place}", stamp.block),
            (false, _, _) => "another run".to_owned(),
        }
    });
    format!("sectors hold: {}", told.collect::<Vec<_>>().join(", "))
}

fn word(bytes: &[u8], at: usize) -> u64 {
    let word = bytes[at * WORD_BYTES..][..WORD_BYTES].try_into();
    u64::from_le_bytes(word.expect("a word has eight bytes"))
}

/// A number that looks random (the finisher of splitmix64).
pub fn mix(seed: u64) -> u64 {
    let mut z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Memory for a number of blocks, aligned as direct I/O needs it.
#[derive(Debug)]
pub struct Buffer {
    memory: Vec<u8>,
    start: usize,
}

impl Buffer {
    pub fn new(blocks: u64) -> Self {
        let blocks = usize::try_from(blocks).expect("a buffer fits in memory");
        let memory = vec![0; (blocks + 1) * BLOCK_BYTES];
        let start = memory.as_ptr().align_offset(BLOCK_BYTES);
        Self { memory, start }
    }

    pub fn bytes(&mut self, blocks: u64) -> &mut [u8] {
        let blocks = usize::try_from(blocks).expect("a buffer fits in memory");
        &mut self.memory[self.start..][..blocks * BLOCK_BYTES]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAMP: Stamp = Stamp { run: 1, block: 2, sequence: 3 };

    fn block(stamp: Stamp) -> Vec<u8> {
        let mut block = vec![0; BLOCK_BYTES];
        stamp.fill(&mut block);
        block
    }

    #[test]
    fn a_block_says_what_it_is() {
        assert_eq!(find(&block(STAMP), 1, 2), Ok(Some(3)));
        assert_eq!(find(&vec![0; BLOCK_BYTES], 1, 2), Ok(None));
    }

    #[test]
    fn any_changed_byte_is_seen() {
        for at in (0..BLOCK_BYTES).step_by(37).chain([BLOCK_BYTES - 1]) {
            let mut block = block(STAMP);
            block[at] ^= 0x10;
            assert!(find(&block, 1, 2).is_err(), "byte {at}");
        }
    }

    #[test]
    fn torn_misplaced_and_foreign_blocks_are_told_apart() {
        let mut torn = block(STAMP);
        torn[SECTOR_BYTES * 7..]
            .copy_from_slice(&block(Stamp { sequence: 9, ..STAMP })[SECTOR_BYTES * 7..]);
        assert!(find(&torn, 1, 2).unwrap_err().ends_with("write 3, write 9"));
        let misplaced = find(&block(Stamp { block: 5, ..STAMP }), 1, 2).unwrap_err();
        assert!(misplaced.contains("write 3 of block 5 sector 0"), "{misplaced}");
        let foreign = find(&block(Stamp { run: 4, ..STAMP }), 1, 2).unwrap_err();
        assert!(foreign.contains("another run"), "{foreign}");
    }

    #[test]
    fn buffers_are_aligned() {
        let mut buffer = Buffer::new(3);
        assert_eq!(buffer.bytes(3).as_ptr().align_offset(BLOCK_BYTES), 0);
        assert_eq!(buffer.bytes(3).len(), 3 * BLOCK_BYTES);
    }
}
