//! Every element type through every format, and the shapes of files that other programs write.

use std::fs;
use std::io::{Cursor, Write};
use std::path::Path;

use isotrace_tensor::{C64, C128, DType, Tensor, f16};
use isotrace_trace::{Format, TraceError, read_tensors, write_tensors, write_tensors_as};
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

/// Two elements of every type.
fn samples() -> Vec<(String, Tensor)> {
    DType::ALL
        .iter()
        .map(|&dtype| {
            let tensor = match dtype {
                DType::String => Tensor::from_strings(&[2, 1], vec!["ä€𝄞".into(), String::new()]).unwrap(),
                DType::C64 => {
                    Tensor::from_vec(&[2, 1], vec![C64([1.0, -2.0]), C64([f32::NAN, 0.0])]).unwrap()
                }
                DType::C128 => Tensor::from_vec(&[2, 1], vec![C128([1.0, -2.0]), C128([0.5, 0.0])]).unwrap(),
                _ => Tensor::from_vec(&[2, 1], vec![1f32, 0.0]).unwrap().cast(dtype).unwrap(),
            };
            (format!("/t.{dtype}:0"), tensor)
        })
        .collect()
}

fn same(a: &[(String, Tensor)], b: &[(String, Tensor)]) -> bool {
    let mut b: Vec<_> = b.iter().collect();
    a.len() == b.len()
        && a.iter().all(|(name, tensor)| {
            let at = b.iter().position(|(n, t)| n == name && t.bit_eq(tensor));
            at.map(|at| b.remove(at)).is_some()
        })
}

#[test]
fn every_format_gives_back_what_it_took_or_names_one_that_can() {
    let folder = tempfile::tempdir().unwrap();
    let formats = [
        (Format::Npz, "t.npz"),
        (Format::Safetensors, "t.safetensors"),
        (Format::Torch, "t.pt"),
        (Format::NpyFolder, "npy"),
        (Format::PbFolder, "pb"),
    ];
    let held: Vec<usize> = formats
        .iter()
        .map(|&(format, file)| {
            let path = folder.path().join(file);
            let fits: Vec<_> = samples()
                .into_iter()
                .filter(|one| {
                    let alone = folder.path().join(format!("alone-{file}"));
                    match write_tensors_as(&alone, format, std::slice::from_ref(one)) {
                        Ok(()) => {
                            assert!(
                                same(&read_tensors(&alone).unwrap(), std::slice::from_ref(one)),
                                "{}",
                                one.0
                            );
                            if alone.is_dir() {
                                fs::remove_dir_all(&alone).unwrap();
                            }
                            true
                        }
                        Err(e) => {
                            assert!(matches!(e.cause(), TraceError::Inexpressible { .. }), "{e}");
                            assert!(
                                e.to_string().contains("write a") && e.to_string().contains(&one.0),
                                "{e}"
                            );
                            false
                        }
                    }
                })
                .collect();
            write_tensors_as(&path, format, fits.as_slice()).unwrap();
            assert!(same(&read_tensors(&path).unwrap(), &fits), "{format:?}");
            fits.len()
        })
        .collect();
    assert_eq!(held, [15, 20, 20, 15, 26]);
    let left: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert!(left.iter().all(|n| !n.to_string_lossy().starts_with('.')), "nothing temporary stays: {left:?}");
}

#[test]
fn a_refused_write_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let bad = [("x".to_owned(), Tensor::scalar(1f32).cast(DType::I4).unwrap())];
    for file in ["t.npz", "t.safetensors", "folder"] {
        let path = folder.path().join(file);
        if file != "folder" {
            fs::write(&path, "old").unwrap();
        }
        assert!(write_tensors(&path, &bad).is_err());
        let twice = [("x".to_owned(), Tensor::scalar(1f32)), ("x".to_owned(), Tensor::scalar(2f32))];
        let error = write_tensors(&path, &twice).unwrap_err();
        assert!(matches!(error.cause(), TraceError::Duplicate { .. }), "{error}");
    }
    assert_eq!(fs::read(folder.path().join("t.npz")).unwrap(), b"old");
    assert_eq!(fs::read(folder.path().join("t.safetensors")).unwrap(), b"old");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
    let error = write_tensors(folder.path(), &samples()[..1]).unwrap_err();
    assert!(matches!(error, TraceError::Occupied { .. }), "{error}");
}

#[test]
fn the_same_tensors_make_the_same_file_and_are_read_in_place() {
    let folder = tempfile::tempdir().unwrap();
    let tensors = vec![
        ("b".to_owned(), Tensor::from_vec(&[40_000], vec![1.5f32; 40_000]).unwrap()),
        ("a".to_owned(), Tensor::from_vec(&[3], vec![1i64, 2, 3]).unwrap()),
    ];
    for file in ["1.npz", "1.safetensors", "1.pt"] {
        let (one, two) = (folder.path().join(file), folder.path().join(format!("x{file}")));
        write_tensors(&one, &tensors).unwrap();
        write_tensors(&two, &tensors).unwrap();
        assert_eq!(fs::read(&one).unwrap(), fs::read(&two).unwrap());
        let read = read_tensors(&one).unwrap();
        let places: Vec<usize> = read.iter().map(|(_, t)| t.bytes().as_ptr() as usize).collect();
        // Both in one map: as far apart as in the file.
        assert!(places[0].abs_diff(places[1]) < 400_000, "{file}");
    }
}

fn npy(descr: &str, fortran: &str, shape: &str, data: &[u8]) -> Vec<u8> {
    let dict = format!("{{'descr': {descr}, 'fortran_order': {fortran}, 'shape': {shape}, }}\n");
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend((dict.len() as u16).to_le_bytes());
    bytes.extend(dict.as_bytes());
    bytes.extend(data);
    bytes
}

fn read_bytes(folder: &Path, file: &str, bytes: &[u8]) -> Result<Vec<(String, Tensor)>, TraceError> {
    let path = folder.join(file);
    fs::write(&path, bytes).unwrap();
    read_tensors(&path)
}

#[test]
fn arrays_as_numpy_writes_them() {
    let folder = tempfile::tempdir().unwrap();
    let le = |values: &[f32]| values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>();
    let text = |texts: &[&str]| {
        Tensor::from_strings(&[texts.len()], texts.iter().map(|&t| t.to_owned()).collect()).unwrap()
    };
    let cases = [
        (npy("'<f4'", "False", "(2,)", &le(&[1.0, 2.0])), Tensor::vector(vec![1f32, 2.0])),
        (
            npy("'<f4'", "True", "(2, 3)", &le(&[1., 4., 2., 5., 3., 6.])),
            Tensor::from_vec(&[2, 3], vec![1f32, 2., 3., 4., 5., 6.]).unwrap(),
        ),
        (npy("'>f4'", "False", "()", &1.5f32.to_be_bytes()), Tensor::scalar(1.5f32)),
        (npy("'<f2'", "False", "(1,)", &[0, 0x3c]), Tensor::vector(vec![f16::ONE])),
        (
            npy("'>c8'", "False", "(1,)", &[0x3f, 0x80, 0, 0, 0xc0, 0, 0, 0]),
            Tensor::vector(vec![C64([1.0, -2.0])]),
        ),
        (npy("'<f4'", "False", "(0, 7)", &[]), Tensor::from_vec::<f32>(&[0, 7], vec![]).unwrap()),
        (
            npy("'<U2'", "False", "(2,)", &[97, 0, 0, 0, 0, 0, 0, 0, 98, 0, 0, 0, 99, 0, 0, 0]),
            text(&["a", "bc"]),
        ),
        (npy("'>U1'", "False", "(1,)", &[0, 0, 0, 97]), text(&["a"])),
        (npy("'|S3'", "False", "(2,)", b"ab\0c\0\0"), text(&["ab", "c"])),
    ];
    for (bytes, expected) in cases {
        let read = read_bytes(folder.path(), "my.array.npy", &bytes).unwrap();
        assert!(
            read.len() == 1 && read[0].0 == "my.array" && read[0].1.bit_eq(&expected),
            "{read:?} {expected:?}"
        );
    }
    let refusals = [
        (npy("'<V2'", "False", "(1,)", &[0; 2]), "bfloat16"),
        (npy("'|O'", "False", "(1,)", b"\x80\x04."), "never opened"),
        (npy("[('a', '<f4')]", "False", "(1,)", &[0; 4]), "structured"),
        (npy("'<f16'", "False", "(1,)", &[0; 16]), "float64"),
        (npy("'<M8[s]'", "False", "(1,)", &[0; 8]), "int64"),
        (npy("'<f4'", "False", "(2,)", &[0; 7]), "found 7 bytes"),
        (npy("'<f4'", "False", "(2,)", &[0; 9]), "found 9 bytes"),
        (npy("'<f8'", "False", "(1000000000000,)", &[0; 8]), "found 8 bytes"),
        (npy("'<f8'", "False", "(9223372036854775807, 9)", &[0; 8]), "more elements"),
        (npy("'<U9999999999999999'", "False", "(1,)", &[]), "plain number"),
        (npy("'<U1'", "False", "(1,)", &[0xff; 4]), "no characters"),
        (npy("'|S1'", "False", "(1,)", &[0xff]), "no UTF-8"),
        (npy("'<U0'", "False", "(4611686018427387903,)", &[]), "more elements"),
        (npy("'é4'", "False", "(1,)", &[]), "plain number"),
        (npy("''", "False", "(1,)", &[]), "plain number"),
    ];
    for (bytes, expected) in refusals {
        let error = read_bytes(folder.path(), "x.npy", &bytes).unwrap_err().to_string();
        assert!(error.contains(expected) && error.contains("x.npy"), "{expected}: {error}");
    }
}

fn zipped(entries: &[(&str, Vec<u8>)], method: CompressionMethod) -> Vec<u8> {
    let mut archive = ZipWriter::new(Cursor::new(vec![]));
    for (name, data) in entries {
        archive.start_file(*name, SimpleFileOptions::default().compression_method(method)).unwrap();
        archive.write_all(data).unwrap();
    }
    archive.finish().unwrap().into_inner()
}

fn ones(n: usize) -> Vec<u8> {
    npy("'<f4'", "False", &format!("({n},)"), &1f32.to_le_bytes().repeat(n))
}

#[test]
fn archives_stored_and_deflated_and_broken_everywhere() {
    let folder = tempfile::tempdir().unwrap();
    for method in [CompressionMethod::Stored, CompressionMethod::Deflated] {
        let whole = zipped(&[("b.npy", ones(30)), ("a/c.npy", ones(2))], method);
        let read = read_bytes(folder.path(), "t.npz", &whole).unwrap();
        let names: Vec<_> = read.iter().map(|(n, t)| (n.as_str(), t.len())).collect();
        assert_eq!(names, [("b", 30), ("a/c", 2)]);
        for end in 0..whole.len() {
            assert!(read_bytes(folder.path(), "t.npz", &whole[..end]).is_err(), "{method:?} cut at {end}");
        }
        // A changed byte is an error or, in a field that nothing reads, nothing; data never come back changed.
        for at in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[at] ^= 0x55;
            if let Ok(found) = read_bytes(folder.path(), "t.npz", &bytes) {
                let intact = |(_, t): &(String, Tensor)| {
                    t.as_slice::<f32>().is_ok_and(|s| s.iter().all(|&x| x == 1.0))
                };
                assert!(found.iter().all(intact), "{method:?} byte {at}");
            }
        }
    }
    let empty = zipped(&[], CompressionMethod::Stored);
    assert!(read_bytes(folder.path(), "t.npz", &empty).unwrap().is_empty());
    let torch = zipped(&[("archive/data.pkl", vec![])], CompressionMethod::Stored);
    let error = read_bytes(folder.path(), "t.pt", &torch).unwrap_err().to_string();
    assert!(error.contains("pickle") && error.contains("ends in the middle"), "{error}");
    let other = zipped(&[("readme.txt", vec![])], CompressionMethod::Stored);
    assert!(read_bytes(folder.path(), "t.npz", &other).unwrap_err().to_string().contains("readme.txt"));
}

#[test]
fn archives_that_blow_up_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    // The central directory claims 8 GiB for a few hundred bytes.
    let mut bomb = zipped(&[("a.npy", ones(9000))], CompressionMethod::Deflated);
    let central = bomb.windows(4).rposition(|w| w == b"PK\x01\x02").unwrap();
    bomb[central + 24..central + 28].copy_from_slice(&0xffff_fff0u32.to_le_bytes());
    let error = read_bytes(folder.path(), "b.npz", &bomb).unwrap_err();
    assert!(matches!(error.cause(), TraceError::Bomb { .. } | TraceError::Damaged { .. }), "{error}");
    // Two entries of the directory that share one stretch of data.
    let mut pair = zipped(&[("a.npy", ones(500)), ("b.npy", ones(500))], CompressionMethod::Deflated);
    let second = pair.windows(4).rposition(|w| w == b"PK\x01\x02").unwrap();
    pair[second + 42..second + 46].copy_from_slice(&0u32.to_le_bytes());
    assert!(read_bytes(folder.path(), "o.npz", &pair).is_err());
    // One name twice: which array is meant?
    let mut twice = zipped(&[("a.npy", ones(1)), ("b.npy", ones(2))], CompressionMethod::Stored);
    for at in 0..twice.len() - 5 {
        if &twice[at..at + 5] == b"b.npy" {
            twice[at] = b'a';
        }
    }
    let error = read_bytes(folder.path(), "d.npz", &twice).unwrap_err();
    assert!(error.to_string().contains("twice"), "{error}");
}

#[test]
fn safetensors_cut_or_lying_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("t.safetensors");
    write_tensors(&path, &[("a".into(), Tensor::vector(vec![1f32, 2.0]))]).unwrap();
    let whole = fs::read(&path).unwrap();
    for end in 0..whole.len() {
        assert!(read_bytes(folder.path(), "c.safetensors", &whole[..end]).is_err(), "cut at {end}");
    }
    let file = |header: &str, data: usize| {
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend(header.as_bytes());
        bytes.resize(bytes.len() + data, 0);
        bytes
    };
    let lies = [
        file(r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,80]}}"#, 8),
        file(r#"{"a":{"dtype":"F32","shape":[3],"data_offsets":[0,8]}}"#, 8),
        file(r#"{"a":{"dtype":"F32","shape":[4611686018427387904,4],"data_offsets":[0,8]}}"#, 8),
        file(r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[8,0]}}"#, 8),
        file(r#"{"a":{"dtype":"F6_E2M3","shape":[4],"data_offsets":[0,3]}}"#, 3),
        [&u64::MAX.to_le_bytes()[..], b"{}"].concat(),
    ];
    for bytes in lies {
        assert!(read_bytes(folder.path(), "l.safetensors", &bytes).is_err());
    }
}

#[test]
fn folders_in_the_order_of_their_numbers() {
    let folder = tempfile::tempdir().unwrap();
    for i in [10, 2, 0] {
        let path = folder.path().join(format!("input_{i}.pb"));
        isotrace_onnx::write_tensor_pb(path, if i == 2 { "named" } else { "" }, &Tensor::scalar(i as f32))
            .unwrap();
    }
    fs::write(folder.path().join("notes.txt"), "").unwrap();
    let names: Vec<String> = read_tensors(folder.path()).unwrap().into_iter().map(|(n, _)| n).collect();
    assert_eq!(names, ["input_0", "named", "input_10"]);
    let one = read_tensors(folder.path().join("input_2.pb")).unwrap();
    assert_eq!(one[0].0, "named");
    isotrace_onnx::write_tensor_pb(folder.path().join("input_3.pb"), "named", &Tensor::scalar(0f32)).unwrap();
    let error = read_tensors(folder.path()).unwrap_err();
    assert!(matches!(error.cause(), TraceError::Duplicate { .. }), "{error}");
}

#[test]
fn other_files_are_named_with_a_remedy() {
    let folder = tempfile::tempdir().unwrap();
    let cases: [(&str, &[u8], &str); 12] = [
        ("x.npy", b"", "an empty file"),
        ("x.db", b"SQLite format 3\0\x10\0\x01\x01", "DESTINATION=files"),
        ("x.npz", b"hello", "something else"),
        ("x.pt", b"", "an empty file"),
        ("cut.npz", b"PK\x03\x04 and no more", "breaks off after 16 bytes"),
        ("x.bin", &[7; 64], "no .bin.json beside them"),
        ("lfs.bin", b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        ("x.pt", b"\x80\x02", "ends in the middle"),
        ("x.onnx", b"\x08\x08", "model is expected"),
        ("x.txt", b"some text", "text"),
        ("x.json", b"{\"a\": 1}", "JSON"),
        ("x.pb", b"hello hello", "text"),
    ];
    for (file, bytes, expected) in cases {
        let error = read_bytes(folder.path(), file, bytes).unwrap_err().to_string();
        assert!(error.contains(expected) && error.contains(file), "{file}: {error}");
    }
    fs::create_dir(folder.path().join("empty")).unwrap();
    assert!(read_tensors(folder.path().join("empty")).unwrap_err().to_string().contains("without"));
    assert!(read_tensors(folder.path().join("none")).is_err());
}

/// Enough values that each has a map of its own.
const MANY: usize = 40_000;

#[test]
fn a_source_lists_everything_and_reads_one_tensor_at_a_time() {
    let folder = tempfile::tempdir().unwrap();
    let tensors = vec![
        ("b".to_owned(), Tensor::from_vec(&[MANY], vec![1.5f32; MANY]).unwrap()),
        ("a/w".to_owned(), Tensor::from_vec(&[3], vec![1i64, 2, 3]).unwrap()),
    ];
    for file in ["t.npz", "t.safetensors", "folder"] {
        let path = folder.path().join(file);
        write_tensors(&path, &tensors).unwrap();
        let source = isotrace_trace::open(&path).unwrap();
        let mut names: Vec<&str> = source.names().collect();
        names.sort_unstable();
        assert_eq!((source.len(), names), (2, vec!["a/w", "b"]), "{file}");
        for (name, tensor) in &tensors {
            let info = source.info(name).unwrap();
            assert_eq!((info.dtype, info.shape.as_slice()), (tensor.dtype(), tensor.shape()), "{file}");
            assert!(source.get(name).unwrap().bit_eq(tensor) && source.contains(name), "{file}");
        }
        assert!(source.iter().all(|(name, tensor)| tensor.unwrap().bit_eq(&source.get(name).unwrap())));
        let error = source.get("c").unwrap_err().to_string();
        assert!(error.contains(file) && error.contains("no tensor \"c\""), "{error}");
        // A tensor outlives its source.
        let kept = source.get("b").unwrap();
        drop(source);
        assert!(kept.bit_eq(&tensors[0].1));
    }
}
