//! The calendar.

/// Returns year, month and day of a day counted from 1970-01-01, in the Gregorian calendar.
pub fn civil(day: i64) -> (i64, i64, i64) {
    // Years are counted from March, so that the leap day is the last of a year; an era is 400 years.
    let day = day + 719_468;
    let era = day.div_euclid(146_097);
    let of_era = day.rem_euclid(146_097);
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (era * 400 + year + i64::from(month <= 2), month, day)
}
