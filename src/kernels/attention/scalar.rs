//! The plain version.
#![forbid(unsafe_code)]

use super::BlockProduct;
use crate::kernels::float::{Element, Floats};
use crate::threads::ColumnsMut;
use half::{bf16, f16};

pub(in crate::kernels) const MULTIPLY: Floats<super::Multiply> =
    Floats { f32: multiply::<f32>, f16: multiply::<f16>, bf16: multiply::<bf16> };

fn multiply<E: Element>(p: &BlockProduct<'_>, out: &mut ColumnsMut<'_>) {
    for t in 0..out.rows() {
        let y = out.row_mut(t);
        if !p.add {
            y.fill(0.0);
        }
        for (k, x) in p.x[t * p.ld_x..][..p.n_in].iter().enumerate() {
            let w = &p.w[k * p.ld_w * E::SIZE..][..y.len() * E::SIZE];
            for (y, w) in y.iter_mut().zip(w.chunks_exact(E::SIZE)) {
                *y += E::decode(w) * x;
            }
        }
    }
}
