use std::borrow::Cow;

use crate::{Odometer, TensorError, permute, strides};

/// A typed window on a tensor's elements with its own shape and strides; copies nothing.
///
/// Strides are in elements; a stride of 0 repeats one element (broadcasting).
#[derive(Debug, Clone)]
pub struct View<'a, T> {
    data: &'a [T],
    shape: Vec<usize>,
    strides: Vec<usize>,
}

impl<'a, T: Copy + Send + Sync> View<'a, T> {
    /// A dense view in C order. `data` holds as many elements as `shape`.
    pub fn new(data: &'a [T], shape: &[usize]) -> Self {
        debug_assert_eq!(Ok(data.len()), crate::element_count(shape));
        Self { data, shape: shape.to_vec(), strides: strides(shape) }
    }

    /// The shape.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Distance, in elements, between neighbours along each axis.
    pub fn strides(&self) -> &[usize] {
        &self.strides
    }

    /// The elements that the view looks into, from its first one on; not in the view's order.
    pub fn data(&self) -> &'a [T] {
        self.data
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        if self.is_empty() { 0 } else { self.shape.iter().product() }
    }

    /// Whether the view has no element.
    pub fn is_empty(&self) -> bool {
        self.shape.contains(&0)
    }

    /// Axis `i` of the result is axis `perm[i]` of this view. `perm` is a permutation of the axes.
    #[must_use]
    pub fn permute(&self, perm: &[usize]) -> Self {
        debug_assert_eq!(perm.len(), self.shape.len());
        Self {
            data: self.data,
            shape: perm.iter().map(|&p| self.shape[p]).collect(),
            strides: perm.iter().map(|&p| self.strides[p]).collect(),
        }
    }

    /// Repeats axes of size 1, and adds leading axes, until the view has `shape`.
    pub fn broadcast(&self, shape: &[usize]) -> Result<Self, TensorError> {
        let error = || TensorError::Broadcast { a: self.shape.clone(), b: shape.to_vec() };
        let lead = shape.len().checked_sub(self.shape.len()).ok_or_else(error)?;
        let mut out = vec![0; shape.len()];
        for (i, (&d, &s)) in self.shape.iter().zip(&self.strides).enumerate() {
            out[lead + i] = match (d, shape[lead + i]) {
                (d, e) if d == e => s,
                (1, _) => 0,
                _ => return Err(error()),
            };
        }
        Ok(Self { data: self.data, shape: shape.to_vec(), strides: out })
    }

    /// Whether the elements lie one after the other in C order.
    pub fn is_contiguous(&self) -> bool {
        if self.is_empty() {
            return true;
        }
        let mut expected = 1;
        for (&d, &s) in self.shape.iter().zip(&self.strides).rev() {
            if d != 1 && s != expected {
                return false;
            }
            expected *= d;
        }
        true
    }

    /// The elements in C order.
    pub fn iter(&self) -> impl Iterator<Item = T> + '_ {
        Odometer::new(&self.shape, &self.strides).map(|i| self.data[i])
    }

    /// The elements in C order as one slice, copied only where the view is not contiguous.
    pub fn to_contiguous(&self) -> Cow<'a, [T]> {
        let n = self.len();
        if self.is_contiguous() { Cow::Borrowed(&self.data[..n]) } else { Cow::Owned(self.to_vec()) }
    }

    /// A copy of the elements in C order.
    pub fn to_vec(&self) -> Vec<T> {
        if self.is_contiguous() {
            return self.data[..self.len()].to_vec();
        }
        let mut out = vec![self.data[0]; self.len()];
        permute::copy(self.data, &self.shape, &self.strides, &mut out);
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn permuted_and_broadcast_views_read_in_their_own_order() {
        let data = [1, 2, 3, 4, 5, 6];
        let view = View::new(&data, &[2, 3]);
        assert_eq!(view.permute(&[1, 0]).to_vec(), [1, 4, 2, 5, 3, 6]);
        assert_eq!(View::new(&data[..2], &[2, 1]).broadcast(&[2, 3]).unwrap().to_vec(), [1, 1, 1, 2, 2, 2]);
        assert!(view.broadcast(&[3, 3]).is_err());
        assert_eq!(View::new(&data[..0], &[0, 3]).permute(&[1, 0]).to_vec(), [0; 0]);
        assert!(matches!(view.to_contiguous(), Cow::Borrowed(_)));
    }
}
