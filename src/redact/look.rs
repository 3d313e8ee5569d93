//! The look of a value: random, made up by a person, a word, a path.
//!
//! A key differs from an identifier in its pairs of characters: in words, a few pairs of letters make up
//! nearly all; in `x7Kq9Zp2`, letters, digits and cases follow each other in any order.

use std::sync::LazyLock;

/// The score from which a value is random. Of the identifiers in the sources of some thousand libraries
/// it takes one in a hundred and fifty for random, and of keys of 16 characters misses one in forty.
const LEAST_RANDOM: i32 = 9;
/// The fewest letters and digits of a value that is taken for random.
const LEAST_LENGTH: usize = 10;
/// Signs that occur in passwords.
const SIGNS: &[u8] = b"!@#$%^&";
/// The fewest digits of a hexadecimal number that is taken for a key.
const LEAST_HEX: usize = 12;
/// Bits a character below which a value repeats itself too much to be random.
const LEAST_ENTROPY: f64 = 2.3;
/// The letters that often follow each letter in identifiers, from a to z: nine pairs of ten.
static FOLLOWS: LazyLock<Vec<&str>> = LazyLock::new(|| {
    let letters = "bcdgilmnprstuvy aeilou aehiklortu adeiors acdefglmnpqrstvxy aefilor eirs aeiot \
    abcdefglmnoprstvz - ei adeilostu aeiops acdefginostuv bcdglmnoprstuvw aeiloprstu u \
    acdegimorstuvy acehikopstuy acehiorstuy beilmnprst aei aio t p e";
    letters.split(' ').collect()
});
/// The longest value that a person makes up, bytes.
const LONGEST_MADE_UP: usize = 128;
/// Bytes of base64 in a row that are too many for a key or an address.
const BLOB: usize = 64;

/// Returns whether a value may be a word or several: no digit in it, and nothing random.
pub(super) fn is_word(value: &str) -> bool {
    !value.bytes().any(|byte| byte.is_ascii_digit()) && !is_random(value)
}

/// Returns whether a value looks as a machine would make it.
pub(super) fn is_random(value: &str) -> bool {
    value.bytes().filter(u8::is_ascii_alphanumeric).count() >= LEAST_LENGTH
        && (randomness(value) >= LEAST_RANDOM
            || is_uuid(value)
            || is_padded(value)
            || holds_hex(value))
        && entropy(value) >= LEAST_ENTROPY
        && !is_sequence(value)
        && !begins_as_path(value)
}

/// The score of the most random part of a value. The weight of a pair of characters is about how much more
/// frequent it is in random text than in identifiers.
fn randomness(value: &str) -> i32 {
    let mut most = 0;
    let mut here = 0;
    for pair in value.as_bytes().windows(2) {
        here = (here + weight(pair[0], pair[1])).max(0);
        most = most.max(here);
    }
    most
}

fn weight(a: u8, b: u8) -> i32 {
    match (a.is_ascii_alphabetic(), b.is_ascii_alphabetic()) {
        (true, true) if a.is_ascii_lowercase() && b.is_ascii_uppercase() => 1,
        (true, true) => {
            let follows = FOLLOWS[usize::from(a.to_ascii_lowercase() - b'a')];
            let is_usual = follows.contains(char::from(b.to_ascii_lowercase()));
            if is_usual { -1 } else { 2 }
        }
        (true, false) if b.is_ascii_digit() => 2,
        (false, true) if a.is_ascii_digit() => 2,
        // Numbers and dates are long and mean nothing.
        (false, false) if a.is_ascii_digit() && b.is_ascii_digit() => 0,
        // Passwords hold signs that identifiers and paths do not.
        (true | false, true | false) if SIGNS.contains(&a) || SIGNS.contains(&b) => 0,
        (true | false, true | false) => -2,
    }
}

/// Returns whether a value holds a hexadecimal number that is no word and no decimal.
fn holds_hex(value: &str) -> bool {
    value.split(|c: char| !c.is_ascii_alphanumeric()).any(|part| {
        let digits = part.bytes().filter(u8::is_ascii_digit).count();
        part.len() >= LEAST_HEX
            && part.bytes().all(|byte| byte.is_ascii_hexdigit())
            && (3..=part.len() - 3).contains(&digits)
    })
}

/// Returns whether a person may have made a value up as a password: no plain word, no identifier, no path.
pub(super) fn is_made_up(value: &str) -> bool {
    let letters = value.chars().filter(|c| c.is_alphabetic()).count();
    let count = |is: fn(&u8) -> bool| value.bytes().filter(is).count();
    let digits = count(u8::is_ascii_digit);
    let signs = count(|byte| SIGNS.contains(byte));
    let cases = count(u8::is_ascii_uppercase) > 0 && count(u8::is_ascii_lowercase) > 0;
    (6..=LONGEST_MADE_UP).contains(&value.len())
        && letters >= 2
        && ((digits >= 2 && !value.contains('_')) || (signs >= 1 && (digits >= 1 || cases)))
        && !value.contains(char::is_whitespace)
        && !is_path(value)
        && !is_sequence(value)
}

/// Returns whether a value names a place: a path, or an address.
pub(super) fn is_path(value: &str) -> bool {
    let parted = value.contains(['/', '\\']) && randomness(value) < LEAST_RANDOM;
    parted || begins_as_path(value) || value.contains("://")
}

/// Returns whether a value begins as a path does, and goes on with a name. A random value may begin with a
/// slash too.
fn begins_as_path(value: &str) -> bool {
    let bytes = value.as_bytes();
    let drive = matches!(bytes, [letter, b':', b'/' | b'\\', ..] if letter.is_ascii_alphabetic());
    let rest = ["/", "./", "../", "~/", "\\\\"].iter().find_map(|start| value.strip_prefix(start));
    let name = rest.map(|rest| rest.split(['/', '\\']).next().unwrap_or(rest));
    drive || name.is_some_and(|name| randomness(name) < LEAST_RANDOM)
}

fn is_uuid(value: &str) -> bool {
    let lengths = value.split('-').map(str::len);
    lengths.eq([8, 4, 4, 4, 12]) && value.bytes().all(|b| b == b'-' || b.is_ascii_hexdigit())
}

/// Returns whether a value is base64 with padding.
fn is_padded(value: &str) -> bool {
    let bare = value.trim_end_matches('=');
    bare.len() < value.len()
        && value.len() >= 12
        && value.len().is_multiple_of(4)
        && bare.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'+' || b == b'/')
        && bare.bytes().any(|b| b.is_ascii_uppercase())
        && bare.bytes().any(|b| b.is_ascii_lowercase())
}

/// Returns whether a text ends in a long run of base64, of which a match that follows is only a part.
pub(super) fn ends_in_a_blob(text: &str) -> bool {
    let is_base64 = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/');
    text.bytes().rev().take(BLOB).take_while(is_base64).count() == BLOB
}

/// Returns whether most characters follow the one before them, as in 123456 or abcdef.
fn is_sequence(value: &str) -> bool {
    let bytes = value.as_bytes();
    let pairs = bytes.len().saturating_sub(1);
    let following = bytes.windows(2).filter(|pair| pair[1] == pair[0].wrapping_add(1)).count();
    pairs > 0 && following * 100 >= pairs * 60
}

/// Bits a character, by Shannon.
fn entropy(value: &str) -> f64 {
    let mut counts = [0_u32; 256];
    for byte in value.bytes() {
        counts[usize::from(byte)] += 1;
    }
    let length = f64::from(counts.iter().sum::<u32>());
    let share = |&count: &u32| f64::from(count) / length;
    counts.iter().filter(|&&count| count > 0).map(share).map(|p| -p * p.log2()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entropy_is_counted_in_bits_a_character() {
        for (value, expected) in
            [("", 0.0), ("aaaa", 0.0), ("abab", 1.0), ("abcd", 2.0), ("aabbccdd", 2.0)]
        {
            assert!((entropy(value) - expected).abs() < 1e-9, "{value}");
        }
    }

    #[test]
    fn what_looks_random() {
        let check = |value: &str, expected: bool| assert_eq!(is_random(value), expected, "{value}");
        for random in [
            "a8f5f167f44f4964e6c998dee827110c",
            "4f0c9a3d5b7e8f1a",
            "qWkz3PxLm9VbTnRsYd2f",
            "tnR7/kqPz2Lm+Xv9WcYb4sJd0fGh1aEu3iOo5",
            "550e8400-e29b-41d4-a716-446655440000",
            "aHVudGVyMjI2Zm9vYg==",
            "django-insecure-8f3k2j9d0s7a6q5w4e",
        ] {
            check(random, true);
        }
        for ordinary in [
            "",
            "getPasswordFromEnv2",
            "oauth2AccessToken1",
            "correct-horse-battery-staple",
            "1234567890abcdef",
            "abababababab",
            "a1a1a1a1a1a1",
            "20240131T101500",
            "/etc/secrets/4f0c9a3d5b7e8f1a/key.pem",
            "src/kimi/x86_64/v2/evidence.rs",
            "sha256_hmac_v2_key",
            "deadbeefcafe",
        ] {
            check(ordinary, false);
        }
    }

    #[test]
    fn what_a_person_may_have_made_up() {
        let check =
            |value: &str, expected: bool| assert_eq!(is_made_up(value), expected, "{value}");
        for made_up in ["hunter22", "Tr0ub4dor&3", "S3cure!pass", "Winter#Sun", "pässw0rd1!"] {
            check(made_up, true);
        }
        for ordinary in
            ["", "hunter", "pa2", "123456", "readPassword", "/home/u22/x1", "user_name", "abc12345"]
        {
            check(ordinary, false);
        }
    }
}
