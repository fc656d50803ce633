//! GGUF files: every type as the package `gguf` reads it, and files that lie.

use std::fs;
use std::path::{Path, PathBuf};

use isotrace_tensor::{DType, Tensor, bf16};
use isotrace_trace::{Kind, TraceError, open, read_tensors};

/// Same bits, NaN being NaN whatever its payload: the package computes in another order of instructions.
fn same(read: &Tensor, expected: &Tensor) -> bool {
    match (read.as_slice::<f32>(), expected.as_slice::<f32>()) {
        (Ok(a), Ok(b)) => {
            read.shape() == expected.shape()
                && a.iter().zip(b).all(|(x, y)| x.to_bits() == y.to_bits() || x.is_nan() && y.is_nan())
        }
        _ => read.bit_eq(expected),
    }
}

fn check(folder: &Path) -> usize {
    let source = open(folder.join("types.gguf")).unwrap();
    assert_eq!(source.kind(), Kind::Gguf);
    let mut wrong = vec![];
    let expected = read_tensors(folder.join("types.gguf.expected.npz")).unwrap();
    for (name, expected) in &expected {
        let read = source.get(name).unwrap();
        let info = source.info(name).unwrap();
        assert_eq!((info.dtype, info.shape.as_slice()), (read.dtype(), read.shape()), "{name}");
        // bf16 is read as such; the package gives f32.
        let read = if read.dtype() == DType::BF16 { read.cast(DType::F32).unwrap() } else { read };
        if !same(&read, expected) {
            wrong.push(format!("{name}: {read:?}, expected {expected:?}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert_eq!(source.len(), expected.len());
    assert_eq!(source.info("t.q4_k").unwrap().stored.as_deref(), Some("Q4_K"));
    expected.len()
}

#[test]
fn every_type_is_read_as_the_package_reads_it() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    assert_eq!(check(&golden), 31);
    // Thousands of random blocks, where somebody has had them written (tests/golden/gguf_files.py).
    if let Some(folder) = std::env::var_os("ISOTRACE_GGUF").map(PathBuf::from) {
        check(&folder);
    }
}

/// A file of one tensor.
struct File {
    version: u32,
    tensors: u64,
    settings: Vec<u8>,
    count: u64,
    name: &'static [u8],
    shape: Vec<u64>,
    number: u32,
    offset: u64,
    data: Vec<u8>,
}

impl Default for File {
    fn default() -> Self {
        Self {
            version: 3,
            tensors: 1,
            settings: vec![],
            count: 0,
            name: b"x",
            shape: vec![32],
            number: 8,
            offset: 0,
            data: vec![1; 34],
        }
    }
}

impl File {
    fn bytes(&self) -> Vec<u8> {
        let mut out = b"GGUF".to_vec();
        out.extend(self.version.to_le_bytes());
        out.extend(self.tensors.to_le_bytes());
        out.extend(self.count.to_le_bytes());
        out.extend(&self.settings);
        out.extend((self.name.len() as u64).to_le_bytes());
        out.extend(self.name);
        out.extend((self.shape.len() as u32).to_le_bytes());
        self.shape.iter().for_each(|d| out.extend(d.to_le_bytes()));
        out.extend(self.number.to_le_bytes());
        out.extend(self.offset.to_le_bytes());
        out.resize(out.len().next_multiple_of(32), 0);
        out.extend(&self.data);
        out
    }
}

fn read(bytes: &[u8]) -> Result<Vec<(String, Tensor)>, TraceError> {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("t.gguf"), bytes).unwrap();
    read_tensors(folder.path().join("t.gguf"))
}

#[test]
fn types_that_the_package_does_not_read() {
    // Q8_K: an f32 scale; Q8_1: an f16 scale and a sum; Q1_0: a sign a bit.
    let mut q8_k = 0.5f32.to_le_bytes().to_vec();
    q8_k.extend((0..256).map(|i| i as u8));
    q8_k.extend([0; 32]);
    let tensor =
        &read(&File { shape: vec![256], number: 15, data: q8_k, ..File::default() }.bytes()).unwrap()[0].1;
    let values = tensor.as_slice::<f32>().unwrap();
    assert_eq!((values[3], values[128], values[255]), (1.5, -64.0, -0.5));
    let mut q8_1 = vec![0, 0x38, 0xff, 0xff];
    q8_1.extend((0..32).map(|i| i as u8));
    let tensor = &read(&File { number: 9, data: q8_1, ..File::default() }.bytes()).unwrap()[0].1;
    assert_eq!(tensor.as_slice::<f32>().unwrap()[31], 15.5);
    let mut q1_0 = vec![0, 0x3c];
    q1_0.extend([0b0000_0101; 16]);
    let file = File { shape: vec![128], number: 41, data: q1_0, ..File::default() };
    assert_eq!(read(&file.bytes()).unwrap()[0].1.as_slice::<f32>().unwrap()[..4], [1.0, -1.0, 1.0, -1.0]);
    // Two rows of two, the fastest axis first in the file.
    let data = [1f32, 2., 3., 4., 5., 6.].iter().flat_map(|x| bf16::from_f32(*x).to_le_bytes()).collect();
    let file = File { shape: vec![3, 2], number: 30, data, ..File::default() };
    let tensor = &read(&file.bytes()).unwrap()[0].1;
    assert_eq!((tensor.dtype(), tensor.shape()), (DType::BF16, &[2, 3][..]));
}

#[test]
fn files_that_lie_are_refused() {
    let setting =
        |kind: u32, rest: &[u8]| [&1u64.to_le_bytes()[..], b"k", &kind.to_le_bytes(), rest].concat();
    let list = |kind: u32, count: u64| [&kind.to_le_bytes()[..], &count.to_le_bytes()].concat();
    let deep: Vec<u8> = (0..50).flat_map(|_| list(9, 1)).collect();
    let aligned =
        [&17u64.to_le_bytes()[..], b"general.alignment", &4u32.to_le_bytes(), &3u32.to_le_bytes()].concat();
    let good = File::default();
    assert!(read(&good.bytes()).is_ok());
    let with = |settings: Vec<u8>| File { count: 1, settings, ..File::default() };
    let cases = [
        (File { version: 4, ..File::default() }, "version 4"),
        (File { version: 3 << 24, ..File::default() }, "big-endian"),
        (File { tensors: u64::MAX, ..File::default() }, "a name of"),
        (File { count: u64::MAX, ..File::default() }, "unknown type|a name of"),
        (File { number: 31, ..File::default() }, "number 31"),
        (File { number: u32::MAX, ..File::default() }, "number 4294967295"),
        (File { shape: vec![33], ..File::default() }, "do not fill"),
        (File { shape: vec![64], ..File::default() }, "ends after the file"),
        (File { shape: vec![1 << 62, 1 << 62], ..File::default() }, "more elements"),
        (File { shape: vec![1; 17], ..File::default() }, "17 axes"),
        (File { offset: 32, ..File::default() }, "ends after the file"),
        (File { offset: u64::MAX, ..File::default() }, "ends after the file"),
        (File { name: b"\xff", ..File::default() }, "UTF-8"),
        (with(setting(13, &[])), "unknown type 13"),
        (with(setting(8, &u64::MAX.to_le_bytes())), "header"),
        (with(setting(9, &list(4, u64::MAX))), "without end"),
        (with(setting(9, &list(8, u64::MAX))), "header"),
        (with(setting(9, &deep)), "unknown type 9"),
        (with(aligned), "alignment is 3"),
    ];
    let mut wrong = vec![];
    for (file, expected) in cases {
        match read(&file.bytes()) {
            Ok(_) => wrong.push(format!("{expected}: read")),
            Err(e) if expected.split('|').any(|part| e.to_string().contains(part)) => {}
            Err(e) => wrong.push(format!("{expected}: {e}")),
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    let whole = good.bytes();
    for end in 4..whole.len() {
        assert!(read(&whole[..end]).is_err(), "cut at {end}");
    }
    for at in 4..whole.len() {
        let mut changed = whole.clone();
        changed[at] ^= 0x55;
        let _ = read(&changed);
    }
}
