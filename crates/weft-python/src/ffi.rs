//! The one door to the C API: owned pointers, calls that return `Result`, and the edge where panics stop.
//!
//! Everything here is called with the interpreter attached (the GIL held, or on a free-threaded build a thread state
//! current) unless it says otherwise. `Raised` means that the error indicator is set.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::ffi::{CStr, c_int, c_long, c_longlong, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr::{self, NonNull};
use std::sync::Mutex;

pub mod c;
#[cfg(not(PyPy))]
pub mod frame;
pub use c::PyObject;

/// The error indicator is set.
#[derive(Debug)]
pub struct Raised;

/// What a call into Python gives.
pub type Py<T> = Result<T, Raised>;

/// A reference that is ours to drop.
#[repr(transparent)]
pub struct Owned(NonNull<PyObject>);

// SAFETY: a reference may be dropped by any thread that is attached to the object's interpreter, and weft drops values only while attached.
unsafe impl Send for Owned {}
// SAFETY: as above; sharing gives no access without being attached.
unsafe impl Sync for Owned {}

impl Owned {
    /// A new reference just returned by the C API; null means that an error is set.
    ///
    /// # Safety
    /// `object` is null with an error set, or a reference that is ours.
    #[inline]
    pub unsafe fn from_new(object: *mut PyObject) -> Py<Self> {
        NonNull::new(object).map(Self).ok_or(Raised)
    }

    /// # Safety
    /// `object` is a live object.
    #[inline]
    pub unsafe fn from_borrowed(object: *mut PyObject) -> Self {
        // SAFETY: the caller's promise.
        unsafe {
            c::Py_INCREF(object);
            Self(NonNull::new_unchecked(object))
        }
    }

    /// # Safety
    /// `object` is null or a reference that is ours.
    #[inline]
    pub unsafe fn from_nullable(object: *mut PyObject) -> Option<Self> {
        NonNull::new(object).map(Self)
    }

    #[inline]
    pub fn as_ptr(&self) -> *mut PyObject {
        self.0.as_ptr()
    }

    #[inline]
    pub fn into_ptr(self) -> *mut PyObject {
        let pointer = self.0.as_ptr();
        std::mem::forget(self);
        pointer
    }
}

impl Clone for Owned {
    #[inline]
    fn clone(&self) -> Self {
        // SAFETY: we hold a reference, so the object lives.
        unsafe { Self::from_borrowed(self.as_ptr()) }
    }
}

impl Drop for Owned {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: the reference is ours.
        unsafe { c::Py_DECREF(self.as_ptr()) }
    }
}

/// Replaces a reference that is kept in a cell, null for none.
#[inline]
pub fn put(cell: &Cell<*mut PyObject>, value: Option<Owned>) {
    let old = cell.replace(value.map_or(ptr::null_mut(), Owned::into_ptr));
    // SAFETY: the reference was the cell's.
    drop(unsafe { Owned::from_nullable(old) });
}

/// Takes it out.
#[inline]
pub fn taken(cell: &Cell<*mut PyObject>) -> Option<Owned> {
    // SAFETY: the reference was the cell's, and is the caller's now.
    unsafe { Owned::from_nullable(cell.replace(ptr::null_mut())) }
}

/// A new reference to `None`.
#[inline]
pub fn none() -> Owned {
    // SAFETY: None lives for ever.
    unsafe { Owned::from_borrowed(c::Py_None()) }
}

/// A new reference to `True` or `False`.
pub fn boolean(value: bool) -> Owned {
    // SAFETY: both live for ever.
    unsafe { Owned::from_borrowed(if value { c::Py_True() } else { c::Py_False() }) }
}

/// An `int`.
pub fn integer(value: usize) -> Py<Owned> {
    // SAFETY: plain call.
    unsafe { Owned::from_new(c::PyLong_FromSize_t(value)) }
}

/// A `float`.
pub fn float(value: f64) -> Py<Owned> {
    // SAFETY: plain call.
    unsafe { Owned::from_new(c::PyFloat_FromDouble(value)) }
}

/// A `str`.
pub fn string(text: &str) -> Py<Owned> {
    // SAFETY: the pointer and length describe `text`.
    unsafe { Owned::from_new(c::PyUnicode_FromStringAndSize(text.as_ptr().cast(), text.len() as isize)) }
}

/// The text of a `str`, or of `repr(object)` for anything else; errors on the way become a placeholder.
pub fn text(object: *mut PyObject) -> String {
    // SAFETY: `object` is alive; the buffer belongs to the str, which `shown` keeps alive.
    unsafe {
        let shown = if c::PyUnicode_Check(object) != 0 {
            Owned::from_borrowed(object)
        } else {
            match Owned::from_new(c::PyObject_Repr(object)) {
                Ok(shown) => shown,
                Err(Raised) => {
                    c::PyErr_Clear();
                    return "<unprintable>".to_owned();
                }
            }
        };
        let mut size = 0;
        let bytes = c::PyUnicode_AsUTF8AndSize(shown.as_ptr(), &mut size);
        if bytes.is_null() {
            c::PyErr_Clear();
            return "<unprintable>".to_owned();
        }
        String::from_utf8_lossy(std::slice::from_raw_parts(bytes.cast(), size as usize)).into_owned()
    }
}

/// The name of an object's type.
pub fn type_name(object: *mut PyObject) -> String {
    // SAFETY: `object` is alive; tp_name is a C string that lives as long as the type.
    unsafe {
        CStr::from_ptr((*c::Py_TYPE(object)).tp_name)
            .to_string_lossy()
            .rsplit('.')
            .next()
            .unwrap_or_default()
            .to_owned()
    }
}

/// Raises `kind(message)`.
///
/// # Safety
/// `kind` is an exception type.
#[cold]
pub unsafe fn raise(kind: *mut PyObject, message: &str) -> Raised {
    if let Ok(message) = string(message) {
        // SAFETY: the caller's promise.
        unsafe { c::PyErr_SetObject(kind, message.as_ptr()) };
    }
    Raised
}

/// Raises `ValueError(message)`.
#[cold]
pub fn value_error(message: &str) -> Raised {
    // SAFETY: an exception type.
    unsafe { raise(c::PyExc_ValueError, message) }
}

/// Raises `TypeError(message)`.
#[cold]
pub fn type_error(message: &str) -> Raised {
    // SAFETY: an exception type.
    unsafe { raise(c::PyExc_TypeError, message) }
}

/// Raises `RuntimeError(message)`.
#[cold]
pub fn runtime_error(message: &str) -> Raised {
    // SAFETY: an exception type.
    unsafe { raise(c::PyExc_RuntimeError, message) }
}

/// Raises an exception object that exists already.
///
/// # Safety
/// `exception` is an instance of an exception type.
pub unsafe fn raise_object(exception: *mut PyObject) -> Raised {
    // SAFETY: the caller's promise.
    unsafe { c::PyErr_SetObject(c::Py_TYPE(exception).cast(), exception) };
    Raised
}

/// `-1` is an error.
pub fn check(result: c_int) -> Py<c_int> {
    if result < 0 { Err(Raised) } else { Ok(result) }
}

/// `callable(*arguments)`.
///
/// # Safety
/// All pointers are live objects.
#[inline]
pub unsafe fn call(callable: *mut PyObject, arguments: &[*mut PyObject]) -> Py<Owned> {
    // SAFETY: the caller's promise.
    unsafe { Owned::from_new(c::PyObject_Vectorcall(callable, arguments.as_ptr(), arguments.len(), ptr::null_mut())) }
}

/// `arguments[0].name(*arguments[1:])`.
///
/// # Safety
/// All pointers are live objects; `arguments` is not empty.
#[inline]
pub unsafe fn call_method(name: *mut PyObject, arguments: &[*mut PyObject]) -> Py<Owned> {
    // SAFETY: the caller's promise.
    unsafe { Owned::from_new(c::PyObject_VectorcallMethod(name, arguments.as_ptr(), arguments.len(), ptr::null_mut())) }
}

/// `import module` and `module.name`.
///
/// Not by `PyImport_ImportModule`, which asks the globals of whoever is executed for `__builtins__`: a function may have globals without.
pub fn import(module: &CStr, name: Option<&CStr>) -> Py<Owned> {
    let text = string(module.to_str().unwrap_or_default())?;
    // SAFETY: a text, null for what is optional, and a C string. What is returned is the outermost package, which stays loaded without it.
    unsafe {
        let no = ptr::null_mut();
        Owned::from_new(c::PyImport_ImportModuleLevelObject(text.as_ptr(), no, no, no, 0))?;
        let module = Owned::from_new(c::PyObject_GetItem(c::PyImport_GetModuleDict(), text.as_ptr()))?;
        match name {
            None => Ok(module),
            Some(name) => Owned::from_new(c::PyObject_GetAttrString(module.as_ptr(), name.as_ptr())),
        }
    }
}

/// Sets an attribute.
pub fn set_attribute(object: &Owned, name: &CStr, value: *mut PyObject) -> Py<()> {
    // SAFETY: live objects.
    check(unsafe { c::PyObject_SetAttrString(object.as_ptr(), name.as_ptr(), value) }).map(drop)
}

/// Takes the error that is set.
pub fn take_error() -> Option<Owned> {
    // SAFETY: the calls return new references.
    unsafe {
        #[cfg(Py_3_12)]
        {
            Owned::from_nullable(c::PyErr_GetRaisedException())
        }
        #[cfg(not(Py_3_12))]
        {
            let (mut kind, mut value, mut traceback) = (ptr::null_mut(), ptr::null_mut(), ptr::null_mut());
            c::PyErr_Fetch(&mut kind, &mut value, &mut traceback);
            if kind.is_null() {
                return None;
            }
            c::PyErr_NormalizeException(&mut kind, &mut value, &mut traceback);
            if !traceback.is_null() {
                c::PyException_SetTraceback(value, traceback);
                c::Py_DECREF(traceback);
            }
            c::Py_DECREF(kind);
            Owned::from_nullable(value)
        }
    }
}

/// Sets the error, with the traceback it has.
pub fn restore_error(error: Owned) -> Raised {
    // SAFETY: `error` is an exception taken by `take_error`, or one that Python gave us.
    unsafe {
        #[cfg(Py_3_12)]
        c::PyErr_SetRaisedException(error.into_ptr());
        #[cfg(not(Py_3_12))]
        {
            let kind = c::Py_TYPE(error.as_ptr()).cast();
            c::Py_INCREF(kind);
            let traceback = c::PyException_GetTraceback(error.as_ptr());
            c::PyErr_Restore(kind, error.into_ptr(), traceback);
        }
    }
    Raised
}

/// The first error of several calls, all of which are made.
#[derive(Default)]
pub struct First(Option<Owned>);

impl First {
    pub fn keep(&mut self, result: Py<()>) {
        if result.is_err() {
            let error = take_error();
            if self.0.is_none() {
                self.0 = error;
            }
        }
    }

    /// This one counts before all others.
    pub fn replace(&mut self, error: Owned) {
        self.0 = Some(error);
    }

    pub fn raise(self) -> Py<()> {
        match self.0 {
            Some(error) => Err(restore_error(error)),
            None => Ok(()),
        }
    }
}

/// Keeps an error that is set out of the way while something else calls Python, as in a deallocator.
pub struct Aside(Option<Owned>);

impl Aside {
    pub fn new() -> Self {
        Self(take_error())
    }
}

impl Drop for Aside {
    fn drop(&mut self) {
        if let Some(error) = self.0.take() {
            restore_error(error);
        }
    }
}

/// Whether a `str` is this ASCII text.
#[inline]
pub fn is_text(object: *mut PyObject, text: &CStr) -> bool {
    // SAFETY: a live str and a C string.
    unsafe { c::PyUnicode_CompareWithASCIIString(object, text.as_ptr()) == 0 }
}

/// Reports the error that is set to `sys.unraisablehook`.
pub fn unraisable(context: *mut PyObject) {
    // SAFETY: `context` is null or alive.
    unsafe { c::PyErr_WriteUnraisable(context) }
}

/// Runs the body of a C entry point: an error becomes `failed`, a panic `weft.InternalError`.
#[inline]
pub fn edge<T>(failed: T, body: impl FnOnce() -> Py<T>) -> T {
    match catch_unwind(AssertUnwindSafe(body)) {
        Ok(Ok(result)) => result,
        Ok(Err(Raised)) => failed,
        Err(panic) => {
            let message = panic
                .downcast_ref::<String>()
                .map(String::as_str)
                .or_else(|| panic.downcast_ref::<&str>().copied())
                .unwrap_or("unknown panic");
            let message = format!("a bug in weft: {message}; please report it, with the traceback");
            if let Ok(kind) = import(c"weft._errors", Some(c"InternalError")) {
                // SAFETY: an exception type.
                unsafe { raise(kind.as_ptr(), &message) };
            }
            failed
        }
    }
}

/// [`edge`] for entry points that return an object.
#[inline]
pub fn edge_object(body: impl FnOnce() -> Py<Owned>) -> *mut PyObject {
    edge(ptr::null_mut(), || body().map(Owned::into_ptr))
}

/// Matches the arguments of a `METH_FASTCALL | METH_KEYWORDS` call to parameter names: null where an argument is missing. The first
/// `positional` ones may be given by position.
///
/// # Safety
/// `arguments`, `count` and `keywords` are what the interpreter passed.
pub unsafe fn parameters<const N: usize>(
    function: &str,
    names: [&str; N],
    positional: usize,
    arguments: *const *mut PyObject,
    count: isize,
    keywords: *mut PyObject,
) -> Py<[*mut PyObject; N]> {
    let mut found = [ptr::null_mut(); N];
    let count = count as usize;
    if count > positional {
        return Err(type_error(&format!(
            "{function}() takes at most {positional} positional arguments ({count} given)"
        )));
    }
    // SAFETY: the interpreter's arrays: `count` positional values, then one per keyword.
    unsafe {
        for (index, slot) in found.iter_mut().take(count).enumerate() {
            *slot = *arguments.add(index);
        }
        if !keywords.is_null() {
            for index in 0..c::PyTuple_GET_SIZE(keywords) {
                let name = text(c::PyTuple_GET_ITEM(keywords, index));
                let Some(at) = names.iter().position(|known| *known == name) else {
                    return Err(type_error(&format!("{function}() got an unexpected keyword argument '{name}'")));
                };
                if !found[at].is_null() {
                    return Err(type_error(&format!("{function}() got multiple values for argument '{name}'")));
                }
                found[at] = *arguments.add(count + index as usize);
            }
        }
    }
    Ok(found)
}

/// The same for `tp_new`, which gets a tuple and a dict.
///
/// # Safety
/// `arguments` is a tuple, `keywords` null or a dict.
pub unsafe fn parameters_of_new<const N: usize>(
    function: &str,
    names: [&str; N],
    positional: usize,
    arguments: *mut PyObject,
    keywords: *mut PyObject,
) -> Py<[*mut PyObject; N]> {
    // SAFETY: the caller's promise.
    unsafe {
        let mut values: Vec<*mut PyObject> =
            (0..c::PyTuple_GET_SIZE(arguments)).map(|index| c::PyTuple_GET_ITEM(arguments, index)).collect();
        let count = values.len() as isize;
        let mut given = Vec::new();
        if !keywords.is_null() {
            let (mut position, mut name, mut value) = (0, ptr::null_mut(), ptr::null_mut());
            while c::PyDict_Next(keywords, &mut position, &mut name, &mut value) != 0 {
                given.push(Owned::from_borrowed(name));
                values.push(value);
            }
        }
        let tuple = tuple(given)?;
        parameters(function, names, positional, values.as_ptr(), count, tuple.as_ptr())
    }
}

/// A tuple of these.
pub fn tuple(items: Vec<Owned>) -> Py<Owned> {
    // SAFETY: a new tuple is filled before anybody sees it; SET_ITEM takes over the reference.
    unsafe {
        let tuple = Owned::from_new(c::PyTuple_New(items.len() as isize))?;
        for (index, item) in items.into_iter().enumerate() {
            c::PyTuple_SET_ITEM(tuple.as_ptr(), index as isize, item.into_ptr());
        }
        Ok(tuple)
    }
}

/// How many items a dictionary has.
///
/// # Safety
/// A dictionary.
#[inline]
pub unsafe fn dictionary_size(dictionary: *mut PyObject) -> isize {
    #[cfg(not(Py_GIL_DISABLED))]
    // SAFETY: the caller's promise; the field is public.
    return unsafe { (*dictionary.cast::<c::PyDictObject>()).ma_used };
    #[cfg(Py_GIL_DISABLED)]
    // SAFETY: the caller's promise.
    unsafe {
        c::PyDict_Size(dictionary)
    }
}

/// A list of these.
pub fn list(items: Vec<Owned>) -> Py<Owned> {
    // SAFETY: as in `tuple`.
    unsafe {
        let list = Owned::from_new(c::PyList_New(items.len() as isize))?;
        for (index, item) in items.into_iter().enumerate() {
            c::PyList_SET_ITEM(list.as_ptr(), index as isize, item.into_ptr());
        }
        Ok(list)
    }
}

/// A finite number of seconds; `what` names it in the error.
pub fn seconds(object: *mut PyObject, what: &str) -> Py<f64> {
    // SAFETY: `object` is alive.
    let value = unsafe { c::PyFloat_AsDouble(object) };
    // SAFETY: plain call.
    if value == -1.0 && !unsafe { c::PyErr_Occurred() }.is_null() {
        // SAFETY: an exception type.
        if unsafe { c::PyErr_ExceptionMatches(c::PyExc_TypeError) } != 0 {
            // SAFETY: plain call.
            unsafe { c::PyErr_Clear() };
            return Err(type_error(&format!("{what} must be a number of seconds, not {}", type_name(object))));
        }
        return Err(Raised);
    }
    if value.is_nan() {
        return Err(value_error(&format!("{what} is not a number")));
    }
    Ok(value)
}

/// Of a type whose attributes cannot be set; its bases must be such types too.
pub const IMMUTABLE: u64 = c::Py_TPFLAGS_IMMUTABLETYPE as u64;

/// A heap type made from a spec, belonging to `module`; immutable.
///
/// # Safety
/// The slots are those of an object whose struct has `size` bytes.
pub unsafe fn make_type(
    module: *mut PyObject,
    name: &'static CStr,
    size: usize,
    flags: u64,
    slots: Vec<c::PyType_Slot>,
) -> Py<Owned> {
    // SAFETY: the caller's promise.
    unsafe { from_spec(module, name, size, flags | IMMUTABLE, ptr::null_mut(), slots) }
}

/// A heap type without fields of its own, with the flags of its base and these.
///
/// # Safety
/// The slots fit the objects of `base`, a type.
pub unsafe fn make_subtype(
    module: *mut PyObject,
    name: &'static CStr,
    base: &Owned,
    flags: u64,
    slots: Vec<c::PyType_Slot>,
) -> Py<Owned> {
    let bases = tuple(vec![base.clone()])?;
    // SAFETY: the caller's promise; size 0 is the base's size.
    unsafe { from_spec(module, name, 0, flags, bases.as_ptr(), slots) }
}

/// A heap type with fields of its own after those of its base; immutable.
///
/// # Safety
/// The slots are those of an object whose struct has `size` bytes; `base` is a class without fields.
pub unsafe fn make_subtype_of_size(
    module: *mut PyObject,
    name: &'static CStr,
    size: usize,
    base: &Owned,
    flags: u64,
    slots: Vec<c::PyType_Slot>,
) -> Py<Owned> {
    let bases = tuple(vec![base.clone()])?;
    // SAFETY: the caller's promise.
    unsafe { from_spec(module, name, size, flags, bases.as_ptr(), slots) }
}

/// # Safety
/// As for `make_type`; `bases` is null or a tuple of types.
unsafe fn from_spec(
    module: *mut PyObject,
    name: &'static CStr,
    size: usize,
    flags: u64,
    bases: *mut PyObject,
    mut slots: Vec<c::PyType_Slot>,
) -> Py<Owned> {
    slots.push(c::PyType_Slot { slot: 0, pfunc: ptr::null_mut() });
    let mut spec = c::PyType_Spec {
        name: name.as_ptr(),
        basicsize: size as c_int,
        itemsize: 0,
        flags: (flags | c::Py_TPFLAGS_DEFAULT as u64) as _,
        slots: slots.as_mut_ptr(),
    };
    // SAFETY: the caller's promise; the interpreter copies spec and slots (not the method tables, which are leaked statics).
    unsafe { Owned::from_new(c::PyType_FromModuleAndSpec(module, &mut spec, bases)) }
}

/// A new, zeroed instance of a heap type.
///
/// # Safety
/// `kind` is a heap type of ours; the caller fills every field before the object is seen by anybody.
#[inline]
pub unsafe fn allocate(kind: *mut c::PyTypeObject) -> Py<Owned> {
    // SAFETY: the caller's promise; this is the allocator of every heap type that names no other.
    unsafe { Owned::from_new(c::PyType_GenericAlloc(kind, 0)) }
}

/// Ends an instance: its memory and its reference to the heap type.
///
/// # Safety
/// Called once, at the end of a `tp_dealloc`, after the fields were dropped.
#[inline]
pub unsafe fn free(object: *mut PyObject) {
    // SAFETY: the caller's promise.
    unsafe {
        let kind = c::Py_TYPE(object);
        if let Some(free) = (*kind).tp_free {
            free(object.cast());
        }
        c::Py_DECREF(kind.cast());
    }
}

/// In a deallocator that does not free: the object lives on, with one reference.
///
/// # Safety
/// From `tp_dealloc`, which returns then.
#[cfg(not(Py_GIL_DISABLED))]
#[inline]
pub unsafe fn keep(object: *mut PyObject) {
    // SAFETY: nobody else knows the object. What else is in the word since 3.14 stays.
    unsafe {
        #[cfg(not(Py_3_12))]
        {
            (*object).ob_refcnt = 1;
        }
        #[cfg(all(Py_3_12, not(all(Py_3_14, target_pointer_width = "64"))))]
        {
            (*object).ob_refcnt.ob_refcnt = 1;
        }
        #[cfg(all(Py_3_14, target_pointer_width = "64"))]
        {
            (*object).ob_refcnt.refcnt_and_flags.ob_refcnt = 1;
        }
    }
}

/// Such an object is used again: whoever follows the lives of objects takes it for a new one.
///
/// # Safety
/// Kept by [`keep`], and that reference is the only one.
#[cfg(not(Py_GIL_DISABLED))]
#[inline]
pub unsafe fn take_up(object: *mut PyObject) {
    // SAFETY: the caller's promise.
    unsafe { _Py_NewReference(object) }
}

/// How deep deallocators may call each other before the rest is left to the outermost (as CPython's trashcan does, which is not for us: it is made
/// of macros, and gone in 3.14).
const DEEP: u32 = 50;

/// How the deallocators of this thread stand.
struct Dropping {
    /// How many of ours are at work, one in another.
    depth: Cell<u32>,
    /// There may be something in `LEFT`.
    left: Cell<bool>,
}

thread_local! {
    static DROPPING: Dropping = const { Dropping { depth: Cell::new(0), left: Cell::new(false) } };
    /// What the outermost one still has to drop.
    static LEFT: RefCell<Vec<Owned>> = const { RefCell::new(Vec::new()) };
}

/// Drops what a deallocator held. A long chain (a channel in a channel in a channel) does not exhaust the stack.
#[inline]
pub fn drop_contents(contents: impl IntoIterator<Item = Owned>) {
    DROPPING.with(|dropping| {
        let depth = dropping.depth.get();
        let mut contents = contents.into_iter();
        if depth >= DEEP {
            // When the thread is so far gone that there is no list, they are dropped below.
            let _ = LEFT.try_with(|left| left.borrow_mut().extend(contents.by_ref()));
            dropping.left.set(true);
        }
        dropping.depth.set(depth + 1);
        contents.for_each(drop);
        if depth == 0 && dropping.left.get() {
            while let Ok(Some(next)) = LEFT.try_with(|left| left.borrow_mut().pop()) {
                drop(next);
            }
            dropping.left.set(false);
        }
        dropping.depth.set(depth);
    });
}

/// Whether the garbage collector has to know what holds this object.
///
/// # Safety
/// A live object.
#[inline]
pub unsafe fn may_be_in_a_cycle(object: *mut PyObject) -> bool {
    // SAFETY: the caller's promise.
    unsafe { c::PyType_HasFeature(c::Py_TYPE(object), c::Py_TPFLAGS_HAVE_GC) != 0 }
}

/// Visits a reference from `tp_traverse`.
///
/// # Safety
/// `visit` and `argument` are what the collector passed; `object` is null or alive.
#[inline]
pub unsafe fn visit(object: *mut PyObject, visit: c::visitproc, argument: *mut c_void) -> c_int {
    if object.is_null() {
        return 0;
    }
    // SAFETY: the caller's promise.
    unsafe { visit(object, argument) }
}

/// One row of a method table.
pub enum Method {
    NoArguments(unsafe extern "C" fn(*mut PyObject, *mut PyObject) -> *mut PyObject),
    /// No arguments; what a call by name finds although a slot has the same name.
    InsteadOfSlot(unsafe extern "C" fn(*mut PyObject, *mut PyObject) -> *mut PyObject),
    OneArgument(unsafe extern "C" fn(*mut PyObject, *mut PyObject) -> *mut PyObject),
    Fast(c::PyCFunctionFastWithKeywords),
    ClassFast(c::PyCFunctionFastWithKeywords),
    ClassOne(unsafe extern "C" fn(*mut PyObject, *mut PyObject) -> *mut PyObject),
    ClassNone(unsafe extern "C" fn(*mut PyObject, *mut PyObject) -> *mut PyObject),
}

/// A table that the interpreter keeps pointers into, without any object in it: one per class and kind of table, made once per process and shared by
/// all interpreters, as the static ones of a module written in C are.
pub fn table<T>(class: &'static str, kind: &'static str, rows: impl FnOnce() -> Vec<T>) -> *mut T {
    static TABLES: Mutex<BTreeMap<(&str, &str), usize>> = Mutex::new(BTreeMap::new());
    let mut tables = TABLES.lock().unwrap_or_else(|e| e.into_inner());
    let address =
        tables.entry((class, kind)).or_insert_with(|| Box::leak(rows().into_boxed_slice()).as_mut_ptr() as usize);
    *address as *mut T
}

/// A method table.
pub fn methods(class: &'static str, rows: &[(&'static CStr, Method)]) -> *mut c::PyMethodDef {
    table(class, "methods", || method_rows(class, rows))
}

fn method_rows(class: &str, rows: &[(&'static CStr, Method)]) -> Vec<c::PyMethodDef> {
    let mut table: Vec<c::PyMethodDef> = rows
        .iter()
        .map(|(name, method)| {
            let (meth, flags) = match *method {
                Method::InsteadOfSlot(f) => {
                    (c::PyMethodDefPointer { PyCFunction: f }, c::METH_NOARGS | c::METH_COEXIST)
                }
                Method::NoArguments(f) => (c::PyMethodDefPointer { PyCFunction: f }, c::METH_NOARGS),
                Method::OneArgument(f) => (c::PyMethodDefPointer { PyCFunction: f }, c::METH_O),
                Method::Fast(f) => {
                    (c::PyMethodDefPointer { PyCFunctionFastWithKeywords: f }, c::METH_FASTCALL | c::METH_KEYWORDS)
                }
                Method::ClassFast(f) => (
                    c::PyMethodDefPointer { PyCFunctionFastWithKeywords: f },
                    c::METH_FASTCALL | c::METH_KEYWORDS | c::METH_CLASS,
                ),
                Method::ClassOne(f) => (c::PyMethodDefPointer { PyCFunction: f }, c::METH_O | c::METH_CLASS),
                Method::ClassNone(f) => (c::PyMethodDefPointer { PyCFunction: f }, c::METH_NOARGS | c::METH_CLASS),
            };
            c::PyMethodDef {
                ml_name: name.as_ptr(),
                ml_meth: meth,
                ml_flags: flags,
                ml_doc: crate::docs::doc(class, name.to_str().unwrap_or_default()),
            }
        })
        .collect();
    table.push(c::PyMethodDef::zeroed());
    table
}

/// A table of properties.
pub fn properties(class: &'static str, rows: &[(&'static CStr, c::getter, Option<c::setter>)]) -> *mut c::PyGetSetDef {
    table(class, "properties", || {
        let mut table: Vec<c::PyGetSetDef> = rows
            .iter()
            .map(|(name, get, set)| c::PyGetSetDef {
                name: name.as_ptr(),
                get: Some(*get),
                set: *set,
                doc: crate::docs::doc(class, name.to_str().unwrap_or_default()),
                closure: ptr::null_mut(),
            })
            .collect();
        table.push(c::PyGetSetDef::default());
        table
    })
}

/// A slot from a function pointer.
pub fn slot(number: c_int, function: *mut c_void) -> c::PyType_Slot {
    c::PyType_Slot { slot: number, pfunc: function }
}

/// What the interpreter offers but the bindings do not name.
pub mod thread_lock {
    use super::{c_int, c_longlong, c_void};
    use std::ffi::c_ulong;

    unsafe extern "C" {
        /// None of these needs the interpreter.
        pub fn PyThread_allocate_lock() -> *mut c_void;
        pub fn PyThread_get_thread_ident() -> c_ulong;
        pub fn PyThread_free_lock(lock: *mut c_void);
        pub fn PyThread_acquire_lock_timed(lock: *mut c_void, microseconds: c_longlong, interruptible: c_int) -> c_int;
        pub fn PyThread_release_lock(lock: *mut c_void);
    }
}

/// Does this while no other thread does such a thing with the same object, by the lock that each object has where there is no GIL. The interpreter
/// lets go of it when the thread has to wait: so a few instructions, nothing that is called, nothing dropped.
///
/// # Safety
/// A live object. `body` does not panic.
#[inline]
pub unsafe fn alone_with<R>(object: *mut PyObject, body: impl FnOnce() -> R) -> R {
    #[cfg(not(Py_GIL_DISABLED))]
    {
        let _ = object;
        body()
    }
    #[cfg(Py_GIL_DISABLED)]
    // SAFETY: the caller's promise; begin and end pair, and the section stays where it is between.
    unsafe {
        let mut section = std::mem::MaybeUninit::uninit();
        c::PyCriticalSection_Begin(section.as_mut_ptr(), object);
        let result = body();
        c::PyCriticalSection_End(section.as_mut_ptr());
        result
    }
}

/// What a dictionary has for a key.
///
/// # Safety
/// A dictionary and a live object.
pub unsafe fn dict_get(dict: &Owned, key: *mut PyObject) -> Py<Option<Owned>> {
    // SAFETY: the caller's promise. Where another thread might take out what is borrowed from it, it is not.
    unsafe {
        #[cfg(Py_3_13)]
        {
            let mut found = ptr::null_mut();
            check(c::PyDict_GetItemRef(dict.as_ptr(), key, &mut found))?;
            Ok(Owned::from_nullable(found))
        }
        #[cfg(not(Py_3_13))]
        {
            let found = c::PyDict_GetItemWithError(dict.as_ptr(), key);
            if found.is_null() {
                return if c::PyErr_Occurred().is_null() { Ok(None) } else { Err(Raised) };
            }
            Ok(Some(Owned::from_borrowed(found)))
        }
    }
}

/// The same, taken out: of several threads one gets it.
///
/// # Safety
/// As for [`dict_get`].
pub unsafe fn dict_pop(dict: &Owned, key: *mut PyObject) -> Py<Option<Owned>> {
    // SAFETY: the caller's promise.
    unsafe {
        #[cfg(Py_3_13)]
        {
            let mut found = ptr::null_mut();
            check(c::PyDict_Pop(dict.as_ptr(), key, &mut found))?;
            Ok(Owned::from_nullable(found))
        }
        #[cfg(not(Py_3_13))]
        {
            let found = dict_get(dict, key)?;
            if found.is_some() && c::PyDict_DelItem(dict.as_ptr(), key) < 0 {
                // The comparison of keys is the program's code, and may have taken it out.
                if c::PyErr_ExceptionMatches(c::PyExc_KeyError) == 0 {
                    return Err(Raised);
                }
                c::PyErr_Clear();
                return Ok(None);
            }
            Ok(found)
        }
    }
}

/// An item of a list that is not ours alone; `None`: it is shorter by now.
///
/// # Safety
/// A list.
#[inline]
pub unsafe fn list_item(list: *mut PyObject, index: isize) -> Option<Owned> {
    // SAFETY: the caller's promise. With a GIL what is borrowed is held before another thread can take it out.
    unsafe {
        #[cfg(not(Py_GIL_DISABLED))]
        return (index < c::PyList_GET_SIZE(list)).then(|| Owned::from_borrowed(c::PyList_GET_ITEM(list, index)));
        #[cfg(Py_GIL_DISABLED)]
        {
            let item = Owned::from_nullable(c::PyList_GetItemRef(list, index));
            if item.is_none() {
                c::PyErr_Clear();
            }
            item
        }
    }
}

/// The next pair of a dictionary that is not ours alone: as `PyDict_Next`, but held.
///
/// # Safety
/// A dictionary; `at` is 0 at first.
pub unsafe fn dict_next(dict: *mut PyObject, at: &mut isize) -> Option<(Owned, Owned)> {
    // SAFETY: the caller's promise; what is borrowed is held before another thread can take it out.
    unsafe {
        alone_with(dict, || {
            let (mut key, mut value) = (ptr::null_mut(), ptr::null_mut());
            (c::PyDict_Next(dict, at, &mut key, &mut value) != 0)
                .then(|| (Owned::from_borrowed(key), Owned::from_borrowed(value)))
        })
    }
}

unsafe extern "C" {
    #[cfg(not(Py_GIL_DISABLED))]
    fn _Py_NewReference(object: *mut PyObject);
    fn PyContext_Exit(context: *mut PyObject) -> c_int;
    fn PyContext_Enter(context: *mut PyObject) -> c_int;
    static mut PyMethod_Type: c::PyTypeObject;
    fn PyMethod_Function(method: *mut PyObject) -> *mut PyObject;
}

/// `dictionary[key] = value`, without asking the key for its hash. It is what asyncio's own extension calls for its tasks, until 3.13.
///
/// # Safety
/// Live objects, a dictionary, and the key's hash.
#[cfg(not(Py_3_14))]
#[inline]
pub unsafe fn set_item_known_hash(
    dictionary: *mut PyObject,
    key: *mut PyObject,
    value: *mut PyObject,
    hash: isize,
) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { c::_PyDict_SetItem_KnownHash(dictionary, key, value, hash) }
}

/// The function that a bound method calls, else the object itself. Borrowed.
///
/// # Safety
/// A live object.
#[inline]
pub unsafe fn function_of(callable: *mut PyObject) -> *mut PyObject {
    // SAFETY: the caller's promise.
    unsafe { if c::Py_TYPE(callable) == &raw mut PyMethod_Type { PyMethod_Function(callable) } else { callable } }
}

/// The code of a function, or of a method; borrowed. Null: it is neither.
///
/// # Safety
/// A live object.
#[inline]
pub unsafe fn code_of(callable: *mut PyObject) -> *mut PyObject {
    // SAFETY: the caller's promise; a function has its code.
    unsafe {
        let function = function_of(callable);
        if c::PyFunction_Check(function) == 0 { ptr::null_mut() } else { c::PyFunction_GetCode(function) }
    }
}

/// Makes this the thread's current context.
///
/// # Safety
/// A live `contextvars.Context`, which nobody has entered.
#[inline]
pub unsafe fn enter_context(context: *mut PyObject) -> Py<()> {
    // SAFETY: the caller's promise.
    check(unsafe { PyContext_Enter(context) }).map(drop)
}

/// Leaves it again.
///
/// # Safety
/// The one that was entered last.
#[inline]
pub unsafe fn exit_context(context: *mut PyObject) -> Py<()> {
    // SAFETY: the caller's promise.
    check(unsafe { PyContext_Exit(context) }).map(drop)
}

/// `context.run(callable, argument)`, without the method call.
///
/// # Safety
/// Live objects; `context` is a `contextvars.Context`.
#[inline]
pub unsafe fn call_in_context(context: *mut PyObject, callable: *mut PyObject, argument: *mut PyObject) -> Py<Owned> {
    // SAFETY: the caller's promise; enter and exit pair.
    unsafe {
        check(PyContext_Enter(context))?;
        let result = call(callable, &[argument]);
        if PyContext_Exit(context) < 0 {
            return Err(Raised);
        }
        result
    }
}

/// What `await` steps of an awaitable.
pub fn iterator_of(awaitable: &Owned) -> Py<Owned> {
    // SAFETY: a live object; the slot is the type's.
    unsafe {
        let slots = (*c::Py_TYPE(awaitable.as_ptr())).tp_as_async;
        match if slots.is_null() { None } else { (*slots).am_await } {
            Some(method) => Owned::from_new(method(awaitable.as_ptr())),
            None if c::PyIter_Check(awaitable.as_ptr()) != 0 => Ok(awaitable.clone()), // a generator: these are its steps
            None => Err(type_error(&format!(
                "perform= must give a coroutine or a generator, not {}",
                type_name(awaitable.as_ptr())
            ))),
        }
    }
}

/// The object a weak reference points to; `None` when it is gone.
///
/// # Safety
/// `reference` is a weak reference.
#[inline]
pub unsafe fn upgrade(reference: *mut PyObject) -> Option<Owned> {
    // SAFETY: the caller's promise.
    unsafe {
        #[cfg(Py_3_13)]
        {
            let mut object = ptr::null_mut();
            if c::PyWeakref_GetRef(reference, &mut object) < 0 {
                c::PyErr_Clear();
            }
            Owned::from_nullable(object)
        }
        #[cfg(not(Py_3_13))]
        {
            let object = c::PyWeakref_GetObject(reference);
            if object.is_null() || object == c::Py_None() {
                return None;
            }
            Some(Owned::from_borrowed(object))
        }
    }
}

/// `PyWeakReference`, as far as it matters (Include/cpython/weakrefobject.h, the same from 3.11 to 3.15).
#[cfg(not(Py_GIL_DISABLED))]
#[repr(C)]
struct WeakReference {
    head: PyObject,
    object: *mut PyObject,
}

/// Whether a weak reference leads to this object.
///
/// # Safety
/// A weak reference; the object is alive.
#[inline]
pub unsafe fn refers_to(reference: *mut PyObject, object: *mut PyObject) -> bool {
    #[cfg(not(Py_GIL_DISABLED))]
    // SAFETY: the caller's promise; what a dead one has there is None.
    return unsafe { (*reference.cast::<WeakReference>()).object == object };
    #[cfg(Py_GIL_DISABLED)]
    // SAFETY: the caller's promise.
    unsafe { upgrade(reference) }.is_some_and(|mine| mine.as_ptr() == object)
}

/// Has `callback(argument)` called by the main thread as soon as it runs Python code again.
pub fn call_soon_in_main(callback: extern "C" fn(*mut c_void) -> c_int, argument: *mut c_void) -> bool {
    // SAFETY: the signature is the one it wants.
    unsafe { c::Py_AddPendingCall(Some(callback), argument) == 0 }
}

/// A signed integer argument.
pub fn long(object: *mut PyObject) -> Py<c_long> {
    // SAFETY: `object` is alive.
    unsafe {
        let value = c::PyLong_AsLong(object);
        if value == -1 && !c::PyErr_Occurred().is_null() {
            return Err(Raised);
        }
        Ok(value)
    }
}
