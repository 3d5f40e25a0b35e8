//! REPORT and SET TARGET PORT GROUPS (SPC-4 6.37, 6.43): how well the unit is reached through which
//! ports. A client that sets a state asks for ownership to move; the node decides.

use wire::scsi::ports::{
    ALTERED_EXPLICITLY, ALTERED_IMPLICITLY, AccessState as Code, EXTENDED_HEADER, ExtendedHeader,
    FORMAT_MASK, PREF, Port, PortGroup, SetPortGroup, supports,
};
use zerocopy::FromBytes;

use super::super::context::Context;
use super::super::row::Boxed;
use super::super::sense::Sense;
use super::push;
use crate::lun::access::{AccessState, Altered, Group};
use crate::lun::{AccessChange, Change};

/// Seconds after which a client may take an implicit transition for failed.
const TRANSITION_S: u8 = 60;

pub fn report(context: &Context<'_>) -> Result<Vec<u8>, Sense> {
    let extended = match context.parsed.bytes[1] & FORMAT_MASK {
        0 => false,
        EXTENDED_HEADER => true,
        _ => return Err(Sense::field_bit(1, 7)),
    };
    let mut groups = Vec::new();
    for group in seen(context) {
        push_group(&mut groups, &group);
    }
    let mut bytes = Vec::new();
    if extended {
        let header = ExtendedHeader {
            length: ((size_of::<ExtendedHeader>() - 4 + groups.len()) as u32).into(),
            format: EXTENDED_HEADER,
            implicit_transition_time_s: TRANSITION_S,
            ..ExtendedHeader::default()
        };
        push(&mut bytes, &header);
    } else {
        bytes.extend((groups.len() as u32).to_be_bytes());
    }
    bytes.extend(groups);
    Ok(bytes)
}

/// The groups that this client sees. A unit without groups has one way and one group.
fn seen(context: &Context<'_>) -> Vec<Group> {
    let port = context.nexus.id().port();
    let groups = context.unit.view().access.seen_from(port);
    if !groups.is_empty() {
        return groups;
    }
    let only = crate::lun::access::Port { id: port, target: 0 };
    vec![Group {
        id: 1,
        state: AccessState::Optimized,
        preferred: false,
        altered: Altered::Never,
        ports: vec![only],
    }]
}

fn push_group(bytes: &mut Vec<u8>, group: &Group) {
    let ports = &group.ports[..group.ports.len().min(usize::from(u8::MAX))];
    let descriptor = PortGroup {
        state: code(group.state).0 | if group.preferred { PREF } else { 0 },
        supported: supports::TRANSITIONING
            | supports::UNAVAILABLE
            | supports::STANDBY
            | supports::NON_OPTIMIZED
            | supports::OPTIMIZED,
        group: group.id.into(),
        status: match group.altered {
            Altered::Never => 0,
            Altered::Explicit => ALTERED_EXPLICITLY,
            Altered::Implicit => ALTERED_IMPLICITLY,
        },
        port_count: ports.len() as u8,
        ..PortGroup::default()
    };
    push(bytes, &descriptor);
    for port in ports {
        push(bytes, &Port { relative_port: port.id.0.into(), ..Port::default() });
    }
}

const fn code(state: AccessState) -> Code {
    match state {
        AccessState::Optimized => Code::ACTIVE_OPTIMIZED,
        AccessState::NonOptimized => Code::ACTIVE_NON_OPTIMIZED,
        AccessState::Standby => Code::STANDBY,
        AccessState::Unavailable => Code::UNAVAILABLE,
        AccessState::Offline => Code::OFFLINE,
        AccessState::Transitioning => Code::TRANSITIONING,
    }
}

pub fn set<'a>(context: &'a Context<'a>) -> Boxed<'a> {
    Box::pin(async move {
        let list = context.parameters()?;
        // No list is no error and changes nothing (SPC-4 6.43).
        let Some(groups) = list.get(4..) else {
            return if list.is_empty() { Ok(list) } else { Err(Sense::parameter_length().into()) };
        };
        let (groups, rest) = groups.as_chunks::<{ size_of::<SetPortGroup>() }>();
        if !rest.is_empty() {
            return Err(Sense::parameter_length().into());
        }
        let mut wish = None;
        for (index, bytes) in groups.iter().enumerate() {
            let at = (4 + index * size_of::<SetPortGroup>()) as u16;
            let group = SetPortGroup::read_from_bytes(bytes).expect("of its size");
            match Code(group.state & 0x0f) {
                Code::ACTIVE_OPTIMIZED => wish = Some(group.group.get()),
                Code::ACTIVE_NON_OPTIMIZED | Code::STANDBY | Code::UNAVAILABLE => {}
                _ => return Err(Sense::parameter(at).into()),
            }
            if !seen(context).iter().any(|it| it.id == group.group.get()) {
                return Err(Sense::parameter(at + 2).into());
            }
        }
        if let Some(group) = wish {
            let nexus = context.nexus.id().clone();
            let has_groups = !context.unit.view().access.groups.is_empty();
            if has_groups {
                context.change(Change::Access(AccessChange::Wish { nexus, group })).await?;
            }
        }
        Ok(Vec::new())
    })
}
