//! The laws of docs/design/laws.md that the core keeps, each test named after its law.
//!
//! cargo test -p weft-core --test laws
//! cargo +nightly miri test -p weft-core --test laws
#![cfg(not(any(loom, shuttle)))]

mod common;

use std::collections::VecDeque;
use std::error::Error;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::thread;
use std::time::Duration;

use common::*;
use weft_core::chan::Chan;
use weft_core::*;

#[derive(Debug, PartialEq)]
struct Broken;
impl std::fmt::Display for Broken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the loom is broken")
    }
}
impl Error for Broken {}

fn is_broken(error: &impl Error) -> bool {
    error.source().is_some_and(|source| source.is::<Broken>())
}

#[test]
fn l1_a_send_without_buffer_completes_only_when_it_was_received() {
    let (tx, rx) = channel(0);
    assert_eq!(tx.send(1).try_now(), Err(SendError::WouldBlock(1)));
    let mut send = pin!(tx.send(2));
    assert!(poll(send.as_mut()).is_pending());
    assert_eq!(tx.len(), 0);
    assert_eq!(rx.recv().try_now(), Ok(2));
    assert_eq!(poll(send.as_mut()), Poll::Ready(Ok(None)));
}

#[test]
fn l1_a_bounded_channel_holds_as_many_as_it_says() {
    let (tx, rx) = channel(2);
    for n in 0..2 {
        tx.send(n).try_now().unwrap();
    }
    assert_eq!(tx.send(2).try_now(), Err(SendError::WouldBlock(2)));
    assert_eq!((rx.len(), rx.capacity()), (2, Some(2)));
}

#[test]
fn l2_values_arrive_in_order() {
    for capacity in [0, 1, 7] {
        let (tx, rx) = channel(capacity);
        thread::scope(|scope| {
            scope.spawn(move || (0..1000).for_each(|n| assert!(tx.send(n).wait().is_ok())));
            assert!(rx.iter().eq(0..1000));
        });
    }
}

#[test]
fn l2_parked_senders_are_served_first_come_first_served() {
    let (tx, rx) = channel(1);
    let mut sends: Vec<_> = (0..5).map(|n| Box::pin(tx.send(n))).collect();
    let ready = sends.iter_mut().filter_map(|send| match poll(send.as_mut()) {
        Poll::Ready(sent) => Some(sent),
        Poll::Pending => None,
    });
    assert_eq!(ready.count(), 1);
    // A newcomer does not overtake them, though each receive makes room for one.
    for n in 0..4 {
        assert_eq!(rx.recv().try_now(), Ok(n));
        assert_eq!(tx.send(99).try_now(), Err(SendError::WouldBlock(99)));
    }
}

#[test]
fn l2_parked_receivers_are_served_first_come_first_served() {
    let (tx, rx) = channel(3);
    let mut receives: Vec<_> = (0..3).map(|_| Box::pin(rx.recv())).collect();
    for receive in &mut receives {
        assert!(poll(receive.as_mut()).is_pending());
    }
    for n in 0..3 {
        tx.send(n).try_now().unwrap();
        assert_eq!(rx.recv().try_now(), Err(RecvError::WouldBlock), "a newcomer overtook");
    }
    for (n, receive) in receives.iter_mut().enumerate() {
        assert_eq!(poll(receive.as_mut()), Poll::Ready(Ok(n)));
    }
}

#[test]
fn l3_a_cancelled_receive_leaves_the_value() {
    for capacity in [0, 1] {
        let (tx, rx) = channel(capacity);
        {
            let mut receive = pin!(rx.recv());
            assert!(poll(receive.as_mut()).is_pending());
        }
        assert_eq!(rx.statistics().parked_receivers, 0);
        let mut send = pin!(tx.send(1));
        let sent = poll(send.as_mut());
        assert_eq!(sent.is_ready(), capacity == 1);
        assert_eq!(rx.recv().try_now(), Ok(1));
    }
}

#[test]
fn l3_a_receive_that_happened_and_was_dropped_gives_the_value_back_to_the_front() {
    let (tx, rx) = channel(4);
    {
        let mut receive = pin!(rx.recv());
        assert!(poll(receive.as_mut()).is_pending());
        for n in 0..3 {
            tx.send(n).try_now().unwrap();
        }
        assert_eq!(rx.len(), 2, "0 is with the receive");
    }
    assert_eq!(rx.recv_many(9).wait().unwrap(), [0, 1, 2]);
    assert_eq!(rx.statistics().received, 3);
}

#[test]
fn l3_a_value_given_back_may_exceed_the_capacity() {
    let (tx, rx) = channel(0);
    {
        let mut receive = pin!(rx.recv());
        assert!(poll(receive.as_mut()).is_pending());
        tx.send(1).try_now().unwrap();
    }
    assert_eq!(rx.len(), 1);
    assert_eq!(tx.send(2).try_now(), Err(SendError::WouldBlock(2)));
    assert_eq!(rx.recv().try_now(), Ok(1));
}

#[test]
fn l3_a_value_given_back_goes_to_the_next_who_waits() {
    let (tx, rx) = channel(0);
    let mut second = Box::pin(rx.recv());
    {
        let mut first = pin!(rx.recv());
        assert!(poll(first.as_mut()).is_pending());
        assert!(poll(second.as_mut()).is_pending());
        tx.send(1).try_now().unwrap();
    }
    assert_eq!(poll(second.as_mut()), Poll::Ready(Ok(1)));
}

#[test]
fn l3_a_cancelled_send_leaves_no_value() {
    let (tx, rx) = channel(0);
    {
        let mut send = pin!(tx.send(1));
        assert!(poll(send.as_mut()).is_pending());
    }
    assert_eq!(rx.recv().try_now(), Err(RecvError::WouldBlock));
    assert_eq!(rx.statistics().parked_senders, 0);
}

#[test]
fn l4_a_send_that_happened_stays_sent() {
    let (tx, rx) = channel(0);
    {
        let mut send = pin!(tx.send(1));
        assert!(poll(send.as_mut()).is_pending());
        assert_eq!(rx.recv().try_now(), Ok(1));
    }
    assert_eq!(rx.statistics().sent, 1);
}

#[test]
fn l4_a_timeout_gives_the_value_back() {
    let (tx, rx) = channel(0);
    let soon = Duration::from_millis(1);
    assert_eq!(tx.send(5).wait_timeout(soon), Err(SendError::Timeout(5)));
    assert_eq!(tx.send(5).wait_timeout(Duration::ZERO), Err(SendError::Timeout(5)));
    assert_eq!(rx.recv().wait_timeout(soon), Err(RecvError::Timeout));
    assert_eq!((rx.statistics().parked_receivers, rx.statistics().parked_senders), (0, 0));
    // A deadline that no clock shows is none.
    thread::scope(|scope| {
        scope.spawn(|| tx.send(6).wait().unwrap());
        assert_eq!(rx.recv().wait_timeout(Duration::MAX), Ok(6));
    });
}

#[test]
fn l5_a_select_performs_exactly_one_and_the_others_stay_as_they_were() {
    let (a, b) = (Channel::new(1), Channel::new(1));
    a.send(1).wait().unwrap();
    let (mut receive, mut send) = (b.recv(), a.send(2));
    assert_eq!(select(&mut [&mut receive, &mut send]).try_now(), None);
    assert_eq!(a.statistics().buffered + b.statistics().buffered, 1);
    b.send(3).wait().unwrap();
    assert_eq!(select(&mut [&mut receive, &mut send]).wait(), 0);
    assert_eq!(receive.wait(), Ok(3));
    // The one not chosen still has its value, and can still be performed.
    assert_eq!(send.try_now(), Err(SendError::WouldBlock(2)));
}

#[test]
fn l5_two_selects_that_face_each_other_pair() {
    for _ in 0..times(500) {
        let (a, b) = (Channel::new(0), Channel::new(0));
        let (sent, received) = thread::scope(|scope| {
            let other = scope.spawn(|| {
                let (mut on_a, mut on_b) = (a.send(1), b.send(2));
                select(&mut [&mut on_a, &mut on_b]).wait()
            });
            let (mut on_b, mut on_a) = (b.recv(), a.recv());
            let value = match select(&mut [&mut on_b, &mut on_a]).wait() {
                0 => on_b.wait(),
                _ => on_a.wait(),
            };
            (other.join().unwrap() as u64 + 1, value.unwrap())
        });
        assert_eq!(sent, received);
        assert_eq!(a.statistics().sent + b.statistics().sent, 1);
    }
}

#[test]
fn l5_a_select_never_meets_itself() {
    let a = Channel::new(0);
    let (mut send, mut receive) = (a.send(1), a.recv());
    let mut choice = select(&mut [&mut send, &mut receive]).wait_timeout(Duration::from_millis(1));
    assert_eq!(choice, None);
    // Two of them meet each other, whichever way round.
    let other = a.clone();
    let peer = thread::spawn(move || {
        let (mut send, mut receive) = (other.send(2), other.recv());
        select(&mut [&mut send, &mut receive]).wait()
    });
    choice = select(&mut [&mut send, &mut receive]).wait_until(std::time::Instant::now() + Duration::from_secs(30));
    assert_eq!(choice, Some(1 - peer.join().unwrap()));
    if choice == Some(1) {
        assert_eq!(receive.wait(), Ok(2));
    }
}

#[test]
fn l5_a_case_may_be_switched_off() {
    let a = Channel::new(1);
    a.send(1).wait().unwrap();
    let (mut off, mut on) = (None, Some(a.recv()));
    assert!(off.is_none());
    if false {
        off = Some(a.recv());
    }
    assert_eq!(select(&mut [&mut off, &mut on]).wait(), 1);
    assert_eq!(on.unwrap().wait(), Ok(1));
    assert_eq!(select(&mut [&mut off]).try_now(), None);
    assert_eq!(select(&mut []).wait_timeout(Duration::from_millis(1)), None);
}

#[test]
fn l5_a_select_of_ended_channels_is_ready() {
    let (tx, rx) = channel::<u8>(0);
    drop(tx);
    let mut receive = rx.recv();
    assert_eq!(select(&mut [&mut receive]).wait(), 0);
    assert_eq!(receive.wait(), Err(RecvError::Closed(None)));
}

#[test]
#[cfg_attr(miri, ignore = "it needs many runs")]
fn l6_random_takes_each_ready_case_about_as_often() {
    let channels: Vec<_> = (0..4).map(|_| Channel::new(1)).collect();
    channels.iter().for_each(|channel| assert!(channel.send(0).wait().is_ok()));
    let mut taken = [0; 4];
    for _ in 0..4000 {
        let [mut a, mut b, mut c, mut d] = [0, 1, 2, 3].map(|n: usize| channels[n].recv());
        let chosen = select(&mut [&mut a, &mut b, &mut c, &mut d]).wait();
        taken[chosen] += 1;
        drop((a, b, c, d)); // the chosen one gives its value back
    }
    // 1000 each, with a standard deviation of 27: this fails once in 10^13 runs.
    assert!(taken.iter().all(|count| (800..1200).contains(count)), "{taken:?}");
    assert!(channels.iter().all(|channel| channel.len() == 1));
}

#[test]
fn l6_priority_takes_the_first_listed() {
    let (a, b) = (Channel::new(100), Channel::new(100));
    for n in 0..100 {
        a.send(n).wait().unwrap();
        b.send(n).wait().unwrap();
    }
    for _ in 0..100 {
        let (mut first, mut second) = (b.recv(), a.recv());
        assert_eq!(select(&mut [&mut first, &mut second]).priority().wait(), 0);
        first.wait().unwrap();
    }
    assert_eq!((a.len(), b.len()), (100, 0));
}

#[test]
fn l7_close_delivers_what_is_there_and_then_ends() {
    let (tx, rx) = channel(1);
    tx.send(1).wait().unwrap();
    let mut parked = pin!(tx.send(2));
    assert!(poll(parked.as_mut()).is_pending());
    assert!(rx.close_channel_with(Broken));
    assert!(!tx.close_channel(), "twice is no crash");
    let refused = tx.send(3).wait().unwrap_err();
    assert!(is_broken(&refused) && refused.into_value() == 3);
    assert_eq!((rx.recv().wait(), rx.recv().wait()), (Ok(1), Ok(2)));
    assert_eq!(poll(parked.as_mut()), Poll::Ready(Ok(None)), "it was parked before the close");
    let error = rx.recv().wait().unwrap_err();
    assert!(matches!(error, RecvError::Closed(Some(_))) && is_broken(&error));
    assert!(matches!(rx.end(), Some((End::Closed, Some(_)))));
}

#[test]
fn l7_close_wakes_those_who_wait() {
    let (tx, rx) = channel::<u8>(0);
    thread::scope(|scope| {
        let waiting: Vec<_> = (0..3).map(|_| scope.spawn(|| rx.recv().wait())).collect();
        until_receivers(&tx, 3);
        tx.close_channel();
        for waiting in waiting {
            assert_eq!(waiting.join().unwrap(), Err(RecvError::Closed(None)));
        }
    });
}

#[test]
fn l8_poison_reaches_both_ends_at_once() {
    let (tx, rx) = channel(1);
    tx.send(1).wait().unwrap();
    let mut send = pin!(tx.send(2));
    assert!(poll(send.as_mut()).is_pending());
    assert_eq!(rx.poison_with(Broken), [1], "what it drops can be recovered");
    assert_eq!(rx.statistics().dropped, 1);
    match poll(send.as_mut()) {
        Poll::Ready(Err(error)) => assert!(is_broken(&error) && error.into_value() == 2),
        other => panic!("{other:?}"),
    }
    assert!(matches!(rx.recv().wait(), Err(RecvError::Poisoned(Some(_)))));
    assert!(matches!(tx.send(3).wait(), Err(SendError::Poisoned(3, Some(_)))));
    assert_eq!(rx.poison(), [], "twice is no crash");
    assert_eq!(rx.iter().next(), None);
}

#[test]
fn l8_poison_reaches_parked_receivers() {
    let (tx, rx) = channel::<u8>(0);
    let mut receive = pin!(rx.recv());
    assert!(poll(receive.as_mut()).is_pending());
    tx.poison();
    assert_eq!(poll(receive.as_mut()), Poll::Ready(Err(RecvError::Poisoned(None))));
}

#[test]
fn l9_the_last_sender_closes() {
    let (tx, rx) = channel(1);
    let second = tx.clone();
    tx.send(1).wait().unwrap();
    tx.close_with(Broken);
    assert!(rx.end().is_none());
    assert_eq!(rx.recv().wait(), Ok(1));
    drop(second);
    assert!(is_broken(&rx.recv().wait().unwrap_err()), "the first cause that an end gave");
}

#[test]
fn l9_the_last_receiver_tells_the_senders_and_drops_what_was_buffered() {
    let (tx, rx) = channel(1);
    tx.send(1).wait().unwrap();
    let mut send = pin!(tx.send(2));
    assert!(poll(send.as_mut()).is_pending());
    let second = rx.clone();
    drop(rx);
    assert!(poll(send.as_mut()).is_pending());
    second.close_with(Broken);
    match poll(send.as_mut()) {
        Poll::Ready(Err(SendError::NoReceivers(2, Some(_)))) => {}
        other => panic!("{other:?}"),
    }
    assert_eq!((tx.statistics().dropped, tx.len()), (1, 0));
}

#[test]
fn l9_a_channel_handle_keeps_nothing_open() {
    let handle = Channel::<u8>::new(0);
    let (tx, rx) = handle.split();
    drop(tx);
    assert_eq!(rx.recv().wait(), Err(RecvError::Closed(None)));
    drop(rx);
    assert!(matches!(handle.send(1).wait(), Err(SendError::NoReceivers(1, None))));
    // Ends that come too late count for nothing.
    let (tx, rx) = handle.split();
    assert!(tx.send(1).wait().is_err() && rx.recv().wait().is_err());
    drop((tx.clone(), rx.clone(), tx, rx));
}

#[test]
fn l10_whoever_can_meet_does() {
    let (tx, rx) = channel(0);
    let (count, waker) = Count::new();
    let mut receive = pin!(rx.recv());
    assert!(poll_with(receive.as_mut(), &waker).is_pending());
    tx.send(1).try_now().unwrap();
    assert_eq!(count.get(), 1, "one wake-up, and no second");
    assert_eq!(poll(receive.as_mut()), Poll::Ready(Ok(1)));
}

#[test]
fn l10_a_withdrawn_select_hides_nobody_behind_it() {
    let (a, b) = (Channel::new(0), Channel::<u8>::new(0));
    {
        let (mut on_a, mut on_b) = (a.recv(), b.recv());
        assert_eq!(select(&mut [&mut on_a, &mut on_b]).wait_timeout(Duration::from_millis(1)), None);
    }
    let mut receive = pin!(a.recv());
    assert!(poll(receive.as_mut()).is_pending());
    a.send(1).try_now().unwrap();
    assert_eq!(poll(receive.as_mut()), Poll::Ready(Ok(1)));
}

#[test]
fn overflow_says_what_a_full_channel_does() {
    let (tx, rx) = Channel::with_overflow(2, Overflow::DropOldest).split();
    let displaced: Vec<_> = (0..4).map(|n| tx.send(n).wait().unwrap()).collect();
    assert_eq!(displaced, [None, None, Some(0), Some(1)]);
    assert_eq!(rx.recv_many(9).wait().unwrap(), [2, 3]);

    let (tx, rx) = Channel::with_overflow(1, Overflow::DropNewest).split();
    assert_eq!((tx.send(0).wait(), tx.send(1).wait()), (Ok(None), Ok(Some(1))));
    assert_eq!(rx.recv().wait(), Ok(0));

    let (tx, rx) = Channel::with_overflow(1, Overflow::Error).split();
    assert_eq!((tx.send(0).wait(), tx.send(1).wait()), (Ok(None), Err(SendError::Full(1))));
    assert_eq!(rx.statistics().sent, 1);

    let (tx, rx) = Channel::with_overflow(0, Overflow::DropOldest).split();
    assert_eq!(tx.send(1).wait(), Ok(Some(1)));
    assert_eq!(rx.statistics().dropped, 1);
}

#[test]
fn send_many_sends_at_least_one_and_leaves_the_rest() {
    let (tx, rx) = channel(2);
    let mut values = VecDeque::from([1, 2, 3, 4]);
    assert_eq!(tx.send_many(&mut values).wait().unwrap().count, 2);
    assert_eq!(tx.send_many(&mut values).try_now(), Err(SendError::WouldBlock(())));
    assert_eq!(values, [3, 4]);
    {
        let mut send = pin!(tx.send_many(&mut values));
        assert!(poll(send.as_mut()).is_pending());
    }
    assert_eq!(values, [3, 4], "a cancelled send leaves all");
    {
        let mut send = pin!(tx.send_many(&mut values));
        assert!(poll(send.as_mut()).is_pending());
        assert_eq!(rx.recv_many(2).wait().unwrap(), [1, 2]);
        match poll(send.as_mut()) {
            Poll::Ready(Ok(batch)) => assert_eq!(batch.count, 2),
            other => panic!("{other:?}"),
        }
    }
    assert!(values.is_empty());
    assert_eq!(tx.send_many(&mut values).wait().unwrap().count, 0);
    let mut nothing = tx.send_many(&mut values);
    assert_eq!(select(&mut [&mut nothing]).wait(), 0);
    assert_eq!(nothing.wait().unwrap().count, 0);
    drop(rx);
    values.push_back(5);
    assert!(matches!(tx.send_many(&mut values).wait(), Err(SendError::NoReceivers((), None))));
    assert_eq!(values, [5]);
}

#[test]
fn recv_many_receives_at_least_one_in_order() {
    let (tx, rx) = channel(0);
    thread::scope(|scope| {
        scope.spawn(|| (0..100).for_each(|n| assert!(tx.send(n).wait().is_ok())));
        let mut all = Vec::new();
        while all.len() < 100 {
            let some = rx.recv_many(7).wait().unwrap();
            assert!((1..=7).contains(&some.len()));
            all.extend(some);
        }
        assert!(all.into_iter().eq(0..100));
    });
    tx.close_channel();
    assert_eq!(rx.recv_many(1).wait(), Err(RecvError::Closed(None)));
}

#[test]
fn statistics_tell_one_moment() {
    let (tx, rx) = channel(1);
    tx.send(1).wait().unwrap();
    let mut send = pin!(tx.send(2));
    assert!(poll(send.as_mut()).is_pending());
    let statistics = rx.statistics();
    assert_eq!(
        (statistics.buffered, statistics.parked_senders, statistics.senders, statistics.receivers),
        (1, 1, Some(1), Some(1))
    );
    assert_eq!((statistics.sent, statistics.received), (1, 0));
    assert!(format!("{rx:?} {tx:?}").contains("buffered: 1"));
}

#[test]
fn errors_say_what_happened() {
    let (tx, rx) = channel::<u8>(0);
    assert_eq!(rx.recv().try_now().unwrap_err().to_string(), "nothing to receive now");
    rx.close_channel_with(Broken);
    let error = tx.send(1).wait().unwrap_err();
    assert_eq!(error.to_string(), "the channel is closed");
    assert_eq!(error.source().unwrap().to_string(), "the loom is broken");
    assert_eq!(format!("{error:?}"), "Closed(Broken, ..)");
}

#[test]
#[should_panic(expected = "performed once")]
fn an_operation_is_performed_once() {
    let (tx, _rx) = channel(1);
    let mut send = pin!(tx.send(1));
    assert!(poll(send.as_mut()).is_ready());
    let _ = poll(send.as_mut());
}

#[test]
fn l2_what_is_preloaded_comes_first_and_past_the_capacity() {
    let chan = Arc::new(Chan::new(Some(1), Overflow::Block));
    assert_eq!(chan.preload([1, 2].into()), Ok(()));
    assert_eq!(chan.preload([3].into()), Ok(()));
    let channel = Channel::from(chan.clone());
    assert_eq!(channel.send(4).try_now(), Err(SendError::WouldBlock(4)));
    assert_eq!([1, 2, 3].map(|_| channel.recv().try_now()), [Ok(1), Ok(2), Ok(3)]);
    assert_eq!((channel.statistics().sent, channel.statistics().received), (3, 3));
    // Where somebody waits, or nothing is to come, there is nothing to preload.
    let mut recv = pin!(channel.recv());
    assert!(poll(recv.as_mut()).is_pending());
    assert_eq!(chan.preload([5].into()), Err([5].into()));
    chan.close(None).1.wake();
    assert_eq!(chan.preload([6].into()), Err([6].into()));
}
