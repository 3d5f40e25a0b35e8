//! The front end's side of the socket, blocking: one request, one answer.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;

use proto::vhost_user::{FDS_PER_MESSAGE_MAX, FrontEnd, Request, Response};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};

use super::PATIENCE;

/// The back end has closed the connection.
#[derive(Debug, PartialEq, Eq)]
pub struct Gone;

pub struct Client {
    socket: UnixStream,
    machine: FrontEnd<OwnedFd>,
}

impl Client {
    pub fn connect(path: &Path) -> Self {
        let socket = UnixStream::connect(path).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Self { socket, machine: FrontEnd::default() }
    }

    /// Asks and expects an answer of some kind.
    pub fn ask(&mut self, request: Request<OwnedFd>) -> Response<OwnedFd> {
        let name = format!("{request:?}");
        self.try_ask(request).unwrap_or_else(|Gone| panic!("the back end hung up on {name}"))
    }

    /// Asks for something that must be done.
    pub fn done(&mut self, request: Request<OwnedFd>) {
        let name = format!("{request:?}");
        let response = self.ask(request);
        assert!(matches!(response, Response::Done), "{name}: {response:?}");
    }

    pub fn number(&mut self, request: Request<OwnedFd>) -> u64 {
        match self.ask(request) {
            Response::Number(number) => number,
            other => panic!("{other:?} where a number belongs"),
        }
    }

    pub fn try_ask(&mut self, request: Request<OwnedFd>) -> Result<Response<OwnedFd>, Gone> {
        self.send(request)?;
        self.answer()
    }

    /// Asks without waiting for the answer.
    pub fn send(&mut self, request: Request<OwnedFd>) -> Result<(), Gone> {
        self.machine.send(request);
        while let Some(transmit) = self.machine.transmit() {
            let count = send(&self.socket, transmit.bytes, transmit.fds)?;
            self.machine.handle_transmitted(count);
        }
        while self.machine.poll_discarded().is_some() {}
        Ok(())
    }

    /// Waits for the answer to the request under way.
    pub fn answer(&mut self) -> Result<Response<OwnedFd>, Gone> {
        loop {
            if let Some(response) = self.machine.poll_response().expect("a correct back end") {
                return Ok(response);
            }
            let (bytes, fds) = receive(&self.socket, self.machine.wanted())?;
            self.machine.handle_input(&bytes, fds);
        }
    }

    /// Whether an answer, or the end, lies in the socket now.
    pub fn has_news(&self) -> bool {
        let mut fds = [PollFd::new(&self.socket, PollFlags::IN)];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        poll(&mut fds, Some(&now)).unwrap() > 0
    }

    /// Bytes and descriptors past the machine.
    pub fn send_raw(&self, bytes: &[u8], fds: &[OwnedFd]) -> Result<usize, Gone> {
        send(&self.socket, bytes, fds)
    }

    /// Waits until the back end hangs up; how many bytes it said before.
    pub fn wait_gone(&self) -> usize {
        let mut count = 0;
        while let Ok((bytes, _)) = receive(&self.socket, 4096) {
            count += bytes.len();
        }
        count
    }

    /// Closes the connection; for a client that is replaced later.
    pub fn hang_up(&mut self) {
        // The other end of the new pair is closed at once.
        self.socket = UnixStream::pair().unwrap().0;
    }

    /// Says this again and again until the other side takes no more of it.
    pub fn fill_with(&self, bytes: &[u8]) {
        self.socket.set_nonblocking(true).unwrap();
        let is_stuck = |socket: &UnixStream| {
            let mut fds = [PollFd::new(socket, PollFlags::OUT)];
            let limit = Timespec { tv_sec: 0, tv_nsec: 50_000_000 };
            poll(&mut fds, Some(&limit)).unwrap() == 0
        };
        while !is_stuck(&self.socket) {
            while self.send_raw(bytes, &[]) == Ok(bytes.len()) {}
        }
        self.socket.set_nonblocking(false).unwrap();
    }
}

fn receive(socket: &UnixStream, wanted: usize) -> Result<(Vec<u8>, Vec<OwnedFd>), Gone> {
    let mut bytes = vec![0; wanted];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_PER_MESSAGE_MAX))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut slices = [IoSliceMut::new(&mut bytes)];
    let count = match recvmsg(socket, &mut slices, &mut control, RecvFlags::CMSG_CLOEXEC) {
        Ok(message) if message.bytes > 0 => message.bytes,
        Ok(_) | Err(rustix::io::Errno::CONNRESET) => return Err(Gone),
        Err(errno) => panic!("no answer: {errno}"),
    };
    let mut fds = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            fds.extend(rights);
        }
    }
    bytes.truncate(count);
    Ok((bytes, fds))
}

fn send(socket: &UnixStream, bytes: &[u8], fds: &[OwnedFd]) -> Result<usize, Gone> {
    let fds: Vec<BorrowedFd<'_>> = fds.iter().map(AsFd::as_fd).collect();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(64))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() {
        assert!(control.push(SendAncillaryMessage::ScmRights(&fds)));
    }
    match sendmsg(socket, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL) {
        Ok(count) => Ok(count),
        Err(rustix::io::Errno::PIPE | rustix::io::Errno::CONNRESET) => Err(Gone),
        Err(rustix::io::Errno::AGAIN) => Ok(0),
        Err(errno) => panic!("send: {errno}"),
    }
}
