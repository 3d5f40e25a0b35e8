//! The channel on which we speak first: tells the front end that the configuration has changed.

use std::cell::RefCell;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use proto::vhost_user::BackEndChannel;
use rt::os::socket::Stream;
use rt::sync::Notify;

/// Longest acknowledgement that is read at once.
const READ_BYTES: usize = 64;

pub(super) struct Channel {
    stream: Stream,
    machine: RefCell<BackEndChannel<OwnedFd>>,
    changed: Notify,
}

impl Channel {
    pub(super) fn new(stream: Stream, reply_ack: bool) -> Self {
        let machine = RefCell::new(BackEndChannel::new(reply_ack));
        Self { stream, machine, changed: Notify::new() }
    }

    /// Tells the front end to read the configuration again.
    pub(super) fn config_changed(&self) {
        self.machine.borrow_mut().config_changed();
        self.changed.notify();
    }

    /// A front end that has stopped its rings is not listening.
    pub(super) fn set_suspended(&self, suspended: bool) {
        self.machine.borrow_mut().set_suspended(suspended);
        self.changed.notify();
    }

    /// Sends whenever there is something to say.
    pub(super) async fn send(&self) -> io::Result<()> {
        loop {
            let message = self.machine.borrow().transmit().map(|message| message.bytes.to_vec());
            let Some(bytes) = message else {
                self.changed.notified().await;
                continue;
            };
            self.stream.send(&bytes, &[]).await?;
            self.machine.borrow_mut().handle_transmitted(bytes.len());
        }
    }

    /// Reads acknowledgements until the front end closes the channel.
    pub(super) async fn receive(&self) -> io::Result<()> {
        let (mut bytes, mut fds) = ([0; READ_BYTES], Vec::new());
        loop {
            let wanted = self.machine.borrow().wanted().min(READ_BYTES);
            if wanted == 0 {
                return Ok(());
            }
            let got = self.stream.recv(&mut bytes[..wanted], &mut fds).await?;
            if got == 0 {
                return Ok(());
            }
            let mut machine = self.machine.borrow_mut();
            machine.handle_input(&bytes[..got], fds.drain(..));
            machine.poll_acknowledged().map_err(io::Error::other)?;
            while machine.poll_discarded().is_some() {}
            drop(machine);
            self.changed.notify();
        }
    }
}

/// Raw numbers of descriptors that go with a message.
pub(super) fn raw(fds: &[OwnedFd]) -> Vec<i32> {
    fds.iter().map(AsRawFd::as_raw_fd).collect()
}
