//! The barrier: alone, in a select, and against everything else that may take a party away.
//!
//! cargo test -p weft-core --test barriers
//! cargo +nightly miri test -p weft-core --test barriers
#![cfg(not(any(loom, shuttle)))]

mod common;

use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;
use std::thread;
use std::time::Duration;

use common::*;
use weft_core::*;

#[test]
fn all_pass_at_once_and_know_their_order() {
    let barrier = Barrier::new(3);
    let mut parties: Vec<_> = (0..2).map(|_| Box::pin(barrier.sync())).collect();
    for party in &mut parties {
        assert!(poll(party.as_mut()).is_pending());
    }
    assert_eq!((barrier.parties(), barrier.waiting()), (3, 2));
    assert_eq!(barrier.sync().wait(), Ok(2));
    for (order, party) in parties.iter_mut().enumerate() {
        assert_eq!(poll(party.as_mut()), Poll::Ready(Ok(order)));
    }
    assert_eq!(barrier.waiting(), 0);
}

#[test]
fn threads_meet_again_and_again() {
    let (barrier, rounds) = (Barrier::new(4), AtomicUsize::new(0));
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for round in 0..times(200) {
                    assert_eq!(rounds.load(Ordering::SeqCst) / 4, round);
                    barrier.sync().wait().unwrap();
                    rounds.fetch_add(1, Ordering::SeqCst);
                    barrier.sync().wait().unwrap();
                }
            });
        }
    });
}

#[test]
fn who_gives_up_is_not_counted() {
    let barrier = Barrier::new(2);
    assert_eq!(barrier.sync().try_now(), Err(SyncError::WouldBlock));
    assert_eq!(barrier.sync().wait_timeout(Duration::from_micros(50)), Err(SyncError::Timeout));
    {
        let mut party = pin!(barrier.sync());
        assert!(poll(party.as_mut()).is_pending());
    }
    assert_eq!(barrier.sync().try_now(), Err(SyncError::WouldBlock));
    assert_eq!(Barrier::new(0).sync().wait(), Ok(0), "at least one party");
}

#[test]
fn a_select_that_stands_in_a_barrier_twice_is_one_party() {
    let barrier = Barrier::new(3);
    {
        let (mut one, mut two) = (pin!(barrier.sync()), pin!(barrier.sync()));
        let mut cases = [one.as_mut() as Pin<&mut (dyn Event + Send)>, two.as_mut()];
        let mut choice = pin!(select_pinned(&mut cases));
        assert!(poll(choice.as_mut()).is_pending());
        assert_eq!(barrier.waiting(), 1);
        assert_eq!(barrier.sync().try_now(), Err(SyncError::WouldBlock), "one is missing");
        let mut third = pin!(barrier.sync());
        assert!(poll(third.as_mut()).is_pending());
        assert_eq!(barrier.sync().try_now(), Ok(2));
        assert_eq!(poll(choice.as_mut()), Poll::Ready(0));
    }
    assert_eq!(barrier.waiting(), 0);
}

#[test]
fn a_select_is_taken_by_the_barrier_or_by_the_channel_never_by_both() {
    for round in 0..times(300) {
        let (barrier, channel) = (Barrier::new(2), Channel::new(0));
        thread::scope(|scope| {
            let chooser = scope.spawn(|| {
                let (mut sync, mut receive) = (barrier.sync(), channel.recv());
                select(&mut [&mut sync, &mut receive]).wait()
            });
            let sender = scope.spawn(|| channel.send(round).wait_timeout(Duration::from_millis(1)).is_ok());
            let party = barrier.sync().wait_timeout(Duration::from_millis(1)).is_ok();
            // Both may have been too late: then help the chooser out.
            let sent = sender.join().unwrap();
            if !party && !sent {
                let _ = channel.send(round).wait();
            }
            let chosen = chooser.join().unwrap();
            assert_eq!(party, chosen == 0);
            assert!(chosen == 1 || !sent);
        });
    }
}

#[test]
fn two_barriers_never_wait_for_each_other() {
    // Selects over the same two barriers, in opposite orders, from several threads: each round one of the two must go.
    let (a, b) = (Barrier::new(3), Barrier::new(3));
    thread::scope(|scope| {
        for thread in 0..3 {
            let (a, b) = (&a, &b);
            scope.spawn(move || {
                for _ in 0..times(200) {
                    let (mut on_a, mut on_b) = (a.sync(), b.sync());
                    let cases: &mut [&mut dyn Event] =
                        if thread % 2 == 0 { &mut [&mut on_a, &mut on_b] } else { &mut [&mut on_b, &mut on_a] };
                    select(cases).wait();
                }
            });
        }
    });
}
