//! What a person reads: pages with a picture, and the same picture as PNG.

mod canvas;
mod html;
mod picture;

use std::fs;
use std::path::Path;

use anyhow::Result;

use crate::run::Outcome;
pub(crate) use picture::Picture;

/// Writes `timeline.html` and `timeline.png` of a run.
pub(crate) fn write(folder: &Path, outcome: &Outcome, picture: &Picture) -> Result<()> {
    let mut svg = canvas::Svg::new(picture.size());
    picture.draw(&mut svg);
    fs::write(folder.join("timeline.html"), html::page(outcome, &svg.finish()))?;
    let mut png = canvas::Pixels::new(picture.size());
    picture.draw(&mut png);
    fs::write(folder.join("timeline.png"), png.finish()?)?;
    Ok(())
}
