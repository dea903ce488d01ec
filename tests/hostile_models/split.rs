//! Models split over several files.

use super::support::{Edit, Folder, Tensor, survives};
use llava::gguf::{File, Value, Writer};
use llava::{Input, Model};
use std::path::PathBuf;

/// The parts as `gguf-split` makes them: metadata in the first, tensors in turn.
fn parts(count: usize) -> Vec<Vec<u8>> {
    let whole = Edit::lm();
    let each = whole.tensors().len().div_ceil(count);
    let part = |(no, tensors): (usize, &[Tensor])| {
        let mut w = Writer::new();
        if no == 0 {
            whole.metadata().iter().for_each(|(key, value)| {
                w.set(key.as_str(), value.clone());
            });
        }
        w.set("split.no", Value::U16(no as u16)).set("split.count", Value::U16(count as u16));
        w.set("split.tensors.count", Value::I32(whole.tensors().len() as i32));
        for (name, dims, block_type, data) in tensors {
            w.tensor(name.as_str(), dims, *block_type, data.as_slice()).unwrap();
        }
        w.to_bytes()
    };
    whole.tensors().chunks(each).enumerate().map(part).collect()
}

fn save(folder: &Folder, parts: &[Vec<u8>], count: usize) -> PathBuf {
    let name = |i: usize| format!("m-{:05}-of-{count:05}.gguf", i + 1);
    parts.iter().enumerate().for_each(|(i, bytes)| drop(folder.file(&name(i), bytes)));
    folder.0.join(name(0))
}

fn error(path: PathBuf) -> String {
    match survives("split", || Model::open(&path)) {
        Ok(_) => panic!("{} loads", path.display()),
        Err(e) => e.to_string(),
    }
}

#[test]
fn a_model_in_parts_computes_the_logits_of_the_whole() {
    let input = [1, 70, 104, 266, 37].map(Input::Token);
    let expected = Model::from_bytes(Edit::lm().bytes(), None).unwrap().logits(&input, 1).unwrap();
    for count in [2, 3] {
        let folder = Folder::new(&format!("split-{count}"));
        let path = save(&folder, &parts(count), count);
        assert_eq!(Model::open(&path).unwrap().logits(&input, 1).unwrap(), expected, "{count} parts");
        // The folder holds one model, not several.
        assert_eq!(Model::open(&folder.0).unwrap().logits(&input, 1).unwrap(), expected, "{count} parts");
        assert_eq!(File::from_parts(parts(count)).unwrap().tensors().len(), Edit::lm().tensors().len());
    }
}

#[test]
fn parts_that_are_missing_or_of_another_model_are_named() {
    let folder = Folder::new("split-wrong");
    let three = parts(3);
    let path = save(&folder, &three, 3);
    let second = folder.0.join("m-00002-of-00003.gguf");

    std::fs::remove_file(&second).unwrap();
    assert!(error(path.clone()).contains("m-00002-of-00003.gguf"));

    std::fs::write(&second, &three[2]).unwrap();
    assert!(error(path.clone()).contains("is part 2, expected part 1"));

    std::fs::write(&second, Edit::mmproj().bytes()).unwrap();
    assert!(error(path.clone()).contains("split.tensors.count"));

    std::fs::write(&second, &three[1]).unwrap();
    assert!(error(second).contains("NAME-00001-of-00003.gguf"), "the first part is the one to name");
    let renamed = folder.file("model.gguf", &three[0]);
    assert!(error(renamed).contains("is not named NAME-00001-of-00003.gguf"));
}

#[test]
fn parts_in_memory_are_counted_ordered_and_distinct() {
    let three = parts(3);
    let said = |parts: Vec<Vec<u8>>, expected: &str| {
        let text = survives("parts", || File::from_parts(parts)).unwrap_err().to_string();
        assert!(text.contains(expected), "{text}");
    };
    said(vec![], "no bytes");
    said(three[..2].to_vec(), "the model has 3 parts, 2 were given");
    said(three[..1].to_vec(), "the model has 3 parts, 1 were given");
    said(vec![three[0].clone(), three[2].clone(), three[1].clone()], "is part 2, expected part 1");
    said(vec![three[1].clone(), three[0].clone(), three[2].clone()], "expected part");
    let unnumbered = Edit::lm().u32("split.count", 2).bytes();
    said(vec![unnumbered.clone(), unnumbered], "stands in two parts");
}

#[test]
fn a_number_of_parts_that_no_model_has_is_refused() {
    let folder = Folder::new("split-many");
    let bytes = Edit::lm().u32("split.count", u32::MAX).bytes();
    let path = folder.file("m-00001-of-4294967295.gguf", &bytes);
    assert!(error(path).contains("4294967295 parts"));
}
