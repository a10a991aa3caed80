//! Zipkin: its spans in three encodings, and its HTTP doors.

pub mod api;
pub mod json;
pub mod proto;
pub mod v1;
