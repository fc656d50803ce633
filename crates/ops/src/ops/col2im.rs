//! Col2Im: blocks laid out as columns back into an image, summed where they overlap; the inverse of unfolding.
//!
//! Input 0 is [N, C * block, L] with L blocks in C order, input 1 the image's spatial shape, input 2 the block's.

use isotrace_graph::Node;
use isotrace_tensor::{Odometer, Tensor, strides};

use crate::budget::{self, Budget, Unit};
use crate::moves::room;
use crate::ops::matmul::absolute;
use crate::{Call, Float, Flow, OpError, Operator, arguments, attributes, for_float};

#[derive(Debug)]
struct Col2Im {
    strides: Option<Vec<i64>>,
    pads: Option<Vec<i64>>,
    dilations: Option<Vec<i64>>,
}

/// Parses a node.
pub fn build(node: &Node) -> Result<Box<dyn Operator>, OpError> {
    Ok(Box::new(Col2Im {
        strides: attributes::ints(node, "strides")?,
        pads: attributes::ints(node, "pads")?,
        dilations: attributes::ints(node, "dilations")?,
    }))
}

/// One spatial axis.
struct Axis {
    size: usize,
    block: usize,
    stride: usize,
    dilation: usize,
    before: usize,
    /// Blocks along it.
    steps: usize,
}

impl Col2Im {
    fn axes(&self, call: &Call<'_>) -> Result<Vec<Axis>, OpError> {
        let image = arguments::sizes(&arguments::need_ints(call, 1, "image_shape")?, "image_shape")?;
        let block = arguments::sizes(&arguments::need_ints(call, 2, "block_shape")?, "block_shape")?;
        let rank = image.len();
        let list = |given: &Option<Vec<i64>>, name: &str, len: usize, default: usize| {
            given.as_ref().map_or(Ok(vec![default; len]), |g| arguments::sizes(g, name))
        };
        let stride = list(&self.strides, "strides", rank, 1)?;
        let dilation = list(&self.dilations, "dilations", rank, 1)?;
        let pads = list(&self.pads, "pads", 2 * rank, 0)?;
        let fits =
            [block.len(), stride.len(), dilation.len()].iter().all(|&n| n == rank) && pads.len() == 2 * rank;
        // Sizes up to 2^31 keep every sum and product of two of them in range.
        let sane = |list: &[usize], least: usize| list.iter().all(|n| (least..1 << 31).contains(n));
        if !fits || rank == 0 || !sane(&image, 0) || !sane(&block, 1) || !sane(&pads, 0) {
            return Err(OpError::Input(format!(
                "image_shape {image:?}, block_shape {block:?}, strides {stride:?}, dilations {dilation:?} and pads \
                 {pads:?} do not fit each other"
            )));
        }
        if !sane(&stride, 1) || !sane(&dilation, 1) {
            return Err(OpError::Setting(format!(
                "strides {stride:?} and dilations {dilation:?} must be above 0"
            )));
        }
        let axis = |i: usize| {
            let room = image[i] + pads[i] + pads[rank + i];
            let reach = dilation[i] * (block[i] - 1) + 1;
            let steps = room.checked_sub(reach).map_or(0, |left| left / stride[i] + 1);
            let (size, block, stride, dilation) = (image[i], block[i], stride[i], dilation[i]);
            Axis { size, block, stride, dilation, before: pads[i], steps }
        };
        Ok((0..rank).map(axis).collect())
    }
}

/// Sums columns into images; `image` is their spatial shape.
fn sum<T: Float>(columns: &[T], lanes: usize, axes: &[Axis], image: usize, out: &mut [T]) {
    let of = |f: fn(&Axis) -> usize| axes.iter().map(f).collect::<Vec<_>>();
    let (blocks, steps, sizes) = (of(|a| a.block), of(|a| a.steps), of(|a| a.size));
    let image_steps = strides(&sizes);
    let zero = vec![0; axes.len()];
    let count = |shape: &[usize]| Odometer::new(shape, &zero).count();
    let (in_block, in_grid) = (count(&blocks), count(&steps));
    let place = |mut i: usize, shape: &[usize]| -> Vec<usize> {
        let mut place = vec![0; shape.len()];
        for (p, &d) in place.iter_mut().zip(shape).rev() {
            (*p, i) = (i % d, i / d);
        }
        place
    };
    for b in 0..in_block {
        let inside = place(b, &blocks);
        for l in 0..in_grid {
            let step = place(l, &steps);
            let target = axes.iter().zip(&inside).zip(&step).zip(&image_steps).try_fold(
                0,
                |at, (((a, &i), &s), &w)| {
                    let p = (s * a.stride + i * a.dilation).checked_sub(a.before).filter(|&p| p < a.size)?;
                    Some(at + p * w)
                },
            );
            let Some(target) = target else { continue };
            for lane in 0..lanes {
                out[lane * image + target] += columns[(lane * in_block + b) * in_grid + l];
            }
        }
    }
}

impl Operator for Col2Im {
    fn run(&self, call: &Call<'_>) -> Result<Vec<Tensor>, OpError> {
        let data = call.need(0, "input")?;
        let axes = self.axes(call)?;
        let too_large = || isotrace_tensor::TensorError::TooLarge { shape: data.shape().to_vec() };
        let product = |f: fn(&Axis) -> usize| {
            axes.iter().try_fold(1usize, |n, a| n.checked_mul(f(a))).ok_or_else(too_large)
        };
        let (block, grid) = (product(|a| a.block)?, product(|a| a.steps)?);
        let &[n, depth, columns] = data.shape() else {
            return Err(OpError::Input(format!("input {:?} must be [N, C * block, L]", data.shape())));
        };
        if depth % block != 0 || columns != grid {
            return Err(OpError::Input(format!(
                "input {:?} must be [N, C * {block}, {grid}] for this image, block and these strides",
                data.shape()
            )));
        }
        let mut shape = vec![n, depth / block];
        shape.extend(axes.iter().map(|a| a.size));
        let image = product(|a| a.size)?;
        let out = for_float!(data.dtype(), "input", T => {
            let mut out = room(&shape)?;
            out.resize(isotrace_tensor::element_count(&shape)?, 0.0 as T);
            if !data.is_empty() {
                sum(data.as_slice::<T>()?, n * (depth / block), &axes, image, &mut out);
            }
            Ok(Tensor::from_vec(&shape, out)?)
        })?;
        Ok(vec![out])
    }

    fn flow(&self) -> Flow {
        Flow::Linear
    }

    fn budget(&self, call: &Call<'_>, _: usize, output: &Tensor, unit: Unit) -> Result<Budget, OpError> {
        // At most every place of a block meets.
        let terms: f64 = self.axes(call)?.iter().map(|a| a.block as f64).product();
        let data = absolute(call.need(0, "input")?)?;
        let magnitude = self.run(&call.with_inputs(&[Some(&data), call.get(1), call.get(2)]))?.swap_remove(0);
        budget::sum(output, &magnitude.to_f64()?, terms, unit)
    }
}

#[cfg(test)]
mod tests {
    use isotrace_graph::Attribute;

    use crate::testing::{counting, first, ints, node, run, tensor};

    #[test]
    fn blocks_sum_where_they_overlap() {
        // Two overlapping blocks of 2 on a row of 3, seen as an image of height 1.
        let columns = tensor(&[1, 2, 2], &[1f32, 2., 10., 20.]);
        let out = first(&node("Col2Im", 18, &[]), &[&columns, &ints(&[1, 3]), &ints(&[1, 2])]);
        assert_eq!(out.shape(), [1, 1, 1, 3]);
        assert_eq!(out.as_slice::<f32>().unwrap(), [1., 12., 20.]);

        let list = |name, v: &[i64]| (name, Attribute::Ints(v.to_vec()));
        let strided = node("Col2Im", 18, &[list("strides", &[1, 2]), list("pads", &[0, 1, 0, 0])]);
        let out = first(&strided, &[&columns, &ints(&[1, 3]), &ints(&[1, 2])]);
        assert_eq!(out.as_slice::<f32>().unwrap(), [10., 2., 20.]);
        let dilated = node("Col2Im", 18, &[list("dilations", &[1, 2])]);
        let out = first(&dilated, &[&columns, &ints(&[1, 4]), &ints(&[1, 2])]);
        assert_eq!(out.as_slice::<f32>().unwrap(), [1., 2., 10., 20.]);
    }

    #[test]
    fn misfits_are_errors() {
        let list = |name, v: &[i64]| (name, Attribute::Ints(v.to_vec()));
        let columns = counting(&[1, 2, 2]);
        let plain = node("Col2Im", 18, &[]);
        assert!(run(&plain, &[&columns, &ints(&[1, 4]), &ints(&[1, 2])]).is_err());
        assert!(run(&plain, &[&columns, &ints(&[3]), &ints(&[1, 2])]).is_err());
        assert!(run(&plain, &[&columns, &ints(&[1, i64::MAX]), &ints(&[1, 2])]).is_err());
        assert!(run(&plain, &[&columns, &ints(&[1, 3]), &ints(&[1, 0])]).is_err());
        let still = node("Col2Im", 18, &[list("strides", &[1, 0])]);
        assert!(run(&still, &[&columns, &ints(&[1, 3]), &ints(&[1, 2])]).is_err());
    }
}
