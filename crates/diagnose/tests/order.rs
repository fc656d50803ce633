//! Which of several things is told, and told first: what hardly differs comes last, what the outputs do not ask for not at all.

mod common;
mod net;
#[expect(dead_code, reason = "the table itself is for other tests")]
mod table;

use isotrace_graph::Attribute;
use isotrace_tensor::Tensor;
use net::{Net, compare, numbers};
use table::around;

fn ints(n: &mut Net, name: &str, values: &[i64]) {
    n.constant(name, Tensor::vector(values.to_vec()));
}

/// A sigmoid, or one by two numbers that are hardly off; then a product and a factor.
fn slight(n: &mut Net, off: bool, factor: f32) {
    if off {
        n.constant("half of", Tensor::scalar(0.500_000_4f32));
        n.constant("half", Tensor::scalar(0.5f32));
        n.constant("rest", Tensor::scalar(0.500_000_9f32));
        n.node("Mul", &["h", "half of"], "scaled", &[]);
        n.node("Tanh", &["scaled"], "bent", &[]);
        n.node("Mul", &["bent", "half"], "less", &[]);
        n.node("Add", &["less", "rest"], "s", &[]);
    } else {
        n.node("Sigmoid", &["h"], "s", &[]);
    }
    n.constant("weight", numbers(&[8, 8], 51));
    n.constant("factor", Tensor::scalar(factor));
    n.node("MatMul", &["s", "weight"], "product", &[]);
    n.node("Mul", &["product", "factor"], "z", &[]);
}

#[test]
fn what_is_hardly_more_than_rounding_is_told_last() {
    let report = compare(around(|n| slight(n, false, 0.7)), around(|n| slight(n, true, 1.3)));
    let told: Vec<&str> = report.culprits.iter().map(|c| c.cause.class.as_str()).collect();
    assert_eq!(told.first(), Some(&"scale"), "{told:?}");
    assert!(told.len() > 1, "{told:?}");
}

/// Heads of a value, by features or by rows.
fn heads(n: &mut Net, of: &str, to: &str, perm: &[i64]) {
    n.node("Reshape", &[of, "heads"], &format!("{to} heads"), &[]);
    n.node("Transpose", &[&format!("{to} heads")], to, &[("perm", Attribute::Ints(perm.to_vec()))]);
}

/// Two layers of attention; the second reads its own keys or those of the first.
fn layers(n: &mut Net, own: bool) {
    ints(n, "heads", &[2, 6, 2, 4]);
    ints(n, "rows", &[2, 6, 8]);
    for k in 0..2 {
        let [q, keys, v, stream, next] =
            [format!("q{k}"), format!("k{k}"), format!("v{k}"), format!("x{k}"), format!("x{}", k + 1)];
        if k == 0 {
            n.node("Tanh", &["h"], &stream, &[]);
        }
        for (i, made) in [&q, &keys, &v].into_iter().enumerate() {
            let (weight, product) = (format!("weight of {made}"), format!("product {made}"));
            n.constant(&weight, numbers(&[8, 8], 61 + 3 * k as u64 + i as u64));
            n.node("MatMul", &[&stream, &weight], &product, &[]);
            heads(n, &product, made, if i == 1 { &[0, 2, 3, 1] } else { &[0, 2, 1, 3] });
        }
        let read = if own { &keys } else { "k0" };
        n.node("MatMul", &[&q, read], &format!("s{k}"), &[]);
        n.node("Softmax", &[&format!("s{k}")], &format!("p{k}"), &[("axis", Attribute::Int(-1))]);
        n.node("MatMul", &[&format!("p{k}"), &v], &format!("y{k}"), &[]);
        let back = [("perm", Attribute::Ints(vec![0, 2, 1, 3]))];
        n.node("Transpose", &[&format!("y{k}")], &format!("joined {k}"), &back);
        n.node("Reshape", &[&format!("joined {k}"), "rows"], &format!("rows {k}"), &[]);
        n.node("Add", &[&stream, &format!("rows {k}")], &next, &[]);
    }
    n.node("Identity", &["x2"], "z", &[]);
}

#[test]
fn what_others_read_rightly_is_not_told() {
    let report = compare(around(|n| layers(n, true)), around(|n| layers(n, false)));
    let first = report.culprits.first().expect("the second layer reads the keys of the first");
    assert!(first.b.outputs.iter().any(|o| o == "s1"), "{first:?}");
    assert_eq!(report.culprits.len(), 1, "{:?}", report.culprits);
}
