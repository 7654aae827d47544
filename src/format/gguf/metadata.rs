//! Key-value metadata. Only the keys are read when a file is opened: a value stays where it lies in the file until someone
//! asks, so that a vocabulary of 150,000 tokens costs nothing.
#![forbid(unsafe_code)]

use super::MAX_ENTRIES;
use super::cursor::Cursor;
use crate::error::{Error, Result};
use crate::format::Bytes;
use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Bytes of the smallest entry: key length, value type, a value of one byte.
pub(super) const MIN_ENTRY: u64 = 8 + 4 + 1;
/// The format's own limit.
const MAX_KEY: u64 = 65_535;
/// Arrays inside arrays.
const MAX_DEPTH: usize = 8;

/// Type of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ValueType {
    U8,
    I8,
    U16,
    I16,
    U32,
    I32,
    F32,
    Bool,
    String,
    Array,
    U64,
    I64,
    F64,
}

impl ValueType {
    fn by_id(id: u32) -> Option<Self> {
        use ValueType::*;
        [U8, I8, U16, I16, U32, I32, F32, Bool, String, Array, U64, I64, F64].get(id as usize).copied()
    }

    /// Bytes of one value; `None` where they vary.
    fn size(self) -> Option<u64> {
        use ValueType::*;
        match self {
            U8 | I8 | Bool => Some(1),
            U16 | I16 => Some(2),
            U32 | I32 | F32 => Some(4),
            U64 | I64 | F64 => Some(8),
            String | Array => None,
        }
    }

    fn name(self) -> &'static str {
        use ValueType::*;
        match self {
            U8 => "u8",
            I8 => "i8",
            U16 => "u16",
            I16 => "i16",
            U32 => "u32",
            I32 => "i32",
            F32 => "f32",
            Bool => "bool",
            String => "string",
            Array => "array",
            U64 => "u64",
            I64 => "i64",
            F64 => "f64",
        }
    }
}

/// A key, for messages.
#[derive(Clone, Copy)]
struct Key<'a>(&'a str);

impl fmt::Display for Key<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "metadata key {:?}", self.0)
    }
}

/// Where a value lies in the file.
pub(super) struct Entry {
    value_type: ValueType,
    at: usize,
}

/// Reads `count` keys and walks over their values.
pub(super) fn read_entries(cursor: &mut Cursor<'_>, count: u64) -> Result<BTreeMap<String, Entry>> {
    debug_assert!(count <= MAX_ENTRIES);
    let mut entries = BTreeMap::new();
    for _ in 0..count {
        let key = cursor.string(MAX_KEY, "a metadata key")?;
        let value_type = value_type(cursor, Key(key))?;
        let entry = Entry { value_type, at: cursor.position() };
        skip(cursor, value_type, Key(key), 0)?;
        if entries.insert(key.to_string(), entry).is_some() {
            return Err(Error::bad_file(cursor.file(), format_args!("{} is there twice", Key(key))));
        }
    }
    Ok(entries)
}

fn value_type(cursor: &mut Cursor<'_>, key: Key<'_>) -> Result<ValueType> {
    let id = cursor.u32(key)?;
    let unknown = || Error::bad_file(cursor.file(), format_args!("{key}: unknown value type {id}"));
    ValueType::by_id(id).ok_or_else(unknown)
}

/// Walks over one value of the key `key`.
fn skip(cursor: &mut Cursor<'_>, value_type: ValueType, key: Key<'_>, depth: usize) -> Result<()> {
    match (value_type, value_type.size()) {
        (_, Some(size)) => cursor.take(size, key).map(drop),
        (ValueType::String, _) => cursor.string_bytes(key).map(drop),
        _ => skip_array(cursor, key, depth),
    }
}

fn skip_array(cursor: &mut Cursor<'_>, key: Key<'_>, depth: usize) -> Result<()> {
    if depth == MAX_DEPTH {
        let message = format_args!("{key}: arrays more than {MAX_DEPTH} deep");
        return Err(Error::bad_file(cursor.file(), message));
    }
    let (element, count) = array_head(cursor, key)?;
    if let Some(size) = element.size() {
        // No overflow: `array_head` has seen that so many bytes remain.
        return cursor.take(count * size, key).map(drop);
    }
    for _ in 0..count {
        skip(cursor, element, key, depth + 1)?;
    }
    Ok(())
}

/// An array's element type and count, once it is sure that so many can follow.
fn array_head(cursor: &mut Cursor<'_>, key: Key<'_>) -> Result<(ValueType, u64)> {
    let element = value_type(cursor, key)?;
    let count = cursor.u64(key)?;
    // A string is at least its length, an array at least its type and count.
    let least = element.size().unwrap_or(if element == ValueType::String { 8 } else { 12 });
    if count > cursor.remaining() / least {
        let (name, remaining) = (element.name(), cursor.remaining());
        let message = format_args!("{key}: {count} elements of {name} cannot be in {remaining} bytes");
        return Err(Error::bad_file(cursor.file(), message));
    }
    Ok((element, count))
}

/// GGUF key-value metadata. A key that is missing is `None`; one whose value has another type than asked for is an error
/// that names both. Holds the file in memory.
pub struct Metadata {
    entries: BTreeMap<String, Entry>,
    bytes: Bytes,
    file: Arc<PathBuf>,
}

/// A scalar, wide enough for every type.
enum Number {
    Int(i128),
    Float(f64),
}

impl Metadata {
    pub(super) fn new(entries: BTreeMap<String, Entry>, bytes: Bytes, file: Arc<PathBuf>) -> Self {
        Self { entries, bytes, file }
    }

    /// All keys, in alphabetic order.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.entries.keys().map(String::as_str)
    }

    /// Whether there is such a key.
    pub fn contains(&self, key: &str) -> bool {
        self.entries.contains_key(key)
    }

    /// All keys with the bytes of key, type and value, in the order of the file.
    pub(super) fn raw(&self) -> Result<Vec<(&str, &[u8])>> {
        let mut entries: Vec<(&str, &Entry)> = self.entries.iter().map(|(key, entry)| (key.as_str(), entry)).collect();
        entries.sort_by_key(|(_, entry)| entry.at);
        let raw = |(key, entry): (&'_ str, &Entry)| {
            let mut cursor = self.cursor(entry.at);
            skip(&mut cursor, entry.value_type, Key(key), 0)?;
            // Before the value: the key's length, the key, the value's type.
            let start = entry.at.saturating_sub(8 + key.len() + 4);
            Ok(self.bytes.get(start..cursor.position()).unwrap_or_default())
        };
        entries.into_iter().map(|(key, entry)| Ok((key, raw((key, entry))?))).collect()
    }

    /// The file, for messages.
    pub(super) fn file(&self) -> &Path {
        &self.file
    }

    /// The error for a key that has to be there and is not.
    pub fn missing(&self, key: &str) -> Error {
        Error::bad_file(&self.file, format_args!("{} is not there", Key(key)))
    }

    /// A string.
    pub fn get_str(&self, key: &str) -> Result<Option<&str>> {
        let Some(entry) = self.entries.get(key) else { return Ok(None) };
        if entry.value_type != ValueType::String {
            return Err(self.mismatch(key, "a string"));
        }
        self.cursor(entry.at).string(u64::MAX, Key(key)).map(Some)
    }

    /// An integer of any width that is not negative.
    pub fn get_u64(&self, key: &str) -> Result<Option<u64>> {
        self.scalar(key, "an integer of at least 0", |n| match n {
            Number::Int(n) => u64::try_from(n).ok(),
            Number::Float(_) => None,
        })
    }

    /// A floating-point number of either width, as f32.
    pub fn get_f32(&self, key: &str) -> Result<Option<f32>> {
        self.scalar(key, "a floating-point number", as_f32)
    }

    /// A truth value.
    pub fn get_bool(&self, key: &str) -> Result<Option<bool>> {
        let Some(entry) = self.entries.get(key) else { return Ok(None) };
        if entry.value_type != ValueType::Bool {
            return Err(self.mismatch(key, "a bool"));
        }
        match self.cursor(entry.at).take(1, Key(key))? {
            [0] => Ok(Some(false)),
            [1] => Ok(Some(true)),
            other => Err(Error::bad_file(&self.file, format_args!("{}: {other:?} is not a bool", Key(key)))),
        }
    }

    /// Whether the key has an array.
    pub fn is_array(&self, key: &str) -> bool {
        self.entries.get(key).is_some_and(|entry| entry.value_type == ValueType::Array)
    }

    /// An array of truth values.
    pub fn bool_array(&self, key: &str) -> Result<Option<Vec<bool>>> {
        self.array(key, "an array of bools", |element, cursor| match element {
            ValueType::Bool => Ok(match cursor.take(1, Key(key))? {
                [0] => Some(false),
                [1] => Some(true),
                _ => None,
            }),
            _ => Ok(None),
        })
    }

    /// An array of strings.
    pub fn str_array(&self, key: &str) -> Result<Option<Vec<&str>>> {
        self.array(key, "an array of strings", |element, cursor| {
            if element == ValueType::String { cursor.string(u64::MAX, Key(key)).map(Some) } else { Ok(None) }
        })
    }

    /// An array of floating-point numbers, as f32.
    pub fn f32_array(&self, key: &str) -> Result<Option<Vec<f32>>> {
        self.numbers(key, "an array of floating-point numbers", as_f32)
    }

    /// An array of integers of any width that fit.
    pub fn i32_array(&self, key: &str) -> Result<Option<Vec<i32>>> {
        self.numbers(key, "an array of 32-bit integers", |n| match n {
            Number::Int(n) => i32::try_from(n).ok(),
            Number::Float(_) => None,
        })
    }

    /// An array of integers of any width that fit.
    pub fn u32_array(&self, key: &str) -> Result<Option<Vec<u32>>> {
        self.numbers(key, "an array of 32-bit integers of at least 0", |n| match n {
            Number::Int(n) => u32::try_from(n).ok(),
            Number::Float(_) => None,
        })
    }

    /// Any value as text: strings as they are, numbers and bools as JSON has them, arrays as JSON.
    pub fn text(&self, key: &str) -> Result<Option<String>> {
        let Some(entry) = self.entries.get(key) else { return Ok(None) };
        let mut text = String::new();
        match entry.value_type {
            ValueType::String => text.push_str(self.get_str(key)?.unwrap_or_default()),
            other => push_text(&mut self.cursor(entry.at), other, Key(key), &mut text)?,
        }
        Ok(Some(text))
    }

    fn cursor(&self, at: usize) -> Cursor<'_> {
        Cursor::new(&self.bytes, &self.file).at(at)
    }

    fn scalar<T>(&self, key: &str, expected: &str, convert: impl Fn(Number) -> Option<T>) -> Result<Option<T>> {
        let Some(entry) = self.entries.get(key) else { return Ok(None) };
        let number = number(&mut self.cursor(entry.at), entry.value_type, Key(key))?;
        number.and_then(convert).map(Some).ok_or_else(|| self.mismatch(key, expected))
    }

    fn numbers<T>(&self, key: &str, expected: &str, convert: impl Fn(Number) -> Option<T>) -> Result<Option<Vec<T>>> {
        self.array(key, expected, |element, cursor| Ok(number(cursor, element, Key(key))?.and_then(&convert)))
    }

    /// The array at `key`, each element read by `read`, which gives `None` for what does not belong there.
    fn array<'a, T>(
        &'a self,
        key: &str,
        expected: &str,
        read: impl Fn(ValueType, &mut Cursor<'a>) -> Result<Option<T>>,
    ) -> Result<Option<Vec<T>>> {
        let Some(entry) = self.entries.get(key) else { return Ok(None) };
        if entry.value_type != ValueType::Array {
            return Err(self.mismatch(key, expected));
        }
        let mut cursor = self.cursor(entry.at);
        let (element, count) = array_head(&mut cursor, Key(key))?;
        let mut values = Vec::new();
        // The cast is exact: so many elements are in the file.
        let bytes = (count as usize).saturating_mul(size_of::<T>());
        values.try_reserve_exact(count as usize).map_err(|_| Error::out_of_memory(Key(key), bytes))?;
        for _ in 0..count {
            values.push(read(element, &mut cursor)?.ok_or_else(|| self.mismatch(key, expected))?);
        }
        Ok(Some(values))
    }

    /// The error for a value that is not what was asked for.
    fn mismatch(&self, key: &str, expected: &str) -> Error {
        let found = self.describe(key).unwrap_or_else(|| "nothing readable".into());
        Error::bad_file(&self.file, format_args!("{}: expected {expected}, found {found}", Key(key)))
    }

    fn describe(&self, key: &str) -> Option<String> {
        let entry = self.entries.get(key)?;
        let mut cursor = self.cursor(entry.at);
        Some(match entry.value_type {
            ValueType::Array => {
                let (element, count) = array_head(&mut cursor, Key(key)).ok()?;
                format!("an array of {count} {}", element.name())
            }
            other => match number(&mut cursor, other, Key(key)).ok()? {
                Some(Number::Int(n)) => format!("{} {n}", other.name()),
                Some(Number::Float(n)) => format!("{} {n}", other.name()),
                None => other.name().to_string(),
            },
        })
    }
}

/// Writes the value that the cursor stands at as JSON; arrays nest as deep as [`read_entries`] let them.
fn push_text(cursor: &mut Cursor<'_>, value_type: ValueType, key: Key<'_>, out: &mut String) -> Result<()> {
    match value_type {
        ValueType::String => {
            let text = cursor.string(u64::MAX, key)?;
            out.push_str(&serde_json::Value::from(text).to_string());
        }
        ValueType::Bool => out.push_str(if cursor.take(1, key)? == [0] { "false" } else { "true" }),
        ValueType::Array => {
            let (element, count) = array_head(cursor, key)?;
            out.push('[');
            for i in 0..count {
                out.push_str(if i == 0 { "" } else { "," });
                push_text(cursor, element, key, out)?;
            }
            out.push(']');
        }
        ValueType::F32 => {
            // As f32: the digits that tell it from its neighbours, 1e-5 and not 9.999999747378752e-6.
            if let Some(value) = number(cursor, value_type, key)?.and_then(as_f32) {
                out.push_str(&value.to_string());
            }
        }
        number_type => match number(cursor, number_type, key)? {
            Some(Number::Int(n)) => out.push_str(&n.to_string()),
            Some(Number::Float(n)) => out.push_str(&n.to_string()),
            None => {}
        },
    }
    Ok(())
}

fn as_f32(n: Number) -> Option<f32> {
    match n {
        Number::Float(n) => Some(n as f32),
        Number::Int(_) => None,
    }
}

/// The next number; `None` if `value_type` is not a number's.
fn number(cursor: &mut Cursor<'_>, value_type: ValueType, key: Key<'_>) -> Result<Option<Number>> {
    use ValueType::*;
    let Some(size) = value_type.size().filter(|_| value_type != Bool) else { return Ok(None) };
    let mut le = [0u8; 8];
    let bytes = cursor.take(size, key)?;
    for (to, from) in le.iter_mut().zip(bytes) {
        *to = *from;
    }
    let bits = u64::from_le_bytes(le);
    // Truncating casts: the bits above the value's own width are zeros.
    Ok(Some(match value_type {
        I8 => Number::Int((bits as i8).into()),
        I16 => Number::Int((bits as i16).into()),
        I32 => Number::Int((bits as i32).into()),
        I64 => Number::Int((bits as i64).into()),
        F32 => Number::Float(f32::from_bits(bits as u32).into()),
        F64 => Number::Float(f64::from_bits(bits)),
        _ => Number::Int(bits.into()),
    }))
}
