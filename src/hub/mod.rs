//! Models from the Hugging Face Hub, into the cache that its own tools use. Feature `hub`.
//!
//! The crate `hf-hub` is not used: since 1.0 it brings an asynchronous runtime, a C library for TLS and some 250 crates, and it
//! neither checks what it downloads nor works offline. The cache is laid out as `huggingface_hub` has it, so each finds what the
//! other downloaded.
//!
//! ```no_run
//! use llava::{Control, hub::Hub};
//!
//! let pair = Hub::from_env()?.pull("OWNER/REPO:Q4_K_M", &Control::default())?;
//! let model = llava::Model::builder(pair.model).load()?;
//! # Ok::<(), llava::Error>(())
//! ```

mod cache;
mod choose;
mod download;
mod http;
mod spec;

pub use choose::Offer;
pub use spec::Spec;

use crate::cpu::{Control, Stage};
use crate::error::{Error, Result};
use cache::Repository;
use choose::RemoteFile;
use http::{Http, Trouble};
use serde::Deserialize;
use std::env;
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

/// Where models come from, and where they are kept.
#[derive(Clone, Debug)]
pub struct Hub {
    /// The server, without a slash at the end; `https://huggingface.co` by default.
    pub endpoint: String,
    /// The cache's folder.
    pub cache: PathBuf,
    /// What proves who asks; sent to [`Hub::endpoint`] and to no other server.
    pub token: Option<String>,
    /// Takes what is in the cache and asks nobody. So does a hub that cannot be reached, with a warning.
    pub offline: bool,
    /// How long to wait before a request is tried again; each time twice as long, and five tries in all.
    pub pause: Duration,
}

/// A pair in the cache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pair {
    /// The language model; of a split one the first part.
    pub model: PathBuf,
    /// The mmproj that belongs to it, if the repository has one.
    pub mmproj: Option<PathBuf>,
}

/// A repository's files at a commit.
struct Snapshot {
    commit: String,
    files: Vec<RemoteFile>,
    /// They are those that the cache has, whether or not there are more.
    cached: bool,
}

/// What the hub's API says of a repository.
#[derive(Deserialize)]
struct Listing {
    sha: String,
    #[serde(default)]
    siblings: Vec<Sibling>,
}

#[derive(Deserialize)]
struct Sibling {
    rfilename: String,
    size: Option<u64>,
    #[serde(rename = "blobId")]
    blob_id: Option<String>,
    lfs: Option<Lfs>,
}

#[derive(Deserialize)]
struct Lfs {
    sha256: String,
    size: u64,
}

/// The longest listing that is read.
const MAX_LISTING: u64 = 64 << 20;

impl Hub {
    /// As the environment says, like Hugging Face's own tools: `HF_ENDPOINT`; `HF_HUB_CACHE`, else `HF_HOME`; `HF_TOKEN`, else
    /// the file that `huggingface-cli login` writes; `HF_HUB_OFFLINE`.
    ///
    /// # Errors
    /// [`Error::Download`] if there is neither a cache nor a home.
    pub fn from_env() -> Result<Self> {
        let path = |name: &str| env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
        let home = path("HF_HOME")
            .or_else(|| Some(path("XDG_CACHE_HOME")?.join("huggingface")))
            .or_else(|| Some(path("HOME").or(path("USERPROFILE"))?.join(".cache/huggingface")));
        let cache = path("HF_HUB_CACHE").or_else(|| Some(home.as_ref()?.join("hub")));
        let cache = cache.ok_or_else(|| Error::download("cache", "no folder to keep models in: set HF_HOME"))?;
        let text = |v: OsString| v.into_string().ok().map(|v| v.trim().to_owned()).filter(|v| !v.is_empty());
        let file = path("HF_TOKEN_PATH").or_else(|| Some(home?.join("token")));
        let login = || std::fs::read_to_string(file?).ok().map(|t| t.trim().to_owned()).filter(|t| !t.is_empty());
        let endpoint = env::var_os("HF_ENDPOINT").and_then(text);
        let endpoint = endpoint.unwrap_or_else(|| "https://huggingface.co".to_owned());
        let offline = env::var_os("HF_HUB_OFFLINE").and_then(text);
        Ok(Self {
            endpoint: endpoint.trim_end_matches('/').to_owned(),
            cache,
            token: env::var_os("HF_TOKEN").and_then(text).or_else(login),
            offline: offline.is_some_and(|v| ["1", "ON", "YES", "TRUE"].contains(&v.to_uppercase().as_str())),
            pause: Duration::from_millis(500),
        })
    }

    /// What a repository offers, the one that [`Hub::pull`] takes first.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for a specification that is none; [`Error::Download`].
    pub fn list(&self, spec: &str) -> Result<Vec<Offer>> {
        let spec: Spec = spec.parse()?;
        choose::offers(&self.files(&spec, &Control::default())?.files)
    }

    /// Downloads the pair that `spec`, `OWNER/REPO[@REVISION][:FILE or TYPE]`, names, or as much of it as is missing. Without a
    /// file or a type: Q4_K_M, or what is next to it, with the mmproj in F16. `control` can cancel; what was
    /// downloaded until then is kept, and so is it when a connection breaks.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for a specification that is none; [`Error::Download`] for a repository that cannot be reached
    /// or offers no such model, and for files that are not what the hub says they are; [`Error::Io`] for the cache;
    /// [`Error::Cancelled`].
    pub fn pull(&self, spec: &str, control: &Control) -> Result<Pair> {
        let spec: Spec = spec.parse()?;
        let Snapshot { commit, files, cached } = self.files(&spec, control)?;
        let repository = Repository::new(&self.cache, &spec);
        let chosen = choose::choose(&files, &spec)?;
        let wanted: Vec<&RemoteFile> = files
            .iter()
            .filter(|f| chosen.parts.contains(&f.name) || chosen.mmproj.as_ref() == Some(&f.name))
            .collect();
        if !cached {
            self.fetch(&spec, &repository, &commit, &wanted, control)?;
        }
        let path = |name: &String| repository.snapshot(&commit).join(name);
        Ok(Pair { model: path(&chosen.parts[0]), mmproj: chosen.mmproj.as_ref().map(path) })
    }

    /// The commit and its files: the hub's, or where that may not be or cannot be asked, the cache's.
    fn files(&self, spec: &Spec, control: &Control) -> Result<Snapshot> {
        let repository = Repository::new(&self.cache, spec);
        if self.offline {
            return repository.cached(spec);
        }
        let url =
            format!("{}/api/models/{}/revision/{}?blobs=true", self.endpoint, spec.repository, escape(&spec.revision));
        let body = match Http::new(self).text(&url, MAX_LISTING, control) {
            Ok(body) => body,
            Err(Trouble::Passing(reason)) => {
                let cached = repository.cached(spec).map_err(|_| Error::download(&url, &reason))?;
                log::warn!("{url}: {reason}: taking what is in the cache");
                return Ok(cached);
            }
            Err(last) => return Err(last.on(&url)),
        };
        let listing: Listing =
            serde_json::from_str(&body).map_err(|e| Error::download(&url, format!("the answer is no listing: {e}")))?;
        if !cache::is_plain(&listing.sha) {
            return Err(Error::download(&url, format!("{:?} is no commit", listing.sha)));
        }
        let files = listing.siblings.into_iter().filter_map(|s| {
            let (size, hash) = match s.lfs {
                Some(lfs) => (lfs.size, lfs.sha256),
                None => (s.size?, s.blob_id?),
            };
            // A name that leads out of the folder is nobody's model, and a hash is a file's name in the cache.
            (cache::is_inside(&s.rfilename) && hash.bytes().all(|b| b.is_ascii_hexdigit()) && !hash.is_empty())
                .then_some(RemoteFile { name: s.rfilename, size, hash })
        });
        Ok(Snapshot { commit: listing.sha, files: files.collect(), cached: false })
    }

    /// Downloads what is missing.
    fn fetch(
        &self,
        spec: &Spec,
        repository: &Repository,
        commit: &str,
        wanted: &[&RemoteFile],
        control: &Control,
    ) -> Result<()> {
        let missing: Vec<_> = wanted.iter().filter(|f| !repository.has(f)).collect();
        if !missing.is_empty() {
            let total: u64 = missing.iter().map(|f| f.size).sum();
            let _stage = control.begin(Stage::Download, usize::try_from(total).unwrap_or(usize::MAX))?;
            for file in missing {
                let name: Vec<_> = file.name.split('/').map(escape).collect();
                let url = format!("{}/{}/resolve/{commit}/{}", self.endpoint, spec.repository, name.join("/"));
                download::download(&Http::new(self), &url, repository, file, control)?;
            }
        }
        for file in wanted {
            repository.link(commit, file)?;
        }
        repository.remember(&spec.revision, commit)
    }
}

/// Characters that mean something else in a URL, as `%` and their number.
fn escape(text: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~".contains(&b);
    text.bytes().map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}
