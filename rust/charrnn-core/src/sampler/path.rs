//! The loops of `kernel`, compiled for several sets of instructions; which one runs is decided once.

use std::sync::OnceLock;

use super::simd::Portable as Simd;
use super::top_k::Shortlist;
use super::{kernel, top_k, top_p};

/// Environment variable that forces a path: `scalar`, `avx2` or `avx512`.
const FORCE: &str = "CHARRNN_SIMD";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Instructions {
    /// What every CPU of the target has.
    Scalar,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    #[cfg(target_arch = "x86_64")]
    Avx512,
}

/// The instructions a sampler runs on. Whoever holds one may use it: they are only made where this CPU has them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Path(Instructions);

impl Path {
    /// The fastest this CPU has, or the one that CHARRNN_SIMD names if this CPU has it.
    pub fn fastest() -> Path {
        static FASTEST: OnceLock<Path> = OnceLock::new();
        *FASTEST.get_or_init(|| {
            let forced = std::env::var(FORCE).ok();
            let available = Path::available();
            let is_forced = |path: &&Path| Some(path.name()) == forced.as_deref();
            available
                .iter()
                .find(is_forced)
                .or(available.last())
                .copied()
                .unwrap_or(Path(Instructions::Scalar))
        })
    }

    /// Those this CPU has, slowest first.
    pub fn available() -> Vec<Path> {
        #[allow(unused_mut, reason = "only x86 has more than one")]
        let mut paths = vec![Path(Instructions::Scalar)];
        #[cfg(target_arch = "x86_64")]
        let has_avx2 = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("popcnt");
        #[cfg(target_arch = "x86_64")]
        if has_avx2 && is_x86_feature_detected!("fma") {
            paths.push(Path(Instructions::Avx2));
            let has_vl = is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512vl");
            if has_vl && is_x86_feature_detected!("avx512dq") && is_x86_feature_detected!("avx512bw") {
                paths.push(Path(Instructions::Avx512));
            }
        }
        paths
    }

    /// As CHARRNN_SIMD names it.
    pub fn name(self) -> &'static str {
        match self.0 {
            Instructions::Scalar => "scalar",
            #[cfg(target_arch = "x86_64")]
            Instructions::Avx2 => "avx2",
            #[cfg(target_arch = "x86_64")]
            Instructions::Avx512 => "avx512",
        }
    }
}

impl Path {
    /// Fills the weights of a row whose largest logit is `best`, plus infinity included; returns their sum.
    pub(super) fn weigh(self, logits: &[f32], best: f32, scale: f64, weights: &mut [u64]) -> u64 {
        match best {
            f32::INFINITY => self.fill_infinite(logits, weights),
            best => self.fill(logits, best, scale, weights),
        }
    }
}

/// One method of `Path` for each loop, in which `Simd` is the path's own set of operations.
macro_rules! dispatch {
    ($($name:ident($($argument:ident: $type:ty),*) -> $output:ty = $loop:path;)*) => {
        impl Path {
            $(pub(super) fn $name(self, $($argument: $type),*) -> $output {
                match self.0 {
                    Instructions::Scalar => $loop($($argument),*),
                    #[cfg(target_arch = "x86_64")]
                    // SAFETY: `available` makes this path only where its instructions are detected.
                    Instructions::Avx2 => unsafe { avx2::$name($($argument),*) },
                    #[cfg(target_arch = "x86_64")]
                    // SAFETY: as above.
                    Instructions::Avx512 => unsafe { avx512::$name($($argument),*) },
                }
            })*
        }

        #[cfg(target_arch = "x86_64")]
        mod avx2 {
            use super::{kernel, top_k, top_p, Shortlist};
            use crate::sampler::simd::Avx2 as Simd;

            $(#[target_feature(enable = "avx2,fma,popcnt")]
            pub(super) fn $name($($argument: $type),*) -> $output {
                $loop($($argument),*)
            })*
        }

        #[cfg(target_arch = "x86_64")]
        mod avx512 {
            use super::{kernel, top_k, top_p, Shortlist};
            use crate::sampler::simd::Avx512 as Simd;

            $(#[target_feature(enable = "avx2,fma,popcnt,avx512f,avx512vl,avx512dq,avx512bw")]
            pub(super) fn $name($($argument: $type),*) -> $output {
                $loop($($argument),*)
            })*
        }
    };
}

dispatch! {
    extremes(logits: &[f32]) -> (i32, i32) = kernel::extremes;
    fill(logits: &[f32], best: f32, scale: f64, weights: &mut [u64]) -> u64 = kernel::fill;
    fill_infinite(logits: &[f32], weights: &mut [u64]) -> u64 = kernel::fill_infinite;
    keep_heavy(weights: &mut [u64], bound: u64, end: u32) -> u64 = kernel::keep_heavy;
    locate(weights: &[u64], target: u64) -> usize = kernel::locate;
    shortlist(logits: &[f32], k: u32, range: (i32, i32), list: &mut Shortlist) -> () = top_k::shortlist::<Simd>;
    keep_top_p(weights: &mut [u64], total: u64, p: f64) -> u64 = top_p::keep_top_p::<Simd>;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sampler::kernel::BLOCK;
    use proptest::prelude::*;

    /// Everything a path computes of one row.
    fn results(path: Path, logits: &[f32], scale: f64, k: u32, p: f64) -> Vec<u64> {
        let mut weights = vec![0; logits.len().next_multiple_of(BLOCK)];
        let range @ (least, most) = path.extremes(logits);
        let mut all = vec![least as u64, most as u64];
        let mut list = Shortlist::new(logits.len());
        path.shortlist(logits, k, range, &mut list);
        all.extend(list.ids().iter().map(|&id| u64::from(id)));
        all.extend(list.logits().iter().map(|logit| u64::from(logit.to_bits())));
        let total = path.fill(logits, kernel::logit(most), scale, &mut weights);
        all.extend(&weights);
        all.extend([total, path.locate(&weights, total / 3) as u64]);
        all.push(path.keep_top_p(&mut weights, total, p));
        all.extend(&weights);
        all.push(path.keep_heavy(&mut weights, 1 << 40, 9));
        all.extend(&weights);
        all.push(path.fill_infinite(logits, &mut weights));
        all.extend(&weights);
        all
    }

    proptest! {
        #[test]
        fn every_path_gives_the_same_bits(
            logits in prop::collection::vec(prop_oneof![-40_f32..40.0, prop::num::f32::ANY], 1..200),
            scale in prop::sample::select(vec![f64::MAX, 14.4, 1.5, 0.3, 0.0]),
            k in 1_u32..40,
            p in 0.0..1.0,
        ) {
            let logits: Vec<f32> = logits.into_iter().map(|l| if l.is_nan() { 0.25 } else { l }).collect();
            let finite: Vec<f32> = logits.iter().copied().filter(|l| l.is_finite()).chain([1.0]).collect();
            for row in [logits, finite] {
                if row.contains(&f32::INFINITY) || row.iter().all(|l| *l == f32::NEG_INFINITY) {
                    continue;
                }
                let expected = results(Path(Instructions::Scalar), &row, scale, k, p);
                for path in Path::available() {
                    prop_assert_eq!(&results(path, &row, scale, k, p), &expected, "{:?}", path);
                }
            }
        }
    }
}
