//! Stream sockets through the ring: `net` on the real machine.
//!
//! What an operation uses (list of parts, message header, pin on the memory, the socket) lies in a
//! [`Slot`] that the ring keeps until the completion. A stream uses one slot per direction again
//! and again, so steady traffic allocates nothing.

use std::cell::RefCell;
use std::io;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use block::{MemPin, Part, Sgl};
use io_uring::{opcode, squeue, types};

use super::check;
use super::ring::Submitted;
use super::socket::retry;
use crate::core::Core;
use crate::net::Address;

/// Most parts and bytes that one operation moves; callers ask again.
const PARTS_MAX: usize = 1024;
const BYTES_MAX: usize = 1 << 30;

pub(crate) struct Listener {
    core: Core,
    socket: Listening,
}

enum Listening {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Listener {
    pub(crate) fn bind(core: &Core, address: &Address) -> io::Result<Self> {
        let socket = match address {
            Address::Tcp(address) => {
                let socket = TcpListener::bind(address)?;
                socket.set_nonblocking(true)?;
                Listening::Tcp(socket)
            }
            Address::Unix(path) => {
                let socket = UnixListener::bind(path)?;
                socket.set_nonblocking(true)?;
                Listening::Unix(socket)
            }
        };
        Ok(Self { core: core.clone(), socket })
    }

    pub(crate) fn address(&self) -> io::Result<Address> {
        match &self.socket {
            Listening::Tcp(socket) => socket.local_addr().map(Address::Tcp),
            Listening::Unix(socket) => Ok(unix_address(socket.local_addr()?.as_pathname())),
        }
    }

    /// Waits for readiness and accepts by a call: an accept in the ring whose future is dropped
    /// would lose the connection that it was about to give.
    pub(crate) async fn accept(&self) -> io::Result<Socket> {
        match &self.socket {
            Listening::Tcp(socket) => {
                let fd = socket.as_raw_fd();
                let accepted = retry(&self.core, fd, libc::POLLIN, || socket.accept()).await;
                accepted.map(|(socket, _)| Socket::Tcp(socket))
            }
            Listening::Unix(socket) => {
                let fd = socket.as_raw_fd();
                let accepted = retry(&self.core, fd, libc::POLLIN, || socket.accept()).await;
                accepted.map(|(socket, _)| Socket::Unix(socket))
            }
        }
    }
}

pub(crate) struct Stream {
    core: Core,
    socket: Rc<Socket>,
    sending: RefCell<Option<Rc<Slot>>>,
    receiving: RefCell<Option<Rc<Slot>>>,
}

pub(crate) enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Socket {
    fn fd(&self) -> RawFd {
        match self {
            Self::Tcp(socket) => socket.as_raw_fd(),
            Self::Unix(socket) => socket.as_raw_fd(),
        }
    }
}

/// What the kernel uses during one operation.
struct Slot {
    parts: Vec<Part>,
    header: libc::msghdr,
    pin: Option<MemPin>,
    _socket: Rc<Socket>,
}

#[derive(Clone, Copy)]
enum Way {
    Out,
    In,
}

impl Stream {
    pub(crate) fn open(core: &Core, socket: Socket) -> io::Result<Self> {
        if let Socket::Tcp(socket) = &socket {
            // Every message here is complete when it is sent: none waits for a next one to fill a
            // packet.
            socket.set_nodelay(true)?;
        }
        let core = core.clone();
        let (sending, receiving) = (RefCell::default(), RefCell::default());
        Ok(Self { core, socket: Rc::new(socket), sending, receiving })
    }

    /// An error means that there is no connection any more: what was asked for.
    pub(crate) fn shutdown(&self) {
        let _ = match &*self.socket {
            Socket::Tcp(socket) => socket.shutdown(Shutdown::Both),
            Socket::Unix(socket) => socket.shutdown(Shutdown::Both),
        };
    }

    pub(crate) async fn connect(core: &Core, address: &Address) -> io::Result<Self> {
        let (family, kernels) = kernel_address(address)?;
        // SAFETY: no pointers.
        let fd = check(unsafe { libc::socket(family, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0) })?;
        // SAFETY: just made, owned by nobody else.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        let kept = Rc::new((kernels, fd));
        let (name, len) = (&raw const kept.0.storage, kept.0.len);
        let entry = opcode::Connect::new(types::Fd(kept.1.as_raw_fd()), name.cast(), len).build();
        let result = Submitted::new(core, entry, Some(kept.clone())).await;
        if result < 0 {
            return Err(io::Error::from_raw_os_error(-result));
        }
        let fd = kept.1.try_clone()?;
        let socket = match address {
            Address::Tcp(_) => Socket::Tcp(fd.into()),
            Address::Unix(_) => Socket::Unix(fd.into()),
        };
        Self::open(core, socket)
    }

    pub(crate) fn local(&self) -> io::Result<Address> {
        match &*self.socket {
            Socket::Tcp(socket) => socket.local_addr().map(Address::Tcp),
            Socket::Unix(socket) => Ok(unix_address(socket.local_addr()?.as_pathname())),
        }
    }

    pub(crate) fn peer(&self) -> io::Result<Address> {
        match &*self.socket {
            Socket::Tcp(socket) => socket.peer_addr().map(Address::Tcp),
            Socket::Unix(socket) => Ok(unix_address(socket.peer_addr()?.as_pathname())),
        }
    }

    #[inline]
    pub(crate) async fn recv(&self, data: &Sgl<'_>) -> io::Result<usize> {
        self.transfer(Way::In, data).await
    }

    #[inline]
    pub(crate) async fn send(&self, data: &Sgl<'_>) -> io::Result<()> {
        let mut sent = 0;
        while sent < data.len() {
            sent += self.transfer(Way::Out, &data.slice(sent, data.len() - sent)).await?;
        }
        Ok(())
    }

    async fn transfer(&self, way: Way, data: &Sgl<'_>) -> io::Result<usize> {
        if data.is_empty() {
            return Ok(0);
        }
        let lane = match way {
            Way::Out => &self.sending,
            Way::In => &self.receiving,
        };
        loop {
            let slot = self.fill_slot(lane.take(), data);
            let entry = entry(self.socket.fd(), way, &slot);
            let result = Submitted::new(&self.core, entry, Some(slot.clone())).await;
            lane.replace(emptied(slot));
            match result {
                0.. => return Ok(result as usize),
                _ if [libc::EINTR, libc::EAGAIN].contains(&-result) => {}
                _ => return Err(io::Error::from_raw_os_error(-result)),
            }
        }
    }

    /// The slot of this direction, or a new one while the old one is still in use.
    fn fill_slot(&self, spare: Option<Rc<Slot>>, data: &Sgl<'_>) -> Rc<Slot> {
        let mut slot = spare.unwrap_or_else(|| {
            // SAFETY: a zeroed header is a valid one that names nothing.
            let header = unsafe { std::mem::zeroed() };
            Rc::new(Slot { parts: Vec::new(), header, pin: None, _socket: self.socket.clone() })
        });
        let inner = Rc::get_mut(&mut slot).expect("a spare slot is nobody else's");
        let mut bytes = 0usize;
        let fitting = data.parts().take(PARTS_MAX).take_while(|part| {
            bytes = bytes.saturating_add(part.len());
            bytes <= BYTES_MAX
        });
        inner.parts.extend(fitting);
        if inner.parts.is_empty() {
            let first = data.parts().next().expect("there is data");
            inner.parts.push(Part::new(first.at(), BYTES_MAX));
        }
        inner.pin = data.pin().cloned();
        inner.header.msg_iov = inner.parts.as_mut_ptr().cast();
        inner.header.msg_iovlen = inner.parts.len();
        slot
    }
}

/// The slot for the next time, without its memory.
fn emptied(mut slot: Rc<Slot>) -> Option<Rc<Slot>> {
    let inner = Rc::get_mut(&mut slot)?;
    inner.parts.clear();
    inner.pin = None;
    Some(slot)
}

/// A single part needs no header. The whole is sent unless the connection fails.
fn entry(fd: RawFd, way: Way, slot: &Slot) -> squeue::Entry {
    let fd = types::Fd(fd);
    let flags = libc::MSG_NOSIGNAL | libc::MSG_WAITALL;
    match (way, &slot.parts[..]) {
        (Way::Out, [part]) => {
            opcode::Send::new(fd, part.at(), part.len() as u32).flags(flags).build()
        }
        (Way::In, [part]) => opcode::Recv::new(fd, part.at(), part.len() as u32).build(),
        (Way::Out, _) => opcode::SendMsg::new(fd, &slot.header).flags(flags as u32).build(),
        (Way::In, _) => opcode::RecvMsg::new(fd, (&raw const slot.header).cast_mut()).build(),
    }
}

fn unix_address(path: Option<&Path>) -> Address {
    Address::Unix(path.map_or_else(PathBuf::new, Path::to_owned))
}

/// An address as the kernel wants it.
struct KernelAddress {
    storage: libc::sockaddr_storage,
    len: libc::socklen_t,
}

fn kernel_address(address: &Address) -> io::Result<(libc::c_int, KernelAddress)> {
    // SAFETY: zeroes are a valid storage of no family.
    let mut storage: libc::sockaddr_storage = unsafe { std::mem::zeroed() };
    let at = &raw mut storage;
    let (family, len) = match address {
        Address::Tcp(SocketAddr::V4(address)) => {
            let name = libc::sockaddr_in {
                sin_family: libc::AF_INET as libc::sa_family_t,
                sin_port: address.port().to_be(),
                sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes(address.ip().octets()) },
                sin_zero: [0; 8],
            };
            // SAFETY: the storage has room and alignment for every kind of address.
            unsafe { at.cast::<libc::sockaddr_in>().write(name) };
            (libc::AF_INET, size_of::<libc::sockaddr_in>())
        }
        Address::Tcp(SocketAddr::V6(address)) => {
            let name = libc::sockaddr_in6 {
                sin6_family: libc::AF_INET6 as libc::sa_family_t,
                sin6_port: address.port().to_be(),
                sin6_flowinfo: address.flowinfo(),
                sin6_addr: libc::in6_addr { s6_addr: address.ip().octets() },
                sin6_scope_id: address.scope_id(),
            };
            // SAFETY: as above.
            unsafe { at.cast::<libc::sockaddr_in6>().write(name) };
            (libc::AF_INET6, size_of::<libc::sockaddr_in6>())
        }
        Address::Unix(path) => {
            let bytes = path.as_os_str().as_bytes();
            let mut name = libc::sockaddr_un { sun_family: libc::AF_UNIX as _, sun_path: [0; 108] };
            if bytes.len() >= name.sun_path.len() {
                let hint = format!("{} is too long for a socket: 107 bytes fit", path.display());
                return Err(io::Error::new(io::ErrorKind::InvalidInput, hint));
            }
            for (to, from) in name.sun_path.iter_mut().zip(bytes) {
                *to = *from as libc::c_char;
            }
            // SAFETY: as above.
            unsafe { at.cast::<libc::sockaddr_un>().write(name) };
            (libc::AF_UNIX, size_of::<libc::sockaddr_un>())
        }
    };
    Ok((family, KernelAddress { storage, len: len as libc::socklen_t }))
}
