//! Describes images: `cargo run --release --example describe -- MODEL IMAGE...`

use llava::{Image, Model};

fn main() -> llava::Result<()> {
    let mut args = std::env::args_os().skip(1);
    let model = match args.next() {
        Some(path) => Model::open(std::path::PathBuf::from(path))?,
        None => Model::load()?,
    };
    for path in args {
        let image = Image::open(std::path::PathBuf::from(path))?;
        println!("{}: {}", image.name(), model.describe(&image)?);
    }
    Ok(())
}
