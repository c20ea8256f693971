//! Go's blocking matrix (The Go Programming Language Specification, "Send statements", "Receive operator", "Close", "Select statements"):
//! every operation on every state of a channel, with and without a buffer. What panics in Go is an error here.
//!
//! cargo test -p weft-core --test go
//! cargo +nightly miri test -p weft-core --test go
#![cfg(not(any(loom, shuttle)))]

mod common;

use std::thread;
use std::time::Duration;

use common::*;
use weft_core::*;

#[derive(Clone, Copy, Debug)]
enum State {
    Empty,
    PartlyFull,
    Full,
    ClosedEmpty,
    ClosedWithValues,
}

#[derive(PartialEq, Debug)]
enum Verdict {
    Succeeds,
    Blocks,
    Closed,
}
use Verdict::{Blocks, Closed, Succeeds};

fn channel_in(state: State) -> Channel<u8> {
    let channel = Channel::new(2);
    let values = match state {
        State::Empty | State::ClosedEmpty => 0,
        State::PartlyFull | State::ClosedWithValues => 1,
        State::Full => 2,
    };
    (0..values).for_each(|n| assert!(channel.send(n).wait().is_ok()));
    if let State::ClosedEmpty | State::ClosedWithValues = state {
        channel.close_channel();
    }
    channel
}

fn send(channel: &Channel<u8>) -> Verdict {
    match channel.send(9).try_now() {
        Ok(_) => Succeeds,
        Err(SendError::WouldBlock(9)) => Blocks,
        Err(SendError::Closed(9, None)) => Closed,
        Err(other) => panic!("{other:?}"),
    }
}

fn recv(channel: &Channel<u8>) -> Verdict {
    match channel.recv().try_now() {
        Ok(_) => Succeeds,
        Err(RecvError::WouldBlock) => Blocks,
        Err(RecvError::Closed(None)) => Closed,
        Err(other) => panic!("{other:?}"),
    }
}

/// The same question asked of a select with that one case and a default.
fn selected(channel: &Channel<u8>, sending: bool) -> Verdict {
    let (mut send, mut recv) = (channel.send(9), channel.recv());
    if sending {
        match select(&mut [&mut send]).try_now() {
            None => Blocks,
            Some(_) if send.wait().is_ok() => Succeeds,
            Some(_) => Closed,
        }
    } else {
        match select(&mut [&mut recv]).try_now() {
            None => Blocks,
            Some(_) if recv.wait().is_ok() => Succeeds,
            Some(_) => Closed,
        }
    }
}

#[test]
fn the_matrix_of_send_receive_and_close() {
    let rows = [
        (State::Empty, Succeeds, Blocks, true),
        (State::PartlyFull, Succeeds, Succeeds, true),
        (State::Full, Blocks, Succeeds, true),
        (State::ClosedEmpty, Closed, Closed, false),
        (State::ClosedWithValues, Closed, Succeeds, false),
    ];
    for (state, sends, receives, closes) in rows {
        assert_eq!(send(&channel_in(state)), sends, "send, {state:?}");
        assert_eq!(recv(&channel_in(state)), receives, "receive, {state:?}");
        assert_eq!(selected(&channel_in(state), true), sends, "select send, {state:?}");
        assert_eq!(selected(&channel_in(state), false), receives, "select receive, {state:?}");
        assert_eq!(channel_in(state).close_channel(), closes, "close, {state:?}");
    }
}

#[test]
fn the_matrix_without_a_buffer() {
    let alone = Channel::new(0);
    assert_eq!((send(&alone), recv(&alone)), (Blocks, Blocks));

    let channel = Channel::new(0);
    thread::scope(|scope| {
        let sender = scope.spawn(|| channel.send(1).wait());
        until_senders(&channel, 1);
        assert_eq!(send(&channel), Blocks, "a second sender does not meet the first");
        assert_eq!(recv(&channel), Succeeds);
        sender.join().unwrap().unwrap();

        let receiver = scope.spawn(|| channel.recv().wait());
        until_receivers(&channel, 1);
        assert_eq!(recv(&channel), Blocks, "a second receiver does not meet the first");
        assert_eq!(send(&channel), Succeeds);
        assert_eq!(receiver.join().unwrap(), Ok(9));
    });
    channel.close_channel();
    assert_eq!((send(&channel), recv(&channel)), (Closed, Closed));
}

#[test]
fn close_while_receivers_wait_ends_them_and_senders_wait_on() {
    let channel = Channel::<u8>::new(0);
    thread::scope(|scope| {
        let receiver = scope.spawn(|| channel.recv().wait());
        until_receivers(&channel, 1);
        channel.close_channel();
        assert_eq!(receiver.join().unwrap(), Err(RecvError::Closed(None)));
    });
    // In Go a sender parked at the time of close panics. Here its value, sent before, is still delivered.
    let channel = Channel::new(0);
    thread::scope(|scope| {
        let sender = scope.spawn(|| channel.send(1).wait());
        until_senders(&channel, 1);
        channel.close_channel();
        assert_eq!(channel.recv().wait(), Ok(1));
        assert_eq!(sender.join().unwrap(), Ok(None));
        assert_eq!(recv(&channel), Closed);
    });
}

#[test]
fn range_ends_when_the_channel_is_closed_and_drained() {
    let channel = Channel::new(3);
    (1..=3).for_each(|n| assert!(channel.send(n).wait().is_ok()));
    channel.close_channel();
    let mut sum = 0;
    for n in &channel {
        sum += n;
    }
    assert_eq!(sum, 6);
}

#[test]
fn a_nil_channel_in_a_select_never_happens() {
    // A merge that switches off each input as it ends, as in Go by setting it to nil.
    let (a, b) = (Channel::new(1), Channel::new(2));
    a.send(1).wait().unwrap();
    (2..=3).for_each(|n| assert!(b.send(n).wait().is_ok()));
    a.close_channel();
    b.close_channel();
    let (mut open_a, mut open_b, mut got) = (true, true, Vec::new());
    while open_a || open_b {
        let (mut from_a, mut from_b) = (open_a.then(|| a.recv()), open_b.then(|| b.recv()));
        let (open, value) = match select(&mut [&mut from_a, &mut from_b]).wait() {
            0 => (&mut open_a, from_a.unwrap().wait()),
            _ => (&mut open_b, from_b.unwrap().wait()),
        };
        match value {
            Ok(value) => got.push(value),
            Err(_) => *open = false,
        }
    }
    got.sort();
    assert_eq!(got, [1, 2, 3]);
}

#[test]
fn time_after_in_a_select_is_a_timeout() {
    let channel = Channel::<u8>::new(0);
    let (mut receive, mut late) = (channel.recv(), after(Duration::from_millis(2)));
    assert_eq!(select(&mut [&mut receive, &mut late]).wait(), 1);
    late.wait();
    assert_eq!(channel.statistics().parked_receivers, 0);
}

/// Doug McIlroy's prime sieve, as in Go's tests (test/chan/sieve1.go).
#[test]
fn the_prime_sieve() {
    let (tx, mut rx) = channel(0);
    thread::spawn(move || (2..).try_for_each(|n| tx.send(n).wait().map(drop)));
    let mut primes = Vec::new();
    for _ in 0..if cfg!(miri) { 5 } else { 25 } {
        let prime = rx.recv().wait().unwrap();
        primes.push(prime);
        let (out, next) = channel(0);
        let source = std::mem::replace(&mut rx, next);
        thread::spawn(move || {
            for n in source.iter().filter(|n| n % prime != 0) {
                if out.send(n).wait().is_err() {
                    return;
                }
            }
        });
    }
    assert_eq!(primes.last(), Some(if cfg!(miri) { &11 } else { &97 }));
}

/// Go's test/chan/select3.go: what may and what must not block in a select.
#[test]
fn select_blocks_exactly_when_no_case_can_go() {
    let (unbuffered, buffered) = (Channel::<u8>::new(0), Channel::new(1));
    let late = || after(Duration::from_millis(1));
    let (mut send, mut recv, mut out) = (unbuffered.send(1), unbuffered.recv(), late());
    assert_eq!(select(&mut [&mut send, &mut recv, &mut out]).wait(), 2, "alone on both sides");
    let (mut recv, mut out) = (buffered.recv(), late());
    assert_eq!(select(&mut [&mut recv, &mut out]).wait(), 1, "empty");
    let (mut send, mut out) = (buffered.send(1), late());
    assert_eq!(select(&mut [&mut send, &mut out]).wait(), 0, "room");
    send.wait().unwrap();
    let (mut send, mut out) = (buffered.send(2), late());
    assert_eq!(select(&mut [&mut send, &mut out]).wait(), 1, "full");
    let (mut recv, mut out) = (buffered.recv(), late());
    assert_eq!(select(&mut [&mut recv, &mut out]).wait(), 0, "a value");
}
