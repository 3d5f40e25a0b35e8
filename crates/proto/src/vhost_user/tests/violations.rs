//! Everything a front end can do wrong, one message each, and what is said about it.

use super::*;
use FrontEndRequest as Code;

/// Delivers one message to a fresh session in which everything is negotiated.
fn violation(code: Code, flags: u32, payload: &[u8], fds: &[Fd]) -> Violation {
    let mut back = negotiated();
    deliver(&mut back, &message(code, flags, payload), fds);
    let error = back.poll_request().expect_err("a violation");
    assert_eq!(error.subject, Subject::FrontEnd(code));
    // The session is over and says so again; nothing is read, every descriptor is given back.
    assert_eq!(back.poll_request().unwrap_err(), error);
    assert_eq!(back.wanted(), 0);
    assert!(back.transmit().is_none());
    back.handle_input(&[], [77]);
    assert_eq!(discarded(&mut back), [fds, &[77]].concat());
    error.violation
}

fn state(index: u32, num: u32) -> Vec<u8> {
    [index.to_ne_bytes(), num.to_ne_bytes()].concat()
}

fn addresses(change: impl Fn(&mut RingAddresses)) -> Vec<u8> {
    let mut addresses = ADDRESSES;
    change(&mut addresses);
    Request::<Fd>::SetVringAddr { ring: 0, addresses }.encode().payload
}

#[test]
fn bad_headers_are_refused_before_a_payload_is_read() {
    let number = [0; 8];
    for (code, flags, payload, expected) in [
        (Code::SET_FEATURES, 0, &number[..], Violation::Version(0)),
        (Code::SET_FEATURES, 2, &number, Violation::Version(2)),
        (Code::SET_FEATURES, VERSION | 0x10, &number, Violation::Flags(0x10)),
        (Code::SET_FEATURES, REPLY, &number, Violation::ReplyFlagSet),
        (Code(0), VERSION, &[], Violation::Unsupported),
        (Code(44), VERSION, &[], Violation::Unsupported),
        (Code(u32::MAX), VERSION, &[], Violation::Unsupported),
        (Code::SET_STATUS, VERSION, &number, Violation::Unsupported),
        (Code::POSTCOPY_ADVISE, VERSION, &[], Violation::Unsupported),
    ] {
        assert_eq!(violation(code, flags, payload, &[]), expected, "{code}");
    }
}

#[test]
fn payloads_of_other_sizes_are_refused_by_the_header_alone() {
    for (code, size) in [
        (Code::GET_FEATURES, 8),
        (Code::SET_FEATURES, 0),
        (Code::SET_FEATURES, 4),
        (Code::SET_VRING_ADDR, 8),
        (Code::SET_MEM_TABLE, 7),
        (Code::SET_MEM_TABLE, 8 + 31),
        (Code::SET_MEM_TABLE, 8 + 9 * 32),
        (Code::ADD_MEM_REG, 32),
        (Code::SET_LOG_BASE, 8),
        (Code::GET_CONFIG, 11),
        (Code::GET_CONFIG, 12 + 257),
        (Code::GET_INFLIGHT_FD, 16),
        (Code::SET_FEATURES, u32::MAX),
    ] {
        let mut back = negotiated();
        let header = Header { request: code.0.into(), flags: VERSION.into(), size: size.into() };
        deliver(&mut back, header.as_bytes(), &[]);
        match back.poll_request().unwrap_err().violation {
            Violation::PayloadSize { size: told, .. } => assert_eq!(told, size, "{code}"),
            other => panic!("{code} with {size} bytes: {other}"),
        }
    }
}

#[test]
fn wrong_numbers_of_file_descriptors_are_refused() {
    let number = [0; 8];
    let one_region = Request::SetMemTable(vec![(region(0), 0)]).encode().payload;
    for (code, payload, fds, expected) in [
        (Code::GET_FEATURES, &[][..], &[1][..], (1, 0, 0)),
        (Code::SET_LOG_FD, &[], &[], (0, 1, 1)),
        (Code::SET_BACKEND_REQ_FD, &[], &[1, 2], (2, 1, 1)),
        (Code::SET_VRING_KICK, &number, &[1, 2], (2, 0, 1)),
        (Code::SET_MEM_TABLE, &one_region, &[1, 2, 3, 4, 5, 6, 7, 8, 9], (9, 0, 8)),
    ] {
        let (count, min, max) = expected;
        let expected = Violation::FileDescriptors { count, min, max };
        assert_eq!(violation(code, VERSION, payload, fds), expected, "{code}");
    }
    let expected = Violation::RegionCount { regions: 1, fds: 2 };
    assert_eq!(violation(Code::SET_MEM_TABLE, VERSION, &one_region, &[1, 2]), expected);
    let expected = Violation::RingFd { count: 1, flagged: 0 };
    let no_fd = 0x100_u64.to_ne_bytes();
    assert_eq!(violation(Code::SET_VRING_CALL, VERSION, &no_fd, &[1]), expected);
    let expected = Violation::RingFd { count: 0, flagged: 1 };
    assert_eq!(violation(Code::SET_VRING_ERR, VERSION, &number, &[]), expected);
}

#[test]
fn impossible_rings_are_refused() {
    let max = OFFER.ring_size_max;
    let index = |index, count| Violation::RingIndex { index, count };
    for (code, payload, expected) in [
        (Code::SET_VRING_NUM, state(4, 128), index(4, 4)),
        (Code::SET_VRING_NUM, state(256, 128), index(256, RING_COUNT_MAX)),
        (Code::SET_VRING_NUM, state(0, 0), Violation::RingSize { num: 0, max }),
        (Code::SET_VRING_NUM, state(0, 100), Violation::RingSize { num: 100, max }),
        (Code::SET_VRING_NUM, state(0, 2048), Violation::RingSize { num: 2048, max }),
        (Code::SET_VRING_NUM, state(0, 65536), Violation::RingSize { num: 65536, max: 32768 }),
        (Code::SET_VRING_BASE, state(0, 65536), Violation::RingBase(65536)),
        (Code::GET_VRING_BASE, state(u32::MAX, 0), index(u32::MAX, RING_COUNT_MAX)),
        (Code::SET_VRING_ENABLE, state(0, 2), Violation::RingEnable(2)),
        (Code::SET_VRING_KICK, 0x104_u64.to_ne_bytes().to_vec(), index(4, 4)),
    ] {
        assert_eq!(violation(code, VERSION, &payload, &[]), expected, "{code}");
    }
}

#[test]
fn ring_addresses_are_aligned_and_have_known_flags() {
    let misaligned =
        |part, address, alignment| Violation::RingAlignment { part, address, alignment };
    let table = addresses(|it| it.descriptor += 8);
    let used = addresses(|it| it.used += 2);
    let available = addresses(|it| it.available += 1);
    let mut flags = addresses(|_| ());
    flags[4..8].copy_from_slice(&2_u32.to_ne_bytes());
    for (payload, expected) in [
        (table, misaligned("descriptor table", 0x7000_1008, 16)),
        (used, misaligned("used ring", 0x7000_3002, 4)),
        (available, misaligned("available ring", 0x7000_2001, 2)),
        (flags, Violation::RingFlags(2)),
    ] {
        assert_eq!(violation(Code::SET_VRING_ADDR, VERSION, &payload, &[]), expected);
    }
}

#[test]
fn impossible_memory_is_refused_and_its_descriptors_come_back() {
    let table = |regions: Vec<MemoryRegion>| {
        Request::SetMemTable(regions.into_iter().map(|it| (it, 0)).collect()).encode().payload
    };
    let empty = MemoryRegion { size: 0, ..region(0) };
    let overlap = MemoryRegion { size: 1, ..region(0) };
    let violation = |code, payload: &[u8], fds: &[Fd]| violation(code, VERSION, payload, fds);
    assert_eq!(
        violation(Code::SET_MEM_TABLE, &table(vec![region(1), empty]), &[1, 2]),
        Violation::RegionExtent(empty)
    );
    assert_eq!(
        violation(Code::SET_MEM_TABLE, &table(vec![region(0), overlap]), &[1, 2]),
        Violation::RegionOverlap(overlap)
    );
    let gone = Request::<Fd>::RemMemReg(region(3)).encode().payload;
    assert_eq!(violation(Code::REM_MEM_REG, &gone, &[]), Violation::RegionUnknown(region(3)));
}

#[test]
fn more_regions_than_offered_are_refused() {
    let mut back = negotiated();
    for index in 0..OFFER.mem_slots_max as u64 + 1 {
        let add = Request::AddMemReg(region(index), 1).encode();
        deliver(&mut back, &message(add.code, VERSION, &add.payload), &[1]);
        match back.poll_request() {
            Ok(inbound) => {
                assert!(index < OFFER.mem_slots_max as u64);
                back.reply(inbound.unwrap().ticket, Reply::Done);
            }
            Err(error) => {
                assert_eq!(index, OFFER.mem_slots_max as u64);
                assert_eq!(error.violation, Violation::RegionsMax { max: OFFER.mem_slots_max });
            }
        }
    }
}

#[test]
fn impossible_log_and_in_flight_areas_are_refused() {
    let log = |mmap_size, mmap_offset| {
        Request::SetLogBase(LogArea { mmap_size, mmap_offset }, 0).encode().payload
    };
    for (size, offset) in [(0, 0), (2, u64::MAX - 1)] {
        let expected = Violation::LogArea { size, offset };
        assert_eq!(violation(Code::SET_LOG_BASE, VERSION, &log(size, offset), &[1]), expected);
    }
    let too_small = InflightArea { mmap_size: 1000, ..inflight(4, 1024) };
    let wraps = InflightArea { mmap_offset: u64::MAX, ..inflight(4, 1024) };
    for area in [inflight(0, 128), inflight(5, 128), inflight(4, 2048), too_small, wraps] {
        let payload = request::write_inflight(&area);
        let expected = Violation::InflightArea {
            queues: area.num_queues,
            queue_size: area.queue_size,
            size: area.mmap_size,
        };
        assert_eq!(violation(Code::SET_INFLIGHT_FD, VERSION, &payload, &[1]), expected);
    }
}

#[test]
fn configuration_of_another_size_than_announced_is_refused() {
    let mut payload = request::write_config(0, 0, &[0; 8]);
    payload[4..8].copy_from_slice(&9_u32.to_ne_bytes());
    let expected = Violation::ConfigSize { size: 9, payload: 8 };
    assert_eq!(violation(Code::GET_CONFIG, VERSION, &payload, &[]), expected);
    assert_eq!(violation(Code::SET_CONFIG, VERSION, &payload, &[]), expected);
}

#[test]
fn features_that_were_not_offered_are_refused() {
    let number = (1_u64 << 34 | OFFER.features).to_ne_bytes();
    assert_eq!(violation(Code::SET_FEATURES, VERSION, &number, &[]), Violation::Features(1 << 34));
    let number = (1_u64 << 16).to_ne_bytes();
    assert_eq!(
        violation(Code::SET_PROTOCOL_FEATURES, VERSION, &number, &[]),
        Violation::Features(1 << 16)
    );
}

#[test]
fn requests_need_what_gates_them() {
    let log = Request::SetLogBase(LogArea { mmap_size: 1, mmap_offset: 0 }, 0).encode().payload;
    let config = request::write_config(0, 0, &[0; 4]);
    let area = request::write_inflight(&inflight(1, 1));
    let add = Request::AddMemReg(region(0), 0).encode().payload;
    for (code, payload, fds, feature) in [
        (Code::SET_LOG_BASE, &log[..], &[1][..], "LOG_SHMFD"),
        (Code::GET_CONFIG, &config, &[], "CONFIG"),
        (Code::SET_CONFIG, &config, &[], "CONFIG"),
        (Code::GET_INFLIGHT_FD, &area, &[], "INFLIGHT_SHMFD"),
        (Code::SET_INFLIGHT_FD, &area, &[1], "INFLIGHT_SHMFD"),
        (Code::GET_MAX_MEM_SLOTS, &[], &[], "CONFIGURE_MEM_SLOTS"),
        (Code::ADD_MEM_REG, &add, &[1], "CONFIGURE_MEM_SLOTS"),
        (Code::REM_MEM_REG, &add, &[], "CONFIGURE_MEM_SLOTS"),
    ] {
        let mut back = BackEnd::new(OFFER);
        deliver(&mut back, &message(code, VERSION, payload), fds);
        let error = back.poll_request().unwrap_err();
        assert_eq!(error.violation, Violation::NotNegotiated { feature });
        assert_eq!(discarded(&mut back), fds);
    }
    for (code, fds, feature) in [
        (Code::GET_QUEUE_NUM, &[][..], "MQ"),
        (Code::SET_BACKEND_REQ_FD, &[1], "BACKEND_REQ"),
        (Code::RESET_DEVICE, &[], "RESET_DEVICE"),
    ] {
        let mut back = BackEnd::new(Offer { protocol_features: 0, ..OFFER });
        deliver(&mut back, &message(code, VERSION, &[]), fds);
        let error = back.poll_request().unwrap_err();
        assert_eq!(error.violation, Violation::NotOffered { feature });
    }
}

#[test]
fn a_running_ring_keeps_its_size_base_and_in_flight_area() {
    let area = inflight(1, 128);
    for (request, expected) in [
        (Request::SetVringNum { ring: 0, num: 64 }, Violation::RingRunning(0)),
        (Request::SetVringBase { ring: 0, base: 1 }, Violation::RingRunning(0)),
        (Request::SetInflightFd(area, 9), Violation::RingsRunning),
    ] {
        let mut back = negotiated();
        for set_up in [
            Request::SetVringNum { ring: 0, num: 128 },
            Request::SetVringAddr { ring: 0, addresses: ADDRESSES },
            Request::SetVringKick { ring: 0, fd: Some(1) },
            Request::SetVringEnable { ring: 0, enable: true },
        ] {
            let set_up = set_up.encode();
            let bytes = message(set_up.code, VERSION, &set_up.payload);
            let ticket = inbound(&mut back, &bytes, &set_up.fds).ticket;
            back.reply(ticket, Reply::Done);
        }
        let request = request.encode();
        deliver(&mut back, &message(request.code, VERSION, &request.payload), &request.fds);
        assert_eq!(back.poll_request().unwrap_err().violation, expected);
        assert_eq!(discarded(&mut back), request.fds);
    }
}

/// Older front ends send a descriptor with REM_MEM_REG; the protocol says to close it.
#[test]
fn the_needless_descriptor_of_rem_mem_reg_is_given_back() {
    let mut back = negotiated();
    for (request, fds) in
        [(Request::AddMemReg(region(0), 5), [5]), (Request::RemMemReg(region(0)), [6])]
    {
        let request = request.encode();
        let bytes = message(request.code, VERSION, &request.payload);
        let ticket = inbound(&mut back, &bytes, &fds).ticket;
        back.reply(ticket, Reply::Done);
    }
    assert_eq!(discarded(&mut back), [6]);
    assert!(back.memory().is_empty());
}

#[test]
fn a_connection_may_end_between_messages_only() {
    let bytes = message(Code::SET_FEATURES, VERSION, &[0; 8]);
    assert_eq!(negotiated().handle_end_of_stream(), Ok(()));
    for (cut, subject, expected) in [
        (1, Subject::Header, 12),
        (11, Subject::Header, 12),
        (12, Subject::FrontEnd(Code::SET_FEATURES), 20),
        (19, Subject::FrontEnd(Code::SET_FEATURES), 20),
    ] {
        let mut back = negotiated();
        deliver(&mut back, &bytes[..cut], &[3]);
        let violation = Violation::Truncated { received: cut, expected };
        assert_eq!(back.handle_end_of_stream(), Err(Error { subject, violation }));
        assert_eq!(discarded(&mut back), [3]);
    }
    // Whoever hangs up while we are busy has done nothing wrong.
    let mut back = negotiated();
    let ticket = inbound(&mut back, &bytes, &[]).ticket;
    assert_eq!(back.handle_end_of_stream(), Ok(()));
    back.reply(ticket, Reply::Done);
}

#[test]
fn errors_name_the_request_and_the_fault() {
    let error = Error {
        subject: Subject::FrontEnd(Code::SET_VRING_NUM),
        violation: Violation::RingSize { num: 100, max: 1024 },
    };
    assert_eq!(
        error.to_string(),
        "vhost-user SET_VRING_NUM: 100 descriptors in a ring; a power of two up to 1024 is allowed"
    );
    let error = Error { subject: Subject::FrontEnd(Code(77)), violation: Violation::Unsupported };
    assert!(error.to_string().starts_with("vhost-user request 77: "));
}
