#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| portcullis::transport::fuzzing::front(input));
