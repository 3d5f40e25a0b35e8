//! Sockets of simulated cores: the network's connections as futures.

use std::io;
use std::sync::Arc;

use block::Sgl;

use super::room::{ConnId, ProcessId, Room};
use crate::core::Core;
use crate::net::Address;

pub(crate) struct Listener {
    room: Arc<Room>,
    process: ProcessId,
    address: Address,
}

impl Listener {
    pub(crate) fn bind(core: &Core, address: &Address) -> io::Result<Self> {
        let (room, process) = place(core)?;
        let address = room.with(|state| state.listen(process, address))?;
        Ok(Self { room, process, address })
    }

    pub(crate) fn address(&self) -> Address {
        self.address.clone()
    }

    pub(crate) async fn accept(&self) -> io::Result<Stream> {
        let accepted = std::future::poll_fn(|cx| {
            self.room.with(|state| state.poll_accept(self.process, &self.address, cx))
        });
        let (conn, end) = accepted.await?;
        Ok(Stream { room: self.room.clone(), conn, end })
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.room.with(|state| state.unlisten(self.process, &self.address));
    }
}

pub(crate) struct Stream {
    room: Arc<Room>,
    conn: ConnId,
    end: usize,
}

impl Stream {
    pub(crate) async fn connect(core: &Core, address: &Address) -> io::Result<Self> {
        let (room, process) = place(core)?;
        let (conn, end) = room.with(|state| state.connect(process, address))?;
        let stream = Self { room, conn, end };
        let connected =
            std::future::poll_fn(|cx| stream.room.with(|state| state.poll_connected(conn, cx)));
        connected.await?;
        Ok(stream)
    }

    pub(crate) fn local(&self) -> io::Result<Address> {
        self.addresses().map(|(local, _)| local)
    }

    pub(crate) fn peer(&self) -> io::Result<Address> {
        self.addresses().map(|(_, peer)| peer)
    }

    fn addresses(&self) -> io::Result<(Address, Address)> {
        let addresses = self.room.with(|state| state.addresses(self.conn, self.end));
        addresses.ok_or(io::ErrorKind::NotConnected.into())
    }

    pub(crate) fn shutdown(&self) {
        self.room.with(|state| state.close_end(self.conn, self.end, false));
    }

    pub(crate) async fn recv(&self, data: &Sgl<'_>) -> io::Result<usize> {
        std::future::poll_fn(|cx| {
            self.room.with(|state| state.poll_recv(self.conn, self.end, data, cx))
        })
        .await
    }

    pub(crate) async fn send(&self, data: &Sgl<'_>) -> io::Result<()> {
        let mut sent = 0;
        while sent < data.len() {
            let rest = data.slice(sent, data.len() - sent);
            sent += std::future::poll_fn(|cx| {
                self.room.with(|state| state.poll_send(self.conn, self.end, &rest, cx))
            })
            .await?;
        }
        Ok(())
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.room.with(|state| state.close_end(self.conn, self.end, false));
    }
}

fn place(core: &Core) -> io::Result<(Arc<Room>, ProcessId)> {
    let driver = core.sim().ok_or(io::ErrorKind::Unsupported)?;
    Ok(driver.place())
}
