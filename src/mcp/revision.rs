//! Which revision of the protocol is spoken?
//!
//! Names are exact; a name that is not listed is no revision, even if it looks like a date.

use std::fmt;

/// A published revision, oldest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Revision {
    /// HTTP+SSE.
    V2024_11_05,
    /// Streamable HTTP, with batches.
    V2025_03_26,
    /// Batches removed, version header.
    V2025_06_18,
    /// Polling, experimental tasks.
    V2025_11_25,
    /// Stateless.
    V2026_07_28,
}

/// How a revision opens a conversation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Era {
    /// With `initialize`, and mostly a session.
    Legacy,
    /// Not at all: each request says what it needs.
    Modern,
}

impl Revision {
    /// All revisions, oldest first.
    pub const ALL: [Revision; 5] = [
        Revision::V2024_11_05,
        Revision::V2025_03_26,
        Revision::V2025_06_18,
        Revision::V2025_11_25,
        Revision::V2026_07_28,
    ];

    /// The revision of exactly this name.
    pub fn parse(name: &str) -> Option<Revision> {
        Self::ALL.into_iter().find(|revision| revision.as_str() == name)
    }

    /// Its name on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Revision::V2024_11_05 => "2024-11-05",
            Revision::V2025_03_26 => "2025-03-26",
            Revision::V2025_06_18 => "2025-06-18",
            Revision::V2025_11_25 => "2025-11-25",
            Revision::V2026_07_28 => "2026-07-28",
        }
    }

    /// The era it belongs to.
    pub const fn era(self) -> Era {
        match self {
            Revision::V2024_11_05 | Revision::V2025_03_26 | Revision::V2025_06_18 | Revision::V2025_11_25 => {
                Era::Legacy
            }
            Revision::V2026_07_28 => Era::Modern,
        }
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_read_back_as_its_revision() {
        for revision in Revision::ALL {
            assert_eq!(Revision::parse(revision.as_str()), Some(revision));
        }
    }

    #[test]
    fn only_exact_names_are_revisions() {
        for name in ["", "2025-06-18 ", "2025-6-18", "2026-07-29", "v999", "1.0"] {
            assert_eq!(Revision::parse(name), None, "{name}");
        }
    }

    #[test]
    fn revisions_are_ordered_by_date_and_the_newest_is_modern() {
        assert!(Revision::ALL.is_sorted());
        assert_eq!(Revision::V2025_11_25.era(), Era::Legacy);
        assert_eq!(Revision::V2026_07_28.era(), Era::Modern);
    }
}
