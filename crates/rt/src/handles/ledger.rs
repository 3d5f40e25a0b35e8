//! Exclusive access to a range of an LU, against every handle on every core.
//!
//! Whoever needs a range takes a ticket. Tickets of overlapping ranges are served in the order in
//! which they were taken, by the one list of the LU. The one whose turn it is closes the range on
//! every handle (see `gate`), each of which answers once its writes in flight there have ended;
//! then the range is the ticket's, until it is dropped and the handles open again.
//!
//! Nothing can wait in a circle: a ticket waits for older tickets and for the kernel, a held write
//! for tickets, and whoever has a ticket takes no second one.
//!
//! The list has a lock, which is held for a few instructions and only here: requests that need no
//! ticket never touch it. With one handle there are no messages, and nothing is allocated.

use std::future::poll_fn;
use std::rc::Rc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};

use block::{Completion, Error, Geometry, RequestBuf};

use super::gate::{Gate, Span, TicketId};
use super::roster::{HandleId, Member};

/// A handle whose writes can be held back.
pub trait Closes: 'static {
    fn id(&self) -> HandleId;

    fn gate(&self) -> &Gate;

    fn geometry(&self) -> Geometry;

    /// Waits until no write in the span is under way.
    fn settled(&self, span: Span) -> impl Future<Output = ()>;

    /// Starts a write of whatever kind, or [holds it back](Gate::hold).
    fn change(self: &Rc<Self>, buf: RequestBuf, done: Completion);

    /// Waits until nothing is held back and no write is under way. A handle stays a member until
    /// then, also when its device is gone: others must still be excluded from what it has begun.
    fn ended(&self) -> impl Future<Output = ()> {
        async {
            self.gate().released().await;
            self.settled(Span::ALL).await;
        }
    }
}

/// Closes a range to writes; resolves when those in flight have ended.
fn close<H: Closes>(handle: Rc<H>, id: TicketId, span: Span) -> impl Future<Output = ()> {
    handle.gate().close(id, span);
    async move { handle.settled(span).await }
}

/// Opens it again, and starts what was held back.
fn open<H: Closes>(handle: &Rc<H>, id: TicketId) {
    for (buf, done) in handle.gate().open(id) {
        // The size may have changed meanwhile.
        let checked = handle.geometry().check(&buf.as_request());
        match checked {
            Ok(()) => handle.change(buf, done),
            Err(error) => done.finish(Err(error)),
        }
    }
}

/// Who has handles and who has tickets.
pub struct Ledger<H> {
    inner: Mutex<Inner<H>>,
}

struct Inner<H> {
    members: Vec<Member<H>>,
    /// Oldest first.
    tickets: Vec<Entry>,
    next: u64,
}

struct Entry {
    id: TicketId,
    span: Span,
    /// Its range is closed, or about to be.
    active: bool,
    waker: Option<Waker>,
}

impl<H> Default for Ledger<H> {
    fn default() -> Self {
        let (members, tickets) = (Vec::new(), Vec::new());
        Self { inner: Mutex::new(Inner { members, tickets, next: 0 }) }
    }
}

impl<H: Closes> Ledger<H> {
    fn lock(&self) -> MutexGuard<'_, Inner<H>> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a handle; what is closed now is closed on it too.
    pub fn join(&self, member: Member<H>, handle: &H) {
        let mut inner = self.lock();
        inner.members.push(member);
        for entry in inner.tickets.iter().filter(|entry| entry.active) {
            handle.gate().close(entry.id, entry.span);
        }
    }

    pub fn leave(&self, id: HandleId) {
        self.lock().members.retain(|member| member.id() != id);
    }

    pub fn members(&self) -> Vec<Member<H>> {
        self.lock().members.clone()
    }
}

/// A range that is its holder's alone.
pub struct Ticket<H: Closes> {
    ledger: Arc<Ledger<H>>,
    /// The handle of the core that asked, if it asked through one.
    own: Option<Rc<H>>,
    id: TicketId,
}

impl<H: Closes> Ticket<H> {
    /// Waits for the range. `own` is the handle that asks; it closes without a message.
    pub async fn take(ledger: &Arc<Ledger<H>>, own: Option<&Rc<H>>, span: Span) -> Self {
        let id = {
            let mut inner = ledger.lock();
            let id = TicketId(inner.next);
            inner.next += 1;
            inner.tickets.push(Entry { id, span, active: false, waker: None });
            id
        };
        // From here on, dropping gives the range back.
        let ticket = Self { ledger: ledger.clone(), own: own.cloned(), id };
        poll_fn(|cx| ticket.is_next(span, cx.waker())).await;
        let own_id = own.map(|handle| handle.id());
        // It closes now, and without a message.
        let own = own.map(|own| close(own.clone(), id, span));
        let replies: Vec<_> = {
            let inner = ledger.lock();
            let others = inner.members.iter().filter(|member| Some(member.id()) != own_id);
            others.map(|member| member.call(move |handle| close(handle, id, span))).collect()
        };
        if let Some(own) = own {
            own.await;
        }
        for reply in replies {
            // None: the handle is gone, with everything it had in flight.
            let _ = reply.await;
        }
        ticket
    }

    /// The same for a request that must be alone with this range. The size may have changed while
    /// it waited.
    pub async fn for_request(
        ledger: &Arc<Ledger<H>>,
        own: &Rc<H>,
        (buf, span): (&RequestBuf, Span),
    ) -> Result<Self, Error> {
        let ticket = Self::take(ledger, Some(own), span).await;
        own.geometry().check(&buf.as_request())?;
        Ok(ticket)
    }

    fn is_next(&self, span: Span, waker: &Waker) -> Poll<()> {
        let mut inner = self.ledger.lock();
        for entry in &mut inner.tickets {
            if entry.id == self.id {
                // Handles that join from now on close it themselves.
                entry.active = true;
                entry.waker = None;
                return Poll::Ready(());
            }
            if entry.span.overlaps(span) {
                break;
            }
        }
        if let Some(entry) = inner.tickets.iter_mut().find(|entry| entry.id == self.id) {
            entry.waker = Some(waker.clone());
        }
        Poll::Pending
    }
}

impl<H: Closes> Drop for Ticket<H> {
    fn drop(&mut self) {
        let id = self.id;
        let own_id = self.own.as_ref().map(|own| own.id());
        let mut inner = self.ledger.lock();
        let Some(at) = inner.tickets.iter().position(|entry| entry.id == id) else { return };
        let entry = inner.tickets.remove(at);
        if entry.active {
            for member in inner.members.iter().filter(|member| Some(member.id()) != own_id) {
                drop(member.call(move |handle| {
                    open(&handle, id);
                    std::future::ready(())
                }));
            }
        }
        // Later ones look again, in their order.
        let waiting: Vec<_> =
            inner.tickets.iter_mut().filter_map(|entry| entry.waker.take()).collect();
        drop(inner);
        waiting.into_iter().for_each(Waker::wake);
        if let Some(own) = self.own.take() {
            open(&own, id);
        }
    }
}
