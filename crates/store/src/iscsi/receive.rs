//! The receiving half: what the target sends, to whoever waits for it.

use std::io;
use std::rc::Rc;

use block::Sgl;
use proto::iscsi::Digest;
use proto::iscsi::initiator::{DataIn, Event, Found, ManagementTag, Refused};
use rt::net::Inbox;
use wire::iscsi::RejectReason;

use super::{Answer, Failure, Inner, Lost, Managed, TOLD_MAX, Told};

/// What the receiving half waits for.
enum Wait {
    Input,
    /// Data that is to be received where it belongs.
    Data(DataIn),
    Blocked,
    Ended,
}

/// Receives until the session is over.
pub(super) async fn run(inner: Rc<Inner>) {
    let lost = match inner.receive().await {
        Ok(lost) => lost,
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Lost::Closed,
        Err(error) => Lost::Failed(error.to_string()),
    };
    inner.end(lost);
}

impl Inner {
    async fn receive(&self) -> io::Result<Lost> {
        let mut inbox = Inbox::new();
        loop {
            let wait = self.feed(&mut inbox);
            if self.machine.borrow().has_pdus() {
                self.to_send.notify();
            }
            match wait {
                Wait::Input => arrived(inbox.fill(&self.stream).await?)?,
                Wait::Data(data) => self.receive_data(data).await?,
                Wait::Blocked => self.unblocked.notified().await,
                Wait::Ended => {
                    let machine = self.machine.borrow();
                    return Ok(machine
                        .ended()
                        .map_or(Lost::Closed, |it| Lost::Protocol(it.clone())));
                }
            }
            if self.is_over() {
                return Ok(Lost::GivenUp);
            }
            self.is_quiet.set(false);
        }
    }

    /// Takes from the inbox what can be taken.
    fn feed(&self, inbox: &mut Inbox) -> Wait {
        let mut has_changed = false;
        let wait = loop {
            let progress = self.machine.borrow_mut().handle_input(inbox.bytes());
            inbox.consume(progress.consumed);
            match progress.event {
                Event::Idle { .. } => break Wait::Input,
                Event::DataIn(data) if inbox.is_empty() => break Wait::Data(data),
                Event::DataIn(data) => {
                    let count = inbox.len().min(data.length as usize);
                    self.place(data, &inbox.bytes()[..count]);
                    inbox.consume(count);
                }
                Event::Blocked => break Wait::Blocked,
                Event::Ended => break Wait::Ended,
                event => {
                    self.handle(event);
                    has_changed = true;
                }
            }
        };
        if has_changed {
            self.changed.notify();
        }
        wait
    }

    fn handle(&self, event: Event) {
        match event {
            Event::LoggedIn => self.is_logged_in.set(true),
            Event::Done { task, outcome } => {
                let machine = self.machine.borrow();
                let sense = machine.sense();
                let sense = (!sense.is_empty()).then(|| sense.into());
                self.waits.borrow_mut().finish(task, Ok(Answer { outcome, sense }));
            }
            Event::Managed { tag, response } => {
                let aborted = self.machine.borrow_mut().take_aborted();
                for task in aborted {
                    self.waits.borrow_mut().finish(task, Err(Failure::Aborted));
                }
                self.settle(tag, Ok(response));
            }
            Event::Pong => self.answered(&self.pings),
            Event::Found => self.found(Ok(self.machine.borrow_mut().take_found())),
            Event::Told { event, parameters } => {
                let sense = self.machine.borrow().sense().into();
                let mut told = self.told.borrow_mut();
                if told.len() == TOLD_MAX {
                    told.pop_front();
                }
                told.push_back(Told { event, parameters, sense });
            }
            Event::Rejected { reason, refused } => self.rejected(reason, refused),
            Event::Idle { .. } | Event::Blocked | Event::DataIn(_) | Event::Ended => {
                unreachable!("handled where they come up")
            }
        }
    }

    fn rejected(&self, reason: RejectReason, refused: Refused) {
        match refused {
            // Only its data was damaged, and the command itself is answered (RFC 7143, 7.8).
            Refused::Command(_) if reason == RejectReason::DATA_DIGEST_ERROR => {}
            Refused::Command(task) => {
                self.machine.borrow_mut().forget(task);
                self.waits.borrow_mut().finish(task, Err(Failure::Rejected(reason)));
            }
            Refused::Management(tag) => self.settle(tag, Err(reason)),
            Refused::Discovery => self.found(Err(reason)),
            Refused::Ping => self.answered(&self.pings),
            Refused::Logout => self.logout.set(Some(reason)),
            Refused::Other => {}
        }
    }

    fn settle(&self, tag: ManagementTag, answer: Managed) {
        let mut managed = self.managed.borrow_mut();
        if let Some((_, place)) = managed.iter_mut().find(|(other, _)| *other == tag) {
            *place = Some(answer);
        }
    }

    fn found(&self, found: Result<Vec<Found>, RejectReason>) {
        self.discovery.set(Some(found));
        self.answered(&self.discoveries);
    }

    /// Puts data that has arrived where it belongs.
    fn place(&self, data: DataIn, bytes: &[u8]) {
        self.waits.borrow().with_data(data.task, |memory| {
            memory.copy_in(data.offset as usize, bytes);
        });
        self.placed(bytes.len(), |digest| digest.update(bytes));
    }

    fn placed(&self, count: usize, feed: impl FnOnce(Digest) -> Digest) {
        let mut machine = self.machine.borrow_mut();
        let mut digest = machine.incoming_digest();
        if machine.data_digest() {
            digest = feed(digest);
        }
        machine.handle_placed(count as u32, digest);
    }

    /// Receives data where it belongs.
    async fn receive_data(&self, data: DataIn) -> io::Result<()> {
        let (at, len) = (data.offset as usize, data.length as usize);
        let memory =
            self.waits.borrow().with_data(data.task, |memory| memory.slice(at, len).to_buf());
        let memory = memory.expect("a command keeps its memory until it is answered");
        let memory = memory.sgl();
        let count = self.stream.recv(&memory).await?;
        arrived(count)?;
        self.placed(count, |digest| digest_of(digest, &memory.slice(0, count)));
        Ok(())
    }
}

fn arrived(count: usize) -> io::Result<()> {
    match count {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        _ => Ok(()),
    }
}

/// Feeds a digest with memory that is never borrowed.
pub(super) fn digest_of(digest: Digest, bytes: &Sgl<'_>) -> Digest {
    digest.update_by(bytes.len(), |at, piece| bytes.copy_out(at, piece))
}
