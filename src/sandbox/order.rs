//! The order of a keeper: a length and JSON on its standard input. The bytes after it are the input of the program.

use std::ffi::OsString;
use std::io;
#[cfg(any(target_os = "linux", test))]
use std::io::Read;

use serde::{Deserialize, Serialize};

use super::rules::Access;

/// The longest order that is read, bytes; the kernel allows far less for arguments and environment.
#[cfg(any(target_os = "linux", test))]
const LONGEST: u64 = 1 << 30;

/// A program to start, and the paths that it may open.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Order {
    /// Rights and their paths; without any, nothing is restricted.
    pub(crate) rules: Option<Vec<(Access, OsString)>>,
    /// The folder to start in.
    pub(crate) work_dir: OsString,
    /// The program's path.
    pub(crate) program: OsString,
    /// Its arguments.
    pub(crate) args: Vec<OsString>,
    /// Its whole environment.
    pub(crate) env: Vec<(OsString, OsString)>,
}

impl Order {
    /// The bytes that [`Order::read`] expects: a length of eight bytes, little-endian, and JSON.
    ///
    /// # Errors
    /// None for values of this type.
    pub(crate) fn to_bytes(&self) -> io::Result<Vec<u8>> {
        let json = serde_json::to_vec(self)?;
        Ok([&(json.len() as u64).to_le_bytes()[..], &json].concat())
    }

    /// Reads an order, and nothing beyond it. `None` when the input ends before one begins.
    ///
    /// # Errors
    /// A read that failed, and [`io::ErrorKind::InvalidData`] for bytes that are no order.
    #[cfg(any(target_os = "linux", test))]
    pub(crate) fn read(mut input: impl Read) -> io::Result<Option<Order>> {
        let mut length = [0; size_of::<u64>()];
        match input.read(&mut length)? {
            0 => return Ok(None),
            some => input.read_exact(&mut length[some..])?,
        }
        let length = u64::from_le_bytes(length);
        if length > LONGEST {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let mut json = Vec::new();
        if input.take(length).read_to_end(&mut json)? as u64 != length {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(Some(serde_json::from_slice(&json)?))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStringExt as _;

    use proptest::prelude::*;

    use super::*;

    /// Any bytes that a path, an argument or a variable can hold.
    fn words() -> impl Strategy<Value = Vec<OsString>> {
        let word = proptest::collection::vec(1_u8.., 0..9).prop_map(OsString::from_vec);
        proptest::collection::vec(word, 3..6)
    }

    proptest! {
        #[test]
        fn an_order_arrives_as_it_was_given_and_the_rest_stays(
            words in words(),
            restricted: bool,
            rest in proptest::collection::vec(any::<u8>(), 0..20),
        ) {
            let order = Order {
                rules: restricted.then(|| words.iter().map(|word| (Access::Read, word.clone())).collect()),
                work_dir: words[0].clone(),
                program: words[1].clone(),
                args: words.clone(),
                env: words.iter().cloned().zip(words.clone()).collect(),
            };
            let mut bytes = order.to_bytes().unwrap();
            let whole = bytes.len();
            bytes.extend(&rest);
            let mut input = &bytes[..];
            prop_assert_eq!(Order::read(&mut input).unwrap(), Some(order));
            prop_assert_eq!(input, &rest[..]);
            for end in [1, whole / 2, whole - 1] {
                prop_assert!(Order::read(&bytes[..end]).is_err(), "half an order is none");
            }
        }

        #[test]
        fn any_bytes_are_taken(bytes in proptest::collection::vec(any::<u8>(), 1..60)) {
            let _ = Order::read(&bytes[..]);
            let framed = [&(bytes.len() as u64).to_le_bytes()[..], &bytes[..]].concat();
            prop_assert!(Order::read(&framed[..]).is_err());
        }
    }

    #[test]
    fn an_input_that_ends_holds_no_order() {
        assert_eq!(Order::read(&[][..]).unwrap(), None);
    }
}
