//! Every value is dropped exactly once, whatever becomes of it; and never while a lock is held.
//!
//! cargo test -p weft-core --test drops
//! cargo +nightly miri test -p weft-core --test drops
#![cfg(not(any(loom, shuttle)))]

mod common;

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex};
use std::task::{Wake, Waker};
use std::thread;
use std::time::Duration;

use common::*;
use weft_core::*;

const CAPACITIES: [usize; 3] = [0, 1, 3];

#[test]
fn received_values_are_dropped_by_the_receiver() {
    let census = Census::default();
    for capacity in CAPACITIES {
        let (tx, rx) = channel(capacity);
        let sender = {
            let census = census.clone();
            thread::spawn(move || (0..50).for_each(|n| assert!(tx.send(census.token(n)).wait().is_ok())))
        };
        for (n, token) in rx.iter().enumerate() {
            assert_eq!(token.number, n as u64);
        }
        sender.join().unwrap();
        assert_eq!(census.alive(), 0);
    }
}

#[test]
fn what_is_left_in_a_channel_is_dropped_with_it() {
    let census = Census::default();
    let channel = Channel::new(3);
    for n in 0..3 {
        channel.send(census.token(n)).wait().unwrap();
    }
    assert_eq!(census.alive(), 3);
    drop(channel);
    assert_eq!(census.alive(), 0);
}

#[test]
fn operations_that_are_never_performed_drop_their_value() {
    let census = Census::default();
    let (tx, rx) = channel(0);
    drop(tx.send(census.token(0)));
    drop(rx.recv());
    let mut values = VecDeque::from([census.token(1), census.token(2)]);
    drop(tx.send_many(&mut values));
    assert!(values.iter().map(|token| token.number).eq([1, 2]));
    drop(values);
    assert_eq!(census.alive(), 0);
}

#[test]
fn every_way_a_send_can_fail_gives_the_value_back() {
    let census = Census::default();
    let (tx, rx) = channel(0);
    assert_eq!(tx.send(census.token(1)).try_now().unwrap_err().into_value().number, 1);
    let late = tx.send(census.token(2)).wait_timeout(Duration::from_micros(50));
    assert_eq!(late.unwrap_err().into_value().number, 2);
    {
        let mut cancelled = pin!(tx.send(census.token(3)));
        assert!(poll(cancelled.as_mut()).is_pending());
        assert_eq!(census.alive(), 1);
    }
    assert_eq!(census.alive(), 0);
    let full = Channel::with_overflow(0, Overflow::Error);
    assert_eq!(full.send(census.token(4)).wait().unwrap_err().into_value().number, 4);
    drop(rx);
    assert_eq!(tx.send(census.token(5)).wait().unwrap_err().into_value().number, 5);
    assert_eq!(census.alive(), 0);
}

#[test]
fn parked_sends_get_their_values_back_from_poison_and_from_the_last_receiver() {
    let census = Census::default();
    for poisoned in [false, true] {
        for dropped in [false, true] {
            let (tx, rx) = channel(1);
            let mut sends: Vec<_> = (0..4).map(|n| Box::pin(tx.send(census.token(n)))).collect();
            let parked: Vec<_> = sends.iter_mut().map(|send| poll(send.as_mut()).is_pending()).collect();
            assert_eq!(parked, [false, true, true, true]);
            if poisoned {
                drop(rx.poison());
            } else {
                drop(rx);
            }
            assert_eq!(census.alive(), 3, "what was buffered is gone");
            for send in &mut sends[1..] {
                if dropped {
                    continue;
                }
                match poll(send.as_mut()) {
                    std::task::Poll::Ready(Err(error)) => drop(error.into_value()),
                    other => panic!("{other:?}"),
                }
            }
            drop(sends);
            assert_eq!(census.alive(), 0);
        }
    }
}

#[test]
fn a_decided_receive_that_nobody_asks_drops_its_value_only_when_nobody_can_have_it() {
    let census = Census::default();
    for poisoned in [false, true] {
        let (tx, rx) = channel(0);
        let mut receive = Box::pin(rx.recv());
        assert!(poll(receive.as_mut()).is_pending());
        tx.send(census.token(1)).try_now().unwrap();
        if poisoned {
            assert!(rx.poison().is_empty());
        }
        drop(receive);
        assert_eq!(census.alive(), usize::from(!poisoned));
        assert_eq!(rx.statistics().dropped, u64::from(poisoned));
        assert_eq!(rx.statistics().received, 0);
    }
    assert_eq!(census.alive(), 0);
}

#[test]
fn overflow_hands_over_what_it_drops() {
    let census = Census::default();
    for overflow in [Overflow::DropOldest, Overflow::DropNewest] {
        let channel = Channel::with_overflow(2, overflow);
        let displaced: Vec<_> = (0..5).filter_map(|n| channel.send(census.token(n)).wait().unwrap()).collect();
        assert_eq!((displaced.len(), census.alive()), (3, 5));
        let mut values: VecDeque<_> = (5..8).map(|n| census.token(n)).collect();
        let batch = channel.send_many(&mut values).wait().unwrap();
        assert_eq!((batch.count, batch.displaced.len()), (3, 3));
        drop((displaced, batch, channel));
        assert_eq!(census.alive(), 0);
    }
}

#[test]
fn selects_drop_each_value_once_whether_chosen_or_not() {
    let census = Census::default();
    let (a, b) = (Channel::new(1), Channel::new(0));
    for n in 0..20 {
        let (mut on_a, mut on_b, mut receive) = (a.send(census.token(n)), b.send(census.token(n)), a.recv());
        match select(&mut [&mut on_a, &mut on_b, &mut receive]).wait() {
            0 => drop(on_a.wait().unwrap()),
            1 => unreachable!(),
            _ if n % 2 == 0 => drop(receive.wait().unwrap()),
            _ => {} // its drop gives the value back
        }
        assert!(census.alive() <= 4);
    }
    drop((a, b));
    assert_eq!(census.alive(), 0);
}

#[test]
fn a_panic_between_the_operations_drops_each_value_once() {
    let census = Census::default();
    let channel = Channel::new(2);
    let unwound = catch_unwind(AssertUnwindSafe(|| {
        channel.send(census.token(1)).wait().unwrap();
        let mut parked = pin!(channel.send(census.token(2)));
        assert!(poll(parked.as_mut()).is_ready());
        let mut parked = pin!(channel.send(census.token(3)));
        assert!(poll(parked.as_mut()).is_pending());
        let mut on_other = channel.send(census.token(4));
        assert_eq!(select(&mut [&mut on_other]).try_now(), None);
        panic!("in the middle");
    }));
    assert!(unwound.is_err());
    assert_eq!((census.alive(), channel.len(), channel.statistics().parked_senders), (2, 2, 0));
}

/// A value whose drop uses the channel it was in: with a lock held this would stop for ever.
struct Meddler(Channel<Meddler>, #[expect(dead_code)] Token);

impl Meddler {
    fn new(channel: &Channel<Self>, census: &Census) -> Self {
        Self(channel.clone(), census.token(0))
    }
}

impl Drop for Meddler {
    fn drop(&mut self) {
        let statistics = self.0.statistics();
        let _ = (self.0.recv().try_now().is_ok(), self.0.len(), statistics);
        let _ = self.0.close_channel();
    }
}

#[test]
fn no_value_is_dropped_under_a_lock() {
    let census = Census::default();
    let make = |overflow, count: usize| {
        let channel = Channel::with_overflow(2, overflow);
        for _ in 0..count {
            assert!(channel.send(Meddler::new(&channel, &census)).wait().is_ok());
        }
        channel
    };
    for overflow in [Overflow::DropOldest, Overflow::DropNewest] {
        let channel = make(overflow, 3);
        drop(channel.poison());
    }
    // The last receiver leaves.
    let channel = make(Overflow::Block, 2);
    let (tx, rx) = channel.split();
    drop(rx);
    drop(tx);
    // A cancelled send, an operation that is not performed, a failed one.
    let channel = make(Overflow::Block, 2);
    {
        let mut send = pin!(channel.send(Meddler::new(&channel, &census)));
        assert!(poll(send.as_mut()).is_pending());
    }
    drop(channel.send(Meddler::new(&channel, &census)).wait());
    drop(channel.poison());
    // Given back to a channel that takes nothing any more.
    let channel = Channel::new(0);
    {
        let mut receive = pin!(channel.recv());
        assert!(poll(receive.as_mut()).is_pending());
        assert!(channel.send(Meddler::new(&channel, &census)).try_now().is_ok());
        drop(channel.poison());
    }
    assert_eq!(census.alive(), 0);
}

/// A waker that uses the channel when it is called, cloned or dropped.
struct Busy(Channel<u8>, Mutex<usize>);

impl Wake for Busy {
    fn wake(self: Arc<Self>) {
        let _ = (self.0.statistics(), self.0.send(9).try_now(), self.0.len());
        *self.1.lock().unwrap() += 1;
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        let _ = self.0.statistics();
    }
}

fn busy(channel: &Channel<u8>) -> (Arc<Busy>, Waker) {
    let busy = Arc::new(Busy(channel.clone(), Mutex::new(0)));
    (busy.clone(), busy.into())
}

#[test]
fn no_waker_is_called_or_dropped_under_a_lock() {
    let channel = Channel::new(1);
    let (counter, waker) = busy(&channel);
    let called = || *counter.1.lock().unwrap();
    {
        let mut receive = pin!(channel.recv());
        assert!(poll_with(receive.as_mut(), &waker).is_pending());
        channel.send(1).try_now().unwrap();
        assert_eq!((called(), channel.len()), (1, 1), "and it could send");
        // Replaced, then dropped, while it waits.
        let mut receive = pin!(channel.send(2));
        assert!(poll_with(receive.as_mut(), &busy(&channel).1).is_pending());
        assert!(poll_with(receive.as_mut(), &busy(&channel).1).is_pending());
    }
    channel.recv_many(9).wait().unwrap();
    {
        let (mut a, mut b) = (pin!(channel.recv()), pin!(after(Duration::from_secs(600))));
        let mut cases = [a.as_mut() as Pin<&mut (dyn Event + Send)>, b.as_mut()];
        let mut choice = pin!(select_pinned(&mut cases));
        assert!(poll_with(choice.as_mut(), &busy(&channel).1).is_pending());
        assert!(poll_with(choice.as_mut(), &waker).is_pending());
        channel.send(1).try_now().unwrap();
        assert_eq!(called(), 2);
    }
    let mut receives: Vec<_> = (0..3).map(|_| Box::pin(channel.recv())).collect();
    channel.recv_many(9).wait().unwrap();
    for receive in &mut receives {
        assert!(poll_with(receive.as_mut(), &waker).is_pending());
    }
    channel.close_channel();
    assert_eq!(called(), 5);
}
