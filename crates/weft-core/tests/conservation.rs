//! L3: threads and tasks that send, receive, select, time out and cancel at random. In the end each value is in exactly one place.
//!
//! cargo test -p weft-core --test conservation        (WEFT_ROUNDS=1000 for longer)
//! cargo +nightly miri test -p weft-core --test conservation
#![cfg(not(any(loom, shuttle)))]

mod common;

use std::pin::{Pin, pin};
use std::task::Poll;
use std::thread;
use std::time::Duration;

use common::*;
use weft_core::*;

/// What one worker did: the numbers it sent, and those it received.
#[derive(Default)]
struct Ledger {
    sent: Vec<u64>,
    received: Vec<u64>,
    /// Of sends that were dropped while they waited: somebody may have met one in the instant before, and nobody was told.
    dropped: Vec<u64>,
}

impl Ledger {
    fn send(&mut self, number: u64, answer: Result<Option<Token>, SendError<Token>>) {
        match answer {
            Ok(None) => self.sent.push(number),
            Ok(Some(displaced)) => panic!("{displaced:?}"),
            Err(error) => assert_eq!(error.into_value().number, number),
        }
    }

    fn recv(&mut self, answer: Result<Token, RecvError>) {
        if let Ok(token) = answer {
            self.received.push(token.number);
        }
    }
}

/// One step, chosen at random.
fn step(channels: &[Channel<Token>], number: u64, census: &Census, random: &mut Random, ledger: &mut Ledger) {
    let mut any = || &channels[random.below(channels.len() as u64) as usize];
    let (one, other) = (any(), any());
    let wait = Duration::from_micros(random.below(40));
    match random.below(9) {
        0 => ledger.send(number, one.send(census.token(number)).try_now()),
        1 => ledger.recv(one.recv().try_now()),
        2 => ledger.send(number, one.send(census.token(number)).wait_timeout(wait)),
        3 => ledger.recv(one.recv().wait_timeout(wait)),
        4 => {
            for token in one.recv_many(3).wait_timeout(wait).into_iter().flatten() {
                ledger.received.push(token.number);
            }
        }
        // A future that is polled once or twice, and then dropped.
        5 => {
            let mut receive = pin!(one.recv());
            for _ in 0..2 {
                if let Poll::Ready(answer) = poll(receive.as_mut()) {
                    ledger.recv(answer);
                    break;
                }
                thread::yield_now();
            }
        }
        // A select of both kinds, perhaps on the same channel.
        6 | 7 => {
            let (mut receive, mut send, mut late) = (one.recv(), other.send(census.token(number)), after(wait));
            match select(&mut [&mut receive, &mut send, &mut late]).wait() {
                0 => ledger.recv(receive.wait()),
                1 => ledger.send(number, send.wait()),
                _ => {
                    late.wait();
                }
            }
        }
        _ => {
            let (mut receive, mut send) = (pin!(one.recv()), pin!(other.send(census.token(number))));
            let chosen = {
                let mut cases = [receive.as_mut() as Pin<&mut (dyn Event + Send)>, send.as_mut()];
                let mut choice = pin!(select_pinned(&mut cases));
                let chosen = poll(choice.as_mut());
                thread::yield_now();
                // Dropped, though it may have been decided meanwhile: its case knows, and is asked below.
                chosen
            };
            if chosen == Poll::Ready(0) {
                match poll(receive.as_mut()) {
                    Poll::Ready(answer) => ledger.recv(answer),
                    Poll::Pending => panic!("the chosen case is ready"),
                }
            } else {
                match poll(send.as_mut()) {
                    Poll::Ready(answer) => ledger.send(number, answer),
                    Poll::Pending => ledger.dropped.push(number),
                }
            }
            // A case that is pending, or a receive that was decided, is dropped here, and leaves the channel as it was.
        }
    }
}

fn run(seed: u64, capacities: &[usize], threads: u64, steps: u64) {
    let census = Census::default();
    let channels: Vec<_> = capacities.iter().map(|capacity| Channel::new(*capacity)).collect();
    let mut all = thread::scope(|scope| {
        let workers: Vec<_> = (0..threads)
            .map(|worker| {
                let (channels, census) = (&channels, &census);
                scope.spawn(move || {
                    let (mut random, mut ledger) = (Random::new(seed * 100 + worker), Ledger::default());
                    for n in 0..steps {
                        step(channels, worker * 1_000_000 + n, census, &mut random, &mut ledger);
                    }
                    ledger
                })
            })
            .collect();
        workers.into_iter().fold(Ledger::default(), |mut all, worker| {
            let ledger = worker.join().unwrap();
            all.sent.extend(ledger.sent);
            all.received.extend(ledger.received);
            all.dropped.extend(ledger.dropped);
            all
        })
    });
    for channel in &channels {
        let statistics = channel.statistics();
        assert_eq!((statistics.parked_senders, statistics.parked_receivers), (0, 0));
        while let Ok(token) = channel.recv().try_now() {
            all.received.push(token.number);
        }
        let statistics = channel.statistics();
        assert_eq!((statistics.sent, statistics.dropped), (statistics.received, 0));
    }
    all.sent.extend(all.dropped.iter().filter(|number| all.received.contains(number)));
    all.sent.sort();
    all.received.sort();
    assert_eq!(all.sent, all.received, "seed {seed}");
    assert_eq!(census.alive(), 0);
    assert!(!all.sent.is_empty());
}

#[test]
fn l3_every_value_is_in_exactly_one_place() {
    let rounds = std::env::var("WEFT_ROUNDS").map_or(times(8) as u64, |rounds| rounds.parse().unwrap());
    for seed in 0..rounds {
        let steps = times(300) as u64 + 20;
        run(seed, &[0, 0], 4, steps);
        run(seed, &[0, 1, 3], 3, steps);
        run(seed, &[1], 4, steps);
    }
}

/// The same with ends that go at any moment: what is not received is back with its sender, or counted as dropped.
#[test]
fn l3_with_ends_that_leave_at_random() {
    for seed in 0..times(60) as u64 {
        let census = Census::default();
        let (tx, rx) = channel::<Token>(seed as usize % 3);
        let watch = tx.channel();
        let (mut sent, mut received) = (0, 0);
        thread::scope(|scope| {
            let senders: Vec<_> = (0..2)
                .map(|sender| {
                    let (tx, census) = (tx.clone(), &census);
                    scope.spawn(move || {
                        let mut sent = 0;
                        for n in 0..100 + sender * seed {
                            match tx.send(census.token(n)).wait() {
                                Ok(_) => sent += 1,
                                Err(error) => {
                                    drop(error.into_value());
                                    break;
                                }
                            }
                        }
                        sent
                    })
                })
                .collect();
            let receivers: Vec<_> = (0..2)
                .map(|receiver| {
                    let rx = rx.clone();
                    scope.spawn(move || rx.iter().take(30 + (receiver * seed) as usize * 2).count() as u64)
                })
                .collect();
            drop((tx, rx));
            sent += senders.into_iter().map(|sender| sender.join().unwrap()).sum::<u64>();
            received += receivers.into_iter().map(|receiver| receiver.join().unwrap()).sum::<u64>();
        });
        let statistics = watch.statistics();
        assert_eq!((statistics.sent, statistics.received), (sent, received));
        assert_eq!(sent, received + statistics.dropped + statistics.buffered as u64);
        drop(watch);
        assert_eq!(census.alive(), 0);
    }
}
