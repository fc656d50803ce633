//! Sums and products in another order, of which a side keeps a part for others to read: what each part was rounded by is
//! nobody's fault, and what is narrowed among them still is.

mod common;
mod net;
#[allow(dead_code, reason = "only the ends of the table are used here")]
mod table;

use isotrace_graph::Attribute;
use isotrace_report::Verdict;
use isotrace_tensor::Tensor;
use net::{Net, compare};
use table::{Between, around};

/// Three values, of which the first and the last nearly cancel.
fn summands(n: &mut Net) {
    n.constant("hundred", Tensor::scalar(100f32));
    n.node("Mul", &["h", "hundred"], "large", &[]);
    n.node("Sub", &["x", "large"], "back", &[]);
}

/// (large + g) + back; the sum in brackets is read once more.
fn from_the_left(n: &mut Net) {
    summands(n);
    n.node("Add", &["large", "g"], "kept", &[]);
    n.node("Add", &["kept", "back"], "sum", &[]);
    n.node("Mul", &["sum", "kept"], "z", &[]);
}

/// large + (g + back), while large + g is made for its other reader; the sum in brackets may be kept in a narrower type.
fn from_the_right(n: &mut Net, narrow: Option<i64>) {
    summands(n);
    n.node("Add", &["large", "g"], "kept", &[]);
    n.node("Add", &["g", "back"], "later", &[]);
    let mut later = "later";
    if let Some(to) = narrow {
        n.node("Cast", &[later], "down", &[("to", Attribute::Int(to))]);
        n.node("Cast", &["down"], "up", &[("to", Attribute::Int(1))]);
        later = "up";
    }
    n.node("Add", &["large", later], "sum", &[]);
    n.node("Mul", &["sum", "kept"], "z", &[]);
}

/// Both sums in brackets are made on both sides.
fn both(n: &mut Net, left: bool) {
    summands(n);
    n.node("Add", &["large", "g"], "kept", &[]);
    n.node("Add", &["g", "back"], "later", &[]);
    let (a, b) = if left { ("kept", "back") } else { ("large", "later") };
    n.node("Add", &[a, b], "sum", &[]);
    n.node("Mul", &["sum", "kept"], "one", &[]);
    n.node("Add", &["one", "later"], "z", &[]);
}

#[test]
fn what_a_kept_part_was_rounded_by_is_allowed() {
    let pairs: [(&str, Between, Between); 3] = [
        ("a part that A reads and B does not", from_the_left, |n| from_the_right(n, None)),
        ("a part that B reads and A does not", |n| from_the_right(n, None), from_the_left),
        ("either side reads another part", |n| both(n, true), |n| both(n, false)),
    ];
    for (what, a, b) in pairs {
        let report = compare(around(a), around(b));
        assert_eq!(
            report.verdict,
            Verdict::Equivalent,
            "{what}: {} {:?}",
            report.reason,
            report.culprits.first()
        );
    }
}

#[test]
fn what_is_narrowed_among_them_is_told() {
    let narrowed: [Between; 2] = [|n| from_the_right(n, Some(10)), |n| from_the_right(n, Some(16))];
    for b in narrowed {
        let report = compare(around(from_the_left), around(b));
        assert_eq!(report.verdict, Verdict::Divergent);
        assert_eq!(report.culprits[0].cause.class, "precision");
    }
}
