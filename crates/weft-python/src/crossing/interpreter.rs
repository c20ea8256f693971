//! An interpreter of its own: with its own GIL, made, used and ended by one thread.

use crate::ffi::{self, PyObject};

#[cfg(Py_3_12)]
pub use isolated::run;

/// As below, where there are none.
#[cfg(not(Py_3_12))]
pub unsafe extern "C" fn run(_: *mut PyObject, _: *mut PyObject) -> *mut PyObject {
    ffi::edge_object(|| Err(ffi::runtime_error("interpreters of their own need Python 3.12 or later")))
}

#[cfg(Py_3_12)]
mod isolated {
    use std::ptr;

    use super::{PyObject, ffi};
    use crate::crossing::{decode, encode, payload::Payload};
    use crate::ffi::{Owned, Py, Raised, c};

    /// `_interpreter(job)`: makes an interpreter, calls `weft._worker.main(job)` in it, and ends it. The calling thread has left its own interpreter
    /// meanwhile. `main` keeps its errors; what goes wrong before is raised here, as a `RuntimeError`.
    pub unsafe extern "C" fn run(module: *mut PyObject, job: *mut PyObject) -> *mut PyObject {
        ffi::edge_object(|| {
            // SAFETY: the interpreter passes our module and a live object.
            let state = unsafe { crate::state_of_module(module) };
            // SAFETY: as above.
            let job = encode::encode(state, unsafe { Owned::from_borrowed(job) })?;
            let path = path()?;
            let config = c::PyInterpreterConfig {
                use_main_obmalloc: 0,
                allow_fork: 0,
                allow_exec: 0,
                allow_threads: 1,
                allow_daemon_threads: 0,
                check_multi_interp_extensions: 1,
                gil: c::PyInterpreterConfig_OWN_GIL,
            };
            // SAFETY: this thread is attached to its own interpreter before and after, and to the new one between; what is made there ends there.
            let failed = unsafe {
                let before = c::PyThreadState_Get();
                let mut thread = ptr::null_mut();
                let status = c::Py_NewInterpreterFromConfig(&mut thread, &config);
                if c::PyStatus_Exception(status) != 0 || thread.is_null() {
                    return Err(ffi::runtime_error("Python could not make another interpreter"));
                }
                let failed = ffi::edge(None, || Ok(call(&path, *job).err().map(|Raised| text_of_error())));
                c::Py_EndInterpreter(thread);
                c::PyEval_RestoreThread(before);
                failed
            };
            match failed {
                None => Ok(ffi::none()),
                Some(text) => Err(ffi::runtime_error(&format!("the new interpreter could not begin: {text}"))),
            }
        })
    }

    /// `sys.path`, as text: where weft was found here it is to be found there.
    fn path() -> Py<Vec<String>> {
        let path = ffi::import(c"sys", Some(c"path"))?;
        // SAFETY: a live object.
        unsafe {
            let path = Owned::from_new(c::PySequence_Tuple(path.as_ptr()))?;
            let count = c::PyTuple_GET_SIZE(path.as_ptr());
            Ok((0..count).map(|index| ffi::text(c::PyTuple_GET_ITEM(path.as_ptr(), index))).collect())
        }
    }

    /// In the new interpreter.
    fn call(path: &[String], mut job: Payload) -> Py<()> {
        let path: Py<Vec<Owned>> = path.iter().map(|folder| ffi::string(folder)).collect();
        let sys = ffi::import(c"sys", None)?;
        ffi::set_attribute(&sys, c"path", ffi::list(path?)?.as_ptr())?;
        let main = ffi::import(c"weft._worker", Some(c"main"))?;
        let module = ffi::import(c"weft._weft", None)?;
        // SAFETY: our module, executed; live objects.
        unsafe {
            let job = decode::decode(crate::state_of_module(module.as_ptr()), &mut job)?;
            ffi::call(main.as_ptr(), &[job.as_ptr()]).map(drop)
        }
    }

    /// The error that is set, as `Kind: message`.
    fn text_of_error() -> String {
        match ffi::take_error() {
            None => "no error was set".to_owned(),
            Some(error) => {
                let kind = ffi::type_name(error.as_ptr());
                // SAFETY: a live object.
                let message = unsafe { Owned::from_new(c::PyObject_Str(error.as_ptr())) };
                match message {
                    Ok(message) => format!("{kind}: {}", ffi::text(message.as_ptr())),
                    Err(Raised) => {
                        // SAFETY: plain call.
                        unsafe { c::PyErr_Clear() };
                        kind
                    }
                }
            }
        }
    }
}
