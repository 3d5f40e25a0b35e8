//! A blocking pump between a machine and a socket, and files that can be told apart.

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use proto::vhost_user::{BackEnd, Error, FDS_PER_MESSAGE_MAX, Inbound, Transmit};

/// Reads at most `wanted` bytes. No bytes means that the peer has closed the connection.
pub fn receive(socket: &UnixStream, wanted: usize) -> (Vec<u8>, Vec<OwnedFd>) {
    let mut bytes = vec![0; wanted];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_PER_MESSAGE_MAX))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut slices = [IoSliceMut::new(&mut bytes)];
    let count = match recvmsg(socket, &mut slices, &mut control, RecvFlags::CMSG_CLOEXEC) {
        Ok(message) => message.bytes,
        Err(rustix::io::Errno::CONNRESET) => 0,
        Err(errno) => panic!("receive: {errno}"),
    };
    let mut fds = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            fds.extend(rights);
        }
    }
    bytes.truncate(count);
    (bytes, fds)
}

/// Sends what a machine has to send; returns how much of it was taken.
pub fn send(socket: &UnixStream, transmit: &Transmit<'_, OwnedFd>) -> usize {
    let fds: Vec<BorrowedFd<'_>> = transmit.fds.iter().map(AsFd::as_fd).collect();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_PER_MESSAGE_MAX))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() {
        assert!(control.push(SendAncillaryMessage::ScmRights(&fds)));
    }
    let slices = [IoSlice::new(transmit.bytes)];
    sendmsg(socket, &slices, &mut control, SendFlags::NOSIGNAL).unwrap()
}

/// Runs a back end until the next request for its owner; None when the front end has hung up.
pub fn next_request(
    back: &mut BackEnd<OwnedFd>,
    socket: &UnixStream,
) -> Result<Option<Inbound<OwnedFd>>, Error> {
    loop {
        if let Some(inbound) = back.poll_request()? {
            return Ok(Some(inbound));
        }
        if let Some(transmit) = back.transmit() {
            let count = send(socket, &transmit);
            back.handle_transmitted(count);
            continue;
        }
        while let Some(fd) = back.poll_discarded() {
            drop(fd);
        }
        let (bytes, fds) = receive(socket, back.wanted());
        if bytes.is_empty() {
            return back.handle_end_of_stream().map(|()| None);
        }
        back.handle_input(&bytes, fds);
    }
}

/// A file in memory, and what tells it from others.
pub fn file(name: &str) -> (OwnedFd, u64) {
    let file = rustix::fs::memfd_create(name, rustix::fs::MemfdFlags::CLOEXEC).unwrap();
    let inode = inode(&file);
    (file, inode)
}

pub fn inode(file: impl AsFd) -> u64 {
    rustix::fs::fstat(file).unwrap().st_ino
}
