//! Checkpoints of PyTorch and other pickles: what the real packages wrote is read as they read it, and what attacks are
//! made of is data.

mod common;

use std::fs;
use std::path::Path;

use isotrace_tensor::{DType, Tensor};
use isotrace_trace::{Kind, TraceError, open, read_tensors};

use common::{differences, golden};

#[test]
fn checkpoints_are_read_as_pytorch_reads_them() {
    let mut wrong = vec![];
    let mut files = 0;
    for entry in fs::read_dir(golden()).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|e| e == "pt") {
            files += 1;
            let source = open(&path).unwrap();
            assert_eq!(source.kind(), Kind::PyTorch);
            let expected = read_tensors(path.with_added_extension("expected.safetensors")).unwrap();
            wrong.extend(
                differences(&source, &expected).into_iter().map(|w| format!("{}: {w}", path.display())),
            );
            let aside = path.file_name().is_some_and(|n| n.to_string_lossy().starts_with("aside."));
            assert_eq!(source.notes().len(), if aside { 2 } else { 0 }, "{:?}", source.notes());
        }
    }
    assert!(wrong.is_empty() && files == 15, "{files} files, {wrong:#?}");
    let notes = open(golden().join("aside.zip.pt")).unwrap().notes().to_vec();
    assert!(notes[0].text.contains("\"sparse\"") && notes[0].text.contains("dense"), "{notes:?}");
}

#[test]
fn checkpoints_are_read_as_paddle_reads_them() {
    let mut wrong = vec![];
    let mut files = 0;
    for entry in fs::read_dir(golden()).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().and_then(|e| e.to_str()).is_some_and(|e| e.starts_with("pd")) {
            files += 1;
            let source = open(&path).unwrap();
            assert_eq!((source.kind(), source.notes().len()), (Kind::Paddle, 0), "{}", path.display());
            let expected = read_tensors(path.with_added_extension("expected.safetensors")).unwrap();
            wrong.extend(
                differences(&source, &expected).into_iter().map(|w| format!("{}: {w}", path.display())),
            );
        }
    }
    assert!(wrong.is_empty() && files == 8, "{files} files, {wrong:#?}");
}

#[test]
fn arrays_in_pickles_of_every_protocol() {
    let expected = read_tensors(golden().join("arrays.pkl.expected.safetensors")).unwrap();
    for protocol in 0..6 {
        let source = open(golden().join(format!("arrays{protocol}.pkl"))).unwrap();
        let wrong = differences(&source, &expected);
        assert!(wrong.is_empty() && source.kind() == Kind::Pickle, "{protocol}: {wrong:#?}");
    }
}

#[test]
fn views_of_one_storage_read_only_what_they_look_at() {
    let source = open(golden().join("views.zip.pt")).unwrap();
    assert_eq!(source.get("slice").unwrap().as_slice::<f32>().unwrap(), [5.0, 6.0, 7.0, 8.0]);
    assert_eq!(source.get("transposed").unwrap().shape(), [6, 4]);
}

fn read(folder: &Path, file: &str, bytes: &[u8]) -> Result<Vec<(String, Tensor)>, TraceError> {
    let path = folder.join(file);
    fs::write(&path, bytes).unwrap();
    read_tensors(&path)
}

/// `os.system` with an argument that would leave a file behind.
fn attack(marker: &Path) -> Vec<u8> {
    let command = format!("touch {}", marker.display());
    [
        b"\x80\x02cos\nsystem\nX".as_slice(),
        &(command.len() as u32).to_le_bytes(),
        command.as_bytes(),
        b"\x85R.",
    ]
    .concat()
}

#[test]
fn nothing_in_a_pickle_is_executed() {
    let folder = tempfile::tempdir().unwrap();
    let marker = folder.path().join("executed");
    for file in ["a.pkl", "a.pdparams", "a.pt", "a.bin"] {
        let read = read(folder.path(), file, &attack(&marker)).unwrap();
        assert!(read.is_empty(), "{file}");
    }
    // Beside a tensor, which is read.
    let whole = fs::read(golden().join("alone.legacy.pt")).unwrap();
    assert!(!marker.exists() && !whole.is_empty());
    let inst = format!("(S'touch {}'\nios\nsystem\n.", marker.display());
    assert!(read(folder.path(), "b.pkl", inst.as_bytes()).unwrap().is_empty());
    let build =
        [b"\x80\x02}q\x00X\x01\x00\x00\x00acos\nsystem\nX\x01\x00\x00\x00b\x85Rs.".as_slice()].concat();
    assert!(read(folder.path(), "c.pkl", &build).unwrap().is_empty());
    assert!(!marker.exists());
}

#[test]
fn pickles_that_blow_up_or_lie_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    // Lists that hold the one before twice: two to the power of forty tensors, were they counted.
    let mut laughs = b"\x80\x02]q\x00".to_vec();
    for i in 0..40u8 {
        laughs.extend([b']', b'q', i + 1, b'(', b'h', i, b'h', i, b'e']);
    }
    laughs.push(b'.');
    let mut deep = b"\x80\x02".to_vec();
    deep.extend(b")\x85".iter().copied().chain(std::iter::repeat_n(0x85, 100_000)));
    deep.push(b'.');
    let mut many = b"\x80\x02(".to_vec();
    many.extend(std::iter::repeat_n(b'N', 9 << 20));
    many.extend(b"t.");
    let bombs = [("laughs", laughs), ("deep", deep), ("many", many)];
    for (name, bytes) in bombs {
        let error = read(folder.path(), "bomb.pkl", &bytes).unwrap_err();
        assert!(matches!(error.cause(), TraceError::Bomb { .. }), "{name}: {error}");
    }
    // A list that holds itself ends.
    assert!(read(folder.path(), "self.pkl", b"\x80\x02]q\x00h\x00a.").unwrap().is_empty());
    let lies: [(&[u8], &str); 14] = [
        (b"\x80\x02", "ends in the middle"),
        (b"\x80\x02.", "stack is empty"),
        (b"\x80\x020.", "stack is empty"),
        (b"\x80\x02X\xff\xff\xff\xffa.", "ends in the middle"),
        (b"\x80\x04\x8e\xff\xff\xff\xff\xff\xff\xff\xff.", "ends in the middle"),
        (b"\x80\x04\x95\xff\xff\xff\xff\xff\xff\xff\xff", "ends in the middle"),
        (b"\x80\x02h\x05.", "never kept"),
        (b"\x80\x02t.", "no mark"),
        (b"\x80\x02}(K\x01u.", "without a value"),
        (b"\x80\x02N]s.", "nothing to put into"),
        (b"\x80\x02K\x01K\x02a.", "no list"),
        (b"\x80\x02cos", "without end"),
        (b"\x80\x02\xee.", "no such instruction"),
        (b"\x80\x02\x82\x01.", "not in the file"),
    ];
    for (bytes, expected) in lies {
        let error = read(folder.path(), "lie.pkl", bytes).unwrap_err().to_string();
        assert!(error.contains(expected), "{bytes:?}: {error}");
    }
}

/// A pickle in the form of PyTorch: one tensor over a storage of four f32, with these numbers.
fn described(offset: u32, shape: &[u32], strides: &[u32], count: u32, key: &str) -> Vec<u8> {
    let tuple = |numbers: &[u32]| {
        let mut out = vec![b'('];
        for n in numbers {
            out.extend([&[b'J'][..], &n.to_le_bytes()].concat());
        }
        out.push(b't');
        out
    };
    let text = |t: &str| [b"X".as_slice(), &(t.len() as u32).to_le_bytes(), t.as_bytes()].concat();
    [
        b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n((".to_vec(),
        text("storage"),
        b"ctorch\nFloatStorage\n".to_vec(),
        text(key),
        text("cpu"),
        [b"J".as_slice(), &count.to_le_bytes()].concat(),
        b"tQ".to_vec(),
        [b"J".as_slice(), &offset.to_le_bytes()].concat(),
        tuple(shape),
        tuple(strides),
        b"\x89}tR.".to_vec(),
    ]
    .concat()
}

fn zipped(pickle: &[u8]) -> Vec<u8> {
    use std::io::Write;
    let mut archive = zip::ZipWriter::new(std::io::Cursor::new(vec![]));
    let stored = zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
    for (name, data) in [("m/data.pkl", pickle), ("m/data/0", &[0, 0, 0x80, 0x3f].repeat(4)[..])] {
        archive.start_file(name, stored).unwrap();
        archive.write_all(data).unwrap();
    }
    archive.finish().unwrap().into_inner()
}

#[test]
fn tensors_that_reach_beyond_their_storage_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    struct Case(u32, &'static [u32], &'static [u32], u32, &'static str, Option<&'static str>);
    let cases = [
        Case(0, &[4], &[1], 4, "0", None),
        Case(1, &[3], &[1], 4, "0", None),
        Case(0, &[0], &[1], 4, "0", None),
        Case(1, &[4], &[1], 4, "0", Some("reaches beyond")),
        Case(0, &[5], &[1], 4, "0", Some("reaches beyond")),
        Case(0, &[2], &[4], 4, "0", Some("reaches beyond")),
        Case(0, &[2, 2], &[1], 4, "0", Some("reaches beyond")),
        Case(0, &[5], &[1], 5, "0", Some("has 16 bytes")),
        Case(0, &[0x7fff_ffff, 0x7fff_ffff, 0x7fff_ffff], &[0, 0, 0], 4, "0", Some("reaches beyond")),
        Case(0, &[0x7fff_ffff, 16], &[0, 0], 4, "0", Some("of 4")),
        Case(0x7fff_ffff, &[4], &[0x7fff_ffff], 4, "0", Some("reaches beyond")),
    ];
    for Case(offset, shape, strides, count, key, expected) in cases {
        let bytes = zipped(&described(offset, shape, strides, count, key));
        match (read(folder.path(), "t.pt", &bytes), expected) {
            (Ok(read), None) => assert!(read[0].1.as_slice::<f32>().unwrap().iter().all(|&x| x == 1.0)),
            (Err(error), Some(expected)) => assert!(error.to_string().contains(expected), "{error}"),
            (found, _) => panic!("{offset} {shape:?} {strides:?}: {found:?}"),
        }
    }
    // Keys are names within the archive and nothing else.
    for key in ["../../secret", "/etc/hostname", "1", ""] {
        fs::write(folder.path().join("t.pt"), zipped(&described(0, &[4], &[1], 4, key))).unwrap();
        let source = open(folder.path().join("t.pt")).unwrap();
        assert!(source.is_empty() && source.notes()[0].text.contains("is missing"), "{:?}", source.notes());
    }
    // Negative numbers are no sizes.
    fs::write(folder.path().join("t.pt"), zipped(&described(0, &[u32::MAX], &[1], 4, "0"))).unwrap();
    assert!(open(folder.path().join("t.pt")).unwrap().notes()[0].text.contains("no whole numbers"));
}

#[test]
fn checkpoints_cut_or_changed_anywhere_never_panic() {
    let folder = tempfile::tempdir().unwrap();
    for file in ["checkpoint.legacy.pt", "types.zip.pt", "protocol4.pt"] {
        let whole = fs::read(golden().join(file)).unwrap();
        for end in (0..whole.len()).step_by(if file.contains("zip") { 97 } else { 13 }) {
            assert!(read(folder.path(), "cut.pt", &whole[..end]).is_err(), "{file} cut at {end}");
        }
        for at in (0..whole.len()).step_by(7) {
            let mut bytes = whole.clone();
            bytes[at] ^= 0x41;
            let _ = read(folder.path(), "changed.pt", &bytes);
        }
    }
}

#[test]
fn a_large_storage_is_mapped() {
    use std::io::{Seek, SeekFrom, Write};
    // The form before 1.6, with a storage of 40 GB that is a hole in the file.
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("large.pt");
    let count = 10u64 << 30;
    let magic = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.\x80\x02M\xe9\x03.\x80\x02}.";
    let mut pickle = described(0, &[2], &[1], 0, "k");
    let at = pickle.windows(5).position(|w| w == b"J\0\0\0\0").unwrap();
    pickle.splice(at..at + 5, [b"\x8a\x05".as_slice(), &count.to_le_bytes()[..5]].concat());
    let first = pickle.windows(5).rposition(|w| w == b"J\0\0\0\0").unwrap();
    pickle.splice(first..first + 5, [b"\x8a\x05".as_slice(), &(count - 2).to_le_bytes()[..5]].concat());
    let keys = b"\x80\x02]X\x01\x00\x00\x00ka.";
    let mut file = fs::File::create(&path).unwrap();
    file.write_all(&[magic, pickle.as_slice(), keys, &count.to_le_bytes()].concat()).unwrap();
    file.seek(SeekFrom::Current(4 * (count as i64 - 1))).unwrap();
    file.write_all(&2.5f32.to_le_bytes()).unwrap();
    let source = open(&path).unwrap();
    let tensor = source.get("large").unwrap();
    assert_eq!((tensor.dtype(), tensor.as_slice::<f32>().unwrap()), (DType::F32, &[0.0, 2.5][..]));
}
