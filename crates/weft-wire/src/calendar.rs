//! Which dates, times and durations there are: those of Python's `datetime`.

/// Whether this is a day of the (proleptic) Gregorian calendar, in the years 1 to 9999.
pub(crate) fn is_date(year: u16, month: u8, day: u8) -> bool {
    let leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let days = match month {
        2 if leap => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => 0,
    };
    (1..=9999).contains(&year) && (1..=days).contains(&day)
}

/// Whether this is a time of day. There are no leap seconds.
pub(crate) fn is_time(hour: u8, minute: u8, second: u8, microsecond: u32, fold: u8) -> bool {
    hour < 24 && minute < 60 && second < 60 && microsecond < 1_000_000 && fold < 2
}

/// Whether this is a duration as Python normalises it.
pub(crate) fn is_time_delta(days: i32, seconds: i32, microseconds: i32) -> bool {
    (-999_999_999..=999_999_999).contains(&days)
        && (0..86_400).contains(&seconds)
        && (0..1_000_000).contains(&microseconds)
}
