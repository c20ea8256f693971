//! Whatever the bytes are, the reader does not panic, and what it accepts would be written the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use weft_fuzz::tree::Tree;
use weft_wire::format::VERSION;
use weft_wire::{Limits, Reader};

fuzz_target!(|bytes: &[u8]| {
    if let Ok(tree) = Tree::from_bytes(bytes, &Limits::default()) {
        assert_eq!(tree.to_bytes(), bytes);
    }
    // Nor when it is asked on after it has failed, and with limits that are soon met.
    let bytes = [&[VERSION], bytes].concat();
    let limits = Limits { depth: 3, count: 20, bytes: bytes.len() };
    let mut reader = Reader::new(&bytes, &limits).expect("within the limits, and of this version");
    for _ in 0..bytes.len() {
        let _ = reader.next();
    }
});
