//! InstanceNormalization, GroupNormalization and com.microsoft's GroupNorm: normalisation over groups of channels of one sample.
//!
//! Wu and He 2018. Scale and bias belong to a group in version 18 of GroupNormalization and to a channel otherwise.
//! GroupNorm takes channels last by default and may end in x sigmoid(x).

use isotrace_graph::Node;
use isotrace_tensor::Tensor;

use crate::budget::{Budget, Unit};
use crate::math::map;
use crate::normalise::Norm;
use crate::{Call, Float, OpError, Operator, attributes, flow, for_float};

#[derive(Debug)]
struct GroupNorm {
    norm: Norm,
    /// `None`: every channel is a group.
    groups: Option<i64>,
    /// Whether scale and bias have an element a group rather than a channel.
    by_group: bool,
    channels_last: bool,
    silu: bool,
}

/// Parses a node of InstanceNormalization.
pub fn instance(node: &Node) -> Result<Box<dyn Operator>, OpError> {
    let norm = Norm { epsilon: attributes::float_or(node, "epsilon", 1e-5)?, centred: true };
    Ok(Box::new(GroupNorm { norm, groups: None, by_group: false, channels_last: false, silu: false }))
}

fn groups(node: &Node, name: &str) -> Result<Option<i64>, OpError> {
    match attributes::int(node, name)? {
        Some(groups) if groups > 0 => Ok(Some(groups)),
        found => Err(OpError::Setting(format!("{name} is {found:?}, it must be a number above 0"))),
    }
}

/// Parses a node of GroupNormalization.
pub fn group(node: &Node) -> Result<Box<dyn Operator>, OpError> {
    let norm = Norm { epsilon: attributes::float_or(node, "epsilon", 1e-5)?, centred: true };
    let groups = groups(node, "num_groups")?;
    Ok(Box::new(GroupNorm { norm, groups, by_group: node.version < 21, channels_last: false, silu: false }))
}

/// Parses a node of com.microsoft's GroupNorm.
pub fn microsoft(node: &Node) -> Result<Box<dyn Operator>, OpError> {
    let norm = Norm { epsilon: attributes::float_or(node, "epsilon", 1e-5)?, centred: true };
    let silu = match attributes::int_or(node, "activation", 0)? {
        0 => false,
        1 => true,
        other => {
            return Err(OpError::Setting(format!("activation is {other}, expected 0 (none) or 1 (SiLU)")));
        }
    };
    let channels_last = attributes::flag(node, "channels_last", true)?;
    Ok(Box::new(GroupNorm { norm, groups: groups(node, "groups")?, by_group: false, channels_last, silu }))
}

/// A call in the order the normalisation wants: (batch, group, channels of a group, places).
struct Prepared {
    x: Tensor,
    scale: Tensor,
    bias: Tensor,
    /// Shape of x with channels in front.
    shape: Vec<usize>,
}

impl GroupNorm {
    /// A tensor with channels moved from the last axis to axis 1.
    fn to_front(&self, x: &Tensor) -> Result<Tensor, OpError> {
        if !self.channels_last {
            return Ok(x.clone());
        }
        let mut perm: Vec<usize> = (0..x.rank()).collect();
        let last = perm.pop().unwrap_or(0);
        perm.insert(1.min(perm.len()), last);
        Ok(x.permute(&perm)?)
    }

    fn to_back(&self, x: &Tensor) -> Result<Tensor, OpError> {
        if !self.channels_last {
            return Ok(x.clone());
        }
        let mut perm: Vec<usize> = (0..x.rank()).collect();
        let channels = perm.remove(1);
        perm.push(channels);
        Ok(x.permute(&perm)?)
    }

    fn prepare(&self, call: &Call<'_>) -> Result<Prepared, OpError> {
        let x = call.need(0, "X")?;
        if x.rank() < 2 {
            let found = x.shape();
            return Err(OpError::Input(format!(
                "X has shape {found:?}, it needs axes for batch and channels"
            )));
        }
        let x = self.to_front(x)?;
        let shape = x.shape().to_vec();
        let (batch, channels) = (shape[0], shape[1]);
        let groups = match self.groups {
            None => channels,
            Some(groups) => usize::try_from(groups).unwrap_or(usize::MAX),
        };
        if channels % groups.max(1) != 0 {
            return Err(OpError::Input(format!(
                "{channels} channels cannot be shared out to {groups} groups"
            )));
        }
        let members = channels / groups.max(1);
        let inner: usize = shape[2..].iter().product();
        let (wide, expected) =
            if self.by_group { ([1, groups, 1, 1], groups) } else { ([1, groups, members, 1], channels) };
        let parameter = |index: usize, name: &'static str| -> Result<Tensor, OpError> {
            let tensor = call.need(index, name)?;
            if tensor.len() != expected {
                let found = tensor.shape();
                return Err(OpError::Input(format!(
                    "{name} has shape {found:?}, {expected} elements are expected"
                )));
            }
            Ok(tensor.cast(x.dtype())?.reshape(&wide)?)
        };
        let (scale, bias) = (parameter(1, "scale")?, parameter(2, "bias")?);
        Ok(Prepared { x: x.reshape(&[batch, groups, members, inner])?, scale, bias, shape })
    }
}

impl Operator for GroupNorm {
    fn run(&self, call: &Call<'_>) -> Result<Vec<Tensor>, OpError> {
        let p = self.prepare(call)?;
        let [mut y, ..] = self.norm.tensor(&p.x, 2, Some(&p.scale), Some(&p.bias))?;
        if self.silu {
            y = for_float!(y.dtype(), "X", T => {
                let data = map(y.as_slice::<T>()?, #[inline(always)] |x| x * x.sigmoid());
                Ok(Tensor::from_vec(y.shape(), data)?)
            })?;
        }
        Ok(vec![self.to_back(&y.reshape(&p.shape)?)?])
    }

    fn budget(&self, call: &Call<'_>, _: usize, output: &Tensor, unit: Unit) -> Result<Budget, OpError> {
        let p = self.prepare(call)?;
        let [plain, ..] = self.norm.tensor(&p.x, 2, Some(&p.scale), Some(&p.bias))?;
        let mut found = self.norm.budget(&p.x, 2, Some(&p.scale), &plain, 0, true, unit)?;
        if self.silu {
            // The slope of SiLU is below 1.1; its own rounding comes on top.
            let own = crate::budget::gated(&plain, unit)?;
            for (found, own) in found.iter_mut().zip(own) {
                *found = 1.1 * *found + own;
            }
        }
        debug_assert_eq!(output.len(), found.len());
        Ok(self.to_back(&Tensor::from_vec(&p.shape, found)?)?.to_f64()?.into_owned())
    }

    fn propagate(
        &self,
        call: &Call<'_>,
        outputs: &[Tensor],
        errors: &[Option<Tensor>],
    ) -> Result<Vec<Tensor>, OpError> {
        match errors.first().and_then(Option::as_ref) {
            Some(e) if errors[1..].iter().all(Option::is_none) => {
                let p = self.prepare(call)?;
                let e = self.to_front(e)?.reshape(p.x.shape())?;
                let [dy, ..] = self.norm.propagate(&p.x, 2, Some(&p.scale), Some(&e), None, None)?;
                let slope = if self.silu { 1.1 } else { 1.0 };
                let dy = Tensor::from_vec(&p.shape, dy.to_f64()?.iter().map(|d| d * slope).collect())?;
                Ok(vec![self.to_back(&dy)?])
            }
            _ => flow::propagate(self.flow(), &|c| self.run(c), call, outputs, errors),
        }
    }
}

#[cfg(test)]
mod tests {
    use isotrace_graph::Attribute;

    use super::*;
    use crate::testing::{first, node, run, tensor};

    /// The definition on (batch, channels, places).
    fn defined(x: &[f64], [n, c, inner]: [usize; 3], groups: usize, scale: &[f64], bias: &[f64]) -> Vec<f64> {
        let members = c / groups;
        let mut y = vec![0.0; x.len()];
        for b in 0..n {
            for g in 0..groups {
                let at = |k: usize| (b * c + g * members) * inner + k;
                let k = members * inner;
                let mean = (0..k).map(|i| x[at(i)]).sum::<f64>() / k as f64;
                let variance = (0..k).map(|i| (x[at(i)] - mean).powi(2)).sum::<f64>() / k as f64;
                for i in 0..k {
                    let channel = g * members + i / inner;
                    let h = (x[at(i)] - mean) / (variance + f64::from(1e-5f32)).sqrt();
                    y[at(i)] = h * scale[channel] + bias[channel];
                }
            }
        }
        y
    }

    fn close(y: &Tensor, expected: &[f64]) {
        for (y, e) in y.to_f64().unwrap().iter().zip(expected) {
            assert!((y - e).abs() < 1e-12, "{y} is not {e}");
        }
    }

    #[test]
    fn groups_of_every_kind() {
        let data: Vec<f64> = (0..24).map(|i| f64::from(i * 11 % 24) / 5.0).collect();
        let x = tensor(&[2, 4, 3], &data);
        let (s, b) = ([0.5, 2.0, -1.0, 1.5], [0.0, 1.0, 0.5, -2.0]);
        let (scale, bias) = (tensor(&[4], &s), tensor(&[4], &b));
        let y = first(&node("InstanceNormalization", 6, &[]), &[&x, &scale, &bias]);
        close(&y, &defined(&data, [2, 4, 3], 4, &s, &b));
        let two = [("num_groups", Attribute::Int(2))];
        let y = first(&node("GroupNormalization", 21, &two), &[&x, &scale, &bias]);
        close(&y, &defined(&data, [2, 4, 3], 2, &s, &b));
        let (scale, bias) = (tensor(&[2], &[0.5, -1.0]), tensor(&[2], &[1.0, 2.0]));
        let y = first(&node("GroupNormalization", 18, &two), &[&x, &scale, &bias]);
        close(&y, &defined(&data, [2, 4, 3], 2, &[0.5, 0.5, -1.0, -1.0], &[1.0, 1.0, 2.0, 2.0]));
        assert!(run(&node("GroupNormalization", 18, &[]), &[&x, &scale, &bias]).is_err());
        let three = [("num_groups", Attribute::Int(3))];
        assert!(run(&node("GroupNormalization", 21, &three), &[&x, &scale, &bias]).is_err());
    }

    #[test]
    fn channels_last_with_an_activation() {
        let data: Vec<f64> = (0..24).map(|i| f64::from(i * 11 % 24) / 5.0).collect();
        let (s, b) = ([0.5, 2.0, -1.0, 1.5], [0.0, 1.0, 0.5, -2.0]);
        let x = tensor(&[2, 4, 1, 3], &data).permute(&[0, 2, 3, 1]).unwrap();
        let mut node =
            node("GroupNorm", 1, &[("groups", Attribute::Int(2)), ("activation", Attribute::Int(1))]);
        node.domain = "com.microsoft".into();
        let y = first(&node, &[&x, &tensor(&[4], &s), &tensor(&[4], &b)]);
        let expected: Vec<f64> =
            defined(&data, [2, 4, 3], 2, &s, &b).iter().map(|y| y / (1.0 + (-y).exp())).collect();
        close(&y.permute(&[0, 3, 1, 2]).unwrap(), &expected);
    }
}
