//! Bodies that hold several messages.

use super::*;

fn items(body: &str) -> Result<Vec<Result<String, &'static str>>, &'static str> {
    assert!(is_batch(body.as_bytes()), "{body}");
    let items = read(&Bytes::from(body.to_owned()), &Limits::default(), 3).map_err(|error| error.name)?;
    let shown = items.iter().map(|item| match item {
        Ok(message) => Ok(String::from_utf8_lossy(message.body()).into_owned()),
        Err(error) => Err(error.name),
    });
    Ok(shown.collect())
}

#[test]
fn each_item_has_exactly_its_bytes() {
    let (one, two) = (r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#, r#"{ "jsonrpc":"2.0" , "method":"x/y" }"#);
    let batch = format!(" [ {one} ,\n{two}]");
    assert_eq!(items(&batch), Ok(vec![Ok(one.to_owned()), Ok(two.to_owned())]));
}

#[test]
fn an_item_that_is_no_message_does_not_hide_the_others() {
    let good = r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#;
    let batch = format!(r#"[1,{good},[{good}]]"#);
    assert_eq!(items(&batch), Ok(vec![Err("not_an_object"), Ok(good.to_owned()), Err("batch")]));
    assert_eq!(items("[]"), Ok(Vec::new()));
}

#[test]
fn what_is_ambiguous_anywhere_refuses_the_whole() {
    for (batch, name) in [
        (r#"[{"jsonrpc":"2.0","id":1,"id":2,"method":"ping"}]"#, "duplicate_key"),
        (r#"[{"jsonrpc":"2.0","id":1,"method":"ping"}"#, "truncated"),
        (r#"[{"jsonrpc":"2.0","id":1,"method":"ping"}]x"#, "trailing_data"),
    ] {
        assert_eq!(items(batch), Err(name), "{batch}");
    }
}

#[test]
fn no_more_than_one_item_beyond_the_limit_is_read() {
    let batch = format!("[{}]", [r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#; 9].join(","));
    assert_eq!(items(&batch).map(|items| items.len()), Ok(4));
    assert!(!is_batch(b"{\"a\":[]}") && !is_batch(b""));
}
