//! Writing files so that a crash leaves the old one whole.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

/// Writes `path` by `write`: into a temporary file beside it, which takes its place when complete. A link is followed;
/// what is no regular file (a pipe, a device) is written directly.
///
/// # Errors
/// What `write` or the system returns; a regular file is then as it was.
pub fn replace(path: &Path, write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> io::Result<()> {
    let target = match fs::metadata(path) {
        Ok(m) if !m.is_file() => {
            let mut out = BufWriter::new(OpenOptions::new().write(true).open(path)?);
            write(&mut out)?;
            return out.flush();
        }
        Ok(_) => fs::canonicalize(path)?,
        Err(_) => path.to_owned(),
    };
    let (partial, file) = create_beside(&target)?;
    let finish = || {
        let mut out = BufWriter::new(file);
        write(&mut out)?;
        out.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
        fs::rename(&partial, &target)
    };
    finish().inspect_err(|_| {
        // Nothing more can be done about a partial file that can't be removed either.
        let _ = fs::remove_file(&partial);
    })
}

/// A new file whose name nobody else uses.
fn create_beside(target: &Path) -> io::Result<(PathBuf, File)> {
    for i in 0.. {
        let mut name = target.as_os_str().to_owned();
        name.push(format!(".{}-{i}.partial", std::process::id()));
        match OpenOptions::new().write(true).create_new(true).open(&name) {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists && i < 1000 => continue,
            result => return Ok((name.into(), result?)),
        }
    }
    unreachable!("the loop above returns")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_replaced_whole_links_followed_and_failures_leave_nothing() {
        let dir = std::env::temp_dir().join(format!("llava-replace-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let path = dir.join("a");
        replace(&path, |out| out.write_all(b"one")).unwrap();
        let failed = replace(&path, |out| {
            out.write_all(b"two")?;
            Err(io::Error::other("no"))
        });
        assert!(failed.is_err());
        assert_eq!(fs::read(&path).unwrap(), b"one");
        #[cfg(unix)]
        {
            let link = dir.join("link");
            std::os::unix::fs::symlink(&path, &link).unwrap();
            replace(&link, |out| out.write_all(b"three")).unwrap();
            assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
            assert_eq!(fs::read(&path).unwrap(), b"three");
            fs::remove_file(&link).unwrap();
            replace(Path::new("/dev/null"), |out| out.write_all(b"gone")).unwrap();
            assert!(!fs::metadata("/dev/null").unwrap().is_file());
        }
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 1, "no partial file is left");
        fs::remove_dir_all(&dir).unwrap();
    }
}
