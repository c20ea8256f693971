//! Each reason for which bytes are refused, and where the error says they are wrong.

use weft_wire::format::VERSION;
use weft_wire::{Limits, Reader, Token, WireError, Writer};

use crate::tree::{Tree, encoded};

fn written(write: impl FnOnce(&mut Writer)) -> Vec<u8> {
    let mut writer = Writer::new();
    write(&mut writer);
    writer.into_bytes()
}

fn read(bytes: &[u8]) -> Result<Tree, WireError> {
    Tree::from_bytes(bytes, &Limits::default())
}

/// The error for a value that is written so.
fn refused(write: impl FnOnce(&mut Writer)) -> WireError {
    read(&written(write)).unwrap_err()
}

#[test]
fn small_values_are_short() {
    assert_eq!(written(|w| w.integer(-64)), [VERSION, 3, 127]);
    assert_eq!(written(|w| w.integer(64)), [VERSION, 3, 128, 1]);
    assert_eq!(written(|w| w.text(b"ab")), [VERSION, 7, 2, b'a', b'b']);
    assert_eq!(written(|w| w.tuple(0)), [VERSION, 10, 0]);
}

#[test]
fn a_writer_is_empty_until_a_value_is_written() {
    let mut writer = Writer::with_capacity(0);
    assert!(writer.is_empty());
    writer.none();
    assert!(!writer.is_empty());
    assert_eq!(writer.len(), writer.into_bytes().len());
}

#[test]
fn every_integer_of_64_bits_keeps_its_value() {
    for bits in 0..64 {
        for v in [1_i64 << bits, (1_i64 << bits).wrapping_sub(1), (1_i64 << bits).wrapping_neg(), !(1_i64 << bits)] {
            assert_eq!(read(&written(|w| w.integer(v))), Ok(Tree::Integer(v)));
        }
    }
}

#[test]
fn another_version_is_refused() {
    assert_eq!(read(&[VERSION + 1, 0]), Err(WireError::Version { found: VERSION + 1 }));
    assert_eq!(read(&[]), Err(WireError::Truncated { at: 0 }));
}

#[test]
fn an_unknown_tag_is_refused() {
    for tag in 27..=255 {
        assert_eq!(read(&[VERSION, 10, 1, tag]), Err(WireError::Tag { at: 3, tag }));
    }
}

#[test]
fn a_number_that_is_not_in_its_shortest_form_is_refused() {
    assert_eq!(read(&[VERSION, 3, 0x80, 0]), Err(WireError::Number { at: 2 }));
    assert_eq!(read(&[VERSION, 3, 0xff, 0x80, 0]), Err(WireError::Number { at: 2 }));
}

#[test]
fn a_number_of_more_than_64_bits_is_refused() {
    let nines = [0xff; 9];
    assert_eq!(read(&[&[VERSION, 3], &nines[..], &[1]].concat()), Ok(Tree::Integer(i64::MIN)));
    assert_eq!(read(&[&[VERSION, 3], &nines[..], &[2]].concat()), Err(WireError::Number { at: 2 }));
    assert_eq!(read(&[&[VERSION, 3], &nines[..], &[0x81, 0]].concat()), Err(WireError::Number { at: 2 }));
}

#[test]
fn a_block_longer_than_what_is_left_is_refused() {
    assert_eq!(read(&[VERSION, 8, 3, 1, 2]), Err(WireError::Truncated { at: 5 }));
    assert_eq!(read(&[&[VERSION, 8], &[0xff; 9][..], &[1]].concat()), Err(WireError::Truncated { at: 12 }));
}

#[test]
fn a_container_of_more_values_than_there_are_bytes_is_refused() {
    for (tag, claimed) in [(10, 2), (11, 2), (12, 1), (13, 2), (14, 2)] {
        assert_eq!(read(&[VERSION, tag, claimed, 0]), Err(WireError::Count { at: 1, claimed: claimed.into() }));
    }
    let huge = |w: &mut Writer| w.list(usize::MAX);
    assert_eq!(refused(huge), WireError::Count { at: 1, claimed: usize::MAX as u64 });
    assert_eq!(refused(|w| w.dict(usize::MAX)), WireError::Count { at: 1, claimed: usize::MAX as u64 });
    assert_eq!(refused(|w| w.data_class(b"m", b"C", 1)), WireError::Count { at: 1, claimed: 1 });
    assert_eq!(refused(|w| w.pickle(b"", 1)), WireError::Count { at: 1, claimed: 1 });
}

#[test]
fn bytes_that_one_container_needs_are_not_counted_for_another() {
    // Seven bytes are left for the inner one, and two of them are the outer one's.
    let bytes = |claimed| [VERSION, 10, 3, 10, claimed, 0, 0, 0, 0, 0, 0, 0];
    assert_eq!(read(&bytes(5)), Ok(Tree::Tuple(vec![Tree::Tuple(vec![Tree::None; 5]), Tree::None, Tree::None])));
    assert_eq!(read(&bytes(6)), Err(WireError::Count { at: 3, claimed: 6 }));
}

#[test]
fn more_levels_than_the_limit_are_refused() {
    let nested = |levels: usize| {
        written(|w| {
            (0..levels).for_each(|_| w.list(1));
            w.list(0);
        })
    };
    let limit = Limits::default().depth;
    assert!(read(&nested(limit)).is_ok());
    assert_eq!(read(&nested(limit + 1)), Err(WireError::TooDeep { at: 1 + 2 * limit, limit }));
    let shallow = Limits { depth: 0, ..Limits::default() };
    assert!(Tree::from_bytes(&nested(0), &shallow).is_ok());
    assert_eq!(Tree::from_bytes(&nested(1), &shallow), Err(WireError::TooDeep { at: 1, limit: 0 }));
}

#[test]
fn a_value_that_was_read_to_its_end_is_no_level() {
    let limits = Limits { depth: 2, ..Limits::default() };
    let bytes = written(|w| {
        w.tuple(100);
        for _ in 0..100 {
            w.time(1, 2, 3, 4, false);
            w.none();
        }
    });
    assert!(Tree::from_bytes(&bytes, &limits).is_ok());
}

#[test]
fn a_time_zone_and_a_buffer_are_levels() {
    let limits = Limits { depth: 0, ..Limits::default() };
    let zoned: [fn(&mut Writer); 3] =
        [|w| w.time(1, 2, 3, 4, false), |w| w.date_time(2000, 1, 1, 1, 2, 3, 4, false), |w| w.pickle(b"", 1)];
    for write in zoned {
        let bytes = written(|w| {
            write(w);
            w.attachment();
        });
        assert!(read(&bytes).is_ok());
        assert_eq!(Tree::from_bytes(&bytes, &limits), Err(WireError::TooDeep { at: 1, limit: 0 }));
    }
}

#[test]
fn more_values_than_the_limit_are_refused_before_they_are_read() {
    let bytes = written(|w| {
        w.dict(2);
        (0..4).for_each(|_| w.none());
    });
    let within = |count| Tree::from_bytes(&bytes, &Limits { count, ..Limits::default() });
    assert!(within(5).is_ok());
    assert_eq!(within(4), Err(WireError::TooMany { at: 1 }));
    assert_eq!(within(0), Err(WireError::TooMany { at: 1 }));
}

#[test]
fn more_bytes_than_the_limit_are_refused() {
    let bytes = written(|w| w.bytes(&[0; 10]));
    let within = |limit| Tree::from_bytes(&bytes, &Limits { bytes: limit, ..Limits::default() });
    assert!(within(13).is_ok());
    assert_eq!(within(12), Err(WireError::TooLong { length: 13, limit: 12 }));
}

#[test]
fn every_code_point_is_text_surrogates_included() {
    for point in 0..0x11_0000 {
        assert!(read(&written(|w| w.text(&encoded(point)))).is_ok(), "U+{point:04X}");
    }
    // Both halves of a pair, as Python writes them.
    assert!(read(&written(|w| w.text(b"a\xed\xa0\xbd\xed\xb8\x80z"))).is_ok());
}

#[test]
fn what_is_no_text_is_refused_and_its_first_wrong_byte_named() {
    let wrong: [&[u8]; 12] = [
        b"\x80",             // the middle of a character
        b"\xbf",             //
        b"\xc3",             // the beginning of one
        b"\xc0\x80",         // too long a form, of two bytes,
        b"\xe0\x9f\xbf",     // of three,
        b"\xf0\x8f\xbf\xbf", // and of four
        b"\xed\xa0",         // half a surrogate
        b"\xed\xa0z",        //
        b"\xed\xbf\xc0",     //
        b"\xf4\x90\x80\x80", // beyond the last code point
        b"\xf8\x88\x80\x80", // no such beginning
        b"\xff",             //
    ];
    for bytes in wrong {
        for before in [&b""[..], b"ab", "é".as_bytes(), b"\xed\xbf\xbf"] {
            let text = [before, bytes].concat();
            assert_eq!(refused(|w| w.text(&text)), WireError::Text { at: 3 + before.len() }, "{text:?}");
        }
    }
}

#[test]
fn names_and_decimals_are_texts_too() {
    assert_eq!(refused(|w| w.decimal(b"\xff")), WireError::Text { at: 3 });
    assert_eq!(refused(|w| w.enumeration(b"\xff", b"", b"")), WireError::Text { at: 3 });
    assert_eq!(refused(|w| w.enumeration(b"", b"\xff", b"")), WireError::Text { at: 4 });
    assert_eq!(refused(|w| w.enumeration(b"", b"", b"\xff")), WireError::Text { at: 5 });
    assert_eq!(refused(|w| w.data_class(b"\xff", b"", 0)), WireError::Text { at: 3 });
    assert_eq!(refused(|w| w.data_class(b"", b"\xff", 0)), WireError::Text { at: 4 });
}

#[test]
fn a_day_that_does_not_exist_is_refused() {
    let there = [(1, 1, 1), (9999, 12, 31), (2000, 2, 29), (2024, 2, 29), (2023, 4, 30), (2023, 2, 28)];
    for (year, month, day) in there {
        assert_eq!(read(&written(|w| w.date(year, month, day))), Ok(Tree::Date((year, month, day))));
    }
    let missing = [
        (0, 1, 1),
        (10_000, 1, 1),
        (2000, 0, 1),
        (2000, 13, 1),
        (2000, 1, 0),
        (2000, 1, 32),
        (2023, 4, 31),
        (1900, 2, 29),
    ];
    for (year, month, day) in missing.into_iter().chain([(2023, 2, 29), (2024, 2, 30)]) {
        assert_eq!(refused(|w| w.date(year, month, day)), WireError::Date { at: 1 });
        let zoned = |w: &mut Writer| w.date_time(year, month, day, 0, 0, 0, 0, false);
        assert_eq!(refused(zoned), WireError::Date { at: 1 });
    }
}

#[test]
fn a_time_that_does_not_exist_is_refused() {
    let missing = [(24, 0, 0, 0), (0, 60, 0, 0), (0, 0, 60, 0), (0, 0, 0, 1_000_000), (0, 0, 0, u32::MAX)];
    for (hour, minute, second, microsecond) in missing {
        let write = |w: &mut Writer| w.time(hour, minute, second, microsecond, false);
        assert_eq!(refused(write), WireError::Time { at: 1 });
        let zoned = |w: &mut Writer| w.date_time(2000, 1, 1, hour, minute, second, microsecond, false);
        assert_eq!(refused(zoned), WireError::Time { at: 1 });
    }
    let mut bytes = written(|w| {
        w.time(23, 59, 59, 999_999, true);
        w.none();
    });
    assert!(read(&bytes).is_ok());
    bytes[5] = 2; // fold
    assert_eq!(read(&bytes), Err(WireError::Time { at: 1 }));
}

#[test]
fn a_duration_that_is_not_normalised_is_refused() {
    for (d, s, m) in [(-999_999_999, 0, 0), (999_999_999, 86_399, 999_999)] {
        assert_eq!(read(&written(|w| w.time_delta(d, s, m))), Ok(Tree::TimeDelta(d, s, m)));
    }
    let wrong =
        [(1_000_000_000, 0, 0), (-1_000_000_000, 0, 0), (0, -1, 0), (0, 86_400, 0), (0, 0, -1), (0, 0, 1_000_000)];
    for (d, s, m) in wrong {
        assert_eq!(refused(|w| w.time_delta(d, s, m)), WireError::TimeDelta { at: 1 });
    }
}

#[test]
fn the_same_as_what_was_not_remembered_is_refused() {
    assert_eq!(refused(|w| w.same(0)), WireError::Same { at: 1, index: 0 });
    let next = |w: &mut Writer| {
        w.remember();
        w.list(1);
        w.same(1);
    };
    assert_eq!(refused(next), WireError::Same { at: 4, index: 1 });
}

#[test]
fn only_a_value_of_its_own_is_remembered() {
    let itself = |w: &mut Writer| {
        w.remember();
        w.same(0);
    };
    assert_eq!(refused(itself), WireError::Remember { at: 2 });
    let twice = |w: &mut Writer| {
        w.remember();
        w.remember();
        w.none();
    };
    assert_eq!(refused(twice), WireError::Remember { at: 2 });
    assert_eq!(refused(Writer::remember), WireError::Truncated { at: 2 });
}

#[test]
fn a_field_begins_with_its_name() {
    let fields = |write: fn(&mut Writer)| {
        written(|w| {
            w.data_class(b"m", b"C", 2);
            w.text(b"x");
            w.remember();
            w.tuple(1);
            w.none();
            write(w);
            w.integer(1);
        })
    };
    assert!(read(&fields(|w| w.text(b"y"))).is_ok());
    let others: [fn(&mut Writer); 4] = [Writer::none, Writer::remember, |w| w.same(0), |w| w.bytes(b"y")];
    for other in others {
        assert_eq!(read(&fields(other)), Err(WireError::FieldName { at: 14 }));
    }
}

#[test]
fn a_buffer_of_a_pickle_is_an_attachment() {
    let buffers = |write: fn(&mut Writer)| {
        written(|w| {
            w.pickle(b"p", 2);
            w.attachment();
            write(w);
            w.attachment();
        })
    };
    assert_eq!(read(&buffers(|_| ())), Ok(Tree::Pickle(b"p".into(), vec![0, 1])));
    for other in [Writer::none, Writer::remember] {
        assert_eq!(read(&buffers(other)), Err(WireError::Buffer { at: 6 }));
    }
}

#[test]
fn attachments_are_numbered_in_order() {
    let bytes = written(|w| {
        w.tuple(3);
        w.attachment();
        w.pickle(b"", 1);
        w.attachment();
        w.attachment();
    });
    let expected = [Tree::Attachment(0), Tree::Pickle(vec![], vec![1]), Tree::Attachment(2)];
    assert_eq!(read(&bytes), Ok(Tree::Tuple(expected.into())));
}

#[test]
fn nothing_is_read_after_the_end() {
    let bytes = written(Writer::none);
    let mut reader = Reader::new(&bytes, &Limits::default()).unwrap();
    assert_eq!(reader.next(), Ok(Token::None));
    assert_eq!(reader.next(), Err(WireError::Complete { at: 2 }));
    assert_eq!(reader.finish(), Ok(()));
}

#[test]
fn a_value_of_which_something_was_not_read_is_not_finished() {
    let bytes = written(|w| {
        w.tuple(2);
        w.none();
        w.none();
    });
    let mut reader = Reader::new(&bytes, &Limits::default()).unwrap();
    reader.next().unwrap();
    reader.next().unwrap();
    assert_eq!(reader.finish(), Err(WireError::Incomplete { at: 4, missing: 1 }));
}

#[test]
fn an_error_says_what_is_wrong_and_where() {
    let at = 17;
    let errors = [
        (WireError::Version { found: 9 }, "byte 0: the value is in version 9 of the format"),
        (WireError::TooDeep { at, limit: 200 }, "byte 17: the value is nested deeper than the 200 levels"),
        (WireError::Tag { at, tag: 99 }, "byte 17: no value has the tag 99"),
        (WireError::Same { at, index: 3 }, "byte 17: the same as value 3"),
    ];
    for (error, beginning) in errors {
        assert!(error.to_string().starts_with(beginning), "{error}");
    }
}
