//! Stream sockets that carry data: TCP, and Unix sockets in its place on one host.
//!
//! Bytes go between the socket and a scatter list whose memory is pinned until the kernel has let
//! go of it, so a payload is received right where it belongs. A future that is dropped may have
//! moved some bytes already: who drops one has lost its place in the stream and closes it.
//!
//! One task receives and one task sends at a time; what two of them do at once is in no order.
//! [`Inbox`] and [`Outbox`] are what the two keep beside the stream: bytes that are not yet
//! understood, and pieces that leave together.
//! Sockets that carry file descriptors are in [`os::socket`](crate::os::socket).

mod inbox;
mod outbox;

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

use block::{Buffer, Sgl};

use crate::core::Core;
use crate::os::stream as os;
use crate::sim::socket as sim;

pub use inbox::Inbox;
pub use outbox::Outbox;

/// Where to listen or to connect to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Address {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "{address}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl FromStr for Address {
    type Err = io::Error;

    fn from_str(text: &str) -> io::Result<Self> {
        if let Some(path) = text.strip_prefix("unix:") {
            return Ok(Self::Unix(path.into()));
        }
        text.parse().map(Self::Tcp).map_err(|_| {
            let hint = format!("{text:?} is neither IP:PORT, [IPv6]:PORT nor unix:PATH");
            io::Error::new(io::ErrorKind::InvalidInput, hint)
        })
    }
}

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Self {
        Self::Tcp(address)
    }
}

/// A listening socket on one core.
pub struct Listener {
    core: Core,
    socket: Listening,
}

enum Listening {
    Os(os::Listener),
    Sim(sim::Listener),
}

impl Listener {
    /// Port 0 lets the kernel choose; [`Listener::address`] tells which.
    pub fn bind(core: &Core, address: &Address) -> io::Result<Self> {
        let socket = match core.sim() {
            None => Listening::Os(os::Listener::bind(core, address)?),
            Some(_) => Listening::Sim(sim::Listener::bind(core, address)?),
        };
        Ok(Self { core: core.clone(), socket })
    }

    pub fn address(&self) -> io::Result<Address> {
        match &self.socket {
            Listening::Os(listener) => listener.address(),
            Listening::Sim(listener) => Ok(listener.address()),
        }
    }

    pub async fn accept(&self) -> io::Result<Stream> {
        self.accept_for_any().await?.open(&self.core)
    }

    /// A connection that any core of this machine may open.
    pub async fn accept_for_any(&self) -> io::Result<Accepted> {
        Ok(Accepted(match &self.socket {
            Listening::Os(listener) => AcceptedBy::Os(listener.accept().await?),
            Listening::Sim(listener) => AcceptedBy::Sim(listener.accept().await?),
        }))
    }
}

/// A connection that no core serves yet.
pub struct Accepted(AcceptedBy);

enum AcceptedBy {
    Os(os::Socket),
    Sim(sim::Stream),
}

impl Accepted {
    pub fn open(self, core: &Core) -> io::Result<Stream> {
        Ok(Stream(match self.0 {
            AcceptedBy::Os(socket) => Connected::Os(os::Stream::open(core, socket)?),
            AcceptedBy::Sim(stream) => Connected::Sim(stream),
        }))
    }
}

/// A connected socket on one core.
pub struct Stream(Connected);

enum Connected {
    Os(os::Stream),
    Sim(sim::Stream),
}

impl Stream {
    pub async fn connect(core: &Core, address: &Address) -> io::Result<Self> {
        Ok(Self(match core.sim() {
            None => Connected::Os(os::Stream::connect(core, address).await?),
            Some(_) => Connected::Sim(sim::Stream::connect(core, address).await?),
        }))
    }

    pub fn local(&self) -> io::Result<Address> {
        match &self.0 {
            Connected::Os(stream) => stream.local(),
            Connected::Sim(stream) => stream.local(),
        }
    }

    pub fn peer(&self) -> io::Result<Address> {
        match &self.0 {
            Connected::Os(stream) => stream.peer(),
            Connected::Sim(stream) => stream.peer(),
        }
    }

    /// Receives what is there, at least one byte; 0 at the end of the stream.
    #[inline]
    pub async fn recv(&self, data: &Sgl<'_>) -> io::Result<usize> {
        match &self.0 {
            Connected::Os(stream) => stream.recv(data).await,
            Connected::Sim(stream) => stream.recv(data).await,
        }
    }

    /// Ends both directions: whoever receives or sends here, or waits to, is told so.
    pub fn shutdown(&self) {
        match &self.0 {
            Connected::Os(stream) => stream.shutdown(),
            Connected::Sim(stream) => stream.shutdown(),
        }
    }

    /// Fills the data; an error where the stream ends before.
    pub async fn recv_exact(&self, data: &Sgl<'_>) -> io::Result<()> {
        let mut done = 0;
        while done < data.len() {
            match self.recv(&data.slice(done, data.len() - done)).await? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                count => done += count,
            }
        }
        Ok(())
    }

    /// Sends everything. Answered when the kernel has it, which says nothing of the peer.
    #[inline]
    pub async fn send(&self, data: &Sgl<'_>) -> io::Result<()> {
        match &self.0 {
            Connected::Os(stream) => stream.send(data).await,
            Connected::Sim(stream) => stream.send(data).await,
        }
    }

    /// As [`Stream::recv`], with a copy: for handshakes and tests.
    pub async fn recv_bytes(&self, bytes: &mut [u8]) -> io::Result<usize> {
        let buffer = Buffer::zeroed(bytes.len());
        let count = self.recv(&buffer.sgl()).await?;
        buffer.read(0, &mut bytes[..count]);
        Ok(count)
    }

    /// As [`Stream::send`], with a copy: for handshakes and tests.
    pub async fn send_bytes(&self, bytes: &[u8]) -> io::Result<()> {
        self.send(&Buffer::from_bytes(bytes).sgl()).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_as_they_are_written() {
        for text in ["127.0.0.1:3260", "[::1]:4420", "unix:/run/viaduct/nbd.sock"] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), text);
        }
        let error = "localhost".parse::<Address>().unwrap_err();
        assert!(error.to_string().contains("IP:PORT"), "{error}");
    }
}
