//! Names of others as names of ours.

use std::collections::BTreeSet;

use crate::resolve::is_name;

const LENGTH_MAX: usize = 63;

/// Gives each name a valid and unique one of ours, the same one if it can stay.
#[derive(Default)]
pub(super) struct Names {
    taken: BTreeSet<String>,
}

impl Names {
    pub(super) fn give(&mut self, wanted: &str) -> String {
        let base = if is_name(wanted) { wanted.to_string() } else { clean(wanted) };
        let mut name = base.clone();
        let mut number = 2;
        while !self.taken.insert(name.clone()) {
            let suffix = format!("-{number}");
            name = format!("{}{suffix}", &base[..base.len().min(LENGTH_MAX - suffix.len())]);
            number += 1;
        }
        name
    }
}

fn clean(wanted: &str) -> String {
    let mut name: String = wanted
        .chars()
        .map(|it| if it.is_ascii_alphanumeric() || matches!(it, '-' | '_' | '.') { it } else { '-' })
        .skip_while(|it| !it.is_ascii_alphanumeric())
        .take(LENGTH_MAX)
        .collect();
    if name.is_empty() {
        name.push_str("unnamed");
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_valid_and_stay_apart() {
        let mut names = Names::default();
        let long = "x".repeat(80);
        let given = ["web", "web", "_db", "a b", "a/b", "日本", "", &long, &long].map(|it| names.give(it));
        assert_eq!(given[..7], ["web", "web-2", "db", "a-b", "a-b-2", "unnamed", "unnamed-2"]);
        assert_eq!((given[7].len(), given[8].len()), (63, 63));
        assert!(given.iter().all(|it| is_name(it)));
    }
}
