//! docs/schemas/trace.schema.json says what is really written, all of it, and nothing else.

mod common;
#[path = "../../../tests/schema.rs"]
mod schema;

use std::fs;
use std::path::Path;

use common::everything;
use isotrace_tensor::Tensor;
use isotrace_trace::trace::record::{Keeps, View};
use isotrace_trace::trace::{Digest, LOG, Options, Writer};
use schema::{Findings, check, published};
use serde_json::{Value, json};

fn lines(folder: &Path) -> Vec<Value> {
    let text = fs::read_to_string(folder.join(LOG)).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn what_is_written_is_what_the_schema_says() {
    let folder = tempfile::tempdir().unwrap();
    let schema = published("trace");
    let mut findings = Findings::default();
    for (at, keeps) in [Keeps::Data, Keeps::Both, Keeps::Digest].into_iter().enumerate() {
        let path = folder.path().join(at.to_string());
        everything(&path, keeps);
        let mut writer = Writer::append(&path, Options::default()).unwrap();
        let value = isotrace_trace::trace::record::Value {
            dtype: "f32".into(),
            shape: vec![2],
            strides: Some(vec![2]),
            storage: Some(View { id: 4, version: 1, offset: 1 }),
            // As older traces have it.
            digest: Some(Digest { sha256: Some("0".repeat(64)), ..Digest::default() }),
            ..isotrace_trace::trace::record::Value::default()
        };
        writer.described(value).unwrap();
        writer.storage(4, 1, &Tensor::vector(vec![0u8; 16])).unwrap();
        writer.finish().unwrap();
        for line in lines(&path) {
            check(&schema, &line, &mut findings);
        }
    }
    findings.assert_all_of(&schema);
}

#[test]
fn what_breaks_the_rules_is_found() {
    let schema = published("trace");
    let head = json!({"record": "header", "schema": "isotrace.trace/1", "producer": {"name": "n", "version": "1"},
                      "keeps": "data"});
    let with = |field: &str, value: Value| {
        let mut changed = head.clone();
        changed[field] = value;
        changed
    };
    let mut without = head.clone();
    without.as_object_mut().unwrap().remove("keeps");
    let value = |rest: Value| {
        let mut value =
            json!({"record": "value", "id": 1, "name": "x", "role": "input", "dtype": "f32", "shape": [1]});
        value.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
        value
    };
    let cases = [
        (head.clone(), None),
        (with("schema", json!("isotrace.trace/2")), Some("$.schema")),
        (with("keeps", json!("all")), Some("$.keeps")),
        (with("producer", json!({"name": "n"})), Some("version")),
        (without, Some("keeps")),
        (json!([]), Some("$: expected \"object\"")),
        (json!({}), Some("\"record\" is missing")),
        (json!({"record": "weather", "sun": 1}), None),
        (value(json!({})), None),
        (value(json!({"id": 0})), Some("$.id: 0 is below 1")),
        (value(json!({"shape": [-1]})), Some("$.shape[0]")),
        (value(json!({"shape": [1.5]})), Some("$.shape[0]")),
        (value(json!({"data": {"shard": 0}})), Some("\"key\" is missing")),
        (value(json!({"digest": {"count": 1}})), Some("subnormal")),
    ];
    for (document, expected) in cases {
        let mut findings = Findings::default();
        check(&schema, &document, &mut findings);
        match expected {
            None => assert!(findings.wrong.is_empty(), "{document}: {:?}", findings.wrong),
            Some(text) => {
                assert!(findings.wrong.iter().any(|w| w.contains(text)), "{document}: {:?}", findings.wrong);
            }
        }
    }
    let mut findings = Findings::default();
    check(&schema, &with("wheather", json!(1)), &mut findings);
    assert_eq!((findings.wrong.len(), findings.undescribed), (0, vec!["$.wheather".to_owned()]));
}
