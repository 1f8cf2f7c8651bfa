//! A few tables in memory: what do their tools do?

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

use serde_json::Value;
use serde_json::json;

use crate::cli::demo::servers::sql::Select;
use crate::cli::demo::servers::sql::Table;
use crate::cli::demo::servers::toolbox::Arguments;
use crate::cli::demo::servers::toolbox::Channel;
use crate::cli::demo::servers::toolbox::Failure;

const STEPS_MAX: u64 = 50;
const STEP_MS_MAX: u64 = 5_000;

/// The tables by name.
pub(super) struct Database(Mutex<BTreeMap<&'static str, Table>>);

impl Database {
    /// The tables there are at the start.
    pub(super) fn sample() -> Self {
        let customers = [
            json!([1, "Ada Lovelace", "ada@example.com", "UK", "gold"]),
            json!([2, "Grace Hopper", "grace@example.com", "US", "silver"]),
            json!([3, "Alan Turing", "alan@example.com", "UK", "silver"]),
            json!([4, "Katherine Johnson", "katherine@example.com", "US", "gold"]),
            json!([5, "Edsger Dijkstra", "edsger@example.com", "NL", "bronze"]),
        ];
        let products = [
            json!([10, "Notebook", 450, 120]),
            json!([11, "Fountain pen", 2900, 34]),
            json!([12, "Desk lamp", 5400, 0]),
        ];
        let orders = [
            json!([100, 1, 11, 2, "shipped"]),
            json!([101, 2, 10, 12, "open"]),
            json!([102, 4, 12, 1, "cancelled"]),
            json!([103, 5, 10, 3, "shipped"]),
            json!([104, 3, 11, 1, "open"]),
        ];
        Self(Mutex::new(BTreeMap::from([
            ("customers", Table::new(&["id", "name", "email", "country", "plan"], &customers)),
            ("products", Table::new(&["id", "name", "price_cents", "stock"], &products)),
            ("orders", Table::new(&["id", "customer_id", "product_id", "quantity", "status"], &orders)),
        ])))
    }

    /// Runs a tool.
    pub(super) async fn call(
        &self,
        tool: &str,
        arguments: &Arguments<'_>,
        channel: &Channel,
    ) -> Result<Vec<String>, Failure> {
        let text = match tool {
            "list_tables" => self.list(),
            "execute_query" => self.query(arguments.text("sql")?)?,
            "long_query" => self.long_query(arguments, channel).await?,
            "delete_rows" => self.delete_rows(arguments)?,
            "drop_table" => self.drop_table(arguments.text("table")?)?,
            "ask" => ask(arguments, channel).await?,
            other => return Err(format!("`{other}` cannot be run").into()),
        };
        Ok(vec![text])
    }

    fn with<T>(&self, work: impl FnOnce(&mut BTreeMap<&'static str, Table>) -> T) -> T {
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn list(&self) -> String {
        self.with(|tables| {
            let line = |(name, table): (&&str, &Table)| format!("{name}({})", table.columns().join(", "));
            tables.iter().map(line).collect::<Vec<_>>().join("\n")
        })
    }

    fn query(&self, sql: &str) -> Result<String, String> {
        let select = Select::parse(sql)?;
        self.with(|tables| {
            let table = tables.get(select.table()).ok_or_else(|| no_table(select.table()))?;
            let (columns, rows) = select.run(table)?;
            Ok(json!({"columns": columns, "rows": rows, "row_count": rows.len()}).to_string())
        })
    }

    async fn long_query(&self, arguments: &Arguments<'_>, channel: &Channel) -> Result<String, Failure> {
        let sql = arguments.text("sql")?;
        let steps = arguments.number("steps", 5, STEPS_MAX)?;
        let pause = Duration::from_millis(arguments.number("step_ms", 200, STEP_MS_MAX)?);
        Select::parse(sql)?;
        for step in 1..=steps {
            tokio::time::sleep(pause).await;
            channel.progress(step, steps, &format!("step {step} of {steps}")).await;
        }
        Ok(self.query(sql)?)
    }

    fn delete_rows(&self, arguments: &Arguments<'_>) -> Result<String, String> {
        let (name, column) = (arguments.text("table")?, arguments.text("column")?);
        let value = arguments.0.get("value").filter(|value| value.is_string() || value.is_number());
        let value = value.ok_or("argument `value` must be a string or a number")?;
        self.with(|tables| {
            let table = tables.get_mut(name).ok_or_else(|| no_table(name))?;
            Ok(format!("deleted {} rows of `{name}`", table.delete(column, value)?))
        })
    }

    fn drop_table(&self, name: &str) -> Result<String, String> {
        self.with(|tables| tables.remove(name)).map(|_| format!("dropped `{name}`")).ok_or_else(|| no_table(name))
    }
}

fn no_table(name: &str) -> String {
    format!("there is no table `{name}`")
}

async fn ask(arguments: &Arguments<'_>, channel: &Channel) -> Result<String, Failure> {
    let question =
        if arguments.0.contains_key("question") { arguments.text("question")? } else { "What shall be recorded?" };
    let schema = json!({
        "type": "object",
        "properties": {"answer": {"type": "string", "title": "Answer", "description": "A few words"}},
        "required": ["answer"],
    });
    let reply = channel.ask(question, schema).await?;
    match reply.get("action").and_then(Value::as_str) {
        Some("accept") => {
            let answer = reply.pointer("/content/answer").and_then(Value::as_str);
            Ok(format!("the user answered: {}", answer.ok_or_else(|| "the answer lacks `answer`".to_owned())?))
        }
        Some("decline") => Ok("the user declined to answer".into()),
        Some("cancel") => Ok("the user dismissed the question".into()),
        _ => Err(Failure::Tool("the client's answer makes no sense".into())),
    }
}
