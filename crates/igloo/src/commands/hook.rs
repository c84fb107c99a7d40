use igloo_ops::hook;

use crate::error::CommandError;
use crate::ui::Ui;

/// Print the code that makes your shell enter projects on `cd`
///
/// bash: `eval "$(igloo hook bash)"` in ~/.bashrc; zsh likewise in ~/.zshrc; fish: `igloo hook fish | source`.
/// direnv: `igloo hook direnv > ~/.config/direnv/lib/igloo.sh`, then `use igloo` in .envrc.
/// A project is entered only after `igloo allow` was said in it.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// bash, zsh, fish or direnv
    shell: hook::Shell,
}

pub fn run(args: &Args, ui: &Ui) -> Result<(), CommandError> {
    Ok(ui.print(hook::code(args.shell))?)
}
