//! How do entries get into the file of their day?
//!
//! A batch is one transaction, together with the number of the last record it has heard of: entries and results up to that
//! number are passed over when they come again.

use std::collections::HashMap;
use std::collections::HashSet;
use std::hash::Hash;
use std::io;
use std::net::IpAddr;
use std::path::Path;
use std::path::PathBuf;

use rusqlite::Connection;
use rusqlite::OptionalExtension as _;
use rusqlite::Transaction;
use rusqlite::params;
use rusqlite::types::Value;

use crate::search::database;
use crate::search::database::int;
use crate::search::database::number;
use crate::search::entry::Decision;
use crate::search::entry::Ended;
use crate::search::entry::Entry;
use crate::search::error::SearchError;
use crate::search::schema;
use crate::search::schema::Field;
use crate::search::schema::OPEN;
use crate::search::schema::OTHERS;
use crate::search::schema::SCHEMA;
use crate::search::schema::Side;
use crate::search::times;

/// Pairs of caller and server that are told apart in one hour, and as many of server and tool. Clients choose names, so there may be
/// any number; what is beyond is counted under `…`.
pub(super) const PAIRS_PER_HOUR_MAX: usize = 10_000;
/// Why a request is refused that names a server there is none of.
const SERVER_UNKNOWN: &str = "server_unknown";
/// Words that are remembered with their numbers; when there are more, they are looked up again.
const WORDS_MAX: usize = 65_536;
/// Hours whose pairs are remembered.
const HOURS_MAX: usize = 4;

const MINUTE_MICROS: u64 = 60 * 1_000_000;
pub(super) const HOUR_MICROS: u64 = 60 * MINUTE_MICROS;

/// Entries and results of one day, as they came.
#[derive(Debug, Default)]
pub(super) struct Batch {
    /// Requests, some with their results already.
    pub(super) entries: Vec<Entry>,
    /// Results of requests of earlier batches, by the numbers of these.
    pub(super) ended: Vec<(u64, Ended)>,
}

/// The file of one day, and what is remembered of it.
pub(super) struct Day {
    connection: Connection,
    path: PathBuf,
    words: Words,
    pairs: HashMap<u64, Known>,
}

/// The pairs of one hour that are told apart. Tools take no room from callers: a new caller is what one looks for.
#[derive(Default)]
struct Known {
    to_servers: HashSet<(Side, i64, i64)>,
    to_tools: HashSet<(i64, i64)>,
}

impl Known {
    /// Whether a pair is told apart; it is from now on, if there is room.
    fn takes(&mut self, side: Side, a: i64, b: i64) -> bool {
        if side == Side::Tool {
            has_or_takes(&mut self.to_tools, (a, b))
        } else {
            has_or_takes(&mut self.to_servers, (side, a, b))
        }
    }
}

fn has_or_takes<P: Eq + Hash>(pairs: &mut HashSet<P>, pair: P) -> bool {
    pairs.contains(&pair) || pairs.len() < PAIRS_PER_HOUR_MAX && pairs.insert(pair)
}

/// The days of which there are files, in order.
pub(super) fn listed(directory: &Path) -> Result<Vec<u64>, SearchError> {
    let failed = |error| SearchError::io(directory, error);
    let files = match directory.read_dir() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        files => files.map_err(failed)?,
    };
    let mut days = Vec::new();
    for file in files {
        let name = file.map_err(failed)?.file_name();
        days.extend(name.to_str().and_then(|name| name.strip_suffix(".sqlite")).and_then(times::day_of));
    }
    days.sort_unstable();
    Ok(days)
}

/// Where the file of a day is.
pub(super) fn path_of(directory: &Path, day: u64) -> PathBuf {
    directory.join(format!("{}.sqlite", times::date_of(day)))
}

/// What a batch adds to the small tables.
#[derive(Default)]
struct Sums {
    uses: HashMap<(Field, i64), i64>,
    minutes: HashMap<u64, (u64, u64)>,
    pairs: HashMap<(u64, Side, i64, i64), Pair>,
}

#[derive(Default)]
struct Pair {
    calls: u64,
    denials: u64,
    errors: u64,
    timed: u64,
    latency_sum: u64,
    latency_max: u64,
}

/// What is needed of a row to count how it ended.
struct Asked {
    time_micros: u64,
    agent: Option<i64>,
    principal: Option<i64>,
    server: Option<i64>,
    tool: Option<i64>,
    is_timed: bool,
}

impl Day {
    /// Opens the file of a day, or makes it.
    pub(super) fn open(directory: &Path, day: u64) -> Result<Self, SearchError> {
        let path = path_of(directory, day);
        let connection = database::open(&path, SCHEMA)?;
        Ok(Self { connection, path, words: Words::default(), pairs: HashMap::new() })
    }

    /// Number of the last record it has heard of.
    pub(super) fn to_seq(&self) -> Result<u64, SearchError> {
        let read = self.connection.query_row("SELECT to_seq FROM filled", [], |row| row.get(0));
        read.map(number).map_err(|error| SearchError::sqlite(&self.path, error))
    }

    /// Whether it has the request of this number.
    pub(super) fn has(&self, seq: u64) -> Result<bool, SearchError> {
        let asked = self.connection.prepare_cached("SELECT 1 FROM calls WHERE seq = ?1");
        let asked = asked.and_then(|mut asked| asked.exists(params![int(seq)]));
        asked.map_err(|error| SearchError::sqlite(&self.path, error))
    }

    /// Takes a batch, of which `to_seq` is the last record.
    pub(super) fn take(&mut self, batch: &Batch, to_seq: u64) -> Result<(), SearchError> {
        let from = self.to_seq()?;
        let taken = self.take_from(batch, from, to_seq);
        if taken.is_err() {
            // What was remembered may be of the transaction that is no more.
            self.words = Words::default();
            self.pairs.clear();
        }
        taken.map_err(|error| SearchError::sqlite(&self.path, error))
    }

    fn take_from(&mut self, batch: &Batch, from: u64, to_seq: u64) -> rusqlite::Result<()> {
        let transaction = self.connection.transaction()?;
        let mut writing = Writing {
            transaction: &transaction,
            words: &mut self.words,
            known: &mut self.pairs,
            sums: Sums::default(),
        };
        for entry in &batch.entries {
            if entry.seq > from {
                writing.add(entry)?;
            } else if let Some(ended) = entry.ended.as_ref().filter(|ended| ended.seq > from) {
                // The intent was the last of one batch then, and the result the first of the next.
                writing.end(entry.seq, ended)?;
            }
        }
        for (intent, ended) in batch.ended.iter().filter(|(_, ended)| ended.seq > from) {
            writing.end(*intent, ended)?;
        }
        writing.sum()?;
        let sql = "UPDATE filled SET to_seq = max(to_seq, ?1)";
        transaction.prepare_cached(sql)?.execute(params![int(to_seq)])?;
        transaction.commit()
    }
}

/// A transaction, and what it adds up.
struct Writing<'w> {
    transaction: &'w Transaction<'w>,
    words: &'w mut Words,
    known: &'w mut HashMap<u64, Known>,
    sums: Sums,
}

impl Writing<'_> {
    fn add(&mut self, entry: &Entry) -> rusqlite::Result<()> {
        let mut word = |text: Option<&String>| text.map(|text| self.words.id(self.transaction, text)).transpose();
        let ended = entry.ended.as_ref();
        let method = word(entry.method.as_ref())?;
        let principal = word(entry.principal.as_ref())?;
        let user = word(entry.user.as_ref())?;
        let domain = word(entry.domain().as_ref())?;
        let agent = word(entry.agent.as_ref())?;
        let workspace = word(entry.workspace.as_ref())?;
        let server = word(entry.server.as_ref())?;
        let tool = word(entry.tool.as_ref())?;
        let reason = word(entry.reason.as_ref())?;
        let rule = word(entry.rule.as_ref())?;
        let outcome = if entry.is_open() { Some(OPEN) } else { word(ended.map(|ended| &ended.outcome))? };
        let failure = word(ended.and_then(|ended| ended.reason.as_ref()))?;
        let decision = match entry.decision {
            Decision::Refused => schema::REFUSED,
            Decision::Allowed => schema::ALLOWED,
        };
        let sql = "INSERT OR IGNORE INTO calls VALUES
            (?1,?2,?3,?4,?5,?6,?7,?8,?9,?10,?11,?12,?13,?14,?15,?16,?17,?18,?19,?20,?21,?22,?23,?24)";
        let added = self.transaction.prepare_cached(sql)?.execute(params![
            int(entry.seq),
            int(entry.time_micros),
            decision,
            entry.count.map(int),
            entry.source.map(source),
            method,
            principal,
            user,
            domain,
            agent,
            workspace,
            server,
            tool,
            entry.resource,
            entry.prompt,
            reason,
            rule,
            entry.status,
            outcome,
            failure,
            ended.and_then(|ended| ended.status),
            ended.and_then(|ended| ended.latency_micros).map(int),
            ended.and_then(|ended| ended.cost.as_deref()),
            ended.map(|ended| int(ended.seq)),
        ])?;
        if added == 0 {
            // A number that was used twice: somebody wrote to the segments. What came first stays.
            return Ok(());
        }
        let used = [
            (Field::Principal, principal),
            (Field::Domain, domain),
            (Field::Agent, agent),
            (Field::Workspace, workspace),
            (Field::Server, server),
            (Field::Tool, tool),
            (Field::Reason, reason),
            (Field::Failure, failure),
            (Field::Outcome, outcome),
            (Field::Decision, Some(decision)),
        ];
        for (field, word) in used {
            self.sums.used(field, word, 1);
        }
        let asked =
            Asked { time_micros: entry.time_micros, agent, principal, server, tool, is_timed: entry.is_timed() };
        self.count(entry, &asked)
    }

    fn count(&mut self, entry: &Entry, asked: &Asked) -> rusqlite::Result<()> {
        let minute = self.sums.minutes.entry(entry.time_micros / MINUTE_MICROS).or_insert((entry.seq, entry.seq));
        *minute = (minute.0.min(entry.seq), minute.1.max(entry.seq));
        // Whatever word stood in the path is no server.
        if entry.reason.as_deref() == Some(SERVER_UNKNOWN) {
            return Ok(());
        }
        let times = entry.count.unwrap_or(1);
        self.pair(asked, |pair| match entry.decision {
            Decision::Allowed => pair.calls += 1,
            Decision::Refused => pair.denials += times,
        })?;
        entry.ended.as_ref().map_or(Ok(()), |ended| self.count_ended(asked, ended))
    }

    fn end(&mut self, intent: u64, ended: &Ended) -> rusqlite::Result<()> {
        let outcome = self.words.id(self.transaction, &ended.outcome)?;
        let failure = ended.reason.as_ref().map(|reason| self.words.id(self.transaction, reason)).transpose()?;
        let sql = "UPDATE calls SET outcome = ?2, failure = ?3, ended_status = ?4, latency = ?5, cost = ?6, result = ?7
            WHERE seq = ?1 AND result IS NULL AND decision = 1
            RETURNING time, agent, principal, server, tool, (SELECT text FROM words WHERE id = method)";
        let mut update = self.transaction.prepare_cached(sql)?;
        let values = params![
            int(intent),
            outcome,
            failure,
            ended.status,
            ended.latency_micros.map(int),
            ended.cost,
            int(ended.seq)
        ];
        let asked = update.query_row(values, |row| {
            let method: Option<String> = row.get(5)?;
            Ok(Asked {
                time_micros: number(row.get(0)?),
                agent: row.get(1)?,
                principal: row.get(2)?,
                server: row.get(3)?,
                tool: row.get(4)?,
                is_timed: crate::search::entry::is_timed(method.as_deref()),
            })
        });
        let Some(asked) = asked.optional()? else { return Ok(()) };
        self.sums.used(Field::Outcome, Some(OPEN), -1);
        self.sums.used(Field::Outcome, Some(outcome), 1);
        self.sums.used(Field::Failure, failure, 1);
        self.count_ended(&asked, ended)
    }

    fn count_ended(&mut self, asked: &Asked, ended: &Ended) -> rusqlite::Result<()> {
        let latency = ended.latency_micros.filter(|_| asked.is_timed);
        self.pair(asked, |pair| {
            pair.errors += u64::from(ended.is_error());
            if let Some(latency) = latency {
                pair.timed += 1;
                pair.latency_sum += latency;
                pair.latency_max = pair.latency_max.max(latency);
            }
        })
    }

    /// Adds to the edges of the graph that a request goes along: from its caller to its server, and on to its tool.
    fn pair(&mut self, asked: &Asked, mut add: impl FnMut(&mut Pair)) -> rusqlite::Result<()> {
        let Some(server) = asked.server else { return Ok(()) };
        let hour = asked.time_micros / HOUR_MICROS;
        let (side, caller) = match (asked.agent, asked.principal) {
            (Some(agent), _) => (Side::Agent, agent),
            (None, Some(principal)) => (Side::Principal, principal),
            (None, None) => (Side::Unknown, 0),
        };
        let (caller, server_called) = self.known(hour, side, caller, server)?;
        add(self.sums.pairs.entry((hour, side, caller, server_called)).or_default());
        if let Some(tool) = asked.tool {
            let (server, tool) = self.known(hour, Side::Tool, server, tool)?;
            add(self.sums.pairs.entry((hour, Side::Tool, server, tool)).or_default());
        }
        Ok(())
    }

    /// The pair itself, or the one that stands for those an hour had no room for.
    fn known(&mut self, hour: u64, side: Side, a: i64, b: i64) -> rusqlite::Result<(i64, i64)> {
        if !self.known.contains_key(&hour) {
            if self.known.len() >= HOURS_MAX {
                self.known.clear();
            }
            let known = read_pairs(self.transaction, hour)?;
            self.known.insert(hour, known);
        }
        // Either end may be a client's word, so that neither is kept.
        let is_known = self.known.entry(hour).or_default().takes(side, a, b);
        Ok(if is_known { (a, b) } else { (OTHERS, OTHERS) })
    }

    fn sum(&mut self) -> rusqlite::Result<()> {
        let Sums { uses, minutes, pairs } = std::mem::take(&mut self.sums);
        let sql = "INSERT INTO uses VALUES (?1, ?2, ?3) ON CONFLICT DO UPDATE SET rows = rows + excluded.rows";
        let mut add = self.transaction.prepare_cached(sql)?;
        for ((field, word), rows) in uses {
            add.execute(params![field.id(), word, rows])?;
        }
        let sql = "INSERT INTO minutes VALUES (?1, ?2, ?3) ON CONFLICT DO UPDATE SET
            seq_min = min(seq_min, excluded.seq_min), seq_max = max(seq_max, excluded.seq_max)";
        let mut add = self.transaction.prepare_cached(sql)?;
        for (minute, (least, most)) in minutes {
            add.execute(params![int(minute), int(least), int(most)])?;
        }
        let sql = "INSERT INTO pairs VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10) ON CONFLICT DO UPDATE SET
            calls = calls + excluded.calls, denials = denials + excluded.denials, errors = errors + excluded.errors,
            timed = timed + excluded.timed, latency_sum = latency_sum + excluded.latency_sum,
            latency_max = max(latency_max, excluded.latency_max)";
        let mut add = self.transaction.prepare_cached(sql)?;
        for ((hour, side, a, b), pair) in pairs {
            let Pair { calls, denials, errors, timed, latency_sum, latency_max } = pair;
            let [calls, denials, errors, timed, latency_sum, latency_max] =
                [calls, denials, errors, timed, latency_sum, latency_max].map(int);
            let hour = int(hour);
            add.execute(params![hour, side.id(), a, b, calls, denials, errors, timed, latency_sum, latency_max])?;
        }
        Ok(())
    }
}

impl Sums {
    fn used(&mut self, field: Field, word: Option<i64>, rows: i64) {
        if let Some(word) = word {
            *self.uses.entry((field, word)).or_default() += rows;
        }
    }
}

fn read_pairs(connection: &Connection, hour: u64) -> rusqlite::Result<Known> {
    let mut read = connection.prepare_cached("SELECT side, a, b FROM pairs WHERE hour = ?1")?;
    let mut rows = read.query(params![int(hour)])?;
    let mut pairs = Known::default();
    while let Some(row) = rows.next()? {
        let side: i64 = row.get(0)?;
        let side = Side::ALL.into_iter().find(|known| known.id() == side);
        let (a, b): (i64, i64) = (row.get(1)?, row.get(2)?);
        // What was counted under `…` takes no room.
        if let Some(side) = side.filter(|_| a != OTHERS && b != OTHERS) {
            pairs.takes(side, a, b);
        }
    }
    Ok(pairs)
}

/// Addresses sort like numbers, IPv4 before IPv6.
pub(super) fn source(address: IpAddr) -> Value {
    match address {
        IpAddr::V4(address) => Value::Integer(address.to_bits().into()),
        IpAddr::V6(address) => Value::Blob(address.octets().to_vec()),
    }
}

/// Numbers of words.
#[derive(Default)]
struct Words {
    ids: HashMap<String, i64>,
}

impl Words {
    fn id(&mut self, connection: &Connection, text: &str) -> rusqlite::Result<i64> {
        if let Some(id) = self.ids.get(text) {
            return Ok(*id);
        }
        let known =
            connection.prepare_cached("SELECT id FROM words WHERE text = ?1")?.query_row([text], |row| row.get(0));
        let id = match known.optional()? {
            Some(id) => id,
            None => connection.prepare_cached("INSERT INTO words (text) VALUES (?1)")?.insert([text])?,
        };
        if self.ids.len() >= WORDS_MAX {
            self.ids.clear();
        }
        self.ids.insert(text.to_owned(), id);
        Ok(id)
    }
}
