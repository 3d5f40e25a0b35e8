//! Our initiator against our target, in memory.

use crate::support::{Client, Host, Known, LUN, config, normal, talk};
use proptest::prelude::*;
use proto::iscsi::initiator::{self, Residual};
use proto::iscsi::{
    ALGORITHMS, Account, AsyncMessage, Authentication, Chap, DigestPolicy, Direction, Ended, Event,
    Secret, SessionKind, Violation, Wishes,
};
use wire::iscsi::{AsyncEvent, LoginStatus, LogoutReason, TaskFunction, TaskResponse};

const DISK_BYTES: usize = 1 << 17;

fn pattern(length: usize, seed: usize) -> Vec<u8> {
    (0..length).map(|at| (at * 31 + at / 255 + seed) as u8).collect()
}

/// Logged in, with a disk.
fn pair(ours: Wishes, theirs: Wishes) -> (Client, Host) {
    let mut host = Host::new(proto::iscsi::Config { wishes: theirs, ..config() }, Known::default());
    host.disk = Some(pattern(DISK_BYTES, 1));
    let mut client = Client::new(normal(ours));
    talk(&mut client, &mut host);
    assert_eq!(std::mem::take(&mut client.events), [initiator::Event::LoggedIn]);
    assert_eq!(std::mem::take(&mut host.events), [Event::LoggedIn]);
    assert_eq!(client.initiator.tsih(), 0x77);
    (client, host)
}

fn with_digests() -> Wishes {
    Wishes {
        header_digest: DigestPolicy::Required,
        data_digest: DigestPolicy::Required,
        max_recv_data_segment_length: 512,
        max_burst_length: 600,
        first_burst_length: 550,
        ..Wishes::default()
    }
}

/// A login, some I/O and a logout, with both directions cut into pieces of `chunk` bytes, and the
/// initiator's before its byte `cut` too. What both said.
fn whole_session(wishes: Wishes, chunk: usize, cut: Option<usize>) -> (Vec<u8>, Vec<u8>) {
    let mut host = Host::new(proto::iscsi::Config { wishes, ..config() }, Known::default());
    host.disk = Some(vec![0x3c; 3000]);
    let mut client = Client::new(normal(wishes));
    (client.chunk, host.chunk, host.cut) = (chunk, chunk, cut);
    let (mut said, mut heard) = talk(&mut client, &mut host);
    let data = pattern(905, 7);
    client.write(512, &data);
    let read = client.read(0, 700);
    client.initiator.ping();
    let (out, back) = talk(&mut client, &mut host);
    said.extend(out);
    heard.extend(back);
    let again = client.read(512, 905);
    talk(&mut client, &mut host);
    client.initiator.logout();
    let (out, back) = talk(&mut client, &mut host);
    said.extend(out);
    heard.extend(back);
    assert_eq!(client.done[&read].1.len(), 700);
    assert_eq!(client.done[&again].1, data);
    assert_eq!(client.done.len(), 3);
    let logout = Ended::Logout { reason: LogoutReason::CLOSE_SESSION };
    assert_eq!(host.target.ended(), Some(&logout));
    assert_eq!(client.initiator.ended(), Some(&logout));
    (said, heard)
}

#[test]
fn bytes_may_be_cut_anywhere() {
    for wishes in [Wishes::default(), with_digests()] {
        let whole = whole_session(wishes, usize::MAX, None);
        for chunk in [1, 2, 3, 4, 5, 7, 11, 47, 48, 49, 52, 53, 97, 511, 1000] {
            assert_eq!(whole_session(wishes, chunk, None), whole, "pieces of {chunk}");
        }
    }
}

#[test]
fn a_target_takes_up_where_it_was_cut() {
    for wishes in [Wishes::default(), with_digests()] {
        let whole = whole_session(wishes, usize::MAX, None);
        for cut in 0..whole.0.len() {
            let again = whole_session(wishes, usize::MAX, Some(cut));
            assert!(again == whole, "cut at {cut}");
        }
    }
}

#[test]
fn what_is_agreed_is_the_same_on_both_sides() {
    let ours = Wishes {
        initial_r2t: true,
        max_burst_length: 8192,
        first_burst_length: 4096,
        max_outstanding_r2t: 3,
        header_digest: DigestPolicy::Never,
        ..Wishes::default()
    };
    let (client, host) = pair(ours, with_digests_allowed());
    let mut of_client = *client.initiator.parameters();
    let of_host = host.target.parameters();
    assert_eq!(of_client.max_send_data_segment_length, 512);
    assert_eq!(of_host.max_send_data_segment_length, 262_144);
    of_client.max_send_data_segment_length = of_host.max_send_data_segment_length;
    of_client.max_recv_data_segment_length = of_host.max_recv_data_segment_length;
    assert_eq!(&of_client, of_host);
    assert!(of_host.initial_r2t && !of_host.header_digest && of_host.data_digest);
    assert_eq!((of_host.max_burst_length, of_host.max_outstanding_r2t), (600, 3));
    assert_eq!((of_host.iscsi_protocol_level, of_host.task_reporting), (2, "ResponseFence"));
}

fn with_digests_allowed() -> Wishes {
    let allowed = DigestPolicy::Allowed;
    Wishes { header_digest: allowed, data_digest: allowed, ..with_digests() }
}

fn account(name: &str, secret: &str) -> Account {
    Account { name: name.into(), secret: Secret::new(secret.as_bytes()) }
}

/// Logs in with CHAP; what ended either side, if anything did.
fn chap_login(theirs: Option<&Account>, chap: initiator::Chap) -> (Option<Ended>, Option<Ended>) {
    let demanded = Chap {
        initiator: account("host", "secret-of-the-host"),
        target: theirs.cloned(),
        algorithms: &ALGORITHMS,
    };
    let known = Known { authentication: Authentication::Chap(demanded), ..Known::default() };
    let mut host = Host::new(config(), known);
    let mut client =
        Client::new(initiator::Config { chap: Some(chap), ..normal(Wishes::default()) });
    talk(&mut client, &mut host);
    let has_failed = client.initiator.ended().is_some();
    assert_eq!(client.initiator.can_command(), !has_failed);
    assert!(has_failed || host.target.session().is_some());
    (client.initiator.ended().cloned(), host.target.ended().cloned())
}

#[test]
fn chap_lets_in_who_knows_the_secret() {
    let host = account("host", "secret-of-the-host");
    let target = account("target", "secret-of-the-target");
    for (index, _) in ALGORITHMS.iter().enumerate() {
        let algorithms = &ALGORITHMS[index..=index];
        let chap = initiator::Chap { initiator: host.clone(), target: None, algorithms };
        assert_eq!(chap_login(None, chap.clone()), (None, None));
        let mutual = initiator::Chap { target: Some(target.clone()), ..chap };
        assert_eq!(chap_login(Some(&target), mutual), (None, None));
    }
}

#[test]
fn chap_keeps_out_everybody_else() {
    let host = account("host", "secret-of-the-host");
    let target = account("target", "secret-of-the-target");
    let refused = |cause| {
        let status = LoginStatus::AUTHENTICATION_FAILURE;
        (
            Some(Ended::Refused { status, cause: Violation::Owner(status) }),
            Some(Ended::Refused { status, cause }),
        )
    };
    let one_way = |initiator| initiator::Chap { initiator, target: None, algorithms: &ALGORITHMS };
    let wrong_secret = one_way(account("host", "secret-of-the-cat"));
    assert_eq!(chap_login(None, wrong_secret), refused(Violation::ChapWrong));
    let wrong_name = one_way(account("hose", "secret-of-the-host"));
    assert_eq!(chap_login(None, wrong_name), refused(Violation::ChapWrong));
    let mutual = initiator::Chap { target: Some(target.clone()), ..one_way(host) };
    // The target has nothing to show.
    assert_eq!(chap_login(None, mutual.clone()), refused(Violation::AuthenticationMissing));
    // It shows the wrong thing: the initiator goes.
    let impostor = account("target", "secret-of-the-rat");
    let (ours, theirs) = chap_login(Some(&impostor), mutual);
    assert_eq!((ours, theirs), (Some(Ended::Violation(Violation::ChapWrong)), None));
}

#[test]
fn a_target_that_forgoes_authentication_is_not_trusted() {
    let chap = initiator::Chap {
        initiator: account("host", "secret-of-the-host"),
        target: None,
        algorithms: &ALGORITHMS,
    };
    let mut host = Host::new(config(), Known::default());
    let mut client =
        Client::new(initiator::Config { chap: Some(chap), ..normal(Wishes::default()) });
    talk(&mut client, &mut host);
    assert!(client.initiator.ended().is_some());
}

#[test]
fn discovery_finds_what_the_account_may_see() {
    let mut host = Host::new(config(), Known::default());
    let kind = SessionKind::Discovery;
    let wishes = Wishes { max_recv_data_segment_length: 512, ..Wishes::default() };
    let mut client = Client::new(initiator::Config { kind, ..normal(wishes) });
    talk(&mut client, &mut host);
    client.initiator.discover();
    talk(&mut client, &mut host);
    assert_eq!(client.events, [initiator::Event::LoggedIn, initiator::Event::Found],);
    let found = client.initiator.take_found();
    assert_eq!(found[0].name, crate::support::TARGET);
    assert_eq!(found[0].addresses, ["192.0.2.1:3260,1", "[2001:db8::1]:3261,2"]);
}

#[test]
fn a_moved_target_is_followed_by_the_owner() {
    let mut host = Host::new(config(), Known::default());
    let kind = SessionKind::Normal { target: "iqn.2026-11.org.viaduct:moved".into() };
    let mut client = Client::new(initiator::Config { kind, ..normal(Wishes::default()) });
    talk(&mut client, &mut host);
    let moved = Ended::Moved {
        status: LoginStatus::TARGET_MOVED_TEMPORARILY,
        address: "[2001:db8::9]:3260".into(),
    };
    assert_eq!(client.initiator.ended(), Some(&moved));
}

#[test]
fn task_management_and_messages_reach_the_other_side() {
    let (mut client, mut host) = pair(Wishes::default(), Wishes::default());
    host.disk = None;
    let first = client.read(0, 512);
    let second = client.read(512, 512);
    talk(&mut client, &mut host);
    let tag = client.initiator.manage(TaskFunction::ABORT_TASK, LUN, Some(first));
    talk(&mut client, &mut host);
    let events = std::mem::take(&mut host.events);
    let [Event::Command { task: a, .. }, Event::Command { task: b, .. }, Event::Manage(id)] =
        events[..]
    else {
        panic!("{events:?}")
    };
    assert_eq!(host.target.affected(id), [a]);
    // The answer is held back until the task has gone.
    host.target.manage(id, TaskResponse::FUNCTION_COMPLETE);
    talk(&mut client, &mut host);
    assert!(client.events.is_empty());
    host.target.abort(a);
    talk(&mut client, &mut host);
    let response = TaskResponse::FUNCTION_COMPLETE;
    assert_eq!(client.events, [initiator::Event::Managed { tag, response }]);
    client.events.clear();
    assert_eq!(client.initiator.take_aborted(), [first]);
    host.target.tell(AsyncMessage::Scsi { lun: LUN, sense: &[0x72, 6, 0x2a, 9] });
    host.target.tell(AsyncMessage::RequestLogout { within_s: 30 });
    talk(&mut client, &mut host);
    let told = |event, parameters| initiator::Event::Told { event, parameters };
    assert_eq!(
        client.events,
        [told(AsyncEvent::SCSI_EVENT, [0, 0, 0]), told(AsyncEvent::LOGOUT_REQUEST, [0, 0, 30]),],
    );
    host.respond_read_unsent(b, &[9; 512]);
    talk(&mut client, &mut host);
    assert_eq!(client.done[&second].1, [9; 512]);
    host.target.tell(AsyncMessage::Drop { wait_s: 0 });
    talk(&mut client, &mut host);
    assert_eq!(client.initiator.ended(), Some(&Ended::Dropped));
    assert_eq!(host.target.ended(), Some(&Ended::Dropped));
}

/// What is sent behind a request that is not counted did not come before it, on either side.
#[test]
fn a_reset_ends_what_was_sent_before_it() {
    let (mut client, mut host) = pair(Wishes::default(), Wishes::default());
    host.disk = None;
    let before = client.read(0, 512);
    let tag = client.initiator.manage(TaskFunction::LOGICAL_UNIT_RESET, LUN, None);
    let after = client.read(512, 512);
    talk(&mut client, &mut host);
    let events = std::mem::take(&mut host.events);
    let [Event::Command { task: a, .. }, Event::Manage(id), Event::Command { task: b, .. }] =
        events[..]
    else {
        panic!("{events:?}")
    };
    assert_eq!(host.target.affected(id), [a]);
    host.target.abort(a);
    host.target.manage(id, TaskResponse::FUNCTION_COMPLETE);
    host.respond_read_unsent(b, &[9; 512]);
    talk(&mut client, &mut host);
    let response = TaskResponse::FUNCTION_COMPLETE;
    assert_eq!(client.events, [initiator::Event::Managed { tag, response }]);
    assert_eq!(client.initiator.take_aborted(), [before]);
    assert_eq!(client.done.keys().collect::<Vec<_>>(), [&after]);
    assert_eq!(client.initiator.command_count(), 0);
}

#[test]
fn sense_data_and_residuals_arrive() {
    let (mut client, mut host) = pair(Wishes::default(), Wishes::default());
    host.disk = None;
    for (direction, length, moved, wanted, sense, residual) in [
        (Direction::In, 1000, 600_u32, 600_u64, &[][..], Residual::Underflow(400)),
        (Direction::In, 1000, 1000, 5000, &[], Residual::Overflow(4000)),
        (Direction::In, 1000, 1000, 1000, &[], Residual::None),
        (Direction::In, 512, 0, 0, &[0x70, 0, 5], Residual::Underflow(512)),
        (Direction::In, 512, 100, 512, &[0x70, 0, 3], Residual::Underflow(412)),
        (Direction::Out, 512, 0, 0, &[0x70, 0, 5], Residual::Underflow(512)),
        (Direction::Out, 512, 512, 512, &[], Residual::None),
        (Direction::None, 0, 0, 0, &[], Residual::None),
        (Direction::None, 0, 0, 36, &[], Residual::Overflow(36)),
        (Direction::In, 4, 4, u64::MAX, &[], Residual::Overflow(u32::MAX)),
    ] {
        let task = client.command(0, 0, direction, length);
        client.writes.insert(task, vec![0; length as usize]);
        talk(&mut client, &mut host);
        let theirs = host.target.tasks().next().unwrap();
        host.events.clear();
        host.reads.insert(theirs, vec![7; moved as usize]);
        let status = if sense.is_empty() { 0 } else { 2 };
        host.target.respond(theirs, &proto::iscsi::Answer { status, moved, wanted, sense });
        talk(&mut client, &mut host);
        let (outcome, data) = &client.done[&task];
        assert_eq!((outcome.status, outcome.residual), (status, residual));
        let expected = if direction == Direction::In { moved as usize } else { 0 };
        assert_eq!(data.len(), expected);
        assert_eq!(client.initiator.sense(), sense);
    }
}

fn lengths() -> impl Strategy<Value = u32> {
    prop_oneof![512_u32..600, 512_u32..8192, Just(65536), Just(262_144)]
}

fn policy() -> impl Strategy<Value = DigestPolicy> {
    prop_oneof![Just(DigestPolicy::Never), Just(DigestPolicy::Allowed)]
}

prop_compose! {
    fn wishes()(
        header_digest in policy(),
        data_digest in policy(),
        initial_r2t in any::<bool>(),
        immediate_data in any::<bool>(),
        max_recv_data_segment_length in lengths(),
        max_burst_length in lengths(),
        first_burst_length in lengths(),
        max_outstanding_r2t in 1_u32..9,
    ) -> Wishes {
        Wishes {
            header_digest,
            data_digest,
            initial_r2t,
            immediate_data,
            max_recv_data_segment_length,
            max_burst_length,
            first_burst_length: first_burst_length.min(max_burst_length),
            default_time2wait_s: 2,
            default_time2retain_s: 0,
            max_outstanding_r2t,
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    /// RFC 7143, 11.4.5: what was expected, what was moved and what the command wanted.
    #[test]
    fn residuals_are_the_difference(
        expected in 0_u32..3000,
        moved in 0_u32..3000,
        more in prop_oneof![Just(0_u64), 0_u64..3000, any::<u32>().prop_map(u64::from)],
        reads in any::<bool>(),
    ) {
        let moved = moved.min(expected);
        let wanted = u64::from(moved) + more;
        let (mut client, mut host) = pair(Wishes::default(), Wishes::default());
        host.disk = None;
        let direction = if reads { Direction::In } else { Direction::Out };
        let task = client.command(0, 0, direction, expected);
        client.writes.insert(task, vec![0; expected as usize]);
        talk(&mut client, &mut host);
        let theirs = host.target.tasks().next().unwrap();
        host.reads.insert(theirs, vec![7; moved as usize]);
        let answer = proto::iscsi::Answer { status: 0, moved, wanted, sense: &[] };
        host.target.respond(theirs, &answer);
        talk(&mut client, &mut host);
        let over = wanted.saturating_sub(u64::from(expected));
        let residual = match (over, expected - moved) {
            (1.., _) => Residual::Overflow(u32::try_from(over).unwrap_or(u32::MAX)),
            (0, 0) => Residual::None,
            (0, under) => Residual::Underflow(under),
        };
        prop_assert_eq!(client.done[&task].0.residual, residual);
    }

    /// Whatever is agreed on, data arrives whole, every command is answered once, and the window
    /// is never left.
    #[test]
    fn all_data_arrives_under_all_parameters(
        ours in wishes(),
        theirs in wishes(),
        window in 1_u16..12,
        chunk in 1_usize..5000,
        steps in prop::collection::vec((any::<bool>(), 0_u32..60_000, 0_u32..20_000), 1..20),
    ) {
        let config = proto::iscsi::Config { wishes: theirs, window, ..config() };
        let mut host = Host::new(config, Known::default());
        host.disk = Some(pattern(DISK_BYTES, 1));
        let mut expected = pattern(DISK_BYTES, 1);
        let mut client = Client::new(normal(ours));
        (client.chunk, host.chunk) = (chunk, chunk);
        talk(&mut client, &mut host);
        let mut count = 0;
        for (index, (is_write, at, length)) in steps.into_iter().enumerate() {
            if !client.initiator.can_command() {
                prop_assert!(client.initiator.command_count() > 0);
                talk(&mut client, &mut host);
                prop_assert_eq!(client.initiator.command_count(), 0);
            }
            let range = at as usize..(at + length) as usize;
            if is_write {
                let data = pattern(length as usize, index);
                client.write(at, &data);
                // A write of the same place under way would be as good before as after.
                talk(&mut client, &mut host);
                expected[range].copy_from_slice(&data);
            } else {
                let task = client.read(at, length);
                if index % 3 == 0 {
                    talk(&mut client, &mut host);
                    prop_assert_eq!(&client.done[&task].1, &expected[range]);
                }
            }
            count += 1;
        }
        talk(&mut client, &mut host);
        prop_assert_eq!(client.done.len(), count);
        prop_assert!(client.done.values().all(|(outcome, _)| outcome.status == 0));
        prop_assert!(client.done.values().all(|(it, _)| it.residual == Residual::None));
        prop_assert_eq!(host.disk.as_ref(), Some(&expected));
        prop_assert_eq!(host.target.tasks().count(), 0);
        prop_assert!(host.target.ended().is_none() && client.initiator.ended().is_none());
    }
}
