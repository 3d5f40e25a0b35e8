//! What has arrived on a connection and is not consumed yet.
//!
//! Headers are looked at where they lie, data is copied or received to where it belongs. The inbox
//! begins small, so that a thousand idle connections cost little, and grows when what arrives fills
//! it.

use std::io;

use block::{Buffer, Sgl};

use super::Stream;

const FIRST_BYTES: usize = 4 << 10;
const LAST_BYTES: usize = 128 << 10;

pub struct Inbox {
    buffer: Buffer,
    start: usize,
    end: usize,
}

impl Default for Inbox {
    fn default() -> Self {
        Self::new()
    }
}

impl Inbox {
    pub fn new() -> Self {
        Self { buffer: Buffer::zeroed(FIRST_BYTES), start: 0, end: 0 }
    }

    /// Receives what there is behind what is here already; 0 at the end of the stream. What is here
    /// must be no more than a part of a header.
    pub async fn fill(&mut self, stream: &Stream) -> io::Result<usize> {
        self.make_room();
        let count = stream.recv(&self.room()).await?;
        self.arrived(count);
        Ok(count)
    }

    #[inline]
    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }

    #[inline]
    pub fn len(&self) -> usize {
        self.end - self.start
    }

    /// What is there.
    #[inline]
    pub fn bytes(&mut self) -> &[u8] {
        let bytes = self.buffer.bytes().expect("whoever gave up a receive has given up the stream");
        &bytes[self.start..self.end]
    }

    #[inline]
    pub fn consume(&mut self, count: usize) {
        self.start += count;
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        }
    }

    fn make_room(&mut self) {
        let (start, len) = (self.start, self.len());
        if self.end < self.buffer.len() {
            return;
        }
        if len <= start {
            let whole = self.buffer.sgl();
            whole.slice(0, len).copy_from(&whole.slice(start, len));
            (self.start, self.end) = (0, len);
        } else {
            self.move_to((4 * len).min(LAST_BYTES));
        }
    }

    fn move_to(&mut self, size: usize) {
        let (len, buffer) = (self.len(), Buffer::zeroed(size));
        buffer.sgl().slice(0, len).copy_from(&self.buffer.sgl().slice(self.start, len));
        (self.buffer, self.start, self.end) = (buffer, 0, len);
    }

    /// Where the next bytes go.
    #[inline]
    fn room(&self) -> Sgl<'_> {
        self.buffer.sgl().slice(self.end, self.buffer.len() - self.end)
    }

    #[inline]
    fn arrived(&mut self, count: usize) {
        self.end += count;
        // The next ones will be as many.
        if self.start == 0 && self.end == self.buffer.len() && self.end < LAST_BYTES {
            self.move_to((4 * self.end).min(LAST_BYTES));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_stay_in_order_while_it_grows_and_moves() {
        let mut inbox = Inbox::new();
        let (mut put, mut got) = (0u8, 0u8);
        for round in 0..2000 {
            inbox.make_room();
            let count = inbox.room().len().min(round * 37 % 5000);
            let bytes: Vec<u8> = (0..count).map(|index| put.wrapping_add(index as u8)).collect();
            inbox.room().copy_in(0, &bytes);
            put = put.wrapping_add(count as u8);
            inbox.arrived(count);
            let take = inbox.len().saturating_sub(round % 40);
            for byte in &inbox.bytes()[..take] {
                assert_eq!(*byte, got);
                got = got.wrapping_add(1);
            }
            inbox.consume(take);
        }
    }
}
