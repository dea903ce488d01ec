//! How byte-level BPE cuts text into words before it merges: the regular expressions of `tokenizer.ggml.pre`.
//!
//! They are written out as scanners, because look-ahead and alternation make a backtracking engine slow, and on long
//! runs of one character quadratic, where every one of these can be decided in a single pass.

use super::unicode::{is_letter, is_number, is_punctuation};

/// A way of cutting text into words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Split {
    /// `'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+`
    Gpt2,
    /// `(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`
    Llama3,
    /// As `Llama3`, each number on its own.
    Qwen2,
    /// Words that end where an upper-case letter follows a lower-case one; llama.cpp knows the case of ASCII only:
    /// `[^\r\n\p{L}\p{N}]?U*L+|[^\r\n\p{L}\p{N}]?U+L*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+`
    /// where `U` is a letter but `a-z` and `L` a letter but `A-Z`.
    Tekken,
    /// `\p{N}`, then `Gpt2`.
    SmolLm,
    /// `[\p{P}$+<=>^~|]+`, then `Gpt2`, then `\p{N}+`, then `[0-9][0-9][0-9]`.
    Default,
}

impl Split {
    /// The words of `text`, which joined give `text` again.
    pub(super) fn words(self, text: &str) -> Vec<&str> {
        match self {
            Self::Gpt2 => pieces(text, gpt2).collect(),
            Self::Llama3 => pieces(text, |s| llama3(s, 3)).collect(),
            Self::Qwen2 => pieces(text, |s| llama3(s, 1)).collect(),
            Self::Tekken => pieces(text, tekken).collect(),
            Self::SmolLm => pieces(text, |s| isolate(s, is_number, 1)).flat_map(|s| pieces(s, gpt2)).collect(),
            Self::Default => pieces(text, |s| isolate(s, is_default_punctuation, usize::MAX))
                .flat_map(|s| pieces(s, gpt2))
                .flat_map(|s| pieces(s, |s| isolate(s, is_number, usize::MAX)))
                .flat_map(|s| pieces(s, digit_triple))
                .collect(),
        }
    }
}

/// Cuts `text` by a function that gives the length of the first word in bytes.
fn pieces(text: &str, first: impl Fn(&str) -> usize) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let c = rest.chars().next()?;
        let (word, tail) = rest.split_at(first(rest).max(c.len_utf8()));
        rest = tail;
        Some(word)
    })
}

/// The bytes at the start of `s` whose characters all satisfy `member`.
fn run(s: &str, member: impl Fn(char) -> bool) -> usize {
    s.find(|c| !member(c)).unwrap_or(s.len())
}

/// A run of at most `max` members, or else everything up to the next member.
fn isolate(s: &str, member: fn(char) -> bool, max: usize) -> usize {
    let count = s.chars().take(max).take_while(|&c| member(c)).count();
    match count {
        0 => run(s, |c| !member(c)),
        _ => s.char_indices().nth(count).map_or(s.len(), |(i, _)| i),
    }
}

fn is_default_punctuation(c: char) -> bool {
    "$+<=>^~|".contains(c) || is_punctuation(c)
}

/// Three ASCII digits, or everything up to the next three.
fn digit_triple(s: &str) -> usize {
    match s.as_bytes().windows(3).position(|w| w.iter().all(u8::is_ascii_digit)) {
        Some(0) => 3,
        Some(i) => i,
        None => s.len(),
    }
}

/// `[^\s\p{L}\p{N}]`
fn is_other(c: char) -> bool {
    !c.is_whitespace() && !is_letter(c) && !is_number(c)
}

/// `'s|'t|'re|'ve|'m|'ll|'d`, 0 if `s` starts with none of them.
fn contraction(s: &str, ignore_case: bool) -> usize {
    let starts_with = |suffix: &str| match s.as_bytes().get(1..=suffix.len()) {
        Some(found) if ignore_case => found.eq_ignore_ascii_case(suffix.as_bytes()),
        Some(found) => found == suffix.as_bytes(),
        None => false,
    };
    if !s.starts_with('\'') {
        return 0;
    }
    ["s", "t", "re", "ve", "m", "ll", "d"].into_iter().find(|suffix| starts_with(suffix)).map_or(0, |s| 1 + s.len())
}

fn gpt2(s: &str) -> usize {
    let n = contraction(s, false);
    if n > 0 {
        return n;
    }
    let word = s.strip_prefix(' ').unwrap_or(s);
    let space = s.len() - word.len();
    for member in [is_letter, is_number, is_other] {
        let n = run(word, member);
        if n > 0 {
            return space + n;
        }
    }
    white_space(s)
}

fn llama3(s: &str, digits: usize) -> usize {
    let n = contraction(s, true);
    if n > 0 {
        return n;
    }
    let n = word_with_prefix(s, |word| run(word, is_letter));
    if n > 0 { n } else { after_words(s, digits, &['\r', '\n']) }
}

fn tekken(s: &str) -> usize {
    let n = word_with_prefix(s, cased_word);
    if n > 0 { n } else { after_words(s, 1, &['\r', '\n', '/']) }
}

/// `[^\r\n\p{L}\p{N}]?` and a word of letters; 0 if there is none.
fn word_with_prefix(s: &str, word: impl Fn(&str) -> usize) -> usize {
    let Some(c) = s.chars().next() else { return 0 };
    if is_letter(c) {
        return word(s);
    }
    if c == '\r' || c == '\n' || is_number(c) {
        return 0;
    }
    match word(&s[c.len_utf8()..]) {
        0 => 0,
        n => c.len_utf8() + n,
    }
}

/// `U*L+|U+L*` as a backtracking engine matches it, see [`Split::Tekken`].
fn cased_word(s: &str) -> usize {
    let upper = run(s, |c| is_letter(c) && !c.is_ascii_lowercase());
    let lower = run(&s[upper..], |c| is_letter(c) && !c.is_ascii_uppercase());
    if lower > 0 {
        return upper + lower;
    }
    // `U*` gives back until `L+` has a letter, which is the last one without ASCII case.
    s[..upper].char_indices().rfind(|(_, c)| !c.is_ascii()).map_or(upper, |(i, c)| i + c.len_utf8())
}

/// `\p{N}{1,digits}| ?[^\s\p{L}\p{N}]+[trailing]*|\s*[\r\n]+|\s+(?!\S)|\s+`
fn after_words(s: &str, digits: usize, trailing: &[char]) -> usize {
    if s.starts_with(is_number) {
        return isolate(s, is_number, digits);
    }
    let word = s.strip_prefix(' ').unwrap_or(s);
    let other = run(word, is_other);
    if other > 0 {
        let end = s.len() - word.len() + other;
        return end + run(&s[end..], |c| trailing.contains(&c));
    }
    let blank = run(s, char::is_whitespace);
    match s[..blank].rfind(['\r', '\n']) {
        Some(i) => i + 1,
        None => white_space(s),
    }
}

/// `\s+(?!\S)|\s+`: a run of white space leaves its last character to the word that follows.
fn white_space(s: &str) -> usize {
    let end = run(s, char::is_whitespace);
    match s[..end].char_indices().next_back() {
        Some((last, _)) if last > 0 && end < s.len() => last,
        _ => end,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splits_as_the_regular_expressions_do() {
        for (split, text, words) in [
            (Split::Gpt2, "I'll  go 12a!\n\n x", &["I", "'ll", " ", " go", " 12", "a", "!", "\n\n", " x"] as &[&str]),
            (Split::Llama3, "I'LL 12345 \n x", &["I", "'LL", " ", "123", "45", " \n", " x"]),
            (Split::Qwen2, "(a) 12\r\n\r\nb", &["(a", ")", " ", "1", "2", "\r\n\r\n", "b"]),
            (Split::Tekken, "fooBar XMLé a/b//\n9", &["foo", "Bar", " XMLé", " a", "/b", "//\n", "9"]),
            (Split::Tekken, "éAAA", &["é", "AAA"]),
            (Split::SmolLm, "a12 b", &["a", "1", "2", " b"]),
            (Split::Default, "x=1234567,8", &["x", "=", "123", "456", "7", ",", "8"]),
        ] {
            assert_eq!(split.words(text), words, "{split:?}");
        }
    }

    #[test]
    fn a_million_equal_characters_take_linear_time() {
        let all = [Split::Gpt2, Split::Llama3, Split::Qwen2, Split::Tekken, Split::SmolLm, Split::Default];
        for c in ['a', 'A', 'é', ' ', '\n', '1', '!', '\'', '\u{3000}'] {
            let text = c.to_string().repeat(1_000_000);
            for split in all {
                let start = std::time::Instant::now();
                assert_eq!(split.words(&text).concat(), text);
                assert!(start.elapsed().as_secs() < 5, "{split:?} {c:?}");
            }
        }
    }
}
