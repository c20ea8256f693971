//! Where the thread of a link waits for its socket, on Linux.
//!
//! Another thread pauses it while it reads itself, and resumes it when it is done (reading.rs). One that does so again and again, as in an echo, is
//! expected back: until then what comes is left to it, as to wake the link's thread for it would take longer, and take a core from the peer. A
//! timer sees to it that what it does not come back for is read all the same.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::epoll;
use rustix::io::{read, retry_on_intr};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};

use super::Socket;

/// Where a thread waits for a socket, which others can pause.
pub(crate) struct Watch {
    epoll: OwnedFd,
    timer: OwnedFd,
    state: Mutex<Watched>,
}

struct Watched {
    gate: Gate,
    /// The timer was set, and has not been seen to go off.
    is_set: bool,
    /// When it was last resumed.
    resumed: Option<Instant>,
    /// It was paused again soon after that.
    soon: bool,
}

#[derive(PartialEq, Eq)]
enum Gate {
    /// Who waits is woken by the socket.
    Open,
    /// Who waits is not.
    Paused,
    /// Nor now, but the timer is set, which opens it.
    Opening,
}

/// Whoever pauses a watch within this time after having resumed it, is expected to do so the next time.
const SOON: Duration = Duration::from_micros(100);

/// For so long at most is it waited for. To set the timer takes some 10 us in a virtual machine, so it is not set, and taken back, each time.
const PATIENCE: Duration = Duration::from_millis(1);

impl Watch {
    const SOCKET: u64 = 0;
    const TIMER: u64 = 1;

    pub(crate) fn new(socket: &Socket) -> io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let timer = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK)?;
        epoll::add(&epoll, socket.descriptor(), epoll::EventData::new_u64(Self::SOCKET), epoll::EventFlags::IN)?;
        epoll::add(&epoll, &timer, epoll::EventData::new_u64(Self::TIMER), epoll::EventFlags::IN)?;
        let state = Mutex::new(Watched { gate: Gate::Open, is_set: false, resumed: None, soon: false });
        Ok(Self { epoll, timer, state })
    }

    /// Waits until there is something to read, unless it is paused, or the link is over.
    pub(crate) fn wait(&self, socket: &Socket) -> io::Result<()> {
        loop {
            let mut events = [epoll::Event { flags: epoll::EventFlags::empty(), data: epoll::EventData::new_u64(0) }];
            if retry_on_intr(|| epoll::wait(&self.epoll, &mut events, None))? == 0 {
                continue;
            }
            let [epoll::Event { data, .. }] = events;
            if data.u64() == Self::SOCKET {
                return Ok(());
            }
            let mut state = self.state();
            retry_on_intr(|| read(&self.timer, &mut [0; 8]))?;
            state.is_set = false;
            if state.gate == Gate::Opening {
                self.listen(socket, epoll::EventFlags::IN)?;
                state.gate = Gate::Open;
            }
        }
    }

    /// What comes from now on wakes nobody who waits here.
    pub(crate) fn pause(&self, socket: &Socket) -> io::Result<()> {
        let mut state = self.state();
        if state.gate == Gate::Open {
            self.listen(socket, epoll::EventFlags::empty())?;
        }
        state.gate = Gate::Paused;
        state.soon = state.resumed.is_some_and(|resumed| resumed.elapsed() < SOON);
        Ok(())
    }

    /// What is there, or comes, wakes who waits here. But whoever is likely to pause it again soon will read that itself: nobody is woken for a
    /// moment.
    pub(crate) fn resume(&self, socket: &Socket) -> io::Result<()> {
        let mut state = self.state();
        state.resumed = Some(Instant::now());
        if state.soon && (state.is_set || self.set_timer().is_ok()) {
            state.is_set = true;
            state.gate = Gate::Opening;
            return Ok(());
        }
        self.listen(socket, epoll::EventFlags::IN)?;
        state.gate = Gate::Open;
        Ok(())
    }

    fn listen(&self, socket: &Socket, events: epoll::EventFlags) -> io::Result<()> {
        Ok(epoll::modify(&self.epoll, socket.descriptor(), epoll::EventData::new_u64(Self::SOCKET), events)?)
    }

    fn set_timer(&self) -> io::Result<()> {
        let time = |nanoseconds: u32| Timespec { tv_sec: 0, tv_nsec: nanoseconds.into() };
        let once = Itimerspec { it_interval: time(0), it_value: time(PATIENCE.subsec_nanos()) };
        timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &once)?;
        Ok(())
    }

    fn state(&self) -> MutexGuard<'_, Watched> {
        // Nothing panics under it.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::thread;

    use super::*;

    /// A thread that counts how often it was woken; it reads what there is.
    struct Waiter {
        watch: Arc<Watch>,
        ours: Arc<Socket>,
        theirs: Socket,
        woken: Arc<AtomicUsize>,
    }

    impl Waiter {
        fn new() -> Self {
            let (ours, theirs) = Socket::pair().unwrap();
            let ours = Arc::new(ours);
            let watch = Arc::new(Watch::new(&ours).unwrap());
            let woken = Arc::new(AtomicUsize::new(0));
            thread::spawn({
                let (watch, ours, woken) = (Arc::clone(&watch), Arc::clone(&ours), Arc::clone(&woken));
                move || {
                    while watch.wait(&ours).is_ok() && ours.recv(&mut [0; 64], &mut Vec::new()).is_ok_and(|n| n > 0) {
                        woken.fetch_add(1, Ordering::SeqCst);
                    }
                }
            });
            Self { watch, ours, theirs, woken }
        }

        fn write(&self) {
            assert!(matches!(self.theirs.send(&[std::io::IoSlice::new(b"x")], &[]), Ok(1)));
        }

        /// Pauses and resumes at once until that is what is expected, and leaves it expected back.
        fn expect_back(&self) {
            loop {
                self.watch.pause(&self.ours).unwrap();
                self.watch.resume(&self.ours).unwrap();
                if self.watch.state().gate == Gate::Opening {
                    return;
                }
            }
        }

        fn until_woken(&self, times: usize) {
            while self.woken.load(Ordering::SeqCst) < times {
                thread::yield_now();
            }
        }
    }

    impl Drop for Waiter {
        fn drop(&mut self) {
            self.theirs.shut_down();
        }
    }

    #[test]
    fn it_wakes_who_waits_unless_it_is_paused() {
        let waiter = Waiter::new();
        waiter.write();
        waiter.until_woken(1);
        waiter.watch.pause(&waiter.ours).unwrap();
        waiter.write();
        thread::sleep(Duration::from_millis(20));
        assert_eq!(waiter.woken.load(Ordering::SeqCst), 1);
        waiter.watch.resume(&waiter.ours).unwrap();
        waiter.until_woken(2);
    }

    #[test]
    fn who_is_expected_back_and_does_not_come_is_stood_in_for() {
        let waiter = Waiter::new();
        for times in 1..=100 {
            waiter.expect_back();
            waiter.write();
            waiter.until_woken(times);
        }
    }

    #[test]
    fn a_timer_that_goes_off_while_it_is_paused_opens_nothing() {
        let waiter = Waiter::new();
        for times in 1..=20 {
            waiter.expect_back();
            waiter.watch.pause(&waiter.ours).unwrap();
            waiter.write();
            thread::sleep(PATIENCE * 3);
            assert_eq!(waiter.woken.load(Ordering::SeqCst), times - 1);
            waiter.watch.resume(&waiter.ours).unwrap();
            waiter.until_woken(times);
        }
    }

    #[test]
    fn the_end_of_the_link_wakes_who_waits_in_any_state() {
        for how in 0..3 {
            let waiter = Waiter::new();
            match how {
                0 => {}
                1 => waiter.watch.pause(&waiter.ours).unwrap(),
                _ => waiter.expect_back(),
            }
            waiter.theirs.shut_down();
            waiter.watch.wait(&waiter.ours).unwrap();
        }
    }
}
