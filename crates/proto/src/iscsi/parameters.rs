//! What a side wants of a session, and what was agreed.

use super::keys::{KEY_COUNT, Key, Negotiation, TASK_REPORTING};
use wire::iscsi::key;

/// What this side may use, and wants. Every number is within the range of its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wishes {
    pub header_digest: DigestPolicy,
    pub data_digest: DigestPolicy,
    pub initial_r2t: bool,
    pub immediate_data: bool,
    /// The longest data segment that this side receives.
    pub max_recv_data_segment_length: u32,
    pub max_burst_length: u32,
    pub first_burst_length: u32,
    pub default_time2wait_s: u32,
    pub default_time2retain_s: u32,
    pub max_outstanding_r2t: u32,
}

/// Whether segments carry a digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DigestPolicy {
    Never,
    /// As the initiator prefers. Role of initiator: CRC32C is preferred.
    Allowed,
    /// Without one there is no session.
    Required,
}

impl Default for Wishes {
    fn default() -> Self {
        Self {
            header_digest: DigestPolicy::Allowed,
            data_digest: DigestPolicy::Allowed,
            initial_r2t: false,
            immediate_data: true,
            max_recv_data_segment_length: 256 * 1024,
            max_burst_length: 1024 * 1024,
            first_burst_length: 256 * 1024,
            default_time2wait_s: 2,
            default_time2retain_s: 0,
            max_outstanding_r2t: 8,
        }
    }
}

/// What holds in a session. One connection per session, error recovery level 0, everything in
/// order: what more a peer offers is negotiated down to that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parameters {
    pub header_digest: bool,
    pub data_digest: bool,
    pub initial_r2t: bool,
    pub immediate_data: bool,
    /// The longest data segment that we may be sent.
    pub max_recv_data_segment_length: u32,
    /// The longest data segment that we may send.
    pub max_send_data_segment_length: u32,
    pub max_burst_length: u32,
    pub first_burst_length: u32,
    pub default_time2wait_s: u32,
    pub default_time2retain_s: u32,
    pub max_outstanding_r2t: u32,
    /// 1: RFC 7143. 2: the task management functions of RFC 7144 too.
    pub iscsi_protocol_level: u32,
    pub task_reporting: &'static str,
}

/// Longest data segment before the end of the login, either way (RFC 7143, 13.12: the default).
pub const LOGIN_SEGMENT_BYTES: u32 = 8192;

/// RFC 7144.
const PROTOCOL_LEVEL: u32 = 2;

impl Wishes {
    pub(super) fn negotiation(&self) -> Negotiation {
        let mut wishes = [0; KEY_COUNT];
        let mut set = |key: Key, wish: u32| wishes[key as usize] = wish;
        set(Key::HeaderDigest, self.header_digest.words());
        set(Key::DataDigest, self.data_digest.words());
        set(Key::MaxConnections, 1);
        set(Key::InitialR2T, u32::from(self.initial_r2t));
        set(Key::ImmediateData, u32::from(self.immediate_data));
        set(Key::MaxRecvDataSegmentLength, self.max_recv_data_segment_length);
        set(Key::MaxBurstLength, self.max_burst_length);
        set(Key::FirstBurstLength, self.first_burst_length);
        set(Key::DefaultTime2Wait, self.default_time2wait_s);
        set(Key::DefaultTime2Retain, self.default_time2retain_s);
        set(Key::MaxOutstandingR2T, self.max_outstanding_r2t);
        set(Key::DataPduInOrder, 1);
        set(Key::DataSequenceInOrder, 1);
        set(Key::ErrorRecoveryLevel, 0);
        // Aborts are not fast: what was asked for is let in before the answer.
        set(Key::TaskReporting, words_of(&TASK_REPORTING, &[key::RESPONSE_FENCE, key::RFC3720]));
        set(Key::IscsiProtocolLevel, PROTOCOL_LEVEL);
        Negotiation::new(wishes)
    }
}

impl DigestPolicy {
    /// Whether a session with or without digests is one that it wants.
    pub(super) fn allows(self, has_digest: bool) -> bool {
        self != Self::Required || has_digest
    }

    /// A set of words of the digest keys: CRC32C, None.
    fn words(self) -> u32 {
        match self {
            Self::Never => 0b10,
            Self::Allowed => 0b11,
            Self::Required => 0b01,
        }
    }
}

impl Parameters {
    /// `declared` is whether our own MaxRecvDataSegmentLength was told; the other side sends by its
    /// default otherwise.
    pub(super) fn agreed(negotiation: &Negotiation, wishes: &Wishes, declared: bool) -> Self {
        let value = |key| negotiation.value(key);
        let ours = wishes.max_recv_data_segment_length;
        Self {
            header_digest: value(Key::HeaderDigest) == 0,
            data_digest: value(Key::DataDigest) == 0,
            initial_r2t: value(Key::InitialR2T) != 0,
            immediate_data: value(Key::ImmediateData) != 0,
            max_recv_data_segment_length: if declared { ours } else { LOGIN_SEGMENT_BYTES },
            max_send_data_segment_length: value(Key::MaxRecvDataSegmentLength),
            max_burst_length: value(Key::MaxBurstLength),
            first_burst_length: value(Key::FirstBurstLength),
            default_time2wait_s: value(Key::DefaultTime2Wait),
            default_time2retain_s: value(Key::DefaultTime2Retain),
            max_outstanding_r2t: value(Key::MaxOutstandingR2T),
            iscsi_protocol_level: value(Key::IscsiProtocolLevel),
            task_reporting: TASK_REPORTING[value(Key::TaskReporting) as usize],
        }
    }

    /// Before anything is agreed.
    pub(super) fn of_login() -> Self {
        let wishes =
            Wishes { max_recv_data_segment_length: LOGIN_SEGMENT_BYTES, ..Wishes::default() };
        Self::agreed(&wishes.negotiation(), &wishes, true)
    }
}

fn words_of(words: &[&str], wanted: &[&str]) -> u32 {
    let is_wanted = |(_, word): &(usize, &&str)| wanted.contains(*word);
    words.iter().enumerate().filter(is_wanted).fold(0, |set, (index, _)| set | 1 << index)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_negotiated_has_its_default() {
        let parameters = Parameters::of_login();
        assert!(!parameters.header_digest && !parameters.data_digest);
        assert!(parameters.initial_r2t && parameters.immediate_data);
        assert_eq!(parameters.max_send_data_segment_length, 8192);
        assert_eq!(parameters.max_burst_length, 262_144);
        assert_eq!(parameters.first_burst_length, 65_536);
        assert_eq!(parameters.max_outstanding_r2t, 1);
        assert_eq!(parameters.iscsi_protocol_level, 1);
        assert_eq!(parameters.task_reporting, "RFC3720");
    }
}
