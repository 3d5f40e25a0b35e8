//! The event queue: buffers of the driver, taken when there is something to tell.

use std::cell::RefCell;

use target::virtio_scsi::Events;
use wire::virtio::scsi::Event;
use zerocopy::IntoBytes;

use super::ScsiQueue;
use crate::vhost_user::queue::Queue;
use crate::vhost_user::ring::{Buffers, Chain, Fault};

#[derive(Default)]
pub struct EventQueue {
    events: RefCell<Events>,
}

impl EventQueue {
    pub fn add(&self, queue: &Queue<ScsiQueue>, what: impl FnOnce(&mut Events)) {
        what(&mut self.events.borrow_mut());
        queue.wake();
    }

    pub fn has_news(&self) -> bool {
        !self.events.borrow().is_empty()
    }

    /// A buffer; only asked for when there is news.
    pub fn begin(&self, queue: &Queue<ScsiQueue>, chain: Chain, buffers: &Buffers) {
        let head = chain.head;
        if (chain.writable_bytes as usize) < size_of::<Event>() {
            return queue.fail(Fault::Short { head });
        }
        if !queue.occupy(head, ()) {
            return;
        }
        let event = self.events.borrow_mut().take();
        let bytes = event.as_ref().map_or(&[][..], IntoBytes::as_bytes);
        buffers.writable().slice(0, bytes.len()).copy_in(0, bytes);
        queue.take_slot(head);
        queue.finish(head, bytes.len() as u32);
    }
}
