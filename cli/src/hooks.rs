//! `llava tokenize`, `encode` and `logits`: the stages of the model one by one, for comparison with other engines.

use crate::args::{EncodeArgs, LogitsArgs, TokenizeArgs};
use crate::failure::Failure;
use crate::output;
use crate::progress::Progress;
use llava::prompt::{Piece, Slot, splice};
use llava::tokenizer::{Special, Tokenizer};
use llava::{Control, Embedding, Image, Input, Model, gguf, npy};

/// What stands for an image in a prompt's text, and in its ids (`constants.py` of the original).
const IMAGE_TEXT: &str = "<image>";
const IMAGE_ID: i64 = -200;

/// Prints a text's token ids.
///
/// # Errors
/// Those of reading the model, and of standard output.
pub fn tokenize(args: &TokenizeArgs) -> Result<(), Failure> {
    let ids = match &args.model.model {
        // Not as a model: vocabularies for tests have no weights.
        Some(path) if path.is_file() => ids(&Tokenizer::from_gguf(&gguf::File::open(path)?)?, args),
        _ => ids(args.model.load(None)?.tokenizer(), args),
    };
    Ok(output::json(&ids)?)
}

fn ids(tokenizer: &Tokenizer, args: &TokenizeArgs) -> Vec<u32> {
    let special = if args.special { Special::Parse } else { Special::Plain };
    tokenizer.encode(&args.text, special, args.special && tokenizer.adds_bos())
}

/// Writes an image's embedding or features.
///
/// # Errors
/// Those of reading the model and the image, of encoding, and of writing.
pub fn encode(args: &EncodeArgs) -> Result<(), Failure> {
    let model = args.model.load(None)?;
    let image = Image::open(&args.image)?;
    let (progress, control) = (Progress::start(format!("encoding {}", args.image.display())), Control::default());
    progress.follow(&control);
    if args.features {
        let (values, shape) = model.features(&image)?;
        npy::save(&args.output, &values, &shape)?;
    } else {
        model.encode_with(&image, &control)?.save(&args.output)?;
    }
    Ok(())
}

/// Writes the logits after a prompt.
///
/// # Errors
/// [`Failure::Usage`] if prompt and images do not go together; those of reading, of computing, and of writing.
pub fn logits(args: &LogitsArgs) -> Result<(), Failure> {
    let places = match (&args.prompt, &args.ids) {
        (Some(text), _) => text.matches(IMAGE_TEXT).count(),
        (None, ids) => ids.iter().flatten().filter(|&&id| id == IMAGE_ID).count(),
    };
    if places != args.images.len() {
        let (places, images) = (count(places, "place"), count(args.images.len(), "--image"));
        let sign = if args.prompt.is_some() { IMAGE_TEXT } else { "-200" };
        return Err(Failure::Usage(format!("{places} for an image ({sign}) in the prompt, and {images}")));
    }
    let ids = args.ids.iter().flatten().map(|&id| slot_of(id)).collect::<Result<Vec<_>, _>>()?;
    let model = args.model.load(None)?;
    let slots = match &args.prompt {
        Some(text) => splice(&pieces(text), model.tokenizer()),
        None => ids,
    };
    let images = args.images.iter().map(|path| embed(&model, path)).collect::<Result<Vec<_>, _>>()?;
    let mut images = images.into_iter();
    // As many images as places, in their order.
    let input = slots.into_iter().filter_map(|slot| match slot {
        Slot::Token(id) => Some(Input::Token(id)),
        Slot::Image(_) => images.next().map(Input::Image),
    });
    let input: Vec<_> = input.collect();
    let _progress = Progress::start("running the prompt");
    let logits = model.logits(&input, 1)?;
    Ok(npy::save(&args.output, &logits, &[logits.len()])?)
}

fn embed(model: &Model, path: &std::path::Path) -> Result<Embedding, Failure> {
    let (progress, control) = (Progress::start(format!("encoding {}", path.display())), Control::default());
    progress.follow(&control);
    Ok(model.encode_with(&Image::open(path)?, &control)?)
}

fn slot_of(id: i64) -> Result<Slot, Failure> {
    match u32::try_from(id) {
        Ok(id) => Ok(Slot::Token(id)),
        // Which image follows from the order.
        Err(_) if id == IMAGE_ID => Ok(Slot::Image(0)),
        Err(_) => Err(Failure::Usage(format!("{id} is no token id; {IMAGE_ID} stands for an image"))),
    }
}

fn pieces(prompt: &str) -> Vec<Piece> {
    let mut pieces = Vec::new();
    for (i, text) in prompt.split(IMAGE_TEXT).enumerate() {
        if i > 0 {
            pieces.push(Piece::Image);
        }
        if !text.is_empty() {
            pieces.push(Piece::Text(text.to_owned()));
        }
    }
    pieces
}

fn count(n: usize, thing: &str) -> String {
    format!("{n} {thing}{}", if n == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn image_tags_cut_a_prompt() {
        let text = |t: &str| Piece::Text(t.to_owned());
        assert_eq!(pieces("a <image>\nb"), [text("a "), Piece::Image, text("\nb")]);
        assert_eq!(pieces("<image><image>"), [Piece::Image, Piece::Image]);
        assert_eq!(pieces(""), []);
    }

    #[test]
    fn ids_are_tokens_or_the_image() {
        assert_eq!(slot_of(7).unwrap(), Slot::Token(7));
        assert_eq!(slot_of(-200).unwrap(), Slot::Image(0));
        assert!(slot_of(-1).is_err() && slot_of(1 << 32).is_err());
    }
}
