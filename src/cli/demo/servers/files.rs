//! A tree of text files in memory: what do its tools do?

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;

use crate::cli::demo::servers::toolbox::Arguments;
use crate::cli::demo::servers::toolbox::Failure;

const FILES_MAX: usize = 200;
const FILE_BYTES_MAX: usize = 64 * 1024;
const PATH_BYTES_MAX: usize = 256;

/// The files by path; shared by all replicas.
pub(super) struct Tree(Mutex<BTreeMap<String, String>>);

impl Tree {
    /// The files there are at the start.
    pub(super) fn sample() -> Self {
        let files = [
            ("notes/welcome.md", "# Welcome\n\nThese files live in the memory of `portcullis demo`.\n"),
            ("notes/todo.md", "- try a query that is not a SELECT\n- read what was recorded about it\n"),
            ("reports/2026-q3.csv", "month,orders,revenue\nJuly,41,3100\nAugust,38,2870\nSeptember,52,4015\n"),
            ("config/app.toml", "name = \"shop\"\nregion = \"eu\"\n"),
        ];
        Self(Mutex::new(files.map(|(path, content)| (path.to_owned(), content.to_owned())).into()))
    }
}

/// One replica.
pub(super) struct Files {
    replica: &'static str,
    tree: Arc<Tree>,
}

impl Files {
    /// A replica that calls itself `replica`.
    pub(super) fn new(replica: &'static str, tree: Arc<Tree>) -> Self {
        Self { replica, tree }
    }

    /// What the replica calls itself.
    pub(super) fn replica(&self) -> &'static str {
        self.replica
    }

    /// Runs a tool. The last text names the replica.
    pub(super) fn call(&self, tool: &str, arguments: &Arguments<'_>) -> Result<Vec<String>, Failure> {
        let mut files = self.tree.0.lock().unwrap_or_else(PoisonError::into_inner);
        let text = match tool {
            "list_files" => {
                let prefix = if arguments.0.contains_key("prefix") { arguments.text("prefix")? } else { "" };
                files.keys().filter(|path| path.starts_with(prefix)).cloned().collect::<Vec<_>>().join("\n")
            }
            "read_file" => {
                let path = path(arguments)?;
                files.get(path).cloned().ok_or_else(|| format!("there is no file `{path}`"))?
            }
            "write_file" => {
                let (path, content) = (path(arguments)?, arguments.text("content")?);
                if content.len() > FILE_BYTES_MAX {
                    return Err(format!("a file has at most {FILE_BYTES_MAX} bytes").into());
                }
                if !files.contains_key(path) && files.len() >= FILES_MAX {
                    return Err(format!("there are {FILES_MAX} files already").into());
                }
                files.insert(path.to_owned(), content.to_owned());
                format!("wrote {} bytes to `{path}`", content.len())
            }
            "delete_file" => {
                let path = path(arguments)?;
                files
                    .remove(path)
                    .map(|_| format!("deleted `{path}`"))
                    .ok_or_else(|| format!("there is no file `{path}`"))?
            }
            other => return Err(format!("`{other}` cannot be run").into()),
        };
        Ok(vec![text, format!("(answered by replica {})", self.replica)])
    }
}

fn path<'a>(arguments: &Arguments<'a>) -> Result<&'a str, String> {
    let path = arguments.text("path")?;
    let is_plain = |segment: &str| !matches!(segment, "" | "." | "..") && !segment.contains(['\\', '\0']);
    if path.len() <= PATH_BYTES_MAX && path.split('/').all(is_plain) {
        Ok(path)
    } else {
        Err(format!("`{path}` is no path in this tree"))
    }
}
