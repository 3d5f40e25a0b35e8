//! Task management, logout and vanishing units, with commands under way.

use std::rc::Rc;

use block::{Buffer, Sgl};
use front::iscsi::Why;
use proto::iscsi::{Ended, Wishes};
use store::iscsi::{Answer, Command, Failure, Lost, Pending, Session};
use wire::iscsi::{TaskFunction, TaskResponse, attribute};

use crate::support::{
    Env, LUN, Region, Server, Setup, on_both, open, pattern, read_cdb, write_cdb,
};

on_both![
    an_aborted_command_is_over,
    an_abort_finds_a_command_whose_data_is_missing,
    a_reset_ends_everything_of_the_unit,
    a_reset_under_load,
    a_logout_with_commands_under_way,
    a_unit_that_vanishes_answers_first,
    a_waiting_command_may_be_given_up,
];

const BYTES: usize = 16 << 10;

fn begin_read(session: &Session, at: u64) -> Pending {
    let (cdb, buffer) = (read_cdb(at, BYTES), Buffer::zeroed(BYTES));
    let (out, into) = (Sgl::empty(), buffer.sgl());
    let command = Command { lun: LUN, cdb: &cdb, attribute: attribute::SIMPLE, out, into };
    session.begin(&command).unwrap()
}

fn begin_write(session: &Session, at: u64) -> Pending {
    let (cdb, buffer) = (write_cdb(at, BYTES), Buffer::from_bytes(&pattern(BYTES, at)));
    let (out, into) = (buffer.sgl(), Sgl::empty());
    let command = Command { lun: LUN, cdb: &cdb, attribute: attribute::SIMPLE, out, into };
    session.begin(&command).unwrap()
}

/// Waits until the disk has so many.
async fn until_held(env: &Env, server: &Server, count: usize) {
    while server.held().await < count {
        env.sleep(1).await;
    }
}

fn status(answer: Result<Answer, Failure>) -> Result<u8, Failure> {
    answer.map(|answer| answer.outcome.status)
}

async fn an_aborted_command_is_over(env: Env) {
    let server = env.server(Setup::default()).await;
    let session = open(&env, &server, Wishes::default(), 0).await.unwrap();
    server.hold().await;
    let (aborted, other) = (begin_read(&session, 0), begin_write(&session, 1 << 20));
    until_held(&env, &server, 2).await;
    let task = aborted.task();
    // The answer waits for the disk, which still has the task.
    let managed = session.manage(TaskFunction::ABORT_TASK, LUN, Some(task));
    let while_held = std::time::Duration::from_secs(if env.is_simulated { 8 } else { 1 });
    let managed = env.core.timeout(while_held, managed).await;
    assert_eq!(managed, None);
    server.release().await;
    assert_eq!(aborted.await, Err(Failure::Aborted));
    assert_eq!(status(other.await), Ok(0));
    let response = session.manage(TaskFunction::ABORT_TASK, LUN, Some(task)).await;
    assert_eq!(response, Ok(TaskResponse::TASK_DOES_NOT_EXIST));
    assert_eq!(session.command_count(), 0);
    Region::new(0, 1, env.random.clone()).step(&session, BYTES).await.unwrap();
}

/// It is aborted while R2Ts are on their way, and what is still sent for it is thrown away.
async fn an_abort_finds_a_command_whose_data_is_missing(mut env: Env) {
    let mut setup = Setup::default();
    setup.settings.wishes.max_burst_length = 512;
    setup.settings.wishes.first_burst_length = 512;
    setup.settings.window = 4;
    let server = env.server(setup).await;
    let session = open(&env, &server, Wishes::default(), 0).await.unwrap();
    for round in 0..5 {
        let write = begin_write(&session, 0);
        if env.random.coin() {
            env.core.sleep(std::time::Duration::from_micros(env.random.below(400))).await;
        }
        let task = Some(write.task());
        let response = session.manage(TaskFunction::ABORT_TASK, LUN, task).await.unwrap();
        match write.await {
            Ok(answer) => assert_eq!(answer.outcome.status, 0, "round {round}"),
            Err(failure) => {
                assert_eq!(failure, Failure::Aborted);
                assert_eq!(response, TaskResponse::FUNCTION_COMPLETE);
            }
        }
        // The window is as wide as before.
        let reads: Vec<Pending> = (0..4).filter_map(|_| begin_read_if(&session)).collect();
        for read in reads {
            assert_eq!(status(read.await), Ok(0));
        }
    }
    let mut region = Region::new(1, 2, env.random.fork());
    region.step(&session, BYTES).await.unwrap();
    session.logout().await.unwrap();
}

fn begin_read_if(session: &Session) -> Option<Pending> {
    let (cdb, buffer) = (read_cdb(0, BYTES), Buffer::zeroed(BYTES));
    let (out, into) = (Sgl::empty(), buffer.sgl());
    let command = Command { lun: LUN, cdb: &cdb, attribute: attribute::SIMPLE, out, into };
    session.begin(&command).ok()
}

async fn a_reset_ends_everything_of_the_unit(env: Env) {
    let server = env.server(Setup::default()).await;
    let session = open(&env, &server, Wishes::default(), 0).await.unwrap();
    server.hold().await;
    let before: Vec<Pending> = (0..8).map(|index| begin_read(&session, index << 20)).collect();
    until_held(&env, &server, 8).await;
    let session = Rc::new(session);
    let resetting = session.clone();
    let reset = env.core.spawn_task(async move {
        resetting.manage(TaskFunction::LOGICAL_UNIT_RESET, LUN, None).await
    });
    env.sleep(50).await;
    server.release().await;
    assert_eq!(reset.await, Ok(TaskResponse::FUNCTION_COMPLETE));
    for pending in before {
        assert_eq!(pending.await, Err(Failure::Aborted));
    }
    // Who asked for it is told by a unit attention, once (SAM-5 5.14).
    let first = begin_read(&session, 0).await.unwrap();
    let is_told = first.outcome.status == 2;
    assert_eq!(first.sense.is_some(), is_told, "{first:?}");
    assert_eq!(status(begin_read(&session, 0).await), Ok(0));
}

async fn a_reset_under_load(mut env: Env) {
    let setup = Setup { late: std::time::Duration::from_millis(2), ..Setup::default() };
    let server = env.server(setup).await;
    let session = Rc::new(open(&env, &server, Wishes::default(), 0).await.unwrap());
    let users: Vec<_> = (0..8)
        .map(|user: u64| {
            let session = session.clone();
            env.core.spawn_task(async move {
                let mut good = 0;
                for round in 0..12 {
                    let at = user << 20;
                    let pending = if round % 2 == 0 {
                        begin_write(&session, at)
                    } else {
                        begin_read(&session, at)
                    };
                    match pending.await {
                        Ok(answer) => good += usize::from(answer.outcome.status == 0),
                        Err(failure) => assert_eq!(failure, Failure::Aborted),
                    }
                }
                good
            })
        })
        .collect();
    for _ in 0..5 {
        let millis = env.random.below(20);
        env.sleep(millis).await;
        let reset = session.manage(TaskFunction::LOGICAL_UNIT_RESET, LUN, None).await;
        assert_eq!(reset, Ok(TaskResponse::FUNCTION_COMPLETE));
    }
    let mut good = 0;
    for user in users {
        good += user.await;
    }
    assert!(good > 8 * 4, "{good} of 96 were good");
    assert_eq!(session.command_count(), 0);
}

async fn a_logout_with_commands_under_way(env: Env) {
    let server = env.server(Setup::default()).await;
    let session = Rc::new(open(&env, &server, Wishes::default(), 0).await.unwrap());
    server.hold().await;
    let under_way: Vec<Pending> = (0..4).map(|index| begin_read(&session, index << 20)).collect();
    until_held(&env, &server, 4).await;
    let leaving = session.clone();
    let logout = env.core.spawn_task(async move { leaving.logout().await });
    env.sleep(50).await;
    // What the disk has is waited for: after the answer nothing of it happens any more.
    assert_eq!(session.lost(), None);
    server.release().await;
    assert_eq!(logout.await, Ok(()));
    for pending in under_way {
        let failure = pending.await.unwrap_err();
        assert!(matches!(failure, Failure::Lost(Lost::Protocol(Ended::Logout { .. }))));
    }
    server.sessions.gone().await;
    let ends = server.ends().await;
    assert!(matches!(ends[..], [Why::Protocol(Ended::Logout { .. })]), "{ends:?}");
}

async fn a_unit_that_vanishes_answers_first(env: Env) {
    let server = env.server(Setup::default()).await;
    let session = open(&env, &server, Wishes::default(), 0).await.unwrap();
    server.hold().await;
    let under_way: Vec<Pending> = (0..4).map(|index| begin_read(&session, index << 20)).collect();
    until_held(&env, &server, 4).await;
    let server = Rc::new(server);
    let (taking, core) = (server.clone(), env.core.clone());
    let taken = core.spawn_task(async move { taking.take_away_lun().await });
    env.sleep(50).await;
    server.release().await;
    taken.await;
    for pending in under_way {
        assert_eq!(status(pending.await), Ok(0x40), "TASK ABORTED");
    }
    // It is not there any more: ILLEGAL REQUEST, LOGICAL UNIT NOT SUPPORTED.
    let answer = begin_read(&session, 0).await.unwrap();
    let sense = answer.sense.unwrap();
    assert_eq!((answer.outcome.status, sense[2] & 0xf, sense[12]), (2, 5, 0x25));
    session.ping().await.unwrap();
    session.logout().await.unwrap();
}

async fn a_waiting_command_may_be_given_up(mut env: Env) {
    let server = env.server(Setup::default()).await;
    let session = open(&env, &server, Wishes::default(), 0).await.unwrap();
    for _ in 0..8 {
        let (read, write) = (begin_read(&session, 0), begin_write(&session, 1 << 20));
        if env.random.coin() {
            env.core.sleep(std::time::Duration::from_micros(env.random.below(300))).await;
        }
        drop(read);
        drop(write);
    }
    let mut region = Region::new(1, 2, env.random.fork());
    region.step(&session, BYTES).await.unwrap();
    while session.command_count() > 0 {
        session.ping().await.unwrap();
    }
}
