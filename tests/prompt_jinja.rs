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

/// Compiles and renders within ten seconds, or fails: what is returned is shown with `--nocapture`.
fn attack(source: &str) -> llava::Result<Vec<Piece>> {
    let start = Instant::now();
    let shown: String = source.chars().take(90).collect();
    let outcome = Jinja::new(source, &tokenizer())
        .and_then(|t| Template::Jinja(Box::new(t)).render(&[Message::user(0, "q")], true));
    let seconds = start.elapsed().as_secs_f64();
    println!("{seconds:6.2} s {shown} -> {}", outcome.as_ref().map_or_else(|e| e.to_string(), |p| flat_start(p)));
    // Against a hang; the slowest takes two seconds.
    assert!(seconds < 60.0, "{shown}: {seconds} s");
    outcome
}

#[test]
fn endless_loops_and_huge_texts_run_out_of_fuel() {
    let wide = "{% for i in range(1000) %}{% for j in range(1000) %}x{% endfor %}{% endfor %}";
    for source in [
        wide,
        "{% for i in range(10000000000) %}{% endfor %}",
        "{% macro f(x) %}{{ f(x) }}{% endmacro %}{{ f(1) }}",
        "{% macro f(x) %}{{ f([x, x]) }}{% endmacro %}{{ f(1) }}",
        "{% set ns = namespace(x='ab') %}{% for i in range(64) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}{{ ns.x|length }}",
        "{% set ns = namespace(x='ab') %}{% for i in range(64) %}{% set ns.x = ns.x.replace('a', ns.x) %}{% endfor %}{{ ns.x|length }}",
        "{% set ns = namespace(x='a,') %}{% for i in range(64) %}{% set ns.x = ns.x.split(',')|join(ns.x) ~ ns.x %}{% endfor %}{{ ns.x|length }}",
        "{{ '%1000000000d' | format(1) }}",
        "{{ 'a' * 10**9 }}",
        "{{ 9**999999999 }}",
        "{{ 'x'|indent(1000000000) ~ 'x\nx'|indent(1000000000) }}",
        "{% include 'other' %}",
        "{% set x %}{% raw %}",
        "{{ 'unterminated",
    ] {
        assert!(attack(source).is_err(), "{source}");
    }
    assert!(Jinja::new(&" ".repeat(1 << 20), &tokenizer()).is_err());
}

#[test]
fn values_that_hold_themselves_many_times_are_refused() {
    let uses = [
        "{{ ns.x }}",
        "{{ ns.x ~ 'a' }}",
        "{{ ns.x|string|length }}",
        "{{ ns.x|tojson|length }}",
        "{{ ns.x == ns.y }}",
        "{{ {ns.x: 1} }}",
        "{{ [ns.x, ns.y]|sort }}",
        "{{ raise_exception(ns.x) }}",
    ];
    let grow = [
        "ns.x = [ns.x, ns.x]",
        "ns.x = (ns.x, ns.x)",
        "ns.x = {'a': ns.x, 'b': ns.x}",
        "ns.x = ns.x + ns.x",
        "ns.x = dict(a=ns.x, b=ns.x)",
        "ns.x = namespace(a=ns.x, b=ns.x)",
        "ns.x = [ns.x]",
        "ns.x = ns",
        "ns.x = [ns]",
        "ns.x = {'a': ns}",
    ];
    for how in grow {
        for what in uses {
            let source = format!(
                "{{% set ns = namespace(x=[1], y=[1]) %}}{{% for i in range(60) %}}{{% set {how} %}}{{% endfor %}}{what}"
            );
            assert!(attack(&source).is_err(), "{source}");
        }
    }
    // The same through loops, parameters, targets of several variables, and within one expression.
    let loops = (0..60).map(|i| format!("{{% for v{} in [[v{i}, v{i}]] %}}", i + 1)).collect::<String>();
    let ends = "{% endfor %}".repeat(60);
    for source in [
        format!("{{% set v0 = 1 %}}{loops}{{{{ v60 }}}}{ends}"),
        "{% macro f(x, n) %}{% if n %}{{ f([x, x], n - 1) }}{% else %}{{ x }}{% endif %}{% endmacro %}{{ f(1, 30) }}"
            .into(),
        "{% macro f(n, x=[1]) %}{% if n %}{{ f(n - 1, x=x + x) }}{% else %}{{ x }}{% endif %}{% endmacro %}{{ f(30) }}"
            .into(),
        format!("{{% set a = 1 %}}{}{{{{ a }}}}", "{% set a, b = [a, a], 1 %}".repeat(60)),
        format!("{{% set a = 1 %}}{}{{{{ a }}}}", "{% set (a, b) = ([a, a], 1) %}".repeat(60)),
        "{% for x in [[1]] recursive %}{{ loop([[x, x]]) }}{% endfor %}".into(),
        "{% set a = [1]*1000 %}{% set b = [a]*1000 %}{% set c = [b]*1000 %}{{ c }}".into(),
        "{% set a = range(100000000) %}{{ a }}".into(),
        "{% with a = [1] %}{{ a }}{% endwith %}".into(),
        "{% set __measure = 1 %}".into(),
    ] {
        assert!(attack(&source).is_err(), "{source}");
    }
}

#[test]
fn deep_and_long_expressions_do_not_exhaust_the_stack() {
    for (start, part, count, end) in [
        ("x", "~x", 16_000, ""),
        ("x", " or x", 6_000, ""),
        ("1", "==1", 10_000, ""),
        ("x", "()", 16_000, ""),
        ("messages", "[0]", 10_000, ""),
        ("messages", "[0:]", 8_000, ""),
        ("messages", ".a", 16_000, ""),
        ("'x'", "|upper", 5_000, ""),
        ("", "not ", 8_000, "1"),
        ("", "-", 30_000, "1"),
        ("1", " if 1 else 1", 2_500, ""),
        ("", "[", 32_000, ""),
        ("", "(", 16_000, "1"),
        ("", "{1:", 10_000, "1"),
        ("1", " is defined", 2_900, ""),
    ] {
        let _ = attack(&format!("{{{{ {start}{}{end} }}}}", part.repeat(count)));
        let close = match part {
            "[" => "]",
            "(" => ")",
            "{1:" => "}",
            _ => continue,
        };
        let count = count / 2;
        let _ = attack(&format!("{{{{ {}1{} }}}}", part.repeat(count), close.repeat(count)));
    }
    let _ = attack(&format!("{}x{}", "{% if true %}".repeat(1300), "{% endif %}".repeat(1300)));
    let slices = "{% set ns = namespace(x=[1]) %}{% for i in range(1000) %}{% for i in range(1000) %}{% set ns.x = ns.x[0:] %}{% endfor %}{% endfor %}";
    let _ = attack(slices);
    let _ = attack(
        "{% set ns = namespace(x=[1]) %}{% for i in range(999) %}{% set ns.x = ns.x[0:] %}{% endfor %}{{ ns.x }}",
    );
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
