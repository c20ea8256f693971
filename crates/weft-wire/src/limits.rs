//! How deep, how many and how long a value may be.

/// What a [`Reader`](crate::Reader) accepts. Who writes keeps to the same, so that the error comes up where the value was sent.
///
/// The default is 200 deep, 100 million values and 1 GiB. Who builds a value recurses once for each level, and 200 fit into the
/// stack of any thread; the other two are far above what is better sent as an attachment, and far below what would fill a machine.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// How many values may be open around one another. A value is open while something that belongs to it is still to come: the
    /// contents of a container, a time zone, a pickle's buffers.
    pub depth: usize,
    /// How many values there may be in all: keys, field names, time zones and buffers are values too.
    pub count: usize,
    /// How many bytes there may be in all.
    pub bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { depth: 200, count: 100_000_000, bytes: 1 << 30 }
    }
}
