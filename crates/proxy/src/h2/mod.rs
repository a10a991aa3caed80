//! HTTP/2 on either side: its own reader and writer, in a tenth of the standard's words.
//!
//! ```text
//! huffman, hpack   header compression          connection   one connection's frames, windows and streams
//! frame            frames as bytes             server       a client's connection, and who serves its streams
//! heads            fields as text and back     client       connections to an instance, more when streams run out
//! replies          our own, in gRPC's words    bridge       stream to HTTP/1 and HTTP/1 to stream
//! ```
//! A head becomes the same text that HTTP/1 sends and is read by the same reader, so routing, rewriting and every check
//! exist once. A body goes from stream to stream as it is; only where one side speaks HTTP/1 is it put on a
//! [pipe](crate::pipe) and framed. What is taken of a window is given back when the other side has accepted it, so a slow
//! reader slows its sender and nothing in between grows.
//!
//! Why not a library: a general one makes a map of each head, a task or two of each stream and a shared buffer of each
//! frame. Measured here, that was three quarters of the cost of carrying a request.

mod bridge;
mod client;
mod connection;
mod frame;
mod heads;
mod hpack;
mod huffman;
mod replies;
mod server;

pub(crate) use client::Sessions;
pub(crate) use connection::{Body, Connection, Forward, PREFACE, Stream};
pub(crate) use frame::Reason;
pub(crate) use replies::{code_in, status_behind, status_of_grpc, write_own};
pub(crate) use server::{Streams, serve};
