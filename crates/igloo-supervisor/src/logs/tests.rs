use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::spec::LogLimits;
use crate::time::format_ns;

fn texts(reader: &mut Reader) -> Vec<String> {
    reader.map(|r| r.expect("record")).map(|r| format!("{} {} {}", r.service, r.stream.tag(), r.text)).collect()
}

fn append(sink: &Sink, ns: u64, stream: Stream, text: &str) {
    let mut record = Vec::new();
    append_record(&mut record, &format_ns(ns), stream, false, text.as_bytes());
    sink.append(&record, 1);
}

fn query(services: &[&str], tail: Option<usize>) -> Query {
    Query { services: services.iter().map(|s| (*s).to_owned()).collect(), tail, since_ns: None }
}

/// What a service writes, in pieces, as it comes out of the log.
fn pumped(pieces: &[&[u8]]) -> Vec<Record> {
    let dir = tempfile::tempdir().expect("tempdir");
    let sink = Arc::new(Sink::new(dir.path(), "s", LogLimits::default()));
    let pump = pump(Arc::clone(&sink)).expect("pump");
    let mut stdout = std::fs::File::from(pump.io.stdout);
    drop(pump.io.stderr);
    for piece in pieces {
        stdout.write_all(piece).expect("write");
        std::thread::sleep(Duration::from_millis(20));
    }
    drop(stdout);
    let _ = pump.done.blocking_recv();
    Reader::open(dir.path(), &query(&["s"], None)).expect("open").map(|r| r.expect("record")).collect()
}

#[test]
fn a_record_survives_its_file() {
    let mut line = Vec::new();
    append_record(&mut line, &format_ns(42), Stream::Err, true, b" two  words");
    let record = Record::parse("db", line.strip_suffix(b"\n").expect("newline")).expect("parse");
    assert_eq!(record.text, " two  words");
    assert_eq!((record.time_ns, record.stream, record.continues), (42, Stream::Err, true));
    for bad in ["", "x", "2026-11-21T10:04:05.000000001Z", "2026-11-21T10:04:05.000000001Z foo bar"] {
        assert_eq!(Record::parse("db", bad.as_bytes()), None);
    }
}

#[test]
fn lines_are_put_together_from_pieces() {
    let records = pumped(&[b"one\ntw", b"o\nthree", b"\nlast"]);
    let texts: Vec<_> = records.iter().map(|r| r.text.as_str()).collect();
    assert_eq!(texts, ["one", "two", "three", "last"]);
    assert!(records.iter().all(|r| !r.continues && r.stream == Stream::Out));
}

#[test]
fn an_endless_line_is_cut_and_nothing_of_it_is_lost() {
    let long = vec![b'x'; 300_000];
    let mut input = long.clone();
    input.extend_from_slice(b"\nafter\n");
    let records = pumped(&[&input]);
    assert!(records.iter().all(|r| r.text.len() <= MAX_TEXT));
    let (last, pieces) = records.split_last().expect("records");
    assert_eq!(last.text, "after");
    let joined: String = pieces.iter().map(|r| r.text.as_str()).collect();
    assert_eq!(joined.as_bytes(), long);
    let flags: Vec<bool> = pieces.iter().map(|r| r.continues).collect();
    assert_eq!(flags.iter().filter(|c| !**c).count(), 1);
    assert_eq!(flags.last(), Some(&false));
}

#[test]
fn a_prompt_is_seen_without_its_newline() {
    let dir = tempfile::tempdir().expect("tempdir");
    let sink = Arc::new(Sink::new(dir.path(), "s", LogLimits::default()));
    let pump = pump(sink).expect("pump");
    let mut stdout = std::fs::File::from(pump.io.stdout);
    let mut reader = Reader::open(dir.path(), &query(&["s"], None)).expect("open");
    stdout.write_all(b"password: ").expect("write");
    let record = reader.follow(Duration::from_secs(5)).expect("follow").expect("a record");
    assert_eq!((record.text.as_str(), record.continues), ("password: ", true));
}

#[test]
fn services_are_merged_by_time() {
    let dir = tempfile::tempdir().expect("tempdir");
    let (a, b) = (Sink::new(dir.path(), "a", LogLimits::default()), Sink::new(dir.path(), "b", LogLimits::default()));
    for ns in [10, 30, 50] {
        append(&a, ns, Stream::Out, &ns.to_string());
    }
    for ns in [20, 40] {
        append(&b, ns, Stream::Err, &ns.to_string());
    }
    let mut all = Reader::open(dir.path(), &Query::default()).expect("open");
    assert_eq!(texts(&mut all), ["a out 10", "b err 20", "a out 30", "b err 40", "a out 50"]);
    let mut since = Reader::open(dir.path(), &Query { since_ns: Some(40), ..Query::default() }).expect("open");
    assert_eq!(texts(&mut since), ["b err 40", "a out 50"]);
    let mut tail = Reader::open(dir.path(), &query(&[], Some(1))).expect("open");
    assert_eq!(texts(&mut tail), ["b err 40", "a out 50"]);
    let mut none = Reader::open(dir.path(), &query(&["a", "absent"], Some(0))).expect("open");
    assert_eq!(texts(&mut none), [""; 0]);
}

#[test]
fn rotation_keeps_so_many_files_and_tail_reads_across_them() {
    let dir = tempfile::tempdir().expect("tempdir");
    let limits = LogLimits { max_bytes: 1000, max_files: 3 };
    let sink = Sink::new(dir.path(), "s", limits);
    for i in 0..200u64 {
        append(&sink, i, Stream::Out, &format!("line {i}"));
    }
    let mut names: Vec<_> =
        std::fs::read_dir(dir.path()).expect("list").map(|e| e.expect("entry").file_name()).collect();
    names.sort();
    assert_eq!(names, ["s.log", "s.log.1", "s.log.2"]);
    for name in names {
        assert!(std::fs::metadata(dir.path().join(name)).expect("stat").len() <= 1000);
    }
    let all = texts(&mut Reader::open(dir.path(), &query(&["s"], None)).expect("open"));
    assert_eq!(all.last().map(String::as_str), Some("s out line 199"));
    assert!(all.len() > 44 && all.len() < 200, "{}", all.len());
    for tail in [1, 22, 23, 30, all.len(), 1000] {
        let last = texts(&mut Reader::open(dir.path(), &query(&["s"], Some(tail))).expect("open"));
        assert_eq!(last, all[all.len() - tail.min(all.len())..], "tail {tail}");
    }
}

#[test]
fn following_loses_nothing_over_rotations_and_sees_new_services() {
    let dir = tempfile::tempdir().expect("tempdir");
    let mut reader = Reader::open(dir.path(), &Query::default()).expect("open");
    let path = dir.path().to_owned();
    let writer = std::thread::spawn(move || {
        // Enough files that none is thrown away before it was read.
        let sink = Sink::new(&path, "s", LogLimits { max_bytes: 2000, max_files: 100 });
        for i in 0..1000u64 {
            append(&sink, i, Stream::Out, &i.to_string());
            if i % 100 == 0 {
                std::thread::sleep(Duration::from_millis(5));
            }
        }
    });
    for i in 0..1000u64 {
        let record = reader.follow(Duration::from_secs(10)).expect("follow").expect("a record in time");
        assert_eq!(record.text, i.to_string());
    }
    writer.join().expect("writer");
    assert_eq!(reader.follow(Duration::from_millis(20)).expect("follow"), None);
}

#[test]
fn a_full_disk_drops_and_counts_and_tells_later() {
    let dir = tempfile::tempdir().expect("tempdir");
    // /dev/full is a disk that is always full.
    std::os::unix::fs::symlink("/dev/full", log_path(dir.path(), "s")).expect("symlink");
    let sink = Sink::new(dir.path(), "s", LogLimits::default());
    append(&sink, 1, Stream::Out, "lost");
    append(&sink, 2, Stream::Out, "lost too");
    assert_eq!(sink.dropped(), 2);
    std::fs::remove_file(log_path(dir.path(), "s")).expect("unlink");
    sink.reopen();
    append(&sink, 3, Stream::Out, "kept");
    let lines = texts(&mut Reader::open(dir.path(), &query(&["s"], None)).expect("open"));
    assert_eq!(lines, ["s sup 2 lines were lost: No space left on device (os error 28)", "s out kept"]);
}

#[test]
fn a_torn_record_is_cut_off_by_the_next_supervisor() {
    let dir = tempfile::tempdir().expect("tempdir");
    let mut torn = Vec::new();
    append_record(&mut torn, &format_ns(1), Stream::Out, false, b"whole");
    torn.extend_from_slice(b"2026-11-21T10:0");
    std::fs::write(log_path(dir.path(), "s"), torn).expect("write");
    append(&Sink::new(dir.path(), "s", LogLimits::default()), 2, Stream::Out, "next");
    let lines = texts(&mut Reader::open(dir.path(), &query(&["s"], None)).expect("open"));
    assert_eq!(lines, ["s out whole", "s out next"]);
}

#[test]
fn a_watch_fires_once_at_the_first_match() {
    let dir = tempfile::tempdir().expect("tempdir");
    let sink = Sink::new(dir.path(), "s", LogLimits::default());
    let (send, receive) = std::sync::mpsc::channel();
    let pattern = regex::bytes::Regex::new("^ready .* [0-9]+$").expect("pattern");
    sink.watch(pattern, Box::new(move || send.send(()).expect("send")));
    sink.see(&mut [b"not ready on 1".as_slice(), b"ready on"].into_iter());
    assert!(receive.try_recv().is_err());
    sink.see(&mut [b"ready on 80".as_slice(), b"ready on 81"].into_iter());
    assert!(receive.try_recv().is_ok());
    assert!(receive.try_recv().is_err());
    assert_eq!(sink.tail().len(), 4);
}
