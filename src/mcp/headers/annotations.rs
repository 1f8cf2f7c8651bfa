//! Which arguments of a tool does a client repeat in headers?
//!
//! Those whose schema says `x-mcp-header`. The mark is valid only where every reader finds the same argument by it: on
//! a plain string, integer or boolean that is reached through nothing but `properties`. One invalid mark makes the
//! whole tool invalid, as it does for clients.

use http::HeaderName;

use crate::mcp::document::Kind;
use crate::mcp::document::Value;
use crate::mcp::headers::PARAM_PREFIX;
use crate::mcp::lists;
use crate::mcp::lists::ListKind;
use crate::mcp::lists::NotAList;

/// The key of a schema that names the header.
const MARK: &str = "x-mcp-header";
/// A tool with more marked arguments than this is invalid.
pub const HEADERS_MAX: usize = 16;
/// A marked argument deeper in the arguments than this makes its tool invalid.
pub const PATH_KEYS_MAX: usize = 8;
/// A path whose keys are longer than this in all makes its tool invalid: no request could have them.
pub const PATH_BYTES_MAX: usize = 512;
/// A mark longer than this makes its tool invalid.
pub const MARK_BYTES_MAX: usize = 64;

/// What is repeated in headers when a tool is called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Annotated {
    /// The tool.
    pub tool: Box<str>,
    /// Its headers, each name once; empty if nothing is repeated.
    pub headers: Box<[Mirrored]>,
}

/// An argument and the header that repeats it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mirrored {
    /// The whole name: `mcp-param-..`, in lower case.
    pub name: HeaderName,
    /// The keys that lead to the argument.
    pub path: Box<[Box<str>]>,
    /// What the schema says the argument is.
    pub kind: ParamKind,
}

/// What a repeated argument may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ParamKind {
    /// Repeated as it is, or in base64.
    String,
    /// Repeated in digits.
    Integer,
    /// Repeated as `true` or `false`.
    Boolean,
}

/// A tool whose marks no client may follow. The word is for logs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Invalid(pub &'static str);

/// The tools of a whole page of `tools/list` that can be called, in their order.
pub fn of_list(result: Value<'_>) -> Result<impl Iterator<Item = (&str, Result<Annotated, Invalid>)>, NotAList> {
    let tools = lists::list(result, ListKind::Tools)?;
    Ok(tools.items().filter_map(|tool| {
        let name = lists::name(tool, ListKind::Tools)?;
        Some((name, of_tool(name, tool)))
    }))
}

/// The marks of one tool, an item of the list.
pub fn of_tool(name: &str, tool: Value<'_>) -> Result<Annotated, Invalid> {
    let mut walk = Walk::default();
    if let Some(schema) = tool.get("inputSchema") {
        walk.schema(schema, Reach::Property)?;
    }
    Ok(Annotated { tool: name.into(), headers: walk.found.into() })
}

/// How a part of the schema was come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reach {
    /// Through `properties` alone.
    Property,
    /// In another way: there may be no mark.
    Elsewhere,
}

#[derive(Default)]
struct Walk<'d> {
    path: Vec<&'d str>,
    found: Vec<Mirrored>,
}

impl<'d> Walk<'d> {
    /// Looks for marks in a schema. It is no deeper than a document may be.
    fn schema(&mut self, schema: Value<'d>, reach: Reach) -> Result<(), Invalid> {
        for item in schema.items() {
            self.schema(item, Reach::Elsewhere)?;
        }
        for (key, value) in schema.entries() {
            match key {
                MARK => self.mark(schema, value, reach)?,
                "properties" => self.properties(value, reach)?,
                // Maps from names to schemas: a name is no keyword.
                "patternProperties" | "$defs" | "definitions" | "dependentSchemas" => {
                    for (_, value) in value.entries() {
                        self.schema(value, Reach::Elsewhere)?;
                    }
                }
                // Data, not schemas.
                "const" | "default" | "enum" | "examples" => {}
                _ => self.schema(value, Reach::Elsewhere)?,
            }
        }
        Ok(())
    }

    fn properties(&mut self, properties: Value<'d>, reach: Reach) -> Result<(), Invalid> {
        for (key, value) in properties.entries() {
            self.path.push(key);
            self.schema(value, reach)?;
            self.path.pop();
        }
        Ok(())
    }

    fn mark(&mut self, schema: Value<'d>, mark: Value<'d>, reach: Reach) -> Result<(), Invalid> {
        if reach != Reach::Property || self.path.is_empty() {
            return Err(Invalid("annotation_place"));
        }
        if self.path.len() > PATH_KEYS_MAX || self.path.iter().map(|key| key.len()).sum::<usize>() > PATH_BYTES_MAX {
            return Err(Invalid("annotation_depth"));
        }
        if self.found.len() >= HEADERS_MAX {
            return Err(Invalid("annotation_count"));
        }
        let kind = match schema.get("type").and_then(Value::text) {
            Some("string") => ParamKind::String,
            Some("integer") => ParamKind::Integer,
            Some("boolean") => ParamKind::Boolean,
            _ => return Err(Invalid("annotation_type")),
        };
        let name = header_name(mark).ok_or(Invalid("annotation_name"))?;
        if self.found.iter().any(|other| other.name == name) {
            return Err(Invalid("annotation_twice"));
        }
        let path = self.path.iter().map(|key| Box::from(*key)).collect();
        self.found.push(Mirrored { name, path, kind });
        Ok(())
    }
}

/// The header that a mark names; `None` if it is no token.
fn header_name(mark: Value<'_>) -> Option<HeaderName> {
    let token = mark.text().filter(|token| mark.kind() == Kind::String && !token.is_empty())?;
    let whole = [PARAM_PREFIX, token].concat();
    HeaderName::from_bytes(whole.as_bytes()).ok().filter(|_| token.len() <= MARK_BYTES_MAX)
}
