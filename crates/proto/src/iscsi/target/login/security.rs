//! The security stage of a target: which method, and CHAP step by step.
//!
//! ```text
//!   Open ──AuthMethod──▶ Chosen ──CHAP_A──▶ Challenged ──CHAP_N, CHAP_R──▶ Done
//!     ╰──────────────────── nothing to prove ────────────────────────────────╯
//! ```
//!
//! There is one try per login. A wrong name and a wrong response are told apart by nobody.

use crate::iscsi::accounts::{Authentication, Chap};
use crate::iscsi::chap::{Algorithm, Nonce, is_equal};
use crate::iscsi::error::Violation;
use crate::iscsi::keys::Key;
use crate::iscsi::text;
use wire::iscsi::{LoginStage, key};

pub(super) struct Security {
    nonce: Nonce,
    step: Step,
    authentication: Authentication,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Step {
    Open,
    Chosen,
    Challenged(Algorithm),
    Done,
}

impl Security {
    pub fn new(nonce: Nonce) -> Self {
        Self { nonce, step: Step::Open, authentication: Authentication::None }
    }

    /// What the owner demands of this initiator.
    pub fn require(&mut self, authentication: Authentication) {
        self.authentication = authentication;
    }

    /// Whether the login may go on to the next stage.
    pub fn is_done(&self) -> bool {
        match self.authentication {
            Authentication::None => true,
            Authentication::Chap(_) => self.step == Step::Done,
        }
    }

    /// Who must prove something cannot pass the security stage by, or leave it before it began.
    pub fn check(&self, stage: LoginStage, wants_next: bool) -> Result<(), Violation> {
        let is_passed = stage != LoginStage::SECURITY_NEGOTIATION;
        let is_left = wants_next && self.step == Step::Open;
        if (is_passed || is_left) && !self.is_done() {
            return Err(Violation::AuthenticationMissing);
        }
        Ok(())
    }

    /// The security keys of a request, in their order.
    pub fn handle(&mut self, keys: &[(Key, &str)], answer: &mut Vec<u8>) -> Result<(), Violation> {
        let value = |key: Key| keys.iter().find(|(it, _)| *it == key).map(|(_, value)| *value);
        let is_twice = |(at, (key, _)): (usize, &(Key, &str))| {
            keys[..at].iter().any(|(earlier, _)| earlier == key)
        };
        if keys.iter().enumerate().any(is_twice) {
            return Err(Violation::ChapStep);
        }
        if let Some(methods) = value(Key::AuthMethod) {
            self.choose_method(methods, answer)?;
        }
        if let Some(algorithms) = value(Key::ChapA) {
            self.challenge(algorithms, answer)?;
        }
        let proof = [Key::ChapN, Key::ChapR, Key::ChapI, Key::ChapC].map(value);
        match proof {
            [None, None, None, None] => Ok(()),
            [Some(name), Some(response), id, challenge] => {
                self.verify(name, response)?;
                match (id, challenge) {
                    (None, None) => {}
                    (Some(id), Some(challenge)) => self.show(id, challenge, answer)?,
                    _ => return Err(Violation::ChapStep),
                }
                self.step = Step::Done;
                Ok(())
            }
            _ => Err(Violation::ChapStep),
        }
    }

    fn choose_method(&mut self, methods: &str, answer: &mut Vec<u8>) -> Result<(), Violation> {
        if self.step != Step::Open {
            return Err(Violation::ChapStep);
        }
        let (method, step) = match self.authentication {
            Authentication::None => (key::NONE, Step::Done),
            Authentication::Chap(_) => (key::CHAP, Step::Chosen),
        };
        if !methods.split(',').any(|it| it == method) {
            text::push(answer, key::AUTH_METHOD, key::REJECT);
            return Err(Violation::AuthenticationMissing);
        }
        self.step = step;
        text::push(answer, key::AUTH_METHOD, method);
        Ok(())
    }

    fn challenge(&mut self, algorithms: &str, answer: &mut Vec<u8>) -> Result<(), Violation> {
        let (Step::Chosen, Authentication::Chap(chap)) = (self.step, &self.authentication) else {
            return Err(Violation::ChapStep);
        };
        let algorithm =
            Algorithm::choose(algorithms, chap.algorithms).ok_or(Violation::ChapAlgorithm)?;
        self.step = Step::Challenged(algorithm);
        let (id, challenge) = self.nonce.split_first().expect("it has a fixed size");
        text::push(answer, key::CHAP_A, &(algorithm as u8).to_string());
        text::push(answer, key::CHAP_I, &id.to_string());
        text::push(answer, key::CHAP_C, &text::hex(challenge));
        Ok(())
    }

    fn verify(&self, name: &str, response: &str) -> Result<(), Violation> {
        let (algorithm, chap) = self.challenged()?;
        let (id, challenge) = self.nonce.split_first().expect("it has a fixed size");
        let response = text::binary(response).ok_or(Violation::ChapWrong)?;
        let account = &chap.initiator;
        let is_right = algorithm.verify(*id, &account.secret, challenge, &response);
        let is_known = is_equal(account.name.as_bytes(), name.as_bytes());
        if !(is_right & is_known) {
            return Err(Violation::ChapWrong);
        }
        Ok(())
    }

    /// The initiator challenges us. Its challenge must not be ours (12.1.3), or it could have our
    /// own answer to it, and be it another connection's, count for its own.
    fn show(&self, id: &str, challenge: &str, answer: &mut Vec<u8>) -> Result<(), Violation> {
        let (algorithm, chap) = self.challenged()?;
        let id =
            text::number(id).and_then(|id| u8::try_from(id).ok()).ok_or(Violation::ChapStep)?;
        let challenge = text::binary(challenge).ok_or(Violation::ChapStep)?;
        if is_equal(&challenge, &self.nonce[1..]) {
            return Err(Violation::ChapReflected);
        }
        let account = chap.target.as_ref().ok_or(Violation::AuthenticationMissing)?;
        let response = algorithm.response(id, &account.secret, &challenge);
        text::push(answer, key::CHAP_N, &account.name);
        text::push(answer, key::CHAP_R, &text::hex(&response));
        Ok(())
    }

    fn challenged(&self) -> Result<(Algorithm, &Chap), Violation> {
        match (self.step, &self.authentication) {
            (Step::Challenged(algorithm), Authentication::Chap(chap)) => Ok((algorithm, chap)),
            _ => Err(Violation::ChapStep),
        }
    }
}
