//! Model files that are damaged, hostile, or merely odd: whatever a file says, loading and running it ends with an
//! answer or with an error that names the file and the field, in bounded time and memory.

mod container;
mod damage;
mod metadata;
mod published;
mod split;
mod support;
mod tensors;

/// Counts what is allocated, to notice a small file that asks for much memory.
#[global_allocator]
static ALLOCATOR: support::Counting = support::Counting;
