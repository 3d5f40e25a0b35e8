//! Sessions that the server wants to end.

use std::time::Duration;

use front::iscsi::{Farewell, LOGOUT_LIMIT, Why};
use proto::iscsi::{Ended, Wishes};
use store::iscsi::{Failure, Lost};
use wire::iscsi::{AsyncEvent, LoginStatus};

use crate::support::{Env, Raw, Region, Setup, config, on_both, open};

on_both![
    who_is_asked_logs_out_when_it_is_ready,
    who_does_not_log_out_is_dropped,
    a_dropped_session_is_told_so,
];

async fn who_is_asked_logs_out_when_it_is_ready(mut env: Env) {
    let setup = Setup { late: Duration::from_millis(3), ..Setup::default() };
    let server = env.server(setup).await;
    let session = open(&env, &server, Wishes::default(), 0).await.unwrap();
    let mut region = Region::new(0, 1, env.random.fork());
    server.sessions.close();
    server.farewell(Farewell::Logout);
    let told = session.told().await.unwrap();
    let limit = LOGOUT_LIMIT.as_secs() as u16;
    assert_eq!((told.event, told.parameters), (AsyncEvent::LOGOUT_REQUEST, [0, 0, limit]));
    // Until it has, all goes on; but nobody else is let in.
    region.step(&session, 65_536).await.unwrap();
    let lost = open(&env, &server, Wishes::default(), 1).await.err();
    let Some(Lost::Protocol(Ended::Refused { status, .. })) = lost else { panic!("{lost:?}") };
    assert_eq!(status, LoginStatus::SERVICE_UNAVAILABLE);
    session.logout().await.unwrap();
    server.sessions.gone().await;
    let ends = server.ends().await;
    let is_logout = |why: &Why| matches!(why, Why::Protocol(Ended::Logout { .. }));
    assert!(ends.iter().any(is_logout), "{ends:?}");
}

/// Also one that does not even take what it is sent.
async fn who_does_not_log_out_is_dropped(env: Env) {
    let server = env.server(Setup::default()).await;
    let session = open(&env, &server, Wishes::default(), 0).await.unwrap();
    let mut other = config(Wishes::default());
    other.isid[5] = 9;
    let mut deaf = Raw::open(&env.core, &server.address, other).await;
    for tag in 0..40 {
        let command = deaf.read(tag, 0, 512 << 10);
        deaf.send(&command, &[]).await;
    }
    // As many as a session has memory for.
    while server.read_bytes().await < 16 << 20 {
        env.sleep(1).await;
    }
    let started = env.core.now();
    server.farewell(Farewell::Logout);
    let told = session.told().await.unwrap();
    assert_eq!(told.event, AsyncEvent::LOGOUT_REQUEST);
    assert_eq!(session.told().await, Err(Lost::Protocol(Ended::Dropped)));
    server.sessions.gone().await;
    let taken = env.core.now() - started;
    assert!(taken >= LOGOUT_LIMIT, "{taken:?}");
    let ends = server.ends().await;
    assert!(matches!(ends[..], [Why::Dropped, Why::Dropped]), "{ends:?}");
    while deaf.receive().await.is_some() {}
}

async fn a_dropped_session_is_told_so(mut env: Env) {
    let setup = Setup { late: Duration::from_millis(3), ..Setup::default() };
    let server = env.server(setup).await;
    let session = open(&env, &server, Wishes::default(), 0).await.unwrap();
    let session = std::rc::Rc::new(session);
    let (using, random) = (session.clone(), env.random.fork());
    let user = env.core.spawn_task(async move {
        let mut region = Region::new(0, 1, random);
        loop {
            if let Err(failure) = region.step(&using, 65_536).await {
                return failure;
            }
        }
    });
    while server.requests().await < 4 {
        env.sleep(1).await;
    }
    server.farewell(Farewell::Drop);
    // A connection that is closed while data is on its way to it may fail before it is read out.
    let is_end = |lost: &Lost| match lost {
        Lost::Protocol(Ended::Dropped) => true,
        Lost::Failed(_) => env.is_simulated,
        _ => false,
    };
    let failure = user.await;
    assert!(matches!(&failure, Failure::Lost(lost) if is_end(lost)), "{failure:?}");
    assert!(is_end(&session.told().await.unwrap_err()));
    server.sessions.gone().await;
    let ends = server.ends().await;
    assert!(matches!(ends[..], [Why::Dropped]), "{ends:?}");
}
