// Handles. What C holds is a number that was never given before, dressed as a pointer; the library looks it up in the
// table of its type. So a handle that was freed, or is of another type, or is no handle at all, is an error and not a
// read of foreign memory; and freeing one that another thread still uses waits for nobody: the table and each running
// call hold a reference each.

use crate::status::{Failure, Result, llava_status};
use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

/// A type of handles: the opaque type that C names.
pub trait Handle: Sized + 'static {
    /// What a handle stands for.
    type Value: Send + Sync + 'static;
    /// Its name in C.
    const NAME: &'static str;
    fn table() -> &'static Table<Self::Value>;
}

pub struct Table<T>(RwLock<Option<HashMap<usize, Arc<T>>>>);

impl<T> Table<T> {
    pub const fn new() -> Self {
        Self(RwLock::new(None))
    }
}

/// A new handle for `value`.
pub fn put<H: Handle>(value: H::Value) -> *mut H {
    static NEXT: AtomicUsize = AtomicUsize::new(1);
    // Multiples of 16, as addresses from malloc are; the first page, which is no address, stays free for NULL and mistakes.
    let handle = std::ptr::without_provenance_mut(4096 + 16 * NEXT.fetch_add(1, Ordering::Relaxed));
    put_as(handle, Arc::new(value));
    handle
}

/// Has `value` go by the name of `handle`.
pub fn put_as<H: Handle>(handle: *const H, value: Arc<H::Value>) {
    let mut table = H::table().0.write().unwrap_or_else(PoisonError::into_inner);
    table.get_or_insert_default().insert(handle.addr(), value);
}

/// What `handle` stands for.
pub fn get<H: Handle>(handle: *const H) -> Result<Arc<H::Value>> {
    let table = H::table().0.read().unwrap_or_else(PoisonError::into_inner);
    let found = table.as_ref().and_then(|t| t.get(&handle.addr())).cloned();
    found.ok_or_else(|| {
        let what = if handle.is_null() { "is NULL" } else { "was freed already, or is no such handle" };
        Failure::new(llava_status::InvalidHandle, format!("{}: {what}", H::NAME))
    })
}

/// Ends a handle; anything that is none is ignored. The value itself goes with the last call that uses it.
pub fn free<H: Handle>(handle: *mut H) {
    let mut table = H::table().0.write().unwrap_or_else(PoisonError::into_inner);
    let value = table.as_mut().and_then(|t| t.remove(&handle.addr()));
    // The value may take long to go, and may free handles itself. A defect in that must not unwind into C.
    drop(table);
    let _ = catch_unwind(AssertUnwindSafe(|| drop(value)));
}

/// Gives an opaque type of C's its table.
macro_rules! handle {
    ($name:ident => $value:ty) => {
        impl $crate::handle::Handle for $name {
            type Value = $value;
            const NAME: &'static str = stringify!($name);
            fn table() -> &'static $crate::handle::Table<$value> {
                static TABLE: $crate::handle::Table<$value> = $crate::handle::Table::new();
                &TABLE
            }
        }
    };
}
pub(crate) use handle;

#[cfg(test)]
mod tests {
    use super::*;

    struct thing;
    struct other;
    handle!(thing => u32);
    handle!(other => u32);

    struct Bomb;
    impl Drop for Bomb {
        fn drop(&mut self) {
            panic!("seeded");
        }
    }
    struct bomb;
    handle!(bomb => Bomb);

    #[test]
    fn a_value_that_panics_as_it_goes_does_not_unwind() {
        let b: *mut bomb = put(Bomb);
        free(b);
        assert!(get(b).is_err());
    }

    #[test]
    fn only_live_handles_of_the_type_are_found() {
        let a: *mut thing = put(7);
        let b: *mut thing = put(8);
        assert_eq!((*get(a).unwrap(), *get(b).unwrap()), (7, 8));
        free(a);
        free(a);
        free(b.cast::<other>());
        let held = get(b).unwrap();
        free(b);
        assert_eq!(*held, 8);
        for stale in [a, b, std::ptr::null_mut(), std::ptr::without_provenance_mut(1)] {
            assert_eq!(get(stale).unwrap_err().status, llava_status::InvalidHandle);
        }
        assert_ne!(put::<thing>(9), a);
    }
}
