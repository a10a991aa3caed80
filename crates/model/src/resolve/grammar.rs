//! The small texts inside values: `cart "GET /cart/{id}"`, `/cart/{id}`, `127.0.0.1:80`. Pure functions; the caller
//! knows the place and reports.

use std::collections::HashSet;
use std::net::SocketAddr;

pub(super) const METHODS: [&str; 9] =
    ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT"];

/// `WHO` or `WHO "SOMETHING"`; `None` if it is neither.
pub(super) fn who_and_quoted(text: &str) -> Option<(&str, Option<&str>)> {
    let (who, quoted, rest) = who_quoted_rest(text)?;
    rest.is_empty().then_some((who, quoted))
}

/// `WHO ["SOMETHING"] REST`: the first word, a quoted text if one follows, and what is left.
pub(super) fn who_quoted_rest(text: &str) -> Option<(&str, Option<&str>, &str)> {
    let text = text.trim();
    let end = text.find(|c: char| c.is_whitespace() || c == '"').unwrap_or(text.len());
    let (who, rest) = text.split_at(end);
    if who.is_empty() {
        return None;
    }
    let rest = rest.trim_start();
    let Some(rest) = rest.strip_prefix('"') else { return Some((who, None, rest)) };
    let (quoted, rest) = rest.split_once('"')?;
    (!quoted.is_empty()).then(|| (who, Some(quoted), rest.trim_start()))
}

/// Why a text is no path template (`/cart/{id}`), or `None` if it is one.
pub(super) fn bad_template(path: &str) -> Option<String> {
    if !path.starts_with('/') {
        return Some("a path begins with `/`".to_owned());
    }
    if path.contains(char::is_whitespace) {
        return Some("a path holds no white space".to_owned());
    }
    let mut seen = HashSet::new();
    for segment in path.split('/').skip(1) {
        let Some(inner) = segment.strip_prefix('{').and_then(|it| it.strip_suffix('}')) else {
            if segment.contains(['{', '}']) {
                return Some(format!("`{segment}`: a parameter is a whole segment, `/cart/{{id}}`"));
            }
            continue;
        };
        let word = !inner.is_empty() && inner.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
        if !word {
            return Some(format!("`{segment}`: a parameter's name is letters, digits and `_`"));
        }
        if !seen.insert(inner) {
            return Some(format!("the parameter `{inner}` is there twice"));
        }
    }
    None
}

/// A host as a certificate names it: a DNS name or an IP address, without a port.
pub(super) fn is_server_name(text: &str) -> bool {
    text.parse::<std::net::IpAddr>().is_ok() || (!text.contains(':') && is_address(&format!("{text}:1")))
}

/// `127.0.0.1:80`, `[::1]:80` or `db.example:5432`.
pub(super) fn is_address(text: &str) -> bool {
    if let Ok(address) = text.parse::<SocketAddr>() {
        return address.port() != 0;
    }
    let Some((host, port)) = text.rsplit_once(':') else { return false };
    let host_good = !host.is_empty()
        && host.len() <= 253
        && host.split('.').all(|label| {
            (1..=63).contains(&label.len())
                && label.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
                && !label.starts_with('-')
                && !label.ends_with('-')
        })
        // Four numbers that are no address (`10.0.0.256:80`) are a slip, not a host.
        && !host.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    let port_good = !port.starts_with(['0', '+']) && port.parse::<u16>().is_ok();
    host_good && port_good
}

pub(super) fn words(text: &str) -> Vec<&str> {
    text.split_whitespace().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_a_word_and_maybe_a_quoted_text() {
        for (text, expected) in [
            ("cart", Some(("cart", None))),
            ("cart \"GET /cart/{id}\"", Some(("cart", Some("GET /cart/{id}")))),
            ("cart\"GET /\"", Some(("cart", Some("GET /")))),
            ("cart GET /", None),
            ("cart \"GET /", None),
            ("cart \"\"", None),
            ("cart \"a\" b", None),
            ("", None),
            ("\"GET /\"", None),
        ] {
            assert_eq!(who_and_quoted(text), expected, "{text}");
        }
    }

    #[test]
    fn templates_name_each_parameter_once() {
        for (path, good) in [
            ("/", true),
            ("/cart/{id}", true),
            ("/a/{b}/c/{d}", true),
            ("cart", false),
            ("/cart/{id", false),
            ("/cart/x{id}", false),
            ("/cart/{}", false),
            ("/{a}/{a}", false),
            ("/a b", false),
        ] {
            assert_eq!(bad_template(path).is_none(), good, "{path}");
        }
    }

    #[test]
    fn addresses_have_a_host_and_a_port() {
        for (text, good) in [
            ("127.0.0.1:8080", true),
            ("[::1]:80", true),
            ("db.example:5432", true),
            ("localhost:1", true),
            (":8080", false),
            ("127.0.0.1", false),
            ("127.0.0.1:0", false),
            ("10.0.0.256:80", false),
            ("host:65536", false),
            ("host:+80", false),
            ("ho st:80", false),
            ("-x:80", false),
            ("http://x:80", false),
        ] {
            assert_eq!(is_address(text), good, "{text}");
        }
    }
}
