//! Lays the headers and libraries out as C and C++ builds look for them.

use crate::{Result, root};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Builds the libraries and writes include/, lib/, lib/pkgconfig/ and lib/cmake/ under `prefix`.
pub fn install(prefix: &Path, profile: &str) -> Result<()> {
    let built = build(profile)?;
    let lib = prefix.join("lib");
    for (folder, name) in [("include", "llava.h"), ("include", "llava.hpp")] {
        copy(&root().join(folder).join(name), &prefix.join(folder).join(name))?;
    }
    copy(&built.folder.join("libllava.a"), &lib.join("libllava.a"))?;
    if cfg!(target_os = "macos") {
        let real = format!("libllava.{}.dylib", abi());
        copy(&built.folder.join("libllava.dylib"), &lib.join(&real))?;
        link(&real, &lib.join("libllava.dylib"))?;
    } else {
        let (real, soname) = (format!("libllava.so.{VERSION}"), format!("libllava.so.{}", abi()));
        copy(&built.folder.join("libllava.so"), &lib.join(&real))?;
        link(&real, &lib.join(&soname))?;
        link(&soname, &lib.join("libllava.so"))?;
    }
    write(&lib.join("pkgconfig/llava.pc"), &pkg_config(&built.system_libraries))?;
    write(&lib.join("cmake/llava/llavaConfig.cmake"), &cmake_config(&built.system_libraries))?;
    write(&lib.join("cmake/llava/llavaConfigVersion.cmake"), &cmake_version())
}

/// The part of the version that the ABI depends on, as in capi/build.rs.
pub fn abi() -> String {
    format!("{}.{}", env!("CARGO_PKG_VERSION_MAJOR"), env!("CARGO_PKG_VERSION_MINOR"))
}

pub struct Built {
    pub folder: PathBuf,
    /// What a program that links libllava.a needs too, like `-lm`.
    system_libraries: Vec<String>,
}

pub fn build(profile: &str) -> Result<Built> {
    const NOTE: &str = "native-static-libs: ";
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.current_dir(root()).args(["rustc", "--package", "llava-capi", "--lib", "--profile", profile]);
    command.args(["--message-format", "json-render-diagnostics", "--", "--print", "native-static-libs"]);
    // Diagnostics go to standard error; what was built, to standard output.
    let output = command.stdin(Stdio::null()).stderr(Stdio::piped()).output()?;
    let diagnostics = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        return Err(format!("cargo rustc failed:\n{diagnostics}").into());
    }
    let note = diagnostics.lines().find_map(|line| line.split_once(NOTE));
    let (_, system_libraries) = note.ok_or("cargo named no native-static-libs")?;
    let messages = serde_json::Deserializer::from_slice(&output.stdout).into_iter::<serde_json::Value>();
    let mut library = None;
    for message in messages {
        let message = message?;
        let files = message["filenames"].as_array().into_iter().flatten().filter_map(|name| name.as_str());
        if let Some(found) = files.map(Path::new).find(|name| name.ends_with("libllava.a")) {
            library = Some(found.to_owned());
        }
    }
    let library = library.ok_or("cargo built no libllava.a")?;
    Ok(Built {
        folder: library.parent().ok_or("libllava.a lies nowhere")?.to_owned(),
        system_libraries: system_libraries.split_whitespace().map(str::to_owned).collect(),
    })
}

fn pkg_config(system_libraries: &[String]) -> String {
    format!(
        "\
# Found from where this file lies, so the tree can be moved.
prefix=${{pcfiledir}}/../..
libdir=${{prefix}}/lib
includedir=${{prefix}}/include

Name: llava
Description: Answers questions about images with LLaVA models in GGUF files
Version: {VERSION}
Libs: -L${{libdir}} -lllava
Libs.private: {}
Cflags: -I${{includedir}}
",
        system_libraries.join(" ")
    )
}

fn cmake_config(system_libraries: &[String]) -> String {
    let shared = match cfg!(target_os = "macos") {
        true => format!("libllava.{}.dylib", abi()),
        false => format!("libllava.so.{VERSION}"),
    };
    let soname = match cfg!(target_os = "macos") {
        true => format!("@rpath/libllava.{}.dylib", abi()),
        false => format!("libllava.so.{}", abi()),
    };
    format!(
        r#"# llava::llava, the shared library, and llava::static.
get_filename_component(_llava_prefix "${{CMAKE_CURRENT_LIST_DIR}}/../../.." ABSOLUTE)

if(NOT TARGET llava::llava)
  add_library(llava::llava SHARED IMPORTED)
  set_target_properties(llava::llava PROPERTIES
    IMPORTED_LOCATION "${{_llava_prefix}}/lib/{shared}"
    IMPORTED_SONAME "{soname}"
    INTERFACE_INCLUDE_DIRECTORIES "${{_llava_prefix}}/include")
endif()

if(NOT TARGET llava::static)
  add_library(llava::static STATIC IMPORTED)
  set_target_properties(llava::static PROPERTIES
    IMPORTED_LOCATION "${{_llava_prefix}}/lib/libllava.a"
    INTERFACE_COMPILE_DEFINITIONS "LLAVA_STATIC"
    INTERFACE_INCLUDE_DIRECTORIES "${{_llava_prefix}}/include"
    INTERFACE_LINK_LIBRARIES "{}")
endif()

unset(_llava_prefix)
"#,
        system_libraries.join(";")
    )
}

/// While the version is 0.x, another minor version is another library.
fn cmake_version() -> String {
    format!(
        r#"set(PACKAGE_VERSION "{VERSION}")
if(PACKAGE_FIND_VERSION VERSION_GREATER PACKAGE_VERSION)
  set(PACKAGE_VERSION_COMPATIBLE FALSE)
elseif(PACKAGE_FIND_VERSION_MAJOR EQUAL {} AND PACKAGE_FIND_VERSION_MINOR EQUAL {})
  set(PACKAGE_VERSION_COMPATIBLE TRUE)
  if(PACKAGE_FIND_VERSION VERSION_EQUAL PACKAGE_VERSION)
    set(PACKAGE_VERSION_EXACT TRUE)
  endif()
else()
  set(PACKAGE_VERSION_COMPATIBLE FALSE)
endif()
"#,
        env!("CARGO_PKG_VERSION_MAJOR"),
        env!("CARGO_PKG_VERSION_MINOR")
    )
}

fn make_folder_of(path: &Path) -> Result<()> {
    let folder = path.parent().ok_or("a file needs a folder")?;
    fs::create_dir_all(folder).map_err(|e| format!("{}: {e}", folder.display()).into())
}

/// Copies under another name and renames: programs that run keep the library they have.
fn copy(from: &Path, to: &Path) -> Result<()> {
    make_folder_of(to)?;
    let part = to.with_extension("part");
    fs::copy(from, &part).map_err(|e| format!("{} to {}: {e}", from.display(), part.display()))?;
    fs::rename(&part, to).map_err(|e| format!("{}: {e}", to.display()).into())
}

fn write(path: &Path, text: &str) -> Result<()> {
    make_folder_of(path)?;
    fs::write(path, text).map_err(|e| format!("{}: {e}", path.display()).into())
}

#[cfg(unix)]
fn link(target: &str, path: &Path) -> Result<()> {
    if path.symlink_metadata().is_ok() {
        fs::remove_file(path).map_err(|e| format!("{}: {e}", path.display()))?;
    }
    std::os::unix::fs::symlink(target, path).map_err(|e| format!("{}: {e}", path.display()).into())
}

#[cfg(not(unix))]
fn link(_: &str, path: &Path) -> Result<()> {
    Err(format!("{}: this system has no such links; copy the libraries by hand", path.display()).into())
}
