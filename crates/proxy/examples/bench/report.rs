//! What was measured, for people as a table of marks and for programs as one flat JSON object.

use std::fmt::Write;

/// What a mark asks.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Limit {
    AtMost(f64),
    AtLeast(f64),
}

#[derive(Default)]
pub(crate) struct Report {
    json: String,
    marks: Vec<(bool, String)>,
}

impl Report {
    /// A number without a mark.
    pub(crate) fn number(&mut self, key: &str, value: f64) {
        let comma = if self.json.is_empty() { "" } else { "," };
        let words = key.split(|it: char| !it.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
        let key = words.collect::<Vec<_>>().join("_");
        // A string takes whatever is written to it.
        let _ = if value.is_finite() {
            write!(self.json, "{comma}\"{key}\":{value:.4}")
        } else {
            write!(self.json, "{comma}\"{key}\":null")
        };
    }

    /// A number with a mark. Says whether it holds.
    pub(crate) fn judge(&mut self, what: &str, value: f64, limit: Limit, unit: &str) -> bool {
        let (holds, sign, mark) = match limit {
            Limit::AtMost(most) => (value <= most, "<=", most),
            Limit::AtLeast(least) => (value >= least, ">=", least),
        };
        self.number(what, value);
        let verdict = if holds { "holds" } else { "MISSED" };
        self.marks.push((holds, format!("{what:34} {value:>10.3} {unit:4} {sign} {mark:<8} {verdict}")));
        holds
    }

    pub(crate) fn print_marks(&self) {
        if self.marks.is_empty() {
            return;
        }
        println!("\nmarks");
        self.marks.iter().for_each(|(_, line)| println!("  {line}"));
        let missed = self.marks.iter().filter(|(holds, _)| !holds).count();
        println!("  {} of {} hold", self.marks.len() - missed, self.marks.len());
    }

    pub(crate) fn json(&self) -> String {
        format!("{{{}}}\n", self.json)
    }
}
