//! Our side of the back-end channel against the `vhost` crate's front end. (Its back end cannot
//! send a configuration change, so our front end's side has no oracle here.)

use std::io::ErrorKind;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex};

use proto::vhost_user::{BackEnd, BackEndChannel, Reply, Request};
use vhost::VhostBackend;
use vhost::vhost_user::message::VhostUserProtocolFeatures;
use vhost::vhost_user::{
    Frontend, FrontendReqHandler, HandlerResult, VhostUserFrontend, VhostUserFrontendReqHandlerMut,
};

use super::back_end::OFFER;
use super::socket;

struct Counter {
    changes: usize,
    fails: bool,
}

impl VhostUserFrontendReqHandlerMut for Counter {
    fn handle_config_change(&mut self) -> HandlerResult<u64> {
        self.changes += 1;
        if self.fails { Err(ErrorKind::Other.into()) } else { Ok(0) }
    }
}

struct Raw(RawFd);

impl AsRawFd for Raw {
    fn as_raw_fd(&self) -> RawFd {
        self.0
    }
}

/// Hands a channel over a session, as a front end does.
fn hand_over(channel: RawFd) -> UnixStream {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let server = std::thread::spawn(move || {
        let mut back = BackEnd::<OwnedFd>::new(OFFER);
        let inbound = socket::next_request(&mut back, &ours).unwrap().expect("a request");
        let Request::SetBackendReqFd(fd) = inbound.request else { panic!("{:?}", inbound.request) };
        back.reply(inbound.ticket, Reply::Done);
        UnixStream::from(fd)
    });
    let mut front = Frontend::from_stream(theirs, 1);
    front.get_features().unwrap();
    front.set_protocol_features(VhostUserProtocolFeatures::BACKEND_REQ).unwrap();
    front.set_backend_request_fd(&Raw(channel)).unwrap();
    server.join().unwrap()
}

/// Tells of so many changes, one after the other; returns what the front end counted and how it
/// answered each.
fn tell(changes: usize, reply_ack: bool, fails: bool) -> (usize, Vec<u64>) {
    let counter = Arc::new(Mutex::new(Counter { changes: 0, fails }));
    let mut front = FrontendReqHandler::new(counter.clone()).unwrap();
    front.set_reply_ack_flag(reply_ack);
    let socket = hand_over(front.get_tx_raw_fd());
    let mut channel = BackEndChannel::<OwnedFd>::new(reply_ack);
    let mut answers = Vec::new();
    for _ in 0..changes {
        channel.config_changed();
        while let Some(transmit) = channel.transmit() {
            let count = socket::send(&socket, &transmit);
            channel.handle_transmitted(count);
        }
        assert_eq!(front.handle_request().is_err(), fails);
        if reply_ack {
            answers.push(acknowledgement(&mut channel, &socket));
        }
    }
    (counter.lock().unwrap().changes, answers)
}

fn acknowledgement(channel: &mut BackEndChannel<OwnedFd>, socket: &UnixStream) -> u64 {
    loop {
        if let Some(answer) = channel.poll_acknowledged().unwrap() {
            return answer;
        }
        let (bytes, fds) = socket::receive(socket, channel.wanted());
        channel.handle_input(&bytes, fds);
    }
}

#[test]
fn changes_arrive_and_are_acknowledged() {
    assert_eq!(tell(3, true, false), (3, vec![0; 3]));
}

#[test]
fn changes_arrive_without_acknowledgement() {
    assert_eq!(tell(3, false, false), (3, vec![]));
}

#[test]
fn a_front_end_that_fails_says_so() {
    let (changes, answers) = tell(1, true, true);
    assert_eq!(changes, 1);
    assert!(answers.len() == 1 && answers[0] != 0);
}
