//! Archives: whatever is read is written again, byte for byte.
#![no_main]

use igloo_formats::nix::nar::{Node, Writer, read};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let mut writer = Writer::new(Vec::new());
    // Whether each open directory is an entry of another one.
    let mut open: Vec<bool> = Vec::new();
    let result = read(&mut &bytes[..], |name, node| {
        if let Some(name) = name {
            assert!(!name.is_empty() && name != b"." && name != b".." && !name.contains(&b'/'));
            writer.begin_entry(name);
        }
        match node {
            Node::Dir => {
                writer.begin_dir();
                open.push(name.is_some());
                return Ok(());
            }
            Node::EndDir => {
                writer.end_dir();
                if open.pop().expect("balanced") {
                    writer.end_entry()?;
                }
                return Ok(());
            }
            Node::Symlink(target) => writer.symlink(target)?,
            Node::File { executable, size, content } => {
                let mut held = Vec::new();
                content.read_to_end(&mut held)?;
                if held.len() as u64 != size {
                    return Err(std::io::ErrorKind::UnexpectedEof.into());
                }
                writer.begin_file(executable, size);
                writer.content(&held)?;
                writer.end_file()?;
            }
        }
        if name.is_some() { writer.end_entry() } else { Ok(()) }
    });
    if result.is_ok() {
        assert_eq!(writer.finish().expect("memory"), bytes);
    }
});
