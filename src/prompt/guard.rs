//! What fuel does not bound: values that contain themselves many times over.
//!
//! `{% set x = [x, x] %}`, forty times, costs little fuel and little memory, but printing or comparing the result takes
//! 2^40 steps inside the engine. Such a value needs a variable to grow in, so a call that measures the value is written
//! behind every tag that binds one; what a single expression can build from measured values is bounded by the fuel that
//! its parts cost. Tags and operators that published templates do without are refused, not guarded.

#![warn(clippy::indexing_slicing, clippy::unwrap_used, clippy::arithmetic_side_effects)]

use minijinja::value::{Rest, Value, ValueKind};
use minijinja::{Environment, Error, ErrorKind, State};

/// The function that measures values; templates that mention it are refused.
const MEASURE: &str = "__measure";
/// What a variable may hold, in values of all levels, beside the conversation itself.
const MAX_VALUES: usize = 1000;
/// How deep the values of a variable may be nested.
const MAX_DEPTH: usize = 32;
/// What a tag may have of code outside strings, in bytes: the engine's compiler takes time quadratic in the length of a
/// chain of operators, and some values pass each step through all earlier ones.
const MAX_CODE: usize = 4096;
/// The tags that bind no variable.
const PLAIN_TAGS: &[&str] =
    &["if", "elif", "else", "endif", "endfor", "endset", "endmacro", "break", "continue", "filter", "endfilter"];

/// `source` with a measuring call behind every tag that binds variables.
///
/// # Errors
/// What in the source is not supported.
pub(super) fn instrument(source: &str) -> Result<String, String> {
    if source.contains(MEASURE) {
        return Err(format!("the name {MEASURE} is taken"));
    }
    let mut out = String::with_capacity(source.len());
    let mut copied = 0;
    let mut scanner = Scanner { source, at: 0, open_brackets: 0 };
    while let Some(tag) = scanner.next_tag()? {
        if !tag.is_block {
            continue;
        }
        let replacement = match tag.code.trim() {
            // Hugging Face's marks around what is trained on: they change nothing in the text.
            "generation" => Some(" if true "),
            "endgeneration" => Some(" endif "),
            _ => None,
        };
        if let Some(code) = replacement {
            out.push_str(slice(source, copied, tag.code_start));
            out.push_str(code);
            copied = tag.code_start.saturating_add(tag.code.len());
            continue;
        }
        let names = bound_names(tag.code)?;
        if !names.is_empty() {
            out.push_str(slice(source, copied, scanner.at));
            // The same end, so that white space behind the tag is treated alike.
            out.push_str(&format!("{{% do {MEASURE}({}) {}", names.join(", "), tag.end));
            copied = scanner.at;
        }
    }
    out.push_str(slice(source, copied, source.len()));
    Ok(out)
}

/// Gives `environment` the measuring function, for a conversation of `size` values, and takes from it what can multiply
/// values within one expression.
pub(super) fn arm(environment: &mut Environment<'static>, size: usize) {
    let limit = MAX_VALUES.saturating_add(size);
    environment.add_function(MEASURE, move |state: &State, values: Rest<Value>| -> Result<Value, Error> {
        for value in values.iter() {
            let mut left = limit;
            measure(value, 0, &mut left)?;
            state.consume_fuel((limit.saturating_sub(left) / 8) as u64)?;
        }
        Ok(Value::UNDEFINED)
    });
    environment.add_function("range", |start: i64, stop: Option<i64>, step: Option<i64>| -> Result<Value, Error> {
        let (start, stop) = stop.map_or((0, start), |stop| (start, stop));
        let step = step.unwrap_or(1);
        let ascending = step > 0;
        let next = |&x: &i64| x.checked_add(step).filter(|&x| if ascending { x < stop } else { x > stop });
        let first = Some(start).filter(|&x| step != 0 && if ascending { x < stop } else { x > stop });
        let all: Vec<i64> = std::iter::successors(first, next).take(MAX_VALUES.saturating_add(1)).collect();
        if step == 0 || all.len() > MAX_VALUES {
            return Err(Error::new(ErrorKind::InvalidOperation, format!("a range has at most {MAX_VALUES} numbers")));
        }
        Ok(all.into_iter().collect())
    });
    environment.remove_global("debug");
    for filter in ["pprint", "batch", "slice", "groupby", "zip", "chain"] {
        environment.remove_filter(filter);
    }
}

/// Takes the number of values in `value`, at all levels, from `left`.
fn measure(value: &Value, depth: usize, left: &mut usize) -> Result<(), Error> {
    let too_large = || Error::new(ErrorKind::InvalidOperation, "a variable holds too many values");
    *left = left.checked_sub(1).filter(|_| depth <= MAX_DEPTH).ok_or_else(too_large)?;
    let deeper = depth.saturating_add(1);
    match value.kind() {
        ValueKind::Seq | ValueKind::Iterable => value.try_iter()?.try_for_each(|item| measure(&item, deeper, left)),
        ValueKind::Map => value.try_iter()?.try_for_each(|key| {
            measure(&value.get_item(&key)?, deeper, left)?;
            measure(&key, deeper, left)
        }),
        _ => Ok(()),
    }
}

/// Finds tags exactly as the engine's lexer does; a difference would let a tag escape.
struct Scanner<'a> {
    source: &'a str,
    at: usize,
    /// Brackets that are open at the end of a tag stay open in the next.
    open_brackets: isize,
}

struct Tag<'a> {
    /// `{% … %}`, not `{{ … }}`.
    is_block: bool,
    code: &'a str,
    code_start: usize,
    /// `%}`, `-%}` or `+%}`.
    end: &'a str,
}

impl<'a> Scanner<'a> {
    fn peek(&self, ahead: usize) -> Option<u8> {
        self.source.as_bytes().get(self.at.checked_add(ahead)?).copied()
    }

    fn advance(&mut self, bytes: usize) {
        self.at = self.at.saturating_add(bytes);
    }

    /// The next tag, comments skipped; afterwards the scanner stands behind it.
    fn next_tag(&mut self) -> Result<Option<Tag<'a>>, String> {
        loop {
            let rest = slice(self.source, self.at, self.source.len());
            let Some(brace) = rest.find('{') else { return Ok(None) };
            self.advance(brace);
            let kind = self.peek(1);
            if !matches!(kind, Some(b'{' | b'%' | b'#')) {
                self.advance(1);
                continue;
            }
            self.advance(2);
            if matches!(self.peek(0), Some(b'-' | b'+')) {
                self.advance(1);
            }
            match kind {
                Some(b'#') => {
                    let rest = slice(self.source, self.at, self.source.len());
                    self.advance(rest.find("#}").ok_or("a comment does not end")?.saturating_add(2));
                }
                Some(b'%') => return self.tag(true, b'%').map(Some),
                _ => return self.tag(false, b'}').map(Some),
            }
        }
    }

    fn tag(&mut self, is_block: bool, closer: u8) -> Result<Tag<'a>, String> {
        let code_start = self.at;
        for _ in 0..MAX_CODE {
            let marker = usize::from(matches!(self.peek(0), Some(b'-' | b'+')));
            let ends = self.peek(marker) == Some(closer) && self.peek(marker.saturating_add(1)) == Some(b'}');
            if self.open_brackets == 0 && ends {
                let code = slice(self.source, code_start, self.at);
                let end = slice(self.source, self.at, self.at.saturating_add(marker).saturating_add(2));
                self.advance(end.len());
                return Ok(Tag { is_block, code, code_start, end });
            }
            match self.peek(0).ok_or("a tag does not end")? {
                quote @ (b'\'' | b'"') => {
                    self.advance(1);
                    while self.peek(0).ok_or("a string does not end")? != quote {
                        self.advance(if self.peek(0) == Some(b'\\') { 2 } else { 1 });
                    }
                }
                b'(' | b'[' | b'{' => self.open_brackets = self.open_brackets.saturating_add(1),
                b')' | b']' | b'}' => self.open_brackets = self.open_brackets.saturating_sub(1),
                b'*' => return Err("the operator * is not supported".to_owned()),
                _ => {}
            }
            self.advance(1);
        }
        Err(format!("a tag has more than {MAX_CODE} bytes of code"))
    }
}

fn slice(text: &str, start: usize, end: usize) -> &str {
    text.get(start..end).unwrap_or_default()
}

/// The variables that a block tag binds, as paths like `x` or `ns.x`.
fn bound_names(code: &str) -> Result<Vec<&str>, String> {
    let code = code.trim();
    let word = code.find(|c: char| !is_name(c)).unwrap_or(code.len());
    let (tag, rest) = code.split_at(word);
    match tag {
        // Without an assignment it is a block, whose value is text.
        "set" => assignment(rest).map_or(Ok(Vec::new()), |at| paths(slice(rest, 0, at))),
        "for" => paths(slice(rest, 0, keyword_in(rest).ok_or("a loop has no `in`")?)),
        "macro" => {
            let parameters =
                rest.split_once('(').and_then(|(_, p)| p.rsplit_once(')')).ok_or("a macro has no parameters")?.0;
            let mut names = Vec::new();
            let mut start = 0;
            let commas = top_level(parameters).filter(|&(_, b)| b == b',').map(|(i, _)| i);
            for end in commas.chain([parameters.len()]) {
                let parameter = slice(parameters, start, end);
                names.extend(paths(slice(parameter, 0, assignment(parameter).unwrap_or(parameter.len())))?);
                start = end.saturating_add(1);
            }
            Ok(names)
        }
        tag if PLAIN_TAGS.contains(&tag) => Ok(Vec::new()),
        tag => Err(format!("the tag `{tag}` is not supported")),
    }
}

fn is_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

/// The bytes of `code` outside strings and brackets, with their places.
fn top_level(code: &str) -> impl Iterator<Item = (usize, u8)> {
    let (mut depth, mut quote, mut escaped) = (0usize, None, false);
    code.bytes().enumerate().filter(move |&(_, b)| {
        match quote {
            Some(_) if escaped => escaped = false,
            Some(_) if b == b'\\' => escaped = true,
            Some(q) => quote = Some(q).filter(|_| b != q),
            None => match b {
                b'\'' | b'"' => quote = Some(b),
                b'(' | b'[' | b'{' => depth = depth.saturating_add(1),
                b')' | b']' | b'}' => depth = depth.saturating_sub(1),
                _ => return depth == 0,
            },
        }
        false
    })
}

/// Where the `=` of an assignment stands, which is no part of a comparison.
fn assignment(code: &str) -> Option<usize> {
    let byte = |i: Option<usize>| i.and_then(|i| code.as_bytes().get(i)).copied();
    top_level(code).map(|(i, _)| i).find(|&i| {
        byte(Some(i)) == Some(b'=')
            && byte(i.checked_add(1)) != Some(b'=')
            && !matches!(byte(i.checked_sub(1)), Some(b'=' | b'!' | b'<' | b'>'))
    })
}

/// Where the word `in` of a loop stands.
fn keyword_in(code: &str) -> Option<usize> {
    let outside = |i: Option<usize>| i.and_then(|i| code.as_bytes().get(i)).is_none_or(|&b| !is_name(char::from(b)));
    top_level(code).map(|(i, _)| i).find(|&i| {
        slice(code, i, i.saturating_add(2)) == "in" && outside(i.checked_sub(1)) && outside(i.checked_add(2))
    })
}

/// The paths in a target like `x`, `ns.x` or `(key, value)`.
fn paths(target: &str) -> Result<Vec<&str>, String> {
    let allowed = |c: char| is_name(c) || c.is_ascii_whitespace() || "(),.".contains(c);
    let paths: Vec<&str> = target.split(|c| !is_name(c) && c != '.').filter(|path| !path.is_empty()).collect();
    if !target.chars().all(allowed) || paths.iter().any(|path| path.split('.').any(str::is_empty)) {
        return Err(format!("assigning to `{}` is not supported", target.trim()));
    }
    Ok(paths)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_binding_is_measured_and_nothing_else_changes() {
        for (source, expected) in [
            ("a{{ x }}{# {% set y = 1 %} #}b", "a{{ x }}{# {% set y = 1 %} #}b"),
            ("{% set x = '%}' -%} {%", "err"),
            ("{%- set x = '%}' -%} t", "{%- set x = '%}' -%}{% do __measure(x) -%} t"),
            ("{% set ns.x = {'a': {}} %}t", "{% set ns.x = {'a': {}} %}{% do __measure(ns.x) %}t"),
            ("{% set a, b = 1, 2 %}", "{% set a, b = 1, 2 %}{% do __measure(a, b) %}"),
            ("{% for (k, v) in x if k == v %}", "{% for (k, v) in x if k == v %}{% do __measure(k, v) %}"),
            ("{% macro f(a, b=[1, 2], c='=,)') %}", "{% macro f(a, b=[1, 2], c='=,)') %}{% do __measure(a, b, c) %}"),
            ("{% set x %}t{% endset %}", "{% set x %}t{% endset %}"),
            (
                "{{ {'a':{}} ~ '{{' ~ \"'\" }}{% set e = 1 %}",
                "{{ {'a':{}} ~ '{{' ~ \"'\" }}{% set e = 1 %}{% do __measure(e) %}",
            ),
            ("{% generation -%}t{%- endgeneration %}", "{% if true -%}t{%- endif %}"),
            ("{% raw %}", "err"),
            ("{% with x = 1 %}", "err"),
            ("{% set x['a'] = 1 %}", "err"),
            ("{{ 2 * 2 }}", "err"),
            ("{{ __measure }}", "err"),
            ("{{ '*' }}", "{{ '*' }}"),
        ] {
            assert_eq!(instrument(source).unwrap_or_else(|_| "err".to_owned()), expected, "{source}");
        }
    }
}
