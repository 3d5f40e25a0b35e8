//! Every request that a front end may send us, as a table: its payload, how many file descriptors
//! come with it, what must have been offered or negotiated, what it demands of the rings, and how
//! it is answered. A request that is not in the table is not supported.

use wire::vhost_user::{
    CONFIG_BYTES_MAX, ConfigHeader, FrontEndRequest, INFLIGHT_PACKED_BYTES, Inflight, Log,
    MEM_TABLE_REGIONS_MAX, MemRegion, MemTableHeader, SingleMemRegion, VringAddr, VringState,
    protocol_feature,
};

/// One request.
pub(super) struct Row {
    pub(super) code: FrontEndRequest,
    pub(super) payload: Payload,
    /// Fewest and most file descriptors.
    pub(super) fds: (usize, usize),
    pub(super) needs: Needs,
    pub(super) rings: Rings,
    pub(super) answer: Answer,
}

/// Form of a payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Payload {
    None,
    U64,
    VringState,
    VringAddr,
    MemTable,
    SingleMemRegion,
    Log,
    Config,
    Inflight,
}

/// What must be agreed on before the request is legal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Needs {
    Nothing,
    /// "Present in GET_PROTOCOL_FEATURES": our offer is enough.
    Offered(u64),
    /// "Negotiated": the front end has set it.
    Negotiated(u64),
}

/// What the request demands of the rings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rings {
    Any,
    /// The ring it names must not be running.
    ThisIdle,
    /// No ring may be running.
    AllIdle,
}

/// How the request is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// Only when REPLY_ACK is negotiated and the request asks for it.
    Ack,
    U64,
    VringState,
    Config,
    Inflight,
    /// The protocol leaves the payload open. QEMU ignores it; the rust-vmm front end reads the
    /// request's own payload back, so that is what is sent.
    Log,
}

const CHANNEL: u64 = protocol_feature::BACKEND_REQ;
const CONFIG: u64 = protocol_feature::CONFIG;
const AREA: u64 = protocol_feature::INFLIGHT_SHMFD;
const LOG: u64 = protocol_feature::LOG_SHMFD;
const MQ: u64 = protocol_feature::MQ;
const RESET: u64 = protocol_feature::RESET_DEVICE;
const SLOTS: u64 = protocol_feature::CONFIGURE_MEM_SLOTS;

const NO_FD: (usize, usize) = (0, 0);
const ONE_FD: (usize, usize) = (1, 1);
const MAYBE_FD: (usize, usize) = (0, 1);

use Answer::Ack;
use FrontEndRequest as Code;
use Needs::{Negotiated, Nothing, Offered};
use Rings::{AllIdle, Any, ThisIdle};

#[rustfmt::skip]
const ROWS: &[Row] = &[
    row(Code::GET_FEATURES, Payload::None, NO_FD, Nothing, Any, Answer::U64),
    row(Code::SET_FEATURES, Payload::U64, NO_FD, Nothing, Any, Ack),
    row(Code::SET_OWNER, Payload::None, NO_FD, Nothing, Any, Ack),
    row(Code::RESET_OWNER, Payload::None, NO_FD, Nothing, Any, Ack),
    row(Code::SET_MEM_TABLE, Payload::MemTable, (0, MEM_TABLE_REGIONS_MAX), Nothing, Any, Ack),
    row(Code::SET_LOG_BASE, Payload::Log, ONE_FD, Negotiated(LOG), Any, Answer::Log),
    row(Code::SET_LOG_FD, Payload::None, ONE_FD, Nothing, Any, Ack),
    row(Code::SET_VRING_NUM, Payload::VringState, NO_FD, Nothing, ThisIdle, Ack),
    row(Code::SET_VRING_ADDR, Payload::VringAddr, NO_FD, Nothing, Any, Ack),
    row(Code::SET_VRING_BASE, Payload::VringState, NO_FD, Nothing, ThisIdle, Ack),
    row(Code::GET_VRING_BASE, Payload::VringState, NO_FD, Nothing, Any, Answer::VringState),
    row(Code::SET_VRING_KICK, Payload::U64, MAYBE_FD, Nothing, Any, Ack),
    row(Code::SET_VRING_CALL, Payload::U64, MAYBE_FD, Nothing, Any, Ack),
    row(Code::SET_VRING_ERR, Payload::U64, MAYBE_FD, Nothing, Any, Ack),
    // PROTOCOL_FEATURES, which the next two and SET_VRING_ENABLE need, is always offered and "does
    // not need to be acknowledged by SET_FEATURES".
    row(Code::GET_PROTOCOL_FEATURES, Payload::None, NO_FD, Nothing, Any, Answer::U64),
    row(Code::SET_PROTOCOL_FEATURES, Payload::U64, NO_FD, Nothing, Any, Ack),
    row(Code::GET_QUEUE_NUM, Payload::None, NO_FD, Offered(MQ), Any, Answer::U64),
    row(Code::SET_VRING_ENABLE, Payload::VringState, NO_FD, Nothing, Any, Ack),
    row(Code::SET_BACKEND_REQ_FD, Payload::None, ONE_FD, Offered(CHANNEL), Any, Ack),
    row(Code::GET_CONFIG, Payload::Config, NO_FD, Negotiated(CONFIG), Any, Answer::Config),
    row(Code::SET_CONFIG, Payload::Config, NO_FD, Negotiated(CONFIG), Any, Ack),
    row(Code::GET_INFLIGHT_FD, Payload::Inflight, NO_FD, Negotiated(AREA), Any, Answer::Inflight),
    row(Code::SET_INFLIGHT_FD, Payload::Inflight, ONE_FD, Negotiated(AREA), AllIdle, Ack),
    row(Code::RESET_DEVICE, Payload::None, NO_FD, Offered(RESET), Any, Ack),
    row(Code::GET_MAX_MEM_SLOTS, Payload::None, NO_FD, Negotiated(SLOTS), Any, Answer::U64),
    row(Code::ADD_MEM_REG, Payload::SingleMemRegion, ONE_FD, Negotiated(SLOTS), Any, Ack),
    // A descriptor here is the mistake of older front ends that the protocol tells us to bear.
    row(Code::REM_MEM_REG, Payload::SingleMemRegion, MAYBE_FD, Negotiated(SLOTS), Any, Ack),
];

const fn row(
    code: FrontEndRequest,
    payload: Payload,
    fds: (usize, usize),
    needs: Needs,
    rings: Rings,
    answer: Answer,
) -> Row {
    Row { code, payload, fds, needs, rings, answer }
}

/// The row of a request that we support.
pub(super) fn find(code: FrontEndRequest) -> Option<&'static Row> {
    ROWS.iter().find(|row| row.code == code)
}

impl Payload {
    /// Whether a payload of this form can have this size. A table of regions and a configuration
    /// space say inside how long they are; that is checked when they are read.
    pub(super) fn accepts(self, size: usize) -> bool {
        match self {
            Self::None => size == 0,
            Self::U64 => size == size_of::<u64>(),
            Self::VringState => size == size_of::<VringState>(),
            Self::VringAddr => size == size_of::<VringAddr>(),
            Self::MemTable => match size.checked_sub(size_of::<MemTableHeader>()) {
                Some(regions) => {
                    regions.is_multiple_of(size_of::<MemRegion>())
                        && regions / size_of::<MemRegion>() <= MEM_TABLE_REGIONS_MAX
                }
                None => false,
            },
            Self::SingleMemRegion => size == size_of::<SingleMemRegion>(),
            Self::Log => size == size_of::<Log>(),
            Self::Config => size
                .checked_sub(size_of::<ConfigHeader>())
                .is_some_and(|bytes| bytes <= CONFIG_BYTES_MAX),
            Self::Inflight => size == size_of::<Inflight>() || size == INFLIGHT_PACKED_BYTES,
        }
    }

    /// What belongs there, for an error.
    pub(super) fn describe(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::U64 | Self::VringState => "8",
            Self::VringAddr | Self::SingleMemRegion => "40",
            Self::MemTable => "8 and 32 for each of at most 8 regions",
            Self::Log => "16",
            Self::Config => "12 and at most 256 of configuration space",
            Self::Inflight => "24 (or 20 without padding)",
        }
    }
}

/// The name of a protocol feature that the table needs.
pub(super) fn feature_name(feature: u64) -> &'static str {
    match feature {
        protocol_feature::MQ => "MQ",
        protocol_feature::LOG_SHMFD => "LOG_SHMFD",
        protocol_feature::BACKEND_REQ => "BACKEND_REQ",
        protocol_feature::CONFIG => "CONFIG",
        protocol_feature::INFLIGHT_SHMFD => "INFLIGHT_SHMFD",
        protocol_feature::RESET_DEVICE => "RESET_DEVICE",
        protocol_feature::CONFIGURE_MEM_SLOTS => "CONFIGURE_MEM_SLOTS",
        _ => unreachable!("the table names no other feature"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vhost_user::{FDS_PER_MESSAGE_MAX, PROTOCOL_FEATURES};
    use wire::vhost_user::PAYLOAD_BYTES_MAX;

    #[test]
    fn every_row_is_consistent_and_unique() {
        for row in ROWS {
            assert_eq!(find(row.code).map(|found| found.code), Some(row.code));
            assert_eq!(ROWS.iter().filter(|other| other.code == row.code).count(), 1);
            assert!(row.fds.0 <= row.fds.1 && row.fds.1 <= FDS_PER_MESSAGE_MAX, "{}", row.code);
            if let Offered(feature) | Negotiated(feature) = row.needs {
                assert_eq!(feature & PROTOCOL_FEATURES, feature, "{}", row.code);
                assert!(!feature_name(feature).is_empty());
            }
        }
    }

    #[test]
    fn no_accepted_payload_is_larger_than_the_receive_buffer() {
        for row in ROWS {
            let largest = (0..10_000).filter(|size| row.payload.accepts(*size)).max();
            assert!(largest.is_some_and(|size| size <= PAYLOAD_BYTES_MAX), "{}", row.code);
        }
    }

    #[test]
    fn what_is_not_offered_is_not_in_the_table() {
        for code in [
            Code::SET_STATUS,
            Code::GET_STATUS,
            Code::POSTCOPY_ADVISE,
            Code::POSTCOPY_LISTEN,
            Code::IOTLB_MSG,
            Code::VRING_KICK,
            FrontEndRequest(0),
            FrontEndRequest(u32::MAX),
        ] {
            assert!(find(code).is_none(), "{code}");
        }
    }
}
