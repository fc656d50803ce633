//! Copies of numbers that do not lie as they want to, each in the memory of the one before.
//!
//! Weights in a file lie where the format puts them, and a kernel needs them aligned for one call. Memory that was just
//! given back comes anew from the system as pages to be cleared, which costs more than the copy; so it is kept.

use std::cell::Cell;

use rayon::prelude::*;

/// Aligned for every element type.
type Word = [f64; 2];

/// Words from which on the threads share the work: 1 MiB.
const GRAIN: usize = 1 << 16;

/// Bytes that are kept between two copies at most.
const MOST: usize = 64 << 20;

thread_local! {
    static FREE: Cell<Vec<Word>> = const { Cell::new(Vec::new()) };
}

/// A copy of some bytes, aligned to 16; the last word is filled up with zeros.
pub struct Copied(Vec<Word>);

impl Copied {
    /// A copy to be held for a while.
    pub fn of(bytes: &[u8]) -> Self {
        let room = FREE.take();
        let fits = room.capacity() * size_of::<Word>() >= bytes.len();
        Self::within(if fits { room } else { Vec::new() }, bytes)
    }

    /// A copy to be held for good, with no room to spare.
    pub fn kept(bytes: &[u8]) -> Self {
        Self::within(Vec::new(), bytes)
    }

    fn within(mut words: Vec<Word>, bytes: &[u8]) -> Self {
        let (whole, rest) = bytes.as_chunks::<{ size_of::<Word>() }>();
        words.clear();
        words.reserve_exact(bytes.len().div_ceil(size_of::<Word>()));
        let as_word = |word: &[u8; size_of::<Word>()]| bytemuck::cast::<_, Word>(*word);
        if whole.len() < GRAIN {
            words.extend(whole.iter().map(as_word));
        } else {
            whole.par_iter().with_min_len(GRAIN / 2).map(as_word).collect_into_vec(&mut words);
        }
        if !rest.is_empty() {
            let mut last = [0; size_of::<Word>()];
            last[..rest.len()].copy_from_slice(rest);
            words.push(bytemuck::cast(last));
        }
        Self(words)
    }
}

impl AsRef<[u8]> for Copied {
    fn as_ref(&self) -> &[u8] {
        bytemuck::cast_slice(&self.0)
    }
}

impl Drop for Copied {
    fn drop(&mut self) {
        let own = std::mem::take(&mut self.0);
        // A thread that ends has no use for it.
        let _ = FREE.try_with(|free| {
            let other = free.take();
            let fits = own.capacity() * size_of::<Word>() <= MOST && own.capacity() > other.capacity();
            free.set(if fits { own } else { other });
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_takes_the_room_of_the_one_before() {
        let bytes: Vec<u8> = (0..100).collect();
        let first = Copied::of(&bytes);
        let at = first.as_ref().as_ptr();
        let both = Copied::of(&bytes[..50]);
        assert_ne!(both.as_ref().as_ptr(), at);
        drop(both);
        drop(first);
        let again = Copied::of(&bytes[1..38]);
        assert_eq!(again.as_ref().as_ptr(), at);
        assert_eq!(&again.as_ref()[..37], &bytes[1..38]);
        assert_eq!(again.as_ref()[37..], [0; 11]);
    }
}
