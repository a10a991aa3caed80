//! The header names a proxy must know, found without hashing and without copying.

/// What a header means to us. Everything we merely pass on is [`Kind::Other`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Other,
    // Framing and the connection: these belong to one hop.
    Host,
    ContentLength,
    TransferEncoding,
    Connection,
    KeepAlive,
    ProxyConnection,
    ProxyAuthenticate,
    ProxyAuthorization,
    Te,
    Trailer,
    Upgrade,
    Http2Settings,
    Expect,
    // Where the request has been.
    Via,
    Forwarded,
    XForwardedFor,
    XForwardedProto,
    XForwardedHost,
    // Who it is and how long it may take.
    RequestId,
    Traceparent,
    Tracestate,
    B3,
    B3TraceId,
    B3SpanId,
    B3ParentSpanId,
    B3Sampled,
    B3Flags,
    GrpcTimeout,
    EnvoyTimeout,
    EnvoyFault,
    Deadline,
    Version,
    Priority,
    Attempt,
    // Read by us, owned by the ends.
    Cookie,
    Date,
    ContentType,
    RetryAfter,
    GrpcStatus,
    GrpcPushback,
    IsobarError,
}

impl Kind {
    /// Headers that speak about one connection and so must never be passed to the next.
    pub fn is_hop_by_hop(self) -> bool {
        matches!(
            self,
            Self::Connection
                | Self::KeepAlive
                | Self::ProxyConnection
                | Self::ProxyAuthenticate
                | Self::ProxyAuthorization
                | Self::Te
                | Self::Trailer
                | Self::TransferEncoding
                | Self::Upgrade
                | Self::Http2Settings
        )
    }

    /// A trailer must not say what the head has already decided, nor what only a trusted caller is believed: there are
    /// servers that take it for more of the head.
    pub fn may_trail(self) -> bool {
        !matches!(
            self,
            Self::Host
                | Self::ContentLength
                | Self::Expect
                | Self::Cookie
                | Self::Forwarded
                | Self::XForwardedFor
                | Self::XForwardedProto
                | Self::XForwardedHost
                | Self::GrpcTimeout
                | Self::EnvoyTimeout
                | Self::EnvoyFault
                | Self::Deadline
                | Self::Version
                | Self::Priority
                | Self::Attempt
        )
    }

    /// A `Connection` header may nominate headers to drop. Whoever nominates one of these wants the next hop to see
    /// another request than we did.
    pub fn may_be_nominated(self) -> bool {
        matches!(
            self,
            Self::Other
                | Self::KeepAlive
                | Self::ProxyConnection
                | Self::ProxyAuthenticate
                | Self::ProxyAuthorization
                | Self::Te
                | Self::Trailer
                | Self::Upgrade
                | Self::Http2Settings
        )
    }
}

/// One row for each name, grouped by length so that most headers are settled by one comparison of a length.
const NAMES: &[(&str, Kind)] = &[
    ("b3", Kind::B3),
    ("te", Kind::Te),
    ("via", Kind::Via),
    ("host", Kind::Host),
    ("date", Kind::Date),
    ("cookie", Kind::Cookie),
    ("expect", Kind::Expect),
    ("trailer", Kind::Trailer),
    ("upgrade", Kind::Upgrade),
    ("forwarded", Kind::Forwarded),
    ("connection", Kind::Connection),
    ("keep-alive", Kind::KeepAlive),
    ("tracestate", Kind::Tracestate),
    ("x-b3-flags", Kind::B3Flags),
    ("traceparent", Kind::Traceparent),
    ("x-b3-spanid", Kind::B3SpanId),
    ("grpc-status", Kind::GrpcStatus),
    ("retry-after", Kind::RetryAfter),
    ("content-type", Kind::ContentType),
    ("x-request-id", Kind::RequestId),
    ("x-b3-traceid", Kind::B3TraceId),
    ("x-b3-sampled", Kind::B3Sampled),
    ("grpc-timeout", Kind::GrpcTimeout),
    ("isobar-version", Kind::Version),
    ("isobar-attempt", Kind::Attempt),
    ("x-isobar-error", Kind::IsobarError),
    ("content-length", Kind::ContentLength),
    ("http2-settings", Kind::Http2Settings),
    ("x-forwarded-for", Kind::XForwardedFor),
    ("isobar-deadline", Kind::Deadline),
    ("isobar-priority", Kind::Priority),
    ("x-forwarded-host", Kind::XForwardedHost),
    ("proxy-connection", Kind::ProxyConnection),
    ("transfer-encoding", Kind::TransferEncoding),
    ("x-forwarded-proto", Kind::XForwardedProto),
    ("x-b3-parentspanid", Kind::B3ParentSpanId),
    ("proxy-authenticate", Kind::ProxyAuthenticate),
    ("proxy-authorization", Kind::ProxyAuthorization),
    ("grpc-retry-pushback-ms", Kind::GrpcPushback),
    ("x-envoy-fault-delay-request", Kind::EnvoyFault),
    ("x-envoy-fault-abort-request", Kind::EnvoyFault),
    ("x-envoy-expected-rq-timeout-ms", Kind::EnvoyTimeout),
    ("x-envoy-fault-abort-grpc-request", Kind::EnvoyFault),
    ("x-envoy-fault-delay-request-percentage", Kind::EnvoyFault),
    ("x-envoy-fault-abort-request-percentage", Kind::EnvoyFault),
];

const LENGTHS: usize = 40;

/// For each (length, first letter folded to five bits): the row to compare with, or none. Built at compile time.
const INDEX: [[u8; 32]; LENGTHS] = {
    let mut index = [[u8::MAX; 32]; LENGTHS];
    let mut row = NAMES.len();
    // Backwards, so that the first of several rows with one key wins and the others follow it.
    while row > 0 {
        row -= 1;
        let name = NAMES[row].0.as_bytes();
        index[name.len()][(name[0] & 31) as usize] = row as u8;
    }
    index
};

/// What this name means. Names compare without regard to case.
#[inline]
pub fn classify(name: &[u8]) -> Kind {
    let Some(first) = name.first() else { return Kind::Other };
    if name.len() >= LENGTHS {
        return Kind::Other;
    }
    let mut row = INDEX[name.len()][usize::from(*first & 31)] as usize;
    while let Some((known, kind)) = NAMES.get(row) {
        if known.len() > name.len() {
            break;
        }
        // In lower case, as HTTP/2 and many others write it, comparing is one look.
        if known.as_bytes() == name || known.as_bytes().eq_ignore_ascii_case(name) {
            return *kind;
        }
        row += 1;
    }
    Kind::Other
}

/// The same for a name without control characters: capitals are folded eight at once.
#[inline]
pub(super) fn classify_token(name: &[u8]) -> Kind {
    let Some(first) = name.first() else { return Kind::Other };
    if name.len() >= LENGTHS {
        return Kind::Other;
    }
    let mut row = INDEX[name.len()][usize::from(*first & 31)] as usize;
    while let Some((known, kind)) = NAMES.get(row) {
        if known.len() != name.len() {
            break;
        }
        if folds_to(name, known.as_bytes()) {
            return *kind;
        }
        row += 1;
    }
    Kind::Other
}

/// Setting one bit makes a capital small and leaves digits and dashes alone. But for control characters nothing else
/// becomes one of those.
#[inline]
fn folds_to(name: &[u8], known: &[u8]) -> bool {
    const FOLD: u64 = 0x2020_2020_2020_2020;
    let eight = |bytes: &[u8], at: usize| {
        let eight = bytes.get(at..at + 8).and_then(|eight| <[u8; 8]>::try_from(eight).ok());
        eight.map_or(0, u64::from_ne_bytes)
    };
    let Some(last) = name.len().checked_sub(8) else {
        return name.iter().zip(known).all(|(byte, known)| byte | 0x20 == *known);
    };
    let mut at = 0;
    while at < last {
        if eight(name, at) | FOLD != eight(known, at) {
            return false;
        }
        at += 8;
    }
    // The last eight, which may have been looked at in part.
    eight(name, last) | FOLD == eight(known, last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_found_in_any_case() {
        for (name, kind) in NAMES {
            assert_eq!(classify(name.as_bytes()), *kind, "{name}");
            assert_eq!(classify(name.to_ascii_uppercase().as_bytes()), *kind, "{name}");
            assert_eq!(classify_token(name.to_ascii_uppercase().as_bytes()), *kind, "{name}");
            assert_eq!(classify_token(name.as_bytes()), *kind, "{name}");
            assert_eq!(classify_token(format!("{name}x").as_bytes()), Kind::Other, "{name}");
            assert_eq!(classify(format!("{name}x").as_bytes()), Kind::Other, "{name}");
        }
        for name in ["", "x", "accept", "hosts", "hose", "content-lengthy", "\u{e9}"] {
            assert_eq!(classify(name.as_bytes()), Kind::Other, "{name}");
        }
        // No other character may pass for one of a name.
        for (name, kind) in NAMES {
            for at in 0..name.len() {
                for byte in 0x20..=0xFF {
                    let mut other = name.as_bytes().to_vec();
                    other[at] = byte;
                    assert_eq!(classify_token(&other), classify(&other), "{name} {kind:?} {at} {byte}");
                }
            }
        }
    }

    #[test]
    fn names_are_sorted_by_length() {
        assert!(
            NAMES.windows(2).all(|pair| pair[0].0.len() <= pair[1].0.len()),
            "the scan stops at a longer name"
        );
        assert!(NAMES.len() < 255);
    }
}
