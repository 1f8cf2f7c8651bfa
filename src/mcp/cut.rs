//! How are some items of a list, or some members of an object, taken out of a received body?
//!
//! Each goes together with the comma that nothing needs any more, so that what remains is JSON; every other byte stays.

use std::ops::Range;

use crate::mcp::document::Value;
use crate::mcp::splice::Splice;

/// What to cut so that only the items of an array that pass `keeps` remain, in the order of their spans.
pub fn items<'d>(array: Value<'d>, mut keeps: impl FnMut(Value<'d>) -> bool) -> Vec<Splice> {
    cuts(array.items().map(|item| (item.span(), keeps(item))))
}

/// What to cut so that only the members of an object that pass `keeps` remain, in the order of their spans.
pub fn members<'d>(object: Value<'d>, mut keeps: impl FnMut(&'d str, Value<'d>) -> bool) -> Vec<Splice> {
    cuts(object.pairs().map(|(key, value)| {
        let span = key.span().start..value.span().end;
        (span, key.text().is_some_and(|key| keeps(key, value)))
    }))
}

/// A part goes with the comma before it if something is kept before it, otherwise with the comma after it.
fn cuts(parts: impl Iterator<Item = (Range<usize>, bool)>) -> Vec<Splice> {
    let mut cuts = Vec::new();
    let mut kept_end = None;
    // The parts from the last kept one on, all of which go.
    let mut going: Option<Range<usize>> = None;
    for (span, is_kept) in parts {
        if !is_kept {
            going = Some(going.map_or(span.start, |going| going.start)..span.end);
            continue;
        }
        if let Some(going) = going.take() {
            cuts.push(Splice::cut(match kept_end {
                Some(end) => end..going.end,
                None => going.start..span.start,
            }));
        }
        kept_end = Some(span.end);
    }
    if let Some(going) = going {
        cuts.push(Splice::cut(kept_end.unwrap_or(going.start)..going.end));
    }
    cuts
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;
    use serde_json::Value as Json;

    use super::*;
    use crate::mcp::document::Document;
    use crate::mcp::document::Limits;
    use crate::mcp::splice;

    fn cut(text: &str, goes: &str) -> String {
        let document = Document::read(Bytes::copy_from_slice(text.as_bytes()), &Limits::default()).unwrap();
        let mut splices = items(document.root(), |item| item.text() != Some(goes));
        splices.extend(members(document.root(), |key, _| !key.starts_with(goes)));
        String::from_utf8(splice::apply(document.body(), &splices).unwrap().to_vec()).unwrap()
    }

    #[test]
    fn what_goes_takes_one_comma_with_it() {
        for (before, after) in [
            (r#"["x"]"#, "[]"),
            (r#"[ "x" ]"#, "[  ]"),
            (r#"["x","x"]"#, "[]"),
            (r#"["x" , "a"]"#, r#"["a"]"#),
            (r#"["a" , "x"]"#, r#"["a"]"#),
            (r#"["a","x" , "x","b"]"#, r#"["a","b"]"#),
            (r#"["x","x","a","x","b","x"]"#, r#"["a","b"]"#),
            ("[]", "[]"),
            (r#"["a"]"#, r#"["a"]"#),
            ("{}", "{}"),
            (r#"{"x":{}}"#, "{}"),
            (r#"{ "x" : 1 , "a" : 2 }"#, r#"{ "a" : 2 }"#),
            (r#"{"a":1,"\u0078":[1,2],"b":2}"#, r#"{"a":1,"b":2}"#),
            ("7", "7"),
        ] {
            assert_eq!(cut(before, "x"), after, "{before}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn what_remains_is_what_another_reader_leaves(
            keys in prop::collection::vec("[xa][a-z]{0,2}", 0..10),
            separator in prop::sample::select(vec![",", " , ", ",\n  ", "\t,"]),
        ) {
            let mut seen = std::collections::BTreeSet::new();
            let keys: Vec<_> = keys.into_iter().filter(|key| seen.insert(key.clone())).collect();
            let members: Vec<_> = keys.iter().map(|key| format!(r#""{key}" : {{"n":[1,"{key}"]}}"#)).collect();
            let text = format!("{{ {} }}", members.join(separator));
            let mut expected: Json = serde_json::from_str(&text).unwrap();
            expected.as_object_mut().unwrap().retain(|key, _| !key.starts_with('x'));
            prop_assert_eq!(serde_json::from_str::<Json>(&cut(&text, "x")).unwrap(), expected);
        }
    }
}
