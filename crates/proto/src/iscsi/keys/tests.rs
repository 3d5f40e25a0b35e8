//! The table row by row, and what comes of every kind of offer.

use super::*;
use crate::iscsi::{DigestPolicy, Wishes};
use std::collections::HashSet;

#[test]
fn the_table_is_in_the_order_of_the_keys_and_names_each_once() {
    for (index, row) in TABLE.iter().enumerate() {
        assert_eq!(row.key as usize, index, "{}", row.name);
        assert_eq!(find(row.name), Some(row));
    }
    assert_eq!(TABLE.iter().map(|row| row.name).collect::<HashSet<_>>().len(), KEY_COUNT);
    assert_eq!(find("headerdigest"), None);
}

fn answer_of(wishes: &Wishes, name: &str, value: &str) -> Result<String, Violation> {
    let mut text = Vec::new();
    let row = find(name).unwrap();
    wishes.negotiation().handle(row, value, &mut text)?;
    let prefix = format!("{name}=");
    let text = String::from_utf8(text).unwrap();
    Ok(text.trim_end_matches('\0').strip_prefix(&prefix).unwrap_or("").to_owned())
}

/// RFC 7143, 13: result functions, ranges, and what is answered to what is out of range.
#[test]
fn a_target_answers_by_the_table() {
    for (name, offer, answer) in [
        ("HeaderDigest", "CRC32C,None", "CRC32C"),
        ("HeaderDigest", "None,CRC32C", "None"),
        ("DataDigest", "MD5,CRC32C", "CRC32C"),
        ("DataDigest", "MD5", "Reject"),
        ("MaxConnections", "8", "1"),
        ("MaxConnections", "0", "Reject"),
        ("InitialR2T", "Yes", "Yes"),
        ("InitialR2T", "No", "No"),
        ("InitialR2T", "maybe", "Reject"),
        ("ImmediateData", "Yes", "Yes"),
        ("ImmediateData", "No", "No"),
        ("MaxRecvDataSegmentLength", "512", ""),
        ("MaxBurstLength", "16776192", "1048576"),
        ("MaxBurstLength", "512", "512"),
        ("MaxBurstLength", "511", "Reject"),
        ("MaxBurstLength", "16777216", "Reject"),
        ("MaxBurstLength", "0x1000", "4096"),
        ("FirstBurstLength", "262144", "262144"),
        ("DefaultTime2Wait", "0", "2"),
        ("DefaultTime2Wait", "5", "5"),
        ("DefaultTime2Wait", "3601", "Reject"),
        ("DefaultTime2Retain", "20", "0"),
        ("MaxOutstandingR2T", "1", "1"),
        ("MaxOutstandingR2T", "16", "8"),
        ("DataPDUInOrder", "No", "Yes"),
        ("DataSequenceInOrder", "No", "Yes"),
        ("ErrorRecoveryLevel", "2", "0"),
        ("TaskReporting", "FastAbort", "Reject"),
        ("TaskReporting", "FastAbort,ResponseFence,RFC3720", "ResponseFence"),
        ("TaskReporting", "RFC3720,ResponseFence", "RFC3720"),
        ("iSCSIProtocolLevel", "2", "2"),
        ("iSCSIProtocolLevel", "1", "1"),
        ("iSCSIProtocolLevel", "31", "2"),
        ("IFMarker", "Yes", "No"),
        ("OFMarker", "No", "No"),
        ("IFMarkInt", "2048~8192", "Reject"),
        ("OFMarkInt", "1", "Reject"),
    ] {
        let got = answer_of(&Wishes::default(), name, offer);
        assert_eq!(got.as_deref(), Ok(answer), "{name}={offer}");
    }
    for value in ["511", "16777216", "", "many"] {
        let key = "MaxRecvDataSegmentLength";
        assert_eq!(answer_of(&Wishes::default(), key, value), Err(Violation::KeyValue { key }));
    }
}

#[test]
fn digests_follow_the_policy() {
    for (policy, offer, answer) in [
        (DigestPolicy::Never, "CRC32C,None", "None"),
        (DigestPolicy::Never, "CRC32C", "Reject"),
        (DigestPolicy::Required, "None,CRC32C", "CRC32C"),
        (DigestPolicy::Required, "None", "Reject"),
    ] {
        let wishes = Wishes { header_digest: policy, ..Wishes::default() };
        assert_eq!(answer_of(&wishes, "HeaderDigest", offer).as_deref(), Ok(answer));
    }
}

#[test]
fn an_initiator_takes_only_answers_that_follow_from_its_offer() {
    let wishes = Wishes { initial_r2t: true, immediate_data: false, ..Wishes::default() };
    for (name, offer, answer, value) in [
        ("InitialR2T", "Yes", "Yes", Some(1)),
        ("InitialR2T", "Yes", "No", None),
        ("ImmediateData", "No", "No", Some(0)),
        ("ImmediateData", "No", "Yes", None),
        ("MaxBurstLength", "1048576", "262144", Some(262_144)),
        ("MaxBurstLength", "1048576", "1048577", None),
        ("DefaultTime2Wait", "2", "3", Some(3)),
        ("DefaultTime2Wait", "2", "1", None),
        ("DataDigest", "CRC32C,None", "None", Some(1)),
        ("DataDigest", "CRC32C,None", "CRC32C,None", None),
        ("TaskReporting", "ResponseFence,RFC3720", "NotUnderstood", Some(2)),
        ("iSCSIProtocolLevel", "2", "Irrelevant", Some(1)),
        ("ErrorRecoveryLevel", "0", "Reject", None),
    ] {
        let row = find(name).unwrap();
        let mut side = wishes.negotiation();
        let mut text = Vec::new();
        side.offer(row.key, &mut text);
        assert_eq!(text, format!("{name}={offer}\0").as_bytes());
        assert_eq!(side.unanswered(), Some(row));
        let mut none = Vec::new();
        let accepted = side.handle(row, answer, &mut none);
        assert_eq!(accepted.is_ok(), value.is_some(), "{name}={answer}");
        assert!(none.is_empty());
        assert_eq!(side.unanswered(), None);
        if let Some(value) = value {
            assert_eq!(side.value(row.key), value, "{name}={answer}");
        }
    }
}

#[test]
fn a_key_is_heard_once_in_an_exchange() {
    let mut side = Wishes::default().negotiation();
    let row = find("MaxBurstLength").unwrap();
    assert_eq!(side.hear(row), Ok(()));
    assert_eq!(side.hear(row), Err(Violation::KeyTwice { key: "MaxBurstLength" }));
}
