//! Images: borrowed batches of one size, owned single images, and sources that read images one by one.
// SPDX-License-Identifier: Apache-2.0

use std::any::Any;
use std::fmt;
use std::marker::PhantomData;
use std::os::raw::c_void;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::ptr;

use duallora_sys as sys;

use crate::arrays::{expect_length, product};
use crate::error::{BoxError, Error, Result};

/// A batch of images of one size, borrowed for as long as the pixels are.
#[derive(Clone, Copy)]
pub struct Images<'a> {
    raw: sys::dlora_images,
    pixels: PhantomData<&'a [u8]>,
}

// SAFETY: the pointers are those of shared slices.
unsafe impl Send for Images<'_> {}
unsafe impl Sync for Images<'_> {}

impl<'a> Images<'a> {
    /// RGB images of bytes: pixels `[count, height, width, 3]`.
    pub fn rgb8(pixels: &'a [u8], count: usize, height: usize, width: usize) -> Result<Images<'a>> {
        Images::bytes(pixels, count, height, width, 3)
    }

    /// Gray images of bytes: pixels `[count, height, width]`.
    pub fn gray8(pixels: &'a [u8], count: usize, height: usize, width: usize) -> Result<Images<'a>> {
        Images::bytes(pixels, count, height, width, 1)
    }

    fn bytes(pixels: &'a [u8], count: usize, height: usize, width: usize, channels: usize) -> Result<Images<'a>> {
        expect_pixels(pixels.len(), &[count, height, width, channels])?;
        let raw = sys::dlora_images { u8_: pixels.as_ptr(), f32_: ptr::null(), count, height, width, channels };
        Ok(Images { raw, pixels: PhantomData })
    }

    /// Images of floats, normalised by the model's mean and standard deviation: pixels `[count, 3, height, width]`.
    /// Height and width must be the model's image size.
    pub fn normalized(pixels: &'a [f32], count: usize, height: usize, width: usize) -> Result<Images<'a>> {
        expect_pixels(pixels.len(), &[count, 3, height, width])?;
        let raw = sys::dlora_images { u8_: ptr::null(), f32_: pixels.as_ptr(), count, height, width, channels: 3 };
        Ok(Images { raw, pixels: PhantomData })
    }

    /// Number of images.
    #[allow(clippy::len_without_is_empty)] // a batch has at least one
    pub fn len(&self) -> usize {
        self.raw.count
    }

    /// Pixels: height and width.
    pub fn size(&self) -> (usize, usize) {
        (self.raw.height, self.raw.width)
    }

    pub(crate) fn raw(&self) -> &sys::dlora_images {
        &self.raw
    }

    /// One image of the batch.
    pub(crate) fn one(&self, index: usize) -> sys::dlora_images {
        assert!(index < self.raw.count, "image {} of {}", index, self.raw.count);
        let mut one = self.raw;
        let stride = one.height * one.width * one.channels;
        // SAFETY: the index lies in the batch, whose length was checked.
        unsafe {
            if !one.u8_.is_null() {
                one.u8_ = one.u8_.add(index * stride);
            } else {
                one.f32_ = one.f32_.add(index * stride);
            }
        }
        one.count = 1;
        one
    }
}

impl fmt::Debug for Images<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.raw.u8_.is_null() { "normalized" } else { "bytes" };
        let raw = &self.raw;
        write!(f, "Images({} {} of {} x {} x {})", raw.count, kind, raw.height, raw.width, raw.channels)
    }
}

fn expect_pixels(found: usize, sizes: &[usize]) -> Result<()> {
    let expected = product("a batch of images", sizes)?;
    if expected == 0 {
        return Err(Error::argument(format!("images of sizes {:?}: each must be at least 1", sizes)));
    }
    if found == expected {
        return Ok(());
    }
    Err(Error::argument(format!("images of sizes {:?} have {} values, {} were given", sizes, expected, found)))
}

/// One image that owns its pixels.
#[derive(Clone, Debug, PartialEq)]
pub struct Image {
    pixels: Pixels,
    height: usize,
    width: usize,
}

#[derive(Clone, Debug, PartialEq)]
enum Pixels {
    Rgb8(Vec<u8>),
    Gray8(Vec<u8>),
    Normalized(Vec<f32>),
}

impl Image {
    /// An RGB image of bytes: pixels `[height, width, 3]`.
    pub fn rgb8(pixels: impl Into<Vec<u8>>, height: usize, width: usize) -> Result<Image> {
        Image::of(Pixels::Rgb8(pixels.into()), height, width)
    }

    /// A gray image of bytes: pixels `[height, width]`.
    pub fn gray8(pixels: impl Into<Vec<u8>>, height: usize, width: usize) -> Result<Image> {
        Image::of(Pixels::Gray8(pixels.into()), height, width)
    }

    /// An image of normalised floats, as [`Images::normalized`]: pixels `[3, height, width]`.
    pub fn normalized(pixels: impl Into<Vec<f32>>, height: usize, width: usize) -> Result<Image> {
        Image::of(Pixels::Normalized(pixels.into()), height, width)
    }

    fn of(pixels: Pixels, height: usize, width: usize) -> Result<Image> {
        match &pixels {
            Pixels::Rgb8(pixels) => Images::rgb8(pixels, 1, height, width)?,
            Pixels::Gray8(pixels) => Images::gray8(pixels, 1, height, width)?,
            Pixels::Normalized(pixels) => Images::normalized(pixels, 1, height, width)?,
        };
        Ok(Image { pixels, height, width })
    }

    /// A batch of this image alone.
    pub fn view(&self) -> Images<'_> {
        let batch = self.batch_of(1);
        debug_assert_eq!(batch.len(), 1);
        batch
    }

    /// The image as a batch, where the pixels are those of `count` images of its size.
    pub(crate) fn batch_of(&self, count: usize) -> Images<'_> {
        match &self.pixels {
            Pixels::Rgb8(pixels) => Images::rgb8(pixels, count, self.height, self.width),
            Pixels::Gray8(pixels) => Images::gray8(pixels, count, self.height, self.width),
            Pixels::Normalized(pixels) => Images::normalized(pixels, count, self.height, self.width),
        }
        .expect("the length was checked when the image was made")
    }

    /// Whether both fit into one batch.
    pub(crate) fn is_like(&self, other: &Image) -> bool {
        let same_kind = std::mem::discriminant(&self.pixels) == std::mem::discriminant(&other.pixels);
        same_kind && self.height == other.height && self.width == other.width
    }

    /// Adds the pixels of an image of the same kind and size behind its own.
    pub(crate) fn append(&mut self, other: &Image) {
        match (&mut self.pixels, &other.pixels) {
            (Pixels::Rgb8(all), Pixels::Rgb8(more)) | (Pixels::Gray8(all), Pixels::Gray8(more)) => all.extend(more),
            (Pixels::Normalized(all), Pixels::Normalized(more)) => all.extend(more),
            _ => unreachable!("images of one batch are of one kind"),
        }
    }
}

/// What a closure that reads images may return: an image, or an image or an error.
pub trait IntoImage {
    /// The image.
    fn into_image(self) -> std::result::Result<Image, BoxError>;
}

impl IntoImage for Image {
    fn into_image(self) -> std::result::Result<Image, BoxError> {
        Ok(self)
    }
}

impl<I: IntoImage, E: Into<BoxError>> IntoImage for std::result::Result<I, E> {
    fn into_image(self) -> std::result::Result<Image, BoxError> {
        self.map_err(Into::into)?.into_image()
    }
}

/// Labelled images that the library reads one by one, so that they need not fit in memory. They may differ in size.
pub struct Source<'a> {
    labels: &'a [i64],
    tasks: Option<&'a [i64]>,
    read: Read<'a>,
}

type ReadImage<'a> = Box<dyn FnMut(usize) -> std::result::Result<Image, BoxError> + 'a>;

enum Read<'a> {
    Batch(Images<'a>),
    Closure(ReadImage<'a>),
}

impl<'a> Source<'a> {
    /// Images that `read` returns for the indices of `labels`.
    ///
    /// It runs on the calling thread. An error that it returns ends the library's call with
    /// [`Status::Io`](crate::Status::Io), and is the error's source. A panic ends the call too, and goes on afterwards.
    pub fn new<I: IntoImage>(labels: &'a [i64], mut read: impl FnMut(usize) -> I + 'a) -> Source<'a> {
        let read: ReadImage<'a> = Box::new(move |index| read(index).into_image());
        Source { labels, tasks: None, read: Read::Closure(read) }
    }

    /// Images in memory.
    pub fn of(images: Images<'a>, labels: &'a [i64]) -> Result<Source<'a>> {
        expect_length("labels", labels.len(), images.len())?;
        Ok(Source { labels, tasks: None, read: Read::Batch(images) })
    }

    /// Sets the true task of each image, for an evaluation where classes recur.
    pub fn with_tasks(mut self, tasks: &'a [i64]) -> Result<Source<'a>> {
        expect_length("tasks", tasks.len(), self.labels.len())?;
        self.tasks = Some(tasks);
        Ok(self)
    }

    /// Number of images.
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Whether there is no image.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// Makes a library call with this source. A panic of the closure is returned as [`Failure::Panic`].
    pub(crate) fn lend(
        &mut self,
        call: impl FnOnce(*const sys::dlora_image_source) -> sys::dlora_status,
    ) -> Result<(sys::dlora_status, Option<Failure>)> {
        if self.is_empty() {
            return Err(Error::argument("the image source is empty"));
        }
        let (labels, count) = (self.labels.as_ptr(), self.labels.len());
        let tasks = self.tasks.map_or(ptr::null(), <[i64]>::as_ptr);
        let mut reading = Reading { read: &mut self.read, current: None, failure: None };
        let user = &mut reading as *mut Reading<'_, '_> as *mut c_void;
        let struct_size = std::mem::size_of::<sys::dlora_image_source>();
        let raw = sys::dlora_image_source { struct_size, read: Some(read_image), user, count, labels, tasks };
        let status = call(&raw);
        Ok((status, reading.failure))
    }
}

impl fmt::Debug for Source<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Source({} images)", self.labels.len())
    }
}

/// What ended a closure, beside what the library says of the call.
pub(crate) enum Failure {
    Error(BoxError),
    Panic(Box<dyn Any + Send>),
}

struct Reading<'r, 'a> {
    read: &'r mut Read<'a>,
    current: Option<Image>, // its pixels must stay valid until the next call
    failure: Option<Failure>,
}

impl Reading<'_, '_> {
    fn next(&mut self, index: usize) -> std::result::Result<sys::dlora_images, BoxError> {
        match self.read {
            Read::Batch(images) => Ok(images.one(index)),
            Read::Closure(read) => {
                let image = read(index)?;
                Ok(*self.current.insert(image).view().raw())
            }
        }
    }
}

/// # Safety
/// `out` may be written, and `user` is the `Reading` of [`Source::lend`].
unsafe extern "C" fn read_image(index: usize, out: *mut sys::dlora_images, user: *mut c_void) -> i32 {
    let reading = &mut *(user as *mut Reading<'_, '_>);
    let failure = match catch_unwind(AssertUnwindSafe(|| reading.next(index))) {
        Ok(Ok(image)) => {
            *out = image;
            return 0;
        }
        Ok(Err(error)) => Failure::Error(error),
        Err(panic) => Failure::Panic(panic),
    };
    reading.failure = Some(failure);
    1
}

#[cfg(feature = "image")]
mod with_image {
    use image::{DynamicImage, GrayImage, RgbImage};

    use super::{Image, IntoImage, Pixels};
    use crate::error::BoxError;

    /// Gray images of eight bits stay gray; all others become RGB of eight bits, without their alpha channel. Panics if
    /// the image has no pixel.
    impl From<DynamicImage> for Image {
        fn from(image: DynamicImage) -> Image {
            match image {
                DynamicImage::ImageLuma8(gray) => gray.into(),
                other => other.into_rgb8().into(),
            }
        }
    }

    /// Panics if the image has no pixel.
    impl From<RgbImage> for Image {
        fn from(image: RgbImage) -> Image {
            let (width, height) = (image.width() as usize, image.height() as usize);
            Image::of(Pixels::Rgb8(image.into_raw()), height, width).expect("an image with pixels")
        }
    }

    /// Panics if the image has no pixel.
    impl From<GrayImage> for Image {
        fn from(image: GrayImage) -> Image {
            let (width, height) = (image.width() as usize, image.height() as usize);
            Image::of(Pixels::Gray8(image.into_raw()), height, width).expect("an image with pixels")
        }
    }

    impl IntoImage for DynamicImage {
        fn into_image(self) -> Result<Image, BoxError> {
            Ok(self.into())
        }
    }

    impl IntoImage for RgbImage {
        fn into_image(self) -> Result<Image, BoxError> {
            Ok(self.into())
        }
    }

    impl IntoImage for GrayImage {
        fn into_image(self) -> Result<Image, BoxError> {
            Ok(self.into())
        }
    }
}

#[cfg(feature = "ndarray")]
mod with_ndarray {
    use ndarray::{ArrayView3, ArrayView4};

    use super::Images;
    use crate::error::{Error, Result};

    fn contiguous<'a, T>(values: Option<&'a [T]>, shape: &[usize]) -> Result<&'a [T]> {
        values.ok_or_else(|| Error::argument(format!("images of shape {:?} are not contiguous and row-major", shape)))
    }

    /// Images of bytes `[count, height, width, channels]`, with one or three channels.
    impl<'a> TryFrom<ArrayView4<'a, u8>> for Images<'a> {
        type Error = Error;

        fn try_from(array: ArrayView4<'a, u8>) -> Result<Images<'a>> {
            let (count, height, width, channels) = array.dim();
            if channels != 1 && channels != 3 {
                return Err(Error::argument(format!("images have {} channels, expected 1 or 3", channels)));
            }
            let pixels = contiguous(array.to_slice(), array.shape())?;
            Images::bytes(pixels, count, height, width, channels)
        }
    }

    /// Gray images of bytes `[count, height, width]`.
    impl<'a> TryFrom<ArrayView3<'a, u8>> for Images<'a> {
        type Error = Error;

        fn try_from(array: ArrayView3<'a, u8>) -> Result<Images<'a>> {
            let (count, height, width) = array.dim();
            Images::gray8(contiguous(array.to_slice(), array.shape())?, count, height, width)
        }
    }

    /// Normalised images `[count, 3, height, width]`.
    impl<'a> TryFrom<ArrayView4<'a, f32>> for Images<'a> {
        type Error = Error;

        fn try_from(array: ArrayView4<'a, f32>) -> Result<Images<'a>> {
            let (count, channels, height, width) = array.dim();
            if channels != 3 {
                return Err(Error::argument(format!("normalised images have {} channels, expected 3", channels)));
            }
            Images::normalized(contiguous(array.to_slice(), array.shape())?, count, height, width)
        }
    }
}
