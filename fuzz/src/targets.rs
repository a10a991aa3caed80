//! The list of targets. Add one with its corpus folder when something new parses bytes from outside.

pub(crate) struct Target {
    pub(crate) name: &'static str,
    /// Folder under `fuzz/corpus`; targets that read the same format share one.
    pub(crate) corpus: &'static str,
    pub(crate) run: fn(&[u8]),
}

pub(crate) const TARGETS: &[Target] = &[
    Target { name: "quantities", corpus: "quantities", run: quantities },
    Target { name: "check", corpus: "check", run: model::fuzz::fuzz_check },
    Target { name: "import-spigo", corpus: "spigo", run: model::fuzz::fuzz_spigo },
    Target { name: "import-compose", corpus: "compose", run: model::fuzz::fuzz_compose },
    Target { name: "draw", corpus: "draw", run: model::fuzz::fuzz_draw },
    Target { name: "json", corpus: "spans-json", run: telemetry::fuzz::fuzz_json },
    Target { name: "zipkin-json", corpus: "spans-json", run: telemetry::fuzz::fuzz_zipkin_json },
    Target { name: "zipkin-v1", corpus: "spans-json", run: telemetry::fuzz::fuzz_zipkin_v1 },
    Target { name: "zipkin-protobuf", corpus: "spans-protobuf", run: telemetry::fuzz::fuzz_zipkin_protobuf },
    Target { name: "otlp-protobuf", corpus: "spans-protobuf", run: telemetry::fuzz::fuzz_otlp_protobuf },
    Target { name: "otlp-doors", corpus: "otlp-doors", run: telemetry::fuzz::fuzz_otlp_doors },
    Target { name: "propagation", corpus: "propagation", run: telemetry::fuzz::fuzz_propagation },
    Target { name: "trace-tree", corpus: "spans-protobuf", run: telemetry::fuzz::fuzz_tree },
    Target { name: "filter", corpus: "filter", run: telemetry::fuzz::fuzz_filter },
    Target { name: "zipkin-api", corpus: "zipkin-api", run: telemetry::fuzz::fuzz_zipkin_api },
    Target { name: "trace-query", corpus: "trace-query", run: telemetry::fuzz::fuzz_query },
    Target { name: "proxy-request-head", corpus: "http1-request", run: proxy::fuzz::fuzz_request_head },
    Target { name: "proxy-response-head", corpus: "http1-response", run: proxy::fuzz::fuzz_response_head },
    Target { name: "proxy-chunked-body", corpus: "http1-chunked", run: proxy::fuzz::fuzz_chunked_body },
    Target { name: "proxy-client-hello", corpus: "tls-hello", run: proxy::fuzz::fuzz_client_hello },
    Target { name: "proxy-http2", corpus: "http2", run: proxy::fuzz::fuzz_http2 },
];

/// Every quantity parses or says why not, and what it prints parses back to itself.
fn quantities(data: &[u8]) {
    fn check<T: std::str::FromStr + std::fmt::Display + PartialEq + std::fmt::Debug>(text: &str)
    where
        T::Err: std::fmt::Debug + std::fmt::Display,
    {
        match text.parse::<T>() {
            Ok(value) => assert_eq!(value.to_string().parse::<T>().expect("what we print we read"), value),
            Err(error) => assert!(!error.to_string().is_empty()),
        }
    }
    let text = String::from_utf8_lossy(data);
    check::<units::Nanos>(&text);
    check::<units::Bytes>(&text);
    check::<units::Percent>(&text);
    check::<units::Money>(&text);
    check::<units::Rate>(&text);
}
