//! The standing select: fair, conserving, with channels that come and go.
//!
//! cargo test -p weft-core --test standing
//! cargo +nightly miri test -p weft-core --test standing
#![cfg(not(any(loom, shuttle)))]

mod common;

use std::collections::HashMap;
use std::pin::pin;
use std::task::Poll;
use std::thread;
use std::time::Duration;

use common::*;
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
