use crate::TensorError;

/// Most elements a tensor may hold: what fits an `isize` of bytes at 16 bytes an element.
pub const MAX_ELEMENTS: usize = isize::MAX as usize / 16;

/// Number of elements a shape holds, checked against [`MAX_ELEMENTS`].
pub fn element_count(shape: &[usize]) -> Result<usize, TensorError> {
    if shape.contains(&0) {
        return Ok(0);
    }
    shape
        .iter()
        .try_fold(1usize, |n, &d| n.checked_mul(d).filter(|&n| n <= MAX_ELEMENTS))
        .ok_or_else(|| TensorError::TooLarge { shape: shape.to_vec() })
}

/// Strides, in elements, of a dense tensor in C order. Those of an empty tensor mean nothing and may wrap.
pub fn strides(shape: &[usize]) -> Vec<usize> {
    let mut strides = vec![1usize; shape.len()];
    for i in (1..shape.len()).rev() {
        strides[i - 1] = strides[i].wrapping_mul(shape[i]);
    }
    strides
}

/// The index along each axis of element `flat` in C order.
pub fn unravel(mut flat: usize, shape: &[usize]) -> Vec<usize> {
    let mut index = vec![0; shape.len()];
    for (place, &size) in index.iter_mut().zip(shape).rev() {
        *place = flat % size;
        flat /= size;
    }
    index
}

/// The shape two operands have after broadcasting, aligned at the last axis (NumPy's and ONNX's rule).
pub fn broadcast_shapes(a: &[usize], b: &[usize]) -> Result<Vec<usize>, TensorError> {
    let rank = a.len().max(b.len());
    let at = |s: &[usize], i: usize| (i + s.len()).checked_sub(rank).map_or(1, |k| s[k]);
    (0..rank)
        .map(|i| match (at(a, i), at(b, i)) {
            (x, y) if x == y => Ok(x),
            (1, y) => Ok(y),
            (x, 1) => Ok(x),
            _ => Err(TensorError::Broadcast { a: a.to_vec(), b: b.to_vec() }),
        })
        .collect()
}

/// An axis counted from either end, as ONNX writes it, as an index below `rank`.
pub fn normalise_axis(axis: i64, rank: usize) -> Result<usize, TensorError> {
    let shifted = if axis < 0 { axis.saturating_add(rank as i64) } else { axis };
    usize::try_from(shifted).ok().filter(|&a| a < rank).ok_or(TensorError::Axis { axis, rank })
}

/// Walks every index of a shape in C order and yields the offset that strides give it.
///
/// The innermost axis should be handled by the caller where speed matters.
#[derive(Debug, Clone)]
pub struct Odometer {
    shape: Vec<usize>,
    strides: Vec<usize>,
    index: Vec<usize>,
    offset: usize,
    left: usize,
}

impl Odometer {
    /// Starts at offset 0 of `shape`, whose axes are `strides` elements apart (0 repeats).
    pub fn new(shape: &[usize], strides: &[usize]) -> Self {
        debug_assert_eq!(shape.len(), strides.len());
        Self {
            shape: shape.to_vec(),
            strides: strides.to_vec(),
            index: vec![0; shape.len()],
            offset: 0,
            left: if shape.contains(&0) { 0 } else { shape.iter().product() },
        }
    }
}

impl Iterator for Odometer {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        if self.left == 0 {
            return None;
        }
        self.left -= 1;
        let here = self.offset;
        for axis in (0..self.shape.len()).rev() {
            self.index[axis] += 1;
            self.offset += self.strides[axis];
            if self.index[axis] < self.shape[axis] {
                break;
            }
            self.offset -= self.strides[axis] * self.shape[axis];
            self.index[axis] = 0;
        }
        Some(here)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl ExactSizeIterator for Odometer {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_broadcast_from_the_last_axis() {
        assert_eq!(broadcast_shapes(&[2, 1, 3], &[4, 1]).unwrap(), [2, 4, 3]);
        assert_eq!(broadcast_shapes(&[], &[0]).unwrap(), [0]);
        assert!(broadcast_shapes(&[2], &[3]).is_err());
    }

    #[test]
    fn huge_shapes_are_refused_and_empty_ones_are_not() {
        assert!(element_count(&[usize::MAX, 2]).is_err());
        assert_eq!(element_count(&[usize::MAX, usize::MAX, 0]).unwrap(), 0);
        assert_eq!(element_count(&[]).unwrap(), 1);
    }

    #[test]
    fn odometer_walks_a_transpose() {
        let order: Vec<_> = Odometer::new(&[3, 2], &[1, 3]).collect();
        assert_eq!(order, [0, 3, 1, 4, 2, 5]);
    }
}
