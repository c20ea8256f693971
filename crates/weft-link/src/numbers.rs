//! Tables of what has a number.
//!
//! Each request looks some things up by a number that one of the two sides has counted, or by an address. The standard library's hash, which is
//! made so that nobody can choose numbers that meet, takes some hundred instructions for each; a child that chose its numbers so would slow
//! down its own link alone.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

/// A table by number.
pub(crate) type Numbered<K, T> = HashMap<K, T, BuildHasherDefault<Fibonacci>>;

/// Knuth's multiplicative hash (The Art of Computer Programming 3, 6.4), both halves of the product folded: the table looks at the highest bits and
/// the lowest ones.
#[derive(Default)]
pub(crate) struct Fibonacci(u64);

impl Hasher for Fibonacci {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u64(&mut self, number: u64) {
        let product = u128::from(self.0 ^ number) * 0x9e37_79b9_7f4a_7c15;
        self.0 = product as u64 ^ (product >> 64) as u64;
    }

    fn write_usize(&mut self, number: usize) {
        self.write_u64(number as u64);
    }
}
