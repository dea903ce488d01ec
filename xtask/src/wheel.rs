//! The Python wheel: the package of bindings/python and the shared library in one archive, as PyPA's "Binary distribution
//! format" describes it. The same sources and the same library give the same bytes.

use crate::{Result, install, root};
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use object::Endianness;
use object::elf::{DT_NEEDED, FileHeader64};
use object::read::elf::{Dyn, FileHeader};
use sha2::{Digest, Sha256};
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::io::{Cursor, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, DateTime, ZipWriter};

/// What PEP 599 and 600 let a manylinux wheel need of the system.
const SYSTEM: [&str; 7] =
    ["libc.so.6", "libm.so.6", "libdl.so.2", "libpthread.so.0", "librt.so.1", "libgcc_s.so.1", "ld-linux-x86-64.so.2"];

/// manylinux2014, the oldest that installers still look for.
const OLDEST_GLIBC: u32 = 17;

/// Builds the library and writes the wheel to dist/.
pub fn write() -> Result<()> {
    let package = root().join("bindings/python");
    let project = Project::read(&package)?;
    let library = fs::read(strip(&install::build("release")?.folder.join("libllava.so"))?)?;
    let tag = format!("py3-none-manylinux_2_{}_{}", glibc(&library)?, std::env::consts::ARCH);
    let info = format!("{}-{}.dist-info", project.name, project.version);

    let mut files = Vec::new();
    for path in sources(&package.join(&project.name))? {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        files.push(Entry::new(format!("{}/{name}", project.name), fs::read(&path)?));
    }
    let library = Entry::new(format!("{}/libllava.so.{}", project.name, install::abi()), library);
    files.push(Entry { executable: true, ..library });
    for license in LICENSES {
        files.push(Entry::new(format!("{info}/licenses/{license}"), fs::read(root().join(license))?));
    }
    files.push(Entry::new(format!("{info}/METADATA"), project.metadata.into_bytes()));
    let wheel = format!("Wheel-Version: 1.0\nGenerator: llava xtask\nRoot-Is-Purelib: false\nTag: {tag}\n");
    files.push(Entry::new(format!("{info}/WHEEL"), wheel.into_bytes()));
    files.push(record(&files, &info));

    let dist = root().join("dist");
    fs::create_dir_all(&dist)?;
    let to = dist.join(format!("{}-{}-{tag}.whl", project.name, project.version));
    let part = to.with_extension("whl.part");
    fs::write(&part, archive(&files)?)?;
    fs::rename(&part, &to)?;
    println!("{}", to.canonicalize()?.display());
    Ok(())
}

const LICENSES: [&str; 2] = ["LICENSE-APACHE", "LICENSE-MIT"];

struct Entry {
    name: String,
    data: Vec<u8>,
    executable: bool,
}

impl Entry {
    fn new(name: String, data: Vec<u8>) -> Self {
        Self { name, data, executable: false }
    }
}

/// What pyproject.toml says.
struct Project {
    name: String,
    version: String,
    metadata: String,
}

impl Project {
    fn read(package: &Path) -> Result<Self> {
        let file = package.join("pyproject.toml");
        let document: toml::Table = fs::read_to_string(&file)?.parse()?;
        let project = document.get("project").and_then(|p| p.as_table()).ok_or("pyproject.toml has no [project]")?;
        let text = |key: &str| -> Result<&str> {
            let value = project.get(key).and_then(|v| v.as_str());
            value.ok_or_else(|| format!("{}: project.{key} is no text", file.display()).into())
        };
        let list =
            |key: &str| project.get(key).and_then(|v| v.as_array()).into_iter().flatten().filter_map(|v| v.as_str());
        let (name, version) = (text("name")?, text("version")?);
        if version != env!("CARGO_PKG_VERSION") {
            return Err(format!(
                "{}: version {version}, the workspace's is {}",
                file.display(),
                env!("CARGO_PKG_VERSION")
            )
            .into());
        }

        let mut m = String::new();
        writeln!(m, "Metadata-Version: 2.4\nName: {name}\nVersion: {version}\nSummary: {}", text("description")?)?;
        writeln!(m, "Keywords: {}", list("keywords").collect::<Vec<_>>().join(","))?;
        writeln!(m, "License-Expression: {}", text("license")?)?;
        for license in LICENSES {
            writeln!(m, "License-File: {license}")?;
        }
        for classifier in list("classifiers") {
            writeln!(m, "Classifier: {classifier}")?;
        }
        for (label, url) in project.get("urls").and_then(|u| u.as_table()).into_iter().flatten() {
            writeln!(m, "Project-URL: {label}, {}", url.as_str().unwrap_or_default())?;
        }
        writeln!(m, "Requires-Python: {}\nDescription-Content-Type: text/markdown", text("requires-python")?)?;
        write!(m, "\n{}", fs::read_to_string(package.join(text("readme")?))?)?;
        Ok(Self { name: name.to_owned(), version: version.to_owned(), metadata: m })
    }
}

/// The package's own files, in order.
fn sources(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut paths: Vec<PathBuf> = fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
    paths.retain(|path| path.extension().is_some_and(|e| e == "py" || e == "typed"));
    paths.sort();
    Ok(paths)
}

/// A stripped copy of the library, or where there is no strip the library itself.
fn strip(library: &Path) -> Result<PathBuf> {
    let stripped = library.with_extension("so.stripped");
    match Command::new("strip").arg("--strip-unneeded").arg("-o").arg(&stripped).arg(library).status() {
        Ok(status) if status.success() => Ok(stripped),
        Ok(status) => Err(format!("strip: {status}").into()),
        Err(e) => {
            eprintln!("strip: {e}; the wheel carries the library with its debug information");
            Ok(library.to_owned())
        }
    }
}

/// The minor version of the oldest glibc 2 that has every symbol the library needs. An error if it needs what not every
/// Linux has.
fn glibc(library: &[u8]) -> Result<u32> {
    let elf = FileHeader64::<Endianness>::parse(library)?;
    let endian = elf.endian()?;
    let sections = elf.sections(endian, library)?;

    let (dynamic, link) = sections.dynamic(endian, library)?.ok_or("the library is not linked dynamically")?;
    let strings = sections.strings(endian, library, link)?;
    for entry in dynamic {
        if entry.d_tag(endian) == DT_NEEDED {
            let name = entry.string(endian, strings)?;
            if !SYSTEM.iter().any(|system| system.as_bytes() == name) {
                return Err(format!("the library needs {}, which not every Linux has", name.escape_ascii()).into());
            }
        }
    }

    let mut minors = BTreeSet::from([OLDEST_GLIBC]);
    if let Some((mut files, link)) = sections.gnu_verneed(endian, library)? {
        let strings = sections.strings(endian, library, link)?;
        while let Some((_, mut versions)) = files.next()? {
            while let Some(version) = versions.next()? {
                let name = std::str::from_utf8(version.name(endian, strings)?)?;
                if let Some(number) = name.strip_prefix("GLIBC_2.") {
                    let minor = number.split('.').next().unwrap_or_default();
                    minors.insert(minor.parse().map_err(|_| format!("the library needs symbols of {name}"))?);
                }
            }
        }
    }
    Ok(minors.last().copied().unwrap_or(OLDEST_GLIBC))
}

/// The list of all files, itself included, with their hashes.
fn record(files: &[Entry], info: &str) -> Entry {
    let mut lines = String::new();
    for Entry { name, data, .. } in files {
        let hash = BASE64_URL_SAFE_NO_PAD.encode(Sha256::digest(data));
        lines += &format!("{name},sha256={hash},{}\n", data.len());
    }
    let name = format!("{info}/RECORD");
    lines += &format!("{name},,\n");
    Entry::new(name, lines.into_bytes())
}

fn archive(files: &[Entry]) -> Result<Vec<u8>> {
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    for Entry { name, data, executable } in files {
        let options = SimpleFileOptions::default()
            .compression_method(CompressionMethod::Deflated)
            .last_modified_time(DateTime::default())
            .unix_permissions(if *executable { 0o755 } else { 0o644 });
        zip.start_file(name.as_str(), options)?;
        zip.write_all(data)?;
    }
    Ok(zip.finish()?.into_inner())
}
