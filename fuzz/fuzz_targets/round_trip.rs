//! Every tree that is written is read again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use weft_fuzz::AnyTree;
use weft_fuzz::tree::Tree;
use weft_wire::Limits;

fuzz_target!(|tree: AnyTree| {
    assert_eq!(Tree::from_bytes(&tree.0.to_bytes(), &Limits::default()), Ok(tree.0));
});
