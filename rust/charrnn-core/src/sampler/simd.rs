//! The few operations that compilers do not find in plain loops, for each set of instructions.
//!
//! Knows nothing of detecting them: `path` alone names a type here, and only where its instructions are detected.

/// Logits in a block, and bits in a mask of them.
pub(super) const LANES: usize = 16;
/// Weights in a block.
pub(super) const WIDE_LANES: usize = 8;

/// A set of instructions. A caller must know that the CPU has them.
pub(super) trait Simd {
    /// A bit for each logit above `bound`, the lowest for the first.
    fn above(block: &[f32; LANES], bound: f32) -> u16;

    /// Moves the logits in `mask`, and their ids, which begin at `start`, to the front; what comes behind is not said.
    fn pack(block: &[f32; LANES], mask: u16, start: u32, ids: &mut [u32; LANES], logits: &mut [f32; LANES]);

    /// The sums of the weights above three bounds.
    fn masses_above(weights: &[[u64; WIDE_LANES]], bounds: [u64; 3]) -> [u64; 3];
}

/// On any CPU.
pub(super) struct Portable;

impl Simd for Portable {
    #[inline(always)]
    fn above(block: &[f32; LANES], bound: f32) -> u16 {
        (0..LANES).fold(0, |mask, lane| mask | (u16::from(block[lane] > bound) << lane))
    }

    #[inline(always)]
    fn pack(block: &[f32; LANES], mask: u16, start: u32, ids: &mut [u32; LANES], logits: &mut [f32; LANES]) {
        let mut num = 0;
        for (lane, &logit) in block.iter().enumerate() {
            (ids[num], logits[num]) = (start + lane as u32, logit);
            // Only after the last lane it may be past the end.
            num = (num + usize::from(mask >> lane & 1)) % LANES;
        }
    }

    #[inline(always)]
    fn masses_above(weights: &[[u64; WIDE_LANES]], bounds: [u64; 3]) -> [u64; 3] {
        let mut masses = [0; 3];
        for &weight in weights.as_flattened() {
            masses[0] += if weight > bounds[0] { weight } else { 0 };
            masses[1] += if weight > bounds[1] { weight } else { 0 };
            masses[2] += if weight > bounds[2] { weight } else { 0 };
        }
        masses
    }
}

#[cfg(target_arch = "x86_64")]
pub(super) use x86::{Avx2, Avx512};

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::{Portable, Simd, LANES, WIDE_LANES};

    /// AVX2.
    pub(in super::super) struct Avx2;
    /// AVX-512 F.
    pub(in super::super) struct Avx512;

    impl Simd for Avx2 {
        #[inline(always)]
        fn above(block: &[f32; LANES], bound: f32) -> u16 {
            // SAFETY: the CPU has AVX2, and both halves lie in the block.
            let half = |start: usize| unsafe {
                let logits = _mm256_loadu_ps(block.as_ptr().add(start));
                _mm256_movemask_ps(_mm256_cmp_ps::<_CMP_GT_OQ>(logits, _mm256_set1_ps(bound))) as u16
            };
            half(0) | half(LANES / 2) << (LANES / 2)
        }

        #[inline(always)]
        fn pack(
            block: &[f32; LANES],
            mask: u16,
            start: u32,
            ids: &mut [u32; LANES],
            logits: &mut [f32; LANES],
        ) {
            Portable::pack(block, mask, start, ids, logits);
        }

        #[inline(always)]
        fn masses_above(weights: &[[u64; WIDE_LANES]], bounds: [u64; 3]) -> [u64; 3] {
            Portable::masses_above(weights, bounds)
        }
    }

    impl Simd for Avx512 {
        #[inline(always)]
        fn above(block: &[f32; LANES], bound: f32) -> u16 {
            // SAFETY: the CPU has AVX-512 F, and the block has 16 logits.
            unsafe {
                _mm512_cmp_ps_mask::<_CMP_GT_OQ>(_mm512_loadu_ps(block.as_ptr()), _mm512_set1_ps(bound))
            }
        }

        #[inline(always)]
        fn pack(
            block: &[f32; LANES],
            mask: u16,
            start: u32,
            ids: &mut [u32; LANES],
            logits: &mut [f32; LANES],
        ) {
            // SAFETY: the CPU has AVX-512 F, and all three arrays have 16 lanes.
            unsafe {
                let lanes = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
                let all = _mm512_add_epi32(lanes, _mm512_set1_epi32(start as i32));
                _mm512_storeu_si512(ids.as_mut_ptr().cast(), _mm512_maskz_compress_epi32(mask, all));
                let packed = _mm512_maskz_compress_ps(mask, _mm512_loadu_ps(block.as_ptr()));
                _mm512_storeu_ps(logits.as_mut_ptr(), packed);
            }
        }

        #[inline(always)]
        fn masses_above(weights: &[[u64; WIDE_LANES]], bounds: [u64; 3]) -> [u64; 3] {
            // SAFETY: the CPU has AVX-512 F, and a block has 8 weights.
            unsafe {
                let mut sums = [_mm512_setzero_si512(); 3];
                for block in weights {
                    let weights = _mm512_loadu_si512(block.as_ptr().cast());
                    for (sum, &bound) in sums.iter_mut().zip(&bounds) {
                        let is_above = _mm512_cmpgt_epu64_mask(weights, _mm512_set1_epi64(bound as i64));
                        *sum = _mm512_mask_add_epi64(*sum, is_above, *sum, weights);
                    }
                }
                let [first, second, third] = sums;
                [
                    _mm512_reduce_add_epi64(first) as u64,
                    _mm512_reduce_add_epi64(second) as u64,
                    _mm512_reduce_add_epi64(third) as u64,
                ]
            }
        }
    }
}
