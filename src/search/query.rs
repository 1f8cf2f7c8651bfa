//! Which entries match, newest first?
//!
//! Each day is asked by itself, the newest first. Where a filter names values, the search begins with the rarest of them, which
//! the day's own counts tell, and passes through its rows in their order; where it names none, through all rows. Either way
//! no row is sorted, and a page ends with its last entry.

use std::fmt::Write as _;

use rusqlite::Connection;
use rusqlite::OptionalExtension as _;
use rusqlite::params;
use rusqlite::params_from_iter;
use rusqlite::types::Value;

use crate::search::database::int;
use crate::search::database::number;
use crate::search::entry::DAY_MICROS;
use crate::search::entry::Decision;
use crate::search::filter;
use crate::search::filter::Filter;
use crate::search::filter::Sources;
use crate::search::schema;
use crate::search::schema::Field;

/// Rows of a network up to which they are sorted; those of a larger one are met soon enough among all rows.
const SORTED_MAX: i64 = 20_000;

const MINUTE_MICROS: u64 = 60 * 1_000_000;

/// The rows of one day that a filter asks for, as SQL says it.
pub(super) struct Asked {
    from: &'static str,
    conditions: String,
    values: Vec<Value>,
}

impl Asked {
    /// What `filter` asks of a day, of the rows before `before`; `None` if the day has nothing of it.
    pub(super) fn of(
        connection: &Connection,
        day: u64,
        filter: &Filter,
        before: Option<u64>,
    ) -> rusqlite::Result<Option<Self>> {
        let mut asked = Self { from: "calls NOT INDEXED", conditions: "1".into(), values: Vec::new() };
        let Some(fields) = fields(connection, filter)? else { return Ok(None) };
        let Some((seq_min, seq_max)) = asked.times(connection, day, filter)? else { return Ok(None) };
        let seq_max = before.map_or(seq_max, |before| seq_max.min(before.saturating_sub(1)));
        if seq_min > seq_max {
            return Ok(None);
        }
        asked.value("seq >=", Value::Integer(int(seq_min)));
        asked.value("seq <=", Value::Integer(int(seq_max)));
        let mut least = i64::try_from(seq_max - seq_min).unwrap_or(i64::MAX);
        for (field, word, rows) in fields {
            // Only what is written out proves to SQLite that an index of some rows has these.
            let _ = write!(asked.conditions, " AND {field} = {word}");
            if let Some(index) = field.index(word).filter(|_| rows < least) {
                least = rows;
                asked.from = from(index);
                if index == "by_outcome" {
                    asked.conditions.push_str(" AND outcome > 1");
                }
            }
        }
        if let Some(reason) = &filter.reason {
            let Some(word) = word(connection, reason)? else { return Ok(None) };
            if !asked.reason(connection, word, &mut least)? {
                return Ok(None);
            }
        }
        if let Some(sources) = &filter.source {
            asked.sources(connection, sources, least)?;
        }
        Ok(Some(asked))
    }

    /// Selects columns of at most `limit` rows, the newest first.
    pub(super) fn select(&self, columns: &str, limit: usize) -> (String, impl rusqlite::Params) {
        let Self { from, conditions, values } = self;
        let sql = format!("SELECT {columns} FROM {from} WHERE {conditions} ORDER BY seq DESC LIMIT {limit}");
        (sql, params_from_iter(values.iter()))
    }

    /// Counts rows up to `limit`.
    pub(super) fn count(&self, connection: &Connection, limit: u64) -> rusqlite::Result<u64> {
        let Self { from, conditions, values } = self;
        let sql = format!("SELECT count(*) FROM (SELECT 1 FROM {from} WHERE {conditions} LIMIT {limit})");
        connection.prepare_cached(&sql)?.query_row(params_from_iter(values.iter()), |row| row.get(0)).map(number)
    }

    fn value(&mut self, condition: &str, value: Value) {
        self.values.push(value);
        let _ = write!(self.conditions, " AND {condition} ?{}", self.values.len());
    }

    /// Between which numbers rows of the time asked for lie.
    fn times(&mut self, connection: &Connection, day: u64, filter: &Filter) -> rusqlite::Result<Option<(u64, u64)>> {
        let (begin, end) = (day * DAY_MICROS, (day + 1) * DAY_MICROS);
        let since = filter.since_micros.unwrap_or(0).max(begin);
        let until = filter.until_micros.unwrap_or(u64::MAX).min(end);
        if since >= until {
            return Ok(None);
        }
        if since > begin {
            self.value("time >=", Value::Integer(int(since)));
        }
        if until < end {
            self.value("time <", Value::Integer(int(until)));
        }
        let sql = "SELECT min(seq_min), max(seq_max) FROM minutes WHERE minute BETWEEN ?1 AND ?2";
        let minutes = params![int(since / MINUTE_MICROS), int((until - 1) / MINUTE_MICROS)];
        let (least, most): (Option<i64>, Option<i64>) =
            connection.prepare_cached(sql)?.query_row(minutes, |row| Ok((row.get(0)?, row.get(1)?)))?;
        Ok(least.zip(most).map(|(least, most)| (number(least), number(most))))
    }

    /// A reason is that of the decision, or of what went wrong afterwards; few words are both.
    fn reason(&mut self, connection: &Connection, word: i64, least: &mut i64) -> rusqlite::Result<bool> {
        let decided = uses(connection, Field::Reason, word)?;
        let failed = uses(connection, Field::Failure, word)?;
        let (condition, index) = match (decided, failed) {
            (0, 0) => return Ok(false),
            (_, 0) => (format!("reason = {word}"), Some("calls INDEXED BY by_reason")),
            (0, _) => (format!("failure = {word}"), Some("calls INDEXED BY by_failure")),
            _ => (format!("(reason = {word} OR failure = {word})"), None),
        };
        let _ = write!(self.conditions, " AND {condition}");
        if decided + failed < *least {
            match index {
                Some(index) => self.from = index,
                None if decided + failed <= SORTED_MAX => {
                    let _ = write!(
                        self.conditions,
                        " AND seq IN (SELECT seq FROM calls INDEXED BY by_reason WHERE reason = {word}
                         UNION SELECT seq FROM calls INDEXED BY by_failure WHERE failure = {word})"
                    );
                    self.from = "calls NOT INDEXED";
                }
                None => return Ok(true),
            }
            *least = decided + failed;
        }
        Ok(true)
    }

    fn sources(&mut self, connection: &Connection, sources: &Sources, least: i64) -> rusqlite::Result<()> {
        let mut ranges = Vec::new();
        let mut add = |start: Value, end: Value, holds_counted: bool| {
            self.values.push(start);
            self.values.push(end);
            let (last, counted) = (self.values.len(), if holds_counted { "" } else { " AND counted IS NULL" });
            ranges.push(format!("(source BETWEEN ?{} AND ?{last}{counted})", last - 1));
        };
        if let Some(range) = sources.v4() {
            let (start, end) = range.into_inner();
            add(Value::Integer(start.into()), Value::Integer(end.into()), sources.holds_counted(true));
        }
        if let Some(range) = sources.v6() {
            let (start, end) = range.into_inner();
            add(Value::Blob(start.to_vec()), Value::Blob(end.to_vec()), sources.holds_counted(false));
        }
        let condition = ranges.join(" OR ");
        if ranges.len() == 1 {
            let sql = format!(
                "SELECT count(*) FROM (SELECT 1 FROM calls INDEXED BY by_source WHERE source BETWEEN ?1 AND ?2 LIMIT {})",
                SORTED_MAX + 1
            );
            let bounds = self.values.iter().rev().take(2).rev();
            let rows: i64 = connection.prepare_cached(&sql)?.query_row(params_from_iter(bounds), |row| row.get(0))?;
            if rows <= SORTED_MAX && rows < least {
                self.from = "calls INDEXED BY by_source";
            }
        }
        let _ = write!(self.conditions, " AND ({condition})");
        Ok(())
    }
}

fn from(index: &'static str) -> &'static str {
    match index {
        "by_principal" => "calls INDEXED BY by_principal",
        "by_domain" => "calls INDEXED BY by_domain",
        "by_agent" => "calls INDEXED BY by_agent",
        "by_workspace" => "calls INDEXED BY by_workspace",
        "by_server" => "calls INDEXED BY by_server",
        "by_tool" => "calls INDEXED BY by_tool",
        "by_outcome" => "calls INDEXED BY by_outcome",
        "by_refusal" => "calls INDEXED BY by_refusal",
        _ => "calls NOT INDEXED",
    }
}

/// The values that a filter names, by their numbers in this day and with how many rows have them; `None` if one has none.
fn fields(connection: &Connection, filter: &Filter) -> rusqlite::Result<Option<Vec<(Field, i64, i64)>>> {
    let mut fields = Vec::new();
    let texts = [
        (Field::Principal, filter.principal.as_deref()),
        (Field::Domain, filter.domain.as_deref()),
        (Field::Agent, filter.agent.as_deref()),
        (Field::Workspace, filter.workspace.as_deref()),
        (Field::Server, filter.server.as_deref()),
        (Field::Tool, filter.tool.as_deref()),
    ];
    for (field, text) in texts {
        let Some(text) = text else { continue };
        let Some(word) = word(connection, text)? else { return Ok(None) };
        fields.push((field, word));
    }
    match filter.outcome.as_deref() {
        None => {}
        Some(filter::OPEN) => fields.push((Field::Outcome, schema::OPEN)),
        Some(outcome) => {
            let Some(word) = word(connection, outcome)? else { return Ok(None) };
            fields.push((Field::Outcome, word));
        }
    }
    match filter.decision {
        None => {}
        Some(Decision::Refused) => fields.push((Field::Decision, schema::REFUSED)),
        Some(Decision::Allowed) => fields.push((Field::Decision, schema::ALLOWED)),
    }
    let mut counted = Vec::with_capacity(fields.len());
    for (field, word) in fields {
        match uses(connection, field, word)? {
            0 => return Ok(None),
            rows => counted.push((field, word, rows)),
        }
    }
    Ok(Some(counted))
}

fn word(connection: &Connection, text: &str) -> rusqlite::Result<Option<i64>> {
    connection.prepare_cached("SELECT id FROM words WHERE text = ?1")?.query_row([text], |row| row.get(0)).optional()
}

fn uses(connection: &Connection, field: Field, word: i64) -> rusqlite::Result<i64> {
    let mut read = connection.prepare_cached("SELECT rows FROM uses WHERE field = ?1 AND word = ?2")?;
    read.query_row(params![field.id(), word], |row| row.get(0)).optional().map(Option::unwrap_or_default)
}
