//! Every interleaving of small programs, up to a number of preemptions, checked by loom (github.com/tokio-rs/loom).
//!
//! RUSTFLAGS="--cfg loom" cargo test -p weft-core --release --target-dir target/loom --test loom
//!
//! A model fails on a data race, on a deadlock (nobody can go on: a lost wake-up), and on a failed assertion.
#![cfg(loom)]

use std::future::Future;
use std::ops::Deref;
use std::pin::{Pin, pin};
use std::sync::Arc as StdArc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::thread;
use weft_core::chan::{Chan, Overflow, SharedWord, Word};
use weft_core::waiter::Waiter;
use weft_core::*;

/// `preemptions` bounds the model, so that all of them take about a minute; LOOM_MAX_PREEMPTIONS may only raise it.
fn model(preemptions: usize, program: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(builder.preemption_bound.map_or(preemptions, |more| more.max(preemptions)));
    builder.check(program);
}

/// A waker that counts, for futures that are polled by hand.
#[derive(Default)]
struct Count(AtomicUsize);

impl Count {
    fn new() -> (StdArc<Self>, Waker) {
        let count = StdArc::new(Self::default());
        (count.clone(), count.into())
    }
    fn get(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

impl Wake for Count {
    fn wake(self: StdArc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

fn poll<F: Future + ?Sized>(future: Pin<&mut F>, waker: &Waker) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(waker))
}

fn block_on<F: Future>(future: F) -> F::Output {
    #[derive(Default)]
    struct Flag(loom::sync::Mutex<bool>, loom::sync::Condvar);
    impl Wake for Flag {
        fn wake(self: StdArc<Self>) {
            *self.0.lock().unwrap() = true;
            self.1.notify_one();
        }
    }
    let flag = StdArc::new(Flag::default());
    let waker = Waker::from(flag.clone());
    let mut future = pin!(future);
    loop {
        if let Poll::Ready(output) = poll(future.as_mut(), &waker) {
            return output;
        }
        let mut woken = flag.0.lock().unwrap();
        while !*woken {
            woken = flag.1.wait(woken).unwrap();
        }
        *woken = false;
    }
}

/// Two claimers and an owner who withdraws: one of the three gets the offer, and the slot has one user at a time.
#[test]
fn waiter_claim_claim_withdraw() {
    model(5, || {
        struct Shared {
            waiter: Waiter,
            slot: UnsafeCell<u32>,
        }
        let shared = Arc::new(Shared { waiter: Waiter::new(), slot: UnsafeCell::new(0) });
        let (count, waker) = Count::new();
        unsafe { shared.waiter.arm(waker) };
        let claimers: Vec<_> = (1..3)
            .map(|case| {
                let shared = shared.clone();
                thread::spawn(move || match shared.waiter.claim(case) {
                    Some(claim) => {
                        shared.slot.with_mut(|slot| unsafe { *slot = case });
                        claim.finish().unwrap().wake();
                        true
                    }
                    None => false,
                })
            })
            .collect();
        let withdrawn = shared.waiter.withdraw();
        let met = shared.waiter.met();
        // Either way the slot is the owner's now, without waiting for anybody.
        let value = shared.slot.with(|slot| unsafe { *slot });
        assert_eq!(value, met.unwrap_or(0));
        assert_eq!(withdrawn, met.is_none());
        let claims = claimers.into_iter().map(|claimer| claimer.join().unwrap());
        assert_eq!(claims.filter(|claimed| *claimed).count(), usize::from(!withdrawn));
        assert_eq!(count.get(), usize::from(!withdrawn));
        drop(unsafe { shared.waiter.clear() });
    });
}

/// Putting in another waker holds the offer for a moment: no claim is lost, and one of the two wakers is called, the new one if it was accepted.
#[test]
fn waiter_claim_against_rearm() {
    model(5, || {
        let waiter = Arc::new(Waiter::new());
        let ((old, old_waker), (new, new_waker)) = (Count::new(), Count::new());
        unsafe { waiter.arm(old_waker) };
        let claimer = {
            let waiter = waiter.clone();
            thread::spawn(move || waiter.claim(1).expect("nobody withdraws").finish().unwrap().wake())
        };
        let accepted = waiter.rearm(new_waker).is_ok();
        claimer.join().unwrap();
        assert_eq!(waiter.met(), Some(1));
        assert_eq!((old.get(), new.get()), if accepted { (0, 1) } else { (1, 0) });
    });
}

#[test]
fn rendezvous() {
    model(5, || {
        let (tx, rx) = channel(0);
        let sender = thread::spawn(move || tx.send(Box::new(1)).wait().is_ok());
        assert_eq!(rx.recv().wait(), Ok(Box::new(1)));
        assert!(sender.join().unwrap());
        assert_eq!(rx.recv().wait(), Err(RecvError::Closed(None)));
    });
}

#[test]
fn two_senders_one_receiver() {
    for capacity in [0, 1] {
        model(3, move || {
            let (tx, rx) = channel(capacity);
            let other = tx.clone();
            let senders = [
                thread::spawn(move || tx.send(1).wait().unwrap()),
                thread::spawn(move || other.send(2).wait().unwrap()),
            ];
            assert_eq!(rx.recv().wait().unwrap() + rx.recv().wait().unwrap(), 3);
            for sender in senders {
                sender.join().unwrap();
            }
        });
    }
}

#[test]
fn one_sender_two_receivers_and_the_end() {
    model(3, || {
        let (tx, rx) = channel(1);
        let other = rx.clone();
        let receivers = [thread::spawn(move || rx.recv().wait()), thread::spawn(move || other.recv().wait())];
        tx.send(1).wait().unwrap();
        drop(tx);
        let mut got = receivers.map(|receiver| receiver.join().unwrap().ok());
        got.sort();
        assert_eq!(got, [None, Some(1)]);
    });
}

/// A receive that is cancelled at any moment: the value is received by it, or by the next, and never by both or by none.
#[test]
fn send_against_cancelled_receive() {
    model(5, || {
        let (tx, rx) = channel(0);
        let sender = thread::spawn(move || tx.send(Box::new(7)).wait().unwrap());
        let (_, waker) = Count::new();
        let first = {
            let mut receive = pin!(rx.recv());
            match poll(receive.as_mut(), &waker) {
                Poll::Pending => poll(receive.as_mut(), &waker),
                ready => ready,
            }
        };
        match first {
            Poll::Ready(value) => assert_eq!(value, Ok(Box::new(7))),
            // Perhaps handed over since, and given back.
            Poll::Pending => assert_eq!(rx.recv().wait(), Ok(Box::new(7))),
        }
        sender.join().unwrap();
        assert_eq!(rx.statistics().received, 1);
    });
}

/// A send that is cancelled at any moment: it has happened, or the value is dropped with it.
#[test]
fn receive_against_cancelled_send() {
    model(5, || {
        let (tx, rx) = channel(0);
        let receiver = thread::spawn(move || rx.recv().wait());
        let value = StdArc::new(());
        let (_, waker) = Count::new();
        {
            let mut send = pin!(tx.send(value.clone()));
            let _ = poll(send.as_mut(), &waker);
        }
        let sent = tx.statistics().sent;
        drop(tx);
        let received = receiver.join().unwrap();
        assert_eq!(received.is_ok(), sent == 1);
        drop(received);
        assert_eq!(StdArc::strong_count(&value), 1);
    });
}

/// A waiting future that gets another waker while it is met: one of its wakers is called after it, or its poll says ready.
#[test]
fn send_against_a_new_waker() {
    model(5, || {
        let (tx, rx) = channel(0);
        let ((old, old_waker), (new, new_waker)) = (Count::new(), Count::new());
        let mut receive = pin!(rx.recv());
        assert!(poll(receive.as_mut(), &old_waker).is_pending());
        let sender = thread::spawn(move || tx.send(7).wait().unwrap());
        let answer = poll(receive.as_mut(), &new_waker);
        sender.join().unwrap();
        if answer.is_pending() {
            assert_eq!((old.get(), new.get()), (0, 1));
            assert_eq!(poll(receive.as_mut(), &new_waker), Poll::Ready(Ok(7)));
        } else {
            assert_eq!(answer, Poll::Ready(Ok(7)));
        }
    });
}

#[test]
fn close_against_send_and_receive() {
    model(3, || {
        let channel = Channel::new(0);
        let (a, b) = (channel.clone(), channel.clone());
        let sender = thread::spawn(move || a.send(1).wait().is_ok());
        let closer = thread::spawn(move || b.close_channel());
        let received = channel.recv().wait().is_ok();
        assert!(closer.join().unwrap());
        if !received {
            // Parked before the close, it is delivered when somebody comes.
            let late = channel.recv().wait().is_ok();
            assert_eq!(sender.join().unwrap(), late);
        } else {
            assert!(sender.join().unwrap());
        }
    });
}

#[test]
fn poison_against_send_and_receive() {
    model(3, || {
        let channel = Channel::new(1);
        let (a, b) = (channel.clone(), channel.clone());
        let value = StdArc::new(());
        let sent = value.clone();
        let sender = thread::spawn(move || a.send(sent).wait().is_ok());
        let poisoner = thread::spawn(move || b.poison().len());
        let received = channel.recv().wait().is_ok();
        let (sent, dropped) = (sender.join().unwrap(), poisoner.join().unwrap());
        assert_eq!(usize::from(sent), usize::from(received) + dropped);
        drop(channel);
        assert_eq!(StdArc::strong_count(&value), 1);
    });
}

/// The last receiver leaves while a sender waits or comes.
#[test]
fn the_last_receiver_leaves() {
    model(5, || {
        let (tx, rx) = channel(0);
        let receiver = thread::spawn(move || drop(rx));
        assert!(matches!(tx.send(1).wait(), Err(SendError::NoReceivers(1, None))));
        receiver.join().unwrap();
    });
}

#[test]
fn two_selects_face_each_other() {
    model(5, || {
        let (a, b) = (Channel::new(0), Channel::new(0));
        let (their_a, their_b) = (a.clone(), b.clone());
        let other = thread::spawn(move || {
            let (mut on_a, mut on_b) = (their_a.send(0), their_b.send(1));
            select(&mut [&mut on_a, &mut on_b]).wait()
        });
        let (mut on_b, mut on_a) = (b.recv(), a.recv());
        let value = match select(&mut [&mut on_b, &mut on_a]).wait() {
            0 => on_b.wait(),
            _ => on_a.wait(),
        };
        assert_eq!(value, Ok(other.join().unwrap()));
    });
}

/// Both sides of one channel in both selects: they meet, and neither meets itself.
#[test]
fn two_selects_on_both_sides_of_one_channel() {
    model(5, || {
        let channel = Channel::new(0);
        let choose = |channel: Channel<u8>, value| {
            let (mut send, mut receive) = (channel.send(value), channel.recv());
            match select(&mut [&mut send, &mut receive]).wait() {
                0 => None,
                _ => Some(receive.wait().unwrap()),
            }
        };
        let theirs = channel.clone();
        let other = thread::spawn(move || choose(theirs, 1));
        let mine = choose(channel, 2);
        assert!(matches!((mine, other.join().unwrap()), (Some(1), None) | (None, Some(2))));
    });
}

/// Two peers on two channels want the same select: it takes exactly one, the other stays where it was.
#[test]
fn a_select_and_two_peers() {
    model(3, || {
        let (a, b) = (Channel::new(0), Channel::new(0));
        let (to_a, to_b) = (a.clone(), b.clone());
        let peers =
            [thread::spawn(move || to_a.send(1).wait().is_ok()), thread::spawn(move || to_b.send(2).wait().is_ok())];
        let (mut on_a, mut on_b) = (a.recv(), b.recv());
        let first = match select(&mut [&mut on_a, &mut on_b]).wait() {
            0 => on_a.wait().unwrap() + on_b.wait().unwrap(),
            _ => on_b.wait().unwrap() + on_a.wait().unwrap(),
        };
        assert_eq!(first, 3);
        assert_eq!(peers.map(|peer| peer.join().unwrap()), [true, true]);
    });
}

/// A select of futures that is dropped at any moment, decided or not.
#[test]
fn a_cancelled_select_and_two_peers() {
    model(3, || {
        let (a, b) = (Channel::new(0), Channel::new(1));
        let (to_a, to_b) = (a.clone(), b.clone());
        let peers =
            [thread::spawn(move || to_a.send(1).wait().is_ok()), thread::spawn(move || to_b.send(2).wait().is_ok())];
        {
            let (mut on_a, mut on_b) = (pin!(a.recv()), pin!(b.recv()));
            let mut cases = [on_a.as_mut() as Pin<&mut (dyn Event + Send)>, on_b.as_mut()];
            let mut choice = pin!(select_pinned(&mut cases));
            let _ = poll(choice.as_mut(), &Count::new().1);
        }
        assert_eq!((a.recv().wait(), b.recv().wait()), (Ok(1), Ok(2)));
        assert_eq!(peers.map(|peer| peer.join().unwrap()), [true, true]);
    });
}

#[test]
fn a_select_of_futures_and_a_peer() {
    model(5, || {
        let (a, b) = (Channel::new(0), Channel::<u8>::new(0));
        let to_a = a.clone();
        let peer = thread::spawn(move || to_a.send(1).wait().is_ok());
        let value = block_on(async {
            let (mut on_a, mut on_b) = (pin!(a.recv()), pin!(b.recv()));
            assert_eq!(select_pinned(&mut [on_b.as_mut(), on_a.as_mut()]).await, 1);
            on_a.await
        });
        assert_eq!(value, Ok(1));
        assert!(peer.join().unwrap());
    });
}

/// A standing consumer goes to sleep while channels miss it.
#[test]
fn standing_miss_against_arm() {
    model(2, || {
        let (a, b) = (channel(0), channel(1));
        let feeders =
            [thread::spawn(move || a.0.send(1).wait().is_ok()), thread::spawn(move || b.0.send(2).wait().is_ok())];
        let mut standing = Standing::new();
        standing.add(a.1);
        standing.add(b.1);
        assert_eq!(standing.iter().map(|(_, value)| value).sum::<u8>(), 3);
        assert_eq!(feeders.map(|feeder| feeder.join().unwrap()), [true, true]);
    });
}

/// A standing consumer goes away while it is met.
#[test]
fn standing_dropped_against_send() {
    model(5, || {
        let (tx, rx) = channel(0);
        let sender = thread::spawn(move || tx.send(1).wait().is_ok());
        let mut standing = Standing::new();
        standing.add(rx.clone());
        let got = {
            let mut next = pin!(standing.next());
            matches!(poll(next.as_mut(), &Count::new().1), Poll::Ready(Some(Served::Value(_, 1))))
        };
        drop(standing);
        if !got {
            assert_eq!(rx.recv().wait(), Ok(1));
        }
        assert!(sender.join().unwrap());
    });
}

/// Two parties of which one may be taken by a channel instead.
#[test]
fn barrier_against_select() {
    model(3, || {
        let (barrier, channel) = (Arc::new(Barrier::new(2)), Channel::new(0));
        let (their_barrier, their_channel) = (barrier.clone(), channel.clone());
        let chooser = thread::spawn(move || {
            let (mut sync, mut receive) = (their_barrier.sync(), their_channel.recv());
            select(&mut [&mut sync, &mut receive]).wait()
        });
        let to = channel.clone();
        // A sender who waits for a moment only.
        let sender = thread::spawn(move || drop(poll(pin!(to.send(1)).as_mut(), &Count::new().1)));
        let passed = barrier.sync().try_now().is_ok();
        sender.join().unwrap();
        let sent = channel.statistics().sent == 1;
        if !passed && !sent {
            channel.send(2).wait().unwrap();
        }
        assert_eq!(chooser.join().unwrap(), usize::from(!passed));
    });
}

/// The last party holds the others for a moment, and lets them go when one of them leaves: then nobody has passed.
#[test]
fn barrier_against_a_party_that_leaves() {
    model(5, || {
        let barrier = Arc::new(Barrier::new(3));
        let (first, second) = (barrier.clone(), barrier.clone());
        let (count, waker) = Count::new();
        let mut patient = pin!(barrier.sync());
        assert!(poll(patient.as_mut(), &waker).is_pending());
        let waverer = thread::spawn(move || {
            let _ = poll(pin!(first.sync()).as_mut(), &Count::new().1);
        });
        let last = thread::spawn(move || second.sync().try_now().is_ok());
        waverer.join().unwrap();
        let passed = last.join().unwrap();
        // The waverer may have been the last to come, or the one before: with the last one's try all is over.
        let ready = poll(patient.as_mut(), &waker).is_ready();
        assert_eq!((ready, count.get()), (passed, usize::from(passed)));
        assert_eq!(barrier.waiting(), usize::from(!passed));
    });
}

struct Here(Word);

impl Deref for Here {
    type Target = Word;
    fn deref(&self) -> &Word {
        &self.0
    }
}

/// A channel with two values, both lent.
fn lent() -> (Arc<Chan<u32>>, SharedWord, u32) {
    let chan = Arc::new(Chan::new(Some(2), Overflow::Block));
    let word: SharedWord = StdArc::new(Here(Word::default()));
    for value in [1, 2] {
        assert!(chan.try_send(value).0.is_ok());
    }
    let (lease, copies) = chan.lend(1, &word, 2, |value| Some(*value)).unwrap();
    assert_eq!(copies, [1, 2]);
    (chan, word, lease)
}

/// Who has to be told says so before it sleeps, and who takes a value sees it or has made room before.
#[test]
fn a_sender_is_let_in_by_whoever_takes_what_was_lent() {
    model(4, || {
        let (chan, word, lease) = lent();
        let channel = Channel::from(chan.clone());
        let sender = thread::spawn(move || channel.send(3).wait().is_ok());
        if word.take(lease).unwrap() {
            chan.settle().wake();
        }
        assert!(sender.join().unwrap());
    });
}

/// The same twice: the second of those who wait is not forgotten while the first one is let in.
#[test]
fn all_senders_are_let_in_by_whoever_takes_what_was_lent() {
    model(3, || {
        let (chan, word, lease) = lent();
        let senders = [3, 4].map(|value| {
            let channel = Channel::from(chan.clone());
            let (count, waker) = Count::new();
            (Box::pin(async move { channel.send(value).await.is_ok() }), count, waker)
        });
        let mut senders = senders.map(|(mut sender, count, waker)| {
            assert!(poll(sender.as_mut(), &waker).is_pending());
            (sender, count, waker)
        });
        let holder = chan.clone();
        let told = word.take(lease).unwrap();
        assert!(told);
        let other = thread::spawn(move || {
            if word.take(lease).unwrap() {
                holder.settle().wake();
            }
        });
        chan.settle().wake();
        other.join().unwrap();
        for (sender, count, waker) in &mut senders {
            assert_eq!(count.get(), 1, "room, and nobody was woken");
            assert!(poll(sender.as_mut(), waker).is_ready());
        }
    });
}

#[test]
fn a_select_is_let_in_by_whoever_takes_what_was_lent() {
    model(3, || {
        let (chan, word, lease) = lent();
        let (channel, other) = (Channel::from(chan.clone()), Channel::<u32>::new(0));
        let chooser = thread::spawn(move || select(&mut [&mut channel.send(3), &mut other.recv()]).wait());
        if word.take(lease).unwrap() {
            chan.settle().wake();
        }
        assert_eq!(chooser.join().unwrap(), 0);
    });
}

/// A value is taken by the holder or received by somebody else, and in order by each.
#[test]
fn what_is_lent_is_received_once() {
    model(4, || {
        let (chan, word, lease) = lent();
        let other = chan.clone();
        let receiver = thread::spawn(move || [other.try_recv().0.ok(), other.try_recv().0.ok()]);
        let taken = [word.take(lease).is_some(), word.take(lease).is_some()];
        let received = receiver.join().unwrap();
        let expected = match taken {
            [false, _] => [Some(1), Some(2)],
            [true, false] => [Some(2), None],
            [true, true] => [None, None],
        };
        assert_eq!(received, expected);
        assert_eq!(chan.statistics().received, 2);
    });
}

/// A promise is kept, or called back, but never both.
#[test]
fn room_is_used_by_one() {
    model(4, || {
        let chan = Arc::new(Chan::new(Some(2), Overflow::Block));
        let word: SharedWord = StdArc::new(Here(Word::default()));
        let (lease, _) = chan.reserve(1, &word, 1).unwrap();
        let other = chan.clone();
        let sender = thread::spawn(move || [1, 2].map(|value| other.try_send(value).0.is_ok()));
        let spent = word.take(lease).is_some();
        if spent {
            assert!(chan.arrive(1, 3, 0).is_ok());
        }
        assert_eq!(sender.join().unwrap(), [true, !spent]);
        assert_eq!(chan.len(), 2);
    });
}

/// The channel closes while a value is on its way: the receiver gets it, and then the end.
#[test]
fn a_close_waits_for_what_is_on_its_way() {
    model(3, || {
        let chan = Arc::new(Chan::new(Some(2), Overflow::Block));
        let word: SharedWord = StdArc::new(Here(Word::default()));
        let (lease, _) = chan.reserve(1, &word, 1).unwrap();
        let channel = Channel::from(chan.clone());
        let receiver = thread::spawn(move || (channel.recv().wait().ok(), channel.recv().wait().ok()));
        let closer = {
            let chan = chan.clone();
            thread::spawn(move || chan.close(None).1.wake())
        };
        let spent = word.take(lease).is_some();
        if spent {
            let (dropped, wakes) = chan.arrive(1, 3, 0).unwrap();
            wakes.wake();
            assert_eq!(dropped, None);
        }
        closer.join().unwrap();
        assert_eq!(receiver.join().unwrap(), (spent.then_some(3), None));
    });
}
