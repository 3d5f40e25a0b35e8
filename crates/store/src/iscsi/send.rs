//! The sending half: everything that is to be sent, as one operation at a time.

use std::rc::Rc;

use proto::iscsi::initiator::Segment;
use proto::iscsi::{Digest, Head};
use rt::net::Outbox;

use super::Inner;

/// Sends until the session is over.
pub(super) async fn run(inner: Rc<Inner>) {
    let mut outbox = Outbox::default();
    while !inner.is_over() {
        inner.collect(&mut outbox);
        if outbox.is_empty() {
            inner.to_send.notified().await;
            continue;
        }
        inner.unblocked.notify();
        if outbox.send(&inner.stream).await.is_err() {
            // What the target said before is still there, and the receiving half finds the end.
            return inner.stream.shutdown();
        }
    }
}

impl Inner {
    /// Takes what there is to be sent.
    fn collect(&self, outbox: &mut Outbox) {
        let mut machine = self.machine.borrow_mut();
        let waits = self.waits.borrow();
        let with_digest = machine.data_digest();
        let mut head = Head::new();
        while outbox.has_room() {
            let Some(segment) = machine.next_pdu(&mut head) else { return };
            outbox.write(head.as_bytes());
            match segment {
                Segment::Bytes(bytes) => outbox.write(bytes),
                Segment::DataOut { task, offset, length } => {
                    let digest = waits.with_data(task, |data| {
                        let piece = data.slice(offset as usize, length as usize);
                        outbox.push(&piece);
                        match with_digest {
                            true => super::receive::digest_of(Digest::new(), &piece),
                            false => Digest::new(),
                        }
                    });
                    let digest = digest.expect("a command keeps its data until it is answered");
                    outbox.write(machine.trailer(length, digest).as_bytes());
                }
            }
        }
    }
}
