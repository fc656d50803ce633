//! Numbers lost beside much larger ones: where rounding explains it they are allowed to be, and say nothing; where some
//! are hidden and others not, what hides them is to blame.

mod common;
mod net;

use isotrace_graph::Attribute;
use isotrace_report::Verdict;
use isotrace_tensor::Tensor;
use net::{Net, compare, numbers};

/// Shares of what comes, which the same number added to all of it does not change; but in f32 it may leave nothing.
fn shares(more: Option<f32>) -> Net {
    let mut n = Net::default();
    n.value("x");
    if let Some(more) = more {
        n.constant("more", Tensor::scalar(more));
        n.node("Add", &["x", "more"], "moved", &[]);
    }
    n.node("Softmax", &[if more.is_some() { "moved" } else { "x" }], "y", &[]);
    n
}

#[test]
fn an_output_that_rounding_decides_is_a_warning() {
    for (more, drowned) in [(10.3, false), (-100.7, false), (-1e9, true)] {
        let report = compare(shares(None), shares(Some(more)));
        assert_eq!(report.verdict, Verdict::Equivalent, "{more}: {}", report.reason);
        let vacuous: Vec<_> = report.warnings.iter().filter(|w| w.class == "vacuous").collect();
        assert_eq!(vacuous.len(), usize::from(drowned), "{more}: {vacuous:?}");
        if let [warning] = vacuous[..] {
            assert_eq!(warning.place, ["node_y", "y"], "{}", warning.summary);
        }
    }
}

/// Shares over the first axis; a mask over the others hides all or none of what is shared out.
#[test]
fn what_hides_whole_rows_is_a_mask() {
    let net = |hides: bool| {
        let mut n = Net::default();
        n.value("x");
        n.constant("w", numbers(&[8, 8], 1));
        // Shares that are almost all or nothing, of which no first order allows that they become equal.
        n.constant("far", Tensor::scalar(60f32));
        n.node("Mul", &["x", "far"], "h", &[]);
        if hides {
            let late = |i: i32| if i % 8 > i / 8 { -1e9f32 } else { 0.0 };
            n.constant("late", Tensor::from_vec(&[6, 8], (0..48).map(late).collect()).unwrap());
            n.node("Add", &["h", "late"], "scores", &[]);
        }
        let read = if hides { "scores" } else { "h" };
        n.node("Softmax", &[read], "shares", &[("axis", Attribute::Int(0))]);
        n.node("MatMul", &["shares", "w"], "y", &[]);
        n
    };
    let report = compare(net(false), net(true));
    assert_eq!(report.verdict, Verdict::Divergent, "{}", report.reason);
    assert_eq!(report.culprits[0].cause.class, "mask", "{}", report.culprits[0].cause.summary);
}
