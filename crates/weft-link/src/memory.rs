//! A value outside of any interpreter: bytes, and what is attached to them.

use std::any::Any;
use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use crate::end::End;

/// From this many bytes on, memory is passed on instead of being copied through the socket.
///
/// Below it the copy costs less than the system calls that make, pass, map and unmap a block.
pub const LARGE: usize = 64 << 10;

/// What the link needs of a value.
pub trait Parcel: Send + Sized + 'static {
    /// The value as it crosses. It cannot fail: a shared channel holds only what can cross. It is called by whichever thread
    /// decided the operation, after every lock was released, and must not wait for anything.
    fn into_wire(self) -> Wire;
    /// The value again. It is called by a thread of the link's, and must not wait for anything.
    fn from_wire(wire: Wire) -> Self;
    /// The same value once more, if it is nothing but bytes, and few: at most this many. It is called under a channel's lock, and may do no
    /// more than allocate; dropping what is nothing but bytes may do no more than free.
    fn copied(&self, most: usize) -> Option<Self>;
}

/// A value on its way.
#[derive(Debug, Default)]
pub struct Wire {
    /// The value as bytes, of which the link knows nothing.
    pub bytes: Bytes,
    /// What goes along without being copied into the bytes, in an order that the value knows.
    pub attachments: Vec<Attachment>,
}

/// Something that travels with a value.
#[derive(Debug)]
pub enum Attachment {
    /// A block of memory. What arrives is read-only and keeps itself alive.
    Memory(Arc<dyn Memory>),
    /// An end of a channel, which is the receiver's from then on.
    End(End),
}

/// A block of memory that lives as long as this, does not change, and can be read from any thread.
pub trait Memory: Send + Sync {
    /// Where it begins.
    fn as_ptr(&self) -> *const u8;
    /// How many bytes it has.
    fn len(&self) -> usize;
    /// Whether it has none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// Itself, for the link to recognize what it mapped.
    fn as_any(&self) -> &dyn Any;
}

impl dyn Memory {
    /// The bytes.
    pub fn as_slice(&self) -> &[u8] {
        if self.is_empty() {
            return &[];
        }
        // SAFETY: the promise of `Memory`: the block is as long as it says, is not written to, and lives as long as `self`.
        unsafe { std::slice::from_raw_parts(self.as_ptr(), self.len()) }
    }
}

impl fmt::Debug for dyn Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Memory({} bytes)", self.len())
    }
}

impl Memory for Vec<u8> {
    fn as_ptr(&self) -> *const u8 {
        Self::as_ptr(self)
    }
    fn len(&self) -> usize {
        self.len()
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// The bytes of a value, which arrive as memory when there are many.
#[derive(Debug)]
pub enum Bytes {
    /// Bytes that were copied through the socket, or have not travelled yet.
    Inline(Vec<u8>),
    /// Bytes in a block that was passed on.
    Block(Arc<dyn Memory>),
}

impl Default for Bytes {
    fn default() -> Self {
        Self::Inline(Vec::new())
    }
}

impl From<Vec<u8>> for Bytes {
    fn from(bytes: Vec<u8>) -> Self {
        Self::Inline(bytes)
    }
}

impl Deref for Bytes {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        match self {
            Self::Inline(bytes) => bytes,
            Self::Block(block) => block.as_slice(),
        }
    }
}
