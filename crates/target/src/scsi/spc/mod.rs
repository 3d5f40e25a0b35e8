//! Commands that every kind of device has (SPC-4).

pub mod buffer;
pub mod diagnostic;
pub mod inquiry;
pub mod log;
pub mod luns;
pub mod mode_select;
pub mod mode_sense;
pub mod opcodes;
pub mod pages;
pub mod ports;
pub mod prevent;
pub mod reserve;
pub mod sense;
pub mod vpd;

use super::context::Context;
use super::sense::Sense;

/// A command that is over when nothing stands in its way.
pub fn nothing(_: &Context<'_>) -> Result<Vec<u8>, Sense> {
    Ok(Vec::new())
}

/// Appends the bytes of a struct.
pub fn push<T: zerocopy::IntoBytes + zerocopy::Immutable>(bytes: &mut Vec<u8>, value: &T) {
    bytes.extend_from_slice(value.as_bytes());
}

/// ASCII in a field of fixed length, padded with blanks (SPC-4 4.3.1).
fn ascii<const N: usize>(text: &str) -> [u8; N] {
    let mut field = [b' '; N];
    let printable = text.bytes().filter(|byte| (0x20..0x7f).contains(byte));
    for (to, from) in field.iter_mut().zip(printable) {
        *to = from;
    }
    field
}
