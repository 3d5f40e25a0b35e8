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
    /// Its connection is gone, and what it held is being given back.
    is_over: bool,
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
        if let Some(live) = name.and_then(|name| table.ending(name)) {
            let (answer, gone) = reply();
            live.waiting.push(answer);
            return Found::Taken(gone);
        }
        if table.live.len() >= SESSIONS_MAX {
            return Found::Refused(LoginStatus::OUT_OF_RESOURCES);
        }
        let tsih = table.free_tsih();
        if let Some(name) = name {
            let end = Box::new(end.clone());
            let live = Live { tsih, is_over: false, end, waiting: Vec::new() };
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
    /// A session of the same initiator that is just ending. An initiator that comes back may say
    /// another ISID, and counts on what it held before being free all the same.
    fn ending(&mut self, name: &Name) -> Option<&mut Live> {
        let is_same =
            |other: &Name| other.initiator == name.initiator && other.target == name.target;
        let mut live = self.live.iter_mut();
        live.find(|(other, live)| live.is_over && is_same(other)).map(|(_, live)| live)
    }

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

impl Entry {
    /// The connection is gone: from now on whoever comes in its place waits for the end.
    pub fn over(&self) {
        let mut table = self.sessions.lock();
        if let Some(live) = self.name.as_ref().and_then(|name| table.live.get_mut(name)) {
            live.is_over = true;
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
