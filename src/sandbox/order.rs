//! What a keeper is to do, as bytes on its standard input: it is started while the rest of a run is being
//! prepared, and what follows its order there is the program's.

use std::ffi::{OsStr, OsString};
use std::io::{self, Read};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};

use super::rules::{self, Access, Rules};

/// The longest order that is believed, bytes: arguments and environment together hold less.
const LONGEST: u64 = 1 << 30;

/// What to start, and what it may open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    /// What may be opened; everything without.
    pub rules: Option<Vec<(Access, PathBuf)>>,
    /// The folder that the program starts in.
    pub work_dir: PathBuf,
    /// The program.
    pub program: PathBuf,
    /// Its arguments.
    pub args: Vec<OsString>,
    /// All of its environment.
    pub env: Vec<(OsString, OsString)>,
}

/// The bytes that [`read`] makes an order of.
#[must_use]
pub fn to_bytes<'a>(
    rules: Option<&Rules>,
    work_dir: &Path,
    program: &Path,
    args: &[OsString],
    env: impl Iterator<Item = (&'a String, &'a String)>,
) -> Vec<u8> {
    let mut order = vec![0; size_of::<u64>()];
    let mut add = |part: &[u8]| {
        order.extend_from_slice(&(part.len() as u64).to_le_bytes());
        order.extend_from_slice(part);
    };
    add(&rules.map(Rules::to_bytes).unwrap_or_default());
    add(work_dir.as_os_str().as_bytes());
    add(program.as_os_str().as_bytes());
    add(&(args.len() as u64).to_le_bytes());
    for arg in args {
        add(arg.as_bytes());
    }
    for (name, value) in env {
        add(name.as_bytes());
        add(value.as_bytes());
    }
    let length = (order.len() - size_of::<u64>()) as u64;
    order[..size_of::<u64>()].copy_from_slice(&length.to_le_bytes());
    order
}

/// Reads an order, and nothing beyond it; `None` when the input ends before one begins.
///
/// # Errors
/// What the system says, and [`io::ErrorKind::InvalidData`] for what is no order.
pub fn read(mut input: impl Read) -> io::Result<Option<Order>> {
    let mut length = [0; size_of::<u64>()];
    match input.read(&mut length)? {
        0 => return Ok(None),
        some => input.read_exact(&mut length[some..])?,
    }
    let length = u64::from_le_bytes(length);
    if length > LONGEST {
        return Err(foreign());
    }
    let mut bytes = Vec::new();
    if input.take(length).read_to_end(&mut bytes)? as u64 != length {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    parse(&bytes).map(Some)
}

fn parse(mut bytes: &[u8]) -> io::Result<Order> {
    let rules = part(&mut bytes)?;
    let rules = if rules.is_empty() { None } else { Some(rules::from_bytes(rules)?) };
    let mut path = || part(&mut bytes).map(|path| PathBuf::from(OsStr::from_bytes(path)));
    let (work_dir, program) = (path()?, path()?);
    let count = part(&mut bytes)?.try_into().map(u64::from_le_bytes).map_err(|_| foreign())?;
    let text = |part: &[u8]| OsString::from_vec(part.to_owned());
    let mut args = Vec::new();
    for _ in 0..count {
        args.push(text(part(&mut bytes)?));
    }
    let mut env = Vec::new();
    while !bytes.is_empty() {
        env.push((text(part(&mut bytes)?), text(part(&mut bytes)?)));
    }
    Ok(Order { rules, work_dir, program, args, env })
}

/// Takes the next part.
fn part<'a>(bytes: &mut &'a [u8]) -> io::Result<&'a [u8]> {
    let (length, rest) = bytes.split_first_chunk().ok_or_else(foreign)?;
    let length = usize::try_from(u64::from_le_bytes(*length)).map_err(|_| foreign())?;
    let (part, rest) = rest.split_at_checked(length).ok_or_else(foreign)?;
    *bytes = rest;
    Ok(part)
}

fn foreign() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "no order stands in it")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn an_order_arrives_as_it_was_given_and_the_rest_stays(
            opened in proptest::option::of(proptest::collection::vec("/[a-z]{1,9}", 1..4)),
            args in proptest::collection::vec(any::<String>(), 0..4),
            env in proptest::collection::btree_map("[A-Z]{1,4}", any::<String>(), 0..4),
            rest in proptest::collection::vec(any::<u8>(), 0..20),
        ) {
            let args: Vec<OsString> = args.into_iter().map(OsString::from).collect();
            let list = |paths: Vec<String>| paths.into_iter().map(|path| (Access::Read, path.into())).collect();
            let rules = opened.map(|paths| Rules { list: list(paths), ..Rules::default() });
            let env: BTreeMap<String, String> = env;
            let mut bytes =
                to_bytes(rules.as_ref(), Path::new("/p"), Path::new("/bin/kimi"), &args, env.iter());
            let whole = bytes.len();
            bytes.extend(&rest);
            let mut input = &bytes[..];
            let expected = Order {
                rules: rules.map(|rules| rules.list),
                work_dir: "/p".into(),
                program: "/bin/kimi".into(),
                args,
                env: env.into_iter().map(|(name, value)| (name.into(), value.into())).collect(),
            };
            prop_assert_eq!(read(&mut input).unwrap(), Some(expected));
            prop_assert_eq!(input, &rest[..]);
            // Half an order is none.
            for end in [1, whole / 2, whole - 1] {
                prop_assert!(read(&bytes[..end]).is_err());
            }
        }

        #[test]
        fn any_bytes_are_taken(bytes in proptest::collection::vec(any::<u8>(), 1..60)) {
            let _ = read(&bytes[..]);
            let framed = [&(bytes.len() as u64).to_le_bytes()[..], &bytes[..]].concat();
            let _ = read(&framed[..]);
        }
    }

    #[test]
    fn an_input_that_ends_holds_no_order() {
        assert_eq!(read(&[][..]).unwrap(), None);
    }
}
