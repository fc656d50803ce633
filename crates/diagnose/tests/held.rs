//! What two networks compute with the same bits: held once, and told without float64 in either order of the two.

mod common;
mod net;

use isotrace_align::{Changes, Evidence, Index, Judge, Keeps, Side, State};
use isotrace_graph::{Attribute, Graph, ValueId};
use isotrace_tensor::Tensor;
use net::Net;
use rustc_hash::FxHashMap;

/// A graph that reads `x` of a shape, and that shape.
struct Case {
    graph: Graph,
    shape: Vec<usize>,
}

impl Case {
    fn new(shape: &[usize], nodes: impl Fn(&mut Net)) -> Self {
        let mut n = Net::default();
        nodes(&mut n);
        n.node("Tanh", &["made"], "y", &[]);
        Self { graph: n.finish(&["x"]), shape: shape.to_vec() }
    }

    fn x(&self) -> Tensor {
        let len = self.shape.iter().product();
        Tensor::from_vec(&self.shape, common::numbers(len, 3)).unwrap()
    }

    fn fed(&self, x: &Tensor) -> FxHashMap<ValueId, Tensor> {
        [(self.graph.inputs[0], x.reshape(&self.shape).unwrap())].into_iter().collect()
    }

    fn named(&self, name: &str) -> Option<ValueId> {
        self.graph.value_ids().find(|&v| self.graph.value(v).name == name)
    }
}

fn weights(n: &mut Net, shape: &[usize], biases: usize) {
    n.constant("weights", Tensor::from_vec(shape, common::numbers(shape.iter().product(), 5)).unwrap());
    n.constant("bias", Tensor::vector(common::numbers(biases, 6)));
}

/// A layer as one call of rows, and as a product and a sum on whatever shape has those rows.
fn layer(shape: &[usize], width: usize) -> [Case; 2] {
    let [.., k] = *shape else { unreachable!() };
    let rows = shape.iter().product::<usize>() / k;
    let fused = Case::new(&[rows, k], |n| {
        weights(n, &[k, width], width);
        n.node("Gemm", &["x", "weights", "bias"], "made", &[]);
    });
    let apart = Case::new(shape, |n| {
        weights(n, &[k, width], width);
        n.node("MatMul", &["x", "weights"], "product", &[]);
        n.node("Add", &["bias", "product"], "made", &[]);
    });
    [fused, apart]
}

/// A convolution whose activation is part of it, and one where it is not.
fn convolution(shape: &[usize], filters: usize) -> [Case; 2] {
    let pads = || ("pads", Attribute::Ints(vec![1, 0]));
    let kernel = [filters, shape[1], 3];
    let fused = Case::new(shape, |n| {
        weights(n, &kernel, filters);
        let relu = ("activation", Attribute::Bytes(b"Relu".to_vec()));
        n.node("FusedConv", &["x", "weights", "bias"], "made", &[relu, pads()]);
        n.at("made").domain = "com.microsoft".into();
    });
    let apart = Case::new(shape, |n| {
        weights(n, &kernel, filters);
        n.node("Conv", &["x", "weights", "bias"], "product", &[pads()]);
        n.node("Relu", &["product"], "made", &[]);
    });
    [fused, apart]
}

fn pairs() -> Vec<[Case; 2]> {
    vec![
        layer(&[40, 48], 48),
        layer(&[1, 128, 48], 64),
        layer(&[2, 20, 96], 33),
        layer(&[1, 1, 1500], 1100),
        layer(&[1, 1200, 1], 7),
        convolution(&[1, 4, 300], 6),
        convolution(&[2, 3, 700], 1),
    ]
}

#[test]
fn a_fused_call_comes_to_the_bits_of_its_parts() {
    for [fused, apart] in pairs() {
        let x = fused.x();
        let made = |case: &Case| {
            let side = Side::new(&case.graph, &case.fed(&x), None).unwrap();
            side.declared.get(case.named("made").unwrap()).unwrap().as_slice::<f32>().unwrap().to_vec()
        };
        assert_eq!(made(&fused), made(&apart), "{:?}", apart.shape);
    }
}

#[test]
fn what_a_fused_call_hides_waits_for_the_bits_it_comes_to() {
    for pair in pairs() {
        let [fused, apart] = &pair;
        for (a, b) in [(fused, apart), (apart, fused)] {
            let x = a.x();
            let side_a = Side::new(&a.graph, &a.fed(&x), None).unwrap();
            let bound = [(b.graph.inputs[0], a.graph.inputs[0])];
            let side_b = Side::beside(&side_a, &b.graph, &b.fed(&x), &bound, Keeps::All, None).unwrap();
            let index = Index::new(&side_a);
            let judge = Judge::new(&side_a, &side_b, &index, &[]);
            let state = State::execute(&judge, &bound, &Changes::default());
            for name in ["made", "y"] {
                let v = b.named(name).unwrap();
                let found = state.matched[v.index()].as_ref().unwrap();
                assert_eq!((a.graph.value(found.a).name.as_str(), &found.evidence), (name, &Evidence::Bits));
                let place = |side: &Side<'_>, v| side.declared.get(v).unwrap().raw_bytes().as_ptr();
                assert_eq!(place(&side_a, found.a), place(&side_b, v), "{name} is held once");
            }
            if let Some(product) = b.named("product") {
                assert!(state.put_off[product.index()] && !state.is_matched(product));
                assert!(state.own_declared(product).is_some(), "B's own values can be had");
            }
        }
    }
}
