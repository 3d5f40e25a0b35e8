//! Initiators that break the rules.

use std::time::Duration;

use front::iscsi::{COMMANDS_PER_TURN, Why};
use proto::iscsi::{Ended, Violation, Wishes};
use wire::iscsi::{
    DataOut, NopOut, Opcode, R2t, RESERVED_TAG, Reject, RejectReason, ScsiCommand, ScsiResponse,
    flag,
};

use crate::support::{Env, Raw, Region, Server, Setup, config, on_both, on_os, open};

on_both![
    commands_beyond_the_window_are_not_there,
    a_gap_in_the_numbers_ends_the_session,
    data_out_of_order_fails_its_command,
    unread_answers_take_bounded_memory,
    pings_that_are_not_read_are_not_answered_for_ever,
    nonsense_ends_the_session,
];

async fn raw(env: &Env, server: &Server) -> Raw {
    Raw::open(&env.core, &server.address, config(Wishes::default())).await
}

fn ping() -> NopOut {
    NopOut {
        opcode: Opcode::NOP_OUT.0 | flag::IMMEDIATE,
        flags: flag::FINAL,
        initiator_task_tag: 5.into(),
        target_transfer_tag: RESERVED_TAG.into(),
        ..NopOut::default()
    }
}

/// Others are served whatever one does.
async fn is_well(env: &Env, server: &Server) {
    let session = open(env, server, Wishes::default(), 77).await.unwrap();
    let mut region = Region::fresh(&session, env.random.clone()).await;
    region.step(&session, 4096).await.unwrap();
}

async fn commands_beyond_the_window_are_not_there(env: Env) {
    let mut setup = Setup::default();
    setup.settings.window = 8;
    let server = env.server(setup).await;
    let mut raw = raw(&env, &server).await;
    server.hold().await;
    for tag in 0..100 {
        let command = raw.read(tag, 0, 512);
        raw.send(&command, &[]).await;
    }
    // What is answered to this was looked at after all of them.
    raw.send(&ping(), &[]).await;
    let (header, _) = raw.receive().await.unwrap();
    assert_eq!(header.opcode(), Opcode::NOP_IN);
    assert_eq!(server.held().await, 8);
    server.release().await;
    for expected in 0..8 {
        let (header, data) = raw.receive().await.unwrap();
        assert_eq!((header.initiator_task_tag.get(), data.len()), (expected, 512));
    }
    // What was not there may come again.
    raw.cmd_sn -= 100 - 8;
    let command = raw.read(8, 0, 512);
    raw.send(&command, &[]).await;
    let (header, _) = raw.receive().await.unwrap();
    assert_eq!(header.initiator_task_tag.get(), 8);
    is_well(&env, &server).await;
}

/// On a real machine, where tasks run in their order.
#[test]
fn many_commands_leave_their_turn_to_others() {
    on_os(leave_turns_to_others);
}

async fn leave_turns_to_others(env: Env) {
    let server = env.server(Setup::default()).await;
    let mut raw = raw(&env, &server).await;
    let commands: Vec<ScsiCommand> = (0..64).map(|tag| raw.read(tag, 0, 512)).collect();
    raw.send_together(&commands).await;
    for expected in 0..64 {
        let (header, _) = raw.receive().await.unwrap();
        assert_eq!(header.initiator_task_tag.get(), expected);
    }
    let most = server.most_in_turn().await;
    assert!(most <= u64::from(COMMANDS_PER_TURN), "{most} at once");
    is_well(&env, &server).await;
}

/// On the only connection nothing can come later that would close the gap.
async fn a_gap_in_the_numbers_ends_the_session(env: Env) {
    let server = env.server(Setup::default()).await;
    let mut raw = raw(&env, &server).await;
    let first = raw.read(0, 0, 512);
    raw.send(&first, &[]).await;
    raw.cmd_sn += 1;
    let third = raw.read(2, 0, 512);
    raw.send(&third, &[]).await;
    let mut opcodes = Vec::new();
    while let Some((header, _)) = raw.receive().await {
        opcodes.push(header.opcode());
    }
    // Depending on when it came, the first one is answered before.
    assert_eq!(opcodes.last(), Some(&Opcode::REJECT));
    server.sessions.gone().await;
    let ends = server.ends().await;
    let lost = |it: &Violation| matches!(it, Violation::CommandLost { .. });
    assert!(matches!(&ends[..], [Why::Protocol(Ended::Violation(it))] if lost(it)), "{ends:?}");
    is_well(&env, &server).await;
}

async fn data_out_of_order_fails_its_command(env: Env) {
    let server = env.server(Setup::default()).await;
    let mut raw = raw(&env, &server).await;
    // DataSN and offset as they should be, and then each of them wrong.
    for (tag, (data_sn, offset, is_good)) in
        [(1, 4096, true), (2, 4096, false), (1, 8192, false), (0, 4096, false), (1, 0, false)]
            .into_iter()
            .enumerate()
    {
        let tag = tag as u32;
        let command = raw.write(tag, 0, 8192);
        raw.send(&command, &[]).await;
        let (header, _) = raw.receive().await.unwrap();
        assert_eq!(header.opcode(), Opcode::R2T);
        let transfer = header.view::<R2t>().target_transfer_tag;
        let requests = server.requests().await;
        for (data_sn, offset, flags) in [(0, 0, 0), (data_sn, offset, flag::FINAL)] {
            let pdu = DataOut {
                flags,
                initiator_task_tag: tag.into(),
                target_transfer_tag: transfer,
                data_sn: u32::into(data_sn),
                buffer_offset: u32::into(offset),
                ..DataOut::default()
            };
            raw.send(&pdu, &[5; 4096]).await;
        }
        let (header, sense) = raw.receive().await.unwrap();
        let response: &ScsiResponse = header.view();
        assert_eq!(header.opcode(), Opcode::SCSI_RESPONSE);
        if is_good {
            assert_eq!(response.status, 0);
        } else {
            let found = (response.status, sense[4] & 0xf, sense[14], sense[15]);
            assert_eq!((found.0, found.1), (2, 0xb), "{found:x?}");
            assert_eq!(server.requests().await, requests);
        }
    }
    is_well(&env, &server).await;
}

/// Data for an initiator that does not take it: at some point nothing more is begun.
async fn unread_answers_take_bounded_memory(env: Env) {
    let server = env.server(Setup::default()).await;
    let mut raw = raw(&env, &server).await;
    let count = if env.is_simulated { 40 } else { 128 };
    const BYTES: usize = 1 << 20;
    for tag in 0..count {
        let command = raw.read(tag, 0, BYTES);
        raw.send(&command, &[]).await;
    }
    let mut before = u64::MAX;
    while before != server.read_bytes().await {
        before = server.read_bytes().await;
        env.sleep(500).await;
    }
    // What the session may hold, what the network holds, and one that was begun below the limit.
    assert!(before <= 32 << 20, "{before} bytes were read for somebody who takes none");
    is_well(&env, &server).await;
    // It may take them after all, and then the rest comes too.
    let mut bytes = 0;
    while !env.is_simulated && bytes < count as usize * BYTES {
        bytes += raw.receive().await.unwrap().1.len();
    }
}

async fn pings_that_are_not_read_are_not_answered_for_ever(env: Env) {
    let server = env.server(Setup::default()).await;
    let mut raw = raw(&env, &server).await;
    // The server stops reading, so that at some point nothing more can be sent.
    let flood = async {
        for _ in 0..200_000 {
            raw.send(&ping(), &[1; 4096]).await;
        }
    };
    let flooded = env.core.timeout(Duration::from_secs(2), flood);
    assert!(flooded.await.is_none(), "800 MB of pings were taken");
    is_well(&env, &server).await;
}

async fn nonsense_ends_the_session(mut env: Env) {
    let server = env.server(Setup::default()).await;
    for _ in 0..if env.is_simulated { 3 } else { 20 } {
        let mut raw = raw(&env, &server).await;
        let bytes: Vec<u8> = (0..400).map(|_| env.random.draw() as u8).collect();
        // It may be closed before all is sent.
        let _ = raw.stream.send_bytes(&bytes).await;
        let bad = ScsiCommand { total_ahs_length: 255, ..ScsiCommand::default() };
        raw.send(&bad, &[]).await;
        let _ = raw.stream.send_bytes(&[0xff; 4096]).await;
        while let Some((header, _)) = raw.receive().await {
            if header.opcode() == Opcode::REJECT {
                let reject: &Reject = header.view();
                assert_ne!(RejectReason(reject.reason).name(), None);
            }
        }
    }
    is_well(&env, &server).await;
}
