//! What may a configuration look like, for editors and for our own check?
//!
//! One JSON schema, made from the model and its doc comments. It is tidied in four ways: TOML has no null, an
//! empty text is no default worth telling, a doc comment's line breaks are not the reader's, and synonyms of a word are
//! words as well.

use schemars::generate::SchemaSettings;
use serde_json::Map;
use serde_json::Value;
use serde_json::json;

use crate::config::model::Config;

/// Where the model lists synonyms: `{"synonym": "word"}`.
const SYNONYMS: &str = "x-synonyms";

/// The JSON schema of a configuration file, draft 7, which TOML editors read.
pub fn schema() -> Value {
    let mut schema = SchemaSettings::draft07().into_generator().into_root_schema_for::<Config>().to_value();
    tidy(&mut schema);
    schema
}

fn tidy(value: &mut Value) {
    match value {
        Value::Object(object) => {
            drop_null(object);
            join_lines(object);
            spell_synonyms(object);
            object.values_mut().for_each(tidy);
        }
        Value::Array(items) => items.iter_mut().for_each(tidy),
        _ => {}
    }
}

fn drop_null(object: &mut Map<String, Value>) {
    if object.get("default").is_some_and(|default| default.is_null() || default == "") {
        object.remove("default");
    }
    if let Some(Value::Array(types)) = object.get_mut("type") {
        types.retain(|name| name != "null");
        if let [one] = types.as_slice() {
            let one = one.clone();
            object.insert("type".into(), one);
        }
    }
    if let Some(Value::Array(forms)) = object.get_mut("anyOf") {
        forms.retain(|form| form != &json!({ "type": "null" }));
        if forms.len() == 1
            && let Some(forms) = object.remove("anyOf")
        {
            object.insert("allOf".into(), forms);
        }
    }
}

fn join_lines(object: &mut Map<String, Value>) {
    if let Some(Value::String(text)) = object.get_mut("description") {
        let paragraphs: Vec<String> = text.split("\n\n").map(|paragraph| paragraph.replace('\n', " ")).collect();
        *text = paragraphs.join("\n\n");
    }
}

fn spell_synonyms(object: &mut Map<String, Value>) {
    let Some(Value::Object(synonyms)) = object.remove(SYNONYMS) else { return };
    if let Some(Value::Array(words)) = object.get_mut("oneOf") {
        words.extend(synonyms.iter().map(|(synonym, word)| {
            let word = word.as_str().unwrap_or_default();
            json!({ "const": synonym, "type": "string", "description": format!("The same as `{word}`.") })
        }));
    }
}
