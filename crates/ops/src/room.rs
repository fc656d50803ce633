//! Memory for outputs whose sizes a file decides.

use bytemuck::Zeroable;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_much_is_an_error() {
        assert_eq!(zeros::<f32>(&[2, 3]).unwrap(), [0.0; 6]);
        assert!(zeros::<f64>(&[1 << 29, 1 << 29]).is_err());
        assert!(zeros::<f64>(&[usize::MAX, 3]).is_err());
    }
}
