//! What rounding explains and decides: numbers lost beside much larger ones are allowed to be, and say nothing.

mod common;
mod net;

use isotrace_report::Verdict;
use isotrace_tensor::Tensor;
use net::{Net, compare};

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
