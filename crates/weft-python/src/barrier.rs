//! `Barrier`: so many parties meet, again and again.

use std::ffi::{c_int, c_void};
use std::ptr;
use std::sync::OnceLock;
use std::task::Waker;

use weft_core::barrier::Barrier;
use weft_core::selecting::LOOK;
use weft_core::waiter::Claim;
use weft_link::{ChannelId, Client};

use crate::crossing::remote::{self, detached};
use crate::ffi::{self, Owned, Py, PyObject, c};
use crate::op::OpObject;
use crate::origin::Origin;
use crate::state::State;
use crate::{channel, errors, op};

/// `weft.Barrier`.
#[repr(C)]
pub struct BarrierObject {
    head: PyObject,
    /// Not used once the root has taken its place.
    pub barrier: Barrier,
    /// Its number in the root, in a process that is not that: since it first stood in a select beside a channel that the root keeps.
    far: OnceLock<ChannelId>,
    /// How often the process had been forked when it was made.
    forks: u32,
    made: Origin,
}

impl BarrierObject {
    /// # Safety
    /// A live `Barrier`.
    pub unsafe fn of<'a>(object: *mut PyObject) -> &'a Self {
        // SAFETY: the caller's promise.
        unsafe { &*object.cast() }
    }

    /// An error when it was made before this process was forked: whoever waits at it is not here.
    pub fn check_fork(&self) -> Py<()> {
        if self.is_inherited() {
            // SAFETY: a live object of ours.
            let state = unsafe { State::of(ptr::from_ref(self).cast_mut().cast()) };
            return Err(errors::forked_barrier(state, &self.made.short()));
        }
        Ok(())
    }

    /// Its number in the root, if it is there.
    #[inline]
    pub fn far(&self) -> Option<ChannelId> {
        self.far.get().copied()
    }

    /// Has the root keep it from now on. Who waits is woken to wait there, as with a channel (`share::move_to_root`).
    pub fn move_to_root(&self, state: &State, client: &'static Client) {
        if self.far().is_some() {
            return;
        }
        let number = client.barrier(self.barrier.parties());
        if self.far.set(number).is_err() {
            // Another thread was faster.
            return client.scrap(number);
        }
        // Nobody begins to wait here afterwards (`crossing::work`).
        #[cfg(Py_GIL_DISABLED)]
        state.place.seen_by_all();
        #[cfg(not(Py_GIL_DISABLED))]
        let _ = state;
        let mut wakers = Vec::new();
        // SAFETY: what is parked is alive.
        self.barrier.waiters(|waiter| wakers.extend(unsafe { waiter.as_ref() }.claim(LOOK).and_then(Claim::finish)));
        wakers.into_iter().for_each(Waker::wake);
    }

    /// How many wait.
    fn waiting(&self) -> usize {
        match (self.far(), remote::link()) {
            // Of a root that is gone nobody knows anything.
            (Some(number), Some(client)) => detached(|| client.len(number)).unwrap_or(0),
            _ => self.barrier.waiting(),
        }
    }

    /// Withdraws the parties whose world has ended: nobody is to pass because of them.
    pub fn turn_away_the_gone(&self, state: &State) {
        if self.far().is_some() {
            let here = |op: &Owned| {
                // SAFETY: an operation, which we hold.
                let op = unsafe { OpObject::of(op.as_ptr()) };
                op.is_sync_at(self)
            };
            for op in state.place.parked().into_iter().filter(here) {
                // SAFETY: as above.
                unsafe { OpObject::of(op.as_ptr()) }.withdraw_forsaken();
            }
            return;
        }
        let mut parked = Vec::new();
        self.barrier.visit(|waiter| {
            // SAFETY: in the queue, so alive.
            parked.extend(unsafe { Owned::from_nullable(op::of_waiter(waiter)) }.inspect(|op| unsafe {
                c::Py_INCREF(op.as_ptr());
            }));
        });
        for op in parked {
            // SAFETY: an operation, which we hold.
            unsafe { OpObject::of(op.as_ptr()) }.withdraw_forsaken();
        }
    }

    fn is_inherited(&self) -> bool {
        self.forks != channel::forks()
    }
}

unsafe extern "C" fn new(
    kind: *mut c::PyTypeObject,
    arguments: *mut PyObject,
    keywords: *mut PyObject,
) -> *mut PyObject {
    ffi::edge_object(|| {
        // SAFETY: what the interpreter passed to tp_new; our type, every field is written.
        unsafe {
            let [parties] = ffi::parameters_of_new("Barrier", ["parties"], 1, arguments, keywords)?;
            if parties.is_null() {
                return Err(ffi::type_error("Barrier() needs the number of parties"));
            }
            let parties = channel::count(parties, "parties", 1)?;
            let object = ffi::allocate(kind)?;
            let this: *mut BarrierObject = object.as_ptr().cast();
            (&raw mut (*this).barrier).write(Barrier::new(parties));
            (&raw mut (*this).far).write(OnceLock::new());
            (&raw mut (*this).forks).write(channel::forks());
            (&raw mut (*this).made).write(Origin::here());
            Ok(object)
        }
    })
}

unsafe extern "C" fn sync(slf: *mut PyObject, _: *mut PyObject) -> *mut PyObject {
    // SAFETY: the interpreter passes a live barrier, here and below.
    ffi::edge_object(|| unsafe {
        BarrierObject::of(slf).check_fork()?;
        op::sync(State::of(slf), slf)
    })
}

unsafe extern "C" fn get_parties(slf: *mut PyObject, _: *mut c_void) -> *mut PyObject {
    // SAFETY: see `sync`.
    ffi::edge_object(|| ffi::integer(unsafe { BarrierObject::of(slf) }.barrier.parties()))
}

unsafe extern "C" fn get_waiting(slf: *mut PyObject, _: *mut c_void) -> *mut PyObject {
    ffi::edge_object(|| {
        // SAFETY: see `sync`.
        let this = unsafe { BarrierObject::of(slf) };
        this.check_fork()?;
        // SAFETY: see `sync`.
        this.turn_away_the_gone(unsafe { State::of(slf) });
        ffi::integer(this.waiting())
    })
}

unsafe extern "C" fn repr(slf: *mut PyObject) -> *mut PyObject {
    ffi::edge_object(|| {
        // SAFETY: see `sync`.
        let this = unsafe { BarrierObject::of(slf) };
        let waiting = match this.is_inherited() {
            true => "inherited over a fork".to_owned(),
            false => format!("{} of {} waiting", this.waiting(), this.barrier.parties()),
        };
        ffi::string(&format!("<weft.Barrier {waiting}, made at {}>", this.made.short()))
    })
}

unsafe extern "C" fn traverse(slf: *mut PyObject, visit: c::visitproc, argument: *mut c_void) -> c_int {
    // SAFETY: from the collector.
    unsafe {
        let this = BarrierObject::of(slf);
        let mut stop = ffi::visit(c::Py_TYPE(slf).cast(), visit, argument);
        if !this.is_inherited() {
            this.barrier.visit(|waiter| {
                if stop == 0 {
                    stop = ffi::visit(op::of_waiter(waiter), visit, argument);
                }
            });
        }
        if stop == 0 { this.made.traverse(visit, argument) } else { stop }
    }
}

unsafe extern "C" fn dealloc(slf: *mut PyObject) {
    // SAFETY: the last reference is gone; nobody is parked, for whoever is holds one.
    unsafe {
        c::PyObject_GC_UnTrack(slf.cast());
        let this: *mut BarrierObject = slf.cast();
        if !(*this).is_inherited() {
            ptr::drop_in_place(&raw mut (*this).barrier);
            if let (Some(number), Some(client)) = ((*this).far(), remote::link()) {
                client.scrap(number);
            }
        }
        (*this).made.forget();
        ffi::free(slf);
    }
}

/// Makes the type.
pub fn make_type(module: *mut PyObject) -> Py<Owned> {
    use ffi::Method::NoArguments;
    let methods = ffi::methods("Barrier", &[(c"sync", NoArguments(sync))]);
    let properties = ffi::properties("Barrier", &[(c"parties", get_parties, None), (c"waiting", get_waiting, None)]);
    let slots = vec![
        ffi::slot(c::Py_tp_new, new as *mut c_void),
        ffi::slot(c::Py_tp_doc, crate::docs::doc("Barrier", "").cast_mut().cast()),
        ffi::slot(c::Py_tp_repr, repr as *mut c_void),
        ffi::slot(c::Py_tp_traverse, traverse as *mut c_void),
        ffi::slot(c::Py_tp_dealloc, dealloc as *mut c_void),
        ffi::slot(c::Py_tp_methods, methods.cast()),
        ffi::slot(c::Py_tp_getset, properties.cast()),
    ];
    // SAFETY: the slots are those of a `BarrierObject`.
    unsafe { ffi::make_type(module, c"weft.Barrier", size_of::<BarrierObject>(), c::Py_TPFLAGS_HAVE_GC as u64, slots) }
}
