//! Any difference between the two tables is found.

use super::*;
use crate::mcp::document::Limits;
use crate::mcp::scan;

const BODY: &str = r#"{"a":[1,-2,3.5,"x",{}],"b":{"c":"\u0041\n","d":[]},"e":true,"f":false,"g":null}"#;

fn table(body: &str) -> Vec<Node> {
    let mut scratch = scan::Scratch::default();
    scan::scan(body.as_bytes(), &Limits::default(), &mut scratch).expect("is JSON");
    scratch.nodes
}

fn is_agreed(body: &str, mut nodes: Vec<Node>) -> bool {
    agree(body.as_bytes(), &mut nodes, &mut String::new(), &mut Scratch::default()).is_ok()
}

#[test]
fn the_table_of_the_same_body_agrees() {
    assert!(is_agreed(BODY, table(BODY)));
}

#[test]
fn a_node_of_another_kind_does_not_agree() {
    let shapes = [
        Shape::Object { after: 0, count: 0 },
        Shape::Array { after: 0, count: 0 },
        Shape::Plain,
        Shape::Number,
        Shape::True,
        Shape::False,
        Shape::Null,
    ];
    let nodes = table(BODY);
    for index in 0..nodes.len() {
        for shape in shapes {
            let mut changed = nodes.clone();
            if std::mem::discriminant(&changed[index].shape) != std::mem::discriminant(&shape) {
                changed[index].shape = shape;
                assert!(!is_agreed(BODY, changed), "{index} {shape:?}");
            }
        }
    }
}

#[test]
fn another_extent_or_number_of_entries_does_not_agree() {
    let nodes = table(BODY);
    for index in 0..nodes.len() {
        for (more_after, more_count) in [(1, 0), (0, 1)] {
            let mut changed = nodes.clone();
            match &mut changed[index].shape {
                Shape::Object { after, count } | Shape::Array { after, count } => {
                    *after += more_after;
                    *count += more_count;
                }
                _ => continue,
            }
            assert!(!is_agreed(BODY, changed), "{index}");
        }
    }
}

#[test]
fn another_text_or_number_does_not_agree() {
    let nodes = table(BODY);
    for other in [
        BODY.replace("\"x\"", "\"y\""),
        BODY.replace("\"e\"", "\"h\""),
        BODY.replace("\\u0041", "\\u0042"),
        BODY.replace("\\n", "\\t"),
        BODY.replace("[1,", "[2,"),
        BODY.replace("-2", "-3"),
        BODY.replace("3.5", "3.6"),
    ] {
        assert!(is_agreed(&other, table(&other)));
        // The places are the same, so only what stands there differs.
        let mut bytes = other.clone().into_bytes();
        let theirs = simd_json::to_tape(&mut bytes).expect("is JSON");
        assert!(compare(BODY.as_bytes(), &mut nodes.clone(), &theirs.0, &mut String::new()).is_err(), "{other}");
    }
}

#[test]
fn more_or_fewer_nodes_do_not_agree() {
    let nodes = table(BODY);
    assert!(!is_agreed(BODY, nodes[..nodes.len() - 1].to_vec()));
    let mut more = nodes.clone();
    more.push(Node::NONE);
    assert!(!is_agreed(BODY, more));
}

#[test]
fn what_only_one_reader_takes_for_json_does_not_agree() {
    assert!(!is_agreed(r#"{"a":1}}"#, table(r#"{"a":1}"#)));
    assert!(!is_agreed("[1 2]", table("[1,2]")));
}

#[test]
fn escapes_spell_exactly_one_text() {
    for (written, text) in [
        ("", ""),
        ("abc", "abc"),
        (r"\u0061\u0062", "ab"),
        (r#"\"\\\/\b\f\n\r\t"#, "\"\\/\u{8}\u{c}\n\r\t"),
        (r"a\u00e9é\uD83D\uDE00😀z", "aéé😀😀z"),
        (r"\u0000", "\0"),
        (r"\uffff", "\u{ffff}"),
    ] {
        assert!(spells(written.as_bytes(), text), "{written}");
        assert!(!spells(written.as_bytes(), &format!("{text}x")), "{written}");
        assert!(!spells(format!("{written}x").as_bytes(), text), "{written}");
    }
    for (written, text) in
        [(r"\n", "n"), (r"\u0041", "a"), (r"\ud83d", ""), (r"\ud83dx", "x"), (r"\q", "q"), (r"\", "")]
    {
        assert!(!spells(written.as_bytes(), text), "{written}");
    }
}
