//! From the state to a picture of it: lines of shaded text, as many as the screen has.

use super::state::{State, View};
use crate::columns::{self, Cell, Column, Shade};
use crate::{edges, stat, trace};
use ratatui::Frame;
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span, Text};
use telemetry::views::{duration, safe};
use units::Nanos;

/// Amber, then said aloud: the same marks as on the page.
const OLD: Nanos = Nanos::from_secs(2);
const STALE: Nanos = Nanos::from_secs(5);

pub(crate) fn draw(state: &State, color: bool, frame: &mut Frame<'_>) {
    let area = frame.area();
    let mut lines: Vec<Line<'_>> = Vec::with_capacity(usize::from(area.height));
    lines.push(title(state, color));
    lines.push(second(state, color));
    lines.extend(body(state, usize::from(area.width), color));
    let room = usize::from(area.height).saturating_sub(1);
    lines.resize_with(room, Line::default);
    lines.push(keys(state, color));
    frame.render_widget(Text::from(lines), area);
}

fn style(shade: Shade, color: bool) -> Style {
    let plain = Style::default();
    match shade {
        Shade::Plain => plain,
        Shade::Head => plain.add_modifier(Modifier::BOLD),
        Shade::Dim => plain.add_modifier(Modifier::DIM),
        Shade::Good if color => plain.fg(Color::Green),
        Shade::Warn if color => plain.fg(Color::Yellow),
        Shade::Bad if color => plain.fg(Color::Red).add_modifier(Modifier::BOLD),
        Shade::Bad => plain.add_modifier(Modifier::BOLD),
        Shade::Good | Shade::Warn => plain,
    }
}

fn span(text: impl Into<String>, shade: Shade, color: bool) -> Span<'static> {
    Span::styled(text.into(), style(shade, color))
}

fn title(state: &State, color: bool) -> Line<'static> {
    let place = state.place();
    let system = state.data.stat.as_ref().map_or("isobar", |it| it.about.system.as_str());
    let mut parts = vec![span(safe(system, 30), Shade::Head, color)];
    let of = place.wanted.of.as_deref().map_or(String::new(), |it| format!(" of {}", safe(it, 40)));
    let of = if place.wanted.view == View::Waterfall { String::new() } else { of };
    parts.push(span(format!("  {}{of}", place.wanted.view.name()), Shade::Plain, color));
    if place.wanted.view != View::Waterfall {
        let sheet = state.sheet();
        let shown = sheet.rows.len();
        let count = if shown == sheet.in_all {
            format!("  {shown}")
        } else {
            format!("  {shown} of {}", sheet.in_all)
        };
        parts.push(span(count, Shade::Dim, color));
        if let Some((at, reverse)) = place.sort {
            let sorted = sheet.titles.get(at).copied().unwrap_or("");
            parts.push(span(format!("  by {sorted} {}", if reverse { "▲" } else { "▼" }), Shade::Dim, color));
        }
    }
    if let Some(about) = state.about() {
        parts.push(span(
            format!("  last {}s", about.covered_ms.min(about.window_ms).div_ceil(1_000)),
            Shade::Dim,
            color,
        ));
    }
    let (age, shade) = match state.age() {
        None => ("  waiting for numbers".to_owned(), Shade::Warn),
        Some(age) if age >= STALE => (format!("  {} OLD", duration(age)), Shade::Bad),
        Some(age) => (format!("  {} old", duration(age)), if age >= OLD { Shade::Warn } else { Shade::Dim }),
    };
    parts.push(span(age, shade, color));
    if state.frozen {
        parts.push(span("  FROZEN", Shade::Warn, color));
    }
    Line::from(parts)
}

/// The filter; without one, what is wrong, who is ill, or where the page is.
fn second(state: &State, color: bool) -> Line<'static> {
    if state.typing || !state.filter.is_empty() {
        let cursor = if state.typing { "▏" } else { "" };
        let mut parts = vec![
            span("/", Shade::Head, color),
            span(format!("{}{cursor}", safe(&state.filter, 200)), Shade::Plain, color),
        ];
        if let Some(error) = &state.mistake {
            let hint = error.hint.as_ref().map_or(String::new(), |it| format!("; {it}"));
            parts.push(span(format!("  {}{hint}", error.message), Shade::Warn, color));
        }
        return Line::from(parts);
    }
    let ills = stat::ills(state.data.stat.iter().flat_map(|it| &it.rows));
    match &state.trouble {
        Some(trouble) => Line::from(span(safe(trouble, 200), Shade::Bad, color)),
        None if ills.is_empty() || state.place().wanted.view != View::Services => {
            Line::from(span(state.page(), Shade::Dim, color))
        }
        None => Line::from(span(ills, Shade::Warn, color)),
    }
}

fn body(state: &State, width: usize, color: bool) -> Vec<Line<'static>> {
    if state.help {
        return HELP.lines().map(|it| Line::from(span(it, Shade::Plain, color))).collect();
    }
    let place = state.place();
    if place.wanted.view == View::Waterfall {
        let lines = state.data.waterfall.as_deref().unwrap_or(&[]);
        let shown = lines.iter().skip(place.first).take(state.body() + 1);
        return shown.map(|it| Line::from(span(it.clone(), Shade::Plain, color))).collect();
    }
    match place.wanted.view {
        View::Edges => rows(state, &edges::COLUMNS, width, color),
        View::Traces => rows(state, &trace::COLUMNS, width, color),
        _ => rows(state, &stat::COLUMNS, width, color),
    }
}

fn rows<R>(state: &State, columns: &[Column<R>], width: usize, color: bool) -> Vec<Line<'static>> {
    let (sheet, place) = (state.sheet(), state.place());
    let (keys, cells): (Vec<String>, Vec<Vec<Cell>>) = sheet.rows.into_iter().unzip();
    let fit = columns::fit(columns, &cells, Some(width));
    let mut head = sheet.head;
    if let Some(sorted) = place.sort.and_then(|(at, _)| head.get_mut(at)) {
        sorted.shade = Shade::Warn;
    }
    let mut lines = Vec::new();
    if !head.is_empty() {
        lines.push(Line::from(pieces(columns, &fit, &head, color)));
    }
    let shown = keys.iter().zip(&cells).skip(place.first).take(state.body());
    for (key, cells) in shown {
        let line = Line::from(pieces(columns, &fit, cells, color));
        let selected = place.selected.as_ref() == Some(key);
        lines.push(if selected {
            line.patch_style(Style::default().add_modifier(Modifier::REVERSED))
        } else {
            line
        });
    }
    if keys.is_empty() && state.age().is_some() {
        let words = if state.filter.is_empty() {
            "nothing here yet"
        } else {
            "nothing matches; esc clears the filter"
        };
        lines.push(Line::from(span(words, Shade::Dim, color)));
    }
    lines
}

fn pieces<R>(columns: &[Column<R>], fit: &columns::Fit, cells: &[Cell], color: bool) -> Vec<Span<'static>> {
    columns::pieces(columns, fit, cells).into_iter().map(|(text, shade)| span(text, shade, color)).collect()
}

fn keys(state: &State, color: bool) -> Line<'static> {
    let words = match (state.typing, state.place().wanted.view) {
        (true, _) => "enter keeps the filter  esc clears it",
        (_, View::Services) => {
            "enter edges  i instances  t traces  tab all edges  / filter  < > sort  r turn  space freeze  ? help  q quit"
        }
        (_, View::Edges) => {
            "enter instances  t traces  tab services  / filter  < > sort  r turn  space freeze  esc back  ? help  q quit"
        }
        (_, View::Instances) => {
            "enter slowest traces  / filter  < > sort  r turn  space freeze  esc back  ? help  q quit"
        }
        (_, View::Traces) => {
            "enter waterfall  / filter  < > sort  r turn  space freeze  esc back  ? help  q quit"
        }
        (_, View::Waterfall) => "up, down scroll  esc back  ? help  q quit",
    };
    Line::from(span(words, Shade::Dim, color))
}

const HELP: &str = "  enter         down: service, its edges, their instances, the slowest traces, one trace
  esc           back; a filter goes first
  tab, s, e     services or edges, of everybody
  i, t          instances, or the slowest traces, of what the cursor is on
  arrows, j k   up and down; page up and down, home and end, g and G
  < >           the column to sort by; r turns the order
  /             a filter, as in isobar stat: service:cart errors>1% p99>200ms zone:b has:breaker
  space         freeze, to read in peace; again, to go on
  q, ctrl-c     end
  ?             this; any key goes on";

#[cfg(test)]
pub(crate) mod tests {
    use super::super::state::tests::{edges, shop, stat, traces, type_keys};
    use super::super::state::{Answer, Event};
    use super::*;
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    /// What stands on the screen, without the spaces at the ends of lines; the row under the cursor is marked.
    pub(crate) fn picture(state: &State) -> Vec<String> {
        let (width, height) = state.size;
        let mut terminal =
            Terminal::new(TestBackend::new(width.max(1), height.max(1))).expect("no device can fail");
        terminal.draw(|frame| draw(state, true, frame)).expect("no device can fail");
        let buffer = terminal.backend().buffer();
        let lines = (0..height).map(|y| {
            let text: String = (0..width).map(|x| buffer[(x, y)].symbol()).collect();
            let reversed = width > 0 && buffer[(0, y)].modifier.contains(Modifier::REVERSED);
            format!("{}{}", if reversed { ">" } else { "" }, text.trim_end())
        });
        lines.collect()
    }

    #[track_caller]
    fn check(state: &State, expected: &str) {
        let got = picture(state).join("\n");
        assert_eq!(got.trim_end(), expected.trim_matches('\n'), "\n{got}\n");
    }

    #[test]
    fn services_fill_the_screen() {
        let mut state = shop();
        type_keys(&mut state, "down");
        state.size = (120, 9);
        check(
            &state,
            "
shop  services  3  last 30s  150ms old
ill: cart (95.00% success)
SERVICE  RATE  SUCCESS     P50     P90     P99  RETRIES     BREAKERS  EJECTED  READY       BUSY  SLO    TREND
web       200     100%  2.00ms  8.00ms  24.0ms        0            -        0    3/3          -  -      -
>cart      180   95.00%  2.00ms  8.00ms  24.0ms   12.00%  1 of 6 open   1 of 3    2/3  100%+25%q  BURNS  ▂▅█
ads      20.0     100%  2.00ms  8.00ms  24.0ms        0            -        0    3/3          -  -      -


enter edges  i instances  t traces  tab all edges  / filter  < > sort  r turn  space freeze  ? help  q quit",
        );
    }

    #[test]
    fn a_small_screen_shows_what_matters() {
        let mut state = shop();
        type_keys(&mut state, "> > > > /rate>50/s");
        state.on(Event::Resize(56, 7));
        check(
            &state,
            "
shop  services  2 of 3  by SUCCESS ▼  last 30s  150ms ol
/rate>50/s▏
SERVICE  RATE  SUCCESS     P50     P99  READY  SLO
>cart      180   95.00%  2.00ms  24.0ms    2/3  BURNS
web       200     100%  2.00ms  24.0ms    3/3  -

enter keeps the filter  esc clears it",
        );
    }

    #[test]
    fn every_place_says_where_it_is_and_what_a_key_does() {
        let mut state = shop();
        type_keys(&mut state, "down enter");
        assert_eq!(picture(&state)[0], "shop  edges of cart  0  waiting for numbers");
        state.on(Event::Answer(state.wanted(), edges(&[("web", "cart"), ("cart", "carts")])));
        let lines = picture(&state);
        assert!(
            lines[1].ends_with("/service/cart")
                && lines[3].starts_with(">web")
                && lines[11].contains("enter instances"),
            "{lines:#?}"
        );
        type_keys(&mut state, "t");
        state.on(Event::Answer(state.wanted(), traces()));
        let lines = picture(&state);
        assert!(lines[0].contains("slowest traces of cart") && lines[2].contains("WAITED FOR"), "{lines:#?}");
        type_keys(&mut state, "enter");
        state.on(Event::Answer(
            state.wanted(),
            Answer::Waterfall(vec!["trace a: 10ms".into(), "edge get /".into()]),
        ));
        let lines = picture(&state);
        assert_eq!(
            (lines[2].as_str(), lines[1].as_str()),
            ("trace a: 10ms", "http://127.0.0.1:20000/trace/aaaaaaaaaaaaaaaa")
        );
    }

    #[test]
    fn age_trouble_and_mistakes_are_said_aloud() {
        let mut state = shop();
        state.on(Event::Tick(Nanos::from_secs(7)));
        state.on(Event::Trouble("`shop` does not answer: refused".into()));
        type_keys(&mut state, "space");
        let lines = picture(&state);
        assert!(lines[0].ends_with("7.15s OLD  FROZEN"), "{}", lines[0]);
        assert_eq!(lines[1], "`shop` does not answer: refused");
        type_keys(&mut state, "/sevice:web");
        assert!(picture(&state)[1].contains("did you mean `service`?"));
        type_keys(&mut state, "esc /nobody enter");
        assert!(picture(&state)[3].contains("nothing matches"));
        type_keys(&mut state, "esc ?");
        assert!(picture(&state)[2].contains("down: service, its edges"));
    }

    #[test]
    fn without_colour_it_is_told_by_words_and_weight() {
        let state = shop();
        let mut terminal = Terminal::new(TestBackend::new(120, 9)).expect("no device can fail");
        terminal.draw(|frame| draw(&state, false, frame)).expect("no device can fail");
        assert!(
            terminal
                .backend()
                .buffer()
                .content
                .iter()
                .all(|it| it.fg == Color::Reset && it.bg == Color::Reset)
        );
    }

    #[test]
    fn a_thousand_rows_are_drawn() {
        let mut state = shop();
        let rows = (0..1_000).map(|it| stat::tests::row(&format!("service-{it}"), f64::from(it))).collect();
        state.on(Event::Answer(state.wanted(), stat(rows)));
        type_keys(&mut state, "> > > end");
        let lines = picture(&state);
        assert!(lines[10].starts_with(">service-0"), "{lines:#?}");
        assert!(lines[0].contains("services  1000  by RATE ▼"), "{lines:#?}");
    }
}
