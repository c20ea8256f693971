//! The operations as futures: with an executor of ten lines, with pollster, futures-executor and tokio, and with threads at the other side.
//!
//! cargo test -p weft-core --test futures
//! cargo +nightly miri test -p weft-core --test futures
#![cfg(not(any(loom, shuttle)))]

mod common;

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::thread;
use std::time::{Duration, Instant};

use common::*;
use weft_core::*;

fn is_send<T: Send>(value: T) -> T {
    value
}

/// Both sides, all capacities, whichever executor runs it.
async fn chat(capacity: usize) {
    let (tx, rx) = channel(capacity);
    let (back, answers) = channel(capacity);
    let echo = thread::spawn(move || rx.into_iter().try_for_each(|n: u64| back.send(n * 2).wait().map(|_| ())));
    for n in 0..100 {
        // Both directions at once, or an unbuffered pair of channels would stop.
        tx.send(n).await.unwrap();
        assert_eq!(answers.recv().await, Ok(n * 2));
    }
    drop(tx);
    assert_eq!(answers.next().await, None);
    echo.join().unwrap().unwrap();
}

#[test]
fn a_plain_block_on() {
    [0, 1, 8].into_iter().for_each(|capacity| block_on(chat(capacity)));
}

#[test]
fn pollster() {
    [0, 1, 8].into_iter().for_each(|capacity| ::pollster::block_on(chat(capacity)));
}

#[test]
fn futures_executor() {
    [0, 1, 8].into_iter().for_each(|capacity| ::futures_executor::block_on(chat(capacity)));
}

#[test]
#[cfg_attr(miri, ignore = "miri does not know all that tokio asks of the system")]
fn tokio_tasks_and_threads_together() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        for capacity in [0, 1, 8] {
            let (tx, rx) = channel(capacity);
            for sender in 0..3_u64 {
                let tx = tx.clone();
                tokio::spawn(is_send(async move {
                    for n in 0..200 {
                        tx.send(sender * 1000 + n).await.unwrap();
                    }
                }));
            }
            thread::spawn(move || (0..200).for_each(|n| assert!(tx.send(3000 + n).wait().is_ok())));
            let receivers: Vec<_> = (0..2)
                .map(|_| {
                    let rx = rx.clone();
                    tokio::spawn(async move {
                        let mut got = Vec::new();
                        while let Some(value) = rx.next().await {
                            got.push(value);
                        }
                        got
                    })
                })
                .collect();
            let mut all = Vec::new();
            for receiver in receivers {
                let got = receiver.await.unwrap();
                for sender in 0..4 {
                    assert!(got.iter().filter(|n| **n / 1000 == sender).is_sorted(), "each sender's values in order");
                }
                all.extend(got);
            }
            all.sort();
            assert!(all.into_iter().eq((0..4).flat_map(|sender| sender * 1000..sender * 1000 + 200)));
        }
    });
}

#[test]
#[cfg_attr(miri, ignore = "miri does not know all that tokio asks of the system")]
fn tokio_timeouts_and_aborts_lose_nothing() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let (tx, rx) = channel(0);
        for n in 0..200_u64 {
            let late = tokio::time::timeout(Duration::from_micros(n % 7), rx.recv()).await;
            assert!(late.is_err());
            let sender = tx.clone();
            let task = tokio::spawn(async move { sender.send(n).await });
            if n % 3 == 0 {
                tokio::task::yield_now().await;
                task.abort();
                match task.await {
                    Ok(sent) => panic!("nobody received {sent:?}"),
                    Err(error) => assert!(error.is_cancelled()),
                }
                assert_eq!(rx.recv().try_now(), Err(RecvError::WouldBlock));
            } else {
                assert_eq!(rx.recv().await, Ok(n));
                task.await.unwrap().unwrap();
            }
        }
    });
}

#[test]
fn the_latest_waker_is_the_one_called() {
    let (tx, rx) = channel(0);
    let ((first, first_waker), (second, second_waker)) = (Count::new(), Count::new());
    let mut receive = pin!(rx.recv());
    assert!(poll_with(receive.as_mut(), &first_waker).is_pending());
    assert!(poll_with(receive.as_mut(), &first_waker).is_pending());
    assert_eq!(Arc::strong_count(&first), 3, "the same waker is not cloned again");
    assert!(poll_with(receive.as_mut(), &second_waker).is_pending());
    assert_eq!(Arc::strong_count(&first), 2, "the old one is dropped");
    tx.send(1).try_now().unwrap();
    assert_eq!((first.get(), second.get()), (0, 1));
    assert_eq!(poll(receive.as_mut()), Poll::Ready(Ok(1)));
    assert_eq!(Arc::strong_count(&second), 2);
}

#[test]
fn a_select_of_futures_performs_exactly_one() {
    let (a, b) = (Channel::new(0), Channel::<&str>::new(0));
    let (mut on_a, mut on_b) = (pin!(a.recv()), pin!(b.send("b")));
    {
        let mut cases = [on_a.as_mut() as Pin<&mut (dyn Event + Send)>, on_b.as_mut()];
        let mut choice = pin!(select_pinned(&mut cases));
        let (count, waker) = Count::new();
        assert!(poll_with(choice.as_mut(), &waker).is_pending());
        assert_eq!((a.statistics().parked_receivers, b.statistics().parked_senders), (1, 1));
        a.send(1).try_now().unwrap();
        assert_eq!(count.get(), 1);
        assert_eq!(b.recv().try_now(), Err(RecvError::WouldBlock), "it is taken");
        assert_eq!(poll(choice.as_mut()), Poll::Ready(0));
    }
    assert_eq!(poll(on_a.as_mut()), Poll::Ready(Ok(1)));
    // The other is as if never tried.
    assert!(poll(on_b.as_mut()).is_pending());
    assert_eq!(b.recv().try_now(), Ok("b"));
    assert_eq!(poll(on_b.as_mut()), Poll::Ready(Ok(None)));
}

#[test]
fn a_select_dropped_after_it_was_decided_leaves_the_result_with_its_case() {
    let a = Channel::new(0);
    let mut on_a = pin!(a.recv());
    {
        let mut cases = [on_a.as_mut() as Pin<&mut (dyn Event + Send)>];
        let mut choice = pin!(select_pinned(&mut cases));
        assert!(poll(choice.as_mut()).is_pending());
        a.send(1).try_now().unwrap();
    }
    assert_eq!(poll(on_a.as_mut()), Poll::Ready(Ok(1)));
    {
        let mut on_a = pin!(a.recv());
        {
            let mut cases = [on_a.as_mut() as Pin<&mut (dyn Event + Send)>];
            let mut choice = pin!(select_pinned(&mut cases));
            assert!(poll(choice.as_mut()).is_pending());
            a.send(2).try_now().unwrap();
        }
    }
    assert_eq!(a.recv().try_now(), Ok(2), "the case gave it back when it was dropped, too");
}

/// A select that is leaked leaves its cases queued, bound to a waiter that nobody will look at again. The cases must notice.
#[test]
fn a_leaked_select_is_harmless() {
    for sent_before_the_case_is_used in [false, true] {
        for dropped in [false, true] {
            let (a, b) = (Channel::new(0), Channel::new(0));
            let mut on_a = Box::pin(a.recv());
            let mut on_b = Box::pin(b.recv());
            {
                let mut cases = [on_a.as_mut() as Pin<&mut (dyn Event + Send)>, on_b.as_mut()];
                let mut choice = Box::pin(select_pinned(&mut cases));
                assert!(poll(choice.as_mut()).is_pending());
                std::mem::forget(choice);
            }
            if sent_before_the_case_is_used {
                a.send(1).try_now().unwrap();
                assert_eq!(b.send(2).try_now(), Err(SendError::WouldBlock(2)), "one of many");
            }
            if dropped {
                drop((on_b, on_a));
                assert_eq!((a.statistics().parked_receivers, b.statistics().parked_receivers), (0, 0));
                assert_eq!(a.recv().try_now().is_ok(), sent_before_the_case_is_used);
                continue;
            }
            assert!(poll(on_b.as_mut()).is_pending());
            b.send(3).try_now().unwrap();
            assert_eq!(poll(on_b.as_mut()), Poll::Ready(Ok(3)));
            if !sent_before_the_case_is_used {
                assert!(poll(on_a.as_mut()).is_pending());
                a.send(1).try_now().unwrap();
            }
            assert_eq!(poll(on_a.as_mut()), Poll::Ready(Ok(1)));
        }
    }
}

#[test]
fn a_leaked_future_is_harmless() {
    let (tx, rx) = channel(0);
    let mut receive = Box::pin(rx.recv());
    assert!(poll(receive.as_mut()).is_pending());
    std::mem::forget(receive);
    tx.send(Box::new(1)).try_now().unwrap(); // is handed to it, and leaks with it
    assert!(tx.send(Box::new(2)).try_now().is_err());
    let mut receive = Box::pin(rx.recv());
    assert!(poll(receive.as_mut()).is_pending());
    std::mem::forget(receive);
    drop((tx, rx)); // the channel goes away with the node in its queue
}

#[test]
fn a_future_may_move_to_another_thread_while_it_waits() {
    let (tx, rx) = channel(0);
    let rx: &'static Receiver<u8> = Box::leak(Box::new(rx));
    let mut receive = Box::pin(rx.recv());
    assert!(poll(receive.as_mut()).is_pending());
    let waiting = thread::spawn(move || block_on(is_send(receive)));
    tx.send(1).wait().unwrap();
    assert_eq!(waiting.join().unwrap(), Ok(1));
    // And be dropped there.
    let mut receive = Box::pin(rx.recv());
    assert!(poll(receive.as_mut()).is_pending());
    thread::spawn(move || drop(receive)).join().unwrap();
    assert_eq!(tx.statistics().parked_receivers, 0);
}

#[test]
fn all_futures_can_be_sent() {
    let (tx, rx) = channel::<u8>(0);
    let barrier = Barrier::new(2);
    drop(is_send(tx.send(1)));
    drop(is_send(rx.recv()));
    drop(is_send(rx.recv_many(2)));
    drop(is_send(barrier.sync()));
    drop(is_send(after(Duration::ZERO)));
    drop(is_send(async {
        let (mut a, mut b) = (pin!(tx.send(1)), pin!(after(Duration::ZERO)));
        select_pinned(&mut [a.as_mut(), b.as_mut()]).await
    }));
}

#[test]
fn timers_wake_futures() {
    block_on(async {
        let start = Instant::now();
        let due = after(Duration::from_millis(3)).await;
        assert!(due >= start + Duration::from_millis(3) && Instant::now() >= due);
        assert_eq!(at(start).await, start, "a time that has passed is due at once");
        let mut clock = tick(Duration::from_millis(1));
        let first = clock.recv().await;
        assert!(clock.recv().await >= first + Duration::from_millis(1));
    });
}

#[test]
fn timers_are_due_in_the_order_of_their_deadlines() {
    let start = Instant::now();
    let order = Channel::unbounded();
    thread::scope(|scope| {
        // Set in an order that makes the timer thread wake early, late, and not at all.
        for wait in [6, 2, 4, 2, 8_u64] {
            let order = &order;
            scope.spawn(move || {
                let due = block_on(at(start + Duration::from_millis(wait)));
                order.send(due).wait().unwrap();
            });
        }
    });
    order.close_channel();
    let mut dues: Vec<_> = order.iter().collect();
    dues.sort();
    assert!(dues.into_iter().eq([2, 2, 4, 6, 8].map(|wait| start + Duration::from_millis(wait))));
}

#[test]
fn a_dropped_timer_is_forgotten() {
    let (count, waker) = Count::new();
    let mut timer = Box::pin(after(Duration::from_secs(600)));
    assert!(poll_with(timer.as_mut(), &waker).is_pending());
    assert_eq!(Arc::strong_count(&count), 3);
    drop(timer);
    assert_eq!((Arc::strong_count(&count), count.get()), (2, 0));
}

#[test]
fn a_timer_in_a_select_of_futures() {
    block_on(async {
        let channel = Channel::<u8>::new(0);
        let (mut receive, mut late) = (pin!(channel.recv()), pin!(after(Duration::from_millis(2))));
        assert_eq!(select_pinned(&mut [receive.as_mut(), late.as_mut()]).await, 1);
        late.await;
        // In time, and the timer goes.
        let (mut receive, mut late) = (pin!(channel.recv()), pin!(after(Duration::from_secs(600))));
        let sender = channel.clone();
        let thread = thread::spawn(move || sender.send(1).wait().unwrap());
        assert_eq!(select_pinned(&mut [receive.as_mut(), late.as_mut()]).await, 0);
        assert_eq!(receive.await, Ok(1));
        thread.join().unwrap();
    });
}

#[test]
fn a_slow_receiver_misses_ticks() {
    let period = Duration::from_millis(1);
    let mut clock = tick(period);
    let first = clock.recv().wait();
    after(period * 5).wait();
    let late = Instant::now();
    let second = clock.recv().wait();
    assert!(second <= late, "one tick waits");
    let third = clock.recv().wait();
    assert!(third > late, "the others are missed");
    assert_eq!((third - first).as_nanos() % period.as_nanos(), 0, "the rhythm is kept");
}

#[test]
fn a_panicking_waker_leaves_nobody_else_asleep() {
    struct Panics;
    impl std::task::Wake for Panics {
        fn wake(self: Arc<Self>) {
            panic!("a waker that panics");
        }
    }
    let (tx, rx) = channel::<u8>(0);
    let counts: Vec<_> = (0..3).map(|_| Count::new()).collect();
    let mut receives: Vec<_> = (0..4).map(|_| Box::pin(rx.recv())).collect();
    assert!(poll_with(receives[0].as_mut(), &counts[0].1).is_pending());
    assert!(poll_with(receives[1].as_mut(), &Arc::new(Panics).into()).is_pending());
    assert!(poll_with(receives[2].as_mut(), &counts[1].1).is_pending());
    assert!(poll_with(receives[3].as_mut(), &counts[2].1).is_pending());
    let closing = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| tx.close_channel()));
    assert!(closing.is_err());
    assert!(counts.iter().all(|(count, _)| count.get() == 1));
    for receive in &mut receives {
        assert_eq!(poll(receive.as_mut()), Poll::Ready(Err(RecvError::Closed(None))));
    }
}

#[test]
fn a_future_put_into_a_select_after_it_was_polled_is_taken_over() {
    let channel = Channel::new(0);
    let mut receive = pin!(channel.recv());
    assert!(poll(receive.as_mut()).is_pending());
    {
        let mut cases = [receive.as_mut() as Pin<&mut (dyn Event + Send)>];
        let mut choice = pin!(select_pinned(&mut cases));
        assert!(poll(choice.as_mut()).is_pending());
        assert_eq!(channel.statistics().parked_receivers, 1);
        channel.send(1).try_now().unwrap();
        assert_eq!(poll(choice.as_mut()), Poll::Ready(0));
    }
    assert_eq!(poll(receive.as_mut()), Poll::Ready(Ok(1)));
}

/// The value left the operation before the waker panicked: it must not be offered again.
#[test]
fn a_send_whose_receivers_waker_panics_is_over() {
    struct Panics;
    impl std::task::Wake for Panics {
        fn wake(self: Arc<Self>) {
            panic!("a waker that panics");
        }
    }
    let (tx, rx) = channel(0);
    let mut receive = pin!(rx.recv());
    assert!(poll_with(receive.as_mut(), &Arc::new(Panics).into()).is_pending());
    let mut send = pin!(tx.send(Box::new(1)));
    let sending = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| poll(send.as_mut())));
    assert!(sending.is_err());
    assert_eq!(poll(receive.as_mut()), Poll::Ready(Ok(Box::new(1))));
    let again = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| poll(send.as_mut())));
    assert!(again.is_err(), "performed once");
}
