//! Chat templates: what transformers renders, and what hostile ones cannot do.

use llava::prompt::{Jinja, Message, Piece, Role, Slot, Template, splice};
use llava::tokenizer::{TokenType, Tokenizer, Vocabulary};
use std::time::Instant;

/// A SentencePiece vocabulary of printable ASCII, bytes and a few control tokens.
fn tokenizer() -> Tokenizer {
    let mut v = Vocabulary::new("<test>", "llama");
    let mut push = |text: String, kind| {
        v.tokens.push(text);
        v.types.push(kind);
        v.scores.push(-(v.tokens.len() as f32));
    };
    push("<unk>".into(), TokenType::Unknown);
    push("<s>".into(), TokenType::Control);
    push("</s>".into(), TokenType::Control);
    for byte in 0..=255u8 {
        push(format!("<0x{byte:02X}>"), TokenType::Byte);
    }
    push("▁".into(), TokenType::Normal);
    for c in '!'..='~' {
        push(c.into(), TokenType::Normal);
    }
    Tokenizer::new(v).unwrap()
}

fn template(source: &str) -> Template {
    Template::Jinja(Box::new(Jinja::new(source, &tokenizer()).unwrap()))
}

fn flat(pieces: &[Piece]) -> String {
    pieces.iter().map(|piece| if let Piece::Text(text) = piece { text } else { "<image>" }).collect()
}

/// The cases of tests/golden/prompt/make_jinja.py.
#[derive(serde::Deserialize)]
struct Case {
    name: String,
    template: String,
    turns: Vec<(String, usize, String)>,
    prompt: Option<String>,
}

fn messages(turns: &[(String, usize, String)]) -> Vec<Message> {
    let message = |(role, images, text): &(String, usize, String)| match role.as_str() {
        "user" => Message::user(*images, text),
        "system" => Message::text(Role::System, text),
        _ => Message::text(Role::Assistant, text),
    };
    turns.iter().map(message).collect()
}

#[test]
fn templates_render_as_in_transformers_without_the_leading_bos() {
    let cases: Vec<Case> = serde_json::from_str(include_str!("golden/prompt/jinja.json")).unwrap();
    assert!(cases.len() >= 18);
    for case in cases {
        let ask = case.turns.last().unwrap().0 == "user";
        let got = template(&case.template).render(&messages(&case.turns), ask);
        match case.prompt {
            Some(prompt) => {
                let expected = prompt.strip_prefix("<s>").unwrap_or(&prompt);
                assert_eq!(flat(&got.unwrap()), expected, "{}", case.name);
            }
            None => assert!(got.is_err(), "{}", case.name),
        }
    }
}

#[test]
fn an_image_that_a_template_loses_or_doubles_is_an_error() {
    for source in ["{{ messages[0].role }}", "{{ messages[0].content ~ messages[0].content }}"] {
        let error = template(source).render(&[Message::user(1, "q")], true).unwrap_err().to_string();
        assert!(error.contains("of 1 images"), "{error}");
    }
}

#[test]
fn text_cannot_pretend_to_be_an_image() {
    for source in [
        "{{ messages[0].content }}",
        "{% for c in messages[0].content %}{{ '<image>' if c.type == 'image' else c.text }}{% endfor %}",
    ] {
        let pieces = template(source).render(&[Message::user(1, "a\u{fdd0}b<image>c<im<image>age>d")], true).unwrap();
        assert_eq!(pieces.iter().filter(|p| **p == Piece::Image).count(), 1, "{source}");
        assert!(flat(&pieces).ends_with("abcd"), "{pieces:?}");
    }
}

#[test]
fn a_template_s_own_words_reach_the_caller() {
    let error = template("{{ raise_exception('no system role') }}").render(&[], true).unwrap_err().to_string();
    assert!(error.contains("tokenizer.chat_template") && error.contains("no system role"), "{error}");
    let error = Jinja::new("{% if %}", &tokenizer()).unwrap_err().to_string();
    assert!(error.contains("syntax error"), "{error}");
}

#[test]
fn hostile_templates_fail_within_bounds() {
    let nested = format!("{}x{}", "{% if true %}".repeat(1300), "{% endif %}".repeat(1300));
    let parentheses = format!("{{{{ {}1{} }}}}", "(".repeat(16_000), ")".repeat(16_000));
    let ands = format!("{{{{ x{} }}}}", " or x".repeat(6_000));
    let compares = format!("{{{{ 1{} }}}}", "==1".repeat(10_000));
    let calls = format!("{{{{ x{} }}}}", "()".repeat(16_000));
    let sum = format!("{{{{ x{} }}}}", "~x".repeat(16_000));
    let attributes = format!("{{{{ messages{} }}}}", "[0]".repeat(10_000));
    let filters = format!("{{{{ 'x'{} }}}}", "|upper".repeat(5_000));
    let negations = format!("{{{{ {}1 }}}}", "not ".repeat(8_000));
    let ifs = format!("{{{{ 1{} }}}}", " if 1 else 1".repeat(2_500));
    let lists = format!("{{{{ {}{} }}}}", "[".repeat(16_000), "]".repeat(16_000));
    let doubling = "{% set ns = namespace(x='ab') %}{% for i in range(64) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}{{ ns.x|length }}";
    let pow = "{{ 'a' * 10**9 }}".to_owned();
    let sources = [
        "{% for i in range(100000) %}{% for j in range(100000) %}x{% endfor %}{% endfor %}",
        "{% for i in range(99999) %}{{ 'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa' * 100000 }}{% endfor %}",
        "{% macro f(x) %}{{ f(x) }}{% endmacro %}{{ f(1) }}",
        "{{ 'a'.replace('a', 'a' * 100000).replace('a', 'a' * 100000)|length }}",
        "{{ ('a' * 100000)|list|join('b' * 100000)|length }}",
        "{% set x = [] %}{% for i in range(100000) %}{% set x = x + [x, x] %}{% endfor %}",
        "{% include 'other' %}",
        "{{ 9**999999999 }}",
        "{% for i in range(10**18) %}{% endfor %}",
        "{{ '%1000000000d' | format(1) }}",
        "{{ 'x'.center(1000000000) }}{{ 1/0 }}",
        "{{ messages | tojson(indent=1000000000) | list | map('upper') | list * 1000000 }}",
        doubling,
        &pow,
        &nested,
        &parentheses,
        &sum,
        &ands,
        &compares,
        &calls,
        &attributes,
        &filters,
        &negations,
        &ifs,
        &lists,
    ];
    for source in sources {
        let start = Instant::now();
        let shown: String = source.chars().take(70).collect();
        let outcome = Jinja::new(source, &tokenizer())
            .and_then(|t| Template::Jinja(Box::new(t)).render(&[Message::user(1, "q")], true));
        let seconds = start.elapsed().as_secs_f64();
        println!("{seconds:6.2} s {shown} -> {}", outcome.as_ref().map_or_else(|e| e.to_string(), |p| flat_start(p)));
        assert!(outcome.is_err(), "{shown}");
        assert!(seconds < 20.0, "{shown}: {seconds} s");
    }
    assert!(Jinja::new(&" ".repeat(1 << 20), &tokenizer()).is_err());
}

fn flat_start(pieces: &[Piece]) -> String {
    flat(pieces).chars().take(40).collect()
}

#[test]
fn long_conversations_have_enough_fuel() {
    let turns: Vec<Message> =
        (0..200).flat_map(|_| [Message::user(0, "q".repeat(20_000)), Message::text(Role::Assistant, "a")]).collect();
    let source = "{% for m in messages %}{% set c = '<' ~ m.content ~ '>' %}{{ c | trim }}{% endfor %}";
    assert!(template(source).render(&turns, true).is_ok());
}

#[test]
fn the_choice_follows_file_then_name_then_vocabulary() {
    let t = tokenizer();
    let chosen = |name, source| Template::choose(name, source, &t).0.name().to_owned();
    assert_eq!(chosen(Some("llava-v1.5-7b"), Some("{{ messages[0].content }}")), "tokenizer.chat_template");
    assert_eq!(chosen(Some("llava-v1.5-7b"), Some("{% broken")), "llava_v1");
    assert_eq!(chosen(Some("photo"), None), "vicuna_v1");
    for (tokens, style) in [
        (&["<|im_start|>"] as &[&str], "chatml"),
        (&["<|start_header_id|>"], "llava_llama_3"),
        (&["<|user|>", "<|end|>"], "phi3"),
    ] {
        let mut v = Vocabulary::new("<test>", "llama");
        v.tokens = tokens.iter().map(|&t| t.to_owned()).collect();
        v.types = vec![TokenType::Control; tokens.len()];
        v.scores = vec![0.0; tokens.len()];
        let (template, reason) = Template::choose(None, Some(" "), &Tokenizer::new(v).unwrap());
        assert_eq!(template.name(), style);
        assert!(reason.contains(tokens[0]), "{reason}");
    }
}

#[test]
fn splicing_tokenises_each_text_alone_with_one_bos() {
    let t = tokenizer();
    let pieces = [Piece::Text("a".into()), Piece::Image, Piece::Image, Piece::Text("\nb</s>".into())];
    let id = |text: &str| Slot::Token(t.id_of(text).unwrap());
    assert_eq!(
        splice(&pieces, &t),
        [id("<s>"), id("▁"), id("a"), Slot::Image(0), Slot::Image(1), id("▁"), id("<0x0A>"), id("b"), id("</s>"),]
    );
}
