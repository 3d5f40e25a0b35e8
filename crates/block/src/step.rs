//! Exclusive steps: requests that look at what is there and write what follows from it, with no
//! other write to the LU in between.
//!
//! Each device keeps others out in its own way. What becomes of the bytes is told here once, so
//! that all of them agree.

use crate::error::{Error, ErrorKind};
use crate::mem::Sgl;
use crate::request::Op;

/// The step on `len` bytes at `at` of `whole`, memory of the device's own, with the client's data.
/// An error: nothing is to be written.
pub fn apply(
    op: Op,
    data: &Sgl<'_>,
    whole: &Sgl<'_>,
    (at, len): (usize, usize),
) -> Result<(), Error> {
    // The client may change its memory at any time, so it is read once.
    let mut given = vec![0; data.len()];
    data.copy_out(0, &mut given);
    let mut found = vec![0; len];
    whole.copy_out(at, &mut found);
    modify(op, &given, &mut found)?;
    whole.copy_in(at, &found);
    Ok(())
}

/// Changes `found`, the bytes of the whole range, to what the operation makes of them; `data` is as
/// long as [`Op::data_bytes`] says and belongs to nobody else. An error: nothing is to be written.
pub fn modify(op: Op, data: &[u8], found: &mut [u8]) -> Result<(), Error> {
    match op {
        Op::CompareAndWrite { .. } => {
            let (expected, new) = data.split_at(found.len());
            if let Some(at) = found.iter().zip(expected).position(|(a, b)| a != b) {
                return Err(ErrorKind::Miscompare { at: at as u32 }.into());
            }
            found.copy_from_slice(new);
        }
        Op::OrWrite { .. } => found.iter_mut().zip(data).for_each(|(byte, set)| *byte |= set),
        _ => return Err(ErrorKind::Unsupported.into()),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_becomes_of_the_bytes() {
        let compare = Op::CompareAndWrite { fua: false };
        let mut found = [1, 2, 3];
        let first = ErrorKind::Miscompare { at: 1 };
        let outcome = modify(compare, &[1, 0, 0, 7, 8, 9], &mut found);
        assert_eq!(outcome.map_err(|error| error.kind()), Err(first));
        assert_eq!(found, [1, 2, 3]);
        assert_eq!(modify(compare, &[1, 2, 3, 7, 8, 9], &mut found), Ok(()));
        assert_eq!(found, [7, 8, 9]);
        assert_eq!(modify(Op::OrWrite { fua: true }, &[0, 0x80, 6], &mut found), Ok(()));
        assert_eq!(found, [7, 0x88, 15]);
        assert!(modify(Op::Read, &[0; 3], &mut found).is_err(), "no step of this kind");
    }
}
