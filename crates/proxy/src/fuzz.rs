//! Entry points for fuzzing: bytes in, a broken promise out as a panic. They run on stable, over a corpus and its mutants.
//!
//! Each holds the code to more than "does not panic": what is accepted must be read the same when it arrives in pieces.

use crate::http1::{
    BodyReader, Framing, HeadLimits, Method, Progress, RequestHead, ResponseHead, parse_request,
    parse_request_slowly, parse_response, parse_response_slowly,
};

/// A request's head: whatever is accepted whole must be accepted, with the same result, at its exact length, and must
/// be incomplete for every shorter length.
pub fn fuzz_request_head(data: &[u8]) {
    let limits = HeadLimits::default();
    let (mut head, mut slow) = (RequestHead::default(), RequestHead::default());
    let read = parse_request(data, &limits, &mut head);
    assert_eq!(
        read,
        parse_request_slowly(data, &limits, &mut slow),
        "the shortcut has an opinion of its own"
    );
    if read != Ok(Progress::Complete) {
        return;
    }
    assert_eq!(head, slow, "the shortcut has an opinion of its own");
    let mut again = RequestHead::default();
    assert_eq!(parse_request(&data[..head.len], &limits, &mut again), Ok(Progress::Complete));
    assert_eq!(
        (head.framing, head.target, head.host, head.len),
        (again.framing, again.target, again.host, again.len)
    );
    for end in 0..head.len {
        assert_ne!(
            parse_request(&data[..end], &limits, &mut again),
            Ok(Progress::Complete),
            "complete too early at {end}"
        );
    }
    assert!(
        !data[..head.len].windows(2).any(|pair| pair[1] == b'\n' && pair[0] != b'\r'),
        "a bare line feed got through"
    );
    for line in &head.lines {
        let (name, value) = (line.name.get(data), line.value.get(data));
        assert!(!name.is_empty() && !name.iter().any(|byte| byte.is_ascii_whitespace() || *byte == b':'));
        assert!(!value.iter().any(|byte| matches!(byte, b'\r' | b'\n' | 0)));
    }
}

/// The same for a reply's head.
pub fn fuzz_response_head(data: &[u8]) {
    let limits = HeadLimits::default();
    let (mut head, mut slow) = (ResponseHead::default(), ResponseHead::default());
    let read = parse_response(data, &limits, Method::Get, &mut head);
    let read_slowly = parse_response_slowly(data, &limits, Method::Get, &mut slow);
    assert_eq!(read, read_slowly, "the shortcut has an opinion of its own");
    if read != Ok(Progress::Complete) {
        return;
    }
    assert_eq!(head, slow, "the shortcut has an opinion of its own");
    let mut again = ResponseHead::default();
    assert_eq!(parse_response(&data[..head.len], &limits, Method::Get, &mut again), Ok(Progress::Complete));
    assert_eq!((head.status, head.framing, head.len), (again.status, again.framing, again.len));
    for end in 0..head.len {
        assert_ne!(parse_response(&data[..end], &limits, Method::Get, &mut again), Ok(Progress::Complete));
    }
}

/// A TLS client's first bytes: whatever they are, the name found in them is a name.
pub fn fuzz_client_hello(data: &[u8]) {
    use crate::sni::{Hello, server_name};
    match server_name(data) {
        Hello::Name(name) => {
            assert!(!name.is_empty() && name.len() <= 255);
            assert!(name.iter().all(|byte| byte.is_ascii_graphic()));
            assert_eq!(server_name(data), Hello::Name(name));
        }
        Hello::NoName | Hello::NotTls | Hello::Partial => {}
    }
}

/// A chunked body, whole and byte by byte: the same body, the same end, or refused both times.
pub fn fuzz_chunked_body(data: &[u8]) {
    let whole = read_body(data, data.len().max(1));
    for step in [1, 2, 7] {
        assert_eq!(read_body(data, step), whole, "in pieces of {step}");
    }
}

fn read_body(data: &[u8], step: usize) -> Option<(Vec<u8>, usize, bool)> {
    let mut reader = BodyReader::new(Framing::Chunked);
    let (mut body, mut at, mut end, mut done) = (Vec::new(), 0, 0, false);
    while end < data.len() && !done {
        end = (end + step).min(data.len());
        loop {
            let piece = reader.step(&data[at..end]).ok()?;
            body.extend_from_slice(&data[at..end][piece.data.clone()]);
            at += piece.consumed;
            done = piece.done;
            if piece.consumed == 0 || done {
                break;
            }
        }
    }
    Some((body, at, done))
}

/// A client's HTTP/2 frames, whole and in pieces: the same streams with the same heads and bodies. A head that is
/// accepted is one head: nothing in a field may become a line or a request of its own.
pub fn fuzz_http2(data: &[u8]) {
    let whole = read_streams(data, data.len().max(1));
    for step in [1, 5, 64] {
        assert!(read_streams(data, step) == whole, "in pieces of {step}");
    }
    let limits = HeadLimits { bytes: 1 << 20, ..HeadLimits::default() };
    let mut head = RequestHead::default();
    for (text, _) in &whole {
        let lines = text.windows(2).filter(|pair| pair == b"\r\n").count();
        let text = [text, &b"\r\n"[..]].concat();
        if parse_request(&text, &limits, &mut head) == Ok(Progress::Complete) {
            assert_eq!(
                (head.len, head.lines.len() + 1),
                (text.len(), lines),
                "a field became more than a line"
            );
        }
    }
}

fn read_streams(data: &[u8], step: usize) -> Vec<(Vec<u8>, Vec<u8>)> {
    use crate::h2::{Body, Connection, PREFACE};
    let connection = Connection::server(16 << 10, 100);
    let settings = [0, 0, 0, 4, 0, 0, 0, 0, 0];
    let now = units::Nanos(1);
    connection.feed(&[PREFACE, &settings].concat(), now);
    let (mut streams, mut rest) = (Vec::new(), Vec::new());
    for piece in data.chunks(step) {
        rest.extend_from_slice(piece);
        let used = connection.feed(&rest, now).min(rest.len());
        rest.drain(..used);
        while let Some(stream) = connection.next_arrived() {
            streams.push((stream.take_request(), stream));
        }
        if connection.has_failed() {
            break;
        }
    }
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    let mut body = |stream: &crate::h2::Stream| match stream.poll_body(&mut context) {
        std::task::Poll::Ready(Body::Data) => stream.take_body(|bytes| (bytes.len(), bytes.to_vec())),
        _ => Vec::new(),
    };
    streams.into_iter().map(|(text, stream)| (text, body(&stream))).collect()
}
