//! A conversation about an image: reads questions from standard input, and writes the answers as they come.
//!
//! cargo run --release --example chat -- MODEL IMAGE

use llava::{Image, Model, Progress};
use std::error::Error;
use std::io::{BufRead, Write};
use std::ops::ControlFlow;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [model, image] = &arguments[..] else { return Err("usage: chat MODEL IMAGE".into()) };
    let model = Model::open(model)?;
    let image = Image::open(image)?;

    let mut session = model.session();
    session.control().on_progress(|Progress { stage, done, total }| {
        let end = if done == total { "\r" } else { "" };
        eprint!("\r{stage:?} {done}/{total}    {end}");
        ControlFlow::Continue(())
    });
    // The image belongs to the first question; it stays in the conversation.
    let mut images = vec![&image];
    prompt()?;
    for question in std::io::stdin().lock().lines() {
        let question = question?;
        if !question.is_empty() {
            for piece in session.stream(&question, &images)? {
                print!("{}", piece?);
                std::io::stdout().flush()?;
            }
            images.clear();
            println!();
        }
        prompt()?;
    }
    println!();
    Ok(())
}

fn prompt() -> std::io::Result<()> {
    print!("> ");
    std::io::stdout().flush()
}
