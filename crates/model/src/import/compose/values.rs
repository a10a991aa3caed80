//! The little languages inside compose's texts: interpolation, durations, ports, command lines, images.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use units::Nanos;

/// Undoes `$$`. `Err` is the first variable that the environment would fill in.
pub(super) fn settle(text: &str) -> Result<String, String> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        match rest.chars().next() {
            Some('$') => {
                out.push('$');
                rest = &rest[1..];
            }
            Some('{') => return Err(format!("${}", &rest[..rest.find('}').map_or(rest.len(), |it| it + 1)])),
            Some(it) if it.is_ascii_alphabetic() || it == '_' => {
                let end =
                    rest.find(|it: char| !it.is_ascii_alphanumeric() && it != '_').unwrap_or(rest.len());
                return Err(format!("${}", &rest[..end]));
            }
            _ => out.push('$'), // A lone one stands for itself.
        }
    }
    out.push_str(rest);
    Ok(out)
}

/// `1m30s`, `500ms`, `1h`: numbers with units, one after the other.
pub(super) fn duration(text: &str) -> Option<Nanos> {
    let mut rest = text.trim();
    let mut total = Nanos::ZERO;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.find(|it: char| !it.is_ascii_digit() && it != '.')?;
        let number = &rest[..digits];
        rest = &rest[digits..];
        let unit = &rest[..rest.find(|it: char| it.is_ascii_digit()).unwrap_or(rest.len())];
        rest = &rest[unit.len()..];
        let ours = match unit {
            "us" | "ms" | "s" | "h" => unit,
            "m" => "min",
            _ => return None,
        };
        total = total.saturating_add(format!("{number}{ours}").parse().ok()?);
    }
    Some(total)
}

/// A port of the machine that leads to a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Published {
    pub(super) address: SocketAddr,
    /// The port inside the container: what the program listens on.
    pub(super) target: u16,
}

/// More ports in one entry are a range for something that is no service of requests.
const RANGE_MAX: u16 = 32;

/// `8080:80`, `127.0.0.1:8080:80/tcp`, `3000-3001:3000-3001`. `Err` says why there is nothing to listen on.
pub(super) fn ports(text: &str) -> Result<Vec<Published>, String> {
    let (text, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    if protocol != "tcp" {
        return Err(format!("gateways do not speak {protocol}"));
    }
    // An IPv6 address has colons of its own, in brackets.
    let (host, rest) = match text.strip_prefix('[').and_then(|it| it.split_once("]:")) {
        Some((host, rest)) => (Some(host), rest),
        None => match text.splitn(3, ':').collect::<Vec<_>>()[..] {
            [host, published, target] => {
                (Some(host), &text[text.len() - published.len() - target.len() - 1..])
            }
            _ => (None, text),
        },
    };
    let Some((published, target)) = rest.split_once(':') else {
        return Err("the machine's port is left to chance: give a gateway one yourself".into());
    };
    published_at(host, published, target)
}

pub(super) fn published_at(
    host: Option<&str>,
    published: &str,
    target: &str,
) -> Result<Vec<Published>, String> {
    let host: IpAddr = match host {
        None | Some("") => Ipv4Addr::UNSPECIFIED.into(),
        Some(host) => host.parse().map_err(|_| format!("`{}` is not an address", super::shorten(host)))?,
    };
    let (published, target) = (range(published)?, range(target)?);
    let (first, last) = published;
    if last - first >= RANGE_MAX {
        return Err(format!("{} ports at once are no gateways", u32::from(last - first) + 1));
    }
    if first == 0 {
        return Err("the machine's port is left to chance: give a gateway one yourself".into());
    }
    Ok((first..=last)
        .map(|port| Published {
            address: SocketAddr::new(host, port),
            target: target.0.saturating_add(port - first).min(target.1),
        })
        .collect())
}

fn range(text: &str) -> Result<(u16, u16), String> {
    let port = |it: &str| it.trim().parse().map_err(|_| format!("`{}` is not a port", super::shorten(it)));
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (port(first)?, port(last)?);
    if last < first {
        return Err(format!("`{}` ends before it begins", super::shorten(text)));
    }
    Ok((first, last))
}

/// Words as one command line that splits into the same words.
pub(super) fn command_line(words: &[String]) -> String {
    let quote = |word: &String| {
        let plain = |it: char| {
            it.is_ascii_alphanumeric()
                || matches!(it, '-' | '_' | '.' | '/' | ':' | '=' | ',' | '@' | '%' | '+')
        };
        if !word.is_empty() && word.chars().all(plain) {
            word.clone()
        } else {
            format!("'{}'", word.replace('\'', "'\\''"))
        }
    };
    words.iter().map(quote).collect::<Vec<_>>().join(" ")
}

/// The kind of service an image is known to be. Only exact names count: `redis-commander` is not a cache.
pub(super) fn kind_of_image(image: &str) -> Option<&'static str> {
    const STORES: [&str; 29] = [
        "postgres",
        "postgresql",
        "postgis",
        "timescaledb",
        "pgvector",
        "mysql",
        "mysql-server",
        "mariadb",
        "percona",
        "mongo",
        "mongodb",
        "mongodb-community-server",
        "cassandra",
        "scylla",
        "cockroach",
        "couchdb",
        "couchbase",
        "influxdb",
        "elasticsearch",
        "opensearch",
        "clickhouse-server",
        "neo4j",
        "minio",
        "etcd",
        "zookeeper",
        "cp-zookeeper",
        "dynamodb-local",
        "mssql-server",
        "solr",
    ];
    const CACHES: [&str; 7] =
        ["redis", "redis-stack", "redis-stack-server", "memcached", "valkey", "keydb", "dragonfly"];
    const QUEUES: [&str; 9] = [
        "rabbitmq",
        "kafka",
        "cp-kafka",
        "redpanda",
        "nats",
        "pulsar",
        "activemq",
        "activemq-artemis",
        "eclipse-mosquitto",
    ];
    let name = image.rsplit('/').next().unwrap_or(image);
    let name = name.split(['@', ':']).next().unwrap_or(name);
    [("store", &STORES[..]), ("cache", &CACHES[..]), ("queue", &QUEUES[..])]
        .into_iter()
        .find(|(_, images)| images.contains(&name))
        .map(|(kind, _)| kind)
}

/// The path that a health check's `curl http://localhost:8080/healthz` asks for.
pub(super) fn asked_path(words: &[&str]) -> Option<String> {
    let url = words.iter().find(|it| it.starts_with("http://"))?;
    let rest = url.strip_prefix("http://")?;
    let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let host = host.split(':').next().unwrap_or(host);
    let local = matches!(host, "localhost" | "127.0.0.1" | "0.0.0.0");
    let tool = words.first().is_some_and(|it| matches!(it.rsplit('/').next(), Some("curl" | "wget")));
    let plain = path.chars().all(|it| it.is_ascii_alphanumeric() || "/-_.~%=&?".contains(it));
    (local && tool && plain).then(|| if path.is_empty() { "/".to_string() } else { path.to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_found_and_dollars_undone() {
        for (text, expected) in [
            ("plain", Ok("plain")),
            ("a$$b", Ok("a$b")),
            ("$$PORT", Ok("$PORT")),
            ("5$", Ok("5$")),
            ("$1", Ok("$1")),
            ("x${A:-b}y", Err("${A:-b}")),
            ("$HOME/x", Err("$HOME")),
            ("${broken", Err("${broken")),
        ] {
            assert_eq!(settle(text), expected.map(str::to_string).map_err(str::to_string), "{text}");
        }
    }

    #[test]
    fn durations_are_sums() {
        for (text, millis) in
            [("10s", 10_000), ("1m30s", 90_000), ("500ms", 500), ("1h5m", 3_900_000), ("1.5s", 1_500)]
        {
            assert_eq!(duration(text), Some(Nanos::from_millis(millis)), "{text}");
        }
        for text in ["", "10", "s", "1x", "1m30", "-1s", "1.2.3s"] {
            assert_eq!(duration(text), None, "{text}");
        }
    }

    #[test]
    fn ports_in_every_notation() {
        #[track_caller]
        fn check(text: &str, expected: &[(&str, u16)]) {
            let found: Vec<(String, u16)> =
                ports(text).expect(text).iter().map(|it| (it.address.to_string(), it.target)).collect();
            let found: Vec<(&str, u16)> =
                found.iter().map(|(address, target)| (address.as_str(), *target)).collect();
            assert_eq!(found, expected, "{text}");
        }
        check("8080:80", &[("0.0.0.0:8080", 80)]);
        check("127.0.0.1:8001:8001", &[("127.0.0.1:8001", 8001)]);
        check("[::1]:8001:80/tcp", &[("[::1]:8001", 80)]);
        check("3000-3001:3000-3001", &[("0.0.0.0:3000", 3000), ("0.0.0.0:3001", 3001)]);
        for text in [
            "80",
            "53:53/udp",
            "x:y",
            "99999:1",
            "1000-9000:1000-9000",
            "5-4:5-4",
            "",
            ":",
            "::",
            "a:1:1",
            "0:80",
        ] {
            assert!(ports(text).is_err(), "{text}");
        }
    }

    #[test]
    fn only_the_image_itself_tells_a_kind() {
        for (image, kind) in [
            ("redis", Some("cache")),
            ("docker.io/library/postgres:16-alpine", Some("store")),
            ("confluentinc/cp-kafka@sha256:abc", Some("queue")),
            ("rediscommander/redis-commander:latest", None),
            ("localhost:5000/web", None),
            ("", None),
        ] {
            assert_eq!(kind_of_image(image), kind, "{image}");
        }
    }

    #[test]
    fn commands_split_into_their_words_again() {
        let words = ["sh", "-c", "echo 'hi' && ls", ""].map(str::to_string);
        assert_eq!(command_line(&words), r"sh -c 'echo '\''hi'\'' && ls' ''");
    }
}
