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
mod keyfile;
mod money;
mod personal;
mod placeholder;
mod stand_in;
mod structure;
mod token;

pub(crate) use money::luhn;

/// A check of the secret's bytes: `true` when they can be what the rule says.
pub type Validator = fn(&[u8]) -> bool;

/// What is known of a secret when its validator says yes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shown {
    /// Nothing but its form: it may be no placeholder, or has no right check digits.
    Form,
    /// Its check digits are right, or its inside is what the rule says.
    Contents,
}
use Shown::{Contents, Form};

/// All validators, ordered by name.
static TABLE: [(&str, Validator, Shown); 66] = [
    ("aadhaar", personal::aadhaar, Contents),
    ("aba", money::aba, Contents),
    ("age-key", bech32::age_secret_key, Contents),
    ("ahv", personal::ahv, Contents),
    ("aws-key-id", structure::aws_key_id, Contents),
    ("aws-key-id-shape", structure::aws_key_id_shape, Form),
    ("aws-secret", structure::aws_secret, Form),
    ("azure-key", base64::sixty_four_bytes, Contents),
    ("bare-password", placeholder::bare_password, Form),
    ("base58-key", keyfile::base58_key, Contents),
    ("basic-auth", base64::basic_credentials, Contents),
    ("bech32-key", keyfile::bech32_key, Contents),
    ("bitcoin-address", address::bitcoin, Contents),
    ("bitlocker", structure::bitlocker, Contents),
    ("bsn", personal::bsn, Contents),
    ("card", money::card, Contents),
    ("cn-id", personal::cn_id, Contents),
    ("cnpj", personal::cnpj, Contents),
    ("codice-fiscale", personal::codice_fiscale, Contents),
    ("cpf", personal::cpf, Contents),
    ("der-key", keyfile::der_key, Contents),
    ("discord", structure::discord, Contents),
    ("dni", personal::dni, Contents),
    ("ed25519-numbers", keyfile::ed25519_numbers, Contents),
    ("ed25519-pair", keyfile::ed25519_pair, Contents),
    ("ethereum-address", address::ethereum_checksummed, Contents),
    ("ethereum-key", structure::ethereum_private_key, Contents),
    ("extended-key", base58::extended_private_key, Contents),
    ("github-checksum", token::checksum, Contents),
    ("github-no-checksum", token::no_checksum, Form),
    ("hex", placeholder::hex, Form),
    ("iban", money::iban, Contents),
    ("jwt", structure::jwt, Contents),
    ("luhn", money::card, Contents),
    ("mixed", placeholder::mixed, Form),
    ("mod97", money::iban, Contents),
    ("nhs", personal::nhs, Contents),
    ("nir", personal::nir, Contents),
    ("nostr-key", bech32::nostr_secret_key, Contents),
    ("not-placeholder", placeholder::not_placeholder, Form),
    ("npm-checksum", token::checksum, Contents),
    ("npm-no-checksum", token::no_checksum, Form),
    ("passphrase", placeholder::passphrase, Form),
    ("passport-mrz", personal::passport_mrz, Contents),
    ("password", placeholder::password, Form),
    ("pem-body", structure::pem_body, Contents),
    ("pem-shape", structure::pem_shape, Form),
    ("personnummer", personal::personnummer, Contents),
    ("pesel", personal::pesel, Contents),
    ("random", placeholder::random, Form),
    ("rijksregister", personal::rijksregister, Contents),
    ("sin", personal::sin, Contents),
    ("solana-key", base58::solana_key_pair, Contents),
    ("ssn", personal::ssn, Contents),
    ("ssn-labelled", personal::ssn_labelled, Contents),
    ("stellar-seed", address::stellar_seed, Contents),
    ("steuer-id", personal::steuer_id, Contents),
    ("strong-password", placeholder::strong_password, Form),
    ("sure-password", placeholder::sure_password, Form),
    ("tckn", personal::tckn, Contents),
    ("tfn", personal::tfn, Contents),
    ("token", placeholder::token, Form),
    ("unmasked", placeholder::unmasked, Form),
    ("url-password", structure::url_password, Contents),
    ("varied", placeholder::varied, Form),
    ("wif", base58::wif, Contents),
];

/// The validator of that name, or `None` when there is none: the caller refuses the rule.
pub fn lookup(name: &str) -> Option<Validator> {
    find(name).map(|(_, validator, _)| *validator)
}

/// Does the validator of that name confirm nothing but the form?
pub(crate) fn is_of_form(name: &str) -> bool {
    find(name).is_some_and(|(.., shown)| *shown == Form)
}

fn find(name: &str) -> Option<&'static (&'static str, Validator, Shown)> {
    TABLE.binary_search_by_key(&name, |(known, ..)| known).ok().map(|at| &TABLE[at])
}

/// The names of all validators, in order, for messages.
pub fn names() -> impl Iterator<Item = &'static str> {
    TABLE.iter().map(|(name, ..)| *name)
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
        assert!(lookup("no-such-validator").is_none() && !is_of_form("no-such-validator"));
        assert_eq!(names().filter(|name| is_of_form(name)).count(), 17);
    }

    proptest! {
        #[test]
        fn no_validator_panics(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            for (_, validator, _) in TABLE {
                validator(&bytes);
            }
        }

        #[test]
        fn no_validator_panics_on_text(text in "[0-9A-Za-z<>./+= :_-]{0,200}") {
            for (_, validator, _) in TABLE {
                validator(text.as_bytes());
            }
        }
    }
}
