//! A payload as an object of this interpreter.

use std::ffi::{c_int, c_void};
use std::ptr;
use std::sync::Arc;

use weft_link::Memory;
use weft_wire::{Limits, Reader, Token, WireError};

use super::payload::{Attachment, Lent, Payload};
use crate::ffi::{self, Owned, Py, PyObject, c};
use crate::state::{Ref, State};

struct Decoder<'a> {
    state: &'a State,
    reader: Reader<'a>,
    attachments: Vec<Option<Attachment>>,
    /// What may be referred to again; `None` until it is there.
    known: Vec<Option<Owned>>,
    /// How many attachments were used.
    used: usize,
}

/// The object. What travels beside the bytes is the receiver's now, also when there is an error.
pub fn decode(state: &State, payload: &mut Payload) -> Py<Owned> {
    let attachments = std::mem::take(&mut payload.attachments).into_iter().map(Some).collect();
    let reader = Reader::new(&payload.bytes, &Limits::default()).map_err(malformed)?;
    let mut decoder = Decoder { state, reader, attachments, known: Vec::new(), used: 0 };
    let value = decoder.value()?;
    decoder.reader.finish().map_err(malformed)?;
    Ok(value)
}

#[cold]
fn malformed(error: WireError) -> ffi::Raised {
    ffi::value_error(&format!("what was received is no value: {error}"))
}

impl Decoder<'_> {
    fn value(&mut self) -> Py<Owned> {
        let token = self.reader.next().map_err(malformed)?;
        if let Token::Remember = token {
            let number = self.known.len();
            self.known.push(None);
            let token = self.reader.next().map_err(malformed)?;
            let value = self.token(token, Some(number))?;
            self.known[number].get_or_insert_with(|| value.clone());
            return Ok(value);
        }
        self.token(token, None)
    }

    /// `number`: the value is to be known by it, as soon as it can be.
    fn token(&mut self, token: Token<'_>, number: Option<usize>) -> Py<Owned> {
        let known = |this: &mut Self, value: &Owned| {
            if let Some(number) = number {
                this.known[number] = Some(value.clone());
            }
        };
        // SAFETY: plain constructors, and containers that nobody else sees until they are filled (or that hold what they hold).
        unsafe {
            match token {
                Token::None => Ok(ffi::none()),
                Token::Boolean(value) => Ok(ffi::boolean(value)),
                Token::Integer(value) => Owned::from_new(c::PyLong_FromLongLong(value)),
                Token::Float(value) => ffi::float(value),
                Token::Complex(real, imaginary) => Owned::from_new(c::PyComplex_FromDoubles(real, imaginary)),
                Token::Text(text) => text_object(text),
                Token::Bytes(bytes) => bytes_object(bytes),
                Token::ByteArray(bytes) => {
                    Owned::from_new(c::PyByteArray_FromStringAndSize(bytes.as_ptr().cast(), bytes.len() as isize))
                }
                Token::Tuple(count) => {
                    let mut items = Vec::new();
                    for _ in 0..count {
                        items.push(self.value()?);
                    }
                    ffi::tuple(items)
                }
                Token::List(count) => {
                    let list = Owned::from_new(c::PyList_New(0))?;
                    known(self, &list);
                    for _ in 0..count {
                        let item = self.value()?;
                        ffi::check(c::PyList_Append(list.as_ptr(), item.as_ptr()))?;
                    }
                    Ok(list)
                }
                Token::Dict(count) => {
                    let dict = Owned::from_new(c::PyDict_New())?;
                    known(self, &dict);
                    for _ in 0..count {
                        let key = self.value()?;
                        let value = self.value()?;
                        ffi::check(c::PyDict_SetItem(dict.as_ptr(), key.as_ptr(), value.as_ptr()))?;
                    }
                    Ok(dict)
                }
                Token::Set(count) => {
                    let set = Owned::from_new(c::PySet_New(ptr::null_mut()))?;
                    known(self, &set);
                    for _ in 0..count {
                        let item = self.value()?;
                        ffi::check(c::PySet_Add(set.as_ptr(), item.as_ptr()))?;
                    }
                    Ok(set)
                }
                Token::FrozenSet(count) => {
                    let mut items = Vec::new();
                    for _ in 0..count {
                        items.push(self.value()?);
                    }
                    let items = ffi::tuple(items)?;
                    Owned::from_new(c::PyFrozenSet_New(items.as_ptr()))
                }
                Token::Same(number) => match self.known.get(number) {
                    Some(Some(value)) => Ok(value.clone()),
                    _ => Err(ffi::value_error("what was received refers to a value that is not there yet")),
                },
                Token::Attachment(_) => self.attachment(),
                Token::Pickle { data, buffers } => self.pickled(data, buffers),
                Token::Time { hour, minute, second, microsecond, fold } => {
                    let zone = self.value()?;
                    let fields = [hour.into(), minute.into(), second.into(), microsecond.into(), fold.into()];
                    self.rebuild(c"time", &fields, Some(zone))
                }
                Token::DateTime { year, month, day, hour, minute, second, microsecond, fold } => {
                    let zone = self.value()?;
                    let fields = [
                        year.into(),
                        month.into(),
                        day.into(),
                        hour.into(),
                        minute.into(),
                        second.into(),
                        microsecond.into(),
                        fold.into(),
                    ];
                    self.rebuild(c"date_time", &fields, Some(zone))
                }
                Token::Date { year, month, day } => {
                    self.rebuild(c"date", &[year.into(), month.into(), day.into()], None)
                }
                Token::TimeDelta { days, seconds, microseconds } => {
                    self.rebuild(c"time_delta", &[days.into(), seconds.into(), microseconds.into()], None)
                }
                Token::BigInteger(bytes) => self.rebuild(c"big_integer", &[], Some(bytes_object(bytes)?)),
                Token::Decimal(text) => self.rebuild(c"decimal", &[], Some(text_object(text)?)),
                Token::Uuid(bytes) => self.rebuild(c"uuid", &[], Some(bytes_object(&bytes)?)),
                Token::Enumeration { module, qualname, member } => {
                    let parts = vec![text_object(module)?, text_object(qualname)?, text_object(member)?];
                    self.rebuild(c"enumeration", &[], Some(ffi::tuple(parts)?))
                }
                Token::DataClass { module, qualname, fields } => {
                    let path = vec![text_object(module)?, text_object(qualname)?];
                    let object = self.rebuild(c"data_class", &[], Some(ffi::tuple(path)?))?;
                    known(self, &object);
                    let namespace = Owned::from_new(c::PyObject_GenericGetDict(object.as_ptr(), ptr::null_mut()))?;
                    for _ in 0..fields {
                        let name = self.value()?;
                        let value = self.value()?;
                        ffi::check(c::PyDict_SetItem(namespace.as_ptr(), name.as_ptr(), value.as_ptr()))?;
                    }
                    Ok(object)
                }
                Token::Remember => Err(ffi::value_error("what was received remembers nothing")),
            }
        }
    }

    fn next_attachment(&mut self) -> Py<Attachment> {
        let found = self.attachments.get_mut(self.used).and_then(Option::take);
        self.used += 1;
        found.ok_or_else(|| ffi::value_error("what was received misses a part that travels beside it"))
    }

    fn attachment(&mut self) -> Py<Owned> {
        match self.next_attachment()? {
            Attachment::End(end) => end.into_object(self.state),
            Attachment::Given(given) => given.take().ok_or_else(|| ffi::value_error("it was taken already")),
            Attachment::Memory(lent) => memory(self.state, lent),
        }
    }

    fn pickled(&mut self, data: &[u8], number: usize) -> Py<Owned> {
        if data.is_empty() {
            return self.block();
        }
        let (mut buffers, mut ends) = (Vec::new(), Vec::new());
        for _ in 0..number {
            if !matches!(self.reader.next().map_err(malformed)?, Token::Attachment(_)) {
                return Err(ffi::value_error("what was received has a pickle without what belongs beside it"));
            }
            match self.next_attachment()? {
                Attachment::End(end) => ends.push(end.into_object(self.state)?),
                Attachment::Memory(lent) => buffers.push(memory(self.state, lent)?),
                Attachment::Given(_) => return Err(ffi::value_error("a part of what was received is out of place")),
            }
        }
        let unpickle = self.state.crossing(Ref::Unpickle, c"unpickle")?;
        let arguments = [bytes_object(data)?, ffi::list(buffers)?, ffi::list(ends)?];
        // SAFETY: live objects.
        unsafe { ffi::call(unpickle, &arguments.each_ref().map(Owned::as_ptr)) }
    }

    /// A `bytes` that was given away, as another process has it, or that was lent.
    fn block(&mut self) -> Py<Owned> {
        if !matches!(self.reader.next().map_err(malformed)?, Token::Attachment(_)) {
            return Err(ffi::value_error("what was received misses its block of memory"));
        }
        match self.next_attachment()? {
            Attachment::Memory(memory) => {
                let block = memory.as_ptr();
                // SAFETY: the memory lives until the bytes are copied.
                unsafe { Owned::from_new(c::PyBytes_FromStringAndSize(block.cast(), memory.len() as isize)) }
            }
            _ => Err(ffi::value_error("what was received misses its block of memory")),
        }
    }

    /// `weft._crossing.<kind>(*fields, last)`.
    fn rebuild(&self, kind: &std::ffi::CStr, fields: &[i64], last: Option<Owned>) -> Py<Owned> {
        let module = self.state.crossing(Ref::Rebuild, c"REBUILD")?;
        // SAFETY: live objects; integers are made here.
        unsafe {
            let mut arguments = Vec::new();
            for field in fields {
                arguments.push(Owned::from_new(c::PyLong_FromLongLong(*field))?);
            }
            arguments.extend(last);
            let name = ffi::string(kind.to_str().unwrap_or_default())?;
            let maker = Owned::from_new(c::PyObject_GetItem(module, name.as_ptr()))?;
            let pointers: Vec<*mut PyObject> = arguments.iter().map(Owned::as_ptr).collect();
            ffi::call(maker.as_ptr(), &pointers)
        }
    }
}

fn text_object(text: &[u8]) -> Py<Owned> {
    // SAFETY: pointer and length describe `text`.
    unsafe {
        Owned::from_new(c::PyUnicode_DecodeUTF8(text.as_ptr().cast(), text.len() as isize, c"surrogatepass".as_ptr()))
    }
}

fn bytes_object(bytes: &[u8]) -> Py<Owned> {
    // SAFETY: pointer and length describe `bytes`.
    unsafe { Owned::from_new(c::PyBytes_FromStringAndSize(bytes.as_ptr().cast(), bytes.len() as isize)) }
}

/// `weft._weft._Memory`: memory that another place has lent, through the buffer protocol.
#[repr(C)]
struct MemoryObject {
    head: PyObject,
    memory: Arc<dyn Memory>,
}

fn memory(state: &State, memory: Arc<dyn Memory>) -> Py<Owned> {
    // SAFETY: our type; the field is written before anybody sees the object.
    unsafe {
        let object = ffi::allocate(state.class(Ref::Memory))?;
        (&raw mut (*object.as_ptr().cast::<MemoryObject>()).memory).write(memory);
        Ok(object)
    }
}

unsafe extern "C" fn get_buffer(slf: *mut PyObject, view: *mut c::Py_buffer, flags: c_int) -> c_int {
    // SAFETY: the interpreter passes a live object of ours, which keeps the memory, and room for a view.
    unsafe {
        let memory = &(*slf.cast::<MemoryObject>()).memory;
        let (address, length) = (memory.as_ptr().cast_mut(), memory.len() as isize);
        // What came from another process is not written to.
        let readonly = memory.as_any().downcast_ref::<Lent>().is_none_or(Lent::is_read_only);
        c::PyBuffer_FillInfo(view, slf, address.cast(), length, c_int::from(readonly), flags)
    }
}

unsafe extern "C" fn dealloc(slf: *mut PyObject) {
    // SAFETY: the last reference is gone; the field is dropped once.
    unsafe {
        ptr::drop_in_place(&raw mut (*slf.cast::<MemoryObject>()).memory);
        ffi::free(slf);
    }
}

/// Makes the type.
pub fn make_type(module: *mut PyObject) -> Py<Owned> {
    let slots = vec![
        ffi::slot(c::Py_bf_getbuffer, get_buffer as *mut c_void),
        ffi::slot(c::Py_tp_dealloc, dealloc as *mut c_void),
    ];
    let flags = c::Py_TPFLAGS_DISALLOW_INSTANTIATION as u64;
    // SAFETY: the slots are those of a `MemoryObject`.
    unsafe { ffi::make_type(module, c"weft._weft._Memory", size_of::<MemoryObject>(), flags, slots) }
}
