//! Products that do more than multiply: an activation behind, operands turned before, a factor, a bias, and channels in
//! the blocks of ONNX Runtime's layout optimiser.

use isotrace_graph::{Attribute, ValueId};
use isotrace_ops::nchwc;

use super::writer::Writer;

/// Settings of a convolution that say what follows it, or how it lies in memory.
const NOT_OF_CONV: [&str; 5] =
    ["activation", "activation_params", nchwc::BLOCK, nchwc::PLAIN, "channels_last"];

/// A convolution, then what is added to it, then the activation.
pub fn fused_conv(w: &mut Writer<'_>) -> Option<()> {
    if w.node.domain == nchwc::DOMAIN && !w.node.attributes.contains_key(nchwc::PLAIN) {
        return None;
    }
    let mut reads = vec![w.read(0)?, w.read(1)?];
    reads.extend(w.read(2));
    let y = convolution(w, &reads);
    let y = added(w, y);
    let (name, numbers) = activation(w);
    let y = activated(w, y, &name, &numbers)?;
    w.hand_on(0, y);
    Some(())
}

/// Channels filled up to whole blocks.
pub fn reorder_input(w: &mut Writer<'_>) -> Option<()> {
    let last = w.int("channels_last", 0) == 1;
    let &channels = w.shape(0)?.get(if last { 3 } else { 1 })?;
    let filled = w.tensor(w.node.writes().next()?)?.shape().get(1).copied()?;
    let x = w.read(0)?;
    let x = if last { w.turned(x, &[0, 3, 1, 2]) } else { x };
    let y = filled_up(w, x, filled.checked_sub(channels)?)?;
    w.hand_on(0, y);
    Some(())
}

/// The channels that fill the last block up dropped.
pub fn reorder_output(w: &mut Writer<'_>) -> Option<()> {
    let channels = usize::try_from(w.int("channels", 0)).ok()?;
    let all = *w.shape(0)?.get(1)?;
    let x = first_channels(w, w.read(0)?, all, channels);
    let y = if w.int("channels_last", 0) == 1 { w.turned(x, &[0, 2, 3, 1]) } else { x };
    w.hand_on(0, y);
    Some(())
}

/// `alpha op(A) op(B) + beta C`, then the activation of the fused form.
pub fn gemm(w: &mut Writer<'_>) -> Option<()> {
    let (mut a, mut b) = (w.read(0)?, w.read(1)?);
    if w.int("transA", 0) != 0 {
        a = w.turned(a, &[1, 0]);
    }
    if w.int("transB", 0) != 0 {
        b = w.turned(b, &[1, 0]);
    }
    let product = w.part("MatMul", &[a, b], &[], "product");
    let mut y = multiplied(w, product, "alpha", "factor")?;
    if let Some(c) = w.read(2) {
        let c = multiplied(w, c, "beta", "factor of the bias")?;
        y = w.part("Add", &[y, c], &[], "bias");
    }
    let (name, mut parameters) = activation(w);
    let more = ["activation_alpha", "activation_beta", "activation_gamma"];
    parameters.extend(more.iter().filter_map(|name| w.float(name)));
    let y = activated(w, y, &name, &parameters)?;
    w.hand_on(0, y);
    Some(())
}

/// `alpha` times a batched product of operands whose last two axes are turned.
pub fn fused_matmul(w: &mut Writer<'_>) -> Option<()> {
    if w.int("transBatchA", 0) != 0 || w.int("transBatchB", 0) != 0 {
        return None;
    }
    let mut operands = Vec::new();
    for (slot, turn) in [(0, "transA"), (1, "transB")] {
        let mut v = w.read(slot)?;
        let rank = w.shape(slot)?.len();
        if w.int(turn, 0) != 0 && rank >= 2 {
            let mut order: Vec<i64> = (0..rank as i64).collect();
            order.swap(rank - 2, rank - 1);
            v = w.turned(v, &order);
        }
        operands.push(v);
    }
    let product = w.part("MatMul", &operands, &[], "product");
    let y = multiplied(w, product, "alpha", "factor")?;
    w.hand_on(0, y);
    Some(())
}

/// A value times the setting of that name, where it is not 1.
fn multiplied(w: &mut Writer<'_>, v: ValueId, name: &str, what: &str) -> Option<ValueId> {
    match w.float(name) {
        Some(factor) if factor != 1.0 => {
            let factor = w.number(factor)?;
            Some(w.part("Mul", &[v, factor], &[], what))
        }
        _ => Some(v),
    }
}

fn convolution(w: &mut Writer<'_>, reads: &[ValueId]) -> ValueId {
    let settings = w.node.attributes.iter().filter(|(name, _)| !NOT_OF_CONV.contains(&name.as_str()));
    let settings: Vec<(&str, Attribute)> =
        settings.map(|(name, setting)| (name.as_str(), setting.clone())).collect();
    w.part("Conv", reads, &settings, "convolution")
}

fn added(w: &mut Writer<'_>, y: ValueId) -> ValueId {
    match w.read(3) {
        Some(more) => w.part("Add", &[y, more], &[], "sum"),
        None => y,
    }
}

/// The first channels of a value that has `all`.
fn first_channels(w: &mut Writer<'_>, v: ValueId, all: usize, kept: usize) -> ValueId {
    if kept >= all {
        return v;
    }
    let (from, to, axis) = (w.ints(&[0]), w.ints(&[kept as i64]), w.ints(&[1]));
    w.part("Slice", &[v, from, to, axis], &[], "channels")
}

/// More channels of zeros behind those of a value.
fn filled_up(w: &mut Writer<'_>, v: ValueId, more: usize) -> Option<ValueId> {
    if more == 0 {
        return Some(v);
    }
    let (pads, value) = (w.ints(&[0, 0, 0, 0, 0, more as i64, 0, 0]), w.number(0.0)?);
    Some(w.part("Pad", &[v, pads, value], &[], "filling"))
}

/// The activation that a node applies to what it computed, and its parameters.
fn activation(w: &Writer<'_>) -> (String, Vec<f64>) {
    let name = match w.node.attributes.get("activation") {
        Some(Attribute::Bytes(name)) => String::from_utf8_lossy(name).into_owned(),
        _ => String::new(),
    };
    let parameters = match w.node.attributes.get("activation_params") {
        Some(Attribute::Floats(numbers)) => numbers.iter().map(|&x| f64::from(x)).collect(),
        _ => Vec::new(),
    };
    (name, parameters)
}

/// An activation called by its name, where its operator has the same meaning; a value as it is where there is none.
pub fn activated(w: &mut Writer<'_>, x: ValueId, name: &str, parameters: &[f64]) -> Option<ValueId> {
    let number = |i: usize| parameters.get(i).map(|&p| Attribute::Float(p as f32));
    let mut settings = Vec::new();
    let mut reads = vec![x];
    match name {
        "" | "Identity" => return Some(x),
        "Relu" | "Tanh" | "Sigmoid" | "Softsign" | "Softplus" => {}
        "LeakyRelu" | "Elu" | "ThresholdedRelu" => settings.extend(number(0).map(|alpha| ("alpha", alpha))),
        "HardSigmoid" => {
            settings.extend(number(0).map(|alpha| ("alpha", alpha)));
            settings.extend(number(1).map(|beta| ("beta", beta)));
        }
        "Clip" => {
            let [low, high] = parameters else { return None };
            reads.extend([w.number(*low)?, w.number(*high)?]);
        }
        _ => return None,
    }
    Some(w.part(name, &reads, &settings, "activation"))
}
