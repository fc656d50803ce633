//! What a comparison of tensors found, for programs: docs/tensors.md.

use isotrace_compare::{Examination, Metrics, Rule};
use isotrace_trace::Source;
use serde_json::{Map, Value, json};

use crate::args::Like;
use crate::page;

use super::Comparison;
use super::judge::Found;
use super::pairs::Pair;

/// The schema of the JSON. Fields may be added under the same number.
const SCHEMA: &str = "isotrace.compare/1";

/// Indented JSON that ends with a newline.
pub fn json(c: &Comparison<'_>) -> String {
    let side = |s: &Source| {
        json!({"source": s.path().display().to_string(), "kind": s.kind().name(), "tensors": s.len(),
               "notes": s.notes()})
    };
    let closer = |i: usize| c.closer.binary_search_by_key(&i, |(at, _)| *at).ok().map(|k| &c.closer[k].1);
    let pairs = c.pairing.pairs.iter().zip(&c.found).enumerate();
    let mut tensors: Vec<Value> = pairs.map(|(i, (pair, found))| tensor(pair, found, closer(i))).collect();
    let unmatched = |x: Option<&String>, y: Option<&String>| json!({"x": x, "y": y, "status": "unmatched"});
    tensors.extend(c.pairing.only_x.iter().map(|n| unmatched(Some(n), None)));
    tensors.extend(c.pairing.only_y.iter().map(|n| unmatched(None, Some(n))));
    let rule = match c.rules.rule {
        Rule::Torch => "torch",
        Rule::Numpy => "numpy",
        Rule::Polygraphy => "polygraphy",
    };
    let like = c.rules.like.map(|like| match like {
        Like::Torch => "torch",
        Like::Numpy => "numpy",
        Like::Polygraphy => "polygraphy",
    });
    let value = json!({
        "schema": SCHEMA,
        "verdict": c.verdict.name(),
        "reason": c.reason,
        "x": side(c.sides[0]),
        "y": side(c.sides[1]),
        "rule": rule,
        "like": like,
        "tensors": tensors,
    });
    let mut text = serde_json::to_string_pretty(&value).expect("every key is a text");
    text.push('\n');
    text
}

fn tensor(pair: &Pair, found: &Found, closer: Option<&Examination>) -> Value {
    let value = json!({
        "x": pair.x,
        "y": pair.y,
        "status": found.status.name(),
        "reason": found.reason,
        "dtype": {"x": found.dtype[0].name(), "y": found.dtype[1].name()},
        "shape": {"x": found.shape[0], "y": found.shape[1]},
        "broadcast": found.broadcast,
        "rtol": page::json(found.tolerance.rtol),
        "atol": page::json(found.tolerance.atol),
        "elements": found.len,
    });
    let Value::Object(mut fields) = value else { unreachable!("an object was made") };
    if let Some(m) = &found.metrics {
        fields.insert("beyond".into(), found.beyond.into());
        measured(&mut fields, m);
    }
    if let Some(Examination { worst, along }) = closer {
        let worst = worst.iter().map(|w| {
            let [x, y] = &w.values;
            json!({"index": w.index, "x": page::scalar(x), "y": page::scalar(y),
                   "difference": page::json(w.difference)})
        });
        let axes = along.iter().map(|a| {
            let max_abs: Vec<Value> = a.max_abs.iter().copied().map(page::json).collect();
            json!({"axis": a.axis, "beyond": a.beyond, "max_abs": max_abs})
        });
        fields.insert("worst".into(), worst.collect());
        fields.insert("axes".into(), axes.collect());
    }
    fields.into()
}

/// The metrics of the report's pairs, and those that only tensors have.
fn measured(fields: &mut Map<String, Value>, m: &Metrics) {
    let from = |k: usize| if k == 0 { 0 } else { 1u64 << (k - 1) };
    let ulps: Vec<Value> =
        m.ulps.iter().enumerate().map(|(k, n)| json!({"from": from(k), "count": n})).collect();
    let metrics = json!({
        "different": m.different,
        "max_abs": page::json(m.max_abs),
        "mean_abs": page::json(m.mean_abs),
        "max_rel": page::json(m.max_rel),
        "rel_l2": page::json(m.rel_l2),
        "cosine": page::json(m.cosine),
        "max_ulp": m.max_ulp,
        "argmax": m.argmax,
        "nan": {"x": m.nan[0], "y": m.nan[1]},
        "inf": {"x": m.inf[0], "y": m.inf[1]},
        "ulps": ulps,
    });
    if let Value::Object(metrics) = metrics {
        fields.extend(metrics);
    }
}
