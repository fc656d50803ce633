//! Tensors built by walking along each axis of another on its own: slices, padding, tiling, expansion, picking
//! along one axis. One kernel serves them all and copies whole runs where they lie together.

use isotrace_tensor::{Tensor, TensorError, element_count, strides};

use crate::moves::{Move, move_elements};

/// A stretch of an output axis.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Piece {
    /// `len` places of the input axis: `start`, `start + step`, ... All lie inside the axis.
    From {
        /// The first place.
        start: usize,
        /// Distance to the next; 0 repeats, below 0 goes backwards.
        step: isize,
        /// How many.
        len: usize,
    },
    /// `len` places that hold the fill value.
    Fill {
        /// How many.
        len: usize,
    },
}

impl Piece {
    fn len(self) -> usize {
        match self {
            Self::From { len, .. } | Self::Fill { len } => len,
        }
    }
}

/// An output axis as stretches of an input axis.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Walk(Vec<Piece>);

impl Walk {
    /// The axis as it is.
    pub fn whole(size: usize) -> Self {
        Self(vec![Piece::From { start: 0, step: 1, len: size }])
    }

    /// Adds a stretch, joined to the one before where it goes on from there.
    pub fn push(&mut self, piece: Piece) {
        if piece.len() == 0 {
            return;
        }
        match (self.0.last_mut(), piece) {
            (Some(Piece::From { start, step: 1, len }), Piece::From { start: next, step, len: more })
                if *start + *len == next && (step == 1 || more == 1) =>
            {
                *len += more;
            }
            (Some(Piece::Fill { len }), Piece::Fill { len: more }) => *len += more,
            _ => self.0.push(piece),
        }
    }

    /// Adds one place.
    pub fn push_place(&mut self, place: usize) {
        self.push(Piece::From { start: place, step: 1, len: 1 });
    }

    /// Places in the order given.
    pub fn places(places: impl IntoIterator<Item = usize>) -> Self {
        let mut walk = Self::default();
        places.into_iter().for_each(|place| walk.push_place(place));
        walk
    }

    fn is_whole(&self, size: usize) -> bool {
        match self.0[..] {
            [] => size == 0,
            [Piece::From { start: 0, step, len }] => len == size && (step == 1 || size <= 1),
            _ => false,
        }
    }

    fn size(&self) -> Option<usize> {
        self.0.iter().try_fold(0usize, |sum, piece| sum.checked_add(piece.len()))
    }
}

/// Axes left after joining those that stay whole; more would need a tensor nobody can hold.
const MAX_AXES: usize = 64;

struct Kernel<'a> {
    walks: Vec<&'a Walk>,
    strides: Vec<usize>,
    /// Elements of one place of each walked axis in the output.
    inner: Vec<usize>,
    /// Elements that lie together at one place of the last walked axis.
    block: usize,
}

impl Kernel<'_> {
    fn fill<T: Copy>(&self, axis: usize, at: usize, data: &[T], fill: T, out: &mut Vec<T>) {
        let last = axis + 1 == self.walks.len();
        let stride = self.strides[axis];
        for &piece in &self.walks[axis].0 {
            match piece {
                Piece::Fill { len } => out.extend(std::iter::repeat_n(fill, len * self.inner[axis])),
                Piece::From { start, step: 1, len } if last => {
                    let from = at + start * stride;
                    out.extend_from_slice(&data[from..from + len * self.block]);
                }
                Piece::From { start, step, len } => {
                    let mut place = start as isize;
                    for _ in 0..len {
                        let from = at + place as usize * stride;
                        match (last, self.block) {
                            (false, _) => self.fill(axis + 1, from, data, fill, out),
                            (true, 1) => out.push(data[from]),
                            (true, block) => out.extend_from_slice(&data[from..from + block]),
                        }
                        place += step;
                    }
                }
            }
        }
    }
}

impl Move for Kernel<'_> {
    fn run<T: Copy + Send + Sync>(&self, data: &[&[T]], zero: T, out: &mut Vec<T>) {
        if out.capacity() == 0 {
            return;
        }
        let fill = data.get(1).and_then(|fill| fill.first().copied()).unwrap_or(zero);
        if self.walks.is_empty() {
            out.extend_from_slice(data[0]);
        } else {
            self.fill(0, 0, data[0], fill, out);
        }
    }
}

/// The tensor whose axis `i` is `walks[i]` along axis `i` of `data`; `fill` (one element of the same type, 0 where
/// left out) fills the places that come from nowhere.
pub fn walk(data: &Tensor, walks: &[Walk], fill: Option<&Tensor>) -> Result<Tensor, TensorError> {
    let input = data.shape();
    debug_assert_eq!(input.len(), walks.len());
    let too_large = || TensorError::TooLarge { shape: input.to_vec() };
    let shape: Option<Vec<usize>> = walks.iter().map(Walk::size).collect();
    let shape = shape.ok_or_else(too_large)?;
    if walks.iter().zip(input).all(|(walk, &size)| walk.is_whole(size)) {
        return Ok(data.clone());
    }
    let mut kernel = Kernel { walks: Vec::new(), strides: Vec::new(), inner: Vec::new(), block: 1 };
    if element_count(&shape)? == 0 {
        return move_elements(&[data], &shape, &kernel);
    }
    let input_strides = strides(input);
    for (axis, one) in walks.iter().enumerate() {
        if one.is_whole(input[axis]) && input[axis] == 1 {
            continue;
        }
        kernel.walks.push(one);
        kernel.strides.push(input_strides[axis]);
        kernel.inner.push(shape[axis + 1..].iter().product());
    }
    // Whole axes at the end lie together.
    let trailing = walks.iter().zip(input).rev().take_while(|(w, d)| w.is_whole(**d));
    let (mut whole, mut block) = (0, 1);
    for (_, &size) in trailing {
        whole += usize::from(size != 1);
        block *= size;
    }
    let walked = kernel.walks.len() - whole;
    kernel.walks.truncate(walked);
    kernel.block = block;
    if walked > MAX_AXES {
        return Err(too_large());
    }
    match fill {
        Some(fill) => move_elements(&[data, fill], &shape, &kernel),
        None => move_elements(&[data], &shape, &kernel),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{counting, tensor};

    /// Element by element from the definition.
    fn slowly(data: &Tensor, walks: &[Walk], fill: f32) -> Vec<f32> {
        let places = |walk: &Walk| -> Vec<Option<usize>> {
            let piece = |p: &Piece| -> Vec<Option<usize>> {
                match *p {
                    Piece::Fill { len } => vec![None; len],
                    Piece::From { start, step, len } => {
                        (0..len).map(|k| Some((start as isize + k as isize * step) as usize)).collect()
                    }
                }
            };
            walk.0.iter().flat_map(piece).collect()
        };
        let mut offsets = vec![Some(0)];
        for (walk, stride) in walks.iter().zip(strides(data.shape())) {
            let places = places(walk);
            offsets = offsets
                .iter()
                .flat_map(|at: &Option<usize>| places.iter().map(move |p| Some((*at)? + (*p)? * stride)))
                .collect();
        }
        let data = data.as_slice::<f32>().unwrap();
        offsets.into_iter().map(|at| at.map_or(fill, |at| data[at])).collect()
    }

    fn any_walk(size: usize, seed: u32) -> Walk {
        let mut walk = Walk::default();
        match seed % 6 {
            0 => return Walk::whole(size),
            1 => walk.push(Piece::Fill { len: 2 }),
            2 if size > 1 => walk.push(Piece::From { start: size - 1, step: -1, len: size }),
            3 if size > 2 => walk.push(Piece::From { start: 1, step: 2, len: size / 2 }),
            4 if size > 0 => walk.push(Piece::From { start: size - 1, step: 0, len: 3 }),
            _ => {
                walk.push(Piece::Fill { len: 1 });
                (0..size).for_each(|p| walk.push_place(p));
                walk.push(Piece::Fill { len: 1 });
            }
        }
        walk
    }

    proptest::proptest! {
        #[test]
        fn walks_agree_with_the_definition(
            axes in proptest::collection::vec((0usize..5, proptest::prelude::any::<u32>()), 0..5)
        ) {
            let shape: Vec<usize> = axes.iter().map(|a| a.0).collect();
            let data = counting(&shape);
            let walks: Vec<Walk> = axes.iter().map(|&(size, seed)| any_walk(size, seed)).collect();
            let fill = tensor(&[], &[-7f32]);
            let out = walk(&data, &walks, Some(&fill)).unwrap();
            proptest::prop_assert_eq!(out.as_slice::<f32>().unwrap(), slowly(&data, &walks, -7.0));
        }
    }

    #[test]
    fn a_size_nobody_can_hold_is_an_error() {
        let one = counting(&[1, 1]);
        let huge = Walk(vec![Piece::From { start: 0, step: 0, len: 1 << 40 }]);
        assert!(walk(&one, &[huge.clone(), huge], None).is_err());
        let most = Walk(vec![Piece::Fill { len: usize::MAX }, Piece::From { start: 0, step: 1, len: 1 }]);
        assert!(walk(&one, &[most, Walk::whole(1)], None).is_err());
    }
}
