//! The sending half: everything that is to be sent, as one operation at a time.

use std::ops::Range;
use std::rc::Rc;

use proto::iscsi::{Digest, Head, Segment};
use rt::net;

use super::connection::{Connection, digest_of};
use super::pool::Held;

#[derive(Default)]
struct Outbox {
    pieces: net::Outbox,
    /// Memory of commands whose last bytes are being sent.
    sent: Vec<Held>,
}

/// Sends until the session is over and everything was sent.
pub(super) async fn run(connection: Rc<Connection>) {
    let mut outbox = Outbox::default();
    loop {
        outbox.collect(&connection);
        if outbox.pieces.is_empty() {
            let is_over = connection.machine.borrow().ended().is_some() || connection.is_over.get();
            if is_over {
                return connection.stream.shutdown();
            }
            connection.to_send.notified().await;
            continue;
        }
        // Whoever waited for room in the machine's queue has it now.
        connection.resumed.notify();
        connection.is_sending.set(true);
        let sent = outbox.pieces.send(&connection.stream).await;
        connection.is_sending.set(false);
        if sent.is_err() {
            connection.is_deaf.set(true);
            connection.resumed.notify();
            return connection.stream.shutdown();
        }
        outbox.sent.clear();
        // And whoever waited for memory.
        connection.resumed.notify();
    }
}

/// The digest of a piece of an answer. From the second one on, the memory is held by what sends the
/// first.
fn digest_of_answer(data: &mut Held, piece: Range<usize>) -> Digest {
    match data.bytes() {
        Some(bytes) => Digest::new().update(&bytes[piece]),
        None => digest_of(Digest::new(), &data.sgl().slice(piece.start, piece.len())),
    }
}

impl Outbox {
    /// Takes what there is to be sent.
    fn collect(&mut self, connection: &Connection) {
        let mut machine = connection.machine.borrow_mut();
        let mut head = Head::new();
        let with_digest = machine.data_digest();
        while self.pieces.has_room() {
            let Some(segment) = machine.next_pdu(&mut head) else { return };
            self.pieces.write(head.as_bytes());
            match segment {
                Segment::Bytes(bytes) => self.pieces.write(bytes),
                Segment::DataIn { task, offset, length } => {
                    let mut digest = Digest::new();
                    let (start, end) = (offset as usize, offset as usize + length as usize);
                    let done = connection.commands.with_answer(task, |data| {
                        if with_digest {
                            digest = digest_of_answer(data, start..end);
                        }
                        self.pieces.push(&data.sgl().slice(start, end - start));
                        end == data.len()
                    });
                    self.sent.extend(done);
                    self.pieces.write(machine.trailer(length, digest).as_bytes());
                }
            }
        }
    }
}
