//! The names in git's index: what is tracked, even if it is ignored. Nothing else of it is read.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path};

/// Bytes of an entry before its object name, and where the mode stands in them.
const STAT: usize = 40;
const MODE: usize = 24;
/// Bytes of an object name: SHA-1, SHA-256.
const OBJECT_NAMES: [usize; 2] = [20, 32];
const EXTENDED: u16 = 0x4000;
const NAME_LENGTH: u16 = 0xfff;

/// Hands on each tracked file and link, relative to the working tree; `None` if this is not a whole index
/// that can be read, and then it hands on nothing. Which object names it holds is told by trying: with
/// the wrong size nothing adds up.
pub(super) fn tracked(bytes: &[u8], each: impl FnMut(&Path)) -> Option<()> {
    let fits = |size: &usize| entries(bytes, *size, |_| ()).is_some();
    entries(bytes, OBJECT_NAMES.into_iter().find(fits)?, each)
}

fn entries(bytes: &[u8], object_name: usize, mut each: impl FnMut(&Path)) -> Option<()> {
    let mut rest = bytes.strip_prefix(b"DIRC")?;
    let version = u32::from_be_bytes(take(&mut rest)?);
    let count = u32::from_be_bytes(take(&mut rest)?);
    if !(2..=4).contains(&version) {
        return None;
    }
    let mut name = Vec::new();
    for _ in 0..count {
        let start = rest;
        let kind = *rest.get(MODE + 2)? >> 4;
        rest = rest.get(STAT + object_name..)?;
        let flags = u16::from_be_bytes(take(&mut rest)?);
        if flags & EXTENDED != 0 {
            take::<2>(&mut rest)?;
        }
        let kept = if version == 4 { name.len().checked_sub(number(&mut rest)?)? } else { 0 };
        let end = rest.iter().position(|&byte| byte == 0)?;
        name.truncate(kept);
        name.extend_from_slice(&rest[..end]);
        if usize::from(flags & NAME_LENGTH) != name.len().min(usize::from(NAME_LENGTH)) {
            return None;
        }
        rest = &rest[end..];
        // Names end with a zero; before version 4, with as many as fill up eight bytes.
        let length = start.len() - rest.len();
        let zeros = if version == 4 { 1 } else { 8 - length % 8 };
        rest = rest.get(zeros..)?;
        // 8 is a regular file and 10 a link; others are submodules and folders.
        let path = Path::new(OsStr::from_bytes(&name));
        if matches!(kind, 8 | 10)
            && !name.is_empty()
            && path.components().all(|part| matches!(part, Component::Normal(_)))
        {
            each(path);
        }
    }
    // The rest of the names may stand in another file, which few repositories have.
    let is_split = extensions(rest, object_name).any(|signature| signature == b"link");
    (!is_split).then_some(())
}

/// The signatures of what follows the entries.
fn extensions(mut rest: &[u8], checksum: usize) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let signature = rest.get(..4).filter(|_| rest.len() > checksum)?;
        rest = &rest[4..];
        let length = usize::try_from(u32::from_be_bytes(take(&mut rest)?)).ok()?;
        rest = rest.get(length..)?;
        Some(signature)
    })
}

fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (first, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(*first)
}

/// A number as git packs it for offsets: seven bits a byte, the highest first, and one added for each
/// byte that follows.
fn number(bytes: &mut &[u8]) -> Option<usize> {
    let [mut byte] = take(bytes)?;
    let mut value = usize::from(byte & 0x7f);
    while byte & 0x80 != 0 {
        [byte] = take(bytes)?;
        value = value.checked_add(1)?.checked_mul(128)?.checked_add(usize::from(byte & 0x7f))?;
    }
    Some(value)
}

#[cfg(test)]
pub(super) mod tests {
    use std::path::PathBuf;

    use proptest::prelude::*;

    use super::*;

    /// An index as git writes it, of regular files.
    pub(in super::super) fn index(version: u32, object_name: usize, names: &[&str]) -> Vec<u8> {
        let mut bytes = b"DIRC".to_vec();
        bytes.extend(version.to_be_bytes());
        bytes.extend(u32::try_from(names.len()).unwrap().to_be_bytes());
        let mut before = "";
        for name in names {
            let start = bytes.len();
            bytes.extend([0; MODE]);
            bytes.extend(0o100_644_u32.to_be_bytes());
            bytes.resize(start + STAT + object_name, 7);
            let extended = version > 2;
            let flags = u16::try_from(name.len().min(0xfff)).unwrap();
            bytes.extend((flags | if extended { EXTENDED } else { 0 }).to_be_bytes());
            if extended {
                bytes.extend([0x20, 0]);
            }
            if version == 4 {
                let same = name.bytes().zip(before.bytes()).take_while(|(a, b)| a == b).count();
                bytes.extend(packed(before.len() - same));
                bytes.extend(&name.as_bytes()[same..]);
                bytes.push(0);
            } else {
                bytes.extend(name.as_bytes());
                bytes.resize(start + (bytes.len() - start) / 8 * 8 + 8, 0);
            }
            before = name;
        }
        bytes.extend(b"TREE\0\0\0\x01x");
        bytes.extend(vec![9; object_name]);
        bytes
    }

    fn packed(mut number: usize) -> Vec<u8> {
        let seven_bits = |number: usize| u8::try_from(number & 0x7f).unwrap();
        let mut bytes = vec![seven_bits(number)];
        while number >= 128 {
            number = number / 128 - 1;
            bytes.insert(0, seven_bits(number) | 0x80);
        }
        bytes
    }

    fn names(bytes: &[u8]) -> Option<Vec<PathBuf>> {
        let mut names = Vec::new();
        tracked(bytes, |path| names.push(path.to_owned()))?;
        Some(names)
    }

    #[test]
    fn every_version_gives_the_names() {
        let long = "long/".repeat(1000) + "end";
        let all = [".gitignore", "a/b", "a/b.c", "eight123", long.as_str(), "z\n"];
        for version in 2..=4 {
            for object_name in OBJECT_NAMES {
                let expected: Vec<PathBuf> = all.iter().map(PathBuf::from).collect();
                let read = names(&index(version, object_name, &all));
                assert_eq!(read, Some(expected), "version {version}, {object_name} bytes");
            }
        }
    }

    #[test]
    fn names_that_lead_out_are_not_followed_and_nonsense_is_not_read() {
        let out = ["/etc/passwd", "../x", "a/../../x", "ok"];
        assert_eq!(names(&index(2, 20, &out)), Some(vec!["ok".into()]));
        let split = index(2, 20, &["a", "b"]);
        let at = split.windows(4).position(|four| four == b"TREE").unwrap();
        let split = [&split[..at], b"TREE\0\0\0\x01xlink\0\0\0\x02xx", &split[at + 9..]].concat();
        assert_eq!(names(&split), None);
        assert_eq!(names(b""), None);
        assert_eq!(names(b"DIRC\0\0\0\x09\0\0\0\0"), None);
        assert_eq!(names(b"DIRC\0\0\0\x02\xff\xff\xff\xff"), None);
        let cut = index(3, 20, &["abc", "def"]);
        assert_eq!(names(&cut[..100]), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(
            bytes in proptest::collection::vec(any::<u8>(), 0..300), version in 2u8..5, count in 0u8..4,
        ) {
            let head = [b"DIRC\0\0\0".as_slice(), &[version, 0, 0, 0, count]].concat();
            let _ = names(&[head, bytes].concat());
        }
    }
}
