//! Collects an importance matrix: runs a model and sums what its matrices are multiplied with.

use super::ImportanceMatrix;
use super::text;
use llava::{Control, Error, Generation, Image, Model, ModelBuilder};
use std::mem;
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A model that is watched while it reads texts and answers questions about images.
///
/// ```no_run
/// use llava::{Control, Model};
/// use llava_convert::quantize::Collector;
///
/// let control = Control::default();
/// let mut collector = Collector::new(Model::builder("llava-f16.gguf"), "articles.txt", Collector::CHUNK, &control)?;
/// collector.text(&std::fs::read_to_string("articles.txt").unwrap(), usize::MAX, &control, |_, _| {})?;
/// collector.finish()?.save("llava.imatrix.gguf")?;
/// # Ok::<(), llava::Error>(())
/// ```
pub struct Collector {
    model: Model,
    chunk: usize,
    matrix: Arc<Mutex<ImportanceMatrix>>,
}

impl Collector {
    /// Positions of a chunk of text that llama.cpp takes.
    pub const CHUNK: usize = text::CHUNK;

    /// Loads the model. `dataset` names in the file what it was made of; texts are read `chunk` positions at a time.
    ///
    /// # Errors
    /// Those of [`ModelBuilder::load_with`].
    pub fn new(
        model: ModelBuilder,
        dataset: impl Into<String>,
        chunk: usize,
        control: &Control,
    ) -> Result<Self, Error> {
        let matrix = Arc::new(Mutex::new(ImportanceMatrix::new(dataset, chunk)));
        let sums = matrix.clone();
        let model = model.observe(move |name, rows, width| {
            // As in llama.cpp: the two that meet tokens are better quantised without.
            if !matches!(name, "output.weight" | "token_embd.weight") {
                lock(&sums).add(name, rows, width);
            }
        });
        Ok(Self { model: model.load_with(control)?, chunk, matrix })
    }

    /// The model.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// Reads a text: at most `chunks` of it. `on_chunk` is called before each with how many are done and how many there are.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for a text that is too short; [`Error::Cancelled`].
    pub fn text(
        &mut self,
        text: &str,
        chunks: usize,
        control: &Control,
        mut on_chunk: impl FnMut(usize, usize),
    ) -> Result<(), Error> {
        let all = text::chunks(&self.model, text, self.chunk)?;
        let total = all.len().min(chunks);
        for (i, chunk) in all.iter().take(total).enumerate() {
            on_chunk(i, total);
            if control.is_cancelled() {
                return Err(Error::Cancelled);
            }
            self.model.logits_with(&text::input(chunk), 1, control)?;
            lock(&self.matrix).end_chunk();
        }
        Ok(())
    }

    /// Asks about an image, and reads the model's own answer with it.
    ///
    /// # Errors
    /// Those of [`llava::Session::ask`].
    pub fn ask(
        &mut self,
        question: &str,
        image: &Image,
        generation: &Generation,
        control: &Control,
    ) -> Result<(), Error> {
        let mut session = self.model.session();
        session.set_generation(generation.clone())?;
        let outer = control.clone();
        let go_on = move || if outer.is_cancelled() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) };
        let prompt = go_on.clone();
        session.control().on_progress(move |_| prompt());
        session.ask_with(question, &[image], |_| go_on())?;
        if control.is_cancelled() {
            return Err(Error::Cancelled);
        }
        lock(&self.matrix).end_chunk();
        Ok(())
    }

    /// The matrix.
    ///
    /// # Errors
    /// [`Error::InvalidModel`] if the model computed something that is no finite number.
    pub fn finish(self) -> Result<ImportanceMatrix, Error> {
        let matrix = mem::take(&mut *lock(&self.matrix));
        matrix.validate(self.model.files().0)?;
        Ok(matrix)
    }
}

fn lock(matrix: &Mutex<ImportanceMatrix>) -> MutexGuard<'_, ImportanceMatrix> {
    matrix.lock().unwrap_or_else(PoisonError::into_inner)
}
