//! From the first byte to the first ReadyForQuery.

use bytes::{Buf, Bytes};
use tidewater_sql::{Login, SqlError};
use tokio::io::{AsyncRead, AsyncWrite};

use super::auth::{self, Reply};
use super::connection::Fail;
use super::frame::{Fields, Inbox, ReadError, protocol_error};
use super::outbox::Outbox;
use super::types::error;
use super::{Peer, Shared};

/// PostgreSQL's bound of what a client may send before it has signed in.
const MAX_STARTUP_BYTES: usize = 10_000;

const CANCEL_REQUEST: i32 = 80_877_102;
const SSL_REQUEST: i32 = 80_877_103;
const GSSENC_REQUEST: i32 = 80_877_104;

pub(super) enum Start {
    /// A client that wants a session, not let in yet.
    Session(Login),
    /// The connection came to cancel a statement of another, and is done.
    Cancelled,
}

pub(super) async fn begin<R, W>(
    inbox: &mut Inbox<R>,
    out: &mut Outbox<W>,
    shared: &Shared,
    peer: Peer,
) -> Result<Start, Fail>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    // One question about each kind of encryption, then the packet itself.
    for _ in 0..3 {
        let mut packet = inbox.startup_packet(MAX_STARTUP_BYTES).await?;
        match packet.get_i32() {
            SSL_REQUEST | GSSENC_REQUEST => {
                out.refuse_encryption();
                out.flush().await.map_err(|_| Fail::Gone)?;
            }
            CANCEL_REQUEST => {
                if packet.len() == 8 {
                    let (pid, secret) = (packet.get_i32(), packet.get_i32());
                    let found = shared.registry.cancel(pid, secret);
                    tracing::debug!(pid, found, "cancel request");
                }
                return Ok(Start::Cancelled);
            }
            version if version >> 16 == 3 => {
                let (login, unknown) = login(packet, peer)?;
                if version & 0xffff != 0 || !unknown.is_empty() {
                    out.negotiate_version(&unknown.iter().map(String::as_str).collect::<Vec<_>>());
                }
                return Ok(Start::Session(login));
            }
            version => {
                let (major, minor) = ((version as u32) >> 16, version & 0xffff);
                return Err(Fail::Fatal(error(
                    "0A000",
                    format!("unsupported frontend protocol {major}.{minor}: server supports 3.0"),
                )));
            }
        }
    }
    Err(Fail::Fatal(protocol_error("too many requests for encryption")))
}

/// The start-up message's settings, and protocol options that are not known here.
fn login(packet: Bytes, peer: Peer) -> Result<(Login, Vec<String>), Fail> {
    let mut fields = Fields::new(packet);
    let mut login = Login { client_addr: peer.address(), ..Login::default() };
    let (mut user, mut database, mut unknown) = (None, None, Vec::new());
    loop {
        let name = fields.string().map_err(Fail::Fatal)?;
        if name.is_empty() {
            break;
        }
        let value = fields.string().map_err(Fail::Fatal)?;
        match name.as_str() {
            "user" => user = Some(value),
            "database" => database = Some(value),
            "options" => login.options.extend(command_line(&value).map_err(Fail::Fatal)?),
            "replication" if !matches!(value.as_str(), "false" | "off" | "no" | "0") => {
                return Err(Fail::Fatal(error("0A000", "replication connections are not supported")));
            }
            "replication" => {}
            option if option.starts_with("_pq_.") => unknown.push(name),
            _ => {
                if name == "application_name" {
                    login.application_name.clone_from(&value);
                }
                login.options.push((name, value));
            }
        }
    }
    fields.end().map_err(Fail::Fatal)?;
    match user {
        Some(user) if !user.is_empty() => login.user = user,
        _ => return Err(Fail::Fatal(error("28000", "no PostgreSQL user name specified in startup packet"))),
    }
    login.database = database.filter(|d| !d.is_empty()).unwrap_or_else(|| login.user.clone());
    Ok((login, unknown))
}

/// `-c name=value`, `-cname=value` and `--name=value`, separated by blanks; a backslash keeps a blank.
fn command_line(text: &str) -> Result<Vec<(String, String)>, SqlError> {
    let mut words = vec![];
    let mut word = None::<String>;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => word.get_or_insert_default().extend(chars.next()),
            c if c.is_ascii_whitespace() => words.extend(word.take()),
            c => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    let mut settings = Vec::new();
    let mut words = words.into_iter();
    while let Some(word) = words.next() {
        let assignment = match word.strip_prefix("--") {
            Some(rest) => Some(rest.to_owned()),
            None if word == "-c" => words.next(),
            None => word.strip_prefix("-c").map(str::to_owned),
        };
        let pair = assignment.as_deref().and_then(|a| a.split_once('='));
        let (name, value) =
            pair.ok_or_else(|| error("42601", format!("invalid command-line argument for server process: {word}")))?;
        settings.push((name.replace('-', "_"), value.to_owned()));
    }
    Ok(settings)
}

/// Lets the client in, or says why not. Nothing is told about the database before.
pub(super) async fn authenticate<R, W>(
    inbox: &mut Inbox<R>,
    out: &mut Outbox<W>,
    shared: &Shared,
    login: &Login,
    peer: Peer,
) -> Result<(), Fail>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    if shared.config.tls_required && !peer.encrypted && !peer.is_loopback() {
        let mut e = error("28000", "connections from other machines must be encrypted");
        e.hint = Some("Connect with sslmode=require.".to_owned());
        return Err(Fail::Fatal(e));
    }
    let Some(verifier) = &shared.verifier else {
        if !peer.is_loopback() {
            let mut e = error("28000", "connections from other machines need a password, and none is set");
            e.hint = Some("Set a password for the server, or connect from the same machine.".to_owned());
            return Err(Fail::Fatal(e));
        }
        if login.user != shared.config.user {
            let mut e = error("28000", format!("role \"{}\" does not exist", login.user));
            e.hint = Some(format!("Connect as user \"{}\".", shared.config.user));
            return Err(Fail::Fatal(e));
        }
        return Ok(());
    };
    out.authentication_sasl(auth::MECHANISM);
    let mut exchange = verifier.exchange(&login.user);
    loop {
        out.flush().await.map_err(|_| Fail::Gone)?;
        let (kind, body) = inbox.frame().await?;
        if kind != b'p' {
            return Err(Fail::Fatal(protocol_error(format!("expected SASL response, got message type {kind}"))));
        }
        match exchange.step(Fields::new(body)).map_err(Fail::Fatal)? {
            Reply::Continue(data) => out.authentication_step(false, &data),
            Reply::Final(data) => {
                out.authentication_step(true, &data);
                return Ok(());
            }
        }
    }
}

impl From<ReadError> for Fail {
    fn from(e: ReadError) -> Self {
        match e {
            ReadError::Ended => Fail::Gone,
            ReadError::Protocol(e) => Fail::Fatal(e),
        }
    }
}

pub(super) const MAX_UNAUTHENTICATED_BYTES: usize = MAX_STARTUP_BYTES;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::command_line;

    #[test]
    fn options_are_read_as_a_command_line() {
        let pairs = command_line(r"-c statement_timeout=5s  -cTimeZone=Europe/Rome --search-path=a,\ b").unwrap();
        let pairs: Vec<(&str, &str)> = pairs.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect();
        assert_eq!(pairs, [("statement_timeout", "5s"), ("TimeZone", "Europe/Rome"), ("search_path", "a, b")]);
        assert!(command_line("").unwrap().is_empty());
        for wrong in ["-x", "-c", "-c a", "a=b"] {
            assert_eq!(command_line(wrong).unwrap_err().state.0, "42601", "{wrong}");
        }
    }
}
