//! What `compare`, `stats` and `convert` print, whole, so that a change of the text or of the JSON is seen when it is
//! made. After a change that is meant: `INSTA_UPDATE=always cargo test -p isotrace-cli --test printed`, and read what
//! changed.

mod common;

use common::Folder;
use isotrace_tensor::Tensor;

/// Numbers that every machine prints alike: fractions of powers of two.
fn folder() -> Folder {
    let folder = Folder::new();
    let a: Vec<f32> = (0..24).map(|i| i as f32 * 0.25 - 3.0).collect();
    let mut b = a.clone();
    (b[7], b[9], b[21]) = (b[7] + 0.5, f32::NAN, b[21] - 0.125);
    let of = |data: Vec<f32>| Tensor::from_vec(&[2, 3, 4], data).unwrap();
    let count = |by: i64| Tensor::vector((0..5).map(|i| i * by).collect::<Vec<i64>>());
    folder.tensors("x.npz", &[("a", of(a)), ("same", count(3)), ("count", count(3)), ("only.x", count(1))]);
    folder.tensors("y.npz", &[("a", of(b)), ("same", count(3)), ("count", count(4))]);
    folder
}

#[test]
fn what_is_printed() {
    let folder = folder();
    let cases: [(&str, &[&str], i32); 8] = [
        ("compare", &["compare", "x.npz", "y.npz"], 1),
        ("compare_json", &["compare", "x.npz", "y.npz", "--json", "-"], 1),
        ("compare_same", &["compare", "x.npz", "x.npz"], 0),
        ("compare_like_numpy", &["compare", "x.npz", "y.npz", "--like", "numpy"], 1),
        ("stats", &["stats", "y.npz"], 0),
        ("stats_json", &["stats", "y.npz", "--json", "-"], 0),
        ("convert", &["convert", "x.npz", "z.safetensors"], 0),
        ("convert_trace", &["convert", "x.npz", "z.trace"], 0),
    ];
    let mut wrong = Vec::new();
    for (name, args, status) in cases {
        let got = folder.isotrace(args);
        if got.status != status {
            wrong.push(format!("{args:?}: {got:?}"));
            continue;
        }
        let text = format!("$ isotrace {}\n{}{}", args.join(" "), got.out, got.err);
        insta::with_settings!({ omit_expression => true }, { insta::assert_snapshot!(name, text) });
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
