//! Anything that can be said in a login, to a target that wants proof, and to one that does not.

use super::{INITIATOR, Script, TARGET, login_request, with_text};
use crate::iscsi::keys::TABLE;
use crate::iscsi::{
    ALGORITHMS, Account, Accounts, Admission, Authentication, Chap, Config, Event, Head,
    LOGIN_SEGMENT_BYTES, Refusal, Secret, Segment, Target, TargetRecord, Wishes, text,
};
use std::rc::Rc;
use wire::iscsi::{BHS_BYTES, LoginRequest, key};

const VALUES: [&str; 24] = [
    "Yes",
    "No",
    "None",
    "CRC32C,None",
    "CRC32C",
    "1",
    "0",
    "512",
    "8192",
    "65536",
    "16777216",
    "CHAP",
    "CHAP,None",
    "5",
    "5,6,7,8",
    "0x",
    "0x00",
    "0bAAAA",
    "Discovery",
    "Normal",
    INITIATOR,
    TARGET,
    "host",
    "RFC3720,ResponseFence",
];

struct Guarded(bool);

impl Accounts for Guarded {
    fn authentication(&self, _: &str, _: Option<&str>) -> Result<Authentication, Refusal> {
        if !self.0 {
            return Ok(Authentication::None);
        }
        let account = Account { name: "host".into(), secret: Secret::new(b"never guessed") };
        Ok(Authentication::Chap(Chap {
            initiator: account.clone(),
            target: Some(account),
            algorithms: &ALGORITHMS,
        }))
    }

    fn targets(&self, _: &str) -> Vec<TargetRecord> {
        Vec::new()
    }
}

/// Runs a script; whether it has logged in.
pub fn login(script: &[u8]) -> bool {
    let mut script = Script(script);
    let wants_proof = script.one_in(3);
    let config = Config { wishes: Wishes::default(), portal_group_tag: 1, alias: None, window: 4 };
    let mut target = Target::new(config, Rc::new(Guarded(wants_proof)), [3; 33]);
    let mut is_first = true;
    while let Some(step) = script.next() {
        let bytes = request(step, is_first, &mut script);
        is_first = false;
        let mut at = 0;
        loop {
            let end = if script.one_in(4) { bytes.len().min(at + 30) } else { bytes.len() };
            let progress = target.handle_input(&bytes[at..end]);
            at += progress.consumed;
            match progress.event {
                Event::Admit if script.one_in(8) => {
                    let refusal = Refusal::Moved { address: "a".into(), permanently: true };
                    target.admit(&Admission::Refused(refusal));
                }
                Event::Admit => target.admit(&Admission::Granted { tsih: 1 }),
                Event::LoggedIn => {
                    assert!(!wants_proof, "nobody knows the secret");
                    return true;
                }
                Event::Ended => break,
                _ if end == bytes.len() => break,
                _ => {}
            }
        }
        let mut head = Head::new();
        while let Some(segment) = target.next_pdu(&mut head) {
            let Segment::Bytes(text) = segment else { panic!("a login has no data") };
            assert!(text.len() <= LOGIN_SEGMENT_BYTES as usize);
            assert_eq!(head.as_bytes().len(), BHS_BYTES);
        }
    }
    false
}

fn request(step: u8, is_first: bool, script: &mut Script<'_>) -> Vec<u8> {
    let mut text = Vec::new();
    if is_first && !script.one_in(16) {
        text::push(&mut text, key::INITIATOR_NAME, INITIATOR);
        text::push(&mut text, key::TARGET_NAME, TARGET);
    }
    for _ in 0..script.below(6) {
        let name = TABLE[script.below(TABLE.len())].name;
        let name = if script.one_in(8) { "X-unknown" } else { name };
        text::push(&mut text, name, VALUES[script.below(VALUES.len())]);
    }
    if script.one_in(16) {
        text.extend_from_slice(script.take(20));
    }
    if script.one_in(16) {
        text.resize(text.len() + 8 * script.below(256), 0);
    }
    // T, C, CSG and NSG as the step says, or as they make sense.
    let flags = match script.below(8) {
        0 => step,
        1 => 0x40,
        2..5 => 0x87,
        5 => 0x81,
        6 => 0x00,
        _ => 0x04,
    };
    let request = LoginRequest { version_min: u8::from(script.one_in(64)), ..login_request(flags) };
    let mut bytes = with_text(&request, &text);
    if script.one_in(24) {
        let at = script.below(BHS_BYTES);
        bytes[at] ^= 1 << script.below(8);
    }
    bytes
}
