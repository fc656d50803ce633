//! Operators that do at once what others do one by one, each with the function that writes it out.

use isotrace_graph::{Node, ValueId};
use isotrace_ops::{NoBodies, Precision, nchwc};
use isotrace_run::{Evaluation, evaluate};
use isotrace_tensor::Tensor;
use rustc_hash::FxHashMap;

use super::writer::Writer;
use super::{activation, attention, norm, product, recurrent, rotary};
use crate::role;

/// Writes one node out; `None` for forms of it that are not known.
type Form = fn(&mut Writer<'_>) -> Option<()>;

const MICROSOFT: &str = "com.microsoft";

const FORMS: &[(&str, &str, Form)] = &[
    ("", "Attention", attention::onnx),
    (MICROSOFT, "Attention", attention::packed),
    (MICROSOFT, "MultiHeadAttention", attention::many_heads),
    (MICROSOFT, "GroupQueryAttention", attention::grouped),
    ("", "RotaryEmbedding", rotary::onnx),
    (MICROSOFT, "RotaryEmbedding", rotary::contrib),
    ("", "RMSNormalization", norm::root_mean_square),
    ("", "SimplifiedLayerNormalization", norm::root_mean_square),
    (MICROSOFT, "SimplifiedLayerNormalization", norm::root_mean_square),
    ("", "LayerNormalization", norm::layer),
    ("", "Gelu", activation::gelu),
    (MICROSOFT, "Gelu", activation::gelu),
    (MICROSOFT, "BiasGelu", activation::gelu),
    (MICROSOFT, "FastGelu", activation::fast_gelu),
    (MICROSOFT, "QuickGelu", activation::quick_gelu),
    (MICROSOFT, "SkipLayerNormalization", norm::skip_layer),
    (MICROSOFT, "SkipSimplifiedLayerNormalization", norm::skip_root_mean_square),
    (MICROSOFT, "EmbedLayerNormalization", norm::embedded),
    ("", "RNN", recurrent::rnn),
    ("", "GRU", recurrent::gru),
    ("", "LSTM", recurrent::lstm),
    ("", "Gemm", product::gemm),
    (MICROSOFT, "FusedGemm", product::gemm),
    (MICROSOFT, "FusedMatMul", product::fused_matmul),
    (MICROSOFT, "FusedConv", product::fused_conv),
    (nchwc::DOMAIN, "Conv", product::fused_conv),
    (nchwc::DOMAIN, "ReorderInput", product::reorder_input),
    (nchwc::DOMAIN, "ReorderOutput", product::reorder_output),
];

/// What writes a node out, if anything does.
pub fn form(node: &Node) -> Option<Form> {
    FORMS.iter().find(|(domain, op, _)| *domain == node.domain && *op == node.op).map(|f| f.2)
}

/// Whether a node, on one side alone, is a reason to write a region out. A norm beside its parts is told apart without
/// (its epsilon, its statistics); where it stands alone the other side's region is likely another place. One that looks
/// tables up besides is more than a norm.
pub fn asks(node: &Node) -> bool {
    form(node).is_some() && (!role::is_normalisation(&node.op) || node.op.starts_with("Embed"))
}

/// Writes a node out, if that gives what the node gives.
pub fn write(writer: &mut Writer<'_>) -> Option<()> {
    form(writer.node)?(writer)?;
    agrees(writer)
}

/// How far a definition may be from the operator in float64, as a share of the largest element.
const DEFINED: f64 = 1e-6;

/// Whether what was written gives what the node gives, in float64 on the inputs that it has.
fn agrees(writer: &Writer<'_>) -> Option<()> {
    let mut made: FxHashMap<ValueId, Tensor> = FxHashMap::default();
    for (_, node) in &writer.nodes {
        let outputs = call(node, &|v| {
            let before = || writer.tensor(v).or(writer.graph.value(v).constant.as_ref());
            made.get(&v).or_else(before).cloned()
        })?;
        made.extend(node.outputs.iter().zip(outputs).filter_map(|(v, t)| Some(((*v)?, t))));
    }
    let real = call(writer.node, &|v| writer.tensor(v).cloned())?;
    for (v, real) in writer.node.outputs.iter().zip(&real) {
        let Some(v) = v else { continue };
        let (x, y) = (made.get(v)?.to_f64().ok()?, real.to_f64().ok()?);
        let largest = y.iter().filter(|y| y.is_finite()).fold(0f64, |m, y| m.max(y.abs()));
        let near = |(x, y): (&f64, &f64)| x == y || (x - y).abs() <= DEFINED * largest;
        if made.get(v)?.shape() != real.shape() || !x.iter().zip(y.iter()).all(near) {
            return None;
        }
    }
    Some(())
}

fn call(node: &Node, lookup: &dyn Fn(ValueId) -> Option<Tensor>) -> Option<Vec<Tensor>> {
    let inputs: Vec<Option<Tensor>> =
        node.inputs.iter().map(|v| v.map_or(Some(None), |v| lookup(v).map(Some))).collect::<Option<_>>()?;
    let inputs: Vec<Option<&Tensor>> = inputs.iter().map(Option::as_ref).collect();
    let what = Evaluation {
        inputs: &inputs,
        outputs: node.outputs.len(),
        precision: Precision::Float64,
        decided: None,
        bodies: &NoBodies,
    };
    evaluate(isotrace_ops::build(node).ok()?.as_ref(), &what).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use isotrace_graph::{Attribute, Graph, Value};
    use isotrace_run::{Options, Plan};
    use isotrace_tensor::DType;

    /// Numbers within [-1, 1] that look like nothing in particular.
    fn numbers(shape: &[usize]) -> Tensor {
        let len: usize = shape.iter().product();
        Tensor::from_vec(shape, (0..len).map(|i| ((i * 37 + 11) as f32).sin()).collect()).unwrap()
    }

    fn node(case: &Case, graph: &mut Graph) -> Node {
        let inputs = (case.inputs)().into_iter().map(|input| {
            input.map(|tensor| graph.add_value(Value { constant: Some(tensor), ..Value::default() }))
        });
        let inputs = inputs.collect();
        let outputs = (0..case.outputs).map(|_| Some(graph.add_value(Value::default()))).collect();
        Node {
            name: "it".into(),
            domain: case.domain.into(),
            op: case.op.into(),
            version: case.version,
            inputs,
            outputs,
            attributes: case.settings.iter().map(|(name, i)| ((*name).into(), setting(name, *i))).collect(),
        }
    }

    const ACTIVATIONS: [&str; 3] = ["Relu", "HardSigmoid", "LeakyRelu"];

    const DIRECTIONS: [&str; 3] = ["forward", "reverse", "bidirectional"];

    /// What a recurrent operator of so many gates and directions reads, five steps of two sequences, with the optional
    /// inputs at some slots.
    fn recurrent(gates: usize, directions: usize, slots: &[usize]) -> Vec<Option<Tensor>> {
        let (d, rows) = (directions, gates * 3);
        let optional = |slot: usize| match slot {
            3 => numbers(&[d, 2 * rows]),
            7 => numbers(&[d, 9]),
            _ => numbers(&[d, 2, 3]),
        };
        let mut inputs = some(vec![numbers(&[5, 2, 4]), numbers(&[d, rows, 4]), numbers(&[d, rows, 3])]);
        inputs.extend((3..8).map(|slot| slots.contains(&slot).then(|| optional(slot))));
        inputs
    }

    /// Settings are whole numbers here; those that are not whole are given in thousandths, an activation by its place
    /// above, and of pads and of an activation's parameters all are the same.
    fn setting(name: &str, number: i64) -> Attribute {
        match name {
            "scale" | "softcap" | "epsilon" | "alpha" | "beta" | "activation_alpha" => {
                Attribute::Float(number as f32 / 1000.0)
            }
            "activation" => Attribute::Bytes(ACTIVATIONS[number as usize].as_bytes().into()),
            "activation_params" => Attribute::Floats(vec![number as f32 / 1000.0; 2]),
            "pads" => Attribute::Ints(vec![number; 4]),
            "direction" => Attribute::Bytes(DIRECTIONS[number as usize].as_bytes().into()),
            _ => Attribute::Int(number),
        }
    }

    struct Case {
        what: &'static str,
        domain: &'static str,
        op: &'static str,
        version: i64,
        settings: &'static [(&'static str, i64)],
        outputs: usize,
        inputs: fn() -> Vec<Option<Tensor>>,
    }

    fn some(tensors: Vec<Tensor>) -> Vec<Option<Tensor>> {
        tensors.into_iter().map(Some).collect()
    }

    fn qkv() -> Vec<Tensor> {
        vec![numbers(&[2, 5, 16]), numbers(&[2, 5, 8]), numbers(&[2, 5, 8])]
    }

    fn tables() -> [Tensor; 2] {
        let angles = |f: fn(f32) -> f32| {
            let all = (0..5).flat_map(|p| [1.0, 0.1].map(|w| f(p as f32 * w)));
            Tensor::from_vec(&[5, 2], all.collect()).unwrap()
        };
        [angles(f32::cos), angles(f32::sin)]
    }

    fn ids() -> Tensor {
        Tensor::from_vec(&[2, 5], (0..10).map(|i| i % 5).collect::<Vec<i64>>()).unwrap()
    }

    const GROUPS: (&str, i64) = ("kv_num_heads", 2);
    const CASES: &[Case] = &[
        Case {
            what: "heads shared by queries, causal, capped",
            domain: "",
            op: "Attention",
            version: 23,
            settings: &[("q_num_heads", 4), GROUPS, ("is_causal", 1), ("softcap", 2000)],
            outputs: 1,
            inputs: || some(qkv()),
        },
        Case {
            what: "a mask of truth values, a scale of its own, and a cache",
            domain: "",
            op: "Attention",
            version: 23,
            settings: &[("scale", 300), ("is_causal", 1)],
            outputs: 3,
            inputs: || {
                let x = || numbers(&[2, 4, 5, 4]);
                let past = || Some(numbers(&[2, 4, 3, 4]));
                let seen = (0..40).map(|i| (i % 8 != 1).into()).collect::<Vec<isotrace_tensor::Bool>>();
                let mask = Tensor::from_vec(&[5, 8], seen).unwrap();
                vec![Some(x()), Some(x()), Some(x()), Some(mask), past(), past()]
            },
        },
        Case {
            what: "one product for all three, keys hidden",
            domain: MICROSOFT,
            op: "Attention",
            version: 1,
            settings: &[("num_heads", 4)],
            outputs: 1,
            inputs: || {
                let shown = (0..10).map(|i| i32::from(i % 5 < 4)).collect();
                let shown = Tensor::from_vec(&[2, 5], shown).unwrap();
                some(vec![numbers(&[2, 5, 16]), numbers(&[16, 48]), numbers(&[48]), shown])
            },
        },
        Case {
            what: "biases and something added to the scores",
            domain: MICROSOFT,
            op: "MultiHeadAttention",
            version: 1,
            settings: &[("num_heads", 4), ("unidirectional", 1)],
            outputs: 1,
            inputs: || {
                let x = || Some(numbers(&[2, 5, 16]));
                vec![x(), x(), x(), Some(numbers(&[48])), None, Some(numbers(&[1, 4, 5, 5]))]
            },
        },
        Case {
            what: "turned inside, with a window",
            domain: MICROSOFT,
            op: "GroupQueryAttention",
            version: 1,
            settings: &[("num_heads", 4), GROUPS, ("do_rotary", 1), ("local_window_size", 3)],
            outputs: 3,
            inputs: || {
                let [cosines, sines] = tables();
                let mut inputs = some(qkv());
                inputs.extend([None, None, Some(Tensor::vector(vec![4i32, 4])), Some(Tensor::scalar(5i32))]);
                inputs.extend([Some(cosines), Some(sines)]);
                inputs
            },
        },
        Case {
            what: "halves, looked up by position",
            domain: "",
            op: "RotaryEmbedding",
            version: 23,
            settings: &[("num_heads", 4)],
            outputs: 1,
            inputs: || {
                let [cosines, sines] = tables();
                some(vec![numbers(&[2, 5, 16]), cosines, sines, ids()])
            },
        },
        Case {
            what: "pairs, a part of each head, by heads already",
            domain: "",
            op: "RotaryEmbedding",
            version: 23,
            settings: &[("interleaved", 1), ("rotary_embedding_dim", 4)],
            outputs: 1,
            inputs: || {
                let [cosines, sines] = tables();
                some(vec![numbers(&[2, 3, 5, 6]), cosines, sines, ids()])
            },
        },
        Case {
            what: "one first position for all",
            domain: MICROSOFT,
            op: "RotaryEmbedding",
            version: 1,
            settings: &[],
            outputs: 1,
            inputs: || {
                let [cosines, sines] = tables();
                some(vec![numbers(&[2, 5, 16]), Tensor::vector(vec![0i64]), cosines, sines])
            },
        },
        Case {
            what: "with the error function",
            domain: "",
            op: "Gelu",
            version: 20,
            settings: &[],
            outputs: 1,
            inputs: || some(vec![numbers(&[2, 5])]),
        },
        Case {
            what: "with a bias",
            domain: MICROSOFT,
            op: "BiasGelu",
            version: 1,
            settings: &[],
            outputs: 1,
            inputs: || some(vec![numbers(&[2, 5]), numbers(&[5])]),
        },
        Case {
            what: "with a hyperbolic tangent and a bias",
            domain: MICROSOFT,
            op: "FastGelu",
            version: 1,
            settings: &[],
            outputs: 1,
            inputs: || some(vec![numbers(&[2, 5]), numbers(&[5])]),
        },
        Case {
            what: "with a sigmoid",
            domain: MICROSOFT,
            op: "QuickGelu",
            version: 1,
            settings: &[],
            outputs: 1,
            inputs: || some(vec![numbers(&[2, 5])]),
        },
        Case {
            what: "over the last axis",
            domain: "",
            op: "RMSNormalization",
            version: 23,
            settings: &[("epsilon", 10)],
            outputs: 1,
            inputs: || some(vec![numbers(&[2, 5, 16]), numbers(&[16])]),
        },
        Case {
            what: "over two axes",
            domain: "",
            op: "LayerNormalization",
            version: 17,
            settings: &[("axis", 1)],
            outputs: 1,
            inputs: || some(vec![numbers(&[2, 5, 16]), numbers(&[5, 16]), numbers(&[5, 16])]),
        },
        Case {
            what: "a skip connection and a bias, the sum handed out",
            domain: MICROSOFT,
            op: "SkipLayerNormalization",
            version: 1,
            settings: &[],
            outputs: 1,
            inputs: || {
                let x = || numbers(&[2, 5, 16]);
                some(vec![x(), x(), numbers(&[16]), numbers(&[16]), numbers(&[16])])
            },
        },
        Case {
            what: "a skip connection",
            domain: MICROSOFT,
            op: "SkipSimplifiedLayerNormalization",
            version: 1,
            settings: &[],
            outputs: 1,
            inputs: || some(vec![numbers(&[2, 5, 16]), numbers(&[2, 5, 16]), numbers(&[16])]),
        },
        Case {
            what: "backwards, without bias",
            domain: "",
            op: "RNN",
            version: 14,
            settings: &[("direction", 1)],
            outputs: 2,
            inputs: || recurrent(1, 1, &[]),
        },
        Case {
            what: "reset before the product, both ways",
            domain: "",
            op: "GRU",
            version: 14,
            settings: &[("direction", 2)],
            outputs: 2,
            inputs: || recurrent(3, 2, &[3]),
        },
        Case {
            what: "reset after the product",
            domain: "",
            op: "GRU",
            version: 14,
            settings: &[("linear_before_reset", 1)],
            outputs: 2,
            inputs: || recurrent(3, 1, &[3, 5]),
        },
        Case {
            what: "both ways with first states and peepholes",
            domain: "",
            op: "LSTM",
            version: 14,
            settings: &[("direction", 2)],
            outputs: 3,
            inputs: || recurrent(4, 2, &[3, 5, 6, 7]),
        },
        Case {
            what: "gates coupled, sequences first",
            domain: "",
            op: "LSTM",
            version: 14,
            settings: &[("input_forget", 1), ("layout", 1)],
            outputs: 3,
            inputs: || recurrent(4, 1, &[3]),
        },
        Case {
            what: "rows of three tables, places of their own, positions hidden, the sum handed out",
            domain: MICROSOFT,
            op: "EmbedLayerNormalization",
            version: 1,
            settings: &[("epsilon", 10)],
            outputs: 3,
            inputs: || {
                let ids = || ids().cast(DType::I32).unwrap();
                let mut inputs = vec![ids(), ids(), numbers(&[7, 16]), numbers(&[6, 16]), numbers(&[5, 16])];
                inputs.extend([numbers(&[16]), numbers(&[16])]);
                let shown = (0..10).map(|i| i32::from(i % 5 < 4)).collect();
                inputs.extend([Tensor::from_vec(&[2, 5], shown).unwrap(), ids()]);
                some(inputs)
            },
        },
        Case {
            what: "both operands turned, both factors",
            domain: "",
            op: "Gemm",
            version: 13,
            settings: &[("transA", 1), ("transB", 1), ("alpha", 300), ("beta", 700)],
            outputs: 1,
            inputs: || some(vec![numbers(&[4, 2]), numbers(&[5, 4]), numbers(&[5])]),
        },
        Case {
            what: "an activation with a parameter",
            domain: MICROSOFT,
            op: "FusedGemm",
            version: 1,
            settings: &[("activation", 2), ("activation_alpha", 300)],
            outputs: 1,
            inputs: || some(vec![numbers(&[2, 4]), numbers(&[4, 5]), numbers(&[5])]),
        },
        Case {
            what: "the second operand turned, and a factor",
            domain: MICROSOFT,
            op: "FusedMatMul",
            version: 1,
            settings: &[("transB", 1), ("alpha", 300)],
            outputs: 1,
            inputs: || some(vec![numbers(&[2, 3, 4]), numbers(&[2, 5, 4])]),
        },
        Case {
            what: "a sum before the activation",
            domain: MICROSOFT,
            op: "FusedConv",
            version: 1,
            settings: &[("activation", 0), ("pads", 1)],
            outputs: 1,
            inputs: || {
                let y = numbers(&[1, 4, 5, 5]);
                some(vec![numbers(&[1, 3, 5, 5]), numbers(&[4, 3, 3, 3]), numbers(&[4]), y])
            },
        },
        Case {
            what: "in plain order, channel by channel",
            domain: nchwc::DOMAIN,
            op: "Conv",
            version: 1,
            settings: &[("activation", 1), ("group", 6), (nchwc::PLAIN, 1), ("pads", 1)],
            outputs: 1,
            inputs: || some(vec![numbers(&[1, 6, 5, 5]), numbers(&[6, 1, 3, 3]), numbers(&[6])]),
        },
        Case {
            what: "channels last",
            domain: nchwc::DOMAIN,
            op: "ReorderInput",
            version: 1,
            settings: &[("channels_last", 1), (nchwc::BLOCK, 8)],
            outputs: 1,
            inputs: || some(vec![numbers(&[1, 5, 5, 4])]),
        },
        Case {
            what: "channels last",
            domain: nchwc::DOMAIN,
            op: "ReorderOutput",
            version: 1,
            settings: &[("channels_last", 1), ("channels", 5)],
            outputs: 1,
            inputs: || some(vec![numbers(&[1, 8, 5, 5])]),
        },
    ];

    #[test]
    fn definitions_give_what_the_operators_give() {
        let mut wrong = Vec::new();
        for case in CASES {
            let mut graph = Graph::default();
            let node = node(case, &mut graph);
            graph.nodes = vec![node.clone()];
            let run = Plan::new(&graph).unwrap().run(&FxHashMap::default(), &Options::default());
            let run = run.unwrap_or_else(|e| panic!("{} {}: {e}", case.op, case.what));
            let mut writer = Writer::new(&mut graph, &node, &run);
            if write(&mut writer).is_none() || writer.nodes.len() < 2 {
                wrong.push(format!("{} {}: {} nodes", case.op, case.what, writer.nodes.len()));
            }
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    }

    #[test]
    fn what_does_not_give_the_same_is_not_taken() {
        let mut graph = Graph::default();
        let node = node(CASES.iter().find(|c| c.op == "RMSNormalization").unwrap(), &mut graph);
        graph.nodes = vec![node.clone()];
        let run = Plan::new(&graph).unwrap().run(&FxHashMap::default(), &Options::default()).unwrap();
        let mut writer = Writer::new(&mut graph, &node, &run);
        norm::layer(&mut writer).unwrap();
        assert!(agrees(&writer).is_none());
    }
}
