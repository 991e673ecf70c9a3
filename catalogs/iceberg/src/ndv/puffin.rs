use iceberg::spec::BlobMetadata;
use serde::Serialize;
use tidewater_catalogs::{Error, Result};

const MAGIC: &[u8; 4] = b"PFA1";

#[derive(Serialize)]
struct Footer<'a> {
    blobs: Vec<Blob<'a>>,
    properties: std::collections::BTreeMap<&'static str, &'static str>,
}

#[derive(Serialize)]
struct Blob<'a> {
    #[serde(flatten)]
    metadata: &'a BlobMetadata,
    offset: usize,
    length: usize,
}

/// A file of these blobs, and the bytes of its footer. (Iceberg's Puffin specification, "File structure".)
pub(super) fn file<'a>(blobs: impl Iterator<Item = (&'a BlobMetadata, Vec<u8>)>) -> Result<(Vec<u8>, usize)> {
    let mut out = MAGIC.to_vec();
    let mut all = Vec::new();
    for (metadata, bytes) in blobs {
        all.push(Blob { metadata, offset: out.len(), length: bytes.len() });
        out.extend_from_slice(&bytes);
    }
    let created = [("created-by", concat!("tidewater ", env!("CARGO_PKG_VERSION")))];
    let footer = Footer { blobs: all, properties: created.into() };
    let footer = serde_json::to_vec(&footer).map_err(|e| Error::internal("cannot write statistics").with_source(e))?;
    let length = i32::try_from(footer.len()).map_err(|_| Error::internal("statistics of too many columns"))?;
    let begin = out.len();
    out.extend_from_slice(MAGIC);
    out.extend_from_slice(&footer);
    out.extend_from_slice(&length.to_le_bytes());
    // No flag: the footer is not compressed.
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(MAGIC);
    let footer_bytes = out.len() - begin;
    Ok((out, footer_bytes))
}
