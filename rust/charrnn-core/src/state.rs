//! The recurrent state of a batch: one row a stream, one pair of arenas a tensor.
//!
//! Knows the widths of the tensors and nothing of what they mean or of who owns a row.

use crate::model::ModelSpec;

/// Arenas start on a cache line, which is also the widest vector register.
const ALIGN_BYTES: usize = 64;
const ALIGN_FLOATS: usize = ALIGN_BYTES / size_of::<f32>();

/// One stream's state: the floats of all tensors, one after the other.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct RowState {
    floats: Vec<f32>,
}

impl RowState {
    /// Takes `state_len()` floats in the order of the tensors.
    pub fn new(floats: Vec<f32>) -> Self {
        RowState { floats }
    }

    /// The floats of all tensors, one after the other.
    pub fn floats(&self) -> &[f32] {
        &self.floats
    }

    /// Whether all of them are numbers.
    pub fn is_finite(&self) -> bool {
        self.floats.iter().all(|float| float.is_finite())
    }
}

/// `len` zeros that start on a cache line.
#[derive(Debug)]
struct Arena {
    floats: Vec<f32>,
    start: usize,
    len: usize,
}

impl Arena {
    fn new(len: usize) -> Self {
        let floats = vec![0.0; len + ALIGN_FLOATS - 1];
        // The heap block never moves, so this holds for the arena's life. Without an answer, unaligned is merely slower.
        let start = floats.as_ptr().align_offset(ALIGN_BYTES).min(ALIGN_FLOATS - 1);
        Arena { floats, start, len }
    }

    fn get(&self) -> &[f32] {
        &self.floats[self.start..self.start + self.len]
    }

    fn get_mut(&mut self) -> &mut [f32] {
        &mut self.floats[self.start..self.start + self.len]
    }
}

/// The rows of one state tensor: the current ones and room for the next.
#[derive(Debug)]
struct Tensor {
    width: usize,
    current: Arena,
    next: Arena,
}

impl Tensor {
    fn new(width: usize, capacity: usize) -> Self {
        Tensor { width, current: Arena::new(width * capacity), next: Arena::new(width * capacity) }
    }

    fn row_mut(&mut self, row: usize) -> &mut [f32] {
        let width = self.width;
        &mut self.current.get_mut()[row * width..][..width]
    }

    fn grow(&mut self, capacity: usize) {
        let mut current = Arena::new(self.width * capacity);
        current.get_mut()[..self.current.len].copy_from_slice(self.current.get());
        *self = Tensor { width: self.width, current, next: Arena::new(self.width * capacity) };
    }
}

/// The state tensors of a batch, each `(B, width)` row-major and contiguous.
///
/// A step reads the current arenas and writes the others, then `flip` swaps them: nothing is copied, and a
/// step that fails halfway leaves the current rows as they were.
#[derive(Debug)]
pub struct StateRows {
    tensors: Vec<Tensor>,
    num_rows: usize,
    capacity: usize,
}

impl StateRows {
    /// No rows yet, room for `capacity` of them.
    pub fn new(spec: &ModelSpec, capacity: usize) -> Self {
        let tensors = spec.state.iter().map(|tensor| Tensor::new(tensor.width, capacity)).collect();
        StateRows { tensors, num_rows: 0, capacity }
    }

    /// Rows in use, `B`.
    pub fn num_rows(&self) -> usize {
        self.num_rows
    }

    /// Appends a row. Beyond the capacity the arenas double.
    ///
    /// # Panics
    /// If `row` is not a row of this model.
    pub fn push(&mut self, row: &RowState) {
        let index = self.add_row();
        self.write(index, row);
    }

    /// Appends a row of zeros: the state before a text's first symbol.
    pub fn push_zero(&mut self) {
        let row = self.add_row();
        self.zero(row);
    }

    /// Makes a row what it is before a text's first symbol.
    ///
    /// # Panics
    /// If there is no such row.
    pub fn zero(&mut self, row: usize) {
        assert!(row < self.num_rows, "row {row} of {}", self.num_rows);
        self.tensors.iter_mut().for_each(|tensor| tensor.row_mut(row).fill(0.0));
    }

    fn add_row(&mut self) -> usize {
        if self.num_rows == self.capacity {
            self.capacity = (2 * self.capacity).max(1);
            self.tensors.iter_mut().for_each(|tensor| tensor.grow(self.capacity));
        }
        self.num_rows += 1;
        self.num_rows - 1
    }

    /// Removes a row; the last one takes its place.
    ///
    /// # Panics
    /// If there is no such row.
    pub fn swap_remove(&mut self, row: usize) {
        assert!(row < self.num_rows, "row {row} of {}", self.num_rows);
        self.num_rows -= 1;
        for tensor in &mut self.tensors {
            let last = self.num_rows * tensor.width;
            tensor.current.get_mut().copy_within(last..last + tensor.width, row * tensor.width);
        }
    }

    /// Copies a row out.
    ///
    /// # Panics
    /// If there is no such row.
    pub fn read(&self, row: usize) -> RowState {
        assert!(row < self.num_rows, "row {row} of {}", self.num_rows);
        let rows =
            self.tensors.iter().map(|tensor| &tensor.current.get()[row * tensor.width..][..tensor.width]);
        RowState { floats: rows.flatten().copied().collect() }
    }

    /// Overwrites a row.
    ///
    /// # Panics
    /// If there is no such row or `state` is not a row of this model.
    pub fn write(&mut self, row: usize, state: &RowState) {
        assert!(row < self.num_rows, "row {row} of {}", self.num_rows);
        let mut floats = state.floats.as_slice();
        for tensor in &mut self.tensors {
            let (head, rest) = floats.split_at(tensor.width);
            tensor.row_mut(row).copy_from_slice(head);
            floats = rest;
        }
        assert!(floats.is_empty(), "{} floats too many for a row", floats.len());
    }

    /// Tensor `i` as it stands, `(B, width)`.
    pub fn tensor(&self, i: usize) -> &[f32] {
        let tensor = &self.tensors[i];
        &tensor.current.get()[..self.num_rows * tensor.width]
    }

    /// Tensor `i` as it stands and the place for its next values, both `(B, width)`.
    pub fn in_out(&mut self, i: usize) -> (&[f32], &mut [f32]) {
        let tensor = &mut self.tensors[i];
        let len = self.num_rows * tensor.width;
        (&tensor.current.get()[..len], &mut tensor.next.get_mut()[..len])
    }

    /// Where `in_out` starts, for runtimes that take pointers: 64-byte aligned, good for `B * width` floats
    /// until a row is pushed.
    pub fn in_out_ptr(&mut self, i: usize) -> (*const f32, *mut f32) {
        let (current, next) = self.in_out(i);
        (current.as_ptr(), next.as_mut_ptr())
    }

    /// The values written through `in_out` become the state. Write every row of every tensor first.
    pub fn flip(&mut self) {
        self.tensors.iter_mut().for_each(|tensor| std::mem::swap(&mut tensor.current, &mut tensor.next));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::StateTensor;
    use proptest::prelude::*;

    const WIDTHS: [usize; 3] = [3, 1, 17];

    fn spec() -> ModelSpec {
        let tensor = |&width: &usize| StateTensor { name: format!("s{width}"), width };
        ModelSpec { vocab_size: 2, state: WIDTHS.iter().map(tensor).collect() }
    }

    fn row_of(first: u16) -> RowState {
        RowState::new((0..spec().state_len()).map(|i| f32::from(first) + i as f32 / 32.0).collect())
    }

    /// What a step does: every float is replaced, from the current arenas into the others.
    fn bump(rows: &mut StateRows) {
        for i in 0..WIDTHS.len() {
            let (current, next) = rows.in_out(i);
            next.iter_mut().zip(current).for_each(|(new, old)| *new = old + 1.0);
        }
        rows.flip();
    }

    fn bump_model(model: &mut [Vec<f32>]) {
        model.iter_mut().flatten().for_each(|float| *float += 1.0);
    }

    /// Tensor `i` of the model, `(B, width)`.
    fn tensor_of(model: &[Vec<f32>], i: usize) -> Vec<f32> {
        let start: usize = WIDTHS[..i].iter().sum();
        model.iter().flat_map(|row| row[start..start + WIDTHS[i]].to_vec()).collect()
    }

    fn check(rows: &mut StateRows, model: &[Vec<f32>]) {
        assert_eq!(rows.num_rows(), model.len());
        for i in 0..WIDTHS.len() {
            assert_eq!(rows.tensor(i), tensor_of(model, i));
            let (current, next) = rows.in_out_ptr(i);
            assert_eq!((current as usize % ALIGN_BYTES, next as usize % ALIGN_BYTES), (0, 0));
            assert_ne!(current, next.cast_const());
        }
        for (row, floats) in model.iter().enumerate() {
            assert_eq!(rows.read(row).floats(), floats);
        }
    }

    proptest! {
        /// Whatever is done to the rows, they hold what a list of lists holds.
        #[test]
        fn rows_behave_like_a_list_of_lists(ops in prop::collection::vec((0u8..7, any::<u16>()), 0..60)) {
            let mut rows = StateRows::new(&spec(), 2);
            let mut model: Vec<Vec<f32>> = Vec::new();
            for (op, value) in ops {
                let row = usize::from(value) % model.len().max(1);
                match op {
                    0 | 1 => {
                        rows.push(&row_of(value));
                        model.push(row_of(value).floats().to_vec());
                    }
                    2 => {
                        rows.push_zero();
                        model.push(vec![0.0; spec().state_len()]);
                    }
                    3 if !model.is_empty() => {
                        rows.swap_remove(row);
                        model.swap_remove(row);
                    }
                    4 if !model.is_empty() => {
                        rows.write(row, &row_of(value));
                        model[row] = row_of(value).floats().to_vec();
                    }
                    5 if !model.is_empty() => {
                        rows.zero(row);
                        model[row] = vec![0.0; spec().state_len()];
                    }
                    _ => {
                        bump(&mut rows);
                        bump_model(&mut model);
                    }
                }
                check(&mut rows, &model);
            }
        }
    }
}
