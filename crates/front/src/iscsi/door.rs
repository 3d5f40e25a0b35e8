//! Listening, and spreading connections over the cores.

use std::cell::Cell;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rt::net::{Accepted, Address, Listener};
use rt::{Core, Placed, Task};

use super::connection::{self, Shared};
use super::pool::Pool;
use super::{Host, Sessions, Settings};

/// Connections of one server on all cores, logged in or not.
const CONNECTIONS_MAX: usize = 20_000;
/// How long nothing is accepted when the process has no descriptor left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What serves the connections of one core.
pub struct Server {
    shared: Rc<Shared>,
    count: Arc<AtomicUsize>,
}

impl Server {
    pub fn new(
        core: &Core,
        host: Rc<dyn Host>,
        sessions: Arc<Sessions>,
        settings: Settings,
    ) -> Rc<Self> {
        let pool = Rc::new(Pool::default());
        let shared = Shared { core: core.clone(), host, sessions, settings, pool };
        Rc::new(Self { shared: Rc::new(shared), count: Arc::default() })
    }

    /// How many connections it has, for whoever spreads them.
    pub fn count(&self) -> Arc<AtomicUsize> {
        self.count.clone()
    }

    fn serve(&self, accepted: Accepted) {
        let core = &self.shared.core;
        let (shared, count) = (self.shared.clone(), self.count.clone());
        let opened = accepted.open(core);
        core.spawn(async move {
            if let Ok(stream) = opened {
                connection::serve(shared, stream).await;
            }
            count.fetch_sub(1, Ordering::Relaxed);
        });
    }
}

/// A server on some core, and how many connections it has.
pub type Place = (Arc<Placed<Server>>, Arc<AtomicUsize>);

/// A listening socket; dropping it closes the door, not the connections.
pub struct Door {
    address: Address,
    accepting: Cell<Option<Task<()>>>,
}

impl Door {
    pub fn open(core: &Core, address: &Address, places: Vec<Place>) -> io::Result<Self> {
        let listener = Listener::bind(core, address)?;
        let address = listener.address()?;
        let accepting = core.spawn_task(accept(core.clone(), listener, places));
        Ok(Self { address, accepting: Cell::new(Some(accepting)) })
    }

    /// Where it listens: with the port that the kernel chose, if it was to choose.
    pub fn address(&self) -> &Address {
        &self.address
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        if let Some(accepting) = self.accepting.take() {
            accepting.cancel();
        }
    }
}

async fn accept(core: Core, listener: Listener, places: Vec<Place>) {
    loop {
        let Ok(accepted) = listener.accept_for_any().await else {
            core.sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let load = |place: &&Place| place.1.load(Ordering::Relaxed);
        let total: usize = places.iter().map(|place| load(&place)).sum();
        let Some((server, count)) = places.iter().min_by_key(load) else { return };
        if total >= CONNECTIONS_MAX {
            continue;
        }
        count.fetch_add(1, Ordering::Relaxed);
        drop(server.call(async move |server| server.serve(accepted)));
    }
}
