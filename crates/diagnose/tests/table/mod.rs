//! Faults as a table: what stands between the same beginning and end in A and in B, and what the difference is called.

use isotrace_report::Verdict;

use crate::net::{Net, compare, numbers};

/// Nodes that make z of x, h = x W and g = x V.
pub type Between = fn(&mut Net);

/// What B has in place of A's nodes, and the name of it.
pub struct Case {
    pub what: &'static str,
    pub cause: &'static str,
    pub a: Between,
    pub b: Between,
}

/// x W, x V, and a last product behind whatever comes between.
pub fn around(between: Between) -> Net {
    let mut n = Net::default();
    n.value("x");
    for (i, name) in ["w", "v", "last"].into_iter().enumerate() {
        n.constant(name, numbers(&[8, 8], i as u64 + 1));
    }
    n.node("MatMul", &["x", "w"], "h", &[]);
    n.node("MatMul", &["x", "v"], "g", &[]);
    between(&mut n);
    n.node("MatMul", &["z", "last"], "y", &[]);
    n
}

/// Holds every case to its name, and to a proof that mends something.
pub fn all_named(cases: &[Case]) {
    let mut wrong = Vec::new();
    for case in cases {
        let report = compare(around(case.a), around(case.b));
        let first = report.culprits.first();
        let cause = first.map(|c| c.cause.class.as_str());
        let proven = first.and_then(|c| c.cause.counterfactual.as_ref()).is_some_and(|p| p.after < p.before);
        if report.verdict != Verdict::Divergent || cause != Some(case.cause) || !proven {
            wrong.push(format!("{}: {:?} {first:?}", case.what, report.verdict));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
