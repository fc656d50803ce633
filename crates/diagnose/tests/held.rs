//! What two networks compute with the same bits: held once, and told without float64 in either order of the two.

mod common;
mod net;

use isotrace_align::{Changes, Evidence, Index, Judge, Side, State};
use isotrace_graph::Graph;
use isotrace_tensor::Tensor;
use net::Net;

const ROWS: usize = 40;
const WIDTH: usize = 48;

/// A layer as one call, with another behind it.
fn fused() -> Graph {
    layer(|n| n.node("Gemm", &["x", "weights", "bias"], "linear", &[]))
}

/// The same as a product and a sum.
fn apart() -> Graph {
    layer(|n| {
        n.node("MatMul", &["x", "weights"], "product", &[]);
        n.node("Add", &["product", "bias"], "linear", &[]);
    })
}

fn layer(linear: impl Fn(&mut Net)) -> Graph {
    let mut n = Net::default();
    n.constant("weights", Tensor::from_vec(&[WIDTH, WIDTH], common::numbers(WIDTH * WIDTH, 5)).unwrap());
    n.constant("bias", Tensor::vector(common::numbers(WIDTH, 6)));
    linear(&mut n);
    n.node("Tanh", &["linear"], "y", &[]);
    n.finish(&["x"])
}

#[test]
fn what_a_fused_call_hides_waits_for_the_bits_it_comes_to() {
    let x = Tensor::from_vec(&[ROWS, WIDTH], common::numbers(ROWS * WIDTH, 3)).unwrap();
    let fed = |graph: &Graph| [(graph.inputs[0], x.clone())].into_iter().collect();
    let named = |graph: &Graph, name: &str| graph.value_ids().find(|&v| graph.value(v).name == name);
    for (a, b) in [(fused(), apart()), (apart(), fused())] {
        let bound = [(b.inputs[0], a.inputs[0])];
        let side_a = Side::new(&a, &fed(&a), None).unwrap();
        let side_b = Side::beside(&side_a, &b, &fed(&b), &bound, None).unwrap();
        let index = Index::new(&side_a);
        let judge = Judge::new(&side_a, &side_b, &index, &[]);
        let state = State::execute(&judge, &bound, &Changes::default());
        for name in ["linear", "y"] {
            let v = named(&b, name).unwrap();
            let found = state.matched[v.index()].as_ref().unwrap();
            assert_eq!((a.value(found.a).name.as_str(), &found.evidence), (name, &Evidence::Bits));
            let place = |side: &Side<'_>, v| side.declared.get(v).unwrap().raw_bytes().as_ptr();
            assert_eq!(place(&side_a, found.a), place(&side_b, v), "{name} is held once");
        }
        if let Some(product) = named(&b, "product") {
            assert!(state.put_off[product.index()] && !state.is_matched(product));
            assert!(state.own_declared(product).is_some(), "B's own values can be had");
        }
    }
}
