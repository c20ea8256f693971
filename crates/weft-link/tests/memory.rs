//! Large values travel as memory that nobody changes who reads it, that is used again, and that is freed with its last holder.
//!
//! The tests take turns: they count the descriptors and mappings of the process.
#![cfg(target_os = "linux")]

mod common;

use std::collections::{HashMap, HashSet};
use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use common::*;
use weft_core::chan::Outcome;
use weft_link::*;

/// The open descriptors that are blocks of memory.
fn blocks() -> Vec<i32> {
    let open = fs::read_dir("/proc/self/fd").unwrap().map(|entry| entry.unwrap());
    let is_block = |entry: &fs::DirEntry| {
        fs::read_link(entry.path()).is_ok_and(|target| target.to_string_lossy().contains("/memfd:weft-block"))
    };
    open.filter(is_block).map(|entry| entry.file_name().to_str().unwrap().parse().unwrap()).collect()
}

fn mappings() -> usize {
    fs::read_to_string("/proc/self/maps").unwrap().matches("/memfd:weft-block").count()
}

fn large(n: u8, len: usize) -> Vec<u8> {
    (0..len).map(|at| (at as u8).wrapping_mul(31).wrapping_add(n)).collect()
}

fn with_memory(memory: Arc<dyn Memory>) -> Wire {
    Wire { bytes: vec![1].into(), attachments: vec![Attachment::Memory(memory)] }
}

fn memory(wire: &Wire) -> Arc<dyn Memory> {
    match &wire.attachments[..] {
        [Attachment::Memory(memory)] => memory.clone(),
        other => panic!("{other:?}"),
    }
}

fn inode(descriptor: i32) -> u64 {
    use std::os::unix::fs::MetadataExt;
    fs::metadata(format!("/proc/self/fd/{descriptor}")).unwrap().ino()
}

/// The test's turn.
fn alone() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    assert_eq!((blocks().len(), mappings()), (0, 0));
    turn
}

/// The blocks that there are, and how large each is.
fn sizes() -> HashMap<u64, u64> {
    let size = |descriptor| fs::metadata(format!("/proc/self/fd/{descriptor}")).unwrap().len();
    blocks().into_iter().map(|descriptor| (inode(descriptor), size(descriptor))).collect()
}

fn inodes() -> HashSet<u64> {
    sizes().into_keys().collect()
}

fn send(child: &Child, bytes: Vec<u8>) {
    let decided = child.perform(child.channel(0), Action::Send(with_memory(Arc::new(bytes))));
    assert_eq!(decided.outcome, Outcome::Done);
}

fn recv(child: &Child) -> Arc<dyn Memory> {
    memory(&child.perform(child.channel(0), Action::Recv).received[0])
}

/// Ends the links: nothing is left of them but what is still read.
fn end(root: &Root, children: Vec<Child>) {
    for child in children {
        child.client.leave();
        root.log.gone(child.peer);
    }
}

/// A thread of a link that has ended may be about to let go of the last ones.
fn nothing_is_left() {
    let end = Instant::now() + Duration::from_secs(10);
    while (blocks().len(), mappings()) != (0, 0) && Instant::now() < end {
        thread::yield_now();
    }
    assert_eq!((blocks().len(), mappings()), (0, 0));
}

/// Says all that each side has to say of blocks.
fn settle(children: &[&Child]) {
    for child in [children, children, children].concat() {
        child.settle();
    }
}

#[test]
fn a_large_value_is_one_sealed_block_wherever_it_goes() {
    let _turn = alone();
    let root = Root::new();
    let (_, channel) = root.channel(100);
    let (one, other) = (root.child([channel.clone()]), root.child([channel]));
    // Just below the limit: bytes.
    send(&one, large(1, LARGE - 1));
    nothing_is_left();
    assert_eq!(recv(&other).as_slice(), large(1, LARGE - 1));

    for (n, size) in [(2, LARGE), (3, 3 * LARGE + 7)] {
        let before = inodes();
        send(&one, large(n, size));
        let made: Vec<u64> = inodes().difference(&before).copied().collect();
        assert_eq!(made.len(), 1);
        blocks().into_iter().for_each(sealed);
        let arrived = recv(&other);
        assert_eq!(inodes().difference(&before).copied().collect::<Vec<_>>(), made, "passed on, not copied");
        assert_eq!(arrived.as_slice(), large(n, size));
        // And back again it is still that one.
        other.perform(other.channel(0), Action::Send(with_memory(arrived)));
        let arrived = recv(&one);
        assert_eq!(inodes().difference(&before).copied().collect::<Vec<_>>(), made);
        assert_eq!(arrived.as_slice(), large(n, size));
    }

    // The bytes of a value, too.
    let wire = Wire { bytes: large(4, 2 * LARGE).into(), attachments: Vec::new() };
    one.perform(one.channel(0), Action::Send(wire));
    let received = other.perform(other.channel(0), Action::Recv).received.remove(0);
    assert!(matches!(received.bytes, Bytes::Block(_)) && *received.bytes == *large(4, 2 * LARGE));
    drop(received);
    end(&root, vec![one, other]);
    nothing_is_left();
}

#[test]
fn many_blocks_of_one_operation_all_arrive() {
    let _turn = alone();
    let root = Root::new();
    let (_, channel) = root.channel(100);
    let (one, other) = (root.child([channel.clone()]), root.child([channel]));
    // More than one frame has descriptors for; then with blocks that are known.
    for round in 0..3 {
        let many: Vec<Wire> = (0..70).map(|n| with_memory(Arc::new(large(n + round, LARGE)))).collect();
        assert_eq!(one.perform(one.channel(0), Action::SendMany(many)).sent, 70);
        let mut received = Vec::new();
        while received.len() < 70 {
            received.extend(other.perform(other.channel(0), Action::RecvMany(100)).received);
        }
        assert!(received.iter().zip(0..).all(|(wire, n)| memory(wire).as_slice() == large(n + round, LARGE)));
    }
    end(&root, vec![one, other]);
    nothing_is_left();
}

#[test]
fn a_block_that_was_let_go_of_is_used_again_in_each_direction() {
    let _turn = alone();
    let root = Root::new();
    let (_, channel) = root.channel(1);
    let (one, other) = (root.child([channel.clone()]), root.child([channel]));
    let mut seen = HashSet::new();
    for n in 0..100 {
        // Sizes that differ somewhat fit the same blocks.
        let bytes = large(n, 3 * LARGE + usize::from(n));
        send(&one, bytes.clone());
        seen.extend(inodes());
        assert_eq!(recv(&other).as_slice(), bytes);
    }
    // One that is read, one that is on its way back to its maker, and one to write to.
    assert!(seen.len() <= 3, "{} blocks for 100 values", seen.len());
    end(&root, vec![one, other]);
    nothing_is_left();
}

#[test]
fn a_block_in_use_is_never_written_to() {
    let _turn = alone();
    let root = Root::new();
    let (_, channel) = root.channel(1);
    let (one, other) = (root.child([channel.clone()]), root.child([channel]));
    let (mut dice, mut kept) = (Dice(7), Vec::new());
    for n in 0..300_u64 {
        let (from, to) = if dice.below(2) == 0 { (&one, &other) } else { (&other, &one) };
        let bytes = large(n as u8, LARGE << dice.below(2));
        send(from, bytes.clone());
        kept.push((recv(to), bytes));
        if kept.len() > 10 {
            let gone: (Arc<dyn Memory>, Vec<u8>) = kept.swap_remove(dice.below(11) as usize);
            assert_eq!(gone.0.as_slice(), gone.1);
        }
    }
    assert!(kept.iter().all(|(arrived, bytes)| arrived.as_slice() == bytes));
    drop(kept);
    end(&root, vec![one, other]);
    nothing_is_left();
}

#[test]
fn what_was_received_stays_when_its_sender_and_the_link_are_gone() {
    let _turn = alone();
    let root = Root::new();
    let (chan, channel) = root.channel(10);
    let (one, other) = (root.child([channel.clone()]), root.child([channel]));
    send(&one, large(1, LARGE));
    send(&one, large(2, LARGE));
    root.hub.disconnect(one.peer);
    root.log.gone(one.peer);
    drop(one);
    // What was in the channel arrives, and outlives the other link as well.
    let (first, second) = (recv(&other), recv(&other));
    end(&root, vec![other]);
    assert_eq!((first.as_slice(), second.as_slice()), (&*large(1, LARGE), &*large(2, LARGE)));
    drop((first, second, chan));
    nothing_is_left();
}

#[test]
fn a_receiver_that_dies_keeps_nothing_from_its_sender() {
    let _turn = alone();
    let root = Root::new();
    let (_, channel) = root.channel(10);
    let (one, other) = (root.child([channel.clone()]), root.child([channel.clone()]));
    for n in 0..5 {
        send(&one, large(n, LARGE));
    }
    let held = recv(&other);
    root.hub.disconnect(other.peer);
    root.log.gone(other.peer);
    drop((held, other));
    // What it held has come back to its maker, which writes to it again.
    let third = root.child([channel]);
    let seen = inodes();
    for n in 0..4 {
        assert_eq!(recv(&third).as_slice(), large(n + 1, LARGE));
    }
    settle(&[&one, &third]);
    send(&one, large(9, LARGE));
    assert_eq!(recv(&third).as_slice(), large(9, LARGE));
    assert!(inodes().is_subset(&seen));
    end(&root, vec![one, third]);
    nothing_is_left();
}

#[test]
fn what_is_idle_is_bounded_on_both_sides() {
    let _turn = alone();
    let root = Root::new();
    let (_, channel) = root.channel(1000);
    let (one, other) = (root.child([channel.clone()]), root.child([channel]));
    let mut kept = Vec::new();
    for _ in 0..20 {
        send(&one, vec![1; 8 << 20]);
        kept.push(recv(&other));
    }
    for _ in 0..150 {
        send(&one, vec![1; LARGE]);
        kept.push(recv(&other));
    }
    assert_eq!(inodes().len(), 170);
    drop(kept);
    settle(&[&other, &one, &other]);
    let left = sizes();
    assert!(left.len() <= 64 && left.values().sum::<u64>() <= 64 << 20, "{} blocks", left.len());
    assert!(!left.is_empty());
    end(&root, vec![one, other]);
    nothing_is_left();
}

#[test]
fn what_is_dropped_on_the_way_goes_back_to_its_sender() {
    let _turn = alone();
    let root = Root::new();
    let (_, rendezvous) = root.channel(0);
    let one = root.child([rendezvous]);
    let mut seen = HashSet::new();
    for n in 0..20 {
        let id = one.begin(0, one.channel(0), Action::Send(with_memory(Arc::new(large(n, LARGE)))));
        seen.extend(inodes());
        assert!(one.client.withdraw(id));
        settle(&[&one]);
    }
    assert_eq!(seen.len(), 1);
    // And with a child that dies.
    one.begin(0, one.channel(0), Action::Send(with_memory(Arc::new(large(6, LARGE)))));
    one.settle();
    root.hub.disconnect(one.peer);
    root.log.gone(one.peer);
    drop(one);
    nothing_is_left();
}

#[test]
fn a_block_that_a_forked_child_may_read_is_not_written_to_again() {
    let _turn = alone();
    let root = Root::new();
    let (_, channel) = root.channel(1);
    let (one, other) = (root.child([channel.clone()]), root.child([channel]));
    send(&one, large(1, LARGE));
    let arrived = recv(&other);
    let mut program = Command::new("true");
    // SAFETY: it does nothing. With something to do before the exec, std forks instead of using posix_spawn.
    assert!(unsafe { program.pre_exec(|| Ok(())) }.status().unwrap().success());
    drop(arrived);
    settle(&[&other, &one]);
    // Nobody keeps it: neither its maker, nor the root that passed it on, nor who read it.
    nothing_is_left();
    send(&one, large(2, LARGE));
    assert_eq!(recv(&other).as_slice(), large(2, LARGE));
    end(&root, vec![one, other]);
    nothing_is_left();
}

#[test]
fn without_a_descriptor_to_spare_a_value_goes_as_bytes() {
    let _turn = alone();
    let root = Root::new();
    let (_, channel) = root.channel(1);
    let (one, other) = (root.child([channel.clone()]), root.child([channel]));
    let hoard: Vec<OwnedFd> = std::iter::from_fn(|| fs::File::open("/dev/null").ok().map(OwnedFd::from)).collect();
    send(&one, large(7, LARGE));
    let received = recv(&other);
    drop(hoard);
    assert_eq!(received.as_slice(), large(7, LARGE));
    nothing_is_left();
    end(&root, vec![one, other]);
}

/// Whoever has the descriptor can neither write to the block nor make it shorter.
fn sealed(descriptor: i32) {
    let path = format!("/proc/self/fd/{descriptor}");
    let file = fs::OpenOptions::new().write(true).open(path).unwrap();
    assert!(std::io::Write::write_all(&mut &file, b"x").is_err());
    assert!(file.set_len(0).is_err() && file.set_len(1 << 30).is_err());
}
