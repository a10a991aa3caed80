//! What the full screen knows and how a key or an answer changes it. No terminal, no socket, no clock: a test types and
//! looks.
//!
//! The screen is a stack of places: services, their edges, the instances behind them, the slowest traces, one trace.
//! Enter goes down, escape comes back to where one was, with the same row under the cursor even when the order changed.

use crate::columns::{self, Cell, Column};
use crate::trace::Aged;
use crate::{edges, stat, trace};
use control::views::traces::{TraceRow, Traces};
use control::views::{About, EdgeRow, Edges, Stat, StatRow};
use telemetry::filter::{Filter, FilterError};
use units::Nanos;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum View {
    Services,
    Edges,
    Instances,
    Traces,
    Waterfall,
}

impl View {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Services => "services",
            Self::Edges => "edges",
            Self::Instances => "instances",
            Self::Traces => "slowest traces",
            Self::Waterfall => "trace",
        }
    }
}

/// What the screen needs an answer about. An answer to another question is not looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub(crate) view: View,
    /// The service whose edges, instances or traces; the id of a trace.
    pub(crate) of: Option<String>,
}

#[derive(Debug)]
pub(crate) enum Answer {
    Stat(Stat),
    Edges(Edges),
    Traces(Traces),
    Waterfall(Vec<String>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Press {
    Char(char),
    Enter,
    Escape,
    Backspace,
    Tab,
    Up,
    Down,
    Left,
    Right,
    PageUp,
    PageDown,
    Home,
    End,
    Interrupt,
}

#[derive(Debug)]
pub(crate) enum Event {
    Press(Press),
    Resize(u16, u16),
    /// The time on a clock that only the screen has.
    Tick(Nanos),
    Answer(Wanted, Answer),
    Trouble(String),
}

/// One place of the stack.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub(crate) wanted: Wanted,
    /// The row under the cursor, by its name: rows move.
    pub(crate) selected: Option<String>,
    /// The first row on the screen.
    pub(crate) first: usize,
    /// A column, and whether upside down; `None` is the order of the map.
    pub(crate) sort: Option<(usize, bool)>,
}

impl Place {
    fn of(view: View, of: Option<String>) -> Self {
        // Whoever looks at traces looks for the slowest, which is how they come.
        Self { wanted: Wanted { view, of }, selected: None, first: 0, sort: None }
    }
}

#[derive(Debug, Default)]
pub(crate) struct Data {
    pub(crate) stat: Option<Stat>,
    pub(crate) edges: Option<Edges>,
    pub(crate) instances: Option<Stat>,
    pub(crate) traces: Option<Traces>,
    pub(crate) waterfall: Option<Vec<String>>,
}

#[derive(Debug)]
pub(crate) struct State {
    /// Never empty.
    places: Vec<Place>,
    pub(crate) filter: String,
    /// The newest one without a mistake; rows are chosen by it while another is typed.
    chosen: Filter,
    pub(crate) mistake: Option<FilterError>,
    pub(crate) typing: bool,
    pub(crate) frozen: bool,
    pub(crate) help: bool,
    pub(crate) over: bool,
    pub(crate) data: Data,
    pub(crate) trouble: Option<String>,
    pub(crate) now: Nanos,
    pub(crate) got_at: Nanos,
    pub(crate) size: (u16, u16),
    pub(crate) api: String,
}

/// Lines that are not rows: title, filter, head, keys.
pub(crate) const FRAME_LINES: usize = 4;

/// Rows ready to be drawn.
#[derive(Debug, Default)]
pub(crate) struct Sheet {
    pub(crate) titles: Vec<&'static str>,
    pub(crate) head: Vec<Cell>,
    pub(crate) rows: Vec<(String, Vec<Cell>)>,
    pub(crate) in_all: usize,
}

impl State {
    pub(crate) fn new(filter: &str, api: &str, size: (u16, u16)) -> Result<Self, FilterError> {
        Ok(Self {
            places: vec![Place::of(View::Services, None)],
            chosen: Filter::parse(filter)?,
            filter: filter.to_owned(),
            mistake: None,
            typing: false,
            frozen: false,
            help: false,
            over: false,
            data: Data::default(),
            trouble: None,
            now: Nanos(0),
            got_at: Nanos(0),
            size,
            api: api.to_owned(),
        })
    }

    pub(crate) fn place(&self) -> &Place {
        self.places.last().expect("the first place is never left")
    }

    fn place_mut(&mut self) -> &mut Place {
        self.places.last_mut().expect("the first place is never left")
    }

    #[cfg(test)]
    pub(crate) fn depth(&self) -> usize {
        self.places.len()
    }

    pub(crate) fn wanted(&self) -> Wanted {
        self.place().wanted.clone()
    }

    /// Rows that fit on the screen.
    pub(crate) fn body(&self) -> usize {
        usize::from(self.size.1).saturating_sub(FRAME_LINES).max(1)
    }

    pub(crate) fn on(&mut self, event: Event) {
        match event {
            Event::Press(press) => self.press(press),
            Event::Resize(width, height) => self.size = (width, height),
            Event::Tick(now) => self.now = now,
            Event::Answer(wanted, answer) => self.take(&wanted, answer),
            Event::Trouble(words) => self.trouble = Some(words),
        }
        self.settle();
    }

    fn take(&mut self, wanted: &Wanted, answer: Answer) {
        if *wanted != self.wanted() || (self.frozen && self.has_data()) {
            return;
        }
        (self.trouble, self.got_at) = (None, self.now);
        match (wanted.view, answer) {
            (View::Services, Answer::Stat(it)) => self.data.stat = Some(it),
            (View::Instances, Answer::Stat(it)) => self.data.instances = Some(it),
            (View::Edges, Answer::Edges(it)) => self.data.edges = Some(it),
            (View::Traces, Answer::Traces(it)) => self.data.traces = Some(it),
            (View::Waterfall, Answer::Waterfall(it)) => self.data.waterfall = Some(it),
            (view, _) => self.trouble = Some(format!("an answer that is not about {}", view.name())),
        }
    }

    fn has_data(&self) -> bool {
        match self.place().wanted.view {
            View::Services => self.data.stat.is_some(),
            View::Edges => self.data.edges.is_some(),
            View::Instances => self.data.instances.is_some(),
            View::Traces => self.data.traces.is_some(),
            View::Waterfall => self.data.waterfall.is_some(),
        }
    }

    fn press(&mut self, press: Press) {
        if press == Press::Interrupt {
            self.over = true;
        } else if self.typing {
            self.type_filter(press);
        } else if self.help {
            // Any key: who looks at the help wants to go on.
            self.help = false;
        } else {
            self.command(press);
        }
    }

    fn type_filter(&mut self, press: Press) {
        match press {
            Press::Char(letter) => self.filter.push(letter),
            Press::Backspace if self.filter.is_empty() => self.typing = false,
            Press::Backspace => drop(self.filter.pop()),
            Press::Enter => self.typing = false,
            Press::Escape => {
                self.typing = false;
                self.filter.clear();
            }
            Press::Up | Press::Down | Press::PageUp | Press::PageDown => self.command(press),
            _ => {}
        }
        match Filter::parse(&self.filter) {
            Ok(filter) => (self.chosen, self.mistake) = (filter, None),
            // Half a word is no mistake yet; what was chosen stays until the next good one.
            Err(error) => self.mistake = Some(error),
        }
    }

    fn command(&mut self, press: Press) {
        let page = self.body().saturating_sub(1).max(1) as isize;
        match press {
            Press::Char('q') => self.over = true,
            Press::Char('?' | 'h') => self.help = true,
            Press::Char('/') => self.typing = true,
            Press::Char(' ') => self.frozen = !self.frozen,
            Press::Char('<') | Press::Left => self.next_column(-1),
            Press::Char('>') | Press::Right => self.next_column(1),
            Press::Char('r') => {
                if let Some((_, reverse)) = &mut self.place_mut().sort {
                    *reverse = !*reverse;
                }
            }
            Press::Char('s') => self.root(View::Services),
            Press::Char('e') => self.root(View::Edges),
            Press::Tab => self.root(match self.places[0].wanted.view {
                View::Services => View::Edges,
                _ => View::Services,
            }),
            Press::Char('i') => self.down(View::Instances),
            Press::Char('t') => self.down(View::Traces),
            Press::Enter => match self.place().wanted.view {
                View::Services => self.down(View::Edges),
                View::Edges => self.down(View::Instances),
                View::Instances => self.down(View::Traces),
                View::Traces => self.down(View::Waterfall),
                View::Waterfall => {}
            },
            Press::Escape | Press::Backspace => self.back(),
            Press::Up | Press::Char('k') => self.go(-1),
            Press::Down | Press::Char('j') => self.go(1),
            Press::PageUp => self.go(-page),
            Press::PageDown => self.go(page),
            Press::Home | Press::Char('g') => self.go(isize::MIN),
            Press::End | Press::Char('G') => self.go(isize::MAX),
            Press::Char(_) | Press::Interrupt => {}
        }
    }

    /// A filter goes first, then the place.
    fn back(&mut self) {
        if !self.filter.is_empty() {
            self.filter.clear();
            (self.chosen, self.mistake) = (Filter::default(), None);
        } else if self.places.len() > 1 {
            self.places.pop();
            self.forget();
        }
    }

    fn root(&mut self, view: View) {
        if self.places.len() > 1 || self.place().wanted.view != view {
            self.places = vec![Place::of(view, None)];
            self.forget();
        }
    }

    fn down(&mut self, view: View) {
        let selected = self.place().selected.clone();
        let of = match (self.place().wanted.view, view) {
            // Already there.
            (at, view) if at == view => return,
            (View::Services, _) => selected,
            // An edge is named by its ends; what lies behind it is the service called.
            (View::Edges, _) => selected.and_then(|it| it.split_once(" → ").map(|(_, to)| to.to_owned())),
            (View::Traces, View::Waterfall) => selected,
            (View::Instances | View::Traces, _) => self.place().wanted.of.clone(),
            (View::Waterfall, _) => return,
        };
        if of.is_some() {
            self.places.push(Place::of(view, of));
            // The filter was about other rows.
            self.filter.clear();
            (self.chosen, self.mistake) = (Filter::default(), None);
            self.forget();
        }
    }

    /// What was about the place before must not be shown as this one's. The two overviews stay: they are of everything.
    fn forget(&mut self) {
        let Data { stat, edges, .. } = std::mem::take(&mut self.data);
        let edges = edges.filter(|_| self.place().wanted.of.is_none());
        self.data = Data { stat, edges, ..Data::default() };
    }

    fn next_column(&mut self, step: isize) {
        let columns = self.sheet().titles.len() as isize;
        if columns == 0 {
            return;
        }
        let at = match self.place().sort {
            None if step > 0 => 0,
            None => columns - 1,
            Some((at, _)) => (at as isize + step).rem_euclid(columns),
        };
        self.place_mut().sort = Some((at as usize, false));
    }

    fn go(&mut self, by: isize) {
        if self.place().wanted.view == View::Waterfall {
            let last = self.data.waterfall.as_ref().map_or(0, Vec::len).saturating_sub(self.body());
            let place = self.place_mut();
            place.first = place.first.saturating_add_signed(by).min(last);
            return;
        }
        let keys = self.keys();
        let last = keys.len().saturating_sub(1);
        let at =
            self.place().selected.as_ref().and_then(|it| keys.iter().position(|key| key == it)).unwrap_or(0);
        let next = at.saturating_add_signed(by).min(last);
        self.place_mut().selected = keys.into_iter().nth(next);
    }

    fn keys(&self) -> Vec<String> {
        self.sheet().rows.into_iter().map(|(key, _)| key).collect()
    }

    /// The cursor is on a row that there is, and that row is on the screen.
    fn settle(&mut self) {
        if self.place().wanted.view == View::Waterfall {
            return self.go(0);
        }
        let (keys, body) = (self.keys(), self.body());
        let place = self.place_mut();
        let known = place.selected.as_ref().and_then(|it| keys.iter().position(|key| key == it));
        let at = known.unwrap_or(0);
        place.selected = keys.get(at).cloned();
        if at < place.first {
            place.first = at;
        }
        if at >= place.first + body {
            place.first = at + 1 - body;
        }
        place.first = place.first.min(keys.len().saturating_sub(body));
    }

    /// Rows of this place that the filter takes, in order.
    pub(crate) fn sheet(&self) -> Sheet {
        let place = self.place();
        match place.wanted.view {
            View::Services => {
                self.rows(&stat::COLUMNS, stat_rows(&self.data.stat), |it: &StatRow| it.service.clone())
            }
            View::Instances => self.rows(&stat::COLUMNS, stat_rows(&self.data.instances), |it: &StatRow| {
                it.part.clone().unwrap_or_default()
            }),
            View::Edges => {
                let all = self.data.edges.as_ref().map_or(&[][..], |it| &it.rows);
                let of = place.wanted.of.as_ref();
                let own: Vec<EdgeRow> = all
                    .iter()
                    .filter(|it| of.is_none_or(|of| it.from == *of || it.to == *of))
                    .cloned()
                    .collect();
                self.rows(&edges::COLUMNS, &own, |it: &EdgeRow| format!("{} → {}", it.from, it.to))
            }
            View::Traces => {
                let Some(traces) = &self.data.traces else { return Sheet::default() };
                let now_ms = traces.unix_ms as f64 + self.now.saturating_sub(self.got_at).as_millis_f64();
                let rows: Vec<Aged> = traces
                    .rows
                    .iter()
                    .filter(|it: &&TraceRow| self.chosen.matches(*it))
                    .map(|row| Aged { row: row.clone(), now_ms })
                    .collect();
                let mut sheet = sheet(&trace::COLUMNS, rows, place.sort, |it| it.row.trace_id.clone());
                sheet.in_all = traces.rows.len();
                sheet
            }
            View::Waterfall => Sheet::default(),
        }
    }

    fn rows<R: telemetry::filter::Row + Clone>(
        &self,
        columns: &[Column<R>],
        all: &[R],
        key: fn(&R) -> String,
    ) -> Sheet {
        let taken: Vec<R> = all.iter().filter(|it| self.chosen.matches(*it)).cloned().collect();
        Sheet { in_all: all.len(), ..sheet(columns, taken, self.place().sort, key) }
    }

    pub(crate) fn about(&self) -> Option<&About> {
        match self.place().wanted.view {
            View::Services => self.data.stat.as_ref().map(|it| &it.about),
            View::Instances => self.data.instances.as_ref().map(|it| &it.about),
            View::Edges => self.data.edges.as_ref().map(|it| &it.about),
            View::Traces | View::Waterfall => None,
        }
    }

    /// Of what is on the screen.
    pub(crate) fn age(&self) -> Option<Nanos> {
        let since = self.now.saturating_sub(self.got_at);
        let then = self.about().map_or(0.0, |it| it.age_ms);
        self.has_data().then(|| since + Nanos((then.max(0.0) * 1e6) as u64))
    }

    /// Where the page shows the same.
    pub(crate) fn page(&self) -> String {
        let place = self.place();
        let of = crate::answer::percent_encode(place.wanted.of.as_deref().unwrap_or(""));
        match place.wanted.view {
            View::Services | View::Edges if place.wanted.of.is_none() => {
                format!("{}/table{}", self.api, crate::answer::query(&[("q", &self.filter)]))
            }
            View::Waterfall => format!("{}/trace/{of}", self.api),
            View::Traces => format!("{}/traces?q=service%3A{of}", self.api),
            _ => format!("{}/service/{of}", self.api),
        }
    }
}

fn stat_rows(stat: &Option<Stat>) -> &[StatRow] {
    stat.as_ref().map_or(&[], |it| &it.rows)
}

fn sheet<R>(
    columns: &[Column<R>],
    mut rows: Vec<R>,
    sort: Option<(usize, bool)>,
    key: fn(&R) -> String,
) -> Sheet {
    if let Some((column, reverse)) = sort.and_then(|(at, reverse)| Some((columns.get(at)?, reverse))) {
        columns::sort(&mut rows, column, reverse);
    }
    let cells = columns::cells(columns, &rows);
    Sheet {
        titles: columns.iter().map(|it| it.title).collect(),
        head: columns::head(columns),
        in_all: rows.len(),
        rows: rows.iter().map(key).zip(cells).collect(),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn about(rows: usize) -> About {
        About {
            version: 1,
            system: "shop".into(),
            window_ms: 30_000,
            covered_ms: 30_000,
            age_ms: 150.0,
            percentile_error: 0.0109,
            rows_in_all: rows,
            unix_ms: 1_000,
        }
    }

    pub(crate) fn stat(rows: Vec<StatRow>) -> Answer {
        Answer::Stat(Stat { about: about(rows.len()), rows })
    }

    pub(crate) fn edges(names: &[(&str, &str)]) -> Answer {
        let rows: Vec<EdgeRow> = names.iter().map(|(from, to)| edges::tests::row(from, to)).collect();
        Answer::Edges(Edges { about: about(rows.len()), rows })
    }

    pub(crate) fn traces() -> Answer {
        let rows = ["aaaaaaaaaaaaaaaa", "bbbbbbbbbbbbbbbb"].map(|id| trace::tests::row(id, 250.0)).to_vec();
        Answer::Traces(Traces {
            version: 1,
            unix_ms: 6_000,
            window_ms: 900_000,
            looked_at: 2,
            cut: false,
            rows,
        })
    }

    /// A screen of services, `web` at 200/s, `cart` ill at 180/s, `ads` at 20/s.
    pub(crate) fn shop() -> State {
        let mut state = State::new("", "http://127.0.0.1:20000", (100, 12)).expect("no filter");
        let wanted = state.wanted();
        let rows =
            vec![stat::tests::row("web", 200.0), stat::tests::ill("cart"), stat::tests::row("ads", 20.0)];
        state.on(Event::Answer(wanted, stat(rows)));
        state
    }

    pub(crate) fn type_keys(state: &mut State, keys: &str) {
        for word in keys.split(' ').filter(|it| !it.is_empty()) {
            let press = match word {
                "enter" => Press::Enter,
                "esc" => Press::Escape,
                "back" => Press::Backspace,
                "tab" => Press::Tab,
                "up" => Press::Up,
                "down" => Press::Down,
                "right" => Press::Right,
                "left" => Press::Left,
                "end" => Press::End,
                "home" => Press::Home,
                "pgdn" => Press::PageDown,
                "space" => Press::Char(' '),
                "ctrl-c" => Press::Interrupt,
                letters => {
                    letters.chars().for_each(|it| state.on(Event::Press(Press::Char(it))));
                    continue;
                }
            };
            state.on(Event::Press(press));
        }
    }

    /// The rows on the screen, the one under the cursor in brackets, after these keys.
    #[track_caller]
    fn check(keys: &str, expected: &str) {
        let mut state = shop();
        type_keys(&mut state, keys);
        assert_eq!(told(&state), expected, "{keys}");
    }

    fn told(state: &State) -> String {
        let selected = state.place().selected.clone();
        let mark = |key: String| if Some(&key) == selected.as_ref() { format!("[{key}]") } else { key };
        let rows: Vec<String> = state.sheet().rows.into_iter().map(|(key, _)| mark(key)).collect();
        format!("{}: {}", state.place().wanted.view.name(), rows.join(" "))
    }

    #[test]
    fn the_cursor_stays_on_its_row() {
        check("", "services: [web] cart ads");
        check("down", "services: web [cart] ads");
        check("down down down", "services: web cart [ads]");
        check("end up", "services: web [cart] ads");
        check("down > r", "services: web [cart] ads");
        check("down >", "services: ads [cart] web");
        check("> > >", "services: [web] cart ads");
        check("> > > r", "services: ads cart [web]");
        check("> > > >", "services: cart [web] ads");
        check("<", "services: [web] cart ads");
    }

    #[test]
    fn a_filter_works_as_it_is_typed() {
        check("/ca", "services: [cart]");
        check("/errors>1%", "services: [cart]");
        check("/rate>50/s enter down", "services: web [cart]");
        check("/rate>50/ back back back back back back back back", "services: web [cart] ads");
        check("/ca esc", "services: web [cart] ads");
        check("/ca enter esc", "services: web [cart] ads");
        check("/nobody", "services: ");
        let mut state = shop();
        type_keys(&mut state, "/errors>1% back");
        assert!(state.mistake.as_ref().is_some_and(|it| it.message.contains("share")), "{:?}", state.mistake);
        assert_eq!(told(&state), "services: [cart]", "what was chosen before the mistake");
        assert!(State::new("sevice:x", "", (80, 24)).is_err());
    }

    #[test]
    fn one_goes_down_to_the_traces_and_comes_back() {
        let mut state = shop();
        type_keys(&mut state, "down enter");
        let wanted = Wanted { view: View::Edges, of: Some("cart".into()) };
        assert_eq!((state.wanted(), state.depth()), (wanted.clone(), 2));
        assert!(!state.has_data(), "what was known of others is not shown here");
        state.on(Event::Answer(wanted, edges(&[("edge", "web"), ("web", "cart"), ("cart", "carts")])));
        assert_eq!(told(&state), "edges: [web → cart] cart → carts");
        type_keys(&mut state, "down enter");
        assert_eq!(state.wanted(), Wanted { view: View::Instances, of: Some("carts".into()) });
        type_keys(&mut state, "enter");
        let wanted = Wanted { view: View::Traces, of: Some("carts".into()) };
        assert_eq!(state.wanted(), wanted);
        state.on(Event::Answer(wanted, traces()));
        type_keys(&mut state, "/has:retry enter down enter");
        assert_eq!(state.wanted(), Wanted { view: View::Waterfall, of: Some("bbbbbbbbbbbbbbbb".into()) });
        let lines = (0..30).map(|it| it.to_string()).collect();
        state.on(Event::Answer(state.wanted(), Answer::Waterfall(lines)));
        type_keys(&mut state, "end");
        assert_eq!(state.place().first, 30 - state.body());
        type_keys(&mut state, "esc esc esc esc");
        assert_eq!(told(&state), "services: web [cart] ads");
        type_keys(&mut state, "esc");
        assert_eq!(state.depth(), 1, "the first place is never left");
        type_keys(&mut state, "t");
        assert_eq!(state.wanted(), Wanted { view: View::Traces, of: Some("cart".into()) });
        type_keys(&mut state, "tab");
        assert_eq!((state.wanted().view, state.depth()), (View::Edges, 1));
    }

    #[test]
    fn frozen_is_frozen_and_says_how_old() {
        let mut state = shop();
        type_keys(&mut state, "space");
        state.on(Event::Tick(Nanos::from_secs(3)));
        state.on(Event::Answer(state.wanted(), stat(vec![stat::tests::row("other", 1.0)])));
        assert_eq!(told(&state), "services: [web] cart ads");
        assert_eq!(state.age(), Some(Nanos::from_millis(3_150)));
        type_keys(&mut state, "space");
        state.on(Event::Answer(state.wanted(), stat(vec![stat::tests::row("other", 1.0)])));
        assert_eq!((told(&state), state.age()), ("services: [other]".into(), Some(Nanos::from_millis(150))));
    }

    #[test]
    fn an_answer_to_another_question_is_not_shown() {
        let mut state = shop();
        let before = state.wanted();
        type_keys(&mut state, "e");
        state.on(Event::Answer(before, stat(vec![stat::tests::row("late", 1.0)])));
        assert_eq!(told(&state), "edges: ");
        type_keys(&mut state, "s");
        assert_eq!(told(&state), "services: [web] cart ads");
    }

    #[test]
    fn a_thousand_rows_scroll() {
        let mut state = shop();
        let rows = (0..1_000).map(|it| stat::tests::row(&format!("s{it}"), 1.0)).collect();
        state.on(Event::Answer(state.wanted(), stat(rows)));
        type_keys(&mut state, "end");
        assert_eq!(
            (state.place().selected.as_deref(), state.place().first),
            (Some("s999"), 1_000 - state.body())
        );
        state.on(Event::Resize(100, 40));
        assert_eq!(state.place().first, 1_000 - 36);
        type_keys(&mut state, "home pgdn");
        assert_eq!((state.place().selected.as_deref(), state.place().first), (Some("s35"), 0));
        type_keys(&mut state, "down");
        assert_eq!(state.place().first, 1);
    }

    #[test]
    fn it_ends_when_told() {
        for keys in ["q", "ctrl-c", "/abc ctrl-c", "? ctrl-c"] {
            let mut state = shop();
            type_keys(&mut state, keys);
            assert!(state.over, "{keys}");
        }
        let mut state = shop();
        type_keys(&mut state, "/q");
        assert!(!state.over && state.filter == "q");
    }

    /// Any keys, in any order, on any size of screen.
    #[test]
    fn no_key_breaks_it() {
        let mut luck = units::Rng::from_seed(7);
        let words = [
            "enter", "esc", "back", "tab", "up", "down", "left", "right", "end", "home", "pgdn", "space",
            "/", "r", "i", "t", "e", "s", "?", "x", ":",
        ];
        for _ in 0..40 {
            let mut state = shop();
            for _ in 0..60 {
                let word = words[(luck.next_u64() % words.len() as u64) as usize];
                type_keys(&mut state, word);
                match luck.next_u64() % 6 {
                    0 => {
                        state.on(Event::Resize((luck.next_u64() % 200) as u16, (luck.next_u64() % 50) as u16))
                    }
                    1 => state.on(Event::Answer(state.wanted(), traces())),
                    2 => {
                        state.on(Event::Answer(state.wanted(), edges(&[("web", "cart"), ("cart", "carts")])))
                    }
                    3 => state.on(Event::Answer(state.wanted(), stat(vec![stat::tests::ill("cart")]))),
                    _ => state.on(Event::Tick(Nanos::from_secs(1))),
                }
                let (sheet, place) = (state.sheet(), state.place());
                let known = |it: &String| sheet.rows.iter().any(|(key, _)| key == it);
                assert!(place.selected.as_ref().is_none_or(known), "{place:?}");
                assert!(place.first <= sheet.rows.len().max(30), "{place:?}");
                super::super::draw::tests::picture(&state);
            }
        }
    }
}
