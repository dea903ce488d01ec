//! The container: counts, lengths, types, alignment, placement; and things that are no GGUF file at all.

use super::support::{Edit, Folder, ask, check_error, golden_bytes, survives};
use llava::gguf::{File, Value};
use llava::{Error, Model};

const F32: u32 = 0;
const Q4_0: u32 = 2;

/// A file written field by field.
struct Raw(Vec<u8>);

impl Raw {
    fn new(n_tensors: u64, n_keys: u64) -> Self {
        Self(b"GGUF".to_vec()).u32(3).u64(n_tensors).u64(n_keys)
    }

    fn u32(mut self, v: u32) -> Self {
        self.0.extend(v.to_le_bytes());
        self
    }

    fn u64(mut self, v: u64) -> Self {
        self.0.extend(v.to_le_bytes());
        self
    }

    fn string(self, s: &[u8]) -> Self {
        let mut raw = self.u64(s.len() as u64);
        raw.0.extend(s);
        raw
    }

    /// A key whose value of type `t` is still to be written.
    fn key(self, name: &str, t: u32) -> Self {
        self.string(name.as_bytes()).u32(t)
    }

    fn tensor(self, name: &str, dims: &[u64], t: u32, offset: u64) -> Self {
        let raw = self.string(name.as_bytes()).u32(dims.len() as u32);
        dims.iter().fold(raw, |raw, &d| raw.u64(d)).u32(t).u64(offset)
    }

    /// The data section, of `n` zeros.
    fn data(mut self, n: usize) -> Vec<u8> {
        let len = self.0.len().next_multiple_of(32) + n;
        self.0.resize(len, 0);
        self.0
    }
}

/// The file is refused in words that have all of `parts` in them.
#[track_caller]
fn refused(case: &str, bytes: Vec<u8>, parts: &[&str]) {
    let error = survives(case, || File::from_bytes(bytes)).expect_err(case);
    check_error(case, &error);
    let text = error.to_string();
    assert!(parts.iter().all(|p| text.contains(p)), "{case}: {text}");
}

#[test]
fn counts_and_lengths_beyond_the_file_are_refused_before_anything_is_allocated() {
    for n in [u64::MAX, 1 << 63, 1 << 62, 1 << 40, 1 << 32, 1 << 20] {
        let text = n.to_string();
        let room = 1000;
        refused("tensors", Raw::new(n, 0).data(room), &["tensor count", &text]);
        refused("keys", Raw::new(0, n).data(room), &["metadata count", &text]);
        refused("key length", Raw::new(0, 1).u64(n).data(room), &["metadata key 0", &text]);
        refused("string", Raw::new(0, 1).key("a.key", 8).u64(n).data(room), &["a.key", &text]);
        for element in [0, 1, 2, 3, 4, 5, 6, 7, 8, 10, 11, 12] {
            let raw = Raw::new(0, 1).key("a.key", 9).u32(element).u64(n);
            refused("array", raw.data(room), &["a.key", &text]);
        }
        refused("element", Raw::new(0, 1).key("a.key", 9).u32(8).u64(2).u64(n).data(room), &["a.key", &text]);
        refused("tensor name", Raw::new(1, 0).u64(n).data(room), &["name of tensor 0", &text]);
    }
}

#[test]
fn tables_larger_than_any_model_has_are_refused_although_the_file_has_room() {
    // Sparse: it takes no space on the disk, and mapping it no memory.
    let folder = Folder::new("sparse");
    for (raw, field) in [
        (Raw::new(0, 1 << 34), "metadata count"),
        (Raw::new(1 << 33, 0), "tensor count"),
        (Raw::new(0, 1).key("a.key", 9).u32(8).u64(1 << 34), "a.key"),
        (Raw::new(0, 1).key("a.key", 9).u32(12).u64(1 << 34), "a.key"),
        (Raw::new(0, 1).key("a.key", 8).u64(1 << 34), "a.key"),
        (Raw::new(0, 1).u64(1 << 34), "metadata key 0"),
    ] {
        let path = folder.file("model.gguf", &raw.0);
        std::fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(1 << 40).unwrap();
        let error = survives(field, || File::open(&path)).expect_err(field).to_string();
        assert!(error.contains(field) && error.contains("at most") && error.contains("model.gguf"), "{error}");
    }
}

#[test]
fn versions_and_byte_orders_that_are_not_read_are_named() {
    for version in [0, 1, 4, u32::MAX] {
        let mut bytes = golden_bytes("llava/lm.gguf");
        bytes[4..8].copy_from_slice(&version.to_le_bytes());
        refused("version", bytes, &["version", &format!("GGUF version {version};"), "2 and 3"]);
    }
    let mut bytes = golden_bytes("llava/lm.gguf");
    bytes[4..8].copy_from_slice(&3u32.to_be_bytes());
    refused("big-endian", bytes.clone(), &["big-endian"]);
    bytes[4..8].copy_from_slice(&2u32.to_le_bytes());
    let model = Model::from_bytes(bytes, None).unwrap();
    ask(&model, false).expect("version 2 has the same layout");
}

#[test]
fn things_that_are_no_gguf_file_are_called_what_they_are() {
    for (what, bytes, expected) in [
        ("empty", &b""[..], "0 left"),
        ("three bytes", b"GGU", "3 left"),
        ("magic alone", b"GGUF", "version"),
        ("text", b"Dear reader, this is a text file.", "not a GGUF file"),
        ("zip", b"PK\x03\x04rest of a checkpoint", "PyTorch"),
        ("ggml", b"tjgg\x01\x00\x00\x00", "before GGUF"),
        ("lfs", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "git-lfs pointer"),
    ] {
        refused(what, bytes.to_vec(), &[expected]);
    }
}

#[test]
fn values_of_no_known_type_are_refused() {
    refused("type 13", Raw::new(0, 1).key("a.key", 13).data(64), &["a.key", "type 13"]);
    refused("element type 13", Raw::new(0, 1).key("a.key", 9).u32(13).u64(1).data(64), &["a.key", "element type 13"]);
    refused("nested", Raw::new(0, 1).key("a.key", 9).u32(9).u64(1).data(64), &["a.key", "array of arrays"]);
    refused("bool", Raw::new(0, 1).key("a.key", 7).u32(2).data(64), &["a.key", "bool of 2"]);
    refused("UTF-8", Raw::new(0, 1).key("a.key", 8).string(b"\xff\xfe").data(64), &["a.key", "UTF-8"]);
    refused("key in no UTF-8", Raw::new(0, 1).string(b"\xc0").u32(4).data(64), &["metadata key 0", "UTF-8"]);
    refused("no name", Raw::new(0, 1).key("", 4).u32(1).data(64), &["metadata key 0", "empty"]);
    refused("twice", Raw::new(0, 2).key("a.key", 4).u32(1).key("a.key", 4).u32(2).data(64), &["a.key", "twice"]);
}

#[test]
fn messages_quote_hostile_names_without_control_characters_and_briefly() {
    let name = format!("\x1b[2J{}", "x".repeat(5000));
    let error = File::from_bytes(Raw::new(0, 1).key(&name, 13).data(64)).unwrap_err().to_string();
    assert!(!error.contains('\x1b') && error.len() < 1000, "{} bytes", error.len());
}

#[test]
fn tensors_that_cannot_be_are_refused() {
    let one = |dims: &[u64], t: u32, offset: u64| Raw::new(1, 0).tensor("t", dims, t, offset).data(256);
    refused("no dimensions", one(&[], F32, 0), &["t:", "0 dimensions"]);
    refused("five dimensions", one(&[1; 5], F32, 0), &["t:", "5 dimensions"]);
    refused("a dimension of 0", one(&[4, 0], F32, 0), &["t:", "dimension of 0"]);
    refused("size overflows", one(&[1 << 62, 1 << 62], F32, 0), &["t:", "overflow"]);
    refused("row overflows", one(&[u64::MAX], F32, 0), &["t:"]);
    refused("four large dimensions", one(&[1 << 32; 4], F32, 0), &["t:", "overflow"]);
    refused("offset overflows", one(&[4], F32, u64::MAX - 31), &["t:"]);
    refused("offset beyond the file", one(&[4], F32, 1 << 20), &["t:", "cut short"]);
    refused("unaligned", one(&[4], F32, 4), &["t:", "alignment"]);
    refused("too large", one(&[65], F32, 0), &["t:", "cut short"]);
    refused("half a block", one(&[31], Q4_0, 0), &["t:", "whole Q4_0 blocks of 32"]);
    let two =
        |a: &str, b: &str, offset| Raw::new(2, 0).tensor(a, &[16], F32, 0).tensor(b, &[16], F32, offset).data(256);
    refused("twice", two("t", "t", 64), &["t:", "twice"]);
    refused("the same bytes", two("t", "u", 0), &["overlaps"]);
    refused("some of the same bytes", two("t", "u", 32), &["u:", "overlaps the tensor t"]);
    refused("long name", two(&"n".repeat(64), "u", 64), &["name of tensor 0", "64"]);
    refused("no name", two("", "u", 64), &["name of tensor 0", "empty"]);
    assert!(File::from_bytes(two("t", "u", 64)).is_ok());
    assert!(File::from_bytes(two(&"n".repeat(63), "u", 192)).is_ok(), "gaps do no harm");
}

#[test]
fn a_tensor_of_a_type_that_is_not_read_is_named_with_its_type() {
    for (id, name) in [(16, "IQ2_XXS"), (23, "IQ4_XS"), (34, "TQ1_0"), (39, "MXFP4"), (4, "type 4"), (99, "type 99")] {
        let mut bytes = Edit::lm().bytes();
        let tensor = b"blk.1.ffn_up.weight";
        let at = bytes.windows(tensor.len()).position(|w| w == tensor).unwrap() + tensor.len() + 4 + 16;
        bytes[at..at + 4].copy_from_slice(&u32::to_le_bytes(id));
        let Err(error) = Model::from_bytes(bytes, None) else { panic!("{name}") };
        let text = error.to_string();
        assert!(matches!(error, Error::Unsupported { .. }), "{text}");
        assert!(text.contains("blk.1.ffn_up.weight") && text.contains(name) && text.contains("Q4_K"), "{text}");
    }
}

#[test]
fn only_alignments_that_are_powers_of_two_are_accepted() {
    for value in [
        Value::U32(0),
        Value::U32(3),
        Value::U32(48),
        Value::U32(1 << 21),
        Value::U32(u32::MAX),
        Value::U64(1 << 63),
        Value::I32(-32),
        Value::String("32".into()),
        Value::F32(32.0),
    ] {
        let edit = Edit::lm().set("general.alignment", value);
        refused("alignment", edit.bytes(), &["general.alignment", "power of two"]);
    }
}

#[test]
fn tensors_lie_where_another_alignment_puts_them() {
    // (alignment, second tensor's offset)
    for (alignment, offset) in [(8u32, 8u64), (64, 64), (4096, 4096)] {
        let raw = Raw::new(2, 1).key("general.alignment", 4).u32(alignment);
        let mut bytes = raw.tensor("a", &[2], F32, 0).tensor("b", &[1], F32, offset).0;
        bytes.resize(bytes.len().next_multiple_of(alignment as usize), 0xee);
        let data = bytes.len();
        bytes.resize(data + offset as usize + 4, 0);
        bytes[data..data + 4].copy_from_slice(&1f32.to_le_bytes());
        bytes[data + offset as usize..].copy_from_slice(&2f32.to_le_bytes());
        let file = File::from_bytes(bytes).unwrap();
        let first = |name: &str| file.tensor(name).unwrap().data().unwrap().as_slice()[..4].to_vec();
        assert_eq!((first("a"), first("b")), (1f32.to_le_bytes().to_vec(), 2f32.to_le_bytes().to_vec()), "{alignment}");
    }
}

#[test]
fn paths_that_hold_no_model_say_why() {
    let folder = Folder::new("paths");
    let (lm, mmproj) = (golden_bytes("llava/lm.gguf"), golden_bytes("llava/mmproj.gguf"));
    let said = |path: &std::path::Path, parts: &[&str]| {
        let Err(error) = survives("path", || Model::open(path)) else { panic!("{}", path.display()) };
        let text = error.to_string();
        assert!(parts.iter().all(|p| text.contains(p)), "{text}");
    };
    said(&folder.0, &["no language model"]);
    said(&folder.file("empty.gguf", b""), &["empty.gguf", "is empty"]);
    said(&folder.file("notes.txt", b"Dear reader"), &["notes.txt", "not a GGUF file"]);
    said(&folder.0.join("absent.gguf"), &["absent.gguf"]);
    std::fs::remove_file(folder.0.join("empty.gguf")).unwrap();
    said(&folder.file("vision.gguf", &mmproj), &["vision.gguf", "this is an mmproj"]);
    said(&folder.0, &["no language model"]);
    folder.file("a.gguf", &lm);
    assert!(Model::open(&folder.0).unwrap().vision_config().is_some());
    folder.file("b.gguf", &lm);
    said(&folder.0, &["more than one language model", "a.gguf", "b.gguf"]);
    let Err(error) = Model::builder(folder.0.join("a.gguf")).mmproj(folder.0.join("b.gguf")).load() else { panic!() };
    assert!(error.to_string().contains("b.gguf: general.architecture") && error.to_string().contains("not an mmproj"));
}

#[cfg(unix)]
#[test]
fn devices_and_pipes_are_refused_without_waiting_for_them() {
    let folder = Folder::new("pipes");
    let pipe = folder.0.join("pipe.gguf");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    for path in [std::path::Path::new("/dev/zero"), &pipe, &folder.0] {
        let error = survives("device", || File::open(path)).unwrap_err().to_string();
        assert!(error.contains("not a regular file"), "{error}");
    }
}
