//! The login phase of an initiator: names and security first, then the operational keys.
//!
//! ```text
//!   Names ──▶ [ChapA ──▶ ChapProof] ──▶ Operational ──▶ logged in
//! ```
//!
//! With CHAP configured nothing else is offered, so a target cannot talk us out of it.

use super::{Config, Event, Initiator};
use crate::iscsi::accounts::SessionKind;
use crate::iscsi::chap::{Account, Algorithm, Nonce, is_equal};
use crate::iscsi::error::{Ended, Violation};
use crate::iscsi::keys::{self, Key, Kind, Negotiation};
use crate::iscsi::parameters::{LOGIN_SEGMENT_BYTES, Parameters};
use crate::iscsi::text::{self, TEXT_BYTES_MAX};
use wire::iscsi::{
    Header, LoginRequest, LoginResponse, LoginStage, LoginStatus, Pdu, VERSION, flag, key,
};

/// Most responses of one login.
pub const LOGIN_RESPONSES_MAX: u32 = 32;

/// How we prove ourselves, and what the target must prove.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chap {
    pub initiator: Account,
    /// Mutual CHAP: what the target must know.
    pub target: Option<Account>,
    /// What is offered, the best first: [`ALGORITHMS`](crate::iscsi::ALGORITHMS).
    pub algorithms: &'static [Algorithm],
}

pub(super) struct Login {
    chap: Option<Chap>,
    nonce: Nonce,
    step: Step,
    negotiation: Negotiation,
    responses: u32,
    text: Vec<u8>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Step {
    Names,
    ChapA,
    ChapProof(Algorithm),
    Proven,
    Operational,
}

/// Keys that are offered in every session, and those of normal sessions only.
const OFFERED: [Key; 6] = [
    Key::HeaderDigest,
    Key::DataDigest,
    Key::MaxRecvDataSegmentLength,
    Key::DefaultTime2Wait,
    Key::DefaultTime2Retain,
    Key::ErrorRecoveryLevel,
];
const OFFERED_NORMAL: [Key; 10] = [
    Key::MaxConnections,
    Key::InitialR2T,
    Key::ImmediateData,
    Key::MaxBurstLength,
    Key::FirstBurstLength,
    Key::MaxOutstandingR2T,
    Key::DataPduInOrder,
    Key::DataSequenceInOrder,
    Key::TaskReporting,
    Key::IscsiProtocolLevel,
];

type Pairs<'a> = [(&'a str, &'a str)];

impl Login {
    pub fn new(config: &Config, nonce: Nonce) -> Self {
        Self {
            chap: config.chap.clone(),
            nonce,
            step: Step::Names,
            negotiation: config.wishes.negotiation(),
            responses: 0,
            text: Vec::new(),
        }
    }

    fn stage(&self) -> LoginStage {
        match self.step {
            Step::Operational => LoginStage::LOGIN_OPERATIONAL_NEGOTIATION,
            _ => LoginStage::SECURITY_NEGOTIATION,
        }
    }

    /// The stage that we are ready for.
    fn next(&self) -> Option<LoginStage> {
        match self.step {
            Step::Names if self.chap.is_some() => None,
            Step::ChapA => None,
            Step::Names | Step::ChapProof(_) | Step::Proven => {
                Some(LoginStage::LOGIN_OPERATIONAL_NEGOTIATION)
            }
            Step::Operational => Some(LoginStage::FULL_FEATURE_PHASE),
        }
    }

    /// What a response of the security stage leads to: the text of the next request, if it is one
    /// of this stage.
    fn handle_security(&mut self, pairs: &Pairs<'_>) -> Result<Vec<u8>, Violation> {
        let value = |key: &str| pairs.iter().find(|(it, _)| *it == key).map(|(_, value)| *value);
        let mut text = Vec::new();
        match self.step {
            Step::Names => {
                let wanted = if self.chap.is_some() { key::CHAP } else { key::NONE };
                if value(key::AUTH_METHOD).is_some_and(|method| method != wanted) {
                    return Err(Violation::AuthenticationMissing);
                }
                if let Some(chap) = &self.chap {
                    // A target that does not care about it leaves the key unanswered.
                    value(key::AUTH_METHOD).ok_or(Violation::AuthenticationMissing)?;
                    let numbers = chap.algorithms.iter().map(|it| (*it as u8).to_string());
                    let list = numbers.collect::<Vec<_>>().join(",");
                    text::push(&mut text, key::CHAP_A, &list);
                    self.step = Step::ChapA;
                }
            }
            Step::ChapA => {
                let chap = self.chap.as_ref().expect("the step is part of CHAP");
                let chosen = value(key::CHAP_A).ok_or(Violation::ChapStep)?;
                let algorithm =
                    Algorithm::choose(chosen, chap.algorithms).ok_or(Violation::ChapAlgorithm)?;
                let id = value(key::CHAP_I).and_then(text::number);
                let id = id.and_then(|id| u8::try_from(id).ok()).ok_or(Violation::ChapStep)?;
                let challenge = value(key::CHAP_C).and_then(text::binary);
                let challenge = challenge.ok_or(Violation::ChapStep)?;
                let account = &chap.initiator;
                let response = algorithm.response(id, &account.secret, &challenge);
                text::push(&mut text, key::CHAP_N, &account.name);
                text::push(&mut text, key::CHAP_R, &text::hex(&response));
                let (ours, our_challenge) = self.nonce.split_first().expect("it has a fixed size");
                if chap.target.is_some() {
                    // 12.1.3: a reflected challenge would have our own response for its answer.
                    if is_equal(&challenge, our_challenge) {
                        return Err(Violation::ChapReflected);
                    }
                    text::push(&mut text, key::CHAP_I, &ours.to_string());
                    text::push(&mut text, key::CHAP_C, &text::hex(our_challenge));
                }
                self.step = Step::ChapProof(algorithm);
            }
            Step::ChapProof(algorithm) => {
                self.check_target(algorithm, &value)?;
                self.step = Step::Proven;
            }
            Step::Proven | Step::Operational => {}
        }
        Ok(text)
    }

    /// Mutual CHAP: the target's proof.
    fn check_target<'a>(
        &self,
        algorithm: Algorithm,
        value: &impl Fn(&str) -> Option<&'a str>,
    ) -> Result<(), Violation> {
        let Some(account) = self.chap.as_ref().and_then(|chap| chap.target.as_ref()) else {
            return Ok(());
        };
        let (Some(name), Some(response)) = (value(key::CHAP_N), value(key::CHAP_R)) else {
            return Err(Violation::AuthenticationMissing);
        };
        let response = text::binary(response).ok_or(Violation::ChapWrong)?;
        let (id, challenge) = self.nonce.split_first().expect("it has a fixed size");
        let is_right = algorithm.verify(*id, &account.secret, challenge, &response);
        let is_known = is_equal(account.name.as_bytes(), name.as_bytes());
        if !(is_right & is_known) {
            return Err(Violation::ChapWrong);
        }
        Ok(())
    }

    fn offers(&mut self, kind: &SessionKind) -> Vec<u8> {
        let mut text = Vec::new();
        for key in OFFERED {
            self.negotiation.offer(key, &mut text);
        }
        if *kind != SessionKind::Discovery {
            for key in OFFERED_NORMAL {
                self.negotiation.offer(key, &mut text);
            }
        }
        text
    }

    /// Answers to what we offered, and offers of the target's own.
    fn handle_operational(&mut self, pairs: &Pairs<'_>) -> Result<Vec<u8>, Violation> {
        let mut answer = Vec::new();
        for (name, value) in pairs {
            let Some(row) = keys::find(name) else {
                text::push(&mut answer, name, key::NOT_UNDERSTOOD);
                continue;
            };
            if !matches!(row.kind, Kind::Text | Kind::Security) {
                self.negotiation.hear(row)?;
                self.negotiation.handle(row, value, &mut answer)?;
            }
        }
        Ok(answer)
    }
}

impl Initiator {
    pub(super) fn begin_login(&mut self, login: Login) {
        let mut text = Vec::new();
        text::push(&mut text, key::INITIATOR_NAME, &self.config.name);
        match &self.config.kind {
            SessionKind::Discovery => text::push(&mut text, key::SESSION_TYPE, key::DISCOVERY),
            SessionKind::Normal { target } => {
                text::push(&mut text, key::SESSION_TYPE, key::NORMAL);
                text::push(&mut text, key::TARGET_NAME, target);
            }
        }
        let method = if login.chap.is_some() { key::CHAP } else { key::NONE };
        text::push(&mut text, key::AUTH_METHOD, method);
        self.push_login(&login, text);
        self.login = Some(Box::new(login));
    }

    pub(super) fn handle_login(
        &mut self,
        mut login: Box<Login>,
        header: &Header,
        data: &[u8],
    ) -> Result<Option<Event>, Violation> {
        let pdu: &LoginResponse = header.view();
        let is_first = login.responses == 0;
        login.responses += 1;
        if login.responses > LOGIN_RESPONSES_MAX {
            return Err(Violation::LoginLength { max: LOGIN_RESPONSES_MAX });
        }
        if is_first {
            self.exp_stat_sn = pdu.stat_sn.get();
        }
        self.take_status(pdu.stat_sn.get())?;
        let status = LoginStatus(pdu.status.get());
        if status != LoginStatus::SUCCESS {
            self.refused(status, data);
            return Ok(Some(Event::Ended));
        }
        if pdu.version_active != VERSION {
            let version = pdu.version_active;
            return Err(Violation::Version { min: version, max: version });
        }
        if login.text.len() + data.len() > TEXT_BYTES_MAX {
            return Err(Violation::TextLength { max: TEXT_BYTES_MAX });
        }
        login.text.extend_from_slice(data);
        if pdu.flags & flag::CONTINUE != 0 {
            self.push_login(&login, Vec::new());
            self.login = Some(login);
            return Ok(None);
        }
        self.go_on(login, pdu)
    }

    fn go_on(
        &mut self,
        mut login: Box<Login>,
        pdu: &LoginResponse,
    ) -> Result<Option<Event>, Violation> {
        let whole = std::mem::take(&mut login.text);
        let pairs = text::parse(&whole)?;
        let stage = LoginStage(pdu.flags >> flag::CSG_SHIFT & flag::STAGE_MASK);
        if stage != login.stage() {
            return Err(Violation::LoginStage);
        }
        let next = LoginStage(pdu.flags & flag::STAGE_MASK);
        let transits = pdu.flags & flag::TRANSIT != 0;
        if transits && login.next() != Some(next) {
            return Err(Violation::LoginStage);
        }
        let mut text = match stage {
            LoginStage::SECURITY_NEGOTIATION => login.handle_security(&pairs)?,
            _ => login.handle_operational(&pairs)?,
        };
        if transits && next == LoginStage::FULL_FEATURE_PHASE {
            return self.begin_session(&login, pdu);
        }
        if transits {
            login.step = Step::Operational;
            text = login.offers(&self.config.kind);
        }
        self.push_login(&login, text);
        self.login = Some(login);
        Ok(None)
    }

    fn begin_session(
        &mut self,
        login: &Login,
        pdu: &LoginResponse,
    ) -> Result<Option<Event>, Violation> {
        if let Some(row) = login.negotiation.unanswered() {
            return Err(Violation::KeyMissing { key: row.name });
        }
        let wishes = &self.config.wishes;
        let parameters = Parameters::agreed(&login.negotiation, wishes, true);
        for (has, policy, key) in [
            (parameters.header_digest, wishes.header_digest, key::HEADER_DIGEST),
            (parameters.data_digest, wishes.data_digest, key::DATA_DIGEST),
        ] {
            if !policy.allows(has) {
                return Err(Violation::KeyRefused { key });
            }
        }
        self.parameters = parameters;
        self.receiver.header_digest = parameters.header_digest;
        self.receiver.data_digest = parameters.data_digest;
        self.receiver.data_bytes_max = parameters.max_recv_data_segment_length;
        self.tsih = pdu.tsih.get();
        self.cmd_sn = pdu.exp_cmd_sn.get();
        self.max_cmd_sn = pdu.max_cmd_sn.get();
        self.is_new = true;
        Ok(None)
    }

    fn refused(&mut self, status: LoginStatus, data: &[u8]) {
        let pairs = text::parse(data).unwrap_or_default();
        let address = pairs.iter().find(|(name, _)| *name == key::TARGET_ADDRESS);
        let moved = [LoginStatus::TARGET_MOVED_TEMPORARILY, LoginStatus::TARGET_MOVED_PERMANENTLY];
        self.end(match address {
            Some((_, address)) if moved.contains(&status) => {
                Ended::Moved { status, address: (*address).to_owned() }
            }
            _ => Ended::Refused { status, cause: Violation::Owner(status) },
        });
    }

    fn push_login(&mut self, login: &Login, text: Vec<u8>) {
        assert!(text.len() <= LOGIN_SEGMENT_BYTES as usize, "a request of {} bytes", text.len());
        let next = login.next().map_or(0, |next| flag::TRANSIT | next.0);
        let request = LoginRequest {
            opcode: LoginRequest::OPCODE.0 | flag::IMMEDIATE,
            flags: login.stage().0 << flag::CSG_SHIFT | next,
            version_max: VERSION,
            version_min: VERSION,
            isid: self.config.isid,
            ..LoginRequest::default()
        };
        self.push_control(&request, text);
    }
}
