//! Times in log lines: RFC 3339 with milliseconds, and Apache's `[10/Oct/2000:13:55:36 +0000]`.
//!
//! Always UTC: a log that changes its offset twice a year cannot be sorted. The text of a second is
//! made once and copied for every line within it.

use std::time::{SystemTime, UNIX_EPOCH};

const DAY: u64 = 86_400;
const MONTHS: [&[u8]; 12] =
    [b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec"];

/// The second that was written last, as text.
#[derive(Debug, Default)]
pub struct Stamp {
    second: Option<u64>,
    rfc: Vec<u8>,
    clf: Vec<u8>,
}

/// A date in the Gregorian calendar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Date {
    /// The year.
    pub year: u64,
    /// The month, 1 to 12.
    pub month: u64,
    /// The day, 1 to 31.
    pub day: u64,
}

impl Date {
    /// The date that many days after 1970-01-01. Counts in years that begin in March, so that the leap
    /// day is the last of its year, in eras of 400 years.
    #[must_use]
    pub fn from_days(days: u64) -> Self {
        let since_march_0000 = days + 719_468;
        let era = since_march_0000 / 146_097;
        let day_of_era = since_march_0000 % 146_097;
        let year_of_era =
            (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let from_march = (5 * day_of_year + 2) / 153;
        let day = day_of_year - (153 * from_march + 2) / 5 + 1;
        let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
        Self { year: era * 400 + year_of_era + u64::from(month <= 2), month, day }
    }
}

impl Stamp {
    /// Appends `2000-10-10T13:55:36.123Z` (RFC 3339). Times before 1970 are written as 1970.
    pub fn rfc3339(&mut self, wall: SystemTime, out: &mut Vec<u8>) {
        let milliseconds = self.turn_to(wall);
        out.extend_from_slice(&self.rfc);
        let digit = |number: u32| b'0' + u8::try_from(number % 10).unwrap_or_default();
        let [hundreds, tens, ones] = [milliseconds / 100, milliseconds / 10, milliseconds].map(digit);
        out.extend_from_slice(&[b'.', hundreds, tens, ones, b'Z']);
    }

    /// Appends `[10/Oct/2000:13:55:36 +0000]`, Apache's `%t`.
    pub fn clf(&mut self, wall: SystemTime, out: &mut Vec<u8>) {
        self.turn_to(wall);
        out.extend_from_slice(&self.clf);
    }

    /// Makes both texts anew if the second is another one; the milliseconds within it.
    fn turn_to(&mut self, wall: SystemTime) -> u32 {
        let since = wall.duration_since(UNIX_EPOCH).unwrap_or_default();
        if self.second != Some(since.as_secs()) {
            self.second = Some(since.as_secs());
            self.write(since.as_secs());
        }
        since.subsec_millis()
    }

    fn write(&mut self, second: u64) {
        let date = Date::from_days(second / DAY);
        let time = second % DAY;
        let clock = [time / 3_600, time / 60 % 60, time % 60];
        let rfc = &mut self.rfc;
        rfc.clear();
        digits(date.year, 4, rfc);
        for (number, before) in [(date.month, b'-'), (date.day, b'-')] {
            rfc.push(before);
            digits(number, 2, rfc);
        }
        for (number, before) in clock.into_iter().zip(*b"T::") {
            rfc.push(before);
            digits(number, 2, rfc);
        }
        let clf = &mut self.clf;
        clf.clear();
        clf.push(b'[');
        digits(date.day, 2, clf);
        clf.push(b'/');
        let month = usize::try_from(date.month - 1).ok().and_then(|i| MONTHS.get(i));
        clf.extend_from_slice(month.copied().unwrap_or_default());
        clf.push(b'/');
        digits(date.year, 4, clf);
        for number in clock {
            clf.push(b':');
            digits(number, 2, clf);
        }
        clf.extend_from_slice(b" +0000]");
    }
}

/// Appends the last `places` decimal digits of `number`.
fn digits(number: u64, places: u32, out: &mut Vec<u8>) {
    for place in (0..places).rev() {
        let digit = number / 10_u64.pow(place) % 10;
        out.push(b'0' + u8::try_from(digit).unwrap_or_default());
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    fn both(seconds: u64, milliseconds: u64) -> (String, String) {
        let wall = UNIX_EPOCH + Duration::from_secs(seconds) + Duration::from_millis(milliseconds);
        let (mut stamp, mut rfc, mut clf) = (Stamp::default(), Vec::new(), Vec::new());
        stamp.rfc3339(wall, &mut rfc);
        stamp.clf(wall, &mut clf);
        (String::from_utf8(rfc).unwrap(), String::from_utf8(clf).unwrap())
    }

    #[test]
    fn known_moments() {
        for (second, rfc, clf) in [
            (0, "1970-01-01T00:00:00.007Z", "[01/Jan/1970:00:00:00 +0000]"),
            (971_186_136, "2000-10-10T13:55:36.007Z", "[10/Oct/2000:13:55:36 +0000]"),
            (951_782_400, "2000-02-29T00:00:00.007Z", "[29/Feb/2000:00:00:00 +0000]"),
            (1_709_164_799, "2024-02-28T23:59:59.007Z", "[28/Feb/2024:23:59:59 +0000]"),
            (1_735_689_599, "2024-12-31T23:59:59.007Z", "[31/Dec/2024:23:59:59 +0000]"),
            (4_107_542_400, "2100-03-01T00:00:00.007Z", "[01/Mar/2100:00:00:00 +0000]"),
        ] {
            assert_eq!(both(second, 7), (rfc.to_owned(), clf.to_owned()));
        }
    }

    #[test]
    fn a_kept_second_never_shows_in_another() {
        let (mut stamp, mut out) = (Stamp::default(), Vec::new());
        for ms in [1_999, 2_000, 1_001] {
            stamp.rfc3339(UNIX_EPOCH + Duration::from_millis(ms), &mut out);
        }
        let want = "1970-01-01T00:00:01.999Z1970-01-01T00:00:02.000Z1970-01-01T00:00:01.001Z";
        assert_eq!(String::from_utf8(out).unwrap(), want);
    }

    proptest! {
        #[test]
        fn each_day_follows_the_one_before(days in 0_u64..2_900_000) {
            let (today, tomorrow) = (Date::from_days(days), Date::from_days(days + 1));
            let leap = today.year.is_multiple_of(4) && (!today.year.is_multiple_of(100) || today.year.is_multiple_of(400));
            let length = [31, if leap { 29 } else { 28 }, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
            let want = if today.day < length[usize::try_from(today.month - 1).unwrap()] {
                Date { day: today.day + 1, ..today }
            } else if today.month < 12 {
                Date { day: 1, month: today.month + 1, ..today }
            } else {
                Date { year: today.year + 1, month: 1, day: 1 }
            };
            prop_assert_eq!(tomorrow, want);
        }
    }
}
