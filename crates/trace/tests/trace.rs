//! Traces as they are written and read: everything a record can say, views of one storage, what may be missing.

mod common;

use std::fs;

use common::{SMALL, everything, header, record};
use isotrace_tensor::{DType, Tensor};
use isotrace_trace::trace::record::{Attribute, Keeps, Role, Value, View};
use isotrace_trace::trace::{LOG, Options, Writer};
use isotrace_trace::{Kind, Trace, TraceError, open};

#[test]
fn everything_comes_back() {
    for keeps in [Keeps::Data, Keeps::Both, Keeps::Digest] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new/trace");
        let tensors = everything(&path, keeps);
        let trace = Trace::open(&path).unwrap();
        assert!(trace.missing().is_empty(), "{}", trace.missing());
        assert_eq!(trace.missing().to_string(), "nothing is missing");
        let header = trace.header();
        assert_eq!((header.keeps, header.flags.tf32_matmul), (keeps, Some(true)));
        assert_eq!(header.flags.more["flash"]["sdpa"], 2);
        let node = &trace.nodes()[0];
        assert_eq!((node.attributes.len(), node.scope.len(), node.inputs[1]), (13, 2, None));
        assert_eq!(node.attributes["float"], Attribute::Float(f64::NEG_INFINITY.into()));
        assert_eq!(node.attributes["floats"], Attribute::Floats(vec![0.1.into(), f64::NAN.into()]));
        assert_eq!(trace.nodes()[1].within.as_ref().unwrap().node, node.id);
        let counts = (trace.calls().len(), trace.steps().len(), trace.notes().len(), trace.graphs().len());
        assert_eq!(counts, (2, 2, 1, 1));
        assert_eq!(trace.by_id(node.outputs[0].unwrap()).unwrap().role, Role::Gradient);
        let source = open(&path).unwrap();
        assert_eq!(source.kind(), Kind::Trace);
        assert_eq!((source.notes().len(), source.notes()[1].class.as_str()), (2, "omitted"));
        for (value, tensor) in trace.values().iter().zip(&tensors) {
            assert_eq!(value.digest.is_some(), keeps != Keeps::Data);
            if keeps == Keeps::Digest {
                let error = trace.tensor(value).unwrap_err().to_string();
                assert!(error.contains("only its digest") && error.contains(&value.name), "{error}");
                assert!(
                    source.is_empty() && source.notes()[0].text.contains("28 of 28"),
                    "{:?}",
                    source.notes()
                );
            } else {
                assert!(trace.tensor(value).unwrap().bit_eq(tensor), "{}", value.name);
                assert!(source.get(&value.name).unwrap().bit_eq(tensor), "{}", value.name);
                assert_eq!(source.info(&value.name).unwrap().dtype, tensor.dtype());
                assert!(
                    source.trace().is_some() && source.notes()[0].text.contains("1 of 28"),
                    "{:?}",
                    source.notes()
                );
            }
        }
        let huge = trace.values().iter().find(|v| v.name == "huge").unwrap();
        assert!(trace.tensor(huge).unwrap_err().to_string().contains("--max-bytes"));
    }
}

#[test]
fn values_share_the_mapped_shard_and_views_share_their_storage() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("t");
    let numbers: Vec<f32> = (0..60_000).map(|i| i as f32).collect();
    let storage = Tensor::from_bytes(
        DType::U8,
        &[240_000],
        numbers.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>().into(),
    )
    .unwrap();
    /// shape, strides, offset, and the first and last number seen; `None` where the view reaches too far.
    struct Case(&'static [u64], Option<&'static [u64]>, u64, Option<(f32, f32)>);
    let cases = [
        Case(&[60_000], None, 0, Some((0.0, 59_999.0))),
        Case(&[300, 200], None, 0, Some((0.0, 59_999.0))),
        Case(&[200, 300], Some(&[1, 200]), 0, Some((0.0, 59_999.0))),
        Case(&[2, 3], Some(&[100, 10]), 5, Some((5.0, 125.0))),
        Case(&[4, 2], Some(&[0, 1]), 7, Some((7.0, 8.0))),
        Case(&[], None, 59_999, Some((59_999.0, 59_999.0))),
        Case(&[1, 3], Some(&[1 << 60, 1]), 0, Some((0.0, 2.0))),
        // Nothing is looked at, wherever it begins.
        Case(&[0, 3], Some(&[1, 1]), 1 << 60, Some((-1.0, -1.0))),
        Case(&[60_001], None, 0, None),
        Case(&[2], Some(&[60_000]), 0, None),
        Case(&[1], None, 60_000, None),
        Case(&[2], Some(&[u64::MAX]), 1, None),
        Case(&[2], Some(&[1, 1]), 0, None),
        Case(&[1 << 31, 1 << 20], Some(&[0, 0]), 0, None),
        Case(&[u64::MAX, u64::MAX], Some(&[0, 0]), 0, None),
    ];
    let mut writer = Writer::create(&path, &header(), Options::default()).unwrap();
    for (i, Case(shape, strides, offset, _)) in cases.iter().enumerate() {
        let value = Value {
            dtype: "f32".into(),
            shape: shape.to_vec(),
            strides: strides.map(<[u64]>::to_vec),
            storage: Some(View { id: 9, version: 1, offset: *offset }),
            ..Value::new(format!("view{i}"), Role::Parameter)
        };
        writer.described(value).unwrap();
    }
    writer.storage(9, 1, &storage).unwrap();
    writer.storage(9, 2, &Tensor::vector(vec![0u8; 4])).unwrap();
    writer.finish().unwrap();
    let trace = Trace::open(&path).unwrap();
    let mut wrong = vec![];
    for (value, Case(.., expected)) in trace.values().iter().zip(&cases) {
        let ends = trace.tensor(value).map(|t| {
            let v = t.as_slice::<f32>().unwrap();
            (v.first().copied().unwrap_or(-1.0), v.last().copied().unwrap_or(-1.0))
        });
        match (ends, expected) {
            (Ok(ends), Some(expected)) if ends == *expected => {}
            (Err(error), None) if error.to_string().contains(&value.name) => {}
            (found, _) => wrong.push(format!("{}: {found:?}", value.name)),
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn names_that_repeat_are_told_apart() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("t");
    let mut writer = Writer::create(&path, &header(), Options::default()).unwrap();
    let names = [
        ("x", None),
        ("loss", Some(0)),
        ("loss", Some(1)),
        ("w", Some(1)),
        ("w", Some(1)),
        ("loss@0", None),
        ("__metadata__", None),
    ];
    for (i, (name, step)) in names.into_iter().enumerate() {
        let value = Value { step, ..Value::new(name, Role::Output) };
        writer.value(value, &Tensor::scalar(i as f32)).unwrap();
    }
    writer.finish().unwrap();
    let source = open(&path).unwrap();
    let found: Vec<&str> = source.names().collect();
    assert_eq!(found, ["x", "loss@0", "loss@1", "w@1", "w#5", "loss@0#6", "__metadata__"]);
    for (i, name) in found.iter().enumerate() {
        assert_eq!(source.get(name).unwrap().as_slice::<f32>().unwrap(), [i as f32]);
    }
}

#[test]
fn a_log_cut_anywhere_reads_up_to_there_and_a_changed_one_never_panics() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("t");
    everything(&path, Keeps::Both);
    let log = fs::read(path.join(LOG)).unwrap();
    let first = log.iter().position(|&b| b == b'\n').unwrap();
    let all = Trace::open(&path).unwrap().values().len();
    let mut seen = 0;
    for end in (0..log.len()).step_by(41).chain(log.len() - 2..log.len()) {
        fs::write(path.join(LOG), &log[..end]).unwrap();
        match Trace::open(&path) {
            Ok(trace) => {
                assert!(
                    end > first && trace.values().len() >= seen && trace.missing().unfinished,
                    "cut at {end}"
                );
                seen = trace.values().len();
                let cut = log[end - 1] != b'\n';
                assert_eq!(trace.missing().cut, cut);
                assert_eq!(trace.missing().to_string().contains("cut short"), cut);
                assert!(trace.tensors().all(|(v, t)| t.is_ok() || v.name == "huge"));
            }
            Err(error) => {
                assert!(end <= first && error.to_string().contains("header"), "cut at {end}: {error}");
            }
        }
    }
    assert_eq!(seen, all);
    for at in (0..log.len()).step_by(23) {
        let mut changed = log.clone();
        changed[at] ^= 0x15;
        fs::write(path.join(LOG), &changed).unwrap();
        if let Ok(trace) = Trace::open(&path) {
            trace.tensors().for_each(|(_, tensor)| drop(tensor));
        }
    }
}

#[test]
fn logs_that_lie_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let head = r#"{"record":"header","schema":"isotrace.trace/1"}"#;
    let value = |rest: &str| format!("{head}\n{{\"record\":\"value\",\"id\":1,\"name\":\"x\",{rest}}}\n");
    let far = r#""dtype":"f32","shape":[1],"data":{"shard":4294967295,"key":"../../x"}"#;
    let cases = [
        (String::new(), "header"),
        ("\n".into(), "does not begin with a header"),
        ("{}\n".into(), "line 1"),
        (r#"{"record":"header","schema":"isotrace.trace/2"}"#.to_owned() + "\n", "newer isotrace"),
        (r#"{"record":"end"}"#.to_owned() + "\n", "does not begin with a header"),
        (format!("{head}\n{head}\n"), "two headers"),
        (format!("{head}\nnot json\n{head}\n"), "line 2"),
        (format!("{head}\n{}\n", "[".repeat(100_000)), "line 2"),
        (value(r#""dtype":"f33","shape":[1],"data":{"shard":0,"key":"x"}"#), "newer isotrace"),
        (
            value(r#""dtype":"f32","shape":[18446744073709551615,2],"data":{"shard":0,"key":"x"}"#),
            "more elements",
        ),
        (value(r#""dtype":"f32","shape":[-1]"#), "line 2"),
        (value(far), "missing"),
    ];
    for (i, (log, expected)) in cases.into_iter().enumerate() {
        let path = folder.path().join(i.to_string());
        fs::create_dir(&path).unwrap();
        fs::write(path.join(LOG), &log).unwrap();
        fs::write(path.join("data-0000.safetensors"), b"\x02\0\0\0\0\0\0\0{}").unwrap();
        let found = Trace::open(&path).and_then(|t| t.tensor(&t.values()[0]));
        let message = found.unwrap_err().to_string();
        assert!(message.contains(expected), "{expected}: {message}");
        if let Ok(source) = open(&path) {
            assert!(source.is_empty());
        }
    }
    // What a later version of the schema adds is passed over.
    let path = folder.path().join("later");
    fs::create_dir(&path).unwrap();
    let later = format!("{head}\n{{\"record\":\"weather\",\"sun\":1}}\n{{\"record\":\"end\",\"moon\":[]}}\n");
    fs::write(path.join(LOG), later).unwrap();
    assert!(Trace::open(&path).unwrap().missing().is_empty());
}

#[test]
fn shards_that_lie_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("t");
    let mut writer = Writer::create(&path, &header(), SMALL).unwrap();
    record(&mut writer, 1).unwrap();
    writer
        .value(Value::new("b", Role::Output), &Tensor::vector(vec![1f32]).cast(DType::I4).unwrap())
        .unwrap();
    writer.finish().unwrap();
    let shard = path.join("data-0000.safetensors");
    let good = fs::read(&shard).unwrap();
    for at in 0..600 {
        let mut changed = good.clone();
        changed[at] ^= 1;
        fs::write(&shard, &changed).unwrap();
        Trace::open(&path).unwrap().tensors().for_each(|(_, tensor)| drop(tensor));
    }
    for end in [0, 7, 8, 100, good.len() - 1] {
        fs::write(&shard, &good[..end]).unwrap();
        let trace = Trace::open(&path).unwrap();
        let error = trace.tensor(&trace.values()[0]).unwrap_err().to_string();
        assert!(error.contains("data-0000.safetensors") && error.contains("damaged"), "{error}");
    }
    let mut changed = good.clone();
    *changed.last_mut().unwrap() = 0x77;
    fs::write(&shard, &changed).unwrap();
    let trace = Trace::open(&path).unwrap();
    let error = trace.tensor(&trace.values()[1]).unwrap_err().to_string();
    assert!(error.contains("0x77"), "{error}");
}

#[test]
fn a_new_trace_needs_a_folder_of_its_own() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("notes.txt"), "").unwrap();
    let error = Writer::create(folder.path(), &header(), Options::default()).unwrap_err();
    assert!(matches!(error, TraceError::Occupied { .. }), "{error}");
    let error = Writer::create(folder.path().join("notes.txt/t"), &header(), Options::default()).unwrap_err();
    assert!(error.to_string().contains("notes.txt"), "{error}");
    let error = Writer::append(folder.path(), Options::default()).unwrap_err();
    assert!(error.to_string().contains(LOG), "{error}");
    let mut writer = Writer::create(folder.path().join("t"), &header(), Options::default()).unwrap();
    let value = Value { dtype: "float33".into(), ..Value::new("x", Role::Input) };
    assert!(writer.described(value).unwrap_err().to_string().contains("float33"));
}
