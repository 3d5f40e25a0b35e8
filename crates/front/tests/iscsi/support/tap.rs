//! A wire that can be cut, held and damaged: a relay between initiators and a server.

use std::cell::Cell;
use std::rc::Rc;

use rt::net::{Address, Listener, Stream};
use rt::{Core, Task};

/// Directions.
pub const TO_SERVER: usize = 0;
pub const TO_CLIENT: usize = 1;

/// What happens to the bytes of one direction.
#[derive(Clone, Copy, Debug, Default)]
pub enum Harm {
    #[default]
    None,
    /// Both directions end after so many bytes.
    CutAfter(u64),
    /// One bit of this byte is another.
    Flip(u64),
    /// Nothing passes after so many bytes.
    Stall(u64),
}

pub struct Tap {
    pub address: Address,
    state: Rc<State>,
    _accepting: Task<()>,
}

#[derive(Default)]
struct State {
    harm: [Cell<Harm>; 2],
    /// Bytes that have passed on the newest connection.
    passed: [Cell<u64>; 2],
}

impl Tap {
    pub fn start(core: &Core, server: &Address) -> Self {
        let listener = Listener::bind(core, &"127.0.0.1:0".parse().unwrap()).unwrap();
        let (address, state) = (listener.address().unwrap(), Rc::<State>::default());
        let (inner, core, server) = (state.clone(), core.clone(), server.clone());
        let spawner = core.clone();
        let accepting = spawner.spawn_task(async move {
            while let Ok(client) = listener.accept().await {
                let Ok(server) = Stream::connect(&core, &server).await else { continue };
                inner.passed.iter().for_each(|passed| passed.set(0));
                let (client, server) = (Rc::new(client), Rc::new(server));
                core.spawn(pump(inner.clone(), TO_SERVER, client.clone(), server.clone()));
                core.spawn(pump(inner.clone(), TO_CLIENT, server, client));
            }
        });
        Self { address, state, _accepting: accepting }
    }

    pub fn harm(&self, direction: usize, harm: Harm) {
        self.state.harm[direction].set(harm);
    }

    /// Bytes that have passed in this direction on the newest connection.
    pub fn passed(&self, direction: usize) -> u64 {
        self.state.passed[direction].get()
    }
}

async fn pump(state: Rc<State>, direction: usize, from: Rc<Stream>, to: Rc<Stream>) {
    let mut bytes = vec![0; 16 << 10];
    loop {
        let Ok(count @ 1..) = from.recv_bytes(&mut bytes).await else { break };
        let start = state.passed[direction].get();
        let end = start + count as u64;
        let mut piece = &mut bytes[..count];
        match state.harm[direction].get() {
            Harm::CutAfter(at) if at < end => {
                let kept = at.saturating_sub(start) as usize;
                // Whether it arrives is another matter.
                let _ = to.send_bytes(&piece[..kept]).await;
                break;
            }
            Harm::Flip(at) if (start..end).contains(&at) => piece[(at - start) as usize] ^= 0x10,
            Harm::Stall(at) if at < end => {
                let kept = at.saturating_sub(start) as usize;
                piece = &mut piece[..kept];
            }
            _ => {}
        }
        state.passed[direction].set(end);
        if !piece.is_empty() && to.send_bytes(piece).await.is_err() {
            break;
        }
    }
    from.shutdown();
    to.shutdown();
}
