//! Files far larger than memory are mapped where they are looked at, and never read whole.
#![cfg(target_os = "linux")]

use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::path::Path;

use isotrace_tensor::{DType, Tensor};
use isotrace_trace::{Selection, open, read_tensors, write_tensors_as};

/// Bytes of the large tensor: tens of GB, nearly all of them a hole in the file.
const LARGE: u64 = 48 << 30;

/// The most memory of this process so far, mapped pages counted.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|l| l.starts_with("VmHWM")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() << 10
}

/// A file with `head`, a hole, and two elements at its end.
fn sparse(path: &Path, head: &[u8], data: u64) {
    let mut file = File::create(path).unwrap();
    file.write_all(head).unwrap();
    file.seek(SeekFrom::Start(head.len() as u64 + data)).unwrap();
    file.write_all(&little_endian([7.0, 8.0])).unwrap();
}

fn little_endian(values: [f32; 2]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}

#[test]
fn tens_of_gigabytes_are_mapped_and_not_read() {
    let folder = tempfile::tempdir().unwrap();
    let before = peak();

    let path = folder.path().join("large.safetensors");
    let json = format!(
        "{{\"large\":{{\"dtype\":\"F32\",\"shape\":[{}],\"data_offsets\":[0,{LARGE}]}},\
         \"small\":{{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[{LARGE},{}]}}}}",
        LARGE / 4,
        LARGE + 8
    );
    let mut head = (json.len() as u64).to_le_bytes().to_vec();
    head.extend(json.as_bytes());
    sparse(&path, &head, LARGE);
    let source = open(&path).unwrap();
    assert_eq!(source.info("large").unwrap().shape, [LARGE as usize / 4]);
    assert_eq!(source.get("small").unwrap().as_slice::<f32>().unwrap(), [7.0, 8.0]);
    let large = source.get("large").unwrap();
    assert_eq!(large.raw_bytes().len() as u64, LARGE);
    let all = read_tensors(&path).unwrap();
    assert_eq!(all[1].1.as_slice::<f32>().unwrap(), [7.0, 8.0]);
    let out = folder.path().join("small.npz");
    let selection = Selection { source: &source, names: vec!["small"], widen: false, progress: None };
    write_tensors_as(&out, isotrace_trace::Format::Npz, &selection).unwrap();
    assert!(std::fs::metadata(&out).unwrap().len() < 1000);

    let path = folder.path().join("large.npy");
    let dict = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({},), }}", LARGE / 4 + 2);
    let mut head = b"\x93NUMPY\x01\x00\x76\x00".to_vec();
    head.extend(format!("{dict:<117}\n").as_bytes());
    sparse(&path, &head, LARGE);
    let source = open(&path).unwrap();
    let info = source.info("large").unwrap();
    assert_eq!((info.dtype, info.shape), (DType::F32, vec![LARGE as usize / 4 + 2]));
    let tensor: Tensor = source.get("large").unwrap();
    assert_eq!(tensor.as_slice::<f32>().unwrap()[LARGE as usize / 4..], [7.0, 8.0]);

    let grown = peak() - before;
    assert!(grown < 32 << 20, "{grown} bytes of memory for files that were to be mapped");
}
