//! What is to be sent as one operation.
//!
//! Short pieces (headers, trailers) are written one behind the other into memory of the outbox;
//! data is named where it lies. So the answers of a whole batch of commands leave with one system
//! call and no copy.

use std::io;

use block::{Buffer, Gather, Sgl};

use super::Stream;

/// Memory for short pieces.
const PIECES_BYTES: usize = 16 << 10;
/// A longer piece gets memory of its own.
const SHORT_BYTES: usize = 256;
/// Pieces of one message, with what lies between them.
const MESSAGE_PIECES: usize = 3;
/// Data at which an operation is full.
const DATA_BYTES_MAX: usize = 1 << 20;
/// The kernel takes 1,024 parts.
const PARTS_MAX: usize = 1000;

#[derive(Default)]
pub struct Outbox {
    gather: Gather,
    pieces: Option<Buffer>,
    used: usize,
}

impl Outbox {
    /// Whether another message, header, data and trailer, has room.
    #[inline]
    pub fn has_room(&self) -> bool {
        self.used + MESSAGE_PIECES * SHORT_BYTES <= PIECES_BYTES
            && self.gather.parts_len() < PARTS_MAX
            && self.gather.len() < DATA_BYTES_MAX
    }

    #[inline]
    pub fn is_empty(&self) -> bool {
        self.gather.is_empty()
    }

    /// Copies a short piece behind what is there already.
    #[inline]
    pub fn write(&mut self, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        if bytes.len() > SHORT_BYTES {
            return self.gather.push(&Buffer::from_bytes(bytes).sgl());
        }
        let pieces = self.pieces.get_or_insert_with(|| Buffer::zeroed(PIECES_BYTES));
        pieces.write(self.used, bytes);
        self.gather.push(&pieces.sgl().slice(self.used, bytes.len()));
        self.used += bytes.len();
    }

    /// Names data that is sent from where it lies.
    #[inline]
    pub fn push(&mut self, data: &Sgl<'_>) {
        self.gather.push(data);
    }

    /// Sends everything and begins anew.
    pub async fn send(&mut self, stream: &Stream) -> io::Result<()> {
        let sent = stream.send(&self.gather.sgl()).await;
        self.gather.clear();
        self.used = 0;
        sent
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_and_data_keep_their_order() {
        let mut outbox = Outbox::default();
        let data = Buffer::from_bytes(&[7; 5000]);
        let mut expected = Vec::new();
        let mut messages = 0;
        while outbox.has_room() {
            let long = vec![messages as u8; SHORT_BYTES + 1];
            for piece in [&[messages as u8; 48][..], &[], &long] {
                outbox.write(piece);
                expected.extend_from_slice(piece);
            }
            outbox.push(&data.sgl().slice(100, 4000));
            expected.extend_from_slice(&[7; 4000]);
            messages += 1;
        }
        assert!(messages > 100, "{messages}");
        let sgl = outbox.gather.sgl();
        let mut bytes = vec![0; sgl.len()];
        sgl.copy_out(0, &mut bytes);
        assert!(bytes == expected);
    }
}
