use crate::answer::{give, llava_answer};
use crate::arg::{self, Options, flag};
use crate::callback::{UserData, hand_out, llava_progress_callback, llava_text_callback, watch};
use crate::embedding::llava_embedding;
use crate::generation::{generation, llava_generation_options};
use crate::handle::{free, get, handle, put};
use crate::image::llava_image;
use crate::status::{Failure, Result, c_string, guard, llava_status};
use engine::tokenizer::Special;
use engine::{Control, DESCRIBE, Input, KvType, Model, ModelBuilder};
use std::ffi::{CString, c_char, c_void};
use std::mem::MaybeUninit;

/// A loaded LLaVA. Never changes: any number of threads may use it at once, and take turns at its threads. Sessions and
/// batches keep what they need of it, so it may be freed before them.
pub struct llava_model {
    _private: [u8; 0],
}
handle!(llava_model => Loaded);

/// A model and what [`llava_model_info`] points to.
pub struct Loaded {
    pub model: Model,
    name: CString,
    mmproj: Option<CString>,
    template: CString,
    template_reason: CString,
    kernels: CString,
}

impl Loaded {
    fn new(model: Model) -> Self {
        let (name, mmproj) = model.files();
        let (template, reason) = model.template();
        Self {
            name: c_string(name),
            mmproj: mmproj.map(c_string),
            template: c_string(template.name()),
            template_reason: c_string(reason),
            kernels: c_string(model.device().0),
            model,
        }
    }
}

/// How keys and values of past positions are kept.
#[repr(i32)]
pub enum llava_kv_type {
    /// Half precision, or single with `exact`.
    Default = 0,
    /// Half precision.
    F16 = 1,
    /// Single precision.
    F32 = 2,
    /// Blocks of 32 8-bit numbers with a scale.
    Q8_0 = 3,
}

/// How a model is opened. Fields that are 0 or NULL have the default.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct llava_model_options {
    /// sizeof(llava_model_options).
    pub struct_size: usize,
    /// Path of the mmproj; NULL takes the one beside the language model. Not for models from memory.
    pub mmproj: *const c_char,
    /// Threads to compute with; 0 is as many as the process may use, and more are never taken.
    pub threads: usize,
    /// Positions that a conversation may take; 0 is what the model was trained with.
    pub context: usize,
    /// A llava_kv_type.
    pub kv_type: i32,
    /// 1 computes in single precision throughout: slow, for comparison.
    pub exact: i32,
    /// A conversation style by name ("vicuna_v1"); NULL takes the model's own.
    pub template_name: *const c_char,
    /// Kernels by name ("scalar", "avx2", "avx512"); NULL takes the best of this machine.
    pub kernels: *const c_char,
    /// Hears how far the loading is; NULL for nobody.
    pub on_progress: llava_progress_callback,
    /// Handed to `on_progress`.
    pub progress_data: *mut c_void,
}

// SAFETY: numbers, pointers and an optional function, its size first.
unsafe impl Options for llava_model_options {
    const NAME: &'static str = "llava_model_options";
}

/// What a model is. Texts are NUL-terminated and valid until the model is freed.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct llava_model_info {
    /// Bytes of this struct that were written.
    pub struct_size: usize,
    /// The language model's file, "<memory>" for a model from memory.
    pub name: *const c_char,
    /// The mmproj's file; NULL if there is none: the model takes no images.
    pub mmproj: *const c_char,
    /// The conversation style in use.
    pub template_name: *const c_char,
    /// Why it was chosen.
    pub template_reason: *const c_char,
    /// The kernels in use, like "avx512".
    pub kernels: *const c_char,
    /// Threads that compute.
    pub threads: usize,
    /// Positions that a conversation may take.
    pub context: usize,
    /// Positions that the model was trained with.
    pub trained_context: usize,
    /// Number of tokens in the vocabulary.
    pub vocab_size: usize,
    /// Width of the language model, and of image tokens.
    pub d_model: usize,
    /// Layers of the language model.
    pub n_layer: usize,
    /// Bytes that the KV cache takes for `context` positions.
    pub kv_bytes: u64,
    /// Side of the vision tower's input in pixels; 0 without one.
    pub image_size: usize,
    /// Side of a patch in pixels; 0 without a vision tower.
    pub patch_size: usize,
}

// SAFETY: numbers and pointers, its size first.
unsafe impl Options for llava_model_info {
    const NAME: &'static str = "llava_model_info";
}

/// One piece of a prompt that is given as tokens: an image, or if that is NULL a token.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct llava_input {
    /// An encoded image, or NULL.
    pub image: *const llava_embedding,
    /// The token.
    pub token: u32,
}

/// Writes the defaults to `options`, a struct of `size` bytes: pass its sizeof.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llava_model_options_init(options: *mut llava_model_options, size: usize) -> llava_status {
    guard(|| {
        // SAFETY: zero is a value of every field.
        let defaults = unsafe { MaybeUninit::<llava_model_options>::zeroed().assume_init() };
        // SAFETY: the caller's pointers are as the header demands.
        unsafe { arg::write_struct(options, size, &defaults) }
    })
}

/// Opens a model: `path` is the language model's GGUF file (of a split model the first part) with the mmproj beside it, or
/// a folder that holds one pair; NULL takes what the environment variable LLAVA_MODEL names. "hf:OWNER/REPO", with ":FILE" or
/// ":TYPE" (as ":Q4_K_M") after it or not, is a model of the Hugging Face Hub: it is downloaded into the cache of Hugging Face's
/// own tools, unless it is there.
///
/// The files are mapped: they must not be changed or cut short while the model is in use, or the system ends the process.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llava_model_open(
    path: *const c_char,
    options: *const llava_model_options,
    model: *mut *mut llava_model,
) -> llava_status {
    guard(|| {
        // SAFETY: the caller's pointers are as the header demands.
        let (path, o, mmproj, out) = unsafe {
            let o = arg::options(options)?;
            (arg::name("path", path)?, o, arg::name("mmproj", o.mmproj)?, arg::out("model", model)?)
        };
        let mut builder = match path {
            Some(path) => Model::builder(path),
            None => Model::default_builder()?,
        };
        if let Some(path) = mmproj {
            builder = builder.mmproj(path);
        }
        // SAFETY: the caller's pointers are as the header demands.
        out.set(put(unsafe { load(builder, &o) }?));
        Ok(())
    })
}

/// A model from the contents of its files, which are copied; `mmproj` may be NULL for a model that takes no images.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llava_model_open_memory(
    lm: *const c_void,
    lm_size: usize,
    mmproj: *const c_void,
    mmproj_size: usize,
    options: *const llava_model_options,
    model: *mut *mut llava_model,
) -> llava_status {
    guard(|| {
        // SAFETY: the caller's pointers are as the header demands.
        let (lm, mmproj, o, out) = unsafe {
            (
                arg::slice("lm", lm.cast::<u8>(), lm_size)?,
                arg::slice("mmproj", mmproj.cast::<u8>(), mmproj_size)?,
                arg::options(options)?,
                arg::out("model", model)?,
            )
        };
        if !o.mmproj.is_null() {
            return Err(Failure::argument("mmproj", "is a path, and the model comes from memory"));
        }
        let mmproj = (!mmproj.is_empty()).then(|| copy(mmproj)).transpose()?;
        let builder = Model::builder_from_bytes(copy(lm)?, mmproj);
        // SAFETY: the caller's pointers are as the header demands.
        out.set(put(unsafe { load(builder, &o) }?));
        Ok(())
    })
}

fn copy(bytes: &[u8]) -> Result<Vec<u8>> {
    let mut copy = Vec::new();
    copy.try_reserve_exact(bytes.len()).map_err(|e| {
        Failure::new(llava_status::OutOfMemory, format!("a copy of the model needs {} bytes: {e}", bytes.len()))
    })?;
    copy.extend_from_slice(bytes);
    Ok(copy)
}

/// # Safety
/// The names in `o` are NULL or end in NUL.
unsafe fn load(mut builder: ModelBuilder, o: &llava_model_options) -> Result<Loaded> {
    // SAFETY: the caller's promise.
    let (template, kernels) =
        unsafe { (arg::name("template_name", o.template_name)?, arg::name("kernels", o.kernels)?) };
    if o.threads > 0 {
        builder = builder.threads(o.threads);
    }
    if o.context > 0 {
        builder = builder.context(o.context);
    }
    let kv_types = [
        (llava_kv_type::Default as i32, None),
        (llava_kv_type::F16 as i32, Some(KvType::F16)),
        (llava_kv_type::F32 as i32, Some(KvType::F32)),
        (llava_kv_type::Q8_0 as i32, Some(KvType::Q8_0)),
    ];
    if let Some(kind) = arg::choice("kv_type", o.kv_type, &kv_types, "llava_kv_type")? {
        builder = builder.kv_type(kind);
    }
    if let Some(name) = template {
        builder = builder.template(name);
    }
    if let Some(name) = kernels {
        builder = builder.kernels(name);
    }
    let control = Control::default();
    watch(&control, o.on_progress, UserData(o.progress_data));
    Ok(Loaded::new(builder.exact(flag("exact", o.exact)?).load_with(&control)?))
}

/// Ends the handle, and with it what llava_model_get_info() gave. Memory goes when the last session and batch have gone too.
/// NULL and handles that were freed already are ignored.
#[unsafe(no_mangle)]
pub extern "C" fn llava_model_free(model: *mut llava_model) {
    free(model);
}

/// Writes what the model is to `info`, a struct of `size` bytes: pass its sizeof.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llava_model_get_info(
    model: *const llava_model,
    info: *mut llava_model_info,
    size: usize,
) -> llava_status {
    guard(|| {
        let loaded = get(model)?;
        let m = &loaded.model;
        let (decoder, vision) = (m.decoder_config(), m.vision_config());
        let value = llava_model_info {
            struct_size: 0,
            name: loaded.name.as_ptr(),
            mmproj: loaded.mmproj.as_ref().map_or(std::ptr::null(), |name| name.as_ptr()),
            template_name: loaded.template.as_ptr(),
            template_reason: loaded.template_reason.as_ptr(),
            kernels: loaded.kernels.as_ptr(),
            threads: m.device().1,
            context: m.context(),
            trained_context: decoder.context_length,
            vocab_size: m.tokenizer().vocab_size(),
            d_model: decoder.d_model,
            n_layer: decoder.n_layer,
            kv_bytes: m.kv_bytes(m.context()),
            image_size: vision.map_or(0, |v| v.image_size),
            patch_size: vision.map_or(0, |v| v.patch_size),
        };
        // SAFETY: the caller's pointers are as the header demands.
        unsafe { arg::write_struct(info, size, &value) }
    })
}

/// Image tokens that a picture of `width` times `height` pixels takes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llava_model_image_tokens(
    model: *const llava_model,
    width: u32,
    height: u32,
    tokens: *mut usize,
) -> llava_status {
    guard(|| {
        // SAFETY: the caller's pointers are as the header demands.
        let out = unsafe { arg::out("tokens", tokens) }?;
        out.set(get(model)?.model.image_tokens(width, height)?);
        Ok(())
    })
}

/// Describes an image: "Describe the image.", answered greedily. Everything else is in llava_session_ask().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llava_model_describe(
    model: *const llava_model,
    image: *const llava_image,
    answer: *mut *mut llava_answer,
) -> llava_status {
    guard(|| {
        let (model, image) = (get(model)?, get(image)?);
        // SAFETY: the caller's pointers are as the header demands.
        let out = unsafe { arg::out("answer", answer) }?;
        out.set(give(Ok(model.model.session().ask(DESCRIBE, &[&image])?)));
        Ok(())
    })
}

/// Encodes an image once, for use in any number of sessions: the vision tower and the projector. `on_progress`, which may be
/// NULL, hears how far it is and can cancel it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llava_model_encode(
    model: *const llava_model,
    image: *const llava_image,
    on_progress: llava_progress_callback,
    user_data: *mut c_void,
    embedding: *mut *mut llava_embedding,
) -> llava_status {
    guard(|| {
        let (model, image) = (get(model)?, get(image)?);
        // SAFETY: the caller's pointers are as the header demands.
        let out = unsafe { arg::out("embedding", embedding) }?;
        let control = Control::default();
        watch(&control, on_progress, UserData(user_data));
        out.set(put(model.model.encode_with(&image, &control)?));
        Ok(())
    })
}

/// The tokens of a text of `size` bytes. `special` is 1 to let the texts of control tokens ("</s>") stand for those tokens
/// and to begin with the token that begins prompts. Their number is written to `n_ids`; they themselves to `ids` if its
/// `capacity` is enough. NULL and 0 ask for the number alone.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llava_model_tokenize(
    model: *const llava_model,
    text: *const c_char,
    size: usize,
    special: i32,
    ids: *mut u32,
    capacity: usize,
    n_ids: *mut usize,
) -> llava_status {
    guard(|| {
        let model = get(model)?;
        // SAFETY: the caller's pointers are as the header demands.
        let (text, room, out) =
            unsafe { (arg::text("text", text, size)?, arg::room("ids", ids, capacity)?, arg::out("n_ids", n_ids)?) };
        let special = flag("special", special)?;
        let kind = if special { Special::Parse } else { Special::Plain };
        let tokenizer = model.model.tokenizer();
        let tokens = tokenizer.encode(text, kind, special && tokenizer.adds_bos());
        fill(room, &tokens);
        out.set(tokens.len());
        Ok(())
    })
}

/// The text of `n_ids` tokens: control tokens give nothing. Its bytes are written to `size`; the text itself to `text` if
/// its `capacity` is enough, without a NUL. NULL and 0 ask for the size alone.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llava_model_detokenize(
    model: *const llava_model,
    ids: *const u32,
    n_ids: usize,
    text: *mut c_char,
    capacity: usize,
    size: *mut usize,
) -> llava_status {
    guard(|| {
        let model = get(model)?;
        // SAFETY: the caller's pointers are as the header demands.
        let (ids, room, out) = unsafe {
            (arg::slice("ids", ids, n_ids)?, arg::room("text", text.cast::<u8>(), capacity)?, arg::out("size", size)?)
        };
        let decoded = model.model.tokenizer().decode(ids);
        fill(room, decoded.as_bytes());
        out.set(decoded.len());
        Ok(())
    })
}

/// Writes `values` if there is room for all of them.
fn fill<T: Copy>(room: &mut [MaybeUninit<T>], values: &[T]) {
    if room.len() >= values.len() {
        room.iter_mut().zip(values).for_each(|(to, &value)| _ = to.write(value));
    }
}

/// The logits after each of the last `n` positions of a prompt given as tokens and images: `n` rows of `vocab_size` floats.
/// `capacity` is the number of floats at `logits`. `on_progress`, which may be NULL, hears how far it is and can cancel it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llava_model_logits(
    model: *const llava_model,
    inputs: *const llava_input,
    n_inputs: usize,
    n: usize,
    on_progress: llava_progress_callback,
    user_data: *mut c_void,
    logits: *mut f32,
    capacity: usize,
) -> llava_status {
    guard(|| {
        let model = get(model)?;
        // SAFETY: the caller's pointers are as the header demands.
        let (input, room) = unsafe { (self::inputs(inputs, n_inputs)?, arg::room("logits", logits, capacity)?) };
        let vocab_size = model.model.tokenizer().vocab_size();
        if n.checked_mul(vocab_size).is_none_or(|needed| needed > room.len()) {
            let reason = format!("has room for {}, expected {n} rows of {vocab_size}", room.len());
            return Err(Failure::argument("logits", reason));
        }
        let control = Control::default();
        watch(&control, on_progress, UserData(user_data));
        let values = model.model.logits_with(&input, n, &control)?;
        // The matrix may have rows of padding after the vocabulary.
        for (to, row) in room.chunks_exact_mut(vocab_size).zip(values.chunks_exact(values.len() / n)) {
            fill(to, &row[..vocab_size]);
        }
        Ok(())
    })
}

/// Continues a prompt given as tokens and images, without a template. `options` may be NULL. `on_text` receives the answer as
/// it is made, `on_progress` hears how far the prompt is; either may be NULL, and both get `user_data`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llava_model_generate(
    model: *const llava_model,
    inputs: *const llava_input,
    n_inputs: usize,
    options: *const llava_generation_options,
    on_text: llava_text_callback,
    on_progress: llava_progress_callback,
    user_data: *mut c_void,
    answer: *mut *mut llava_answer,
) -> llava_status {
    guard(|| {
        let model = get(model)?;
        // SAFETY: the caller's pointers are as the header demands.
        let (input, options, out) =
            unsafe { (self::inputs(inputs, n_inputs)?, generation(options)?, arg::out("answer", answer)?) };
        let control = Control::default();
        watch(&control, on_progress, UserData(user_data));
        let on_text = |piece: &str| hand_out(piece, on_text, user_data);
        out.set(give(Ok(model.model.generate_with(&input, &options, &control, on_text)?)));
        Ok(())
    })
}

/// # Safety
/// As [`arg::slice`].
unsafe fn inputs(inputs: *const llava_input, n: usize) -> Result<Vec<Input>> {
    // SAFETY: the caller's promise.
    let inputs = unsafe { arg::slice("inputs", inputs, n) }?;
    let input = |i: &llava_input| match i.image.is_null() {
        true => Ok(Input::Token(i.token)),
        false => Ok(Input::Image((*get(i.image)?).clone())),
    };
    inputs.iter().map(input).collect()
}
