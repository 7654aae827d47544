//! Mixtures of experts: which blocks a token passes through, and gathering the tokens of each.
#![forbid(unsafe_code)]

use crate::error::{Error, Result};

/// Which experts the tokens of a pass go to.
#[derive(Default)]
pub struct Routing {
    /// `[n_tokens, n_used]`: an expert and its weight; a token's experts in ascending order.
    chosen: Vec<(u32, f32)>,
    n_used: usize,
    /// Scratch of one token, `[n_experts]`.
    order: Vec<u32>,
}

impl Routing {
    /// Makes room for `n_tokens` tokens with `n_used` of `n_experts` each.
    pub fn reserve(&mut self, n_tokens: usize, n_used: usize, n_experts: usize) -> Result<()> {
        let bytes = n_tokens.saturating_mul(n_used).saturating_mul(size_of::<(u32, f32)>());
        let failed = |_| Error::out_of_memory("the routing of experts", bytes);
        self.chosen.clear();
        self.chosen.try_reserve_exact(n_tokens * n_used).map_err(failed)?;
        self.order.clear();
        self.order.try_reserve_exact(n_experts).map_err(failed)
    }

    /// Chooses by the router's `logits: [n_tokens, n_experts]`, which become softmax of themselves. The `n_used` largest of a
    /// token count (of equal ones the first); `normalize` divides them by their sum.
    pub fn choose(&mut self, logits: &mut [f32], n_experts: usize, n_used: usize, normalize: bool) {
        self.n_used = n_used;
        self.chosen.clear();
        for weights in logits.chunks_exact_mut(n_experts) {
            softmax(weights);
            self.order.clear();
            self.order.extend(0..n_experts as u32);
            let by_weight = |a: &u32, b: &u32| weights[*b as usize].total_cmp(&weights[*a as usize]).then(a.cmp(b));
            if n_used < n_experts {
                self.order.select_nth_unstable_by(n_used, by_weight);
            }
            let best = &mut self.order[..n_used];
            best.sort_unstable();
            let sum: f32 = if normalize { best.iter().map(|&e| weights[e as usize]).sum() } else { 1.0 };
            self.chosen.extend(best.iter().map(|&e| (e, weights[e as usize] / sum)));
        }
    }

    /// The tokens that go to `expert`, each with its weight.
    pub fn tokens_of(&self, expert: usize) -> impl Iterator<Item = (usize, f32)> {
        let chosen = self.chosen.chunks_exact(self.n_used).enumerate();
        chosen.filter_map(move |(token, of_token)| {
            of_token.iter().find(|(e, _)| *e as usize == expert).map(|&(_, weight)| (token, weight))
        })
    }
}

fn softmax(x: &mut [f32]) {
    let max = x.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    x.iter_mut().for_each(|x| *x = (*x - max).exp());
    let sum: f32 = x.iter().sum();
    x.iter_mut().for_each(|x| *x /= sum);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_are_chosen_and_the_first_of_equals() {
        let mut routing = Routing::default();
        routing.reserve(3, 2, 4).unwrap();
        let mut logits = [1.0, 3.0, 2.0, 0.0, 5.0, 5.0, 5.0, 5.0, f32::NAN, 1.0, 1.0, 1.0];
        routing.choose(&mut logits, 4, 2, true);
        let of = |expert| routing.tokens_of(expert).collect::<Vec<_>>();
        let (e1, e2) = (1f32.exp(), 2f32.exp());
        assert_eq!(of(1).iter().map(|x| x.0).collect::<Vec<_>>()[..2], [0, 1]);
        assert!((of(1)[0].1 - e2 / (e1 + e2)).abs() < 1e-6 && (of(2)[0].1 - e1 / (e1 + e2)).abs() < 1e-6);
        assert_eq!(of(0)[0], (1, 0.5));
        assert!(of(3).iter().all(|(token, _)| *token == 2), "of equals the first two were to be chosen");
        let chosen: usize = (0..4).map(|e| of(e).len()).sum();
        assert_eq!(chosen, 6, "a token with a NaN goes somewhere too");
    }

    #[test]
    fn all_experts_may_be_chosen_and_weights_stay_as_they_are() {
        let mut routing = Routing::default();
        routing.reserve(1, 3, 3).unwrap();
        routing.choose(&mut [0.0, 0.0, 2f32.ln()], 3, 3, false);
        let weights: Vec<f32> = (0..3).flat_map(|e| routing.tokens_of(e)).map(|x| x.1).collect();
        for (weight, expected) in weights.iter().zip([0.25, 0.25, 0.5]) {
            assert!((weight - expected).abs() < 1e-6, "{weights:?}");
        }
    }
}
