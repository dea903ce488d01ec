//! Conversations: history, KV cache, generation.

mod answer;
mod batch;
mod stream;
mod turn;

pub use answer::{Answer, FinishReason, Score, Timings, TokenInfo};
pub use batch::Batch;
pub use stream::Stream;

use crate::cpu::{Control, Segment, Stage};
use crate::decoder::Row;
use crate::decoder::kv::KvCache;
use crate::error::{Error, Result};
use crate::image::Image;
use crate::model::{Input, Model};
use crate::prompt::{self, Message, Role, Template};
use crate::sample::{Generation, log_sum_exp};
use crate::tokenizer::Special;
use crate::vision::Embedding;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Instant;
use turn::Turn;

/// One conversation with a model: its history, its KV cache, and how answers are generated.
///
/// Every call renders the whole conversation through the chat template, and computes only what the cache does not
/// hold yet. A call that fails leaves the conversation as it was.
///
/// ```
/// # std::env::set_current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/transformers")).unwrap();
/// # let model = llava::Model::open("llava")?;
/// let mut session = model.session();
/// let cat = llava::Image::open("images/wide.png")?;
/// println!("{}", session.ask("What is on the mat?", &[&cat])?.text);
/// println!("{}", session.ask("What colour is it?", &[])?.text);
///
/// // Encode and prefill an image once, ask many independent questions.
/// let mut base = model.session();
/// base.prefill(&[&cat])?;
/// for question in ["Is it asleep?", "Is it indoors?"] {
///     println!("{}", base.fork().ask(question, &[])?.text);
/// }
/// # Ok::<(), llava::Error>(())
/// ```
pub struct Session {
    model: Model,
    generation: Generation,
    template: Option<Arc<Template>>,
    messages: Vec<Message>,
    /// Of every image part in `messages`, in order.
    images: Vec<Embedding>,
    /// For the next question.
    attached: Vec<Embedding>,
    cache: KvCache,
    /// What `cache` holds.
    cached: Vec<Input>,
    /// `[n_vocab]`, after the last position of the cache.
    logits: Vec<f32>,
    control: Control,
}

/// The conversation before a turn, for when the turn fails.
#[derive(Default)]
struct Before {
    messages: usize,
    images: usize,
    attached: Vec<Embedding>,
}

/// What the prompt of a turn took.
#[derive(Clone, Copy, Debug, Default)]
struct Prompt {
    tokens: usize,
    image_tokens: usize,
    timings: Timings,
}

impl Prompt {
    fn of(input: &[Input], timings: Timings) -> Self {
        let tokens = input.iter().map(Input::positions).sum();
        Self { tokens, image_tokens: input.iter().map(Input::image_tokens).sum(), timings }
    }
}

impl Session {
    pub(crate) fn new(model: Model) -> Self {
        Self {
            generation: Generation::default(),
            template: None,
            messages: Vec::new(),
            images: Vec::new(),
            attached: Vec::new(),
            cache: KvCache::new(model.kv_shape()),
            cached: Vec::new(),
            logits: Vec::new(),
            control: Control::default(),
            model,
        }
    }

    /// How answers are generated from now on.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if a value is out of range.
    pub fn set_generation(&mut self, generation: Generation) -> Result<()> {
        generation.validate()?;
        self.generation = generation;
        Ok(())
    }

    /// How answers are generated.
    pub fn generation(&self) -> &Generation {
        &self.generation
    }

    /// The instruction in front of the conversation, instead of the template's own.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] once the conversation has begun.
    pub fn set_system(&mut self, text: impl Into<String>) -> Result<()> {
        if self.messages.iter().any(|m| m.role != Role::System) {
            return Err(Error::argument("system", "the conversation has begun; reset the session first"));
        }
        self.messages = vec![Message::text(Role::System, text)];
        Ok(())
    }

    /// A template for this conversation, instead of the model's.
    pub fn set_template(&mut self, template: Template) {
        self.template = Some(Arc::new(template));
    }

    /// The model.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// The messages so far.
    pub fn messages(&self) -> &[Message] {
        &self.messages
    }

    /// Positions that the KV cache holds.
    pub fn position(&self) -> usize {
        self.cache.len()
    }

    /// A handle that cancels what this session is doing, from any thread, and says how far it is.
    pub fn control(&self) -> Control {
        self.control.clone()
    }

    /// Forgets the conversation.
    pub fn reset(&mut self) {
        self.messages.clear();
        self.images.clear();
        self.attached.clear();
        self.cached.clear();
        self.cache.truncate(0);
    }

    /// A second session with the same past. Memory of the past is shared; what follows is each one's own.
    pub fn fork(&self) -> Self {
        Self {
            model: self.model.clone(),
            generation: self.generation.clone(),
            template: self.template.clone(),
            messages: self.messages.clone(),
            images: self.images.clone(),
            attached: self.attached.clone(),
            cache: self.cache.clone(),
            cached: self.cached.clone(),
            logits: self.logits.clone(),
            control: Control::default(),
        }
    }

    /// Adds an encoded image to the next question.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if its tokens are not as wide as the language model.
    pub fn attach(&mut self, embedding: Embedding) -> Result<()> {
        let (width, expected) = (embedding.width(), self.model.decoder_config().d_model);
        if width != expected {
            let reason = format!("has tokens {width} wide, and the language model is {expected} wide");
            return Err(Error::argument("embedding", reason));
        }
        self.attached.push(embedding);
        Ok(())
    }

    /// Takes back the images [attached](Session::attach) to the next question.
    pub fn detach(&mut self) {
        self.attached.clear();
    }

    /// Encodes images, adds them to the next question, and runs the prompt up to their last token, so that
    /// [forks](Session::fork) start from there.
    ///
    /// # Errors
    /// Those of [`Session::ask`].
    pub fn prefill(&mut self, images: &[&Image]) -> Result<()> {
        self.control.arm();
        let encoded = self.encode(images, &mut Timings::default())?;
        let attached = self.attached.len();
        self.attached.extend(encoded);
        let result = self.render("").and_then(|mut input| {
            let end = input.iter().rposition(|i| matches!(i, Input::Image(_))).map_or(0, |i| i + 1);
            input.truncate(end);
            self.run(&input)
        });
        if result.is_err() {
            self.attached.truncate(attached);
        }
        result
    }

    /// Asks about images (and those [attached](Session::attach)), and returns the whole answer.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for an empty question, [`Error::ModelNotFound`] if there are images and no vision
    /// tower, [`Error::Template`], [`Error::ContextFull`], [`Error::OutOfMemory`], and [`Error::Cancelled`] if it was
    /// cancelled before the answer began. Cancelled later, the answer ends with [`FinishReason::Cancelled`].
    pub fn ask(&mut self, text: &str, images: &[&Image]) -> Result<Answer> {
        self.stream(text, images)?.finish()
    }

    /// [`Session::ask`] that hands out the answer's text piece by piece, never half a character. `Break` ends the
    /// answer as if cancelled.
    ///
    /// # Errors
    /// Those of [`Session::ask`].
    pub fn ask_with(
        &mut self,
        text: &str,
        images: &[&Image],
        on_text: impl FnMut(&str) -> ControlFlow<()>,
    ) -> Result<Answer> {
        self.stream(text, images)?.finish_with(on_text)
    }

    /// Asks, and returns an iterator over the answer's text as it is generated.
    ///
    /// # Errors
    /// Those of [`Session::ask`]; the iterator's items have the errors of generation.
    pub fn stream(&mut self, text: &str, images: &[&Image]) -> Result<Stream<'_>> {
        self.control.arm();
        let turn = self.begin(text, images)?;
        Ok(Stream::new(self, turn))
    }

    /// The log-likelihood of each choice as the answer to a question, most useful for multiple choice. The
    /// conversation is left as it was.
    ///
    /// # Errors
    /// Those of [`Session::ask`]; [`Error::InvalidArgument`] for a choice without tokens.
    pub fn score(&mut self, text: &str, images: &[&Image], choices: &[&str]) -> Result<Vec<Score>> {
        self.control.arm();
        let attached = self.attached.clone();
        let result = self.question(text, images, &mut Timings::default()).and_then(|input| {
            self.run(&input)?;
            choices.iter().map(|choice| self.score_choice(choice)).collect()
        });
        self.attached = attached;
        result
    }

    fn score_choice(&mut self, choice: &str) -> Result<Score> {
        let ids = self.model.tokenizer().encode(choice, Special::Plain, false);
        let (Some(&first), Some(before)) = (ids.first(), ids.len().checked_sub(1)) else {
            return Err(Error::argument("choices", format!("{choice:?} has no tokens")));
        };
        let len = self.cache.len();
        self.model.check_context(len + before, 0)?;
        // Rows beyond the vocabulary are padding of the matrix and never tokens.
        let n = self.model.tokenizer().vocab_size();
        let logprob = |logits: &[f32], id: u32| logits[id as usize] - log_sum_exp(&logits[..n]);
        let mut sum = logprob(&self.logits, first);
        let mut logits = Vec::new();
        let decoder = self.model.decoder();
        let result = ids.windows(2).try_for_each(|pair| {
            let mut segments = [Segment { cache: &mut self.cache, rows: 1 }];
            let mut pass = self.model.cpu().enter(&self.control);
            decoder.forward(&mut pass, &mut segments, &[Row::Token(pair[0])], &[0], &mut logits)?;
            sum += logprob(&logits, pair[1]);
            Ok(())
        });
        self.cache.truncate(len);
        result.map(|()| Score { logprob: sum, tokens: ids.len() })
    }

    /// Continues `input` in an empty session, without the template and its stop texts.
    pub(crate) fn complete(
        mut self,
        input: &[Input],
        control: &Control,
        on_text: impl FnMut(&str) -> ControlFlow<()>,
    ) -> Result<Answer> {
        self.control = control.clone();
        let start = Instant::now();
        if input.is_empty() {
            return Err(Error::argument("input", "is empty"));
        }
        let prompt = Prompt::of(input, Timings::default());
        self.model.check_context(prompt.tokens, prompt.image_tokens)?;
        self.run(input)?;
        let turn = Turn::new(&self, prompt, Before::default(), &[], start);
        Stream::new(&mut self, turn).finish_with(on_text)
    }

    /// Everything before the first token: encodes the images, extends the history, runs the prompt.
    fn begin(&mut self, text: &str, images: &[&Image]) -> Result<Turn> {
        let start = Instant::now();
        let mut timings = Timings::default();
        let attached = self.attached.clone();
        let result = self.question(text, images, &mut timings).and_then(|input| {
            let prefill = Instant::now();
            self.run(&input)?;
            timings.prefill = prefill.elapsed();
            Ok(Prompt::of(&input, timings))
        });
        match result {
            Ok(prompt) => {
                let before = Before { messages: self.messages.len(), images: self.images.len(), attached };
                self.messages.push(Message::user(self.attached.len(), text));
                self.images.append(&mut self.attached);
                Ok(Turn::new(self, prompt, before, self.template().stop_strings(), start))
            }
            Err(e) => {
                self.attached = attached;
                Err(e)
            }
        }
    }

    /// Encodes the images into `attached`, and renders the conversation with the question.
    fn question(&mut self, text: &str, images: &[&Image], timings: &mut Timings) -> Result<Vec<Input>> {
        if text.trim().is_empty() {
            return Err(Error::argument("prompt", "is empty; ask something"));
        }
        let encoded = self.encode(images, timings)?;
        self.attached.extend(encoded);
        self.render(text)
    }

    fn encode(&self, images: &[&Image], timings: &mut Timings) -> Result<Vec<Embedding>> {
        if images.is_empty() {
            return Ok(Vec::new());
        }
        let (cpu, control, vision) = (self.model.cpu(), &self.control, self.model.vision()?);
        let _stage = control.begin(Stage::Encode, images.len() * vision.steps())?;
        let mut encoded = Vec::with_capacity(images.len());
        for image in images {
            let start = Instant::now();
            let tiles = vision.preprocess(image)?;
            timings.preprocess += start.elapsed();
            let start = Instant::now();
            let features = vision.features(cpu, control, &tiles)?;
            encoded.push(vision.project(cpu, control, features, &tiles)?);
            timings.encode += start.elapsed();
        }
        Ok(encoded)
    }

    /// The conversation followed by a question with the attached images, as the language model's input.
    fn render(&self, text: &str) -> Result<Vec<Input>> {
        let mut messages = self.messages.clone();
        messages.push(Message::user(self.attached.len(), text));
        let pieces = self.template().render(&messages, true)?;
        let images: Vec<_> = self.images.iter().chain(&self.attached).collect();
        let spliced = prompt::splice(&pieces, self.model.tokenizer());
        let input: Vec<_> = spliced
            .into_iter()
            .map(|slot| match slot {
                prompt::Slot::Token(id) => Input::Token(id),
                prompt::Slot::Image(i) => Input::Image(images[i].clone()),
            })
            .collect();
        self.model
            .check_context(input.iter().map(Input::positions).sum(), input.iter().map(Input::image_tokens).sum())?;
        Ok(input)
    }

    /// The template in use.
    pub fn template(&self) -> &Template {
        self.template.as_deref().unwrap_or(self.model.template().0)
    }

    /// Makes the cache hold exactly `input`, computing what it lacks, and `logits` those after it.
    fn run(&mut self, input: &[Input]) -> Result<()> {
        let mut shared = input.iter().zip(&self.cached).take_while(|(a, b)| a.same(b)).count();
        // The logits after the last position are needed, so at least that one is computed again.
        shared = shared.min(input.len().saturating_sub(1));
        self.cached.truncate(shared);
        self.cache.truncate(self.cached.iter().map(Input::positions).sum());
        let len = self.cache.len();
        match self.model.prefill(&mut self.cache, &input[shared..], 1, &self.control, &mut self.logits) {
            Ok(()) => {
                self.cached.extend_from_slice(&input[shared..]);
                Ok(())
            }
            Err(e) => {
                // A long prompt takes several passes; those before the one that failed are dropped too.
                self.cache.truncate(len);
                Err(e)
            }
        }
    }

    /// Runs one generated token.
    fn advance(&mut self, token: u32) -> Result<()> {
        let mut segments = [Segment { cache: &mut self.cache, rows: 1 }];
        let mut pass = self.model.cpu().enter(&self.control);
        let decoder = self.model.decoder();
        decoder.forward(&mut pass, &mut segments, &[Row::Token(token)], &[0], &mut self.logits)?;
        self.cached.push(Input::Token(token));
        Ok(())
    }
}
