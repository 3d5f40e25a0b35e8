//! Events: what happens at LUNs, kept until the driver has a buffer for it (5.6.6.3).
//!
//! The standard lets a device drop what finds no buffer, and has it say so in the next event;
//! drivers then look at everything anew. Drivers have few buffers and use them again, so what
//! happens is kept, of each LUN the newest of a kind, and dropped only past a limit.

use std::collections::{BTreeMap, VecDeque};

use wire::scsi::AdditionalSense;
use wire::virtio::scsi::{EVENTS_MISSED, Event, EventType, ResetReason, asynchronous};

use super::control::Control;
use super::request::address_of;
use crate::lun::attention::{Attention, AttentionSet, MediumEvent, MediumEvents};
use crate::scsi::{Kind, sense_of};

/// Events kept for a driver without buffers: more than LUNs come and go at a time.
pub const PENDING_MAX: usize = 512;

/// What happened at a LUN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Happening {
    Plugged,
    Unplugged,
    /// What a unit attention tells as well.
    Parameters(AdditionalSense),
    /// Bits of [`asynchronous`].
    Asynchronous(u32),
}

impl Happening {
    /// What an attention, or an event of the medium, is to a driver with these subscriptions. Of
    /// drives only notifications are told, no parameters (5.6.6.3).
    pub fn of(
        kind: Kind,
        wanted: u32,
        told: AttentionSet,
        medium: MediumEvents,
    ) -> impl Iterator<Item = Self> {
        let parameters = told.iter().filter(move |_| kind == Kind::Disk).filter_map(parameters);
        let mut notified = 0;
        for event in medium.iter() {
            notified |= match event {
                MediumEvent::Removed | MediumEvent::Loaded => asynchronous::MEDIA_CHANGE,
                MediumEvent::RemovalRequested => asynchronous::EXTERNAL_REQUEST,
            };
        }
        let notified = Some(notified & wanted).filter(|bits| *bits != 0).map(Self::Asynchronous);
        parameters.chain(notified)
    }

    fn event(self, number: u16) -> Event {
        let (event, reason) = match self {
            Self::Plugged => (EventType::TRANSPORT_RESET, ResetReason::RESCAN.0),
            Self::Unplugged => (EventType::TRANSPORT_RESET, ResetReason::REMOVED.0),
            // The additional sense code in the lower byte, its qualifier in the one above.
            Self::Parameters(code) => (EventType::PARAM_CHANGE, u32::from(code.0.swap_bytes())),
            Self::Asynchronous(bits) => (EventType::ASYNC_NOTIFY, bits),
        };
        Event { event: event.0.into(), lun: address_of(number), reason: reason.into() }
    }

    /// Whether an older event of the same LUN says nothing beside this one.
    fn replaces(self, older: Self) -> bool {
        match self {
            Self::Plugged | Self::Unplugged => true,
            Self::Parameters(_) => self == older,
            Self::Asynchronous(_) => self == older,
        }
    }
}

/// Attentions that are parameters of the unit: size, modes, who it is, how it is reached.
fn parameters(what: Attention) -> Option<Happening> {
    let is_parameter = matches!(
        what,
        Attention::CapacityChanged
            | Attention::ModesChanged
            | Attention::IdentityChanged
            | Attention::AccessChanged
    );
    is_parameter.then(|| Happening::Parameters(sense_of(what).code))
}

/// What waits for buffers of the event queue.
#[derive(Debug, Default)]
pub struct Events {
    pending: VecDeque<(u16, Happening)>,
    missed: bool,
}

impl Events {
    pub fn post(&mut self, number: u16, what: Happening) {
        self.pending.retain(|&(other, older)| other != number || !what.replaces(older));
        if self.pending.len() >= PENDING_MAX {
            self.missed = true;
            return;
        }
        self.pending.push_back((number, what));
    }

    /// Something may have happened that nobody knows of: the driver has to look at everything.
    pub fn miss(&mut self) {
        self.missed = true;
    }

    pub fn is_empty(&self) -> bool {
        self.pending.is_empty() && !self.missed
    }

    /// The next event, for a buffer of the driver's.
    pub fn take(&mut self) -> Option<Event> {
        let next = self.pending.pop_front().map(|(number, what)| what.event(number));
        if !std::mem::take(&mut self.missed) {
            return next;
        }
        let nothing = Event { event: EventType::NO_EVENT.0.into(), lun: [0; 8], reason: 0.into() };
        let next = next.unwrap_or(nothing);
        Some(Event { event: (next.event.get() | EVENTS_MISSED).into(), ..next })
    }
}

/// Kinds of notification that the driver wants, by LUN.
#[derive(Debug, Default)]
pub struct Subscriptions(BTreeMap<u16, u32>);

impl Subscriptions {
    /// Replaces what was wanted; says what of it there is.
    pub fn subscribe(&mut self, number: u16, requested: u32) -> u32 {
        let wanted = requested & Control::NOTIFICATIONS;
        match wanted {
            0 => drop(self.0.remove(&number)),
            _ => drop(self.0.insert(number, wanted)),
        }
        wanted
    }

    pub fn wanted(&self, number: u16) -> u32 {
        self.0.get(&number).copied().unwrap_or(0)
    }

    /// A LUN went; another one under its number is not subscribed to.
    pub fn forget(&mut self, number: u16) {
        self.0.remove(&number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MISSED: u32 = EVENTS_MISSED;

    fn taken(events: &mut Events) -> Vec<(u32, u16, u32)> {
        let number = |event: &Event| u16::from_be_bytes([event.lun[2], event.lun[3]]);
        std::iter::from_fn(|| events.take())
            .map(|event| (event.event.get(), number(&event), event.reason.get()))
            .collect()
    }

    #[test]
    fn events_come_in_order_and_say_where() {
        let mut events = Events::default();
        assert!(events.is_empty() && events.take().is_none());
        events.post(1, Happening::Plugged);
        events.post(2, Happening::Parameters(AdditionalSense::CAPACITY_DATA_HAS_CHANGED));
        events.post(3, Happening::Unplugged);
        events.post(4, Happening::Asynchronous(asynchronous::MEDIA_CHANGE));
        let expected = [(1, 1, 1), (3, 2, 0x092a), (1, 3, 2), (2, 4, 16)];
        assert_eq!(taken(&mut events), expected);
    }

    #[test]
    fn of_a_lun_the_newest_counts() {
        let mut events = Events::default();
        let size = Happening::Parameters(AdditionalSense::CAPACITY_DATA_HAS_CHANGED);
        for what in [Happening::Plugged, size, size] {
            events.post(1, what);
        }
        assert_eq!(taken(&mut events), [(1, 1, 1), (3, 1, 0x092a)]);
        for what in [Happening::Plugged, size, Happening::Unplugged] {
            events.post(1, what);
        }
        assert_eq!(taken(&mut events), [(1, 1, 2)]);
    }

    #[test]
    fn what_is_too_much_is_missed() {
        let mut events = Events::default();
        for number in 0..PENDING_MAX as u16 + 9 {
            events.post(number, Happening::Plugged);
        }
        let all = taken(&mut events);
        assert_eq!(all.len(), PENDING_MAX);
        assert_eq!((all[0], all[1]), ((1 | MISSED, 0, 1), (1, 1, 1)));
        events.miss();
        assert_eq!(taken(&mut events), [(MISSED, 0, 0)]);
        assert!(events.is_empty());
    }

    #[test]
    fn notifications_are_for_those_who_want_them() {
        let mut subscriptions = Subscriptions::default();
        assert_eq!(subscriptions.subscribe(3, u32::MAX), Control::NOTIFICATIONS);
        assert_eq!((subscriptions.wanted(3), subscriptions.wanted(4)), (0x18, 0));
        let told: AttentionSet =
            [Attention::MediumChanged, Attention::ModesChanged].into_iter().collect();
        let loaded = MediumEvents::NONE.then(MediumEvent::Loaded);
        let of = |kind, wanted| Happening::of(kind, wanted, told, loaded).collect::<Vec<_>>();
        let modes = Happening::Parameters(AdditionalSense::MODE_PARAMETERS_CHANGED);
        let change = Happening::Asynchronous(asynchronous::MEDIA_CHANGE);
        assert_eq!(of(Kind::Disk, 0), [modes]);
        assert_eq!(of(Kind::Disk, subscriptions.wanted(3)), [modes, change]);
        assert_eq!(of(Kind::Optical, u32::MAX), [change]);
        assert_eq!(of(Kind::Optical, asynchronous::EXTERNAL_REQUEST), []);
        subscriptions.forget(3);
        assert_eq!(subscriptions.wanted(3), 0);
    }
}
