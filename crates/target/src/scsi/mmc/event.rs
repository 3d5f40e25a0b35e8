//! GET EVENT STATUS NOTIFICATION, polled: of the classes that a host asks for, the first in which
//! something happened, or else the first that there is. What is told is taken out, unless there is
//! no room to tell it.

use wire::scsi::mmc::{
    Event, EventClass, EventHeader, GetEventStatusNotification, MEDIUM_PRESENT, MediaEvent,
    NO_EVENT_AVAILABLE, POWER_ACTIVE, TRAY_OPEN,
};

use super::super::context::Context;
use super::super::sense::Sense;
use super::super::spc::push;
use crate::lun::attention::MediumEvent;

/// The classes that there are. In all but one nothing ever happens.
const CLASSES: [EventClass; 4] = [
    EventClass::OPERATIONAL_CHANGE,
    EventClass::POWER_MANAGEMENT,
    EventClass::MEDIA,
    EventClass::DEVICE_BUSY,
];

pub fn tell(context: &Context<'_>) -> Result<Vec<u8>, Sense> {
    let cdb: GetEventStatusNotification = context.cdb();
    if cdb.polled == 0 {
        return Err(Sense::field_bit(1, 0));
    }
    let is_asked = |class: EventClass| cdb.classes & 1 << class.0 != 0;
    let supported = CLASSES.iter().fold(0, |all, class| all | 1 << class.0);
    let mut bytes = Vec::new();
    let Some(first) = CLASSES.into_iter().find(|class| is_asked(*class)) else {
        let length = (size_of::<EventHeader>() - 2) as u16;
        let class = NO_EVENT_AVAILABLE;
        push(&mut bytes, &EventHeader { length: length.into(), class, supported });
        return Ok(bytes);
    };
    let has_room = usize::from(cdb.length.get()) > size_of::<EventHeader>();
    let happened = match is_asked(EventClass::MEDIA) && has_room {
        true => context.unit.member().attentions().take_medium_event(),
        false => None,
    };
    let class = if happened.is_some() { EventClass::MEDIA } else { first };
    let length = (size_of::<EventHeader>() + size_of::<Event>() - 2) as u16;
    push(&mut bytes, &EventHeader { length: length.into(), class: class.0, supported });
    push(&mut bytes, &event(context, class, happened));
    Ok(bytes)
}

fn event(context: &Context<'_>, class: EventClass, happened: Option<MediumEvent>) -> Event {
    let (code, status) = match class {
        EventClass::MEDIA => (media_code(happened).0, media_status(context)),
        EventClass::POWER_MANAGEMENT => (0, POWER_ACTIVE),
        _ => (0, 0),
    };
    Event { code, status, details: 0.into() }
}

fn media_code(happened: Option<MediumEvent>) -> MediaEvent {
    match happened {
        None => MediaEvent::NO_CHANGE,
        Some(MediumEvent::Removed) => MediaEvent::MEDIA_REMOVAL,
        Some(MediumEvent::Loaded) => MediaEvent::NEW_MEDIA,
        Some(MediumEvent::RemovalRequested) => MediaEvent::EJECT_REQUEST,
    }
}

/// A medium counts as present only where it can be read.
fn media_status(context: &Context<'_>) -> u8 {
    let medium = context.unit.view().medium;
    match (medium.open, medium.present) {
        (true, _) => TRAY_OPEN,
        (false, true) => MEDIUM_PRESENT,
        (false, false) => 0,
    }
}
