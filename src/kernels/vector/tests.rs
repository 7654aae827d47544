use crate::kernels::testing::*;

/// Lengths around the edges of vectors and of groups of four vectors.
fn lengths() -> impl Iterator<Item = usize> {
    (1..=70).chain([127, 128, 129, 172, 2048])
}

/// Every 9973rd of all f32 (9973 is prime: every exponent is met, and every kind of NaN), and the edges.
fn all_kinds() -> Vec<f32> {
    let edges = [0.0, -0.0, 1e-45, f32::MIN_POSITIVE, f32::MAX, f32::MIN, f32::INFINITY, f32::NEG_INFINITY, f32::NAN];
    let near = (0..2000).map(|i| 88.0 + i as f32 * 0.001).chain((0..20000).map(|i| -87.0 - i as f32 * 0.001));
    (0..=u32::MAX).step_by(9973).map(f32::from_bits).chain(edges).chain(near).collect()
}

/// Runs `f` over all kinds of x, and compares with `exact`, whose second value is the bound.
fn check_map(f: impl Fn(&crate::kernels::Kernels, &mut [f32]), exact: impl Fn(f64) -> (f64, f64)) {
    let x = all_kinds();
    for (name, kernels) in tables() {
        let mut y = x.clone();
        f(kernels, &mut y);
        for (x, y) in x.iter().zip(&y) {
            if x.is_nan() {
                assert!(y.is_nan(), "{name}: f(NaN) is {y}");
                continue;
            }
            let (expected, bound) = exact(f64::from(*x));
            let (y64, rounded) = (f64::from(*y), expected as f32);
            let same = *y == rounded || (y.is_nan() && rounded.is_nan());
            assert!(same || (y64 - expected).abs() <= bound, "{name}: f({x}) is {y}, not {expected} ± {bound}");
        }
    }
}

/// exp of what is not above 0: within 1.01 units in the last place, which is the worst found over all f32 (at −59.92188); and
/// 2^-126 off at most where it is smaller than that.
#[test]
fn weights_are_within_their_bound() {
    check_map(
        |kernels, y| {
            y.iter_mut().for_each(|y| *y = if *y > 0.0 { -*y } else { *y });
            // SAFETY: `tables` lists only what this CPU has.
            _ = unsafe { (kernels.exp_sum)(y, 0.0) }
        },
        |x| {
            let e = if x > 0.0 { (-x).exp() } else { x.exp() };
            let least = f64::from(f32::MIN_POSITIVE);
            let ulp = 2f64.powi(e.max(least).log2().floor() as i32 - 23);
            (e, 1.01 * ulp + if e < least { least } else { 0.0 })
        },
    );
}

#[test]
fn exp_sum_and_max_of_every_length() {
    for (name, kernels) in tables() {
        for n in lengths() {
            let x: Vec<f32> = Random(n as u64).vec(n).iter().map(|x| x * 20.0).collect();
            let mut y = x.clone();
            // SAFETY: `tables` lists only what this CPU has.
            let (max, sum) = unsafe { ((kernels.max)(&x), (kernels.exp_sum)(&mut y, 21.0)) };
            assert_eq!(max, x.iter().copied().fold(f32::NEG_INFINITY, f32::max), "{name} {n}");
            let terms: f64 = y.iter().map(|y| f64::from(*y)).sum();
            assert!((f64::from(sum) - terms).abs() <= n as f64 * U * terms, "{name} {n}: {sum}, not {terms}");
            for (x, y) in x.iter().zip(&y) {
                let expected = f64::from(x - 21.0).exp();
                assert!((f64::from(*y) - expected).abs() <= 2.0 * U * expected, "{name} {n}: {y}, not {expected}");
            }
        }
        // SAFETY: `tables` lists only what this CPU has.
        unsafe {
            assert_eq!((kernels.max)(&[]), f32::NEG_INFINITY);
            assert_eq!((kernels.max)(&[f32::NEG_INFINITY; 3]), f32::NEG_INFINITY);
            assert_eq!((kernels.exp_sum)(&mut [], 0.0), 0.0);
        }
    }
}

/// x/(1 + e): e is within 2u, the sum and the quotient add u each. Where exp(−x) is infinite (x < −88.7), the result is −0
/// instead of something above −3e-37.
#[test]
fn silu_is_within_four_roundings() {
    check_map(
        |kernels, y| kernels.silu(y),
        |x| {
            let y = x / (1.0 + (-x).exp());
            (y, 4.1 * U * y.abs() + TINY + if x < -88.7 { 3e-37 } else { 0.0 })
        },
    );
}

/// x/(1 + exp(−2u)): u has 6 roundings, so the exponent is off by at most 6u·|2u| (which counts where x < 0), then as silu.
/// Far out, where u overflows or exp does, the result is −0.
#[test]
fn gelu_tanh_is_within_its_bound() {
    check_map(
        |kernels, y| kernels.gelu_tanh(y),
        |x| {
            let two_u = 2.0 * (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x * x * x);
            let y = x / (1.0 + (-two_u).exp());
            let relative = 4.1 + 7.0 * two_u.abs().min(100.0);
            (y, relative * U * y.abs() + TINY + if two_u < -88.0 { 1e-36 } else { 0.0 })
        },
    );
}

/// max(x, 0) − a·Φ(−a), a = |x|. Φ(−a) is a product of exp(−a²/2), whose exponent has two roundings of at most a²/2·u each, and
/// of what is good to 16 roundings (exp 2u, the fit 0.7u, t 2u which become 3u by the slope of erfc in t, the
/// polynomial 6u, two products); the difference adds one rounding of the result.
#[test]
fn gelu_is_within_its_bound() {
    check_map(
        |kernels, y| kernels.gelu(y),
        |x| {
            let a = x.abs();
            let phi = 0.5 * erfc(a / std::f64::consts::SQRT_2);
            let tail = if a.is_finite() { a * phi } else { 0.0 };
            let y = if x == f64::NEG_INFINITY { 0.0 } else { x.max(0.0) - tail };
            (y, U * (y.abs() + tail * (16.0 + a.min(20.0).powi(2))) + 2.0 * TINY * (1.0 + a.min(20.0)))
        },
    );
}

/// The erf that gelu implies, 2·gelu(x)/x − 1, over the range where it is not yet 1: within 2.3e-7, and the rounding of gelu.
#[test]
fn gelu_implies_erf() {
    let x: Vec<f32> = (1..60_000).map(|i| i as f32 * 1e-4).collect();
    for (name, kernels) in tables() {
        let mut y = x.clone();
        kernels.gelu(&mut y);
        for (x, y) in x.iter().zip(&y) {
            let (x, y) = (f64::from(*x), f64::from(*y));
            let (erf, expected) = (2.0 * y / x - 1.0, 1.0 - erfc(x / std::f64::consts::SQRT_2));
            assert!((erf - expected).abs() <= 2.3e-7 + 4.0 * U * y / x, "{name}: erf({x}/√2) is {erf}, not {expected}");
        }
    }
}

/// erfc for z ≥ 0 in f64. Below 3 by the series erf(z) = 2/√π · exp(−z²) · Σ 2ⁿ z²ⁿ⁺¹ / (1·3·5…(2n+1)), all of whose terms are
/// positive; above by the continued fraction. Relative error below 1e-10.
fn erfc(z: f64) -> f64 {
    let root_pi = std::f64::consts::PI.sqrt();
    if z < 3.0 {
        let (mut term, mut sum) = (z, z);
        for n in 1..200 {
            term *= 2.0 * z * z / f64::from(2 * n + 1);
            sum += term;
        }
        1.0 - 2.0 / root_pi * (-z * z).exp() * sum
    } else {
        let tail = (1..=100).rev().fold(z, |tail, n| z + 0.5 * f64::from(n) / tail);
        (-z * z).exp() / root_pi / tail
    }
}

#[test]
fn erfc_of_these_tests_is_right() {
    for (z, expected) in
        [(0.0, 1.0), (0.5, 0.479500122186953), (2.9, 4.10978780994e-5), (3.1, 1.16486573e-5), (5.0, 1.537_459_794_428_035e-12)]
    {
        let (z, expected): (f64, f64) = (z, expected);
        assert!((erfc(z) / expected - 1.0).abs() < 1e-8, "erfc({z}) = {:e}", erfc(z));
    }
}

#[test]
fn relu() {
    check_map(|kernels, y| kernels.relu(y), |x| (x.max(0.0), 0.0));
}

#[test]
fn relu_squared() {
    check_map(|kernels, y| kernels.relu_squared(y), |x| (x.max(0.0).powi(2), U * x.max(0.0).powi(2) + TINY));
}

/// As silu, with an exponent that has two roundings (the constant's and the product's).
#[test]
fn quick_gelu_is_within_its_bound() {
    check_map(
        |kernels, y| kernels.quick_gelu(y),
        |x| {
            let y = x / (1.0 + (-1.702 * x).exp());
            let relative = 4.1 + 3.0 * (1.702 * x).abs().min(100.0);
            (y, relative * U * y.abs() + TINY + if x < -52.0 { 3e-36 } else { 0.0 })
        },
    );
}

/// tanh is within 4 units of the last place; the division before it and the product after it round once each.
#[test]
fn softcap_is_within_its_bound() {
    for cap in [1.0, 30.0, 50.0] {
        check_map(
            |kernels, y| kernels.softcap(y, cap),
            |x| {
                let y = f64::from(cap) * (x / f64::from(cap)).tanh();
                (y, 11.0 * U * y.abs() + 2.0 * f64::from(cap) * TINY)
            },
        );
    }
}

/// Any length gives the same as one element at a time: no element depends on its neighbours or its place.
#[test]
fn activations_of_every_length() {
    for (name, kernels) in tables() {
        for f in [
            (|k, y| k.silu(y)) as fn(&crate::kernels::Kernels, &mut [f32]),
            |k, y| k.gelu(y),
            |k, y| k.gelu_tanh(y),
            |k, y| k.relu(y),
            |k, y| k.relu_squared(y),
            |k, y| k.quick_gelu(y),
            |k, y| k.softcap(y, 2.0),
        ] {
            for n in lengths() {
                let x: Vec<f32> = Random(n as u64).vec(n).iter().map(|x| x * 5.0).collect();
                let mut whole = x.clone();
                f(kernels, &mut whole);
                let mut single = x;
                single.iter_mut().for_each(|y| f(kernels, std::slice::from_mut(y)));
                assert_eq!(bits(&whole), bits(&single), "{name} {n}");
            }
        }
    }
}

#[test]
fn add_mul_scale() {
    for (name, kernels) in tables() {
        for n in lengths() {
            let mut random = Random(n as u64);
            let (x, y) = (random.vec(n), random.vec(n));
            let (mut sum, mut product, mut scaled) = (y.clone(), y.clone(), y.clone());
            kernels.add(&mut sum, &x);
            kernels.mul(&mut product, &x);
            // SAFETY: `tables` lists only what this CPU has.
            unsafe { (kernels.scale)(&mut scaled, 0.3) };
            for i in 0..n {
                assert_eq!((sum[i], product[i], scaled[i]), (y[i] + x[i], y[i] * x[i], y[i] * 0.3), "{name} {n}");
            }
        }
    }
}

/// The sum of n squares is off by at most (n + 1)·u relatively, of which the root halves; 6 more for the rest.
#[test]
fn rms_norm_of_every_length() {
    for (name, kernels) in tables() {
        for n in lengths() {
            let mut random = Random(n as u64);
            let (x, w) = (random.vec(n), random.vec(n));
            let mut y = vec![0.0; n];
            kernels.rms_norm(&x, &w, 1e-5, &mut y);
            let mean: f64 = x.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>() / n as f64;
            for i in 0..n {
                let expected = f64::from(x[i]) / (mean + f64::from(1e-5f32)).sqrt() * f64::from(w[i]);
                let bound = (0.5 * n as f64 + 7.0) * U * expected.abs();
                assert!((f64::from(y[i]) - expected).abs() <= bound, "{name} {n}: {} not {expected}", y[i]);
            }
        }
    }
}

/// The mean is off by n·u·mean|x|, which shifts every difference; the rest is as for RMS. A mean of 100 times the deviation.
#[test]
fn layer_norm_of_every_length() {
    for (name, kernels) in tables() {
        for n in lengths() {
            for offset in [0.0, 100.0] {
                let mut random = Random(n as u64);
                let x: Vec<f32> = random.vec(n).iter().map(|x| x + offset).collect();
                let (w, b) = (random.vec(n), random.vec(n));
                for bias in [None, Some(&b[..])] {
                    let mut y = vec![0.0; n];
                    kernels.layer_norm(&x, &w, bias, 1e-5, &mut y);
                    check_layer_norm(name, &x, &w, bias, &y);
                }
            }
        }
    }
}

fn check_layer_norm(name: &str, x: &[f32], w: &[f32], bias: Option<&[f32]>, y: &[f32]) {
    let n = x.len() as f64;
    let mean = x.iter().map(|x| f64::from(*x)).sum::<f64>() / n;
    let mean_error = (n + 1.0) * U * x.iter().map(|x| f64::from(x.abs())).sum::<f64>() / n;
    let variance = x.iter().map(|x| (f64::from(*x) - mean).powi(2)).sum::<f64>() / n;
    // A shift of the mean by e adds e² to the variance.
    let variance_error = (n + 3.0) * U * variance + 2.0 * mean_error.powi(2);
    let eps = f64::from(1e-5f32);
    let inverse = 1.0 / (variance + eps).sqrt();
    let inverse_error = inverse * (0.5 * variance_error / (variance + eps) + 4.0 * U);
    for i in 0..x.len() {
        let (d, w) = (f64::from(x[i]) - mean, f64::from(w[i]));
        let normed = d * inverse * w;
        let expected = normed + bias.map_or(0.0, |b| f64::from(b[i]));
        let bound = w.abs() * ((mean_error + U * d.abs()) * (inverse + inverse_error) + d.abs() * inverse_error)
            + U * (3.0 * normed.abs() + expected.abs());
        assert!((f64::from(y[i]) - expected).abs() <= bound, "{name} {n}: {} not {expected} ± {bound}", y[i]);
    }
}
