//! What a pattern cannot tell: check digits, checksums, structure, and whether a value is only a placeholder.
//!
//! The rule engine looks a rule's `validator` up by name and hands it the bytes of the secret group; a match whose
//! validator says no is no finding. Promises: every validator is linear in its input, never panics, whatever the bytes,
//! and keeps nothing. Names are part of the rule format: they may be added, not renamed.

pub mod address;
pub mod base58;
mod base64;
pub mod bech32;
mod keccak;
mod money;
mod personal;
mod placeholder;
mod structure;
mod token;

/// A check of the secret's bytes: `true` when they can be what the rule says.
pub type Validator = fn(&[u8]) -> bool;

/// All validators, ordered by name.
const TABLE: [(&str, Validator); 55] = [
    ("aadhaar", personal::aadhaar),
    ("aba", money::aba),
    ("age-key", bech32::age_secret_key),
    ("ahv", personal::ahv),
    ("aws-key-id", structure::aws_key_id),
    ("aws-key-id-shape", structure::aws_key_id_shape),
    ("aws-secret", structure::aws_secret),
    ("azure-key", base64::sixty_four_bytes),
    ("basic-auth", base64::basic_credentials),
    ("bitcoin-address", address::bitcoin),
    ("bsn", personal::bsn),
    ("card", money::card),
    ("cnpj", personal::cnpj),
    ("codice-fiscale", personal::codice_fiscale),
    ("cpf", personal::cpf),
    ("discord", structure::discord),
    ("dni", personal::dni),
    ("ethereum-address", address::ethereum_checksummed),
    ("ethereum-key", structure::ethereum_private_key),
    ("extended-key", base58::extended_private_key),
    ("github-checksum", token::checksum),
    ("github-no-checksum", token::no_checksum),
    ("hex", placeholder::hex),
    ("iban", money::iban),
    ("jwt", structure::jwt),
    ("luhn", money::card),
    ("mixed", placeholder::mixed),
    ("mod97", money::iban),
    ("nhs", personal::nhs),
    ("nir", personal::nir),
    ("nostr-key", bech32::nostr_secret_key),
    ("not-placeholder", placeholder::not_placeholder),
    ("npm-checksum", token::checksum),
    ("npm-no-checksum", token::no_checksum),
    ("passphrase", placeholder::passphrase),
    ("passport-mrz", personal::passport_mrz),
    ("pem-body", structure::pem_body),
    ("pem-shape", structure::pem_shape),
    ("personnummer", personal::personnummer),
    ("pesel", personal::pesel),
    ("random", placeholder::random),
    ("rijksregister", personal::rijksregister),
    ("sin", personal::sin),
    ("solana-key", base58::solana_key_pair),
    ("ssn", personal::ssn),
    ("ssn-labelled", personal::ssn_labelled),
    ("stellar-seed", address::stellar_seed),
    ("steuer-id", personal::steuer_id),
    ("strong-password", placeholder::strong_password),
    ("tfn", personal::tfn),
    ("token", placeholder::token),
    ("unmasked", placeholder::unmasked),
    ("url-password", structure::url_password),
    ("varied", placeholder::varied),
    ("wif", base58::wif),
];

/// The validator of that name, or `None` when there is none: the caller refuses the rule.
pub fn lookup(name: &str) -> Option<Validator> {
    TABLE.binary_search_by_key(&name, |(known, _)| known).ok().map(|at| TABLE[at].1)
}

/// Those that tell only whether something may be a placeholder, or that it has no check digits.
const SHAPES: [&str; 14] = [
    "aws-key-id-shape",
    "aws-secret",
    "github-no-checksum",
    "hex",
    "mixed",
    "not-placeholder",
    "npm-no-checksum",
    "passphrase",
    "pem-shape",
    "random",
    "strong-password",
    "token",
    "unmasked",
    "varied",
];

/// Does the validator of that name confirm nothing but the form?
pub(crate) fn is_shape(name: &str) -> bool {
    SHAPES.contains(&name)
}

/// The names of all validators, in order, for messages.
pub fn names() -> impl Iterator<Item = &'static str> {
    TABLE.iter().map(|(name, _)| *name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_table_is_in_order_and_whole() {
        assert!(TABLE.is_sorted_by(|a, b| a.0 < b.0));
        for name in names() {
            assert!(lookup(name).is_some(), "{name}");
        }
        assert!(lookup("no-such-validator").is_none());
    }

    proptest! {
        #[test]
        fn no_validator_panics(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            for (_, validator) in TABLE {
                validator(&bytes);
            }
        }

        #[test]
        fn no_validator_panics_on_text(text in "[0-9A-Za-z<>./+= :_-]{0,200}") {
            for (_, validator) in TABLE {
                validator(text.as_bytes());
            }
        }
    }
}
