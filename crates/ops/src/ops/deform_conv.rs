//! `DeformConv`: a convolution whose elements are read at places that offsets move, by linear interpolation, each
//! weighed by a mask (Dai et al. 2017, Zhu et al. 2018).
//!
//! X is [N, C, D1, ..., Dk], W [M, C / group, K1, ..., Kk], the offsets [N, G * K * k, O1, ..., Ok] with K = K1 ... Kk
//! and, for each of G groups of channels and each element of the kernel, k numbers, first axis first; B `[M]`, the mask
//! [N, G * K, O1, ..., Ok]. What lies outside counts as zero.

use isotrace_graph::Node;
use isotrace_tensor::{Tensor, strides, unravel};

use super::grid_sample::{Tap, products};
use crate::budget::{self, Budget, Unit};
use crate::product::{Matrix, product};
use crate::room::zeros;
use crate::window::{Settings, Window};
use crate::{Call, Float, OpError, Operator, attributes, for_float};

#[derive(Debug)]
struct DeformConv {
    settings: Settings,
    groups: usize,
    offset_groups: usize,
}

/// Parses a node.
pub fn build(node: &Node) -> Result<Box<dyn Operator>, OpError> {
    let groups = |name: &str| {
        let found = attributes::int_or(node, name, 1)?;
        usize::try_from(found)
            .ok()
            .filter(|&g| g > 0)
            .ok_or_else(|| OpError::Setting(format!("{name} is {found}, it must be positive")))
    };
    Ok(Box::new(DeformConv {
        settings: Settings::parse(node)?,
        groups: groups("group")?,
        offset_groups: groups("offset_group")?,
    }))
}

/// What is computed: the output, or for a bound the sum of the absolute products together with what a rounding of
/// the places moves.
#[derive(Clone, Copy, PartialEq, Eq)]
enum What {
    Output,
    Magnitude,
}

/// Sizes that fit each other.
struct Sizes {
    batch: usize,
    channels: usize,
    out_channels: usize,
    window: Window,
}

impl DeformConv {
    fn sizes(&self, call: &Call<'_>) -> Result<Sizes, OpError> {
        let (x, w) = (call.need(0, "X")?.shape(), call.need(1, "W")?.shape());
        let offset = call.need(2, "offset")?.shape();
        let misfit = || {
            OpError::Input(format!(
                "X {x:?}, W {w:?}, offset {offset:?}, B {:?} and mask {:?} do not go together with {} groups and {} \
                 groups of offsets",
                call.get(3).map(Tensor::shape),
                call.get(4).map(Tensor::shape),
                self.groups,
                self.offset_groups
            ))
        };
        if x.len() < 3 || w.len() != x.len() {
            return Err(misfit());
        }
        let window = self.settings.window(&x[2..], Some(&w[2..]))?;
        let (batch, channels, out_channels, taps) = (x[0], x[1], w[0], window.taps());
        let placed = |axes: usize| {
            let mut shape = vec![batch, self.offset_groups * taps * axes];
            shape.extend_from_slice(&window.output);
            shape
        };
        let divided = channels % self.groups == 0
            && out_channels % self.groups == 0
            && channels % self.offset_groups == 0
            && w[1] == channels / self.groups;
        let fits = divided
            && offset == placed(window.input.len())
            && call.get(3).is_none_or(|b| b.shape() == [out_channels])
            && call.get(4).is_none_or(|m| m.shape() == placed(1));
        if fits { Ok(Sizes { batch, channels, out_channels, window }) } else { Err(misfit()) }
    }

    fn compute<T: Float>(&self, call: &Call<'_>, what: What) -> Result<Tensor, OpError> {
        let Sizes { batch, channels, out_channels, window } = self.sizes(call)?;
        let (x, w) = (call.need(0, "X")?.as_slice::<T>()?, call.need(1, "W")?.as_slice::<T>()?);
        let offset = call.need(2, "offset")?.as_slice::<T>()?;
        let bias = call.get(3).map(Tensor::as_slice::<T>).transpose()?;
        let mask = call.get(4).map(Tensor::as_slice::<T>).transpose()?;
        let absolute = |x: T| if what == What::Magnitude { x.abs() } else { x };
        let w: Vec<T> = w.iter().map(|&w| absolute(w)).collect();
        let (axes, pixels, taps) = (window.input.len(), window.pixels(), window.taps());
        let plane: usize = window.input.iter().product();
        let steps = strides(&window.input);
        let mut shape = vec![batch, out_channels];
        shape.extend_from_slice(&window.output);
        let mut out = zeros::<T>(&shape)?;
        // Row (channel, tap), column the place in the output.
        let mut columns = zeros::<T>(&[channels, taps, pixels])?;
        let (group, out_group) = (channels / self.groups, out_channels / self.groups);
        let members = channels / self.offset_groups;
        for n in 0..batch {
            for (g, columns) in columns.chunks_mut((members * taps * pixels).max(1)).enumerate() {
                for tap in 0..taps {
                    let k = unravel(tap, &window.kernel);
                    let row = (n * self.offset_groups + g) * taps + tap;
                    for pixel in 0..pixels {
                        let o = unravel(pixel, &window.output);
                        let mut moved = T::ZERO;
                        let along: Vec<Vec<Tap<T>>> = (0..axes)
                            .map(|a| {
                                let still = (o[a] * window.strides[a] + k[a] * window.dilations[a]) as f64
                                    - window.begin[a] as f64;
                                let at = T::of(still) + offset[(row * axes + a) * pixels + pixel];
                                moved += at.abs();
                                between(at, window.input[a]).to_vec()
                            })
                            .collect();
                        let weight = mask.map_or(T::ONE, |m| absolute(m[row * pixels + pixel]));
                        let read = products(&along, &steps);
                        for c in 0..members {
                            let from = &x[(n * channels + g * members + c) * plane..][..plane];
                            let mut sum = T::ZERO;
                            for &(at, part) in &read {
                                let Some(at) = at else { continue };
                                sum += match what {
                                    What::Output => part * from[at],
                                    What::Magnitude => (part + moved) * from[at].abs(),
                                };
                            }
                            columns[(c * taps + tap) * pixels + pixel] = sum * weight;
                        }
                    }
                }
            }
            let rows = group * taps;
            for g in 0..self.groups {
                let left =
                    Matrix { data: &w[g * out_group * rows..][..out_group * rows], row: rows, column: 1 };
                let right =
                    Matrix { data: &columns[g * rows * pixels..][..rows * pixels], row: pixels, column: 1 };
                let out = &mut out[(n * out_channels + g * out_group) * pixels..][..out_group * pixels];
                product(out_group, rows, pixels, left, right, out, true);
            }
        }
        if let Some(bias) = bias.filter(|_| pixels > 0) {
            for (i, out) in out.chunks_mut(pixels).enumerate() {
                let bias = absolute(bias[i % out_channels]);
                for y in out {
                    *y += bias;
                }
            }
        }
        Ok(Tensor::from_vec(&shape, out)?)
    }
}

/// The two elements around a place with their weights; outside they count as zero.
fn between<T: Float>(at: T, length: usize) -> [Tap<T>; 2] {
    let low = at.wide().floor();
    let part = at - T::of(low);
    // A place that is no number reads no element, and stays no number.
    let inside = |i: f64| (i >= 0.0 && i < length as f64).then_some(i as usize);
    [(inside(low), T::ONE - part), (inside(low + 1.0), part)]
}

impl Operator for DeformConv {
    fn run(&self, call: &Call<'_>) -> Result<Vec<Tensor>, OpError> {
        Ok(vec![for_float!(call.need(0, "X")?.dtype(), "X", T => self.compute::<T>(call, What::Output))?])
    }

    fn budget(&self, call: &Call<'_>, _: usize, output: &Tensor, unit: Unit) -> Result<Budget, OpError> {
        let magnitude = self.compute::<f64>(call, What::Magnitude)?;
        let w = call.need(1, "W")?.shape();
        let taps = 2f64.powi(w.len() as i32 - 2);
        budget::sum(output, &magnitude.to_f64()?, w[1..].iter().product::<usize>() as f64 + taps, unit)
    }
}

#[cfg(test)]
mod tests {
    use isotrace_graph::Attribute;

    use crate::testing::{counting, first, node, run, run_optional, tensor};

    #[test]
    fn without_offsets_it_is_a_convolution() {
        let set = |op| {
            let list = |l: &[i64]| Attribute::Ints(l.to_vec());
            let attributes = [
                ("pads", list(&[1, 0, 1, 2])),
                ("strides", list(&[2, 1])),
                ("dilations", list(&[1, 2])),
                ("group", Attribute::Int(2)),
            ];
            node(op, 19, &attributes)
        };
        let (x, w, b) = (counting(&[2, 4, 5, 6]), counting(&[6, 2, 3, 2]), counting(&[6]));
        let expected = first(&set("Conv"), &[&x, &w, &b]);
        let &[n, _, h, wide] = expected.shape() else { panic!() };
        let still = tensor(&[n, 12, h, wide], &vec![0f32; n * 12 * h * wide]);
        assert_eq!(
            first(&set("DeformConv"), &[&x, &w, &still, &b]).to_f64().unwrap(),
            expected.to_f64().unwrap()
        );
        // Half of everything by the mask, and the bias whole.
        let half = tensor(&[n, 6, h, wide], &vec![0.5f32; n * 6 * h * wide]);
        let halved = first(&set("DeformConv"), &[&x, &w, &still, &b, &half]).to_f64().unwrap().into_owned();
        let plain = first(&set("Conv"), &[&x, &w]).to_f64().unwrap().into_owned();
        let bias = |i: usize| (i / (h * wide) % 6) as f64;
        assert!(halved.iter().zip(&plain).enumerate().all(|(i, (y, p))| *y == p / 2.0 + bias(i)));
    }

    #[test]
    fn places_between_and_beyond() {
        let conv = node("DeformConv", 19, &[]);
        let (x, w) = (counting(&[1, 1, 2, 2]), tensor(&[1, 1, 1, 1], &[1f32]));
        let at = |y: f32, x: f32| tensor(&[1, 2, 2, 2], &[y, 0., 0., 0., x, 0., 0., 0.]);
        for (y, across, expected) in
            [(0.5, 0.5, 1.5), (-0.5, 0., 0.), (1.5, 1., 1.5), (-2., 0., 0.), (1e30, 0., 0.)]
        {
            let out = first(&conv, &[&x, &w, &at(y, across)]);
            assert_eq!(out.as_slice::<f32>().unwrap()[0], expected, "({y}, {across})");
        }
        assert_eq!(first(&conv, &[&x, &w, &at(f32::NAN, 0.)]).len(), 4);
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let conv = node("DeformConv", 19, &[("offset_group", Attribute::Int(2))]);
        let (x, w) = (counting(&[1, 2, 3, 3]), counting(&[2, 2, 1, 1]));
        let fits = counting(&[1, 4, 3, 3]);
        assert!(run(&conv, &[&x, &w, &fits]).is_ok());
        assert!(run(&conv, &[&x, &w, &counting(&[1, 2, 3, 3])]).is_err());
        assert!(run(&conv, &[&x, &counting(&[2, 1, 1, 1]), &fits]).is_err());
        assert!(run(&conv, &[&x, &w, &fits, &counting(&[3])]).is_err());
        assert!(
            run_optional(&conv, &[Some(&x), Some(&w), Some(&fits), None, Some(&counting(&[1, 4, 3, 3]))])
                .is_err()
        );
        let none = first(&conv, &[&counting(&[0, 2, 3, 3]), &w, &counting(&[0, 4, 3, 3])]);
        assert_eq!(none.shape(), [0, 2, 3, 3]);
    }
}
