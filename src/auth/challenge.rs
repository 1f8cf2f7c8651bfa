//! What does a 401 tell the caller?
//!
//! How to authenticate, and the kind of mistake in the words of RFC 6750; never which key, nor whether one was close.

use crate::auth::AuthError;
use crate::auth::TokenError;

/// The value of `WWW-Authenticate` for a 401; `None`: nothing was shown.
pub fn challenge(shown: Option<AuthError>) -> &'static str {
    match shown {
        None => r#"Bearer realm="portcullis""#,
        Some(
            AuthError::Unknown
            | AuthError::Disabled
            | AuthError::Expired
            | AuthError::Revoked
            | AuthError::Source
            | AuthError::Certificate
            | AuthError::CertificateExpired
            | AuthError::CertificateUntrusted
            | AuthError::CertificateAmbiguous,
        ) => r#"Bearer realm="portcullis", error="invalid_token", error_description="the key is not valid""#,
        Some(AuthError::Malformed) => {
            r#"Bearer realm="portcullis", error="invalid_request", error_description="show one key as a Bearer token""#
        }
        Some(AuthError::Conflicting) => {
            r#"Bearer realm="portcullis", error="invalid_request", error_description="two different keys were shown""#
        }
        Some(AuthError::InQuery) => {
            r#"Bearer realm="portcullis", error="invalid_request", error_description="keys are not accepted in the query""#
        }
        Some(AuthError::NotTaken) => {
            r#"Bearer realm="portcullis", error="invalid_token", error_description="keys are not accepted here""#
        }
    }
}

/// The same for a token. What is wrong with it is the issuer's to know; that it ended, its holder should.
pub fn token_challenge(error: TokenError) -> &'static str {
    match error {
        TokenError::Expired => {
            r#"Bearer realm="portcullis", error="invalid_token", error_description="the token has expired""#
        }
        TokenError::NotTaken => {
            r#"Bearer realm="portcullis", error="invalid_token", error_description="tokens are not accepted here""#
        }
        TokenError::Malformed
        | TokenError::Header
        | TokenError::Algorithm
        | TokenError::Kind
        | TokenError::Issuer
        | TokenError::KeyUnknown
        | TokenError::Signature
        | TokenError::Claims
        | TokenError::Early
        | TokenError::Audience
        | TokenError::KeysUnavailable => {
            r#"Bearer realm="portcullis", error="invalid_token", error_description="the token is not valid""#
        }
    }
}
