#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| portcullis::mcp::fuzzing::lists(input));
