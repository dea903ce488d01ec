//! `llava inspect --diff`: what differs between two files.

use crate::failure::Failure;
use crate::output::{json, printable, text};
use crate::progress::Progress;
use llava::gguf::{File, Value};
use llava_convert::diff::{Diff, Key, Shape, diff};
use serde_json::json;
use std::fmt::Write;
use std::ops::ControlFlow;
use std::path::Path;

/// Shows what differs.
///
/// # Errors
/// Those of reading.
pub fn run(a: &Path, b: &Path, as_json: bool) -> Result<(), Failure> {
    let (a, b) = (File::open(a)?, File::open(b)?);
    let progress = Progress::start("comparing");
    let found = diff(&a, &b, &mut |done, total| {
        progress.set(done, total);
        ControlFlow::Continue(())
    })?;
    drop(progress);
    if as_json {
        json(&object(&found))?
    } else {
        text(&report(&found, a.name(), b.name()))?
    }
    Ok(())
}

fn object(found: &Diff<'_>) -> serde_json::Value {
    let value = |v: Option<&Value>| v.map(|v| json!({"type": v.type_name(), "value": v.to_string()}));
    let shape = |s: &Option<Shape<'_>>| s.as_ref().map(|s| json!({"type": s.kind, "dims": s.dims}));
    let key =
        |k: &Key<'_>| json!({"key": k.key, "a": value(k.a), "b": value(k.b), "first_difference": k.first_difference()});
    json!({
        "keys": found.keys.iter().map(key).collect::<Vec<_>>(),
        "tensors": found.tensors.iter().map(|t| {
            json!({"name": t.name, "a": shape(&t.a), "b": shape(&t.b), "error": t.error})
        }).collect::<Vec<_>>(),
        "same_tensors": found.same_tensors,
    })
}

fn report(found: &Diff<'_>, a: &str, b: &str) -> String {
    let mut out = String::new();
    // Writing to a String cannot fail.
    let _ = writeln!(out, "- {}\n+ {}", printable(a), printable(b));
    for k in &found.keys {
        for (sign, value) in [('-', k.a), ('+', k.b)] {
            let Some(value) = value else { continue };
            let _ = writeln!(
                out,
                "{sign} {} = {} ({})",
                printable(k.key),
                printable(&value.to_string()),
                value.type_name()
            );
        }
        if let Some(at) = k.first_difference() {
            let _ = writeln!(out, "  the first element that differs is number {at}");
        }
    }
    for t in &found.tensors {
        let shape = |s: &Shape<'_>| format!("{} {:?}", s.kind, s.dims);
        let name = printable(t.name);
        let _ = match (&t.a, &t.b, t.error) {
            (Some(a), Some(b), Some(error)) if a.kind == b.kind => {
                writeln!(out, "~ {name}: {}, values {:.3} % apart", shape(b), 100.0 * error)
            }
            (Some(a), Some(b), Some(error)) => {
                writeln!(out, "~ {name}: {} from {}, values {:.3} % apart", shape(b), a.kind, 100.0 * error)
            }
            (Some(a), Some(b), None) => writeln!(out, "~ {name}: {} from {}", shape(b), shape(a)),
            (a, b, _) => a
                .iter()
                .map(|a| ('-', a))
                .chain(b.iter().map(|b| ('+', b)))
                .try_for_each(|(sign, s)| writeln!(out, "{sign} {name}: {}", shape(s))),
        };
    }
    let _ = match found.is_empty() {
        true => writeln!(out, "the same keys, and the same {} tensors", found.same_tensors),
        false => writeln!(
            out,
            "{} keys and {} tensors differ, {} tensors are the same",
            found.keys.len(),
            found.tensors.len(),
            found.same_tensors
        ),
    };
    out
}
