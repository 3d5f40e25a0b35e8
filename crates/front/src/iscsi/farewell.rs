//! The end of a session by this side's wish: a new one takes its place, its target goes, or the
//! node does.
//!
//! An initiator that knows of it beforehand lets its commands end and logs out, which costs its
//! users nothing; one that is told of the end at least does not have to find out.

use std::rc::Rc;
use std::time::Duration;

use proto::iscsi::AsyncMessage;

use super::connection::Connection;
use super::sessions::End;
use super::{FAREWELL_LIMIT, Farewell, LOGOUT_LIMIT, Why};

impl Connection {
    /// Ends the session, at once or after a while.
    pub fn leave_by(self: &Rc<Self>, why: End) {
        match why {
            // Its initiator has left it already.
            End::Replaced => self.cut(Why::Replaced),
            // It is not logged in as long as it has not been told so.
            End::Farewell(_) if !self.is_logged_in() => self.cut(Why::Dropped),
            End::Farewell(Farewell::Logout) => self.ask_to_log_out(),
            End::Farewell(Farewell::Drop) => self.drop_session(),
        }
    }

    fn cut(&self, why: Why) {
        self.end(why);
        self.stream.shutdown();
    }

    fn ask_to_log_out(self: &Rc<Self>) {
        let within_s = LOGOUT_LIMIT.as_secs() as u16;
        self.tell(AsyncMessage::RequestLogout { within_s });
        self.after(LOGOUT_LIMIT, Self::drop_session);
    }

    fn drop_session(self: &Rc<Self>) {
        if self.machine.borrow().ended().is_some() {
            return;
        }
        self.end(Why::Dropped);
        let wait_s = self.machine.borrow().parameters().default_time2wait_s;
        self.tell(AsyncMessage::Drop { wait_s: u16::try_from(wait_s).unwrap_or(u16::MAX) });
        self.after(FAREWELL_LIMIT, |connection| connection.stream.shutdown());
    }

    fn tell(&self, message: AsyncMessage<'_>) {
        let mut machine = self.machine.borrow_mut();
        if machine.ended().is_none() {
            machine.tell(message);
            self.to_send.notify();
        }
    }

    /// Does something later, if the connection is still there then.
    fn after(self: &Rc<Self>, limit: Duration, f: impl FnOnce(&Rc<Self>) + 'static) {
        let (core, connection) = (self.shared.core.clone(), Rc::downgrade(self));
        self.shared.core.spawn(async move {
            core.sleep(limit).await;
            if let Some(connection) = connection.upgrade() {
                f(&connection);
            }
        });
    }
}
