//! What the numbers of several runs say together: intervals, and where the filling-up ends.

use units::math;

/// A number and the interval that holds the true one in 95 of 100 forecasts.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Estimate {
    pub value: f64,
    pub low: f64,
    pub high: f64,
}

impl Estimate {
    /// From independent runs: mean ± t·s/√n. With a single run there is no interval, and it is said to be infinite
    /// rather than nothing.
    pub fn of_runs(values: &[f64]) -> Self {
        let n = values.len();
        if n == 0 {
            return Self::default();
        }
        let mean = values.iter().sum::<f64>() / n as f64;
        if n == 1 {
            return Self { value: mean, low: f64::NEG_INFINITY, high: f64::INFINITY };
        }
        let half = math::student_t(0.05, n as u32 - 1) * standard_error(values);
        Self { value: mean, low: mean - half, high: mean + half }
    }

    /// The same interval about a better point estimate (a quantile of all runs' samples together).
    pub fn about(self, value: f64) -> Self {
        let half = 0.5 * (self.high - self.low);
        Self { value, low: value - half, high: value + half }
    }

    /// For what cannot be negative, or above a whole.
    pub fn within(self, least: f64, most: f64) -> Self {
        Self { value: self.value.clamp(least, most), low: self.low.max(least), high: self.high.min(most) }
    }

    pub fn half_width(self) -> f64 {
        0.5 * (self.high - self.low)
    }
}

/// The standard error of the mean of independent values.
pub fn standard_error(values: &[f64]) -> f64 {
    let n = values.len();
    if n < 2 {
        return f64::INFINITY;
    }
    let mean = values.iter().sum::<f64>() / n as f64;
    let squares: f64 = values.iter().map(|it| (it - mean) * (it - mean)).sum();
    (squares / (n as f64 * (n as f64 - 1.0))).sqrt()
}

/// Where to cut a series that starts in an untypical state: MSER-5. Averages in fives, then the cut that makes the rest's
/// mean most certain: the least Σ(Yⱼ − Ȳ)²/(k − d)².
///
/// Returns how many values to drop. `None`: the best cut is not before the middle, so the series is too short to tell.
pub fn warm_up(series: &[f64]) -> Option<usize> {
    let fives: Vec<f64> = series.chunks_exact(5).map(|five| five.iter().sum::<f64>() / 5.0).collect();
    let k = fives.len();
    if k < 4 {
        return Some(0);
    }
    // From the end, so that sums of what remains grow by one value at a time.
    let (mut sum, mut squares) = (0.0, 0.0);
    let mut best = (f64::INFINITY, 0);
    for d in (0..k).rev() {
        sum += fives[d];
        squares += fives[d] * fives[d];
        let n = (k - d) as f64;
        // The last few values can agree by chance, so only the first half may be cut.
        if d > k / 2 {
            continue;
        }
        let spread = ((squares - sum * sum / n) / (n * n)).max(0.0);
        if spread <= best.0 {
            best = (spread, d);
        }
    }
    (best.1 < k / 2).then_some(best.1 * 5)
}

#[cfg(test)]
mod tests {
    use super::*;
    use units::Rng;

    #[test]
    fn intervals_hold_the_truth_in_95_of_100() {
        let mut rng = Rng::from_seed(5);
        let mut held = 0;
        for _ in 0..2_000 {
            let runs: Vec<f64> =
                (0..6).map(|_| math::normal_quantile(rng.unit_open().min(0.999_999_9)) + 3.0).collect();
            let it = Estimate::of_runs(&runs);
            held += u32::from(it.low <= 3.0 && 3.0 <= it.high);
        }
        // 1,900 expected with a standard deviation of 10.
        assert!((1_860..=1_940).contains(&held), "{held}");
    }

    #[test]
    fn one_run_has_no_interval() {
        assert_eq!(Estimate::of_runs(&[2.0]).high, f64::INFINITY);
        assert_eq!(Estimate::of_runs(&[]).value, 0.0);
    }

    #[test]
    fn a_filling_queue_is_cut_and_a_steady_one_is_not() {
        let mut rng = Rng::from_seed(6);
        let mut noise = || rng.unit() - 0.5;
        let filling: Vec<f64> =
            (0..200).map(|n| 10.0 * (1.0 - (-f64::from(n) / 15.0).exp()) + noise()).collect();
        let cut = warm_up(&filling).unwrap();
        assert!((30..=80).contains(&cut), "{cut}");
        let steady: Vec<f64> = (0..200).map(|_| 10.0 + noise()).collect();
        assert!(warm_up(&steady).unwrap() <= 50);
        let growing: Vec<f64> = (0..200).map(f64::from).collect();
        assert_eq!(warm_up(&growing), None, "it never settles");
    }
}
