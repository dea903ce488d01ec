//! The conversation styles of the LLaVA family.
//!
//! Their texts are those of `llava/conversation.py` in haotian-liu/LLaVA and LLaVA-VL/LLaVA-NeXT, to the letter: models
//! were trained on them. There a style is a program; here it is a table of what stands around the messages.

use super::{Message, Pieces, Role};
use crate::error::{Error, Result};

/// What stands around the messages of a conversation.
#[derive(Clone, Debug)]
pub struct Style {
    /// Its name in the original.
    pub name: &'static str,
    /// Other names.
    pub aliases: &'static [&'static str],
    /// The system text where the conversation brings none.
    pub system: &'static str,
    /// Texts that end an answer.
    pub stop: &'static [&'static str],
    /// Before and after the system text; left out with it.
    around_system: [&'static str; 2],
    /// Where the system text stands.
    system_place: SystemPlace,
    /// Turns before the conversation.
    opening: &'static [(Role, &'static str)],
    /// Before every turn of the user but the first.
    between: &'static str,
    around_user: [&'static str; 2],
    around_assistant: [&'static str; 2],
    /// What precedes an answer that is yet to come. Never ends in a space: the model's first token brings its own.
    generation: &'static str,
    images: Images,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SystemPlace {
    First,
    InFirstUserTurn,
}

/// How a user's message shows its images.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Images {
    /// Images, a line break, the text.
    ThenText,
    /// `<Image>`, the image, `</Image>`: in the first message as a turn of its own, which is answered "Received."
    Tagged,
    /// Images alone; the text is thrown away (the captions of stage 1).
    Alone,
}

const SYSTEM_HUMAN: &str = "A chat between a curious human and an artificial intelligence assistant. The assistant gives helpful, detailed, and polite answers to the human's questions.";
const SYSTEM_USER: &str = "A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, detailed, and polite answers to the user's questions.";
// The space between the last two sentences is missing in the original.
const SYSTEM_TAGGED: &str = "A chat between a curious user and an artificial intelligence assistant. The assistant is able to understand the visual content that the user provides, and assist the user with a variety of tasks using natural language.The visual content will be provided with the following format: <Image>visual content</Image>.";
const SYSTEM_VISION: &str = "You are a helpful language and vision assistant. You are able to understand the visual content that the user provides, and assist the user with a variety of tasks using natural language.";

const EMPTY: Style = Style {
    name: "",
    aliases: &[],
    system: "",
    stop: &[],
    around_system: ["", ""],
    system_place: SystemPlace::First,
    opening: &[],
    between: "",
    around_user: ["", ""],
    around_assistant: ["", ""],
    generation: "",
    images: Images::ThenText,
};

const LLAVA_V0: Style = Style {
    name: "llava_v0",
    system: SYSTEM_HUMAN,
    around_system: ["", "###"],
    around_user: ["Human: ", "###"],
    around_assistant: ["Assistant: ", "###"],
    generation: "Assistant:",
    stop: &["###"],
    ..EMPTY
};

const VICUNA_V0: Style = Style {
    name: "vicuna_v0",
    aliases: &["v0"],
    opening: &[
        (Role::User, "What are the key differences between renewable and non-renewable energy sources?"),
        (
            Role::Assistant,
            "Renewable energy sources are those that can be replenished naturally in a relatively \
             short amount of time, such as solar, wind, hydro, geothermal, and biomass. \
             Non-renewable energy sources, on the other hand, are finite and will eventually be \
             depleted, such as coal, oil, and natural gas. Here are some key differences between \
             renewable and non-renewable energy sources:\n\
             1. Availability: Renewable energy sources are virtually inexhaustible, while non-renewable \
             energy sources are finite and will eventually run out.\n\
             2. Environmental impact: Renewable energy sources have a much lower environmental impact \
             than non-renewable sources, which can lead to air and water pollution, greenhouse gas emissions, \
             and other negative effects.\n\
             3. Cost: Renewable energy sources can be more expensive to initially set up, but they typically \
             have lower operational costs than non-renewable sources.\n\
             4. Reliability: Renewable energy sources are often more reliable and can be used in more remote \
             locations than non-renewable sources.\n\
             5. Flexibility: Renewable energy sources are often more flexible and can be adapted to different \
             situations and needs, while non-renewable sources are more rigid and inflexible.\n\
             6. Sustainability: Renewable energy sources are more sustainable over the long term, while \
             non-renewable sources are not, and their depletion can lead to economic and social instability.\n",
        ),
    ],
    ..LLAVA_V0
};

pub(super) const VICUNA_V1: Style = Style {
    name: "vicuna_v1",
    aliases: &["v1"],
    system: SYSTEM_USER,
    around_system: ["", " "],
    around_user: ["USER: ", " "],
    around_assistant: ["ASSISTANT: ", "</s>"],
    generation: "ASSISTANT:",
    stop: &["</s>"],
    ..EMPTY
};

pub(super) const LLAVA_V1: Style = Style { name: "llava_v1", aliases: &[], system: SYSTEM_HUMAN, ..VICUNA_V1 };

const V0_MMTAG: Style = Style { name: "v0_mmtag", system: SYSTEM_TAGGED, images: Images::Tagged, ..LLAVA_V0 };

const V1_MMTAG: Style =
    Style { name: "v1_mmtag", aliases: &[], system: SYSTEM_TAGGED, images: Images::Tagged, ..VICUNA_V1 };

const LLAMA_2: Style = Style {
    name: "llama_2",
    system: "You are a helpful, respectful and honest assistant. Always answer as helpfully as possible, while being safe.  Your answers should not include any harmful, unethical, racist, sexist, toxic, dangerous, or illegal content. Please ensure that your responses are socially unbiased and positive in nature.\n\nIf a question does not make any sense, or is not factually coherent, explain why instead of answering something not correct. If you don't know the answer to a question, please don't share false information.",
    around_system: ["<<SYS>>\n", "\n<</SYS>>\n\n"],
    system_place: SystemPlace::InFirstUserTurn,
    between: "<s>",
    around_user: ["[INST] ", " [/INST]"],
    around_assistant: [" ", " </s>"],
    stop: &["</s>"],
    ..EMPTY
};

pub(super) const LLAVA_LLAMA_2: Style = Style { name: "llava_llama_2", system: SYSTEM_VISION, ..LLAMA_2 };

pub(super) const MISTRAL_INSTRUCT: Style = Style { name: "mistral_instruct", system: "", between: "", ..LLAMA_2 };

pub(super) const MPT: Style = Style {
    name: "mpt",
    system: "A conversation between a user and an LLM-based AI assistant. The assistant gives helpful and honest answers.",
    around_system: ["<|im_start|>system\n", "<|im_end|>"],
    around_user: ["<|im_start|>user\n", "<|im_end|>"],
    around_assistant: ["<|im_start|>assistant\n", "<|im_end|>"],
    generation: "<|im_start|>assistant\n",
    stop: &["<|im_end|>"],
    ..EMPTY
};

pub(super) const CHATML_DIRECT: Style =
    Style { name: "chatml_direct", aliases: &["mistral_direct"], system: "Answer the questions.", ..MPT };

const PLAIN: Style = Style {
    name: "plain",
    aliases: &["v0_plain"],
    around_user: ["", ""],
    around_assistant: ["", "\n"],
    stop: &["\n"],
    images: Images::Alone,
    ..EMPTY
};

pub(super) const LLAVA_LLAMA_3: Style = Style {
    name: "llava_llama_3",
    system: SYSTEM_VISION,
    around_system: ["<|start_header_id|>system<|end_header_id|>\n\n", "<|eot_id|>"],
    around_user: ["<|start_header_id|>user<|end_header_id|>\n\n", "<|eot_id|>"],
    around_assistant: ["<|start_header_id|>assistant<|end_header_id|>\n\n", "<|eot_id|>"],
    generation: "<|start_header_id|>assistant<|end_header_id|>\n\n",
    stop: &["<|eot_id|>"],
    ..EMPTY
};

/// ChatML with line breaks between the turns and no system text of its own.
pub(super) const CHATML: Style = Style {
    name: "chatml",
    around_system: ["<|im_start|>system\n", "<|im_end|>\n"],
    around_user: ["<|im_start|>user\n", "<|im_end|>\n"],
    around_assistant: ["<|im_start|>assistant\n", "<|im_end|>\n"],
    generation: "<|im_start|>assistant\n",
    stop: &["<|im_end|>"],
    ..EMPTY
};

const QWEN_1_5: Style =
    Style { name: "qwen_1_5", aliases: &["qwen_2"], system: "You are a helpful assistant.", ..CHATML };

const QWEN_2_5: Style = Style {
    name: "qwen_2_5",
    aliases: &[],
    system: "You are Qwen, created by Alibaba Cloud. You are a helpful assistant.",
    ..CHATML
};

/// Phi-3's own, which xtuner's llava-phi-3-mini uses.
pub(super) const PHI3: Style = Style {
    name: "phi3",
    around_system: ["<|system|>\n", "<|end|>\n"],
    around_user: ["<|user|>\n", "<|end|>\n"],
    around_assistant: ["<|assistant|>\n", "<|end|>\n"],
    generation: "<|assistant|>\n",
    stop: &["<|end|>"],
    ..EMPTY
};

const GEMMA_INSTRUCT: Style = Style {
    name: "gemma_instruct",
    around_system: ["", "\n\n"],
    system_place: SystemPlace::InFirstUserTurn,
    around_user: ["<start_of_turn>user\n", "<end_of_turn>\n"],
    around_assistant: ["<start_of_turn>model\n", "<end_of_turn>\n"],
    generation: "<start_of_turn>model\n",
    stop: &["<end_of_turn>"],
    ..EMPTY
};

/// All styles.
pub static STYLES: &[Style] = &[
    VICUNA_V0,
    LLAVA_V0,
    VICUNA_V1,
    LLAVA_V1,
    V0_MMTAG,
    V1_MMTAG,
    LLAMA_2,
    LLAVA_LLAMA_2,
    MISTRAL_INSTRUCT,
    MPT,
    CHATML_DIRECT,
    PLAIN,
    LLAVA_LLAMA_3,
    CHATML,
    QWEN_1_5,
    QWEN_2_5,
    PHI3,
    GEMMA_INSTRUCT,
];

impl Style {
    pub(super) fn render(&self, messages: &[Message], add_generation_prompt: bool) -> Result<Vec<super::Piece>> {
        let mut pieces = Pieces::default();
        let (system, turns) = match messages.split_first() {
            Some((first, rest)) if first.role == Role::System => (first.clean_text(), rest),
            _ => (self.system.to_owned(), messages),
        };
        let mut waiting = Some(system).filter(|system| !system.is_empty());
        if self.system_place == SystemPlace::InFirstUserTurn && turns.first().is_some_and(|m| m.role != Role::User) {
            let reason = "the conversation must begin with the user".to_owned();
            return Err(Error::Template { name: self.name.to_owned(), reason });
        }
        if self.system_place == SystemPlace::First {
            self.system(&mut pieces, waiting.take());
        }
        let mut first_user_turn = true;
        for &(role, text) in self.opening {
            let [open, close] = self.around(role);
            pieces.text(open).text(text).text(close);
            first_user_turn &= role != Role::User;
        }
        for (i, message) in turns.iter().enumerate() {
            let [open, close] = self.around(message.role);
            if message.role == Role::User {
                if self.images == Images::Tagged && i == 0 && message.images() > 0 {
                    let [answer_open, answer_close] = self.around_assistant;
                    pieces.text(open);
                    self.show_images(&mut pieces, message.images());
                    pieces.text(close).text(answer_open).text("Received.").text(answer_close);
                }
                pieces.text(if first_user_turn { "" } else { self.between });
                first_user_turn = false;
                pieces.text(open);
                self.system(&mut pieces, waiting.take());
                self.user_content(&mut pieces, message, i == 0);
            } else {
                pieces.text(open).text(&message.clean_text());
            }
            pieces.text(close);
        }
        if add_generation_prompt {
            pieces.text(self.generation);
        }
        Ok(pieces.0)
    }

    fn around(&self, role: Role) -> [&'static str; 2] {
        match role {
            Role::System => self.around_system,
            Role::User => self.around_user,
            Role::Assistant => self.around_assistant,
        }
    }

    fn system(&self, pieces: &mut Pieces, text: Option<String>) {
        if let Some(text) = text {
            let [open, close] = self.around_system;
            pieces.text(open).text(&text).text(close);
        }
    }

    fn user_content(&self, pieces: &mut Pieces, message: &Message, first: bool) {
        let (text, images) = (message.clean_text(), message.images());
        match self.images {
            Images::Alone if images > 0 => self.show_images(pieces, images),
            Images::Tagged if first => {
                pieces.text(text.trim());
            }
            _ => {
                if images > 0 {
                    self.show_images(pieces, images);
                    pieces.text("\n");
                }
                pieces.text(text.trim());
            }
        }
    }

    fn show_images(&self, pieces: &mut Pieces, images: usize) {
        for _ in 0..images {
            match self.images {
                Images::Tagged => pieces.text("<Image>").image().text("</Image>"),
                _ => pieces.image(),
            };
        }
    }
}
