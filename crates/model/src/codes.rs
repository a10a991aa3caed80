//! Every code of a mistake and what it says in general. A code never changes its meaning; a new mistake gets a new one.
//! `docs/errors/` has a page for each.

/// In order. `E00..` the text, `E01..` other files, `E02..` shapes and values, `E03..` names, `E04..` what contradicts
/// itself, `E05..` the small languages inside values.
pub const CODES: &[(&str, &str)] = &[
    ("E0001", "the file cannot be read"),
    ("E0002", "the file is not UTF-8 text"),
    ("E0003", "the file is too large"),
    ("E0004", "nested too deeply"),
    ("E0005", "too many values"),
    ("E0006", "not YAML"),
    ("E0007", "a tab where YAML wants spaces"),
    ("E0008", "a key written twice"),
    ("E0009", "a second document in one file"),
    ("E0010", "an alias without its anchor"),
    ("E0011", "a merge of something that is no mapping"),
    ("E0012", "a key that is not a text"),
    ("E0013", "a control character"),
    ("E0014", "a YAML tag"),
    ("E0015", "an alias inside what it stands for"),
    ("E0016", "a value cut by a comma"),
    ("E0101", "an include that finds nothing"),
    ("E0102", "an include that leads outside"),
    ("E0103", "a file included twice, or by itself"),
    ("E0104", "too many includes"),
    ("E0105", "an unusable file of durations"),
    ("E0201", "an unknown key"),
    ("E0202", "a missing key"),
    ("E0203", "the wrong kind of value"),
    ("E0204", "not a quantity"),
    ("E0205", "an unknown word"),
    ("E0206", "not a name"),
    ("E0207", "defined twice"),
    ("E0208", "not supported yet"),
    ("E0209", "an impossible number"),
    ("E0210", "an unknown version of the format"),
    ("E0211", "things that exclude each other"),
    ("E0212", "nothing where something is needed"),
    ("E0213", "too many mistakes to list"),
    ("E0301", "no such service"),
    ("E0302", "no such operation"),
    ("E0303", "no such team"),
    ("E0304", "no such place"),
    ("E0305", "no such service or gateway"),
    ("E0306", "no such version"),
    ("E0307", "no such traffic"),
    ("E0401", "services that need each other before they start"),
    ("E0402", "a fallback to what has failed"),
    ("E0403", "calls without end"),
    ("E0404", "weights that do not sum"),
    ("E0405", "a need for a service that never runs"),
    ("E0501", "not an action of a scenario"),
    ("E0502", "not an edge"),
    ("E0503", "not a call"),
    ("E0504", "not a distribution of time"),
    ("E0505", "not a link of the network"),
    ("E0506", "not an address"),
    ("E0507", "not a path"),
    ("E0508", "not a version"),
    ("E0509", "which operation is meant"),
    ("E0510", "not a lint's code"),
    ("E0511", "not a date"),
    ("E0512", "not a regular expression"),
    ("E0513", "not an expectation"),
];

/// What a code says in general; also a lint's.
pub fn title(code: &str) -> Option<&'static str> {
    if let Some(rule) = crate::lint::rule(code) {
        return Some(rule.summary);
    }
    let at = CODES.binary_search_by(|(it, _)| (*it).cmp(code)).ok()?;
    Some(CODES[at].1)
}
