//! x86-64 instruction sets.
