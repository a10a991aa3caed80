//! The doors as strangers meet them: other people's clients over real sockets; and what is counted, by the whole way.

mod clients;
mod house;
mod percentiles;
