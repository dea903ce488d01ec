//! `llava inspect`: what is in a model file, and what the engine makes of it.

mod contents;
mod diff;
mod model;
mod text;

use crate::args::InspectArgs;
use crate::failure::Failure;
use crate::{output, pull};
use contents::Contents;
use llava::gguf::File;
use llava::{Error, Model, Vision};
use model::Runs;
use serde::Serialize;
use std::path::{Path, PathBuf};

/// All that is known.
#[derive(Serialize)]
struct Report {
    files: Vec<Contents>,
    /// What the engine makes of the files.
    #[serde(skip_serializing_if = "Option::is_none")]
    model: Option<Runs>,
    /// Why the engine can't run them.
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<String>,
}

/// Runs the command.
///
/// # Errors
/// [`Failure::Run`] if nothing can be shown; a file that can't be run is none.
pub fn run(args: &InspectArgs) -> Result<(), Failure> {
    if let Some(first) = &args.diff {
        return diff::run(first, &args.path, args.json);
    }
    let mut args = args.clone();
    if let Some(pair) = pull::resolve(&args.path)? {
        args.path = pair.model;
        args.mmproj = args.mmproj.or(pair.mmproj);
    }
    let args = &args;
    let (files, result) = if args.path.is_dir() { pair(args)? } else { single(args)? };
    let (model, problem) = match result {
        Ok(model) => (Some(model), None),
        // The files are not to blame for an argument.
        Err(e @ Error::InvalidArgument { .. }) => return Err(e.into()),
        Err(e) => (None, Some(e.to_string())),
    };
    let files = files.iter().map(|file| Contents::new(file, args.keys, args.tensors)).collect();
    let report = Report { files, model, problem };
    if args.json {
        output::json(&report)?
    } else {
        output::text(&text::report(&report))?
    }
    Ok(())
}

type Found = (Vec<File>, Result<Runs, Error>);

/// A file, and the mmproj that would be used with it.
fn single(args: &InspectArgs) -> Result<Found, Failure> {
    let file = File::open(&args.path)?;
    if file.str("general.architecture").ok().flatten() == Some("clip") {
        let runs = Vision::from_gguf(&file).map(|vision| Runs::vision(&vision, &file));
        return Ok((vec![file], runs));
    }
    match load(args) {
        Ok(model) => {
            let mut files = vec![file];
            files.extend(model.files().1.map(File::open).transpose()?);
            let runs = Runs::model(&model, &files);
            Ok((files, Ok(runs)))
        }
        Err(e) => {
            let mut files = vec![file];
            files.extend(args.mmproj.as_ref().and_then(|path| File::open(path).ok()));
            Ok((files, Err(e)))
        }
    }
}

/// A folder's pair, or if there is none all its files.
fn pair(args: &InspectArgs) -> Result<Found, Failure> {
    match load(args) {
        Ok(model) => {
            let (lm, mmproj) = model.files();
            let files = std::iter::once(lm).chain(mmproj).map(File::open).collect::<Result<Vec<_>, _>>()?;
            let runs = Runs::model(&model, &files);
            Ok((files, Ok(runs)))
        }
        Err(e) => {
            let files: Vec<_> = models_in(&args.path)?.iter().filter_map(|path| File::open(path).ok()).collect();
            if files.is_empty() { Err(e.into()) } else { Ok((files, Err(e))) }
        }
    }
}

fn load(args: &InspectArgs) -> Result<Model, Error> {
    let mut builder = Model::builder(&args.path);
    if let Some(path) = &args.mmproj {
        builder = builder.mmproj(path);
    }
    if let Some(n) = args.ctx {
        builder = builder.context(n);
    }
    builder.load()
}

fn models_in(folder: &Path) -> Result<Vec<PathBuf>, Failure> {
    let entries = std::fs::read_dir(folder).map_err(|e| Failure::file(folder, e))?;
    let mut paths: Vec<_> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    paths.retain(|path| path.extension().is_some_and(|e| e.eq_ignore_ascii_case("gguf")));
    paths.sort();
    Ok(paths)
}
