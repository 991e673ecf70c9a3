use object_store::path::Path;
use tidewater_catalogs::{Error, Result};

/// A location in an object store, taken apart: `s3://bucket/a/b`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ObjectLocation<'a> {
    /// As it is written; spellings of one store are told by [`Kind`].
    pub(crate) scheme: &'a str,
    /// The bucket, or for Azure `container@account.host`.
    pub(crate) authority: &'a str,
    pub(crate) key: &'a str,
    pub(crate) kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    S3,
    Gcs,
    Azure,
}

impl<'a> ObjectLocation<'a> {
    /// None for what lies on the local disk; `Unsupported` for stores of other kinds.
    pub(crate) fn parse(location: &'a str) -> Result<Option<Self>> {
        let Some((scheme, rest)) = location.split_once("://") else { return Ok(None) };
        let kind = match scheme {
            "file" => return Ok(None),
            "s3" | "s3a" | "s3n" => Kind::S3,
            "gs" | "gcs" => Kind::Gcs,
            "abfs" | "abfss" | "az" | "wasb" | "wasbs" => Kind::Azure,
            _ => {
                return Err(Error::unsupported(format!("object stores of kind \"{scheme}\" cannot be used"))
                    .with_context("location", location)
                    .with_hint("Use s3://, gs://, abfss://, az://, file:// or a directory."));
            }
        };
        let (authority, key) = rest.split_once('/').unwrap_or((rest, ""));
        if authority.is_empty() {
            return Err(Error::invalid("the location names no bucket").with_context("location", location));
        }
        Ok(Some(Self { scheme, authority, key, kind }))
    }

    /// Names are taken as they are: Iceberg locations are not URL-encoded.
    pub(crate) fn path(&self) -> Result<Path> {
        Path::parse(self.key)
            .map_err(|e| Error::unsupported("the location cannot be used").with_context("key", self.key).with_source(e))
    }

    /// The location of another object in the same bucket.
    pub(crate) fn sibling(&self, path: &Path) -> String {
        format!("{}://{}/{path}", self.scheme, self.authority)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    #[test]
    fn locations_are_taken_apart() {
        let of = |location| ObjectLocation::parse(location).unwrap().unwrap();
        let s3 = of("s3a://b/w/t/a b%20c.parquet");
        assert_eq!((s3.kind, s3.authority, s3.path().unwrap().as_ref()), (Kind::S3, "b", "w/t/a b%20c.parquet"));
        assert_eq!(s3.sibling(&Path::parse("w/x").unwrap()), "s3a://b/w/x");
        let azure = of("abfss://c@acc.dfs.core.windows.net/t/f");
        assert_eq!((azure.kind, azure.authority, azure.key), (Kind::Azure, "c@acc.dfs.core.windows.net", "t/f"));
        assert_eq!(of("gs://b").key, "");
        for local in ["file:///w", "/w", "w", "file:/w"] {
            assert!(ObjectLocation::parse(local).unwrap().is_none(), "{local}");
        }
        for bad in ["hdfs://n/w", "s3:///w"] {
            assert!(ObjectLocation::parse(bad).is_err(), "{bad}");
        }
        assert!(of("s3://b/a/../b").path().is_err());
    }
}
