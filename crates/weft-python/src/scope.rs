//! `Scope`: what the cancellation of threads hangs on. A group makes one; each thread of the group runs under it, and every `wait()` heeds it.

use std::cell::RefCell;
use std::ffi::{c_int, c_void};
use std::ptr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Instant;

use crate::ffi::{self, Owned, Py, PyObject, c};
use crate::state::{Ref, State};
use crate::thread::{self, Parker};

/// A scope, shared between its Python object, its children and the threads that run under it.
pub struct Scope {
    parent: Option<Arc<Scope>>,
    cancelled: AtomicBool,
    inner: Mutex<Inner>,
}

struct Inner {
    /// On the monotonic clock, seconds.
    deadline: Option<f64>,
    /// Who is parked under this scope or one below it.
    parked: Vec<Parked>,
}

/// Somebody who is to look again when a scope changes: a thread, or what to call for a party of another scheduler.
#[derive(Clone)]
enum Parked {
    Thread(Arc<Parker>),
    Elsewhere(Owned),
}

impl Parked {
    fn is(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Thread(one), Self::Thread(other)) => Arc::ptr_eq(one, other),
            (Self::Elsewhere(one), Self::Elsewhere(other)) => one.as_ptr() == other.as_ptr(),
            _ => false,
        }
    }

    fn rouse(&self) {
        match self {
            Self::Thread(parker) => parker.unpark(),
            Self::Elsewhere(call) => {
                let _aside = ffi::Aside::new();
                // SAFETY: a live callable.
                if unsafe { ffi::call(call.as_ptr(), &[]) }.is_err() {
                    ffi::unraisable(call.as_ptr());
                }
            }
        }
    }
}

/// `weft._weft.Scope`.
#[repr(C)]
pub struct ScopeObject {
    head: PyObject,
    scope: Arc<Scope>,
}

thread_local! {
    /// The scopes entered in this thread, each with the module state (hence the interpreter) it belongs to, and the party (zero, or a greenlet).
    static ENTERED: RefCell<Vec<(*const State, usize, Arc<Scope>)>> = const { RefCell::new(Vec::new()) };
}

/// The scope this thread, or this greenlet, runs under.
#[inline]
pub fn current(state: &State) -> Py<Option<Arc<Scope>>> {
    if ENTERED.with(|entered| entered.borrow().is_empty()) {
        return Ok(None);
    }
    let party = state.party()?;
    Ok(ENTERED.with(|entered| {
        let entered = entered.borrow();
        let mine = entered.iter().rev().find(|(owner, whose, _)| ptr::eq(*owner, state) && *whose == party);
        mine.map(|(_, _, scope)| Arc::clone(scope))
    }))
}

/// While it lives, the parker is unparked when the scope or one above it is cancelled or gets another deadline.
pub struct Enrolled<'a> {
    scope: &'a Scope,
    parked: Parked,
}

impl Drop for Enrolled<'_> {
    fn drop(&mut self) {
        self.scope.leave(&self.parked);
    }
}

impl Scope {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(|e| e.into_inner())
    }

    fn chain(&self) -> impl Iterator<Item = &Scope> {
        std::iter::successors(Some(self), |scope| scope.parent.as_deref())
    }

    /// Whether this scope or one above it is cancelled, be it that its deadline has passed.
    pub fn is_cancelled(&self, state: &State) -> Py<bool> {
        let mut now = None;
        for scope in self.chain() {
            if scope.cancelled.load(Ordering::Acquire) {
                return Ok(true);
            }
            let deadline = scope.inner().deadline;
            if let Some(deadline) = deadline {
                let now = match now {
                    Some(now) => now,
                    None => *now.insert(state.monotonic()?),
                };
                if now >= deadline {
                    scope.cancel();
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    fn deadline(&self) -> Option<f64> {
        self.chain().filter_map(|scope| scope.inner().deadline).reduce(f64::min)
    }

    /// The first deadline of this scope and those above it.
    pub fn instant(&self, state: &State) -> Py<Option<Instant>> {
        match self.deadline() {
            None => Ok(None),
            Some(deadline) => Ok(thread::after((deadline - state.monotonic()?).max(0.0))),
        }
    }

    pub fn enroll(&self, parker: &Arc<Parker>) -> Enrolled<'_> {
        let parked = Parked::Thread(Arc::clone(parker));
        self.join(&parked);
        Enrolled { scope: self, parked }
    }

    fn join(&self, parked: &Parked) {
        for scope in self.chain() {
            scope.inner().parked.push(parked.clone());
        }
        // A cancel that came before we were in the list is seen by whoever sleeps: leave a token.
        if self.chain().any(|scope| scope.cancelled.load(Ordering::Acquire)) {
            parked.rouse();
        }
    }

    fn leave(&self, parked: &Parked) {
        for scope in self.chain() {
            let gone = {
                let mut inner = scope.inner();
                let at = inner.parked.iter().position(|other| other.is(parked));
                at.map(|at| inner.parked.swap_remove(at))
            };
            // Dropped after the lock.
            drop(gone);
        }
    }

    fn cancel(&self) {
        self.cancelled.store(true, Ordering::Release);
        self.rouse();
    }

    /// Has everybody parked below look again.
    fn rouse(&self) {
        let parked = self.inner().parked.clone();
        for parked in parked {
            parked.rouse();
        }
    }
}

unsafe fn of<'a>(object: *mut PyObject) -> &'a ScopeObject {
    // SAFETY: the caller passes a live `Scope`.
    unsafe { &*object.cast() }
}

fn object(state: &State, scope: Arc<Scope>) -> Py<Owned> {
    // SAFETY: our type; every field is written.
    unsafe {
        let object = ffi::allocate(state.class(Ref::Scope))?;
        (&raw mut (*object.as_ptr().cast::<ScopeObject>()).scope).write(scope);
        Ok(object)
    }
}

unsafe extern "C" fn new(
    kind: *mut c::PyTypeObject,
    arguments: *mut PyObject,
    keywords: *mut PyObject,
) -> *mut PyObject {
    ffi::edge_object(|| {
        // SAFETY: what the interpreter passed to tp_new.
        unsafe {
            let [parent] = ffi::parameters_of_new("Scope", ["parent"], 1, arguments, keywords)?;
            let state = State::of_type(kind);
            let parent = if parent.is_null() || parent == c::Py_None() {
                None
            } else if state.is(parent, Ref::Scope) {
                Some(Arc::clone(&of(parent).scope))
            } else {
                return Err(ffi::type_error(&format!(
                    "parent must be a Scope or None, not {}",
                    ffi::type_name(parent)
                )));
            };
            object(
                state,
                Arc::new(Scope {
                    parent,
                    cancelled: AtomicBool::new(false),
                    inner: Mutex::new(Inner { deadline: None, parked: Vec::new() }),
                }),
            )
        }
    })
}

unsafe extern "C" fn cancel(slf: *mut PyObject, _: *mut PyObject) -> *mut PyObject {
    ffi::edge_object(|| {
        // SAFETY: the interpreter passes a live scope, here and below.
        unsafe { of(slf) }.scope.cancel();
        Ok(ffi::none())
    })
}

/// `_take_back()`: what was begun under it since goes on as if it had not been cancelled.
unsafe extern "C" fn take_back(slf: *mut PyObject, _: *mut PyObject) -> *mut PyObject {
    ffi::edge_object(|| {
        // Release: as in `cancel`.
        // SAFETY: see `cancel`.
        unsafe { of(slf) }.scope.cancelled.store(false, Ordering::Release);
        Ok(ffi::none())
    })
}

unsafe extern "C" fn enter(slf: *mut PyObject, _: *mut PyObject) -> *mut PyObject {
    ffi::edge_object(|| {
        // SAFETY: see `cancel`.
        let (scope, state) = unsafe { (Arc::clone(&of(slf).scope), State::of(slf)) };
        let party = state.party()?;
        ENTERED.with(|entered| entered.borrow_mut().push((ptr::from_ref(state), party, scope)));
        Ok(ffi::none())
    })
}

unsafe extern "C" fn exit(slf: *mut PyObject, _: *mut PyObject) -> *mut PyObject {
    ffi::edge_object(|| {
        // SAFETY: see `cancel`.
        let (scope, state) = unsafe { (&of(slf).scope, State::of(slf)) };
        let party = state.party()?;
        let left = ENTERED.with(|entered| {
            let mut entered = entered.borrow_mut();
            let last = entered.iter().rposition(|(owner, whose, _)| ptr::eq(*owner, state) && *whose == party)?;
            if Arc::ptr_eq(&entered[last].2, scope) { Some(entered.remove(last)) } else { None }
        });
        match left {
            Some(_) => Ok(ffi::none()),
            None => Err(ffi::runtime_error("this scope is not the one this thread entered last")),
        }
    })
}

unsafe extern "C" fn get_current(kind: *mut PyObject, _: *mut PyObject) -> *mut PyObject {
    ffi::edge_object(|| {
        // SAFETY: a class method of our type.
        let state = unsafe { State::of_type(kind.cast()) };
        match current(state)? {
            Some(scope) => object(state, scope),
            None => Ok(ffi::none()),
        }
    })
}

unsafe extern "C" fn get_cancelled(slf: *mut PyObject, _: *mut c_void) -> *mut PyObject {
    // SAFETY: see `cancel`.
    ffi::edge_object(|| unsafe { Ok(ffi::boolean(of(slf).scope.is_cancelled(State::of(slf))?)) })
}

unsafe extern "C" fn get_deadline(slf: *mut PyObject, _: *mut c_void) -> *mut PyObject {
    ffi::edge_object(|| {
        // SAFETY: see `cancel`.
        let deadline = unsafe { of(slf) }.scope.inner().deadline;
        deadline.map_or_else(|| Ok(ffi::none()), ffi::float)
    })
}

unsafe extern "C" fn set_deadline(slf: *mut PyObject, value: *mut PyObject, _: *mut c_void) -> c_int {
    ffi::edge(-1, || {
        // SAFETY: see `cancel`; null means deletion.
        unsafe {
            let deadline =
                if value.is_null() || value == c::Py_None() { None } else { Some(ffi::seconds(value, "deadline")?) };
            let scope = &of(slf).scope;
            scope.inner().deadline = deadline;
            scope.rouse();
        }
        Ok(0)
    })
}

/// `_enroll(call)`: have it called when the scope or one above it is cancelled or gets another deadline.
unsafe extern "C" fn enroll(slf: *mut PyObject, call: *mut PyObject) -> *mut PyObject {
    ffi::edge_object(|| {
        // SAFETY: see `cancel`.
        unsafe { of(slf).scope.join(&Parked::Elsewhere(Owned::from_borrowed(call))) };
        Ok(ffi::none())
    })
}

/// `_leave(call)`: no more.
unsafe extern "C" fn leave(slf: *mut PyObject, call: *mut PyObject) -> *mut PyObject {
    ffi::edge_object(|| {
        // SAFETY: see `cancel`.
        unsafe { of(slf).scope.leave(&Parked::Elsewhere(Owned::from_borrowed(call))) };
        Ok(ffi::none())
    })
}

/// `_left()`: seconds until the first deadline of the scope and those above it, or None.
unsafe extern "C" fn left(slf: *mut PyObject, _: *mut PyObject) -> *mut PyObject {
    ffi::edge_object(|| {
        // SAFETY: see `cancel`.
        let (scope, state) = unsafe { (&of(slf).scope, State::of(slf)) };
        match scope.deadline() {
            None => Ok(ffi::none()),
            Some(deadline) => ffi::float((deadline - state.monotonic()?).max(0.0)),
        }
    })
}

unsafe extern "C" fn dealloc(slf: *mut PyObject) {
    // SAFETY: the last reference is gone.
    unsafe {
        ptr::drop_in_place(&raw mut (*slf.cast::<ScopeObject>()).scope);
        ffi::free(slf);
    }
}

/// Makes the type.
pub fn make_type(module: *mut PyObject) -> Py<Owned> {
    use ffi::Method::{ClassNone, NoArguments, OneArgument};
    let methods = ffi::methods(
        "Scope",
        &[
            (c"cancel", NoArguments(cancel)),
            (c"_take_back", NoArguments(take_back)),
            (c"enter", NoArguments(enter)),
            (c"exit", NoArguments(exit)),
            (c"current", ClassNone(get_current)),
            (c"_enroll", OneArgument(enroll)),
            (c"_leave", OneArgument(leave)),
            (c"_left", NoArguments(left)),
        ],
    );
    let properties = ffi::properties(
        "Scope",
        &[(c"cancelled", get_cancelled, None), (c"deadline", get_deadline, Some(set_deadline))],
    );
    let slots = vec![
        ffi::slot(c::Py_tp_new, new as *mut c_void),
        ffi::slot(c::Py_tp_doc, crate::docs::doc("Scope", "").cast_mut().cast()),
        ffi::slot(c::Py_tp_dealloc, dealloc as *mut c_void),
        ffi::slot(c::Py_tp_methods, methods.cast()),
        ffi::slot(c::Py_tp_getset, properties.cast()),
    ];
    // SAFETY: the slots are those of a `ScopeObject`.
    unsafe { ffi::make_type(module, c"weft._weft.Scope", size_of::<ScopeObject>(), 0, slots) }
}
