//! No room, or no right, to write: one clear error, and a trace that reads.
//!
//! Two ways that need no rights: a limit on the size of files, and file systems of some kilobytes in a name space of
//! one's own, where the system allows that.
#![cfg(target_os = "linux")]

mod common;

use std::io::Write;
use std::path::Path;
use std::process::Command;

use common::{SMALL, child, given, header, record, tensor};
use isotrace_trace::Trace;
use isotrace_trace::trace::Writer;

/// The writer: records until it fails, and says how.
#[test]
#[ignore = "the other tests start it"]
fn writer() {
    let Some(folder) = given() else { return };
    let say = |text: String| writeln!(std::io::stdout(), "\nsaid {text}").unwrap();
    let mut writer = match Writer::create(folder, &header(), SMALL) {
        Ok(writer) => writer,
        Err(error) => return say(error.to_string()),
    };
    for i in 0..10_000 {
        if let Err(error) = record(&mut writer, i) {
            say(error.to_string());
            // It stays failed, and says so.
            say(record(&mut writer, i).unwrap_err().to_string());
            say(writer.finish().unwrap_err().to_string());
            return;
        }
    }
    say("no error".into());
}

/// What the writer said, started by a shell with something to do before.
fn said(before: &str, folder: &Path) -> Vec<String> {
    let writer = child("writer", folder);
    let mut shell = Command::new("sh");
    shell
        .arg("-c")
        .arg(format!("{before}\nexec \"$@\""))
        .arg("sh")
        .arg(writer.get_program())
        .args(writer.get_args());
    shell.env("ISOTRACE_TEST_FOLDER", folder);
    let output = shell.output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let said: Vec<String> = text.lines().filter_map(|l| l.strip_prefix("said ")).map(str::to_owned).collect();
    assert!(!said.is_empty(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    said
}

/// The trace reads, everything in finished shards is right, and no half shard is left.
fn check(folder: &Path) -> usize {
    let trace = Trace::open(folder).unwrap();
    assert!(trace.missing().unfinished);
    let read = trace.tensors().enumerate().filter(|(at, (_, read))| match read {
        Ok(read) => read.bit_eq(&tensor(*at as u64)),
        Err(_) => false,
    });
    let read = read.count();
    assert_eq!(read + trace.missing().values.len(), trace.values().len());
    let names: Vec<_> = std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert!(names.iter().all(|n| !n.to_string_lossy().ends_with(".tmp")), "{names:?}");
    read
}

#[test]
fn a_file_that_may_not_grow_is_one_clear_error() {
    let folder = tempfile::tempdir().unwrap();
    // In blocks of 512 or 1024 bytes: a limit that shards never meet, the log does after some hundred records.
    let cases = [("200", "trace.jsonl", 1), ("20", "data-0000.safetensors", 0)];
    for (blocks, file, least) in cases {
        let path = folder.path().join(blocks);
        let said = said(&format!("trap '' XFSZ; ulimit -f {blocks} || exit 1"), &path);
        assert!(said[0].contains(file) && said[0].contains("make room"), "{said:?}");
        assert!(said[1].contains("failed before") && said[2].contains("failed before"), "{said:?}");
        assert!(check(&path) >= least);
    }
}

/// Runs the writer in a name space in which `mount` may mount; `None` where the system does not allow one.
fn mounted(mount: &str, inside: &Path, after: &str) -> Option<(Vec<String>, bool)> {
    let possible = Command::new("unshare").args(["-rm", "true"]).output().is_ok_and(|o| o.status.success());
    if !possible {
        let mut out = std::io::stdout();
        writeln!(out, "skipped: this system gives nobody a name space of file systems").unwrap();
        return None;
    }
    let writer = child("writer", inside);
    let mut shell = Command::new("unshare");
    shell.args(["-rm", "sh", "-c"]).arg(format!("{mount} || exit 9\n\"$@\"\n{after}")).arg("sh");
    shell.arg(writer.get_program()).args(writer.get_args()).env("ISOTRACE_TEST_FOLDER", inside);
    let output = shell.output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert_ne!(output.status.code(), Some(9), "{}", String::from_utf8_lossy(&output.stderr));
    Some((
        text.lines().filter_map(|l| l.strip_prefix("said ")).map(str::to_owned).collect(),
        output.status.success(),
    ))
}

#[test]
fn a_full_disk_is_one_clear_error_and_the_trace_reads() {
    let folder = tempfile::tempdir().unwrap();
    let (disk, copy) = (folder.path().join("disk"), folder.path().join("copy"));
    std::fs::create_dir_all(&disk).unwrap();
    let mount = format!("mount -t tmpfs -o size=512k none '{}'", disk.display());
    // The disk is gone with its name space.
    let after = format!("cp -r '{}/trace' '{}'", disk.display(), copy.display());
    let Some((said, copied)) = mounted(&mount, &disk.join("trace"), &after) else { return };
    assert!(said[0].contains("No space left") && said[0].contains("make room"), "{said:?}");
    assert!(said[1].contains("failed before") && said[2].contains("failed before"), "{said:?}");
    assert!(copied && check(&copy) > 20);
}

#[test]
fn a_read_only_folder_is_one_clear_error() {
    let folder = tempfile::tempdir().unwrap();
    let disk = folder.path().join("disk");
    std::fs::create_dir_all(&disk).unwrap();
    let mount = format!("mount -t tmpfs -o ro none '{}'", disk.display());
    if let Some((said, _)) = mounted(&mount, &disk.join("trace"), "true") {
        assert!(said[0].contains("Read-only") && said[0].contains("may write to"), "{said:?}");
    }
    // Rights of the folder do not stop the superuser.
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    std::fs::set_permissions(&disk, std::fs::Permissions::from_mode(0o555)).unwrap();
    if std::fs::metadata("/proc/self").unwrap().uid() != 0 {
        let said = said("true", &disk.join("trace"));
        assert!(said[0].contains("denied") && said[0].contains("may write to"), "{said:?}");
    }
    std::fs::set_permissions(&disk, std::fs::Permissions::from_mode(0o755)).unwrap();
}
