//! Kernels of a product that the worst-case bound has room for, as a table: what the kernel does, what is said of it.

mod common;

use common::numbers;
use isotrace_diagnose::{Detail, Inputs, Options, Source, diff};
use isotrace_graph::{Dim, Graph, Node, TensorType, Value, ValueId};
use isotrace_report::Report;
use isotrace_tensor::{DType, Tensor, nearest_f16};
use rustc_hash::FxHashMap;

const ROWS: usize = 24;
const COLUMNS: usize = 48;

/// A row of x, a column of w, the bias; what the kernel makes of them.
type Kernel<'k> = &'k dyn Fn(&[f32], &[f32], f32) -> f32;

fn blocked(x: &[f32], w: &[f32], b: f32) -> f32 {
    let block = |(x, w): (&[f32], &[f32])| x.iter().zip(w).fold(0f32, |s, (x, w)| x.mul_add(*w, s));
    x.chunks(64).zip(w.chunks(64)).map(block).fold(0f32, |s, p| s + p) + b
}

fn plain(x: &[f32], w: &[f32], b: f32) -> f32 {
    x.iter().zip(w).fold(0f32, |s, (x, w)| s + x * w) + b
}

fn tf32(x: &[f32]) -> Vec<f32> {
    x.iter().map(|x| f32::from_bits((x.to_bits() + 0x0fff + (x.to_bits() >> 13 & 1)) & !0x1fff)).collect()
}

fn in_f16(x: &[f32], w: &[f32], b: f32) -> f32 {
    let terms = x.iter().zip(w).map(|(x, w)| f64::from(*x) * f64::from(*w)).chain([f64::from(b)]);
    terms.fold(0.0, |s, p| nearest_f16(s + p).to_f64()) as f32
}

/// y = x w + b with `terms` terms, B recorded as `kernel` makes it and `edit` leaves it.
fn report(terms: usize, x: Vec<f32>, kernel: Kernel<'_>, edit: &dyn Fn(usize, f32) -> f32) -> Report {
    let mut graph = Graph::default();
    let mut value =
        |name: &str, constant| graph.add_value(Value { name: name.into(), constant, ..Value::default() });
    let (w, b) = (numbers(terms * COLUMNS, 6), numbers(COLUMNS, 7));
    let b: Vec<f32> = b.into_iter().map(|b| b * 3e-5).collect();
    let x_id = value("x", None);
    let w_id = value("w", Some(Tensor::from_vec(&[terms, COLUMNS], w.clone()).unwrap()));
    let b_id = value("b", Some(Tensor::vector(b.clone())));
    let y_id = value("y", None);
    graph.nodes.push(Node {
        name: "product".into(),
        domain: String::new(),
        op: "Gemm".into(),
        version: 13,
        inputs: [x_id, w_id, b_id].map(Some).to_vec(),
        outputs: vec![Some(y_id)],
        attributes: isotrace_graph::Attributes::default(),
    });
    let shape = Some(vec![Dim::Fixed(ROWS), Dim::Fixed(terms)]);
    graph.values[x_id.index()].declared = Some(TensorType { dtype: DType::F32, shape });
    graph.inputs.push(x_id);
    graph.outputs.push(y_id);
    let column = |c: usize| (0..terms).map(|k| w[k * COLUMNS + c]).collect::<Vec<f32>>();
    let columns: Vec<Vec<f32>> = (0..COLUMNS).map(column).collect();
    let made = (0..ROWS * COLUMNS).map(|i| {
        let (r, c) = (i / COLUMNS, i % COLUMNS);
        edit(i, kernel(&x[r * terms..(r + 1) * terms], &columns[c], b[c]))
    });
    let recorded =
        FxHashMap::from_iter([(y_id, Tensor::from_vec(&[ROWS, COLUMNS], made.collect()).unwrap())]);
    let fed: FxHashMap<ValueId, Tensor> =
        FxHashMap::from_iter([(x_id, Tensor::from_vec(&[ROWS, terms], x).unwrap())]);
    let inputs = Inputs { a: &fed, b: &fed, pairs: &[(x_id, x_id)] };
    let options = Options { allowed: &[], progress: None, detail: Detail::FULL };
    let source = |path, recorded| Source { path, graph: &graph, recorded };
    diff(source("a", None), source("b", Some(&recorded)), inputs, options).unwrap()
}

#[test]
fn what_the_bound_has_room_for_is_seen_and_named() {
    let keep = |_: usize, y: f32| y;
    let up = |_: usize, y: f32| f32::from_bits(y.to_bits() + 1);
    let one = |i: usize, y: f32| if i == 777 { y + 3e-4 } else { y };
    let channel = |i: usize, y: f32| if i % COLUMNS == 5 { y + 1.5e-5 } else { y };
    let larger = |_: usize, y: f32| y * 1.000_001;
    let grid = |_: usize, y: f32| nearest_f16(y.into()).to_f32();
    let on_tf32 = |x: &[f32], w: &[f32], b: f32| blocked(&tf32(x), &tf32(w), b);
    let no_bias = |x: &[f32], w: &[f32], _: f32| blocked(x, w, 0.0);
    let mixed = |terms: usize| numbers(ROWS * terms, 5);
    let alike = |terms: usize| vec![0.3f32; ROWS * terms];
    let sorted = |terms: usize| {
        let mut x = mixed(terms);
        x.chunks_mut(terms).for_each(|row| row.sort_by(f32::total_cmp));
        x
    };
    let positive = |terms: usize| mixed(terms).into_iter().map(f32::abs).collect::<Vec<f32>>();
    // (what, terms, x, kernel, edit, class, proven)
    type Case<'c> =
        (&'c str, usize, Vec<f32>, Kernel<'c>, &'c dyn Fn(usize, f32) -> f32, Option<&'c str>, bool);
    let cases: [Case<'_>; 14] = [
        ("blocks of fused steps", 4096, mixed(4096), &blocked, &keep, None, false),
        ("one step after the other", 4096, mixed(4096), &plain, &keep, None, false),
        ("the same, of equal numbers", 4096, alike(4096), &plain, &keep, None, false),
        ("the same, of sorted numbers", 4096, sorted(4096), &plain, &keep, None, false),
        ("the same, of positive numbers", 4096, positive(4096), &plain, &keep, None, false),
        ("few terms", 16, mixed(16), &blocked, &keep, None, false),
        ("inputs in TF32", 16384, mixed(16384), &on_tf32, &keep, Some("precision"), true),
        ("sums in f16", 4096, mixed(4096), &in_f16, &keep, Some("accumulation"), true),
        ("stored in f16", 16384, mixed(16384), &blocked, &grid, Some("precision"), true),
        ("no bias", 256, mixed(256), &no_bias, &keep, Some("bias"), true),
        ("a millionth too large", 256, mixed(256), &blocked, &larger, Some("scale"), true),
        ("one bit up", 64, mixed(64), &blocked, &up, Some("scale"), false),
        ("one wrong element", 1024, mixed(1024), &blocked, &one, Some("unknown"), false),
        ("one wrong channel", 256, mixed(256), &blocked, &channel, Some("unknown"), false),
    ];
    let mut wrong = Vec::new();
    for (what, terms, x, kernel, edit, class, proven) in cases {
        let report = report(terms, x, kernel, edit);
        let cause = report.culprits.first().map(|c| &c.cause);
        let found = cause.map(|c| c.class.as_str());
        let shows =
            cause.is_some_and(|c| c.counterfactual.as_ref().is_some_and(|p| p.after < p.before / 2.0));
        if found != class || proven && !shows {
            wrong.push(format!("{what}: {found:?} for {class:?}; {cause:#?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
