//! Who may call: `authorization: Basic …` (RFC 7617) to sign in, `authorization: Bearer …` (RFC 6750) afterwards.
//! Where no password is set, clients of the same machine need neither.

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use sha2::{Digest, Sha256};
use tonic::metadata::MetadataMap;
use tonic::{Request, Status};

use super::FlightConfig;

/// Go's Flight client, which ADBC is made of, leaves the padding away.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

pub(super) enum Credentials {
    Basic { user: String, password: String },
    Bearer(String),
    None,
}

impl Credentials {
    pub fn of(metadata: &MetadataMap) -> Result<Self, Status> {
        let Some(value) = metadata.get("authorization") else { return Ok(Self::None) };
        let value = value.to_str().map_err(|_| malformed())?;
        let (scheme, rest) = value.split_once(' ').ok_or_else(malformed)?;
        if scheme.eq_ignore_ascii_case("bearer") {
            return Ok(Self::Bearer(rest.trim().to_owned()));
        }
        if !scheme.eq_ignore_ascii_case("basic") {
            return Err(malformed());
        }
        let pair = BASE64.decode(rest.trim()).ok().and_then(|b| String::from_utf8(b).ok()).ok_or_else(malformed)?;
        let (user, password) = pair.split_once(':').ok_or_else(malformed)?;
        Ok(Self::Basic { user: user.to_owned(), password: password.to_owned() })
    }
}

/// The user whom a name and a password stand for.
pub(super) fn check(config: &FlightConfig, user: &str, password: &str) -> Result<(), Status> {
    let known = user == config.user;
    let right = match &config.password {
        Some(expected) => same(expected, password),
        None => true,
    };
    if known && right {
        return Ok(());
    }
    Err(Status::unauthenticated(format!("password authentication failed for user \"{user}\" (SQLSTATE 28P01)")))
}

/// Lets a caller without credentials in where no password is set.
pub(super) fn check_trusted<T>(config: &FlightConfig, request: &Request<T>) -> Result<(), Status> {
    if config.password.is_some() {
        return Err(Status::unauthenticated(
            "sign in with user and password, or send the token of an earlier sign-in (SQLSTATE 28000)",
        ));
    }
    match request.remote_addr() {
        Some(peer) if peer.ip().to_canonical().is_loopback() => Ok(()),
        _ => Err(Status::unauthenticated(
            "connections from other machines need a password, and none is set (SQLSTATE 28000)",
        )),
    }
}

/// Compares digests, so that the time it takes tells nothing about where the texts differ.
fn same(a: &str, b: &str) -> bool {
    Sha256::digest(a.as_bytes()) == Sha256::digest(b.as_bytes())
}

fn malformed() -> Status {
    Status::unauthenticated("malformed authorization header: use Basic or Bearer (SQLSTATE 28000)")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_read_with_and_without_padding() {
        for (header, expected) in [
            ("Basic YTpi", Some(("a", "b"))),
            ("Basic YTpiYw==", Some(("a", "bc"))),
            ("Basic YTpiYw", Some(("a", "bc"))),
            ("basic YTpiOmQ", Some(("a", "b:d"))),
            ("Basic YTpi!", None),
            ("Basic YWI", None),
            ("Digest YTpi", None),
            ("Basic", None),
        ] {
            let mut metadata = MetadataMap::new();
            let Ok(value) = header.parse() else { panic!("{header}") };
            metadata.insert("authorization", value);
            let found = match Credentials::of(&metadata) {
                Ok(Credentials::Basic { user, password }) => Some((user, password)),
                _ => None,
            };
            let found = found.as_ref().map(|(user, password)| (user.as_str(), password.as_str()));
            assert_eq!(found, expected, "{header}");
        }
    }
}
