//! The conversation styles against what the original code renders.

use llava::prompt::{Message, Piece, Role, STYLES, Template};

fn flat(pieces: &[Piece]) -> String {
    pieces.iter().map(|piece| if let Piece::Text(text) = piece { text } else { "<image>" }).collect()
}

/// The cases of tests/golden/prompt/make.py.
#[derive(serde::Deserialize)]
struct Case {
    style: String,
    turns: Vec<(usize, String, Option<String>)>,
    prompt: String,
}

#[test]
fn styles_render_what_the_original_renders() {
    let cases: Vec<Case> = serde_json::from_str(include_str!("golden/prompt/styles.json")).unwrap();
    assert!(cases.len() > 30);
    for case in cases {
        let mut messages = Vec::new();
        for (images, question, answer) in &case.turns {
            messages.push(Message::user(*images, question));
            messages.extend(answer.iter().map(|text| Message::text(Role::Assistant, text)));
        }
        let template = Template::by_name(&case.style).unwrap();
        let pieces = template.render(&messages, case.turns.last().unwrap().2.is_none()).unwrap();
        assert_eq!(flat(&pieces), case.prompt, "{}", case.style);
        let images = pieces.iter().filter(|piece| **piece == Piece::Image).count();
        assert_eq!(images, case.turns.iter().map(|turn| turn.0).sum::<usize>());
    }
}

#[test]
fn text_goes_behind_the_image_without_tags_or_blanks() {
    let template = Template::by_name("vicuna_v1").unwrap();
    let message = Message::user(1, "  What is <image>this?\n");
    assert!(
        flat(&template.render(&[message], true).unwrap())
            .ends_with("user's questions. USER: <image>\nWhat is this? ASSISTANT:")
    );
}

#[test]
fn several_images_stand_together_before_the_text() {
    let template = Template::by_name("chatml").unwrap();
    let prompt = flat(&template.render(&[Message::user(2, "Compare.")], true).unwrap());
    assert_eq!(prompt, "<|im_start|>user\n<image><image>\nCompare.<|im_end|>\n<|im_start|>assistant\n");
}

#[test]
fn plain_throws_the_instruction_away() {
    let template = Template::by_name("plain").unwrap();
    let messages = [Message::user(1, "Describe."), Message::text(Role::Assistant, "A cat.")];
    assert_eq!(flat(&template.render(&messages, false).unwrap()), "<image>A cat.\n");
    assert_eq!(template.render(&messages[..1], true).unwrap(), [Piece::Image]);
}

#[test]
fn a_system_message_replaces_the_style_s_own() {
    let messages = [Message::text(Role::System, "Be brief."), Message::user(0, "Hi")];
    for (name, expected) in [
        ("vicuna_v1", "Be brief. USER: Hi ASSISTANT:"),
        ("llava_llama_2", "[INST] <<SYS>>\nBe brief.\n<</SYS>>\n\nHi [/INST]"),
        ("gemma_instruct", "<start_of_turn>user\nBe brief.\n\nHi<end_of_turn>\n<start_of_turn>model\n"),
        ("phi3", "<|system|>\nBe brief.<|end|>\n<|user|>\nHi<|end|>\n<|assistant|>\n"),
    ] {
        assert_eq!(flat(&Template::by_name(name).unwrap().render(&messages, true).unwrap()), expected);
    }
}

#[test]
fn no_prompt_ends_in_a_space() {
    for style in STYLES {
        let pieces = Template::Style(style).render(&[Message::user(1, "q")], true).unwrap();
        assert!(!flat(&pieces).ends_with(' '), "{}", style.name);
    }
}

#[test]
fn misplaced_messages_are_refused() {
    let template = Template::by_name("llava_v1").unwrap();
    let mut answer = Message::user(1, "a");
    answer.role = Role::Assistant;
    assert!(template.render(&[Message::user(0, "q"), answer], true).is_err());
    assert!(template.render(&[Message::user(0, "q"), Message::text(Role::System, "s")], true).is_err());
    let template = Template::by_name("llama_2").unwrap();
    assert!(template.render(&[Message::text(Role::Assistant, "a")], true).is_err());
}
