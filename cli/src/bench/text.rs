//! What was measured, as a table for people.

use super::report::{Limit, Limits, Report, Spread};
use crate::output;
use std::fmt::Write;

/// What stands in a row of the table.
struct Row {
    work: String,
    rate: Spread,
    unit: &'static str,
    achieved: String,
    limit: String,
}

/// The report as text.
pub fn table(report: &Report) -> String {
    let mut out = String::new();
    let mut line = |name: &str, value: &str| {
        let _ = writeln!(out, "{name:<8}  {value}");
    };
    line("model", &report.model);
    line("mmproj", report.mmproj.as_deref().unwrap_or("none"));
    line("threads", &report.threads.to_string());
    line("kernels", &report.kernels.join(", "));
    line("load", &format!("{} ms ({})", number(report.load.median), range(report.load)));
    if let Some(bytes) = report.peak_rss_bytes {
        line("memory", &format!("{} at most, mapped files included", output::size(bytes)));
    }
    if let Some(m) = &report.machine {
        let bf16 = m.bf16_gf_s.map_or("no bf16 instructions".to_owned(), |v| format!("bf16 {} Gop/s", number(v)));
        let (read, int8, f32) = (number(m.read_gb_s), number(m.int8_gop_s), number(m.f32_gf_s));
        line("machine", &format!("reads {read} GB/s, int8 {int8} Gop/s, {bf16}, f32 {f32} Gop/s"));
        write_rows(&mut out, &rows(report, m));
    }
    out
}

fn rows(report: &Report, machine: &Limits) -> Vec<Row> {
    let operations = |gop_s: f64, limit: Limit| {
        let (most, name) = machine.of(limit);
        (format!("{} Gop/s", number(gop_s)), format!("{:.0} % of {name}", 100.0 * gop_s / most))
    };
    let bytes = |gb_s: f64| {
        let percent = 100.0 * gb_s / machine.read_gb_s;
        (format!("{} GB/s", number(gb_s)), format!("{percent:.0} % of reading"))
    };
    let row = |work: String, rate: Spread, unit, (achieved, limit)| Row { work, rate, unit, achieved, limit };
    let mut rows = Vec::new();
    for e in report.encode.iter().chain(&report.encode_tiles) {
        let tiles = if e.tiles == 1 { "an image".to_owned() } else { format!("an image of {} tiles", e.tiles) };
        rows.push(row(format!("encode {tiles}"), e.ms, "ms", operations(e.gop_s, e.limit)));
    }
    for p in &report.prefill {
        rows.push(row(format!("prefill {}", p.tokens), p.tokens_per_s, "tokens/s", operations(p.gop_s, p.limit)));
    }
    for d in &report.decode {
        let work = format!("decode {} after {}", d.tokens, d.after);
        rows.push(row(work, d.tokens_per_s, "tokens/s", bytes(d.gb_s)));
    }
    for b in &report.batch {
        // Whichever limit it is closer to.
        let (most, _) = machine.of(b.limit);
        let memory = b.gb_s / machine.read_gb_s > b.gop_s / most;
        let achieved = if memory { bytes(b.gb_s) } else { operations(b.gop_s, b.limit) };
        rows.push(row(format!("batch of {}", b.n), b.tokens_per_s, "tokens/s", achieved));
    }
    rows
}

fn write_rows(out: &mut String, rows: &[Row]) {
    if rows.is_empty() {
        return;
    }
    let head = format!("{:<24}{:>10} {:<9} {:<17} {:<12} of the limit", "", "median", "", "min–max", "achieved");
    let _ = writeln!(out, "\n{}", output::heading(&head));
    for Row { work, rate, unit, achieved, limit } in rows {
        let (median, range) = (number(rate.median), range(*rate));
        let _ = writeln!(out, "{work:<24}{median:>10} {unit:<9} {range:<17} {achieved:<12} {limit}");
    }
}

fn range(spread: Spread) -> String {
    format!("{}–{}", number(spread.min), number(spread.max))
}

/// Three digits that count.
fn number(value: f64) -> String {
    match value {
        v if v >= 100.0 => format!("{v:.0}"),
        v if v >= 10.0 => format!("{v:.1}"),
        v => format!("{v:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_three_digits() {
        assert_eq!([1234.56, 99.96, 12.345, 0.1234].map(number), ["1235", "100.0", "12.3", "0.12"]);
    }
}
