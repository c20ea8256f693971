//! The words the tests share. Nothing sleeps: who waits for something to be so looks until it is.
#![allow(dead_code)]

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::thread;
use std::time::{Duration, Instant};

use weft_core::{Channel, Receiver, Sender, Statistics};

/// How often to do something: less under miri, which is some thousand times slower and finds more in one run than others in many.
pub const fn times(count: usize) -> usize {
    if cfg!(miri) { count.div_ceil(100) } else { count }
}

/// Looks until `is_so`; a test that waits in vain fails.
pub fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < Duration::from_secs(60), "waited in vain until {what}");
        thread::yield_now();
    }
}

/// Whatever can be asked how many wait.
pub trait Counts {
    fn counts(&self) -> Statistics;
}
impl<T> Counts for Channel<T> {
    fn counts(&self) -> Statistics {
        self.statistics()
    }
}
impl<T> Counts for Sender<T> {
    fn counts(&self) -> Statistics {
        self.statistics()
    }
}
impl<T> Counts for Receiver<T> {
    fn counts(&self) -> Statistics {
        self.statistics()
    }
}

pub fn until_senders(channel: &impl Counts, count: usize) {
    until("so many senders wait", || channel.counts().parked_senders == count);
}

pub fn until_receivers(channel: &impl Counts, count: usize) {
    until("so many receivers wait", || channel.counts().parked_receivers == count);
}

/// Counts how many `Token`s live, and how often they were dropped.
#[derive(Clone, Default)]
pub struct Census(Arc<AtomicUsize>);

impl Census {
    pub fn token(&self, number: u64) -> Token {
        self.0.fetch_add(1, Ordering::SeqCst);
        Token { number, boxed: Box::new(number), census: self.clone() }
    }

    pub fn alive(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

/// A value that must be dropped exactly once: its census counts, and its box would be freed twice.
pub struct Token {
    pub number: u64,
    boxed: Box<u64>,
    census: Census,
}

impl Drop for Token {
    fn drop(&mut self) {
        assert_eq!(*self.boxed, self.number);
        let before = self.census.0.fetch_sub(1, Ordering::SeqCst);
        assert!(before > 0, "dropped twice");
    }
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Token({})", self.number)
    }
}

/// A waker that counts.
#[derive(Default)]
pub struct Count(AtomicUsize);

impl Count {
    pub fn new() -> (Arc<Self>, Waker) {
        let count = Arc::new(Self::default());
        (count.clone(), Waker::from(count))
    }

    pub fn get(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

/// Polls once, with a waker that is never listened to.
pub fn poll<F: Future + ?Sized>(future: Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

pub fn poll_with<F: Future + ?Sized>(future: Pin<&mut F>, waker: &Waker) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(waker))
}

/// A block_on of ten lines: what the channel does must not depend on somebody's executor.
pub fn block_on<F: Future>(future: F) -> F::Output {
    struct Unpark(thread::Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut future = std::pin::pin!(future);
    loop {
        match poll_with(future.as_mut(), &waker) {
            Poll::Ready(output) => return output,
            Poll::Pending => thread::park(),
        }
    }
}

/// xorshift64: the same numbers for the same seed.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % n
    }
}
