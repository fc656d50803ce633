//! What goes wrong, as a user sees it: one message, status 2, nothing written.

mod common;

use common::{Folder, Small, encoded};
use isotrace_onnx::Model;
use isotrace_tensor::{DType, Tensor};

/// A broken thing, the arguments that meet it, and what the message says.
struct Case {
    name: &'static str,
    args: Vec<String>,
    says: &'static [&'static str],
}

fn case(name: &'static str, args: &[&str], says: &'static [&'static str]) -> Case {
    Case { name, args: args.iter().map(|a| (*a).to_owned()).collect(), says }
}

#[test]
fn every_broken_file_and_wrong_name_has_its_message() {
    let folder = Folder::new();
    let good = encoded(&Small::default().graph());
    folder.file("good.onnx", &good);
    folder.file("cut.onnx", &good[..good.len() / 2]);
    folder.file("empty.onnx", b"");
    folder.file("text.onnx", "just words\n");
    std::fs::create_dir(folder.path().join("folder.onnx")).unwrap();
    let mut model = Model::decode(good.clone().into(), None).unwrap();
    let graph = model.proto_mut().graph.as_mut().unwrap();
    graph.node[0].input[0] = "y".into();
    folder.file("cycle.onnx", model.encode().unwrap());
    let mut model = Model::decode(good.clone().into(), None).unwrap();
    model.proto_mut().graph.as_mut().unwrap().node[1].op_type = Some("Sharpen".into());
    folder.file("unknown.onnx", model.encode().unwrap());
    let mut model = Model::decode(good.clone().into(), None).unwrap();
    let weight = &mut model.proto_mut().graph.as_mut().unwrap().initializer[0];
    weight.raw_data = None;
    weight.float_data.clear();
    weight.data_location = Some(1);
    weight.external_data = vec![isotrace_onnx::proto::StringStringEntryProto {
        key: Some("location".into()),
        value: Some("weights.bin".into()),
    }];
    folder.file("external.onnx", model.encode().unwrap());
    let mut bytes = good.clone();
    let at = bytes.windows(7).position(|w| w == b"product").unwrap();
    bytes[at] = 0xff;
    folder.file("latin.onnx", bytes);

    let x = |shape: &[usize]| Tensor::full(shape, 1f32).unwrap();
    folder.tensors("x.npz", &[("x", x(&[2, 4]))]);
    folder.tensors("wide.npz", &[("x", x(&[2, 5]))]);
    folder.tensors("name.npz", &[("X1", x(&[2, 4]))]);
    folder.tensors("more.npz", &[("x", x(&[2, 4])), ("mask", x(&[2, 4]))]);
    folder.tensors("double.npz", &[("x", Tensor::full(&[2, 4], 0.1f64).unwrap())]);
    folder.tensors("none.safetensors", &[]);

    let cases = [
        case("no file", &["diff", "nothing.onnx", "good.onnx"], &["nothing.onnx", "No such file"]),
        case(
            "a folder",
            &["diff", "good.onnx", "folder.onnx"],
            &["folder.onnx is a folder, expected a file"],
        ),
        case("cut short", &["diff", "cut.onnx", "good.onnx"], &["cut.onnx", "ONNX"]),
        case("empty", &["run", "empty.onnx"], &["empty.onnx", "expected an ONNX model"]),
        case(
            "tensors where models are expected",
            &["diff", "x.npz", "wide.npz"],
            &["x.npz", "expected an ONNX model", "isotrace compare"],
        ),
        case("text", &["run", "text.onnx"], &["text.onnx", "expected an ONNX model"]),
        case("a cycle", &["run", "cycle.onnx"], &["cycle.onnx", "cycle"]),
        case(
            "an unknown operator",
            &["diff", "good.onnx", "unknown.onnx"],
            &["unknown.onnx", "Sharpen", "not supported"],
        ),
        case("no external data", &["run", "external.onnx"], &["external.onnx", "weights.bin", "\"w\""]),
        case("a name not in UTF-8", &["run", "latin.onnx"], &["latin.onnx", "UTF-8"]),
        case(
            "an unknown input",
            &["diff", "good.onnx", "good.onnx", "--inputs", "name.npz"],
            &["\"X1\" is no input (did you mean \"x\"?); the inputs are \"x\""],
        ),
        case("one input too many", &["run", "good.onnx", "--inputs", "more.npz"], &["\"mask\" is no input"]),
        case(
            "another shape",
            &["diff", "good.onnx", "good.onnx", "--inputs", "wide.npz"],
            &["\"x\" is given with shape [2, 5], but the model declares [n, 4]"],
        ),
        case(
            "another type",
            &["run", "good.onnx", "--inputs", "double.npz"],
            &["given as f64", "declares f32"],
        ),
        case("no tensors", &["run", "good.onnx", "--inputs", "none.safetensors"], &["holds no tensors"]),
        case("inputs that are a model", &["run", "good.onnx", "--inputs", "good.onnx"], &["good.onnx"]),
        case("--set of nothing", &["run", "good.onnx", "--set", "y=1"], &["--set \"y\" is no input"]),
        case("--set of a word", &["run", "good.onnx", "--set", "x=much"], &["--set x=much", "give a number"]),
        case("--dim of nothing", &["run", "good.onnx", "--dim", "m=1"], &["\"m\" is no dimension", "\"n\""]),
        case(
            "too much",
            &["run", "good.onnx", "--dim", "n=99999999999"],
            &["\"x\"", "choose smaller sizes with --dim"],
        ),
        case(
            "an unknown value",
            &["run", "good.onnx", "--outputs", "prodct"],
            &["did you mean \"product\"?"],
        ),
        case("another ending", &["run", "good.onnx", "-o", "out.txt"], &["out.txt", ".npz or .safetensors"]),
        case(
            "no such folder",
            &["diff", "good.onnx", "good.onnx", "--json", "no/report.json"],
            &["no/report.json"],
        ),
    ];
    let mut wrong = Vec::new();
    for Case { name, args, says } in cases {
        let got = folder.isotrace(&args);
        let fine = got.status == 2
            && got.out.is_empty()
            && got.err.starts_with("error: ")
            && got.err.lines().count() == 1
            && says.iter().all(|part| got.err.contains(part));
        if !fine {
            wrong.push(format!("{name}: {args:?} should say {says:?}\n  {got:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn wrong_arguments_end_with_status_2_and_say_what_is_expected() {
    let folder = Folder::new();
    let cases = [
        case("no command", &["--seed", "1"], &["unexpected argument '--seed'"]),
        case("one model", &["diff", "a.onnx"], &["<B>"]),
        case("no value", &["diff", "a", "b", "--set", "x"], &["expected NAME=VALUE"]),
        case("no size", &["diff", "a", "b", "--dim", "n=big"], &["\"big\" is no size"]),
        case("no trials", &["diff", "a", "b", "--trials", "0"], &["--trials"]),
        case("another form", &["diff", "a", "b", "--format", "html"], &["text, sbs"]),
    ];
    for Case { name, args, says } in cases {
        let got = folder.isotrace(&args);
        assert_eq!((got.status, got.out.as_str()), (2, ""), "{name}: {got:?}");
        assert!(says.iter().all(|part| got.err.contains(part)), "{name}: {got:?}");
    }
}

#[test]
fn an_error_leaves_an_earlier_report_alone() {
    let folder = Folder::new();
    folder.model("a.onnx", &Small::default().graph());
    folder.file("report.json", "earlier");
    let got = folder.isotrace(["diff", "a.onnx", "missing.onnx", "--json", "report.json"]);
    assert_eq!(got.status, 2);
    assert_eq!(std::fs::read_to_string(folder.path().join("report.json")).unwrap(), "earlier");
    let left: Vec<_> = std::fs::read_dir(folder.path()).unwrap().collect();
    assert_eq!(left.len(), 2, "no temporary file stays: {left:?}");
}

#[cfg(unix)]
#[test]
fn a_path_need_not_be_utf8() {
    use std::os::unix::ffi::OsStrExt;
    let folder = Folder::new();
    let name = std::ffi::OsStr::from_bytes(b"caf\xe9.onnx");
    std::fs::write(folder.path().join(name), encoded(&Small::default().graph())).unwrap();
    let got = folder.isotrace([std::ffi::OsStr::new("diff"), name, name]);
    assert_eq!(got.status, 0, "{got:?}");
}

#[test]
fn inputs_that_support_no_conclusion_end_with_status_3() {
    let folder = Folder::new();
    folder.model("a.onnx", &Small::default().graph());
    folder.model("b.onnx", &Small { input: "z", ..Small::default() }.graph());
    folder.tensors("nan.npz", &[("x", Tensor::full(&[2, 4], f32::NAN).unwrap())]);
    folder.tensors("none.npz", &[("x", Tensor::full(&[0, 4], 1f32).unwrap())]);
    for (inputs, says) in [("nan.npz", "not finite"), ("none.npz", "nothing was compared")] {
        let got = folder.isotrace(["diff", "a.onnx", "b.onnx", "--inputs", inputs]);
        assert_eq!(got.status, 3, "{got:?}");
        assert!(got.out.starts_with("invalid: ") && got.out.contains(says), "{got:?}");
    }
}

#[test]
fn a_model_without_floats_is_compared() {
    let folder = Folder::new();
    let ints = Small { dtype: DType::I32, factor: 3.0, ..Small::default() };
    folder.model("a.onnx", &ints.graph());
    let got = folder.isotrace(["diff", "a.onnx", "a.onnx"]);
    assert_eq!(got.status, 0, "{got:?}");
    assert!(got.out.starts_with("identical: "), "{got:?}");
}
