use object_store::path::Path;
use tidewater_catalogs::{Error, Result};

/// Scheme and authority of a table's locations. One object store reads one root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Root {
    scheme: String,
    authority: String,
}

impl Root {
    pub(super) fn of(location: &str) -> Root {
        let (scheme, authority, _) = split(location);
        Root { scheme: scheme.to_owned(), authority: authority.to_owned() }
    }

    /// The path of a location below this root. Names are taken as they are: Iceberg locations are not URL-encoded.
    pub(super) fn path(&self, location: &str) -> Result<Path> {
        let (scheme, authority, path) = split(location);
        if scheme != self.scheme || authority != self.authority {
            return Err(Error::unsupported("table has files in another store than its metadata")
                .with_context("location", location));
        }
        Path::parse(path).map_err(|e| {
            Error::unsupported("location cannot be read").with_context("location", location).with_source(e)
        })
    }

    /// A key that no other root gives to another file.
    pub(super) fn key(&self, path: &Path) -> String {
        format!("{}://{}/{path}", self.scheme, self.authority)
    }
}

/// `file:/a`, `file:///a` and `/a` name the same file, and so do the spellings of S3.
fn split(location: &str) -> (&str, &str, &str) {
    let Some((scheme, rest)) = location.split_once(':') else {
        return ("file", "", location);
    };
    let scheme = match scheme {
        "s3a" | "s3n" => "s3",
        other => other,
    };
    match rest.strip_prefix("//") {
        Some(rest) => match rest.find('/') {
            Some(at) => (scheme, &rest[..at], &rest[at..]),
            None => (scheme, rest, ""),
        },
        None => (scheme, "", rest),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    #[test]
    fn spellings_of_one_file_have_one_path() {
        for root in ["file:///w/t/metadata/1.json", "/w/t/metadata/1.json", "file:/w/t"] {
            for location in ["file:///w/t/a b%20c.parquet", "file:/w/t/a b%20c.parquet", "/w/t/a b%20c.parquet"] {
                assert_eq!(Root::of(root).path(location).unwrap().as_ref(), "w/t/a b%20c.parquet");
            }
        }
        assert_eq!(Root::of("s3a://b/t").path("s3://b/t/f").unwrap().as_ref(), "t/f");
    }

    #[test]
    fn other_stores_are_refused() {
        assert!(Root::of("s3://one/t").path("s3://two/t/f").is_err());
        assert!(Root::of("file:///t").path("s3://t/f").is_err());
        assert!(Root::of("file:///t").path("file:///t/../../etc/passwd").is_err());
    }
}
