//! `Op`: an operation, which is also its own wait.
//!
//! An operation is made, then performed once: it tries, and if it cannot be decided it parks, in one of two ways. Awaited in an asyncio task it
//! yields *itself* as the future the task waits for; with `wait()` it blocks its thread. A select is an operation whose leaves are other
//! operations; each leaf keeps its own node, and all share the waiter of the root.
//!
//! Phases (`phase`), moved on only by the performing party except for the first step, which is an exchange:
//! ```text
//!   FRESH -> RUNNING -> DONE
//!              |  \-> YIELDED -> DONE      committed, but the loop had to be handed back first
//!              \----> PARKED  -> DONE
//!   FRESH -> TAKEN                         became a leaf of a select
//! ```

use std::cell::{Cell, UnsafeCell};
use std::collections::VecDeque;
use std::ffi::{c_int, c_void};
use std::ptr::{self, NonNull};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use smallvec::SmallVec;
use weft_core::barrier::{Barrier, SyncCase};
use weft_core::chan::{Chan, Outcome, Wakes};
use weft_core::select::{self, Case, Gate, Outside, Policy, RecvCase, SendCase};
use weft_core::waiter::Waiter;
use weft_core::waitq::Node;

use crate::barrier::BarrierObject;
use crate::channel::{ChannelObject, Via};
use crate::ends::EndObject;
use crate::errors;
use crate::ffi::{self, Owned, Py, PyObject, Raised, c};
use crate::home::HomeObject;
use crate::io;
use crate::origin::Origin;
use crate::selecting::SelectingObject;
use crate::state::{Ref, State};
use crate::stop;
use crate::thread::Parker;
use crate::timers::TickObject;
use crate::wake;

/// What an operation does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    Send,
    Recv,
    /// A receive that ends an iteration when the channel has ended.
    RecvNext,
    RecvMany,
    SendMany,
    /// Completes with `True` when the channel is closed.
    Closing,
    /// Ready, with the value in the slot.
    Always,
    Never,
    /// After so many seconds, from when it is performed.
    After,
    /// At a time of the monotonic clock.
    At,
    Tick,
    Readable,
    Writable,
    Sync,
    Select,
    /// The next event of a `Selecting`.
    NextEvent,
}

const FRESH: u8 = 0;
const TAKEN: u8 = 1;
const RUNNING: u8 = 2;
const PARKED: u8 = 3;
const YIELDED: u8 = 4;
const DONE: u8 = 5;

/// Who is to be woken.
pub enum Sleeper {
    Nobody,
    /// The loop whose home this is (a strong reference).
    Loop(Owned),
    Thread(Arc<Parker>),
}

/// What only some kinds have.
enum Extra {
    None,
    Select(Box<Select>),
    RecvMany(usize),
    SendMany(VecDeque<Owned>),
    /// Seconds: a delay or a time.
    Time(f64),
    Descriptor {
        fd: c_int,
        /// The duplicate that a loop watches, or -1.
        watched: c_int,
    },
    Sync(Box<Node<usize>>),
}

struct Select {
    /// The operations it was made of, each with a reference.
    cases: SmallVec<[*mut OpObject; FEW]>,
    /// Where there is a select among them: the same, with that one's leaves in its place.
    flat: Option<Vec<*mut OpObject>>,
    /// All leaves are receives and sends, or timers that are not due when the select begins.
    plain: bool,
    default: Option<Owned>,
    policy: Policy,
}

impl Select {
    fn leaves(&self) -> &[*mut OpObject] {
        self.flat.as_deref().unwrap_or(&self.cases)
    }
}

/// So many cases of a select need no memory of their own.
pub const FEW: usize = 4;

/// `weft.Op`.
#[repr(C)]
pub struct OpObject {
    head: PyObject,
    pub waiter: Waiter,
    node: Node<Owned>,
    /// A strong reference to what the operation was made from; null for timers and the like.
    owner: *mut PyObject,
    /// Of a channel operation: the channel, and the end it was made through, if it was (both kept alive by `owner`).
    channel: *const ChannelObject,
    end: *const EndObject,
    kind: Kind,
    phase: AtomicU8,
    /// Of a leaf: it can be taken at once, as found when the operation was prepared.
    ready: Cell<bool>,
    /// Of a leaf: it was made from an end that is closed.
    dead_end: Cell<bool>,
    /// asyncio's mark of a future that a task just yielded.
    blocking: Cell<bool>,
    cancelled: Cell<bool>,
    /// A cancel came after the commit and is still to be delivered.
    late: Cell<bool>,
    /// Woken before the task had left its callback.
    missed: Cell<bool>,
    /// How many nodes are counted as references to this root.
    linked: Cell<u32>,
    /// The leaf that was decided.
    winner: Cell<u32>,
    /// Of a timer: when it is due, on the monotonic clock.
    due: Cell<f64>,
    /// Of a timer on a loop: its key there.
    timer: Cell<Option<(u64, u64)>>,
    map: Cell<*mut PyObject>,
    callback: Cell<*mut PyObject>,
    context: Cell<*mut PyObject>,
    /// The message of asyncio's cancel.
    message: Cell<*mut PyObject>,
    /// Of a leaf: the select it belongs to (borrowed: the select holds the leaf), and its case (strong).
    parent: Cell<*mut OpObject>,
    case: Cell<*mut PyObject>,
    sleeper: UnsafeCell<Sleeper>,
    extra: UnsafeCell<Extra>,
    made: UnsafeCell<Origin>,
}

/// A leaf as weft-core sees it.
enum Leaf<'a> {
    Send(SendCase<'a, Owned>),
    Recv(RecvCase<'a, Owned>),
    Sync(SyncCase<'a>),
    Outside(Outside),
}

impl Leaf<'_> {
    fn inner(&self) -> &dyn Case {
        match self {
            Self::Send(case) => case,
            Self::Recv(case) => case,
            Self::Sync(case) => case,
            Self::Outside(case) => case,
        }
    }

    fn has_queue(&self) -> bool {
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

/// What a step in a coroutine comes to.
pub enum Step {
    Return(Owned),
    Yield(Owned),
}

/// A new operation that is not on a channel; `owner` is null or what it was made from.
pub fn make(state: &State, kind: Kind, owner: *mut PyObject, value: Option<Owned>) -> Py<Owned> {
    // SAFETY: `owner` is null or alive.
    unsafe { create(state, kind, owner, ptr::null(), ptr::null(), value) }
}

/// A new operation on a channel.
#[inline]
pub fn on_channel(via: Via<'_>, kind: Kind, value: Option<Owned>) -> Py<Owned> {
    let end = via.end.map_or(ptr::null(), ptr::from_ref);
    // SAFETY: the owner is alive, and keeps channel and end alive.
    unsafe { create(via.channel.state(), kind, via.owner, via.channel, end, value) }
}

/// # Safety
/// `owner` is null or alive, and keeps `channel` and `end` alive.
#[inline]
unsafe fn create(
    state: &State,
    kind: Kind,
    owner: *mut PyObject,
    channel: *const ChannelObject,
    end: *const EndObject,
    value: Option<Owned>,
) -> Py<Owned> {
    // SAFETY: our type; every field is written before anybody sees the object.
    unsafe {
        let object = state.allocate_op()?;
        let this: *mut OpObject = object.cast();
        c::Py_XINCREF(owner);
        (&raw mut (*this).waiter).write(Waiter::new());
        (&raw mut (*this).node).write(Node::new(value));
        (&raw mut (*this).owner).write(owner);
        (&raw mut (*this).channel).write(channel);
        (&raw mut (*this).end).write(end);
        (&raw mut (*this).kind).write(kind);
        (&raw mut (*this).phase).write(AtomicU8::new(FRESH));
        (&raw mut (*this).ready).write(Cell::new(false));
        (&raw mut (*this).dead_end).write(Cell::new(false));
        (&raw mut (*this).blocking).write(Cell::new(false));
        (&raw mut (*this).cancelled).write(Cell::new(false));
        (&raw mut (*this).late).write(Cell::new(false));
        (&raw mut (*this).missed).write(Cell::new(false));
        (&raw mut (*this).linked).write(Cell::new(0));
        (&raw mut (*this).winner).write(Cell::new(0));
        (&raw mut (*this).due).write(Cell::new(0.0));
        (&raw mut (*this).timer).write(Cell::new(None));
        (&raw mut (*this).map).write(Cell::new(ptr::null_mut()));
        (&raw mut (*this).callback).write(Cell::new(ptr::null_mut()));
        (&raw mut (*this).context).write(Cell::new(ptr::null_mut()));
        (&raw mut (*this).message).write(Cell::new(ptr::null_mut()));
        (&raw mut (*this).parent).write(Cell::new(ptr::null_mut()));
        (&raw mut (*this).case).write(Cell::new(ptr::null_mut()));
        (&raw mut (*this).sleeper).write(UnsafeCell::new(Sleeper::Nobody));
        (&raw mut (*this).extra).write(UnsafeCell::new(Extra::None));
        (&raw mut (*this).made).write(UnsafeCell::new(Origin::here()));
        // Only now: a collection must not meet a half-made operation.
        c::PyObject_GC_Track(object.cast());
        Owned::from_new(object)
    }
}

/// An operation that is ready with `value`.
pub fn ready(state: &State, value: Owned) -> Py<Owned> {
    make(state, Kind::Always, ptr::null_mut(), Some(value))
}

/// An operation on a clock.
pub fn timer(state: &State, kind: Kind, owner: *mut PyObject, seconds: f64) -> Py<Owned> {
    let op = make(state, kind, owner, None)?;
    // SAFETY: just made.
    unsafe { OpObject::of(op.as_ptr()).set_extra(Extra::Time(seconds)) };
    Ok(op)
}

/// An operation on a descriptor; `owner` is what the program gave.
pub fn descriptor(state: &State, kind: Kind, owner: *mut PyObject, fd: c_int) -> Py<Owned> {
    let op = make(state, kind, owner, None)?;
    // SAFETY: just made.
    unsafe { OpObject::of(op.as_ptr()).set_extra(Extra::Descriptor { fd, watched: -1 }) };
    Ok(op)
}

/// Taking part in a barrier.
pub fn sync(state: &State, owner: *mut PyObject) -> Py<Owned> {
    let op = make(state, Kind::Sync, owner, None)?;
    // SAFETY: just made.
    unsafe { OpObject::of(op.as_ptr()).set_extra(Extra::Sync(Box::new(Node::new(None)))) };
    Ok(op)
}

/// A select of these operations, each marked with its case and with a reference that is taken over; a select among them brings its own leaves.
pub fn select(
    state: &State,
    cases: SmallVec<[*mut OpObject; FEW]>,
    default: Option<Owned>,
    policy: Policy,
) -> Py<Owned> {
    let root = make(state, Kind::Select, ptr::null_mut(), None)?;
    // SAFETY: operations that the caller holds for us.
    let op = |case: &*mut OpObject| unsafe { &**case };
    for case in &cases {
        op(case).parent.set(root.as_ptr().cast());
    }
    let flat = cases.iter().any(|case| op(case).kind == Kind::Select).then(|| {
        let mut all = Vec::new();
        for case in &cases {
            op(case).with_leaves(|leaves| all.extend_from_slice(leaves));
        }
        all
    });
    let mut select = Box::new(Select { cases, flat, plain: default.is_none(), default, policy });
    select.plain &= select.leaves().iter().all(|leaf| op(leaf).is_plain());
    // SAFETY: just made.
    unsafe { OpObject::of(root.as_ptr()).set_extra(Extra::Select(select)) };
    Ok(root)
}

/// The object to show a garbage collector for a waiter parked in a queue: the operation it belongs to.
pub fn of_waiter(waiter: NonNull<Waiter>) -> *mut PyObject {
    // SAFETY: a waiter in a queue is alive.
    if unsafe { waiter.as_ref() }.is_persistent() {
        // It belongs to a `Selecting`, whose queues hold no references.
        return ptr::null_mut();
    }
    // SAFETY: every other waiter in our queues is the `waiter` field of an operation.
    unsafe { waiter.as_ptr().cast::<u8>().sub(std::mem::offset_of!(OpObject, waiter)).cast() }
}

impl OpObject {
    /// # Safety
    /// A live `Op`.
    #[inline]
    pub unsafe fn of<'a>(object: *mut PyObject) -> &'a Self {
        // SAFETY: the caller's promise.
        unsafe { &*object.cast() }
    }

    #[inline]
    pub fn as_ptr(&self) -> *mut PyObject {
        ptr::from_ref(self).cast_mut().cast()
    }

    #[inline]
    pub fn state(&self) -> &State {
        if self.is_on_channel() {
            return self.channel().state();
        }
        // SAFETY: a live object of ours.
        unsafe { State::of(self.as_ptr()) }
    }

    fn itself(&self) -> Owned {
        // SAFETY: alive.
        unsafe { Owned::from_borrowed(self.as_ptr()) }
    }

    pub fn kind(&self) -> Kind {
        self.kind
    }

    pub fn is_fresh(&self) -> bool {
        self.phase.load(Ordering::Relaxed) == FRESH
    }

    pub fn is_taken(&self) -> bool {
        self.phase.load(Ordering::Relaxed) == TAKEN
    }

    /// A fresh operation becomes a case of a select that is being made.
    pub fn become_case(&self, case: Owned) {
        self.phase.store(TAKEN, Ordering::Relaxed);
        Self::put(&self.case, Some(case));
    }

    /// The select was not made after all.
    pub fn become_free(&self) {
        Self::put(&self.case, None);
        self.phase.store(FRESH, Ordering::Relaxed);
    }

    pub fn has_default(&self) -> bool {
        matches!(self.extra(), Extra::Select(select) if select.default.is_some())
    }

    fn set_extra(&self, extra: Extra) {
        // SAFETY: only the performing party, or whoever makes the operation, touches `extra`.
        unsafe { *self.extra.get() = extra };
    }

    fn extra(&self) -> &Extra {
        // SAFETY: as above.
        unsafe { &*self.extra.get() }
    }

    pub fn set_rest(&self, rest: VecDeque<Owned>) {
        self.set_extra(Extra::SendMany(rest));
    }

    pub fn set_max(&self, max: usize) {
        self.set_extra(Extra::RecvMany(max));
    }

    pub fn due(&self) -> f64 {
        self.due.get()
    }

    /// A reference kept in a cell, replaced.
    fn put(cell: &Cell<*mut PyObject>, value: Option<Owned>) {
        let old = cell.replace(value.map_or(ptr::null_mut(), Owned::into_ptr));
        // SAFETY: the reference was ours.
        drop(unsafe { Owned::from_nullable(old) });
    }

    fn taken(cell: &Cell<*mut PyObject>) -> Option<Owned> {
        // SAFETY: the reference is ours.
        unsafe { Owned::from_nullable(cell.replace(ptr::null_mut())) }
    }

    /// All leaves, first to last; an operation that is no select is its own only leaf.
    #[inline]
    pub fn with_leaves<R>(&self, f: impl FnOnce(&[*mut OpObject]) -> R) -> R {
        match self.extra() {
            Extra::Select(select) => f(select.leaves()),
            _ => f(&[ptr::from_ref(self).cast_mut()]),
        }
    }

    /// The leaves as weft-core sees them.
    fn with_cases<R>(leaves: &[*mut OpObject], f: impl FnOnce(&[&dyn Case]) -> R) -> R {
        // SAFETY: held by the select, or the operation itself.
        let case = |leaf: &*mut OpObject| unsafe { (**leaf).as_case() };
        if leaves.len() <= FEW {
            let cases: [Leaf<'_>; FEW] =
                std::array::from_fn(|index| leaves.get(index).map_or(Leaf::Outside(Outside { ready: false }), case));
            let views: [&dyn Case; FEW] = std::array::from_fn(|index| &cases[index] as &dyn Case);
            f(&views[..leaves.len()])
        } else {
            let cases: Vec<Leaf<'_>> = leaves.iter().map(case).collect();
            let views: Vec<&dyn Case> = cases.iter().map(|case| case as &dyn Case).collect();
            f(&views)
        }
    }

    /// See `Select::plain`.
    fn is_plain(&self) -> bool {
        match (self.kind, self.extra()) {
            (Kind::After, Extra::Time(delay)) => *delay > 0.0,
            (Kind::Never, _) => true,
            _ => self.is_on_channel(),
        }
    }

    fn leaf(&self, index: u32) -> &Self {
        match self.extra() {
            // SAFETY: the select holds its leaves as long as it lives.
            Extra::Select(select) => unsafe { &*select.leaves()[index as usize] },
            _ => self,
        }
    }

    #[inline]
    fn chan(&self) -> &Chan<Owned> {
        &self.channel().chan
    }

    /// Of a channel operation: its channel.
    #[inline]
    fn channel(&self) -> &ChannelObject {
        // SAFETY: set for the kinds that have a channel; `owner` keeps it alive.
        unsafe { &*self.channel }
    }

    /// Of a channel operation: the channel and the end it was made through.
    #[inline]
    fn via(&self) -> Via<'_> {
        Via {
            channel: self.channel(),
            owner: self.owner,
            // SAFETY: null, or kept alive by `owner`.
            end: unsafe { self.end.as_ref() },
        }
    }

    #[inline]
    fn is_on_channel(&self) -> bool {
        !self.channel.is_null()
    }

    fn as_case(&self) -> Leaf<'_> {
        if self.dead_end.get() {
            return Leaf::Outside(Outside { ready: true });
        }
        match self.kind {
            Kind::Send | Kind::SendMany => Leaf::Send(SendCase { chan: self.chan(), node: &self.node }),
            Kind::Recv | Kind::RecvNext | Kind::RecvMany | Kind::Closing => {
                Leaf::Recv(RecvCase { chan: self.chan(), node: &self.node })
            }
            Kind::Sync => match self.extra() {
                Extra::Sync(node) => Leaf::Sync(SyncCase { barrier: self.barrier(), node }),
                _ => unreachable!("a sync has its node"),
            },
            // A tick that is not due yet may still be closed.
            Kind::Tick if !self.ready.get() => Leaf::Recv(RecvCase {
                // SAFETY: a tick's owner is its `Tick`.
                chan: &unsafe { TickObject::of(self.owner) }.closing,
                node: &self.node,
            }),
            _ => Leaf::Outside(Outside { ready: self.ready.get() }),
        }
    }

    /// Of a parked and decided leaf: it was a peer that claimed its node in a queue.
    fn was_claimed_in_queue(&self) -> bool {
        match self.kind {
            // SAFETY: decided: the slot is ours.
            Kind::Tick => unsafe { self.node.take().1 != Outcome::Pending },
            _ => self.as_case().has_queue(),
        }
    }

    /// The descriptor this operation waits for.
    pub fn descriptor(&self) -> Option<c_int> {
        match self.extra() {
            Extra::Descriptor { fd, .. } => Some(*fd),
            _ => None,
        }
    }

    /// Of a tick: whether it was asked for by an iteration.
    pub fn ends_iteration(&self) -> bool {
        matches!(self.extra(), Extra::Time(iterating) if *iterating > 0.0)
    }

    fn barrier(&self) -> &Barrier {
        // SAFETY: a sync's owner is its barrier.
        unsafe { &BarrierObject::of(self.owner).barrier }
    }

    /// Looks once at what is outside of any channel, and at what must not be used any more.
    fn prepare(&self) -> Py<()> {
        if self.is_on_channel() {
            let via = self.via();
            via.check()?;
            self.dead_end.set(via.end_is_closed());
            return Ok(());
        }
        match (self.kind, self.extra()) {
            (Kind::Always, _) => self.ready.set(true),
            (Kind::After, Extra::Time(delay)) => {
                self.due.set(self.state().monotonic()? + delay.max(0.0));
                self.ready.set(*delay <= 0.0);
            }
            (Kind::At, Extra::Time(time)) => {
                self.due.set(*time);
                self.ready.set(*time <= self.state().monotonic()?);
            }
            (Kind::Tick, _) => {
                // SAFETY: a tick's owner is its `Tick`.
                let tick = unsafe { TickObject::of(self.owner) };
                self.due.set(tick.next());
                self.ready.set(tick.is_closed() || self.due.get() <= self.state().monotonic()?);
            }
            (Kind::Readable, Extra::Descriptor { fd, .. }) => self.ready.set(io::is_ready(*fd, false)?),
            (Kind::Writable, Extra::Descriptor { fd, .. }) => self.ready.set(io::is_ready(*fd, true)?),
            _ => {}
        }
        Ok(())
    }

    /// Begins to perform: once only.
    fn begin(&self) -> Py<()> {
        match self.phase.compare_exchange(FRESH, RUNNING, Ordering::Relaxed, Ordering::Relaxed) {
            Ok(_) => Ok(()),
            Err(phase) => Err(self.misused(phase)),
        }
    }

    /// An error when it was performed, or belongs to a select.
    #[inline]
    pub fn check_fresh(&self) -> Py<()> {
        match self.phase.load(Ordering::Relaxed) {
            FRESH => Ok(()),
            phase => Err(self.misused(phase)),
        }
    }

    #[cold]
    fn misused(&self, phase: u8) -> Raised {
        let about = self.description();
        ffi::runtime_error(&match phase {
            TAKEN => format!("{about} belongs to a select: perform the select instead"),
            PARKED | RUNNING | YIELDED => {
                format!("{about} is being performed by somebody else: an operation is performed once")
            }
            _ => format!(
                "{about} was already performed: an operation is performed once, make a new one for the next time"
            ),
        })
    }

    /// Tries, without parking. `true`: decided, `winner` is set, and everybody concerned is woken.
    #[inline]
    fn try_now(&self) -> Py<bool> {
        if self.is_on_channel() {
            return self.try_channel();
        }
        match self.extra() {
            _ if self.kind == Kind::NextEvent => self.selecting().try_next(self),
            Extra::Select(select) if select.plain => self.try_plain(select),
            _ => self.with_leaves(|leaves| {
                for leaf in leaves {
                    // SAFETY: held by the select, or this operation itself.
                    unsafe { (**leaf).prepare()? };
                }
                self.attempt(leaves, false)
            }),
        }
    }

    fn is_sending(&self) -> bool {
        matches!(self.kind, Kind::Send | Kind::SendMany)
    }

    /// A channel operation, alone or as a leaf, now or not at all.
    #[inline]
    fn try_channel(&self) -> Py<bool> {
        let via = self.via();
        via.check()?;
        if via.end_is_closed() {
            self.dead_end.set(true);
            return Ok(true);
        }
        loop {
            let mut wakes = Wakes::new();
            // SAFETY: not parked: the slot is ours, and filled for a send.
            let decided = unsafe {
                if self.is_sending() {
                    self.chan().send_now(&self.node, &mut wakes)
                } else {
                    self.chan().recv_now(&self.node, &mut wakes)
                }
            };
            if !self.woke(wakes) {
                return Ok(decided);
            }
        }
    }

    /// A first look at a plain select, one channel after the other. What it misses by not holding all locks at once, the look with which the
    /// select parks finds; a select with a default, which does not park, is not plain.
    fn try_plain(&self, select: &Select) -> Py<bool> {
        let leaves = select.leaves();
        let count = leaves.len();
        // SAFETY: the select holds its leaves.
        let leaf = |index: usize| unsafe { &*leaves[index] };
        let attempt = |index: usize| -> Py<bool> {
            self.winner.set(index as u32);
            Ok(leaf(index).is_on_channel() && leaf(index).try_channel()?)
        };
        if select.policy == Policy::Random && count > 2 {
            // Among several, a random order would not be fair to those behind gaps: choose among the ready.
            let mut chosen = None;
            let mut ready = 0;
            for index in 0..count {
                if leaf(index).is_on_channel() && leaf(index).is_ready()? {
                    ready += 1;
                    if ready == 1 || select::below(ready) == 0 {
                        chosen = Some(index);
                    }
                }
            }
            return match chosen {
                Some(index) => attempt(index),
                None => Ok(false),
            };
        }
        let first = match select.policy {
            Policy::Random if count == 2 => select::below(2) as usize,
            _ => 0,
        };
        for offset in 0..count {
            if attempt((first + offset) % count)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Of a leaf on a channel: whether it could be decided now.
    fn is_ready(&self) -> Py<bool> {
        self.via().check()?;
        self.dead_end.set(self.via().end_is_closed());
        Ok(self.dead_end.get() || if self.is_sending() { self.chan().can_send() } else { self.chan().can_recv() })
    }

    /// Wakes those a commit of ours concerned. `true`: the value went to a receiver that is gone, and is back in the slot.
    #[inline]
    fn woke(&self, wakes: Wakes) -> bool {
        if wakes.is_empty() {
            std::mem::forget(wakes);
            return false;
        }
        match wake::all_but_gone(wakes) {
            None => false,
            Some(back) => {
                self.chan().uncount();
                // SAFETY: not parked: the slot is ours.
                drop(unsafe { self.node.put(Some(back)) });
                true
            }
        }
    }

    /// One look at all leaves, parking them if told to. `true`: decided.
    fn attempt(&self, leaves: &[*mut OpObject], park: bool) -> Py<bool> {
        let policy = match self.extra() {
            Extra::Select(select) => select.policy,
            _ => Policy::Priority,
        };
        loop {
            let mut wakes = Wakes::new();
            // SAFETY: nothing is parked; with `park` the nodes were bound to the armed waiter by the caller.
            let taken = Self::with_cases(leaves, |cases| unsafe { select::attempt(cases, policy, park, &mut wakes) });
            let Some(index) = taken else {
                debug_assert!(wakes.is_empty());
                return Ok(false);
            };
            self.winner.set(index as u32);
            // SAFETY: held by the select, or this operation itself.
            let leaf = unsafe { &*leaves[index] };
            if leaf.is_sending() && !leaf.dead_end.get() {
                if leaf.woke(wakes) {
                    continue;
                }
            } else {
                wake::all(wakes);
            }
            return Ok(true);
        }
    }

    /// Parks. `true`: it was decided after all. The sleeper is set.
    fn park(&self) -> Py<bool> {
        if self.kind == Kind::NextEvent {
            return Ok(self.selecting().park(self));
        }
        if self.is_plain_select() {
            // Not done yet: the first look at such a select has no need of it.
            self.with_leaves(|leaves| {
                leaves.iter().try_for_each(|leaf| {
                    // SAFETY: the select holds its leaves.
                    unsafe { (**leaf).prepare() }
                })
            })?;
        }
        // SAFETY: nothing is parked; the waiter is ours.
        unsafe { self.waiter.arm(wake::waker(self)) };
        let decided = if self.is_on_channel() {
            // SAFETY: as above. The node stays: the operation lives until it was unlinked, for `linked` references are counted for it.
            unsafe {
                self.node.bind(&raw const self.waiter, 0);
                self.add_references(1);
                let mut wakes = Wakes::new();
                let decided = if matches!(self.kind, Kind::Send | Kind::SendMany) {
                    self.chan().send_or_park(&self.node, &mut wakes)
                } else {
                    self.chan().recv_or_park(&self.node, &mut wakes)
                };
                if decided {
                    drop(self.waiter.disarm());
                    self.drop_references(1);
                    if self.woke(wakes) {
                        return self.park();
                    }
                }
                decided
            }
        } else {
            self.with_leaves(|leaves| {
                let mut queued = 0;
                for (index, leaf) in leaves.iter().enumerate() {
                    // SAFETY: held by the select, or this operation itself; not parked.
                    unsafe {
                        let leaf = &**leaf;
                        queued += u32::from(leaf.as_case().has_queue());
                        match leaf.extra() {
                            Extra::Sync(node) => node.bind(&raw const self.waiter, index as u32),
                            _ => leaf.node.bind(&raw const self.waiter, index as u32),
                        }
                    }
                }
                // The clock and the descriptors first: they may fail, and nothing is offered yet.
                if let Err(raised) = self.arm_outside(leaves) {
                    self.disarm_outside();
                    // SAFETY: no node is in a queue, and what was armed outside is disarmed.
                    drop(unsafe { self.waiter.disarm() });
                    return Err(raised);
                }
                self.add_references(queued);
                let decided = self.attempt(leaves, true)?;
                if decided {
                    self.disarm_outside();
                    // SAFETY: as above.
                    drop(unsafe { self.waiter.disarm() });
                    self.drop_references(queued);
                }
                Ok(decided)
            })?
        };
        Ok(decided)
    }

    fn is_plain_select(&self) -> bool {
        matches!(self.extra(), Extra::Select(select) if select.plain)
    }

    fn add_references(&self, count: u32) {
        self.linked.set(count);
        for _ in 0..count {
            // SAFETY: alive.
            unsafe { c::Py_INCREF(self.as_ptr()) };
        }
    }

    /// One reference more, for a waker.
    pub fn add_reference(&self) {
        // SAFETY: alive.
        unsafe { c::Py_INCREF(self.as_ptr()) };
    }

    /// One reference less, counted by `add_reference`. The caller holds another one.
    pub fn drop_reference(&self) {
        // SAFETY: ours; not the last one.
        unsafe { c::Py_DECREF(self.as_ptr()) };
    }

    /// Drops references counted for nodes. The caller holds another one.
    fn drop_references(&self, count: u32) {
        self.linked.set(0);
        for _ in 0..count {
            // SAFETY: counted by `add_references`; the caller's reference keeps the operation alive.
            unsafe { c::Py_DECREF(self.as_ptr()) };
        }
    }

    fn arm_outside(&self, leaves: &[*mut OpObject]) -> Py<()> {
        for (index, leaf) in leaves.iter().enumerate() {
            // SAFETY: held by the select, or this operation itself.
            let leaf = unsafe { &**leaf };
            let Sleeper::Loop(home) = self.sleeper() else {
                // A thread's own deadline and poll serve it.
                return Ok(());
            };
            // SAFETY: a sleeper's home is one.
            let home = unsafe { HomeObject::of(home.as_ptr()) };
            match leaf.kind {
                Kind::After | Kind::At | Kind::Tick => {
                    let delay = leaf.due.get() - self.state().monotonic()?;
                    if delay.is_finite() {
                        leaf.timer.set(Some(home.add_timer(self, index as u32, delay)?));
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

    fn disarm_outside(&self) {
        if self.is_on_channel() {
            return;
        }
        let Sleeper::Loop(home) = self.sleeper() else {
            return;
        };
        // SAFETY: a sleeper's home is one.
        let home = unsafe { HomeObject::of(home.as_ptr()) };
        self.with_leaves(|leaves| {
            for leaf in leaves {
                // SAFETY: held by the select, or this operation itself.
                let leaf = unsafe { &**leaf };
                if let Some(key) = leaf.timer.take() {
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

    pub fn sleeper(&self) -> &Sleeper {
        // SAFETY: set before the waiter is armed, and changed only when it is not.
        unsafe { &*self.sleeper.get() }
    }

    pub fn set_sleeper(&self, sleeper: Sleeper) {
        // SAFETY: as above.
        drop(unsafe { std::mem::replace(&mut *self.sleeper.get(), sleeper) });
    }

    /// The wait is over. Whoever met it may be about to look whom to wake: where threads run at the same time the sleeper stays until nobody has a
    /// reference to the operation any more.
    fn leave_sleeper(&self) {
        #[cfg(not(Py_GIL_DISABLED))]
        self.set_sleeper(Sleeper::Nobody);
    }

    fn selecting(&self) -> &SelectingObject {
        // SAFETY: the owner of a NextEvent.
        unsafe { SelectingObject::of(self.owner) }
    }

    /// Takes a parked operation back. `false`: it was decided.
    pub fn withdraw(&self) -> bool {
        if self.kind == Kind::NextEvent {
            return self.selecting().withdraw(self);
        }
        if !self.waiter.withdraw() {
            return false;
        }
        self.unlink();
        self.disarm_outside();
        // SAFETY: withdrawn: the waiter is ours.
        drop(unsafe { self.waiter.clear() });
        self.drop_references(self.linked.get());
        true
    }

    fn unlink(&self) {
        // SAFETY: no longer armed.
        self.with_leaves(|leaves| Self::with_cases(leaves, |cases| unsafe { select::unlink(cases) }));
    }

    /// After a parked operation was decided: leaves all queues and gives back what was counted for them.
    fn settle(&self) {
        if self.kind == Kind::NextEvent {
            return;
        }
        let winner = self.waiter.met().unwrap_or(0);
        self.winner.set(winner);
        if self.is_on_channel() {
            // Its one node was claimed, and the reference went with the waker.
            self.linked.set(0);
            return;
        }
        self.unlink();
        self.disarm_outside();
        // SAFETY: decided: the waiter is ours.
        drop(unsafe { self.waiter.clear() });
        let claimed = u32::from(self.leaf(winner).was_claimed_in_queue());
        self.drop_references(self.linked.get().saturating_sub(claimed));
    }

    pub fn is_met(&self) -> bool {
        match self.kind {
            Kind::NextEvent => self.selecting().is_met(),
            _ => self.waiter.met().is_some(),
        }
    }

    /// Decides an outside case (a timer that is due, a descriptor that is ready). `true`: it was still open, and whoever waits is to be woken.
    pub fn decide(&self, case: u32) -> bool {
        match self.waiter.claim(case) {
            Some(claim) => {
                drop(claim.finish());
                true
            }
            None => false,
        }
    }

    /// Wakes whoever waits for this operation, taking over a reference to it. A value comes back when that party is gone with its loop.
    ///
    /// # Safety
    /// A live operation whose sleeper is set, and a reference that is the caller's.
    pub unsafe fn wake(op: *mut Self) -> Option<Owned> {
        // SAFETY: the caller's promise.
        unsafe {
            match (*op).sleeper() {
                Sleeper::Nobody => c::Py_DECREF(op.cast()),
                Sleeper::Thread(parker) => {
                    let parker = Arc::clone(parker);
                    parker.unpark();
                    c::Py_DECREF(op.cast());
                }
                Sleeper::Loop(home) => {
                    let home = home.clone();
                    if let Err(op) = HomeObject::of(home.as_ptr()).push(op) {
                        let op = Owned::from_nullable(op.cast())?;
                        return Self::of(op.as_ptr()).abandon();
                    }
                }
            }
        }
        None
    }

    /// For a decided operation that nobody will take up: it ends, and the value it received, if it did, is returned.
    fn abandon(&self) -> Option<Owned> {
        if self.phase.swap(DONE, Ordering::Relaxed) == DONE {
            return None;
        }
        if self.cancelled.get() {
            return None;
        }
        if self.kind == Kind::NextEvent {
            return self.selecting().abandon();
        }
        self.settle();
        let leaf = self.leaf(self.winner.get());
        self.leave_sleeper();
        if matches!(leaf.kind, Kind::Recv | Kind::RecvNext | Kind::RecvMany) && !leaf.dead_end.get() {
            // SAFETY: decided: the slot is ours.
            return unsafe { leaf.node.take().0 };
        }
        None
    }

    /// The same, with the value put back into its channel.
    pub fn abandon_and_give_back(&self) {
        let kind = self.kind;
        if let Some(value) = self.abandon() {
            if kind == Kind::NextEvent {
                self.selecting().give_back(value);
                return;
            }
            let leaf = self.leaf(self.winner.get());
            let lost = wake::give_back(leaf.chan(), value);
            leaf.via().channel.undelivered(lost);
        }
    }

    /// The result of a decided operation.
    #[inline]
    fn result(&self) -> Py<Owned> {
        self.phase.store(DONE, Ordering::Relaxed);
        let value = match self.kind {
            Kind::NextEvent => self.selecting().result(self),
            Kind::Select => {
                let leaf = self.leaf(self.winner.get());
                leaf.value().and_then(|value| leaf.up(value)).inspect_err(|_| {
                    // A select's error names its case.
                    let state = self.state();
                    let kinds =
                        [Ref::Closed, Ref::Poisoned, Ref::NoReceivers, Ref::WouldBlock].map(|kind| state.get(kind));
                    errors::add_case(&kinds, leaf.top_case());
                })
            }
            _ => self.value(),
        }?;
        match self.map.get().is_null() {
            true => Ok(value),
            false => self.mapped(value),
        }
    }

    fn mapped(&self, mut value: Owned) -> Py<Owned> {
        let map = self.map.get();
        // SAFETY: null, or a tuple of callables that we hold.
        unsafe {
            if !map.is_null() {
                for index in 0..c::PyTuple_GET_SIZE(map) {
                    value = ffi::call(c::PyTuple_GET_ITEM(map, index), &[value.as_ptr()])?;
                }
            }
        }
        Ok(value)
    }

    /// A leaf's value as its select gives it: mapped, and in a `Selected`, and so on outwards.
    fn up(&self, value: Owned) -> Py<Owned> {
        let mut value = self.mapped(value)?;
        let mut at = self;
        loop {
            let case = at.case.get();
            value = selected(self.state(), case, value)?;
            // SAFETY: a select lives longer than the performance of its leaves.
            at = unsafe { &*at.parent.get() };
            if at.parent.get().is_null() {
                return Ok(value);
            }
            value = at.mapped(value)?;
        }
    }

    fn top_case(&self) -> *mut PyObject {
        let mut at = self;
        // SAFETY: as in `up`.
        while let Some(parent) = unsafe { at.parent.get().as_ref() } {
            if parent.parent.get().is_null() {
                break;
            }
            at = parent;
        }
        at.case.get()
    }

    /// What a decided leaf gives.
    #[inline]
    fn value(&self) -> Py<Owned> {
        if self.is_on_channel() {
            if self.dead_end.get() {
                // SAFETY: decided: the slot is ours.
                let value = match (self.kind, unsafe { self.node.take().0 }) {
                    (Kind::SendMany, Some(first)) => Some(self.unsent(first)?),
                    (_, value) => value,
                };
                return Err(errors::end_closed(self.via(), value));
            }
            // SAFETY: decided: the slot is ours.
            let (value, outcome) = unsafe { self.node.take() };
            return match (self.kind, outcome, value) {
                (Kind::Recv | Kind::RecvNext, Outcome::Done, Some(value)) => Ok(value),
                (Kind::Send, Outcome::Done, displaced) => {
                    if displaced.is_some() {
                        self.via().channel.undelivered(displaced);
                    }
                    Ok(ffi::none())
                }
                (_, outcome, value) => self.unusual(outcome, value),
            };
        }
        match (self.kind, self.extra()) {
            // SAFETY: decided: the slots are ours.
            (Kind::Always, _) => Ok(unsafe { self.node.take().0 }.unwrap_or_else(ffi::none)),
            (Kind::After | Kind::At, _) => ffi::float(self.due.get()),
            // SAFETY: a tick's owner is its `Tick`.
            (Kind::Tick, _) => unsafe { TickObject::of(self.owner) }.take(self),
            // SAFETY: the owner is what the program gave, and held.
            (Kind::Readable | Kind::Writable, _) => Ok(unsafe { Owned::from_borrowed(self.owner) }),
            // SAFETY: decided: the slot is ours.
            (Kind::Sync, Extra::Sync(node)) => ffi::integer(unsafe { node.take().0 }.unwrap_or(0)),
            _ => Ok(ffi::none()),
        }
    }

    fn unusual(&self, outcome: Outcome, value: Option<Owned>) -> Py<Owned> {
        let channel = self.via().channel;
        match (self.kind, outcome, value) {
            (Kind::RecvMany, Outcome::Done, Some(first)) => {
                let Extra::RecvMany(max) = *self.extra() else {
                    return Ok(ffi::none());
                };
                let mut values = vec![first];
                let (_, wakes) = channel.chan.try_recv_many(max - 1, &mut values);
                wake::all(wakes);
                ffi::list(values)
            }
            (Kind::SendMany, Outcome::Done, displaced) => {
                channel.undelivered(displaced);
                // SAFETY: only the performing party touches `extra`.
                let Extra::SendMany(rest) = (unsafe { &mut *self.extra.get() }) else {
                    return Ok(ffi::none());
                };
                let mut displaced = Vec::new();
                let (more, _, wakes) = channel.chan.try_send_many(rest, &mut displaced);
                let returned = wake::all_and_returned(wakes);
                for value in returned.into_iter().rev() {
                    let lost = wake::give_back(&channel.chan, value);
                    channel.undelivered(lost);
                }
                channel.undelivered(displaced);
                ffi::integer(1 + more)
            }
            (Kind::Closing, Outcome::Ended(_), _) => Ok(ffi::boolean(true)),
            (Kind::SendMany, Outcome::Full, Some(first)) => {
                Err(errors::would_block(channel, Some(self.unsent(first)?)))
            }
            (_, Outcome::Full, Some(value)) => Err(errors::would_block(channel, Some(value))),
            (Kind::Send, Outcome::Ended(end), Some(value)) => Err(errors::ended_send(channel, end, value)),
            (Kind::SendMany, Outcome::Ended(end), Some(first)) => {
                Err(errors::ended_send(channel, end, self.unsent(first)?))
            }
            (Kind::RecvNext, Outcome::Ended(end), _) if errors::ends_quietly(channel, end) => {
                // SAFETY: an exception type.
                unsafe { c::PyErr_SetNone(c::PyExc_StopAsyncIteration) };
                Err(Raised)
            }
            (_, Outcome::Ended(end), _) => Err(errors::ended_recv(channel, end)),
            (kind, outcome, value) => unreachable!("{kind:?} ended as {outcome:?}, with a value: {}", value.is_some()),
        }
    }

    /// Of a `send_many` that failed: all its values, as a list.
    fn unsent(&self, first: Owned) -> Py<Owned> {
        let mut values = vec![first];
        // SAFETY: only the performing party touches `extra`.
        if let Extra::SendMany(rest) = unsafe { &mut *self.extra.get() } {
            values.extend(rest.drain(..));
        }
        ffi::list(values)
    }

    /// The answer of a select with a default when nothing was ready.
    fn defaulted(&self) -> Option<Py<Owned>> {
        let Extra::Select(select) = self.extra() else {
            return None;
        };
        let value = select.default.clone()?;
        let state = self.state();
        self.phase.store(DONE, Ordering::Relaxed);
        Some(selected(state, state.get(Ref::Default), value).and_then(|value| self.mapped(value)))
    }

    /// Performs as far as possible without waiting: `None` when it has to wait.
    #[inline]
    pub fn perform_now(&self) -> Py<Option<Owned>> {
        self.begin()?;
        let decided = self.try_now().inspect_err(|_| self.phase.store(DONE, Ordering::Relaxed))?;
        if decided {
            return self.result().map(Some);
        }
        self.defaulted().transpose()
    }

    /// Parks for the sleeper. `Some`: decided after all.
    pub fn perform_parked(&self, sleeper: Sleeper) -> Py<Option<Owned>> {
        self.set_sleeper(sleeper);
        match self.park() {
            Ok(true) => self.result().map(Some),
            Ok(false) => {
                self.phase.store(PARKED, Ordering::Relaxed);
                Ok(None)
            }
            Err(raised) => {
                self.phase.store(DONE, Ordering::Relaxed);
                Err(raised)
            }
        }
    }

    /// After a wake-up: is there a result? (A standing select may find that what woke it is gone again, and parks anew.)
    pub fn resume(&self) -> bool {
        match self.kind {
            Kind::NextEvent => self.selecting().resume(self),
            _ => true,
        }
    }

    /// The result of a parked operation that was decided.
    pub fn take_up(&self) -> Py<Owned> {
        self.settle();
        self.leave_sleeper();
        self.result()
    }

    /// Ends without a result.
    pub fn give_up(&self) {
        self.phase.store(DONE, Ordering::Relaxed);
        if self.kind == Kind::NextEvent {
            self.selecting().vacate(self);
        }
        self.leave_sleeper();
    }

    /// One step in a coroutine: what `await` does.
    pub fn step(&self) -> Py<Step> {
        match self.phase.load(Ordering::Relaxed) {
            PARKED => {
                if self.cancelled.get() {
                    self.give_up();
                    return Err(self.raise_cancelled());
                }
                if self.is_met() && self.resume() {
                    if self.late.replace(false) {
                        self.deliver_late()?;
                    }
                    return self.take_up().map(Step::Return);
                }
                // Somebody stepped the coroutine though nothing has happened: wait on.
                self.blocking.set(true);
                Ok(Step::Yield(self.itself()))
            }
            YIELDED if self.is_decided() => self.result().map(Step::Return),
            YIELDED => {
                // What a `selecting` had come to was discarded meanwhile: once more.
                self.phase.store(FRESH, Ordering::Relaxed);
                self.first_step()
            }
            _ => self.first_step(),
        }
    }

    /// Of an operation that yielded: what it had come to is still there.
    fn is_decided(&self) -> bool {
        self.kind != Kind::NextEvent || self.selecting().has_event()
    }

    #[inline]
    fn first_step(&self) -> Py<Step> {
        self.begin()?;
        let decided = self.try_now().inspect_err(|_| self.phase.store(DONE, Ordering::Relaxed))?;
        if decided {
            if self.state().should_yield() && self.state().running_loop()?.is_some() {
                self.phase.store(YIELDED, Ordering::Relaxed);
                return Ok(Step::Yield(ffi::none()));
            }
            return self.result().map(Step::Return);
        }
        if let Some(result) = self.defaulted() {
            return result.map(Step::Return);
        }
        let Some(running) = self.state().running_loop()? else {
            let message = format!(
                "{} has to wait, but was awaited outside any scheduler: no asyncio loop runs in this thread; use .wait() to block the thread",
                self.description()
            );
            self.give_up();
            return Err(ffi::runtime_error(&message));
        };
        let home = HomeObject::of_loop(self.state(), &running)?;
        // SAFETY: just made or found.
        unsafe { HomeObject::of(home.as_ptr()) }.deliver_pending(self.state())?;
        Ok(match self.perform_parked(Sleeper::Loop(home))? {
            Some(result) => Step::Return(result),
            None => {
                self.blocking.set(true);
                Step::Yield(self.itself())
            }
        })
    }

    /// A cancel that came too late for this operation is delivered at the task's next suspension.
    #[cold]
    fn deliver_late(&self) -> Py<()> {
        if let Sleeper::Loop(home) = self.sleeper() {
            // SAFETY: a sleeper's home is one.
            unsafe { HomeObject::of(home.as_ptr()) }.cancel_later(self.state(), Self::taken(&self.message))?;
        }
        Ok(())
    }

    #[cold]
    fn raise_cancelled(&self) -> Raised {
        let message = Self::taken(&self.message);
        let Ok(kind) = self.state().cancelled_error() else {
            return Raised;
        };
        // SAFETY: an exception type and live objects.
        unsafe {
            match message {
                Some(message) if message.as_ptr() != c::Py_None() => c::PyErr_SetObject(kind, message.as_ptr()),
                _ => c::PyErr_SetNone(kind),
            }
        }
        Raised
    }

    /// Blames the line of the program, for an operation made by one of weft's own Python functions.
    pub fn made_by_user(&self) {
        // SAFETY: just made: nobody else looks at it.
        let made = unsafe { &mut *self.made.get() };
        made.forget();
        *made = Origin::of_user();
    }

    /// `recv on channel 'jobs' (...)`, for messages.
    pub fn description(&self) -> String {
        let what = match self.kind {
            Kind::Send => "send",
            Kind::Recv | Kind::RecvNext => "recv",
            Kind::RecvMany => "recv_many",
            Kind::SendMany => "send_many",
            Kind::Closing => "wait for the close",
            Kind::Always => "always",
            Kind::Never => "never",
            Kind::After => "after",
            Kind::At => "at",
            Kind::Tick => "tick",
            Kind::Readable => "readable",
            Kind::Writable => "writable",
            Kind::Sync => "barrier sync",
            Kind::Select => "select",
            Kind::NextEvent => "selecting",
        };
        // SAFETY: whoever asks performs it, or nobody does.
        let made = unsafe { &*self.made.get() }.short();
        match self.is_on_channel() {
            true => format!("{what} on {}, operation made at {made},", self.via().channel.description()),
            false => format!("{what}, operation made at {made},"),
        }
    }

    fn warn_unperformed(&self) {
        let _aside = ffi::Aside::new();
        // SAFETY: as in `description`.
        let (file, line) = unsafe { &*self.made.get() }.place().unwrap_or(("unknown".to_owned(), 1));
        let message = format!("{} was never performed: await it, or call its wait()", self.description());
        let (Ok(file), Ok(message)) = (std::ffi::CString::new(file), std::ffi::CString::new(message)) else {
            return;
        };
        // SAFETY: C strings and an exception type.
        unsafe {
            if c::PyErr_WarnExplicit(
                c::PyExc_RuntimeWarning,
                message.as_ptr(),
                file.as_ptr(),
                line,
                ptr::null(),
                ptr::null_mut(),
            ) < 0
            {
                ffi::unraisable(ptr::null_mut());
            }
        }
    }

    // What a loop calls.

    /// Called by the home: the task's callback and context, once.
    pub fn take_callback(&self) -> Option<(Owned, Owned)> {
        let callback = Self::taken(&self.callback)?;
        Some((callback, Self::taken(&self.context)?))
    }

    pub fn set_missed(&self) {
        self.missed.set(true);
    }

    /// Whether a thread sleeps on it, which alone may end it.
    fn is_blocking_a_thread(&self) -> bool {
        self.phase.load(Ordering::Relaxed) == PARKED && matches!(self.sleeper(), Sleeper::Thread(_))
    }

    /// The coroutine that awaited this ends here (`GeneratorExit`, or another scheduler's exception): leave no trace.
    pub fn end(&self) {
        match self.phase.load(Ordering::Relaxed) {
            PARKED => {
                if self.cancelled.get() || self.withdraw() {
                    self.give_up();
                } else {
                    self.abandon_and_give_back();
                }
            }
            YIELDED => {
                let leaf = self.leaf(self.winner.get());
                if self.kind != Kind::NextEvent && matches!(leaf.kind, Kind::Recv | Kind::RecvNext | Kind::RecvMany) {
                    // SAFETY: decided: the slot is ours.
                    if let (Some(value), _) = unsafe { leaf.node.take() } {
                        let lost = wake::give_back(leaf.chan(), value);
                        leaf.via().channel.undelivered(lost);
                    }
                }
                if self.kind == Kind::NextEvent
                    && let Some(value) = self.selecting().abandon()
                {
                    self.selecting().give_back(value);
                }
                self.give_up();
            }
            _ => self.phase.store(DONE, Ordering::Relaxed),
        }
    }
}

/// `Selected(case, value)`: a tuple subclass of two, made without a call.
pub fn selected(state: &State, case: *mut PyObject, value: Owned) -> Py<Owned> {
    let kind = state.class(Ref::Selected);
    // SAFETY: `Selected` is a subclass of tuple, and allocated as every class is; a new one is filled before anybody sees it.
    unsafe {
        let tuple = Owned::from_new(c::PyType_GenericAlloc(kind, 2))?;
        // A tuple keeps its hash from 3.14 on; -1 says that it was not asked for yet.
        #[cfg(Py_3_14)]
        {
            (*tuple.as_ptr().cast::<c::PyTupleObject>()).ob_hash = -1;
        }
        c::PyTuple_SET_ITEM(tuple.as_ptr(), 0, Owned::from_borrowed(case).into_ptr());
        c::PyTuple_SET_ITEM(tuple.as_ptr(), 1, value.into_ptr());
        Ok(tuple)
    }
}

// The slots and methods.

unsafe extern "C" fn am_send(slf: *mut PyObject, _: *mut PyObject, result: *mut *mut PyObject) -> c::PySendResult {
    // SAFETY: the interpreter passes a live operation, here and below, and a place for the result.
    ffi::edge(c::PySendResult::PYGEN_ERROR, || unsafe {
        *result = ptr::null_mut();
        Ok(match OpObject::of(slf).step()? {
            Step::Return(value) => {
                *result = value.into_ptr();
                c::PySendResult::PYGEN_RETURN
            }
            Step::Yield(value) => {
                *result = value.into_ptr();
                c::PySendResult::PYGEN_NEXT
            }
        })
    })
}

/// Ends a coroutine's wait with a value: for `None` no exception at all, which the interpreter takes for `StopIteration()`.
#[inline]
fn stop_iteration(state: &State, value: Owned) -> Raised {
    // SAFETY: None lives for ever.
    if value.as_ptr() != unsafe { c::Py_None() } {
        stop::raise(state, value);
    }
    Raised
}

pub unsafe extern "C" fn iternext(slf: *mut PyObject) -> *mut PyObject {
    // SAFETY: see `am_send`.
    let op = unsafe { OpObject::of(slf) };
    ffi::edge_object(|| match op.step()? {
        Step::Yield(value) => Ok(value),
        Step::Return(value) => Err(stop_iteration(op.state(), value)),
    })
}

/// `__await__()`, called by name: an iterator for `yield from`. (`await` itself steps the operation, which cannot be iterated: a forgotten `await` in
/// `a, b = channel.recv()` must not receive.)
unsafe extern "C" fn explicit_await(slf: *mut PyObject, _: *mut PyObject) -> *mut PyObject {
    // SAFETY: see `am_send`.
    ffi::edge_object(|| unsafe { crate::awaiting::make(OpObject::of(slf).state(), slf) })
}

pub unsafe extern "C" fn throw(
    slf: *mut PyObject,
    arguments: *const *mut PyObject,
    number: isize,
    _: *mut PyObject,
) -> *mut PyObject {
    ffi::edge_object(|| {
        // SAFETY: see `am_send`; the interpreter's array.
        unsafe {
            if number == 0 {
                return Err(ffi::type_error("throw() needs an exception"));
            }
            let op = OpObject::of(slf);
            if op.is_blocking_a_thread() {
                return Err(op.misused(PARKED));
            }
            let first = *arguments;
            let error = if c::PyExceptionInstance_Check(first) != 0 {
                Owned::from_borrowed(first)
            } else {
                let value = if number > 1 { *arguments.add(1) } else { c::Py_None() };
                if c::PyExceptionInstance_Check(value) != 0 {
                    Owned::from_borrowed(value)
                } else if value == c::Py_None() {
                    ffi::call(first, &[])?
                } else {
                    ffi::call(first, &[value])?
                }
            };
            if number > 2 && *arguments.add(2) != c::Py_None() {
                c::PyException_SetTraceback(error.as_ptr(), *arguments.add(2));
            }
            let decided = match op.phase.load(Ordering::Relaxed) {
                PARKED => {
                    let open = op.cancelled.get() || op.withdraw();
                    if open {
                        op.give_up();
                    }
                    !open
                }
                YIELDED => op.is_decided(),
                _ => false,
            };
            if decided && c::PyErr_GivenExceptionMatches(error.as_ptr(), op.state().cancelled_error()?) != 0 {
                // The commit wins: it completes, and the cancel comes at the next suspension.
                if let Sleeper::Nobody = op.sleeper()
                    && let Some(running) = op.state().running_loop()?
                {
                    op.set_sleeper(Sleeper::Loop(HomeObject::of_loop(op.state(), &running)?));
                }
                op.deliver_late()?;
                let yielded = op.phase.load(Ordering::Relaxed) == YIELDED;
                let value = if yielded { op.result() } else { op.take_up() }?;
                stop::raise(op.state(), value);
                return Err(Raised);
            }
            op.end();
            Err(ffi::raise_object(error.as_ptr()))
        }
    })
}

pub unsafe extern "C" fn close(slf: *mut PyObject, _: *mut PyObject) -> *mut PyObject {
    ffi::edge_object(|| {
        // SAFETY: see `am_send`.
        let op = unsafe { OpObject::of(slf) };
        if op.is_blocking_a_thread() {
            return Err(op.misused(PARKED));
        }
        op.end();
        Ok(ffi::none())
    })
}

unsafe extern "C" fn wait(
    slf: *mut PyObject,
    arguments: *const *mut PyObject,
    number: isize,
    keywords: *mut PyObject,
) -> *mut PyObject {
    ffi::edge_object(|| {
        // SAFETY: see `am_send`.
        unsafe {
            let [timeout] = ffi::parameters("wait", ["timeout"], 1, arguments, number, keywords)?;
            let timeout = if timeout.is_null() || timeout == c::Py_None() {
                None
            } else {
                let seconds = ffi::seconds(timeout, "timeout")?;
                if seconds < 0.0 {
                    return Err(ffi::value_error(&format!("timeout must not be negative: {seconds}")));
                }
                Some(seconds)
            };
            crate::thread::wait(OpObject::of(slf), timeout)
        }
    })
}

unsafe extern "C" fn map(slf: *mut PyObject, function: *mut PyObject) -> *mut PyObject {
    ffi::edge_object(|| {
        // SAFETY: see `am_send`.
        unsafe {
            let op = OpObject::of(slf);
            if c::PyCallable_Check(function) == 0 {
                return Err(ffi::type_error(&format!("map() needs a callable, not {}", ffi::type_name(function))));
            }
            let phase = op.phase.load(Ordering::Relaxed);
            if phase != FRESH {
                return Err(op.misused(phase));
            }
            let mut functions = Vec::new();
            let known = op.map.get();
            if !known.is_null() {
                for index in 0..c::PyTuple_GET_SIZE(known) {
                    functions.push(Owned::from_borrowed(c::PyTuple_GET_ITEM(known, index)));
                }
            }
            functions.push(Owned::from_borrowed(function));
            OpObject::put(&op.map, Some(ffi::tuple(functions)?));
            Ok(op.itself())
        }
    })
}

// asyncio's future protocol, which a task drives (asyncio.isfuture, Task.__step).

unsafe extern "C" fn get_blocking(slf: *mut PyObject, _: *mut c_void) -> *mut PyObject {
    // SAFETY: see `am_send`.
    let op = unsafe { OpObject::of(slf) };
    if op.phase.load(Ordering::Relaxed) != PARKED || op.is_blocking_a_thread() {
        // Not a future, as asyncio.isfuture() sees it: ensure_future() and gather() wrap it in a task.
        return ffi::none().into_ptr();
    }
    ffi::boolean(op.blocking.get()).into_ptr()
}

unsafe extern "C" fn set_blocking(slf: *mut PyObject, value: *mut PyObject, _: *mut c_void) -> c_int {
    ffi::edge(-1, || {
        // SAFETY: see `am_send`; null means deletion.
        unsafe {
            let truth = !value.is_null() && ffi::check(c::PyObject_IsTrue(value))? != 0;
            OpObject::of(slf).blocking.set(truth);
        }
        Ok(0)
    })
}

unsafe extern "C" fn get_loop(slf: *mut PyObject, _: *mut PyObject) -> *mut PyObject {
    ffi::edge_object(|| {
        // SAFETY: see `am_send`.
        let op = unsafe { OpObject::of(slf) };
        if let Sleeper::Loop(home) = op.sleeper() {
            // SAFETY: a sleeper's home is one.
            if let Some(event_loop) = unsafe { HomeObject::of(home.as_ptr()) }.event_loop() {
                return Ok(event_loop);
            }
        }
        Err(ffi::runtime_error("the operation waits in no loop"))
    })
}

unsafe extern "C" fn add_done_callback(
    slf: *mut PyObject,
    arguments: *const *mut PyObject,
    number: isize,
    keywords: *mut PyObject,
) -> *mut PyObject {
    ffi::edge_object(|| {
        // SAFETY: see `am_send`.
        unsafe {
            let op = OpObject::of(slf);
            let as_a_task_does = number == 1
                && !keywords.is_null()
                && c::PyTuple_GET_SIZE(keywords) == 1
                && ffi::is_text(c::PyTuple_GET_ITEM(keywords, 0), c"context");
            let [callback, context] = if as_a_task_does {
                [*arguments, *arguments.add(1)]
            } else {
                ffi::parameters("add_done_callback", ["fn", "context"], 1, arguments, number, keywords)?
            };
            if callback.is_null() {
                return Err(ffi::type_error("add_done_callback() needs a callable"));
            }
            if !op.callback.get().is_null() {
                return Err(ffi::runtime_error(&format!("{} is awaited by somebody else already", op.description())));
            }
            let context = if context.is_null() || context == c::Py_None() {
                Owned::from_new(c::PyContext_CopyCurrent())?
            } else {
                Owned::from_borrowed(context)
            };
            OpObject::put(&op.context, Some(context));
            OpObject::put(&op.callback, Some(Owned::from_borrowed(callback)));
            if op.missed.replace(false) {
                drop(OpObject::wake(op.itself().into_ptr().cast()));
            }
            Ok(ffi::none())
        }
    })
}

unsafe extern "C" fn future_done(slf: *mut PyObject, _: *mut PyObject) -> *mut PyObject {
    // SAFETY: see `am_send`.
    let op = unsafe { OpObject::of(slf) };
    let parked = op.phase.load(Ordering::Relaxed) == PARKED;
    ffi::edge_object(|| Ok(ffi::boolean(!parked || op.cancelled.get() || op.is_met())))
}

unsafe extern "C" fn future_cancelled(slf: *mut PyObject, _: *mut PyObject) -> *mut PyObject {
    // SAFETY: see `am_send`.
    ffi::edge_object(|| Ok(ffi::boolean(unsafe { OpObject::of(slf) }.cancelled.get())))
}

unsafe extern "C" fn future_result(slf: *mut PyObject, _: *mut PyObject) -> *mut PyObject {
    ffi::edge_object(|| {
        // SAFETY: see `am_send`.
        let op = unsafe { OpObject::of(slf) };
        if op.cancelled.get() {
            op.give_up();
            return Err(op.raise_cancelled());
        }
        Ok(ffi::none())
    })
}

unsafe extern "C" fn cancel(
    slf: *mut PyObject,
    arguments: *const *mut PyObject,
    number: isize,
    keywords: *mut PyObject,
) -> *mut PyObject {
    ffi::edge_object(|| {
        // SAFETY: see `am_send`.
        unsafe {
            let [message] = ffi::parameters("cancel", ["msg"], 1, arguments, number, keywords)?;
            let op = OpObject::of(slf);
            if op.phase.load(Ordering::Relaxed) != PARKED || op.cancelled.get() || op.is_blocking_a_thread() {
                return Ok(ffi::boolean(false));
            }
            let message = Owned::from_nullable(message).inspect(|message| {
                c::Py_INCREF(message.as_ptr());
            });
            OpObject::put(&op.message, message);
            if op.withdraw() {
                op.cancelled.set(true);
                drop(OpObject::wake(op.itself().into_ptr().cast()));
            } else {
                // It was decided: it completes, and we see to it that the cancel is not forgotten.
                op.late.set(true);
            }
            Ok(ffi::boolean(true))
        }
    })
}

/// `_fire(case)`: a descriptor is ready.
unsafe extern "C" fn fire(slf: *mut PyObject, case: *mut PyObject) -> *mut PyObject {
    ffi::edge_object(|| {
        let case = ffi::long(case)?;
        // SAFETY: see `am_send`.
        unsafe {
            let op = OpObject::of(slf);
            // Called by the loop, which will look at its queue before it sleeps.
            let home = match op.sleeper() {
                Sleeper::Loop(home) => Some(home.clone()),
                _ => None,
            };
            let _turn = home.as_ref().map(|home| HomeObject::of(home.as_ptr()).turn());
            if op.phase.load(Ordering::Relaxed) == PARKED
                && op.decide(case as u32)
                && let Some(value) = OpObject::wake(op.itself().into_ptr().cast())
            {
                drop(value);
            }
        }
        Ok(ffi::none())
    })
}

unsafe extern "C" fn repr(slf: *mut PyObject) -> *mut PyObject {
    ffi::edge_object(|| {
        // SAFETY: see `am_send`.
        let op = unsafe { OpObject::of(slf) };
        let phase = match op.phase.load(Ordering::Relaxed) {
            FRESH => "not performed",
            TAKEN => "in a select",
            PARKED if op.cancelled.get() => "cancelled",
            PARKED => "waiting",
            DONE => "performed",
            _ => "being performed",
        };
        ffi::string(&format!("<weft.Op: {} {phase}>", op.description()))
    })
}

/// What `await` asks for first, once: so a second `await` ends here, and does not step what another one waits for.
unsafe extern "C" fn am_await(slf: *mut PyObject) -> *mut PyObject {
    // SAFETY: see `am_send`.
    let op = unsafe { OpObject::of(slf) };
    if op.check_fresh().is_err() {
        return ptr::null_mut();
    }
    op.itself().into_ptr()
}

unsafe extern "C" fn traverse(slf: *mut PyObject, visit: c::visitproc, argument: *mut c_void) -> c_int {
    // SAFETY: from the collector; fields are only read.
    unsafe {
        let op = OpObject::of(slf);
        let mut objects = vec![
            c::Py_TYPE(slf).cast(),
            op.owner,
            op.map.get(),
            op.callback.get(),
            op.context.get(),
            op.message.get(),
            op.case.get(),
        ];
        op.node.peek(|value| objects.extend(value.map(Owned::as_ptr)));
        if let Sleeper::Loop(home) = op.sleeper() {
            objects.push(home.as_ptr());
        }
        match op.extra() {
            Extra::Select(select) => {
                objects.extend(select.cases.iter().map(|leaf| leaf.cast()));
                objects.extend(select.default.as_ref().map(Owned::as_ptr));
            }
            Extra::SendMany(rest) => objects.extend(rest.iter().map(Owned::as_ptr)),
            _ => {}
        }
        for object in objects {
            let stop = ffi::visit(object, visit, argument);
            if stop != 0 {
                return stop;
            }
        }
        (*op.made.get()).traverse(visit, argument)
    }
}

unsafe extern "C" fn clear(slf: *mut PyObject) -> c_int {
    // SAFETY: from the collector, which found the operation unreachable.
    unsafe {
        let op = OpObject::of(slf);
        let _keep = op.itself();
        // A leaf may stand in a queue for a select that is garbage as well: that must leave all queues first.
        let mut root = op;
        while let Some(parent) = root.parent.get().as_ref() {
            root = parent;
        }
        if matches!(root.phase.load(Ordering::Relaxed), PARKED | YIELDED) {
            let _keep = root.itself();
            root.end();
        }
        op.drop_values();
    }
    0
}

impl OpObject {
    /// Drops what may lead back to this operation.
    fn drop_values(&self) {
        for cell in [&self.map, &self.callback, &self.context, &self.message] {
            if !cell.get().is_null() {
                drop(Self::taken(cell));
            }
        }
        // SAFETY: nobody performs an operation that is being destroyed; the slot is ours.
        if let (Some(value), _) = unsafe { self.node.take() } {
            ffi::drop_contents([value]);
        }
        if let Extra::None = self.extra() {
            return;
        }
        if let Extra::Select(select) = std::mem::replace(
            // SAFETY: as above.
            unsafe { &mut *self.extra.get() },
            Extra::None,
        ) {
            ffi::drop_contents(select.cases.into_iter().filter_map(|leaf| {
                // SAFETY: a reference that was ours; the leaf has no select any more.
                unsafe {
                    (*leaf).parent.set(ptr::null_mut());
                    Owned::from_nullable(leaf.cast())
                }
            }));
        }
    }
}

unsafe extern "C" fn dealloc(slf: *mut PyObject) {
    // SAFETY: the last reference is gone; each field is dropped once.
    unsafe {
        c::PyObject_GC_UnTrack(slf.cast());
        let op = OpObject::of(slf);
        match op.phase.load(Ordering::Relaxed) {
            FRESH => op.warn_unperformed(),
            PARKED | YIELDED => {
                // Parked, but in no queue: a timer whose loop is gone, or nothing but `never`.
                let _aside = ffi::Aside::new();
                op.end();
            }
            _ if op.kind == Kind::NextEvent => op.selecting().vacate(op),
            _ => {}
        }
        op.drop_values();
        OpObject::put(&op.case, None);
        c::Py_XDECREF(op.owner);
        (*op.made.get()).forget();
        let this: *mut OpObject = slf.cast();
        ptr::drop_in_place(&raw mut (*this).waiter);
        ptr::drop_in_place(&raw mut (*this).node);
        ptr::drop_in_place(&raw mut (*this).sleeper);
        ptr::drop_in_place(&raw mut (*this).extra);
        State::free_op(slf);
    }
}

/// Makes the type.
pub fn make_type(module: *mut PyObject) -> Py<Owned> {
    use ffi::Method::{ClassOne, Fast, InsteadOfSlot, NoArguments, OneArgument};
    let methods = ffi::methods(
        "Op",
        &[
            (c"wait", Fast(wait)),
            (c"map", OneArgument(map)),
            (c"__await__", InsteadOfSlot(explicit_await)),
            (c"throw", Fast(throw)),
            (c"close", NoArguments(close)),
            (c"get_loop", NoArguments(get_loop)),
            (c"add_done_callback", Fast(add_done_callback)),
            (c"done", NoArguments(future_done)),
            (c"cancelled", NoArguments(future_cancelled)),
            (c"result", NoArguments(future_result)),
            (c"cancel", Fast(cancel)),
            (c"_fire", OneArgument(fire)),
            (c"__class_getitem__", ClassOne(crate::channel::class_getitem)),
        ],
    );
    let properties = ffi::properties("Op", &[(c"_asyncio_future_blocking", get_blocking, Some(set_blocking))]);
    let slots = vec![
        ffi::slot(c::Py_tp_doc, crate::docs::doc("Op", "").cast_mut().cast()),
        ffi::slot(c::Py_tp_repr, repr as *mut c_void),
        ffi::slot(c::Py_am_await, am_await as *mut c_void),
        ffi::slot(c::Py_am_send, am_send as *mut c_void),
        ffi::slot(c::Py_tp_iternext, iternext as *mut c_void),
        ffi::slot(c::Py_tp_traverse, traverse as *mut c_void),
        ffi::slot(c::Py_tp_clear, clear as *mut c_void),
        ffi::slot(c::Py_tp_dealloc, dealloc as *mut c_void),
        ffi::slot(c::Py_tp_methods, methods.cast()),
        ffi::slot(c::Py_tp_getset, properties.cast()),
    ];
    // SAFETY: the slots are those of an `OpObject`.
    unsafe {
        ffi::make_type(
            module,
            c"weft.Op",
            size_of::<OpObject>(),
            (c::Py_TPFLAGS_HAVE_GC | c::Py_TPFLAGS_DISALLOW_INSTANTIATION) as u64,
            slots,
        )
    }
}
