//! Tensors that look at a stretch of memory with strides, as frameworks keep them, made dense.

use bytes::Bytes;
use isotrace_tensor::{DType, Odometer, Tensor, element_count, strides};

use crate::TraceError;

/// Bytes that a view may make out of fewer by repeating them: far more than networks do, far less than memory.
const MOST: usize = 1 << 32;

/// A view of a storage.
#[derive(Debug, Clone)]
pub struct Strided {
    pub dtype: DType,
    pub shape: Vec<usize>,
    /// Elements between neighbours along each axis; `None`: C order.
    pub strides: Option<Vec<usize>>,
    /// Where its first element is, in elements.
    pub offset: usize,
}

impl Strided {
    /// The bytes of a storage of `length` bytes that the view looks at.
    pub fn span(&self, name: &str, length: usize) -> Result<std::ops::Range<usize>, TraceError> {
        let outside = || TraceError::Damaged {
            format: "tensor",
            problem: format!(
                "{name:?} reaches beyond its storage of {length} bytes: {} {:?}, strides {:?}, offset {}",
                self.dtype, self.shape, self.strides, self.offset
            ),
        };
        let size = self.dtype.size();
        let count = element_count(&self.shape).map_err(|_| outside())?;
        if self.strides.as_ref().is_some_and(|s| s.len() != self.shape.len()) || size == 0 {
            return Err(outside());
        }
        if count == 0 {
            return Ok(0..0);
        }
        let dense = strides(&self.shape);
        let steps = self.strides.as_deref().unwrap_or(&dense);
        let mut last = self.shape.iter().zip(steps);
        let last = last.try_fold(0usize, |sum, (&d, &s)| sum.checked_add((d - 1).checked_mul(s)?));
        let start = self.offset.checked_mul(size);
        let end = last.and_then(|l| l.checked_add(1)?.checked_mul(size)?.checked_add(start?));
        match (start, end) {
            (Some(start), Some(end)) if end <= length => Ok(start..end),
            _ => Err(outside()),
        }
    }

    /// The view, dense, over the bytes of its [`span`](Self::span); they are shared where they lie in C order.
    pub fn dense(&self, name: &str, span: &Bytes) -> Result<Tensor, TraceError> {
        let (size, dense) = (self.dtype.size(), strides(&self.shape));
        let steps = self.strides.as_deref().unwrap_or(&dense);
        let count = element_count(&self.shape).unwrap_or(0);
        let ordered = self.shape.iter().zip(steps.iter().zip(&dense)).all(|(&d, (s, t))| d == 1 || s == t);
        let data = if ordered || count == 0 {
            span.clone()
        } else {
            if count * size > MOST && count * size > span.len() {
                let problem = format!("{name:?} makes {} bytes of {}", count * size, span.len());
                return Err(TraceError::Bomb { problem });
            }
            let mut data = Vec::with_capacity(count * size);
            for at in Odometer::new(&self.shape, steps) {
                data.extend_from_slice(&span[at * size..(at + 1) * size]);
            }
            data.into()
        };
        Tensor::from_bytes(self.dtype, &self.shape, data)
            .map_err(|cause| TraceError::Tensor { name: name.into(), cause })
    }
}
