//! generate MODEL PROMPT [N_TOKENS [THREADS]]: continues a text, printing it as it comes. In C: generate.c, in C++:
//! generate.cpp.
#![forbid(unsafe_code)]

use engine::{CacheOptions, LoadOptions, Model};
use std::io::Write;
use std::process::ExitCode;
use std::time::Instant;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

const USAGE: &str = "usage: generate MODEL PROMPT [N_TOKENS [THREADS]]
  MODEL     a Hugging Face directory, a directory of .npy files or a .gguf file
  N_TOKENS  how many tokens to add at most (100)
  THREADS   threads to compute with (the processor's cores)";

/// `context: error`, the way each failure is reported.
fn failed<E: std::fmt::Display>(context: &str) -> impl FnOnce(E) -> Box<dyn std::error::Error> {
    move |error| format!("{context}: {error}").into()
}

/// The likeliest token: the first of the largest logits.
fn argmax(logits: &[f32]) -> u32 {
    let mut best = 0;
    for (i, logit) in logits.iter().enumerate() {
        if *logit > logits[best] {
            best = i;
        }
    }
    best as u32
}

/// Prints text that has just become known; it may be empty.
fn print(text: &str) -> std::io::Result<()> {
    let mut out = std::io::stdout();
    out.write_all(text.as_bytes())?;
    out.flush()
}

fn generate(path: &str, prompt: &str, wanted: usize, threads: usize) -> Result<()> {
    let model = Model::load(path, LoadOptions { threads, ..Default::default() }).map_err(failed("cannot load the model"))?;
    let tokenizer = model.tokenizer().map_err(failed("cannot tokenize the prompt"))?;
    let prompt = tokenizer.encode(prompt, true).map_err(failed("cannot tokenize the prompt"))?;
    let mut cache = model.new_cache(&CacheOptions::default()).map_err(failed("cannot make a cache"))?;
    let mut decoder = tokenizer.decoder();
    let mut logits = vec![0.0; model.vocab_size()];

    for token in &prompt {
        print(&decoder.push(tokenizer, *token).map_err(failed("cannot decode"))?)?;
    }
    let start = Instant::now();
    cache.step(&prompt, Some(&mut logits)).map_err(failed("cannot read the prompt"))?;
    let prefill = start.elapsed();
    let mut made = 0;
    while made < wanted {
        let token = argmax(&logits);
        if tokenizer.is_end(token) {
            break;
        }
        print(&decoder.push(tokenizer, token).map_err(failed("cannot decode"))?)?;
        made += 1;
        if made < wanted {
            cache.step(&[token], Some(&mut logits)).map_err(failed("cannot go on"))?;
        }
    }
    let decode = start.elapsed() - prefill;
    print(&decoder.finish(tokenizer).map_err(failed("cannot decode"))?)?;
    print("\n")?;

    let info = model.info();
    eprintln!(
        "model: {}, {:.2} M parameters, {:.2} MB, {} layers, {} wide; {} threads, {}",
        info.architecture,
        info.n_params as f64 * 1e-6,
        info.weight_bytes as f64 * 1e-6,
        info.n_layers,
        info.hidden_size,
        info.threads,
        info.isa
    );
    eprintln!("prefill: {} tokens, {:.1} tokens/s", prompt.len(), prompt.len() as f64 / prefill.as_secs_f64());
    // The first token comes from the prompt's step.
    if made > 1 {
        eprintln!("decode: {made} tokens, {:.1} tokens/s", (made - 1) as f64 / decode.as_secs_f64());
    }
    Ok(())
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    // A whole number from 1 where argument `i` is given, else `default`.
    let count = |i: usize, default: usize| match args.get(i) {
        Some(text) => text.parse().ok().filter(|n| *n > 0),
        None => Some(default),
    };
    let (2..=4, Some(wanted), Some(threads)) = (args.len(), count(2, 100), count(3, 0)) else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    match generate(&args[0], &args[1], wanted, threads) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("generate: {error}");
            ExitCode::FAILURE
        }
    }
}
