//! What does a SELECT statement give?
//!
//! `SELECT * | COUNT(*) | column, .. FROM table [WHERE column op value [AND ..]] [ORDER BY column [ASC | DESC]]
//! [LIMIT n] [;]`, keywords in any case. Anything else is an error that says so, never a guess.

use std::cmp::Ordering;

use serde_json::Value;

const SQL_BYTES_MAX: usize = 4 * 1024;
const ROWS_MAX: usize = 100;

/// A table: columns, and rows of as many values.
pub(super) struct Table {
    columns: Vec<&'static str>,
    rows: Vec<Vec<Value>>,
}

impl Table {
    /// A table of these rows, each an array.
    pub(super) fn new(columns: &[&'static str], rows: &[Value]) -> Self {
        Self { columns: columns.to_vec(), rows: rows.iter().filter_map(|row| row.as_array().cloned()).collect() }
    }

    /// The columns in order.
    pub(super) fn columns(&self) -> &[&'static str] {
        &self.columns
    }

    /// Deletes the rows in which `column` has this value, and tells how many.
    pub(super) fn delete(&mut self, column: &str, value: &Value) -> Result<usize, String> {
        let (at, before) = (self.position(column)?, self.rows.len());
        self.rows.retain(|row| row.get(at).is_none_or(|cell| compare(cell, value) != Some(Ordering::Equal)));
        Ok(before - self.rows.len())
    }

    fn position(&self, column: &str) -> Result<usize, String> {
        let found = self.columns.iter().position(|known| known.eq_ignore_ascii_case(column));
        found.ok_or_else(|| format!("there is no column `{column}`; there are {}", self.columns.join(", ")))
    }
}

fn compare(left: &Value, right: &Value) -> Option<Ordering> {
    match (left, right) {
        (Value::String(left), Value::String(right)) => Some(left.cmp(right)),
        (left, right) => left.as_f64()?.partial_cmp(&right.as_f64()?),
    }
}

/// A statement as it was read.
#[derive(Debug, PartialEq)]
pub(super) struct Select {
    wanted: Wanted,
    table: String,
    conditions: Vec<Condition>,
    order: Option<(String, bool)>,
    limit: Option<usize>,
}

#[derive(Debug, PartialEq)]
enum Wanted {
    Everything,
    Count,
    Columns(Vec<String>),
}

#[derive(Debug, PartialEq)]
struct Condition {
    column: String,
    operator: &'static str,
    value: Value,
}

impl Condition {
    fn holds(&self, ordering: Option<Ordering>) -> bool {
        match (self.operator, ordering) {
            ("=", ordering) => ordering == Some(Ordering::Equal),
            ("!=" | "<>", ordering) => ordering.is_some_and(Ordering::is_ne),
            ("<", ordering) => ordering.is_some_and(Ordering::is_lt),
            ("<=", ordering) => ordering.is_some_and(Ordering::is_le),
            (">", ordering) => ordering.is_some_and(Ordering::is_gt),
            (_, ordering) => ordering.is_some_and(Ordering::is_ge),
        }
    }
}

impl Select {
    /// Reads a statement.
    pub(super) fn parse(sql: &str) -> Result<Self, String> {
        if sql.len() > SQL_BYTES_MAX {
            return Err(format!("a statement has at most {SQL_BYTES_MAX} bytes"));
        }
        let mut parser = Parser { tokens: tokens(sql)?, at: 0 };
        let select = parser.select()?;
        parser.accept(";");
        match parser.peek() {
            None => Ok(select),
            Some(token) => Err(format!("`{token}` is not understood here: one plain SELECT is all this server can do")),
        }
    }

    /// The table it asks.
    pub(super) fn table(&self) -> &str {
        &self.table
    }

    /// The columns and rows it gives.
    pub(super) fn run(&self, table: &Table) -> Result<(Vec<String>, Vec<Vec<Value>>), String> {
        let conditions: Vec<(usize, &Condition)> = self
            .conditions
            .iter()
            .map(|condition| Ok((table.position(&condition.column)?, condition)))
            .collect::<Result<_, String>>()?;
        let matches = |row: &&Vec<Value>| {
            conditions
                .iter()
                .all(|(at, condition)| condition.holds(row.get(*at).and_then(|cell| compare(cell, &condition.value))))
        };
        let mut rows: Vec<&Vec<Value>> = table.rows.iter().filter(matches).collect();
        if let Some((column, descending)) = &self.order {
            let at = table.position(column)?;
            let order = |left: &&Vec<Value>, right: &&Vec<Value>| {
                let cells = (left.get(at), right.get(at));
                cells.0.zip(cells.1).and_then(|(left, right)| compare(left, right)).unwrap_or(Ordering::Equal)
            };
            rows.sort_by(|left, right| if *descending { order(right, left) } else { order(left, right) });
        }
        let limit = self.limit.unwrap_or(ROWS_MAX).min(ROWS_MAX);
        match &self.wanted {
            Wanted::Count => {
                Ok((vec!["count".into()], vec![vec![rows.len().into()]].into_iter().take(limit).collect()))
            }
            Wanted::Everything => {
                let columns = table.columns.iter().map(|column| (*column).to_owned()).collect();
                Ok((columns, rows.into_iter().take(limit).cloned().collect()))
            }
            Wanted::Columns(columns) => {
                let places = columns.iter().map(|name| table.position(name)).collect::<Result<Vec<_>, _>>()?;
                let pick = |row: &Vec<Value>| places.iter().filter_map(|at| row.get(*at).cloned()).collect();
                Ok((columns.clone(), rows.into_iter().take(limit).map(pick).collect()))
            }
        }
    }
}

#[derive(Debug, Clone, PartialEq)]
enum Token {
    Word(String),
    Number(Value),
    Text(String),
    Symbol(&'static str),
}

impl std::fmt::Display for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Word(text) => f.write_str(text),
            Self::Number(number) => number.fmt(f),
            Self::Text(text) => write!(f, "'{text}'"),
            Self::Symbol(symbol) => f.write_str(symbol),
        }
    }
}

/// Longest first, so that `<=` is not read as `<`.
const SYMBOLS: [&str; 13] = ["<=", ">=", "<>", "!=", "*", ",", "=", "<", ">", "(", ")", ";", "."];

fn tokens(sql: &str) -> Result<Vec<Token>, String> {
    let mut tokens = Vec::new();
    let mut rest = sql.trim_start();
    while let Some(first) = rest.chars().next() {
        let (token, left) = if first == '\'' {
            text(rest)?
        } else if first.is_ascii_alphabetic() || first == '_' {
            let (word, left) = split_while(rest, |character| character.is_ascii_alphanumeric() || character == '_');
            (Token::Word(word.into()), left)
        } else if first.is_ascii_digit() || first == '-' {
            let (digits, left) = split_while(rest, |character| character.is_ascii_digit() || "-.".contains(character));
            let number: serde_json::Number =
                digits.parse().map_err(|_| format!("`{digits}` is no number; comments are not understood"))?;
            (Token::Number(Value::Number(number)), left)
        } else {
            let found = SYMBOLS.into_iter().find_map(|symbol| Some((symbol, rest.strip_prefix(symbol)?)));
            let (symbol, left) = found.ok_or_else(|| format!("`{first}` is not understood"))?;
            (Token::Symbol(symbol), left)
        };
        tokens.push(token);
        rest = left.trim_start();
    }
    Ok(tokens)
}

fn split_while(text: &str, holds: impl Fn(char) -> bool) -> (&str, &str) {
    let end = text.find(|character| !holds(character)).unwrap_or(text.len());
    text.split_at_checked(end).unwrap_or((text, ""))
}

/// A text in single quotes, a doubled quote standing for one.
fn text(rest: &str) -> Result<(Token, &str), String> {
    let mut content = String::new();
    let mut left = rest.strip_prefix('\'').unwrap_or(rest);
    loop {
        let (part, after) = left.split_once('\'').ok_or("a text does not end")?;
        content.push_str(part);
        match after.strip_prefix('\'') {
            Some(more) => {
                content.push('\'');
                left = more;
            }
            None => return Ok((Token::Text(content), after)),
        }
    }
}

struct Parser {
    tokens: Vec<Token>,
    at: usize,
}

impl Parser {
    fn select(&mut self) -> Result<Select, String> {
        self.expect("SELECT")?;
        let wanted = self.wanted()?;
        self.expect("FROM")?;
        let table = self.name("a table")?.to_ascii_lowercase();
        let mut conditions = Vec::new();
        if self.accept("WHERE") {
            conditions.push(self.condition()?);
            while self.accept("AND") {
                conditions.push(self.condition()?);
            }
        }
        let mut order = None;
        if self.accept("ORDER") {
            self.expect("BY")?;
            let column = self.name("a column")?;
            let descending = self.accept("DESC");
            if !descending {
                self.accept("ASC");
            }
            order = Some((column, descending));
        }
        let limit = if self.accept("LIMIT") { Some(self.count()?) } else { None };
        Ok(Select { wanted, table, conditions, order, limit })
    }

    fn wanted(&mut self) -> Result<Wanted, String> {
        if self.accept("*") {
            return Ok(Wanted::Everything);
        }
        let is_call = self.tokens.get(self.at + 1) == Some(&Token::Symbol("("));
        if is_call && self.accept("COUNT") {
            for symbol in ["(", "*", ")"] {
                self.expect(symbol)?;
            }
            return Ok(Wanted::Count);
        }
        let mut columns = vec![self.name("a column")?];
        while self.accept(",") {
            columns.push(self.name("a column")?);
        }
        Ok(Wanted::Columns(columns))
    }

    fn condition(&mut self) -> Result<Condition, String> {
        let column = self.name("a column")?;
        let operator = ["=", "!=", "<>", "<=", ">=", "<", ">"].into_iter().find(|operator| self.accept(operator));
        let operator = operator.ok_or_else(|| self.wrong("a comparison"))?;
        let value = match self.peek() {
            Some(Token::Number(number)) => number.clone(),
            Some(Token::Text(text)) => Value::String(text.clone()),
            _ => return Err(self.wrong("a number or a text in single quotes")),
        };
        self.at += 1;
        Ok(Condition { column, operator, value })
    }

    fn count(&mut self) -> Result<usize, String> {
        let count = match self.peek() {
            Some(Token::Number(number)) => number.as_u64().and_then(|number| usize::try_from(number).ok()),
            _ => None,
        };
        let count = count.ok_or_else(|| self.wrong("a number of rows"))?;
        self.at += 1;
        Ok(count)
    }

    fn name(&mut self, what: &str) -> Result<String, String> {
        let Some(Token::Word(word)) = self.peek() else { return Err(self.wrong(what)) };
        let word = word.clone();
        self.at += 1;
        Ok(word)
    }

    fn peek(&self) -> Option<&Token> {
        self.tokens.get(self.at)
    }

    /// Takes a keyword or a symbol, if it comes next.
    fn accept(&mut self, wanted: &str) -> bool {
        let comes = match self.peek() {
            Some(Token::Word(word)) => word.eq_ignore_ascii_case(wanted),
            Some(Token::Symbol(symbol)) => *symbol == wanted,
            _ => false,
        };
        self.at += usize::from(comes);
        comes
    }

    fn expect(&mut self, wanted: &str) -> Result<(), String> {
        if self.accept(wanted) { Ok(()) } else { Err(self.wrong(&format!("`{wanted}`"))) }
    }

    fn wrong(&self, wanted: &str) -> String {
        match self.peek() {
            Some(token) => {
                format!("{wanted} is expected where `{token}` stands; only SELECT statements are understood")
            }
            None => format!("{wanted} is expected at the end; only SELECT statements are understood"),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// The rows of a statement over one small table: the set-up of every test below.
    fn rows(sql: &str) -> Result<Value, String> {
        let people = [json!([1, "Ada", "UK"]), json!([2, "Grace", "US"]), json!([3, "O'Neil", "US"])];
        let table = Table::new(&["id", "name", "country"], &people);
        let select = Select::parse(sql)?;
        select.run(&table).map(|(_, rows)| rows.into())
    }

    #[test]
    fn each_form_gives_its_rows() {
        for (sql, expected) in [
            ("SELECT * FROM people LIMIT 1", json!([[1, "Ada", "UK"]])),
            ("  select name, ID from people where id = 2;", json!([["Grace", 2]])),
            ("SELECT id FROM people WHERE country = 'US' AND id > 2", json!([[3]])),
            ("SELECT id FROM people WHERE name = 'O''Neil'", json!([[3]])),
            ("SELECT id FROM people WHERE id <> 2 ORDER BY id DESC", json!([[3], [1]])),
            ("SELECT id FROM people ORDER BY name LIMIT 2", json!([[1], [2]])),
            ("SELECT COUNT(*) FROM people WHERE id <= 2", json!([[2]])),
            ("SELECT id FROM people WHERE id = '2'", json!([])),
            ("SELECT id FROM people LIMIT 0", json!([])),
        ] {
            assert_eq!(rows(sql), Ok(expected), "{sql}");
        }
    }

    #[test]
    fn what_is_not_understood_is_an_error() {
        for sql in [
            "",
            "DELETE FROM people",
            "DROP TABLE people",
            "SELECT * FROM people; DROP TABLE people",
            "SELECT * FROM people -- all",
            "SELECT * FROM people WHERE id = 1 OR 1 = 1",
            "SELECT * FROM people, secrets",
            "SELECT name FROM people WHERE name = 'open",
            "SELECT nothing FROM people",
            "SELECT * FROM people LIMIT -1",
            "SELECT SUM(id) FROM people",
        ] {
            assert!(rows(sql).is_err(), "{sql}");
        }
        assert!(Select::parse(&format!("SELECT {} FROM people", "a".repeat(SQL_BYTES_MAX))).is_err());
    }

    #[test]
    fn rows_are_limited() {
        let many: Vec<Value> = (0..ROWS_MAX + 50).map(|number| json!([number])).collect();
        let table = Table::new(&["id"], &many);
        assert_eq!(Select::parse("SELECT * FROM t LIMIT 1000").unwrap().run(&table).unwrap().1.len(), ROWS_MAX);
    }
}
