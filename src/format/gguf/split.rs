//! Models split over several files: `NAME-00001-of-00003.gguf` and so on. The first part has the metadata of all, and each says
//! which part of how many it is.
#![forbid(unsafe_code)]

use super::Parsed;
use crate::error::{Error, Result};
use std::path::{Path, PathBuf};

/// What a part says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::format) struct Split {
    /// Which part it is, from 0.
    no: u64,
    /// How many there are.
    pub count: u64,
    /// Tensors in all of them, where it says so.
    n_tensors: Option<u64>,
}

impl Split {
    /// `None` for a file that is a model of its own.
    pub fn of(parsed: &Parsed, file: &Path) -> Result<Option<Split>> {
        let metadata = &parsed.metadata;
        let Some(count) = metadata.get_u64("split.count")?.filter(|&count| count > 1) else { return Ok(None) };
        let no = metadata.get_u64("split.no")?;
        let no = no.ok_or_else(|| Error::bad_file(file, "split.count is there, but not split.no"))?;
        if no >= count {
            return Err(Error::bad_file(file, format_args!("split.no is {no}, expected less than split.count, {count}")));
        }
        Ok(Some(Split { no, count, n_tensors: metadata.get_u64("split.tensors.count")? }))
    }

    /// Refuses `other`, in `file`, unless it is part number `no` of the same model.
    pub fn expect(&self, other: Option<Split>, no: u64, file: &Path) -> Result<()> {
        let says = match other {
            Some(split) if (split.no, split.count) == (no, self.count) => return Ok(()),
            Some(Split { no, count, .. }) => format!("part {no} of {count}"),
            None => "a model of its own".to_string(),
        };
        Err(Error::bad_file(file, format_args!("expected part {no} of {}, counted from 0; the file says {says}", self.count)))
    }

    /// Refuses a number of tensors other than what the parts say.
    pub fn expect_tensors(&self, found: usize, file: &Path) -> Result<()> {
        match self.n_tensors {
            Some(n) if n != found as u64 => {
                Err(Error::bad_file(file, format_args!("split.tensors.count is {n}, but the {} parts have {found}", self.count)))
            }
            _ => Ok(()),
        }
    }
}

/// The name of a part: what comes before the numbers, its number from 1, and how many there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::format) struct Name<'a> {
    pub stem: &'a str,
    pub no: u64,
    pub count: u64,
}

impl<'a> Name<'a> {
    /// `None` if it is not the name of a part.
    pub fn parse(name: &'a str) -> Option<Self> {
        let (rest, count) = number(name.strip_suffix(".gguf")?)?;
        let (stem, no) = number(rest.strip_suffix("-of")?)?;
        (1..=count).contains(&no).then_some(Name { stem, no, count })
    }

    /// Of a file that says that it is a part; its name has to say the same.
    pub fn of(file: &'a Path, split: Split) -> Result<Self> {
        let name = file.file_name().and_then(|name| name.to_str()).and_then(Name::parse);
        name.filter(|name| (name.no, name.count) == (split.no + 1, split.count)).ok_or_else(|| {
            let expected = format!("expected a name that ends in -{:05}-of-{:05}.gguf", split.no + 1, split.count);
            Error::bad_file(file, format_args!("one of {} parts of a model: {expected}, to find the others by", split.count))
        })
    }

    /// The path of part `no`, from 0, in the directory of `file`.
    pub fn path(&self, file: &Path, no: u64) -> PathBuf {
        file.with_file_name(format!("{}-{:05}-of-{:05}.gguf", self.stem, no + 1, self.count))
    }
}

/// `text` before its last `-` and the five digits after that.
fn number(text: &str) -> Option<(&str, u64)> {
    let (before, digits) = text.rsplit_once('-')?;
    let is_number = digits.len() == 5 && digits.bytes().all(|b| b.is_ascii_digit());
    Some((before, digits.parse().ok().filter(|_| is_number)?))
}
