//! CHAP (RFC 1994 as RFC 7143, 12.1.3 uses it): one side shows that it knows a secret by hashing it
//! with a challenge of the other.
//!
//! Algorithms beyond MD5 have the numbers that IANA's "PPP Authentication Algorithms" gives them.
//! Hashes are compared in constant time; secrets are not printed by `Debug`.

use super::text;
use sha2::Digest as Hash;
use std::fmt;

/// Bytes of the challenges that we send: as many as the longest hash has.
pub const CHALLENGE_BYTES: usize = 32;

/// Shortest secret (RFC 7143, 9.2.1: 96 bits where the connection is not encrypted).
pub const SECRET_BYTES_MIN: usize = 12;

/// Randomness for one login: the identifier, then the challenge.
pub type Nonce = [u8; 1 + CHALLENGE_BYTES];

/// A name and the secret that proves it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    pub name: String,
    pub secret: Secret,
}

/// A shared secret.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Box<[u8]>);

impl Secret {
    pub fn new(bytes: &[u8]) -> Self {
        Self(bytes.into())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// Algorithms, the best first: the order in which they are offered and chosen.
pub const ALGORITHMS: [Algorithm; 4] =
    [Algorithm::Sha3_256, Algorithm::Sha256, Algorithm::Sha1, Algorithm::Md5];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Algorithm {
    Md5 = 5,
    Sha1 = 6,
    Sha256 = 7,
    Sha3_256 = 8,
}

impl Algorithm {
    /// The first of a list of numbers, in the order of the list, that is known and in `allowed`.
    pub fn choose(list: &str, allowed: &[Self]) -> Option<Self> {
        let of = |number| allowed.iter().copied().find(|it| u32::from(*it as u8) == number);
        list.split(',').filter_map(text::number).find_map(of)
    }

    /// The hash over identifier, secret and challenge (RFC 1994, 4.1).
    pub fn response(self, id: u8, secret: &Secret, challenge: &[u8]) -> Vec<u8> {
        match self {
            Self::Md5 => hash::<md5::Md5>(id, secret, challenge),
            Self::Sha1 => hash::<sha1::Sha1>(id, secret, challenge),
            Self::Sha256 => hash::<sha2::Sha256>(id, secret, challenge),
            Self::Sha3_256 => hash::<sha3::Sha3_256>(id, secret, challenge),
        }
    }

    /// Whether `response` is the one that the secret gives.
    pub fn verify(self, id: u8, secret: &Secret, challenge: &[u8], response: &[u8]) -> bool {
        is_equal(&self.response(id, secret, challenge), response)
    }
}

fn hash<D: Hash>(id: u8, secret: &Secret, challenge: &[u8]) -> Vec<u8> {
    let hash = D::new().chain_update([id]).chain_update(&secret.0).chain_update(challenge);
    hash.finalize().to_vec()
}

/// Equality that takes as long whatever the bytes are; of lengths no secret is made.
pub fn is_equal(a: &[u8], b: &[u8]) -> bool {
    let difference = a.iter().zip(b).fold(0, |all, (a, b)| std::hint::black_box(all | (a ^ b)));
    a.len() == b.len() && difference == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Computed with Python's hashlib over b"\x27" + b"viaduct-secret-16" + bytes(range(16)).
    #[test]
    fn responses_are_those_of_an_independent_implementation() {
        let secret = Secret::new(b"viaduct-secret-16");
        let challenge: Vec<u8> = (0..16).collect();
        for (algorithm, expected) in [
            (Algorithm::Md5, "0xb4fb08a123a26dd04c368222c32ba296"),
            (Algorithm::Sha1, "0xe982222712e08b89ccf1773596bcf22d1d20d554"),
            (
                Algorithm::Sha256,
                "0xee83f48878570ac3ab538bcc6d66b3f410e11d314ce5f9d3bcdb151167dc55e0",
            ),
            (
                Algorithm::Sha3_256,
                "0x4318722075e478e88a0e22fbe403a880712427d7a9a1c7a4f7d676a21a78c3b2",
            ),
        ] {
            let response = algorithm.response(0x27, &secret, &challenge);
            assert_eq!(text::hex(&response), expected);
            assert!(algorithm.verify(0x27, &secret, &challenge, &response));
            assert!(!algorithm.verify(0x28, &secret, &challenge, &response));
            assert!(!algorithm.verify(0x27, &secret, &challenge, &response[1..]));
            assert!(!algorithm.verify(0x27, &secret, &challenge, &[]));
        }
    }

    #[test]
    fn the_other_side_has_the_first_choice_among_the_allowed() {
        assert_eq!(Algorithm::choose("5,7", &ALGORITHMS), Some(Algorithm::Md5));
        assert_eq!(Algorithm::choose("99,x,7", &ALGORITHMS), Some(Algorithm::Sha256));
        assert_eq!(Algorithm::choose("5,6", &[Algorithm::Sha256]), None);
        assert_eq!(Algorithm::choose("", &ALGORITHMS), None);
    }

    #[test]
    fn a_secret_is_not_printed() {
        let account = Account { name: "n".into(), secret: Secret::new(b"hidden") };
        assert!(!format!("{account:?}").contains("hidden"));
    }

    #[test]
    fn equality_is_of_all_bytes() {
        assert!(is_equal(b"", b"") && is_equal(b"ab", b"ab"));
        assert!(!is_equal(b"ab", b"ac") && !is_equal(b"ab", b"abc") && !is_equal(b"xb", b"ab"));
    }
}
