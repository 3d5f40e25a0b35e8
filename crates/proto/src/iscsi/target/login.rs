//! The login phase of a target (RFC 7143, 6.3, 11.12, 11.13, 12.1.3).
//!
//! ```text
//!   first request ──▶ who? ──▶ [security: AuthMethod, CHAP] ──▶ [operational] ──▶ Admit ──▶ last
//!                       ╰── NOT_FOUND, AUTHORIZATION_FAILURE…        response: full feature phase
//! ```
//!
//! An initiator that must prove itself cannot go past the security stage without it, and is not
//! told more than its own target's name. An answer longer than a login segment is given in parts.

mod security;

use super::output::StatSn;
use super::{Config, Event, Phase, Session, Target};
use crate::iscsi::accounts::{Admission, Admit, Refusal, SessionKind};
use crate::iscsi::chap::Nonce;
use crate::iscsi::error::{Ended, Violation};
use crate::iscsi::keys::{self, Key, Kind, Negotiation, phase};
use crate::iscsi::name;
use crate::iscsi::parameters::{LOGIN_SEGMENT_BYTES, Parameters, Wishes};
use crate::iscsi::receive::Fate;
use crate::iscsi::text::{self, TEXT_BYTES_MAX};
use security::Security;
use wire::iscsi::{
    Header, LoginRequest, LoginResponse, LoginStage, LoginStatus, Opcode, VERSION, flag, key,
};

/// Most login requests of one login.
pub const LOGIN_REQUESTS_MAX: u32 = 32;

pub(super) struct Login {
    wishes: Wishes,
    portal_group_tag: u16,
    alias: Option<String>,
    first: Option<LoginRequest>,
    stage: LoginStage,
    requests: u32,
    text: Vec<u8>,
    answer: Vec<u8>,
    names: Names,
    /// In normal form.
    initiator: Option<String>,
    kind: Option<SessionKind>,
    security: Security,
    negotiation: Negotiation,
    /// Our MaxRecvDataSegmentLength was told.
    is_declared: bool,
}

/// What the initiator has told about itself and what it wants, as it told it.
#[derive(Default)]
struct Names {
    initiator: Option<String>,
    target: Option<String>,
    session_type: Option<String>,
}

/// Why a login is refused.
struct Refused {
    status: LoginStatus,
    cause: Violation,
    /// TargetAddress of a target that has moved.
    address: Option<String>,
}

impl From<Violation> for Refused {
    fn from(cause: Violation) -> Self {
        let status = match cause {
            Violation::Version { .. } => LoginStatus::UNSUPPORTED_VERSION,
            Violation::KeyMissing { .. } => LoginStatus::MISSING_PARAMETER,
            Violation::AuthenticationMissing
            | Violation::ChapWrong
            | Violation::ChapReflected
            | Violation::ChapStep
            | Violation::ChapAlgorithm => LoginStatus::AUTHENTICATION_FAILURE,
            _ => LoginStatus::INITIATOR_ERROR,
        };
        Self { status, cause, address: None }
    }
}

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Self {
        let (status, address) = match refusal {
            Refusal::Status(status) => (status, None),
            Refusal::Moved { address, permanently: true } => {
                (LoginStatus::TARGET_MOVED_PERMANENTLY, Some(address))
            }
            Refusal::Moved { address, permanently: false } => {
                (LoginStatus::TARGET_MOVED_TEMPORARILY, Some(address))
            }
        };
        Self { status, cause: Violation::Owner(status), address }
    }
}

/// What a request leads to.
enum Outcome {
    /// An answer with these flags and this text.
    Answer { flags: u8, text: Vec<u8> },
    /// The owner is to be asked.
    Ask,
}

impl Login {
    pub fn new(config: &Config, nonce: Nonce) -> Self {
        Self {
            wishes: config.wishes,
            portal_group_tag: config.portal_group_tag,
            alias: config.alias.clone(),
            first: None,
            stage: LoginStage::SECURITY_NEGOTIATION,
            requests: 0,
            text: Vec::new(),
            answer: Vec::new(),
            names: Names::default(),
            initiator: None,
            kind: None,
            security: Security::new(nonce),
            negotiation: config.wishes.negotiation(),
            is_declared: false,
        }
    }

    pub fn initiator(&self) -> Option<&str> {
        self.initiator.as_deref()
    }

    /// The target that it asked for, if it did.
    pub fn target(&self) -> Option<&str> {
        match &self.kind {
            Some(SessionKind::Normal { target }) => Some(target),
            Some(SessionKind::Discovery) | None => None,
        }
    }

    pub fn question(&self) -> Admit {
        let first = self.first.as_ref().expect("a question follows a request");
        Admit {
            initiator: self.initiator.clone().unwrap_or_default(),
            isid: first.isid,
            tsih: first.tsih.get(),
            kind: self.kind.clone().unwrap_or(SessionKind::Discovery),
        }
    }

    fn handle(
        &mut self,
        request: &LoginRequest,
        data: &[u8],
        accounts: &dyn super::Accounts,
    ) -> Result<Outcome, Refused> {
        self.check(request)?;
        if self.text.len() + data.len() > TEXT_BYTES_MAX {
            return Err(Violation::TextLength { max: TEXT_BYTES_MAX }.into());
        }
        self.text.extend_from_slice(data);
        let stage_flags = self.stage.0 << flag::CSG_SHIFT;
        if request.flags & flag::CONTINUE != 0 {
            return Ok(Outcome::Answer { flags: stage_flags, text: Vec::new() });
        }
        let text = std::mem::take(&mut self.text);
        let pairs = text::parse(&text)?;
        self.hear_names(&pairs)?;
        if self.kind.is_none() {
            self.identify(accounts)?;
        }
        self.hear_keys(&pairs)?;
        let wants_next = request.flags & flag::TRANSIT != 0;
        self.security.check(self.stage, wants_next)?;
        if self.stage == LoginStage::LOGIN_OPERATIONAL_NEGOTIATION && !self.is_declared {
            self.is_declared = true;
            self.negotiation.offer(Key::MaxRecvDataSegmentLength, &mut self.answer);
        }
        let next = LoginStage(request.flags & flag::STAGE_MASK);
        let most = LOGIN_SEGMENT_BYTES as usize;
        if self.answer.len() > most {
            let rest = self.answer.split_off(most);
            let text = std::mem::replace(&mut self.answer, rest);
            return Ok(Outcome::Answer { flags: stage_flags | flag::CONTINUE, text });
        }
        if !wants_next || !self.security.is_done() {
            let text = std::mem::take(&mut self.answer);
            return Ok(Outcome::Answer { flags: stage_flags, text });
        }
        if next == LoginStage::FULL_FEATURE_PHASE {
            self.check_digests()?;
            return Ok(Outcome::Ask);
        }
        self.stage = next;
        let text = std::mem::take(&mut self.answer);
        Ok(Outcome::Answer { flags: stage_flags | flag::TRANSIT | next.0, text })
    }

    /// The fields of the header: the same in every request of a login but for stage and length.
    fn check(&mut self, request: &LoginRequest) -> Result<(), Violation> {
        self.requests += 1;
        if self.requests > LOGIN_REQUESTS_MAX {
            return Err(Violation::LoginLength { max: LOGIN_REQUESTS_MAX });
        }
        let (min, max) = (request.version_min, request.version_max);
        if min > VERSION {
            return Err(Violation::Version { min, max });
        }
        let stage = LoginStage(request.flags >> flag::CSG_SHIFT & flag::STAGE_MASK);
        let Some(first) = &self.first else {
            let is_first = stage == LoginStage::SECURITY_NEGOTIATION
                || stage == LoginStage::LOGIN_OPERATIONAL_NEGOTIATION;
            if !is_first {
                return Err(Violation::LoginStage);
            }
            self.stage = stage;
            self.first = Some(*request);
            return check_transit(stage, request.flags);
        };
        for (is_same, what) in [
            (request.isid == first.isid, "ISID"),
            (request.tsih == first.tsih, "TSIH"),
            (request.cid == first.cid, "CID"),
            (request.initiator_task_tag == first.initiator_task_tag, "initiator task tag"),
            (request.cmd_sn == first.cmd_sn, "CmdSN"),
        ] {
            if !is_same {
                return Err(Violation::LoginChanged(what));
            }
        }
        if stage != self.stage {
            return Err(Violation::LoginStage);
        }
        check_transit(stage, request.flags)
    }

    /// Initiators that begin with security say their names in both stages; that is no negotiation,
    /// but they must not become somebody else.
    fn hear_names(&mut self, pairs: &[(&str, &str)]) -> Result<(), Violation> {
        for (name, value) in pairs {
            let (slot, key) = match keys::find(name).map(|row| row.key) {
                Some(Key::InitiatorName) => (&mut self.names.initiator, key::INITIATOR_NAME),
                Some(Key::TargetName) => (&mut self.names.target, key::TARGET_NAME),
                Some(Key::SessionType) => (&mut self.names.session_type, key::SESSION_TYPE),
                _ => continue,
            };
            match slot {
                Some(said) if said == value => {}
                None if self.kind.is_none() => *slot = Some((*value).to_owned()),
                _ => return Err(Violation::LoginChanged(key)),
            }
        }
        Ok(())
    }

    /// Who is this, what does it want, and how must it prove itself?
    fn identify(&mut self, accounts: &dyn super::Accounts) -> Result<(), Refused> {
        let named = self.names.initiator.as_deref();
        let named = named.ok_or(Violation::KeyMissing { key: key::INITIATOR_NAME })?;
        let initiator =
            name::normalize(named).ok_or(Violation::KeyValue { key: key::INITIATOR_NAME })?;
        let kind = match self.names.session_type.as_deref() {
            Some(key::DISCOVERY) => SessionKind::Discovery,
            None | Some(key::NORMAL) => {
                let target = self.names.target.as_deref();
                let target = target.ok_or(Violation::KeyMissing { key: key::TARGET_NAME })?;
                // A name that is none is the name of no target.
                let target =
                    name::normalize(target).ok_or(Refusal::Status(LoginStatus::NOT_FOUND))?;
                SessionKind::Normal { target }
            }
            Some(_) => {
                return Err(Refusal::Status(LoginStatus::SESSION_TYPE_NOT_SUPPORTED).into());
            }
        };
        let target = match &kind {
            SessionKind::Normal { target } => Some(target.as_str()),
            SessionKind::Discovery => None,
        };
        let (authentication, has_target) =
            (accounts.authentication(&initiator, target), target.is_some());
        (self.initiator, self.kind) = (Some(initiator), Some(kind));
        self.security.require(authentication?);
        if has_target {
            // 13.9: in the first response of a session to a target.
            let tag = self.portal_group_tag.to_string();
            text::push(&mut self.answer, key::TARGET_PORTAL_GROUP_TAG, &tag);
            if let Some(alias) = &self.alias {
                text::push(&mut self.answer, key::TARGET_ALIAS, alias);
            }
        }
        Ok(())
    }

    fn hear_keys(&mut self, pairs: &[(&str, &str)]) -> Result<(), Violation> {
        let phase = match self.stage {
            LoginStage::SECURITY_NEGOTIATION => phase::SECURITY,
            _ => phase::OPERATIONAL,
        };
        let is_discovery = self.kind == Some(SessionKind::Discovery);
        let mut proofs = Vec::new();
        for (name, value) in pairs {
            let Some(row) = keys::find(name) else {
                text::push(&mut self.answer, name, key::NOT_UNDERSTOOD);
                continue;
            };
            match row.kind {
                _ if row.phases & phase == 0 => {
                    text::push(&mut self.answer, name, key::REJECT);
                }
                Kind::Text => {}
                Kind::Security => proofs.push((row.key, *value)),
                _ => {
                    self.negotiation.hear(row)?;
                    if is_discovery && !row.in_discovery {
                        text::push(&mut self.answer, name, key::IRRELEVANT);
                    } else {
                        self.negotiation.handle(row, value, &mut self.answer)?;
                    }
                }
            }
        }
        self.security.handle(&proofs, &mut self.answer)
    }

    fn check_digests(&self) -> Result<(), Violation> {
        let agreed = Parameters::agreed(&self.negotiation, &self.wishes, self.is_declared);
        for (has, policy, key) in [
            (agreed.header_digest, self.wishes.header_digest, key::HEADER_DIGEST),
            (agreed.data_digest, self.wishes.data_digest, key::DATA_DIGEST),
        ] {
            if !policy.allows(has) {
                return Err(Violation::KeyRefused { key });
            }
        }
        Ok(())
    }
}

/// T, C, and a next stage that follows (11.12.1 to 11.12.3).
fn check_transit(stage: LoginStage, flags: u8) -> Result<(), Violation> {
    if flags & flag::TRANSIT == 0 {
        return Ok(());
    }
    let next = LoginStage(flags & flag::STAGE_MASK);
    let follows = next > stage && next.name().is_some();
    if !follows || flags & flag::CONTINUE != 0 {
        return Err(Violation::LoginStage);
    }
    Ok(())
}

impl Target {
    pub(super) fn handle_login_header(&mut self, header: &Header) -> (Fate, Option<Event>) {
        let opcode = header.opcode();
        if opcode == Opcode::LOGIN_REQUEST && header.total_ahs_length == 0 {
            self.collecting = Some(*header);
            return (Fate::Collected, None);
        }
        // 6.3: only login requests before the full feature phase. Before the first one not even a
        // response can be made.
        let violation = Violation::Opcode { opcode };
        match &self.phase {
            Phase::Login(login) if login.first.is_some() => {
                let request = login.first.expect("it was just looked at");
                self.refuse_login(
                    &request,
                    Refused {
                        status: LoginStatus::INVALID_DURING_LOGIN,
                        cause: violation,
                        address: None,
                    },
                );
            }
            _ => self.end(Ended::Violation(violation)),
        }
        (Fate::Discarded, None)
    }

    pub(super) fn handle_login(&mut self, header: &Header, data: &[u8]) -> Option<Event> {
        let request: &LoginRequest = header.view();
        let accounts = self.accounts.clone();
        let Phase::Login(login) = &mut self.phase else { return None };
        if login.first.is_none() {
            // The numbers of both sides begin with those of the first request.
            self.stat_sn = request.exp_stat_sn.get();
            self.exp_cmd_sn = request.cmd_sn.get();
            self.max_cmd_sn = self.exp_cmd_sn.wrapping_add(u32::from(self.config.window) - 1);
        }
        match login.handle(request, data, &*accounts) {
            Ok(Outcome::Answer { flags, text }) => {
                let tsih = request.tsih.get();
                self.push_login_response(request, flags, tsih, text);
                None
            }
            Ok(Outcome::Ask) => {
                let phase = std::mem::replace(&mut self.phase, Phase::FullFeature);
                let Phase::Login(login) = phase else { unreachable!("it was just looked at") };
                self.phase = Phase::Asked(login);
                Some(Event::Admit)
            }
            Err(refused) => {
                self.refuse_login(request, refused);
                Some(Event::Ended)
            }
        }
    }

    pub(super) fn finish_login(&mut self, mut login: Login, admission: &Admission) {
        let request = login.first.expect("a question follows a request");
        let question = login.question();
        let refused = match admission {
            Admission::Granted { tsih } if question.tsih == 0 => {
                assert!(*tsih != 0, "zero is no session handle");
                let text = std::mem::take(&mut login.answer);
                let flags = flag::TRANSIT
                    | login.stage.0 << flag::CSG_SHIFT
                    | LoginStage::FULL_FEATURE_PHASE.0;
                self.push_login_response(&request, flags, *tsih, text);
                self.begin_session(&login, question, *tsih, request.cid.get());
                return;
            }
            Admission::Granted { .. } => Refusal::Status(LoginStatus::TOO_MANY_CONNECTIONS),
            Admission::Refused(refusal) => refusal.clone(),
        };
        self.phase = Phase::Login(Box::new(login));
        self.refuse_login(&request, refused.into());
    }

    fn begin_session(&mut self, login: &Login, admitted: Admit, tsih: u16, cid: u16) {
        let Admit { initiator, isid, kind, .. } = admitted;
        self.parameters = Parameters::agreed(&login.negotiation, &login.wishes, login.is_declared);
        self.session = Some(Session { initiator, isid, tsih, cid, kind });
        self.receiver.header_digest = self.parameters.header_digest;
        self.receiver.data_digest = self.parameters.data_digest;
        self.receiver.data_bytes_max = self.parameters.max_recv_data_segment_length;
        self.phase = Phase::FullFeature;
        self.is_new = true;
    }

    fn refuse_login(&mut self, request: &LoginRequest, refused: Refused) {
        let Refused { status, cause, address } = refused;
        let mut text = Vec::new();
        if let Some(address) = &address {
            text::push(&mut text, key::TARGET_ADDRESS, address);
        }
        let stage = request.flags & flag::STAGE_MASK << flag::CSG_SHIFT;
        let response = LoginResponse {
            status: status.0.into(),
            ..login_response(request, stage, request.tsih.get())
        };
        self.output.push_control(&response, text, StatSn::Takes);
        self.end(Ended::Refused { status, cause });
    }

    fn push_login_response(&mut self, request: &LoginRequest, flags: u8, tsih: u16, text: Vec<u8>) {
        let response = login_response(request, flags, tsih);
        self.output.push_control(&response, text, StatSn::Takes);
    }
}

fn login_response(request: &LoginRequest, flags: u8, tsih: u16) -> LoginResponse {
    LoginResponse {
        flags,
        version_max: VERSION,
        version_active: VERSION,
        isid: request.isid,
        tsih: tsih.into(),
        initiator_task_tag: request.initiator_task_tag,
        ..LoginResponse::default()
    }
}
