//! What is in a channel: an object of the interpreter that all its parties live in, or, once an end has gone to another place, something
//! that belongs to none: a payload, or in the word itself a small integer, None, True or False. The two lowest bits tell them apart.

use std::mem::ManuallyDrop;
use std::ptr::{self, NonNull};

use weft_wire::{Limits, Reader, Token, Writer};

use crate::crossing::decode;
use crate::crossing::payload::Payload;
use crate::ffi::{self, Owned, Py, PyObject, Raised, c};
use crate::state::State;

/// One value, in a slot or a buffer.
#[repr(transparent)]
pub struct Value(NonNull<u8>);

/// The mark of what is no object. Objects and boxes are aligned to four bytes at least.
const MARK: usize = 3;
/// A box with a payload.
const PAYLOAD: usize = 1;
/// An integer, above the mark.
const INTEGER: usize = 2;
/// One of three, above the mark.
const CONSTANT: usize = 3;
const BITS: u32 = 2;
/// How many bytes at the most such a value is: version, tag, and 62 bits in groups of seven.
const LONGEST_WORD: usize = 11;

// SAFETY: an object is used and dropped while attached to its interpreter, which keeps all parties of its channel; a payload may go anywhere.
unsafe impl Send for Value {}

impl Value {
    #[inline]
    pub fn object(object: Owned) -> Self {
        // SAFETY: a reference is not null.
        Self(unsafe { NonNull::new_unchecked(object.into_ptr().cast()) })
    }

    pub fn payload(payload: Box<Payload>) -> Self {
        // SAFETY: as above; the address ends with the bits that the mark is put in.
        Self(
            unsafe { NonNull::new_unchecked(Box::into_raw(payload).cast::<u8>()) }
                .map_addr(|address| address | PAYLOAD),
        )
    }

    /// What needs no more than the word: None, True, False and most integers.
    #[inline]
    pub fn in_a_word(object: *mut PyObject) -> Option<Self> {
        // SAFETY: a live object.
        unsafe {
            let kind = c::Py_TYPE(object);
            if kind == &raw mut c::PyLong_Type {
                let mut overflow = 0;
                let number = c::PyLong_AsLongLongAndOverflow(object, &mut overflow);
                let fits = overflow == 0 && isize::try_from(number).is_ok_and(|n| n << BITS >> BITS == n);
                return fits.then(|| Self::marked((number as usize) << BITS | INTEGER));
            }
            let constants = [c::Py_None(), c::Py_False(), c::Py_True()];
            let which = constants.iter().position(|constant| *constant == object)?;
            Some(Self::marked(which << BITS | CONSTANT))
        }
    }

    /// The same of what came as bytes; `None`: it is more than that, or nothing that makes sense.
    pub fn of_few_bytes(bytes: &[u8]) -> Option<Self> {
        if bytes.len() > LONGEST_WORD {
            return None;
        }
        let mut reader = Reader::new(bytes, &Limits::default()).ok()?;
        let word = match reader.next().ok()? {
            Token::None => CONSTANT,
            Token::Boolean(value) => (1 + usize::from(value)) << BITS | CONSTANT,
            Token::Integer(number) => {
                let number = isize::try_from(number).ok().filter(|n| n << BITS >> BITS == *n)?;
                (number as usize) << BITS | INTEGER
            }
            _ => return None,
        };
        reader.finish().ok()?;
        Some(Self::marked(word))
    }

    fn marked(word: usize) -> Self {
        // SAFETY: a mark is not zero.
        Self(unsafe { NonNull::new_unchecked(std::ptr::without_provenance_mut(word)) })
    }

    #[inline]
    fn mark(&self) -> usize {
        self.0.addr().get() & MARK
    }

    /// Whether it is fit for other places.
    #[inline]
    pub fn is_payload(&self) -> bool {
        self.mark() != 0
    }

    /// The object, borrowed, for a collector; `None` for a payload, which holds none.
    #[inline]
    pub fn as_object(&self) -> Option<*mut PyObject> {
        (!self.is_payload()).then(|| self.0.as_ptr().cast())
    }

    /// The object, or the payload made into one of this interpreter.
    #[inline]
    pub fn into_object(self, state: &State) -> Py<Owned> {
        if self.is_payload() {
            return self.rebuilt(state);
        }
        let this = ManuallyDrop::new(self);
        // SAFETY: an object is a reference that was ours.
        unsafe { Owned::from_new(this.0.as_ptr().cast()) }
    }

    fn rebuilt(self, state: &State) -> Py<Owned> {
        if let INTEGER | CONSTANT = self.mark() {
            return self.unfolded();
        }
        // SAFETY: a payload in a box.
        let mut payload = unsafe { self.into_box() };
        decode::decode(state, &mut payload)
    }

    /// As [`into_object`](Self::into_object); but what cannot be rebuilt stays a value, which cannot be rebuilt the next time either.
    pub fn try_into_object(self, state: &State) -> Result<Owned, (Raised, Self)> {
        match self.mark() {
            PAYLOAD => {
                // SAFETY: a payload in a box.
                let mut payload = unsafe { self.into_box() };
                decode::decode(state, &mut payload).map_err(|raised| (raised, Self::payload(payload)))
            }
            0 => Ok(self.into_contents().unwrap_or_else(ffi::none)),
            _ => self.unfolded().map_err(|raised| (raised, Self::payload(Box::new(Payload::none())))),
        }
    }

    /// What is in the word itself.
    fn unfolded(self) -> Py<Owned> {
        let word = self.0.addr().get();
        // SAFETY: a plain constructor.
        unsafe {
            match self.mark() {
                INTEGER => Owned::from_new(c::PyLong_FromSsize_t((word as isize) >> BITS)),
                _ if word >> BITS == 0 => Ok(ffi::none()),
                _ => Ok(ffi::boolean(word >> BITS == 2)),
            }
        }
    }

    /// # Safety
    /// It is a payload in a box.
    unsafe fn into_box(self) -> Box<Payload> {
        let this = ManuallyDrop::new(self);
        // SAFETY: the box that was given to `payload`.
        unsafe { Box::from_raw(this.0.as_ptr().map_addr(|address| address & !MARK).cast()) }
    }

    /// What is to be dropped with care: an object. A payload holds none.
    #[inline]
    pub fn into_contents(self) -> Option<Owned> {
        if self.is_payload() {
            return None;
        }
        let this = ManuallyDrop::new(self);
        // SAFETY: a reference that was ours.
        unsafe { Owned::from_nullable(this.0.as_ptr().cast()) }
    }
}

impl Value {
    /// What another process is to get, or the value itself when it is an object.
    pub fn into_payload(self) -> Result<Box<Payload>, Self> {
        let word = self.0.addr().get();
        let mut writer = Writer::with_capacity(16);
        match self.mark() {
            0 => return Err(self),
            INTEGER => writer.integer(((word as isize) >> BITS) as i64),
            CONSTANT if word >> BITS == 0 => writer.none(),
            CONSTANT => writer.boolean(word >> BITS == 2),
            // SAFETY: a payload in a box.
            _ => return Ok(unsafe { self.into_box() }),
        }
        Ok(Box::new(Payload { bytes: writer.into_bytes().into(), attachments: Vec::new() }))
    }
}

impl Value {
    /// The same value once more, if it is of no interpreter, nothing but bytes, and those at most so many.
    pub fn copied(&self, most: usize) -> Option<Self> {
        match self.mark() {
            0 => None,
            PAYLOAD => {
                // SAFETY: a payload in a box, which stays.
                let payload = unsafe { &*self.0.as_ptr().map_addr(|address| address & !MARK).cast::<Payload>() };
                let plain = payload.attachments.is_empty() && payload.bytes.len() <= most;
                plain.then(|| Self::payload(Box::new(payload.copy())))
            }
            // SAFETY: the word is the value.
            _ => Some(unsafe { ptr::read(self) }),
        }
    }
}

impl Drop for Value {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: this is the last use of a reference or a box that is ours.
        unsafe {
            match self.mark() {
                0 => drop(Owned::from_nullable(self.0.as_ptr().cast())),
                PAYLOAD => drop(ptr::read(self).into_box()),
                _ => {}
            }
        }
    }
}
