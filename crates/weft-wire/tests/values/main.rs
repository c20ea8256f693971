//! Values, written and read.
//!
//! cargo test -p weft-wire --test values
//! PROPTEST_CASES=1000000 cargo test -p weft-wire --release --test values round_trip     for longer; see also fuzz/

mod refusals;
mod round_trip;
mod tree;
