//! `include/engine.h` is what cbindgen makes of `src/capi` today. After a change there: `ENGINE_BLESS=1 cargo test --test header`.

use std::path::Path;

/// In the order in which a reader of the header wants them.
const SOURCES: [&str; 9] = ["status", "options", "model", "facts", "cache", "batch", "profile", "decoder", "quantize"];

fn generate(root: &Path) -> String {
    let config = cbindgen::Config::from_file(root.join("cbindgen.toml")).expect("cbindgen.toml");
    let builder = SOURCES.iter().fold(cbindgen::Builder::new().with_config(config), |builder, name| {
        builder.with_src(root.join("src/capi").join(name).with_extension("rs"))
    });
    let mut header = Vec::new();
    builder.generate().expect("src/capi parses").write(&mut header);
    String::from_utf8(header).expect("UTF-8")
}

#[test]
fn every_exported_function_is_declared() {
    let header = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("include/engine.h")).unwrap();
    let symbols = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/abi/symbols.txt")).unwrap();
    let missing: Vec<&str> = symbols.lines().filter(|name| !header.contains(&format!("{name}("))).collect();
    assert!(missing.is_empty(), "not in include/engine.h: {missing:?}");
}

#[test]
fn header_is_up_to_date() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let path = root.join("include/engine.h");
    let generated = generate(root);
    if std::env::var_os("ENGINE_BLESS").is_some() {
        std::fs::write(&path, &generated).expect("include/engine.h can be written");
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(committed == generated, "include/engine.h differs from src/capi: run ENGINE_BLESS=1 cargo test --test header");
}
