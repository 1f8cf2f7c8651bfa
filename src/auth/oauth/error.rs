//! What is wrong with a token?

/// Why a token is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Not three parts of base64url with JSON in the first two, too long, or a key twice.
    #[error("the token cannot be read")]
    Malformed,
    /// A header that asks for more than a signature: extensions, a key of its own, encryption, another token within.
    #[error("the token's header asks for what is not done")]
    Header,
    /// A signature of a kind that the issuer is not trusted with, or none.
    #[error("the token's algorithm is not accepted")]
    Algorithm,
    /// A token for something else than access.
    #[error("the token is not one for access")]
    Kind,
    /// Nobody whose tokens are accepted.
    #[error("the token's issuer is not known")]
    Issuer,
    /// A key that the issuer does not have.
    #[error("the token's key is not one of the issuer's")]
    KeyUnknown,
    /// A signature that is none.
    #[error("the token's signature is wrong")]
    Signature,
    /// A claim that is missing, of the wrong kind or against another.
    #[error("the token's claims are missing, malformed or contradict each other")]
    Claims,
    /// Its time is over.
    #[error("the token has expired")]
    Expired,
    /// Its time has not come.
    #[error("the token is not valid yet")]
    Early,
    /// A token for somebody else, or for another server of ours.
    #[error("the token is for another audience")]
    Audience,
    /// The server takes keys alone.
    #[error("tokens are not accepted here")]
    NotTaken,
    /// The issuer's keys are not known, and could not be asked for.
    #[error("the keys of the token's issuer cannot be had")]
    KeysUnavailable,
}

impl TokenError {
    /// Fixed word for records and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Malformed => "token_malformed",
            Self::Header => "token_header",
            Self::Algorithm => "token_algorithm",
            Self::Kind => "token_type",
            Self::Issuer => "token_issuer",
            Self::KeyUnknown => "token_key_unknown",
            Self::Signature => "token_signature",
            Self::Claims => "token_claims",
            Self::Expired => "token_expired",
            Self::Early => "token_early",
            Self::Audience => "token_audience",
            Self::NotTaken => "token_not_taken",
            Self::KeysUnavailable => "token_keys_unavailable",
        }
    }
}
