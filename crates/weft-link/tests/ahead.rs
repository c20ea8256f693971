//! What a child does ahead of the root's answer, and that nobody can tell.
#![cfg(any(target_os = "linux", target_os = "macos"))]

mod common;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::thread;

use common::*;
use weft_core::Channel;
use weft_core::chan::{Chan, End as Ended, Outcome};
use weft_link::*;

/// A child that asks the root only if it must.
struct Quick {
    child: Child,
    ahead: Vec<Arc<Ahead>>,
    /// How often it did not have to.
    quick: usize,
}

impl Quick {
    fn new(child: Child) -> Self {
        let ahead = child.ends.iter().map(|end| child.client.ahead(end.channel())).collect();
        Self { child, ahead, quick: 0 }
    }

    fn send(&mut self, channel: usize, n: u64) -> Outcome {
        if self.child.client.send_ahead(&self.ahead[channel], number(n)).is_ok() {
            self.quick += 1;
            return Outcome::Done;
        }
        self.child.send(self.child.channel(channel), n)
    }

    fn take(&mut self, channel: usize) -> Option<u64> {
        let value = self.child.client.recv_ahead(&self.ahead[channel])?;
        self.quick += 1;
        Some(read(&value))
    }

    fn recv(&mut self, channel: usize) -> Result<u64, Outcome> {
        self.take(channel).map_or_else(|| self.child.recv(self.child.channel(channel)), Ok)
    }

    fn settle(&self) {
        self.child.settle();
    }
}

fn put(chan: &Chan<Value>, values: impl IntoIterator<Item = u64>) {
    for n in values {
        let (sent, wakes) = chan.try_send(Value(number(n)));
        assert!(sent.is_ok(), "no room for {n}");
        wakes.wake();
    }
}

fn rest(chan: &Chan<Value>) -> Vec<u64> {
    let mut values = Vec::new();
    chan.try_recv_many(usize::MAX, &mut values).1.wake();
    values.iter().map(|value| read(&value.0)).collect()
}

#[test]
fn after_the_first_send_the_next_ones_need_no_answer() {
    let root = Root::new();
    let (chan, end) = root.channel(100);
    let mut child = Quick::new(root.child([end]));
    for n in 0..40 {
        assert_eq!(child.send(0, n), Outcome::Done);
    }
    assert_eq!(child.quick, 39);
    child.settle();
    assert_eq!(rest(&chan), (0..40).collect::<Vec<_>>());
}

#[test]
fn after_the_first_receive_the_next_ones_are_there() {
    let root = Root::new();
    let (chan, end) = root.channel(100);
    put(&chan, 0..40);
    let mut child = Quick::new(root.child([end]));
    for n in 0..40 {
        assert_eq!(child.recv(0), Ok(n));
        assert_eq!(chan.len(), 39 - n as usize, "what was not taken is in the channel");
    }
    assert_eq!(child.quick, 39);
    assert_eq!(chan.statistics().received, 40);
}

#[test]
fn l1_a_full_channel_is_full_however_it_was_filled() {
    let root = Root::new();
    let (chan, end) = root.channel(8);
    let mut child = Quick::new(root.child([end]));
    for n in 0..8 {
        assert_eq!(child.send(0, n), Outcome::Done);
    }
    assert!(child.child.client.send_ahead(&child.ahead[0], number(8)).is_err());
    child.child.begin(0, child.child.channel(0), Action::Send(number(8)));
    child.settle();
    assert_eq!((chan.len(), chan.statistics().parked_senders), (8, 1));
    assert_eq!(rest(&chan), (0..=8).collect::<Vec<_>>());
    assert_eq!(child.child.decided().outcome, Outcome::Done);
}

#[test]
fn l1_room_that_a_child_does_not_use_is_there_for_all() {
    let root = Root::new();
    let (chan, end) = root.channel(8);
    let (mut one, mut other) = (Quick::new(root.child([end.clone()])), Quick::new(root.child([end])));
    assert_eq!(one.send(0, 0), Outcome::Done);
    assert_eq!(other.send(0, 1), Outcome::Done);
    put(&chan, 2..8);
    assert!(chan.try_send(Value(number(9))).0.is_err());
    assert!(one.child.client.send_ahead(&one.ahead[0], number(8)).is_err(), "it was called back");
    assert!(other.child.client.send_ahead(&other.ahead[0], number(8)).is_err());
    assert_eq!(rest(&chan), (0..8).collect::<Vec<_>>());
}

#[test]
fn l2_what_was_lent_is_received_by_others_in_order() {
    let root = Root::new();
    let (chan, end) = root.channel(100);
    put(&chan, 0..10);
    let (mut one, mut other) = (Quick::new(root.child([end.clone()])), Quick::new(root.child([end])));
    assert_eq!((one.recv(0), one.recv(0)), (Ok(0), Ok(1)));
    assert_eq!(other.recv(0), Ok(2));
    assert_eq!(one.take(0), None);
    assert_eq!(one.recv(0), Ok(3));
    assert_eq!(rest(&chan), (4..10).collect::<Vec<_>>());
}

#[test]
fn l2_a_select_and_a_batch_come_after_what_was_lent() {
    let root = Root::new();
    let (chan, end) = root.channel(100);
    put(&chan, 0..10);
    let mut child = Quick::new(root.child([end]));
    assert_eq!(child.recv(0), Ok(0));
    let channel = child.child.channel(0);
    child.child.submit(0, true, vec![recv(channel), recv(channel)]);
    assert_eq!(read(&child.child.decided().received[0]), 1);
    let many = child.child.perform(channel, Action::RecvMany(3)).received;
    assert_eq!(many.iter().map(read).collect::<Vec<_>>(), [2, 3, 4]);
    assert_eq!(child.recv(0), Ok(5));
}

#[test]
fn a_sender_that_waits_in_the_root_goes_on_when_a_value_is_taken() {
    let root = Root::new();
    let (chan, end) = root.channel(4);
    put(&chan, 0..4);
    let mut child = Quick::new(root.child([end]));
    let channel = Channel::from(chan);
    thread::scope(|scope| {
        scope.spawn(|| (4..300).for_each(|n| assert!(channel.send(Value(number(n))).wait().is_ok())));
        for n in 0..300 {
            assert_eq!(child.recv(0), Ok(n));
        }
    });
    assert!(child.quick > 0);
}

#[test]
fn l8_what_a_dead_child_was_lent_and_had_not_taken_is_received_by_others() {
    let root = Root::new();
    let (chan, end) = root.channel(100);
    put(&chan, 0..10);
    let mut child = Quick::new(root.child([end]));
    assert_eq!((child.recv(0), child.recv(0)), (Ok(0), Ok(1)));
    put(&chan, 10..12);
    root.hub.disconnect(child.child.peer);
    root.log.gone(child.child.peer);
    assert_eq!(child.take(0), None);
    assert_eq!(rest(&chan), (2..12).collect::<Vec<_>>());
}

#[test]
fn room_that_a_dead_child_was_promised_is_free() {
    let root = Root::new();
    let (chan, end) = root.channel(8);
    let mut child = Quick::new(root.child([end]));
    assert_eq!(child.send(0, 0), Outcome::Done);
    root.hub.disconnect(child.child.peer);
    root.log.gone(child.child.peer);
    put(&chan, 1..8);
    assert!(child.child.client.send_ahead(&child.ahead[0], number(8)).is_err());
    assert_eq!(rest(&chan), (0..8).collect::<Vec<_>>());
}

#[test]
fn l6_what_was_sent_before_a_close_is_delivered_before_the_end() {
    for round in 0..200 {
        let root = Root::new();
        let (chan, end) = root.channel(16);
        let mut child = Quick::new(root.child([end]));
        let channel = Channel::from(chan.clone());
        let received = thread::scope(|scope| {
            let receiver = scope.spawn(|| {
                let mut received = Vec::new();
                while let Ok(value) = channel.recv().wait() {
                    received.push(read(&value.0));
                }
                received
            });
            let closer = scope.spawn(|| {
                (0..round % 7).for_each(|_| thread::yield_now());
                chan.close(None).1.wake();
            });
            let sent = (0..30).take_while(|n| child.send(0, *n) == Outcome::Done).count() as u64;
            closer.join().unwrap();
            (sent, receiver.join().unwrap())
        });
        assert_eq!(received.1, (0..received.0).collect::<Vec<_>>(), "round {round}");
    }
}

#[test]
fn l7_a_poisoned_channel_gives_nothing_more_and_says_what_was_dropped() {
    let root = Root::new();
    let (chan, end) = root.channel(100);
    put(&chan, 0..5);
    let mut child = Quick::new(root.child([end]));
    assert_eq!((child.recv(0), child.recv(0)), (Ok(0), Ok(1)));
    let dropped = chan.poison(None).0.unwrap_or_default();
    assert_eq!(dropped.iter().map(|value| read(&value.0)).collect::<Vec<_>>(), [2, 3, 4]);
    assert_eq!(child.recv(0), Err(Outcome::Ended(Ended::Poisoned)));
    assert_eq!(child.send(0, 9), Outcome::Ended(Ended::Poisoned));
}

#[test]
fn a_value_with_an_end_or_a_large_one_asks_the_root() {
    let root = Root::new();
    let (chan, end) = root.channel(100);
    let (_, other) = root.channel(1);
    let child = Quick::new(root.child([end, other]));
    assert_eq!(child.child.send(child.child.channel(0), 0), Outcome::Done);
    let ahead = &child.ahead[0];
    let travelling = with_end(child.child.ends[1].open(Side::Sender));
    assert!(child.child.client.send_ahead(ahead, travelling).is_err());
    let large = Wire { bytes: vec![0; LARGE].into(), attachments: Vec::new() };
    assert!(child.child.client.send_ahead(ahead, large).is_err());
    assert!(child.child.client.send_ahead(ahead, number(1)).is_ok(), "neither has cost any room");
    child.settle();
    assert_eq!(rest(&chan), [0, 1]);
}

#[test]
fn a_channel_whose_ends_come_and_go_has_new_leases_each_time() {
    let root = Root::new();
    let (work, work_end) = root.channel(10);
    let (post, post_end) = root.channel(10);
    let child = Quick::new(root.child([post_end]));
    // More often than there are words.
    for n in 0..600 {
        let (sent, wakes) = post.try_send(Value(with_end(work_end.clone())));
        assert!(sent.is_ok());
        wakes.wake();
        let end = end_of(child.child.perform(child.child.channel(0), Action::Recv).received.remove(0));
        let ahead = child.child.client.ahead(end.channel());
        assert_eq!(child.child.send(end.channel(), n), Outcome::Done);
        assert!(child.child.client.send_ahead(&ahead, number(n)).is_ok(), "{n}");
        drop(end);
        child.settle();
        assert!(child.child.client.send_ahead(&ahead, number(n)).is_err(), "its lease ended with its end");
        assert_eq!(rest(&work), [n, n]);
    }
}

/// Children and the root itself, all at once, on one channel: each sender's values arrive once and in order, whoever receives them.
#[test]
fn l2_l3_a_storm_ahead_of_itself() {
    const EACH: u64 = 2000;
    for (seed, capacity) in [(1, 2), (2, 7), (3, 64), (4, 1000), (5, 1), (6, 1)] {
        let root = Root::new();
        let (chan, end) = root.channel(capacity);
        let mut children: Vec<_> = (0..4).map(|_| Quick::new(root.child([end.clone()]))).collect();
        let receivers = children.split_off(2);
        let channel = Channel::from(chan.clone());
        let received: Vec<Vec<u64>> = thread::scope(|scope| {
            let mut senders = Vec::new();
            for (mut child, which) in children.into_iter().zip(1..) {
                senders.push(scope.spawn(move || {
                    let mut dice = Dice(seed * 31 + which);
                    let mut n = 0;
                    while n < EACH {
                        let (first, channel) = (which << 32 | n, child.child.channel(0));
                        n += match dice.below(8) {
                            0 => {
                                let many = (0..3).map(|more| number(first + more)).collect();
                                child.child.perform(channel, Action::SendMany(many)).sent as u64
                            }
                            1 => {
                                child.child.submit(0, true, vec![send(channel, first), send(channel, first)]);
                                assert_eq!(child.child.decided().outcome, Outcome::Done);
                                1
                            }
                            _ => {
                                assert_eq!(child.send(0, first), Outcome::Done);
                                1
                            }
                        };
                    }
                    child.settle();
                }));
            }
            let here = channel.clone();
            senders.push(scope.spawn(move || {
                (0..EACH).for_each(|n| assert!(here.send(Value(number(9 << 32 | n))).wait().is_ok()));
            }));
            let mut takers: Vec<_> = receivers
                .into_iter()
                .map(|mut child| {
                    scope.spawn(move || {
                        let (mut received, mut dice) = (Vec::new(), Dice(seed));
                        let channel = child.child.channel(0);
                        loop {
                            match dice.below(40) {
                                0 => match child.child.perform(channel, Action::RecvMany(5)) {
                                    Decided { outcome: Outcome::Done, received: many, .. } => {
                                        received.extend(many.iter().map(read));
                                    }
                                    _ => return received,
                                },
                                _ => match child.recv(0) {
                                    Ok(value) => received.push(value),
                                    Err(_) => return received,
                                },
                            }
                        }
                    })
                })
                .collect();
            if seed % 2 == 0 {
                let here = channel.clone();
                takers.push(scope.spawn(move || {
                    let mut received = Vec::new();
                    while let Ok(value) = here.recv().wait() {
                        received.push(read(&value.0));
                        thread::yield_now();
                    }
                    received
                }));
            }
            senders.into_iter().for_each(|sender| sender.join().unwrap());
            chan.close(None).1.wake();
            takers.into_iter().map(|taker| taker.join().unwrap()).collect()
        });
        let mut last = BTreeMap::new();
        for one in &received {
            let mut mine = BTreeMap::new();
            for value in one {
                let before = mine.insert(value >> 32, *value);
                assert!(before < Some(*value), "a receiver saw {value:x} after {before:x?}");
                *last.entry(value >> 32).or_insert(0) += 1;
            }
        }
        // send_many may send one or two beyond the last.
        let counts: Vec<u64> = last.values().copied().collect();
        assert!(counts.iter().all(|count| (EACH..EACH + 3).contains(count)), "{counts:?}");
        let mut all: Vec<u64> = received.concat();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len() as u64, counts.iter().sum::<u64>(), "one was received twice");
        let statistics = chan.statistics();
        assert_eq!((statistics.sent, statistics.received), (all.len() as u64, all.len() as u64));
    }
}
