//! Checks the shape of a request before it is decoded. The codec allocates an array as long as the request claims it
//! to be; a few hostile bytes would so take all memory. Here every array is walked to its end first, with a bound.

use bytes::Buf;
use kafka_protocol::messages::ApiKey;

/// Elements of all arrays of one request.
const MAX_ELEMENTS: u32 = 20_000;

/// The request is not what its key and version say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Malformed;

type Walked = Result<(), Malformed>;

/// The fields in front of every request's body. What `client_id` says is of no use here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestHead {
    pub key: i16,
    pub version: i16,
    pub correlation_id: i32,
}

/// Reads key, version and correlation id, which lie at the same place in every version.
pub fn head(frame: &[u8]) -> Result<RequestHead, Malformed> {
    let mut b = frame.get(..8).ok_or(Malformed)?;
    Ok(RequestHead { key: b.get_i16(), version: b.get_i16(), correlation_id: b.get_i32() })
}

/// Checks header and body; returns where the body begins.
pub fn check(frame: &[u8], key: ApiKey, version: i16) -> Result<usize, Malformed> {
    let flexible = key.request_header_version(version) >= 2;
    let mut walk = Walk { rest: frame, flexible: false, elements: 0 };
    walk.skip(8)?;
    walk.string()?;
    walk.flexible = flexible;
    walk.tags()?;
    let body = frame.len() - walk.rest.len();
    walk_body(&mut walk, key, version)?;
    walk.tags()?;
    // Bytes may be left: librdkafka's request for the metadata of all topics has four too many from version 9 on.
    Ok(body)
}

struct Walk<'a> {
    rest: &'a [u8],
    flexible: bool,
    elements: u32,
}

impl Walk<'_> {
    fn skip(&mut self, bytes: usize) -> Walked {
        self.rest = self.rest.get(bytes..).ok_or(Malformed)?;
        Ok(())
    }

    fn skip_if(&mut self, condition: bool, bytes: usize) -> Walked {
        if condition { self.skip(bytes) } else { Ok(()) }
    }

    fn varint(&mut self) -> Result<usize, Malformed> {
        let mut value = 0u32;
        for shift in (0..35).step_by(7) {
            let (byte, rest) = self.rest.split_first().ok_or(Malformed)?;
            self.rest = rest;
            value |= u32::from(byte & 0x7f).checked_shl(shift).ok_or(Malformed)?;
            if byte & 0x80 == 0 {
                return Ok(value as usize);
            }
        }
        Err(Malformed)
    }

    fn compact_length(&mut self) -> Result<usize, Malformed> {
        Ok(self.varint()?.saturating_sub(1))
    }

    /// Null counts as empty; the codec tells them apart.
    fn string(&mut self) -> Walked {
        let length = if self.flexible {
            self.compact_length()?
        } else {
            if self.rest.len() < 2 {
                return Err(Malformed);
            }
            usize::try_from(self.rest.get_i16()).unwrap_or(0)
        };
        self.skip(length)
    }

    fn string_if(&mut self, condition: bool) -> Walked {
        if condition { self.string() } else { Ok(()) }
    }

    fn length(&mut self) -> Result<usize, Malformed> {
        if self.flexible {
            return self.compact_length();
        }
        if self.rest.len() < 4 {
            return Err(Malformed);
        }
        Ok(usize::try_from(self.rest.get_i32()).unwrap_or(0))
    }

    fn bytes(&mut self) -> Walked {
        let length = self.length()?;
        self.skip(length)
    }

    fn array(&mut self, mut each: impl FnMut(&mut Self) -> Walked) -> Walked {
        for _ in 0..self.length()? {
            self.elements += 1;
            if self.elements > MAX_ELEMENTS {
                return Err(Malformed);
            }
            each(self)?;
        }
        Ok(())
    }

    fn structs(&mut self, mut each: impl FnMut(&mut Self) -> Walked) -> Walked {
        self.array(|w| {
            each(w)?;
            w.tags()
        })
    }

    fn tags(&mut self) -> Walked {
        if !self.flexible {
            return Ok(());
        }
        for _ in 0..self.varint()? {
            self.elements += 1;
            if self.elements > MAX_ELEMENTS {
                return Err(Malformed);
            }
            self.varint()?;
            let length = self.varint()?;
            self.skip(length)?;
        }
        Ok(())
    }
}

fn walk_body(w: &mut Walk<'_>, key: ApiKey, v: i16) -> Walked {
    match key {
        ApiKey::ApiVersions => {
            w.string_if(v >= 3)?;
            w.string_if(v >= 3)
        }
        ApiKey::Produce => {
            w.string()?;
            w.skip(6)?;
            w.structs(|w| {
                w.string()?;
                w.structs(|w| {
                    w.skip(4)?;
                    w.bytes()
                })
            })
        }
        ApiKey::Fetch => walk_fetch(w, v),
        ApiKey::ListOffsets => {
            w.skip(4)?;
            w.skip_if(v >= 2, 1)?;
            w.structs(|w| {
                w.string()?;
                w.structs(|w| w.skip(if v >= 4 { 16 } else { 12 }))
            })
        }
        ApiKey::Metadata => {
            w.structs(|w| {
                w.skip_if(v >= 10, 16)?;
                w.string()
            })?;
            w.skip_if(v >= 4, 1)?;
            w.skip_if((8..=10).contains(&v), 1)?;
            w.skip_if(v >= 8, 1)
        }
        ApiKey::InitProducerId => {
            w.string()?;
            w.skip(if v >= 3 { 14 } else { 4 })
        }
        ApiKey::OffsetForLeaderEpoch => {
            w.skip_if(v >= 3, 4)?;
            w.structs(|w| {
                w.string()?;
                w.structs(|w| w.skip(12))
            })
        }
        ApiKey::CreateTopics
        | ApiKey::CreatePartitions
        | ApiKey::DeleteTopics
        | ApiKey::DeleteRecords
        | ApiKey::DescribeConfigs
        | ApiKey::DescribeCluster => walk_admin(w, key, v),
        _ => walk_group(w, key, v),
    }
}

fn walk_fetch(w: &mut Walk<'_>, v: i16) -> Walked {
    let topic = |w: &mut Walk<'_>| if v >= 13 { w.skip(16) } else { w.string() };
    w.skip_if(v <= 14, 4)?;
    w.skip(13)?;
    w.skip_if(v >= 7, 8)?;
    w.structs(|w| {
        topic(w)?;
        w.structs(|w| {
            w.skip(16)?;
            w.skip_if(v >= 5, 8)?;
            w.skip_if(v >= 9, 4)?;
            w.skip_if(v >= 12, 4)
        })
    })?;
    if v >= 7 {
        w.structs(|w| {
            topic(w)?;
            w.array(|w| w.skip(4))
        })?;
    }
    w.string_if(v >= 11)
}

fn walk_admin(w: &mut Walk<'_>, key: ApiKey, v: i16) -> Walked {
    match key {
        ApiKey::CreateTopics => {
            w.structs(|w| {
                w.string()?;
                w.skip(6)?;
                w.structs(|w| {
                    w.skip(4)?;
                    w.array(|w| w.skip(4))
                })?;
                w.structs(|w| {
                    w.string()?;
                    w.string()
                })
            })?;
            w.skip(5)
        }
        ApiKey::CreatePartitions => {
            w.structs(|w| {
                w.string()?;
                w.skip(4)?;
                w.structs(|w| w.array(|w| w.skip(4)))
            })?;
            w.skip(5)
        }
        ApiKey::DeleteTopics => {
            if v >= 6 {
                w.structs(|w| {
                    w.string()?;
                    w.skip(16)
                })?;
            } else {
                w.array(Walk::string)?;
            }
            w.skip(4)
        }
        ApiKey::DeleteRecords => {
            w.structs(|w| {
                w.string()?;
                w.structs(|w| w.skip(12))
            })?;
            w.skip(4)
        }
        ApiKey::DescribeConfigs => {
            w.structs(|w| {
                w.skip(1)?;
                w.string()?;
                w.array(Walk::string)
            })?;
            w.skip(if v >= 3 { 2 } else { 1 })
        }
        ApiKey::DescribeCluster => w.skip(if v >= 1 { 2 } else { 1 }),
        _ => Err(Malformed),
    }
}

fn walk_group(w: &mut Walk<'_>, key: ApiKey, v: i16) -> Walked {
    let named_partitions = |w: &mut Walk<'_>| {
        w.structs(|w| {
            w.string()?;
            w.array(|w| w.skip(4))
        })
    };
    match key {
        ApiKey::FindCoordinator => {
            w.string_if(v <= 3)?;
            w.skip_if(v >= 1, 1)?;
            if v >= 4 { w.array(Walk::string) } else { Ok(()) }
        }
        ApiKey::OffsetCommit => {
            w.string()?;
            w.skip(4)?;
            w.string()?;
            w.string_if(v >= 7)?;
            w.skip_if(v <= 4, 8)?;
            w.structs(|w| {
                w.string()?;
                w.structs(|w| {
                    w.skip(if v >= 6 { 16 } else { 12 })?;
                    w.string()
                })
            })
        }
        ApiKey::OffsetFetch => {
            if v >= 8 {
                w.structs(|w| {
                    w.string()?;
                    w.string_if(v >= 9)?;
                    w.skip_if(v >= 9, 4)?;
                    named_partitions(w)
                })?;
            } else {
                w.string()?;
                named_partitions(w)?;
            }
            w.skip_if(v >= 7, 1)
        }
        ApiKey::JoinGroup => {
            w.string()?;
            w.skip(if v >= 1 { 8 } else { 4 })?;
            w.string()?;
            w.string_if(v >= 5)?;
            w.string()?;
            w.structs(|w| {
                w.string()?;
                w.bytes()
            })?;
            w.string_if(v >= 8)
        }
        ApiKey::SyncGroup => {
            w.string()?;
            w.skip(4)?;
            w.string()?;
            w.string_if(v >= 3)?;
            w.string_if(v >= 5)?;
            w.string_if(v >= 5)?;
            w.structs(|w| {
                w.string()?;
                w.bytes()
            })
        }
        ApiKey::Heartbeat => {
            w.string()?;
            w.skip(4)?;
            w.string()?;
            w.string_if(v >= 3)
        }
        ApiKey::LeaveGroup => {
            w.string()?;
            if v <= 2 {
                return w.string();
            }
            w.structs(|w| {
                w.string()?;
                w.string()?;
                w.string_if(v >= 5)
            })
        }
        ApiKey::DescribeGroups => {
            w.array(Walk::string)?;
            w.skip_if(v >= 3, 1)
        }
        ApiKey::ListGroups if v >= 4 => w.array(Walk::string),
        ApiKey::ListGroups => Ok(()),
        _ => Err(Malformed),
    }
}

#[cfg(test)]
pub(crate) mod tests;
