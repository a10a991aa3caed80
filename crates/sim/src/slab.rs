//! Slots that are reused, and handles that know it.
//!
//! A message on its way names a request that may be gone when it arrives. A slot carries a generation that moves on when
//! it is freed, so a stale handle finds nobody instead of somebody else.

use crate::queue::Event;

/// A slot and the generation in which it was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Key {
    pub(crate) slot: u32,
    pub(crate) generation: u32,
}

impl Key {
    pub(crate) const NONE: Self = Self { slot: u32::MAX, generation: 0 };

    pub(crate) const fn is_none(self) -> bool {
        self.slot == u32::MAX
    }

    #[inline]
    pub(crate) const fn event(self, kind: u8) -> Event {
        Event::new(kind, self.slot, self.generation)
    }
}

#[derive(Debug)]
pub(crate) struct Slab<T> {
    entries: Vec<Entry<T>>,
    free: u32,
    len: usize,
}

#[derive(Debug)]
struct Entry<T> {
    generation: u32,
    next_free: u32,
    value: Option<T>,
}

impl<T> Slab<T> {
    pub(crate) const fn new() -> Self {
        Self { entries: Vec::new(), free: u32::MAX, len: 0 }
    }

    pub(crate) const fn len(&self) -> usize {
        self.len
    }

    #[inline]
    pub(crate) fn insert(&mut self, value: T) -> Key {
        self.len += 1;
        match self.entries.get_mut(self.free as usize) {
            Some(entry) => {
                let slot = std::mem::replace(&mut self.free, entry.next_free);
                entry.value = Some(value);
                Key { slot, generation: entry.generation }
            }
            None => {
                let slot =
                    u32::try_from(self.entries.len()).expect("fewer than four billion requests at once");
                self.entries.push(Entry { generation: 0, next_free: u32::MAX, value: Some(value) });
                Key { slot, generation: 0 }
            }
        }
    }

    #[inline]
    pub(crate) fn get(&self, key: Key) -> Option<&T> {
        self.entries.get(key.slot as usize).filter(|it| it.generation == key.generation)?.value.as_ref()
    }

    #[inline]
    pub(crate) fn get_mut(&mut self, key: Key) -> Option<&mut T> {
        self.entries.get_mut(key.slot as usize).filter(|it| it.generation == key.generation)?.value.as_mut()
    }

    /// The key of what an event is about.
    #[inline]
    pub(crate) const fn key_of(event: Event) -> Key {
        Key { slot: event.id, generation: event.generation() }
    }

    #[inline]
    pub(crate) fn remove(&mut self, key: Key) -> Option<T> {
        let entry = self.entries.get_mut(key.slot as usize).filter(|it| it.generation == key.generation)?;
        let value = entry.value.take()?;
        entry.generation = (entry.generation + 1) & Event::GENERATION_MASK;
        entry.next_free = std::mem::replace(&mut self.free, key.slot);
        self.len -= 1;
        Some(value)
    }

    pub(crate) fn keys(&self) -> impl Iterator<Item = (Key, &T)> {
        self.entries.iter().enumerate().filter_map(|(slot, entry)| {
            let value = entry.value.as_ref()?;
            Some((Key { slot: slot as u32, generation: entry.generation }, value))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stale_key_finds_nobody() {
        let mut slab = Slab::new();
        let first = slab.insert('a');
        assert_eq!(slab.remove(first), Some('a'));
        let second = slab.insert('b');
        assert_eq!((second.slot, slab.get(first), slab.get(second)), (first.slot, None, Some(&'b')));
        assert_eq!((slab.remove(first), slab.len()), (None, 1));
    }
}
