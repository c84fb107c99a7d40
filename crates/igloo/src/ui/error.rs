//! How errors look: the message, its causes, hints; for the manifest the lines it speaks of.

use std::error::Error;
use std::fmt::Write;

use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};
use igloo_manifest::ManifestError;

use super::plain_lines;

/// The whole text of an error.
pub(super) fn render(error: &(dyn Error + Send + Sync + 'static), hints: &[String], colour: bool) -> String {
    let mut text = match find_manifest_error(error) {
        Some(manifest) => render_manifest(manifest, colour),
        None => render_chain(error, colour),
    };
    for hint in hints {
        // Writing to a String can't fail.
        let _ = write!(text, "\n{} {hint}", paint(colour, "36", "hint:"));
    }
    text
}

fn find_manifest_error<'a>(error: &'a (dyn Error + Send + Sync + 'static)) -> Option<&'a ManifestError> {
    let mut next: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(error) = next {
        if let Some(manifest) = error.downcast_ref::<ManifestError>() {
            return Some(manifest);
        }
        next = error.source();
    }
    None
}

fn render_chain(error: &(dyn Error + 'static), colour: bool) -> String {
    let mut last = plain_lines(&error.to_string());
    let mut text = format!("{} {last}", paint(colour, "31", "error:"));
    let mut next = error.source();
    while let Some(cause) = next {
        let message = plain_lines(&cause.to_string());
        if message != last {
            let _ = write!(text, "\n  {} {message}", paint(colour, "31", "because:"));
        }
        last = message;
        next = cause.source();
    }
    text
}

fn render_manifest(error: &ManifestError, colour: bool) -> String {
    let renderer = if colour { Renderer::styled() } else { Renderer::plain() };
    let path = error.path.display().to_string();
    let drawn = error.diagnostics.iter().map(|diagnostic| {
        let span = diagnostic.span.start.min(error.text.len())..diagnostic.span.end.min(error.text.len());
        let snippet = Snippet::source(error.text.as_str())
            .path(path.as_str())
            .annotation(AnnotationKind::Primary.span(span).label(diagnostic.label.as_str()));
        let mut group: Group<'_> = Level::ERROR.primary_title(diagnostic.message.as_str()).element(snippet);
        if let Some(help) = &diagnostic.help {
            group = group.element(Level::HELP.message(help.as_str()));
        }
        renderer.render(&[group])
    });
    drawn.collect::<Vec<_>>().join("\n\n")
}

fn paint(colour: bool, code: &str, text: &str) -> String {
    if colour { format!("\x1b[1;{code}m{text}\x1b[0m") } else { text.to_owned() }
}
