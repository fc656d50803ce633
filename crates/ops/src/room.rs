//! Memory for outputs whose sizes a file decides, and for what is only needed on the way.

use std::cell::Cell;
use std::mem::MaybeUninit;

use bytemuck::{Pod, Zeroable};
use isotrace_tensor::{TensorError, element_count};

/// Bytes from which on the machine is asked first.
const PROBE_FROM: usize = 1 << 28;

/// Zeros for the elements of `shape`; an error where the machine has not that much memory.
///
/// Small requests go straight to the allocator, which has zeroed pages at hand; large ones are tried first in a way
/// that may fail.
pub fn zeros<T: Zeroable + Copy>(shape: &[usize]) -> Result<Vec<T>, TensorError> {
    let n = element_count(shape)?;
    if n.saturating_mul(size_of::<T>()) >= PROBE_FROM {
        Vec::<T>::new().try_reserve_exact(n).map_err(|_| TensorError::TooLarge { shape: shape.to_vec() })?;
    }
    Ok(vec![T::zeroed(); n])
}

/// Room for the elements of `shape`, none of them written yet; an error where the machine has not that much memory. The
/// first to write to a page waits for the system to clear it: better all threads than the one that asks for room.
pub fn unwritten<T>(shape: &[usize]) -> Result<Vec<T>, TensorError> {
    let mut room = Vec::new();
    let reserved = room.try_reserve_exact(element_count(shape)?);
    reserved.map_err(|_| TensorError::TooLarge { shape: shape.to_vec() })?;
    Ok(room)
}

/// A vector of `len` elements that `fill` writes, in memory that is not cleared before: clearing takes as long as what most
/// operators do, and one thread at that, which then waits for every page.
///
/// # Errors
/// Where the machine has not that much memory.
///
/// # Safety
/// `fill` writes every element.
#[expect(unsafe_code, reason = "memory that need not be cleared first")]
pub(crate) unsafe fn filled<T: Copy>(
    len: usize,
    fill: impl FnOnce(&mut [MaybeUninit<T>]),
) -> Result<Vec<T>, TensorError> {
    let mut made = unwritten::<T>(&[len])?;
    fill(&mut made.spare_capacity_mut()[..len]);
    // SAFETY: `fill` has written the elements, as whoever calls this promises.
    unsafe {
        made.set_len(len);
    }
    Ok(made)
}

/// Bytes that a thread keeps from one call to the next.
const KEPT: usize = 1 << 24;

thread_local! {
    static SCRATCH: Cell<Vec<u64>> = const { Cell::new(Vec::new()) };
}

/// Hands `len` elements that hold anything to `f`. Memory that a machine gives out for the first time costs more than most
/// of what is done in it, so a thread keeps what it once had.
pub fn scratch<T: Pod, R>(len: usize, f: impl FnOnce(&mut [T]) -> R) -> Result<R, TensorError> {
    let bytes = len.checked_mul(size_of::<T>()).ok_or(TensorError::TooLarge { shape: vec![len] })?;
    let words = bytes.div_ceil(size_of::<u64>());
    // Taken out meanwhile: a thread that waits in `f` for others may do other work, with scratch of its own.
    let mut room = SCRATCH.take();
    if room.len() < words {
        room = zeros(&[words])?;
    }
    let result = f(&mut bytemuck::cast_slice_mut(&mut room)[..len]);
    if room.len() * size_of::<u64>() <= KEPT {
        SCRATCH.set(room);
    }
    Ok(result)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scratch_within_scratch_is_other_memory() {
        scratch(100, |outer: &mut [f32]| {
            outer.fill(1.0);
            scratch(50, |inner: &mut [f64]| inner.fill(2.0)).unwrap();
            assert!(outer.iter().all(|x| *x == 1.0));
        })
        .unwrap();
        assert_eq!(scratch(0, |none: &mut [f32]| none.len()).unwrap(), 0);
        assert!(scratch(usize::MAX, |_: &mut [f64]| ()).is_err());
    }

    #[test]
    fn too_much_is_an_error() {
        assert_eq!(zeros::<f32>(&[2, 3]).unwrap(), [0.0; 6]);
        assert!(zeros::<f64>(&[1 << 29, 1 << 29]).is_err());
        assert!(zeros::<f64>(&[usize::MAX, 3]).is_err());
    }
}
