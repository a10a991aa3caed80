//! What happens next: pending events in strict (time, sequence) order.
//!
//! Most events of a mesh happen soon after they are scheduled and always happen; time-outs lie far ahead and nearly all
//! are cancelled. So there are two structures. Events sit in a 4-ary heap of 24-byte items. Timers sit in a wheel of
//! linked slots, where scheduling and cancelling are O(1), and enter the heap only in the millisecond in which they are
//! due: a cancelled timer is never sifted. The order is that of one big heap all the same, ties included, because the
//! heap alone decides it and a timer keeps the sequence number it was scheduled with.
//!
//! Nothing is allocated once the two have grown to the size a run needs.

use units::Nanos;

/// What an event is about: a kind and a number, eight bytes. What they mean is the world's business.
///
/// `generation` lets the receiver tell that the slot `id` has been reused since: such an event is about nobody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    word: u32,
    pub id: u32,
}

impl Event {
    const GENERATION_BITS: u32 = 24;
    /// Generations are compared in this many bits: a slot would have to be reused 16 million times within one delay.
    pub const GENERATION_MASK: u32 = (1 << Self::GENERATION_BITS) - 1;

    #[inline]
    pub const fn new(kind: u8, id: u32, generation: u32) -> Self {
        Self { word: (kind as u32) << Self::GENERATION_BITS | generation & Self::GENERATION_MASK, id }
    }

    #[inline]
    pub const fn kind(self) -> u8 {
        (self.word >> Self::GENERATION_BITS) as u8
    }

    #[inline]
    pub const fn generation(self) -> u32 {
        self.word & Self::GENERATION_MASK
    }
}

/// The handle of a timer, to cancel it by. One that fired or was cancelled is harmless.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimerId {
    slot: u32,
    generation: u32,
}

impl TimerId {
    /// No timer at all: what a request without a time-out holds.
    pub const NONE: Self = Self { slot: NIL, generation: 0 };
}

#[derive(Clone, Copy, Debug)]
struct Item {
    time: u64,
    /// The sequence number, doubled; the low bit says that `event` is a timer's (slot, generation).
    order: u64,
    event: Event,
}

impl Item {
    /// One comparison of one wide integer instead of a branch on equal times.
    #[inline]
    const fn key(&self) -> u128 {
        (self.time as u128) << 64 | self.order as u128
    }
}

/// The pending events of one run.
#[derive(Debug, Default)]
pub struct EventQueue {
    heap: Vec<Item>,
    wheel: Wheel,
    sequence: u64,
    now: Nanos,
}

const ARITY: usize = 4;

impl EventQueue {
    pub fn new() -> Self {
        Self::default()
    }

    /// The time of the last event taken out.
    pub fn now(&self) -> Nanos {
        self.now
    }

    /// Pending events and timers, cancelled ones that still wait to be dropped included.
    pub fn len(&self) -> usize {
        self.heap.len() + self.wheel.waiting
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Schedules an event that will certainly be delivered. Events at one time come out in the order they went in.
    ///
    /// # Panics
    /// In debug builds, if `at` has passed: a world that schedules into the past has a bug.
    #[inline]
    pub fn schedule(&mut self, at: Nanos, event: Event) {
        debug_assert!(self.now <= at, "scheduled at {at}, but it is {}", self.now);
        let order = self.next_order();
        self.push(Item { time: at.0, order, event });
    }

    /// Schedules an event that [`EventQueue::cancel`] may take back.
    #[inline]
    pub fn schedule_timer(&mut self, at: Nanos, event: Event) -> TimerId {
        debug_assert!(self.now <= at, "a timer at {at}, but it is {}", self.now);
        let order = self.next_order() | 1;
        let item = Item { time: at.0, order, event };
        let id = self.wheel.allocate(item);
        if !self.wheel.insert(id.slot) {
            self.push(Item { event: Event { word: id.generation, id: id.slot }, ..item });
        }
        id
    }

    /// True if the timer was still to come.
    #[inline]
    pub fn cancel(&mut self, timer: TimerId) -> bool {
        self.wheel.cancel(timer)
    }

    /// Takes out the next event if it is not after `end`. Time moves to it; otherwise time moves to `end`.
    #[inline]
    pub fn pop_until(&mut self, end: Nanos) -> Option<(Nanos, Event)> {
        loop {
            let due = match self.heap.first() {
                Some(top) if top.time <= self.wheel.released_until() => {
                    if top.time > end.0 {
                        self.now = self.now.max(end);
                        return None;
                    }
                    let item = self.pop_top();
                    let time = Nanos(item.time);
                    debug_assert!(self.now <= time, "time went back from {} to {time}", self.now);
                    if item.order & 1 == 0 {
                        self.now = time;
                        return Some((time, item.event));
                    }
                    match self.wheel.fire(item.event.id, item.event.word) {
                        Some(event) => {
                            self.now = time;
                            return Some((time, event));
                        }
                        None => continue, // Cancelled after it had entered the heap.
                    }
                }
                Some(top) => top.time,
                None => match self.wheel.next_due() {
                    Some(due) => due,
                    None => {
                        self.now = self.now.max(end);
                        return None;
                    }
                },
            };
            if due > end.0 && self.heap.is_empty() {
                self.now = self.now.max(end);
                return None;
            }
            self.release(due.min(end.0));
            if due > end.0 && self.heap.first().is_none_or(|top| top.time > end.0) {
                self.now = self.now.max(end);
                return None;
            }
        }
    }

    #[inline]
    fn next_order(&mut self) -> u64 {
        self.sequence += 2;
        self.sequence
    }

    /// Moves the timers that are due up to `time` from the wheel into the heap.
    #[cold]
    fn release(&mut self, time: u64) {
        self.wheel.turn_to(time);
        while let Some((slot, generation, item)) = self.wheel.take_due() {
            self.push(Item { event: Event { word: generation, id: slot }, ..item });
        }
    }

    #[inline(always)]
    fn push(&mut self, item: Item) {
        let mut hole = self.heap.len();
        self.heap.push(item);
        let key = item.key();
        while hole > 0 {
            let parent = (hole - 1) / ARITY;
            let above = self.heap[parent];
            if above.key() <= key {
                break;
            }
            self.heap[hole] = above;
            hole = parent;
        }
        self.heap[hole] = item;
    }

    /// The caller has seen that the heap is not empty.
    #[inline]
    fn pop_top(&mut self) -> Item {
        let last = self.heap.pop().expect("the caller saw a top");
        if self.heap.is_empty() {
            return last;
        }
        let top = std::mem::replace(&mut self.heap[0], last);
        self.sift_down(last);
        top
    }

    #[inline]
    fn sift_down(&mut self, item: Item) {
        let heap = self.heap.as_mut_slice();
        let key = item.key();
        let mut hole = 0;
        loop {
            let first = hole * ARITY + 1;
            if first >= heap.len() {
                break;
            }
            let last = (first + ARITY).min(heap.len());
            let mut least = first;
            let mut least_key = heap[first].key();
            for (child, below) in heap.iter().enumerate().take(last).skip(first + 1) {
                let below = below.key();
                if below < least_key {
                    (least, least_key) = (child, below);
                }
            }
            if key <= least_key {
                break;
            }
            heap[hole] = heap[least];
            hole = least;
        }
        heap[hole] = item;
    }
}

const NIL: u32 = u32::MAX;

/// One tick is 2^20 ns, about a millisecond: short beside the time-outs people set, long beside the time between events.
const TICK_BITS: u32 = 20;
const SLOT_BITS: u32 = 6;
const SLOTS: usize = 1 << SLOT_BITS;
/// 20 + 8·6 bits reach beyond the 64 of time, so that no timer is too far ahead.
const LEVELS: usize = 8;

const _: () = assert!(TICK_BITS + SLOT_BITS * LEVELS as u32 >= 64);

/// A hierarchical timing wheel. A timer waits on the level of the highest bits in which its tick differs from now, and
/// comes down a level each time the wheel reaches its slot.
#[derive(Debug)]
struct Wheel {
    /// The tick up to which (inclusive) everything has been handed to the heap.
    turned: u64,
    levels: [Level; LEVELS],
    timers: Vec<Timer>,
    free: u32,
    due: u32,
    waiting: usize,
}

#[derive(Clone, Copy, Debug)]
struct Level {
    occupied: u64,
    heads: [u32; SLOTS],
}

#[derive(Clone, Copy, Debug)]
struct Timer {
    item: Item,
    generation: u32,
    next: u32,
    previous: u32,
    /// Where it hangs: `level * SLOTS + slot`, or `IN_HEAP`, or `FREE`.
    place: u32,
}

const IN_HEAP: u32 = u32::MAX;
const FREE: u32 = u32::MAX - 1;

impl Default for Wheel {
    fn default() -> Self {
        Self {
            turned: 0,
            levels: [Level { occupied: 0, heads: [NIL; SLOTS] }; LEVELS],
            timers: Vec::new(),
            free: NIL,
            due: NIL,
            waiting: 0,
        }
    }
}

impl Wheel {
    /// Every timer up to this time (inclusive) is in the heap.
    #[inline]
    fn released_until(&self) -> u64 {
        // With nothing waiting there is nothing to hold the heap back for.
        if self.waiting == 0 { u64::MAX } else { self.turned << TICK_BITS | ((1 << TICK_BITS) - 1) }
    }

    #[inline]
    fn allocate(&mut self, item: Item) -> TimerId {
        if self.free == NIL {
            let slot = u32::try_from(self.timers.len()).expect("fewer than four billion timers at once");
            self.timers.push(Timer { item, generation: 0, next: NIL, previous: NIL, place: FREE });
            return TimerId { slot, generation: 0 };
        }
        let slot = self.free;
        let timer = &mut self.timers[slot as usize];
        self.free = timer.next;
        timer.item = item;
        TimerId { slot, generation: timer.generation }
    }

    /// False: it is due within the tick already handed out, so it belongs into the heap at once.
    #[inline]
    fn insert(&mut self, slot: u32) -> bool {
        let tick = self.timers[slot as usize].item.time >> TICK_BITS;
        if tick <= self.turned {
            self.timers[slot as usize].place = IN_HEAP;
            return false;
        }
        let level = ((63 - (tick ^ self.turned).leading_zeros()) / SLOT_BITS) as usize;
        let position = (tick >> (SLOT_BITS * level as u32)) as usize % SLOTS;
        let head = std::mem::replace(&mut self.levels[level].heads[position], slot);
        self.levels[level].occupied |= 1 << position;
        if head != NIL {
            self.timers[head as usize].previous = slot;
        }
        let timer = &mut self.timers[slot as usize];
        (timer.next, timer.previous) = (head, NIL);
        timer.place = (level * SLOTS + position) as u32;
        self.waiting += 1;
        true
    }

    #[inline]
    fn cancel(&mut self, id: TimerId) -> bool {
        let Some(timer) = self.timers.get(id.slot as usize) else { return false };
        if timer.generation != id.generation || timer.place == FREE {
            return false;
        }
        let (place, next, previous) = (timer.place, timer.next, timer.previous);
        if place != IN_HEAP {
            if next != NIL {
                self.timers[next as usize].previous = previous;
            }
            if previous != NIL {
                self.timers[previous as usize].next = next;
            } else {
                let level = &mut self.levels[place as usize / SLOTS];
                level.heads[place as usize % SLOTS] = next;
                if next == NIL {
                    level.occupied &= !(1 << (place as usize % SLOTS));
                }
            }
            self.waiting -= 1;
        }
        // One in the heap leaves its item behind; the generation tells that it is void.
        self.release_slot(id.slot);
        true
    }

    #[inline]
    fn release_slot(&mut self, slot: u32) {
        let timer = &mut self.timers[slot as usize];
        timer.generation = timer.generation.wrapping_add(1);
        timer.place = FREE;
        timer.next = self.free;
        self.free = slot;
    }

    /// A timer's item came out of the heap: its event, unless it was cancelled.
    #[inline]
    fn fire(&mut self, slot: u32, generation: u32) -> Option<Event> {
        let timer = &self.timers[slot as usize];
        if timer.generation != generation || timer.place != IN_HEAP {
            return None;
        }
        let event = timer.item.event;
        self.release_slot(slot);
        Some(event)
    }

    /// The lowest occupied slot: its level, position and the tick at which it must be opened.
    fn next_slot(&self) -> Option<(usize, usize, u64)> {
        for (level, slots) in self.levels.iter().enumerate() {
            if slots.occupied == 0 {
                continue;
            }
            let shift = SLOT_BITS * level as u32;
            let here = (self.turned >> shift) as u32 % SLOTS as u32;
            // Every occupied slot of a level lies after `here`: a timer hangs where its bits exceed those of `turned`.
            let position = (slots.occupied.rotate_right(here).trailing_zeros() + here) as usize % SLOTS;
            let above = (self.turned >> shift >> SLOT_BITS) << SLOT_BITS | position as u64;
            return Some((level, position, above << shift));
        }
        None
    }

    fn next_due(&self) -> Option<u64> {
        self.next_slot().map(|(_, _, tick)| tick << TICK_BITS)
    }

    /// Opens every slot up to the tick of `time`; what is due is linked up for [`Wheel::take_due`].
    fn turn_to(&mut self, time: u64) {
        let until = time >> TICK_BITS;
        while let Some((level, position, tick)) = self.next_slot() {
            if tick > until {
                break;
            }
            self.turned = tick;
            let slots = &mut self.levels[level];
            slots.occupied &= !(1 << position);
            let mut slot = std::mem::replace(&mut slots.heads[position], NIL);
            while slot != NIL {
                let next = self.timers[slot as usize].next;
                self.waiting -= 1;
                if !self.insert(slot) {
                    self.timers[slot as usize].next = self.due;
                    self.due = slot;
                }
                slot = next;
            }
        }
        self.turned = self.turned.max(until);
    }

    fn take_due(&mut self) -> Option<(u32, u32, Item)> {
        let slot = self.due;
        let timer = self.timers.get(slot as usize)?;
        self.due = timer.next;
        Some((slot, timer.generation, timer.item))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::{Strategy, any, prop_assert_eq, prop_oneof, proptest};
    use std::collections::BTreeMap;

    fn event(id: u32) -> Event {
        Event::new(7, id, 0)
    }

    #[test]
    fn an_event_keeps_its_three_parts() {
        let event = Event::new(200, 9, 0x0123_4567);
        assert_eq!((event.kind(), event.id, event.generation()), (200, 9, 0x0023_4567));
    }

    #[test]
    fn ties_come_out_in_the_order_they_went_in_timers_too() {
        let mut queue = EventQueue::new();
        let at = Nanos::from_secs(3);
        queue.schedule(at, event(0));
        queue.schedule_timer(at, event(1));
        queue.schedule(at, event(2));
        queue.schedule_timer(at, event(3));
        let order: Vec<u32> = std::iter::from_fn(|| queue.pop_until(Nanos::MAX)).map(|it| it.1.id).collect();
        assert_eq!(order, [0, 1, 2, 3]);
    }

    #[test]
    fn a_pop_stops_at_the_end_and_goes_on_from_there() {
        let mut queue = EventQueue::new();
        queue.schedule_timer(Nanos::from_secs(10), event(1));
        assert_eq!(queue.pop_until(Nanos::from_secs(4)), None);
        assert_eq!(queue.now(), Nanos::from_secs(4));
        queue.schedule_timer(Nanos::from_secs(5), event(2));
        assert_eq!(queue.pop_until(Nanos::from_secs(5)), Some((Nanos::from_secs(5), event(2))));
        assert_eq!(queue.pop_until(Nanos::MAX), Some((Nanos::from_secs(10), event(1))));
        assert!(queue.is_empty());
    }

    #[test]
    fn a_spent_handle_cancels_nobody() {
        let mut queue = EventQueue::new();
        let first = queue.schedule_timer(Nanos(5), event(1));
        assert!(queue.cancel(first));
        let second = queue.schedule_timer(Nanos(6), event(2)); // Takes the slot of the first.
        assert!(!queue.cancel(first) && !queue.cancel(TimerId::NONE));
        assert_eq!(queue.pop_until(Nanos::MAX), Some((Nanos(6), event(2))));
        assert!(!queue.cancel(second));
    }

    #[derive(Clone, Debug)]
    enum Step {
        Schedule(u64),
        Timer(u64),
        Cancel(usize),
        Pop(u64),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        // Delays of every size, and many equal ones, so that ties and all levels of the wheel occur.
        let delay = || (any::<u64>(), 0u32..63).prop_map(|(v, shift)| (v >> shift) >> 1);
        let step = prop_oneof![
            delay().prop_map(Step::Schedule),
            delay().prop_map(Step::Timer),
            (0u64..4).prop_map(|v| Step::Timer(v << 20)),
            any::<usize>().prop_map(Step::Cancel),
            delay().prop_map(Step::Pop),
        ];
        proptest::collection::vec(step, 0..300)
    }

    proptest! {
        /// The reference is an ordered map by (time, sequence): slow, and certainly right.
        #[test]
        fn the_order_is_that_of_a_sorted_map(steps in steps()) {
            let mut queue = EventQueue::new();
            let mut expected: BTreeMap<(u64, u32), ()> = BTreeMap::new();
            let mut timers: Vec<(TimerId, (u64, u32))> = Vec::new();
            let mut sequence = 0u32;
            for step in steps {
                sequence += 1;
                let now = queue.now().0;
                match step {
                    Step::Schedule(delay) => {
                        let at = now.saturating_add(delay);
                        queue.schedule(Nanos(at), event(sequence));
                        expected.insert((at, sequence), ());
                    }
                    Step::Timer(delay) => {
                        let at = now.saturating_add(delay);
                        let timer = queue.schedule_timer(Nanos(at), event(sequence));
                        expected.insert((at, sequence), ());
                        timers.push((timer, (at, sequence)));
                    }
                    Step::Cancel(which) => {
                        if !timers.is_empty() {
                            let (timer, key) = timers[which % timers.len()];
                            prop_assert_eq!(queue.cancel(timer), expected.remove(&key).is_some());
                        }
                    }
                    Step::Pop(ahead) => {
                        let end = now.saturating_add(ahead);
                        let next = expected.first_key_value().map(|(key, ())| *key).filter(|key| key.0 <= end);
                        let popped = queue.pop_until(Nanos(end));
                        prop_assert_eq!(popped.map(|(at, event)| (at.0, event.id)), next);
                        match next {
                            Some(key) => { expected.remove(&key); }
                            None => prop_assert_eq!(queue.now().0, end),
                        }
                    }
                }
            }
            for (key, ()) in expected {
                let popped = queue.pop_until(Nanos::MAX);
                prop_assert_eq!(popped.map(|(at, event)| (at.0, event.id)), Some(key));
            }
            prop_assert_eq!(queue.pop_until(Nanos::MAX), None);
        }
    }
}
