//! "Did you mean ...?": the nearest known word, if it is near enough that a person would agree.

use crate::text::Map;

/// The nearest of `known` to `wrong`, or `None` if nothing is close. `budget` bounds the comparisons of a whole run:
/// a file with a hundred thousand wrong names gets its first hundreds of suggestions, not an hour's wait.
pub(super) fn did_you_mean<'k>(
    wrong: &str,
    known: impl IntoIterator<Item = &'k str>,
    budget: &mut usize,
) -> Option<&'k str> {
    let wrong_folded = wrong.to_lowercase();
    let letters: Vec<char> = wrong_folded.chars().take(64).collect();
    if letters.len() < 2 {
        return None; // Any letter is one edit away from any other: `d` was hardly meant to be `a`.
    }
    // A third of the letters may differ: `chekcout` is `checkout`, `ads` is not `web`.
    let allowed = (letters.len() / 3).max(1);
    let mut best: Option<(usize, &'k str)> = None;
    for candidate in known {
        if *budget == 0 {
            break;
        }
        *budget -= 1;
        if candidate.len().abs_diff(wrong_folded.len()) > allowed {
            continue;
        }
        let distance = distance(&letters, &candidate.to_lowercase());
        if distance <= allowed && best.is_none_or(|(least, _)| distance < least) {
            best = Some((distance, candidate));
        }
    }
    best.map(|(_, candidate)| candidate)
}

/// Whether some key of a mapping was probably meant to be `wanted`: then what it holds is not missing, but misspelt.
pub(super) fn misspelt(map: &Map, wanted: &str) -> bool {
    let mut budget = map.entries.len();
    map.entries.iter().any(|entry| did_you_mean(&entry.key, [wanted], &mut budget).is_some())
}

/// Edits (insert, remove, replace, swap neighbours) that make `left` into `right`.
fn distance(left: &[char], right: &str) -> usize {
    let right: Vec<char> = right.chars().take(64).collect();
    let mut before_last: Vec<usize> = vec![0; right.len() + 1];
    let mut last: Vec<usize> = (0..=right.len()).collect();
    for (i, a) in left.iter().enumerate() {
        let mut row = Vec::with_capacity(right.len() + 1);
        row.push(i + 1);
        for (j, b) in right.iter().enumerate() {
            let replaced = last[j] + usize::from(a != b);
            let mut least = replaced.min(last[j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && *a == right[j - 1] && left[i - 1] == *b {
                least = least.min(before_last[j - 1] + 1);
            }
            row.push(least);
        }
        before_last = std::mem::replace(&mut last, row);
    }
    last.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_near_words_are_suggested() {
        let known = ["checkout", "cart", "catalog", "web", "ads"];
        for (wrong, expected) in [
            ("checkuot", Some("checkout")),
            ("Checkout", Some("checkout")),
            ("crat", Some("cart")),
            ("catlog", Some("catalog")),
            ("wbe", Some("web")),
            ("payments", None),
            ("", None),
            ("x", None),
        ] {
            assert_eq!(did_you_mean(wrong, known, &mut 100), expected, "{wrong}");
        }
        assert_eq!(did_you_mean("crat", known, &mut 1), None, "an exhausted budget suggests nothing more");
    }
}
