//! One knob turned: `load=0.8`, `web.replicas=4`, `web.concurrency=16`, `shoppers.rate=400/s`.

use model::system::{Load, System};
use std::str::FromStr;
use units::Rate;

/// What to turn and how far.
#[derive(Clone, Debug, PartialEq)]
pub enum Setting {
    /// All traffic, times this.
    Load(f64),
    Replicas(String, u32),
    Concurrency(String, u32),
    Rate(String, Rate),
}

const EXAMPLES: &str = "write `load=0.8`, `web.replicas=4`, `web.concurrency=16` or `shoppers.rate=400/s`";

impl FromStr for Setting {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = |why: &str| format!("`{text}`: {why}; {EXAMPLES}");
        let (key, value) = text.split_once('=').ok_or_else(|| wrong("no `=`"))?;
        let whole = |least: u32| -> Result<u32, String> {
            let number = value.parse().map_err(|_| wrong(&format!("`{value}` is not a whole number")))?;
            if number < least { Err(wrong(&format!("it must be at least {least}"))) } else { Ok(number) }
        };
        match key.rsplit_once('.') {
            None if key == "load" => Ok(Self::Load(factor(value).map_err(|why| wrong(&why))?)),
            Some((service, "replicas")) => Ok(Self::Replicas(service.to_owned(), whole(0)?)),
            Some((service, "concurrency")) => Ok(Self::Concurrency(service.to_owned(), whole(1)?)),
            Some((traffic, "rate")) => {
                Ok(Self::Rate(traffic.to_owned(), value.parse().map_err(|why| wrong(&format!("{why}")))?))
            }
            _ => Err(wrong(&format!("`{key}` cannot be set"))),
        }
    }
}

/// `0.8`, `0.8x` and `80%` all say four fifths.
fn factor(text: &str) -> Result<f64, String> {
    let (number, scale) = match (text.strip_suffix('x'), text.strip_suffix('%')) {
        (Some(number), _) => (number, 1.0),
        (_, Some(number)) => (number, 0.01),
        _ => (text, 1.0),
    };
    match number.trim().parse::<f64>() {
        Ok(value) if value > 0.0 && value <= 1e6 => Ok(value * scale),
        Ok(_) => {
            Err(format!("`{text}` is out of range: a load is above 0 and at most 1000000 times the file's"))
        }
        Err(_) => Err(format!("`{text}` is not a number")),
    }
}

/// `load=0.5x..3x` as `steps` equal steps, both ends included.
pub fn range(text: &str, steps: usize) -> Result<Vec<f64>, String> {
    let wrong = |why: &str| format!("`{text}`: {why}; write for example `load=0.5x..3x`");
    let loads = text.strip_prefix("load=").ok_or_else(|| wrong("only `load` can be swept"))?;
    let (from, to) = loads.split_once("..").ok_or_else(|| wrong("no `..` between two loads"))?;
    let (from, to) = (factor(from).map_err(|it| wrong(&it))?, factor(to).map_err(|it| wrong(&it))?);
    if to <= from {
        return Err(wrong("the second load must be the larger"));
    }
    let last = steps.max(2) - 1;
    Ok((0..=last).map(|n| from + (to - from) * n as f64 / last as f64).collect())
}

/// Turns the knob on the model. `load` is not the model's: it is returned as a factor.
pub fn apply(system: &mut System, setting: &Setting) -> Result<f64, String> {
    let unknown = |what: &str, name: &str, known: Vec<&str>| {
        format!("no {what} is called `{name}`; there are {}", known.join(", "))
    };
    match setting {
        Setting::Load(load) => return Ok(*load),
        Setting::Replicas(name, _) | Setting::Concurrency(name, _) => {
            let Some(at) = system.services.iter().position(|it| it.name.value == *name) else {
                let known = system.services.iter().map(|it| it.name.value.as_str()).collect();
                return Err(unknown("service", name, known));
            };
            let Some(service) = system.services.iter_mut().nth(at) else { return Ok(1.0) };
            if let Setting::Replicas(_, count) = setting {
                deal(&mut service.replicas.per_region, *count);
            } else if let Setting::Concurrency(_, most) = setting {
                let span = service.concurrency.map_or(service.span, |it| it.span);
                service.concurrency = Some(model::span::At::new(*most, span));
            }
        }
        Setting::Rate(name, wanted) => {
            let Some(at) = system.traffic.iter().position(|it| it.name.value == *name) else {
                let known = system.traffic.iter().map(|it| it.name.value.as_str()).collect();
                return Err(unknown("traffic", name, known));
            };
            match system.traffic.iter_mut().nth(at).map(|it| &mut it.load) {
                Some(Load::Open { rate, .. }) => rate.value = *wanted,
                _ => {
                    let words = format!("`{name}` is not an open load: it has no rate to set");
                    return Err(words);
                }
            }
        }
    }
    Ok(1.0)
}

/// Keeps the regions' proportions as well as whole instances can; a region that had none stays without.
fn deal(per_region: &mut [u32], count: u32) {
    let used: Vec<usize> = (0..per_region.len()).filter(|it| per_region[*it] > 0).collect();
    let used = if used.is_empty() { vec![0] } else { used };
    let old: u64 = used.iter().map(|it| u64::from(per_region[*it])).sum::<u64>().max(1);
    let mut left = count;
    for region in &used {
        let share = (u64::from(per_region[*region]) * u64::from(count) / old) as u32;
        per_region[*region] = share;
        left -= share;
    }
    let takers = used.len() as u32;
    for (n, region) in used.into_iter().enumerate() {
        per_region[region] += left / takers + u32::from((n as u32) < left % takers);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_parse_strictly() {
        for (text, expected) in [
            ("load=0.8", Ok(Setting::Load(0.8))),
            ("load=2x", Ok(Setting::Load(2.0))),
            ("load=50%", Ok(Setting::Load(0.5))),
            ("web.replicas=4", Ok(Setting::Replicas("web".to_owned(), 4))),
            ("a.b.concurrency=2", Ok(Setting::Concurrency("a.b".to_owned(), 2))),
            ("load=0", Err("out of range")),
            ("load=NaN", Err("out of range")),
            ("load=much", Err("not a number")),
            ("web.replicas=-1", Err("whole number")),
            ("web.concurrency=0", Err("at least 1")),
            ("web.colour=red", Err("cannot be set")),
            ("load", Err("no `=`")),
            ("s.rate=5", Err("unit")),
        ] {
            match (text.parse::<Setting>(), expected) {
                (Ok(got), Ok(expected)) => assert_eq!(got, expected, "{text}"),
                (Err(error), Err(words)) => assert!(error.to_string().contains(words), "{text}: {error}"),
                (got, _) => panic!("{text}: {got:?}"),
            }
        }
    }

    #[test]
    fn instances_are_dealt_in_the_old_proportions() {
        for (before, count, after) in [
            (vec![3, 3], 8, vec![4, 4]),
            (vec![3, 0], 5, vec![5, 0]),
            (vec![2, 1], 7, vec![5, 2]),
            (vec![0, 0], 2, vec![2, 0]),
        ] {
            let mut dealt = before.clone();
            deal(&mut dealt, count);
            assert_eq!((dealt.iter().sum::<u32>(), dealt), (count, after), "{before:?}");
        }
    }
}
