//! The one place of the data plane that reads a clock.

use std::cell::Cell;
use std::time::{Instant, SystemTime, UNIX_EPOCH};
use units::Nanos;

thread_local! {
    /// What this thread's clock said last.
    static LATELY: Cell<u64> = const { Cell::new(0) };
}

/// Time since the process's proxy began, and what that is on the wall.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    began: Instant,
    began_unix: Nanos,
}

impl Clock {
    #[allow(clippy::disallowed_methods, reason = "this is the edge that reads the clocks")]
    pub(crate) fn start() -> Self {
        let began_unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().into();
        Self { began: Instant::now(), began_unix }
    }

    #[inline]
    #[allow(clippy::disallowed_methods, reason = "this is the edge that reads the clocks")]
    pub(crate) fn now(&self) -> Nanos {
        // Never zero, so that zero can mean "not yet".
        let elapsed = Instant::now().saturating_duration_since(self.began);
        let now = elapsed.as_secs() * 1_000_000_000 + u64::from(elapsed.subsec_nanos()) + 1;
        LATELY.set(now);
        Nanos(now)
    }

    /// What [`Self::now`] said last on this thread, for those who asked in the same turn and have not waited since: a
    /// request takes a handful of steps between two waits, and looking at the clock for each of them is a tenth of its
    /// cost. A worker looks at least twenty times a second whatever happens.
    #[inline]
    pub(crate) fn lately(&self) -> Nanos {
        Nanos(LATELY.get()).max(Nanos(1))
    }

    /// The wall's time at an instant of ours. Monotonic: a clock that is set back does not reorder a trace.
    pub(crate) fn unix(&self, at: Nanos) -> Nanos {
        self.began_unix + at
    }

    /// The instant as tokio wants it, for the rare waits that use its timers.
    pub(crate) fn instant(&self, at: Nanos) -> tokio::time::Instant {
        (self.began + std::time::Duration::from(at)).into()
    }
}

/// `Date` as HTTP writes it, formatted once a second and copied otherwise.
#[derive(Debug)]
pub(crate) struct DateCache {
    second: Cell<u64>,
    text: Cell<[u8; 29]>,
}

impl Default for DateCache {
    fn default() -> Self {
        Self { second: Cell::new(u64::MAX), text: Cell::new([b' '; 29]) }
    }
}

impl DateCache {
    pub(crate) fn get(&self, unix: Nanos) -> [u8; 29] {
        let second = unix.0 / 1_000_000_000;
        if self.second.replace(second) != second {
            self.text.set(imf_date(second));
        }
        self.text.get()
    }
}

/// `Sun, 06 Nov 1994 08:49:37 GMT` (RFC 9110, 5.6.7).
pub(crate) fn imf_date(unix_secs: u64) -> [u8; 29] {
    const DAYS: &[u8; 21] = b"ThuFriSatSunMonTueWed";
    const MONTHS: &[u8; 36] = b"JanFebMarAprMayJunJulAugSepOctNovDec";
    let days = unix_secs / 86_400;
    let secs = unix_secs % 86_400;
    // Days to civil date, after Howard Hinnant: years begin in March so that the leap day comes last.
    let shifted = days + 719_468;
    let era = shifted / 146_097;
    let day_of_era = shifted % 146_097;
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let mut text = *b"Thu, 01 Jan 1970 00:00:00 GMT";
    let weekday = (days % 7) as usize * 3;
    text[..3].copy_from_slice(&DAYS[weekday..weekday + 3]);
    let name = (month as usize - 1) * 3;
    text[8..11].copy_from_slice(&MONTHS[name..name + 3]);
    let mut two = |at: usize, value: u64| {
        text[at] = b'0' + (value / 10 % 10) as u8;
        text[at + 1] = b'0' + (value % 10) as u8;
    };
    two(5, day);
    two(12, year / 100);
    two(14, year % 100);
    two(17, secs / 3_600);
    two(20, secs / 60 % 60);
    two(23, secs % 60);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        for (secs, text) in [
            (0, "Thu, 01 Jan 1970 00:00:00 GMT"),
            (784_111_777, "Sun, 06 Nov 1994 08:49:37 GMT"),
            (951_782_400, "Tue, 29 Feb 2000 00:00:00 GMT"),
            (4_107_542_399, "Sun, 28 Feb 2100 23:59:59 GMT"),
            (4_107_542_400, "Mon, 01 Mar 2100 00:00:00 GMT"),
        ] {
            assert_eq!(String::from_utf8_lossy(&imf_date(secs)), text);
        }
    }
}
