//! Who is heard, and by what.
//!
//! On the loopback anyone on this machine may ask, but no web page may: a request that a browser sends on behalf of
//! another site carries an `Origin` that is not ours, and a name that was made to point here carries a `Host` that is
//! not ours. Both are refused. Anywhere else nothing is answered without the token but the page itself, which asks for
//! it. A script sends the token with each request; a browser gives it once and has a session ([`crate::logins`]) from
//! then on, by a cookie that no script of a page can read and that is not sent on behalf of another site.
//!
//! A system that may only be looked at obeys those who hold the token and send it themselves, and nobody else.

use crate::api::{Api, Refusal, lock};
use crate::logins::{SESSION, same};
use crate::watched::Watched;
use axum::Router;
use axum::body::Bytes;
use axum::extract::{Request as HttpRequest, State};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use units::Nanos;

const COOKIE: &str = "isobar-session";
pub(crate) const LOGIN: &str = "/v1/login";
pub(crate) const LOGOUT: &str = "/v1/logout";
/// Applications may tell even where nobody may act.
const TELLING: &str = "/api/v2/spans";
/// Of the address that a front gives; longer is no address.
const SOURCE_BYTES_MAX: usize = 64;

/// What stands between the doors and whoever knocks.
pub struct Gate {
    /// Needed by everyone who does not come from this machine.
    token: String,
    read_only: bool,
    watched: Arc<Watched>,
    /// Sixteen bytes nobody can guess, as text; luck is the edge's business.
    luck: fn() -> std::io::Result<String>,
    hashes: RandomState,
}

impl std::fmt::Debug for Gate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gate").field("read_only", &self.read_only).finish_non_exhaustive()
    }
}

/// Refuses what comes from where it may not; put it around everything that is served.
pub fn guard(router: Router, gate: Arc<Gate>) -> Router {
    router.layer(middleware::from_fn(move |request: HttpRequest, next: Next| {
        let gate = Arc::clone(&gate);
        async move {
            let (method, path) = (request.method().clone(), request.uri().path().to_owned());
            // Whoever logs in has no session yet to show.
            if method == Method::POST && (path == LOGIN || path == LOGOUT) {
                return next.run(request).await;
            }
            match gate.admit(request.headers(), &method, &path) {
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

impl Gate {
    pub fn new(
        token: String,
        read_only: bool,
        watched: Arc<Watched>,
        luck: fn() -> std::io::Result<String>,
    ) -> Self {
        Self { token, read_only, watched, luck, hashes: RandomState::new() }
    }

    fn now(&self) -> Nanos {
        self.watched.clocks.now()
    }

    fn admit(&self, headers: &HeaderMap, method: &Method, path: &str) -> Result<(), Refusal> {
        let near = is_near(headers);
        let bearer = text(headers, header::AUTHORIZATION).and_then(|it| it.strip_prefix("Bearer "));
        if let Some(given) = bearer {
            // Of this machine only its user's own commands send one, and nobody can shut them out by guessing.
            match if near { Ok(self.is_token(given)) } else { self.judged(headers, given) } {
                Ok(true) => return Ok(()),
                Err(refusal) => return Err(refusal),
                Ok(false) => {}
            }
        }
        let looks = matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS);
        if looks && is_page(path) {
            return Ok(());
        }
        if !near && !self.has_session(headers) {
            return Err(refused(
                401,
                "from elsewhere than this machine a token is needed: `authorization: Bearer TOKEN`, or log in on the map",
            ));
        }
        own_origin(headers)?;
        if self.read_only && !looks && path != TELLING {
            return Err(refused(
                403,
                "this system may only be looked at here: it was started with --read-only",
            ));
        }
        Ok(())
    }

    fn is_token(&self, given: &str) -> bool {
        same(given.as_bytes(), self.token.as_bytes())
    }

    /// Whether it is the token; not looked at for a while after too many wrong ones from the same source.
    fn judged(&self, headers: &HeaderMap, given: &str) -> Result<bool, Refusal> {
        let (source, now) = (source(headers), self.now());
        let mut logins = lock(&self.watched.logins);
        if let Some(wait) = logins.wait(source, now) {
            let seconds = wait.as_u64().div_ceil(1_000_000_000);
            let message =
                format!("too many wrong tokens from there; the next one is looked at in {seconds} s");
            return Err(Refusal { status: 429, message });
        }
        if self.is_token(given) {
            logins.right(source);
            return Ok(true);
        }
        logins.wrong(source, self.hashes.hash_one(given), now);
        Ok(false)
    }

    fn has_session(&self, headers: &HeaderMap) -> bool {
        let (logins, now) = (lock(&self.watched.logins), self.now());
        cookies(headers).any(|it| logins.knows(it, now))
    }

    fn login(&self, headers: &HeaderMap, body: &[u8]) -> Result<Response, Refusal> {
        // A foreign page must not log anybody in, not even into what it knows the token of.
        own_origin(headers)?;
        let given: Login =
            serde_json::from_slice(body).map_err(|_| refused(422, "a login is `{\"token\": \"...\"}`"))?;
        if !self.judged(headers, given.token.trim())? {
            return Err(refused(401, "this is not the token; it stands in the run's `run.json`"));
        }
        let id =
            (self.luck)().map_err(|_| refused(500, "no session can be made: this machine gives no luck"))?;
        let mut logins = lock(&self.watched.logins);
        // Whoever logs in again needs one session and not two.
        cookies(headers).for_each(|it| logins.end(it));
        logins.give(id.clone(), self.now());
        Ok(with_cookie(headers, &id, SESSION))
    }

    fn logout(&self, headers: &HeaderMap) -> Result<Response, Refusal> {
        own_origin(headers)?;
        let mut logins = lock(&self.watched.logins);
        cookies(headers).for_each(|it| logins.end(it));
        Ok(with_cookie(headers, "", Nanos::ZERO))
    }
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
    api.gate.login(&headers, &body)
}

pub(crate) async fn logout(State(api): State<Api>, headers: HeaderMap) -> Result<Response, Refusal> {
    api.gate.logout(&headers)
}

fn with_cookie(headers: &HeaderMap, value: &str, lasts: Nanos) -> Response {
    let secure = text(headers, header::ORIGIN).is_some_and(|it| it.starts_with("https://"));
    let (secure, seconds) = (if secure { "; Secure" } else { "" }, lasts.as_u64() / 1_000_000_000);
    let cookie = format!("{COOKIE}={value}; Path=/; Max-Age={seconds}; HttpOnly; SameSite=Strict{secure}");
    (StatusCode::NO_CONTENT, [(header::SET_COOKIE, cookie)]).into_response()
}

/// Who asks through a front: the address that the front nearest to us saw. All others are one source, for every
/// connection here comes from this machine.
fn source(headers: &HeaderMap) -> &str {
    let last = forwarded(headers).last().unwrap_or("");
    if last.len() <= SOURCE_BYTES_MAX { last } else { "" }
}

fn forwarded(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let all = headers.get_all("x-forwarded-for").iter().map(|it| it.to_str().unwrap_or(""));
    all.flat_map(|it| it.split(',')).map(str::trim)
}

/// It names this machine, and no front says that it comes from another.
fn is_near(headers: &HeaderMap) -> bool {
    is_loopback(text(headers, header::HOST).unwrap_or(""))
        && forwarded(headers).all(|it| it.parse::<std::net::IpAddr>().is_ok_and(|it| it.is_loopback()))
}

fn is_loopback(host: &str) -> bool {
    let name = match host.strip_prefix('[').and_then(|it| it.split_once(']')) {
        Some((name, _)) => name,
        None => host.split(':').next().unwrap_or(""),
    };
    name == "localhost" || name.parse::<std::net::IpAddr>().is_ok_and(|it| it.is_loopback())
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

    /// A gate for `secret`, at a time that stands still, with one session.
    fn gate(read_only: bool) -> Gate {
        let now: Arc<dyn Fn() -> Nanos + Send + Sync> = Arc::new(|| Nanos::from_secs(1));
        let watched = Watched::new(crate::watched::Clocks { now, started_unix_ms: 0 });
        lock(&watched.logins).give("given".to_owned(), Nanos::ZERO);
        Gate::new("secret".to_owned(), read_only, watched, || Ok("luck".to_owned()))
    }

    /// The status of a refusal, or 200.
    #[track_caller]
    fn check(what: (Method, &str), headers: &[(&'static str, &str)], read_only: bool, expected: u16) {
        let (method, path) = what;
        let status = gate(read_only).admit(&of(headers), &method, path).map_or_else(|it| it.status, |()| 200);
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
        // A front that says where it comes from is believed when that is elsewhere.
        check(status(), &[("host", "127.0.0.1"), ("x-forwarded-for", "127.0.0.1, ::1")], false, 200);
        check(status(), &[("host", "127.0.0.1"), ("x-forwarded-for", "10.0.0.9, 127.0.0.1")], false, 401);
        check(status(), &[("host", "127.0.0.1"), ("x-forwarded-for", "what")], false, 401);
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
        let known = ("cookie", "a=b; isobar-session=given");
        check(get("/v1/live"), &[far, known], false, 200);
        check(get("/v1/live"), &[far, ("cookie", "isobar-session=wrong")], false, 401);
        check(get("/v1/live"), &[far, ("cookie", "other-isobar-session=given")], false, 401);
        check(get("/v1/live"), &[far, ("cookie", "isobar-session=secret")], false, 401);
        check(get("/v1/live"), &[far, ("cookie", "isobar-session=")], false, 401);
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
        check((Method::DELETE, "/v1/scenarios"), &[near, ("cookie", "isobar-session=given")], true, 403);
        check(
            (Method::POST, "/v1/services/web/restart"),
            &[near, ("authorization", "Bearer secret")],
            true,
            200,
        );
        check((Method::POST, "/api/v2/spans"), &[near], true, 200);
    }

    /// What a login or a logout answers: a status, and the cookie or the words.
    fn answer(given: Result<Response, Refusal>) -> (u16, String) {
        match given {
            Ok(answer) => {
                let cookie = text(answer.headers(), header::SET_COOKIE).unwrap_or("").to_owned();
                (answer.status().as_u16(), cookie)
            }
            Err(refusal) => (refusal.status, refusal.message),
        }
    }

    const RIGHT: &[u8] = br#"{"token": " secret\n"}"#;

    fn wrong(guess: u32) -> Vec<u8> {
        format!("{{\"token\": \"{guess}\"}}").into_bytes()
    }

    #[test]
    fn a_login_gives_a_session_that_no_script_reads_and_no_other_site_sends() {
        let gate = gate(false);
        let own = of(&[("host", "box.example"), ("origin", "http://box.example")]);
        let given = "isobar-session=luck; Path=/; Max-Age=43200; HttpOnly; SameSite=Strict".to_owned();
        assert_eq!(answer(gate.login(&own, RIGHT)), (204, given));
        let tls = of(&[("host", "a"), ("origin", "https://a")]);
        assert!(answer(gate.login(&tls, RIGHT)).1.ends_with("; Secure"));
        let foreign = of(&[("host", "box.example"), ("origin", "http://evil.example")]);
        assert_eq!(answer(gate.login(&foreign, RIGHT)).0, 403);
        assert_eq!(answer(gate.logout(&foreign)).0, 403);
        for body in [&b""[..], b"[]", b"{\"token\": 1}", b"{\"token\": \"secret\", \"more\": 1}"] {
            assert_eq!(answer(gate.login(&own, body)).0, 422, "{}", String::from_utf8_lossy(body));
        }
    }

    #[test]
    fn a_logout_ends_the_session_and_a_second_login_the_first() {
        let gate = gate(false);
        let host = ("host", "box.example");
        let holds = |id: &str| gate.has_session(&of(&[("cookie", &format!("isobar-session={id}"))]));
        assert!(holds("given"));
        assert_eq!(answer(gate.login(&of(&[host, ("cookie", "isobar-session=given")]), RIGHT)).0, 204);
        assert!(!holds("given") && holds("luck"));
        let (status, cookie) = answer(gate.logout(&of(&[host, ("cookie", "isobar-session=luck")])));
        assert!(status == 204 && cookie.contains("=; ") && cookie.contains("Max-Age=0"), "{cookie}");
        assert!(!holds("luck"), "the cookie is worth nothing to whoever copied it");
    }

    #[test]
    fn too_many_wrong_tokens_are_not_looked_at_and_sessions_go_on() {
        let gate = gate(false);
        let far = ("host", "box.example");
        let statuses: Vec<u16> = (0..7).map(|it| answer(gate.login(&of(&[far]), &wrong(it))).0).collect();
        assert_eq!(statuses, [401, 401, 401, 401, 401, 429, 429]);
        let (status, words) = answer(gate.login(&of(&[far]), RIGHT));
        assert_eq!(
            (status, &*words),
            (429, "too many wrong tokens from there; the next one is looked at in 1 s")
        );
        let asks = |headers: &[_]| {
            gate.admit(&of(headers), &Method::GET, "/v1/map").map_or_else(|it| it.status, |()| 200)
        };
        assert_eq!(asks(&[far, ("authorization", "Bearer secret")]), 429);
        assert_eq!(asks(&[far, ("cookie", "isobar-session=given")]), 200, "who is in stays in");
        assert_eq!(
            asks(&[("host", "localhost"), ("authorization", "Bearer secret")]),
            200,
            "this machine's user"
        );
        // Another source, as the front tells it.
        assert_eq!(
            asks(&[far, ("x-forwarded-for", "made up, 10.0.0.2"), ("authorization", "Bearer secret")]),
            200
        );
        assert_eq!(lock(&gate.watched.logins).counts().wrong, 5);
    }
}
