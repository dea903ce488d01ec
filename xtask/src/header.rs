//! The C header.

use crate::{Result, root};

/// Writes include/llava.h.
pub fn write() -> Result<()> {
    std::fs::write(root().join("include/llava.h"), text()?).map_err(|e| format!("include/llava.h: {e}").into())
}

/// What include/llava.h should be.
fn text() -> Result<String> {
    let folder = root().join("capi");
    let mut config = cbindgen::Config::from_file(folder.join("cbindgen.toml"))?;
    config.after_includes = Some(definitions());
    let mut bytes = Vec::new();
    cbindgen::Builder::new().with_crate(folder).with_config(config).generate()?.write(&mut bytes);
    Ok(String::from_utf8(bytes)?)
}

/// What the compiler of a program must know before the declarations.
fn definitions() -> String {
    format!(
        "
#define LLAVA_VERSION_MAJOR {}
#define LLAVA_VERSION_MINOR {}
#define LLAVA_VERSION_PATCH {}

/* As the size of a text: it ends at its first NUL. */
#define LLAVA_NUL_TERMINATED SIZE_MAX

/* Define LLAVA_STATIC to link libllava.a on Windows. */
#if defined(_WIN32) && !defined(LLAVA_STATIC)
#define LLAVA_API __declspec(dllimport)
#else
#define LLAVA_API
#endif",
        env!("CARGO_PKG_VERSION_MAJOR"),
        env!("CARGO_PKG_VERSION_MINOR"),
        env!("CARGO_PKG_VERSION_PATCH")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_committed_header_is_that_of_the_sources() {
        let committed = std::fs::read_to_string(root().join("include/llava.h")).unwrap();
        assert!(committed == text().unwrap(), "include/llava.h is not that of capi/src: run `cargo xtask header`");
    }
}
