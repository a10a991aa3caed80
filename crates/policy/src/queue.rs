//! What waits in front of a busy server: bounded, by priority, and in the order that serves most callers in time.
//!
//! ```text
//! FIFO            fair while it is short; under overload every caller waits until nearly all have given up
//! LIFO            the newest is served in time, the oldest pay; for callers with a time-out the better loss
//! adaptive LIFO   FIFO until it has not been empty for 100 ms, then LIFO until it is empty again
//! CoDel           FIFO; if the shortest wait in an `interval` stayed above `target`, the queue stands: for the next
//!                 interval whatever waited longer than 2·target is dropped
//! ```
//! CoDel's square-root schedule is for senders that slow down when they lose a packet. Requests do not, so the
//! detection is CoDel's and the consequence is a plain limit on the wait.
//!
//! Higher priority is served first, whatever the order inside a class. When the queue is full, a newcomer takes the place
//! of the one in the lowest class below its own that is worth least (the next to be served last); if there is none, it
//! is refused. Work whose deadline has passed is handed back as dropped and never served.
//!
//! Items are whatever the caller wants back: an id, a handle. Entries live in a slab that is reused, so a queue
//! allocates only while it grows to a length it never had. [`Queue::cancel`] takes out of the middle in O(1).
//!
//! ```
//! use policy::{Deadline, Popped, Pushed, Queue, settings::{self, Priority}};
//! use units::Nanos;
//! let mut queue = Queue::new(settings::Queue { max: Some(2), discipline: settings::Discipline::Fifo });
//! let now = Nanos::ZERO;
//! assert!(matches!(queue.push(now, "a", Priority::Critical, Deadline::NEVER), Pushed::Waits(_)));
//! assert!(matches!(queue.push(now, "b", Priority::Sheddable, Deadline::NEVER), Pushed::Waits(_)));
//! assert!(matches!(queue.push(now, "c", Priority::Critical, Deadline::NEVER), Pushed::Instead(_, "b")));
//! assert!(matches!(queue.pop(now), Some(Popped::Serve { item: "a", .. })));
//! ```

use crate::Deadline;
use crate::settings::{self, Discipline, Priority};
use units::Nanos;

#[derive(Clone, Debug)]
pub struct Queue<T> {
    max: usize,
    discipline: Discipline,
    nodes: Vec<Node<T>>,
    free: u32,
    lanes: [Lane; 4],
    waiting: usize,
    /// Since when it has not been empty.
    busy_since: Option<Nanos>,
    codel: Standing,
    counts: QueueCounts,
}

/// What became of everything that came.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueueCounts {
    pub served: u64,
    /// Refused, or displaced by something more important, because the queue was full.
    pub full: u64,
    /// Its deadline passed while it waited.
    pub late: u64,
    /// Dropped because the queue stands.
    pub standing: u64,
    pub cancelled: u64,
}

#[derive(Clone, Debug)]
struct Node<T> {
    /// `None` in the free list.
    item: Option<T>,
    generation: u32,
    before: u32,
    after: u32,
    priority: Priority,
    since: Nanos,
    deadline: Deadline,
}

/// Oldest and newest of one priority.
#[derive(Clone, Copy, Debug)]
struct Lane {
    oldest: u32,
    newest: u32,
}

const NIL: u32 = u32::MAX;
/// How long a queue may be busy before it counts as overloaded and not as a burst.
const BURST: Nanos = Nanos::from_millis(100);

/// CoDel's question: did even the luckiest wait too long?
#[derive(Clone, Copy, Debug, Default)]
struct Standing {
    interval_ends: Nanos,
    wait_min: Option<Nanos>,
    overloaded: bool,
}

/// A place in the queue. Refers to one entry only: a reused slot is a different ticket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Ticket {
    slot: u32,
    generation: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pushed<T> {
    Waits(Ticket),
    /// It waits in the place of this one, which is to be refused.
    Instead(Ticket, T),
    /// Full of work at least as important.
    Full(T),
    /// Its deadline has passed already.
    Late(T),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Popped<T> {
    Serve { item: T, waited: Nanos },
    Drop { item: T, waited: Nanos, why: DropWhy },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DropWhy {
    Late,
    Standing,
}

impl<T> Queue<T> {
    pub fn new(settings: settings::Queue) -> Self {
        // `NIL` slots are more than memory holds; "without bound" means that.
        let max = settings.max.map_or(NIL as usize - 1, |it| it as usize);
        Self {
            max,
            discipline: settings.discipline,
            nodes: Vec::with_capacity(max.min(256)),
            free: NIL,
            lanes: [Lane { oldest: NIL, newest: NIL }; 4],
            waiting: 0,
            busy_since: None,
            codel: Standing::default(),
            counts: QueueCounts::default(),
        }
    }

    pub fn len(&self) -> usize {
        self.waiting
    }

    pub fn is_empty(&self) -> bool {
        self.waiting == 0
    }

    pub fn counts(&self) -> QueueCounts {
        self.counts
    }

    /// How long it has not been empty.
    pub fn busy_for(&self, now: Nanos) -> Nanos {
        self.busy_since.map_or(Nanos::ZERO, |since| now.saturating_sub(since))
    }

    pub fn push(&mut self, now: Nanos, item: T, priority: Priority, deadline: Deadline) -> Pushed<T> {
        if deadline.has_passed(now) {
            self.counts.late += 1;
            return Pushed::Late(item);
        }
        let mut displaced = None;
        if self.waiting >= self.max {
            self.counts.full += 1;
            let lower = (0..priority as usize).find(|lane| self.lanes[*lane].oldest != NIL);
            match lower {
                Some(lane) => {
                    // The one that would be served last has the least to lose.
                    let lane = self.lanes[lane];
                    let slot = if self.newest_first(now) { lane.oldest } else { lane.newest };
                    displaced = Some(self.take(slot));
                }
                None => return Pushed::Full(item),
            }
        }
        if self.waiting == 0 && self.busy_since.is_none() {
            self.busy_since = Some(now);
        }
        let ticket = self.link(now, item, priority, deadline);
        match displaced.and_then(|node| node.0) {
            Some(gone) => Pushed::Instead(ticket, gone),
            None => Pushed::Waits(ticket),
        }
    }

    /// The next to serve, or one to refuse; ask again after a refusal. `None`: nobody waits.
    pub fn pop(&mut self, now: Nanos) -> Option<Popped<T>> {
        let lane = (0..4).rev().find(|lane| self.lanes[*lane].oldest != NIL)?;
        let slot = if self.newest_first(now) { self.lanes[lane].newest } else { self.lanes[lane].oldest };
        let (item, since, deadline) = self.take(slot);
        self.note_if_empty();
        let (item, waited) = (item?, now.saturating_sub(since));
        let standing = match self.discipline {
            Discipline::CoDel { target, interval } => self.codel.is_overlong(now, waited, target, interval),
            _ => false,
        };
        Some(if deadline.has_passed(now) {
            self.counts.late += 1;
            Popped::Drop { item, waited, why: DropWhy::Late }
        } else if standing {
            self.counts.standing += 1;
            Popped::Drop { item, waited, why: DropWhy::Standing }
        } else {
            self.counts.served += 1;
            Popped::Serve { item, waited }
        })
    }

    /// Takes out the oldest of all if it has waited `longest` or more; for queues whose callers give up by themselves.
    pub fn pop_waited(&mut self, now: Nanos, longest: Nanos) -> Option<(T, Nanos)> {
        let slot = self.oldest()?;
        let waited = now.saturating_sub(self.nodes[slot as usize].since);
        if waited < longest {
            return None;
        }
        let (item, ..) = self.take(slot);
        self.note_if_empty();
        self.counts.standing += 1;
        item.map(|item| (item, waited))
    }

    /// Since when the oldest has waited.
    pub fn oldest_since(&self) -> Option<Nanos> {
        self.oldest().map(|slot| self.nodes[slot as usize].since)
    }

    /// Its caller left: takes it out, wherever it is. `None` if it is not there any more.
    pub fn cancel(&mut self, ticket: Ticket) -> Option<T> {
        let node = self.nodes.get(ticket.slot as usize)?;
        if node.generation != ticket.generation || node.item.is_none() {
            return None;
        }
        let (item, ..) = self.take(ticket.slot);
        self.note_if_empty();
        self.counts.cancelled += 1;
        item
    }

    fn oldest(&self) -> Option<u32> {
        self.lanes
            .iter()
            .map(|it| it.oldest)
            .filter(|it| *it != NIL)
            .min_by_key(|it| self.nodes[*it as usize].since)
    }

    fn newest_first(&self, now: Nanos) -> bool {
        match self.discipline {
            Discipline::Fifo | Discipline::CoDel { .. } => false,
            Discipline::Lifo => true,
            Discipline::AdaptiveLifo => self.busy_for(now) >= BURST,
        }
    }

    fn note_if_empty(&mut self) {
        if self.waiting == 0 {
            self.busy_since = None;
        }
    }

    fn link(&mut self, now: Nanos, item: T, priority: Priority, deadline: Deadline) -> Ticket {
        let newest = self.lanes[priority as usize].newest;
        let slot = if self.free == NIL { self.nodes.len() as u32 } else { self.free };
        let generation = self.nodes.get(slot as usize).map_or(0, |it| it.generation);
        let node =
            Node { item: Some(item), generation, before: newest, after: NIL, priority, since: now, deadline };
        match self.nodes.get_mut(slot as usize) {
            Some(reused) => {
                self.free = reused.after;
                *reused = node;
            }
            None => self.nodes.push(node),
        }
        match newest {
            NIL => self.lanes[priority as usize].oldest = slot,
            newest => self.nodes[newest as usize].after = slot,
        }
        self.lanes[priority as usize].newest = slot;
        self.waiting += 1;
        Ticket { slot, generation }
    }

    fn take(&mut self, slot: u32) -> (Option<T>, Nanos, Deadline) {
        let free = self.free;
        let node = &mut self.nodes[slot as usize];
        let (before, after, priority) = (node.before, node.after, node.priority);
        let taken = (node.item.take(), node.since, node.deadline);
        debug_assert!(taken.0.is_some(), "took an entry that is not there");
        node.generation = node.generation.wrapping_add(1);
        node.after = free;
        self.free = slot;
        match before {
            NIL => self.lanes[priority as usize].oldest = after,
            before => self.nodes[before as usize].after = after,
        }
        match after {
            NIL => self.lanes[priority as usize].newest = before,
            after => self.nodes[after as usize].before = before,
        }
        self.waiting -= 1;
        taken
    }
}

impl Standing {
    fn is_overlong(&mut self, now: Nanos, waited: Nanos, target: Nanos, interval: Nanos) -> bool {
        if now >= self.interval_ends {
            self.overloaded = self.wait_min.is_some_and(|it| it > target);
            self.wait_min = None;
            self.interval_ends = now + interval;
        }
        self.wait_min = Some(self.wait_min.map_or(waited, |it| it.min(waited)));
        self.overloaded && waited > target * 2
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NEVER: Deadline = Deadline::NEVER;
    const MS: fn(u64) -> Nanos = Nanos::from_millis;

    fn queue(max: u32, discipline: Discipline) -> Queue<char> {
        Queue::new(settings::Queue { max: Some(max), discipline })
    }

    /// "0 +a; 5 +B; 9 -": at 0 ms push a; capitals are critical, small letters sheddable; pop. Answers what came back.
    #[track_caller]
    fn check(mut queue: Queue<char>, script: &str, expected: &str) {
        let mut said = Vec::new();
        for step in script.split("; ") {
            let (at, what) = step.split_once(' ').expect("time and word");
            let now = MS(at.parse().expect("milliseconds"));
            match what.chars().nth(1) {
                Some(name) => {
                    let priority = if name.is_uppercase() { Priority::Critical } else { Priority::Sheddable };
                    let deadline = what.get(2..).and_then(|it| it.strip_prefix('@'));
                    let deadline =
                        deadline.map_or(NEVER, |it| Deadline::at(MS(it.parse().expect("milliseconds"))));
                    match queue.push(now, name, priority, deadline) {
                        Pushed::Waits(_) => {}
                        Pushed::Instead(_, gone) => said.push(format!("out {gone}")),
                        Pushed::Full(it) => said.push(format!("full {it}")),
                        Pushed::Late(it) => said.push(format!("late {it}")),
                    }
                }
                None => said.push(match queue.pop(now) {
                    Some(Popped::Serve { item, .. }) => item.to_string(),
                    Some(Popped::Drop { item, why: DropWhy::Late, .. }) => format!("late {item}"),
                    Some(Popped::Drop { item, why: DropWhy::Standing, .. }) => format!("drop {item}"),
                    None => "-".to_owned(),
                }),
            }
        }
        assert_eq!(said.join(" "), expected, "{script}");
    }

    #[test]
    fn orders() {
        use Discipline::*;
        check(queue(9, Fifo), "0 +a; 1 +b; 2 +c; 3 -; 4 -; 5 -; 6 -", "a b c -");
        check(queue(9, Lifo), "0 +a; 1 +b; 2 -; 3 +c; 4 -; 5 -; 6 -", "b c a -");
        check(queue(9, AdaptiveLifo), "0 +a; 1 +b; 2 +c; 99 -; 100 -; 101 -", "a c b");
        check(queue(9, AdaptiveLifo), "0 +a; 50 -; 60 +b; 61 +c; 120 -; 160 -", "a b c");
        check(queue(9, Fifo), "0 +a; 1 +B; 2 +c; 3 +D; 4 -; 5 -; 6 -; 7 -", "B D a c");
    }

    #[test]
    fn a_full_queue_keeps_what_matters() {
        use Discipline::*;
        check(queue(2, Fifo), "0 +a; 1 +b; 2 +c; 3 +D; 4 -; 5 -; 6 -", "full c out b D a -");
        check(queue(2, Lifo), "0 +a; 1 +b; 2 +D; 3 -; 4 -", "out a D b");
        check(queue(1, Fifo), "0 +A; 1 +B; 2 -", "full B A");
        check(queue(0, Fifo), "0 +A; 1 -", "full A -");
    }

    #[test]
    fn late_work_is_never_served() {
        check(queue(9, Discipline::Fifo), "5 +a@5; 5 +b@8; 6 +c; 8 -; 9 -", "late a late b c");
    }

    #[test]
    fn codel_drops_only_from_a_queue_that_stands() {
        let codel = Discipline::CoDel { target: MS(5), interval: MS(100) };
        // A burst: long waits within the first interval are served.
        check(queue(9, codel), "0 +a; 0 +b; 0 +c; 0 -; 40 -; 80 -", "a b c");
        // The shortest wait of a whole interval was 20 ms: from then on more than 10 ms is too long.
        check(
            queue(9, codel),
            "0 +a; 20 -; 30 +b; 60 -; 80 +c; 100 +d; 121 -; 122 -; 200 +e; 209 -; 230 +f; 231 -",
            "a b drop c drop d e f",
        );
    }

    #[test]
    fn cancelling_takes_out_of_the_middle() {
        let mut queue = queue(9, Discipline::Fifo);
        let mut push = |name| match queue.push(MS(0), name, Priority::Critical, NEVER) {
            Pushed::Waits(ticket) => ticket,
            other => panic!("{other:?}"),
        };
        let (_, b, _) = (push('a'), push('b'), push('c'));
        assert_eq!(queue.cancel(b), Some('b'));
        assert_eq!(queue.cancel(b), None, "only once");
        assert!(matches!(queue.push(MS(1), 'd', Priority::Critical, NEVER), Pushed::Waits(it) if it != b));
        assert_eq!(queue.cancel(b), None, "a reused slot is another ticket");
        let order: Vec<char> = std::iter::from_fn(|| match queue.pop(MS(2)) {
            Some(Popped::Serve { item, .. }) => Some(item),
            _ => None,
        })
        .collect();
        assert_eq!(order, ['a', 'c', 'd']);
        assert_eq!(queue.counts().cancelled, 1);
    }

    #[test]
    fn overlong_waits_can_be_swept_out() {
        let mut queue = queue(9, Discipline::Lifo);
        for (at, name) in [(0, 'a'), (10, 'b'), (20, 'c')] {
            queue.push(MS(at), name, Priority::Critical, NEVER);
        }
        assert_eq!(queue.oldest_since(), Some(MS(0)));
        assert_eq!(queue.pop_waited(MS(55), MS(50)), Some(('a', MS(55))));
        assert_eq!(queue.pop_waited(MS(55), MS(50)), None);
    }

    proptest! {
        /// Whatever comes, everything that was pushed comes out exactly once, and never more than `max` wait.
        #[test]
        fn nothing_is_lost_and_nothing_is_unbounded(
            max in 0u32..12,
            discipline in 0usize..4,
            steps in prop::collection::vec((0u64..60, 0u8..8, 0usize..4, 0u64..90), 1..400),
        ) {
            let codel = Discipline::CoDel { target: MS(5), interval: MS(50) };
            let discipline = [Discipline::Fifo, Discipline::Lifo, Discipline::AdaptiveLifo, codel][discipline];
            let mut queue = Queue::new(settings::Queue { max: Some(max), discipline });
            let priorities = [Priority::Sheddable, Priority::SheddablePlus, Priority::Critical, Priority::CriticalPlus];
            let (mut now, mut tickets) = (Nanos::ZERO, Vec::new());
            let (mut pushed, mut out) = (0usize, Vec::new());
            for (wait, what, priority, patience) in steps {
                now += MS(wait);
                match what {
                    0..=3 => {
                        let deadline = if patience > 60 { NEVER } else { Deadline::within(now, MS(patience)) };
                        match queue.push(now, pushed, priorities[priority], deadline) {
                            Pushed::Waits(ticket) => tickets.push(ticket),
                            Pushed::Instead(ticket, gone) => {
                                tickets.push(ticket);
                                out.push(gone);
                            }
                            Pushed::Full(it) | Pushed::Late(it) => out.push(it),
                        }
                        pushed += 1;
                    }
                    4 | 5 => match queue.pop(now) {
                        Some(Popped::Serve { item, .. } | Popped::Drop { item, .. }) => out.push(item),
                        None => prop_assert!(queue.is_empty()),
                    },
                    6 => out.extend(queue.pop_waited(now, MS(patience)).map(|it| it.0)),
                    _ if tickets.is_empty() => {}
                    _ => out.extend(queue.cancel(tickets.swap_remove(patience as usize % tickets.len()))),
                }
                prop_assert!(queue.len() <= max as usize);
                prop_assert!(queue.nodes.len() <= max as usize, "slots are reused");
                prop_assert_eq!(queue.is_empty(), queue.busy_since.is_none());
            }
            while let Some(Popped::Serve { item, .. } | Popped::Drop { item, .. }) = queue.pop(now) {
                out.push(item);
            }
            out.sort_unstable();
            prop_assert_eq!(out, (0..pushed).collect::<Vec<_>>());
        }
    }
}
