//! The leaves of an operation as weft-core sees them, and what is outside of any channel: clocks and descriptors.

use weft_core::barrier::SyncCase;
use weft_core::chan::{Outcome, Wakes};
use weft_core::select::{Case, Gate, Outside, RecvCase, SendCase};

use super::{Asleep, Extra, FEW, Kind, OpObject};
use crate::ffi::Py;
use crate::io;
use crate::timers::TickObject;
use crate::value::Value;

/// A leaf as weft-core sees it.
pub(super) enum Leaf<'a> {
    Send(SendCase<'a, Value>),
    Recv(RecvCase<'a, Value>),
    Sync(SyncCase<'a>),
    Outside(Outside),
}

impl Leaf<'_> {
    pub(super) fn inner(&self) -> &dyn Case {
        match self {
            Self::Send(case) => case,
            Self::Recv(case) => case,
            Self::Sync(case) => case,
            Self::Outside(case) => case,
        }
    }

    pub(super) fn has_queue(&self) -> bool {
        !matches!(self, Self::Outside(_))
    }
}

// SAFETY: each method passes on to a case that keeps the contract.
unsafe impl Case for Leaf<'_> {
    fn lock(&self) -> Option<&Gate> {
        self.inner().lock()
    }
    unsafe fn ready(&self) -> bool {
        // SAFETY: passed on.
        unsafe { self.inner().ready() }
    }
    unsafe fn commit(&self, wakes: &mut Wakes) -> bool {
        // SAFETY: passed on.
        unsafe { self.inner().commit(wakes) }
    }
    unsafe fn park(&self) {
        // SAFETY: passed on.
        unsafe { self.inner().park() }
    }
    unsafe fn unlink(&self) {
        // SAFETY: passed on.
        unsafe { self.inner().unlink() }
    }
}

impl OpObject {
    /// The leaves as weft-core sees them.
    pub(super) fn with_cases<R>(leaves: &[*mut OpObject], f: impl FnOnce(&[&dyn Case]) -> R) -> R {
        // SAFETY: held by the select, or the operation itself.
        Self::with_cases_as(leaves, |leaf| unsafe { (**leaf).as_case() }, f)
    }

    /// The same, as if all channels were of this process.
    pub(super) fn with_cases_here<R>(leaves: &[*mut OpObject], f: impl FnOnce(&[&dyn Case]) -> R) -> R {
        // SAFETY: as above.
        Self::with_cases_as(leaves, |leaf| unsafe { (**leaf).as_case_here() }, f)
    }

    /// The same, of those that are about to park here: as it was found out that none is the root's. With a GIL none is still; without one another
    /// thread may be about to move one there, and comes for who is parked (`crossing::work`).
    #[cfg(Py_GIL_DISABLED)]
    pub(super) fn with_cases_to_park<R>(leaves: &[*mut OpObject], f: impl FnOnce(&[&dyn Case]) -> R) -> R {
        let case = |leaf: &*mut OpObject| {
            // SAFETY: as above.
            let leaf = unsafe { &**leaf };
            if leaf.is(Self::DEAD_END) { leaf.as_case() } else { leaf.as_case_here() }
        };
        Self::with_cases_as(leaves, case, f)
    }

    fn with_cases_as<'a, R>(
        leaves: &'a [*mut OpObject],
        case: impl Fn(&'a *mut OpObject) -> Leaf<'a>,
        f: impl FnOnce(&[&dyn Case]) -> R,
    ) -> R {
        if leaves.len() <= FEW {
            let cases: [Leaf<'_>; FEW] =
                std::array::from_fn(|index| leaves.get(index).map_or(Leaf::Outside(Outside { ready: false }), &case));
            let views: [&dyn Case; FEW] = std::array::from_fn(|index| &cases[index] as &dyn Case);
            f(&views[..leaves.len()])
        } else {
            let cases: Vec<Leaf<'_>> = leaves.iter().map(&case).collect();
            let views: Vec<&dyn Case> = cases.iter().map(|case| case as &dyn Case).collect();
            f(&views)
        }
    }

    /// See `Select::plain`.
    pub(super) fn is_plain(&self) -> bool {
        match (self.kind, self.extra()) {
            (Kind::After, Extra::Time(delay)) => *delay > 0.0,
            (Kind::Never, _) => true,
            _ => self.is_on_channel(),
        }
    }

    pub(super) fn as_case(&self) -> Leaf<'_> {
        if self.is(Self::DEAD_END) {
            return Leaf::Outside(Outside { ready: true });
        }
        if self.is_far() {
            return Leaf::Outside(Outside { ready: false });
        }
        self.as_case_here()
    }

    fn as_case_here(&self) -> Leaf<'_> {
        match self.kind {
            Kind::Send | Kind::SendMany => Leaf::Send(SendCase { chan: self.chan(), node: &self.node }),
            Kind::Recv | Kind::RecvNext | Kind::RecvMany | Kind::Closing => {
                Leaf::Recv(RecvCase { chan: self.chan(), node: &self.node })
            }
            Kind::Sync => match self.extra() {
                Extra::Sync(node) => Leaf::Sync(SyncCase { barrier: &self.barrier().barrier, node }),
                _ => unreachable!("a sync has its node"),
            },
            // A tick that is not due yet may still be closed.
            Kind::Tick if !self.is(Self::READY) => Leaf::Recv(RecvCase {
                // SAFETY: a tick's owner is its `Tick`.
                chan: &unsafe { TickObject::of(self.owner) }.closing,
                node: &self.node,
            }),
            _ => Leaf::Outside(Outside { ready: self.is(Self::READY) }),
        }
    }

    /// Of a parked and decided leaf: it was a peer that claimed its node in a queue.
    pub(super) fn was_claimed_in_queue(&self) -> bool {
        match self.kind {
            // SAFETY: decided: the slot is ours.
            Kind::Tick => unsafe { self.node.take().1 != Outcome::Pending },
            _ => self.as_case().has_queue(),
        }
    }

    fn set_due(&self, due: f64) {
        self.make_rare().due.set(due);
    }

    /// Looks once at what is outside of any channel, and at what must not be used any more.
    pub(super) fn prepare(&self) -> Py<()> {
        if self.is_on_channel() {
            let via = self.via();
            via.check()?;
            self.set(Self::DEAD_END, via.end_is_closed());
            return self.turn_value();
        }
        match (self.kind, self.extra()) {
            (Kind::Always, _) => self.set(Self::READY, true),
            (Kind::After, Extra::Time(delay)) => {
                self.set_due(self.state().monotonic()? + delay.max(0.0));
                self.set(Self::READY, *delay <= 0.0);
            }
            (Kind::At, Extra::Time(time)) => {
                self.set_due(*time);
                self.set(Self::READY, *time <= self.state().monotonic()?);
            }
            (Kind::Tick, _) => {
                // SAFETY: a tick's owner is its `Tick`.
                let tick = unsafe { TickObject::of(self.owner) };
                self.set_due(tick.next());
                self.set(Self::READY, tick.is_closed() || self.due() <= self.state().monotonic()?);
            }
            (Kind::Sync, _) => {
                let barrier = self.barrier();
                barrier.check_fork()?;
                if barrier.far().is_some() || barrier.barrier.waiting() + 1 >= barrier.barrier.parties() {
                    barrier.turn_away_the_gone(self.state());
                }
            }
            (Kind::Readable, Extra::Descriptor { fd, .. }) => self.set(Self::READY, io::is_ready(*fd, false)?),
            (Kind::Writable, Extra::Descriptor { fd, .. }) => self.set(Self::READY, io::is_ready(*fd, true)?),
            _ => {}
        }
        Ok(())
    }

    pub(super) fn arm_outside(&self, leaves: &[*mut OpObject]) -> Py<()> {
        for (index, leaf) in leaves.iter().enumerate() {
            // SAFETY: held by the select, or this operation itself.
            let leaf = unsafe { &**leaf };
            let Asleep::Loop(home) = self.asleep() else {
                // A thread's own deadline and poll serve it.
                return Ok(());
            };
            match leaf.kind {
                Kind::After | Kind::At | Kind::Tick => {
                    let delay = leaf.due() - self.state().monotonic()?;
                    if delay.is_finite() {
                        let key = home.add_timer(self, index as u32, delay)?;
                        leaf.make_rare().timer.set(Some(key));
                    }
                }
                Kind::Readable | Kind::Writable => {
                    let Extra::Descriptor { fd, .. } = *leaf.extra() else {
                        continue;
                    };
                    let watched = home.watch(self, index as u32, fd, leaf.kind == Kind::Writable)?;
                    leaf.set_extra(Extra::Descriptor { fd, watched });
                }
                _ => {}
            }
        }
        Ok(())
    }

    pub(super) fn disarm_outside(&self) {
        if self.is_on_channel() {
            return;
        }
        let Asleep::Loop(home) = self.asleep() else {
            return;
        };
        self.with_leaves(|leaves| {
            for leaf in leaves {
                // SAFETY: held by the select, or this operation itself.
                let leaf = unsafe { &**leaf };
                if let Some(key) = leaf.rare().and_then(|rare| rare.timer.take()) {
                    home.remove_timer(key);
                }
                if let Extra::Descriptor { fd, watched } = *leaf.extra()
                    && watched >= 0
                {
                    leaf.set_extra(Extra::Descriptor { fd, watched: -1 });
                    home.unwatch(watched, leaf.kind == Kind::Writable);
                }
            }
        });
    }
}
