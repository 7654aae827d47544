//! Rotary position embedding: which elements turn together, and how fast.
//!
//! Pair i of a head turns by the angle position · θ^(−2i / rotary_dim) (RoFormer, arXiv 2104.09864). Scaling methods change
//! those frequencies, YaRN also the length of the result.
#![forbid(unsafe_code)]

use super::config::{Config, Meta};
use super::spec::bad;
use crate::error::Result;
use crate::ops::rope::Pairing;

/// How the frequencies are stretched for contexts longer than those trained on.
#[derive(Clone, Debug, PartialEq)]
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
    /// LongRoPE (arXiv 2402.13753): each frequency divided by a factor of its own, of two lists one; sin and cos times a factor.
    LongRope {
        /// For sequences up to the original context, `[rotary_dim / 2]`; empty: in a tensor of the file.
        short: Vec<f64>,
        /// For longer ones.
        long: Vec<f64>,
        /// What sin and cos are multiplied by.
        attention_factor: f64,
        /// Context length before scaling.
        original_context: f64,
    },
}

/// Where a config keeps the settings of RoPE, if it has any: of two, transformers takes `rope_scaling`.
pub(super) fn settings<'a>(config: &Config<'a>) -> Result<Option<Config<'a>>> {
    Ok(match config.object("rope_scaling")?.filter(|object| !object.is_empty()) {
        Some(object) => Some(object),
        None => config.object("rope_parameters")?,
    })
}

/// Refuses a part of a head that turns, where the family turns all of it.
fn refuse_partial(source: &Config<'_>) -> Result<()> {
    match source.f64("partial_rotary_factor")?.filter(|&part| part != 1.0) {
        Some(part) => Err(source.unsupported("partial_rotary_factor", part)),
        None => Ok(()),
    }
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
    /// What transformers 4.x (`rope_theta`, `rope_scaling`) or 5.x (`rope_parameters`) wrote, for a model that turns whole heads
    /// and whose angles have the base 10000 where nothing else is said.
    pub(super) fn from_config(config: &Config<'_>, head_dim: usize) -> Result<Rope> {
        Rope::full(config, head_dim, 10_000.0)
    }

    /// The same with another default for the base.
    pub(super) fn full(config: &Config<'_>, head_dim: usize, theta: f64) -> Result<Rope> {
        let settings = settings(config)?;
        refuse_partial(config)?;
        settings.as_ref().map_or(Ok(()), refuse_partial)?;
        Rope::new(config, settings.as_ref(), head_dim, theta)
    }

    /// The same for a model that turns a part of each head: `partial_rotary_factor`, which older configs call `factor_key`.
    pub(super) fn partial(config: &Config<'_>, head_dim: usize, factor_key: &str, default: f64) -> Result<Rope> {
        let settings = settings(config)?;
        let nested = settings.as_ref().map(|s| s.f64("partial_rotary_factor")).transpose()?.flatten();
        let factor = match nested.or(config.f64("partial_rotary_factor")?).or(config.f64(factor_key)?) {
            Some(factor) => factor,
            None => default,
        };
        if !(factor > 0.0 && factor <= 1.0) {
            return Err(config.bad("partial_rotary_factor", format_args!("is {factor}; expected a number above 0, up to 1")));
        }
        Rope::new(config, settings.as_ref(), (head_dim as f64 * factor) as usize, 10000.0)
    }

    /// The settings of one type of layer, for models that have two (Gemma 3, OLMo-3): `rope_parameters.{layer_type}`. `older`: what
    /// a config without those says.
    pub(super) fn of_layers(
        config: &Config<'_>,
        head_dim: usize,
        layer_type: &str,
        theta: f64,
        older: impl FnOnce() -> Result<Rope>,
    ) -> Result<Rope> {
        let all = config.object("rope_parameters")?;
        match all.as_ref().map(|all| all.object(layer_type)).transpose()?.flatten() {
            Some(settings) => {
                refuse_partial(&settings)?;
                Rope::new(config, Some(&settings), head_dim, theta)
            }
            None => older(),
        }
    }

    pub(super) fn new(config: &Config<'_>, settings: Option<&Config<'_>>, rotary_dim: usize, theta: f64) -> Result<Rope> {
        let nested = settings.map(|s| s.f64("rope_theta")).transpose()?.flatten();
        Ok(Rope {
            theta: nested.or(config.f64("rope_theta")?).unwrap_or(theta),
            rotary_dim,
            pairing: Pairing::HalfSplit,
            scaling: settings.map_or(Ok(Scaling::None), |settings| Scaling::from_config(settings, config))?,
        })
    }

    /// From GGUF metadata.
    pub(super) fn from_metadata(meta: &Meta<'_>, head_dim: usize, pairing: Pairing) -> Result<Rope> {
        let rotary_dim = meta.usize("rope.dimension_count")?.unwrap_or(head_dim);
        let theta = meta.f64("rope.freq_base")?.unwrap_or(10000.0);
        Ok(Rope { theta, rotary_dim, pairing, scaling: Scaling::from_metadata(meta)? })
    }

    /// Up to how many positions a sequence may have for the short factors of LongRoPE; `None` for other kinds.
    pub fn short_context(&self) -> Option<usize> {
        match self.scaling {
            Scaling::LongRope { original_context, .. } => Some(original_context as usize),
            _ => None,
        }
    }

    /// Cross-checks the settings, and that every angle and factor that they give is a number.
    pub(super) fn check(&self, head_dim: usize) -> Result<()> {
        self.check_settings(head_dim)?;
        let frequencies = || [false, true].into_iter().flat_map(|long| self.frequencies(long));
        match frequencies().find(|f| !f.is_finite()) {
            Some(f) => Err(bad(format!("rope theta and scaling give an angle of {f}; expected finite numbers"))),
            None if !(self.magnitude() as f32).is_finite() => Err(bad(format!("rope attention_factor is {}", self.magnitude()))),
            None => Ok(()),
        }
    }

    fn check_settings(&self, head_dim: usize) -> Result<()> {
        if self.rotary_dim == 0 || self.rotary_dim > head_dim || !self.rotary_dim.is_multiple_of(2) {
            return Err(bad(format!("{} rotary elements; expected an even number up to head_dim {head_dim}", self.rotary_dim)));
        }
        let positive = |what: &str, value: f64| match value.is_finite() && value > 0.0 {
            true => Ok(()),
            false => Err(bad(format!("rope {what} is {value}; expected a finite number > 0"))),
        };
        positive("theta", self.theta)?;
        match &self.scaling {
            Scaling::None => Ok(()),
            Scaling::Linear { factor } => positive("factor", *factor),
            &Scaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_context } => {
                positive("factor", factor)?;
                positive("low_freq_factor", low_freq_factor)?;
                positive("high_freq_factor - low_freq_factor", high_freq_factor - low_freq_factor)?;
                positive("original_max_position_embeddings", original_context)
            }
            Scaling::LongRope { short, long, attention_factor, original_context } => {
                positive("attention_factor", *attention_factor)?;
                positive("original_max_position_embeddings", *original_context)?;
                for (name, factors) in [("short_factor", short), ("long_factor", long)] {
                    if factors.len() != self.rotary_dim / 2 && !factors.is_empty() {
                        let (found, expected) = (factors.len(), self.rotary_dim / 2);
                        return Err(bad(format!("rope {name} has {found} entries; expected {expected}")));
                    }
                    factors.iter().try_for_each(|factor| positive(name, *factor))?;
                }
                Ok(())
            }
            &Scaling::Yarn { factor, beta_fast, beta_slow, attention_factor, original_context, .. } => {
                positive("factor", factor)?;
                positive("beta_slow", beta_slow)?;
                positive("beta_fast", beta_fast)?;
                positive("attention_factor", attention_factor)?;
                positive("original_max_position_embeddings", original_context)?;
                positive("theta - 1", self.theta - 1.0)
            }
        }
    }

    /// Angle per position of each pair, `[rotary_dim / 2]`. `long`: for sequences beyond [`Rope::short_context`].
    pub fn frequencies(&self, long: bool) -> Vec<f64> {
        let dim = self.rotary_dim as f64;
        let plain = (0..self.rotary_dim / 2).map(|i| self.theta.powf(-2.0 * i as f64 / dim));
        match &self.scaling {
            Scaling::None => plain.collect(),
            Scaling::Linear { factor } => plain.map(|f| f / factor).collect(),
            Scaling::LongRope { short, long: factors, .. } => {
                let factors = if long { factors } else { short };
                plain.enumerate().map(|(i, f)| f / factors.get(i).unwrap_or(&1.0)).collect()
            }
            &Scaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_context } => plain
                .map(|f| {
                    let wavelength = std::f64::consts::TAU / f;
                    let kept = (original_context / wavelength - low_freq_factor) / (high_freq_factor - low_freq_factor);
                    let kept = kept.clamp(0.0, 1.0);
                    kept * f + (1.0 - kept) * f / factor
                })
                .collect(),
            &Scaling::Yarn { factor, beta_fast, beta_slow, original_context, truncate, .. } => {
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
            Scaling::Yarn { attention_factor, .. } | Scaling::LongRope { attention_factor, .. } => attention_factor,
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
            // The first Phi-3 files called it "su", or "yarn" (which the family puts right).
            "longrope" | "su" => Scaling::long_rope(c, model, original_context()?)?,
            other => return Err(c.unsupported("rope_type", format_args!("\"{other}\""))),
        })
    }

    pub(super) fn long_rope(c: &Config<'_>, model: &Config<'_>, original_context: f64) -> Result<Scaling> {
        let factors = |key: &str| c.f64s(key)?.filter(|f| !f.is_empty()).ok_or_else(|| c.bad(key, "is missing or empty"));
        let factor = match c.f64("factor")? {
            Some(factor) => factor,
            None => model.need_f64("max_position_embeddings")? / original_context,
        };
        let attention_factor = match c.f64("attention_factor")? {
            Some(given) => given,
            None if factor <= 1.0 => 1.0,
            None => (1.0 + factor.ln() / original_context.ln()).sqrt(),
        };
        let (short, long) = (factors("short_factor")?, factors("long_factor")?);
        Ok(Scaling::LongRope { short, long, attention_factor, original_context })
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
                // Where the config gave the factor, the file has it; llama.cpp's own code computes it all the same.
                let magnitude = meta.f64("rope.scaling.yarn_attn_factor")?.unwrap_or(yarn_magnitude(factor, 1.0));
                Scaling::Yarn {
                    factor,
                    beta_fast: meta.f64("rope.scaling.yarn_beta_fast")?.unwrap_or(32.0),
                    beta_slow: meta.f64("rope.scaling.yarn_beta_slow")?.unwrap_or(1.0),
                    attention_factor: meta.f64("rope.scaling.attn_factor")?.unwrap_or(1.0) * magnitude,
                    original_context: original_context as f64,
                    truncate: true,
                }
            }
            // The factors are in tensors.
            "longrope" => Scaling::LongRope {
                short: Vec::new(),
                long: Vec::new(),
                attention_factor: meta.f64("rope.scaling.attn_factor")?.unwrap_or(1.0),
                original_context: meta.need_usize("rope.scaling.original_context_length")? as f64,
            },
            other => return Err(meta.unsupported("rope.scaling.type", format_args!("\"{other}\""))),
        })
    }
}
