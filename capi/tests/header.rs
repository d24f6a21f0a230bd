//! `include/discon.h` is what the sources give. `DISCON_HEADER=write cargo test -p discon-capi --test header` writes it.

use std::path::Path;

/// What a reader of the header needs to know of all of it.
const HEAD: &str = "\
// discon: DisCon image generators inside your program. docs/embedding.md tells how to use it.
//
// Made from capi/src by `capi/header`.
//
// Calls return a discon_status; discon_last_error has the words. No call ends the process, writes to a stream or lets a panic out.
// Pointers that a call needs are refused where null. Those that are not null point to what their type says: the library cannot check more.
//
// Handles (discon_model, discon_device, discon_session, ...) come from the library, through the last parameter, which is null after a failure;
// each is freed once, in any order. Freeing null does nothing.
//
// Structs that start with `size` are made by their `_init` function, so that a program goes on working with later versions of the
// library, whose structs are larger: fields that a program does not know have their defaults.
//
// Callbacks run inside calls of the library. They must return: no longjmp, no exception out of them.";

#[test]
fn the_header_is_what_the_sources_give() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut config = cbindgen::Config::from_file(root.join("cbindgen.toml")).unwrap();
    config.header = Some(HEAD.to_owned());
    let sources = ["status", "allocator", "device", "model", "request", "picture", "session/mod", "edit", "log"];
    let builder = sources.iter().fold(cbindgen::Builder::new().with_config(config), |builder, name| {
        builder.with_src(root.join("src").join(name).with_extension("rs"))
    });
    let mut made = Vec::new();
    builder.generate().unwrap().write(&mut made);
    let made = String::from_utf8(made).unwrap();
    let path = root.join("../include/discon.h");
    if std::env::var_os("DISCON_HEADER").is_some() {
        std::fs::write(&path, &made).unwrap();
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    let differs = made.lines().zip(committed.lines()).find(|(made, committed)| made != committed);
    assert!(made == committed, "include/discon.h is out of date at {differs:?}: run capi/header");
}
