//! Times as operators read them: in the machine's time zone.

use std::path::PathBuf;

use crate::env::{Disk, civil};

/// Returns `2026-01-31 23:59:59,999`, in local time.
pub(super) fn timestamp(ms: i64) -> String {
    let local = ms + offset_s(ms.div_euclid(1000)) * 1000;
    format!("{},{:03}", date_time(local), local.rem_euclid(1000))
}

/// Returns `2026-01-31 23:59:59`, in local time.
pub(super) fn timestamp_s(ms: i64) -> String {
    date_time(ms + offset_s(ms.div_euclid(1000)) * 1000)
}

/// Reads milliseconds since 1970 or `2026-01-31#23:59:59:999` in local time.
pub(super) fn parse(text: &str) -> Option<i64> {
    if let Ok(ms) = text.parse() {
        return Some(ms);
    }
    let (date, time) = text.split_once('#')?;
    let mut date = date.splitn(3, '-').map(str::parse::<i64>);
    let (year, month, day) = (date.next()?.ok()?, date.next()?.ok()?, date.next()?.ok()?);
    let mut time = time.splitn(4, ':').map(str::parse::<i64>);
    let (hour, minute, second, ms) =
        (time.next()?.ok()?, time.next()?.ok()?, time.next()?.ok()?, time.next()?.ok()?);
    let in_range = (1..=12).contains(&month) && (1..=31).contains(&day) && (0..=9999).contains(&year);
    let in_day = (0..24).contains(&hour) && (0..60).contains(&minute) && (0..61).contains(&second);
    if !in_range || !in_day || !(0..1000).contains(&ms) {
        return None;
    }
    let local_s = days_since_1970(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second;
    // The offset at the local time, corrected once, is exact but for the hour that a switch repeats.
    let guess = local_s - offset_s(local_s);
    Some((local_s - offset_s(guess)) * 1000 + ms)
}

fn date_time(ms: i64) -> String {
    let s = ms.div_euclid(1000);
    let (year, month, day) = civil(s.div_euclid(86_400));
    let second = s.rem_euclid(86_400);
    format!("{year:04}-{month:02}-{day:02} {:02}:{:02}:{:02}", second / 3600, second / 60 % 60, second % 60)
}

fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let (era, of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let of_year = (153 * (if month > 2 { month - 3 } else { month + 9 }) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

/// Returns how far local time is ahead of UTC at `at_s`, in seconds.
fn offset_s(at_s: i64) -> i64 {
    zone_file().and_then(|bytes| Zone::parse(&bytes)).map_or(0, |zone| zone.offset_s(at_s))
}

fn zone_file() -> Option<Vec<u8>> {
    let path = match std::env::var("TZ") {
        Ok(name) => {
            let name = name.trim_start_matches(':');
            PathBuf::from("/usr/share/zoneinfo").join(if name.is_empty() { "UTC" } else { name })
        }
        Err(_) => PathBuf::from("/etc/localtime"),
    };
    Disk::real().read(&path).ok()
}

/// A time zone file. Source: RFC 9636 (TZif), version 2 and later.
#[derive(Debug)]
struct Zone {
    /// From when on which offset holds, in seconds.
    switches: Vec<(i64, i64)>,
    /// The offset before the first.
    first_s: i64,
    /// What holds after the last.
    rule: Option<Rule>,
}

/// The POSIX rule at the end of a zone file, such as `CET-1CEST,M3.5.0,M10.5.0/3`.
#[derive(Debug)]
struct Rule {
    standard_s: i64,
    summer: Option<Summer>,
}

#[derive(Debug)]
struct Summer {
    offset_s: i64,
    from: Day,
    to: Day,
}

/// The n-th given weekday of a month (5 = the last), and the local time on it.
#[derive(Debug, Clone, Copy)]
struct Day {
    month: i64,
    week: i64,
    weekday: i64,
    time_s: i64,
}

impl Zone {
    fn parse(bytes: &[u8]) -> Option<Self> {
        const HEADER: usize = 44;
        let count = |at: usize, field: usize| -> Option<usize> {
            let start = at + 20 + field * 4;
            let four = bytes.get(start..start + 4)?.try_into().ok()?;
            usize::try_from(u32::from_be_bytes(four)).ok()
        };
        let counts = |at| -> Option<[usize; 6]> {
            bytes.get(at..at + 4).filter(|magic| magic == b"TZif")?;
            let mut counts = [0; 6];
            for (field, value) in counts.iter_mut().enumerate() {
                *value = count(at, field)?;
            }
            Some(counts)
        };
        // The first block has 32-bit times and is skipped.
        let [is_ut, is_std, leaps, times, types, chars] = counts(0)?;
        let second = HEADER + times * 5 + types * 6 + chars + leaps * 8 + is_std + is_ut;
        let [is_ut, is_std, leaps, times, types, chars] = counts(second)?;
        let times_at = second + HEADER;
        let kinds_at = times_at + times * 8;
        let types_at = kinds_at + times;
        let offset = |kind: usize| -> Option<i64> {
            let start = types_at + kind * 6;
            Some(i32::from_be_bytes(bytes.get(start..start + 4)?.try_into().ok()?).into())
        };
        let mut switches = Vec::new();
        for number in 0..times {
            let start = times_at + number * 8;
            let at_s = i64::from_be_bytes(bytes.get(start..start + 8)?.try_into().ok()?);
            switches.push((at_s, offset(usize::from(*bytes.get(kinds_at + number)?))?));
        }
        let footer_at = types_at + types * 6 + chars + leaps * 12 + is_std + is_ut;
        let footer = std::str::from_utf8(bytes.get(footer_at..)?).ok()?;
        Some(Self { switches, first_s: offset(0)?, rule: Rule::parse(footer.trim()) })
    }

    fn offset_s(&self, at_s: i64) -> i64 {
        let after = self.switches.partition_point(|(from, _)| *from <= at_s);
        match (&self.rule, after) {
            (Some(rule), after) if after == self.switches.len() => rule.offset_s(at_s),
            (_, 0) => self.first_s,
            (_, after) => self.switches[after - 1].1,
        }
    }
}

impl Rule {
    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split(',');
        let rest = skip_name(parts.next()?);
        let (standard_s, rest) = take_time(rest)?;
        // POSIX counts westwards.
        let standard_s = -standard_s;
        if rest.is_empty() {
            return Some(Self { standard_s, summer: None });
        }
        let rest = skip_name(rest);
        let offset_s = if rest.is_empty() { standard_s + 3600 } else { -take_time(rest)?.0 };
        let (from, to) = (Day::parse(parts.next()?)?, Day::parse(parts.next()?)?);
        Some(Self { standard_s, summer: Some(Summer { offset_s, from, to }) })
    }

    fn offset_s(&self, at_s: i64) -> i64 {
        let Some(summer) = &self.summer else { return self.standard_s };
        let (year, ..) = civil((at_s + self.standard_s).div_euclid(86_400));
        let from = summer.from.at_s(year) - self.standard_s;
        let to = summer.to.at_s(year) - summer.offset_s;
        let is_summer = if from < to { (from..to).contains(&at_s) } else { !(to..from).contains(&at_s) };
        if is_summer { summer.offset_s } else { self.standard_s }
    }
}

impl Day {
    fn parse(text: &str) -> Option<Self> {
        let (day, time) = text.split_once('/').unwrap_or((text, "2"));
        let mut numbers = day.strip_prefix('M')?.splitn(3, '.').map(str::parse::<i64>);
        let (month, week, weekday) = (numbers.next()?.ok()?, numbers.next()?.ok()?, numbers.next()?.ok()?);
        Some(Self { month, week, weekday, time_s: take_time(time)?.0 })
    }

    /// Returns when it is, in seconds of local time since 1970.
    fn at_s(self, year: i64) -> i64 {
        let first = days_since_1970(year, self.month, 1);
        let (next_year, next_month) = if self.month == 12 { (year + 1, 1) } else { (year, self.month + 1) };
        let after = days_since_1970(next_year, next_month, 1);
        // 1970-01-01 was a Thursday.
        let mut day = first + (self.weekday - (first + 4)).rem_euclid(7) + (self.week - 1) * 7;
        while day >= after {
            day -= 7;
        }
        day * 86_400 + self.time_s
    }
}

fn skip_name(text: &str) -> &str {
    match text.strip_prefix('<') {
        Some(quoted) => quoted.split_once('>').map_or("", |(_, rest)| rest),
        None => text.trim_start_matches(|c: char| c.is_ascii_alphabetic()),
    }
}

/// Reads `[+-]hours[:minutes[:seconds]]` as seconds and returns what follows.
fn take_time(text: &str) -> Option<(i64, &str)> {
    let (sign, text) = match text.strip_prefix('-') {
        Some(rest) => (-1, rest),
        None => (1, text.strip_prefix('+').unwrap_or(text)),
    };
    let end = text.find(|c: char| !c.is_ascii_digit() && c != ':').unwrap_or(text.len());
    let mut seconds = 0;
    for (part, unit) in text[..end].split(':').zip([3600, 60, 1]) {
        seconds += part.parse::<i64>().ok()? * unit;
    }
    Some((sign * seconds, &text[end..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_and_dates_agree() {
        for (day, date) in
            [(0, (1970, 1, 1)), (11_016, (2000, 2, 29)), (-1, (1969, 12, 31)), (20_778, (2026, 11, 21))]
        {
            assert_eq!(civil(day), date);
            assert_eq!(days_since_1970(date.0, date.1, date.2), day);
        }
        assert_eq!(date_time(1_795_240_485_123), "2026-11-21 05:54:45");
    }

    #[test]
    fn rules_say_when_summer_is() {
        let hour = 3600;
        // As `date` prints them: the second before a switch, and the switch.
        for (rule, at_s, hours) in [
            ("CST-8", 0, 8),
            ("UTC0", 0, 0),
            ("<+0330>-3:30", 0, 3),
            ("CET-1CEST,M3.5.0,M10.5.0/3", 1_774_745_999, 1),
            ("CET-1CEST,M3.5.0,M10.5.0/3", 1_774_746_000, 2),
            ("CET-1CEST,M3.5.0,M10.5.0/3", 1_792_889_999, 2),
            ("CET-1CEST,M3.5.0,M10.5.0/3", 1_792_890_000, 1),
            ("EST5EDT,M3.2.0,M11.1.0", 1_772_953_199, -5),
            ("EST5EDT,M3.2.0,M11.1.0", 1_772_953_200, -4),
            ("AEST-10AEDT,M10.1.0,M4.1.0/3", 1_767_225_600, 11),
            ("AEST-10AEDT,M10.1.0,M4.1.0/3", 1_782_864_000, 10),
        ] {
            assert_eq!(Rule::parse(rule).unwrap().offset_s(at_s) / hour, hours, "{rule} {at_s}");
        }
    }

    #[test]
    fn zone_files_are_read() {
        // Version 2, one switch to +02:00 at 1,000,000, before it UTC, after it a rule.
        let header = |times: u32, types: u32, chars: u32| {
            let mut bytes = b"TZif2".to_vec();
            bytes.extend([0; 15]);
            for count in [0, 0, 0, times, types, chars] {
                bytes.extend(count.to_be_bytes());
            }
            bytes
        };
        let mut bytes = header(0, 0, 0);
        bytes.extend(header(2, 2, 4));
        bytes.extend(1_000_000_i64.to_be_bytes());
        bytes.extend(2_000_000_i64.to_be_bytes());
        bytes.extend([1, 0]);
        bytes.extend([0, 0, 0, 0, 0, 0]);
        bytes.extend([0, 0, 0x1c, 0x20, 0, 0]);
        bytes.extend(b"UTC\0\nCST-8\n");
        let zone = Zone::parse(&bytes).unwrap();
        let hours = [0, 1_000_000, 1_999_999, 2_000_000].map(|at_s| zone.offset_s(at_s) / 3600);
        assert_eq!(hours, [0, 2, 2, 8]);
        for end in 0..bytes.len() - 1 {
            let _ = Zone::parse(&bytes[..end]);
        }
    }

    #[test]
    fn times_are_read_back() {
        let ms = 1_795_240_485_123;
        let text = timestamp(ms).replace(' ', "#").replace(',', ":");
        assert_eq!(parse(&text), Some(ms));
        assert_eq!(parse("17"), Some(17));
        for wrong in ["", "x", "2026-01-01", "2026-13-01#00:00:00:000", "2026-01-01#00:00:00"] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
    }
}
