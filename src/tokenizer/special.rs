//! Cutting special tokens out of the text before the rest is tokenised.

#![warn(clippy::indexing_slicing, clippy::unwrap_used, clippy::arithmetic_side_effects)]

use super::vocabulary::TokenType;
use std::collections::{BTreeMap, HashMap};

/// What becomes of the texts of control tokens, such as `</s>` or `<|im_end|>`, inside a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Special {
    /// They become those tokens: for prompts, whose template writes them.
    Parse,
    /// They are text like any other: for text that must not steer the model.
    Plain,
}

/// Special tokens are looked for at every position, so hostile vocabularies must not make them arbitrarily long.
const MAX_LEN: usize = 256;

/// The special tokens, longest first.
pub(super) struct Specials {
    groups: Vec<Group>,
}

/// All special tokens of one length.
struct Group {
    len: usize,
    first_bytes: [bool; 256],
    tokens: HashMap<String, Entry>,
}

#[derive(Clone, Copy)]
struct Entry {
    id: u32,
    /// User-defined tokens are cut out of plain text too.
    in_plain_text: bool,
    /// White space that follows is dropped.
    strips: bool,
}

/// A part of a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fragment<'a> {
    Token(u32),
    Text(&'a str),
}

impl Specials {
    /// `strip` makes the tokens drop the white space that follows them, except for those which never do.
    pub(super) fn new(tokens: &[String], types: &[TokenType], strip: bool) -> Self {
        let mut groups = BTreeMap::new();
        for ((text, &kind), id) in tokens.iter().zip(types).zip(0u32..) {
            let special = matches!(kind, TokenType::Control | TokenType::Unknown | TokenType::UserDefined);
            let (Some(&first), true, 1..=MAX_LEN) = (text.as_bytes().first(), special, text.len()) else { continue };
            let group = groups.entry(text.len()).or_insert_with(|| Group {
                len: text.len(),
                first_bytes: [false; 256],
                tokens: HashMap::new(),
            });
            if let Some(flag) = group.first_bytes.get_mut(usize::from(first)) {
                *flag = true;
            }
            let strips = strip && !matches!(text.as_str(), "<unk>" | "<s>" | "<|endoftext|>");
            group.tokens.insert(text.clone(), Entry { id, in_plain_text: kind == TokenType::UserDefined, strips });
        }
        Self { groups: groups.into_values().rev().collect() }
    }

    /// Cuts `text` at its special tokens. A longer token wins over a shorter one wherever they meet.
    pub(super) fn cut<'a>(&self, text: &'a str, special: Special) -> Vec<Fragment<'a>> {
        let mut fragments = Vec::from_iter((!text.is_empty()).then_some(Fragment::Text(text)));
        for group in &self.groups {
            let mut next = Vec::with_capacity(fragments.len());
            for fragment in fragments {
                match fragment {
                    Fragment::Token(_) => next.push(fragment),
                    Fragment::Text(text) => group.cut(text, special, &mut next),
                }
            }
            fragments = next;
        }
        fragments
    }
}

impl Group {
    fn cut<'a>(&self, mut text: &'a str, special: Special, out: &mut Vec<Fragment<'a>>) {
        while let Some((start, entry)) = self.find(text, special) {
            let (before, rest) = text.split_at(start);
            out.extend((!before.is_empty()).then_some(Fragment::Text(before)));
            out.push(Fragment::Token(entry.id));
            text = rest.get(self.len..).unwrap_or_default();
            if entry.strips {
                text = text.trim_start_matches([' ', '\t', '\n', '\u{b}', '\u{c}', '\r']);
            }
        }
        out.extend((!text.is_empty()).then_some(Fragment::Text(text)));
    }

    fn find(&self, text: &str, special: Special) -> Option<(usize, Entry)> {
        let starts = text.len().checked_sub(self.len)?.checked_add(1)?;
        text.bytes().take(starts).enumerate().find_map(|(i, b)| {
            if !self.first_bytes.get(usize::from(b)).copied().unwrap_or(false) {
                return None;
            }
            let entry = self.tokens.get(text.get(i..i.checked_add(self.len)?)?)?;
            (special == Special::Parse || entry.in_plain_text).then_some((i, *entry))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Fragment::{Text, Token};

    fn specials(strip: bool) -> Specials {
        let tokens = ["<a>", "<a><b>", "[u]", "word", "<s>"].map(str::to_owned);
        let types =
            [TokenType::Control, TokenType::Control, TokenType::UserDefined, TokenType::Normal, TokenType::Control];
        Specials::new(&tokens, &types, strip)
    }

    #[test]
    fn longer_tokens_win_and_normal_tokens_stay() {
        let got = specials(false).cut("x<a><a><b>word[u] y", Special::Parse);
        assert_eq!(got, [Text("x"), Token(0), Token(1), Text("word"), Token(2), Text(" y")]);
    }

    #[test]
    fn plain_text_yields_user_defined_tokens_only() {
        assert_eq!(specials(false).cut("<a>[u]<s>", Special::Plain), [Text("<a>"), Token(2), Text("<s>")]);
    }

    #[test]
    fn stripping_drops_white_space_but_not_after_the_exceptions() {
        assert_eq!(
            specials(true).cut("<a> \n x<s> y<a>\n", Special::Parse),
            [Token(0), Text("x"), Token(4), Text(" y"), Token(0)]
        );
    }
}
