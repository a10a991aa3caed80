//! Why a message is refused, and what its sender is told.

/// Why a message was not read any further. The name is the counter's name, too.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Refusal {
    Syntax,
    BareLineFeed,
    Version,
    MethodUnsupported,
    TargetSyntax,
    DotSegments,
    HeadTooLong,
    TargetTooLong,
    TooManyHeaders,
    HostMissing,
    HostRepeated,
    HostSyntax,
    LengthSyntax,
    LengthRepeated,
    LengthAndCoding,
    CodingRepeated,
    CodingUnknown,
    CodingInHttp10,
    ConnectionNominates,
    ChunkSyntax,
    TrailerSyntax,
    TrailerTooLong,
    BodyTooLong,
    ExpectUnknown,
    HostMismatch,
}

impl Refusal {
    pub const ALL: [Self; 25] = [
        Self::Syntax,
        Self::BareLineFeed,
        Self::Version,
        Self::MethodUnsupported,
        Self::TargetSyntax,
        Self::DotSegments,
        Self::HeadTooLong,
        Self::TargetTooLong,
        Self::TooManyHeaders,
        Self::HostMissing,
        Self::HostRepeated,
        Self::HostSyntax,
        Self::LengthSyntax,
        Self::LengthRepeated,
        Self::LengthAndCoding,
        Self::CodingRepeated,
        Self::CodingUnknown,
        Self::CodingInHttp10,
        Self::ConnectionNominates,
        Self::ChunkSyntax,
        Self::TrailerSyntax,
        Self::TrailerTooLong,
        Self::BodyTooLong,
        Self::ExpectUnknown,
        Self::HostMismatch,
    ];

    /// What a client is told. (What a server sent that we refuse is always a 502 to the client.)
    pub fn status(self) -> u16 {
        match self {
            Self::Version => 505,
            Self::MethodUnsupported | Self::CodingUnknown => 501,
            Self::HeadTooLong | Self::TooManyHeaders | Self::TrailerTooLong => 431,
            Self::TargetTooLong => 414,
            Self::BodyTooLong => 413,
            Self::ExpectUnknown => 417,
            _ => 400,
        }
    }

    /// The counter's label, and the `type` of the problem document.
    pub fn name(self) -> &'static str {
        match self {
            Self::Syntax => "syntax",
            Self::BareLineFeed => "bare-line-feed",
            Self::Version => "version",
            Self::MethodUnsupported => "method-unsupported",
            Self::TargetSyntax => "target-syntax",
            Self::DotSegments => "dot-segments",
            Self::HeadTooLong => "head-too-long",
            Self::TargetTooLong => "target-too-long",
            Self::TooManyHeaders => "too-many-headers",
            Self::HostMissing => "host-missing",
            Self::HostRepeated => "host-repeated",
            Self::HostSyntax => "host-syntax",
            Self::LengthSyntax => "content-length-syntax",
            Self::LengthRepeated => "content-length-repeated",
            Self::LengthAndCoding => "content-length-and-transfer-encoding",
            Self::CodingRepeated => "transfer-encoding-repeated",
            Self::CodingUnknown => "transfer-encoding-unknown",
            Self::CodingInHttp10 => "transfer-encoding-in-http-1.0",
            Self::ConnectionNominates => "connection-nominates-protected-header",
            Self::ChunkSyntax => "chunk-syntax",
            Self::TrailerSyntax => "trailer-syntax",
            Self::TrailerTooLong => "trailer-too-long",
            Self::BodyTooLong => "body-too-long",
            Self::ExpectUnknown => "expect-unknown",
            Self::HostMismatch => "host-mismatch",
        }
    }
}
