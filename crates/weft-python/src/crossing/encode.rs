//! An object of this interpreter as a payload.
//!
//! What weft-wire has words for is written here; dates, decimals, enumerations and data classes are taken to pieces by `weft._crossing`, and all else is
//! pickled there (protocol 5: memory that an object offers out of band is lent, not copied). Only the exact types: an object of a subclass is more
//! than its contents.
//!
//! What others refer to as well may occur twice, or in itself, and is remembered by its number. One that is found in
//! itself before it can be made (a tuple), and what is nested too deeply, makes the whole value a pickle, whose machine keeps no stack of calls.
//! So does an object in it that is pickled and may lead to other parts: two pickles know nothing of what they have in common.

use std::collections::HashMap;
use std::ffi::c_int;
use std::sync::Arc;

use weft_link::LARGE;
use weft_wire::Writer;

use super::payload::{Attachment, Given, Lent, Payload};
use super::share::EndPart;
use crate::channel::ChannelObject;
use crate::ends::EndObject;
use crate::ffi::{self, Owned, Py, PyObject, Raised, c};
use crate::state::{Ref, State};

/// From this size on a `bytes` that nobody else knows is given away instead of copied: the interpreter has such memory from the C library, not
/// from its own arenas (which serve up to 512 bytes), so any interpreter may free it.
const GIVEN: isize = 4096;

/// How deeply our own calls nest.
const DEPTH: u32 = 64;

/// Why a value is not written after all.
enum Stop {
    Raised,
    /// It has to be pickled as a whole.
    Pickle,
}

impl From<Raised> for Stop {
    fn from(_: Raised) -> Self {
        Self::Raised
    }
}

type Written = Result<(), Stop>;

struct Encoder<'a> {
    state: &'a State,
    writer: Writer,
    attachments: Vec<Attachment>,
    /// By its address, what may come again.
    known: HashMap<*mut PyObject, Known>,
    /// It is only asked which part is at fault.
    blames: bool,
    /// Where in the value something went wrong, innermost first.
    path: Vec<String>,
    depth: u32,
}

struct Known {
    number: usize,
    /// Not while a tuple is being written.
    is_made: bool,
    /// Or another object could come to have its address: pickling runs the program's code.
    _held: Owned,
}

/// What `weft._crossing.flatten` says an object is.
#[derive(Clone, Copy)]
enum Flat {
    Decimal,
    Uuid,
    Date,
    Time,
    DateTime,
    TimeDelta,
    Enumeration,
    DataClass,
    Pickle,
    BigInteger,
    /// It cannot be pickled by itself.
    Whole,
}

impl Flat {
    fn of(number: usize) -> Option<Self> {
        [
            Self::Decimal,
            Self::Uuid,
            Self::Date,
            Self::Time,
            Self::DateTime,
            Self::TimeDelta,
            Self::Enumeration,
            Self::DataClass,
            Self::Pickle,
            Self::BigInteger,
            Self::Whole,
        ]
        .get(number)
        .copied()
    }
}

/// The payload of an object. The reference may be its last: then a large `bytes` is given away.
pub fn encode(state: &State, object: Owned) -> Py<Box<Payload>> {
    state.place.look();
    // SAFETY: a live object.
    unsafe {
        if cfg!(not(Py_GIL_DISABLED))
            && c::PyBytes_CheckExact(object.as_ptr()) != 0
            && c::Py_REFCNT(object.as_ptr()) == 1
            && c::PyBytes_Size(object.as_ptr()) >= GIVEN
        {
            let mut writer = Writer::with_capacity(8);
            writer.attachment();
            let given = Attachment::Given(Given::new(object, Arc::clone(&state.place)));
            return Ok(Box::new(Payload { bytes: writer.into_bytes().into(), attachments: vec![given] }));
        }
    }
    let mut encoder = Encoder::new(state);
    let mut written = encoder.value(object.as_ptr());
    if let Err(Stop::Pickle) = written {
        encoder = Encoder::new(state);
        written = encoder.flat(object.as_ptr(), true);
        if written.is_err() {
            encoder.find_fault(object.as_ptr());
        }
    }
    match written {
        Ok(()) => {
            let bytes = encoder.writer.into_bytes().into();
            Ok(Box::new(Payload { bytes, attachments: encoder.attachments }))
        }
        Err(_) => Err(encoder.blame()),
    }
}

/// `_check_crossing(value)`: raises what a send to another place would.
pub unsafe extern "C" fn check(module: *mut PyObject, value: *mut PyObject) -> *mut PyObject {
    ffi::edge_object(|| {
        // SAFETY: the interpreter passes our module and a live object.
        unsafe { encode(crate::state_of_module(module), Owned::from_borrowed(value)).map(|_| ffi::none()) }
    })
}

impl<'a> Encoder<'a> {
    fn new(state: &'a State) -> Self {
        Self {
            state,
            writer: Writer::with_capacity(32),
            attachments: Vec::new(),
            known: HashMap::new(),
            blames: false,
            path: Vec::new(),
            depth: 0,
        }
    }

    fn value(&mut self, object: *mut PyObject) -> Written {
        // SAFETY: a live object, as are all borrowed from it here; each is held where Python code may run meanwhile.
        unsafe {
            let kind = c::Py_TYPE(object);
            if object == c::Py_None() {
                self.writer.none();
            } else if kind == &raw mut c::PyBool_Type {
                self.writer.boolean(object == c::Py_True());
            } else if kind == &raw mut c::PyLong_Type {
                let mut overflow = 0;
                let value = c::PyLong_AsLongLongAndOverflow(object, &mut overflow);
                if overflow != 0 {
                    return self.flat(object, false);
                }
                self.writer.integer(value);
            } else if kind == &raw mut c::PyFloat_Type {
                self.writer.float(c::PyFloat_AS_DOUBLE(object));
            } else if kind == &raw mut c::PyUnicode_Type {
                self.text(object)?;
            } else if kind == &raw mut c::PyBytes_Type {
                let size = c::PyBytes_Size(object) as usize;
                if size >= LARGE {
                    // A pickle without a word, and one block: see `decode`. It does not change, so whoever reads it makes the only copy.
                    self.writer.pickle(&[], 1);
                    return self.lend(object);
                }
                self.writer.bytes(std::slice::from_raw_parts(c::PyBytes_AsString(object).cast(), size));
            } else if kind == &raw mut c::PyByteArray_Type {
                if self.is_known(object)? {
                    return Ok(());
                }
                self.remember(object, true);
                // As long as it lends its memory nobody can change its size.
                let mut view = c::Py_buffer::new();
                ffi::check(c::PyObject_GetBuffer(object, &mut view, c::PyBUF_SIMPLE as c_int))?;
                self.writer.byte_array(match view.len {
                    0 => &[],
                    size => std::slice::from_raw_parts(view.buf.cast(), size as usize),
                });
                c::PyBuffer_Release(&mut view);
            } else if kind == &raw mut c::PyComplex_Type {
                self.writer.complex(c::PyComplex_RealAsDouble(object), c::PyComplex_ImagAsDouble(object));
            } else if kind == &raw mut c::PyTuple_Type
                || kind == &raw mut c::PyList_Type
                || kind == &raw mut c::PyDict_Type
                || kind == &raw mut c::PySet_Type
                || kind == &raw mut c::PyFrozenSet_Type
            {
                self.container(object)?;
            } else if self.is_known(object)? {
            } else if self.state.is(object, Ref::Channel) {
                let part = EndPart::of_channel(ChannelObject::of(object))?;
                self.remember(object, true);
                self.end(part);
            } else if self.state.is(object, Ref::Sender) || self.state.is(object, Ref::Receiver) {
                let part = EndPart::of_end(EndObject::of(object))?;
                self.remember(object, true);
                self.end(part);
            } else {
                self.flat(object, false)?;
            }
        }
        Ok(())
    }

    fn text(&mut self, object: *mut PyObject) -> Written {
        // SAFETY: a live str, which keeps its UTF-8.
        unsafe {
            let mut size = 0;
            let utf8 = c::PyUnicode_AsUTF8AndSize(object, &mut size);
            if !utf8.is_null() {
                self.writer.text(std::slice::from_raw_parts(utf8.cast(), size as usize));
                return Ok(());
            }
            // There are lone surrogates in it.
            c::PyErr_Clear();
            let bytes =
                Owned::from_new(c::PyUnicode_AsEncodedString(object, c"utf-8".as_ptr(), c"surrogatepass".as_ptr()))?;
            let size = c::PyBytes_Size(bytes.as_ptr()) as usize;
            self.writer.text(std::slice::from_raw_parts(c::PyBytes_AsString(bytes.as_ptr()).cast(), size));
        }
        Ok(())
    }

    fn end(&mut self, end: EndPart) {
        self.writer.attachment();
        self.attachments.push(Attachment::End(end));
    }

    /// Whether it has come before; then it is written as that.
    fn is_known(&mut self, object: *mut PyObject) -> Result<bool, Stop> {
        match self.known.get(&object) {
            None => Ok(false),
            Some(Known { is_made: false, .. }) => Err(Stop::Pickle),
            Some(known) => {
                self.writer.same(known.number);
                Ok(true)
            }
        }
    }

    /// What is written next may come again, if others refer to it as well. `is_made`: it exists before its contents do.
    fn remember(&mut self, object: *mut PyObject, is_made: bool) {
        // One reference to a part is that of what it is in, one is held here.
        let known = if self.depth == 0 { 1 } else { 2 };
        // SAFETY: a live object.
        if unsafe { c::Py_REFCNT(object) } > known {
            // SAFETY: as above.
            let held = unsafe { Owned::from_borrowed(object) };
            self.known.insert(object, Known { number: self.known.len(), is_made, _held: held });
            self.writer.remember();
        }
    }

    fn container(&mut self, object: *mut PyObject) -> Written {
        if self.is_known(object)? {
            return Ok(());
        }
        // SAFETY: a live object.
        self.remember(object, unsafe { c::PyTuple_CheckExact(object) == 0 && c::PyFrozenSet_CheckExact(object) == 0 });
        self.depth += 1;
        if self.depth > DEPTH {
            return Err(Stop::Pickle);
        }
        // SAFETY: a live container.
        unsafe {
            if c::PyDict_CheckExact(object) != 0 {
                self.dict(object)?;
            } else if c::PyAnySet_CheckExact(object) != 0 {
                self.set(object)?;
            } else {
                self.sequence(object)?;
            }
        }
        self.depth -= 1;
        if let Some(known) = self.known.get_mut(&object) {
            known.is_made = true;
        }
        Ok(())
    }

    fn sequence(&mut self, object: *mut PyObject) -> Written {
        // SAFETY: a live list or tuple; items are held while they are written, for Python code may run then and change the list.
        unsafe {
            let is_list = c::PyList_CheckExact(object) != 0;
            let size = |object| if is_list { c::PyList_GET_SIZE(object) } else { c::PyTuple_GET_SIZE(object) };
            let count = size(object);
            if is_list {
                self.writer.list(count as usize);
            } else {
                self.writer.tuple(count as usize);
            }
            for index in 0..count {
                if size(object) != count {
                    return Err(changed());
                }
                let item = if is_list {
                    // SAFETY: a list.
                    match ffi::list_item(object, index) {
                        Some(item) => item,
                        None => return Err(changed()),
                    }
                } else {
                    Owned::from_borrowed(c::PyTuple_GET_ITEM(object, index))
                };
                if let Err(stop) = self.value(item.as_ptr()) {
                    return Err(self.inside(stop, || format!("[{index}]")));
                }
            }
        }
        Ok(())
    }

    fn dict(&mut self, object: *mut PyObject) -> Written {
        // SAFETY: a live dict; keys and values are held while they are written.
        unsafe {
            let count = c::PyDict_Size(object);
            self.writer.dict(count as usize);
            let mut at = 0;
            let mut written = 0;
            while let Some((key, value)) = ffi::dict_next(object, &mut at) {
                written += 1;
                if written > count {
                    return Err(changed());
                }
                if let Err(stop) = self.value(key.as_ptr()) {
                    return Err(self.inside(stop, || format!(", key {}", ffi::text(key.as_ptr()))));
                }
                if let Err(stop) = self.value(value.as_ptr()) {
                    return Err(self.inside(stop, || format!("[{}]", shown(key.as_ptr()))));
                }
                if c::PyDict_Size(object) != count {
                    return Err(changed());
                }
            }
            if written != count {
                return Err(changed());
            }
        }
        Ok(())
    }

    fn set(&mut self, object: *mut PyObject) -> Written {
        // SAFETY: a live set, whose iterator notices when it is changed.
        unsafe {
            let count = c::PySet_Size(object) as usize;
            if c::PyFrozenSet_CheckExact(object) != 0 {
                self.writer.frozen_set(count);
            } else {
                self.writer.set(count);
            }
            let iterator = Owned::from_new(c::PyObject_GetIter(object))?;
            for _ in 0..count {
                let Some(item) = Owned::from_nullable(c::PyIter_Next(iterator.as_ptr())) else {
                    return Err(if c::PyErr_Occurred().is_null() { changed() } else { Stop::Raised });
                };
                if let Err(stop) = self.value(item.as_ptr()) {
                    return Err(self.inside(stop, || format!(", item {}", ffi::text(item.as_ptr()))));
                }
            }
            if c::PySet_Size(object) as usize != count {
                return Err(changed());
            }
        }
        Ok(())
    }

    /// What Python takes to pieces, or pickles: `whole`, in any case.
    fn flat(&mut self, object: *mut PyObject, whole: bool) -> Written {
        let flatten = self.state.crossing(Ref::Flatten, c"flatten")?;
        let (whole, inside) = (ffi::boolean(whole), ffi::boolean(self.depth > 0 && !self.blames));
        // SAFETY: live objects.
        let parts = unsafe { ffi::call(flatten, &[object, whole.as_ptr(), inside.as_ptr()])? };
        let number = |index| ffi::long(item(&parts, index)).map(|value| value as i64);
        // SAFETY: `flatten` returns a tuple as its docstring says.
        unsafe {
            let kind =
                Flat::of(number(0)? as usize).ok_or_else(|| ffi::runtime_error("flatten() gave no known kind"))?;
            match kind {
                Flat::Decimal => self.writer.decimal(contents(item(&parts, 1))),
                Flat::Uuid => {
                    let mut bytes = [0; 16];
                    bytes.copy_from_slice(contents(item(&parts, 1)));
                    self.writer.uuid(bytes);
                }
                Flat::Date => self.writer.date(number(1)? as u16, number(2)? as u8, number(3)? as u8),
                Flat::Time => {
                    let [hour, minute, second, microsecond, fold] =
                        [number(1)?, number(2)?, number(3)?, number(4)?, number(5)?];
                    self.writer.time(hour as u8, minute as u8, second as u8, microsecond as u32, fold != 0);
                    self.value(item(&parts, 6))?;
                }
                Flat::DateTime => {
                    let [year, month, day, hour, minute, second, microsecond, fold] = [
                        number(1)?,
                        number(2)?,
                        number(3)?,
                        number(4)?,
                        number(5)?,
                        number(6)?,
                        number(7)?,
                        number(8)?,
                    ];
                    self.writer.date_time(
                        year as u16,
                        month as u8,
                        day as u8,
                        hour as u8,
                        minute as u8,
                        second as u8,
                        microsecond as u32,
                        fold != 0,
                    );
                    self.value(item(&parts, 9))?;
                }
                Flat::TimeDelta => {
                    self.writer.time_delta(number(1)? as i32, number(2)? as i32, number(3)? as i32);
                }
                Flat::BigInteger => self.writer.big_integer(contents(item(&parts, 1))),
                Flat::Enumeration => self.writer.enumeration(
                    contents(item(&parts, 1)),
                    contents(item(&parts, 2)),
                    contents(item(&parts, 3)),
                ),
                Flat::DataClass => {
                    self.remember(object, true);
                    let fields = item(&parts, 3);
                    let count = c::PyTuple_GET_SIZE(fields) / 2;
                    self.writer.data_class(contents(item(&parts, 1)), contents(item(&parts, 2)), count as usize);
                    self.depth += 1;
                    if self.depth > DEPTH {
                        return Err(Stop::Pickle);
                    }
                    for index in 0..count {
                        let name = c::PyTuple_GET_ITEM(fields, 2 * index);
                        self.text(name)?;
                        if let Err(stop) = self.value(c::PyTuple_GET_ITEM(fields, 2 * index + 1)) {
                            return Err(self.inside(stop, || format!(".{}", ffi::text(name))));
                        }
                    }
                    self.depth -= 1;
                }
                Flat::Whole => return Err(Stop::Pickle),
                Flat::Pickle => {
                    self.remember(object, true);
                    let (buffers, ends) = (item(&parts, 2), item(&parts, 3));
                    let number = c::PyList_GET_SIZE(buffers) + c::PyList_GET_SIZE(ends);
                    self.writer.pickle(contents(item(&parts, 1)), number as usize);
                    for index in 0..c::PyList_GET_SIZE(buffers) {
                        self.lend(c::PyList_GET_ITEM(buffers, index))?;
                    }
                    for index in 0..c::PyList_GET_SIZE(ends) {
                        self.pickled_end(c::PyList_GET_ITEM(ends, index))?;
                    }
                }
            }
        }
        Ok(())
    }

    /// The memory of a `PickleBuffer` or a `bytes`.
    fn lend(&mut self, buffer: *mut PyObject) -> Written {
        let mut view = Box::new(c::Py_buffer::new());
        // SAFETY: a live object, and room for its view, which is released by whom it is given to.
        ffi::check(unsafe { c::PyObject_GetBuffer(buffer, &mut *view, c::PyBUF_SIMPLE as c_int) })?;
        self.writer.attachment();
        self.attachments.push(Attachment::Memory(Arc::new(Lent::new(view, Arc::clone(&self.state.place)))));
        Ok(())
    }

    fn pickled_end(&mut self, end: *mut PyObject) -> Written {
        // SAFETY: `flatten` finds nothing else.
        let part = unsafe {
            match self.state.is(end, Ref::Channel) {
                true => EndPart::of_channel(ChannelObject::of(end))?,
                false => EndPart::of_end(EndObject::of(end))?,
            }
        };
        self.end(part);
        Ok(())
    }

    /// Something is wrong in a part of the value.
    #[cold]
    fn inside(&mut self, stop: Stop, part: impl FnOnce() -> String) -> Stop {
        if let Stop::Raised = stop {
            let _aside = ffi::Aside::new();
            self.path.push(part());
        }
        stop
    }

    /// The value could not be pickled as a whole: finds the part of it that cannot. The error that is set becomes that one's, if there is one.
    #[cold]
    fn find_fault(&mut self, object: *mut PyObject) {
        let Some(error) = ffi::take_error() else {
            return;
        };
        let mut parts = Encoder { blames: true, ..Encoder::new(self.state) };
        match parts.value(object) {
            Err(Stop::Raised) => self.path = std::mem::take(&mut parts.path),
            _ => drop(ffi::restore_error(error)),
        }
    }

    /// Says in the error that is set which part of the value is at fault.
    #[cold]
    fn blame(&self) -> Raised {
        let Some(error) = ffi::take_error() else {
            return Raised;
        };
        let path: String = self.path.iter().rev().map(String::as_str).collect();
        let raised = (|| {
            let blame = self.state.crossing(Ref::Blame, c"blame")?;
            let path = ffi::string(&path)?;
            // SAFETY: live objects.
            unsafe { ffi::call(blame, &[error.as_ptr(), path.as_ptr()]) }
        })();
        match raised {
            Ok(error) => ffi::restore_error(error),
            Err(raised) => raised,
        }
    }
}

fn changed() -> Stop {
    ffi::runtime_error("a container changed while it was being sent").into()
}

/// A dictionary's key as a program would write it.
fn shown(key: *mut PyObject) -> String {
    // SAFETY: a live object.
    match unsafe { Owned::from_new(c::PyObject_Repr(key)) } {
        Ok(text) => ffi::text(text.as_ptr()),
        Err(Raised) => {
            // SAFETY: plain call.
            unsafe { c::PyErr_Clear() };
            "...".to_owned()
        }
    }
}

/// Of a tuple. Borrowed.
fn item(parts: &Owned, index: isize) -> *mut PyObject {
    // SAFETY: a tuple of at least so many.
    unsafe { c::PyTuple_GET_ITEM(parts.as_ptr(), index) }
}

/// The content of a `bytes`.
///
/// # Safety
/// A live `bytes`, which outlives the result.
unsafe fn contents<'a>(bytes: *mut PyObject) -> &'a [u8] {
    // SAFETY: the caller's promise.
    unsafe { std::slice::from_raw_parts(c::PyBytes_AsString(bytes).cast(), c::PyBytes_Size(bytes) as usize) }
}
