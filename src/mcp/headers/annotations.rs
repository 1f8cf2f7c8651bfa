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
use crate::mcp::message::NAME_BYTES_MAX;

/// The key of a schema that names the header.
const MARK: &str = "x-mcp-header";
/// A tool with more marked arguments than this is invalid.
pub const HEADERS_MAX: usize = 16;
/// A marked argument deeper in the arguments than this makes its tool invalid.
pub const PATH_KEYS_MAX: usize = 8;
/// A path whose keys are longer than this in all makes its tool invalid.
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
        let name = lists::name(tool, ListKind::Tools).filter(|name| name.len() <= NAME_BYTES_MAX)?;
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
                "properties" if value.kind() == Kind::Object => self.properties(value, reach)?,
                // Maps from names to schemas: a name is no keyword.
                "patternProperties" | "$defs" | "definitions" | "dependentSchemas" if value.kind() == Kind::Object => {
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
    let token = mark.text().filter(|token| !token.is_empty() && token.len() <= MARK_BYTES_MAX)?;
    HeaderName::from_bytes([PARAM_PREFIX, token].concat().as_bytes()).ok()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::mcp::document::Document;
    use crate::mcp::document::Limits;

    fn read(body: &str) -> Document {
        Document::read(Bytes::copy_from_slice(body.as_bytes()), &Limits::for_answers()).expect("is read")
    }

    /// Header, path and kind of each mark of a tool with this schema.
    fn marks(schema: &str) -> Result<Vec<(String, String, ParamKind)>, &'static str> {
        let tool = read(&format!(r#"{{"name":"t","inputSchema":{schema}}}"#));
        let annotated = of_tool("t", tool.root()).map_err(|Invalid(word)| word)?;
        let shown = |mark: &Mirrored| (mark.name.as_str().to_owned(), mark.path.join("."), mark.kind);
        Ok(annotated.headers.iter().map(shown).collect())
    }

    /// The outcome for a schema with these properties.
    fn of_properties(properties: &str) -> Result<usize, &'static str> {
        marks(&format!(r#"{{"type":"object","properties":{properties}}}"#)).map(|marks| marks.len())
    }

    #[test]
    fn a_mark_names_header_path_and_kind() {
        let schema = r#"{"type":"object","properties":{
            "region":{"type":"string","x-mcp-header":"Region"},
            "query":{"type":"string"},
            "options":{"type":"object","required":["n"],"properties":{"n":{"x-mcp-header":"x!#$%&'*+-.^_`|~N","type":"integer"}}},
            "x-mcp-header":{"type":"boolean","x-mcp-header":"dry-run"},
            "properties":{"type":"string"}}}"#;
        let expected = [
            ("mcp-param-region", "region", ParamKind::String),
            ("mcp-param-x!#$%&'*+-.^_`|~n", "options.n", ParamKind::Integer),
            ("mcp-param-dry-run", "x-mcp-header", ParamKind::Boolean),
        ];
        assert_eq!(marks(schema), Ok(expected.map(|(name, path, kind)| (name.into(), path.into(), kind)).to_vec()));
    }

    #[test]
    fn a_tool_without_marks_has_none() {
        for schema in ["{}", "null", "true", r#"{"type":"object","properties":{"a":{"type":"number"}}}"#] {
            assert_eq!(marks(schema), Ok(vec![]), "{schema}");
        }
        assert_eq!(of_tool("t", read(r#"{"name":"t"}"#).root()).map(|tool| tool.headers.len()), Ok(0));
        let data = r#"{"a":{"type":"string","default":{"x-mcp-header":"A"},"examples":[{"x-mcp-header":"A"}]}}"#;
        assert_eq!(of_properties(data), Ok(0), "data is no schema");
        let remote = r#"{"a":{"$ref":"https://example.com/schema.json"}}"#;
        assert_eq!(of_properties(remote), Ok(0), "vector 83: nothing is fetched");
    }

    #[test]
    fn one_invalid_mark_makes_the_tool_invalid() {
        let good = r#""good":{"type":"string","x-mcp-header":"Good"}"#;
        for (properties, word) in [
            (r#""a":{"type":"string","x-mcp-header":"My Region"}"#, "annotation_name"),
            (r#""a":{"type":"string","x-mcp-header":""}"#, "annotation_name"),
            (r#""a":{"type":"string","x-mcp-header":"a:b"}"#, "annotation_name"),
            (r#""a":{"type":"string","x-mcp-header":"a\r\nb"}"#, "annotation_name"),
            (r#""a":{"type":"string","x-mcp-header":"é"}"#, "annotation_name"),
            (r#""a":{"type":"string","x-mcp-header":null}"#, "annotation_name"),
            (r#""a":{"type":"string","x-mcp-header":["A"]}"#, "annotation_name"),
            (r#""a":{"type":"string","x-mcp-header":"GOOD"}"#, "annotation_twice"),
            (r#""o":{"properties":{"a":{"type":"string","x-mcp-header":"gOOD"}}}"#, "annotation_twice"),
            (r#""a":{"type":"number","x-mcp-header":"A"}"#, "annotation_type"),
            (r#""a":{"type":"object","x-mcp-header":"A"}"#, "annotation_type"),
            (r#""a":{"type":["string","null"],"x-mcp-header":"A"}"#, "annotation_type"),
            (r#""a":{"x-mcp-header":"A"}"#, "annotation_type"),
        ] {
            assert_eq!(of_properties(&format!("{{{good},{properties}}}")), Err(word), "{properties}");
        }
        assert_eq!(of_properties(&format!("{{{good}}}")), Ok(1));
    }

    #[test]
    fn a_mark_is_reached_through_properties_alone() {
        let mark = r#"{"type":"string","x-mcp-header":"A"}"#;
        for schema in [
            mark.to_owned(),
            format!(r#"{{"properties":{{"a":{{"type":"array","items":{mark}}}}}}}"#),
            format!(r#"{{"properties":{{"a":{{"type":"array","items":{{"properties":{{"b":{mark}}}}}}}}}}}"#),
            format!(r#"{{"properties":{{"a":{{"prefixItems":[{mark}]}}}}}}"#),
            format!(r#"{{"oneOf":[{{"properties":{{"a":{mark}}}}}]}}"#),
            format!(r#"{{"properties":{{"a":{{"anyOf":[{mark},{{"type":"null"}}]}}}}}}"#),
            format!(r#"{{"allOf":[{{"properties":{{"a":{mark}}}}}]}}"#),
            format!(r#"{{"not":{{"properties":{{"a":{mark}}}}}}}"#),
            format!(r#"{{"if":{{"properties":{{"a":{mark}}}}}}}"#),
            format!(r#"{{"then":{{"properties":{{"a":{mark}}}}}}}"#),
            format!(r#"{{"else":{{"properties":{{"a":{mark}}}}}}}"#),
            format!(r##"{{"properties":{{"a":{{"$ref":"#/$defs/a"}}}},"$defs":{{"a":{mark}}}}}"##),
            format!(r#"{{"definitions":{{"x-mcp-header":{mark}}}}}"#),
            format!(r#"{{"patternProperties":{{"^a":{mark}}}}}"#),
            format!(r#"{{"additionalProperties":{mark}}}"#),
            format!(r#"{{"dependentSchemas":{{"a":{{"properties":{{"b":{mark}}}}}}}}}"#),
            format!(r#"{{"properties":[{mark}]}}"#),
            format!(r#"{{"$defs":[{mark}]}}"#),
            format!(r#"{{"what-nobody-knows":{{"properties":{{"a":{mark}}}}}}}"#),
        ] {
            assert_eq!(marks(&schema), Err("annotation_place"), "{schema}");
        }
    }

    #[test]
    fn marks_are_few_shallow_and_short() {
        let many = |count: usize| {
            let marks: Vec<_> =
                (0..count).map(|at| format!(r#""a{at}":{{"type":"string","x-mcp-header":"A{at}"}}"#)).collect();
            of_properties(&format!("{{{}}}", marks.join(",")))
        };
        assert_eq!(many(HEADERS_MAX), Ok(HEADERS_MAX));
        assert_eq!(many(HEADERS_MAX + 1), Err("annotation_count"));
        let deep = |depth: usize, key: &str| {
            let mark = r#"{"type":"string","x-mcp-header":"A"}"#.to_owned();
            marks(&(0..depth).fold(mark, |schema, _| format!(r#"{{"properties":{{"{key}":{schema}}}}}"#)))
        };
        assert_eq!(deep(PATH_KEYS_MAX, "k").map(|marks| marks.len()), Ok(1));
        assert_eq!(deep(PATH_KEYS_MAX + 1, "k"), Err("annotation_depth"));
        assert_eq!(deep(2, &"k".repeat(PATH_BYTES_MAX / 2)).map(|marks| marks.len()), Ok(1));
        assert_eq!(deep(2, &"k".repeat(PATH_BYTES_MAX / 2 + 1)), Err("annotation_depth"));
        let long = |length: usize| {
            of_properties(&format!(r#"{{"a":{{"type":"string","x-mcp-header":"{}"}}}}"#, "A".repeat(length)))
        };
        assert_eq!(long(MARK_BYTES_MAX), Ok(1));
        assert_eq!(long(MARK_BYTES_MAX + 1), Err("annotation_name"));
    }

    #[test]
    fn of_a_list_each_tool_is_judged_by_itself() {
        let list = r#"{"tools":[{"name":"none"},{"Name":"unnamed"},{"name":"long"},
            {"name":"bad","inputSchema":{"properties":{"a":{"type":"number","x-mcp-header":"A"}}}},
            {"name":"one","inputSchema":{"properties":{"a":{"type":"string","x-mcp-header":"A"}}}}]}"#;
        let list = read(&list.replace("long", &"l".repeat(NAME_BYTES_MAX + 1)));
        let found = of_list(list.root()).expect("is a list");
        let found: Vec<_> = found.map(|(name, tool)| (name, tool.map(|tool| tool.headers.len()))).collect();
        assert_eq!(found, [("none", Ok(0)), ("bad", Err(Invalid("annotation_type"))), ("one", Ok(1))]);
        assert!(of_list(read(r#"{"Tools":[]}"#).root()).is_err());
    }
}
