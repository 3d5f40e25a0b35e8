//! Data, in every shape that can be agreed on, is what was written.

use std::rc::Rc;
use std::time::Duration;

use front::iscsi::{Settings, Why};
use proto::iscsi::{DigestPolicy, Ended, Wishes};
use rt::sim::Random;
use store::iscsi::Session;
use target::lun::meter::Kind;

use crate::support::{Env, Region, Setup, on_both, open, pattern, read, write};

on_both![
    whatever_was_agreed_on,
    every_length_around_the_bursts,
    many_sessions_at_once,
    a_slow_initiator_delays_no_other,
    how_long_commands_take_is_known,
];

const STEPS: usize = 5;

fn wishes(random: &mut Random) -> Wishes {
    let policies = [DigestPolicy::Never, DigestPolicy::Allowed];
    let max_burst_length = *random.pick(&[512, 4096, 65_536, 70_000, 1 << 20]);
    let first = *random.pick(&[512, 1000, 65_536, 1 << 20]);
    Wishes {
        header_digest: *random.pick(&policies),
        data_digest: *random.pick(&policies),
        initial_r2t: random.coin(),
        immediate_data: random.coin(),
        max_recv_data_segment_length: *random.pick(&[512, 1000, 8192, 65_536, 1 << 20]),
        max_burst_length,
        first_burst_length: first.min(max_burst_length),
        max_outstanding_r2t: *random.pick(&[1, 2, 8]),
        ..Wishes::default()
    }
}

/// How often something that a seed decides is tried where there are no seeds.
fn rounds(env: &Env) -> usize {
    if env.is_simulated { 1 } else { 8 }
}

async fn whatever_was_agreed_on(mut env: Env) {
    for _ in 0..rounds(&env) {
        let late = Duration::from_micros(*env.random.pick(&[0, 300]));
        let window = *env.random.pick(&[1, 3, 64]);
        let settings = Settings { wishes: wishes(&mut env.random), window, ..Settings::default() };
        let server = env.server(Setup { settings, late, ..Setup::default() }).await;
        let ours = wishes(&mut env.random);
        let session = Rc::new(open(&env, &server, ours, 0).await.unwrap());
        let agreed = session.parameters();
        assert!(agreed.first_burst_length <= agreed.max_burst_length);
        let users = (0..4).map(|user| {
            let (session, random) = (session.clone(), env.random.fork());
            env.core.spawn_task(async move {
                let mut region = Region::new(user, 256, random);
                for _ in 0..STEPS {
                    region.step(&session, 64 << 10).await.unwrap();
                }
                region.check(&session).await.unwrap();
            })
        });
        for user in users.collect::<Vec<_>>() {
            user.await;
        }
        session.ping().await.unwrap();
        session.logout().await.unwrap();
        server.sessions.gone().await;
        let ends = server.ends().await;
        assert!(matches!(ends[..], [Why::Protocol(Ended::Logout { .. })]), "{ends:?}");
    }
}

async fn every_length_around_the_bursts(env: Env) {
    let theirs = Wishes { max_recv_data_segment_length: 3 * 512, ..Wishes::default() };
    let settings = Settings { wishes: theirs, ..Settings::default() };
    for (initial_r2t, immediate_data) in
        [(false, false), (false, true), (true, false), (true, true)]
    {
        let server = env.server(Setup { settings: settings.clone(), ..Setup::default() }).await;
        let ours = Wishes {
            initial_r2t,
            immediate_data,
            first_burst_length: 5 * 512,
            max_burst_length: 8 * 512,
            max_outstanding_r2t: 2,
            ..Wishes::default()
        };
        let session = open(&env, &server, ours, 0).await.unwrap();
        for blocks in 1..=20 {
            let data = pattern(blocks * 512, blocks as u64);
            let answer = write(&session, 4096, &data).await.unwrap();
            assert_eq!(answer.outcome.status, 0, "{answer:?}");
            assert!(read(&session, 4096, data.len()).await.unwrap() == data, "{blocks} blocks");
        }
    }
}

async fn many_sessions_at_once(mut env: Env) {
    let server = env.server(Setup::default()).await;
    let mut sessions = Vec::new();
    for number in 0..8 {
        let ours = wishes(&mut env.random);
        sessions.push(open(&env, &server, ours, number).await.unwrap());
    }
    assert_eq!(server.sessions.len(), 8);
    // The least busy core takes the next connection.
    assert_eq!(server.entered().await, [4, 4]);
    let users: Vec<_> = (0..)
        .zip(sessions)
        .map(|(user, session)| {
            let random = env.random.fork();
            env.core.spawn_task(async move {
                let mut region = Region::new(user, 256, random);
                for _ in 0..STEPS {
                    region.step(&session, 32 << 10).await.unwrap();
                }
                region.check(&session).await.unwrap();
            })
        })
        .collect();
    for user in users {
        user.await;
    }
    server.sessions.gone().await;
}

/// Neither an initiator that takes no answers nor one that does not go on with its data.
async fn a_slow_initiator_delays_no_other(env: Env) {
    let server = env.server(Setup::default()).await;
    let mut slow = Vec::new();
    for number in 10..14 {
        let mut config = crate::support::config(Wishes::default());
        config.isid[5] = number;
        let mut raw = crate::support::Raw::open(&env.core, &server.address, config).await;
        for tag in 0..16 {
            let command = raw.read(tag, 0, 128 << 10);
            raw.send(&command, &[]).await;
        }
        let command = raw.write(99, 0, 1 << 20);
        raw.send(&command, &[1; 4096]).await;
        slow.push(raw);
    }
    let session: Session = open(&env, &server, Wishes::default(), 0).await.unwrap();
    let started = env.core.now();
    session.ping().await.unwrap();
    let ping = env.core.now() - started;
    let mut region = Region::new(1, 2, Random::new(5));
    let started = env.core.now();
    for _ in 0..STEPS {
        region.step(&session, 4096).await.unwrap();
    }
    let taken = env.core.now() - started;
    // Each step costs as much as a ping and a little more; the simulated network draws the rest.
    let most = ping * 20 * STEPS as u32 + Duration::from_secs(2);
    assert!(taken < most, "{taken:?} where a ping takes {ping:?}");
    session.logout().await.unwrap();
    while server.sessions.len() > slow.len() {
        env.sleep(1).await;
    }
}

async fn how_long_commands_take_is_known(env: Env) {
    let late = Duration::from_millis(2);
    let server = env.server(Setup { late, ..Setup::default() }).await;
    let session = open(&env, &server, Wishes::default(), 0).await.unwrap();
    let started = env.core.now();
    for at in 0..20 {
        write(&session, at * 4096, &[7; 4096]).await.unwrap();
        read(&session, at * 4096, 4096).await.unwrap();
    }
    let most = env.core.now() - started;
    let (writes, writing) = server.times(Kind::Write).await;
    let (reads, reading) = server.times(Kind::Read).await;
    assert_eq!((writes, reads), (20, 20));
    assert!(!reading.is_zero() && reading + writing <= most, "{reading:?}, {writing:?}, {most:?}");
    assert_eq!(server.times(Kind::Flush).await, (0, Duration::ZERO));
}
