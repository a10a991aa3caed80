//! `isobar top`: the running system on the whole screen.
//!
//! This file owns the terminal, the keyboard and the asking; what they do to the picture is [`state`], how it looks is
//! [`draw`], and both are tested without any of them. However it ends, the terminal is as it was.

mod draw;
mod state;

use crate::answer::{self, FILTER_HELP};
use crate::client::{self, Which};
use crate::exit;
use crate::output::Terminal;
use anyhow::Context;
use ratatui::crossterm::event::{self, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use state::{Answer, Event, Press, State, View, Wanted};
use std::io::IsTerminal;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::time::{Duration, Instant};
use units::Nanos;
use up::state::Found;

const EXAMPLES: &str = "\
For example:
  isobar top                      every service; enter goes down to edges, instances, traces
  isobar top team:storefront      one team's
  isobar top 'errors>1%'          who fails; a filter can be typed there, too: /";

/// The running system on the whole screen: sort, filter, go down to a trace, freeze
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES, after_long_help = format!("{EXAMPLES}\n\n{FILTER_HELP}"))]
pub(crate) struct Args {
    /// Terms that all must hold, such as service:cart or "p99>200ms"; --help lists them
    #[arg(value_name = "FILTER")]
    filter: Vec<String>,

    #[command(flatten)]
    which: Which,

    /// Behind every rate and percentile, from 1s to 15min
    #[arg(long, default_value = "10s")]
    window: Nanos,
}

/// Numbers are asked for this often.
const EVERY: Duration = Duration::from_secs(1);
/// The age on the screen moves this often.
const REDRAW: Duration = Duration::from_millis(500);
/// Keys and answers on their way to the screen.
const EVENTS_MAX: usize = 256;

/// Puts the terminal back, whatever happens.
struct Screen;

impl Drop for Screen {
    fn drop(&mut self) {
        ratatui::restore();
    }
}

pub(crate) fn run(args: &Args, terminal: Terminal) -> anyhow::Result<u8> {
    let filter = answer::filter_text(&args.filter)?;
    let found = args.which.find()?;
    if !std::io::stdout().is_terminal() || !std::io::stdin().is_terminal() {
        anyhow::bail!(
            "`isobar top` needs a terminal; `isobar stat --watch` writes the same to a file or a pipe"
        );
    }
    let size = ratatui::crossterm::terminal::size().context("the terminal does not say how large it is")?;
    let mut state = State::new(&filter, &found.api, size)?;
    let (events, incoming) = sync_channel(EVENTS_MAX);
    let (ask, asked) = sync_channel(EVENTS_MAX);
    let way = Way { which: args.which.clone(), found, window: args.window, terminal };
    let answers = events.clone();
    std::thread::spawn(move || answer_all(way, &asked, &answers));

    // From here on a panic puts the terminal back before it says what it has to say.
    let mut screen = ratatui::try_init().context("the terminal cannot be used as a whole screen")?;
    let _screen = Screen;
    let ends = events.clone();
    std::thread::spawn(move || {
        if client::wait_for_signals() {
            let _ = ends.send(Event::Press(Press::Interrupt));
        }
    });
    std::thread::spawn(move || read_keys(&events));
    #[allow(clippy::disallowed_methods)] // The screen's own clock: how old is what it shows.
    let began = Instant::now();
    let mut wanted = state.wanted();
    let _ = ask.try_send(wanted.clone());
    while !state.over {
        screen.draw(|frame| draw::draw(&state, terminal.color_stdout, frame))?;
        state.on(Event::Tick(Nanos::from(began.elapsed())));
        match incoming.recv_timeout(REDRAW) {
            Ok(event) => state.on(event),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => break,
        }
        // All that is there before the next picture: a held key must not lag behind.
        while let Ok(event) = incoming.try_recv() {
            state.on(event);
        }
        if state.wanted() != wanted {
            wanted = state.wanted();
            // Full: it is about to ask anyway.
            let _ = ask.try_send(wanted.clone());
        }
    }
    Ok(exit::OK)
}

/// How answers are got.
struct Way {
    which: Which,
    found: Found,
    window: Nanos,
    terminal: Terminal,
}

/// Asks for what is wanted, every second and at once when that changes, for as long as the screen is there.
fn answer_all(mut way: Way, asked: &Receiver<Wanted>, answers: &SyncSender<Event>) {
    let Ok(mut wanted) = asked.recv() else { return };
    loop {
        let event = match way.answer(&wanted) {
            Ok(answer) => Event::Answer(wanted.clone(), answer),
            Err(error) => {
                // It may have been started anew elsewhere.
                if let Ok(found) = way.which.find() {
                    way.found = found;
                }
                Event::Trouble(format!("{error:#}"))
            }
        };
        if let Err(TrySendError::Disconnected(_)) = answers.try_send(event) {
            return;
        }
        match asked.recv_timeout(EVERY) {
            Ok(next) => wanted = asked.try_iter().last().unwrap_or(next),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

impl Way {
    fn answer(&self, wanted: &Wanted) -> anyhow::Result<Answer> {
        let (window, of) = (self.window.to_string(), wanted.of.as_deref().unwrap_or(""));
        let about = |name: &str| if of.is_empty() { String::new() } else { format!("{name}:\"{of}\"") };
        let ask = |path: &str, pairs: &[(&str, &str)]| format!("{path}{}", answer::query(pairs));
        Ok(match wanted.view {
            View::Services => Answer::Stat(self.fetch(&ask("/v1/stat", &[("window", &window)]))?),
            View::Edges => {
                let filter = about("service");
                Answer::Edges(self.fetch(&ask("/v1/edges", &[("window", &window), ("filter", &filter)]))?)
            }
            View::Instances => {
                let pairs = [("window", window.as_str()), ("by", "instance"), ("filter", &about("service"))];
                Answer::Stat(self.fetch(&ask("/v1/stat", &pairs))?)
            }
            View::Traces => {
                let pairs = [("service", of), ("order", "slowest"), ("limit", "50")];
                Answer::Traces(self.fetch(&ask("/v1/traces", &pairs))?)
            }
            // Colour codes mean nothing to the full screen.
            View::Waterfall => Answer::Waterfall(crate::trace::drawn(
                &self.found,
                of,
                Terminal { color_stdout: false, ..self.terminal },
            )?),
        })
    }

    fn fetch<T: serde::de::DeserializeOwned>(&self, path: &str) -> anyhow::Result<T> {
        Ok(answer::fetch(&self.found, path)?.0)
    }
}

/// Until the screen or the keyboard is gone.
fn read_keys(events: &SyncSender<Event>) {
    while let Ok(read) = event::read() {
        let event = match read {
            event::Event::Key(key) => press(key).map(Event::Press),
            event::Event::Resize(width, height) => Some(Event::Resize(width, height)),
            _ => None,
        };
        if let Some(event) = event
            && events.send(event).is_err()
        {
            return;
        }
    }
}

fn press(key: KeyEvent) -> Option<Press> {
    if key.kind == KeyEventKind::Release {
        return None;
    }
    if key.modifiers.contains(KeyModifiers::CONTROL) {
        return matches!(key.code, KeyCode::Char('c')).then_some(Press::Interrupt);
    }
    Some(match key.code {
        KeyCode::Char(letter) => Press::Char(letter),
        KeyCode::Enter => Press::Enter,
        KeyCode::Esc => Press::Escape,
        KeyCode::Backspace => Press::Backspace,
        KeyCode::Tab | KeyCode::BackTab => Press::Tab,
        KeyCode::Up => Press::Up,
        KeyCode::Down => Press::Down,
        KeyCode::Left => Press::Left,
        KeyCode::Right => Press::Right,
        KeyCode::PageUp => Press::PageUp,
        KeyCode::PageDown => Press::PageDown,
        KeyCode::Home => Press::Home,
        KeyCode::End => Press::End,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(code: KeyCode, modifiers: KeyModifiers, expected: Option<Press>) {
        assert_eq!(press(KeyEvent::new(code, modifiers)), expected, "{code:?} {modifiers:?}");
    }

    #[test]
    fn keys_are_what_people_call_them() {
        check(KeyCode::Char('q'), KeyModifiers::NONE, Some(Press::Char('q')));
        check(KeyCode::Char('G'), KeyModifiers::SHIFT, Some(Press::Char('G')));
        check(KeyCode::Char('c'), KeyModifiers::CONTROL, Some(Press::Interrupt));
        check(KeyCode::Char('x'), KeyModifiers::CONTROL, None);
        check(KeyCode::F(5), KeyModifiers::NONE, None);
        let released = KeyEvent::new_with_kind(KeyCode::Enter, KeyModifiers::NONE, KeyEventKind::Release);
        assert_eq!(press(released), None);
    }
}
