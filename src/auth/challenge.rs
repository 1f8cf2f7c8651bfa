//! What does a 401 tell the caller?
//!
//! How to authenticate, and the kind of mistake in the words of RFC 6750; never which key, nor whether one was close.

use crate::auth::AuthError;

/// The value of `WWW-Authenticate` for a 401; `None`: nothing was shown.
pub fn challenge(shown: Option<AuthError>) -> &'static str {
    match shown {
        None => r#"Bearer realm="portcullis""#,
        Some(AuthError::Unknown | AuthError::Disabled | AuthError::Expired | AuthError::Source) => {
            r#"Bearer realm="portcullis", error="invalid_token", error_description="the key is not valid""#
        }
        Some(AuthError::Malformed) => {
            r#"Bearer realm="portcullis", error="invalid_request", error_description="show one key as a Bearer token""#
        }
        Some(AuthError::Conflicting) => {
            r#"Bearer realm="portcullis", error="invalid_request", error_description="two different keys were shown""#
        }
        Some(AuthError::InQuery) => {
            r#"Bearer realm="portcullis", error="invalid_request", error_description="keys are not accepted in the query""#
        }
    }
}
