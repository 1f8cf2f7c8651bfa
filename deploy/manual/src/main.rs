//! Writes the man pages and completions of `portcullis` into a folder: what packages have beside the program.

use std::fs;
use std::io;
use std::path::PathBuf;

use clap_complete::Shell;

fn main() -> io::Result<()> {
    let usage = || io::Error::new(io::ErrorKind::InvalidInput, "usage: portcullis-manual FOLDER");
    let folder = PathBuf::from(std::env::args_os().nth(1).ok_or_else(usage)?);
    fs::create_dir_all(&folder)?;
    clap_mangen::generate_to(portcullis::cli::command(), &folder)?;
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
        clap_complete::generate_to(shell, &mut portcullis::cli::command(), "portcullis", &folder)?;
    }
    Ok(())
}
