//! Who may come in: trust on loopback, SCRAM-SHA-256 (RFC 5802, RFC 7677) where a password is set.

use pgwire::api::auth::sasl::SCRAM_SHA_256_METHOD;
use pgwire::api::auth::sasl::scram::{
    SCRAM_ITERATIONS, ScramSecret, ScramServerAuth, ScramServerAuthWaitingForClientFinal, gen_salted_password,
};
use pgwire::error::PgWireError;
use tidewater_sql::SqlError;

use super::frame::{Fields, protocol_error};
use super::types::error;

/// What the server keeps of the password: enough to check a proof, not to make one.
pub(super) struct Verifier {
    user: String,
    salt: Vec<u8>,
    salted_password: Vec<u8>,
    /// Feeds the salt shown for users that do not exist, so that it stays the same for one name.
    decoy: [u8; 32],
}

impl Verifier {
    /// Slow by design; once per process.
    pub fn new(user: &str, password: &str) -> Self {
        let salt = rand::random::<[u8; 16]>().to_vec();
        let salted_password = gen_salted_password(password, &salt, SCRAM_ITERATIONS);
        Self { user: user.to_owned(), salt, salted_password, decoy: rand::random() }
    }

    /// An unknown user gets as far as one with a wrong password, and no further.
    pub fn exchange(&self, user: &str) -> Exchange {
        let known = user == self.user;
        let (salt, salted_password) = if known {
            (self.salt.clone(), self.salted_password.clone())
        } else {
            let mut salt = gen_salted_password(user, &self.decoy, 1);
            salt.truncate(16);
            (salt, rand::random::<[u8; 32]>().to_vec())
        };
        let secret = ScramSecret::verifier_from_salted_password(salt, salted_password, SCRAM_ITERATIONS);
        Exchange { user: user.to_owned(), known, step: Step::First(Some(secret)) }
    }
}

pub(super) struct Exchange {
    user: String,
    known: bool,
    step: Step,
}

enum Step {
    First(Option<ScramSecret>),
    Final(Box<ScramServerAuthWaitingForClientFinal>),
    Over,
}

/// What to send next.
pub(super) enum Reply {
    Continue(String),
    Final(String),
}

pub(super) const MECHANISM: &str = SCRAM_SHA_256_METHOD;

impl Exchange {
    /// Takes the body of a message of type `p`.
    pub fn step(&mut self, mut fields: Fields) -> Result<Reply, SqlError> {
        match std::mem::replace(&mut self.step, Step::Over) {
            Step::First(secret) => {
                let mechanism = fields.string()?;
                if mechanism != MECHANISM {
                    return Err(protocol_error("client selected an invalid SASL authentication mechanism"));
                }
                let len = usize::try_from(fields.i32()?).map_err(|_| malformed())?;
                let first = fields.bytes(len)?;
                fields.end()?;
                let secret = secret.ok_or_else(malformed)?;
                let (reply, next) = ScramServerAuth::new()
                    .on_client_first_message_with_secret(&first, secret)
                    .map_err(|e| self.refusal(&e))?;
                self.step = Step::Final(Box::new(next));
                Ok(Reply::Continue(reply))
            }
            Step::Final(waiting) => {
                let reply = waiting.on_client_final_message(&fields.rest()).map_err(|e| self.refusal(&e))?;
                // Whatever proof was found for a user that is not there, it opens nothing.
                if !self.known {
                    return Err(wrong_password(&self.user));
                }
                Ok(Reply::Final(reply))
            }
            Step::Over => Err(malformed()),
        }
    }

    fn refusal(&self, e: &PgWireError) -> SqlError {
        match e {
            PgWireError::InvalidPassword(_) => wrong_password(&self.user),
            _ => malformed(),
        }
    }
}

fn malformed() -> SqlError {
    protocol_error("malformed SCRAM message")
}

fn wrong_password(user: &str) -> SqlError {
    error("28P01", format!("password authentication failed for user \"{user}\""))
}
