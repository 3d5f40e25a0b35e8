//! The client against answers made by hand, cut and changed at will.

use std::path::Path;

use proptest::prelude::*;
use wire::nbd::{
    ExportInfo, Hello, INIT_MAGIC, OPTION_MAGIC, OPTION_REPLY_MAGIC, OptionKind, OptionReply,
    OptionReplyKind, ReplyChunk, ReplyKind, STRUCTURED_REPLY_MAGIC,
};
use zerocopy::IntoBytes;

use super::*;

fn hello(flags: u16) -> [u8; HELLO_BYTES] {
    let (init_magic, option_magic) = (INIT_MAGIC.into(), OPTION_MAGIC.into());
    let hello = Hello { init_magic, option_magic, flags: flags.into() };
    hello.as_bytes().try_into().unwrap()
}

fn reply(option: OptionKind, kind: u32, data: &[u8]) -> [u8; OPTION_REPLY_BYTES] {
    let (magic, option) = (OPTION_REPLY_MAGIC.into(), option.0.into());
    let length = (data.len() as u32).into();
    let reply = OptionReply { magic, option, kind: kind.into(), length };
    reply.as_bytes().try_into().unwrap()
}

fn chunk(kind: ReplyKind, cookie: u64, length: u32) -> [u8; CHUNK_BYTES] {
    let chunk = ReplyChunk {
        magic: STRUCTURED_REPLY_MAGIC.into(),
        flags: 1.into(),
        kind: kind.0.into(),
        cookie: cookie.into(),
        length: length.into(),
    };
    chunk.as_bytes().try_into().unwrap()
}

#[test]
fn an_export_is_opened() {
    let mut negotiation = Negotiation::default();
    let sent = negotiation.greet(&hello(3)).unwrap();
    assert_eq!(sent[..4], [0, 0, 0, 3]);
    assert!(sent.windows(15).any(|it| it == b"base:allocation"));
    let info = ExportInfo { kind: 0.into(), size: 4096.into(), flags: 1.into() };
    let context = [&7_u32.to_be_bytes()[..], b"base:allocation"].concat();
    let answers: [(OptionKind, OptionReplyKind, &[u8]); 5] = [
        (OptionKind::STRUCTURED_REPLY, OptionReplyKind::ACK, &[]),
        (OptionKind::SET_META_CONTEXT, OptionReplyKind::META_CONTEXT, &context),
        (OptionKind::SET_META_CONTEXT, OptionReplyKind::ACK, &[]),
        (OptionKind::GO, OptionReplyKind::INFO, info.as_bytes()),
        (OptionKind::GO, OptionReplyKind::ACK, &[]),
    ];
    let mut size = None;
    for (option, kind, data) in answers {
        let reply = reply(option, kind.0, data);
        assert_eq!(negotiation.expect(&reply), Ok(data.len()));
        size = negotiation.handle_reply(&reply, data).unwrap();
    }
    assert_eq!((size, negotiation.tells_holes()), (Some(4096), true));
    assert!(negotiation.greet(&hello(0)).is_err(), "the oldest handshake is not spoken");
    let refused = reply(OptionKind::GO, 1 << 31 | 6, &[]);
    assert_eq!(negotiation.handle_reply(&refused, &[]), Err(Error::Refused(OptionKind::GO)));
}

#[test]
fn answers_say_where_their_bytes_belong() {
    let data = Chunk::of(&chunk(ReplyKind::OFFSET_DATA, 4096, 8 + 512), 4096).unwrap();
    let at = |offset: u64| piece(&data, &offset.to_be_bytes(), (4096, 1024));
    assert_eq!(at(4608), Ok(Piece::Data { at: 512, length: 512 }));
    assert!(at(4609).is_err() && at(0).is_err() && at(u64::MAX).is_err());
    let hole = Chunk::of(&chunk(ReplyKind::OFFSET_HOLE, 0, 12), 0).unwrap();
    let payload = [&0_u64.to_be_bytes()[..], &1024_u32.to_be_bytes()].concat();
    assert_eq!(piece(&hole, &payload, (0, 1024)), Ok(Piece::Zeroes { at: 0, length: 1024 }));
    assert!(piece(&hole, &payload, (0, 1023)).is_err());
    assert!(Chunk::of(&chunk(ReplyKind::NONE, 1, 0), 2).is_err(), "an answer to another request");
    let extent = |length: u32, flags: u32| [length.to_be_bytes(), flags.to_be_bytes()].concat();
    let status = [vec![0; 4], extent(512, 3), extent(1024, 0)].concat();
    assert_eq!(extents(&status), Ok(vec![(512, true), (1024, false)]));
    assert!(
        extents(&status[..7]).is_err() && extents(&[vec![0; 4], extent(0, 0)].concat()).is_err()
    );
}

proptest! {
    #[test]
    fn nothing_that_a_server_sends_breaks_it(
        head in proptest::collection::vec(any::<u8>(), CHUNK_BYTES),
        payload in proptest::collection::vec(any::<u8>(), 0..64),
        kind in 0..7_u16,
        offset: u64,
        length: u32,
    ) {
        let mut negotiation = Negotiation::default();
        let head: [u8; CHUNK_BYTES] = head.try_into().unwrap();
        let _ = negotiation.greet(head.first_chunk().unwrap());
        let _ = negotiation.handle_reply(&head, &payload);
        let _ = Chunk::of(&head, offset);
        let chunk = Chunk { is_last: true, kind: ReplyKind(kind), length };
        if let Ok(Piece::Data { at, length: part } | Piece::Zeroes { at, length: part }) =
            piece(&chunk, &payload, (offset, length))
        {
            prop_assert!(at + part <= length as usize);
        }
        if let Ok(extents) = extents(&payload) {
            prop_assert!(extents.len() <= payload.len() / 8);
        }
    }
}

proptest! {
    #[test]
    fn each_byte_is_told_once(pieces: Vec<(u8, u8, bool)>) {
        let mut told = Told::default();
        let mut bytes = [false; 16];
        for (at, length, is_data) in pieces {
            let (at, length) = (usize::from(at % 16), usize::from(length % 5));
            let piece = match is_data {
                true => Piece::Data { at, length },
                false => Piece::Zeroes { at, length },
            };
            let Some(part) = bytes.get_mut(at..at + length) else { continue };
            let is_new = length > 0 && part.iter().all(|it| !*it);
            prop_assert_eq!(told.add(&piece).is_ok(), is_new);
            if is_new {
                part.fill(true);
            }
            for length in 0..=bytes.len() {
                let alone = bytes[..length].iter().all(|it| *it);
                let rest = bytes[length..].first() != Some(&true);
                prop_assert_eq!(told.is_all(length), length == 0 || alone && rest);
            }
        }
    }
}

#[test]
fn every_seed_leads_where_it_should() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus/nbd_client");
    let reach = |name: &str| fuzz::client(&std::fs::read(folder.join(name)).unwrap());
    let mut sum = fuzz::Reached::default();
    for seed in std::fs::read_dir(&folder).unwrap() {
        let reached = reach(seed.unwrap().file_name().to_str().unwrap());
        sum.pieces += reached.pieces;
    }
    assert!(sum.pieces >= 5, "{sum:?}");
    assert!(reach("opens").is_open && !reach("odd").is_open);
    assert_eq!(reach("status").extents, 4);
    assert_eq!(reach("reads").pieces, 4);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn no_server_is_too_odd(script in prop::collection::vec(any::<u8>(), 0..400)) {
        fuzz::client(&script);
        // And one that is in order until the export is open.
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus/nbd_client");
        let mut opened = std::fs::read(folder.join("opens")).unwrap();
        opened.extend(script);
        prop_assert!(fuzz::client(&opened).is_open);
    }
}
