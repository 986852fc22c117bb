//! Where commands write to: a table as Apache's tools print it, or JSON.

use std::fmt::Display;
use std::io::{self, Write};

use anyhow::Result;
use serde::Serialize;

/// What `--output` chooses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Format {
    /// Columns and sentences as Apache's mqadmin prints them.
    #[default]
    Table,
    /// One JSON document; several, one a line, where a command yields messages.
    Json,
}

/// The standard output of a command, and the complaints that do not end it.
pub(super) struct Output<'a> {
    format: Format,
    out: &'a mut dyn Write,
    problems: Vec<String>,
}

impl<'a> Output<'a> {
    pub(super) fn new(format: Format, out: &'a mut dyn Write) -> Self {
        Self { format, out, problems: Vec::new() }
    }

    /// Writes a line of the table; nothing under JSON.
    pub(super) fn line(&mut self, line: impl Display) -> io::Result<()> {
        match self.format {
            Format::Table => writeln!(self.out, "{line}"),
            Format::Json => Ok(()),
        }
    }

    /// Writes a document; nothing in a table.
    pub(super) fn json<T: Serialize>(&mut self, value: &T) -> Result<()> {
        if self.format == Format::Json {
            serde_json::to_writer(&mut *self.out, value)?;
            writeln!(self.out)?;
        }
        Ok(())
    }

    /// Notes that a part of the work failed. The command goes on, and exits with 1 in the end.
    pub(super) fn problem(&mut self, problem: &anyhow::Error) {
        self.problems.push(format!("{problem:#}"));
    }

    pub(super) fn into_problems(self) -> Vec<String> {
        self.problems
    }
}

/// Cuts a text to its first `length` characters, as the columns of Apache's tools do.
pub(super) fn front(text: &str, length: usize) -> &str {
    text.char_indices().nth(length).map_or(text, |(at, _)| &text[..at])
}
