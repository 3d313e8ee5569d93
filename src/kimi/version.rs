//! How a version stands to the one that the tests run against.

use semver::Version;

use super::consultant::consultant;
use super::dialect::Dialect;

/// How a version stands to the tested one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Age {
    /// The very one.
    Tested,
    /// A later one.
    Newer,
    /// An earlier one.
    Older,
    /// Not a version that can be compared.
    Unclear,
}

/// Compares what a program says of itself with `config/consultant.yaml`.
#[must_use]
pub fn age(dialect: Dialect, version: &str) -> Age {
    let (Ok(tested), Ok(this)) =
        (Version::parse(consultant().tested(dialect)), Version::parse(version))
    else {
        return Age::Unclear;
    };
    match this.cmp_precedence(&tested) {
        std::cmp::Ordering::Less => Age::Older,
        std::cmp::Ordering::Equal => Age::Tested,
        std::cmp::Ordering::Greater => Age::Newer,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_as_numbers() {
        let check = |version: &str, expected| {
            assert_eq!(age(Dialect::KimiCode, version), expected, "{version}");
        };
        let tested = consultant().tested(Dialect::KimiCode);
        check(tested, Age::Tested);
        check(&format!("{tested}+build.7"), Age::Tested);
        check(&format!("{tested}-beta.1"), Age::Older);
        check("0.9.9", Age::Older);
        check("99.10.0", Age::Newer);
        check("99.10.0-rc.1", Age::Newer);
        check("1.51.0rc1", Age::Unclear);
        check("next", Age::Unclear);
        assert_eq!(
            age(Dialect::KimiCli, consultant().tested(Dialect::KimiCli)),
            Age::Tested,
            "both have one"
        );
    }
}
