//! The doors as strangers meet them: other people's clients over real sockets.

mod clients;
mod house;
