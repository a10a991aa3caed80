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

/// Names listed to somebody who mistyped one; more would hide the suggestion.
const LISTED_MAX: usize = 20;

/// What to say to somebody who named nothing that there is: the near one, if there is one, and what there is.
pub fn suggestion(wrong: &str, known: &[&str]) -> String {
    let mut budget = 1_000;
    let near = did_you_mean(wrong, known.iter().copied(), &mut budget);
    let near = near.map_or_else(String::new, |it| format!("did you mean `{it}`? "));
    if known.is_empty() {
        return "there is none".to_owned();
    }
    let more = known.len().saturating_sub(LISTED_MAX);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    let verb = if known.len() == 1 { "is" } else { "are" };
    let listed: Vec<&str> = known.iter().copied().take(LISTED_MAX).collect();
    format!("{near}there {verb} {}{more}", listed.join(", "))
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
    fn whoever_names_nothing_is_told_what_there_is() {
        assert_eq!(suggestion("wbe", &["cart", "web"]), "did you mean `web`? there are cart, web");
        assert_eq!(suggestion("nobody", &["cart"]), "there is cart");
        assert_eq!(suggestion("nobody", &[]), "there is none");
        let many: Vec<String> = (0..25).map(|n| format!("s{n}")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        assert!(suggestion("nobody", &many).ends_with("s19 and 5 more"));
    }

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
