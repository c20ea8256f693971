//! `after`, `at`, `tick`, `always`, `never`. No thread serves them: a loop's own timer does, or the deadline of the thread that waits.

use std::ffi::{c_int, c_void};
use std::ptr;
use std::sync::{Arc, Mutex, MutexGuard};

use weft_core::chan::{Chan, Overflow};

use crate::ffi::{self, Owned, Py, PyObject, c};
use crate::op::{self, Kind, OpObject};
use crate::origin::Origin;
use crate::state::{Ref, State};
use crate::value::Value;
use crate::wake;

/// `weft.Tick`.
#[repr(C)]
pub struct TickObject {
    head: PyObject,
    period: f64,
    /// Never sent to: its close is the tick's.
    pub closing: Arc<Chan<Value>>,
    inner: Mutex<Inner>,
}

struct Inner {
    /// When the next tick is due, on the monotonic clock.
    next: f64,
    closed: Origin,
}

impl TickObject {
    /// # Safety
    /// A live `Tick`.
    pub unsafe fn of<'a>(object: *mut PyObject) -> &'a Self {
        // SAFETY: the caller's promise.
        unsafe { &*object.cast() }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(|e| e.into_inner())
    }

    pub fn next(&self) -> f64 {
        self.inner().next
    }

    pub fn is_closed(&self) -> bool {
        self.closing.end().0.is_some()
    }

    /// The tick an operation has waited for; the ticks that nobody took meanwhile are dropped.
    pub fn take(&self, op: &OpObject) -> Py<Owned> {
        let state = op.state();
        if self.is_closed() {
            // Once it is known it stays what it is, so its reference is good without the lock.
            let closed = self.inner().closed;
            let closed = closed.short();
            if op.ends_iteration() {
                // SAFETY: an exception type.
                unsafe { c::PyErr_SetNone(c::PyExc_StopAsyncIteration) };
                return Err(ffi::Raised);
            }
            let message = format!("cannot receive: this tick of {} s was closed at {closed}", self.period);
            // SAFETY: an exception type.
            return Err(unsafe { ffi::raise(state.get(Ref::Closed), &message) });
        }
        let now = state.monotonic()?;
        let due = {
            let mut inner = self.inner();
            let due = inner.next.min(now);
            let missed = ((now - inner.next) / self.period).floor().max(0.0);
            if inner.next <= now {
                inner.next += (missed + 1.0) * self.period;
            }
            due
        };
        ffi::float(due)
    }
}

unsafe extern "C" fn repr(slf: *mut PyObject) -> *mut PyObject {
    ffi::edge_object(|| {
        // SAFETY: the interpreter passes a live tick.
        let this = unsafe { TickObject::of(slf) };
        let closed = if this.is_closed() { ", closed" } else { "" };
        ffi::string(&format!("<weft.Tick every {} s{closed}>", this.period))
    })
}

/// `after(seconds)`
pub unsafe extern "C" fn after(module: *mut PyObject, seconds: *mut PyObject) -> *mut PyObject {
    ffi::edge_object(|| {
        let seconds = ffi::seconds(seconds, "the delay")?;
        // SAFETY: the interpreter passes our module, here and below.
        op::timer(unsafe { crate::state_of_module(module) }, Kind::After, ptr::null_mut(), seconds)
    })
}

/// `at(time)`
pub unsafe extern "C" fn at(module: *mut PyObject, time: *mut PyObject) -> *mut PyObject {
    ffi::edge_object(|| {
        let time = ffi::seconds(time, "the time")?;
        // SAFETY: see `after`.
        op::timer(unsafe { crate::state_of_module(module) }, Kind::At, ptr::null_mut(), time)
    })
}

/// `always(value)`
pub unsafe extern "C" fn always(module: *mut PyObject, value: *mut PyObject) -> *mut PyObject {
    // SAFETY: see `after`.
    ffi::edge_object(|| unsafe { op::ready(crate::state_of_module(module), Owned::from_borrowed(value)) })
}

/// `never()`
pub unsafe extern "C" fn never(module: *mut PyObject, _: *mut PyObject) -> *mut PyObject {
    ffi::edge_object(|| {
        // SAFETY: see `after`.
        let state = unsafe { crate::state_of_module(module) };
        op::make(state, Kind::Never, ptr::null_mut(), None)
    })
}

/// `tick(period)`
pub unsafe extern "C" fn tick(module: *mut PyObject, period: *mut PyObject) -> *mut PyObject {
    ffi::edge_object(|| {
        let period = ffi::seconds(period, "the period")?;
        if period <= 0.0 || period.is_infinite() {
            return Err(ffi::value_error(&format!("the period must be positive and finite, not {period}")));
        }
        // SAFETY: see `after`; our type, every field is written before anybody sees the object.
        unsafe {
            let state = crate::state_of_module(module);
            let next = state.monotonic()? + period;
            let object = ffi::allocate(state.class(Ref::Tick))?;
            let this: *mut TickObject = object.as_ptr().cast();
            (&raw mut (*this).period).write(period);
            (&raw mut (*this).closing).write(Arc::new(Chan::new(Some(0), Overflow::Block)));
            (&raw mut (*this).inner).write(Mutex::new(Inner { next, closed: Origin::UNKNOWN }));
            Ok(object)
        }
    })
}

fn receive(slf: *mut PyObject, iterating: bool) -> Py<Owned> {
    // SAFETY: the interpreter passes a live tick, here and below.
    unsafe {
        let op = op::timer(State::of(slf), Kind::Tick, slf, f64::from(u8::from(iterating)))?;
        Ok(op)
    }
}

unsafe extern "C" fn recv(slf: *mut PyObject, _: *mut PyObject) -> *mut PyObject {
    ffi::edge_object(|| receive(slf, false))
}

unsafe extern "C" fn anext(slf: *mut PyObject) -> *mut PyObject {
    ffi::edge_object(|| receive(slf, true))
}

unsafe extern "C" fn next(slf: *mut PyObject) -> *mut PyObject {
    ffi::edge_object(|| {
        let op = receive(slf, true)?;
        // SAFETY: an operation.
        crate::thread::wait_in_iteration(unsafe { OpObject::of(op.as_ptr()) })
    })
}

unsafe extern "C" fn close(slf: *mut PyObject, _: *mut PyObject) -> *mut PyObject {
    ffi::edge_object(|| {
        let mut here = Origin::here();
        // SAFETY: see `receive`.
        let tick = unsafe { TickObject::of(slf) };
        if !tick.is_closed() {
            {
                let mut inner = tick.inner();
                if inner.closed.is_unknown() {
                    std::mem::swap(&mut inner.closed, &mut here);
                }
            }
            wake::all(tick.closing.close(None).1);
        }
        here.forget();
        Ok(ffi::none())
    })
}

unsafe extern "C" fn exit(slf: *mut PyObject, _: *const *mut PyObject, _: isize, _: *mut PyObject) -> *mut PyObject {
    // SAFETY: see `receive`.
    unsafe { close(slf, ptr::null_mut()) }
}

unsafe extern "C" fn get_period(slf: *mut PyObject, _: *mut c_void) -> *mut PyObject {
    // SAFETY: see `receive`.
    ffi::edge_object(|| ffi::float(unsafe { TickObject::of(slf) }.period))
}

unsafe extern "C" fn get_closed(slf: *mut PyObject, _: *mut c_void) -> *mut PyObject {
    // SAFETY: see `receive`.
    ffi::edge_object(|| Ok(ffi::boolean(unsafe { TickObject::of(slf) }.is_closed())))
}

unsafe extern "C" fn traverse(slf: *mut PyObject, visit: c::visitproc, argument: *mut c_void) -> c_int {
    // SAFETY: from the collector.
    unsafe {
        let mut stop = ffi::visit(c::Py_TYPE(slf).cast(), visit, argument);
        // Whoever waits for a tick stands among the receivers of `closing`, with a reference.
        TickObject::of(slf).closing.visit(
            |_| {},
            |_| {},
            |waiter| {
                if stop == 0 {
                    stop = ffi::visit(op::of_waiter(waiter), visit, argument);
                }
            },
        );
        stop
    }
}

unsafe extern "C" fn dealloc(slf: *mut PyObject) {
    // SAFETY: the last reference is gone; each field is dropped once.
    unsafe {
        c::PyObject_GC_UnTrack(slf.cast());
        let this: *mut TickObject = slf.cast();
        (*this).inner.get_mut().unwrap_or_else(|e| e.into_inner()).closed.forget();
        ptr::drop_in_place(&raw mut (*this).closing);
        ptr::drop_in_place(&raw mut (*this).inner);
        ffi::free(slf);
    }
}

/// Makes the type.
pub fn make_type(module: *mut PyObject) -> Py<Owned> {
    use ffi::Method::{Fast, NoArguments};
    let methods = ffi::methods(
        "Tick",
        &[
            (c"recv", NoArguments(recv)),
            (c"close", NoArguments(close)),
            (c"__enter__", NoArguments(crate::channel::enter)),
            (c"__exit__", Fast(exit)),
        ],
    );
    let properties = ffi::properties("Tick", &[(c"period", get_period, None), (c"closed", get_closed, None)]);
    let slots = vec![
        ffi::slot(c::Py_tp_doc, crate::docs::doc("Tick", "").cast_mut().cast()),
        ffi::slot(c::Py_tp_iter, crate::channel::itself as *mut c_void),
        ffi::slot(c::Py_tp_iternext, next as *mut c_void),
        ffi::slot(c::Py_am_aiter, crate::channel::itself as *mut c_void),
        ffi::slot(c::Py_am_anext, anext as *mut c_void),
        ffi::slot(c::Py_tp_repr, repr as *mut c_void),
        ffi::slot(c::Py_tp_traverse, traverse as *mut c_void),
        ffi::slot(c::Py_tp_dealloc, dealloc as *mut c_void),
        ffi::slot(c::Py_tp_methods, methods.cast()),
        ffi::slot(c::Py_tp_getset, properties.cast()),
    ];
    // SAFETY: the slots are those of a `TickObject`.
    unsafe {
        ffi::make_type(
            module,
            c"weft.Tick",
            size_of::<TickObject>(),
            (c::Py_TPFLAGS_HAVE_GC | c::Py_TPFLAGS_DISALLOW_INSTANTIATION) as u64,
            slots,
        )
    }
}
