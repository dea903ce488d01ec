//! JSON as Python's `json.dumps` writes it, which chat templates expect of their filter `tojson`.

use minijinja::value::{Kwargs, Value, ValueKind};
use minijinja::{Error, ErrorKind};

/// Values deeper than this are refused, since they are written recursively.
const MAX_DEPTH: usize = 64;

/// The filter `tojson(value, indent=none)`; unlike Jinja's own it escapes nothing for HTML.
pub(super) fn tojson(value: &Value, options: Kwargs) -> Result<String, Error> {
    let indent = options.get::<Option<usize>>("indent")?.map(|n| n.min(16));
    let mut out = String::new();
    write(value, indent, 0, &mut out)?;
    Ok(out)
}

fn write(value: &Value, indent: Option<usize>, depth: usize, out: &mut String) -> Result<(), Error> {
    if depth > MAX_DEPTH {
        return Err(Error::new(ErrorKind::InvalidOperation, format!("tojson: nested more than {MAX_DEPTH} deep")));
    }
    match value.kind() {
        ValueKind::Undefined | ValueKind::None => out.push_str("null"),
        ValueKind::Bool => out.push_str(if value.is_true() { "true" } else { "false" }),
        ValueKind::Number => out.push_str(&value.to_string()),
        ValueKind::Map => {
            out.push('{');
            for (i, key) in value.try_iter()?.enumerate() {
                separate(i, indent, depth, out);
                string(&key.to_string(), out);
                out.push_str(": ");
                write(&value.get_item(&key)?, indent, depth + 1, out)?;
            }
            close('}', value.len(), indent, depth, out);
        }
        ValueKind::Seq | ValueKind::Iterable => {
            out.push('[');
            for (i, item) in value.try_iter()?.enumerate() {
                separate(i, indent, depth, out);
                write(&item, indent, depth + 1, out)?;
            }
            close(']', value.len(), indent, depth, out);
        }
        _ => string(&value.to_string(), out),
    }
    Ok(())
}

fn separate(i: usize, indent: Option<usize>, depth: usize, out: &mut String) {
    match indent {
        Some(n) => {
            out.push_str(if i == 0 { "\n" } else { ",\n" });
            out.extend(std::iter::repeat_n(' ', n * (depth + 1)));
        }
        None => out.push_str(if i == 0 { "" } else { ", " }),
    }
}

fn close(bracket: char, len: Option<usize>, indent: Option<usize>, depth: usize, out: &mut String) {
    if let Some(n) = indent.filter(|_| len != Some(0)) {
        out.push('\n');
        out.extend(std::iter::repeat_n(' ', n * depth));
    }
    out.push(bracket);
}

fn string(text: &str, out: &mut String) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            c if c < ' ' => out.push_str(&format!("\\u{:04x}", c as u32)),
            c => out.push(c),
        }
    }
    out.push('"');
}
