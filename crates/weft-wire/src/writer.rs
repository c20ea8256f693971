//! A writer: one vector, to which each call appends one value.

use crate::format::{VERSION, tag};

/// Writes one value, as [`format`](mod@crate::format) says.
///
/// Each method writes a value, or the beginning of one: what it promises has to be written by the calls that follow. Nothing is
/// checked here: a day that does not exist, a text that is none, a count that is not kept are refused by the
/// [`Reader`](crate::Reader), in the other place.
#[derive(Debug)]
pub struct Writer {
    bytes: Vec<u8>,
}

impl Default for Writer {
    fn default() -> Self {
        Self::new()
    }
}

impl Writer {
    /// Nothing is written yet. There is room for some small values.
    #[inline]
    pub fn new() -> Self {
        Self::with_capacity(64)
    }

    /// Nothing is written yet. There is room for `n` bytes before the vector has to grow.
    #[inline]
    pub fn with_capacity(n: usize) -> Self {
        let mut bytes = Vec::with_capacity(n.max(1));
        bytes.push(VERSION);
        Self { bytes }
    }

    /// None.
    #[inline]
    pub fn none(&mut self) {
        self.bytes.push(tag::NONE);
    }

    /// True or False.
    #[inline]
    pub fn boolean(&mut self, v: bool) {
        self.bytes.push(if v { tag::TRUE } else { tag::FALSE });
    }

    /// An integer. Those near 0 are short.
    #[inline]
    pub fn integer(&mut self, v: i64) {
        self.numbered(tag::INTEGER, ((v << 1) ^ (v >> 63)) as u64);
    }

    /// An integer in two's complement, its least byte first. For those that [`integer`](Self::integer) does not take.
    #[inline]
    pub fn big_integer(&mut self, twos_complement_le: &[u8]) {
        self.block(tag::BIG_INTEGER, twos_complement_le);
    }

    /// A float, to the bit.
    #[inline]
    pub fn float(&mut self, v: f64) {
        self.fixed(tag::FLOAT, v.to_le_bytes());
    }

    /// A complex number.
    #[inline]
    pub fn complex(&mut self, re: f64, im: f64) {
        self.fixed(tag::COMPLEX, re.to_le_bytes());
        self.bytes.extend_from_slice(&im.to_le_bytes());
    }

    /// A text: UTF-8 in which surrogates may stand (Python's "surrogatepass").
    #[inline]
    pub fn text(&mut self, utf8: &[u8]) {
        self.block(tag::TEXT, utf8);
    }

    /// Bytes.
    #[inline]
    pub fn bytes(&mut self, v: &[u8]) {
        self.block(tag::BYTES, v);
    }

    /// Bytes that can be changed.
    #[inline]
    pub fn byte_array(&mut self, v: &[u8]) {
        self.block(tag::BYTE_ARRAY, v);
    }

    /// A tuple. `count` values follow.
    #[inline]
    pub fn tuple(&mut self, count: usize) {
        self.numbered(tag::TUPLE, count as u64);
    }

    /// A list. `count` values follow.
    #[inline]
    pub fn list(&mut self, count: usize) {
        self.numbered(tag::LIST, count as u64);
    }

    /// A dict. `count` times, a key and its value follow.
    #[inline]
    pub fn dict(&mut self, count: usize) {
        self.numbered(tag::DICT, count as u64);
    }

    /// A set. `count` values follow.
    #[inline]
    pub fn set(&mut self, count: usize) {
        self.numbered(tag::SET, count as u64);
    }

    /// A frozen set. `count` values follow.
    #[inline]
    pub fn frozen_set(&mut self, count: usize) {
        self.numbered(tag::FROZEN_SET, count as u64);
    }

    /// A day.
    #[inline]
    pub fn date(&mut self, year: u16, month: u8, day: u8) {
        let [low, high] = year.to_le_bytes();
        self.fixed(tag::DATE, [low, high, month, day]);
    }

    /// A time of day. One value follows: its time zone, or None.
    #[inline]
    pub fn time(&mut self, hour: u8, minute: u8, second: u8, microsecond: u32, fold: bool) {
        self.bytes.push(tag::TIME);
        self.clock(hour, minute, second, microsecond, fold);
    }

    /// A time of a day. One value follows: its time zone, or None.
    #[inline]
    #[expect(clippy::too_many_arguments, reason = "they are the fields of a datetime")]
    pub fn date_time(
        &mut self,
        year: u16,
        month: u8,
        day: u8,
        hour: u8,
        minute: u8,
        second: u8,
        microsecond: u32,
        fold: bool,
    ) {
        let [low, high] = year.to_le_bytes();
        self.fixed(tag::DATE_TIME, [low, high, month, day]);
        self.clock(hour, minute, second, microsecond, fold);
    }

    /// A duration.
    #[inline]
    pub fn time_delta(&mut self, days: i32, seconds: i32, microseconds: i32) {
        self.fixed(tag::TIME_DELTA, days.to_le_bytes());
        self.bytes.extend_from_slice(&seconds.to_le_bytes());
        self.bytes.extend_from_slice(&microseconds.to_le_bytes());
    }

    /// A decimal number, as text.
    #[inline]
    pub fn decimal(&mut self, text: &[u8]) {
        self.block(tag::DECIMAL, text);
    }

    /// A UUID.
    #[inline]
    pub fn uuid(&mut self, v: [u8; 16]) {
        self.fixed(tag::UUID, v);
    }

    /// A member of an enumeration, by three texts.
    #[inline]
    pub fn enumeration(&mut self, module: &[u8], qualname: &[u8], member: &[u8]) {
        self.block(tag::ENUMERATION, module);
        self.number(qualname.len() as u64);
        self.bytes.extend_from_slice(qualname);
        self.number(member.len() as u64);
        self.bytes.extend_from_slice(member);
    }

    /// An instance of a data class, which is named by two texts. `fields` times, a [`text`](Self::text), the name of the field,
    /// and its value follow.
    #[inline]
    pub fn data_class(&mut self, module: &[u8], qualname: &[u8], fields: usize) {
        self.block(tag::DATA_CLASS, module);
        self.number(qualname.len() as u64);
        self.bytes.extend_from_slice(qualname);
        self.number(fields as u64);
    }

    /// A pickle. [`attachment`](Self::attachment) has to be called `buffers` times after it: these are its buffers, in order.
    #[inline]
    pub fn pickle(&mut self, data: &[u8], buffers: usize) {
        self.block(tag::PICKLE, data);
        self.number(buffers as u64);
    }

    /// What travels beside the bytes: a block of memory, an end of a channel. The first call is for number 0, the next for 1, ...
    #[inline]
    pub fn attachment(&mut self) {
        self.bytes.push(tag::ATTACHMENT);
    }

    /// The value that was remembered as number `index`, once more.
    #[inline]
    pub fn same(&mut self, index: usize) {
        self.numbered(tag::SAME, index as u64);
    }

    /// The value that is written next is remembered: the first as number 0, the next as 1, ... From then on, its own contents
    /// included, [`same`](Self::same) may name it.
    #[inline]
    pub fn remember(&mut self) {
        self.bytes.push(tag::REMEMBER);
    }

    /// How many bytes there are, the first, which is the version, included.
    #[inline]
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether nothing was written since `new`.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.bytes.len() == 1
    }

    /// All that was written.
    #[inline]
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    #[inline]
    fn clock(&mut self, hour: u8, minute: u8, second: u8, microsecond: u32, fold: bool) {
        self.bytes.extend_from_slice(&[hour, minute, second, fold.into()]);
        self.bytes.extend_from_slice(&microsecond.to_le_bytes());
    }

    #[inline]
    fn fixed<const N: usize>(&mut self, tag: u8, bytes: [u8; N]) {
        self.bytes.push(tag);
        self.bytes.extend_from_slice(&bytes);
    }

    #[inline]
    fn block(&mut self, tag: u8, bytes: &[u8]) {
        self.numbered(tag, bytes.len() as u64);
        self.bytes.extend_from_slice(bytes);
    }

    #[inline]
    fn numbered(&mut self, tag: u8, number: u64) {
        if number < 0x80 {
            // Nearly always so; then the vector looks for room only once.
            self.bytes.extend_from_slice(&[tag, number as u8]);
        } else {
            self.bytes.push(tag);
            self.number(number);
        }
    }

    fn number(&mut self, mut number: u64) {
        while number >= 0x80 {
            self.bytes.push(number as u8 | 0x80);
            number >>= 7;
        }
        self.bytes.push(number as u8);
    }
}
