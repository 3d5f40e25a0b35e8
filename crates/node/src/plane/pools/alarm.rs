//! Tells an operator how much room a pool has left, whenever that becomes another step of what its
//! settings say.

use std::sync::{Mutex, PoisonError};

use model::{Pool, PoolName, PoolSettings, Severity, Size, Subject};
use volume::pool::home;

use crate::engine::{Report, Reporter};
use crate::room::Room;

pub(super) struct Alarm {
    name: PoolName,
    slab: u64,
    report: Reporter,
    now: Mutex<Now>,
}

#[derive(Clone, Copy)]
struct Now {
    settings: PoolSettings,
    told: Room,
}

impl Alarm {
    pub(super) fn new(spec: &Pool, report: Reporter) -> Alarm {
        let now = Now { settings: spec.settings, told: Room::Enough };
        let (name, slab) = (spec.name.clone(), spec.slab_size.bytes());
        Alarm { name, slab, report, now: Mutex::new(now) }
    }

    /// What counts from the next look on.
    pub(super) fn set(&self, settings: PoolSettings) {
        self.now.lock().unwrap_or_else(PoisonError::into_inner).settings = settings;
    }

    /// Looks at the pool, and tells if there is something new.
    pub(super) fn look(&self, pool: &home::Pool) {
        let (slabs, free) = pool.slabs();
        let (size, free) = (Size(slabs * self.slab), Size(free * self.slab));
        let (before, room, settings) = {
            let mut now = self.now.lock().unwrap_or_else(PoisonError::into_inner);
            let room = now.told.after(size, free, now.settings);
            (std::mem::replace(&mut now.told, room), room, now.settings)
        };
        let name = &self.name;
        let trouble = room.trouble(name, free, settings).filter(|_| room > before);
        let (severity, kind, message, next) = match trouble {
            Some(trouble) => (room.severity(), room.kind(), trouble.message, trouble.next),
            None if room < before => {
                let message = format!("pool '{name}' has {free} free again");
                (Severity::Info, Room::Enough.kind(), message, None)
            }
            None => return,
        };
        (self.report)(Report {
            severity,
            subject: Subject::Pool(name.clone()),
            kind,
            message,
            next,
        });
    }
}
