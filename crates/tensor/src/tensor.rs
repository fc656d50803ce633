use std::borrow::Cow;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;

use crate::convert::each;
use crate::room::Copied;
use crate::{DType, Element, TensorError, View, element_count, permute};

/// A dense tensor in C order. Immutable; clones share the elements.
#[derive(Clone)]
pub struct Tensor {
    dtype: DType,
    shape: Vec<usize>,
    data: Data,
}

#[derive(Clone)]
enum Data {
    Bytes(Bytes),
    Loose(Arc<Loose>),
    Strings(Arc<[String]>),
}

/// Bytes of a file that do not lie as their elements want to. They are copied to where they do when they are first read
/// as numbers; weights that are only compared never are.
struct Loose {
    bytes: Bytes,
    aligned: OnceLock<Bytes>,
    /// Whether the copy serves one reader, after whom another takes its memory.
    passing: bool,
}

/// Lets a typed vector be the owner behind [`Bytes`] without copying it.
struct Owner<T>(Vec<T>);

impl<T: bytemuck::Pod> AsRef<[u8]> for Owner<T> {
    fn as_ref(&self) -> &[u8] {
        bytemuck::cast_slice(&self.0)
    }
}

impl Tensor {
    /// Takes over `data`, which holds the elements of `shape` in C order.
    pub fn from_vec<T: Element>(shape: &[usize], data: Vec<T>) -> Result<Self, TensorError> {
        check_length(shape, data.len())?;
        Ok(Self { dtype: T::DTYPE, shape: shape.to_vec(), data: Data::Bytes(Bytes::from_owner(Owner(data))) })
    }

    /// A tensor of text.
    pub fn from_strings(shape: &[usize], data: Vec<String>) -> Result<Self, TensorError> {
        check_length(shape, data.len())?;
        Ok(Self { dtype: DType::String, shape: shape.to_vec(), data: Data::Strings(data.into()) })
    }

    /// Reads little-endian bytes as elements of `dtype`, without copying where their alignment allows.
    pub fn from_bytes(dtype: DType, shape: &[usize], bytes: Bytes) -> Result<Self, TensorError> {
        let expected = element_count(shape)?;
        let size = dtype.size();
        if size == 0 || bytes.len() != expected * size {
            let found = bytes.len().checked_div(size).unwrap_or(0);
            return Err(TensorError::Length { found, expected, shape: shape.to_vec() });
        }
        // Mapped files promise no alignment; 16 covers every element type.
        let aligned = bytes.as_ptr().align_offset(size.min(16)) == 0;
        let data = if aligned {
            Data::Bytes(bytes)
        } else {
            Data::Loose(Arc::new(Loose { bytes, aligned: OnceLock::new(), passing: false }))
        };
        Ok(Self { dtype, shape: shape.to_vec(), data })
    }

    /// Takes over elements known only by their width, as kernels that move them without reading do.
    pub fn from_pods<T: bytemuck::Pod + Send + Sync>(
        dtype: DType,
        shape: &[usize],
        data: Vec<T>,
    ) -> Result<Self, TensorError> {
        check_length(shape, data.len())?;
        if dtype.size() != size_of::<T>() {
            return Err(TensorError::Length { found: size_of::<T>(), expected: dtype.size(), shape: vec![] });
        }
        Ok(Self { dtype, shape: shape.to_vec(), data: Data::Bytes(Bytes::from_owner(Owner(data))) })
    }

    /// A tensor of rank 0.
    pub fn scalar<T: Element>(value: T) -> Self {
        Self::from_vec(&[], vec![value]).expect("one element fills rank 0")
    }

    /// A tensor of rank 1.
    pub fn vector<T: Element>(data: Vec<T>) -> Self {
        Self { dtype: T::DTYPE, shape: vec![data.len()], data: Data::Bytes(Bytes::from_owner(Owner(data))) }
    }

    /// A tensor with every element `value`.
    pub fn full<T: Element>(shape: &[usize], value: T) -> Result<Self, TensorError> {
        Self::from_vec(shape, vec![value; element_count(shape)?])
    }

    /// The element type.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// The shape; empty for a scalar.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Number of axes.
    pub fn rank(&self) -> usize {
        self.shape.len()
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        match &self.data {
            Data::Strings(strings) => strings.len(),
            _ => self.raw_bytes().len() / self.dtype.size(),
        }
    }

    /// Whether there is no element.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The elements in C order, if they are of type `T`.
    pub fn as_slice<T: Element>(&self) -> Result<&[T], TensorError> {
        match self.aligned() {
            Some(bytes) if self.dtype == T::DTYPE => Ok(bytemuck::cast_slice(bytes)),
            _ => Err(TensorError::DType { found: self.dtype, expected: T::DTYPE }),
        }
    }

    /// The elements of a tensor of text.
    pub fn as_strings(&self) -> Result<&[String], TensorError> {
        match &self.data {
            Data::Strings(strings) => Ok(strings),
            _ => Err(TensorError::DType { found: self.dtype, expected: DType::String }),
        }
    }

    /// A dense view of the elements, if they are of type `T`.
    pub fn view<T: Element>(&self) -> Result<View<'_, T>, TensorError> {
        Ok(View::new(self.as_slice()?, &self.shape))
    }

    /// The elements as little-endian bytes (empty for text), where each can be read in place.
    pub fn bytes(&self) -> &[u8] {
        self.aligned().map_or(&[], |bytes| bytes)
    }

    /// The elements as little-endian bytes (empty for text), wherever they lie: to be compared, hashed or written.
    pub fn raw_bytes(&self) -> &[u8] {
        match &self.data {
            Data::Bytes(bytes) => bytes,
            Data::Loose(loose) => &loose.bytes,
            Data::Strings(_) => &[],
        }
    }

    /// The bytes where their elements can be read in place; `None` for text.
    fn aligned(&self) -> Option<&Bytes> {
        match &self.data {
            Data::Bytes(bytes) => Some(bytes),
            Data::Loose(loose) => {
                let copy = if loose.passing { Copied::of } else { Copied::kept };
                Some(loose.aligned.get_or_init(|| aligned(copy(&loose.bytes), loose.bytes.len())))
            }
            Data::Strings(_) => None,
        }
    }

    /// To be read once: numbers that do not lie as they want to are copied, if they are read in place at all, for whoever
    /// holds the result, not for good.
    pub fn to_be_read(self) -> Self {
        match &self.data {
            Data::Loose(loose) if loose.aligned.get().is_none() => {
                let bytes = loose.bytes.clone();
                let loose = Loose { bytes, aligned: OnceLock::new(), passing: true };
                Self { data: Data::Loose(Arc::new(loose)), ..self }
            }
            _ => self,
        }
    }

    /// The elements as little-endian bytes, where no one can read them in place and none has asked to.
    pub fn loose_bytes(&self) -> Option<&[u8]> {
        match &self.data {
            Data::Loose(loose) if loose.aligned.get().is_none() => Some(&loose.bytes),
            _ => None,
        }
    }

    /// The same elements under another shape of as many.
    pub fn reshape(&self, shape: &[usize]) -> Result<Self, TensorError> {
        check_length(shape, self.len())?;
        Ok(Self { dtype: self.dtype, shape: shape.to_vec(), data: self.data.clone() })
    }

    /// The same bits read as another type of as many bytes, without copying where their alignment allows.
    pub fn bit_cast(&self, dtype: DType) -> Result<Self, TensorError> {
        match self.aligned() {
            Some(bytes) if self.dtype.size() == dtype.size() => {
                Self::from_bytes(dtype, &self.shape, bytes.clone())
            }
            _ => Err(TensorError::Convert { from: self.dtype, to: dtype }),
        }
    }

    /// A copy with axis `i` of the result axis `perm[i]` of this tensor.
    pub fn permute(&self, perm: &[usize]) -> Result<Self, TensorError> {
        let shape: Vec<usize> = perm.iter().map(|&p| self.shape[p]).collect();
        // A permutation that moves only axes of size 1 leaves the elements where they are.
        if perm.iter().filter(|&&p| self.shape[p] != 1).is_sorted() {
            return self.reshape(&shape);
        }
        let Some(bytes) = self.aligned() else {
            // Strings are not `Copy`: permute their positions.
            let s = self.as_strings()?;
            let order: Vec<usize> = (0..s.len()).collect();
            let moved = View::new(&order, &self.shape).permute(perm).to_vec();
            return Self::from_strings(&shape, moved.into_iter().map(|i| s[i].clone()).collect());
        };
        let data = match self.dtype.size() {
            1 => pod_permute::<u8>(bytes, &self.shape, perm),
            2 => pod_permute::<u16>(bytes, &self.shape, perm),
            4 => pod_permute::<u32>(bytes, &self.shape, perm),
            8 if self.dtype == DType::C64 => pod_permute::<[f32; 2]>(bytes, &self.shape, perm),
            8 => pod_permute::<u64>(bytes, &self.shape, perm),
            _ => pod_permute::<[f64; 2]>(bytes, &self.shape, perm),
        };
        Ok(Self { dtype: self.dtype, shape, data: Data::Bytes(data) })
    }

    /// A copy of `len` places along an axis, from `start` on. Fails for text, and where the tensor ends before.
    pub fn slice(&self, axis: usize, start: usize, len: usize) -> Result<Self, TensorError> {
        let Some(&size) = self.shape.get(axis) else {
            return Err(TensorError::Axis { axis: axis as i64, rank: self.rank() });
        };
        let mut shape = self.shape.clone();
        shape[axis] = len;
        let fits = start.checked_add(len).is_some_and(|end| end <= size);
        if !fits {
            return Err(TensorError::Length { shape, expected: size, found: start.saturating_add(len) });
        }
        let Some(bytes) = self.aligned() else {
            return Err(TensorError::Convert { from: self.dtype, to: self.dtype });
        };
        let inner = self.shape[axis + 1..].iter().product::<usize>() * self.dtype.size();
        let mut out = Vec::with_capacity(element_count(&shape)? * self.dtype.size());
        for block in bytes.chunks((size * inner).max(1)) {
            out.extend_from_slice(&block[start * inner..(start + len) * inner]);
        }
        Self::from_bytes(self.dtype, &shape, out.into())
    }

    /// Whether both hold the same type, shape and bits. NaN equals NaN of the same bits; 0 is not -0.
    pub fn bit_eq(&self, other: &Self) -> bool {
        self.dtype == other.dtype
            && self.shape == other.shape
            && match (&self.data, &other.data) {
                (Data::Strings(a), Data::Strings(b)) => Arc::ptr_eq(a, b) || a == b,
                (Data::Strings(_), _) | (_, Data::Strings(_)) => false,
                _ => {
                    let (a, b) = (self.raw_bytes(), other.raw_bytes());
                    // Clones share their elements; nothing need be read to know that they are equal.
                    std::ptr::eq(a, b) || a == b
                }
            }
    }

    /// The elements as f64, borrowed where they are f64 already. Fails for text and complex numbers.
    ///
    /// Integers beyond 2^53 are rounded to nearest.
    pub fn to_f64(&self) -> Result<Cow<'_, [f64]>, TensorError> {
        match self.dtype {
            DType::F64 => Ok(Cow::Borrowed(self.as_slice()?)),
            // The type of nearly every call, without the second copy.
            DType::F32 => Ok(Cow::Owned(self.widened())),
            _ => Ok(Cow::Owned(self.cast(DType::F64)?.as_slice::<f64>()?.to_vec())),
        }
    }

    /// The elements of an f32 tensor as f64, read wherever they lie.
    pub(crate) fn widened(&self) -> Vec<f64> {
        let (elements, _) = self.raw_bytes().as_chunks::<4>();
        each(elements, |x: [u8; 4]| f64::from(f32::from_le_bytes(x)))
    }

    /// The elements of an integer or bool tensor as i64 (u64 beyond `i64::MAX` saturates).
    pub fn to_i64(&self) -> Result<Cow<'_, [i64]>, TensorError> {
        if self.dtype == DType::I64 {
            return Ok(Cow::Borrowed(self.as_slice()?));
        }
        if !self.dtype.is_int() && self.dtype != DType::Bool {
            return Err(TensorError::DType { found: self.dtype, expected: DType::I64 });
        }
        let wide = self.cast(DType::I64)?;
        Ok(Cow::Owned(wide.as_slice::<i64>()?.to_vec()))
    }
}

impl std::fmt::Debug for Tensor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        const SHOWN: usize = 8;
        write!(f, "Tensor({}{:?}", self.dtype, self.shape)?;
        if let Ok(strings) = self.as_strings() {
            write!(f, " {:?}", &strings[..strings.len().min(SHOWN)])?;
        } else if let Ok(values) = self.to_f64() {
            write!(f, " {:?}", &values[..values.len().min(SHOWN)])?;
        }
        write!(f, "{})", if self.len() > SHOWN { " ..." } else { "" })
    }
}

fn check_length(shape: &[usize], found: usize) -> Result<(), TensorError> {
    let expected = element_count(shape)?;
    if expected == found {
        Ok(())
    } else {
        Err(TensorError::Length { found, expected, shape: shape.to_vec() })
    }
}

fn aligned(copied: Copied, len: usize) -> Bytes {
    Bytes::from_owner(copied).slice(..len)
}

fn pod_permute<T: bytemuck::Pod + Send + Sync>(bytes: &Bytes, shape: &[usize], perm: &[usize]) -> Bytes {
    let elements: &[T] = bytemuck::cast_slice(bytes);
    let view = View::new(elements, shape).permute(perm);
    let mut out = vec![T::zeroed(); elements.len()];
    permute::copy(elements, view.shape(), view.strides(), &mut out);
    Bytes::from_owner(Owner(out))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_checked_and_reshapes_share() {
        assert!(Tensor::from_vec(&[2, 2], vec![1f32]).is_err());
        let t = Tensor::from_vec(&[2, 3], (0..6).collect::<Vec<i32>>()).unwrap();
        let r = t.reshape(&[3, 2]).unwrap();
        assert_eq!(t.bytes().as_ptr(), r.bytes().as_ptr());
        assert!(t.reshape(&[4]).is_err());
        assert_eq!(t.permute(&[1, 0]).unwrap().as_slice::<i32>().unwrap(), [0, 3, 1, 4, 2, 5]);
    }

    #[test]
    fn unaligned_bytes_are_copied_and_read_right() {
        let raw = Bytes::from(vec![9u8, 0, 0, 128, 63, 0, 0, 0, 64]);
        let t = Tensor::from_bytes(DType::F32, &[2], raw.slice(1..)).unwrap();
        assert_eq!(t.as_slice::<f32>().unwrap(), [1.0, 2.0]);
        assert!(Tensor::from_bytes(DType::F32, &[3], raw.slice(1..)).is_err());
    }
}
