//! The cache of Hugging Face's tools: contents in `blobs`, named by their hash, and links to them in `snapshots`, by commit.

use super::choose::RemoteFile;
use super::{Snapshot, Spec};
use crate::error::{Error, Result};
use std::fs::{self, File, OpenOptions};
use std::path::{Component, Path, PathBuf};

/// A repository's part of the cache.
pub(super) struct Repository {
    folder: PathBuf,
    locks: PathBuf,
}

/// Whether a path of a repository stays inside the folder that it is put in.
pub(super) fn is_inside(name: &str) -> bool {
    let plain = |part: &str| !part.is_empty() && part.len() <= 255 && !part.contains(['\\', ':', '\0']);
    !name.is_empty()
        && name.split('/').all(plain)
        && Path::new(name).components().all(|c| matches!(c, Component::Normal(_)))
}

/// Whether a text is one name of a file.
pub(super) fn is_plain(name: &str) -> bool {
    is_inside(name) && !name.contains('/')
}

impl Repository {
    pub(super) fn new(cache: &Path, spec: &Spec) -> Self {
        let name = format!("models--{}", spec.repository.replace('/', "--"));
        Self { folder: cache.join(&name), locks: cache.join(".locks").join(name) }
    }

    /// Where a commit's files are.
    pub(super) fn snapshot(&self, commit: &str) -> PathBuf {
        self.folder.join("snapshots").join(commit)
    }

    pub(super) fn blob(&self, file: &RemoteFile) -> PathBuf {
        self.folder.join("blobs").join(&file.hash)
    }

    /// Whether the contents of a file are there; they were checked when they came.
    pub(super) fn has(&self, file: &RemoteFile) -> bool {
        fs::metadata(self.blob(file)).is_ok_and(|m| m.is_file() && m.len() == file.size)
    }

    /// Waits until nobody else downloads a file, and keeps others from it until the lock is dropped. Python's `filelock` locks
    /// the same file.
    pub(super) fn lock(&self, file: &RemoteFile) -> Result<File> {
        let path = self.locks.join(format!("{}.lock", file.hash));
        make_folder(&path)?;
        let lock =
            OpenOptions::new().create(true).truncate(false).write(true).open(&path).map_err(|e| Error::io(&path, e))?;
        lock.lock().map_err(|e| Error::io(&path, e))?;
        Ok(lock)
    }

    /// Puts a file under its name.
    pub(super) fn link(&self, commit: &str, file: &RemoteFile) -> Result<()> {
        let path = self.snapshot(commit).join(&file.name);
        make_folder(&path)?;
        if path.exists() {
            return Ok(());
        }
        // A link whose contents are gone.
        let _ = fs::remove_file(&path);
        // As Hugging Face's tools have it, so that the cache can be moved.
        let up = "../".repeat(file.name.split('/').count() + 1);
        let target = PathBuf::from(format!("{up}blobs/{}", file.hash));
        #[cfg(unix)]
        let linked = std::os::unix::fs::symlink(target, &path);
        #[cfg(not(unix))]
        let linked = fs::hard_link(path.parent().unwrap_or(&path).join(target), &path);
        match linked {
            // Another process was faster.
            Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
            other => other.map_err(|e| Error::io(&path, e)),
        }
    }

    /// Notes which commit a branch is at.
    pub(super) fn remember(&self, revision: &str, commit: &str) -> Result<()> {
        if revision == commit {
            return Ok(());
        }
        let path = self.folder.join("refs").join(revision);
        make_folder(&path)?;
        crate::replace(&path, |out| out.write_all(commit.as_bytes())).map_err(|e| Error::io(&path, e))
    }

    /// The commit and the files that are there, without asking anybody.
    pub(super) fn cached(&self, spec: &Spec) -> Result<Snapshot> {
        let noted = fs::read_to_string(self.folder.join("refs").join(&spec.revision));
        let commit = noted.map_or_else(|_| spec.revision.clone(), |c| c.trim().to_owned());
        let snapshot = self.snapshot(&commit);
        let mut files = Vec::new();
        if is_plain(&commit) {
            list(&snapshot, "", &mut files);
        }
        if files.is_empty() {
            let reason = format!(
                "{} is not in the cache ({}), and HF_HUB_OFFLINE keeps it from being downloaded",
                spec.repository,
                self.folder.display()
            );
            return Err(Error::download("model", reason));
        }
        Ok(Snapshot { commit, files, cached: true })
    }
}

fn list(folder: &Path, prefix: &str, files: &mut Vec<RemoteFile>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
        match fs::metadata(entry.path()) {
            Ok(m) if m.is_dir() && prefix.split('/').count() < 8 => list(&entry.path(), &format!("{name}/"), files),
            Ok(m) if m.is_file() => files.push(RemoteFile { name, size: m.len(), hash: String::new() }),
            // A link whose contents are gone.
            _ => {}
        }
    }
}

/// Makes the folder that a file is in.
pub(super) fn make_folder(path: &Path) -> Result<()> {
    match path.parent() {
        Some(folder) => fs::create_dir_all(folder).map_err(|e| Error::io(folder, e)),
        None => Ok(()),
    }
}
