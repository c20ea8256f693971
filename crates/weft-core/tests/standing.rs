//! The standing select: fair, conserving, with channels that come and go.
//!
//! cargo test -p weft-core --test standing
//! cargo +nightly miri test -p weft-core --test standing
#![cfg(not(any(loom, shuttle)))]

mod common;

use std::collections::HashMap;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Poll, Waker};
use std::thread;
use std::time::Duration;

use common::*;
use weft_core::chan::{Chan, Wakes};
use weft_core::selecting::{Next, Selecting};
use weft_core::*;

fn value<T>(served: Option<Served<T>>) -> (Key, T) {
    match served {
        Some(Served::Value(key, value)) => (key, value),
        _ => panic!("no value"),
    }
}

#[test]
fn l6_nobody_is_served_twice_while_another_is_ready() {
    let channels: Vec<_> = (0..5).map(|_| channel(100)).collect();
    let mut standing = Standing::new();
    let keys: Vec<_> = channels.iter().map(|(_, rx)| standing.add(rx.clone())).collect();
    // A flood in the first, a little in the others; and the consumer has waited in between, or not.
    for waited in [false, true] {
        if waited {
            assert!(standing.try_now().is_none());
        }
        (0..100).for_each(|n| assert!(channels[0].0.send(n).wait().is_ok()));
        for (tx, _) in &channels[1..] {
            (0..3).for_each(|n| assert!(tx.send(n).wait().is_ok()));
        }
        let mut since = [0; 5];
        for _ in 0..112 {
            let (key, _) = value(standing.wait());
            let who = keys.iter().position(|each| *each == key).unwrap();
            for (each, count) in since.iter_mut().enumerate() {
                *count = if each == who { 0 } else { *count + 1 };
                assert!(*count < 5 || channels[each].0.is_empty(), "{each} waits too long");
            }
        }
        assert!(standing.try_now().is_none());
    }
}

#[test]
fn l6_a_channel_that_became_ready_comes_before_the_one_served_last() {
    let (a, b) = (channel(10), channel(10));
    let mut standing = Standing::new();
    let (first, second) = (standing.add(a.1), standing.add(b.1));
    (0..3).for_each(|n| assert!(a.0.send(n).wait().is_ok()));
    assert_eq!(value(standing.wait()), (first, 0));
    b.0.send(7).wait().unwrap();
    assert_eq!(value(standing.wait()), (second, 7));
    assert_eq!(value(standing.wait()), (first, 1));
}

#[test]
fn values_are_taken_only_when_asked_for() {
    let (tx, rx) = channel(0);
    let mut standing = Standing::new();
    let key = standing.add(rx);
    assert_eq!(tx.send(1).try_now(), Err(SendError::WouldBlock(1)));
    {
        let mut next = pin!(standing.next());
        assert!(poll(next.as_mut()).is_pending());
    }
    assert_eq!(tx.send(1).try_now(), Err(SendError::WouldBlock(1)), "it no longer waits");
    {
        let mut next = pin!(standing.next());
        assert!(poll(next.as_mut()).is_pending());
        tx.send(2).try_now().unwrap();
    }
    // Handed over, then dropped: told the next time.
    assert_eq!(value(standing.try_now()), (key, 2));
}

#[test]
fn closed_channels_leave() {
    let (a, b) = (channel(1), channel::<u8>(1));
    let mut standing = Standing::new();
    let (first, second) = (standing.add(a.1), standing.add(b.1));
    a.0.send(1).wait().unwrap();
    drop(a.0);
    assert_eq!(value(standing.wait()), (first, 1));
    match standing.wait() {
        Some(Served::Left(key, End::Closed, rx)) => assert!(key == first && rx.end().is_some()),
        other => panic!("{other:?}"),
    }
    let mut next = Box::pin(standing.next());
    assert!(poll(next.as_mut()).is_pending());
    b.0.poison();
    match poll(next.as_mut()) {
        Poll::Ready(Some(Served::Left(key, End::Poisoned, _))) => assert_eq!(key, second),
        other => panic!("{other:?}"),
    }
    drop(next);
    assert!(standing.is_empty() && standing.wait().is_none());
}

#[test]
fn channels_come_and_go_while_it_runs() {
    let mut standing = Standing::new();
    let channels: Vec<_> = (0..4).map(|_| channel(1)).collect();
    let mut keys: HashMap<_, _> = (0..2).map(|n| (standing.add(channels[n].1.clone()), n)).collect();
    assert!(standing.try_now().is_none());
    (0..4).for_each(|n| assert!(channels[n].0.send(n).wait().is_ok()));
    let (gone, _) = keys.iter().find(|(_, n)| **n == 0).map(|(key, n)| (*key, *n)).unwrap();
    keys.remove(&gone);
    assert!(standing.discard(gone).is_some());
    assert!(standing.discard(gone).is_none());
    for (n, (_, rx)) in channels.iter().enumerate().skip(2) {
        keys.insert(standing.add(rx.clone()), n);
    }
    let mut got: Vec<_> = (0..3).map(|_| value(standing.wait())).collect();
    got.sort_by_key(|(_, n)| *n);
    assert!(got.iter().map(|(key, _)| keys[key]).eq([1, 2, 3]));
    assert!(got.into_iter().map(|(_, n)| n).eq([1, 2, 3]));
    assert_eq!(channels[0].1.recv().try_now(), Ok(0), "what was taken out keeps its value");
}

#[test]
fn the_key_of_a_channel_that_left_names_no_other() {
    let mut standing = Standing::new();
    for ended in [false, true] {
        let (a, b) = (channel::<u8>(1), channel(1));
        let old = standing.add(a.1);
        if ended {
            drop(a.0);
            assert!(matches!(standing.wait(), Some(Served::Left(key, ..)) if key == old));
        } else {
            assert!(standing.discard(old).is_some());
        }
        let new = standing.add(b.1);
        assert_eq!(new.place(), old.place(), "it has the place of the other");
        assert_ne!(new, old);
        assert!(standing.discard(old).is_none());
        b.0.send(7).try_now().unwrap();
        assert_eq!(value(standing.wait()), (new, 7), "and is still there");
        assert_eq!(Key::from_bits(new.to_bits()), new);
        assert!(standing.discard(new).is_some());
    }
}

/// A value that, when it is dropped, notes how many parties are in another channel's queues, waiting or not: 1 and so many.
struct Looks(Arc<Chan<Looks>>, Arc<AtomicUsize>);

impl Drop for Looks {
    fn drop(&mut self) {
        // A lock that is held would stop us here; `visit` passes over it.
        let mut linked = 1 + self.0.len();
        self.0.visit(|_| (), |_| (), |_| linked += 1);
        self.1.store(linked, Ordering::SeqCst);
    }
}

/// A drop or a waker may panic, and what is still in a queue by then would be found there by others.
#[test]
fn a_standing_select_that_goes_is_in_no_queue_when_anything_foreign_runs() {
    // What is dropped: the value it was handed, or one in a channel of which it has the last share.
    for handed in [false, true] {
        let parked = Arc::new(Chan::new(Some(0), Overflow::Block));
        let chan = Arc::new(Chan::new(Some(1), Overflow::Block));
        let linked = Arc::new(AtomicUsize::new(0));
        let mut selecting = Selecting::new();
        for chan in [&chan, &parked] {
            selecting.add(chan.clone()).1.wake();
        }
        let mut wakes = Wakes::new();
        assert!(matches!(selecting.next(|| Waker::noop().clone(), &mut wakes), Next::Parked));
        wakes.wake();
        if !handed {
            assert!(selecting.withdraw());
        }
        let (answer, wakes) = chan.try_send(Looks(parked.clone(), linked.clone()));
        assert!(answer.is_ok());
        wakes.wake();
        if handed {
            let (values, wakes) = chan.poison(None);
            assert!(values.is_some_and(|values| values.is_empty()));
            wakes.wake();
        } else {
            drop(chan);
        }
        assert_eq!(linked.load(Ordering::SeqCst), 0);
        drop(selecting);
        assert_eq!(linked.load(Ordering::SeqCst), 1, "dropped, and nobody was linked");
    }
}

#[test]
fn a_standing_select_that_goes_wakes_whoever_gets_what_it_was_handed() {
    let census = Census::default();
    let (tx, rx) = channel(0);
    let mut standing = Standing::new();
    standing.add(rx.clone());
    {
        let mut next = pin!(standing.next());
        assert!(poll(next.as_mut()).is_pending());
        tx.send(census.token(1)).try_now().unwrap();
    }
    let (count, waker) = Count::new();
    let mut receive = pin!(rx.recv());
    assert!(poll_with(receive.as_mut(), &waker).is_pending());
    drop(standing);
    assert_eq!(count.get(), 1);
    assert!(matches!(poll(receive.as_mut()), Poll::Ready(Ok(token)) if token.number == 1));
    assert_eq!(census.alive(), 0);
}

#[test]
fn a_dissolved_select_leaves_what_it_was_handed_to_its_owner() {
    let census = Census::default();
    let chan = Arc::new(Chan::new(Some(0), Overflow::Block));
    for handed in [false, true] {
        let mut selecting = Selecting::new();
        selecting.add(chan.clone()).1.wake();
        let mut wakes = Wakes::new();
        assert!(matches!(selecting.next(|| Waker::noop().clone(), &mut wakes), Next::Parked));
        if handed {
            let (answer, wakes) = chan.try_send(census.token(1));
            assert!(answer.is_ok());
            wakes.wake();
        }
        let left = selecting.dissolve();
        assert_eq!(left.is_some(), handed);
        if let Some((token, from)) = left {
            assert!(token.number == 1 && Arc::ptr_eq(&from, &chan));
        }
        assert_eq!(chan.statistics().parked_receivers, 0);
        wakes.wake();
    }
    assert_eq!(census.alive(), 0);
}

#[test]
fn l3_a_value_handed_to_a_standing_select_that_goes_is_given_back() {
    let census = Census::default();
    for discarded in [false, true] {
        let (tx, rx) = channel(0);
        let mut standing = Standing::new();
        let key = standing.add(rx.clone());
        {
            let mut next = pin!(standing.next());
            assert!(poll(next.as_mut()).is_pending());
            tx.send(census.token(1)).try_now().unwrap();
        }
        if discarded {
            drop(standing.discard(key));
            assert!(standing.wait().is_none());
        }
        drop(standing);
        assert_eq!(rx.recv().try_now().unwrap().number, 1);
    }
    assert_eq!(census.alive(), 0);
}

#[test]
fn it_may_move_while_it_waits() {
    let (tx, rx) = channel(0);
    let mut standing = Box::new(Standing::new());
    standing.add(rx);
    {
        let mut next = Box::pin(standing.next());
        assert!(poll(next.as_mut()).is_pending());
        std::mem::forget(next); // so that it still waits
    }
    let mut moved = *standing;
    thread::scope(|scope| {
        // Long enough for it to sleep: the forgotten future's waker wakes nobody.
        scope.spawn(|| {
            after(Duration::from_millis(20)).wait();
            tx.send(5).wait().unwrap();
        });
        assert_eq!(value(moved.wait()).1, 5);
    });
}

#[test]
fn many_threads_feed_one_consumer() {
    const EACH: u64 = times(300) as u64;
    let mut standing = Standing::new();
    let mut keys = HashMap::new();
    thread::scope(|scope| {
        for feeder in 0..6_u64 {
            let (tx, rx) = channel(feeder as usize % 3);
            keys.insert(standing.add(rx), feeder);
            scope.spawn(move || (0..EACH).for_each(|n| assert!(tx.send(n).wait().is_ok())));
        }
        let mut next = HashMap::new();
        let mut left = 0;
        let mut random = Random::new(7);
        while left < 6 {
            // By blocking, by a timeout that may come too early, and as a future that may be dropped.
            let served = match random.below(3) {
                0 => standing.wait(),
                1 => standing.wait_timeout(Duration::from_micros(random.below(30))),
                _ => {
                    let mut next = pin!(standing.next());
                    match poll(next.as_mut()) {
                        Poll::Ready(served) => served,
                        Poll::Pending => None,
                    }
                }
            };
            match served {
                Some(Served::Value(key, value)) => {
                    let expected: &mut u64 = next.entry(key).or_default();
                    assert_eq!(value, *expected);
                    *expected += 1;
                }
                Some(Served::Left(key, ..)) => {
                    assert_eq!(next.remove(&key), Some(EACH));
                    left += 1;
                }
                Some(_) | None => {}
            }
        }
    });
}
