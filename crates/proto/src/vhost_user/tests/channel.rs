//! Both sides of the back-end channel against each other.

use super::*;
use wire::vhost_user::BackEndRequest;

fn carry(back: &mut BackEndChannel<Fd>, front: &mut FrontEndChannel<Fd>) {
    loop {
        let there = back.transmit().map(|it| it.bytes[..1].to_vec()).unwrap_or_default();
        if !there.is_empty() && front.wanted() > 0 {
            front.handle_input(&there, []);
            back.handle_transmitted(1);
            continue;
        }
        let answer = front.transmit().map(|it| it.bytes[..1].to_vec()).unwrap_or_default();
        if answer.is_empty() || back.wanted() == 0 {
            return;
        }
        back.handle_input(&answer, []);
        front.handle_transmitted(1);
    }
}

#[test]
fn a_change_is_told_and_acknowledged_byte_by_byte() {
    let (mut back, mut front) = (BackEndChannel::new(true), FrontEndChannel::default());
    back.config_changed();
    carry(&mut back, &mut front);
    assert_eq!(front.poll_config_change(), Ok(true));
    assert_eq!(back.poll_acknowledged(), Ok(None));
    carry(&mut back, &mut front);
    assert_eq!(back.poll_acknowledged(), Ok(Some(0)));
    assert_eq!(back.poll_acknowledged(), Ok(None));
    assert_eq!(front.poll_config_change(), Ok(false));
}

#[test]
fn without_reply_ack_nothing_is_awaited() {
    let (mut back, mut front) = (BackEndChannel::new(false), FrontEndChannel::default());
    for _ in 0..2 {
        back.config_changed();
        carry(&mut back, &mut front);
        assert_eq!(front.poll_config_change(), Ok(true));
        assert!(front.transmit().is_none());
    }
}

#[test]
fn changes_coalesce_while_one_is_under_way() {
    let (mut back, mut front) = (BackEndChannel::new(true), FrontEndChannel::default());
    for _ in 0..100 {
        back.config_changed();
    }
    let mut told = 0;
    for _ in 0..10 {
        carry(&mut back, &mut front);
        told += usize::from(front.poll_config_change().unwrap());
        carry(&mut back, &mut front);
        back.poll_acknowledged().unwrap();
    }
    // The one that was under way, and one for all that came after it.
    assert_eq!(told, 2);
}

#[test]
fn a_suspended_device_is_silent_and_tells_later() {
    let mut back = BackEndChannel::<Fd>::new(true);
    back.set_suspended(true);
    back.config_changed();
    assert!(back.transmit().is_none());
    back.set_suspended(false);
    assert_eq!(back.transmit().unwrap().bytes.len(), 12);
}

#[test]
fn wrong_messages_are_named() {
    let change = BackEndRequest::CONFIG_CHANGE_MSG;
    let send = |code: BackEndRequest, flags, payload: &[u8]| {
        message(FrontEndRequest(code.0), flags, payload)
    };
    let number = [0; 8];
    let size = Violation::PayloadSize { size: 4, expected: "8" };
    for (bytes, fds, violation) in [
        (send(change, VERSION, &number), vec![], Violation::ReplyFlagMissing),
        (send(change, REPLY, &number[..4]), vec![], size),
        (send(BackEndRequest::VRING_CALL, REPLY, &number), vec![], Violation::Unsupported),
        (send(change, REPLY, &number), vec![], Violation::Unsolicited),
        (
            send(change, REPLY, &number),
            vec![4],
            Violation::FileDescriptors { count: 1, min: 0, max: 0 },
        ),
    ] {
        let mut back = BackEndChannel::<Fd>::new(true);
        back.handle_input(&bytes[..12], fds.clone());
        if back.wanted() > 0 {
            back.handle_input(&bytes[12..], []);
        }
        let error = back.poll_acknowledged().unwrap_err();
        assert_eq!(error.violation, violation);
        assert_eq!(back.poll_acknowledged().unwrap_err(), error);
        assert_eq!(std::iter::from_fn(|| back.poll_discarded()).collect::<Vec<_>>(), fds);
        // A dead channel swallows later changes without growing.
        back.config_changed();
        assert!(back.transmit().is_none());
    }
    let mut front = FrontEndChannel::<Fd>::default();
    front.handle_input(&send(BackEndRequest::IOTLB_MSG, VERSION, &[]), []);
    let error = front.poll_config_change().unwrap_err();
    assert_eq!(error.to_string().split(':').next(), Some("vhost-user back-end request IOTLB_MSG"));
}
