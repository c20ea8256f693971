//! What is written is read again, and whatever is not a value is refused.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;
use weft_wire::format::VERSION;
use weft_wire::{Limits, Reader, WireError};

use crate::tree::{Tree, any_tree};

fn read(bytes: &[u8]) -> Result<Tree, WireError> {
    Tree::from_bytes(bytes, &Limits::default())
}

proptest! {
    #[test]
    fn what_is_written_is_read_again(tree in any_tree()) {
        prop_assert_eq!(read(&tree.to_bytes()), Ok(tree));
    }

    #[test]
    fn a_value_with_its_end_missing_is_refused(tree in any_tree(), kept in any::<Index>()) {
        let bytes = tree.to_bytes();
        prop_assert!(read(&bytes[..kept.index(bytes.len())]).is_err());
    }

    #[test]
    fn a_value_with_more_behind_it_is_refused(tree in any_tree(), more in any::<u8>()) {
        let mut bytes = tree.to_bytes();
        let at = bytes.len();
        bytes.push(more);
        prop_assert_eq!(read(&bytes), Err(WireError::Trailing { at }));
    }

    #[test]
    fn what_is_accepted_would_be_written_the_same(
        tree in any_tree(),
        changes in vec((any::<Index>(), prop_oneof![any::<u8>(), 0..32_u8]), 1..4),
    ) {
        let mut bytes = tree.to_bytes();
        for (place, byte) in changes {
            let place = place.index(bytes.len());
            bytes[place] = byte;
        }
        if let Ok(tree) = read(&bytes) {
            prop_assert_eq!(tree.to_bytes(), bytes);
        }
    }

    #[test]
    fn no_bytes_make_the_reader_panic(mut bytes in vec(prop_oneof![any::<u8>(), 0..32_u8], 1..200)) {
        bytes[0] = VERSION;
        if let Ok(tree) = read(&bytes) {
            prop_assert_eq!(tree.to_bytes(), bytes.clone());
        }
        // Nor when it is asked on after it has failed.
        let mut reader = Reader::new(&bytes, &Limits { depth: 3, count: 20, bytes: 200 }).unwrap();
        for _ in 0..bytes.len() {
            let _ = reader.next();
        }
    }
}
