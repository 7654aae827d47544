//! The plain versions. Eight sums in parallel, so that a compiler can use what vectors the target has by default.
#![forbid(unsafe_code)]

use super::{Element, Floats, Matmul, Pack, Product};
use crate::kernels::Unpack;
use crate::threads::ColumnsMut;
use half::{bf16, f16};

pub(in crate::kernels) const OUT_IN: Floats<Matmul> = Floats { f32: out_in::<f32>, f16: out_in::<f16>, bf16: out_in::<bf16> };
pub(in crate::kernels) const IN_OUT: Floats<Matmul> = Floats { f32: in_out::<f32>, f16: in_out::<f16>, bf16: in_out::<bf16> };
pub(in crate::kernels) const UNPACK: Floats<Unpack> = Floats { f32: unpack::<f32>, f16: unpack::<f16>, bf16: unpack::<bf16> };
pub(in crate::kernels) const PACK: Floats<Pack> = Floats { f32: pack::<f32>, f16: pack::<f16>, bf16: pack::<bf16> };

fn out_in<E: Element>(p: &Product<'_>, out: &mut ColumnsMut<'_>) {
    let row_bytes = p.n_in * E::SIZE;
    for t in 0..out.rows() {
        let x = &p.x[t * p.n_in..][..p.n_in];
        for (c, y) in out.row_mut(t).iter_mut().enumerate() {
            *y = dot::<E>(&p.w[(p.first + c) * row_bytes..][..row_bytes], x);
        }
    }
}

fn dot<E: Element>(w: &[u8], x: &[f32]) -> f32 {
    const LANES: usize = 8;
    let mut sums = [0.0; LANES];
    for (w, x) in w.chunks(LANES * E::SIZE).zip(x.chunks(LANES)) {
        for ((sum, w), x) in sums.iter_mut().zip(w.chunks_exact(E::SIZE)).zip(x) {
            *sum += E::decode(w) * x;
        }
    }
    let [a, b, c, d, e, f, g, h] = sums;
    ((a + e) + (b + f)) + ((c + g) + (d + h))
}

fn in_out<E: Element>(p: &Product<'_>, out: &mut ColumnsMut<'_>) {
    for t in 0..out.rows() {
        let y = out.row_mut(t);
        y.fill(0.0);
        for (k, x) in p.x[t * p.n_in..][..p.n_in].iter().enumerate() {
            let w = &p.w[(k * p.n_out + p.first) * E::SIZE..][..y.len() * E::SIZE];
            for (y, w) in y.iter_mut().zip(w.chunks_exact(E::SIZE)) {
                *y += E::decode(w) * x;
            }
        }
    }
}

fn unpack<E: Element>(data: &[u8], out: &mut [f32]) {
    for (y, bytes) in out.iter_mut().zip(data.chunks_exact(E::SIZE)) {
        *y = E::decode(bytes);
    }
}

fn pack<E: Element>(src: &[f32], dst: &mut [u8]) {
    for (bytes, x) in dst.chunks_exact_mut(E::SIZE).zip(src) {
        E::encode(*x, bytes);
    }
}
