//! Values in the names of folders, as Hive writes them: `region=eu/day=2024-01-01`.

use percent_encoding::percent_decode_str;

/// What stands for null.
const NULL: &str = "__HIVE_DEFAULT_PARTITION__";

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Folder {
    pub(super) key: String,
    pub(super) value: Option<String>,
    /// Below the folder that was asked for.
    pub(super) inside: bool,
}

/// Those on the way to a file, from the top. Keys and values that are no text are left out.
pub(super) fn folders(location: &str, source: &str) -> Vec<Folder> {
    let Some((path, _)) = location.rsplit_once('/') else { return Vec::new() };
    let outside = source.trim_end_matches('/').len();
    let mut found = Vec::new();
    let mut at = 0;
    for segment in path.split('/') {
        let inside = at >= outside;
        at += segment.len() + 1;
        let Some((key, value)) = segment.split_once('=') else { continue };
        let text = |text: &str| percent_decode_str(text).decode_utf8().ok().map(|t| t.into_owned());
        if let (Some(key), Some(value)) = (text(key), text(value)) {
            found.push(Folder { key, value: Some(value).filter(|value| value != NULL), inside });
        }
    }
    found
}

/// Files and folders that begin so are not data: `_SUCCESS`, `_temporary`, `.crc`.
pub(super) fn is_hidden(location: &str, source: &str) -> bool {
    let below = location.strip_prefix(source.trim_end_matches('/')).unwrap_or(location);
    below.split('/').any(|segment| segment.starts_with('.') || segment.starts_with('_') && !segment.contains('='))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    #[test]
    fn folders_are_taken_apart() {
        let of = |key: &str, value: Option<&str>, inside| Folder {
            key: key.to_string(),
            value: value.map(str::to_string),
            inside,
        };
        let found =
            folders("s3://b/env=x/t/region=a%20b/day=__HIVE_DEFAULT_PARTITION__/f=1.parquet", "s3://b/env=x/t/");
        assert_eq!(found, [of("env", Some("x"), false), of("region", Some("a b"), true), of("day", None, true)]);
        assert!(folders("file:///plain/f.parquet", "file:///plain").is_empty());
    }

    #[test]
    fn what_is_no_data_is_left_out() {
        for hidden in ["/t/_SUCCESS", "/t/_temporary/f.parquet", "/t/.f.crc", "/t/a=1/.x"] {
            assert!(is_hidden(hidden, "/t"), "{hidden}");
        }
        for shown in ["/t/f.parquet", "/t/_a=1/f.parquet"] {
            assert!(!is_hidden(shown, "/t"), "{shown}");
        }
        assert!(!is_hidden("/_t/f.parquet", "/_t/"));
    }
}
