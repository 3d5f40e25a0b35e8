//! Extents: the answer of a status request, as records in the request's data buffer.
//!
//! Status answers travel as bytes so that they cross a peer link, a worker or a task like any other
//! data, and so that the waist has one shape of request. A record is 16 bytes, little endian:
//! length in bytes (8), state (4), reserved zero (4). The first extent starts at the request's
//! offset; a short answer is normal, the caller asks again from where it ends.

use crate::mem::Sgl;

/// What a store knows about a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExtentState {
    /// Has a place in the store and may hold anything.
    Data,
    /// Has a place and reads zero.
    Zero,
    /// Has no place; reads zero.
    Hole,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    pub len: u64,
    pub state: ExtentState,
}

/// Bytes of one record.
pub const EXTENT_BYTES: usize = 16;

/// Writes as many records as fit; returns how many.
pub fn store(extents: &[Extent], data: &Sgl<'_>) -> usize {
    let room = data.len() / EXTENT_BYTES;
    let count = extents.len().min(room);
    for (index, extent) in extents[..count].iter().enumerate() {
        let mut record = [0u8; EXTENT_BYTES];
        record[..8].copy_from_slice(&extent.len.to_le_bytes());
        record[8..12].copy_from_slice(&code(extent.state).to_le_bytes());
        data.copy_in(index * EXTENT_BYTES, &record);
    }
    count
}

/// Reads `count` records back; None where a record is not one.
pub fn load(data: &Sgl<'_>, count: usize) -> Option<Vec<Extent>> {
    if count > data.len() / EXTENT_BYTES {
        return None;
    }
    (0..count)
        .map(|index| {
            let mut record = [0u8; EXTENT_BYTES];
            data.copy_out(index * EXTENT_BYTES, &mut record);
            let (len, rest) = record.split_first_chunk::<8>()?;
            let (state, _) = rest.split_first_chunk::<4>()?;
            let state = STATES.get(u32::from_le_bytes(*state) as usize)?;
            Some(Extent { len: u64::from_le_bytes(*len), state: *state })
        })
        .collect()
}

const STATES: [ExtentState; 3] = [ExtentState::Data, ExtentState::Zero, ExtentState::Hole];

fn code(state: ExtentState) -> u32 {
    STATES.iter().position(|s| *s == state).expect("every state is in the table") as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mem::Buffer;

    #[test]
    fn records_survive_and_stop_at_the_buffer() {
        let extents = [
            Extent { len: 4096, state: ExtentState::Data },
            Extent { len: 1 << 40, state: ExtentState::Hole },
            Extent { len: 512, state: ExtentState::Zero },
        ];
        let buffer = Buffer::zeroed(EXTENT_BYTES * 2 + 5);
        let sgl = buffer.sgl();
        assert_eq!(store(&extents, &sgl), 2);
        assert_eq!(load(&sgl, 2).as_deref(), Some(&extents[..2]));
        assert_eq!(load(&sgl, 3), None);
        buffer.write(8, &[9]);
        assert_eq!(load(&buffer.sgl(), 1), None);
    }
}
