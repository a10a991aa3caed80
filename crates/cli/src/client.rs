//! Talking to a running isobar: finding it, asking it.

use crate::exit;
use anyhow::Context;
use control::status::Status;
use model::resolve::suggestion;
use std::fmt;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;
use up::state::{self, Found};

/// Which running isobar is meant.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Which {
    /// The name of the run, when several are running; a system's own name unless `up --name` gave another
    #[arg(long)]
    pub(crate) name: Option<String>,
}

/// No isobar answers: another exit code than a wrong command line.
#[derive(Debug)]
pub(crate) struct Unreachable(pub(crate) String);

impl fmt::Display for Unreachable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Unreachable {}

pub(crate) fn code_of(error: &anyhow::Error) -> u8 {
    if error.chain().any(|it| it.is::<Unreachable>()) { exit::UNREACHABLE } else { exit::USAGE }
}

impl Which {
    /// The one that is meant: by name, or the only one, or the one whose file is in this folder.
    pub(crate) fn find(&self) -> anyhow::Result<Found> {
        let running = state::running(&state::root());
        let names = || running.iter().map(|it| it.name.as_str()).collect::<Vec<_>>().join(", ");
        if let Some(name) = &self.name {
            return running.iter().find(|it| it.name == *name).cloned().ok_or_else(|| {
                let others = if running.is_empty() {
                    "nothing is".to_owned()
                } else {
                    format!("running: {}", names())
                };
                Unreachable(format!("no run called `{name}` is up; {others}")).into()
            });
        }
        match running.as_slice() {
            [] => Err(Unreachable("no system is up; `isobar up` starts one".to_owned()).into()),
            [only] => Ok(only.clone()),
            several => {
                let here = std::env::current_dir().unwrap_or_default();
                let mut local =
                    several.iter().filter(|it| it.file == here || it.file.parent() == Some(&here));
                match (local.next(), local.next()) {
                    (Some(only), None) => Ok(only.clone()),
                    _ => anyhow::bail!("several systems are up ({}); say which with --name", names()),
                }
            }
        }
    }
}

fn gone(found: &Found, why: &str) -> anyhow::Error {
    Unreachable(format!("`{}` does not answer: {why}", found.name)).into()
}

/// Connects and writes a request.
fn send(
    found: &Found,
    method: &str,
    path: &str,
    body: Option<&serde_json::Value>,
) -> anyhow::Result<TcpStream> {
    let gone = |why: String| gone(found, &why);
    let address: SocketAddr =
        found.api.trim_start_matches("http://").parse().context("its address is damaged")?;
    let mut stream =
        TcpStream::connect_timeout(&address, Duration::from_secs(5)).map_err(|it| gone(it.to_string()))?;
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    let body = body.map(ToString::to_string).unwrap_or_default();
    let who = std::env::var("USER").unwrap_or_else(|_| "somebody".to_owned());
    let who: String = who.chars().filter(char::is_ascii_graphic).collect();
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer {}\r\nx-isobar-user: {who}\r\n\
         content-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
        found.token,
        body.len()
    )
    .map_err(|it| gone(it.to_string()))?;
    Ok(stream)
}

/// Asks the API; the answer's body.
pub(crate) fn ask(
    found: &Found,
    method: &str,
    path: &str,
    body: Option<&serde_json::Value>,
) -> anyhow::Result<String> {
    let gone = |why: String| gone(found, &why);
    let mut stream = send(found, method, path, body)?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).map_err(|it| gone(it.to_string()))?;
    let text = String::from_utf8_lossy(&answer);
    let (head, rest) =
        text.split_once("\r\n\r\n").ok_or_else(|| gone("its answer was cut short".to_owned()))?;
    let status: u16 = head.split(' ').nth(1).and_then(|it| it.parse().ok()).unwrap_or(0);
    let chunked = head.to_ascii_lowercase().contains("transfer-encoding: chunked");
    let rest = if chunked { unchunk(rest) } else { rest.to_owned() };
    if (200..300).contains(&status) {
        return Ok(rest);
    }
    Err(refused(&rest))
}

/// The API's own words, or the text of a door that has no JSON for mistakes.
fn refused(body: &str) -> anyhow::Error {
    let said: serde_json::Value = serde_json::from_str(body).unwrap_or_default();
    let text = || Some(body.trim()).filter(|it| !it.is_empty() && it.len() < 500);
    anyhow::anyhow!("{}", said["error"].as_str().or_else(text).unwrap_or("the API refused"))
}

/// A line is an object of a request; nobody's is longer.
const LINE_BYTES_MAX: u64 = 1 << 20;

/// An answer that goes on, line by line, until either side has enough.
#[derive(Debug)]
pub(crate) struct Lines {
    from: BufReader<Chunks>,
}

impl Lines {
    pub(crate) fn open(found: &Found, path: &str) -> anyhow::Result<Self> {
        let stream = send(found, "GET", path, None)?;
        let mut from = BufReader::new(stream);
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") && head.len() < 65_536 {
            let read = from.read_until(b'\n', &mut head).map_err(|it| gone(found, &it.to_string()))?;
            if read == 0 {
                return Err(gone(found, "its answer was cut short"));
            }
        }
        let head = String::from_utf8_lossy(&head).to_ascii_lowercase();
        if !head.split(' ').nth(1).is_some_and(|it| it.starts_with('2')) {
            let mut body = Vec::new();
            from.take(LINE_BYTES_MAX).read_to_end(&mut body).map_err(|it| gone(found, &it.to_string()))?;
            return Err(refused(&String::from_utf8_lossy(&body)));
        }
        let chunked = head.contains("transfer-encoding: chunked");
        Ok(Self { from: BufReader::new(Chunks { from, chunked, left: 0, over: false }) })
    }

    /// What ends the reading from elsewhere.
    pub(crate) fn hang_up(&self) -> anyhow::Result<impl Fn() + Send + 'static> {
        let stream = self.from.get_ref().from.get_ref().try_clone()?;
        Ok(move || {
            // Gone already is gone, too.
            let _ = stream.shutdown(Shutdown::Both);
        })
    }
}

impl Iterator for Lines {
    type Item = anyhow::Result<String>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut line = Vec::new();
        match (&mut self.from).take(LINE_BYTES_MAX).read_until(b'\n', &mut line) {
            Ok(0) => None,
            // The end of what was being written when the other side went.
            Ok(_) if !line.ends_with(b"\n") => None,
            Ok(_) => Some(Ok(String::from_utf8_lossy(&line).trim_end().to_owned())),
            Err(error) => Some(Err(error.into())),
        }
    }
}

/// The bytes of a chunked answer without the chunks.
#[derive(Debug)]
struct Chunks {
    from: BufReader<TcpStream>,
    chunked: bool,
    left: usize,
    over: bool,
}

impl Read for Chunks {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        if !self.chunked {
            return self.from.read(buffer);
        }
        if self.left == 0 && !self.over {
            let mut size = String::new();
            // The end of a chunk, then the next one's size.
            while size.trim().is_empty() {
                size.clear();
                if (&mut self.from).take(64).read_line(&mut size)? == 0 {
                    self.over = true;
                    return Ok(0);
                }
            }
            self.left = usize::from_str_radix(size.trim(), 16).unwrap_or(0);
            self.over = self.left == 0;
        }
        let most = buffer.len().min(self.left);
        let read = if most == 0 { 0 } else { self.from.read(&mut buffer[..most])? };
        self.left -= read;
        Ok(read)
    }
}

/// Waits for ctrl-c, for being told to end, or for the terminal to be closed; false if it cannot be waited for.
pub(crate) fn wait_for_signals() -> bool {
    use tokio::signal::unix::{SignalKind, signal};
    let wait = async {
        let signals = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()];
        let [Ok(mut interrupt), Ok(mut terminate), Ok(mut hangup)] = signals.map(signal) else {
            return false;
        };
        tokio::select! {
            _ = interrupt.recv() => true,
            _ = terminate.recv() => true,
            _ = hangup.recv() => true,
        }
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.is_ok_and(|it| it.block_on(wait))
}

fn unchunk(mut text: &str) -> String {
    let mut whole = String::new();
    while let Some((size, rest)) = text.split_once("\r\n") {
        let Ok(size) = usize::from_str_radix(size.trim(), 16) else { break };
        let Some(chunk) = rest.get(..size) else { break };
        whole.push_str(chunk);
        if size == 0 {
            break;
        }
        text = rest.get(size + 2..).unwrap_or("");
    }
    whole
}

pub(crate) fn status(found: &Found) -> anyhow::Result<Status> {
    serde_json::from_str(&ask(found, "GET", "/v1/status", None)?)
        .context("the status is not what this isobar understands")
}

/// A name as a part of a path, whatever was typed: the API knows best what it does not know.
pub(crate) fn escape(name: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    let each =
        name.bytes().map(|it| if plain(it) { char::from(it).to_string() } else { format!("%{it:02X}") });
    each.collect()
}

/// Says no when one of these is no service here, before anything is done to the others.
pub(crate) fn all_known<'n>(found: &Found, names: impl Iterator<Item = &'n String>) -> anyhow::Result<()> {
    let status = status(found)?;
    let mut known: Vec<&str> = status.services.iter().map(|it| it.name.as_str()).collect();
    known.sort_unstable();
    let unknown: Vec<String> = names
        .filter(|it| !known.contains(&it.split('#').next().unwrap_or(it)))
        .map(|it| format!("no service here is called `{it}`; {}", suggestion(it, &known)))
        .collect();
    anyhow::ensure!(unknown.is_empty(), "{}", unknown.join("\n"));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_name_can_stand_in_a_path() {
        assert_eq!(escape("web-1_a.b"), "web-1_a.b");
        assert_eq!(escape("web#1 é/.."), "web%231%20%C3%A9%2F..");
    }

    #[test]
    fn chunks_are_put_together() {
        assert_eq!(unchunk("3\r\nabc\r\nA\r\n0123456789\r\n0\r\n\r\n"), "abc0123456789");
        assert_eq!(unchunk("ff\r\ncut"), "");
    }

    /// What a server says to one request, and the lines of it.
    #[track_caller]
    fn check(says: &'static str, expected: Result<&[&str], &str>) {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("its address");
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("a caller");
            let mut asked = Vec::new();
            while !asked.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                stream.read_exact(&mut byte).expect("a request");
                asked.push(byte[0]);
            }
            stream.write_all(says.as_bytes()).expect("it is heard");
        });
        let found = Found {
            name: "shop".into(),
            system: "shop".into(),
            file: "isobar.yaml".into(),
            pid: 1,
            api: format!("http://{address}"),
            token: String::new(),
        };
        match (Lines::open(&found, "/v1/tap"), expected) {
            (Ok(lines), Ok(expected)) => {
                let lines: Vec<String> = lines.map(|it| it.expect("a line")).collect();
                assert_eq!(lines, expected, "{says}");
            }
            (Err(error), Err(part)) => assert!(error.to_string().contains(part), "{error}"),
            (got, _) => panic!("{says}: {}", got.is_ok()),
        }
        server.join().expect("it ended");
    }

    #[test]
    fn an_answer_that_goes_on_is_read_line_by_line() {
        let chunked = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
        check("HTTP/1.1 200 OK\r\n\r\n{}\n{\"a\":1}\ncut", Ok(&["{}", "{\"a\":1}"]));
        let said: &'static str = Box::leak(
            format!("{chunked}5\r\none\nt\r\n9\r\nwö\nthree\r\n1\r\n\n\r\n0\r\n\r\n").into_boxed_str(),
        );
        check(said, Ok(&["one", "twö", "three"]));
        check("HTTP/1.1 422 No\r\n\r\n{\"error\":\"no such filter\"}", Err("no such filter"));
        check("HTTP/1.1 404 No\r\n\r\nabc not found", Err("abc not found"));
        check("HTTP/1.1 200 OK\r\n", Err("cut short"));
    }
}
