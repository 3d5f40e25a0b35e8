//! A target with an owner that keeps what it is told, PDUs written by hand, and what comes back.

mod client;
mod host;

pub use client::{Client, LUN, normal, talk};
pub use host::{Host, Known, config};

use proto::iscsi::{Digest, Trailer};
use wire::iscsi::{
    BHS_BYTES, DIGEST_BYTES, Header, LoginRequest, NopOut, Pdu, ScsiCommand, TextRequest, Uint24,
};
use zerocopy::{FromBytes, IntoBytes};

pub const INITIATOR: &str = "iqn.2026-11.org.example:host";
pub const TARGET: &str = "iqn.2026-11.org.viaduct:c:host";

/// A PDU as it came from the target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Received {
    pub header: Header,
    pub data: Vec<u8>,
}

impl Received {
    /// The PDU, which must be of this kind.
    #[track_caller]
    pub fn view<P: Pdu>(&self) -> &P {
        assert_eq!(self.header.opcode(), P::OPCODE, "{:?}", self.header);
        self.header.view()
    }

    /// Keys and values of a text.
    pub fn pairs(&self) -> Vec<(String, String)> {
        let text = String::from_utf8(self.data.clone()).unwrap();
        let pair = |it: &str| it.split_once('=').map(|(k, v)| (k.to_owned(), v.to_owned()));
        text.split_terminator('\0').map(|it| pair(it).unwrap()).collect()
    }

    pub fn value(&self, key: &str) -> Option<String> {
        self.pairs().into_iter().find(|(it, _)| it == key).map(|(_, value)| value)
    }
}

/// Whether headers and data carry digests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Digests {
    pub header: bool,
    pub data: bool,
}

/// The bytes of a PDU.
pub fn encode<P: Pdu>(pdu: &P, ahs: &[u8], data: &[u8], digests: Digests) -> Vec<u8> {
    let mut header = Header::read_from_bytes(pdu.as_bytes()).unwrap();
    header.data_segment_length = Uint24::new(data.len() as u32);
    header.total_ahs_length = (ahs.len() / 4) as u8;
    let mut bytes = [header.as_bytes(), ahs].concat();
    if digests.header {
        bytes.extend_from_slice(&Digest::of(&bytes.clone()));
    }
    bytes.extend_from_slice(data);
    let digest = digests.data.then(|| Digest::new().update(data));
    bytes.extend_from_slice(Trailer::new(data.len() as u32, digest).as_bytes());
    bytes
}

pub fn plain<P: Pdu>(pdu: &P, data: &[u8]) -> Vec<u8> {
    encode(pdu, &[], data, Digests::default())
}

/// Splits a stream of complete PDUs; all digests are checked.
pub fn decode(mut bytes: &[u8], digests: Digests) -> Vec<Received> {
    let mut pdus = Vec::new();
    while !bytes.is_empty() {
        let (header, mut rest) = Header::read_from_prefix(bytes).unwrap();
        assert_eq!(header.total_ahs_length, 0);
        if digests.header {
            assert_eq!(Digest::of(&bytes[..BHS_BYTES]), rest[..DIGEST_BYTES]);
            rest = &rest[DIGEST_BYTES..];
        }
        let length = header.data_bytes() as usize;
        let padded = length.next_multiple_of(4);
        let data = rest[..length].to_vec();
        if digests.data && length > 0 {
            assert_eq!(Digest::of(&rest[..padded]), rest[padded..padded + DIGEST_BYTES]);
            rest = &rest[DIGEST_BYTES..];
        }
        bytes = &rest[padded..];
        pdus.push(Received { header, data });
    }
    pdus
}

pub fn text(pairs: &[(&str, &str)]) -> Vec<u8> {
    pairs.iter().flat_map(|(key, value)| format!("{key}={value}\0").into_bytes()).collect()
}

/// A login request of stage `csg`; `nsg` sets T.
pub fn login(csg: u8, nsg: Option<u8>) -> LoginRequest {
    LoginRequest {
        opcode: 0x43,
        flags: csg << 2 | nsg.map_or(0, |nsg| 0x80 | nsg),
        isid: [0x80, 1, 2, 3, 4, 5],
        initiator_task_tag: 1.into(),
        cid: 7.into(),
        cmd_sn: FIRST_CMD_SN.into(),
        exp_stat_sn: FIRST_STAT_SN.into(),
        ..LoginRequest::default()
    }
}

pub const FIRST_CMD_SN: u32 = u32::MAX - 1;
pub const FIRST_STAT_SN: u32 = u32::MAX;

/// The names a normal login begins with.
pub const NAMES: [(&str, &str); 3] =
    [("InitiatorName", INITIATOR), ("SessionType", "Normal"), ("TargetName", TARGET)];

/// A command in the numbers of a session whose login used `FIRST_CMD_SN`.
pub fn read(tag: u32, index: u32, length: u32) -> ScsiCommand {
    ScsiCommand {
        flags: 0x80 | 0x40 | 1,
        lun: [0, 1, 0, 0, 0, 0, 0, 0],
        initiator_task_tag: tag.into(),
        expected_data_transfer_length: length.into(),
        cmd_sn: FIRST_CMD_SN.wrapping_add(index).into(),
        exp_stat_sn: FIRST_STAT_SN.into(),
        cdb: [0x28; 16],
        ..ScsiCommand::default()
    }
}

pub fn write(tag: u32, index: u32, length: u32) -> ScsiCommand {
    let flags = 0x80 | 0x20 | 1;
    ScsiCommand { flags, cdb: [0x2a; 16], ..read(tag, index, length) }
}

pub fn nop(tag: u32, index: u32) -> NopOut {
    NopOut {
        flags: 0x80,
        initiator_task_tag: tag.into(),
        target_transfer_tag: u32::MAX.into(),
        cmd_sn: FIRST_CMD_SN.wrapping_add(index).into(),
        exp_stat_sn: FIRST_STAT_SN.into(),
        ..NopOut::default()
    }
}

pub fn text_request(tag: u32, index: u32) -> TextRequest {
    TextRequest {
        flags: 0x80,
        initiator_task_tag: tag.into(),
        target_transfer_tag: u32::MAX.into(),
        cmd_sn: FIRST_CMD_SN.wrapping_add(index).into(),
        exp_stat_sn: FIRST_STAT_SN.into(),
        ..TextRequest::default()
    }
}
