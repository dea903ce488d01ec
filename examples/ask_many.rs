//! Many questions about each of some images: an image is encoded and read once, the questions are answered together.
//!
//! cargo run --release --example ask_many -- MODEL QUESTION... -- IMAGE...

use llava::{Batch, Generation, Image, Model};
use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (model, questions, images) = match arguments.split(|a| a == "--").collect::<Vec<_>>()[..] {
        [[model, questions @ ..], images] if !questions.is_empty() => (model, questions, images),
        _ => return Err("usage: ask_many MODEL QUESTION... -- IMAGE...".into()),
    };
    let model = Model::open(model)?;
    for path in images {
        let mut base = model.session();
        base.set_generation(Generation { max_tokens: 64, ..Generation::default() })?;
        base.prefill(&[&Image::open(path)?])?;
        let mut batch = Batch::new(&model);
        for question in questions {
            batch.push(base.fork(), question, &[])?;
        }
        for (question, (_, answer)) in questions.iter().zip(batch.run()) {
            println!("{path}\t{question}\t{}", answer?.text.trim());
        }
    }
    Ok(())
}
