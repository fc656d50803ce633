//! Conv over any number of spatial axes, and com.microsoft's `FusedConv`: with a residual Z added and an activation
//! applied.
//!
//! X is (N, C, D1, ...), W (M, C / group, k1, ...), B (M), Z shaped as the output (N, M, ...). A window element in
//! the padding counts as 0.

use isotrace_graph::Node;
use isotrace_tensor::Tensor;

use crate::activation::Activation;
use crate::budget::{self, Budget, Unit};
use crate::convolve::{Finish, Sizes, convolve};
use crate::magnitude::magnitude;
use crate::window::Settings;
use crate::{Call, Float, Flow, Norms, OpError, Operator, attributes, flow, for_float};

#[derive(Debug, Clone)]
pub(crate) struct Conv {
    pub(crate) settings: Settings,
    pub(crate) groups: usize,
    pub(crate) activation: Activation,
}

/// Reads a positive attribute `group`.
pub(crate) fn groups(node: &Node) -> Result<usize, OpError> {
    let group = attributes::int_or(node, "group", 1)?;
    usize::try_from(group)
        .ok()
        .filter(|&g| g > 0)
        .ok_or_else(|| OpError::Setting(format!("group {group} must be at least 1")))
}

/// Parses a Conv.
pub fn build(node: &Node) -> Result<Box<dyn Operator>, OpError> {
    let settings = Settings::parse(node)?;
    Ok(Box::new(Conv { settings, groups: groups(node)?, activation: Activation::Identity }))
}

/// Parses a `FusedConv`: attributes `activation` and `activation_params` besides Conv's.
pub fn build_fused(node: &Node) -> Result<Box<dyn Operator>, OpError> {
    Ok(Box::new(parse_fused(node)?))
}

pub(crate) fn parse_fused(node: &Node) -> Result<Conv, OpError> {
    let name = attributes::text_or(node, "activation", "")?;
    let parameters = attributes::floats(node, "activation_params")?.unwrap_or_default();
    let activation = Activation::named(&name, &parameters)?;
    Ok(Conv { settings: Settings::parse(node)?, groups: groups(node)?, activation })
}

impl Conv {
    pub(crate) fn compute<T: Float>(
        &self,
        x: &Tensor,
        w: &Tensor,
        bias: Option<&Tensor>,
        residual: Option<&Tensor>,
    ) -> Result<Tensor, OpError> {
        let sizes = Sizes::new(x.shape(), w.shape(), self.groups, &self.settings)?;
        let shape = sizes.output_shape();
        if let Some(b) = bias.filter(|b| b.shape() != [sizes.filters]) {
            return Err(OpError::Input(format!(
                "B has shape {:?}, expected [{}]: one number a filter",
                b.shape(),
                sizes.filters
            )));
        }
        if let Some(z) = residual.filter(|z| z.shape() != shape) {
            return Err(OpError::Input(format!(
                "Z has shape {:?}, expected the output's {shape:?}",
                z.shape()
            )));
        }
        let finish = Finish {
            bias: bias.map(Tensor::as_slice::<T>).transpose()?,
            residual: residual.map(Tensor::as_slice::<T>).transpose()?,
            activation: self.activation,
        };
        Ok(Tensor::from_vec(&shape, convolve(x.as_slice()?, w.as_slice()?, &sizes, &finish)?)?)
    }

    /// The same without activation.
    pub(crate) fn linear(&self) -> Self {
        Self { activation: Activation::Identity, ..self.clone() }
    }
}

impl Operator for Conv {
    fn run(&self, call: &Call<'_>) -> Result<Vec<Tensor>, OpError> {
        let (x, w) = (call.need(0, "X")?, call.need(1, "W")?);
        Ok(vec![for_float!(x.dtype(), "X", T => self.compute::<T>(x, w, call.get(2), call.get(3)))?])
    }

    fn flow(&self) -> Flow {
        Flow::Linear
    }

    fn magnitude(&self, call: &Call<'_>) -> Result<Option<Tensor>, OpError> {
        match self.activation {
            Activation::Identity => magnitude(call, |c| Ok(self.run(c)?.remove(0))).map(Some),
            _ => Ok(None),
        }
    }

    fn norms(&self, call: &Call<'_>) -> Result<Option<Norms>, OpError> {
        if self.activation != Activation::Identity || call.get(3).is_some() {
            return Ok(None);
        }
        let (x, w) = (call.need(0, "X")?, call.need(1, "W")?);
        let sizes = Sizes::new(x.shape(), w.shape(), self.groups, &self.settings)?;
        Norms::of_convolution(x, w, call.get(2), &sizes)
    }

    fn budget(&self, call: &Call<'_>, _: usize, output: &Tensor, unit: Unit) -> Result<Budget, OpError> {
        let (x, w) = (call.need(0, "X")?, call.need(1, "W")?);
        let sizes = Sizes::new(x.shape(), w.shape(), self.groups, &self.settings)?;
        let extra = usize::from(call.get(2).is_some()) + usize::from(call.get(3).is_some());
        let terms = (sizes.terms() + extra) as f64;
        let linear = self.linear();
        let magnitude = magnitude(call, |c| Ok(linear.run(c)?.remove(0)))?;
        if self.activation == Activation::Identity {
            return budget::sum_of(output, &magnitude, terms, unit);
        }
        let before = linear.run(call)?.remove(0);
        let budget = budget::sum_of(&before, &magnitude, terms, unit)?;
        Ok(self.activation.budget(budget, &before.to_f64()?, unit))
    }

    fn propagate(
        &self,
        call: &Call<'_>,
        outputs: &[Tensor],
        errors: &[Option<Tensor>],
    ) -> Result<Vec<Tensor>, OpError> {
        let linear = self.linear();
        let mut changes = flow::propagate(Flow::Linear, &|c| linear.run(c), call, outputs, errors)?;
        if self.activation != Activation::Identity {
            let before = linear.run(call)?.remove(0);
            changes[0] = self.activation.propagate(&before, &changes[0])?;
        }
        Ok(changes)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::norms::tests::hold;
    use crate::window::AutoPad;

    /// The definition: every window element of every output element, in f64.
    fn naive(x: &Tensor, w: &Tensor, bias: &[f64], sizes: &Sizes) -> Vec<f64> {
        let (xs, ws) = (x.as_slice::<f64>().unwrap(), w.as_slice::<f64>().unwrap());
        let window = &sizes.window;
        let index = |mut i: usize, shape: &[usize]| -> Vec<usize> {
            let mut out = vec![0; shape.len()];
            for a in (0..shape.len()).rev() {
                (out[a], i) = (i % shape[a], i / shape[a]);
            }
            out
        };
        let per_group = sizes.channels / sizes.groups;
        let mut out = Vec::new();
        for n in 0..sizes.batch {
            for f in 0..sizes.filters {
                let group = f / (sizes.filters / sizes.groups);
                for p in 0..window.pixels() {
                    let o = index(p, &window.output);
                    let mut sum = bias[f];
                    for c in 0..per_group {
                        for t in 0..window.taps() {
                            let k = index(t, &window.kernel);
                            let place: Option<usize> = (0..o.len()).try_fold(0, |at, a| {
                                let i = o[a] * window.strides[a] + k[a] * window.dilations[a];
                                let i = i.checked_sub(window.begin[a]).filter(|&i| i < window.input[a])?;
                                Some(at * window.input[a] + i)
                            });
                            let channel = (n * sizes.channels) + group * per_group + c;
                            let plane: usize = window.input.iter().product();
                            if let Some(place) = place {
                                sum +=
                                    xs[channel * plane + place] * ws[(f * per_group + c) * window.taps() + t];
                            }
                        }
                    }
                    out.push(sum);
                }
            }
        }
        out
    }

    fn filled(shape: &[usize], seed: usize) -> Tensor {
        let n = shape.iter().product::<usize>();
        Tensor::from_vec(shape, (0..n).map(|i| ((i * 31 + seed) % 13) as f64 - 6.0).collect()).unwrap()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn against_the_definition(
            rank in 1usize..=3,
            sizes in proptest::collection::vec(1usize..7, 3),
            kernel in proptest::collection::vec(1usize..4, 3),
            stride in proptest::collection::vec(1usize..4, 3),
            dilation in proptest::collection::vec(1usize..3, 3),
            pads in proptest::collection::vec(0usize..3, 6),
            groups in 1usize..4,
            (per_group, multiplier, batch) in (1usize..4, 0usize..4, 0usize..3),
            same in 0usize..3,
        ) {
            let auto_pad = [AutoPad::Explicit, AutoPad::SameUpper, AutoPad::SameLower][same];
            let settings = Settings {
                kernel: None,
                strides: stride[..rank].to_vec(),
                dilations: dilation[..rank].to_vec(),
                pads: pads[..2 * rank].to_vec(),
                auto_pad,
                ceil: false,
            };
            let x = [&[batch, groups * per_group], &sizes[..rank]].concat();
            let w = [&[groups * multiplier, per_group], &kernel[..rank]].concat();
            let Ok(s) = Sizes::new(&x, &w, groups, &settings) else { return Ok(()) };
            let (x, w) = (filled(&x, 1), filled(&w, 2));
            let bias = filled(&[s.filters], 3);
            let conv = Conv { settings, groups, activation: Activation::Identity };
            let got = conv.compute::<f64>(&x, &w, Some(&bias), None).unwrap();
            // Small whole numbers: every order of summation gives the same bits.
            prop_assert_eq!(got.as_slice::<f64>().unwrap(), naive(&x, &w, bias.as_slice().unwrap(), &s));
            // Of a window that lies in the padding but for an element the bound may be any number of times the sum.
            let [x, w, bias] = [x, w, bias].map(|t| t.cast(isotrace_tensor::DType::F32).unwrap());
            hold(&conv, &[Some(&x), Some(&w), Some(&bias)], f64::MAX);
            hold(&conv, &[Some(&x), Some(&w)], f64::MAX);
        }
    }

    #[test]
    fn every_path_agrees_with_the_definition() {
        // (channels, filters, groups, size, kernel, stride): tiles, whole product, by filters, pointwise of both kinds.
        let cases = [
            (16, 8, 1, 40, 3, 1),
            (16, 8, 2, 40, 3, 2),
            (128, 64, 1, 7, 3, 1),
            (64, 32, 1, 32, 1, 1),
            (256, 64, 1, 7, 1, 1),
            (32, 163, 1, 7, 3, 2),
            (32, 330, 2, 5, 3, 1),
            (600, 97, 1, 2, 1, 1),
            (600, 257, 1, 1, 1, 1),
            (48, 48, 48, 20, 3, 1),
            (48, 96, 48, 20, 5, 2),
        ];
        for (channels, filters, groups, size, k, stride) in cases {
            let settings = Settings {
                kernel: None,
                strides: vec![stride; 2],
                dilations: vec![],
                pads: vec![k / 2; 4],
                auto_pad: AutoPad::Explicit,
                ceil: false,
            };
            let (xs, ws) = ([2, channels, size, size], [filters, channels / groups, k, k]);
            let sizes = Sizes::new(&xs, &ws, groups, &settings).unwrap();
            let (x, w) = (filled(&xs, 5), filled(&ws, 7));
            let bias = filled(&[filters], 3);
            let z = filled(&sizes.output_shape(), 11);
            let conv = Conv { settings, groups, activation: Activation::Relu };
            let got = conv.compute::<f64>(&x, &w, Some(&bias), Some(&z)).unwrap();
            let expected: Vec<f64> = naive(&x, &w, bias.as_slice().unwrap(), &sizes)
                .iter()
                .zip(z.as_slice::<f64>().unwrap())
                .map(|(y, z)| (y + z).max(0.0))
                .collect();
            assert_eq!(got.as_slice::<f64>().unwrap(), expected, "{channels} {filters} {groups} {size} {k}");
            // Threads must not matter, to the last bit.
            let narrow = |t: &Tensor| t.cast(isotrace_tensor::DType::F32).unwrap();
            let (x, w) = (narrow(&filled(&xs, 5)), narrow(&filled(&ws, 7)));
            let scale = |t: Tensor| {
                let v = t.as_slice::<f32>().unwrap().iter().map(|x| x * 0.1).collect();
                Tensor::from_vec(t.shape(), v).unwrap()
            };
            let (x, w) = (scale(x), scale(w));
            hold(&conv.linear(), &[Some(&x), Some(&w)], 2.0);
            let with = |threads: usize| {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
                pool.install(|| conv.compute::<f32>(&x, &w, None, None).unwrap())
            };
            let one = with(1);
            assert!([2, 3, 5].into_iter().all(|t| with(t).bit_eq(&one)), "{channels} {filters} {size}");
        }
    }

    #[test]
    fn contradictions_are_refused() {
        let conv = |groups| Conv {
            settings: Settings {
                kernel: Some(vec![3]),
                strides: vec![],
                dilations: vec![],
                pads: vec![],
                auto_pad: AutoPad::Explicit,
                ceil: false,
            },
            groups,
            activation: Activation::Identity,
        };
        let cases: [(&[usize], &[usize], usize); 6] = [
            (&[1, 4, 8], &[2, 3, 3], 1),
            (&[1, 4, 8], &[3, 2, 3], 2),
            (&[1, 4, 8, 8], &[2, 4, 3], 1),
            (&[1, 4, 2], &[2, 4, 3], 1),
            (&[1, 4, 8], &[2, 4, 2], 1),
            (&[1, 4], &[2, 4], 1),
        ];
        for (x, w, groups) in cases {
            let (x, w) = (filled(x, 0), filled(w, 0));
            assert!(conv(groups).compute::<f64>(&x, &w, None, None).is_err(), "{x:?} {w:?}");
        }
    }

    #[test]
    fn activation_limits_what_errors_do() {
        // y = relu(-1): an error of the input far smaller than 1 reaches nothing.
        let conv = Conv {
            settings: Settings {
                kernel: None,
                strides: vec![],
                dilations: vec![],
                pads: vec![],
                auto_pad: AutoPad::Explicit,
                ceil: false,
            },
            groups: 1,
            activation: Activation::Relu,
        };
        let x = Tensor::from_vec(&[1, 1, 2], vec![-1.0, 2.0]).unwrap();
        let w = Tensor::full(&[1, 1, 1], 3.0).unwrap();
        let e = Tensor::full(&[1, 1, 2], 1e-8).unwrap();
        let inputs = [Some(&x), Some(&w)];
        let call = Call::new(&inputs);
        let outputs = conv.run(&call).unwrap();
        let change = conv.propagate(&call, &outputs, &[Some(e), None]).unwrap();
        let change = change[0].to_f64().unwrap().into_owned();
        assert!(change[0] == 0.0 && (change[1] - 3e-8).abs() < 1e-10, "{change:?}");
        let budget = conv.budget(&call, 0, &outputs[0], Unit::F32).unwrap();
        assert!(budget[0] == 0.0 && budget[1] > 0.0, "{budget:?}");
    }
}
