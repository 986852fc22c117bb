//! Two surfaces to draw on: vectors for the page, pixels for the PNG.

use std::fmt::Write as _;

use anyhow::Result;
use font8x8::UnicodeFonts as _;

/// Red, green, blue.
pub(super) type Color = [u8; 3];

pub(super) trait Canvas {
    /// Fills a rectangle. `cover` is from 0, nothing, to 1.
    fn rect(&mut self, at: (f64, f64), size: (f64, f64), color: Color, cover: f64);
    fn line(&mut self, from: (f64, f64), to: (f64, f64), color: Color);
    /// Writes a line whose upper left corner is `at`.
    fn text(&mut self, at: (f64, f64), text: &str, color: Color);
}

/// Width of a letter, and height of a line, on either.
pub(super) const LETTER: f64 = 8.0;

pub(super) struct Svg(String);

impl Svg {
    pub(super) fn new((width, height): (u32, u32)) -> Self {
        Self(format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" \
             viewBox=\"0 0 {width} {height}\" font-family=\"monospace\" font-size=\"11\">\n"
        ))
    }

    pub(super) fn finish(mut self) -> String {
        self.0.push_str("</svg>\n");
        self.0
    }
}

impl Canvas for Svg {
    fn rect(&mut self, at: (f64, f64), size: (f64, f64), [r, g, b]: Color, cover: f64) {
        let (x, y, w, h) = (at.0, at.1, size.0, size.1);
        let _ = writeln!(
            self.0,
            "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{w:.1}\" height=\"{h:.1}\" fill=\"#{r:02x}{g:02x}{b:02x}\" \
             fill-opacity=\"{cover:.2}\"/>"
        );
    }

    fn line(&mut self, from: (f64, f64), to: (f64, f64), [r, g, b]: Color) {
        let _ = writeln!(
            self.0,
            "<line x1=\"{:.1}\" y1=\"{:.1}\" x2=\"{:.1}\" y2=\"{:.1}\" stroke=\"#{r:02x}{g:02x}{b:02x}\"/>",
            from.0, from.1, to.0, to.1
        );
    }

    fn text(&mut self, at: (f64, f64), text: &str, [r, g, b]: Color) {
        let text = super::html::escape(text);
        let (x, y) = (at.0, at.1 + LETTER + 1.0);
        let _ =
            writeln!(self.0, "<text x=\"{x:.1}\" y=\"{y:.1}\" fill=\"#{r:02x}{g:02x}{b:02x}\">{text}</text>");
    }
}

pub(super) struct Pixels {
    width: u32,
    height: u32,
    bytes: Vec<u8>,
}

impl Pixels {
    pub(super) fn new((width, height): (u32, u32)) -> Self {
        Self { width, height, bytes: vec![255; (width * height * 3) as usize] }
    }

    pub(super) fn finish(self) -> Result<Vec<u8>> {
        let mut file = Vec::new();
        let mut encoder = png::Encoder::new(&mut file, self.width, self.height);
        encoder.set_color(png::ColorType::Rgb);
        encoder.set_depth(png::BitDepth::Eight);
        encoder.write_header()?.write_image_data(&self.bytes)?;
        Ok(file)
    }

    fn put(&mut self, x: i64, y: i64, color: Color, cover: f64) {
        let (Ok(x), Ok(y)) = (u32::try_from(x), u32::try_from(y)) else { return };
        if x >= self.width || y >= self.height {
            return;
        }
        let at = ((y * self.width + x) * 3) as usize;
        for (old, new) in self.bytes[at..at + 3].iter_mut().zip(color) {
            *old = (f64::from(*old) * (1.0 - cover) + f64::from(new) * cover) as u8;
        }
    }
}

impl Canvas for Pixels {
    fn rect(&mut self, at: (f64, f64), size: (f64, f64), color: Color, cover: f64) {
        let (x, y) = (at.0 as i64, at.1 as i64);
        for row in y..y + (size.1.round() as i64).max(1) {
            for column in x..x + (size.0.round() as i64).max(1) {
                self.put(column, row, color, cover);
            }
        }
    }

    fn line(&mut self, from: (f64, f64), to: (f64, f64), color: Color) {
        let steps = (to.0 - from.0).abs().max((to.1 - from.1).abs()).ceil().max(1.0);
        for step in 0..=steps as i64 {
            let part = step as f64 / steps;
            let (x, y) = (from.0 + (to.0 - from.0) * part, from.1 + (to.1 - from.1) * part);
            self.put(x as i64, y as i64, color, 1.0);
        }
    }

    fn text(&mut self, at: (f64, f64), text: &str, color: Color) {
        for (number, letter) in text.chars().enumerate() {
            let glyph = font8x8::BASIC_FONTS.get(letter).or_else(|| font8x8::BASIC_FONTS.get('?'));
            for (row, bits) in glyph.unwrap_or_default().into_iter().enumerate() {
                for column in (0..8).filter(|column| bits & (1 << column) != 0) {
                    let x = at.0 as i64 + number as i64 * 7 + column;
                    self.put(x, at.1 as i64 + row as i64, color, 1.0);
                }
            }
        }
    }
}
