//! Philox4x32-10: random numbers as a pure function of a key and a counter.
//!
//! Salmon, Moraes, Dror, Shaw: "Parallel random numbers: as easy as 1, 2, 3" (2011). There is no generator state:
//! the bits of any draw can be had at once, in any order, on any thread.

const MULTIPLIERS: [u32; 2] = [0xD251_1F53, 0xCD9E_8D57];
const KEY_STEPS: [u32; 2] = [0x9E37_79B9, 0xBB67_AE85];
const NUM_ROUNDS: usize = 10;

/// What a draw is for; draws for different purposes share no bits.
pub const PURPOSE_SAMPLE: u32 = 0;

/// Ten rounds of Philox over a counter and a key.
pub fn philox4x32(mut counter: [u32; 4], mut key: [u32; 2]) -> [u32; 4] {
    for _ in 0..NUM_ROUNDS {
        let product = |lane: usize| u64::from(MULTIPLIERS[lane]) * u64::from(counter[2 * lane]);
        let (first, second) = (product(0), product(1));
        counter = [
            (second >> 32) as u32 ^ counter[1] ^ key[0],
            second as u32,
            (first >> 32) as u32 ^ counter[3] ^ key[1],
            first as u32,
        ];
        key = [key[0].wrapping_add(KEY_STEPS[0]), key[1].wrapping_add(KEY_STEPS[1])];
    }
    counter
}

/// The 64 uniform bits of one draw.
///
/// `position` counts the symbols generated so far, `stream` tells the samples of one prompt apart.
pub fn uniform64(seed: u64, position: u64, stream: u32, purpose: u32) -> u64 {
    let counter = [position as u32, (position >> 32) as u32, stream, purpose];
    let words = philox4x32(counter, [seed as u32, (seed >> 32) as u32]);
    u64::from(words[0]) | u64::from(words[1]) << 32
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The known answers of the authors' Random123 distribution.
    #[test]
    fn known_answers() {
        let ones = u32::MAX;
        let pi = [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344];
        let cases = [
            ([0; 4], [0; 2], [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]),
            ([ones; 4], [ones; 2], [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]),
            (pi, [0xa409_3822, 0x299f_31d0], [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1]),
        ];
        for (counter, key, expected) in cases {
            assert_eq!(philox4x32(counter, key), expected);
        }
    }

    #[test]
    fn every_part_of_a_draw_counts() {
        let draws = [
            uniform64(1, 2, 3, 4),
            uniform64(1 << 32, 2, 3, 4),
            uniform64(1, 2 << 32, 3, 4),
            uniform64(1, 2, 4, 4),
            uniform64(1, 2, 3, 5),
        ];
        for (i, a) in draws.iter().enumerate() {
            assert!(draws[i + 1..].iter().all(|b| a != b));
        }
    }
}
