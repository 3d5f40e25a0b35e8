//! Unix stream sockets with file descriptors in their messages: the control connection of
//! vhost-user.
//!
//! A call is tried at once; only when it would block does the core ask the ring for readiness. That
//! suits sockets with few, small messages. Sockets that carry data are in `stream`.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

use io_uring::{opcode, types};

use super::check;
use super::ring::Submitted;
use crate::core::Core;

/// Descriptors that one message can carry here.
pub const FDS_MAX: usize = 32;

async fn ready(core: &Core, fd: RawFd, events: libc::c_short) -> io::Result<()> {
    let entry = opcode::PollAdd::new(types::Fd(fd), events as u32).build();
    let result = Submitted::new(core, entry, None).await;
    if result < 0 { Err(io::Error::from_raw_os_error(-result)) } else { Ok(()) }
}

/// Tries until it does not block.
pub(super) async fn retry<T>(
    core: &Core,
    fd: RawFd,
    events: libc::c_short,
    mut attempt: impl FnMut() -> io::Result<T>,
) -> io::Result<T> {
    loop {
        match attempt() {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                ready(core, fd, events).await?;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}

/// A listening socket on one core.
pub struct Listener {
    core: Core,
    socket: UnixListener,
}

impl Listener {
    pub fn new(core: &Core, socket: UnixListener) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        Ok(Self { core: core.clone(), socket })
    }

    pub fn bind(core: &Core, path: &Path) -> io::Result<Self> {
        Self::new(core, UnixListener::bind(path)?)
    }

    pub async fn accept(&self) -> io::Result<Stream> {
        let fd = self.socket.as_raw_fd();
        let (socket, _) = retry(&self.core, fd, libc::POLLIN, || self.socket.accept()).await?;
        Stream::new(&self.core, socket)
    }
}

/// A connected socket on one core.
pub struct Stream {
    core: Core,
    socket: UnixStream,
}

impl Stream {
    pub fn new(core: &Core, socket: UnixStream) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        Ok(Self { core: core.clone(), socket })
    }

    pub fn connect(core: &Core, path: &Path) -> io::Result<Self> {
        Self::new(core, UnixStream::connect(path)?)
    }

    /// From a descriptor that came with a message.
    pub fn from_fd(core: &Core, fd: OwnedFd) -> io::Result<Self> {
        Self::new(core, UnixStream::from(fd))
    }

    /// Reads what is there, at least one byte; 0 at the end. Descriptors that came along are
    /// appended.
    pub async fn recv(&self, bytes: &mut [u8], fds: &mut Vec<OwnedFd>) -> io::Result<usize> {
        let fd = self.socket.as_raw_fd();
        retry(&self.core, fd, libc::POLLIN, || recv_once(fd, bytes, fds)).await
    }

    /// Writes everything; the descriptors go with the first byte.
    pub async fn send(&self, mut bytes: &[u8], mut fds: &[RawFd]) -> io::Result<()> {
        let fd = self.socket.as_raw_fd();
        while !bytes.is_empty() {
            let sent = retry(&self.core, fd, libc::POLLOUT, || send_once(fd, bytes, fds)).await?;
            bytes = &bytes[sent..];
            fds = &[];
        }
        Ok(())
    }

    /// Who is at the other end: process, user and group, as the kernel knows them.
    pub fn peer(&self) -> io::Result<Peer> {
        let mut cred = libc::ucred { pid: 0, uid: 0, gid: 0 };
        let mut len = size_of::<libc::ucred>() as libc::socklen_t;
        let (level, name) = (libc::SOL_SOCKET, libc::SO_PEERCRED);
        // SAFETY: writes at most `len` bytes into the structure of that length.
        let result = unsafe {
            let cred = (&raw mut cred).cast();
            libc::getsockopt(self.socket.as_raw_fd(), level, name, cred, &mut len)
        };
        check(result)?;
        Ok(Peer { pid: cred.pid, uid: cred.uid, gid: cred.gid })
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    pub pid: i32,
    pub uid: u32,
    pub gid: u32,
}

/// Room for the control message with `FDS_MAX` descriptors, aligned as the kernel wants it.
#[repr(C, align(8))]
struct Control([u8; 16 + FDS_MAX * 4]);

fn recv_once(fd: RawFd, bytes: &mut [u8], fds: &mut Vec<OwnedFd>) -> io::Result<usize> {
    let mut control = Control([0; 16 + FDS_MAX * 4]);
    let mut vector = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
    // SAFETY: the header points to locals that outlive the call; the kernel writes at most the
    // lengths given. Control messages are walked with the macros made for that, and each descriptor
    // found is new and ours.
    unsafe {
        let mut header: libc::msghdr = std::mem::zeroed();
        header.msg_iov = &mut vector;
        header.msg_iovlen = 1;
        header.msg_control = control.0.as_mut_ptr().cast();
        header.msg_controllen = size_of::<Control>();
        let got = libc::recvmsg(fd, &mut header, libc::MSG_CMSG_CLOEXEC);
        if got < 0 {
            return Err(io::Error::last_os_error());
        }
        let mut message = libc::CMSG_FIRSTHDR(&header);
        while let Some(current) = message.as_ref() {
            if (current.cmsg_level, current.cmsg_type) == (libc::SOL_SOCKET, libc::SCM_RIGHTS) {
                let data = libc::CMSG_DATA(message).cast::<RawFd>();
                let head = data.addr() - message.addr();
                let count = (current.cmsg_len - head) / size_of::<RawFd>();
                fds.extend(
                    (0..count).map(|index| OwnedFd::from_raw_fd(data.add(index).read_unaligned())),
                );
            }
            message = libc::CMSG_NXTHDR(&header, message);
        }
        if header.msg_flags & libc::MSG_CTRUNC != 0 {
            return Err(io::Error::other(format!(
                "a message with more than {FDS_MAX} descriptors"
            )));
        }
        Ok(got as usize)
    }
}

fn send_once(fd: RawFd, bytes: &[u8], fds: &[RawFd]) -> io::Result<usize> {
    if fds.len() > FDS_MAX {
        return Err(io::Error::other(format!("more than {FDS_MAX} descriptors in a message")));
    }
    let mut control = Control([0; 16 + FDS_MAX * 4]);
    let mut vector =
        libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    let payload = size_of_val(fds) as u32;
    // SAFETY: the header points to locals that outlive the call; the control buffer has room for
    // `FDS_MAX` descriptors.
    unsafe {
        let mut header: libc::msghdr = std::mem::zeroed();
        header.msg_iov = &mut vector;
        header.msg_iovlen = 1;
        if !fds.is_empty() {
            header.msg_control = control.0.as_mut_ptr().cast();
            header.msg_controllen = libc::CMSG_SPACE(payload) as usize;
            let message = libc::CMSG_FIRSTHDR(&header);
            (*message).cmsg_level = libc::SOL_SOCKET;
            (*message).cmsg_type = libc::SCM_RIGHTS;
            (*message).cmsg_len = libc::CMSG_LEN(payload) as usize;
            let data = libc::CMSG_DATA(message).cast::<u8>();
            data.copy_from_nonoverlapping(fds.as_ptr().cast(), payload as usize);
        }
        let sent = libc::sendmsg(fd, &header, libc::MSG_NOSIGNAL);
        if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(sent as usize) }
    }
}
