//! Arrays: row-major matrices as results, and what may be given as rows.
// SPDX-License-Identifier: Apache-2.0

use std::ops::Index;
use std::slice::ChunksExact;

use crate::error::{Error, Result};

/// A row-major matrix.
#[derive(Clone, Debug, PartialEq)]
pub struct Matrix<T = f32> {
    values: Vec<T>,
    rows: usize,
    columns: usize,
}

impl<T: Copy + Default> Matrix<T> {
    pub(crate) fn zeros(rows: usize, columns: usize) -> Result<Matrix<T>> {
        let count = product("a matrix", &[rows, columns])?;
        Ok(Matrix { values: vec![T::default(); count], rows, columns })
    }

    /// Keeps the first rows.
    pub(crate) fn truncate(mut self, rows: usize) -> Matrix<T> {
        self.rows = self.rows.min(rows);
        self.values.truncate(self.rows * self.columns);
        self
    }
}

impl<T> Matrix<T> {
    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Number of columns.
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// Row `index`. Panics beyond the last one.
    pub fn row(&self, index: usize) -> &[T] {
        assert!(index < self.rows, "row {} of {}", index, self.rows);
        &self.values[index * self.columns..][..self.columns]
    }

    /// All rows in turn.
    pub fn iter(&self) -> ChunksExact<'_, T> {
        self.values.chunks_exact(self.columns.max(1))
    }

    /// All values, row by row.
    pub fn as_slice(&self) -> &[T] {
        &self.values
    }

    /// All values, row by row.
    pub fn into_vec(self) -> Vec<T> {
        self.values
    }

    pub(crate) fn as_mut_ptr(&mut self) -> *mut T {
        self.values.as_mut_ptr()
    }
}

impl<'a, T> IntoIterator for &'a Matrix<T> {
    type Item = &'a [T];
    type IntoIter = ChunksExact<'a, T>;

    fn into_iter(self) -> ChunksExact<'a, T> {
        self.iter()
    }
}

impl<T> Index<(usize, usize)> for Matrix<T> {
    type Output = T;

    fn index(&self, (row, column): (usize, usize)) -> &T {
        &self.row(row)[column]
    }
}

/// What may be given where the library reads rows of floats: slices, vectors, a [`Matrix`], and with the feature
/// `ndarray` its arrays of two dimensions.
pub trait Rows {
    /// All values, row by row.
    fn values(&self) -> Result<&[f32]>;

    /// Number of columns, if it is known.
    fn columns(&self) -> Option<usize> {
        None
    }
}

impl Rows for [f32] {
    fn values(&self) -> Result<&[f32]> {
        Ok(self)
    }
}

impl Rows for Vec<f32> {
    fn values(&self) -> Result<&[f32]> {
        Ok(self)
    }
}

impl<const N: usize> Rows for [f32; N] {
    fn values(&self) -> Result<&[f32]> {
        Ok(self)
    }
}

impl Rows for Matrix<f32> {
    fn values(&self) -> Result<&[f32]> {
        Ok(&self.values)
    }

    fn columns(&self) -> Option<usize> {
        Some(self.columns)
    }
}

/// Values and number of rows of width `columns`; at least one.
pub(crate) fn rows_of<'a>(what: &str, rows: &'a (impl Rows + ?Sized), columns: usize) -> Result<(&'a [f32], usize)> {
    if let Some(found) = rows.columns() {
        if found != columns {
            return Err(Error::argument(format!("{} has {} columns, expected {}", what, found, columns)));
        }
    }
    let values = rows.values()?;
    if values.is_empty() || columns == 0 {
        return Err(Error::argument(format!("{} is empty", what)));
    }
    if values.len() % columns != 0 {
        let sentence = format!("{} has {} values, which are no rows of {}", what, values.len(), columns);
        return Err(Error::argument(sentence));
    }
    Ok((values, values.len() / columns))
}

/// Refuses an array of another length than its companion needs.
pub(crate) fn expect_length(what: &str, found: usize, expected: usize) -> Result<()> {
    if found == expected {
        return Ok(());
    }
    Err(Error::argument(format!("{} has length {}, expected {}", what, found, expected)))
}

/// The product of sizes, if memory could hold as many values.
pub(crate) fn product(what: &str, sizes: &[usize]) -> Result<usize> {
    sizes
        .iter()
        .try_fold(1usize, |product, &size| product.checked_mul(size))
        .filter(|&count| count <= isize::MAX as usize / 8)
        .ok_or_else(|| Error::argument(format!("{} of sizes {:?} is too large", what, sizes)))
}

#[cfg(feature = "ndarray")]
mod with_ndarray {
    use ndarray::{Array2, ArrayBase, Data, Ix2};

    use super::{Matrix, Rows};
    use crate::error::{Error, Result};

    /// Arrays must be contiguous and row-major; `as_standard_layout` makes them so.
    impl<S: Data<Elem = f32>> Rows for ArrayBase<S, Ix2> {
        fn values(&self) -> Result<&[f32]> {
            self.as_slice().ok_or_else(|| {
                let sentence = format!("an array of shape {:?} is not contiguous and row-major", self.shape());
                Error::argument(sentence)
            })
        }

        fn columns(&self) -> Option<usize> {
            Some(self.ncols())
        }
    }

    impl<T> From<Matrix<T>> for Array2<T> {
        fn from(matrix: Matrix<T>) -> Array2<T> {
            let shape = (matrix.rows, matrix.columns);
            Array2::from_shape_vec(shape, matrix.values).expect("a matrix has rows * columns values")
        }
    }
}
