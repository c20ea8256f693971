//! The extension module `weft._weft`: weft-core's channels as Python objects.
//!
//! - `ffi` is the door to the C API; `state` is what one interpreter's copy of the module holds.
//! - `channel` and `ends` are the channels; `op` is the operation that every waiting call returns, `select` and `selecting` are made of it.
//! - `home` is the asyncio side (a loop's queue of decided operations), `task` what it steps without the loop, `thread` the blocking one, `scope` the cancelling of threads.
//! - `wake` is where the two meet: whoever meets a parked operation wakes it there.
//! - `stop` is the exception that carries the result of an `await`, `awaiting` what `op.__await__()` returns.
//! - `value` is what is in a channel, `crossing` all that leaves an interpreter.
//! - `timers`, `barrier`, `io` are further kinds of operation; `errors` and `origin` say what went wrong, and where.
//!
//! On PyPy none of this is compiled: the module is then a bridge to the package `weft._pure`, see `ffi/pypy.rs`.
//!
//! The module has multi-phase initialisation, all its types are heap types in per-interpreter state, and no Python object is in a Rust
//! static: it loads in interpreters with a GIL of their own, and in free-threaded builds without re-enabling theirs.

// The interpreter calls the entry points, with what its documentation promises.
#![allow(clippy::missing_safety_doc)]
// Flags are a C `unsigned long`, whose size differs between systems.
#![allow(clippy::unnecessary_cast)]

#[cfg(PyPy)]
#[path = "ffi/pypy.rs"]
mod pypy;

#[cfg(not(PyPy))]
mod attached;
#[cfg(not(PyPy))]
mod awaiting;
#[cfg(not(PyPy))]
mod barrier;
#[cfg(not(PyPy))]
mod channel;
#[cfg(not(PyPy))]
mod context;
#[cfg(not(PyPy))]
mod crossing;
#[cfg(not(PyPy))]
mod docs;
#[cfg(not(PyPy))]
mod ends;
#[cfg(not(PyPy))]
mod errors;
#[cfg(not(PyPy))]
mod ffi;
#[cfg(not(PyPy))]
mod group;
#[cfg(not(PyPy))]
mod handle;
#[cfg(not(PyPy))]
mod home;
#[cfg(not(PyPy))]
mod io;
#[cfg(not(PyPy))]
mod lowlevel;
#[cfg(not(PyPy))]
mod op;
#[cfg(not(PyPy))]
mod origin;
#[cfg(not(PyPy))]
mod scope;
#[cfg(not(PyPy))]
mod select;
#[cfg(not(PyPy))]
mod selected;
#[cfg(not(PyPy))]
mod selecting;
#[cfg(not(PyPy))]
mod sites;
#[cfg(not(PyPy))]
mod state;
#[cfg(not(PyPy))]
mod stop;
#[cfg(not(PyPy))]
mod task;
#[cfg(not(PyPy))]
mod thread;
#[cfg(not(PyPy))]
mod timers;
#[cfg(not(PyPy))]
mod value;
#[cfg(not(PyPy))]
mod wake;

#[cfg(not(PyPy))]
use std::ffi::{c_int, c_void};
#[cfg(not(PyPy))]
use std::ptr;
#[cfg(not(PyPy))]
use std::sync::Arc;

#[cfg(not(PyPy))]
use ffi::{Owned, Py, PyObject, c};
#[cfg(not(PyPy))]
use state::{Ref, State};

/// The state of our module.
///
/// # Safety
/// `module` is ours, and was executed.
#[cfg(not(PyPy))]
unsafe fn state_of_module<'a>(module: *mut PyObject) -> &'a State {
    // SAFETY: the caller's promise: the module holds a pointer to its state.
    unsafe { &**c::PyModule_GetState(module).cast::<*const State>() }
}

#[cfg(not(PyPy))]
fn execute(module: &Owned) -> Py<()> {
    ffi::frame::probe();
    context::probe()?;
    // Shared with the channels: the last ones may outlive the module.
    let state = Arc::into_raw(Arc::new(State::new()));
    // SAFETY: room for a pointer (`m_size`), null before; given back in `free`.
    let state = unsafe {
        c::PyModule_GetState(module.as_ptr()).cast::<*const State>().write(state);
        &*state
    };
    state.fill()?;
    let (sender, receiver) = ends::make_types(module.as_ptr())?;
    let (home, drain) = home::make_types(module.as_ptr())?;
    let types = [
        (Ref::Channel, c"Channel", channel::make_type(module.as_ptr())?),
        (Ref::Sender, c"Sender", sender),
        (Ref::Receiver, c"Receiver", receiver),
        (Ref::Op, c"Op", op::make_type(module.as_ptr())?),
        (Ref::Selecting, c"Selecting", selecting::make_type(module.as_ptr())?),
        (Ref::Tick, c"Tick", timers::make_type(module.as_ptr())?),
        (Ref::Barrier, c"Barrier", barrier::make_type(module.as_ptr())?),
        (Ref::Scope, c"Scope", scope::make_type(module.as_ptr())?),
        (Ref::Home, c"_Home", home),
        (Ref::Drain, c"_Drain", drain),
        (Ref::Selected, c"Selected", selected::make_type(module.as_ptr())?),
        (Ref::Statistics, c"Statistics", channel::make_statistics(module.as_ptr())?),
        (Ref::Await, c"_Await", awaiting::make_type(module.as_ptr())?),
        (Ref::WeftTask, c"Task", task::make_type(module.as_ptr())?),
        (Ref::Stop, c"_Stop", stop::make_type(module.as_ptr())?),
        (Ref::Memory, c"_Memory", crossing::decode::make_type(module.as_ptr())?),
    ];
    let group = group::make_type(module.as_ptr())?;
    ffi::set_attribute(module, c"_Group", group.as_ptr())?;
    let handle = handle::make_type(module.as_ptr())?;
    ffi::set_attribute(module, c"_Handle", handle.as_ptr())?;
    for (name, attribute, kind) in types {
        ffi::set_attribute(module, attribute, kind.as_ptr())?;
        state.set(name, kind);
    }
    ffi::set_attribute(module, c"_steps_tasks", ffi::boolean(cfg!(not(Py_GIL_DISABLED))).as_ptr())?;
    let version = ffi::string(env!("CARGO_PKG_VERSION"))?;
    ffi::set_attribute(module, c"__version__", version.as_ptr())?;
    register_fork_hook(module)
}

/// Has a forked child know that it is one.
#[cfg(not(PyPy))]
fn register_fork_hook(module: &Owned) -> Py<()> {
    let os = ffi::import(c"os", None)?;
    // SAFETY: live objects; the call takes keywords only.
    unsafe {
        let register = c::PyObject_GetAttrString(os.as_ptr(), c"register_at_fork".as_ptr());
        let Some(register) = Owned::from_nullable(register) else {
            // A system without fork.
            c::PyErr_Clear();
            return Ok(());
        };
        let hook = Owned::from_new(c::PyObject_GetAttrString(module.as_ptr(), c"_after_fork".as_ptr()))?;
        let names = ffi::tuple(vec![ffi::string("after_in_child")?])?;
        let arguments = [hook.as_ptr()];
        Owned::from_new(c::PyObject_Vectorcall(register.as_ptr(), arguments.as_ptr(), 0, names.as_ptr()))?;
    }
    Ok(())
}

#[cfg(not(PyPy))]
unsafe extern "C" fn exec(module: *mut PyObject) -> c_int {
    ffi::edge(-1, || {
        // SAFETY: the interpreter passes the module being made.
        execute(&unsafe { Owned::from_borrowed(module) })?;
        Ok(0)
    })
}

#[cfg(not(PyPy))]
unsafe extern "C" fn traverse(module: *mut PyObject, visit: c::visitproc, argument: *mut c_void) -> c_int {
    // SAFETY: from the collector; the state may not be there yet.
    unsafe {
        let state = c::PyModule_GetState(module).cast::<*const State>();
        if state.is_null() || (*state).is_null() {
            return 0;
        }
        (**state).traverse(visit, argument)
    }
}

#[cfg(not(PyPy))]
unsafe extern "C" fn free(module: *mut c_void) {
    // SAFETY: the module goes, and with it its pointer to the state. (There is no `m_clear`: the collector breaks cycles at the types.)
    unsafe {
        let state = c::PyModule_GetState(module.cast()).cast::<*const State>();
        if !state.is_null() && !(*state).is_null() {
            let state = Arc::from_raw(state.replace(ptr::null()));
            // A home that ends after this cannot take itself out, and a channel may still hold the state.
            #[cfg(not(Py_GIL_DISABLED))]
            state.last_home.store(ptr::null_mut(), std::sync::atomic::Ordering::Relaxed);
            drop(state);
        }
    }
}

/// What Python calls to find the module: its definition, made once per process and never changed after (the interpreter writes its header).
#[cfg(not(PyPy))]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn PyInit__weft() -> *mut PyObject {
    use ffi::Method::{Fast, NoArguments, OneArgument};
    static DEFINITION: std::sync::OnceLock<usize> = std::sync::OnceLock::new();
    let definition = DEFINITION.get_or_init(|| {
        let functions = ffi::methods(
            "",
            &[
                (c"select", Fast(select::select)),
                (c"_add_scheduler", Fast(lowlevel::add_scheduler)),
                (c"_scheduler_here", NoArguments(lowlevel::scheduler_here)),
                (c"selecting", Fast(selecting::selecting)),
                (c"after", OneArgument(timers::after)),
                (c"at", OneArgument(timers::at)),
                (c"tick", OneArgument(timers::tick)),
                (c"always", OneArgument(timers::always)),
                (c"never", NoArguments(timers::never)),
                (c"readable", OneArgument(io::readable)),
                (c"writable", OneArgument(io::writable)),
                (c"_after_fork", NoArguments(channel::after_fork)),
                (c"_add_peer", Fast(crossing::remote::add_peer)),
                (c"_disconnect", OneArgument(crossing::remote::disconnect)),
                (c"_given_up", OneArgument(crossing::remote::why_given_up)),
                (c"_connect", OneArgument(crossing::remote::connect)),
                (c"_leave_root", NoArguments(crossing::remote::leave_root)),
                (c"_share", OneArgument(crossing::share::share_channel)),
                (c"_check_crossing", OneArgument(crossing::encode::check)),
                (c"_spin", OneArgument(thread::set_spin)),
                (c"_listen", NoArguments(crossing::place::listen)),
                (c"_leave", NoArguments(crossing::place::leave)),
                (c"_interpreter", OneArgument(crossing::interpreter::run)),
            ],
        );
        let slots = vec![
            c::PyModuleDef_Slot { slot: c::Py_mod_exec, value: exec as *mut c_void },
            #[cfg(Py_3_12)]
            c::PyModuleDef_Slot {
                slot: c::Py_mod_multiple_interpreters,
                value: c::Py_MOD_PER_INTERPRETER_GIL_SUPPORTED,
            },
            #[cfg(Py_3_13)]
            c::PyModuleDef_Slot { slot: c::Py_mod_gil, value: c::Py_MOD_GIL_NOT_USED },
            c::PyModuleDef_Slot::default(),
        ];
        let definition = c::PyModuleDef {
            m_base: c::PyModuleDef_HEAD_INIT,
            m_name: c"weft._weft".as_ptr(),
            m_doc: c"Channels, select and what belongs to them. The package weft is its face.".as_ptr(),
            m_size: size_of::<*mut State>() as isize,
            m_methods: functions,
            m_slots: Box::leak(slots.into_boxed_slice()).as_mut_ptr(),
            m_traverse: Some(traverse),
            m_clear: None,
            m_free: Some(free),
        };
        Box::into_raw(Box::new(definition)) as usize
    });
    // SAFETY: a definition that lives for ever.
    unsafe { c::PyModuleDef_Init(*definition as *mut c::PyModuleDef) }
}
