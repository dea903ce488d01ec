//! The command line.

use crate::failure::Failure;
use crate::progress::Progress;
use clap::builder::RangedU64ValueParser;
use clap::{Args, Parser, Subcommand, ValueEnum};
use llava::prompt::Template;
use llava::quant::BlockType;
use llava::{Control, Generation, KvType, Model, ModelBuilder};
use llava_convert::quantize::{Collector, Mixture};
use std::path::PathBuf;

/// Answers questions about images with LLaVA models in GGUF files.
#[derive(Parser)]
#[command(name = "llava", version, max_term_width = 100, after_help = EXIT_STATUS)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

const EXIT_STATUS: &str = "Exit status: 0; 1 for an error; 2 for a wrong command line; 130 after Ctrl-C.
RUST_LOG=debug shows what the library does.";

#[derive(Subcommand)]
pub enum Command {
    /// Answer a question about each of some images
    Describe(DescribeArgs),
    /// Talk about images
    Chat(ChatArgs),
    /// Show what is in a model file and what it needs
    Inspect(InspectArgs),
    /// Download a model from the Hugging Face Hub
    Pull(PullArgs),
    /// Make model files of a Hugging Face checkpoint
    Convert(ConvertArgs),
    /// Make a smaller file of a model
    Quantize(QuantizeArgs),
    /// Find out how much each weight counts, for `llava quantize`
    Imatrix(ImatrixArgs),
    /// Measure how fast a model runs on this machine
    Bench(BenchArgs),
    /// Print the token ids of a text as a JSON array
    Tokenize(TokenizeArgs),
    /// Write what the language model sees of an image
    Encode(EncodeArgs),
    /// Write the next token's logits after a prompt
    Logits(LogitsArgs),
}

/// Which model, and how it computes.
#[derive(Args)]
#[command(next_help_heading = "Model")]
pub struct ModelArgs {
    /// Language model: a GGUF file (of a split model the first part), a folder that holds it and its mmproj, or
    /// hf:OWNER/REPO[:FILE or TYPE], a model of the Hugging Face Hub, as `llava pull` takes it.
    /// By default what the environment variable LLAVA_MODEL names
    #[arg(long, short, value_name = "FILE|DIR|hf:…")]
    pub model: Option<PathBuf>,
    /// Vision tower and projector; by default the one file beside the language model that has mmproj in its name
    #[arg(long, value_name = "FILE")]
    pub mmproj: Option<PathBuf>,
    /// Threads to compute with; by default all that the process may use
    #[arg(long, value_name = "N", value_parser = positive())]
    pub threads: Option<usize>,
    /// Positions that a conversation may take; by default what the model was trained with
    #[arg(long, value_name = "N", value_parser = positive())]
    pub ctx: Option<usize>,
    /// How keys and values are kept: f16, f32 or q8_0; by default f16, with --exact f32
    #[arg(long, value_name = "TYPE")]
    pub kv: Option<KvType>,
    /// Compute in f32 throughout, for comparison: slow
    #[arg(long)]
    pub exact: bool,
    /// Kernels to compute with, for comparison: scalar, avx2, avx512, …; by default the best for this machine
    #[arg(long, value_name = "NAME")]
    pub kernels: Option<String>,
}

impl ModelArgs {
    /// Loads the model, with a conversation style by name where there is one.
    ///
    /// # Errors
    /// Those of [`llava::ModelBuilder::load`].
    pub fn load(&self, template: Option<&str>) -> Result<Model, Failure> {
        let mut builder = self.builder()?;
        if let Some(name) = template {
            builder = builder.template(name);
        }
        let (progress, control) = (Progress::start("loading the model"), Control::default());
        progress.follow(&control);
        Ok(builder.load_with(&control)?)
    }

    /// The settings.
    ///
    /// # Errors
    /// That no model was named.
    pub fn builder(&self) -> Result<ModelBuilder, Failure> {
        let mut builder = match &self.model {
            Some(path) => Model::builder(path),
            None => Model::default_builder()?,
        };
        if let Some(path) = &self.mmproj {
            builder = builder.mmproj(path);
        }
        if let Some(n) = self.threads {
            builder = builder.threads(n);
        }
        if let Some(n) = self.ctx {
            builder = builder.context(n);
        }
        if let Some(kind) = self.kv {
            builder = builder.kv_type(kind);
        }
        if let Some(name) = &self.kernels {
            builder = builder.kernels(name);
        }
        Ok(builder.exact(self.exact))
    }
}

/// How answers are made.
#[derive(Args)]
#[command(next_help_heading = "Answers")]
pub struct AnswerArgs {
    /// Conversation style by its name in the original (vicuna_v1, chatml_direct, …); by default the model's own, which
    /// `llava inspect` shows
    #[arg(long, value_name = "NAME", value_parser = style)]
    pub template: Option<String>,
    /// Tokens in an answer at most
    #[arg(long, value_name = "N", default_value_t = Generation::default().max_tokens, value_parser = positive())]
    max_tokens: usize,
    /// Temperature; 0 always takes the most likely token
    #[arg(long, value_name = "F", default_value_t = 0.0, allow_negative_numbers = true)]
    temp: f32,
    /// Draw from the N most likely tokens; 0 for all
    #[arg(long, value_name = "N", default_value_t = 0)]
    top_k: usize,
    /// Draw from the fewest tokens whose probabilities sum to F
    #[arg(long, value_name = "F", default_value_t = 1.0, allow_negative_numbers = true)]
    top_p: f32,
    /// Draw from tokens at least F times as likely as the most likely one
    #[arg(long, value_name = "F", default_value_t = 0.0, allow_negative_numbers = true)]
    min_p: f32,
    /// Divide the logits of tokens that stand in the answer already by F
    #[arg(long, value_name = "F", default_value_t = 1.0, allow_negative_numbers = true)]
    repeat_penalty: f32,
    /// Seed of the draws; by default a different one each time
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
}

impl AnswerArgs {
    /// The library's settings.
    ///
    /// # Errors
    /// [`Failure::Usage`] if one is out of range.
    pub fn generation(&self) -> Result<Generation, Failure> {
        let generation = Generation {
            max_tokens: self.max_tokens,
            temperature: self.temp,
            top_k: self.top_k,
            top_p: self.top_p,
            min_p: self.min_p,
            repeat_penalty: self.repeat_penalty,
            seed: self.seed,
            ..Generation::default()
        };
        generation.validate()?;
        Ok(generation)
    }
}

/// Answer a question about each of some images
///
/// An image that can't be read is reported, and the others go on.
#[derive(Args)]
#[command(after_long_help = "Examples:
  llava describe --model llava-v1.5-7b.gguf cat.jpg
  llava describe --model models/llava/ --prompt 'How many people are there?' *.jpg
  llava describe --json *.jpg | jq -r .text")]
pub struct DescribeArgs {
    /// JPEG, PNG, WebP, BMP or GIF files
    #[arg(required = true, value_name = "IMAGE")]
    pub images: Vec<PathBuf>,
    /// What to ask
    #[arg(long, short, value_name = "TEXT", default_value = llava::DESCRIBE, value_parser = question)]
    pub prompt: String,
    /// One JSON object a line and image. Its timing_ms are milliseconds: `total` and `first_token` count from the
    /// image's decoding, `load` is the model's and not part of them
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub answer: AnswerArgs,
    #[command(flatten)]
    pub model: ModelArgs,
}

/// Talk about images
///
/// Questions are read line by line from standard input, a terminal or not; /help lists what else may stand there.
/// Ctrl-C stops an answer.
#[derive(Args)]
#[command(after_long_help = "Examples:
  llava chat --model llava-v1.5-7b.gguf cat.jpg
  printf 'What is this?\\nWhat colour is it?\\n' | llava chat --model models/llava/ cat.jpg")]
pub struct ChatArgs {
    /// Images for the first question
    #[arg(value_name = "IMAGE")]
    pub images: Vec<PathBuf>,
    #[command(flatten)]
    pub answer: AnswerArgs,
    #[command(flatten)]
    pub model: ModelArgs,
}

/// Show what is in a model file and what it needs
///
/// Takes language models, mmprojs, and folders; also files that this program can't run, with the reason.
#[derive(Args, Clone)]
#[command(after_long_help = "Examples:
  llava inspect llava-v1.5-7b.gguf
  llava inspect --tensors mmproj.gguf
  llava inspect --json models/llava/ | jq .model.memory
  llava inspect --diff llava-f16.gguf llava-q4_k_m.gguf")]
pub struct InspectArgs {
    /// GGUF file (of a split model the first part), a folder with a pair, or hf:OWNER/REPO[:FILE or TYPE]
    #[arg(value_name = "FILE|DIR|hf:…")]
    pub path: PathBuf,
    /// The mmproj to go with a language model
    #[arg(long, value_name = "FILE")]
    pub mmproj: Option<PathBuf>,
    /// Positions to compute the memory for; by default what the model was trained with
    #[arg(long, value_name = "N", value_parser = positive())]
    pub ctx: Option<usize>,
    /// Show instead what FILE differs from another in: keys, types, shapes, and how far values are apart
    #[arg(long, value_name = "OTHER", conflicts_with_all = ["mmproj", "ctx", "keys", "tensors"])]
    pub diff: Option<PathBuf>,
    /// List all metadata
    #[arg(long)]
    pub keys: bool,
    /// List all tensors
    #[arg(long)]
    pub tensors: bool,
    /// One JSON object
    #[arg(long)]
    pub json: bool,
}

/// Download a model from the Hugging Face Hub
///
/// Takes the language model that is named, or one in Q4_K_M or what is next to it, and its mmproj, into the cache of Hugging
/// Face's own tools, and prints their paths. What is there already is not downloaded again, and what was broken off goes on.
/// Sizes and sums are checked. The environment variables HF_HOME, HF_HUB_CACHE, HF_ENDPOINT, HF_TOKEN and HF_HUB_OFFLINE count.
#[derive(Args)]
#[command(after_long_help = "Examples:
  llava pull mys/ggml_llava-v1.5-7b
  llava pull --list cjpais/llava-1.6-mistral-7b-gguf
  llava pull cjpais/llava-1.6-mistral-7b-gguf:Q5_K_M
  llava describe --model hf:mys/ggml_llava-v1.5-7b cat.jpg")]
pub struct PullArgs {
    /// OWNER/REPO, OWNER/REPO:FILE or OWNER/REPO:TYPE; a branch or commit after REPO, as in OWNER/REPO@main
    #[arg(value_name = "OWNER/REPO[:FILE]")]
    pub model: String,
    /// Show what the repository offers, the one that would be taken first, and download nothing
    #[arg(long)]
    pub list: bool,
}

/// Make model files of a Hugging Face checkpoint
///
/// Reads safetensors, sharded or not: LLaVA 1, 1.5 and 1.6 in the original layout and in transformers', with decoders of the
/// families LLaMA (Vicuna, Llama 3, Yi), Mistral, Qwen2 and Phi-3 and towers of CLIP and SigLIP; projectors and LoRAs with the
/// base that they were trained for; language models alone. The tokenizer is taken from tokenizer.model or tokenizer.json. Both
/// files appear in OUT when both are complete. Tensors that are left out are listed with the reason.
#[derive(Args)]
#[command(after_long_help = "Examples:
  llava convert llava-1.5-7b-hf -o models/llava
  llava convert llava-1.5-7b-hf -o models/llava --type q4_k_m --mmproj-type q8_0
  llava convert llava-v1.5-7b --tower clip-vit-large-patch14-336 -o models/llava
  llava convert my-lora --base vicuna-7b-v1.5 --tower clip-vit-large-patch14-336 -o models/mine")]
pub struct ConvertArgs {
    /// A folder with config.json and safetensors
    #[arg(value_name = "DIR")]
    pub checkpoint: PathBuf,
    /// The folder to write to; the files are named after DIR and their types
    #[arg(long, short, value_name = "OUT")]
    pub output: PathBuf,
    /// Types of the language model, as `llava quantize` takes them; by default F16
    #[arg(long = "type", value_name = "TYPE")]
    pub kind: Option<Mixture>,
    /// Types of the mmproj; by default F16
    #[arg(long, value_name = "TYPE")]
    pub mmproj_type: Option<Mixture>,
    /// The folder of the language model that a projector or a LoRA was trained for
    #[arg(long, value_name = "DIR")]
    pub base: Option<PathBuf>,
    /// The folder of the vision tower, or its ONNX file, where the checkpoint only names it
    #[arg(long, value_name = "DIR|FILE")]
    pub tower: Option<PathBuf>,
    /// Threads to compute with; by default all that the process may use
    #[arg(long, value_name = "N", value_parser = positive())]
    pub threads: Option<usize>,
}

/// Make a smaller file of a model
///
/// Types are given to tensors as llama.cpp's llama-quantize does, and the blocks have the same bits. A mmproj can be quantised
/// too. OUT appears when it is complete. Prints what each tensor lost: the norm of its error over its own.
#[derive(Args)]
#[command(after_long_help = "Examples:
  llava quantize llava-f16.gguf llava-q4_k_m.gguf q4_k_m
  llava quantize --imatrix llava.imatrix llava-f16.gguf llava-q3_k_m.gguf q3_k_m
  llava quantize --tensor 'attn_v=q8_0' llava-f16.gguf llava-q4_0.gguf q4_0
  llava quantize --check book.txt llava-f16.gguf llava-q2_k.gguf q2_k")]
pub struct QuantizeArgs {
    /// A GGUF file with weights in F16, BF16 or F32 (of a split model the first part)
    #[arg(value_name = "IN")]
    pub input: PathBuf,
    /// The file to write
    #[arg(value_name = "OUT")]
    pub output: PathBuf,
    /// F32, F16, BF16, Q8_0, Q6_K, Q5_K_M, Q5_K_S, Q5_1, Q5_0, Q4_K_M, Q4_K_S, IQ4_NL, Q4_1, Q4_0, Q3_K_L, Q3_K_M, Q3_K_S, Q2_K
    /// or Q2_K_S; Q4_K_M is what most people use
    #[arg(value_name = "TYPE")]
    pub mixture: Mixture,
    /// How much each weight counts, as `llava imatrix` or `llama-imatrix` finds it
    #[arg(long, value_name = "FILE")]
    pub imatrix: Option<PathBuf>,
    /// A type for the tensors whose names match; may be repeated, the first that matches counts
    #[arg(long = "tensor", value_name = "REGEX=TYPE", value_parser = crate::quantize::tensor)]
    pub tensors: Vec<(regex::Regex, BlockType)>,
    /// Allow tensors that are quantised already: their error adds to the new one
    #[arg(long)]
    pub requantize: bool,
    /// Read a text with both language models, and print both perplexities and how often they think the same token the most
    /// likely
    #[arg(long, value_name = "TEXT")]
    pub check: Option<PathBuf>,
    /// Of the text, this many times 512 tokens at most
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = positive(), requires = "check")]
    pub chunks: usize,
    /// Threads to compute with; by default all that the process may use
    #[arg(long, value_name = "N", value_parser = positive())]
    pub threads: Option<usize>,
}

/// Find out how much each weight counts, for `llava quantize`
///
/// Reads a text, or answers a question about each of some images, and writes the mean squares of what each matrix is
/// multiplied with: weights that meet large values should lose less. Text and images should be like what the model is for.
/// With images the mmproj's matrices are in the file too.
#[derive(Args)]
#[command(after_long_help = "Examples:
  llava imatrix --model llava-f16.gguf --text articles.txt -o llava.imatrix.gguf
  llava imatrix --model llava-f16.gguf photos/*.jpg -o llava.imatrix.gguf
  llava quantize --imatrix llava.imatrix.gguf llava-f16.gguf llava-q3_k_m.gguf q3_k_m")]
pub struct ImatrixArgs {
    /// Images to answer a question about
    #[arg(value_name = "IMAGE", required_unless_present = "text")]
    pub images: Vec<PathBuf>,
    /// A text to read
    #[arg(long, value_name = "FILE")]
    pub text: Option<PathBuf>,
    /// The file to write: GGUF, as llama.cpp's tools write and read it
    #[arg(long, short, value_name = "FILE")]
    pub output: PathBuf,
    /// What to ask about each image
    #[arg(long, short, value_name = "TEXT", default_value = llava::DESCRIBE, value_parser = question)]
    pub prompt: String,
    /// Tokens of an answer at most
    #[arg(long, value_name = "N", default_value_t = 128, value_parser = positive())]
    pub max_tokens: usize,
    /// Tokens of the text that are read together
    #[arg(long, value_name = "N", default_value_t = Collector::CHUNK, value_parser = positive())]
    pub chunk: usize,
    /// How often that many tokens are read at most; by default as often as the text has them
    #[arg(long, value_name = "N", value_parser = positive())]
    pub chunks: Option<usize>,
    #[command(flatten)]
    pub model: ModelArgs,
}

/// Measure how fast a model runs on this machine
///
/// Encodes a synthetic image, runs prompts of arbitrary tokens, and continues them, alone and several together. Each
/// figure is the median of some repetitions. Beside them stand the machine's own limits, measured in about a second:
/// decode can't be faster than the weights are read, encode and prefill not faster than the processor multiplies.
/// Other programs that run at the same time slow both down. Where several mmprojs lie beside the language model and none
/// is named, text alone is measured.
#[derive(Args)]
#[command(after_long_help = "Examples:
  llava bench --model llava-v1.5-7b.gguf
  llava bench --model lm.gguf --mmproj mmproj.gguf --threads 4 --only encode,decode
  llava bench --model models/llava/ --json | jq '.decode[0].gb_s / .machine.read_gb_s'")]
pub struct BenchArgs {
    /// How often each is measured
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = positive())]
    pub reps: usize,
    /// What to measure; by default all
    #[arg(long, value_name = "WHAT,…", value_enum, value_delimiter = ',')]
    pub only: Vec<Stage>,
    /// Lengths of prompts; those that don't fit into the context are skipped
    #[arg(long, value_name = "N,…", value_delimiter = ',', default_value = "128,600", value_parser = positive())]
    pub prefill: Vec<usize>,
    /// How many tokens to generate, alone; likewise
    #[arg(long, value_name = "N,…", value_delimiter = ',', default_value = "64", value_parser = positive())]
    pub decode: Vec<usize>,
    /// How many sequences to continue together
    #[arg(long, value_name = "N,…", value_delimiter = ',', default_value = "1,4,8", value_parser = positive())]
    pub batch: Vec<usize>,
    /// Tokens that each sequence has before it is continued; by default 64, less where the context is short
    #[arg(long, value_name = "N", value_parser = positive())]
    pub after: Option<usize>,
    /// One JSON object. Its gb_s and gop_s are 10⁹ bytes and operations a second, `limit` names the figure of `machine`
    /// that bounds gop_s, and read_gb_s bounds gb_s
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub model: ModelArgs,
}

/// A part of `llava bench`.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Stage {
    /// The vision tower and the projector
    Encode,
    /// Prompts
    Prefill,
    /// Tokens one by one
    Decode,
    /// Several sequences together
    Batch,
}

/// Print the token ids of a text as a JSON array
///
/// The text is taken exactly as given, and nothing is added to it. A file that holds only a vocabulary will do.
#[derive(Args)]
#[command(after_long_help = "Examples:
  llava tokenize --model llava-v1.5-7b.gguf 'Hello, world'
  llava tokenize --model llava-v1.5-7b.gguf --special '<s>Hello</s>'")]
pub struct TokenizeArgs {
    /// The text
    #[arg(value_name = "TEXT", allow_hyphen_values = true)]
    pub text: String,
    /// Let the texts of control tokens in TEXT (`</s>`, `<|im_end|>`, …) stand for those tokens, and put the token that
    /// begins a sequence in front if the model asks for it
    #[arg(long)]
    pub special: bool,
    #[command(flatten)]
    pub model: ModelArgs,
}

/// Write what the language model sees of an image
///
/// The file is NumPy's, float32 [image tokens, d_model].
#[derive(Args)]
#[command(after_long_help = "Examples:
  llava encode --model llava-v1.5-7b.gguf cat.jpg -o cat.npy
  llava encode --model llava-v1.5-7b.gguf --features cat.jpg -o features.npy")]
pub struct EncodeArgs {
    /// JPEG, PNG, WebP, BMP or GIF file
    #[arg(value_name = "IMAGE")]
    pub image: PathBuf,
    /// Where to write
    #[arg(long, short, value_name = "NPY")]
    pub output: PathBuf,
    /// Write what the vision tower gives the projector instead, float32 [patches, d_vision]
    #[arg(long)]
    pub features: bool,
    #[command(flatten)]
    pub model: ModelArgs,
}

/// Write the next token's logits after a prompt
///
/// The file is NumPy's, float32 `[n_vocab]`.
#[derive(Args)]
#[command(after_long_help = "Examples:
  llava logits --model llava-v1.5-7b.gguf --prompt $'USER: <image>\\nWhat is this? ASSISTANT:' --image cat.jpg -o out.npy
  llava logits --model llava-v1.5-7b.gguf --ids 1,3148,1001,29901,-200 --image cat.jpg -o out.npy")]
#[command(group = clap::ArgGroup::new("input").required(true))]
pub struct LogitsArgs {
    /// The prompt as it is: no template is put around it. `<image>` stands for the next image, the texts of control
    /// tokens for those tokens; the texts between images are tokenised each on its own, and the token that begins a
    /// sequence goes in front if the model asks for it
    #[arg(long, short, value_name = "TEXT", group = "input", allow_hyphen_values = true)]
    pub prompt: Option<String>,
    /// Token ids, -200 for the next image; nothing is added
    #[arg(long, value_name = "ID,…", group = "input", value_delimiter = ',', allow_hyphen_values = true)]
    pub ids: Option<Vec<i64>>,
    /// An image; once for each in the prompt
    #[arg(long = "image", value_name = "IMAGE")]
    pub images: Vec<PathBuf>,
    /// Where to write
    #[arg(long, short, value_name = "NPY")]
    pub output: PathBuf,
    #[command(flatten)]
    pub model: ModelArgs,
}

fn positive() -> RangedU64ValueParser<usize> {
    RangedU64ValueParser::new().range(1..)
}

fn style(name: &str) -> Result<String, String> {
    Template::by_name(name).map(|_| name.to_owned()).map_err(|e| e.to_string())
}

fn question(text: &str) -> Result<String, &'static str> {
    if text.trim().is_empty() { Err("ask something") } else { Ok(text.to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_declarations_are_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_has_an_example() {
        for command in Cli::command().get_subcommands() {
            let help = command.get_after_long_help().map(ToString::to_string).unwrap_or_default();
            assert!(help.contains(&format!("  llava {}", command.get_name())), "{}", command.get_name());
        }
    }
}
