//! Buffers that belong to the worker and are lent to whoever has bytes to hold.
//!
//! Ten thousand idle connections hold none: a connection waits for its socket to become readable first and borrows a
//! buffer then.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

/// Bytes read and not yet dealt with, always from the start of the memory.
#[derive(Debug)]
pub(crate) struct Buffer {
    bytes: Box<[u8]>,
    end: usize,
    pool: Rc<BufferPool>,
}

#[derive(Debug)]
pub(crate) struct BufferPool {
    size: usize,
    free: RefCell<Vec<Box<[u8]>>>,
    /// More than this are given back to the allocator.
    free_max: usize,
    lent: Cell<usize>,
}

impl BufferPool {
    pub(crate) fn new(size: usize, free_max: usize) -> Rc<Self> {
        Rc::new(Self { size, free: RefCell::default(), free_max, lent: Cell::new(0) })
    }

    pub(crate) fn take(self: &Rc<Self>) -> Buffer {
        self.lent.set(self.lent.get() + 1);
        let bytes = self.free.borrow_mut().pop().unwrap_or_else(|| vec![0; self.size].into_boxed_slice());
        Buffer { bytes, end: 0, pool: self.clone() }
    }

    pub(crate) fn size(&self) -> usize {
        self.size
    }

    /// Buffers in use, which is zero when nothing is going on: tests for leaks rely on it.
    pub(crate) fn lent(&self) -> usize {
        self.lent.get()
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        self.pool.lent.set(self.pool.lent.get() - 1);
        let mut free = self.pool.free.borrow_mut();
        if free.len() < self.pool.free_max {
            free.push(std::mem::take(&mut self.bytes));
        }
    }
}

impl Buffer {
    #[inline]
    pub(crate) fn filled(&self) -> &[u8] {
        &self.bytes[..self.end]
    }

    pub(crate) fn len(&self) -> usize {
        self.end
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.end == 0
    }

    #[inline]
    pub(crate) fn space(&mut self) -> &mut [u8] {
        &mut self.bytes[self.end..]
    }

    pub(crate) fn size(&self) -> usize {
        self.bytes.len()
    }

    pub(crate) fn has_space(&self) -> bool {
        self.end < self.bytes.len()
    }

    /// Appends as much as there is room for; callers have looked at [`Self::size`] first.
    pub(crate) fn put(&mut self, bytes: &[u8]) {
        let count = bytes.len().min(self.bytes.len() - self.end);
        self.bytes[self.end..self.end + count].copy_from_slice(&bytes[..count]);
        self.end += count;
    }

    #[inline]
    pub(crate) fn advance(&mut self, read: usize) {
        self.end = (self.end + read).min(self.bytes.len());
    }

    /// Forgets `from..to` and closes the gap.
    #[inline]
    pub(crate) fn remove(&mut self, from: usize, to: usize) {
        let to = to.min(self.end);
        let from = from.min(to);
        if to < self.end {
            self.bytes.copy_within(to..self.end, from);
        }
        self.end -= to - from;
    }

    pub(crate) fn clear(&mut self) {
        self.end = 0;
    }
}
