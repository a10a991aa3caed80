//! Counting without sharing: each cell has one writer.
//!
//! A worker adds to its own cells with a plain load and store; the admin side reads all workers' cells and adds them
//! up. No cell is ever locked and none is shared between writers, so counting costs what a local variable costs. The
//! labels are names from the configuration; nothing a peer sends ever becomes one.

use crate::http1::Refusal;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use units::{Histogram, Nanos};

/// A number that one thread adds to and any thread reads.
#[derive(Debug, Default)]
pub(crate) struct Cell(AtomicU64);

impl Cell {
    #[inline]
    pub(crate) fn add(&self, n: u64) {
        // Not a read-modify-write: there is one writer, and a locked instruction costs more than the rest of counting.
        self.0.store(self.0.load(Relaxed).wrapping_add(n), Relaxed);
    }

    #[inline]
    pub(crate) fn sub(&self, n: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_sub(n), Relaxed);
    }

    #[inline]
    pub(crate) fn set(&self, n: u64) {
        self.0.store(n, Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

const PER_BLOCK: usize = 64;
const BLOCKS: usize = 67;
/// Added to a bucket's index, which is negative below one second.
const OFFSET: i32 = 1920;

/// A [`units::Histogram`] whose counts live in cells. Blocks of one octave appear when first needed and stay.
#[derive(Debug)]
pub(crate) struct HistogramCells {
    blocks: [OnceLock<Box<[Cell; PER_BLOCK]>>; BLOCKS],
    zero: Cell,
    sum: Cell,
}

impl Default for HistogramCells {
    fn default() -> Self {
        Self { blocks: [const { OnceLock::new() }; BLOCKS], zero: Cell::default(), sum: Cell::default() }
    }
}

impl HistogramCells {
    #[inline]
    pub(crate) fn record(&self, value: Nanos) {
        self.sum.add(value.0);
        let Some(index) = Histogram::bucket_index(value) else { return self.zero.add(1) };
        let place = (i32::from(index) + OFFSET) as usize;
        let (block, at) = (place / PER_BLOCK, place % PER_BLOCK);
        let block =
            self.blocks[block].get_or_init(|| Box::new([const { Cell(AtomicU64::new(0)) }; PER_BLOCK]));
        block[at].add(1);
    }

    pub(crate) fn read(&self) -> Histogram {
        let filled = self.blocks.iter().enumerate().filter_map(|(block, cells)| Some((block, cells.get()?)));
        let buckets = filled.flat_map(|(block, cells)| {
            cells
                .iter()
                .enumerate()
                .map(move |(at, cell)| (Some(((block * PER_BLOCK + at) as i32 - OFFSET) as i16), cell.get()))
        });
        Histogram::from_buckets(buckets.chain([(None, self.zero.get())]), u128::from(self.sum.get()))
    }
}

/// Answers by the first digit of their status; index 0 is "no answer was sent".
pub(crate) type Classes = [Cell; 6];

#[inline]
pub(crate) fn class_of(status: u16) -> usize {
    usize::from(status / 100).min(5)
}

/// A histogram for each class of status. Each appears when it is first needed: of five thousand routes few answer 3xx.
#[derive(Debug, Default)]
pub(crate) struct ByClass([OnceLock<Box<HistogramCells>>; 6]);

impl ByClass {
    #[inline]
    pub(crate) fn record(&self, class: usize, value: Nanos) {
        self.0[class].get_or_init(Box::default).record(value);
    }

    /// Of one class; `None` if there was no such answer.
    pub(crate) fn of(&self, class: usize) -> Option<&HistogramCells> {
        self.0[class].get().map(|cells| &**cells)
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = &HistogramCells> {
        self.0.iter().filter_map(OnceLock::get).map(|cells| &**cells)
    }
}

/// What one worker counted for one route. Padded, so that two workers never write to one cache line.
#[derive(Debug, Default)]
#[repr(align(64))]
pub(crate) struct RouteCells {
    pub(crate) classes: Classes,
    pub(crate) faults: Cell,
    pub(crate) limited: Cell,
    pub(crate) latency: ByClass,
}

/// What one worker counted for one edge.
#[derive(Debug, Default)]
#[repr(align(64))]
pub(crate) struct EdgeCells {
    pub(crate) classes: Classes,
    /// Attempts sent, the first included.
    pub(crate) attempts: Cell,
    pub(crate) retries: Cell,
    pub(crate) retries_refused: Cell,
    pub(crate) replays: Cell,
    pub(crate) hedges: Cell,
    pub(crate) hedges_refused: Cell,
    pub(crate) hedges_won: Cell,
    pub(crate) hedges_cancelled: Cell,
    pub(crate) connect_failures: Cell,
    pub(crate) resets: Cell,
    pub(crate) timeouts: Cell,
    pub(crate) no_endpoint: Cell,
    pub(crate) breaker_refused: Cell,
    pub(crate) breaker_trips: Cell,
    /// Nanoseconds in which the breaker kept requests out.
    pub(crate) breaker_open: Cell,
    pub(crate) ejections: Cell,
    pub(crate) ejections_withheld: Cell,
    /// Nanoseconds of instances that were ejected, added up.
    pub(crate) ejected: Cell,
    pub(crate) limit_refused: Cell,
    pub(crate) quota_refused: Cell,
    pub(crate) deadline_refused: Cell,
    pub(crate) cancelled: Cell,
    /// Attempts that waited for a connection, those that waited in vain included.
    pub(crate) pool_waits: Cell,
    pub(crate) mirrored: Cell,
    pub(crate) mirror_dropped: Cell,
    pub(crate) connections_made: Cell,
    pub(crate) request_bytes: Cell,
    pub(crate) response_bytes: Cell,
    pub(crate) latency: ByClass,
    /// One for each version of the service, in the plan's order.
    pub(crate) versions: Box<[VersionCells]>,
}

#[derive(Debug, Default)]
pub(crate) struct VersionCells {
    pub(crate) classes: Classes,
    pub(crate) latency: ByClass,
}

/// Everything about a worker that belongs to no route.
#[derive(Debug)]
pub(crate) struct WorkerCells {
    pub(crate) accepted: Cell,
    pub(crate) connections: Cell,
    pub(crate) connections_refused: Cell,
    pub(crate) requests: Cell,
    pub(crate) requests_in_flight: Cell,
    pub(crate) no_route: Cell,
    pub(crate) header_timeouts: Cell,
    pub(crate) body_timeouts: Cell,
    pub(crate) write_timeouts: Cell,
    pub(crate) idle_closed: Cell,
    pub(crate) client_gone: Cell,
    pub(crate) upgrades: Cell,
    pub(crate) tunnels: Cell,
    pub(crate) memory_refused: Cell,
    pub(crate) keep_alive_refused: Cell,
    pub(crate) log_dropped: Cell,
    pub(crate) events_dropped: Cell,
    pub(crate) upstream_connections: Cell,
    pub(crate) upstream_idle: Cell,
    pub(crate) upstream_invalid: Cell,
    pub(crate) upstream_silent: Cell,
    pub(crate) upstream_tls_failures: Cell,
    pub(crate) tls_handshakes: Cell,
    pub(crate) tls_resumed: Cell,
    pub(crate) tls_failures: Cell,
    pub(crate) h2_connections: Cell,
    pub(crate) h2_streams: Cell,
    pub(crate) h2_streams_refused: Cell,
    pub(crate) h2_calmed: Cell,
    pub(crate) reloads: Cell,
    pub(crate) buffers_lent: Cell,
    pub(crate) timers: Cell,
    pub(crate) replay_bytes: Cell,
    pub(crate) replays_forgone: Cell,
    pub(crate) bytes_in: Cell,
    pub(crate) bytes_out: Cell,
    /// One for each [`Refusal`].
    pub(crate) refusals: [Cell; Refusal::ALL.len()],
}

impl Default for WorkerCells {
    fn default() -> Self {
        // Written out by the macro below would save lines and lose the reader.
        Self {
            accepted: Cell::default(),
            connections: Cell::default(),
            connections_refused: Cell::default(),
            requests: Cell::default(),
            requests_in_flight: Cell::default(),
            no_route: Cell::default(),
            header_timeouts: Cell::default(),
            body_timeouts: Cell::default(),
            write_timeouts: Cell::default(),
            idle_closed: Cell::default(),
            client_gone: Cell::default(),
            upgrades: Cell::default(),
            tunnels: Cell::default(),
            memory_refused: Cell::default(),
            keep_alive_refused: Cell::default(),
            log_dropped: Cell::default(),
            events_dropped: Cell::default(),
            upstream_connections: Cell::default(),
            upstream_idle: Cell::default(),
            upstream_invalid: Cell::default(),
            upstream_silent: Cell::default(),
            upstream_tls_failures: Cell::default(),
            tls_handshakes: Cell::default(),
            tls_resumed: Cell::default(),
            tls_failures: Cell::default(),
            h2_connections: Cell::default(),
            h2_streams: Cell::default(),
            h2_streams_refused: Cell::default(),
            h2_calmed: Cell::default(),
            reloads: Cell::default(),
            buffers_lent: Cell::default(),
            timers: Cell::default(),
            replay_bytes: Cell::default(),
            replays_forgone: Cell::default(),
            bytes_in: Cell::default(),
            bytes_out: Cell::default(),
            refusals: [const { Cell(AtomicU64::new(0)) }; Refusal::ALL.len()],
        }
    }
}

impl WorkerCells {
    pub(crate) fn refused(&self, refusal: Refusal) {
        self.refusals[refusal as usize].add(1);
    }

    /// Name, help and reading of every plain counter, for whoever writes them down.
    pub(crate) fn readings(&self) -> Vec<(&'static str, &'static str, bool, u64)> {
        let row = |name, help, gauge, cell: &Cell| (name, help, gauge, cell.get());
        vec![
            row("connections_accepted_total", "Connections accepted.", false, &self.accepted),
            row("connections", "Connections open.", true, &self.connections),
            row(
                "connections_refused_total",
                "Connections refused by a limit.",
                false,
                &self.connections_refused,
            ),
            row("requests_total", "Requests read.", false, &self.requests),
            row("requests_in_flight", "Requests being served.", true, &self.requests_in_flight),
            row("no_route_total", "Requests that no route matched.", false, &self.no_route),
            row("header_timeouts_total", "Heads that took too long.", false, &self.header_timeouts),
            row("body_timeouts_total", "Request bodies that stalled.", false, &self.body_timeouts),
            row("write_timeouts_total", "Clients that stopped reading.", false, &self.write_timeouts),
            row("idle_closed_total", "Idle client connections closed.", false, &self.idle_closed),
            row("client_gone_total", "Requests whose client left.", false, &self.client_gone),
            row("upgrades_total", "Connections that changed their protocol.", false, &self.upgrades),
            row("tunnels_total", "TCP connections passed through.", false, &self.tunnels),
            row(
                "memory_refused_total",
                "Requests refused above the memory mark.",
                false,
                &self.memory_refused,
            ),
            row(
                "keep_alive_refused_total",
                "Connections not kept for another request, above the memory mark.",
                false,
                &self.keep_alive_refused,
            ),
            row("log_dropped_total", "Access-log lines dropped.", false, &self.log_dropped),
            row("events_dropped_total", "Request events dropped.", false, &self.events_dropped),
            row("upstream_connections", "Connections to endpoints.", true, &self.upstream_connections),
            row("upstream_idle", "Connections to endpoints that are idle.", true, &self.upstream_idle),
            row("upstream_invalid_total", "Responses refused as malformed.", false, &self.upstream_invalid),
            row(
                "upstream_silent_total",
                "HTTP/2 connections to endpoints given up because nothing came back.",
                false,
                &self.upstream_silent,
            ),
            row(
                "upstream_tls_failures_total",
                "TLS handshakes with endpoints that failed.",
                false,
                &self.upstream_tls_failures,
            ),
            row("tls_handshakes_total", "TLS handshakes completed.", false, &self.tls_handshakes),
            row("tls_resumed_total", "TLS handshakes resumed.", false, &self.tls_resumed),
            row("tls_failures_total", "TLS handshakes failed.", false, &self.tls_failures),
            row("h2_connections_total", "HTTP/2 connections accepted.", false, &self.h2_connections),
            row("h2_streams_total", "HTTP/2 streams accepted.", false, &self.h2_streams),
            row(
                "h2_streams_refused_total",
                "HTTP/2 streams refused by a limit.",
                false,
                &self.h2_streams_refused,
            ),
            row("h2_calmed_total", "HTTP/2 connections ended because of floods.", false, &self.h2_calmed),
            row("reloads_total", "Snapshots taken over.", false, &self.reloads),
            row("buffers_lent", "Buffers in use or kept by runners.", true, &self.buffers_lent),
            row("timers", "Timers that exist.", true, &self.timers),
            row("replay_bytes", "Bytes of request bodies kept for a retry.", true, &self.replay_bytes),
            row(
                "replays_forgone_total",
                "Request bodies too long to be kept for a retry, or for which there was no room.",
                false,
                &self.replays_forgone,
            ),
            row("bytes_in_total", "Bytes read from clients.", false, &self.bytes_in),
            row("bytes_out_total", "Bytes written to clients.", false, &self.bytes_out),
        ]
    }
}

/// A route's or an edge's cells, one for each worker. It lives as long as anything that counts into it.
#[derive(Debug)]
pub(crate) struct PerWorker<T>(Box<[T]>);

impl<T> PerWorker<T> {
    pub(crate) fn new(workers: usize, make: impl Fn() -> T) -> Self {
        Self((0..workers.max(1)).map(|_| make()).collect())
    }

    /// # Panics
    /// If there is no such worker: workers are numbered by who made these cells.
    #[inline]
    pub(crate) fn of(&self, worker: usize) -> &T {
        &self.0[worker]
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = &T> + Clone {
        self.0.iter()
    }

    pub(crate) fn sum(&self, read: impl Fn(&T) -> &Cell) -> u64 {
        self.0.iter().map(|cells| read(cells).get()).fold(0, u64::wrapping_add)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_and_histogram_agree() {
        let cells = HistogramCells::default();
        let mut histogram = Histogram::new();
        for nanos in [0, 1, 63, 64, 65, 1_000, 999_999, 1_000_000_007, u64::MAX / 2] {
            cells.record(Nanos(nanos));
            histogram.record(Nanos(nanos));
        }
        let read = cells.read();
        assert_eq!(read.count(), histogram.count());
        assert!(read.buckets().eq(histogram.buckets()));
    }
}
