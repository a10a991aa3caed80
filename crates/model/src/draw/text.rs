//! How wide text will be, how to break it, and how to write it so that a format cannot misread it.

/// Advance widths of DejaVu Sans in thousandths of the size, from space to tilde. It is the widest of the fonts a
/// system is likely to choose for `sans-serif`, so a box made for it fits the others too.
const ASCII: [u16; 95] = [
    318, 401, 460, 838, 636, 950, 780, 275, 390, 390, 500, 838, 318, 361, 318, 337, // space to /
    636, 636, 636, 636, 636, 636, 636, 636, 636, 636, // digits
    337, 337, 838, 838, 838, 531, 1000, // : to @
    684, 686, 698, 770, 632, 575, 775, 752, 295, 295, 656, 557, 863, 748, 787, 603, 787, 695, 635, 611, 732,
    684, 989, 685, 611, 685, // A to Z
    390, 337, 390, 838, 500, 500, // [ to `
    613, 635, 550, 635, 615, 352, 635, 634, 278, 278, 579, 278, 974, 634, 612, 635, 635, 411, 521, 392, 634,
    592, 818, 592, 592, 525, // a to z
    636, 337, 636, 838, // { to ~
];
const BOLD: f64 = 1.14;

pub(super) fn width(text: &str, size: f64, bold: bool) -> f64 {
    let thousandths: u64 = text.chars().map(|it| u64::from(advance(it))).sum();
    thousandths as f64 / 1000.0 * size * if bold { BOLD } else { 1.0 }
}

fn advance(it: char) -> u16 {
    match it {
        ' '..='~' => ASCII[it as usize - ' ' as usize],
        '\u{300}'..='\u{36f}' | '\u{200b}'..='\u{200f}' | '\u{fe00}'..='\u{fe0f}' => 0,
        '×' | '→' | '↔' => 838,
        '\u{0}'..='\u{10ff}' => 780,
        _ => 1150,
    }
}

/// Breaks a name into lines that fit, where a reader would break it; a stretch without such a place is cut.
pub(super) fn wrap(text: &str, size: f64, bold: bool, width_max: f64) -> Vec<String> {
    let mut lines = Vec::new();
    let mut line = String::new();
    for word in text.split_inclusive(['-', '_', '.', '/', ':', ' ', '@']) {
        if !line.is_empty() && width(&line, size, bold) + width(word.trim_end(), size, bold) > width_max {
            lines.push(std::mem::take(&mut line));
        }
        for it in word.chars() {
            if !line.is_empty()
                && width(&line, size, bold) + width(it.encode_utf8(&mut [0; 4]), size, bold) > width_max
            {
                lines.push(std::mem::take(&mut line));
            }
            line.push(it);
        }
    }
    lines.push(line);
    lines.iter_mut().for_each(|line| line.truncate(line.trim_end().len()));
    lines
}

/// For XML text and attributes. What XML cannot hold at all becomes the replacement character.
pub(super) fn xml(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for it in text.chars() {
        match it {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            '\t' | '\n' | '\r' => escaped.push(' '),
            '\u{0}'..='\u{1f}' | '\u{7f}'..='\u{9f}' | '\u{fffe}' | '\u{ffff}' => escaped.push('\u{fffd}'),
            it => escaped.push(it),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_wrap(text: &str, expected: &[&str]) {
        let lines = wrap(text, 10.0, false, 60.0);
        assert_eq!(lines, expected);
        assert!(lines.iter().all(|line| width(line, 10.0, false) <= 60.0 + 1e-9));
    }

    #[test]
    fn names_break_where_a_reader_would() {
        check_wrap("", &[""]);
        check_wrap("cart", &["cart"]);
        check_wrap("cart-service-eu", &["cart-", "service-eu"]);
        check_wrap("two words here", &["two words", "here"]);
        check_wrap("iiiiiiiiiiiiiiiiiiiiiiiiiiii", &["iiiiiiiiiiiiiiiiiiiii", "iiiiiii"]);
    }

    #[test]
    fn nothing_ends_an_attribute_or_opens_a_tag() {
        let hostile = "\"><script>alert('x')</script>&\u{0}\n";
        assert_eq!(xml(hostile), "&quot;&gt;&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt;&amp;\u{fffd} ");
    }
}
