//! The random parts of a run: its nonces and the action ids.

use super::ChainError;
use crate::canon::Timestamp;
use crate::codec::hex;

/// Where action ids come from.
pub(super) enum Ids {
    Random,
    /// The ids of the published vectors.
    #[cfg(test)]
    Counter(u64),
}

/// 32 random lower-case hex digits.
pub(super) fn nonce() -> Result<String, ChainError> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(ChainError::Random)?;
    Ok(hex(&bytes))
}

impl Ids {
    /// The id of the next action.
    pub(super) fn next(&mut self, time: Timestamp) -> Result<String, ChainError> {
        match self {
            Self::Random => {
                let mut bytes = [0; 16];
                getrandom::fill(&mut bytes).map_err(ChainError::Random)?;
                Ok(uuid_v7(time, bytes))
            }
            #[cfg(test)]
            Self::Counter(next) => {
                *next += 1;
                Ok(format!("01954d00-0000-7000-8000-{:012x}", *next - 1))
            }
        }
    }
}

/// RFC 9562 §5.7: 48 bits of milliseconds, version, 74 random bits with the variant among them.
pub(super) fn uuid_v7(time: Timestamp, random: [u8; 16]) -> String {
    let millis = u128::from(time.millis() & 0xffff_ffff_ffff);
    let random = u128::from_be_bytes(random);
    let value = millis << 80 | 0x7 << 76 | (random >> 52 & 0xfff) << 64 | 0b10 << 62 | random & ((1 << 62) - 1);
    let digits = format!("{value:032x}");
    let part = |range: std::ops::Range<usize>| digits.get(range).unwrap_or_default().to_owned();
    [part(0..8), part(8..12), part(12..16), part(16..20), part(20..32)].join("-")
}
