//! What a `tokenizer.json` may not ask for: steps with which a small file makes the `tokenizers` crate panic, or a short text
//! grow without bound. No real tokenizer has them.
#![forbid(unsafe_code)]

use crate::error::{Error, Result};
use serde_json::Value;

/// How much longer the normalizer may make a text; U+2581 for a space is 3.
const MAX_GROWTH: usize = 32;

/// Refuses normalizers whose replacements multiply a text.
pub(super) fn normalizer(normalizer: &Value) -> Result<()> {
    let mut growth = 1usize;
    each(normalizer, "normalizers", &mut |step| {
        let length = |key: &str| step.get(key).and_then(Value::as_str).map_or(0, str::len);
        let pattern = step.pointer("/pattern/String").and_then(Value::as_str).map_or(1, str::len);
        growth = growth.saturating_mul((length("content") / pattern.max(1)).max(1));
        growth = growth.saturating_add(length("prepend"));
    });
    if growth > MAX_GROWTH {
        return Err(Error::unsupported(format!("the normalizer makes texts up to {growth} times longer, expected {MAX_GROWTH}")));
    }
    Ok(())
}

/// Refuses templates that use anything but the text, once, and special tokens that they define.
pub(super) fn post_processor(processor: &Value) -> Result<()> {
    let mut found = Ok(());
    each(processor, "processors", &mut |step| {
        if let Some(template) = step.get("single").and_then(Value::as_array) {
            found = std::mem::replace(&mut found, Ok(())).and(check_template(template, step));
        }
    });
    found
}

fn check_template(template: &[Value], step: &Value) -> Result<()> {
    let texts: Vec<&Value> = template.iter().filter_map(|piece| piece.pointer("/Sequence/id")).collect();
    if texts.len() > 1 || texts.iter().any(|id| **id != "A") {
        return Err(Error::unsupported("the post-processor's template for one text uses another text, or the same one twice"));
    }
    for id in template.iter().filter_map(|piece| piece.pointer("/SpecialToken/id")).filter_map(Value::as_str) {
        if step.get("special_tokens").and_then(|tokens| tokens.get(id)).is_none() {
            return Err(Error::unsupported(format!(
                "the post-processor's template uses the token {id:?}, which it does not define"
            )));
        }
    }
    Ok(())
}

/// Calls `look` on every step of what may be a sequence of sequences.
fn each<'a>(step: &'a Value, list: &str, look: &mut impl FnMut(&'a Value)) {
    match step.get(list).and_then(Value::as_array) {
        Some(steps) => steps.iter().for_each(|step| each(step, list, look)),
        None => look(step),
    }
}
