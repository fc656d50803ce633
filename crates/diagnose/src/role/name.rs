//! The names of `docs/causes.md`, one place for all: the causes ask here, so that a missing bias and a wrong bias are
//! called the same.

use isotrace_align::Side;
use isotrace_graph::{Attribute, NodeId, ValueId};
use isotrace_tensor::{DType, Tensor};

use super::quantised::{self, Quantised};
use super::{
    Divisor, adds_to_statistic, averages, becomes_float, becomes_whole, bends, borders, by_distance, centres,
    chooses_piece, counts_summands, crops, cuts_gates, drops, enters_statistic, feeds_mask, gains_follow,
    gates_itself, is_activation, is_attention, is_by_distance, is_choice, is_divided_out, is_drawn, is_gain,
    is_identity, is_layout, is_mean_of_input, is_normalisation, is_of_statistic, is_product, is_recurrent,
    is_reduction, is_rotary, is_rotated, is_rounding, is_score, is_share_of_group, is_shift, is_statistic,
    is_truth, is_turned, leaves_itself_out, leaves_out, makes_another_mean, masks, negates_for_rotation,
    normalises, readers, squares, transforms, was_turned,
};

/// An additive number up to this keeps a division or a root away from zero.
pub const EPSILON: f64 = 2e-2;

/// Of several parts that are missing or too many, what the fault as a whole is called: what only one kind of fault
/// brings about comes before what every computation is made of.
pub fn most_telling(classes: &[&'static str]) -> Option<&'static str> {
    const ORDER: [&str; 21] = [
        "quantisation",
        "mode",
        "mask",
        "rope",
        "normalisation",
        "activation",
        "reduction",
        "epsilon",
        "precision",
        "residual",
        "padding",
        "weight_swap",
        "weight_layout",
        "bias",
        "scale",
        "gate_order",
        "index",
        "axis",
        "weight_value",
        "layout",
        "operand_order",
    ];
    ORDER.into_iter().find(|c| classes.contains(c))
}

/// The cause when a setting of a node is wrong.
pub fn of_attribute(op: &str, name: &str) -> &'static str {
    match name {
        "epsilon" | "eps" => "epsilon",
        // Which numbers share a step, and how they are brought to it.
        _ if op.contains("QuantizeLinear") && !matches!(name, "output_dtype" | "precision") => "quantisation",
        "saturate" | "round_mode" => "quantisation",
        _ if is_normalisation(op)
            && matches!(name, "alpha" | "beta" | "bias" | "size" | "num_groups" | "groups") =>
        {
            "normalisation"
        }
        "perm" | "keepdims" | "allowzero" | "blocksize" | "num_heads" | "kv_num_heads" | "q_num_heads"
        | "layout" | "center_point_box" => "layout",
        "extrapolation_value"
        | "pads"
        | "auto_pad"
        | "strides"
        | "dilations"
        | "kernel_shape"
        | "ceil_mode"
        | "count_include_pad"
        | "padding_mode"
        | "output_padding"
        | "output_shape"
        | "group" => "padding",
        "scale" | "spatial_scale" => "scale",
        "alpha" | "beta" if is_product(op) => "scale",
        "alpha" | "beta" | "gamma" | "clip" | "approximate" | "activation" | "activations" | "softcap"
        | "min" | "max" | "lambd" | "bias" | "activation_params" => "activation",
        "transA" | "transB" | "transBatchA" | "transBatchB" => "weight_layout",
        "to" | "stash_type" | "softmax_precision" | "output_dtype" | "precision" => "precision",
        "linear_before_reset" | "input_forget" => "gate_order",
        // From which end a sequence is read.
        "direction" => "index",
        "is_causal" | "unidirectional" | "upper" | "local_window_size" | "left_window_size"
        | "right_window_size" => "mask",
        "interleaved" | "rotary_embedding_dim" | "is_packed_batching" => "rope",
        "training_mode" | "ratio" => "mode",
        "periodic" => "weight_value",
        // Which axes are summed over, and which axis is which.
        "equation" => "axis",
        _ if name.starts_with("activation_") => "activation",
        // It normalises over all axes from this one on.
        "axis" if op.ends_with("LayerNormalization") || op == "RMSNormalization" => "normalisation",
        "axis" | "axes" | "batch_dims" | "batch_axis" | "time_axis" | "p" if name != "p" => "axis",
        "p" | "reduction" => "reduction",
        _ if name == "mode" && op == "Pad" => "padding",
        // The largest or the mean of the places of a region.
        _ if name == "mode" && op.ends_with("RoiAlign") => "reduction",
        // Whether depth or columns come first.
        _ if name == "mode" && op == "DepthToSpace" => "layout",
        _ => of_learned(name.trim_end_matches("_as_tensor")),
    }
}

/// The cause when a setting of a classifier or regressor of ai.onnx.ml is wrong, which keeps what it learned there.
fn of_learned(name: &str) -> &'static str {
    match name {
        "coefficients"
        | "support_vectors"
        | "kernel_params"
        | "prob_a"
        | "prob_b"
        | "nodes_values"
        | "nodes_splits"
        | "class_weights"
        | "target_weights"
        | "leaf_weights"
        | "imputed_value_floats"
        | "imputed_value_int64s" => "weight_value",
        "intercepts" | "rho" | "base_values" | "offset" => "bias",
        "kernel_type" | "post_transform" => "activation",
        "norm" => "normalisation",
        "aggregate_function" => "reduction",
        _ => "index",
    }
}

/// The cause when a node computes with the operator of another.
pub fn of_operator(b: &str, a: &str) -> &'static str {
    if is_activation(b) && is_activation(a) {
        "activation"
    } else if b.starts_with("Arg") && a.starts_with("Arg") {
        // What they write are places.
        "index"
    } else if is_reduction(b) && is_reduction(a)
        || combines(b).is_some() && combines(a).is_some_and(|c| Some(c) != combines(b))
    {
        "reduction"
    } else if is_normalisation(b) && is_normalisation(a) {
        "normalisation"
    } else if is_reduction(b) != is_reduction(a) && (is_activation(b) || is_activation(a)) {
        "reduction"
    } else if is_activation(b) || is_activation(a) {
        "activation"
    } else if is_rounding(b) || is_rounding(a) {
        "quantisation"
    } else if is_share(b) && is_share(a) || is_function(b) && is_function(a) {
        "activation"
    } else if is_layout(b) || is_layout(a) {
        "layout"
    } else if matches!(
        b,
        "Where" | "And" | "Or" | "Less" | "LessOrEqual" | "Greater" | "GreaterOrEqual" | "Equal" | "Trilu"
    ) {
        "mask"
    } else {
        "operand_order"
    }
}

/// Whether an operator gives each element its share of an axis.
fn is_share(op: &str) -> bool {
    op.ends_with("Softmax") || op == "Hardmax"
}

/// Whether an operator makes of each number another one, by a function of it alone that is no mere turn of its sign.
fn is_function(op: &str) -> bool {
    const FUNCTIONS: [&str; 13] = [
        "Log",
        "Sqrt",
        "Reciprocal",
        "Tan",
        "Asin",
        "Acos",
        "Atan",
        "Sinh",
        "Cosh",
        "Asinh",
        "Acosh",
        "Atanh",
        "Sign",
    ];
    FUNCTIONS.contains(&op)
}

/// What several values are brought down to one by, where it is a sum or a largest or least one.
fn combines(op: &str) -> Option<&'static str> {
    match op {
        "Add" | "Sum" | "Mean" => Some("sum"),
        "Max" => Some("maximum"),
        "Min" => Some("minimum"),
        _ => None,
    }
}

/// Whether what an operator makes of a number plus another is no sum any more.
fn is_curve(op: &str) -> bool {
    matches!(op, "Log" | "Sigmoid" | "HardSigmoid" | "Tanh" | "Softplus" | "Erf")
}

fn is_arithmetic(op: &str) -> bool {
    matches!(op, "Add" | "Sub" | "Mul" | "Div")
}

/// A number for each channel: one axis is longer than 1.
fn is_vector(t: &Tensor) -> bool {
    t.shape().iter().filter(|&&d| d > 1).count() <= 1
}

/// Whether a constant that is added is another one for each place and each feature: it says where what it is added to
/// stands. What is the same along an axis is a bias that was spread.
pub fn says_where(side: &Side<'_>, n: NodeId, t: &Tensor) -> bool {
    let shape = t.shape();
    let wide: Vec<usize> = (0..shape.len()).filter(|&k| shape[k] > 1).collect();
    let Ok(x) = t.to_f64() else { return false };
    let varies = |k: usize| {
        let inner: usize = shape[k + 1..].iter().product();
        x.chunks(inner * shape[k]).any(|all| all.chunks(inner).any(|part| part != &all[..inner]))
    };
    let batched = side.graph().node(n).writes().any(|v| side.declared.shape(v).is_some_and(|s| s.len() > 2));
    t.dtype().is_float() && batched && wide.len() >= 2 && wide.into_iter().all(varies) && !is_identity(t)
}

/// Whether what is added goes onto a product of one output that has no bias of its own: it is that bias, however small
/// and whatever is behind it.
fn is_of_one_output(side: &Side<'_>, n: NodeId) -> bool {
    let [read] = side.dynamic_inputs(n)[..] else { return false };
    let Some(product) = side.producer(read).map(|n| side.graph().node(n)) else { return false };
    let weight = product.inputs.get(1).copied().flatten().filter(|&v| side.is_constant(v));
    let Some(shape) = weight.and_then(|v| side.declared.shape(v)) else { return false };
    let outputs = match (product.op.as_str(), product.attributes.get("transB")) {
        ("MatMul", _) | ("Gemm", None | Some(Attribute::Int(0))) => shape.last(),
        ("Gemm" | "Conv", _) => shape.first(),
        _ => None,
    };
    shape.len() >= 2 && outputs == Some(&1) && product.inputs.get(2).copied().flatten().is_none()
}

/// Where `Slice` reads its steps.
const SLICE_STEPS: usize = 4;

/// Where recurrent layers read how long each row is.
const SEQUENCE_LENGTHS: usize = 4;

/// The cause when what a node reads at `slot`, a constant, is wrong. `tensor` is the constant where it is right.
pub fn of_constant(side: &Side<'_>, n: NodeId, slot: usize, tensor: &Tensor) -> &'static str {
    let node = side.graph().node(n);
    let op = node.op.as_str();
    let scalar = tensor.len() == 1;
    let number = tensor.to_f64().ok().and_then(|v| v.first().copied()).unwrap_or(0.0);
    let whole = tensor.dtype().is_int();
    let chosen = slot > 0 && tensor.dtype().is_float() && !scalar && !masks(tensor);
    if !transforms(side, n) && node.inputs.get(slot).copied().flatten().is_some_and(|v| is_rotary(side, v)) {
        return "rope";
    }
    // Every other element for the one half or the other is another rotation; a border one further on is a slip.
    if (matches!(op, "Split" | "Gather") || op == "Slice" && slot == SLICE_STEPS)
        && node.writes().any(|v| is_turned(side, v))
    {
        return "rope";
    }
    match quantised::read(side, n, slot) {
        Some(Quantised::Grid) => return "quantisation",
        Some(Quantised::Weight) => return "weight_value",
        Some(Quantised::Bias) => return "bias",
        None => {}
    }
    if matches!(op, "Split" | "Slice" | "Gather") && cuts_gates(side, n) {
        return "gate_order";
    }
    if is_arithmetic(op) && (quantised::unpacks(side, n) || quantised::steps(side, n))
        || !is_layout(op) && quantised::works_on_levels(side, n)
    {
        return "quantisation";
    }
    // A weight that is only put in another layout is named by who reads it then.
    if is_layout(op)
        && slot == 0
        && let [Some(written)] = node.outputs[..]
        && let [reader] = side.consumers[written.index()][..]
        && let Some(at) = side.graph().node(reader).inputs.iter().position(|&v| v == Some(written))
    {
        return of_constant(side, reader, at, side.declared.get(written).unwrap_or(tensor));
    }
    match op {
        _ if is_attention(op) && slot >= 3 && masks(tensor) => "mask",
        // How much of each row counts.
        _ if is_recurrent(op) && slot == SEQUENCE_LENGTHS => "mask",
        _ if is_recurrent(op) && (3..=6).contains(&slot) => "bias",
        _ if is_recurrent(op) => "weight_value",
        _ if is_normalisation(op) => match (op, slot) {
            ("BatchNormalization", 2) => "bias",
            ("BatchNormalization", _) => "normalisation",
            (_, 2..)
                if op == "LayerNormalization"
                    || op == "InstanceNormalization"
                    || op == "GroupNormalization" =>
            {
                "bias"
            }
            ("SkipLayerNormalization", 3..) => "bias",
            _ => "normalisation",
        },
        _ if is_product(op) && slot >= 2 => "bias",
        _ if is_product(op) => "weight_value",
        "Add" | "Sub" | "BiasGelu" | "BiasAdd" | "BiasSoftmax" => {
            if whole {
                "index"
            } else if masks(tensor) {
                "mask"
            } else if scalar && is_of_one_output(side, n) {
                "bias"
            } else if scalar && number.abs() <= EPSILON {
                "epsilon"
            } else if scalar && number.abs() == 1.0 && side.dynamic_inputs(n).is_empty() {
                // A gain stored as w and used as 1 + w.
                "normalisation"
            } else if scalar
                && (side.dynamic_inputs(n).iter().any(|&v| is_statistic(side, v)) && normalises(side, n)
                    || number == 1.0 && gains_follow(side, n))
            {
                "normalisation"
            } else if scalar && readers(side, n).any(|r| is_curve(&side.graph().node(r).op)) {
                // log(1 + x) is another curve than log(x), as sigmoid(x + 1) is than sigmoid(x).
                "activation"
            } else if !scalar && tensor.rank() >= 2 && is_score(side, n) || is_by_distance(tensor) {
                // What is added to scores and hides nothing says how far apart two positions are.
                "rope"
            } else if is_vector(tensor) && !scalar && is_mean_of_input(side, n) {
                "normalisation"
            } else {
                "bias"
            }
        }
        "Mul" | "Div" => {
            if whole {
                "index"
            } else if masks(tensor) || op == "Mul" && is_choice(tensor) {
                "mask"
            } else if scalar
                && side.dynamic_inputs(n).iter().any(|&v| is_statistic(side, v))
                && normalises(side, n)
            {
                "normalisation"
            } else if scalar && number.abs() == 1.0 && negates_for_rotation(side, n) {
                "rope"
            } else if scalar {
                "scale"
            } else if is_vector(tensor) {
                if is_gain(side, n) { "normalisation" } else { "scale" }
            } else {
                "weight_value"
            }
        }
        "Gather" if slot == 1 && whole && by_distance(tensor) => "rope",
        _ if chooses_piece(side, n) => "activation",
        _ if whole && node.writes().any(|v| is_truth(side, v) || feeds_mask(side, v)) => "mask",
        // What is chosen among is data, unless it hides.
        "Where" if chosen && (is_score(side, n) || is_by_distance(tensor)) => "rope",
        "Where" if chosen => "weight_value",
        "Where" | "And" | "Or" | "Xor" | "Equal" | "Less" | "LessOrEqual" | "Greater" | "GreaterOrEqual"
        | "Trilu" => "mask",
        "Reshape" | "Expand" | "Transpose" | "Tile" | "Unsqueeze" | "Squeeze" if slot > 0 => "layout",
        "Clip" | "Max" | "Min" | "Pow" | "PRelu" => "activation",
        "Pad" => "padding",
        _ if is_reduction(op) => "axis",
        "Gather" | "GatherElements" | "GatherND" if slot == 0 => "weight_value",
        _ if whole => "index",
        _ => "weight_value",
    }
}

/// Whether a node takes the share of the other part, 1 less a share, by which something is multiplied.
fn takes_other_share(side: &Side<'_>, n: NodeId, one: &Tensor) -> bool {
    let is_one = one.to_f64().is_ok_and(|x| x.iter().all(|&x| x == 1.0));
    let shares = |v: ValueId| {
        let x = side.shadow.get(v).and_then(|t| t.to_f64().ok());
        x.is_some_and(|x| x.iter().all(|x| (0.0..=1.0).contains(x)) && x.iter().any(|x| x.fract() != 0.0))
    };
    let multiplies = |m: NodeId| side.graph().node(m).op == "Mul" && side.dynamic_inputs(m).len() == 2;
    is_one && side.dynamic_inputs(n).into_iter().any(shares) && readers(side, n).any(multiplies)
}

/// The cause when a node is there on one side only.
pub fn of_presence(side: &Side<'_>, n: NodeId) -> &'static str {
    let node = side.graph().node(n);
    let constant = node.inputs.iter().enumerate().find_map(|(i, v)| {
        let v = (*v)?;
        side.is_constant(v).then(|| side.shadow.get(v).map(|t| (i, t))).flatten()
    });
    let whole = node.writes().next().and_then(|v| side.declared.dtype(v)).is_some_and(DType::is_int);
    let truth = node.writes().next().is_some_and(|v| is_truth(side, v));
    // What a number is added to may have been hidden before.
    let reads_mask = match &constant {
        Some((_, number)) => masks(number),
        None => node.inputs.iter().flatten().any(|&v| side.shadow.get(v).is_some_and(masks)),
    };
    // A gain, a shift or a product on the way to a rotation is none itself.
    let prepares = is_product(&node.op) || constant.is_some() && is_arithmetic(&node.op);
    let rotary = node.inputs.iter().flatten().any(|&v| is_rotary(side, v)) && !transforms(side, n)
        || node.writes().any(|v| is_rotated(side, v)) && !prepares;
    match node.op.as_str() {
        _ if rotary => "rope",
        _ if chooses_piece(side, n) => "activation",
        _ if truth => "mask",
        _ if whole && node.writes().any(|v| feeds_mask(side, v)) => "mask",
        "Cast" if whole && becomes_float(side, n) => "quantisation",
        op if op.ends_with("QuantizeLinear") => "quantisation",
        op if !is_layout(op) && quantised::works_on_levels(side, n) => "quantisation",
        _ if whole => "index",
        "Mul" if constant.as_ref().is_some_and(|(_, t)| drops(t)) => "mode",
        "Add" | "Sub" | "Mul" | "Where" if reads_mask => "mask",
        "Mul" if node.inputs.iter().flatten().any(|&v| leaves_out(side, v)) => "mask",
        _ if makes_another_mean(side, n) => "reduction",
        "Mul" | "Div" if constant.as_ref().is_some_and(|(_, t)| counts_summands(side, n, t)) => "reduction",
        "Add" | "Sub" | "Mul" | "Div" if constant.as_ref().is_some_and(|(_, t)| is_drawn(side, n, t)) => {
            "mode"
        }
        "Sub"
            if constant.as_ref().is_some_and(|(slot, one)| *slot == 0 && takes_other_share(side, n, one)) =>
        {
            "gate_order"
        }
        "Add" | "Sub" if constant.as_ref().is_some_and(|(_, t)| says_where(side, n, t)) => "rope",
        "Mul" | "Div" if bends(side, n) => "activation",
        "Add" | "Sub" | "Mul" | "Div" => match constant {
            Some((slot, tensor)) => of_constant(side, n, slot, tensor),
            None if matches!(node.op.as_str(), "Add" | "Sub")
                && node.writes().any(|v| was_turned(side, v)) =>
            {
                "rope"
            }
            None if node.op == "Add" && adds_to_statistic(side, n) => "normalisation",
            None if node.op == "Add" && is_shift(side, n) => "bias",
            None if node.op == "Add" => "residual",
            None if node.op == "Sub" && leaves_itself_out(side, n) => "index",
            None if node.op == "Sub" && !centres(side, n) => "residual",
            None if node.op == "Sub" => "normalisation",
            None if node.op == "Mul" && gates_itself(side, n) => "activation",
            None if node.op == "Mul" && is_divided_out(side, n) => "normalisation",
            None if node.op == "Div" && matches!(averages(side, n), Some(Divisor::Count)) => "reduction",
            None if node.op == "Div" && averages(side, n).is_some() => "normalisation",
            None if node.op == "Div" && (centres(side, n) || is_share_of_group(side, n)) => "normalisation",
            None if node.op == "Div" && gates_itself(side, n) => "activation",
            // A square that no mean is taken of.
            None if squares(side, n) && is_of_statistic(side, n) => "normalisation",
            None if squares(side, n) => "activation",
            // One number for many places, as what a gate or a router says of each channel or token.
            None if node.op == "Mul" && is_shift(side, n) => "scale",
            // A gate: which values meet, not by what number.
            None if node.op == "Mul" => "operand_order",
            None => "scale",
        },
        "And" | "Or" | "Not" | "Where" | "Trilu" => "mask",
        "Neg" if negates_for_rotation(side, n) => "rope",
        "Neg" => "scale",
        "Cast" | "CastLike" => "precision",
        "Round" | "Floor" | "Ceil" if becomes_whole(side, n) => "index",
        "Round" | "Floor" | "Ceil" => "quantisation",
        "Dropout" => "mode",
        "Pad" => "padding",
        "Slice" if crops(side, n) => "padding",
        "Gather" | "Concat" if borders(side, n) => "padding",
        "Slice" | "Gather" if enters_statistic(side, n) => "normalisation",
        "Slice" | "Gather" | "Concat" | "GatherElements" | "GatherND" | "Split" | "TopK" => "index",
        op if is_rounding(op) => "quantisation",
        op if is_activation(op) => "activation",
        op if is_layout(op) => "layout",
        "Pow" if !is_of_statistic(side, n) => "activation",
        "Max" | "Min" | "Clip" if constant.is_some() => "activation",
        "Max" | "Min" => "reduction",
        "Softmax" | "LogSoftmax" | "Log" | "Sign" => "activation",
        "Resize" | "GridSample" | "ScatterElements" | "ScatterND" => "index",
        "Sqrt" if !normalises(side, n) => "activation",
        op if is_normalisation(op) || op == "Sqrt" || op == "Reciprocal" || op == "Pow" => "normalisation",
        op if is_reduction(op) => "reduction",
        _ => "unknown",
    }
}
