//! Rotary position embedding: which elements turn together, and how fast.
//!
//! Pair i of a head turns by the angle position · θ^(−2i / rotary_dim) (RoFormer, arXiv 2104.09864). Scaling methods change
//! those frequencies, YaRN also the length of the result.
#![forbid(unsafe_code)]

use super::bad;
use super::config::{Config, Meta};
use crate::error::{Error, Result};
use crate::ops::rope::Pairing;

/// How the frequencies are stretched for contexts longer than those trained on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Scaling {
    /// As trained.
    None,
    /// All frequencies divided by `factor`.
    Linear {
        /// The divisor.
        factor: f64,
    },
    /// Llama 3: long wavelengths divided by `factor`, short ones kept, a ramp between.
    Llama3 {
        /// The divisor.
        factor: f64,
        /// Wavelengths above original / this are divided.
        low_freq_factor: f64,
        /// Wavelengths below original / this are kept.
        high_freq_factor: f64,
        /// Context length before scaling.
        original_context: f64,
    },
    /// YaRN (arXiv 2309.00071): a ramp over the pairs between kept and divided frequencies; sin and cos times a factor.
    Yarn {
        /// The divisor.
        factor: f64,
        /// Turns over the original context from which a pair is kept.
        beta_fast: f64,
        /// Turns up to which it is divided.
        beta_slow: f64,
        /// What sin and cos are multiplied by.
        attention_factor: f64,
        /// Context length before scaling.
        original_context: f64,
        /// Whether the ramp's ends are rounded to whole pairs.
        truncate: bool,
    },
}

/// A model's rotary embedding.
#[derive(Clone, Debug)]
pub struct Rope {
    /// Base of the frequencies.
    pub theta: f64,
    /// Elements of a head that turn, from its start; even.
    pub rotary_dim: usize,
    /// Which elements pair.
    pub pairing: Pairing,
    /// Stretching.
    pub scaling: Scaling,
}

impl Rope {
    /// What transformers 4.x (`rope_theta`, `rope_scaling`) or 5.x (`rope_parameters`) wrote.
    pub(super) fn from_config(config: &Config<'_>, head_dim: usize) -> Result<Rope> {
        let nested = match config.object("rope_parameters")? {
            Some(object) => Some(object),
            None => config.object("rope_scaling")?,
        };
        let scaling = nested.as_ref().unwrap_or(config);
        let theta = match &nested {
            Some(object) => object.f64("rope_theta")?.or(config.f64("rope_theta")?),
            None => config.f64("rope_theta")?,
        };
        for source in [config, scaling] {
            if let Some(partial) = source.f64("partial_rotary_factor")?.filter(|&p| p != 1.0) {
                return Err(source.unsupported("partial_rotary_factor", partial));
            }
        }
        Ok(Rope {
            theta: theta.unwrap_or(10000.0),
            rotary_dim: head_dim,
            pairing: Pairing::HalfSplit,
            scaling: if nested.is_some() { Scaling::from_config(scaling, config)? } else { Scaling::None },
        })
    }

    /// From GGUF metadata.
    pub(super) fn from_metadata(meta: &Meta<'_>, head_dim: usize, pairing: Pairing) -> Result<Rope> {
        let rotary_dim = meta.usize("rope.dimension_count")?.unwrap_or(head_dim);
        let theta = meta.f64("rope.freq_base")?.unwrap_or(10000.0);
        Ok(Rope { theta, rotary_dim, pairing, scaling: Scaling::from_metadata(meta)? })
    }

    pub(super) fn check(&self, head_dim: usize) -> Result<()> {
        if self.rotary_dim == 0 || self.rotary_dim > head_dim || !self.rotary_dim.is_multiple_of(2) {
            return Err(bad(format!("{} rotary elements; expected an even number up to head_dim {head_dim}", self.rotary_dim)));
        }
        let positive = |what: &str, value: f64| match value.is_finite() && value > 0.0 {
            true => Ok(()),
            false => Err(bad(format!("rope {what} is {value}; expected a finite number > 0"))),
        };
        positive("theta", self.theta)?;
        match self.scaling {
            Scaling::None => Ok(()),
            Scaling::Linear { factor } => positive("factor", factor),
            Scaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_context } => {
                positive("factor", factor)?;
                positive("low_freq_factor", low_freq_factor)?;
                positive("high_freq_factor - low_freq_factor", high_freq_factor - low_freq_factor)?;
                positive("original_max_position_embeddings", original_context)
            }
            Scaling::Yarn { factor, beta_fast, beta_slow, attention_factor, original_context, .. } => {
                positive("factor", factor)?;
                positive("beta_slow", beta_slow)?;
                positive("beta_fast", beta_fast)?;
                positive("attention_factor", attention_factor)?;
                positive("original_max_position_embeddings", original_context)?;
                positive("theta - 1", self.theta - 1.0)
            }
        }
    }

    /// Angle per position of each pair, `[rotary_dim / 2]`.
    pub fn frequencies(&self) -> Vec<f64> {
        let dim = self.rotary_dim as f64;
        let plain = (0..self.rotary_dim / 2).map(|i| self.theta.powf(-2.0 * i as f64 / dim));
        match self.scaling {
            Scaling::None => plain.collect(),
            Scaling::Linear { factor } => plain.map(|f| f / factor).collect(),
            Scaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_context } => plain
                .map(|f| {
                    let wavelength = std::f64::consts::TAU / f;
                    let kept = (original_context / wavelength - low_freq_factor) / (high_freq_factor - low_freq_factor);
                    let kept = kept.clamp(0.0, 1.0);
                    kept * f + (1.0 - kept) * f / factor
                })
                .collect(),
            Scaling::Yarn { factor, beta_fast, beta_slow, original_context, truncate, .. } => {
                // The pair that makes `turns` whole turns over the original context.
                let pair_of =
                    |turns: f64| dim * (original_context / (turns * std::f64::consts::TAU)).ln() / (2.0 * self.theta.ln());
                let (mut low, mut high) = (pair_of(beta_fast), pair_of(beta_slow));
                if truncate {
                    (low, high) = (low.floor(), high.ceil());
                }
                let (low, mut high) = (low.max(0.0), high.min(dim - 1.0));
                if low == high {
                    high += 0.001;
                }
                plain
                    .enumerate()
                    .map(|(i, f)| {
                        let divided = ((i as f64 - low) / (high - low)).clamp(0.0, 1.0);
                        divided * f / factor + (1.0 - divided) * f
                    })
                    .collect()
            }
        }
    }

    /// What sin and cos are multiplied by.
    pub fn magnitude(&self) -> f64 {
        match self.scaling {
            Scaling::Yarn { attention_factor, .. } => attention_factor,
            _ => 1.0,
        }
    }
}

/// YaRN's recommended length factor for a context stretched by `factor`.
fn yarn_magnitude(factor: f64, mscale: f64) -> f64 {
    if factor <= 1.0 { 1.0 } else { 0.1 * mscale * factor.ln() + 1.0 }
}

impl Scaling {
    fn from_config(c: &Config<'_>, model: &Config<'_>) -> Result<Scaling> {
        let kind = match c.str("rope_type")? {
            Some(kind) => kind,
            None => c.str("type")?.unwrap_or("default"),
        };
        // transformers: a key of this name beside the scaling's settings wins, then the context length is the default.
        let original_context = || -> Result<f64> {
            match model.f64("original_max_position_embeddings")?.or(c.f64("original_max_position_embeddings")?) {
                Some(length) => Ok(length),
                None => model.need_f64("max_position_embeddings"),
            }
        };
        Ok(match kind {
            "default" => Scaling::None,
            "linear" => Scaling::Linear { factor: c.need_f64("factor")? },
            "llama3" => Scaling::Llama3 {
                factor: c.need_f64("factor")?,
                low_freq_factor: c.need_f64("low_freq_factor")?,
                high_freq_factor: c.need_f64("high_freq_factor")?,
                original_context: original_context()?,
            },
            "yarn" => {
                let original_context = original_context()?;
                let factor = match c.f64("factor")? {
                    Some(factor) => factor,
                    None => model.need_f64("max_position_embeddings")? / original_context,
                };
                let attention_factor = match (c.f64("attention_factor")?, c.f64("mscale")?, c.f64("mscale_all_dim")?) {
                    (Some(given), ..) => given,
                    (None, Some(m), Some(all)) if m != 0.0 && all != 0.0 => {
                        yarn_magnitude(factor, m) / yarn_magnitude(factor, all)
                    }
                    _ => yarn_magnitude(factor, 1.0),
                };
                Scaling::Yarn {
                    factor,
                    beta_fast: c.f64("beta_fast")?.unwrap_or(32.0),
                    beta_slow: c.f64("beta_slow")?.unwrap_or(1.0),
                    attention_factor,
                    original_context,
                    truncate: c.bool("truncate")?.unwrap_or(true),
                }
            }
            other => return Err(c.unsupported("rope_type", format_args!("\"{other}\""))),
        })
    }

    fn from_metadata(meta: &Meta<'_>) -> Result<Scaling> {
        let kind = meta.str("rope.scaling.type")?.unwrap_or("none");
        // Files from before rope.scaling.* say the linear factor with one key.
        if let (Some(factor), "none") = (meta.f64("rope.scale_linear")?, kind) {
            return Ok(if factor == 1.0 { Scaling::None } else { Scaling::Linear { factor } });
        }
        Ok(match kind {
            "none" => Scaling::None,
            "linear" => Scaling::Linear { factor: meta.need_f64("rope.scaling.factor")? },
            "yarn" => {
                let factor = meta.need_f64("rope.scaling.factor")?;
                let original_context = match meta.usize("rope.scaling.original_context_length")? {
                    Some(length) => length,
                    None => meta.need_usize("context_length")?,
                };
                Scaling::Yarn {
                    factor,
                    beta_fast: meta.f64("rope.scaling.yarn_beta_fast")?.unwrap_or(32.0),
                    beta_slow: meta.f64("rope.scaling.yarn_beta_slow")?.unwrap_or(1.0),
                    attention_factor: meta.f64("rope.scaling.attn_factor")?.unwrap_or(1.0) * yarn_magnitude(factor, 1.0),
                    original_context: original_context as f64,
                    truncate: true,
                }
            }
            other => return Err(Error::unsupported(meta.name("rope.scaling.type", &format!("\"{other}\" is not supported")))),
        })
    }
}
