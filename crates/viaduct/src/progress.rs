//! A bar on the terminal, and only there, for what tells how far it is.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use model::ApiError;
use model::medium::Progress;

const BAR: &str = "{msg:9} {wide_bar} {binary_bytes:>10} of {binary_total_bytes}  \
                   {binary_bytes_per_sec:>12}  {eta}";

pub struct Bar(ProgressBar);

impl Bar {
    pub fn new() -> Result<Bar, ApiError> {
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
        let style = ProgressStyle::with_template(BAR);
        bar.set_style(style.map_err(|error| ApiError::failed(error.to_string()))?);
        Ok(Bar(bar))
    }

    pub fn draw(&self, what: &'static str, Progress { bytes, of }: Progress) {
        let Bar(bar) = self;
        if bar.message() != what {
            bar.reset();
            bar.set_message(what);
        }
        bar.set_length(of);
        bar.set_position(bytes);
    }

    /// Prints a line above it.
    pub fn say(&self, line: &str) {
        self.0.suspend(|| eprintln!("{line}"));
    }

    pub fn finish(self) {
        self.0.finish_and_clear();
    }
}
