//! The specification: every kernel as plainly as it can be written.
