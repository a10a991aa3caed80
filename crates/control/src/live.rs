//! Live frames: the numbers of one moment as the bytes that the web map reads (docs/live.md).
//!
//! Pure: numbers and moments in, bytes out. The newest state is kept whole, and the changes of the last minute one by
//! one, so that a page that was away for a moment gets what it missed and not everything again. It knows no socket:
//! [`crate::web`] carries the bytes.
//!
//! What is not known is a NaN in a frame, never a number that looks measured.

use std::collections::VecDeque;
use std::sync::Arc;

pub const MAGIC: [u8; 4] = *b"ISO1";
pub const HEADER_BYTES: usize = 40;
pub const RECORD_BYTES: usize = 40;
/// A minute of frames at four a second. Whoever was away for longer begins anew.
pub const RESUME_FRAMES: usize = 240;
/// Of a system so large that a minute of it is more, less is kept: everything as it is now costs less than all that.
pub const RESUME_BYTES_MAX: usize = 8 << 20;

/// Bits of [`NodeRecord::flags`].
pub mod flag {
    pub const SLO_BURNS: u16 = 1;
    pub const FAULT: u16 = 2;
    pub const STARTING: u16 = 4;
}

/// A service or a gateway at one moment. Times are milliseconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct NodeRecord {
    pub id: u32,
    pub rate: f32,
    pub errors: f32,
    pub p50_ms: f32,
    pub p99_ms: f32,
    pub concurrency: f32,
    pub queue: f32,
    pub healthy: u16,
    pub instances: u16,
    pub ejected: u16,
    pub flags: u16,
    pub newest_version: f32,
}

/// All calls of one service by another at one moment.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct EdgeRecord {
    pub id: u32,
    pub rate: f32,
    pub errors: f32,
    pub p50_ms: f32,
    pub p99_ms: f32,
    pub retries: f32,
    pub budget_left: f32,
    pub breakers_open: u16,
    pub breakers: u16,
    pub phase: f32,
    pub speed: f32,
}

trait Record: Copy {
    fn write(&self, out: &mut Vec<u8>);

    /// Bytes decide, not `==`: an unknown that stays unknown is no change.
    fn is_as(&self, other: &Self) -> bool {
        let (mut own, mut others) = (Vec::with_capacity(RECORD_BYTES), Vec::with_capacity(RECORD_BYTES));
        self.write(&mut own);
        other.write(&mut others);
        own == others
    }
}

fn floats(out: &mut Vec<u8>, values: &[f32]) {
    values.iter().for_each(|it| out.extend_from_slice(&it.to_le_bytes()));
}

impl Record for NodeRecord {
    fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.id.to_le_bytes());
        floats(out, &[self.rate, self.errors, self.p50_ms, self.p99_ms, self.concurrency, self.queue]);
        for value in [self.healthy, self.instances, self.ejected, self.flags] {
            out.extend_from_slice(&value.to_le_bytes());
        }
        floats(out, &[self.newest_version]);
    }
}

impl Record for EdgeRecord {
    fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.id.to_le_bytes());
        floats(out, &[self.rate, self.errors, self.p50_ms, self.p99_ms, self.retries, self.budget_left]);
        out.extend_from_slice(&self.breakers_open.to_le_bytes());
        out.extend_from_slice(&self.breakers.to_le_bytes());
        floats(out, &[self.phase, self.speed]);
    }
}

/// The end of a frame's window.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Moment {
    /// Milliseconds since isobar started.
    pub since_start_ms: f64,
    /// Wall-clock milliseconds since 1970.
    pub unix_ms: f64,
}

/// One frame as it goes over every wire.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    pub sequence: u32,
    pub revision: u32,
    pub bytes: Arc<[u8]>,
}

/// The newest state, and how it came about.
#[derive(Debug, Default)]
pub struct Live {
    sequence: u32,
    revision: u32,
    moment: Moment,
    nodes: Vec<NodeRecord>,
    edges: Vec<EdgeRecord>,
    recent: VecDeque<Frame>,
    recent_bytes: usize,
}

impl Live {
    /// Takes the numbers of the next moment; what to send to everyone. A new revision of the map makes a keyframe, for
    /// the numbers of the one before it mean other nodes now.
    pub fn push(
        &mut self,
        moment: Moment,
        revision: u32,
        nodes: Vec<NodeRecord>,
        edges: Vec<EdgeRecord>,
    ) -> Frame {
        // Zero is a page's word for "I have nothing", so it is no frame's number.
        self.sequence = self.sequence.checked_add(1).unwrap_or(1);
        let keyframe = revision != self.revision || self.sequence == 1;
        let bytes = if keyframe {
            self.recent.clear();
            self.recent_bytes = 0;
            encode(true, self.sequence, revision, moment, &nodes, &edges)
        } else {
            let nodes = changed(&self.nodes, &nodes);
            let edges = changed(&self.edges, &edges);
            encode(false, self.sequence, revision, moment, &nodes, &edges)
        };
        (self.revision, self.moment, self.nodes, self.edges) = (revision, moment, nodes, edges);
        let frame = Frame { sequence: self.sequence, revision, bytes: bytes.into() };
        self.recent_bytes += frame.bytes.len();
        self.recent.push_back(frame.clone());
        while self.recent.len() > RESUME_FRAMES || self.recent_bytes > RESUME_BYTES_MAX {
            let Some(oldest) = self.recent.pop_front() else { break };
            self.recent_bytes -= oldest.bytes.len();
        }
        frame
    }

    /// Everything as it is now. `None` before the first moment.
    pub fn keyframe(&self) -> Option<Frame> {
        let bytes = encode(true, self.sequence, self.revision, self.moment, &self.nodes, &self.edges);
        (self.sequence > 0).then(|| Frame {
            sequence: self.sequence,
            revision: self.revision,
            bytes: bytes.into(),
        })
    }

    /// What a page needs that has seen `sequence`: the frames after it, or, if they are no longer kept or it is from
    /// another life of isobar, one keyframe.
    pub fn since(&self, sequence: u32) -> Vec<Frame> {
        if sequence == self.sequence {
            return Vec::new();
        }
        match self.recent.iter().position(|it| Some(it.sequence) == sequence.checked_add(1)) {
            Some(at) if sequence > 0 => self.recent.range(at..).cloned().collect(),
            _ => self.keyframe().into_iter().collect(),
        }
    }

    pub fn nodes(&self) -> &[NodeRecord] {
        &self.nodes
    }

    pub fn edges(&self) -> &[EdgeRecord] {
        &self.edges
    }
}

/// Records that are not what they were. Both are in the order of ids, which are positions.
fn changed<R: Record>(before: &[R], now: &[R]) -> Vec<R> {
    let differs = |(at, it): &(usize, &R)| before.get(*at).is_none_or(|before| !before.is_as(it));
    now.iter().enumerate().filter(differs).map(|(_, it)| *it).collect()
}

fn encode(
    keyframe: bool,
    sequence: u32,
    revision: u32,
    moment: Moment,
    nodes: &[NodeRecord],
    edges: &[EdgeRecord],
) -> Vec<u8> {
    let mut out = Vec::with_capacity(HEADER_BYTES + (nodes.len() + edges.len()) * RECORD_BYTES);
    out.extend_from_slice(&MAGIC);
    out.push(if keyframe { 1 } else { 2 });
    out.push(0);
    out.extend_from_slice(&(RECORD_BYTES as u16).to_le_bytes());
    out.extend_from_slice(&sequence.to_le_bytes());
    out.extend_from_slice(&revision.to_le_bytes());
    out.extend_from_slice(&moment.since_start_ms.to_le_bytes());
    out.extend_from_slice(&moment.unix_ms.to_le_bytes());
    out.extend_from_slice(&(nodes.len() as u32).to_le_bytes());
    out.extend_from_slice(&(edges.len() as u32).to_le_bytes());
    debug_assert_eq!(out.len(), HEADER_BYTES, "the header is what docs/live.md says");
    nodes.iter().for_each(|it| it.write(&mut out));
    edges.iter().for_each(|it| it.write(&mut out));
    debug_assert_eq!(out.len(), HEADER_BYTES + (nodes.len() + edges.len()) * RECORD_BYTES);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(id: u32, rate: f32) -> NodeRecord {
        NodeRecord {
            id,
            rate,
            errors: 0.25,
            p50_ms: f32::NAN,
            p99_ms: 8.0,
            concurrency: 0.5,
            queue: 0.0,
            healthy: 2,
            instances: 3,
            ejected: 1,
            flags: flag::STARTING,
            newest_version: 1.0,
        }
    }

    fn edge(id: u32, rate: f32) -> EdgeRecord {
        EdgeRecord {
            id,
            rate,
            errors: 0.0,
            p50_ms: 1.0,
            p99_ms: 2.0,
            retries: 0.5,
            budget_left: f32::NAN,
            breakers_open: 1,
            breakers: 12,
            phase: 0.75,
            speed: 0.5,
        }
    }

    const MOMENT: Moment = Moment { since_start_ms: 250.0, unix_ms: 1_000.5 };

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|it| format!("{it:02x}")).collect()
    }

    #[test]
    fn a_keyframe_is_these_bytes() {
        let frame = Live::default().push(MOMENT, 3, vec![node(7, 200.0)], vec![edge(9, 200.0)]);
        let header = concat!(
            "49534f31",
            "01",
            "00",
            "2800",
            "01000000",
            "03000000",
            "0000000000406f40",
            "0000000000448f40",
            "01000000",
            "01000000"
        );
        let node = concat!(
            "07000000", "00004843", "0000803e", "0000c07f", "00000041", "0000003f", "00000000", "0200",
            "0300", "0100", "0400", "0000803f"
        );
        let edge = concat!(
            "09000000", "00004843", "00000000", "0000803f", "00000040", "0000003f", "0000c07f", "0100",
            "0c00", "0000403f", "0000003f"
        );
        assert_eq!(hex(&frame.bytes), [header, node, edge].concat());
    }

    /// Kind, sequence, and the ids of nodes and edges in a frame.
    fn read(frame: &Frame) -> (u8, u32, Vec<u32>, Vec<u32>) {
        let word = |at: usize| u32::from_le_bytes(frame.bytes[at..at + 4].try_into().expect("four bytes"));
        let (nodes, edges) = (word(32) as usize, word(36) as usize);
        let id = |row: usize| word(HEADER_BYTES + row * RECORD_BYTES);
        (frame.bytes[4], word(8), (0..nodes).map(id).collect(), (nodes..nodes + edges).map(id).collect())
    }

    #[test]
    fn a_delta_holds_what_changed_and_nothing_else() {
        let mut live = Live::default();
        live.push(MOMENT, 1, vec![node(0, 1.0), node(1, 1.0)], vec![edge(0, 1.0), edge(1, 1.0)]);
        let delta = live.push(MOMENT, 1, vec![node(0, 1.0), node(1, 2.0)], vec![edge(0, 2.0), edge(1, 1.0)]);
        assert_eq!(read(&delta), (2, 2, vec![1], vec![0]));
        let quiet = live.push(MOMENT, 1, vec![node(0, 1.0), node(1, 2.0)], vec![edge(0, 2.0), edge(1, 1.0)]);
        assert_eq!(read(&quiet), (2, 3, vec![], vec![]), "an unknown that stays unknown is no change");
    }

    #[test]
    fn another_map_begins_with_everything() {
        let mut live = Live::default();
        live.push(MOMENT, 1, vec![node(0, 1.0)], vec![]);
        let frame = live.push(MOMENT, 2, vec![node(0, 1.0)], vec![]);
        assert_eq!(read(&frame), (1, 2, vec![0], vec![]));
        assert_eq!(live.since(1).len(), 1, "frames of the other map are gone");
        assert_eq!(read(&live.since(1)[0]).0, 1);
    }

    #[track_caller]
    fn check_resume(live: &Live, seen: u32, expected: &[(u8, u32)]) {
        let frames: Vec<_> =
            live.since(seen).iter().map(read).map(|(kind, sequence, ..)| (kind, sequence)).collect();
        assert_eq!(frames, expected, "seen {seen}");
    }

    #[test]
    fn who_was_away_gets_what_it_missed_or_everything() {
        let mut live = Live::default();
        check_resume(&live, 0, &[]);
        for _ in 0..RESUME_FRAMES as u32 + 10 {
            live.push(MOMENT, 1, vec![node(0, 1.0)], vec![]);
        }
        let last = RESUME_FRAMES as u32 + 10;
        check_resume(&live, last, &[]);
        check_resume(&live, last - 2, &[(2, last - 1), (2, last)]);
        check_resume(&live, 0, &[(1, last)]);
        check_resume(&live, 9, &[(1, last)]);
        check_resume(&live, last + 5, &[(1, last)]);
        check_resume(&live, u32::MAX, &[(1, last)]);
        assert_eq!(live.since(10).len(), RESUME_FRAMES);
    }
}
