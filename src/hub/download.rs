//! One file into the cache: resumed where an earlier attempt ended, checked, and only then there.

use super::cache::{Repository, make_folder};
use super::choose::RemoteFile;
use super::http::Http;
use crate::cpu::Control;
use crate::error::{Error, Result};
use sha1::Sha1;
use sha2::{Digest, Sha256};
use std::cell::RefCell;
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, Write};

/// The sum that the hub names a file by.
enum Sum {
    /// Of a file in large file storage.
    Sha256(Sha256),
    /// Of one that git keeps: its object's name.
    Git(Sha1),
}

impl Sum {
    fn new(file: &RemoteFile) -> Self {
        match file.hash.len() {
            40 => Self::Git(Sha1::new_with_prefix(format!("blob {}\0", file.size))),
            _ => Self::Sha256(Sha256::new()),
        }
    }

    fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha256(sum) => sum.update(bytes),
            Self::Git(sum) => sum.update(bytes),
        }
    }

    fn finish(self) -> String {
        let hex = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect();
        match self {
            Self::Sha256(sum) => hex(&sum.finalize()),
            Self::Git(sum) => hex(&sum.finalize()),
        }
    }
}

/// Downloads a file's contents.
///
/// # Errors
/// [`Error::Download`] if they cannot be had or are not those that the hub names; [`Error::Io`] for the cache;
/// [`Error::Cancelled`]. What came until then is kept, unless it is wrong.
pub(super) fn download(
    http: &Http<'_>,
    url: &str,
    repository: &Repository,
    file: &RemoteFile,
    control: &Control,
) -> Result<()> {
    let blob = repository.blob(file);
    make_folder(&blob)?;
    let _lock = repository.lock(file)?;
    if repository.has(file) {
        return control.advance(file.size as usize);
    }
    let mut partial = blob.clone().into_os_string();
    partial.push(".incomplete");
    let io = |e| Error::io(&partial, e);
    let mut out = OpenOptions::new().create(true).truncate(false).read(true).write(true).open(&partial).map_err(io)?;
    let mut sum = Sum::new(file);
    let mut at = resume(&mut out, file, &mut sum, control).map_err(io)?;
    control.advance(at as usize)?;
    let (shared, summed) = (RefCell::new(&mut out), RefCell::new(sum));
    let restart = || {
        let mut out = shared.borrow_mut();
        *summed.borrow_mut() = Sum::new(file);
        out.set_len(0).and_then(|()| out.rewind()).map_err(io)
    };
    let on_bytes = |bytes: &[u8]| {
        summed.borrow_mut().update(bytes);
        shared.borrow_mut().write_all(bytes).map_err(io)?;
        control.advance(bytes.len())
    };
    if at < file.size {
        http.file(url, &mut at, control, restart, on_bytes, file.size)?;
    }
    let found = summed.into_inner().finish();
    if !found.eq_ignore_ascii_case(&file.hash) {
        drop(out);
        fs::remove_file(&partial).map_err(io)?;
        let reason =
            format!("has the sum {found}, and the hub says {}: it was damaged on the way; try again", file.hash);
        return Err(Error::download(url, reason));
    }
    out.sync_all().map_err(io)?;
    fs::rename(&partial, &blob).map_err(io)
}

/// Reads what an earlier attempt left; more than the file has is none of it.
fn resume(out: &mut File, file: &RemoteFile, sum: &mut Sum, control: &Control) -> std::io::Result<u64> {
    let len = out.metadata()?.len();
    if len > file.size {
        out.set_len(0)?;
        return Ok(0);
    }
    let mut buffer = vec![0; 1 << 20];
    let mut at = 0;
    while at < len && !control.is_cancelled() {
        let n = out.read(&mut buffer)?;
        if n == 0 {
            break;
        }
        sum.update(&buffer[..n]);
        at += n as u64;
    }
    Ok(at)
}
