//! Who gets in, as what, and what becomes of those who do not.

use std::time::Duration;

use front::iscsi::Why;
use proto::iscsi::initiator::{self, Config};
use proto::iscsi::{
    ALGORITHMS, Account, Authentication, Chap, DigestPolicy, Ended, Secret, SessionKind, Violation,
    Wishes,
};
use rt::net::Stream;
use store::iscsi::{Failure, Lost, Session};
use wire::iscsi::LoginStatus;

use crate::support::{Env, Region, Server, Setup, TARGET, config, on_both, on_sim, open};

on_both![
    chap_proves_both_sides,
    required_digests_are_insisted_on,
    a_target_that_has_moved,
    discovery_finds_the_target,
    a_new_session_takes_the_place_of_the_old_one,
];

fn account(name: &str, secret: &str) -> Account {
    Account { name: name.to_owned(), secret: Secret::new(secret.as_bytes()) }
}

async fn try_open(env: &Env, server: &Server, config: Config) -> Result<Session, Lost> {
    Session::open(&env.core, &server.address, config).await
}

fn refused(lost: Option<Lost>) -> Option<LoginStatus> {
    match lost {
        Some(Lost::Protocol(Ended::Refused { status, .. })) => Some(status),
        _ => None,
    }
}

async fn chap_proves_both_sides(env: Env) {
    let (ours, theirs) = (account("host", "0123456789abcdef"), account("node", "fedcba9876543210"));
    let authentication = Authentication::Chap(Chap {
        initiator: ours.clone(),
        target: Some(theirs.clone()),
        algorithms: &ALGORITHMS,
    });
    let server = env.server(Setup { authentication, ..Setup::default() }).await;
    let with = |initiator: &Account, target: Option<&Account>| {
        let (initiator, target) = (initiator.clone(), target.cloned());
        let chap = Some(initiator::Chap { initiator, target, algorithms: &ALGORITHMS });
        Config { chap, ..config(Wishes::default()) }
    };
    let session = try_open(&env, &server, with(&ours, Some(&theirs))).await.unwrap();
    session.ping().await.unwrap();
    drop(session);
    let session = try_open(&env, &server, with(&ours, None)).await.unwrap();
    session.ping().await.unwrap();
    drop(session);
    for wrong in [account("host", "0123456789abcdeX"), account("tsoh", "0123456789abcdef")] {
        let lost = try_open(&env, &server, with(&wrong, None)).await.err();
        assert_eq!(refused(lost), Some(LoginStatus::AUTHENTICATION_FAILURE));
    }
    let lost = try_open(&env, &server, config(Wishes::default())).await.err();
    assert_eq!(refused(lost), Some(LoginStatus::AUTHENTICATION_FAILURE));
    // A target that cannot prove itself is left.
    let lost = try_open(&env, &server, with(&ours, Some(&account("node", "0000000000000000"))));
    let lost = lost.await.err();
    let wrong = Lost::Protocol(Ended::Violation(Violation::ChapWrong));
    assert_eq!(lost, Some(wrong));
}

async fn required_digests_are_insisted_on(env: Env) {
    let digests =
        |policy| Wishes { header_digest: policy, data_digest: policy, ..Wishes::default() };
    let mut setup = Setup::default();
    setup.settings.wishes = digests(DigestPolicy::Required);
    let server = env.server(setup).await;
    let session = open(&env, &server, digests(DigestPolicy::Allowed), 0).await.unwrap();
    assert!(session.parameters().header_digest && session.parameters().data_digest);
    Region::new(0, 1, env.random.clone()).step(&session, 65_536).await.unwrap();
    let lost = open(&env, &server, digests(DigestPolicy::Never), 1).await.err();
    assert_eq!(refused(lost), Some(LoginStatus::INITIATOR_ERROR));
}

async fn a_target_that_has_moved(env: Env) {
    let server = env.server(Setup::default()).await;
    let moved = Some(server.address.to_string());
    let old = env.server(Setup { moved, ..Setup::default() }).await;
    let lost = try_open(&env, &old, config(Wishes::default())).await.err().unwrap();
    let Lost::Protocol(Ended::Moved { status, address }) = lost else { panic!("{lost:?}") };
    assert_eq!(status, LoginStatus::TARGET_MOVED_TEMPORARILY);
    let there = address.parse().unwrap();
    let session = Session::open(&env.core, &there, config(Wishes::default())).await.unwrap();
    session.ping().await.unwrap();
}

async fn discovery_finds_the_target(env: Env) {
    let server = env.server(Setup::default()).await;
    let discovery = Config { kind: SessionKind::Discovery, ..config(Wishes::default()) };
    let session = try_open(&env, &server, discovery).await.unwrap();
    for _ in 0..3 {
        let found = session.discover().await.unwrap();
        assert_eq!(found.len(), 1);
        assert_eq!((&*found[0].name, &*found[0].addresses[0]), (TARGET, "10.0.0.1:3260,1"));
    }
    session.logout().await.unwrap();
    let unknown =
        Config { name: "iqn.2026-11.org.other:x".to_owned(), ..config(Wishes::default()) };
    let lost = try_open(&env, &server, unknown).await.err();
    assert_eq!(refused(lost), Some(LoginStatus::NOT_FOUND));
}

/// The old one ends with everything that it has under way, before the new one begins.
async fn a_new_session_takes_the_place_of_the_old_one(mut env: Env) {
    let server = env.server(Setup::default()).await;
    for round in 0..3 {
        let old = open(&env, &server, Wishes::default(), 0).await.unwrap();
        let random = env.random.fork();
        let user = env.core.spawn_task(async move {
            let mut region = Region::new(round, 8, random);
            loop {
                if let Err(failure) = region.step(&old, 32 << 10).await {
                    return failure;
                }
            }
        });
        env.sleep(2 + round).await;
        let new = open(&env, &server, Wishes::default(), 0).await.unwrap();
        let failure = user.await;
        assert!(matches!(failure, Failure::Lost(Lost::Closed | Lost::Failed(_))), "{failure:?}");
        let mut region = Region::new(4 + round, 8, env.random.fork());
        region.step(&new, 65_536).await.unwrap();
        assert_eq!(server.sessions.len(), 1);
        let ends = server.ends().await;
        assert!(matches!(ends[..], [.., Why::Replaced]), "{ends:?}");
        new.logout().await.unwrap();
        server.sessions.gone().await;
        server.ends().await;
    }
}

/// Half a login, none at all, and a peer that has lost power: each connection ends by itself.
#[test]
fn logins_that_never_finish() {
    on_sim(async |env: Env| {
        let server = env.server(Setup::default()).await;
        let silent = Stream::connect(&env.core, &server.address).await.unwrap();
        let half = Stream::connect(&env.core, &server.address).await.unwrap();
        half.send_bytes(&[0x43, 0x87, 0, 0]).await.unwrap();
        let started = env.core.now();
        for stream in [silent, half] {
            assert!(!matches!(stream.recv_bytes(&mut [0; 64]).await, Ok(1..)));
        }
        let taken = env.core.now() - started;
        assert!(taken > Duration::from_secs(10) && taken < Duration::from_secs(40), "{taken:?}");
        let ends = server.ends().await;
        assert!(matches!(ends[..], [Why::LoginTooSlow, Why::LoginTooSlow]), "{ends:?}");
    });
}
