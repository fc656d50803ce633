//! JSON Schema for the tests of what is written: as much of draft 2020-12 as docs/schemas uses, and a keyword beyond
//! that is an error. The crates that know all of it take minutes to compile.
//!
//! Unlike a validator it also finds fields that a schema does not describe. Readers must pass over those, so the
//! schemas allow them; what is written here must not have any.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use serde_json::{Map, Value};

/// What a document has to do with a schema.
#[derive(Default)]
pub struct Findings {
    /// Rules that the document breaks, with the path to where.
    pub wrong: Vec<String>,
    /// Fields of the document that the schema does not describe.
    pub undescribed: Vec<String>,
    /// Fields of the schema that the document has: `DEFINITION.FIELD`.
    pub used: BTreeSet<String>,
}

/// A schema of docs/schemas, for crates that lie two folders deep.
pub fn published(name: &str) -> Value {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/schemas");
    serde_json::from_str(&fs::read_to_string(folder.join(format!("{name}.schema.json"))).unwrap()).unwrap()
}

impl Findings {
    /// Fails unless the documents kept every rule, held nothing that the schema does not describe, and all it does.
    pub fn assert_all_of(&self, schema: &Value) {
        assert!(self.wrong.is_empty(), "{:#?}", self.wrong);
        assert!(self.undescribed.is_empty(), "{:#?}", self.undescribed);
        let mut unused = described(schema);
        unused.retain(|field| !self.used.contains(field));
        assert!(unused.is_empty(), "described, and never written: {unused:#?}");
    }
}

/// Holds a document against a schema.
pub fn check(schema: &Value, document: &Value, findings: &mut Findings) {
    Checker { root: schema, findings }.value(schema, document, "$", "$");
}

/// Every field that a schema describes: `DEFINITION.FIELD`.
fn described(schema: &Value) -> BTreeSet<String> {
    let mut all = BTreeSet::new();
    collect(schema, "$", &mut all);
    for (name, definition) in schema["$defs"].as_object().into_iter().flatten() {
        collect(definition, name, &mut all);
    }
    all
}

fn collect(schema: &Value, owner: &str, all: &mut BTreeSet<String>) {
    let Some(schema) = schema.as_object() else { return };
    for (name, inner) in schema.get("properties").and_then(Value::as_object).into_iter().flatten() {
        all.insert(format!("{owner}.{name}"));
        collect(inner, &format!("{owner}.{name}"), all);
    }
    if let Some(items) = schema.get("items") {
        collect(items, owner, all);
    }
}

struct Checker<'s, 'f> {
    root: &'s Value,
    findings: &'f mut Findings,
}

impl Checker<'_, '_> {
    /// `owner` is the definition, and the fields in it, that lead to this schema.
    fn value(&mut self, schema: &Value, value: &Value, path: &str, owner: &str) {
        let Some(schema) = schema.as_object() else { panic!("{owner}: a schema is an object") };
        for (keyword, rule) in schema {
            match keyword.as_str() {
                "$schema"
                | "$defs"
                | "title"
                | "description"
                | "then"
                | "additionalProperties"
                | "properties" => {}
                "$ref" => {
                    let name = rule.as_str().and_then(|r| r.strip_prefix("#/$defs/")).expect("a definition");
                    let definition = &self.root["$defs"][name];
                    assert!(definition.is_object(), "{owner} refers to {name}, which is not there");
                    self.value(definition, value, path, name);
                }
                "type" => self.kind(rule, value, path),
                "const" => self.rule(rule == value, path, || format!("expected {rule}, found {value}")),
                "enum" => {
                    let known = rule.as_array().is_some_and(|all| all.contains(value));
                    self.rule(known, path, || format!("expected one of {rule}, found {value}"));
                }
                "required" => {
                    for name in rule.as_array().into_iter().flatten().filter_map(Value::as_str) {
                        let there = value.get(name).is_some() || !value.is_object();
                        self.rule(there, path, || format!("{name:?} is missing"));
                    }
                }
                "items" => {
                    for (at, item) in value.as_array().into_iter().flatten().enumerate() {
                        self.value(rule, item, &format!("{path}[{at}]"), owner);
                    }
                }
                "minimum" => {
                    let (least, found) = (rule.as_f64(), value.as_f64());
                    let fits = found.is_none() || least.is_some_and(|l| found >= Some(l));
                    self.rule(fits, path, || format!("{value} is below {rule}"));
                }
                "minItems" => self.count(rule, value.as_array().map(Vec::len), path, |n, limit| n >= limit),
                "maxItems" => self.count(rule, value.as_array().map(Vec::len), path, |n, limit| n <= limit),
                "minLength" => self.count(rule, value.as_str().map(str::len), path, |n, limit| n >= limit),
                "maxLength" => self.count(rule, value.as_str().map(str::len), path, |n, limit| n <= limit),
                "minProperties" => {
                    self.count(rule, value.as_object().map(Map::len), path, |n, limit| n >= limit);
                }
                "maxProperties" => {
                    self.count(rule, value.as_object().map(Map::len), path, |n, limit| n <= limit);
                }
                "allOf" => {
                    for part in rule.as_array().into_iter().flatten() {
                        self.value(part, value, path, owner);
                    }
                }
                "anyOf" => self.any(rule, value, path, owner),
                "if" => {
                    if self.tried(rule, value, path, owner).wrong.is_empty() {
                        self.value(&schema["then"], value, path, owner);
                    }
                }
                other => panic!("{owner}: tests/schema.rs does not know the keyword {other:?}"),
            }
        }
        self.fields(schema, value, path, owner);
    }

    fn fields(&mut self, schema: &Map<String, Value>, value: &Value, path: &str, owner: &str) {
        let known = schema.get("properties").and_then(Value::as_object);
        let others = schema.get("additionalProperties");
        // The fields of a schema that hands on to others are described there.
        let describes = (known.is_some() || others.is_some()) && !schema.contains_key("allOf");
        for (name, inner) in value.as_object().into_iter().flatten() {
            let inside = format!("{path}.{name}");
            match (known.and_then(|k| k.get(name)), others) {
                (Some(rule), _) => {
                    self.findings.used.insert(format!("{owner}.{name}"));
                    self.value(rule, inner, &inside, &format!("{owner}.{name}"));
                }
                (None, Some(rule)) => self.value(rule, inner, &inside, owner),
                (None, None) if describes => self.findings.undescribed.push(inside),
                (None, None) => {}
            }
        }
    }

    fn any(&mut self, rule: &Value, value: &Value, path: &str, owner: &str) {
        let mut reasons = vec![];
        for part in rule.as_array().into_iter().flatten() {
            let tried = self.tried(part, value, path, owner);
            if tried.wrong.is_empty() {
                self.findings.used.extend(tried.used);
                self.findings.undescribed.extend(tried.undescribed);
                return;
            }
            reasons.extend(tried.wrong);
        }
        self.findings.wrong.push(format!("{path}: none of several: {}", reasons.join("; ")));
    }

    fn tried(&self, rule: &Value, value: &Value, path: &str, owner: &str) -> Findings {
        let mut findings = Findings::default();
        Checker { root: self.root, findings: &mut findings }.value(rule, value, path, owner);
        findings
    }

    fn kind(&mut self, rule: &Value, value: &Value, path: &str) {
        let is = |name: &str| match name {
            "object" => value.is_object(),
            "array" => value.is_array(),
            "string" => value.is_string(),
            "boolean" => value.is_boolean(),
            "null" => value.is_null(),
            "number" => value.is_number(),
            "integer" => value.is_i64() || value.is_u64(),
            other => panic!("unknown type {other:?}"),
        };
        let fits = match rule {
            Value::String(name) => is(name),
            Value::Array(names) => names.iter().filter_map(Value::as_str).any(is),
            _ => panic!("a type is a text or a list"),
        };
        self.rule(fits, path, || format!("expected {rule}, found {value}"));
    }

    fn count(&mut self, rule: &Value, found: Option<usize>, path: &str, fits: impl Fn(u64, u64) -> bool) {
        if let (Some(found), Some(limit)) = (found, rule.as_u64()) {
            self.rule(fits(found as u64, limit), path, || format!("{found} against a limit of {limit}"));
        }
    }

    fn rule(&mut self, holds: bool, path: &str, problem: impl FnOnce() -> String) {
        if !holds {
            self.findings.wrong.push(format!("{path}: {}", problem()));
        }
    }
}
