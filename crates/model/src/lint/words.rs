//! Turning lists and numbers into sentences.

/// `web`, `cart` and 5 more. Repeats are told once.
pub(crate) fn list<S: AsRef<str>>(names: impl IntoIterator<Item = S>) -> String {
    const NAMED: usize = 3;
    let mut distinct: Vec<S> = Vec::new();
    let mut seen = std::collections::HashSet::new();
    for name in names {
        if seen.insert(name.as_ref().to_string()) {
            distinct.push(name);
        }
    }
    let quoted = |it: &S| format!("`{}`", it.as_ref());
    if distinct.len() <= NAMED {
        return join(&distinct.iter().map(quoted).collect::<Vec<_>>());
    }
    let mut parts: Vec<String> = distinct.iter().take(NAMED - 1).map(quoted).collect();
    parts.push(format!("{} more", distinct.len() - (NAMED - 1)));
    join(&parts)
}

fn join(parts: &[String]) -> String {
    match parts {
        [] => String::new(),
        [one] => one.clone(),
        [first @ .., last] => format!("{} and {last}", first.join(", ")),
    }
}

/// `1 call`, `2 calls`.
pub(crate) fn count(number: usize, noun: &str) -> String {
    if number == 1 { format!("1 {noun}") } else { format!("{number} {noun}s") }
}

/// A time for people: three figures are enough.
pub(crate) fn time(seconds: f64) -> String {
    rounded(seconds * 1e9).to_string()
}

fn rounded(nanos: f64) -> units::Nanos {
    if !(nanos.is_finite() && nanos > 0.0) {
        return units::Nanos::ZERO;
    }
    let step = 10f64.powi((nanos.log10().floor() as i32 - 2).max(0));
    units::Nanos(((nanos / step).round() * step) as u64)
}

/// A share for people: `87%`, `99.95%`.
pub(crate) fn share(fraction: f64) -> String {
    let steps = if (0.99..1.0).contains(&fraction) { 1e5 } else { 1e2 };
    units::Percent::from_fraction((fraction * steps).round() / steps).to_string()
}

/// A rate for people.
pub(crate) fn rate(per_second: f64) -> String {
    if per_second >= 10.0 {
        format!("{}/s", per_second.round())
    } else {
        units::Rate::from_per_second(per_second).to_string()
    }
}

/// A number for people: whole when it is large, else one decimal.
pub(crate) fn figure(number: f64) -> String {
    if number > 1e6 {
        "more than a million".to_string()
    } else if number >= 10.0 {
        format!("{number:.0}")
    } else {
        format!("{number:.1}").trim_end_matches(".0").to_string()
    }
}

/// Seconds as a time that someone would type, rounded up to one or two figures.
pub(crate) fn suggest_time(seconds: f64) -> String {
    let nanos = (seconds * 1e9).max(1.0);
    let step = 10f64.powi((nanos.log10().floor() as i32 - 1).max(0));
    units::Nanos(((nanos / step).ceil() * step) as u64).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_name_a_few() {
        assert_eq!(list(["a"]), "`a`");
        assert_eq!(list(["a", "b", "a"]), "`a` and `b`");
        assert_eq!(list(["a", "b", "c"]), "`a`, `b` and `c`");
        assert_eq!(list(["a", "b", "c", "d", "e"]), "`a`, `b` and 3 more");
    }

    #[test]
    fn numbers_have_as_many_figures_as_a_reader_wants() {
        assert_eq!(time(0.123_456), "123ms");
        assert_eq!(time(0.0), "0s");
        assert_eq!(suggest_time(0.301), "310ms");
        assert_eq!(share(0.8765), "88%");
        assert_eq!(share(0.9995), "99.95%");
        assert_eq!(share(1.5), "150%");
        assert_eq!(rate(1234.4), "1234/s");
        assert_eq!(rate(0.25), "0.25/s");
    }
}
