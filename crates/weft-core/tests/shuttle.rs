//! Bigger programs under random schedules, by shuttle (github.com/awslabs/shuttle): what loom cannot finish.
//!
//! RUSTFLAGS="--cfg shuttle" cargo test -p weft-core --release --target-dir target/shuttle --test shuttle
//!
//! WEFT_SCHEDULES=100000 runs more of them. A failure prints the schedule, to be replayed with `shuttle::replay`.
#![cfg(shuttle)]

use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};

use shuttle::rand::{Rng, thread_rng};
use shuttle::sync::Arc;
use shuttle::thread;
use weft_core::*;

fn check(schedules: usize, program: impl Fn() + Send + Sync + 'static) {
    let schedules = std::env::var("WEFT_SCHEDULES").map_or(schedules, |count| count.parse().unwrap());
    let program = std::sync::Arc::new(program);
    let same = program.clone();
    shuttle::check_random(move || program(), schedules);
    // Probabilistic concurrency testing: bugs that need few, well placed preemptions.
    shuttle::check_pct(move || same(), schedules, 3);
}

fn poll<F: Future + ?Sized>(future: Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

/// One random step on the channels: what was sent, and what was received.
fn step(channels: &[Channel<u64>], number: u64) -> (Option<u64>, Option<u64>) {
    let mut random = thread_rng();
    let one = &channels[random.gen_range(0..channels.len())];
    let other = &channels[random.gen_range(0..channels.len())];
    let sent = |done: bool| (done.then_some(number), None);
    match random.gen_range(0..6) {
        0 => sent(one.send(number).try_now().is_ok()),
        1 => (None, one.recv().try_now().ok()),
        // A future that is polled once, and perhaps again.
        2 => {
            let mut receive = pin!(one.recv());
            if let Poll::Ready(value) = poll(receive.as_mut()) {
                return (None, value.ok());
            }
            thread::yield_now();
            match poll(receive.as_mut()) {
                Poll::Ready(value) => (None, value.ok()),
                Poll::Pending => (None, None),
            }
        }
        3 => {
            let mut send = pin!(one.send(number));
            if poll(send.as_mut()).is_ready() {
                return sent(true);
            }
            thread::yield_now();
            // Dropped while it waits, it was sent if it was met in this moment.
            match poll(send.as_mut()) {
                Poll::Ready(answer) => sent(answer.is_ok()),
                Poll::Pending => (None, None),
            }
        }
        4 => {
            let (mut receive, mut send) = (one.recv(), other.send(number));
            match select(&mut [&mut receive, &mut send]).try_now() {
                Some(0) => (None, receive.wait().ok()),
                Some(_) => sent(send.wait().is_ok()),
                None => (None, None),
            }
        }
        _ => {
            let (mut receive, mut send) = (pin!(one.recv()), pin!(other.send(number)));
            let chosen = {
                let mut cases = [receive.as_mut() as Pin<&mut (dyn Event + Send)>, send.as_mut()];
                let mut choice = pin!(select_pinned(&mut cases));
                match poll(choice.as_mut()) {
                    Poll::Pending => {
                        thread::yield_now();
                        poll(choice.as_mut())
                    }
                    ready => ready,
                }
            };
            match chosen {
                Poll::Ready(0) => match poll(receive.as_mut()) {
                    Poll::Ready(value) => (None, value.ok()),
                    Poll::Pending => panic!("the chosen case is ready"),
                },
                Poll::Ready(_) => sent(poll(send.as_mut()).is_ready()),
                Poll::Pending => (None, None),
            }
        }
    }
}

/// L3. Sums, because a send that is dropped in the moment it is met does not tell whether it was sent: the channel does.
#[test]
fn conservation_under_random_cancels() {
    check(20_000, || {
        let channels: Vec<_> = [0, 0, 1].into_iter().map(Channel::new).collect();
        let channels = Arc::new(channels);
        let workers: Vec<_> = (0..3)
            .map(|worker| {
                let channels = channels.clone();
                thread::spawn(move || {
                    let mut got = Vec::new();
                    let mut put = Vec::new();
                    for n in 0..6 {
                        let (sent, received) = step(&channels, worker * 100 + n);
                        put.extend(sent);
                        got.extend(received);
                    }
                    (put, got)
                })
            })
            .collect();
        let (mut put, mut got) = (Vec::new(), Vec::new());
        for worker in workers {
            let (sent, received) = worker.join().unwrap();
            put.extend(sent);
            got.extend(received);
        }
        let (mut sent, mut received) = (0, 0);
        for channel in channels.iter() {
            while let Ok(value) = channel.recv().try_now() {
                got.push(value);
            }
            let statistics = channel.statistics();
            assert_eq!((statistics.parked_senders, statistics.parked_receivers), (0, 0));
            assert_eq!((statistics.sent, statistics.dropped), (statistics.received, 0));
            sent += statistics.sent;
            received += statistics.received;
        }
        got.sort_unstable();
        let count = got.len();
        got.dedup();
        assert_eq!(got.len(), count, "a value was received twice");
        assert_eq!((sent, received), (count as u64, count as u64));
        assert!(put.iter().all(|value| got.binary_search(value).is_ok()), "a value was lost");
    });
}

#[test]
fn blocking_pipelines_end() {
    check(8_000, || {
        let (tx, rx) = channel(1);
        let (out, results) = channel(0);
        let workers: Vec<_> = (0..2)
            .map(|_| {
                let (rx, out) = (rx.clone(), out.clone());
                thread::spawn(move || {
                    for value in &rx {
                        out.send(value * 2).wait().unwrap();
                    }
                })
            })
            .collect();
        drop((rx, out));
        let feeder = thread::spawn(move || (0..4_u64).for_each(|n| assert!(tx.send(n).wait().is_ok())));
        let mut all: Vec<_> = results.iter().collect();
        all.sort_unstable();
        assert_eq!(all, [0, 2, 4, 6]);
        feeder.join().unwrap();
        workers.into_iter().for_each(|worker| worker.join().unwrap());
    });
}

/// Three selects in a ring, each sending to the next or receiving from the one before: someone must always meet.
#[test]
fn a_ring_of_selects() {
    check(8_000, || {
        let ring: Arc<Vec<_>> = Arc::new((0..3).map(|_| Channel::new(0)).collect());
        let members: Vec<_> = (0..3_usize)
            .map(|member| {
                let ring = ring.clone();
                thread::spawn(move || {
                    let (mut sent, mut received) = (0, 0);
                    // Each must send once and receive once, in whichever order.
                    while sent + received < 2 {
                        let (before, after) = (&ring[member], &ring[(member + 1) % 3]);
                        let mut receive = (received == 0).then(|| before.recv());
                        let mut send = (sent == 0).then(|| after.send(member));
                        match select(&mut [&mut receive, &mut send]).wait() {
                            0 => {
                                assert_eq!(receive.unwrap().wait().unwrap(), (member + 2) % 3);
                                received += 1;
                            }
                            _ => {
                                send.unwrap().wait().unwrap();
                                sent += 1;
                            }
                        }
                    }
                })
            })
            .collect();
        members.into_iter().for_each(|member| member.join().unwrap());
    });
}

#[test]
fn a_standing_select_gets_everything() {
    check(8_000, || {
        let mut standing = Standing::new();
        let feeders: Vec<_> = (0..3_u64)
            .map(|feeder| {
                let (tx, rx) = channel(feeder as usize % 2);
                standing.add(rx);
                thread::spawn(move || (0..3).for_each(|n| assert!(tx.send(feeder * 10 + n).wait().is_ok())))
            })
            .collect();
        let mut all = Vec::new();
        while let Some(served) = standing.wait() {
            if let Served::Value(_, value) = served {
                all.push(value);
            }
        }
        all.sort_unstable();
        assert_eq!(all, [0, 1, 2, 10, 11, 12, 20, 21, 22]);
        feeders.into_iter().for_each(|feeder| feeder.join().unwrap());
    });
}

/// Three parties, two barriers, in opposite orders, and one barrier goes each round: nobody holds another for ever.
#[test]
fn selects_over_two_barriers() {
    check(8_000, || {
        let barriers = Arc::new([Barrier::new(3), Barrier::new(3)]);
        let parties: Vec<_> = (0..3)
            .map(|party| {
                let barriers = barriers.clone();
                thread::spawn(move || {
                    (0..2)
                        .map(|_| {
                            let (mut one, mut other) = (barriers[party % 2].sync(), barriers[1 - party % 2].sync());
                            (select(&mut [&mut one, &mut other]).wait() + party) % 2
                        })
                        .collect::<Vec<_>>()
                })
            })
            .collect();
        let passed: Vec<_> = parties.into_iter().map(|party| party.join().unwrap()).collect();
        assert!(passed.iter().all(|rounds| *rounds == passed[0]), "all pass the same barrier: {passed:?}");
    });
}
