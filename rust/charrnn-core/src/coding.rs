//! An arithmetic coder on the sampler's integer weights: what a sampler draws with probability p costs -log2 p bits.
//!
//! A range coder after Martin (1979) with carries resolved before a byte is given out. The range has 96 bits and a sum of
//! weights at most 64, so that rounding costs less than 2^-24 of a symbol's bits.

/// Bits of the range.
const BITS: u32 = 96;
/// The range is kept at least this large: one byte below its bits.
const LEAST: u128 = 1 << (BITS - 8);
const MASK: u128 = (1 << BITS) - 1;

/// The part of the range that stands for a symbol: `size` of `total`, from `start` on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    /// Sum of the weights before it.
    pub start: u64,
    /// Its weight, not 0.
    pub size: u64,
    /// Sum of all weights.
    pub total: u64,
}

/// Turns shares into bytes.
#[derive(Clone, Debug)]
pub struct Encoder {
    low: u128,
    range: u128,
    bytes: Vec<u8>,
}

impl Default for Encoder {
    fn default() -> Self {
        Encoder { low: 0, range: MASK, bytes: Vec::new() }
    }
}

impl Encoder {
    /// Appends one symbol.
    pub fn encode(&mut self, share: Share) {
        debug_assert!(share.size > 0 && share.start + share.size <= share.total);
        let unit = self.range / u128::from(share.total);
        self.low += unit * u128::from(share.start);
        self.range = unit * u128::from(share.size);
        while self.range < LEAST {
            self.give_out();
            self.range <<= 8;
        }
    }

    /// Moves the highest byte out; a carry goes through the bytes given out before.
    fn give_out(&mut self) {
        self.carry();
        self.bytes.push((self.low >> (BITS - 8)) as u8);
        self.low = self.low << 8 & MASK;
    }

    fn carry(&mut self) {
        if self.low > MASK {
            self.low &= MASK;
            let after = self.bytes.iter().rposition(|&byte| byte != 0xff).unwrap_or(0);
            self.bytes[after] += 1;
            self.bytes[after + 1..].fill(0);
        }
    }

    /// Bytes so far, not counting what `finish` adds.
    pub fn num_bytes(&self) -> usize {
        self.bytes.len()
    }

    /// The bytes of all symbols, as few as will do, and a coder that starts anew.
    pub fn finish(&mut self) -> Vec<u8> {
        // The number within the range that has the most zeros at its end: the decoder reads zeros after the end.
        let highest = self.low + self.range - 1;
        let zeros = (0..=BITS).rev().find(|&n| (highest >> n) << n >= self.low).unwrap_or(0);
        self.low = (highest >> zeros) << zeros;
        self.range = 1;
        while self.low != 0 {
            self.give_out();
        }
        while self.bytes.last() == Some(&0) {
            self.bytes.pop();
        }
        std::mem::take(self).bytes
    }
}

/// Turns bytes back into symbols; past their end it reads zeros, so damage gives wrong symbols and no error.
#[derive(Clone, Debug)]
pub struct Decoder {
    bytes: std::vec::IntoIter<u8>,
    /// How far the code is above the range's low end.
    code: u128,
    range: u128,
}

impl Decoder {
    /// A decoder of what `Encoder::finish` gave.
    pub fn new(bytes: Vec<u8>) -> Self {
        let mut decoder = Decoder { bytes: bytes.into_iter(), code: 0, range: MASK };
        (0..BITS / 8).for_each(|_| decoder.take_in());
        decoder
    }

    fn take_in(&mut self) {
        self.code = self.code << 8 | u128::from(self.bytes.next().unwrap_or(0));
    }

    /// A number below `total`: the next symbol is the one whose share it is in.
    pub fn target(&self, total: u64) -> u64 {
        let unit = self.range / u128::from(total);
        ((self.code / unit) as u64).min(total - 1)
    }

    /// Goes on behind the symbol of that share, which `target` was in.
    pub fn consume(&mut self, share: Share) {
        let unit = self.range / u128::from(share.total);
        self.code = self.code.wrapping_sub(unit * u128::from(share.start));
        self.range = unit * u128::from(share.size);
        while self.range < LEAST {
            self.take_in();
            self.range <<= 8;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn share(weights: &[u64], symbol: usize) -> Share {
        let start = weights[..symbol].iter().sum();
        Share { start, size: weights[symbol], total: weights.iter().sum() }
    }

    fn decode(weights: &[Vec<u64>], bytes: &[u8]) -> Vec<usize> {
        let mut decoder = Decoder::new(bytes.to_vec());
        let next = |weights: &Vec<u64>| {
            let target = decoder.target(weights.iter().sum());
            let symbol = (0..weights.len())
                .find(|&s| target < share(weights, s).start + weights[s])
                .expect("the target is below the sum");
            decoder.consume(share(weights, symbol));
            symbol
        };
        weights.iter().map(next).collect()
    }

    /// Rows of weights with a symbol each that has one: from certain to all but impossible, sums up to 2^64 - 1.
    fn row() -> impl Strategy<Value = (Vec<u64>, usize)> {
        let weight = prop_oneof![Just(0), Just(1), 1_u64..100, Just(1 << 46), 1_u64..1 << 61];
        (prop::collection::vec(weight, 1..7), any::<prop::sample::Index>()).prop_map(
            |(mut weights, index)| {
                let symbol = index.index(weights.len());
                weights[symbol] = weights[symbol].max(1);
                (weights, symbol)
            },
        )
    }

    proptest! {
        #[test]
        fn decoding_undoes_encoding(rows in prop::collection::vec(row(), 0..200)) {
            let (weights, symbols): (Vec<_>, Vec<_>) = rows.into_iter().unzip();
            let mut encoder = Encoder::default();
            let mut bits = 0.0;
            for (weights, &symbol) in weights.iter().zip(&symbols) {
                let share = share(weights, symbol);
                bits -= (share.size as f64 / share.total as f64).log2();
                encoder.encode(share);
            }
            let bytes = encoder.finish();
            prop_assert_eq!(decode(&weights, &bytes), symbols);
            // No more than the information and the last byte's rest.
            prop_assert!((bytes.len() * 8) as f64 <= bits + 9.0 + weights.len() as f64 * 1e-6, "{} {bits}", bytes.len());
        }
    }

    /// The low end just below a power of two: every byte given out is 0xff until the carry.
    #[test]
    fn a_carry_goes_through_any_number_of_bytes() {
        for num in [1, 2, 40] {
            let weights: Vec<Vec<u64>> =
                (0..num).map(|_| vec![255, 1]).chain([vec![1, 1], vec![1, 255]]).collect();
            for last in 0..4_usize {
                let mut symbols = vec![1; num];
                symbols.extend([last >> 1, last & 1]);
                let mut encoder = Encoder::default();
                weights
                    .iter()
                    .zip(&symbols)
                    .for_each(|(weights, &symbol)| encoder.encode(share(weights, symbol)));
                assert_eq!(decode(&weights, &encoder.finish()), symbols);
            }
        }
    }

    #[test]
    fn nothing_is_no_bytes() {
        assert!(Encoder::default().finish().is_empty());
        let mut encoder = Encoder::default();
        (0..1000).for_each(|_| encoder.encode(Share { start: 0, size: 7, total: 7 }));
        assert!(encoder.finish().len() <= 1);
    }
}
