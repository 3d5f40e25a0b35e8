//! The sessions of a server, on all its cores: handles, and reinstatement.
//!
//! A session is named by initiator, ISID and target; a login with the name of one that exists ends
//! that one first (RFC 7143, 6.3.5). Asked at logins only, so a lock does.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use proto::iscsi::{Admit, SessionKind};
use rt::sync::{Answer, reply};
use wire::iscsi::LoginStatus;

use super::Farewell;

/// Sessions of one server; discovery sessions do not count.
pub const SESSIONS_MAX: usize = 16_384;

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Name {
    initiator: String,
    isid: [u8; 6],
    target: String,
}

/// All sessions of a server.
#[derive(Default)]
pub struct Sessions {
    table: Mutex<Table>,
}

#[derive(Default)]
struct Table {
    last: u16,
    live: HashMap<Name, Live>,
    is_closed: bool,
    /// They wait until none is left.
    waiting: Vec<Answer<()>>,
}

struct Live {
    tsih: u16,
    end: Box<dyn Fn(End) + Send>,
    waiting: Vec<Answer<()>>,
}

/// Why a session is to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// A new session takes its place.
    Replaced,
    Farewell(Farewell),
}

/// A session's place among the others, until it is dropped.
pub(super) struct Entry {
    sessions: Arc<Sessions>,
    name: Option<Name>,
    pub tsih: u16,
}

/// What a name finds.
enum Found {
    Free(Entry),
    Refused(LoginStatus),
    Taken(rt::sync::Reply<()>),
}

impl Sessions {
    /// Ends the session of this name, if there is one, and takes its place. `end` is called when
    /// the new one is to end in its turn.
    pub(super) async fn enter(
        self: &Arc<Self>,
        admit: &Admit,
        end: impl Fn(End) + Send + Clone + 'static,
    ) -> Result<Entry, LoginStatus> {
        let name = match &admit.kind {
            SessionKind::Discovery => None,
            SessionKind::Normal { target } => Some(Name {
                initiator: admit.initiator.clone(),
                isid: admit.isid,
                target: target.clone(),
            }),
        };
        loop {
            match self.look(name.as_ref(), &end) {
                Found::Free(entry) => return Ok(entry),
                Found::Refused(status) => return Err(status),
                // No answer means that its core has ended, and the session with it.
                Found::Taken(gone) => drop(gone.await),
            }
        }
    }

    fn look(
        self: &Arc<Self>,
        name: Option<&Name>,
        end: &(impl Fn(End) + Send + Clone + 'static),
    ) -> Found {
        let mut table = self.lock();
        if table.is_closed {
            return Found::Refused(LoginStatus::SERVICE_UNAVAILABLE);
        }
        if let Some(live) = name.and_then(|name| table.live.get_mut(name)) {
            let (answer, gone) = reply();
            live.waiting.push(answer);
            (live.end)(End::Replaced);
            return Found::Taken(gone);
        }
        if table.live.len() >= SESSIONS_MAX {
            return Found::Refused(LoginStatus::OUT_OF_RESOURCES);
        }
        let tsih = table.free_tsih();
        if let Some(name) = name {
            let live = Live { tsih, end: Box::new(end.clone()), waiting: Vec::new() };
            table.live.insert(name.clone(), live);
        }
        Found::Free(Entry { sessions: self.clone(), name: name.cloned(), tsih })
    }

    /// Ends every session of which this is true, by initiator and target.
    pub fn end(&self, how: Farewell, of: impl Fn(&str, &str) -> bool) {
        for (name, live) in &self.lock().live {
            if of(&name.initiator, &name.target) {
                (live.end)(End::Farewell(how));
            }
        }
    }

    /// Lets nobody in any more.
    pub fn close(&self) {
        self.lock().is_closed = true;
    }

    /// Waits until there is none.
    pub async fn gone(&self) {
        loop {
            let gone = {
                let mut table = self.lock();
                if table.live.is_empty() {
                    return;
                }
                let (answer, gone) = reply();
                table.waiting.push(answer);
                gone
            };
            gone.await;
        }
    }

    pub fn len(&self) -> usize {
        self.lock().live.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    /// Never 0, which means a new session.
    fn free_tsih(&mut self) -> u16 {
        loop {
            self.last = self.last.wrapping_add(1);
            if self.last != 0 && self.live.values().all(|live| live.tsih != self.last) {
                return self.last;
            }
        }
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        let Some(name) = &self.name else { return };
        let mut table = self.sessions.lock();
        let mut waiting = table.live.remove(name).map(|live| live.waiting).unwrap_or_default();
        if table.live.is_empty() {
            waiting.append(&mut table.waiting);
        }
        drop(table);
        waiting.into_iter().for_each(|waiting| waiting.give(()));
    }
}
