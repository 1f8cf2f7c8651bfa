//! Which request comes next?
//!
//! Drawn from shares by the request's number alone: every run, and every way that is compared, gets the same ones in the same order.

use crate::chance::scatter;
use crate::messages::Ask;

/// What is asked, in shares of a thousand.
#[derive(Debug, Clone)]
pub struct Mix(Vec<(Ask, u64)>);

/// A mix by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Name {
    /// One tool, answered with JSON of 300 bytes.
    Call,
    /// One tool, answered as a stream of five events and a result.
    Stream,
    /// Several tools, lists, pings, streams and answers of 32 KiB.
    Mixed,
    /// One tool, answered after 5 ms.
    Slow,
    /// One tool, answered with 64 KiB.
    Large,
    /// Calls that policy refuses.
    Refused,
}

impl Mix {
    /// The mix of this name, in which `errors_percent` of the requests are to fail at the server and `refused_percent` at the gateway.
    pub fn new(name: Name, errors_percent: u64, refused_percent: u64) -> Self {
        let of_rest: &[(Ask, u64)] = match name {
            Name::Call => &[(Ask::Query, 100)],
            Name::Stream => &[(Ask::Watch(5, 0), 100)],
            Name::Slow => &[(Ask::Wait(5), 100)],
            Name::Large => &[(Ask::Blob(64), 100)],
            Name::Refused => &[(Ask::Blocked, 50), (Ask::Constrained, 50)],
            Name::Mixed => &[
                (Ask::Query, 60),
                (Ask::Describe, 15),
                (Ask::List, 5),
                (Ask::Ping, 5),
                (Ask::Watch(3, 2), 5),
                (Ask::Blob(32), 5),
                (Ask::Wait(5), 3),
                (Ask::ToolError, 2),
            ],
        };
        let (errors, refused) = (errors_percent.min(100) * 10, refused_percent.min(100 - errors_percent.min(100)) * 10);
        let rest = 1000 - errors - refused;
        let mut shares: Vec<(Ask, u64)> = vec![(Ask::RpcError, errors / 2), (Ask::ServerError, errors - errors / 2)];
        shares.extend([(Ask::Blocked, refused / 2), (Ask::Constrained, refused - refused / 2)]);
        shares.extend(of_rest.iter().map(|(ask, share)| (*ask, share * rest / 100)));
        // What rounding left over.
        let sum: u64 = shares.iter().map(|(_, share)| share).sum();
        if let Some((_, share)) = shares.iter_mut().max_by_key(|(_, share)| *share) {
            *share += 1000 - sum;
        }
        shares.retain(|(_, share)| *share > 0);
        Self(shares)
    }

    /// Everything that may be asked; [`Self::draw`] is an index of it.
    pub fn asks(&self) -> impl Iterator<Item = Ask> {
        self.0.iter().map(|(ask, _)| *ask)
    }

    /// What request `number` asks.
    pub fn draw(&self, number: u64) -> usize {
        if self.0.len() == 1 {
            return 0;
        }
        let mut at = scatter(number) % 1000;
        for (index, (_, share)) in self.0.iter().enumerate() {
            if at < *share {
                return index;
            }
            at -= share;
        }
        0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_come_in_their_shares_and_the_same_way_each_time() {
        let mix = Mix::new(Name::Mixed, 4, 6);
        let asks: Vec<Ask> = mix.asks().collect();
        let mut count = vec![0; asks.len()];
        for number in 0..100_000 {
            count[mix.draw(number)] += 1;
            assert_eq!(mix.draw(number), mix.draw(number));
        }
        let of = |ask| count[asks.iter().position(|found| *found == ask).unwrap()];
        assert!((5_000..7_000).contains(&(of(Ask::Blocked) + of(Ask::Constrained))));
        assert!((3_000..5_000).contains(&(of(Ask::RpcError) + of(Ask::ServerError))));
        assert!((50_000..58_000).contains(&of(Ask::Query)));
    }

    #[test]
    fn a_mix_may_be_all_errors() {
        let mix = Mix::new(Name::Call, 100, 100);
        assert!((0..1000).all(|number| mix.draw(number) < mix.asks().count()));
        assert!(mix.asks().all(|ask| matches!(ask, Ask::RpcError | Ask::ServerError)));
    }
}
