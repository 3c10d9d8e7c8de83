//! Weekly opening hours on the clock of a place: `Mon-Fri 07:00-19:00`, by the rules of its time zone.

use std::fmt;
use std::time::SystemTime;

use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::config::complaint::did_you_mean;
use crate::config::section::{Fault, FromText};

/// When something is open.
#[derive(Clone, Debug)]
pub struct Hours {
    windows: Box<[Window]>,
    zone: TimeZone,
}

/// Some days of the week, from one time to another. One that ends before it begins goes on past midnight, and
/// belongs to the day that it begins on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Bit 0 is Monday.
    days: u8,
    /// Minutes since midnight; `to` is not part of it, and may be 24:00.
    from: u16,
    to: u16,
}

/// A time zone of IANA's database.
#[derive(Clone, Debug)]
pub struct Zone(pub TimeZone);

const DAYS: [&str; 7] = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];
const EVERY_DAY: u8 = 0x7f;
const MIDNIGHT: u16 = 24 * 60;

impl Hours {
    /// These windows on the clocks of `zone`.
    #[must_use]
    pub fn new(windows: impl IntoIterator<Item = Window>, zone: TimeZone) -> Self {
        Self { windows: windows.into_iter().collect(), zone }
    }

    /// Whether it is open at `now`.
    #[must_use]
    pub fn open(&self, now: SystemTime) -> bool {
        // A time that no calendar holds is in no window.
        let Ok(now) = Timestamp::try_from(now) else { return false };
        let there = self.zone.to_datetime(now);
        let day = there.weekday().to_monday_zero_offset().unsigned_abs();
        let minute = u16::from(there.hour().unsigned_abs()) * 60 + u16::from(there.minute().unsigned_abs());
        self.windows.iter().any(|window| window.holds(day, minute))
    }
}

impl fmt::Display for Hours {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for window in &self.windows {
            write!(f, "{window}, ")?;
        }
        f.write_str(self.zone.iana_name().unwrap_or("UTC"))
    }
}

impl Window {
    fn holds(self, day: u8, minute: u16) -> bool {
        let on = |day: u8| self.days & (1 << (day % 7)) != 0;
        if self.from < self.to {
            return on(day) && self.from <= minute && minute < self.to;
        }
        (on(day) && self.from <= minute) || (on(day + 6) && minute < self.to)
    }
}

impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.days != EVERY_DAY {
            let days = DAYS.iter().enumerate().filter(|(day, _)| self.days & (1 << day) != 0);
            let days: Vec<&str> = days.map(|(_, name)| *name).collect();
            write!(f, "{} ", days.join(","))?;
        }
        write!(f, "{:02}:{:02}-{:02}:{:02}", self.from / 60, self.from % 60, self.to / 60, self.to % 60)
    }
}

const HINT: &str = "write `Mon-Fri 07:00-19:00`, `Sat,Sun 09:00-12:00`, or `22:00-06:00` for every night";

impl FromText for Window {
    fn from_text(text: &str) -> Result<Self, Fault> {
        let fault = |what: String| Fault::new(what, HINT);
        let (days, times) = match text.trim().rsplit_once(char::is_whitespace) {
            Some((days, times)) => (days_of(days.trim()).map_err(fault)?, times),
            None => (EVERY_DAY, text.trim()),
        };
        let (from, to) =
            times.split_once('-').ok_or_else(|| fault(format!("`{times}` is not a time to another")))?;
        let time = |text: &str| minutes(text).ok_or_else(|| fault(format!("`{text}` is not a time of day")));
        let (from, to) = (time(from)?, time(to)?);
        if from == to || from == MIDNIGHT {
            return Err(fault(format!("`{times}` is never; `00:00-24:00` is the whole day")));
        }
        Ok(Self { days, from, to })
    }
}

/// `Mon-Fri`, `Sat,Sun`, `Fri-Mon`: a bit for each day.
fn days_of(text: &str) -> Result<u8, String> {
    let mut days = 0;
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (mut day, last) = (day_of(first)?, day_of(last)?);
        days |= 1 << day;
        while day != last {
            day = (day + 1) % 7;
            days |= 1 << day;
        }
    }
    Ok(days)
}

/// `Mon`, `monday`: its number.
fn day_of(text: &str) -> Result<u8, String> {
    let word = text.trim().to_ascii_lowercase();
    let full = ["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"];
    let found = (0..).zip(full).find(|(_, full)| word.len() >= 3 && full.starts_with(&word));
    found.map(|(day, _)| day).ok_or_else(|| format!("`{}` is not a day of the week", text.trim()))
}

/// `07:30`: minutes since midnight, up to 24:00.
fn minutes(text: &str) -> Option<u16> {
    let (hours, minutes) = text.split_once(':')?;
    let number = |text: &str, digits| -> Option<u16> {
        let plain =
            (1..=2).contains(&text.len()) && text.len() >= digits && text.bytes().all(|b| b.is_ascii_digit());
        plain.then(|| text.parse().ok())?
    };
    let (hours, minutes) = (number(hours, 1)?, number(minutes, 2)?);
    (minutes < 60 && hours * 60 + minutes <= MIDNIGHT).then_some(hours * 60 + minutes)
}

impl FromText for Zone {
    fn from_text(text: &str) -> Result<Self, Fault> {
        TimeZone::get(text).map(Self).map_err(|_| {
            let known: Vec<String> = jiff::tz::db().available().map(|name| name.to_string()).collect();
            let hint = did_you_mean(text, known.iter().map(String::as_str))
                .unwrap_or_else(|| "write a name of IANA's, such as `Europe/Berlin`, or `UTC`".to_owned());
            Fault::new(format!("`{text}` is not a time zone"), hint)
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(text: &str) -> SystemTime {
        text.parse::<Timestamp>().unwrap().into()
    }

    fn hours(windows: &[&str], zone: &str) -> Hours {
        let windows =
            windows.iter().map(|text| Window::from_text(text).unwrap_or_else(|f| panic!("{text}: {f:?}")));
        Hours::new(windows.collect::<Vec<_>>(), Zone::from_text(zone).unwrap().0)
    }

    #[test]
    fn office_hours_in_berlin_through_the_year() {
        let office = hours(&["Mon-Fri 07:00-19:00"], "Europe/Berlin");
        // 2026-07-06 and 2026-01-05 are Mondays; Berlin is two hours ahead in summer, one in winter.
        for open in
            ["2026-07-06T05:00:00Z", "2026-07-10T16:59:59Z", "2026-01-05T06:00:00Z", "2026-01-09T17:59:59Z"]
        {
            assert!(office.open(at(open)), "{open}");
        }
        for closed in [
            "2026-07-06T04:59:59Z",
            "2026-07-06T17:00:00Z",
            "2026-01-05T05:59:59Z",
            "2026-01-05T18:00:00Z",
            "2026-07-11T10:00:00Z",
            "2026-07-12T10:00:00Z",
        ] {
            assert!(!office.open(at(closed)), "{closed}");
        }
    }

    #[test]
    fn the_hour_that_comes_twice_and_the_one_that_never_comes() {
        let night = hours(&["Sun 02:00-03:00"], "Europe/Berlin");
        for open in ["2026-10-25T00:30:00Z", "2026-10-25T01:30:00Z"] {
            assert!(night.open(at(open)), "{open}: clocks go back, 02:30 comes twice");
        }
        for closed in ["2026-03-29T00:59:59Z", "2026-03-29T01:00:00Z"] {
            assert!(!night.open(at(closed)), "{closed}: clocks go forward, 02:30 never comes");
        }
    }

    #[test]
    fn nights_belong_to_the_day_that_they_begin_on() {
        let night = hours(&["Fri 22:00-06:00"], "UTC");
        for open in ["2026-07-10T22:00:00Z", "2026-07-11T05:59:59Z"] {
            assert!(night.open(at(open)), "{open}");
        }
        for closed in
            ["2026-07-10T05:00:00Z", "2026-07-10T21:59:59Z", "2026-07-11T06:00:00Z", "2026-07-11T22:00:00Z"]
        {
            assert!(!night.open(at(closed)), "{closed}");
        }
        let sunday = hours(&["Sun 22:00-06:00"], "UTC");
        assert!(sunday.open(at("2026-07-13T01:00:00Z")), "on to Monday");
    }

    #[test]
    fn windows_are_read_as_people_write_them() {
        for (written, shown) in [
            ("Mon-Fri 07:00-19:00", "Mon,Tue,Wed,Thu,Fri 07:00-19:00"),
            ("monday-friday 7:00-19:00", "Mon,Tue,Wed,Thu,Fri 07:00-19:00"),
            ("Sat,Sun 09:00-12:30", "Sat,Sun 09:00-12:30"),
            ("Sat-Mon,Wed 00:00-24:00", "Mon,Wed,Sat,Sun 00:00-24:00"),
            ("22:00-06:00", "22:00-06:00"),
        ] {
            assert_eq!(Window::from_text(written).unwrap().to_string(), shown, "{written}");
        }
        for wrong in [
            "",
            "Mon",
            "Mon-Fri",
            "Mon 7-19",
            "Mon 07:00",
            "Mon 07:00-25:00",
            "Mon 07:60-08:00",
            "Mon 07:0-08:00",
            "Mo 07:00-08:00",
            "Mon 07:00-07:00",
            "Mon 24:00-07:00",
            "Mon..Fri 07:00-19:00",
            "Mon 07:00-08:00-09:00",
            "Mon +7:00-08:00",
        ] {
            assert!(Window::from_text(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn zones_are_ianas() {
        assert!(Zone::from_text("Europe/Berlin").is_ok() && Zone::from_text("UTC").is_ok());
        let fault = Zone::from_text("Europe/Berln").unwrap_err();
        assert_eq!(fault.hint.as_deref(), Some("did you mean `Europe/Berlin`?"));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        /// By looking at every minute since the window began, which is the definition.
        #[test]
        fn it_agrees_with_counting_minutes(days in 1u8..128, from in 0u16..1440, to in 1u16..=1440, asked in 0u32..10080) {
            prop_assume!(from != to);
            let window = Window { days, from, to };
            let length = if from < to { to - from } else { to + MIDNIGHT - from };
            let naive = (0..7u32).filter(|day| days & (1 << day) != 0).any(|day| {
                let start = day * 1440 + u32::from(from);
                (0..u32::from(length)).any(|minute| (start + minute) % 10080 == asked)
            });
            let (day, minute) = (u8::try_from(asked / 1440).unwrap(), u16::try_from(asked % 1440).unwrap());
            prop_assert_eq!(window.holds(day, minute), naive);
        }

        #[test]
        fn any_text_is_survived(text in "\\PC{0,30}", near in "[A-Za-z,-]{0,9} [0-9:-]{0,12}", seconds: u64) {
            let _ = (Window::from_text(&text), Window::from_text(&near));
            if let Some(time) = SystemTime::UNIX_EPOCH.checked_add(std::time::Duration::from_secs(seconds)) {
                let _ = hours(&["Mon 07:00-19:00"], "UTC").open(time);
            }
        }
    }
}
