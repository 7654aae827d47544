//! Directories of `.npy` files, a tensor in each: `{parameter}.npy`, little-endian float32 in C order.
#![forbid(unsafe_code)]

use super::mmap::Mapping;
use super::{Bytes, DType, Tensor, byte_len};
use crate::error::{Error, Result};
use std::path::PathBuf;
use std::sync::Arc;

const MAGIC: &[u8] = b"\x93NUMPY";
/// NumPy itself refuses more than 10,000 bytes unless told to trust the file; versions 1.0 files cannot say more than this.
const MAX_HEADER: usize = 65_535;
/// NumPy's own limit is 64.
const MAX_DIMS: usize = 8;

/// The tensor in the bytes of one `.npy` file; `file` is its path.
pub(super) fn parse(file: &Arc<PathBuf>, mapping: &Arc<Mapping>) -> Result<Tensor> {
    let bad = |message: String| Error::bad_file(file, message);
    let (header, data_start) = header(mapping).map_err(bad)?;
    let header = Header::parse(header).map_err(bad)?;
    if header.descr != "<f4" {
        let what = describe(&header.descr);
        return Err(Error::unsupported(format!("{}: expected float32 ('<f4'), found {what}", file.display())));
    }
    if header.fortran_order {
        return Err(Error::unsupported(format!("{}: Fortran order is not supported; save it in C order", file.display())));
    }
    let expected = byte_len(&header.shape, 32);
    let found = mapping.len() - data_start;
    if expected != Some(found) {
        let expected = expected.map_or("more than this machine can address".to_string(), |n| n.to_string());
        return Err(bad(format!("shape {:?} needs {expected} bytes of data, found {found}", header.shape)));
    }
    let data = Bytes::new(mapping.clone(), data_start..mapping.len());
    let data = data.ok_or_else(|| bad("the data lies outside the file".into()))?;
    Ok(Tensor { dtype: DType::F32, shape: header.shape, data, file: file.clone() })
}

/// The header's text and where the data starts.
fn header(bytes: &[u8]) -> Result<(&str, usize), String> {
    if !bytes.starts_with(MAGIC) {
        return Err("not a .npy file: it does not start with \\x93NUMPY".into());
    }
    let number = |range| bytes.get(range).ok_or_else(|| "the file ends inside its header".to_string());
    let version = number(6..8)?;
    let (len, start) = match version {
        [1, 0] => (number(8..10)?, 10),
        [2 | 3, 0] => (number(8..12)?, 12),
        other => return Err(format!("expected .npy version [1, 0], [2, 0] or [3, 0], found {other:?}")),
    };
    let len = len.iter().rev().fold(0usize, |n, &byte| n << 8 | usize::from(byte));
    if len > MAX_HEADER {
        return Err(format!("the header has {len} bytes, expected at most {MAX_HEADER}"));
    }
    let text = number(start..start + len)?;
    let text = std::str::from_utf8(text).map_err(|_| "the header is not text".to_string())?;
    Ok((text, start + len))
}

fn describe(descr: &str) -> String {
    let name = match descr.get(1..).unwrap_or_default() {
        "f4" => "big-endian float32",
        "f2" => "float16",
        "f8" => "float64",
        "i8" => "int64",
        "i4" => "int32",
        "u1" => "uint8",
        "b1" => "bool",
        "O" => "Python objects (pickle), which are never read",
        _ => "another type",
    };
    format!("{descr:?}: {name}")
}

/// The header is a Python dictionary with exactly these three keys.
#[derive(Debug)]
struct Header {
    descr: String,
    fortran_order: bool,
    shape: Vec<usize>,
}

impl Header {
    fn parse(text: &str) -> Result<Self, String> {
        let (mut descr, mut fortran_order, mut shape) = (None, None, None);
        let mut literal = Literal { rest: text };
        literal.expect('{')?;
        while !literal.take('}') {
            let key = literal.string()?;
            literal.expect(':')?;
            let again = match key {
                "descr" => descr.replace(literal.descr()?).is_some(),
                "fortran_order" => fortran_order.replace(literal.boolean()?).is_some(),
                "shape" => shape.replace(literal.tuple()?).is_some(),
                _ => return Err(format!("unexpected key {key:?} in the header")),
            };
            if again {
                return Err(format!("key {key:?} is in the header twice"));
            }
            if !literal.take(',') {
                literal.expect('}')?;
                break;
            }
        }
        if !literal.rest.trim_ascii().is_empty() {
            return Err("there is something after the header's dictionary".into());
        }
        let missing = |key: &str| format!("the header has no {key:?}");
        Ok(Self {
            descr: descr.ok_or_else(|| missing("descr"))?,
            fortran_order: fortran_order.ok_or_else(|| missing("fortran_order"))?,
            shape: shape.ok_or_else(|| missing("shape"))?,
        })
    }
}

/// What is left of a Python literal; only the forms that such a header has.
struct Literal<'a> {
    rest: &'a str,
}

impl<'a> Literal<'a> {
    fn take(&mut self, c: char) -> bool {
        let rest = self.rest.trim_ascii_start();
        let found = rest.strip_prefix(c);
        self.rest = found.unwrap_or(rest);
        found.is_some()
    }

    fn expect(&mut self, c: char) -> Result<(), String> {
        if self.take(c) { Ok(()) } else { Err(self.error(&format!("{c:?}"))) }
    }

    fn error(&self, expected: &str) -> String {
        let found: String = self.rest.chars().take(16).collect();
        format!("expected {expected} in the header, found {found:?}")
    }

    fn string(&mut self) -> Result<&'a str, String> {
        let quote = if self.take('\'') { '\'' } else { self.expect('"').map(|()| '"')? };
        let (string, rest) = self.rest.split_once(quote).ok_or("a string in the header has no end")?;
        if string.contains('\\') {
            return Err(format!("unexpected escape in {string:?} in the header"));
        }
        self.rest = rest;
        Ok(string)
    }

    /// The element type: a string, or a list for structured types, which we only need to refuse.
    fn descr(&mut self) -> Result<String, String> {
        if self.take('[') {
            return Err("structured types are not supported".into());
        }
        self.string().map(str::to_string)
    }

    fn boolean(&mut self) -> Result<bool, String> {
        self.rest = self.rest.trim_ascii_start();
        for (word, value) in [("True", true), ("False", false)] {
            if let Some(rest) = self.rest.strip_prefix(word) {
                self.rest = rest;
                return Ok(value);
            }
        }
        Err(self.error("True or False"))
    }

    fn tuple(&mut self) -> Result<Vec<usize>, String> {
        self.expect('(')?;
        let mut dims = Vec::new();
        while !self.take(')') {
            if dims.len() == MAX_DIMS {
                return Err(format!("the shape has more than {MAX_DIMS} dimensions"));
            }
            dims.push(self.number()?);
            if !self.take(',') {
                // `(3)` is a number in Python, not a tuple.
                if dims.len() == 1 {
                    return Err(self.error("','"));
                }
                self.expect(')')?;
                break;
            }
        }
        Ok(dims)
    }

    fn number(&mut self) -> Result<usize, String> {
        self.rest = self.rest.trim_ascii_start();
        let digits = self.rest.bytes().take_while(u8::is_ascii_digit).count();
        let (number, rest) = self.rest.split_at_checked(digits).ok_or("unreachable: digits are ASCII")?;
        let number = number.parse().map_err(|_| self.error("a size"))?;
        self.rest = rest;
        Ok(number)
    }
}
