//! The extension module on PyPy: the names of the package `weft._pure`, which does the same in Python alone.
//!
//! PyPy's layer under the C API has no `am_send`, no vectorcall types of one's own, no free lists, and a finalizer through it
//! costs more than the operation. Python code that its compiler sees through is faster there. This module is so that weft is
//! built, installed and imported in the same way everywhere, and that no Python file has to know.

use std::ffi::{c_int, c_void};
use std::ptr;

use pyo3_ffi as c;

unsafe extern "C" fn execute(module: *mut c::PyObject) -> c_int {
    // SAFETY: the interpreter passes the module being made, here and below; the dictionaries are borrowed from live modules.
    unsafe {
        let pure = c::PyImport_ImportModule(c"weft._pure".as_ptr());
        if pure.is_null() {
            return -1;
        }
        let version = concat!(env!("CARGO_PKG_VERSION"), "\0");
        let mut failed = c::PyModule_AddStringConstant(module, c"__version__".as_ptr(), version.as_ptr().cast());
        if failed == 0 {
            // What the module has already (its own name and the like) stays.
            failed = c::PyDict_Merge(c::PyModule_GetDict(module), c::PyModule_GetDict(pure), 0);
        }
        c::Py_DECREF(pure);
        failed
    }
}

/// What Python calls to find the module: its definition, made once per process.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn PyInit__weft() -> *mut c::PyObject {
    static DEFINITION: std::sync::OnceLock<usize> = std::sync::OnceLock::new();
    let definition = DEFINITION.get_or_init(|| {
        let slots = vec![
            c::PyModuleDef_Slot { slot: c::Py_mod_exec, value: execute as *mut c_void },
            c::PyModuleDef_Slot::default(),
        ];
        let definition = c::PyModuleDef {
            m_base: c::PyModuleDef_HEAD_INIT,
            m_name: c"weft._weft".as_ptr(),
            m_doc: c"Channels, select and what belongs to them. The package weft is its face.".as_ptr(),
            m_size: 0,
            m_methods: ptr::null_mut(),
            m_slots: Box::leak(slots.into_boxed_slice()).as_mut_ptr(),
            m_traverse: None,
            m_clear: None,
            m_free: None,
        };
        Box::into_raw(Box::new(definition)) as usize
    });
    // SAFETY: a definition that lives for ever.
    unsafe { c::PyModuleDef_Init(*definition as *mut c::PyModuleDef) }
}
