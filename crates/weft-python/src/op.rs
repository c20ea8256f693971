//! `Op`: an operation, which is also its own wait.
//!
//! An operation is made, then performed once: it tries, and if it cannot be decided it parks, in one of two ways. Awaited in an asyncio task it
//! yields *itself* as the future the task waits for; with `wait()` it blocks its thread. A select is an operation whose leaves are other
//! operations; each leaf keeps its own node, and all share the waiter of the root.
//!
//! Phases (`phase`), moved on only by the performing party except for the first step, which is an exchange:
//! ```text
//!   FRESH -> RUNNING -> DONE
//!     |         \-> PARKED -> DONE
//!     |         \-> DECIDED -> DONE        by a scheduler that performs it step by step
//!     |-> POSTPONED -> RUNNING             its task hands the loop back before it is tried
//!     |-> AWAITED -> RUNNING               without a GIL: who awaits it, of several that may come at once
//!     \-> TAKEN                            became a leaf of a select
//! ```
//! Of an object that is kept after its operation has ended it is SPARE.
//!
//! Where threads run at the same time (without a GIL), besides the party that performs it only these touch an operation:
//!   1. Whoever meets it: the slot and the waker, by the rules of weft-core, and then the word, to see whom to wake. Both found it in a queue, under the
//!      lock of that, so all that was written before it parked is seen; and behind the word nothing changes while it is parked but what 3 names.
//!   2. Who asks a parked one from elsewhere (a snapshot, a cancel): only after it has read in `phase` that it is parked, with Acquire.
//!   3. Callback, context and message, which its loop and those who ask change and read while it is parked: in a critical section of the object.
//!   4. Who tries to perform it although somebody does: each way out of FRESH is one exchange (`claim_fresh`), and one alone succeeds.

mod bell;
mod future;
mod leaf;
mod object;
mod rare;
mod remote;
mod result;

pub use future::{close, iternext, throw};
pub use object::{descriptor, make, on_channel, ready, select, sync, timer};
pub use rare::{Asleep, Rare, Sleeper};
use rare::{Extra, Word};

use std::cell::{Cell, UnsafeCell};
use std::collections::VecDeque;
use std::ffi::{c_int, c_void};
use std::mem::ManuallyDrop;
use std::ptr::{self, NonNull};
use std::sync::Arc;

use smallvec::SmallVec;
use weft_core::chan::{Chan, Wakes};
use weft_core::select::{self, Case, Policy};
use weft_core::waiter::Waiter;
use weft_core::waitq::Node;

use crate::attached::{Bits, Byte};
use crate::barrier::BarrierObject;
use crate::channel::{ChannelObject, Via};
use crate::crossing::remote::ANSWERED;
use crate::crossing::work::Seen;
use crate::ends::EndObject;
use crate::ffi::{self, Owned, Py, PyObject, Raised, c};
use crate::lowlevel;
use crate::origin::Origin;
use crate::selecting::SelectingObject;
use crate::state::State;
use crate::value::Value;
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
const POSTPONED: u8 = 4;
const DONE: u8 = 5;
const DECIDED: u8 = 6;
const AWAITED: u8 = 7;
/// It has ended, and its object is kept for the next one (`object`).
const SPARE: u8 = 8;

/// The winner of a select whose default was taken.
const DEFAULT: u32 = u32::MAX;

#[derive(Default)]
pub struct Select {
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
    /// A fresh operation becomes a case.
    #[inline]
    pub fn add(&mut self, op: &OpObject, case: Owned) -> Py<()> {
        op.become_leaf(case)?;
        self.cases.push(op.itself().into_ptr().cast());
        Ok(())
    }

    pub fn set_default(&mut self, default: Owned) {
        self.default = Some(default);
    }

    pub fn has_default(&self) -> bool {
        self.default.is_some()
    }

    pub fn set_policy(&mut self, policy: Policy) {
        self.policy = policy;
    }

    /// All cases are there: they belong to `root` now.
    #[inline]
    fn complete(&mut self, root: &OpObject) {
        // SAFETY: the select holds its cases.
        let op = |case: &*mut OpObject| unsafe { &**case };
        let mut nested = false;
        for case in &self.cases {
            op(case).set_parent(ptr::from_ref(root).cast_mut());
            nested |= op(case).kind == Kind::Select;
        }
        self.flat = nested.then(|| {
            let mut all = Vec::new();
            for case in &self.cases {
                op(case).with_leaves(|leaves| all.extend_from_slice(leaves));
            }
            all
        });
        self.plain = self.default.is_none() && self.leaves().iter().all(|leaf| op(leaf).is_plain());
    }

    fn leaves(&self) -> &[*mut OpObject] {
        self.flat.as_deref().unwrap_or(&self.cases)
    }

    /// It was not made after all: its cases are fresh operations again.
    pub fn give_back(&mut self) {
        for op in &self.cases {
            // SAFETY: held until below.
            unsafe { &**op }.be_fresh_again();
        }
        self.clear();
    }

    /// All that a collector is to see.
    fn visit(&self, see: &mut impl FnMut(*mut PyObject)) {
        self.cases.iter().for_each(|leaf| see(leaf.cast()));
        self.default.iter().for_each(|default| see(default.as_ptr()));
    }

    /// Drops what it holds.
    #[inline]
    fn clear(&mut self) {
        self.flat = None;
        self.policy = Policy::default();
        if self.default.is_some() {
            ffi::drop_contents(self.default.take());
        }
        ffi::drop_contents(self.cases.drain(..).filter_map(|leaf| {
            // SAFETY: a reference that was ours; the leaf has no select any more.
            unsafe {
                (*leaf).set_parent(ptr::null_mut());
                Owned::from_nullable(leaf.cast())
            }
        }));
    }
}

/// So many cases of a select need no memory of their own.
const FEW: usize = 4;

/// `weft.Op`, in as few words as there can be: a million of them may be parked.
#[repr(C)]
pub struct OpObject {
    head: PyObject,
    role: UnsafeCell<Role>,
    node: Node<Value>,
    /// A strong reference to what the operation was made from (of a channel operation the channel or the end); null for timers and the like.
    owner: *mut PyObject,
    /// See `rare`.
    word: Cell<*mut c_void>,
    /// Where it was made: see `made`.
    code: Cell<*mut PyObject>,
    offset: Cell<u16>,
    kind: Kind,
    /// Told and read in the order of (2).
    phase: Byte,
    /// What has to be seen with a flag is ordered by the phase, or by the lock under which the operation was found. Where threads run at the same time
    /// two may set different ones, so each change is one step.
    flags: Bits,
}

#[cfg(target_pointer_width = "64")]
const _: () = assert!(size_of::<OpObject>() <= size_of::<PyObject>() + 96);

/// What the others know an operation by: its waiter, or in phase TAKEN the select that took it.
union Role {
    /// Never dropped: it holds a waker at most, and those have nothing to drop (`wake`).
    waiter: ManuallyDrop<Waiter>,
    leaf: Leaf,
}

/// Of a leaf: the select it belongs to (borrowed: the select holds the leaf), and its case (strong).
#[derive(Clone, Copy)]
struct Leaf {
    parent: *mut OpObject,
    case: *mut PyObject,
}

/// What a step in a coroutine comes to.
pub enum Step {
    Return(Owned),
    Yield(Owned),
}

/// The object to show a garbage collector for a waiter parked in a queue: the operation it belongs to.
pub fn of_waiter(waiter: NonNull<Waiter>) -> *mut PyObject {
    // SAFETY: a waiter in a queue is alive.
    if unsafe { waiter.as_ref() }.is_persistent() {
        // It belongs to a `Selecting`, whose queues hold no references.
        return ptr::null_mut();
    }
    // SAFETY: every other waiter in our queues is that of an operation.
    unsafe { waiter.as_ptr().cast::<u8>().sub(std::mem::offset_of!(OpObject, role)).cast() }
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
        if self.is_on_channel() { self.channel().state() } else { self.state_elsewhere() }
    }

    #[inline(never)]
    fn state_elsewhere(&self) -> &State {
        if let Extra::Select(select) = self.extra()
            && let Some(case) = select.cases.first()
            // SAFETY: the select holds its cases.
            && let case = unsafe { &**case }
            && case.is_on_channel()
        {
            return case.channel().state();
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
        self.phase.get() == FRESH
    }

    pub fn is_taken(&self) -> bool {
        self.phase.get() == TAKEN
    }

    pub fn has_default(&self) -> bool {
        matches!(self.extra(), Extra::Select(select) if select.default.is_some())
    }

    // In `flags`, above what the word is.
    const WORD: u16 = 7;
    /// Made on a channel: the owner is the channel, or one of its ends.
    const ON_CHANNEL: u16 = 1 << 3;
    /// ... through an end.
    const VIA_END: u16 = 1 << 4;
    /// Of a leaf: it can be taken at once, as found when the operation was prepared.
    const READY: u16 = 1 << 5;
    /// Of a leaf: it was made from an end that is closed.
    const DEAD_END: u16 = 1 << 6;
    /// asyncio's mark of a future that a task just yielded.
    const BLOCKING: u16 = 1 << 7;
    const CANCELLED: u16 = 1 << 8;
    /// A cancel came after the commit and is still to be delivered.
    const LATE: u16 = 1 << 9;
    /// Woken before the task had left its callback.
    const MISSED: u16 = 1 << 10;
    /// Its node is counted as a reference.
    const LINKED: u16 = 1 << 11;
    /// Parked with a bell: see `crossing::place`.
    const BELL: u16 = 1 << 12;
    /// Waits in the root as well: see `remote`.
    const REMOTE: u16 = 1 << 13;
    /// A collection has come upon it since it was made.
    const SEEN: u16 = 1 << 14;

    #[inline]
    fn is(&self, flag: u16) -> bool {
        self.flags.get() & flag != 0
    }

    #[inline]
    fn set(&self, flag: u16, value: bool) {
        self.flags.put(flag, value);
    }

    /// Whether it was set. It is not any more.
    #[inline]
    fn take(&self, flag: u16) -> bool {
        self.flags.take(flag)
    }

    #[inline]
    fn word_is(&self) -> Word {
        match self.flags.get() & Self::WORD {
            1 => Word::Home,
            2 => Word::Task,
            3 => Word::Thread,
            4 => Word::Rare,
            5 => Word::Called,
            _ => Word::Nothing,
        }
    }

    #[inline]
    fn set_word_is(&self, word: Word) {
        self.flags.choose(Self::WORD, word as u16);
    }

    /// Of what is no leaf.
    #[inline]
    pub fn waiter(&self) -> &Waiter {
        debug_assert!(!self.is_taken());
        // SAFETY: what it is unless the phase is TAKEN; shared, as a waiter is.
        unsafe { &(*self.role.get()).waiter }
    }

    /// A fresh operation becomes a case of a select.
    #[inline]
    fn become_leaf(&self, case: Owned) -> Py<()> {
        self.claim_fresh(TAKEN)?;
        // SAFETY: nobody knows the waiter of a fresh operation, and nobody performs one that is taken.
        unsafe { *self.role.get() = Role { leaf: Leaf { parent: ptr::null_mut(), case: case.into_ptr() } } };
        Ok(())
    }

    /// The select was not made after all.
    fn be_fresh_again(&self) {
        drop(self.take_case());
        // SAFETY: a leaf of a select that nobody knew.
        unsafe { *self.role.get() = Role { waiter: ManuallyDrop::new(Waiter::new()) } };
        self.phase.tell(FRESH);
    }

    #[inline]
    fn leaf_role(&self) -> Option<*mut Leaf> {
        // SAFETY: what it is in this phase.
        self.is_taken().then(|| unsafe { &raw mut (*self.role.get()).leaf })
    }

    /// Of a leaf: the select it belongs to, while that lives.
    #[inline]
    fn parent(&self) -> *mut OpObject {
        // SAFETY: see `leaf_role`.
        self.leaf_role().map_or(ptr::null_mut(), |leaf| unsafe { (*leaf).parent })
    }

    #[inline]
    fn set_parent(&self, parent: *mut OpObject) {
        if let Some(leaf) = self.leaf_role() {
            // SAFETY: see `leaf_role`.
            unsafe { (*leaf).parent = parent };
        }
    }

    /// Of a leaf: its case. Else null.
    #[inline]
    fn case(&self) -> *mut PyObject {
        // SAFETY: see `leaf_role`.
        self.leaf_role().map_or(ptr::null_mut(), |leaf| unsafe { (*leaf).case })
    }

    #[inline]
    fn take_case(&self) -> Option<Owned> {
        // SAFETY: see `leaf_role`; the reference is ours.
        self.leaf_role()
            .and_then(|leaf| unsafe { Owned::from_nullable(ptr::replace(&raw mut (*leaf).case, ptr::null_mut())) })
    }

    /// Where it was made.
    fn made(&self) -> Origin {
        Origin::of(self.code.get(), c_int::from(self.offset.get()))
    }

    fn set_made(&self, made: Origin) {
        let (code, offset) = made.into_parts();
        self.code.set(code);
        // Further into a function than this there is no telling: its first line.
        self.offset.set(u16::try_from(offset).unwrap_or(0));
    }

    pub fn set_rest(&self, rest: VecDeque<Value>) {
        self.set_extra(Extra::SendMany(rest));
    }

    pub fn set_max(&self, max: usize) {
        self.set_extra(Extra::RecvMany(max));
    }

    /// All leaves, first to last; an operation that is no select is its own only leaf.
    #[inline]
    pub fn with_leaves<R>(&self, f: impl FnOnce(&[*mut OpObject]) -> R) -> R {
        match self.extra() {
            Extra::Select(select) => f(select.leaves()),
            _ => f(&[ptr::from_ref(self).cast_mut()]),
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
    fn chan(&self) -> &Chan<Value> {
        &self.channel().chan
    }

    /// Of a channel operation: its channel.
    #[inline]
    fn channel(&self) -> &ChannelObject {
        // SAFETY: the owner is one, or an end, which keeps its channel alive.
        unsafe {
            ChannelObject::of(if self.is(Self::VIA_END) { EndObject::of(self.owner).channel } else { self.owner })
        }
    }

    /// Of a channel operation: the channel and the end it was made through.
    #[inline]
    fn via(&self) -> Via<'_> {
        Via {
            channel: self.channel(),
            owner: self.owner,
            // SAFETY: then the owner is one.
            end: self.is(Self::VIA_END).then(|| unsafe { EndObject::of(self.owner) }),
        }
    }

    #[inline]
    fn is_on_channel(&self) -> bool {
        self.is(Self::ON_CHANNEL)
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

    fn barrier(&self) -> &BarrierObject {
        // SAFETY: a sync's owner is its barrier.
        unsafe { BarrierObject::of(self.owner) }
    }

    /// Whether it waits for this barrier, among others.
    pub fn is_sync_at(&self, barrier: &BarrierObject) -> bool {
        self.with_leaves(|leaves| {
            leaves.iter().any(|leaf| {
                // SAFETY: held by the select, or this operation itself.
                let leaf = unsafe { &**leaf };
                leaf.kind == Kind::Sync && ptr::eq(leaf.barrier(), barrier)
            })
        })
    }

    /// Begins to perform: once only.
    #[inline]
    fn begin(&self) -> Py<()> {
        self.claim_fresh(RUNNING)
    }

    /// Moves on from FRESH, as the only one who does.
    #[inline]
    fn claim_fresh(&self, to: u8) -> Py<()> {
        self.phase.exchange(FRESH, to).map_err(|phase| self.misused(phase))
    }

    /// Back to FRESH, to be tried by this party, or by who is quicker: `begin` decides.
    #[inline]
    fn be_tried(&self, from: u8) {
        // When it is another phase by now, `begin` will say so.
        let _ = self.phase.exchange(from, FRESH);
    }

    /// Before the first step of an `await`: a second one ends here, and does not step what another one waits for.
    #[inline]
    pub fn await_once(&self) -> Py<()> {
        #[cfg(not(Py_GIL_DISABLED))]
        return self.check_fresh();
        #[cfg(Py_GIL_DISABLED)]
        self.claim_fresh(AWAITED)
    }

    /// An error when it was performed, or belongs to a select.
    #[inline]
    pub fn check_fresh(&self) -> Py<()> {
        match self.phase.get() {
            FRESH => Ok(()),
            phase => Err(self.misused(phase)),
        }
    }

    #[cold]
    fn misused(&self, phase: u8) -> Raised {
        let about = self.description();
        ffi::runtime_error(&match phase {
            TAKEN => format!("{about} belongs to a select: perform the select instead"),
            PARKED | RUNNING | POSTPONED | DECIDED | AWAITED => {
                format!("{about} is being performed by somebody else: an operation is performed once")
            }
            _ => format!(
                "{about} was already performed: an operation is performed once, make a new one for the next time"
            ),
        })
    }

    /// Tries, without parking. `true`: decided, `winner` is set, and everybody concerned is woken.
    #[inline(always)]
    fn try_now(&self) -> Py<bool> {
        match self.is_on_channel() {
            true => self.try_channel(),
            false => self.try_elsewhere(),
        }
    }

    #[inline(never)]
    fn try_elsewhere(&self) -> Py<bool> {
        match self.extra() {
            _ if self.kind == Kind::NextEvent => self.selecting().try_next(self),
            Extra::Select(select) if select.plain => self.try_plain(select),
            _ => loop {
                let seen = self.seen();
                let tried = self.with_leaves(|leaves| {
                    for leaf in leaves {
                        // SAFETY: held by the select, or this operation itself.
                        unsafe { (**leaf).prepare()? };
                    }
                    self.turn_leaves(leaves)?;
                    self.attempt(leaves, false, false, seen)
                })?;
                if let Some(decided) = tried {
                    return Ok(decided);
                }
            },
        }
    }

    /// Whether nobody uses its channel meanwhile: with a GIL, as long as no other place knows it, whoever does is attached.
    #[inline]
    fn is_alone(&self) -> bool {
        cfg!(not(Py_GIL_DISABLED)) && !self.channel().is_sharing()
    }

    #[inline]
    fn is_sending(&self) -> bool {
        matches!(self.kind, Kind::Send | Kind::SendMany)
    }

    /// A channel operation, alone or as a leaf, now or not at all.
    #[inline]
    fn try_channel(&self) -> Py<bool> {
        let via = self.via();
        via.check()?;
        if via.end_is_closed() {
            self.set(Self::DEAD_END, true);
            return Ok(true);
        }
        loop {
            let seen = via.channel.seen();
            if via.channel.is_sharing() {
                // What stands in the box may give back a value, which comes first.
                self.state().place.look();
                if let Some(remote) = via.channel.remote() {
                    return self.try_ahead(remote);
                }
                self.turn_value()?;
            }
            // What it misses so was not there yet, or else is found under the lock when it parks.
            if !(if self.is_sending() { self.chan().may_send() } else { self.chan().may_recv() }) {
                return Ok(false);
            }
            let mut wakes = Wakes::new();
            let Some(at_work) = via.channel.go_to_work(seen) else {
                continue;
            };
            // SAFETY: not parked: the slot is ours, and filled for a send.
            let decided = unsafe {
                if self.is_alone() {
                    self.chan().commit_alone(&self.node, self.is_sending(), &mut wakes)
                } else if self.is_sending() {
                    self.chan().send_now(&self.node, &mut wakes)
                } else {
                    self.chan().recv_now(&self.node, &mut wakes)
                }
            };
            drop(at_work);
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
            self.set_winner(index as u32);
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
        self.set(Self::DEAD_END, self.via().end_is_closed());
        if self.remote().is_some() {
            return Ok(self.is(Self::DEAD_END));
        }
        Ok(self.is(Self::DEAD_END) || if self.is_sending() { self.chan().can_send() } else { self.chan().can_recv() })
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

    /// One look at all leaves, parking them if told to; `remote`: all that are not outside are the root's. `true`: decided.
    /// `None`: a channel may have become shared since `seen`.
    fn attempt(&self, leaves: &[*mut OpObject], park: bool, remote: bool, seen: Seen) -> Py<Option<bool>> {
        let policy = match self.extra() {
            Extra::Select(select) => select.policy,
            _ => Policy::Priority,
        };
        loop {
            let mut wakes = Wakes::new();
            let Some(at_work) = self.go_to_work(seen) else {
                return Ok(None);
            };
            // SAFETY: nothing is parked; with `park` the nodes were bound to the armed waiter by the caller.
            let attempt = |cases: &[&dyn Case]| unsafe { select::attempt(cases, policy, park, &mut wakes) };
            #[cfg(Py_GIL_DISABLED)]
            let taken = match park && !remote {
                true => Self::with_cases_to_park(leaves, attempt),
                false => Self::with_cases(leaves, attempt),
            };
            #[cfg(not(Py_GIL_DISABLED))]
            let taken = Self::with_cases(leaves, attempt);
            #[cfg(not(Py_GIL_DISABLED))]
            let _ = remote;
            drop(at_work);
            let Some(index) = taken else {
                debug_assert!(wakes.is_empty());
                return Ok(Some(false));
            };
            self.set_winner(index as u32);
            // SAFETY: held by the select, or this operation itself.
            let leaf = unsafe { &*leaves[index] };
            if leaf.is_sending() && !leaf.is(Self::DEAD_END) {
                if leaf.woke(wakes) {
                    continue;
                }
            } else {
                wake::all(wakes);
            }
            return Ok(Some(true));
        }
    }

    /// Parks. `true`: it was decided after all. The sleeper is set.
    #[inline]
    fn park(&self) -> Py<bool> {
        let seen = self.seen();
        let shares = self.is_sharing();
        if self.is_on_channel() && !shares { self.park_on_channel(seen) } else { self.park_elsewhere(shares, seen) }
    }

    /// On a channel of this interpreter alone.
    #[inline]
    fn park_on_channel(&self, seen: Seen) -> Py<bool> {
        // SAFETY: nothing is parked; the waiter is ours. The node stays: the operation lives until it was unlinked, for a reference is counted for it.
        unsafe {
            self.waiter().arm(wake::waker(self));
            self.node.bind(self.waiter(), 0);
            self.add_references(1);
            let mut wakes = Wakes::new();
            let Some(at_work) = self.go_to_work(seen) else {
                drop(self.waiter().disarm());
                self.drop_references(1);
                return self.park();
            };
            let decided = if self.is_alone() {
                self.chan().commit_or_park_alone(&self.node, self.is_sending(), &mut wakes)
            } else if self.is_sending() {
                self.chan().send_or_park(&self.node, &mut wakes)
            } else {
                self.chan().recv_or_park(&self.node, &mut wakes)
            };
            drop(at_work);
            if !decided {
                debug_assert!(wakes.is_empty());
                std::mem::forget(wakes);
                return Ok(false);
            }
            drop(self.waiter().disarm());
            self.drop_references(1);
            if self.woke(wakes) { self.park() } else { Ok(true) }
        }
    }

    #[inline(never)]
    fn park_elsewhere(&self, shares: bool, seen: Seen) -> Py<bool> {
        if shares {
            self.check_place()?;
        }
        if self.kind == Kind::NextEvent {
            return self.selecting().park(self);
        }
        let remote = shares && self.is_remote();
        if remote {
            self.gather()?;
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
        if shares {
            self.with_leaves(|leaves| self.turn_leaves(leaves))?;
        }
        // SAFETY: nothing is parked; the waiter is ours.
        unsafe { self.waiter().arm(self.waker(shares)) };
        let decided = if self.is_on_channel() && remote {
            self.park_in_root()?
        } else if self.is_on_channel() {
            // SAFETY: as above. The node stays: the operation lives until it was unlinked, for `linked` references are counted for it.
            unsafe {
                self.node.bind(self.waiter(), 0);
                self.add_references(1);
                let mut wakes = Wakes::new();
                let Some(at_work) = self.go_to_work(seen) else {
                    drop(self.waiter().disarm());
                    self.silence();
                    self.drop_references(1);
                    return self.park();
                };
                let decided = if matches!(self.kind, Kind::Send | Kind::SendMany) {
                    self.chan().send_or_park(&self.node, &mut wakes)
                } else {
                    self.chan().recv_or_park(&self.node, &mut wakes)
                };
                drop(at_work);
                if decided {
                    drop(self.waiter().disarm());
                    self.silence();
                    self.drop_references(1);
                    if self.woke(wakes) {
                        return self.park();
                    }
                }
                decided
            }
        } else {
            let parked = self.with_leaves(|leaves| {
                let mut queued = 0;
                for (index, leaf) in leaves.iter().enumerate() {
                    // SAFETY: held by the select, or this operation itself; not parked.
                    unsafe {
                        let leaf = &**leaf;
                        queued += u32::from(leaf.as_case().has_queue());
                        match leaf.extra() {
                            Extra::Sync(node) => node.bind(self.waiter(), index as u32),
                            _ => leaf.node.bind(self.waiter(), index as u32),
                        }
                    }
                }
                // The clock and the descriptors first: they may fail, and nothing is offered yet.
                if let Err(raised) = self.arm_outside(leaves) {
                    self.disarm_outside();
                    // SAFETY: no node is in a queue, and what was armed outside is disarmed.
                    drop(unsafe { self.waiter().disarm() });
                    self.silence();
                    return Err(raised);
                }
                if !shares && self.is_sharing() {
                    // A channel became shared while the clock was asked: all over again.
                    self.disarm_outside();
                    // SAFETY: as above.
                    drop(unsafe { self.waiter().disarm() });
                    return Ok(None);
                }
                self.add_references(queued);
                let decided = self.attempt(leaves, true, remote, seen)?;
                if decided != Some(false) {
                    self.disarm_outside();
                    // SAFETY: as above.
                    drop(unsafe { self.waiter().disarm() });
                    self.silence();
                    self.drop_references(queued);
                } else if remote {
                    return self.park_in_root().map(Some);
                }
                Ok(decided)
            })?;
            match parked {
                Some(decided) => decided,
                None => return self.park(),
            }
        };
        Ok(decided)
    }

    /// Parked here, it parks in the root. `true`: it was decided meanwhile.
    fn park_in_root(&self) -> Py<bool> {
        if let Err(raised) = self.park_remote() {
            // What was met here meanwhile is undone with it: it has taken nothing.
            if !self.withdraw() {
                self.settle();
            }
            return Err(raised);
        }
        Ok(false)
    }

    fn is_plain_select(&self) -> bool {
        matches!(self.extra(), Extra::Select(select) if select.plain)
    }

    #[inline]
    fn add_references(&self, count: u32) {
        self.set_linked(count);
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
        self.set_linked(0);
        for _ in 0..count {
            // SAFETY: counted by `add_references`; the caller's reference keeps the operation alive.
            unsafe { c::Py_DECREF(self.as_ptr()) };
        }
    }

    /// The wait is over. Whoever met it may be about to look whom to wake: where threads run at the same time the sleeper stays until nobody has a
    /// reference to the operation any more.
    #[inline]
    fn leave_sleeper(&self) {
        #[cfg(not(Py_GIL_DISABLED))]
        if !self.leave_task() {
            self.set_sleeper(Sleeper::Nobody);
        }
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
        if self.was_moved() {
            self.leave_moved();
            return true;
        }
        if self.is(Self::REMOTE) && !self.recall() {
            return false;
        }
        if !self.waiter().withdraw() {
            return false;
        }
        self.unlink();
        self.disarm_outside();
        // SAFETY: withdrawn: the waiter is ours.
        drop(unsafe { self.waiter().clear() });
        self.drop_references(self.linked());
        self.silence();
        true
    }

    /// Leaves all queues of this process; also that of a channel that is the root's by now.
    fn unlink(&self) {
        // SAFETY: no longer armed.
        self.with_leaves(|leaves| Self::with_cases_here(leaves, |cases| unsafe { select::unlink(cases) }));
    }

    /// After a parked operation was decided: leaves all queues and gives back what was counted for them.
    fn settle(&self) {
        if self.kind == Kind::NextEvent {
            return;
        }
        let by_root = self.settle_remote();
        let met = self.waiter().met();
        let winner = if by_root { self.winner() } else { met.unwrap_or(0) };
        self.set_winner(winner);
        if self.is_on_channel() {
            // Its one node was claimed, and the reference went with the waker.
            self.set_linked(0);
            self.silence();
            return;
        }
        self.unlink();
        self.disarm_outside();
        // SAFETY: decided: the waiter is ours.
        drop(unsafe { self.waiter().clear() });
        // Of what was met here, though the root was first, a reference has gone with the waker all the same.
        let met = if by_root { met.filter(|case| *case != ANSWERED) } else { Some(winner) };
        let claimed = u32::from(met.is_some_and(|case| self.leaf(case).was_claimed_in_queue()));
        self.drop_references(self.linked().saturating_sub(claimed));
        self.silence();
    }

    pub fn is_met(&self) -> bool {
        match self.kind {
            Kind::NextEvent => self.selecting().is_met(),
            _ => self.waiter().met().is_some(),
        }
    }

    /// Decides an outside case (a timer that is due, a descriptor that is ready). `true`: it was still open, and whoever waits is to be woken.
    pub fn decide(&self, case: u32) -> bool {
        match self.waiter().claim(case) {
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
    pub unsafe fn wake(op: *mut Self) -> Option<Value> {
        // SAFETY: the caller's promise.
        unsafe {
            match (*op).asleep() {
                Asleep::Nobody => c::Py_DECREF(op.cast()),
                Asleep::Thread(parker) => {
                    // The party may wake, and drop its own, before `unpark` has returned.
                    Arc::increment_strong_count(parker);
                    let parker = Arc::from_raw(parker);
                    parker.unpark();
                    c::Py_DECREF(op.cast());
                }
                Asleep::Elsewhere(wake, _) => {
                    let wake = wake.clone();
                    let op = Owned::from_nullable(op.cast())?;
                    if !woke_elsewhere(&wake) {
                        return Self::of(op.as_ptr()).abandon();
                    }
                }
                Asleep::Loop(home) => {
                    if let Err(op) = home.push(op) {
                        let op = Owned::from_nullable(op.cast())?;
                        return Self::of(op.as_ptr()).abandon();
                    }
                }
            }
        }
        None
    }

    /// Whether nobody will come for a parked operation any more: its loop is closed, or its scheduler has ended.
    fn is_forsaken(&self) -> bool {
        match self.asleep() {
            Asleep::Loop(home) => home.is_closed(),
            Asleep::Elsewhere(_, Some(gone)) => is_gone(gone),
            _ => false,
        }
    }

    /// Withdraws a parked operation that nobody will come for any more. For where it would be missed as a party: a value that waits to be sent
    /// needs nobody to come for it.
    pub fn withdraw_forsaken(&self) {
        if self.is_parked() && self.is_forsaken() && self.withdraw() {
            self.give_up();
        }
    }

    /// For a decided operation that nobody will take up: it ends, and the value it received, if it did, is returned.
    fn abandon(&self) -> Option<Value> {
        if self.phase.swap(DONE) == DONE {
            return None;
        }
        if self.is(Self::CANCELLED) {
            return None;
        }
        if self.kind == Kind::NextEvent {
            return self.selecting().abandon();
        }
        if self.was_moved() {
            self.leave_moved();
            self.leave_sleeper();
            return None;
        }
        self.settle();
        let leaf = self.leaf(self.winner());
        self.leave_sleeper();
        if matches!(leaf.kind, Kind::Recv | Kind::RecvNext | Kind::RecvMany) && !leaf.is(Self::DEAD_END) {
            leaf.return_more();
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
            let leaf = self.leaf(self.winner());
            let lost = leaf.via().channel.give_back(value);
            leaf.via().channel.undelivered(lost);
        }
    }

    /// Performs as far as possible without waiting: `None` when it has to wait.
    #[inline(always)]
    pub fn perform_now(&self) -> Py<Option<Owned>> {
        self.begin()?;
        let mut decided = self.try_now().inspect_err(|_| self.phase.set(DONE))?;
        if !decided && self.has_default() && self.is_remote() {
            decided = self.try_remote().inspect_err(|_| self.phase.set(DONE))?;
        }
        if decided {
            return self.result().map(Some);
        }
        self.defaulted().transpose()
    }

    /// The result of one look at channels that another process keeps; for what is not to wait.
    pub fn perform_in_root(&self) -> Py<Option<Owned>> {
        if self.kind == Kind::NextEvent {
            return match self.selecting().try_in_root(self).inspect_err(|_| self.give_up())? {
                true => self.result().map(Some),
                false => Ok(None),
            };
        }
        if !self.is_remote() {
            return Ok(None);
        }
        match self.try_remote().inspect_err(|_| self.phase.set(DONE))? {
            true => self.result().map(Some),
            false => Ok(None),
        }
    }

    /// Tries, and keeps what it comes to for `take_decided`. `false`: it has to wait.
    pub fn decide_now(&self) -> Py<bool> {
        self.begin()?;
        let mut decided = self.try_now().inspect_err(|_| self.phase.set(DONE))?;
        if !decided && self.has_default() && self.is_remote() {
            decided = self.try_remote().inspect_err(|_| self.phase.set(DONE))?;
        }
        if !decided && self.has_default() {
            self.set_winner(DEFAULT);
        } else if !decided {
            return Ok(false);
        }
        self.phase.set(DECIDED);
        Ok(true)
    }

    /// Parks an operation that `decide_now` or `perform_now` could not decide. `true`: decided after all.
    pub fn park_undecided(&self, sleeper: Sleeper) -> Py<bool> {
        if self.phase.get() != RUNNING {
            return Err(ffi::runtime_error(&format!("{} cannot be parked: begin it first", self.description())));
        }
        self.set_sleeper(sleeper);
        let decided = self.park().inspect_err(|_| self.phase.set(DONE))?;
        self.phase.tell(if decided { DECIDED } else { PARKED });
        Ok(decided)
    }

    /// The result of an operation that is decided, whichever way.
    pub fn take_decided(&self) -> Py<Owned> {
        match self.phase.get() {
            PARKED if self.is_met() && !self.was_moved() => self.take_up(),
            DECIDED if self.winner() == DEFAULT => self.defaulted().unwrap_or_else(|| Ok(ffi::none())),
            DECIDED => {
                self.leave_sleeper();
                self.result()
            }
            phase => Err(match phase {
                DONE => self.misused(DONE),
                _ => ffi::runtime_error(&format!("{} is not decided yet", self.description())),
            }),
        }
    }

    /// Whether a fresh operation could be decided now. What can be decided at once by nobody but the one who looks is said to be ready; what
    /// others may take in between may not be any more.
    pub fn is_ready_now(&self) -> Py<bool> {
        if !self.is_fresh() {
            return Ok(false);
        }
        match self.extra() {
            _ if self.is_on_channel() => self.is_ready(),
            Extra::Select(select) if select.plain => self.with_leaves(|leaves| {
                for leaf in leaves {
                    // SAFETY: the select holds its leaves.
                    let leaf = unsafe { &**leaf };
                    if leaf.is_on_channel() && leaf.is_ready()? {
                        return Ok(true);
                    }
                }
                Ok(false)
            }),
            Extra::Time(delay) if self.kind == Kind::After => Ok(*delay <= 0.0),
            // Not told apart: a turn for the others before it is tried does no harm.
            _ => Ok(self.kind != Kind::Never),
        }
    }

    /// Of an `after`: for how long.
    pub fn delay_of(&self, case: u32) -> Option<f64> {
        let leaf = self.leaf(case);
        match (leaf.kind, leaf.extra()) {
            (Kind::After, Extra::Time(delay)) => Some(*delay),
            _ => None,
        }
    }

    /// It will not be performed.
    pub fn skip(&self) {
        if self.is_fresh() && self.claim_fresh(DONE).is_err() {
            // Somebody performs it in this instant.
            drop(ffi::take_error());
        }
    }

    /// What is behind the word of one that is may be looked at (2).
    #[inline]
    pub fn is_parked(&self) -> bool {
        self.phase.see() == PARKED
    }

    /// Whether it was begun, and is neither parked nor decided.
    pub fn is_running(&self) -> bool {
        self.phase.get() == RUNNING
    }

    /// Parks for the sleeper. `Some`: decided after all.
    #[inline]
    pub fn perform_parked(&self, sleeper: Sleeper) -> Py<Option<Owned>> {
        self.set_sleeper(sleeper);
        self.park_or_end()
    }

    /// The same, with the sleeper set.
    #[inline]
    fn park_or_end(&self) -> Py<Option<Owned>> {
        match self.park() {
            Ok(true) => self.result().map(Some),
            Ok(false) => {
                self.phase.tell(PARKED);
                Ok(None)
            }
            Err(raised) => {
                self.phase.set(DONE);
                Err(raised)
            }
        }
    }

    /// After a wake-up: is there a result? (A standing select may find that what woke it is gone again, and parks anew. So does any operation whose
    /// channel was taken over by the root.) After an error it is over.
    pub fn resume(&self) -> Py<bool> {
        match self.kind {
            Kind::NextEvent => Ok(self.selecting().resume(self)),
            _ if self.was_moved() => self.park_where_it_moved(),
            _ => Ok(true),
        }
    }

    /// The result of a parked operation that was decided.
    pub fn take_up(&self) -> Py<Owned> {
        if self.phase.get() != DECIDED {
            self.settle();
        }
        self.leave_sleeper();
        self.result()
    }

    /// Ends without a result. A leaf stays what it is: it ends with its select.
    pub fn give_up(&self) {
        if self.is_taken() {
            return;
        }
        self.phase.set(DONE);
        if self.kind == Kind::NextEvent {
            self.selecting().vacate(self);
        }
        self.leave_sleeper();
    }

    /// Blames the line of the program, for an operation made by one of weft's own Python functions.
    pub fn made_by_user(&self) {
        self.made().forget();
        self.set_made(Origin::of_user());
    }

    /// `recv on channel 'jobs' (...)`, for messages.
    pub fn description(&self) -> String {
        let what = match self.kind {
            Kind::Send => "send",
            Kind::Recv | Kind::RecvNext => "recv",
            Kind::RecvMany => "recv_many",
            Kind::SendMany => "send_many",
            Kind::Closing => "wait",
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
        let made = self.made().short();
        match self.is_on_channel() {
            // What has such a channel has named it for this: an event, or a process that is joined.
            true if self.kind == Kind::Closing => {
                format!("{what} for {}, operation made at {made},", self.via().channel.name())
            }
            true => format!("{what} on {}, operation made at {made},", self.via().channel.description()),
            false => format!("{what}, operation made at {made},"),
        }
    }

    /// Its result is handed to this function as well, after those it has already.
    fn add_function(&self, function: Owned) -> Py<()> {
        let mut functions = Vec::new();
        let known = self.map();
        if !known.is_null() {
            // SAFETY: a tuple that we hold.
            unsafe {
                for index in 0..c::PyTuple_GET_SIZE(known) {
                    functions.push(Owned::from_borrowed(c::PyTuple_GET_ITEM(known, index)));
                }
            }
        }
        functions.push(function);
        let functions = ffi::tuple(functions)?;
        ffi::put(&self.make_rare().map, Some(functions));
        Ok(())
    }

    fn warn_unperformed(&self) {
        let _aside = ffi::Aside::new();
        let (file, line) = self.made().place().unwrap_or(("unknown".to_owned(), 1));
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
}

/// Asks whether a party elsewhere is gone. What fails does not tell.
fn is_gone(gone: &Owned) -> bool {
    let _aside = ffi::Aside::new();
    // SAFETY: live objects.
    let answer =
        unsafe { ffi::call(gone.as_ptr(), &[]).and_then(|answer| ffi::check(c::PyObject_IsTrue(answer.as_ptr()))) };
    answer.map(|truth| truth != 0).unwrap_or_else(|Raised| {
        ffi::unraisable(gone.as_ptr());
        false
    })
}

/// Calls what wakes a party elsewhere. `false`: it said False, that it is gone, or failed.
fn woke_elsewhere(wake: &Owned) -> bool {
    let _aside = ffi::Aside::new();
    // SAFETY: live objects.
    match unsafe { ffi::call(wake.as_ptr(), &[]) } {
        // SAFETY: False lives for ever.
        Ok(answer) => answer.as_ptr() != unsafe { c::Py_False() },
        Err(Raised) => {
            ffi::unraisable(wake.as_ptr());
            false
        }
    }
}

// The slots and methods.

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
            // Nobody performs it meanwhile.
            op.claim_fresh(RUNNING)?;
            let added = op.add_function(Owned::from_borrowed(function));
            op.phase.tell(FRESH);
            added.map(|()| op.itself())
        }
    })
}

unsafe extern "C" fn repr(slf: *mut PyObject) -> *mut PyObject {
    ffi::edge_object(|| {
        // SAFETY: see `am_send`.
        let op = unsafe { OpObject::of(slf) };
        let phase = match op.phase.get() {
            SPARE => return ffi::string("<weft.Op: kept for the next operation>"),
            FRESH => "not performed",
            TAKEN => "in a select",
            PARKED if op.is(OpObject::CANCELLED) => "cancelled",
            PARKED => "waiting",
            DONE => "performed",
            _ => "being performed",
        };
        ffi::string(&format!("<weft.Op: {} {phase}>", op.description()))
    })
}

/// Makes the type.
pub fn make_type(module: *mut PyObject) -> Py<Owned> {
    use ffi::Method::{ClassOne, Fast, InsteadOfSlot, NoArguments, OneArgument};
    let methods = ffi::methods(
        "Op",
        &[
            (c"wait", Fast(wait)),
            (c"map", OneArgument(map)),
            (c"__await__", InsteadOfSlot(future::explicit_await)),
            (c"throw", Fast(throw)),
            (c"close", NoArguments(close)),
            (c"get_loop", NoArguments(future::get_loop)),
            (c"add_done_callback", Fast(future::add_done_callback)),
            (c"done", NoArguments(future::future_done)),
            (c"cancelled", NoArguments(future::future_cancelled)),
            (c"result", NoArguments(future::future_result)),
            (c"cancel", Fast(future::cancel)),
            (c"_fire", OneArgument(future::fire)),
            (c"_describe", NoArguments(lowlevel::describe)),
            (c"_party", NoArguments(lowlevel::party)),
            (c"_begin", NoArguments(lowlevel::begin)),
            (c"_park", Fast(lowlevel::park)),
            (c"_resume", NoArguments(lowlevel::resume)),
            (c"_withdraw", NoArguments(lowlevel::withdraw)),
            (c"_take", NoArguments(lowlevel::take)),
            (c"_undo", NoArguments(lowlevel::undo)),
            (c"_timer", NoArguments(lowlevel::timer)),
            (c"_descriptors", NoArguments(lowlevel::descriptors)),
            (c"_skip", NoArguments(lowlevel::skip)),
            (c"_is_ready", NoArguments(lowlevel::is_ready)),
            (c"_is_outside", NoArguments(lowlevel::is_outside)),
            (c"__class_getitem__", ClassOne(crate::channel::class_getitem)),
        ],
    );
    let properties =
        ffi::properties("Op", &[(c"_asyncio_future_blocking", future::get_blocking, Some(future::set_blocking))]);
    let slots = vec![
        ffi::slot(c::Py_tp_doc, crate::docs::doc("Op", "").cast_mut().cast()),
        ffi::slot(c::Py_tp_repr, repr as *mut c_void),
        ffi::slot(c::Py_am_await, future::am_await as *mut c_void),
        ffi::slot(c::Py_am_send, future::am_send as *mut c_void),
        ffi::slot(c::Py_tp_iternext, iternext as *mut c_void),
        ffi::slot(c::Py_tp_traverse, object::traverse as *mut c_void),
        ffi::slot(c::Py_tp_clear, object::clear as *mut c_void),
        ffi::slot(c::Py_tp_dealloc, object::dealloc as *mut c_void),
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
