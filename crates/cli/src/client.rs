//! Talking to a running isobar: finding it, asking it.

use crate::exit;
use anyhow::Context;
use control::status::Status;
use std::fmt;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
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

/// Asks the API; the answer's body.
pub(crate) fn ask(
    found: &Found,
    method: &str,
    path: &str,
    body: Option<&serde_json::Value>,
) -> anyhow::Result<String> {
    let gone =
        |why: String| anyhow::Error::from(Unreachable(format!("`{}` does not answer: {why}", found.name)));
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
    let said: serde_json::Value = serde_json::from_str(&rest).unwrap_or_default();
    anyhow::bail!("{}", said["error"].as_str().unwrap_or("the API refused"))
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

/// What may stand in a path as it is; the API refuses names with anything else anyway.
pub(crate) fn escape(name: &str) -> String {
    name.chars().filter(|c| c.is_ascii_alphanumeric() || "-_.".contains(*c)).collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn chunks_are_put_together() {
        assert_eq!(super::unchunk("3\r\nabc\r\nA\r\n0123456789\r\n0\r\n\r\n"), "abc0123456789");
        assert_eq!(super::unchunk("ff\r\ncut"), "");
    }
}
