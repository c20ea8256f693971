//! Real processes: this program started again, and killed.
#![cfg(any(target_os = "linux", target_os = "macos"))]

mod common;

use std::os::fd::{AsFd, OwnedFd};
use std::process::{Command, Stdio};
use std::sync::Arc;

use common::*;
use weft_core::Channel;
use weft_core::chan::End as Ended;
use weft_link::*;

const IS_CHILD: &str = "WEFT_LINK_CHILD";

/// What the other process runs: not a test, but where a test program can be made to begin.
#[test]
fn child() {
    if std::env::var_os(IS_CHILD).is_none() {
        return;
    }
    let socket = Socket::new(std::io::stdin().as_fd().try_clone_to_owned().unwrap()).unwrap();
    let (client, start) = Client::connect(socket).unwrap();
    let rounds = read(&start);
    let child = Child::new(client, Wire { bytes: Bytes::default(), ..start }, PeerId(0));
    let (out, inward, side) = (child.channel(0), child.channel(1), child.channel(2));
    let mut dice = Dice(rounds + 0x1234_5678);
    for n in 0..rounds {
        // Something of everything, so that whatever the kill hits has been hit some time.
        match dice.below(4) {
            0 => {
                child.begin(1, side, Action::Send(number(n)));
                child.submit(2, true, vec![recv(inward), recv(side)]);
                assert!(child.answers.recv().is_ok() && child.answers.recv().is_ok());
            }
            1 => {
                let id = child.begin(3, inward, Action::Recv);
                if !child.client.withdraw(id) {
                    child.answer();
                }
            }
            2 => drop(child.ends[0].clone()),
            _ => {}
        }
        let mut wire = number(n);
        if dice.below(3) == 0 {
            wire.attachments.push(Attachment::Memory(Arc::new(vec![n as u8; LARGE + 1])));
        }
        if dice.below(3) == 0 {
            wire.attachments.push(Attachment::End(child.ends[1].clone()));
        }
        child.perform(out, Action::Send(wire));
    }
    child.client.leave();
}

struct Started {
    process: std::process::Child,
    peer: PeerId,
}

/// A process that sends on the first of these ends, and goes on for so many rounds.
fn start(root: &Root, rounds: u64, ends: [End; 3]) -> Started {
    let (ours, theirs) = Socket::pair().unwrap();
    let process = Command::new(std::env::current_exe().unwrap())
        .args(["child", "--exact"])
        .env(IS_CHILD, "1")
        .stdin(OwnedFd::from(theirs))
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let wire = Wire { attachments: ends.into_iter().map(Attachment::End).collect(), ..number(rounds) };
    Started { process, peer: root.hub.add_peer(ours, wire).unwrap() }
}

#[test]
fn a_process_that_is_killed_at_any_moment_hangs_nobody_and_leaves_nothing_open() {
    if std::env::var_os(IS_CHILD).is_some() {
        return;
    }
    let mut dice = Dice(0xdead);
    for _ in 0..200 {
        let root = Root::new();
        let (out, out_end) = root.channel(dice.below(3) as usize);
        let (inward, inward_end) = root.channel(2);
        let (side, side_end) = root.channel(0);
        let ends = [out_end.open(Side::Sender), inward_end.open(Side::Receiver), side_end];
        let mut started = start(&root, u64::MAX >> 1, ends);
        let values = Channel::from(out.clone());
        // Killed after so many values, in the middle of whatever it does then. What still arrives is in order.
        let lifetime = dice.below(60);
        let mut next = 0;
        let mut killed = false;
        loop {
            if next >= lifetime && !killed {
                started.process.kill().unwrap();
                killed = true;
            }
            let Ok(Value(wire)) = values.recv().wait() else { break };
            assert_eq!(read(&wire), next);
            for attachment in &wire.attachments {
                if let Attachment::Memory(memory) = attachment {
                    assert!(memory.as_slice().iter().all(|byte| *byte == next as u8) && memory.len() == LARGE + 1);
                }
            }
            next += 1;
        }
        assert!(killed);
        started.process.wait().unwrap();
        assert_eq!(root.log.gone(started.peer), Departure::Died);
        assert_eq!(out.end().1.unwrap().downcast_ref(), Some(&RemoteCause(b"died".to_vec())));
        assert_eq!((out.statistics().senders, inward.statistics().receivers), (Some(0), Some(0)));
        assert_eq!(inward.end().0, Some(Ended::NoReceivers));
        for chan in [&out, &inward, &side] {
            let statistics = chan.statistics();
            assert_eq!((statistics.parked_senders, statistics.parked_receivers), (0, 0));
        }
    }
}

#[test]
fn a_process_that_leaves_has_said_all_it_had_to_say() {
    if std::env::var_os(IS_CHILD).is_some() {
        return;
    }
    let root = Root::new();
    let (out, out_end) = root.channel(0);
    let ((_, inward), (_, side)) = (root.channel(2), root.channel(0));
    let mut started = start(&root, 30, [out_end.open(Side::Sender), inward.open(Side::Receiver), side]);
    let values = Channel::from(out.clone());
    for n in 0..30 {
        assert_eq!(read(&values.recv().wait().unwrap().0), n);
    }
    assert!(values.recv().wait().is_err());
    assert_eq!(out.end().1.map(|cause| cause.to_string()), None);
    assert_eq!(root.log.gone(started.peer), Departure::Left);
    assert!(started.process.wait().unwrap().success());
}
