//! A CloudWatch alarm: readings are gathered into periods, and M of the last N periods must breach.

use super::Reading;
use crate::settings::scale::{self, Comparison, Missing, Statistic};
use std::collections::VecDeque;
use units::Nanos;

#[derive(Clone, Debug)]
pub(super) struct Alarm {
    settings: scale::Alarm,
    period_ends: Option<Nanos>,
    gathered: Gathered,
    /// The last N completed periods, newest last; `None` had no data.
    periods: VecDeque<Option<f64>>,
    state: AlarmState,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum AlarmState {
    #[default]
    InsufficientData,
    Ok,
    Alarm,
}

#[derive(Clone, Copy, Debug, Default)]
struct Gathered {
    count: u32,
    sum: f64,
    min: f64,
    max: f64,
}

/// A day of one-minute periods: what CloudWatch allows at most.
const PERIODS_MAX: u32 = 1_440;

impl Alarm {
    pub(super) fn new(settings: &scale::Alarm) -> Self {
        let mut settings = settings.clone();
        settings.evaluation_periods = settings.evaluation_periods.clamp(1, PERIODS_MAX);
        settings.datapoints_to_alarm = settings.datapoints_to_alarm.clamp(1, settings.evaluation_periods);
        settings.period = settings.period.max(Nanos(1));
        let periods = VecDeque::with_capacity(settings.evaluation_periods as usize + 1);
        Self {
            settings,
            period_ends: None,
            gathered: Gathered::default(),
            periods,
            state: AlarmState::default(),
        }
    }

    pub(super) fn period(&self) -> Nanos {
        self.settings.period
    }

    pub(super) fn threshold(&self) -> f64 {
        self.settings.threshold
    }

    /// True for alarms that ask for more.
    pub(super) fn is_upper(&self) -> bool {
        matches!(
            self.settings.comparison_operator,
            Comparison::GreaterThanThreshold | Comparison::GreaterThanOrEqualToThreshold
        )
    }

    pub(super) fn observe(&mut self, now: Nanos, reading: &Reading) {
        if reading.metric != self.settings.metric {
            return;
        }
        self.advance(now);
        let Some(value) = reading.mean.filter(|it| it.is_finite()) else { return };
        let gathered = &mut self.gathered;
        gathered.min = if gathered.count == 0 { value } else { gathered.min.min(value) };
        gathered.max = if gathered.count == 0 { value } else { gathered.max.max(value) };
        gathered.count += 1;
        gathered.sum += value;
    }

    /// The state after all periods that ended by `now`.
    pub(super) fn state(&mut self, now: Nanos) -> AlarmState {
        self.advance(now);
        self.state
    }

    /// The newest period with data.
    pub(super) fn value(&self) -> Option<f64> {
        self.periods.iter().rev().find_map(|it| *it)
    }

    fn advance(&mut self, now: Nanos) {
        let mut ends = *self.period_ends.get_or_insert(now + self.settings.period);
        // After a silence longer than everything looked at, the periods before it change nothing.
        let span = self.settings.period * (u64::from(self.settings.evaluation_periods) + 1);
        if ends + span <= now {
            self.close_period();
            self.periods.clear();
            self.periods.extend(std::iter::repeat_n(None, self.settings.evaluation_periods as usize));
            self.judge();
            ends = now + self.settings.period;
        }
        while ends <= now {
            self.close_period();
            self.judge();
            ends += self.settings.period;
        }
        self.period_ends = Some(ends);
    }

    fn close_period(&mut self) {
        let Gathered { count, sum, min, max } = std::mem::take(&mut self.gathered);
        let value = match self.settings.statistic {
            Statistic::Average => sum / f64::from(count.max(1)),
            Statistic::Sum => sum,
            Statistic::Minimum => min,
            Statistic::Maximum => max,
            Statistic::SampleCount => f64::from(count),
        };
        if self.periods.len() == self.settings.evaluation_periods as usize {
            self.periods.pop_front();
        }
        self.periods.push_back((count > 0).then_some(value));
    }

    fn judge(&mut self) {
        let threshold = self.settings.threshold;
        let breaches = |value: f64| match self.settings.comparison_operator {
            Comparison::GreaterThanThreshold => value > threshold,
            Comparison::GreaterThanOrEqualToThreshold => value >= threshold,
            Comparison::LessThanThreshold => value < threshold,
            Comparison::LessThanOrEqualToThreshold => value <= threshold,
        };
        let present = self.periods.iter().flatten().count() as u32;
        let absent = self.settings.evaluation_periods - present;
        let breaching = self.periods.iter().flatten().filter(|it| breaches(**it)).count() as u32;
        let counted = match self.settings.treat_missing_data {
            // A period that has not been yet is not missing: an alarm must not be raised by having just begun.
            Missing::Breaching => breaching + self.periods.iter().filter(|it| it.is_none()).count() as u32,
            _ => breaching,
        };
        self.state = if counted >= self.settings.datapoints_to_alarm {
            AlarmState::Alarm
        } else if self.settings.treat_missing_data == Missing::Ignore && absent > 0 {
            self.state
        } else if present == 0 && self.settings.treat_missing_data == Missing::Missing {
            AlarmState::InsufficientData
        } else {
            AlarmState::Ok
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::scale::Metric;

    /// One digit a period; "." is no data. Answers the state after each period: A, o, ?.
    #[track_caller]
    fn check(points: u32, periods: u32, missing: Missing, values: &str, states: &str) {
        let mut alarm = Alarm::new(&scale::Alarm {
            metric: Metric::CpuUtilization,
            statistic: Statistic::Average,
            period: Nanos::from_secs(60),
            comparison_operator: Comparison::GreaterThanThreshold,
            threshold: 5.0,
            evaluation_periods: periods,
            datapoints_to_alarm: points,
            treat_missing_data: missing,
        });
        let seen: String = (0u64..)
            .zip(values.chars())
            .map(|(minute, digit)| {
                let start = Nanos::from_secs(minute * 60);
                for (second, offset) in [(1, -1.0), (50, 1.0)] {
                    let mean = digit.to_digit(10).map(|it| f64::from(it) + offset);
                    let reading = Reading {
                        metric: Metric::CpuUtilization,
                        mean,
                        reported: 1,
                        missing: 0,
                        not_ready: 0,
                    };
                    alarm.observe(
                        start + Nanos::from_secs(if minute == 0 && second == 1 { 0 } else { second }),
                        &reading,
                    );
                }
                match alarm.state(start + Nanos::from_secs(60)) {
                    AlarmState::Alarm => 'A',
                    AlarmState::Ok => 'o',
                    AlarmState::InsufficientData => '?',
                }
            })
            .collect();
        assert_eq!(seen, states, "{points} of {periods}, {missing:?}: {values}");
    }

    #[test]
    fn m_of_n() {
        check(1, 1, Missing::Missing, "5676", "oAAA");
        check(3, 3, Missing::Missing, "6667766", "ooAAAAA");
        check(2, 3, Missing::Missing, "6165116", "ooAoooo");
        check(2, 3, Missing::Missing, "61111", "ooooo");
    }

    #[test]
    fn missing_data_is_treated_as_told() {
        check(2, 2, Missing::Missing, "66...", "oAo??");
        check(2, 2, Missing::NotBreaching, "66...", "oAooo");
        check(2, 2, Missing::Breaching, "66..11", "oAAAoo");
        check(2, 2, Missing::Ignore, "66..11", "?AAAAo");
    }
}
