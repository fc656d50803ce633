//! docs/schemas/report.schema.json says what is really written.

mod common;
#[path = "../../../tests/schema.rs"]
mod schema;

use isotrace_report::{Run, json};
use schema::{Findings, check, published};
use serde_json::Value;

#[test]
fn what_is_written_is_what_the_schema_says() {
    let schema = published("report");
    let mut report = common::sample();
    report.a.run = Some(Run {
        backend: "onnxruntime".into(),
        version: "1.31.1".into(),
        optimisation: "all".into(),
        threads: 4,
        recorded: 10,
        left_out: 1,
    });
    report.pairs[0].metrics.max_abs = Some(f64::NAN);
    let mut findings = Findings::default();
    check(&schema, &serde_json::from_str(&json::render(&report)).unwrap(), &mut findings);
    findings.assert_all_of(&schema);
}

#[test]
fn what_breaks_the_rules_is_found() {
    let schema = published("report");
    let good: Value = serde_json::from_str(&json::render(&common::sample())).unwrap();
    let changes: [(&str, Value); 6] = [
        ("/verdict", "fine".into()),
        ("/schema", "isotrace.report/2".into()),
        ("/a/nodes", (-1).into()),
        ("/pairs/0/status", "odd".into()),
        ("/pairs/0/max_abs", "many".into()),
        ("/culprits/0/cause", Value::Null),
    ];
    for (place, value) in changes {
        let mut changed = good.clone();
        *changed.pointer_mut(place).unwrap() = value;
        let mut findings = Findings::default();
        check(&schema, &changed, &mut findings);
        assert!(!findings.wrong.is_empty(), "{place}");
    }
}
