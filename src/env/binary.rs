//! The one place where bincode is used: small values in files and log entries of our own.
//!
//! Fixed-width little-endian integers, no version of its own: each user puts a version in front.

use serde::Serialize;
use serde::de::DeserializeOwned;

use bincode::Options;

/// Encodes a value.
pub fn to_binary<T: Serialize>(value: &T) -> Vec<u8> {
    options(u64::MAX).serialize(value).expect("values of our own types can be encoded")
}

/// Decodes a value, all of `bytes`. Never takes more memory than `bytes` has, but for a small factor.
pub fn from_binary<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, String> {
    options(bytes.len() as u64).deserialize(bytes).map_err(|error| error.to_string())
}

fn options(limit: u64) -> impl Options {
    bincode::DefaultOptions::new().with_fixint_encoding().with_limit(limit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read_back_and_damage_is_an_error() {
        let value = (7u64, String::from("x"), vec![1u8, 2]);
        let bytes = to_binary(&value);
        assert_eq!(from_binary::<(u64, String, Vec<u8>)>(&bytes).unwrap(), value);
        assert!(from_binary::<(u64, String, Vec<u8>)>(&bytes[..bytes.len() - 1]).is_err());
        assert!(from_binary::<(u64, String)>(&bytes).is_err());
        let mut long = bytes;
        long[8..16].copy_from_slice(&u64::MAX.to_le_bytes());
        assert!(from_binary::<(u64, String, Vec<u8>)>(&long).is_err());
    }
}
