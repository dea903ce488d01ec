"""Writes src/tokenizer/unicode.rs. Needs `pip install unicodedata2==15.1.0`.

The version is llama.cpp's: probing it with a vocabulary that merges "a", "1" and "!" with any byte shows the class it
gives to each code point, and 15.1.0 is the one release that agrees on all of them.
"""

import sys

import unicodedata2

HEAD = '''//! General categories of Unicode {version}, the release that llama.cpp's tables come from.
//!
//! A table of its own, because a tokenizer must not change with the compiler: the standard library follows newer
//! releases, and has no test for the category `L`. Written by `tests/oracle/unicode_tables.py`.

/// General category `L`.
pub(super) fn is_letter(c: char) -> bool {{
    if c.is_ascii() {{ c.is_ascii_alphabetic() }} else {{ contains(&LETTERS, c) }}
}}

/// General category `N`.
pub(super) fn is_number(c: char) -> bool {{
    if c.is_ascii() {{ c.is_ascii_digit() }} else {{ contains(&NUMBERS, c) }}
}}

/// General category `P`.
pub(super) fn is_punctuation(c: char) -> bool {{
    contains(&PUNCTUATION, c)
}}

/// Whether `c` lies in one of the half-open ranges whose starts and ends alternate in `bounds`.
fn contains(bounds: &[u32], c: char) -> bool {{
    bounds.partition_point(|&b| b <= c as u32) % 2 == 1
}}
'''


def bounds(major):
    inside, out = False, []
    for point in range(0x110000):
        member = unicodedata2.category(chr(point))[0] == major
        if member != inside:
            out.append(point)
            inside = member
    return out


def main():
    assert unicodedata2.unidata_version == "15.1.0"
    out = [HEAD.format(version="15.1")]
    for name, major in (("LETTERS", "L"), ("NUMBERS", "N"), ("PUNCTUATION", "P")):
        values = bounds(major)
        out.append(f"\n#[rustfmt::skip]\nstatic {name}: [u32; {len(values)}] = [\n")
        for i in range(0, len(values), 12):
            out.append("    " + " ".join(f"{v:#x}," for v in values[i:i + 12]) + "\n")
        out.append("];\n")
    sys.stdout.write("".join(out))


main()
