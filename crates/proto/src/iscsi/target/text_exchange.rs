//! Text requests in the full feature phase (RFC 7143, 11.10, appendix C): SendTargets, and the few
//! keys that may change there.
//!
//! One exchange at a time. A request may take several PDUs, and an answer longer than the
//! initiator's segments is given in parts, each asked for by an empty request with our tag.

use super::output::StatSn;
use super::{Event, Target};
use crate::iscsi::accounts::{Portal, SessionKind, TargetRecord};
use crate::iscsi::keys::{self, Key, Kind, Negotiation, phase};
use crate::iscsi::text::{self, TEXT_BYTES_MAX};
use wire::iscsi::{Header, RESERVED_TAG, RejectReason, TextRequest, TextResponse, flag, key};

/// Longest answer to a text request: what many targets with many portals take. Beyond that targets
/// are left out of the list.
pub const TEXT_ANSWER_BYTES_MAX: usize = 1024 * 1024;

#[derive(Default)]
pub(super) struct TextExchange {
    /// Initiator task tag and our transfer tag of the exchange under way.
    tags: Option<(u32, u32)>,
    next_tag: u32,
    request: Vec<u8>,
    answer: Vec<u8>,
    /// Bytes of the answer that have been given.
    given: usize,
    is_final: bool,
    negotiation: Option<Negotiation>,
}

impl Target {
    pub(super) fn handle_text(&mut self, header: &Header, data: &[u8]) -> Option<Event> {
        let pdu: &TextRequest = header.view();
        let tag = pdu.initiator_task_tag.get();
        let transfer = pdu.target_transfer_tag.get();
        let (is_final, goes_on) = (pdu.flags & flag::FINAL != 0, pdu.flags & flag::CONTINUE != 0);
        if transfer == RESERVED_TAG {
            let next_tag = self.text.next_tag;
            self.text = TextExchange { next_tag, ..TextExchange::default() };
        } else if self.text.tags != Some((tag, transfer)) {
            self.reject(header, RejectReason::INVALID_PDU_FIELD);
            return None;
        }
        let is_asking_on = self.text.given < self.text.answer.len();
        let is_too_long = self.text.request.len() + data.len() > TEXT_BYTES_MAX;
        if (is_final && goes_on) || (is_asking_on && !data.is_empty()) || is_too_long {
            self.text.tags = None;
            self.reject(header, RejectReason::PROTOCOL_ERROR);
            return None;
        }
        self.text.request.extend_from_slice(data);
        if !is_asking_on && !goes_on {
            self.text.is_final = is_final;
            let request = std::mem::take(&mut self.text.request);
            match self.answer_text(&request) {
                Some(answer) => (self.text.answer, self.text.given) = (answer, 0),
                None => {
                    self.text.tags = None;
                    self.reject(header, RejectReason::PROTOCOL_ERROR);
                    return None;
                }
            }
        }
        self.give_text(tag);
        None
    }

    /// The next part of the answer.
    fn give_text(&mut self, tag: u32) {
        let most = self.parameters.max_send_data_segment_length as usize;
        let exchange = &mut self.text;
        let rest = &exchange.answer[exchange.given..];
        let part = rest[..rest.len().min(most)].to_vec();
        exchange.given += part.len();
        let goes_on = exchange.given < exchange.answer.len();
        let is_over = !goes_on && exchange.is_final;
        let transfer = match exchange.tags {
            _ if is_over => RESERVED_TAG,
            Some((_, transfer)) => transfer,
            None => {
                exchange.next_tag = exchange.next_tag.wrapping_add(1) & !(1 << 31);
                exchange.next_tag
            }
        };
        exchange.tags = (!is_over).then_some((tag, transfer));
        let flags = match (is_over, goes_on) {
            (true, _) => flag::FINAL,
            (false, true) => flag::CONTINUE,
            (false, false) => 0,
        };
        let reply = TextResponse {
            flags,
            initiator_task_tag: tag.into(),
            target_transfer_tag: transfer.into(),
            ..TextResponse::default()
        };
        self.output.push_control(&reply, part, StatSn::Takes);
    }

    /// The answer to a whole request; nothing when the request is malformed.
    fn answer_text(&mut self, request: &[u8]) -> Option<Vec<u8>> {
        let mut answer = Vec::new();
        let mut exchange =
            self.text.negotiation.take().unwrap_or_else(|| self.config.wishes.negotiation());
        for (name, value) in text::parse(request).ok()? {
            let Some(row) = keys::find(name) else {
                text::push(&mut answer, name, key::NOT_UNDERSTOOD);
                continue;
            };
            exchange.hear(row).ok()?;
            match (row.key, row.kind) {
                _ if row.phases & phase::FULL_FEATURE == 0 => {
                    text::push(&mut answer, name, key::REJECT);
                }
                (Key::SendTargets, _) => self.send_targets(value, &mut answer),
                (Key::MaxRecvDataSegmentLength, _) => {
                    match exchange.handle(row, value, &mut answer) {
                        Ok(()) => {
                            let length = exchange.value(row.key);
                            self.parameters.max_send_data_segment_length = length;
                        }
                        Err(_) => text::push(&mut answer, name, key::REJECT),
                    }
                }
                // What an initiator tells about itself is taken note of by saying nothing.
                (_, Kind::Text) => {}
                _ => text::push(&mut answer, name, key::REJECT),
            }
        }
        self.text.negotiation = Some(exchange);
        Some(answer)
    }

    fn send_targets(&self, which: &str, answer: &mut Vec<u8>) {
        let Some(session) = &self.session else { return };
        let is_wanted = |record: &TargetRecord| match (&session.kind, which) {
            // Appendix C: All belongs to discovery sessions; the empty name is the session's target.
            (SessionKind::Discovery, key::ALL) => true,
            (SessionKind::Normal { target }, "") => record.name == *target,
            (SessionKind::Normal { target }, _) => record.name == *target && record.name == which,
            (SessionKind::Discovery, _) => record.name == which,
        };
        let is_allowed = match session.kind {
            SessionKind::Discovery => !which.is_empty(),
            SessionKind::Normal { .. } => which != key::ALL,
        };
        if !is_allowed {
            text::push(answer, key::SEND_TARGETS, key::REJECT);
            return;
        }
        for record in self.accounts.targets(&session.initiator).iter().filter(|it| is_wanted(it)) {
            let before = answer.len();
            text::push(answer, key::TARGET_NAME, &record.name);
            for portal in &record.portals {
                text::push(answer, key::TARGET_ADDRESS, &address(portal));
            }
            if answer.len() > TEXT_ANSWER_BYTES_MAX {
                answer.truncate(before);
                return;
            }
        }
    }
}

/// Address, port and portal group tag (13.8): IPv6 addresses stand in brackets, as they do here.
fn address(portal: &Portal) -> String {
    format!("{},{}", portal.address, portal.group_tag)
}
