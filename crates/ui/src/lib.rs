//! # ui: the web map's files, inside the binary
//!
//! In: a path and two request headers. Out: status, headers and bytes. It has no socket and no runtime: whoever serves
//! HTTP calls [`respond`]. Files with a hash in their name may be kept for ever; the page itself is asked for each time.
//!
//! Built without Node there is no page to embed; then a plain one says how to get it, and everything else works.

/// One embedded file, as the build found it; compressed forms are files of their own (`app.js.br`).
#[derive(Debug)]
pub(crate) struct Embedded {
    pub(crate) path: &'static str,
    pub(crate) bytes: &'static [u8],
    pub(crate) etag: &'static str,
}

include!(concat!(env!("OUT_DIR"), "/files.rs"));

/// Shown when the binary was built without the map.
const PLACEHOLDER: &[u8] = include_bytes!("placeholder.html");
const PLACEHOLDER_ETAG: &str = "\"placeholder\"";

/// Scripts, styles and connections come from here and nowhere else; nothing inline, nothing framed.
pub const CONTENT_SECURITY_POLICY: &str = "default-src 'self'; img-src 'self' data:; object-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// What to send back.
#[derive(Debug, PartialEq, Eq)]
pub struct Response {
    pub status: u16,
    pub headers: Vec<(&'static str, &'static str)>,
    pub body: &'static [u8],
}

/// Whether the real map is inside, for `isobar --version`.
pub fn has_map() -> bool {
    !FILES.is_empty()
}

/// Answers a GET for `path` (with its leading slash, without the query).
pub fn respond(path: &str, accept_encoding: &str, if_none_match: Option<&str>) -> Response {
    respond_from(FILES, path, accept_encoding, if_none_match)
}

fn respond_from(
    files: &'static [Embedded],
    path: &str,
    accept_encoding: &str,
    if_none_match: Option<&str>,
) -> Response {
    let wanted = path.trim_start_matches('/');
    let find = |name: &str| files.iter().find(|file| file.path == name);
    // Pages of the map have addresses of their own (`/service/web`) and are all the same document; what looks like a
    // file and is not there is an error, or a broken build would answer scripts with HTML.
    let (name, file) = match find(wanted) {
        Some(file) if !wanted.is_empty() => (wanted, Some(file)),
        _ if wanted.contains('.') => return not_found(),
        _ => ("index.html", find("index.html")),
    };
    let immutable = name.starts_with("assets/");
    let mut headers = vec![
        ("Content-Type", content_type(name)),
        ("Content-Security-Policy", CONTENT_SECURITY_POLICY),
        ("X-Content-Type-Options", "nosniff"),
        ("Referrer-Policy", "no-referrer"),
        ("Cache-Control", if immutable { "public, max-age=31536000, immutable" } else { "no-cache" }),
        ("Vary", "Accept-Encoding"),
    ];
    let (body, etag) = match file {
        None => (PLACEHOLDER, PLACEHOLDER_ETAG),
        Some(plain) => {
            let compressed = [("br", ".br"), ("gzip", ".gz")].into_iter().find_map(|(coding, end)| {
                let file =
                    accepts(accept_encoding, coding).then(|| find(&format!("{name}{end}"))).flatten()?;
                Some((coding, file))
            });
            match compressed {
                Some((coding, file)) => {
                    headers.push(("Content-Encoding", coding));
                    (file.bytes, file.etag)
                }
                None => (plain.bytes, plain.etag),
            }
        }
    };
    headers.push(("ETag", etag));
    let known =
        if_none_match.is_some_and(|tags| tags.split(',').any(|tag| tag.trim() == etag || tag.trim() == "*"));
    if known {
        return Response { status: 304, headers, body: &[] };
    }
    Response { status: 200, headers, body }
}

fn not_found() -> Response {
    let headers = vec![("Content-Type", "text/plain; charset=utf-8"), ("X-Content-Type-Options", "nosniff")];
    Response { status: 404, headers, body: b"no such file\n" }
}

/// A coding named with a weight of zero is refused, as RFC 9110 has it.
fn accepts(accept_encoding: &str, coding: &str) -> bool {
    accept_encoding.split(',').any(|item| {
        let mut parts = item.split(';').map(str::trim);
        let named = parts.next().is_some_and(|name| name.eq_ignore_ascii_case(coding));
        let refused = parts
            .filter_map(|part| part.strip_prefix("q="))
            .any(|weight| weight.parse::<f32>().is_ok_and(|weight| weight == 0.0));
        named && !refused
    })
}

fn content_type(name: &str) -> &'static str {
    match name.rsplit('.').next() {
        Some("html") => "text/html; charset=utf-8",
        Some("js") => "text/javascript; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("svg") => "image/svg+xml",
        Some("json") => "application/json",
        Some("png") => "image/png",
        Some("woff2") => "font/woff2",
        _ => "application/octet-stream",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    static BUILT: &[Embedded] = &[
        Embedded { path: "assets/app-1a2b.js", bytes: b"plain", etag: "\"1\"" },
        Embedded { path: "assets/app-1a2b.js.br", bytes: b"br", etag: "\"2\"" },
        Embedded { path: "index.html", bytes: b"<html>", etag: "\"3\"" },
    ];

    #[track_caller]
    fn check(path: &str, accept: &str, known: Option<&str>, expected: (u16, &[u8])) -> Response {
        let response = respond_from(BUILT, path, accept, known);
        assert_eq!((response.status, response.body), expected, "{path}");
        response
    }

    fn header<'r>(response: &'r Response, name: &str) -> Option<&'r str> {
        response.headers.iter().find(|(known, _)| *known == name).map(|(_, value)| *value)
    }

    #[test]
    fn pages_files_and_encodings() {
        let page = check("/", "gzip", None, (200, b"<html>"));
        assert_eq!(header(&page, "Cache-Control"), Some("no-cache"));
        assert_eq!(header(&page, "Content-Security-Policy"), Some(CONTENT_SECURITY_POLICY));
        check("/service/web", "", None, (200, b"<html>"));
        let script = check("/assets/app-1a2b.js", "gzip, br;q=0.5", None, (200, b"br"));
        assert_eq!(header(&script, "Content-Encoding"), Some("br"));
        assert_eq!(header(&script, "Content-Type"), Some("text/javascript; charset=utf-8"));
        check("/assets/app-1a2b.js", "br;q=0", None, (200, b"plain"));
        check("/assets/app-1a2b.js", "", Some("\"0\", \"1\""), (304, b""));
        check("/assets/gone.js", "br", None, (404, b"no such file\n"));
        check("/../secret.txt", "br", None, (404, b"no such file\n"));
    }

    #[test]
    fn without_a_build_a_page_says_how_to_get_one() {
        let response = respond_from(&[], "/", "br", None);
        assert_eq!(response.status, 200);
        assert!(String::from_utf8_lossy(response.body).contains("cargo xtask ui"));
    }
}
