//! A value that belongs to no interpreter: its bytes, as weft-wire writes them, and what travels beside them.
//!
//! Memory of an interpreter that is read in another stays what it is: the interpreter lends it (`Lent`) or has given it away (`Given`). What is
//! lent goes back to its lender when the last reader has gone, through the lender's place, as only that may touch its objects.

use std::any::Any;
use std::sync::Arc;

use weft_link::{Bytes, Memory};
use weft_wire::Writer;

use crate::crossing::place::{Place, Returned};
use crate::crossing::share::EndPart;
use crate::ffi::{Owned, PyObject, c};

/// One value. Nothing in it needs an interpreter, whoever drops it.
pub struct Payload {
    pub bytes: Bytes,
    pub attachments: Vec<Attachment>,
}

impl Payload {
    /// The same value once more, with ends of its own. A given object is left out: that is a value by itself, which nobody copies.
    pub fn copy(&self) -> Self {
        let copied = |attachment: &Attachment| match attachment {
            Attachment::Memory(memory) => Some(Attachment::Memory(Arc::clone(memory))),
            Attachment::End(end) => Some(Attachment::End(end.another())),
            Attachment::Given(_) => None,
        };
        Self { bytes: self.bytes.to_vec().into(), attachments: self.attachments.iter().filter_map(copied).collect() }
    }

    /// None.
    pub fn none() -> Self {
        let mut writer = Writer::new();
        writer.none();
        Self { bytes: writer.into_bytes().into(), attachments: Vec::new() }
    }
}

/// What travels beside the bytes.
pub enum Attachment {
    Memory(Arc<dyn Memory>),
    Given(Given),
    End(EndPart),
}

/// Memory that an object exports, for as long as this lives.
pub struct Lent {
    view: Option<Box<c::Py_buffer>>,
    place: Arc<Place>,
}

// SAFETY: the memory stays where it is until the view is released, which its own place does. Who writes to it meanwhile is the program's business.
unsafe impl Send for Lent {}
// SAFETY: as above.
unsafe impl Sync for Lent {}

impl Lent {
    pub fn new(view: Box<c::Py_buffer>, place: Arc<Place>) -> Self {
        Self { view: Some(view), place }
    }

    pub fn is_read_only(&self) -> bool {
        self.view.as_ref().is_none_or(|view| view.readonly != 0)
    }
}

impl Memory for Lent {
    fn as_ptr(&self) -> *const u8 {
        self.view.as_ref().map_or(std::ptr::null(), |view| view.buf.cast::<u8>().cast_const())
    }
    fn len(&self) -> usize {
        self.view.as_ref().map_or(0, |view| view.len as usize)
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// A given `bytes` on its way to another process, as memory.
pub struct GivenBlock(pub Given);

impl Memory for GivenBlock {
    fn as_ptr(&self) -> *const u8 {
        // SAFETY: a `bytes`; its address is read off it.
        unsafe { c::PyBytes_AsString(self.0.object).cast::<u8>().cast_const() }
    }
    fn len(&self) -> usize {
        // SAFETY: as above.
        unsafe { c::PyBytes_Size(self.0.object) as usize }
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        if let Some(view) = self.view.take() {
            self.place.take_back(Returned::View(view));
        }
    }
}

/// A `bytes` that nobody else knew, with its only reference: the next interpreter may have the object itself. Its type is the same in all of them,
/// and memory of this size is not of an interpreter's own (`encode::GIVEN`).
pub struct Given {
    object: *mut PyObject,
    place: Arc<Place>,
}

// SAFETY: the only reference to an object without contents but its bytes.
unsafe impl Send for Given {}
// SAFETY: as above; shared, it is only read.
unsafe impl Sync for Given {}

impl Given {
    pub fn new(object: Owned, place: Arc<Place>) -> Self {
        Self { object: object.into_ptr(), place }
    }

    /// The object, now of the interpreter that this thread is attached to.
    pub fn take(mut self) -> Option<Owned> {
        let object = std::mem::replace(&mut self.object, std::ptr::null_mut());
        // SAFETY: the only reference.
        unsafe { Owned::from_nullable(object) }
    }
}

impl Drop for Given {
    fn drop(&mut self) {
        if !self.object.is_null() {
            self.place.take_back(Returned::Object(self.object));
        }
    }
}
