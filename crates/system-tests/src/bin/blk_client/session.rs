//! A connection to the server's vhost-user socket: one request, one answer, waiting for each.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use proto::vhost_user::{FDS_PER_MESSAGE_MAX, FrontEnd, Request, Response};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use system_tests::{Context, Error, Result};

/// For a server to come, and to answer what it is asked about itself.
pub const PATIENCE: Duration = Duration::from_secs(30);
/// How often a client whose server is gone looks for another.
pub const RECONNECT: Duration = Duration::from_millis(5);

pub struct Session {
    socket: UnixStream,
    machine: FrontEnd<OwnedFd>,
}

impl Session {
    /// Connects, as soon as somebody listens.
    pub fn connect(path: &Path) -> Result<Self> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match UnixStream::connect(path) {
                Ok(socket) => {
                    socket.set_read_timeout(Some(PATIENCE))?;
                    return Ok(Self { socket, machine: FrontEnd::default() });
                }
                Err(_) if Instant::now() < deadline => thread::sleep(RECONNECT),
                Err(error) => return Err(error).context(|| format!("connect {}", path.display())),
            }
        }
    }

    pub fn number(&mut self, request: Request<OwnedFd>) -> Result<u64> {
        match self.ask(request)? {
            Response::Number(number) => Ok(number),
            other => Err(Error::new(format!("{other:?} where a number belongs"))),
        }
    }

    /// Asks for something that must be done.
    pub fn done(&mut self, request: Request<OwnedFd>) -> Result<()> {
        let name = format!("{request:?}");
        match self.ask(request)? {
            Response::Done => Ok(()),
            other => Err(Error::new(format!("{name}: {other:?}"))),
        }
    }

    pub fn ask(&mut self, request: Request<OwnedFd>) -> Result<Response<OwnedFd>> {
        let name = format!("{request:?}");
        self.exchange(request).context(|| name)
    }

    fn exchange(&mut self, request: Request<OwnedFd>) -> Result<Response<OwnedFd>> {
        self.machine.send(request);
        while let Some(transmit) = self.machine.transmit() {
            let count = send(&self.socket, transmit.bytes, transmit.fds)?;
            self.machine.handle_transmitted(count);
        }
        loop {
            while self.machine.poll_discarded().is_some() {}
            let response = self.machine.poll_response();
            if let Some(response) = response.context(|| "the server's answer".into())? {
                return Ok(response);
            }
            let (bytes, fds) = receive(&self.socket, self.machine.wanted())?;
            self.machine.handle_input(&bytes, fds);
        }
    }
}

fn send(socket: &UnixStream, bytes: &[u8], fds: &[OwnedFd]) -> Result<usize> {
    let fds: Vec<BorrowedFd<'_>> = fds.iter().map(AsFd::as_fd).collect();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_PER_MESSAGE_MAX))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(&fds)) {
        return Err(Error::new("too many file descriptors for a message"));
    }
    let slices = [IoSlice::new(bytes)];
    sendmsg(socket, &slices, &mut control, SendFlags::NOSIGNAL).context(|| "send".into())
}

fn receive(socket: &UnixStream, wanted: usize) -> Result<(Vec<u8>, Vec<OwnedFd>)> {
    let mut bytes = vec![0; wanted];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_PER_MESSAGE_MAX))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut slices = [IoSliceMut::new(&mut bytes)];
    let message = recvmsg(socket, &mut slices, &mut control, RecvFlags::CMSG_CLOEXEC);
    let count = message.context(|| "receive".into())?.bytes;
    if count == 0 {
        return Err(Error::new("the server hung up"));
    }
    let mut fds = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            fds.extend(rights);
        }
    }
    bytes.truncate(count);
    Ok((bytes, fds))
}
