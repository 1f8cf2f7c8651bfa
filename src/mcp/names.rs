//! Which spellings of names could mean one thing here and another thing elsewhere?
//!
//! Tool names, prompt names, URIs and method names are compared byte for byte, shown to people and written to records.
//! So they carry nothing that cannot be seen, and reserved keys have no second spelling.

/// Whether a character has no place in a name: control characters, and what is invisible or changes the direction of
/// text.
pub fn is_hidden(character: char) -> bool {
    matches!(character,
        '\0'..='\u{1F}' | '\u{7F}'..='\u{9F}'
        | '\u{AD}' | '\u{34F}' | '\u{61C}' | '\u{115F}' | '\u{1160}' | '\u{17B4}' | '\u{17B5}' | '\u{180B}'..='\u{180F}'
        | '\u{200B}'..='\u{200F}' | '\u{2028}'..='\u{202E}' | '\u{2060}'..='\u{206F}'
        | '\u{3164}' | '\u{FE00}'..='\u{FE0F}' | '\u{FEFF}' | '\u{FFA0}' | '\u{FFF0}'..='\u{FFFB}'
        | '\u{E0000}'..='\u{E0FFF}')
}

/// Whether a name holds only what can be seen.
pub fn is_plain(name: &str) -> bool {
    name.bytes().all(|byte| (b' '..0x7F).contains(&byte)) || !name.chars().any(is_hidden)
}

/// Whether `key` is another spelling of the lower or mixed case `reserved` key for a reader that ignores case. Such
/// readers fold the long s and the Kelvin sign as well.
pub fn is_variant(key: &str, reserved: &str) -> bool {
    key != reserved && key.len() >= reserved.len() && key.chars().map(fold).eq(reserved.chars().map(fold))
}

/// The entry of `reserved` of which `key` is another spelling.
pub(super) fn variant_of<'r>(key: &str, reserved: &[&'r str]) -> Option<&'r str> {
    reserved.iter().copied().find(|reserved| is_variant(key, reserved))
}

fn fold(character: char) -> char {
    match character {
        '\u{17F}' => 's',
        '\u{212A}' => 'k',
        character => character.to_ascii_lowercase(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_any_script_are_plain() {
        for name in ["", "get_user", "get user", "日本語", "naïve", "файл", "🦀"] {
            assert!(is_plain(name), "{name:?}");
        }
    }

    #[test]
    fn names_with_something_invisible_are_not_plain() {
        for name in
            ["a\0", "a\nb", "a\u{7f}", "a\u{85}", "a\u{200b}b", "\u{202e}a", "a\u{2066}", "a\u{feff}", "a\u{e0041}"]
        {
            assert!(!is_plain(name), "{name:?}");
        }
    }

    #[test]
    fn a_variant_differs_in_case_only() {
        assert!(is_variant("Method", "method"));
        assert!(is_variant("JSONRPC", "jsonrpc"));
        assert!(is_variant("param\u{17f}", "params"));
        assert!(is_variant("inputreSponses", "inputResponses"));
        assert!(!is_variant("method", "method"));
        assert!(!is_variant("methods", "method"));
        assert!(!is_variant("metho", "method"));
    }
}
