//! The sending half: everything that is to be sent, as one operation at a time.
//!
//! Heads are written one behind the other into memory of the outbox; data is named where it lies.
//! So the answers of a whole batch of commands leave with one system call and no copy.

use std::rc::Rc;

use block::{Buffer, Gather};
use proto::iscsi::{Digest, HEAD_BYTES_MAX, Head, Segment, TRAILER_BYTES_MAX};

use super::connection::{Connection, digest_of};
use super::pool::Held;

/// Memory for heads and short segments.
const HEADS_BYTES: usize = 16 << 10;
/// Most of it that one PDU takes: a longer segment gets memory of its own.
const PDU_BYTES: usize = HEAD_BYTES_MAX + SHORT_BYTES + TRAILER_BYTES_MAX;
const SHORT_BYTES: usize = 256;
/// Data at which an operation is full.
const DATA_BYTES_MAX: usize = 1 << 20;
/// The kernel takes 1,024 parts; a PDU has three at most.
const PARTS_MAX: usize = 1000;

pub(super) struct Outbox {
    gather: Gather,
    heads: Option<Buffer>,
    used: usize,
    /// Memory of commands whose last bytes are being sent.
    sent: Vec<Held>,
}

/// Sends until the session is over and everything was sent.
pub(super) async fn run(connection: Rc<Connection>) {
    let mut outbox = Outbox { gather: Gather::new(), heads: None, used: 0, sent: Vec::new() };
    loop {
        outbox.collect(&connection);
        if outbox.gather.is_empty() {
            let is_over = connection.machine.borrow().ended().is_some() || connection.is_over.get();
            if is_over {
                return connection.stream.shutdown();
            }
            connection.to_send.notified().await;
            continue;
        }
        // Whoever waited for room in the machine's queue has it now.
        connection.resumed.notify();
        if connection.stream.send(&outbox.gather.sgl()).await.is_err() {
            return connection.stream.shutdown();
        }
        outbox.clear();
        // And whoever waited for memory.
        connection.resumed.notify();
    }
}

impl Outbox {
    /// Takes what there is to be sent.
    fn collect(&mut self, connection: &Connection) {
        let mut machine = connection.machine.borrow_mut();
        let mut head = Head::new();
        let with_digest = machine.data_digest();
        while self.has_room() {
            let Some(segment) = machine.next_pdu(&mut head) else { return };
            self.write(head.as_bytes());
            match segment {
                Segment::Bytes(bytes) => self.write(bytes),
                Segment::DataIn { task, offset, length } => {
                    let mut digest = Digest::new();
                    let done = connection.commands.with_answer(task, |data| {
                        let piece = data.slice(offset as usize, length as usize);
                        self.gather.push(&piece);
                        if with_digest {
                            digest = digest_of(digest, &piece);
                        }
                        offset as usize + length as usize == data.len()
                    });
                    self.sent.extend(done);
                    self.write(machine.trailer(length, digest).as_bytes());
                }
            }
        }
    }

    fn has_room(&self) -> bool {
        self.used + PDU_BYTES <= HEADS_BYTES
            && self.gather.parts_len() < PARTS_MAX
            && self.gather.len() < DATA_BYTES_MAX
    }

    /// Copies bytes behind what is there already.
    #[inline]
    fn write(&mut self, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        if bytes.len() > SHORT_BYTES {
            return self.gather.push(&Buffer::from_bytes(bytes).sgl());
        }
        let heads = self.heads.get_or_insert_with(|| Buffer::zeroed(HEADS_BYTES));
        heads.write(self.used, bytes);
        self.gather.push(&heads.sgl().slice(self.used, bytes.len()));
        self.used += bytes.len();
    }

    fn clear(&mut self) {
        self.gather.clear();
        self.sent.clear();
        self.used = 0;
    }
}
