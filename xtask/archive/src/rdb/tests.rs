use super::*;

/// A snapshot that Redis 7.0.15 wrote, with the forty bytes that redis-cli adds; see the file's name.
const SAMPLE: &[u8] = include_bytes!("sample-7.0.rdb");

fn entries(bytes: &[u8]) -> io::Result<(Summary, Vec<Entry>, Vec<u8>)> {
    let (mut entries, mut copy) = (Vec::new(), Vec::new());
    let summary = read(bytes, &mut copy, |entry| {
        entries.push(entry);
        Ok(())
    })?;
    Ok((summary, entries, copy))
}

#[test]
fn every_kind_of_value_is_read() {
    let (summary, entries, copy) = entries(SAMPLE).unwrap();
    assert_eq!(summary.keys, BTreeMap::from([(0, 16), (3, 1)]));
    assert!(summary.used_memory.is_some_and(|bytes| bytes > 500_000), "{summary:?}");
    let names: Vec<_> = entries.iter().map(|e| String::from_utf8_lossy(&e.key)).collect();
    assert_eq!(names.iter().filter(|name| name.starts_with("kind:")).count(), 15, "{names:?}");
    assert!(entries.iter().any(|entry| entry.key.len() == 300), "a compressed key is uncompressed");
    let expiring = entries.iter().find(|entry| entry.key == b"kind:expiring").unwrap();
    assert_eq!(expiring.expires, Some(4_102_444_800_000));
    assert_eq!(SAMPLE.len() - copy.len(), 40, "what redis-cli adds is left out");
    assert!(SAMPLE.starts_with(&copy));
}

#[test]
fn a_payload_is_what_redis_dumps() {
    let (_, entries, _) = entries(SAMPLE).unwrap();
    let entry = entries.iter().find(|entry| entry.key == b"kind:string").unwrap();
    // `redis-cli dump kind:string` of that server.
    assert_eq!(crate::file::hex(&entry.payload), DUMPED);
}

const DUMPED: &str = "0007612076616c75650a0015b2f899b8be20d5";

#[test]
fn a_snapshot_that_was_cut_or_changed_is_refused() {
    let (_, _, whole) = entries(SAMPLE).unwrap();
    for cut in 0..whole.len() {
        assert!(entries(&whole[..cut]).is_err(), "cut at {cut}");
    }
    for index in 0..whole.len() {
        let mut changed = whole.clone();
        changed[index] ^= 1 << (index % 8);
        assert!(entries(&changed).is_err(), "changed at {index}");
    }
}

#[test]
fn a_command_says_how_long_its_words_are() {
    let mut entry =
        Entry { database: 0, key: b"k".into(), expires: None, payload: b"p\r\n".into() };
    let text = b"*5\r\n$7\r\nRESTORE\r\n$1\r\nk\r\n$1\r\n0\r\n$3\r\np\r\n\r\n$7\r\nREPLACE\r\n";
    assert_eq!(restore_command(&entry), text);
    entry.expires = Some(12);
    assert!(restore_command(&entry).ends_with(b"$6\r\nABSTTL\r\n"));
}

#[test]
fn keys_of_one_database_become_a_snapshot_of_their_own() {
    let (_, entries_of_all, _) = entries(SAMPLE).unwrap();
    for database in [0, 3, 7] {
        let wanted: Vec<Entry> =
            entries_of_all.iter().filter(|entry| entry.database == database).cloned().collect();
        let mut bytes = Vec::new();
        let mut writer = Writer::new(&mut bytes);
        for entry in &wanted {
            writer.add(entry).unwrap();
        }
        writer.finish().unwrap();
        let (_, read, _) = entries(&bytes).unwrap();
        let moved: Vec<Entry> =
            wanted.into_iter().map(|entry| Entry { database: 0, ..entry }).collect();
        assert_eq!(read, moved, "database {database}");
    }
}
