//! Servers to test, whoever uses them, and machines to run both on.

mod client;
mod disk;
mod raw;
mod server;
mod tap;

use std::future::Future;
use std::time::Duration;

use rt::sim::{Options, Random, World};
use rt::{Config, Core, Remote};

pub use client::{
    LUN, Region, TARGET, config, is_damaged, open, pattern, read, read_cdb, write, write_cdb,
};
pub use raw::Raw;
pub use server::{Server, Setup};
pub use tap::{Harm, TO_CLIENT, TO_SERVER, Tap};

/// Seeds of every test on simulated machines.
const SEEDS: u64 = 8;
/// No test takes longer: in the world's time, or in ours.
const LIMIT: Duration = Duration::from_secs(900);

/// Where a test runs.
pub struct Env {
    /// The initiators' core.
    pub core: Core,
    /// The server's cores.
    pub cores: Vec<Remote>,
    pub random: Random,
    pub is_simulated: bool,
}

impl Env {
    pub async fn server(&self, setup: Setup) -> Server {
        Server::start(&self.cores, setup).await
    }

    pub async fn sleep(&self, millis: u64) {
        self.core.sleep(Duration::from_millis(millis)).await;
    }
}

pub fn on_os<F: Future<Output = ()> + 'static>(test: impl Fn(Env) -> F + 'static) {
    let cores: Vec<Remote> =
        (0..2).map(|index| rt::os::start(Config::new(format!("s{index}"))).unwrap()).collect();
    let ends = cores.clone();
    let ended = Core::block_on(&Config::new("c"), move |core| async move {
        let env = Env { core: core.clone(), cores, random: Random::new(1), is_simulated: false };
        core.timeout(LIMIT, test(env)).await
    });
    ends.iter().for_each(|core| _ = core.send(Core::stop));
    assert!(ended.unwrap().is_some(), "it takes too long");
}

pub fn on_sim<F: Future<Output = ()> + 'static>(test: impl Fn(Env) -> F + Clone + 'static) {
    for seed in 0..SEEDS {
        let world = World::new(seed, Options::swarm(seed));
        let server = world.host("server");
        let cores = vec![server.core().remote(), server.core().remote()];
        let core = world.host("client").core();
        let test = test.clone();
        let ended = world.block_on(&core, |core| async move {
            let random = Random::new(seed);
            let env = Env { core: core.clone(), cores, random, is_simulated: true };
            core.timeout(LIMIT, test(env)).await
        });
        assert!(ended.flatten().is_some(), "seed {seed}: it waits for ever");
    }
}

/// Tests that run on both kinds of machines.
macro_rules! on_both {
    ($($name:ident),* $(,)?) => {
        mod os {
            $(#[test] fn $name() { crate::support::on_os(super::$name); })*
        }
        mod sim {
            $(#[test] fn $name() { crate::support::on_sim(super::$name); })*
        }
    };
}
pub(crate) use on_both;
