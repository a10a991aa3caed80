//! Who is heard, and by what.
//!
//! On the loopback anyone on this machine may ask, but no web page may: a request that a browser sends on behalf of
//! another site carries an `Origin` that is not ours, and a name that was made to point here carries a `Host` that is
//! not ours. Both are refused. Anywhere else nothing is answered without the token but the page itself, which asks for
//! it. A script sends the token with each request; a browser gives it once and has it in a cookie from then on, which no
//! script of a page can read and which is not sent on behalf of another site.
//!
//! A system that may only be looked at obeys those who hold the token and send it themselves, and nobody else.

use crate::api::{Api, Refusal};
use axum::Router;
use axum::body::Bytes;
use axum::extract::{Request as HttpRequest, State};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use std::sync::Arc;

const COOKIE: &str = "isobar-token";
/// Half a day: whoever comes back tomorrow is asked again.
const COOKIE_SECONDS: u32 = 43_200;
pub(crate) const LOGIN: &str = "/v1/login";
pub(crate) const LOGOUT: &str = "/v1/logout";
/// Applications may tell even where nobody may act.
const TELLING: &str = "/api/v2/spans";

/// Refuses what comes from where it may not; put it around everything that is served.
pub fn guard(router: Router, token: Arc<str>, read_only: bool) -> Router {
    router.layer(middleware::from_fn(move |request: HttpRequest, next: Next| {
        let token = Arc::clone(&token);
        async move {
            let (method, path) = (request.method().clone(), request.uri().path().to_owned());
            // Whoever logs in has no token yet to send.
            if method == Method::POST && (path == LOGIN || path == LOGOUT) {
                return next.run(request).await;
            }
            match admit(request.headers(), &method, &path, &token, read_only) {
                Ok(()) => next.run(request).await,
                Err(refusal) => refusal.into_response(),
            }
        }
    }))
}

fn refused(status: u16, message: &str) -> Refusal {
    Refusal { status, message: message.to_owned() }
}

fn text(headers: &HeaderMap, name: header::HeaderName) -> Option<&str> {
    headers.get(name).and_then(|it| it.to_str().ok())
}

fn admit(
    headers: &HeaderMap,
    method: &Method,
    path: &str,
    token: &str,
    read_only: bool,
) -> Result<(), Refusal> {
    let bearer = text(headers, header::AUTHORIZATION).and_then(|it| it.strip_prefix("Bearer "));
    if bearer.is_some_and(|given| same(given.as_bytes(), token.as_bytes())) {
        return Ok(());
    }
    let looks = matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS);
    if looks && is_page(path) {
        return Ok(());
    }
    let known = cookies(headers).any(|given| same(given.as_bytes(), token.as_bytes()));
    let host = text(headers, header::HOST).unwrap_or("");
    if !is_loopback(host) && !known {
        return Err(refused(
            401,
            "from elsewhere than this machine a token is needed: `authorization: Bearer TOKEN`, or log in on the map",
        ));
    }
    own_origin(headers)?;
    if read_only && !looks && path != TELLING {
        return Err(refused(403, "this system may only be looked at here: it was started with --read-only"));
    }
    Ok(())
}

/// A request for another site's page says so.
fn own_origin(headers: &HeaderMap) -> Result<(), Refusal> {
    let host = text(headers, header::HOST).unwrap_or("");
    let own = |origin: &str| {
        // Whoever put TLS in front of us speaks for the same host by another scheme.
        origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://")) == Some(host)
    };
    match headers.get(header::ORIGIN) {
        None => Ok(()),
        Some(origin) if origin.to_str().is_ok_and(own) => Ok(()),
        Some(_) => Err(refused(403, "another site's page may not ask this")),
    }
}

/// The page's own files hold no word about the system.
fn is_page(path: &str) -> bool {
    matches!(path, "/" | "/table" | "/traces" | "/act")
        || ["/assets/", "/service/", "/trace/"].iter().any(|it| path.starts_with(it))
}

fn cookies(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let all = headers.get_all(header::COOKIE).iter().filter_map(|it| it.to_str().ok());
    all.flat_map(|it| it.split(';')).filter_map(|it| it.trim().strip_prefix(COOKIE)?.strip_prefix('='))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Login {
    token: String,
}

pub(crate) async fn login(
    State(api): State<Api>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Refusal> {
    let given: Login =
        serde_json::from_slice(&body).map_err(|_| refused(422, "a login is `{\"token\": \"...\"}`"))?;
    // Sixteen random bytes are not found by trying, so tries are not counted.
    if !same(given.token.trim().as_bytes(), api.token.as_bytes()) {
        return Err(refused(401, "this is not the token; it stands in the run's `run.json`"));
    }
    with_cookie(&headers, &api.token, COOKIE_SECONDS)
}

pub(crate) async fn logout(headers: HeaderMap) -> Result<Response, Refusal> {
    with_cookie(&headers, "", 0)
}

fn with_cookie(headers: &HeaderMap, value: &str, seconds: u32) -> Result<Response, Refusal> {
    // A foreign page must not log anybody in or out, not even into what it knows the token of.
    own_origin(headers)?;
    let secure = text(headers, header::ORIGIN).is_some_and(|it| it.starts_with("https://"));
    let secure = if secure { "; Secure" } else { "" };
    let cookie = format!("{COOKIE}={value}; Path=/; Max-Age={seconds}; HttpOnly; SameSite=Strict{secure}");
    Ok((StatusCode::NO_CONTENT, [(header::SET_COOKIE, cookie)]).into_response())
}

fn is_loopback(host: &str) -> bool {
    let name = match host.strip_prefix('[').and_then(|it| it.split_once(']')) {
        Some((name, _)) => name,
        None => host.split(':').next().unwrap_or(""),
    };
    name == "localhost" || name.parse::<std::net::IpAddr>().is_ok_and(|it| it.is_loopback())
}

/// Takes as long for a wrong token as for a right one.
fn same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |all, (a, b)| all | (a ^ b)) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(headers: &[(&'static str, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, value.parse().expect("a header"));
        }
        map
    }

    /// The status of a refusal, or 200.
    #[track_caller]
    fn check(what: (Method, &str), headers: &[(&'static str, &str)], read_only: bool, expected: u16) {
        let (method, path) = what;
        let status =
            admit(&of(headers), &method, path, "secret", read_only).map_or_else(|it| it.status, |()| 200);
        assert_eq!(status, expected, "{method} {path} {headers:?} read_only={read_only}");
    }

    fn get(path: &str) -> (Method, &str) {
        (Method::GET, path)
    }

    #[test]
    fn only_this_machine_and_holders_of_the_token_are_heard() {
        let status = || get("/v1/status");
        check(status(), &[("host", "127.0.0.1:4000")], false, 200);
        check(status(), &[("host", "localhost:4000")], false, 200);
        check(status(), &[("host", "[::1]:4000")], false, 200);
        check(status(), &[("host", "127.0.0.1.evil.example:4000")], false, 401);
        check(status(), &[("host", "evil.example")], false, 401);
        check(status(), &[], false, 401);
        check(status(), &[("host", "127.0.0.1:4000"), ("origin", "http://127.0.0.1:4000")], false, 200);
        check(status(), &[("host", "127.0.0.1:4000"), ("origin", "https://evil.example")], false, 403);
        check(status(), &[("host", "127.0.0.1:4000"), ("origin", "null")], false, 403);
        check(status(), &[("host", "10.0.0.1:4000"), ("authorization", "Bearer secret")], false, 200);
        check(status(), &[("host", "10.0.0.1:4000"), ("authorization", "Bearer secreT")], false, 401);
    }

    #[test]
    fn a_browser_from_elsewhere_has_the_page_and_after_its_login_the_rest() {
        let far = ("host", "box.example:4000");
        check(get("/"), &[far], false, 200);
        check(get("/service/web"), &[far], false, 200);
        check(get("/assets/index.js"), &[far], false, 200);
        check(get("/metrics"), &[far], false, 401);
        check(get("/v1/live"), &[far], false, 401);
        check((Method::POST, "/"), &[far], false, 401);
        let known = ("cookie", "a=b; isobar-token=secret");
        check(get("/v1/live"), &[far, known], false, 200);
        check(get("/v1/live"), &[far, ("cookie", "isobar-token=wrong!")], false, 401);
        check(get("/v1/live"), &[far, ("cookie", "other-isobar-token=secret")], false, 401);
        let act = || (Method::POST, "/v1/act");
        check(act(), &[far, known, ("origin", "http://box.example:4000")], false, 200);
        check(act(), &[far, known, ("origin", "https://box.example:4000")], false, 200);
        check(act(), &[far, known, ("origin", "http://evil.example")], false, 403);
        check(act(), &[far, known, ("origin", "http://box.example:4001")], false, 403);
    }

    #[test]
    fn where_nobody_may_act_only_the_token_does() {
        let near = ("host", "127.0.0.1:4000");
        check(get("/v1/map"), &[near], true, 200);
        check((Method::POST, "/v1/act"), &[near], true, 403);
        check((Method::POST, "/v1/services/web/restart"), &[near], true, 403);
        check((Method::DELETE, "/v1/scenarios"), &[near, ("cookie", "isobar-token=secret")], true, 403);
        check(
            (Method::POST, "/v1/services/web/restart"),
            &[near, ("authorization", "Bearer secret")],
            true,
            200,
        );
        check((Method::POST, "/api/v2/spans"), &[near], true, 200);
    }

    /// What `with_cookie` says: a status and the cookie.
    fn cookie(headers: &[(&'static str, &str)], value: &str, seconds: u32) -> (u16, String) {
        match with_cookie(&of(headers), value, seconds) {
            Ok(answer) => {
                let cookie = text(answer.headers(), header::SET_COOKIE).unwrap_or("").to_owned();
                (answer.status().as_u16(), cookie)
            }
            Err(refusal) => (refusal.status, String::new()),
        }
    }

    #[test]
    fn a_login_gives_a_cookie_that_no_script_reads_and_no_other_site_sends() {
        let own = [("host", "box.example"), ("origin", "http://box.example")];
        let (status, given) = cookie(&own, "secret", COOKIE_SECONDS);
        assert_eq!(
            (status, &*given),
            (204, "isobar-token=secret; Path=/; Max-Age=43200; HttpOnly; SameSite=Strict")
        );
        assert!(cookie(&[("host", "a"), ("origin", "https://a")], "secret", 1).1.ends_with("; Secure"));
        assert!(cookie(&own, "", 0).1.contains("Max-Age=0"));
        assert_eq!(cookie(&[("host", "box.example"), ("origin", "http://evil.example")], "secret", 1).0, 403);
    }
}
