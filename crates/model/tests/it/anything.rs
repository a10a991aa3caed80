//! Laws for all inputs: rubbish never panics, and one slip in a good file gives at least one and not too many mistakes.

use model::fuzz::fuzz_check;
use model::load::load_str;
use proptest::prelude::*;
use std::collections::BTreeSet;

pub(crate) const GOOD: &str = include_str!("everything.yaml");

/// Pieces that YAML and our small languages care about: random bytes alone rarely get past the first line.
fn piece() -> impl Strategy<Value = String> {
    let words = [
        "isobar: 1\n",
        "services:\n",
        "  a: ",
        "  b:\n",
        "    operations: ",
        "{",
        "}",
        "[",
        "]",
        ", ",
        ": ",
        "- ",
        "\n",
        "  ",
        "\t",
        "&x ",
        "*x",
        "<<: *x",
        "\"",
        "'",
        "|\n",
        ">\n",
        "#",
        "---\n",
        "...\n",
        "!!str ",
        "!t ",
        "? ",
        "%YAML 1.2\n",
        "\r\n",
        "GET /",
        "a \"GET /\"",
        "1ms",
        "20%",
        "200/s",
        "8KiB",
        "uniform(1ms, 2ms)",
        "none",
        "include: [more.yaml]\n",
        "\n#---\n",
        "edges:\n",
        "default: ",
        "a -> b",
        "\"* -> b\"",
        "timeout: ",
        "retry: ",
        "scenarios:\n",
        "do: [stop a]",
        "expect: [a availability >= 99%]",
        "waive:\n",
        "v1.2.3",
        "\u{feff}",
        "\u{0}",
        "\u{202e}",
        "é",
        "漢",
    ];
    prop_oneof![
        8 => proptest::sample::select(words.to_vec()).prop_map(str::to_owned),
        1 => ".{0,8}",
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_are_read_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        fuzz_check(&bytes);
    }

    #[test]
    fn any_pieces_are_read_without_panic(pieces in proptest::collection::vec(piece(), 0..60)) {
        fuzz_check(pieces.concat().as_bytes());
    }

    #[test]
    fn any_mutation_of_a_good_file_is_read_without_panic(
        at in 0..GOOD.len(), length in 0..40usize, instead in piece(),
    ) {
        let mut bytes = GOOD.as_bytes().to_vec();
        let end = (at + length).min(bytes.len());
        bytes.splice(at..end, instead.into_bytes());
        fuzz_check(&bytes);
    }
}

/// One key misspelt is one or a few mistakes, never none (but for names that nothing else mentions) and never a
/// landslide.
#[test]
fn one_slip_is_few_mistakes() {
    let mut accepted: BTreeSet<&str> = BTreeSet::new();
    for (start, end) in keys(GOOD) {
        let key = &GOOD[start..end];
        let text = format!("{}Qz{}", &GOOD[..end], &GOOD[end..]);
        let found = load_str(&text).diagnostics;
        if found.is_empty() {
            accepted.insert(key);
        }
        // Each use of a name that is gone is a mistake of its own, and nothing else is.
        let uses = GOOD.matches(key).count();
        assert!(found.len() <= 2 + uses, "`{key}Qz` gave {}: {found:#?}", found.len());
    }
    assert_eq!(accepted.into_iter().collect::<Vec<_>>(), FREE);
}

/// Plain keys at the beginning of lines and inside braces.
pub(crate) fn keys(text: &str) -> impl Iterator<Item = (usize, usize)> {
    text.match_indices(": ").chain(text.match_indices(":\n")).filter_map(|(at, _)| {
        let start = text[..at]
            .rfind(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == '-'))
            .map_or(0, |it| it + 1);
        (start < at && !text[..start].ends_with(['"', '.', '#'])).then_some((start, at))
    })
}

/// Names that nothing else mentions, so that another spelling is just another name.
const FREE: [&str; 24] = [
    "NAME",
    "PORT_X",
    "ads-lost",
    "all",
    "bank",
    "burst",
    "debug",
    "edge-only",
    "evening",
    "payments",
    "ramp",
    "read",
    "recorded",
    "refund",
    "sessions2",
    "staff",
    "steady",
    "tier",
    "user",
    "write",
    "x-beta",
    "x-defaults",
    "x-mine",
    "zone-lost",
];
