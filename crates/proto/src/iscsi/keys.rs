//! The text keys (RFC 7143, 13): one table says what kind of value each takes, its default and
//! range, how two sides come to one result, and when it may be sent.
//!
//! [`Negotiation`] is one side's state of it: what is agreed so far, what this side wants, what it
//! has heard and offered. Keys that only tell something (names, aliases) or that prove something
//! (CHAP) are in the table for when they may come; what they mean is the login's.

use super::error::Violation;
use super::text;
use wire::iscsi::key;

/// When a key may be sent: a set of phases.
pub mod phase {
    pub const SECURITY: u8 = 1;
    pub const OPERATIONAL: u8 = 2;
    pub const FULL_FEATURE: u8 = 4;
    pub const LOGIN: u8 = SECURITY | OPERATIONAL;
    pub const ANY: u8 = LOGIN | FULL_FEATURE;
}

/// The keys, in the order of [`TABLE`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Key {
    HeaderDigest,
    DataDigest,
    MaxConnections,
    InitialR2T,
    ImmediateData,
    MaxRecvDataSegmentLength,
    MaxBurstLength,
    FirstBurstLength,
    DefaultTime2Wait,
    DefaultTime2Retain,
    MaxOutstandingR2T,
    DataPduInOrder,
    DataSequenceInOrder,
    ErrorRecoveryLevel,
    TaskReporting,
    IscsiProtocolLevel,
    IfMarker,
    OfMarker,
    IfMarkInt,
    OfMarkInt,
    SendTargets,
    TargetName,
    InitiatorName,
    TargetAlias,
    InitiatorAlias,
    TargetAddress,
    TargetPortalGroupTag,
    SessionType,
    AuthMethod,
    ChapA,
    ChapI,
    ChapC,
    ChapN,
    ChapR,
}

pub const KEY_COUNT: usize = TABLE.len();

/// What a key's value is and how two sides come to one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Yes or No; Yes when both say so.
    And { default: bool },
    /// Yes or No; Yes when one says so.
    Or { default: bool },
    /// A number; the smaller one.
    Min { min: u32, max: u32, default: u32 },
    /// A number; the larger one.
    Max { min: u32, max: u32, default: u32 },
    /// A number that holds for its sender only.
    Declared { min: u32, max: u32, default: u32 },
    /// One of a list; the first of the offered that the other side takes.
    List { words: &'static [&'static str], default: u32 },
    /// Obsolete; there is one answer (13.25).
    Obsolete { answer: &'static str },
    /// Text that its sender tells.
    Text,
    /// Part of a proof.
    Security,
}

/// One key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    pub key: Key,
    pub name: &'static str,
    pub kind: Kind,
    /// A set of [`phase`]s.
    pub phases: u8,
    /// Whether it means something in a discovery session.
    pub in_discovery: bool,
}

const fn row(key: Key, name: &'static str, kind: Kind, phases: u8, in_discovery: bool) -> Row {
    Row { key, name, kind, phases, in_discovery }
}

/// Words of the digest keys, the better first.
pub const DIGESTS: [&str; 2] = [key::CRC32C, key::NONE];
/// Words of TaskReporting, the better first.
pub const TASK_REPORTING: [&str; 3] = [key::RESPONSE_FENCE, key::FAST_ABORT, key::RFC3720];

const SEGMENT_MAX: u32 = 0xff_ffff;
/// Means something in sessions of both kinds.
const BOTH: bool = true;
/// Means something in normal sessions only.
const NORM: bool = false;

const YES: bool = true;
const LATE: u8 = phase::OPERATIONAL | phase::FULL_FEATURE;
const DIGEST: Kind = Kind::List { words: &DIGESTS, default: 1 };
const REPORTING: Kind = Kind::List { words: &TASK_REPORTING, default: 2 };
const SEGMENT: Kind = Kind::Declared { min: 512, max: SEGMENT_MAX, default: 8192 };
const NO_MARKERS: Kind = Kind::Obsolete { answer: key::NO };
const NO_INTERVAL: Kind = Kind::Obsolete { answer: key::REJECT };

const fn min(min: u32, max: u32, default: u32) -> Kind {
    Min { min, max, default }
}

const fn max(min: u32, max: u32, default: u32) -> Kind {
    Max { min, max, default }
}

use Kind::{And, Declared, Max, Min, Or, Security, Text};
use phase::{ANY, FULL_FEATURE as FULL, LOGIN, OPERATIONAL as OPER, SECURITY as SECU};

/// Clause 13 as a table.
#[rustfmt::skip]
pub static TABLE: [Row; 34] = [
    row(Key::HeaderDigest, key::HEADER_DIGEST, DIGEST, OPER, BOTH),
    row(Key::DataDigest, key::DATA_DIGEST, DIGEST, OPER, BOTH),
    row(Key::MaxConnections, key::MAX_CONNECTIONS, min(1, 65535, 1), OPER, NORM),
    row(Key::InitialR2T, key::INITIAL_R2T, Or { default: YES }, OPER, NORM),
    row(Key::ImmediateData, key::IMMEDIATE_DATA, And { default: YES }, OPER, NORM),
    row(Key::MaxRecvDataSegmentLength, key::MAX_RECV_DATA_SEGMENT_LENGTH, SEGMENT, LATE, BOTH),
    row(Key::MaxBurstLength, key::MAX_BURST_LENGTH, min(512, SEGMENT_MAX, 262_144), OPER, NORM),
    row(Key::FirstBurstLength, key::FIRST_BURST_LENGTH, min(512, SEGMENT_MAX, 65_536), OPER, NORM),
    row(Key::DefaultTime2Wait, key::DEFAULT_TIME2WAIT, max(0, 3600, 2), OPER, BOTH),
    row(Key::DefaultTime2Retain, key::DEFAULT_TIME2RETAIN, min(0, 3600, 20), OPER, BOTH),
    row(Key::MaxOutstandingR2T, key::MAX_OUTSTANDING_R2T, min(1, 65535, 1), OPER, NORM),
    row(Key::DataPduInOrder, key::DATA_PDU_IN_ORDER, Or { default: YES }, OPER, NORM),
    row(Key::DataSequenceInOrder, key::DATA_SEQUENCE_IN_ORDER, Or { default: YES }, OPER, NORM),
    row(Key::ErrorRecoveryLevel, key::ERROR_RECOVERY_LEVEL, min(0, 2, 0), OPER, BOTH),
    row(Key::TaskReporting, key::TASK_REPORTING, REPORTING, OPER, NORM),
    row(Key::IscsiProtocolLevel, key::ISCSI_PROTOCOL_LEVEL, min(0, 31, 1), OPER, NORM),
    row(Key::IfMarker, key::IF_MARKER, NO_MARKERS, OPER, BOTH),
    row(Key::OfMarker, key::OF_MARKER, NO_MARKERS, OPER, BOTH),
    row(Key::IfMarkInt, key::IF_MARK_INT, NO_INTERVAL, OPER, BOTH),
    row(Key::OfMarkInt, key::OF_MARK_INT, NO_INTERVAL, OPER, BOTH),
    row(Key::SendTargets, key::SEND_TARGETS, Text, FULL, BOTH),
    row(Key::TargetName, key::TARGET_NAME, Text, ANY, BOTH),
    row(Key::InitiatorName, key::INITIATOR_NAME, Text, LOGIN, BOTH),
    row(Key::TargetAlias, key::TARGET_ALIAS, Text, ANY, BOTH),
    row(Key::InitiatorAlias, key::INITIATOR_ALIAS, Text, ANY, BOTH),
    row(Key::TargetAddress, key::TARGET_ADDRESS, Text, ANY, BOTH),
    row(Key::TargetPortalGroupTag, key::TARGET_PORTAL_GROUP_TAG, Text, LOGIN, BOTH),
    row(Key::SessionType, key::SESSION_TYPE, Text, LOGIN, BOTH),
    row(Key::AuthMethod, key::AUTH_METHOD, Security, SECU, BOTH),
    row(Key::ChapA, key::CHAP_A, Security, SECU, BOTH),
    row(Key::ChapI, key::CHAP_I, Security, SECU, BOTH),
    row(Key::ChapC, key::CHAP_C, Security, SECU, BOTH),
    row(Key::ChapN, key::CHAP_N, Security, SECU, BOTH),
    row(Key::ChapR, key::CHAP_R, Security, SECU, BOTH),
];

/// The row of a key by its name.
pub fn find(name: &str) -> Option<&'static Row> {
    TABLE.iter().find(|row| row.name == name)
}

/// One side's state of a negotiation. Values are numbers: 0 and 1 for No and Yes, the index of the
/// word for lists; wishes for lists are sets of words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Negotiation {
    values: [u32; KEY_COUNT],
    wishes: [u32; KEY_COUNT],
    heard: u64,
    offered: u64,
}

const _: () = assert!(KEY_COUNT <= 64);

impl Negotiation {
    /// Everything at its default; `wishes` says what this side wants.
    pub fn new(wishes: [u32; KEY_COUNT]) -> Self {
        let values = TABLE.map(|row| row.kind.default_value());
        Self { values, wishes, heard: 0, offered: 0 }
    }

    pub fn value(&self, key: Key) -> u32 {
        self.values[key as usize]
    }

    /// Notes that the other side has sent this key; twice is an error (6.2).
    pub fn hear(&mut self, row: &Row) -> Result<(), Violation> {
        let bit = 1 << row.key as u8;
        if self.heard & bit != 0 {
            return Err(Violation::KeyTwice { key: row.name });
        }
        self.heard |= bit;
        Ok(())
    }

    /// Offers this side's wish.
    pub fn offer(&mut self, key: Key, text: &mut Vec<u8>) {
        let row = &TABLE[key as usize];
        let wish = self.wishes[key as usize];
        if !matches!(row.kind, Declared { .. }) {
            self.offered |= 1 << key as u8;
        }
        text::push(text, row.name, &row.kind.write_wish(wish));
    }

    /// The other side's value of a negotiated key: an answer to our offer, or an offer of its own,
    /// whose answer is appended to `text`.
    pub fn handle(&mut self, row: &Row, value: &str, text: &mut Vec<u8>) -> Result<(), Violation> {
        let bit = 1 << row.key as u8;
        if self.offered & bit != 0 {
            self.offered &= !bit;
            return self.accept(row, value);
        }
        if let Some(answer) = self.answer(row, value)? {
            text::push(text, row.name, &answer);
        }
        Ok(())
    }

    /// The first key that we offered and that was not answered.
    pub fn unanswered(&self) -> Option<&'static Row> {
        TABLE.iter().find(|row| self.offered & 1 << row.key as u8 != 0)
    }

    fn answer(&mut self, row: &Row, value: &str) -> Result<Option<String>, Violation> {
        if let Kind::Obsolete { answer } = row.kind {
            return Ok(Some(answer.into()));
        }
        let index = row.key as usize;
        let result = row.kind.result(self.wishes[index], value);
        match (row.kind, result) {
            (Declared { .. }, Some(result)) => self.values[index] = result,
            (Declared { .. }, None) => return Err(Violation::KeyValue { key: row.name }),
            (_, Some(result)) => {
                self.values[index] = result;
                return Ok(Some(row.kind.write(result)));
            }
            (_, None) => return Ok(Some(key::REJECT.into())),
        }
        Ok(None)
    }

    fn accept(&mut self, row: &Row, value: &str) -> Result<(), Violation> {
        let index = row.key as usize;
        if [key::NOT_UNDERSTOOD, key::IRRELEVANT].contains(&value) {
            return Ok(());
        }
        if value == key::REJECT {
            return Err(Violation::KeyRefused { key: row.name });
        }
        let wish = self.wishes[index];
        let result = row.kind.result(wish, value);
        // The answer is the result: combined with our wish once more it stays what it is.
        let is_result = |result: &u32| row.kind.read(value) == Some(*result);
        self.values[index] =
            result.filter(is_result).ok_or(Violation::KeyValue { key: row.name })?;
        Ok(())
    }
}

impl Kind {
    fn default_value(self) -> u32 {
        match self {
            And { default } | Or { default } => u32::from(default),
            Min { default, .. } | Max { default, .. } | Declared { default, .. } => default,
            Self::List { default, .. } => default,
            Self::Obsolete { .. } | Text | Security => 0,
        }
    }

    /// One value as a number.
    fn read(self, value: &str) -> Option<u32> {
        match self {
            And { .. } | Or { .. } => match value {
                key::YES => Some(1),
                key::NO => Some(0),
                _ => None,
            },
            Min { min, max, .. } | Max { min, max, .. } | Declared { min, max, .. } => {
                text::number(value).filter(|number| (min..=max).contains(number))
            }
            Self::List { words, .. } => index_of(words, value),
            Self::Obsolete { .. } | Text | Security => None,
        }
    }

    /// What comes of this side's wish and the other side's value.
    fn result(self, wish: u32, value: &str) -> Option<u32> {
        if let Self::List { words, .. } = self {
            let is_wished = |index: &u32| wish & 1 << index != 0;
            return value.split(',').filter_map(|word| index_of(words, word)).find(is_wished);
        }
        let other = self.read(value)?;
        Some(match self {
            And { .. } => wish & other,
            Or { .. } => wish | other,
            Min { .. } => wish.min(other),
            Max { .. } => wish.max(other),
            _ => other,
        })
    }

    fn write(self, value: u32) -> String {
        match self {
            And { .. } | Or { .. } => if value == 0 { key::NO } else { key::YES }.into(),
            Self::List { words, .. } => words[value as usize].into(),
            _ => value.to_string(),
        }
    }

    fn write_wish(self, wish: u32) -> String {
        let Self::List { words, .. } = self else { return self.write(wish) };
        let wished = words.iter().enumerate().filter(|(index, _)| wish & 1 << index != 0);
        wished.map(|(_, word)| *word).collect::<Vec<_>>().join(",")
    }
}

fn index_of(words: &[&str], word: &str) -> Option<u32> {
    let index = words.iter().position(|it| *it == word)?;
    u32::try_from(index).ok()
}

#[cfg(test)]
mod tests;
