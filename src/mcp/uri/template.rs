//! What may come of a template of URIs?
//!
//! A URI in which a harmless word stands for every expression, in the form that its operator gives it (RFC 6570).

/// What stands for a variable.
const WORD: &str = "x";

/// A URI that may come of a template; `None` if the text has no expressions, and is no template.
pub fn sample(template: &str) -> Option<String> {
    let mut sample = String::with_capacity(template.len());
    let mut rest = template;
    let mut has_expression = false;
    while let Some((before, from)) = rest.split_once('{') {
        let (expression, after) = from.split_once('}')?;
        sample.push_str(before);
        match expression.chars().next() {
            Some(operator @ ('/' | '#' | '.' | ';')) => {
                sample.push(operator);
                sample.push_str(WORD);
            }
            Some(operator @ ('?' | '&')) => {
                sample.push(operator);
                sample.push_str(WORD);
                sample.push('=');
            }
            _ => sample.push_str(WORD),
        }
        has_expression = true;
        rest = after;
    }
    sample.push_str(rest);
    has_expression.then_some(sample)
}

#[cfg(test)]
mod tests {
    use super::sample;

    #[test]
    fn a_word_stands_for_every_expression() {
        for (template, expected) in [
            ("a://{id}", "a://x"),
            ("a://{owner}/{repo}/b", "a://x/x/b"),
            ("file:///{+path}", "file:///x"),
            ("a://b{/c,d*}{?q,r}{&s}{#t}", "a://b/x?x=&x=#x"),
            ("a://b{.c}{;d}{}", "a://b.x;xx"),
        ] {
            assert_eq!(sample(template).as_deref(), Some(expected), "{template}");
        }
        for text in ["a://b", "a://{b", "a://b}", "{a}{b"] {
            assert_eq!(sample(text), None, "{text}");
        }
    }
}
