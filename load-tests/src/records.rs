//! What is on record, and is the record whole?
//!
//! Reads an audit directory as an outsider would: each line's `prev` must be the SHA-256 of the line before, `seq` must
//! count on, every result must belong to an intent. Segments that are no longer written to can be read and removed while
//! the gateway runs, so that an hour of load does not fill the disk.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fs;
use std::io;
use std::io::BufRead;
use std::io::BufReader;
use std::path::Path;
use std::path::PathBuf;

use serde::Deserialize;
use sha2::Digest;
use sha2::Sha256;

/// Flaws that are told; what is beyond is counted.
const FLAWS_MAX: usize = 20;

/// One line, as far as proofs look at it.
#[derive(Debug, Deserialize)]
pub struct Record<'a> {
    /// Its number.
    pub seq: u64,
    #[serde(borrow)]
    prev: Cow<'a, str>,
    /// `intent`, `result`, `refused` or `recovered`.
    #[serde(borrow)]
    pub kind: Cow<'a, str>,
    /// Which intent it is the result of.
    #[serde(default)]
    pub intent: Option<u64>,
    /// How it ended.
    #[serde(borrow, default)]
    pub outcome: Option<Cow<'a, str>>,
    /// Why.
    #[serde(borrow, default)]
    pub reason: Option<Cow<'a, str>>,
    /// The method of the message.
    #[serde(borrow, default)]
    pub rpc_method: Option<Cow<'a, str>>,
    /// Who the client says it is.
    #[serde(borrow, default)]
    pub user_agent: Option<Cow<'a, str>>,
    /// How many refusals this line stands for.
    #[serde(default)]
    pub count: Option<u64>,
}

/// What was read so far.
#[derive(Debug, Default)]
pub struct Reading {
    /// Lines.
    pub lines: u64,
    /// Bytes of them.
    pub bytes: u64,
    /// What is wrong, the first of it.
    pub flaws: Vec<String>,
    /// How much is wrong.
    pub flaws_count: u64,
    /// Intents whose result was not read yet, and what `each` made of them.
    open: HashMap<u64, u64>,
    next: u64,
    prev: String,
}

/// What a proof wants to know of each line: for an intent it gives a number, which comes back with the intent's result.
pub trait Reader {
    /// An intent was read. What it gives is handed to [`Reader::result`].
    fn intent(&mut self, record: &Record<'_>) -> u64;
    /// The result of the intent that was given this number.
    fn result(&mut self, number: u64, record: &Record<'_>);
    /// A refusal, or many of them.
    fn refused(&mut self, record: &Record<'_>);
}

impl Reading {
    /// Of a record that begins with its first line.
    pub fn new() -> Self {
        Self { next: 1, prev: "0".repeat(64), ..Self::default() }
    }

    /// Intents that have no result.
    pub fn unfinished(&self) -> usize {
        self.open.len()
    }

    /// Reads every segment but the newest, and removes what was read.
    ///
    /// # Errors
    /// When the directory or a file in it cannot be read.
    pub fn sweep(&mut self, directory: &Path, reader: &mut dyn Reader) -> io::Result<()> {
        let mut segments = segments(directory)?;
        segments.pop();
        for segment in segments {
            self.segment(&segment, reader)?;
            fs::remove_file(segment)?;
        }
        Ok(())
    }

    /// Reads all that is left, once nobody writes any more.
    ///
    /// # Errors
    /// When the directory or a file in it cannot be read.
    pub fn finish(&mut self, directory: &Path, reader: &mut dyn Reader) -> io::Result<()> {
        segments(directory)?.iter().try_for_each(|segment| self.segment(segment, reader))
    }

    fn segment(&mut self, path: &Path, reader: &mut dyn Reader) -> io::Result<()> {
        let mut lines = BufReader::with_capacity(1 << 20, fs::File::open(path)?);
        let mut line = Vec::new();
        while lines.read_until(b'\n', &mut line)? > 0 {
            if line.pop() != Some(b'\n') {
                self.flaw(format!("{} ends in the middle of a line", path.display()));
                break;
            }
            self.line(&line, reader);
            line.clear();
        }
        Ok(())
    }

    fn line(&mut self, line: &[u8], reader: &mut dyn Reader) {
        self.lines += 1;
        self.bytes += line.len() as u64 + 1;
        let digest = hex(&Sha256::digest(line));
        let before = std::mem::replace(&mut self.prev, digest);
        let record: Record<'_> = match serde_json::from_slice(line) {
            Ok(record) => record,
            Err(error) => return self.flaw(format!("line {} is no record: {error}", self.lines)),
        };
        if record.prev != before {
            self.flaw(format!("record {} does not follow the line before it", record.seq));
        }
        if record.seq != self.next && record.kind != "recovered" {
            self.flaw(format!("record {} stands where {} should", record.seq, self.next));
        }
        self.next = record.seq + 1;
        match (record.kind.as_ref(), record.intent) {
            ("intent", _) => {
                let number = reader.intent(&record);
                self.open.insert(record.seq, number);
            }
            ("result", Some(intent)) => match self.open.remove(&intent) {
                Some(number) => reader.result(number, &record),
                None => self.flaw(format!("result {} has no open intent {intent}", record.seq)),
            },
            ("refused", _) => reader.refused(&record),
            (kind, _) => self.flaw(format!("record {} is of kind `{kind}`", record.seq)),
        }
    }

    fn flaw(&mut self, what: String) {
        self.flaws_count += 1;
        if self.flaws.len() < FLAWS_MAX {
            self.flaws.push(what);
        }
    }
}

/// Files of the record, oldest first.
pub(crate) fn segments(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let entries: io::Result<Vec<_>> = fs::read_dir(directory)?.collect();
    let mut paths: Vec<PathBuf> = entries?.into_iter().map(|entry| entry.path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "jsonl"));
    paths.sort();
    Ok(paths)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Seen(Vec<String>);

    impl Reader for Seen {
        fn intent(&mut self, record: &Record<'_>) -> u64 {
            record.seq * 10
        }
        fn result(&mut self, number: u64, record: &Record<'_>) {
            self.0.push(format!("{number} {}", record.outcome.as_deref().unwrap_or_default()));
        }
        fn refused(&mut self, record: &Record<'_>) {
            self.0.push(format!("refused {}", record.count.unwrap_or(1)));
        }
    }

    /// Lines that are chained as the gateway chains them.
    fn chained(lines: &[&str]) -> Vec<String> {
        let mut prev = "0".repeat(64);
        let mut chained = Vec::new();
        for (index, line) in lines.iter().enumerate() {
            let whole = format!(r#"{{"seq":{},"prev":"{prev}",{line}}}"#, index + 1);
            prev = hex(&Sha256::digest(whole.as_bytes()));
            chained.push(whole);
        }
        chained
    }

    fn read(lines: &[String]) -> (Reading, Seen) {
        let (mut reading, mut seen) = (Reading::new(), Seen::default());
        lines.iter().for_each(|line| reading.line(line.as_bytes(), &mut seen));
        (reading, seen)
    }

    const LINES: [&str; 4] = [
        r#""kind":"intent""#,
        r#""kind":"refused","count":3"#,
        r#""kind":"intent""#,
        r#""kind":"result","intent":1,"outcome":"ok""#,
    ];

    #[test]
    fn a_whole_record_has_no_flaw_and_tells_what_is_unfinished() {
        let (reading, seen) = read(&chained(&LINES));
        assert_eq!(reading.flaws, Vec::<String>::new());
        assert_eq!((reading.lines, reading.unfinished()), (4, 1));
        assert_eq!(seen.0, ["refused 3", "10 ok"]);
    }

    #[test]
    fn whatever_was_changed_taken_out_or_put_in_is_found() {
        let whole = chained(&LINES);
        let mut changed = whole.clone();
        changed[1] = changed[1].replace(":3", ":4");
        assert_eq!(read(&changed).0.flaws_count, 1);
        let mut without = whole.clone();
        without.remove(1);
        assert!(read(&without).0.flaws_count >= 2);
        let mut twice = whole.clone();
        twice.push(whole[3].clone());
        assert!(read(&twice).0.flaws.iter().any(|flaw| flaw.contains("no open intent")));
        assert_eq!(read(&["{}".to_owned()]).0.flaws_count, 1);
    }
}
