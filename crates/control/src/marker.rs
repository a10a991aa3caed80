//! A marker a second: a request of our own through the proxy, to see how long it takes until it is in the numbers.
//!
//! It goes to a door that answers by itself ([`crate::compile::MARKER`]), so no service hears of it. Its age is the time
//! from its start until the watcher has counted it where anybody can ask, on one clock. What is never counted makes the
//! numbers older by the second, as it should.

use crate::api::lock;
use crate::watched::Watched;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// A second and a little more: in step with the collector, every marker would meet the same moment of its quarter second.
const EVERY: Duration = Duration::from_millis(1_037);
const PATIENCE: Duration = Duration::from_millis(900);

/// Sends markers for as long as it is polled.
pub async fn send(watched: Arc<Watched>, door: SocketAddr) {
    let mut tick = tokio::time::interval(EVERY);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        if watched.observer().is_none_or(|it| it.is_over()) {
            continue;
        }
        let Some(marker) = lock(&watched.freshness).send(watched.clocks.now()) else { continue };
        lock(&watched.markers).push_back(marker);
        let came = tokio::time::timeout(PATIENCE, request(door)).await;
        if !matches!(came, Ok(Ok(()))) {
            // It was not carried, so it will not be counted: the next one must not be taken for it.
            lock(&watched.markers).retain(|it| *it != marker);
        }
    }
}

async fn request(door: SocketAddr) -> std::io::Result<()> {
    let mut stream = TcpStream::connect(door).await?;
    stream.write_all(b"GET / HTTP/1.1\r\nhost: isobar\r\nconnection: close\r\n\r\n").await?;
    let mut answer = [0; 1_024];
    while stream.read(&mut answer).await? > 0 {}
    Ok(())
}
