//! Wires that are cut, held and damaged.

use std::rc::Rc;
use std::time::Duration;

use front::iscsi::Why;
use proto::iscsi::{DigestPolicy, Ended, Violation, Wishes};
use rt::sim::{Options, Random, World};
use store::iscsi::{Failure, Lost, Session};

use crate::support::{
    Env, Harm, Region, Setup, TO_CLIENT, TO_SERVER, Tap, config, is_damaged, on_both, on_sim,
    pattern, read, write,
};

on_both![
    a_connection_may_be_cut_anywhere,
    damage_is_found_wherever_it_is,
    a_damaged_write_is_not_done,
    a_damaged_answer_ends_the_session,
];

fn digests() -> Wishes {
    let (header_digest, data_digest) = (DigestPolicy::Required, DigestPolicy::Required);
    Wishes { header_digest, data_digest, ..Wishes::default() }
}

/// Uses a session until something breaks. Every answer that comes is right.
async fn use_up(env: &mut Env, session: Session, steps: usize) {
    let session = Rc::new(session);
    let users: Vec<_> = (0..4)
        .map(|user| {
            let (session, random) = (session.clone(), env.random.fork());
            env.core.spawn_task(async move {
                let mut region = Region::new(user, 256, random);
                // Whatever earlier users have left there.
                let zeroes = vec![0; region.len()];
                loop {
                    let answer = write(&session, region.start(), &zeroes).await?;
                    if !is_damaged(&answer) {
                        break;
                    }
                }
                for _ in 0..steps {
                    region.step(&session, 32 << 10).await?;
                }
                Ok::<(), Failure>(())
            })
        })
        .collect();
    for user in users {
        // Lost or not: what counts is that nothing wrong was read, and that it ends.
        drop(user.await);
    }
}

async fn a_connection_may_be_cut_anywhere(mut env: Env) {
    let setup = Setup { late: Duration::from_micros(500), ..Setup::default() };
    let server = env.server(setup).await;
    let tap = Tap::start(&env.core, &server.address);
    for _ in 0..if env.is_simulated { 2 } else { 40 } {
        let direction = *env.random.pick(&[TO_SERVER, TO_CLIENT]);
        let most = *env.random.pick(&[600, 3000, 20_000, 500_000]);
        tap.harm(direction, Harm::CutAfter(env.random.below(most)));
        let wishes = if env.random.coin() { digests() } else { Wishes::default() };
        if let Ok(session) = Session::open(&env.core, &tap.address, config(wishes)).await {
            use_up(&mut env, session, 3).await;
        }
        tap.harm(direction, Harm::None);
        // Nothing is left of it that could be in the way of the next one.
        let session = Session::open(&env.core, &tap.address, config(wishes)).await.unwrap();
        Region::fresh(&session, env.random.fork()).await.step(&session, 4096).await.unwrap();
        session.logout().await.unwrap();
        server.sessions.gone().await;
    }
}

/// With digests no bit can be wrong without somebody finding it.
async fn damage_is_found_wherever_it_is(mut env: Env) {
    let server = env.server(Setup::default()).await;
    let tap = Tap::start(&env.core, &server.address);
    for _ in 0..if env.is_simulated { 2 } else { 40 } {
        let session = Session::open(&env.core, &tap.address, config(digests())).await.unwrap();
        let direction = *env.random.pick(&[TO_SERVER, TO_CLIENT]);
        let ahead = *env.random.pick(&[200, 5000, 300_000]);
        tap.harm(direction, Harm::Flip(tap.passed(direction) + env.random.below(ahead)));
        use_up(&mut env, session, 4).await;
        tap.harm(direction, Harm::None);
        server.sessions.gone().await;
    }
}

/// RFC 7143, 7.8: the PDU is rejected, the command ends with ABORTED COMMAND, PROTOCOL SERVICE CRC
/// ERROR, and the session goes on.
async fn a_damaged_write_is_not_done(env: Env) {
    let server = env.server(Setup::default()).await;
    let tap = Tap::start(&env.core, &server.address);
    for initial_r2t in [false, true] {
        // Immediate data, or data that was asked for.
        let wishes = Wishes { initial_r2t, immediate_data: !initial_r2t, ..digests() };
        let session = Session::open(&env.core, &tap.address, config(wishes)).await.unwrap();
        let (old, new) = (pattern(8192, 1), pattern(8192, 2));
        write(&session, 0, &old).await.unwrap();
        let requests = server.requests().await;
        // Behind two headers with their digests, in the middle of the data.
        tap.harm(TO_SERVER, Harm::Flip(tap.passed(TO_SERVER) + 2 * 52 + 1000));
        let answer = write(&session, 0, &new).await.unwrap();
        let sense = answer.sense.unwrap();
        let found = (answer.outcome.status, sense[2] & 0xf, sense[12], sense[13]);
        assert_eq!(found, (2, 0xb, 0x47, 5), "{initial_r2t}");
        assert_eq!(server.requests().await, requests);
        tap.harm(TO_SERVER, Harm::None);
        assert!(read(&session, 0, 8192).await.unwrap() == old);
        write(&session, 0, &new).await.unwrap();
        assert!(read(&session, 0, 8192).await.unwrap() == new);
        // A damaged header leaves nothing to go by: the connection ends (7.8).
        tap.harm(TO_SERVER, Harm::Flip(tap.passed(TO_SERVER) + 33));
        let failure = write(&session, 0, &old).await.unwrap_err();
        assert!(matches!(failure, Failure::Lost(Lost::Closed | Lost::Failed(_))), "{failure:?}");
        tap.harm(TO_SERVER, Harm::None);
        server.sessions.gone().await;
        let ends = server.ends().await;
        let digest = Violation::HeaderDigest;
        assert!(matches!(&ends[..], [Why::Protocol(Ended::Violation(it))] if *it == digest));
    }
}

async fn a_damaged_answer_ends_the_session(env: Env) {
    let server = env.server(Setup::default()).await;
    let tap = Tap::start(&env.core, &server.address);
    for (at, is_header) in [(20, true), (52 + 2000, false)] {
        let session = Session::open(&env.core, &tap.address, config(digests())).await.unwrap();
        session.ping().await.unwrap();
        tap.harm(TO_CLIENT, Harm::Flip(tap.passed(TO_CLIENT) + at));
        let failure = read(&session, 0, 8192).await.unwrap_err();
        let Failure::Lost(Lost::Protocol(Ended::Violation(violation))) = failure else {
            panic!("{failure:?}")
        };
        match is_header {
            true => assert_eq!(violation, Violation::HeaderDigest),
            false => assert!(matches!(violation, Violation::DataDigest { .. })),
        }
        tap.harm(TO_CLIENT, Harm::None);
    }
}

/// A peer without power says nothing: both sides find out by themselves.
#[test]
fn half_a_connection_is_found() {
    on_sim(async |env: Env| {
        let server = env.server(Setup::default()).await;
        let tap = Tap::start(&env.core, &server.address);
        let session = Session::open(&env.core, &tap.address, config(Wishes::default()));
        let session = session.await.unwrap();
        env.sleep(60_000).await;
        // Pings have kept it alive.
        session.ping().await.unwrap();
        tap.harm(TO_SERVER, Harm::Stall(tap.passed(TO_SERVER)));
        tap.harm(TO_CLIENT, Harm::Stall(tap.passed(TO_CLIENT)));
        let started = env.core.now();
        // Whoever finds it first: the relay tells the other.
        let failure = session.ping().await.unwrap_err();
        assert!(matches!(failure, Failure::Lost(Lost::Silent | Lost::Closed)), "{failure:?}");
        let taken = env.core.now() - started;
        assert!(taken < Duration::from_secs(35), "{taken:?}");
        server.sessions.gone().await;
    });
}

/// The initiator's host is gone, and nobody tells the server.
#[test]
fn an_initiator_without_power_is_let_go() {
    for seed in 0..10 {
        let world = World::new(seed, Options::swarm(seed));
        let cores = vec![world.host("server").core().remote()];
        let (client, watcher) = (world.host("client"), world.host("watcher").core());
        let core = client.core();
        let server = world.block_on(&core, |core| async move {
            let random = Random::new(seed);
            let env = Env { core: core.clone(), cores, random, is_simulated: true };
            let server = env.server(Setup::default()).await;
            let session = Session::open(&core, &server.address, config(Wishes::default())).await;
            // It is to be there when the power goes.
            std::mem::forget(session.unwrap());
            server
        });
        let server = server.unwrap();
        let sessions = server.sessions.clone();
        assert_eq!(sessions.len(), 1);
        client.lose_power();
        let gone = world.block_on(&watcher, |core| async move {
            core.timeout(Duration::from_secs(60), sessions.gone()).await
        });
        assert!(gone.flatten().is_some(), "seed {seed}");
    }
}
