//! Leases: room that a holder may fill and values that it may take without the channel's lock, and that nobody else sees a difference.
#![cfg(not(any(loom, shuttle)))]

use std::collections::VecDeque;
use std::ops::Deref;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use proptest::prelude::*;
use weft_core::chan::{Chan, Outcome, Overflow, SharedWord, Word};
use weft_core::{Channel, RecvError, select};

const HOLDER: u64 = 7;

struct Here(Word);

impl Deref for Here {
    type Target = Word;
    fn deref(&self) -> &Word {
        &self.0
    }
}

fn word() -> SharedWord {
    Arc::new(Here(Word::default()))
}

fn chan(capacity: usize) -> Arc<Chan<u64>> {
    Arc::new(Chan::new(Some(capacity), Overflow::Block))
}

fn send(chan: &Chan<u64>, n: u64) -> bool {
    let (answer, wakes) = chan.try_send(n);
    wakes.wake();
    answer.is_ok()
}

fn recv(chan: &Chan<u64>) -> Result<u64, Outcome> {
    let (answer, wakes) = chan.try_recv();
    wakes.wake();
    answer
}

fn lend(chan: &Chan<u64>, word: &SharedWord) -> Option<(u32, Vec<u64>)> {
    chan.lend(HOLDER, word, 100, |value| Some(*value))
}

fn arrive(chan: &Chan<u64>, n: u64) -> Option<u64> {
    let (dropped, wakes) = chan.arrive(HOLDER, n, 0).expect("there is room");
    wakes.wake();
    dropped
}

fn poll<F: Future + ?Sized>(future: Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

// --- room --------------------------------------------------------------------------------------------------------------

#[test]
fn half_of_what_is_free_is_promised() {
    let (chan, word) = (chan(8), word());
    let (lease, is_new) = chan.reserve(HOLDER, &word, 100).unwrap();
    assert!(is_new);
    for _ in 0..4 {
        assert_eq!(word.take(lease), Some(false));
    }
    assert_eq!(word.take(lease), None);
    (1..=4).for_each(|n| assert_eq!(arrive(&chan, n), None));
    assert_eq!((1..=4).map(|_| recv(&chan).unwrap()).collect::<Vec<_>>(), [1, 2, 3, 4]);
    assert!(chan.arrive(HOLDER, 5, 0).is_err(), "more than was promised");
}

#[test]
fn a_channel_is_not_full_because_of_room_that_nobody_uses() {
    let (chan, word) = (chan(8), word());
    let (lease, _) = chan.reserve(HOLDER, &word, 100).unwrap();
    assert_eq!(word.take(lease), Some(false)); // and on its way
    assert_eq!((1..=20).filter(|n| send(&chan, *n)).count(), 7);
    assert_eq!(word.take(lease), None, "the rest was called back");
    assert_eq!(arrive(&chan, 100), None);
    assert_eq!(chan.len(), 8);
}

#[test]
fn only_a_channel_that_waits_for_room_and_has_some_promises_it() {
    for (capacity, overflow) in [
        (Some(0), Overflow::Block),
        (Some(8), Overflow::DropOldest),
        (Some(8), Overflow::DropNewest),
        (None, Overflow::Error),
    ] {
        assert_eq!(Chan::<u64>::new(capacity, overflow).reserve(HOLDER, &word(), 100), None);
    }
    assert!(Chan::<u64>::new(None, Overflow::Block).reserve(HOLDER, &word(), 100).is_some());
    let closed = chan(4);
    assert!(closed.close(None).0);
    assert_eq!(closed.reserve(HOLDER, &word(), 100), None);
}

#[test]
fn what_is_on_its_way_when_the_channel_closes_is_delivered_before_the_end() {
    let (chan, word) = (chan(8), word());
    let (lease, _) = chan.reserve(HOLDER, &word, 100).unwrap();
    assert!(word.take(lease).is_some());
    assert!(word.take(lease).is_some());
    let channel = Channel::from(chan.clone());
    let (mut first, mut second, mut third) = (pin!(channel.recv()), pin!(channel.recv()), pin!(channel.recv()));
    assert!(poll(first.as_mut()).is_pending());
    assert!(poll(second.as_mut()).is_pending());
    chan.close(None).1.wake();
    assert_eq!(word.take(lease), None, "nothing more is sent");
    assert!(poll(first.as_mut()).is_pending());
    assert!(poll(third.as_mut()).is_pending(), "a newcomer waits as well");
    assert_eq!(recv(&chan), Err(Outcome::Pending));
    assert_eq!(arrive(&chan, 1), None);
    assert_eq!(poll(first.as_mut()), Poll::Ready(Ok(1)));
    assert!(poll(second.as_mut()).is_pending());
    assert_eq!(arrive(&chan, 2), None);
    assert_eq!(poll(second.as_mut()), Poll::Ready(Ok(2)));
    assert!(matches!(poll(third.as_mut()), Poll::Ready(Err(RecvError::Closed(_)))));
}

#[test]
fn what_arrives_after_a_poison_or_the_last_receiver_is_dropped_and_counted() {
    for poison in [true, false] {
        let (chan, word) = (chan(8), word());
        assert!(chan.add_receiver());
        let (lease, _) = chan.reserve(HOLDER, &word, 100).unwrap();
        assert!(word.take(lease).is_some());
        if poison {
            chan.poison(None).1.wake();
        } else {
            chan.remove_receiver(None).1.wake();
        }
        assert_eq!(word.take(lease), None);
        assert_eq!(arrive(&chan, 1), Some(1));
        let all = chan.statistics();
        assert_eq!((all.sent, all.received, all.dropped), (1, 0, 1));
    }
}

#[test]
fn a_holder_that_goes_gives_its_room_back_and_ends_who_waited_for_it() {
    let (chan, word) = (chan(2), word());
    let (lease, _) = chan.reserve(HOLDER, &word, 100).unwrap();
    assert!(word.take(lease).is_some()); // and died before it was sent
    assert!(send(&chan, 1));
    let channel = Channel::from(chan.clone());
    let mut sender = pin!(channel.send(2));
    assert!(poll(sender.as_mut()).is_pending());
    chan.release(HOLDER).wake();
    assert!(poll(sender.as_mut()).is_ready());
    assert_eq!((recv(&chan), recv(&chan)), (Ok(1), Ok(2)));

    let (lease, _) = chan.reserve(HOLDER, &word, 100).unwrap();
    assert!(word.take(lease).is_some());
    let mut receiver = pin!(channel.recv());
    assert!(poll(receiver.as_mut()).is_pending());
    chan.close(None).1.wake();
    assert!(poll(receiver.as_mut()).is_pending());
    chan.release(HOLDER).wake();
    assert!(matches!(poll(receiver.as_mut()), Poll::Ready(Err(RecvError::Closed(_)))));
}

#[test]
fn no_room_is_promised_past_senders_that_wait() {
    let (chan, word) = (chan(4), word());
    (0..4).for_each(|n| assert!(send(&chan, n)));
    let channel = Channel::from(chan.clone());
    let mut sender = pin!(channel.send(9));
    assert!(poll(sender.as_mut()).is_pending());
    assert_eq!(chan.reserve(HOLDER, &word, 100), None);
}

// --- values ------------------------------------------------------------------------------------------------------------

#[test]
fn what_is_lent_is_taken_once_and_counted() {
    let (chan, word) = (chan(8), word());
    (1..=3).for_each(|n| assert!(send(&chan, n)));
    let (lease, copies) = lend(&chan, &word).unwrap();
    assert_eq!(copies, [1, 2, 3]);
    assert_eq!((chan.len(), chan.statistics().received), (3, 0), "they are in the channel until they are taken");
    assert_eq!(word.take(lease), Some(false));
    assert_eq!((chan.len(), chan.statistics().received), (2, 1));
    assert_eq!(recv(&chan), Ok(2), "the rest was called in, in order");
    assert_eq!(word.take(lease), None);
    assert_eq!(recv(&chan), Ok(3));
    assert_eq!(chan.statistics().received, 3);
    assert_eq!(chan.len(), 0);
}

#[test]
fn the_order_is_that_of_the_channel_whoever_receives() {
    let (chan, word) = (chan(8), word());
    (1..=3).for_each(|n| assert!(send(&chan, n)));
    let (lease, _) = lend(&chan, &word).unwrap();
    assert!(send(&chan, 4));
    assert!(word.take(lease).is_some()); // 1
    chan.give_back(1).1.wake(); // and nobody took it up
    assert_eq!((1..=4).map(|_| recv(&chan).unwrap()).collect::<Vec<_>>(), [1, 2, 3, 4]);
}

#[test]
fn after_others_received_nothing_is_lent_for_a_while() {
    let (chan, word) = (chan(8), word());
    (1..=3).for_each(|n| assert!(send(&chan, n)));
    lend(&chan, &word).unwrap();
    assert_eq!(recv(&chan), Ok(1));
    let again = (0..1000).position(|_| lend(&chan, &word).is_some());
    assert_eq!(again, Some(64));
}

#[test]
fn who_waits_for_room_is_let_in_when_a_value_is_taken() {
    let (chan, word) = (chan(2), word());
    assert!(send(&chan, 1) && send(&chan, 2));
    let (lease, _) = lend(&chan, &word).unwrap();
    let channel = Channel::from(chan.clone());
    let (mut third, mut fourth) = (pin!(channel.send(3)), pin!(channel.send(4)));
    assert!(poll(third.as_mut()).is_pending());
    assert!(poll(fourth.as_mut()).is_pending());
    assert_eq!(word.take(lease), Some(true), "it is to be told of");
    chan.settle().wake();
    assert!(poll(third.as_mut()).is_ready());
    assert!(poll(fourth.as_mut()).is_pending());
    assert_eq!(word.take(lease), Some(true), "and so is the next one");
    chan.settle().wake();
    assert!(poll(fourth.as_mut()).is_ready());
    assert_eq!((recv(&chan), recv(&chan)), (Ok(3), Ok(4)));
}

#[test]
fn who_comes_for_room_finds_what_was_taken_without_being_told() {
    let (chan, word) = (chan(2), word());
    assert!(send(&chan, 1) && send(&chan, 2));
    let (lease, _) = lend(&chan, &word).unwrap();
    assert!(!send(&chan, 3));
    assert_eq!(word.take(lease), Some(true));
    assert!(send(&chan, 3), "without settle");
    let channel = Channel::from(chan.clone());
    let other = Channel::<u64>::new(0);
    let attempt = || select(&mut [&mut channel.send(4), &mut other.recv()]).try_now();
    assert_eq!(attempt(), None);
    assert_eq!(word.take(lease), Some(true));
    assert_eq!(attempt(), Some(0), "a select does so, too");
}

/// Between a turn that was to be told of and its settling there is room, but it is not a newcomer's.
#[test]
fn l2_room_that_is_not_settled_yet_is_for_those_who_wait() {
    let (chan, word) = (chan(2), word());
    let channel = Channel::from(chan.clone());
    assert!(send(&chan, 1) && send(&chan, 2));
    let (lease, _) = lend(&chan, &word).unwrap();
    let mut first = pin!(channel.send(3));
    assert!(poll(first.as_mut()).is_pending());
    assert_eq!(word.take(lease), Some(true));
    assert!(!send(&chan, 4));
    let other = Channel::<u64>::new(0);
    assert_eq!(select(&mut [&mut channel.send(4), &mut other.recv()]).try_now(), None);
    chan.settle().wake();
    assert!(poll(first.as_mut()).is_ready());
}

#[test]
fn a_holder_that_dies_has_taken_what_it_took_and_no_more() {
    let (chan, word) = (chan(8), word());
    (1..=3).for_each(|n| assert!(send(&chan, n)));
    let (lease, _) = lend(&chan, &word).unwrap();
    assert!(word.take(lease).is_some());
    chan.release(HOLDER).wake();
    assert_eq!((recv(&chan), recv(&chan), recv(&chan)), (Ok(2), Ok(3), Err(Outcome::Pending)));
}

#[test]
fn what_is_lent_ends_with_the_channel() {
    let (chan, word) = (chan(8), word());
    (1..=3).for_each(|n| assert!(send(&chan, n)));
    let (lease, _) = lend(&chan, &word).unwrap();
    chan.close(None).1.wake();
    assert!(word.take(lease).is_some(), "closed: it is still delivered");
    let (dropped, wakes) = chan.poison(None);
    wakes.wake();
    assert_eq!(dropped, Some(VecDeque::from([2, 3])));
    assert_eq!(word.take(lease), None);
    assert_eq!(chan.statistics().dropped, 2);
}

#[test]
fn what_cannot_be_copied_is_not_lent_nor_what_is_behind_it() {
    let (chan, word) = (chan(8), word());
    (1..=4).for_each(|n| assert!(send(&chan, n)));
    let odd = |value: &u64| (*value != 3).then_some(*value);
    assert_eq!(chan.lend(HOLDER, &word, 100, odd).unwrap().1, [1, 2]);
    assert_eq!((1..=4).map(|_| recv(&chan).unwrap()).collect::<Vec<_>>(), [1, 2, 3, 4]);
}

// --- everything at once ------------------------------------------------------------------------------------------------

#[derive(Clone, Copy, Debug)]
enum Step {
    Send,
    Recv,
    RecvMany,
    Reserve,
    Spend,
    Arrive,
    Lend,
    Take,
    Settle,
    Release,
    GiveBack,
    Close,
    Poison,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    use Step::{Arrive, Close, GiveBack, Lend, Poison, Recv, RecvMany, Release, Reserve, Send, Settle, Spend, Take};
    let frequent = prop_oneof![
        6 => Just(Send), 3 => Just(Recv), 1 => Just(RecvMany), 3 => Just(Reserve), 6 => Just(Spend), 6 => Just(Arrive),
        4 => Just(Lend), 6 => Just(Take), 2 => Just(Settle), 1 => Just(GiveBack),
    ];
    let end = prop_oneof![4 => Just(None), 1 => Just(Some(Close)), 1 => Just(Some(Poison)), 1 => Just(Some(Release))];
    (proptest::collection::vec(frequent, 0..120), end, any::<prop::sample::Index>()).prop_map(|(mut steps, end, at)| {
        if let Some(end) = end {
            let at = at.index(steps.len() + 1);
            steps.insert(at, end);
        }
        steps
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    /// A holder that does what it may, beside others: the values of each sender are received in order, each once, the channel never holds more
    /// than it may, and says so at each moment.
    #[test]
    fn nobody_sees_a_lease(capacity in 1_usize..7, steps in steps()) {
        let chan = chan(capacity);
        let (room, values) = (word(), word());
        let (mut room_lease, mut value_lease) = (None, None);
        let (mut on_its_way, mut copies) = (VecDeque::new(), VecDeque::new());
        let mut next = 0;
        // In the order in which they entered, and what was received.
        let (mut entered, mut received) = (VecDeque::new(), Vec::new());
        let (mut closed, mut poisoned, mut released) = (false, false, false);
        for step in steps {
            match step {
                Step::Send => {
                    next += 1;
                    let held = on_its_way.len();
                    let has_room = entered.len() + held < capacity && !closed && !poisoned;
                    prop_assert_eq!(send(&chan, next), has_room);
                    if has_room { entered.push_back(next); }
                }
                Step::Recv => {
                    if let Ok(value) = recv(&chan) {
                        prop_assert_eq!(Some(value), entered.pop_front());
                        received.push(value);
                    } else {
                        prop_assert!(entered.is_empty());
                    }
                }
                Step::RecvMany => {
                    let mut many = Vec::new();
                    chan.try_recv_many(3, &mut many).1.wake();
                    prop_assert_eq!(many.len(), entered.len().min(3));
                    prop_assert!(many.iter().copied().eq(entered.drain(..many.len())));
                    received.extend(many);
                }
                Step::Reserve if !released => room_lease = chan.reserve(HOLDER, &room, 3).map(|(lease, _)| lease).or(room_lease),
                Step::Spend => if let Some(lease) = room_lease && room.take(lease).is_some() {
                    prop_assert!(!closed && !poisoned && !released);
                    next += 1;
                    on_its_way.push_back(next);
                },
                Step::Arrive => if let Some(value) = on_its_way.pop_front() {
                    let (gone, wakes) = chan.arrive(HOLDER, value, 3).expect("it was promised");
                    wakes.wake();
                    match gone {
                        Some(gone) => prop_assert!(poisoned && gone == value),
                        None => entered.push_back(value),
                    }
                },
                Step::Lend if !released => if let Some((lease, lent)) = lend(&chan, &values) {
                    prop_assert!(lent.iter().eq(entered.iter().take(lent.len())));
                    (value_lease, copies) = (Some(lease), lent.into());
                },
                Step::Take => if let Some(lease) = value_lease {
                    let copy = copies.pop_front();
                    if let (Some(_), Some(copy)) = (values.take(lease), copy) {
                        prop_assert_eq!(Some(copy), entered.pop_front());
                        received.push(copy);
                    }
                },
                Step::Settle => chan.settle().wake(),
                Step::GiveBack => if let Some(value) = received.pop() {
                    // Only the last one that was received can go back to where it was.
                    let (answer, wakes) = chan.give_back(value);
                    wakes.wake();
                    if answer.is_ok() { entered.push_front(value) }
                },
                Step::Release => {
                    // All that was sent has been read before.
                    while let Some(value) = on_its_way.pop_front() {
                        let (gone, wakes) = chan.arrive(HOLDER, value, 3).expect("it was promised");
                        wakes.wake();
                        if gone.is_none() { entered.push_back(value) }
                    }
                    chan.release(HOLDER).wake();
                    released = true;
                }
                Step::Close => { chan.close(None).1.wake(); closed = true; }
                Step::Poison => {
                    let (gone, wakes) = chan.poison(None);
                    wakes.wake();
                    prop_assert!(gone.unwrap_or_default().into_iter().eq(entered.drain(..)));
                    poisoned = true;
                }
                Step::Reserve | Step::Lend => {}
            }
            let all = chan.statistics();
            prop_assert_eq!(all.buffered, entered.len());
            prop_assert_eq!(chan.len(), entered.len());
            prop_assert_eq!(all.received as usize, received.len());
        }
    }
}
