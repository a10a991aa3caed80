//! For a person: rustc's form, drawn by `annotate-snippets` from small inert excerpts that we cut ourselves.

use super::place::Places;
use crate::diagnostic::{Diagnostic, Severity};
use crate::span::{Sources, Span};
use annotate_snippets::{Annotation, AnnotationKind, Element, Group, Level, Origin, Renderer, Snippet};
use std::fmt::Write;

/// How the words look.
#[derive(Clone, Copy, Debug)]
pub struct Style {
    pub color: bool,
    /// Diagnostics drawn before "and N more": nobody reads the two hundred and first.
    pub most: usize,
}

impl Default for Style {
    fn default() -> Self {
        Self { color: false, most: 200 }
    }
}

/// Characters shown around the place that matters on a long line.
const BEFORE: usize = 50;
const AFTER: usize = 90;

/// Other places are drawn into the same excerpt if they lie this near.
const NEAR: usize = 6;

/// Other places drawn for one diagnostic.
const RELATED_MAX: usize = 6;

/// All diagnostics, in order, up to the limit.
pub fn human(sources: &Sources, diagnostics: &[Diagnostic], style: Style) -> String {
    let places = Places::new(sources);
    let renderer = if style.color { Renderer::styled() } else { Renderer::plain() };
    let mut out = String::new();
    for diagnostic in diagnostics.iter().take(style.most) {
        out.push_str(&one(&places, diagnostic, &renderer));
        out.push_str("\n\n");
    }
    if diagnostics.len() > style.most {
        let rest = diagnostics.len() - style.most;
        let _ = writeln!(out, "... and {rest} more; --json lists them all\n");
    }
    out
}

fn one(places: &Places<'_>, diagnostic: &Diagnostic, renderer: &Renderer) -> String {
    let level = match diagnostic.severity {
        Severity::Error => Level::ERROR,
        Severity::Warning => Level::WARNING,
        Severity::Note => Level::NOTE,
    };
    let title = level.primary_title(inert(&diagnostic.message)).id(diagnostic.code);
    let mut elements: Vec<Element<'_>> = Vec::new();
    let related: Vec<&(Span, String)> = diagnostic.related.iter().take(RELATED_MAX).collect();
    let mut drawn = vec![false; related.len()];
    draw(places, diagnostic.span, &diagnostic.label, &related, &mut drawn, &mut elements);
    for (nth, (span, words)) in diagnostic.related.iter().take(RELATED_MAX).enumerate() {
        if !drawn[nth] {
            draw(places, *span, words, &[], &mut [], &mut elements);
        }
    }
    if diagnostic.related.len() > RELATED_MAX {
        let rest = diagnostic.related.len() - RELATED_MAX;
        elements.push(Level::NOTE.message(format!("and {rest} more places")).into());
    }
    if let Some(help) = &diagnostic.help {
        elements.push(Level::HELP.message(inert(help)).into());
    }
    let mut group: Group<'_> = Group::with_title(title);
    group = group.elements(elements);
    let drawn = renderer.render(&[group]);
    drop_continuations(&drawn)
}

/// Between a place and its excerpt the renderer draws a line `:::`, as if the excerpt came from elsewhere. Places are
/// ours because the excerpts are cut: the renderer would count columns from the cut.
fn drop_continuations(drawn: &str) -> String {
    let mut out = String::with_capacity(drawn.len());
    for line in drawn.split_inclusive('\n') {
        let mut bare = String::new();
        let mut escape = false;
        for c in line.chars() {
            match c {
                '\u{1b}' => escape = true,
                'm' if escape => escape = false,
                _ if escape => {}
                _ => bare.push(c),
            }
        }
        if bare.trim() != ":::" {
            out.push_str(line);
        }
    }
    out
}

/// One excerpt with its place above it, and in it what lies near.
fn draw<'e>(
    places: &Places<'_>,
    span: Span,
    label: &str,
    related: &[&(Span, String)],
    drawn: &mut [bool],
    elements: &mut Vec<Element<'e>>,
) {
    let Some(place) = places.of(span) else { return };
    let path = inert(&place.path.display().to_string());
    elements.push(Origin::path(path).line(place.line).char_column(place.column).into());
    let mut marks = vec![(place.line, span, label, AnnotationKind::Primary)];
    for (nth, (other, words)) in related.iter().enumerate() {
        let Some(it) = places.of(*other).filter(|_| other.file == span.file) else { continue };
        if it.line.abs_diff(place.line) <= NEAR {
            marks.push((it.line, *other, words, AnnotationKind::Context));
            drawn[nth] = true;
        }
    }
    let first = marks.iter().map(|it| it.0).min().unwrap_or(place.line);
    let last = marks.iter().map(|it| it.0).max().unwrap_or(place.line);
    let mut excerpt = String::new();
    let mut annotations: Vec<Annotation<'e>> = Vec::new();
    for number in first..=last {
        let Some((line, start)) = places.line(span.file, number) else { break };
        let here: Vec<_> = marks.iter().filter(|it| it.0 == number).collect();
        // The window follows the primary mark if it is on this line, else the first one.
        let focus = here.first().map_or(0, |it| (it.1.start as usize).saturating_sub(start));
        let window = Window::around(line, focus);
        let offset = excerpt.len();
        window.write(line, &mut excerpt);
        for (_, mark, words, kind) in here {
            let from = window.place(line, (mark.start as usize).saturating_sub(start));
            let to = window.place(line, (mark.end as usize).saturating_sub(start)).max(from);
            let annotation = kind.span(offset + from..offset + to);
            annotations.push(if words.is_empty() { annotation } else { annotation.label(inert(words)) });
        }
        excerpt.push('\n');
    }
    if !excerpt.trim().is_empty() {
        elements.push(Snippet::source(excerpt).line_start(first).annotations(annotations).into());
    }
}

/// The part of a line that is shown.
struct Window {
    from: usize,
    to: usize,
}

impl Window {
    fn around(line: &str, focus: usize) -> Self {
        let mut focus = focus.min(line.len());
        while !line.is_char_boundary(focus) {
            focus -= 1;
        }
        let from = line[..focus].char_indices().rev().nth(BEFORE).map_or(0, |(at, _)| at);
        let to = line[focus..].char_indices().nth(AFTER).map_or(line.len(), |(at, _)| focus + at);
        Self { from, to }
    }

    fn write(&self, line: &str, out: &mut String) {
        if self.from > 0 {
            out.push('…');
        }
        inert_into(&line[self.from..self.to], out);
        if self.to < line.len() {
            out.push('…');
        }
    }

    /// Where a byte of the line lies in what [`Window::write`] wrote.
    fn place(&self, line: &str, at: usize) -> usize {
        let mut at = at.clamp(self.from, self.to);
        while !line.is_char_boundary(at) {
            at -= 1;
        }
        let mut before = String::new();
        if self.from > 0 {
            before.push('…');
        }
        inert_into(&line[self.from..at], &mut before);
        before.len()
    }
}

fn inert(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    inert_into(text, &mut out);
    out
}

/// A tab becomes spaces; what could move, colour or turn the terminal becomes a visible sign.
fn inert_into(text: &str, out: &mut String) {
    for c in text.chars() {
        match c {
            '\t' => out.push_str("    "),
            // A line break can only come from a message's own words.
            '\n' => out.push(' '),
            '\u{0}'..='\u{1f}' => out.push(char::from_u32(0x2400 + u32::from(c)).unwrap_or('?')),
            '\u{7f}' => out.push('␡'),
            // C1 controls, text direction, line separators, invisible joiners and marks.
            '\u{80}'..='\u{9f}'
            | '\u{61c}'
            | '\u{200b}'..='\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}'
            | '\u{feff}'
            | '\u{e0000}'..='\u{e007f}' => out.push('\u{fffd}'),
            _ => out.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::load_str;

    #[track_caller]
    fn check(text: &str, expected: &str) {
        let loaded = load_str(text);
        let drawn = human(&loaded.sources, &loaded.diagnostics, Style::default());
        assert_eq!(drawn.trim_end(), expected.trim_matches('\n'), "\n{drawn}");
    }

    #[test]
    fn a_mistake_shows_its_place_its_value_and_its_fix() {
        check(
            "isobar: 1\nservices:\n  checkout: {}\n  web: {needs: [checkuot]}\n",
            "
error[E0301]: no service is called `checkuot`
 --> isobar.yaml:4:17
  |
4 |   web: {needs: [checkuot]}
  |                 ^^^^^^^^ not defined
  |
  = help: did you mean `checkout`? Defined: checkout, web",
        );
    }

    #[test]
    fn what_is_related_is_drawn_too() {
        check(
            "isobar: 1\nservices:\n  web: {team: a}\n  web: {}\nteams:\n  a: {}\n",
            "
error[E0008]: the key `web` is written twice
 --> isobar.yaml:4:3
  |
3 |   web: {team: a}
  |   --- first here
4 |   web: {}
  |   ^^^ again here
  |
  = help: a mapping holds each key once; remove one or merge the two",
        );
    }

    #[test]
    fn control_characters_never_reach_the_terminal() {
        let loaded = load_str("isobar: 1\nservices:\n  web: {\"te\\e[31m\u{202e}am\": 1}\n");
        assert_eq!(loaded.diagnostics.len(), 1, "{:?}", loaded.diagnostics);
        let drawn = human(&loaded.sources, &loaded.diagnostics, Style::default());
        assert!(!drawn.chars().any(|c| c.is_control() && c != '\n'), "{drawn:?}");
        assert!(!drawn.contains('\u{202e}'), "{drawn:?}");
        assert!(drawn.contains('␛'), "{drawn}");
    }

    #[test]
    fn a_line_of_a_megabyte_is_cut_around_the_place() {
        let pad = "漢".repeat(300_000);
        let text =
            format!("isobar: 1\nservices: {{web: {{description: \"{pad}\", tame: x, x-y: \"{pad}\"}}}}\n");
        let loaded = load_str(&text);
        let drawn = human(&loaded.sources, &loaded.diagnostics, Style::default());
        assert!(drawn.len() < 2_500, "{} bytes", drawn.len());
        assert!(drawn.contains("^^^^ unknown key"), "{drawn}");
        assert!(drawn.contains("isobar.yaml:2:300035"), "{drawn}");
    }

    #[test]
    fn only_so_many_are_drawn() {
        let mut text = "isobar: 1\nservices:\n".to_owned();
        for n in 0..300 {
            let _ = writeln!(text, "  s{n}: {{tame: 1}}");
        }
        let loaded = load_str(&text);
        let drawn = human(&loaded.sources, &loaded.diagnostics, Style { most: 10, ..Style::default() });
        assert_eq!(drawn.matches("error[E0201]").count(), 10);
        assert!(drawn.contains("and 290 more"), "{drawn}");
    }
}
