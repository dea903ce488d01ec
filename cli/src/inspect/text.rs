//! The report for people.

use super::Report;
use super::contents::{Contents, Type};
use super::model::{KvCache, Runs, Template, Tower};
use crate::output::{heading, printable, size};
use std::fmt::Write;

/// Width of the column of names.
const NAMES: usize = 14;

/// The report as text, each file and what comes of them under a heading.
pub fn report(report: &Report) -> String {
    let mut out = Page(String::new());
    for file in &report.files {
        out.file(file);
    }
    if let Some(model) = &report.model {
        out.model(model);
    }
    if let Some(problem) = &report.problem {
        out.heading("Can't be run");
        out.line(&format!("  {}", printable(problem)));
    }
    out.0
}

struct Page(String);

impl Page {
    fn line(&mut self, text: &str) {
        self.0.push_str(text.trim_end());
        self.0.push('\n');
    }

    fn heading(&mut self, text: &str) {
        if !self.0.is_empty() {
            self.0.push('\n');
        }
        self.line(&heading(text));
    }

    fn row(&mut self, name: &str, value: &str) {
        self.line(&format!("  {name:NAMES$}{value}"));
    }

    fn file(&mut self, c: &Contents) {
        self.heading(&printable(&c.file));
        let architecture = c.architecture.as_deref().unwrap_or("not stated");
        let mmproj = if architecture == "clip" { " (an mmproj)" } else { "" };
        self.row("architecture", &format!("{}{mmproj}", printable(architecture)));
        if let Some(name) = &c.name {
            self.row("name", &printable(name));
        }
        self.row("format", &format!("GGUF {}", c.gguf_version));
        let mut label = "geometry";
        let width = c.geometry.iter().map(|(key, _)| key.chars().count()).max().unwrap_or(0);
        for (key, value) in &c.geometry {
            self.row(label, &format!("{:width$}  {}", printable(key), printable(&value.to_string())));
            label = "";
        }
        if let Some(t) = &c.tokenizer {
            let pre = t.pre.as_ref().map(|pre| format!(", pre-tokenizer {}", printable(pre))).unwrap_or_default();
            let template = if t.chat_template { ", with a chat template" } else { "" };
            self.row("tokenizer", &format!("{}{pre}, {} tokens{template}", printable(&t.model), t.tokens));
        }
        self.types(c);
        for key in c.keys.iter().flatten() {
            self.line(&format!("  {} = {} ({})", printable(&key.key), printable(&key.value), key.kind));
        }
        for t in c.tensors.iter().flatten() {
            self.line(&format!("  {:8}{:>12}  {} {:?}", t.kind, size(t.bytes as u64), printable(&t.name), t.dims));
        }
    }

    fn types(&mut self, c: &Contents) {
        if c.types.is_empty() {
            return self.row("weights", "none");
        }
        let bits = if c.types.iter().all(|t| t.supported) && c.values > 0 {
            format!(", {:.2} bits a value", c.bytes as f64 * 8.0 / c.values as f64)
        } else {
            String::new()
        };
        self.row("weights", &format!("{} values, {}{bits}", c.values, size(c.bytes)));
        self.row("", "type      tensors         values       bytes   share");
        for t in &c.types {
            self.row("", &type_row(t, c.bytes));
        }
    }

    fn model(&mut self, m: &Runs) {
        self.heading("Runs");
        if let Some(tower) = &m.vision {
            self.tower(tower);
        }
        self.image_tokens(m);
        if let Some(template) = &m.template {
            self.template(template);
        }
        self.row("memory", &format!("{} of weights, mapped", size(m.memory.weights)));
        if let Some(KvCache { context, bytes, bytes_per_1024 }) = &m.memory.kv_cache {
            let (all, each) = (size(*bytes), size(*bytes_per_1024));
            self.row("", &format!("{all} of KV cache at {context} positions, {each} for each 1024"));
        }
    }

    fn tower(&mut self, t: &Tower) {
        let Tower { kind, image_size, patch_size, patches, width, blocks, heads, .. } = t;
        self.row("vision", &format!("{kind}, {image_size}×{image_size} pixels in {patches} patches of {patch_size}"));
        self.row("", &format!("{blocks} blocks stored, {width} wide, {heads} heads"));
        let layers: Vec<_> = t.feature_layers.iter().map(ToString::to_string).collect();
        self.row("features", &format!("of layer {}: {}", layers.join(", "), t.feature_rule));
        self.row("projector", t.projector);
        self.row("images are", &t.fit);
    }

    fn image_tokens(&mut self, m: &Runs) {
        let Some(first) = m.image_tokens.first() else {
            return self.row("images", "none: there is no mmproj");
        };
        if m.image_tokens.iter().all(|i| i.tokens == first.tokens) {
            return self.row("image tokens", &format!("{} for an image of any size", first.tokens));
        }
        let mut label = "image tokens";
        for i in &m.image_tokens {
            self.row(label, &format!("{:5} for {} × {} pixels", i.tokens, i.width, i.height));
            label = "";
        }
    }

    fn template(&mut self, t: &Template) {
        self.row("template", &format!("{}: {}", t.name, printable(&t.reason)));
        for line in t.sample.lines() {
            self.row("", &format!("│ {}", printable(line)));
        }
    }
}

fn type_row(t: &Type, total: u64) -> String {
    let mut row = format!("{:8} {:8} {:14}", t.name, t.tensors, t.values);
    // Writing to a String does not fail.
    let _ = if t.supported {
        write!(row, " {:>11} {:6.1}%", size(t.bytes), t.bytes as f64 * 100.0 / total.max(1) as f64)
    } else {
        write!(row, "  not supported")
    };
    row
}
