//! The frozen Vision Transformer.
// SPDX-License-Identifier: Apache-2.0

use std::borrow::Cow;
use std::ffi::{CStr, CString};
use std::os::raw::c_void;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Arc;
use std::{env, fmt, fs, io, process, ptr};

use duallora_sys as sys;

use crate::arrays::Matrix;
use crate::enums::{Activation, Interpolation, Naming, Origin, Pool, PositionResampling, Products, Resize};
use crate::error::{check, Error, Result, Status};
use crate::handle::{c_path, c_text, text_of, Handle};
use crate::images::Images;

/// Options of loading a model. What is not set is as in the file.
#[derive(Clone, Debug, Default)]
pub struct ModelOptions {
    num_heads: usize,
    image_size: usize,
    layer_norm_eps: f32,
    normalization: Option<([f32; 3], [f32; 3])>,
    products: Option<Products>,
    threads: Option<i32>,
    prefix: Option<String>,
    pool: Option<Pool>,
    activation: Option<Activation>,
    position_resampling: Option<PositionResampling>,
    resize: Option<Resize>,
    interpolation: Option<Interpolation>,
    crop_fraction: f32,
    adapter: Option<PathBuf>,
}

impl ModelOptions {
    /// All as in the file.
    pub fn new() -> ModelOptions {
        ModelOptions::default()
    }

    /// Attention heads, a divisor of the width.
    pub fn num_heads(mut self, num_heads: usize) -> Self {
        self.num_heads = num_heads;
        self
    }

    /// Pixels a side, a multiple of the patch size.
    pub fn image_size(mut self, image_size: usize) -> Self {
        self.image_size = image_size;
        self
    }

    /// Epsilon of the layer norms, in (0, 1).
    pub fn layer_norm_eps(mut self, layer_norm_eps: f32) -> Self {
        self.layer_norm_eps = layer_norm_eps;
        self
    }

    /// Mean and standard deviation of pixels in [0, 1].
    pub fn normalization(mut self, mean: [f32; 3], std: [f32; 3]) -> Self {
        self.normalization = Some((mean, std));
        self
    }

    /// Implementation of products with the weights.
    pub fn products(mut self, products: Products) -> Self {
        self.products = Some(products);
        self
    }

    /// Threads of [`Model::embed`].
    pub fn threads(mut self, threads: i32) -> Self {
        self.threads = Some(threads);
        self
    }

    /// Prefix of the backbone's tensor names, as "teacher."; "" for none.
    pub fn prefix(mut self, prefix: impl Into<String>) -> Self {
        self.prefix = Some(prefix.into());
        self
    }

    /// What makes the feature out of the tokens.
    pub fn pool(mut self, pool: Pool) -> Self {
        self.pool = Some(pool);
        self
    }

    /// Activation of the MLP.
    pub fn activation(mut self, activation: Activation) -> Self {
        self.activation = Some(activation);
        self
    }

    /// How position embeddings are resampled.
    pub fn position_resampling(mut self, position_resampling: PositionResampling) -> Self {
        self.position_resampling = Some(position_resampling);
        self
    }

    /// How images of bytes get the model's size.
    pub fn resize(mut self, resize: Resize) -> Self {
        self.resize = Some(resize);
        self
    }

    /// Kernel of image resizing.
    pub fn interpolation(mut self, interpolation: Interpolation) -> Self {
        self.interpolation = Some(interpolation);
        self
    }

    /// Fraction of the shorter side that [`Resize::Crop`] keeps, in (0, 1].
    pub fn crop_fraction(mut self, crop_fraction: f32) -> Self {
        self.crop_fraction = crop_fraction;
        self
    }

    /// Folder of a LoRA of PEFT to merge into the weights.
    pub fn adapter(mut self, folder: impl Into<PathBuf>) -> Self {
        self.adapter = Some(folder.into());
        self
    }

    /// Makes a library call with these options.
    fn lend<R>(&self, call: impl FnOnce(*const sys::dlora_model_options) -> R) -> Result<R> {
        let prefix: Option<CString> = self.prefix.as_deref().map(|prefix| c_text("the prefix", prefix)).transpose()?;
        let adapter = self.adapter.as_deref().map(c_path).transpose()?;
        let mut raw: sys::dlora_model_options = unsafe { std::mem::zeroed() }; // SAFETY: numbers and pointers
        check(unsafe { sys::dlora_model_options_init(&mut raw, std::mem::size_of_val(&raw)) })?;
        if self.num_heads != 0 {
            raw.num_heads = self.num_heads;
        }
        if self.image_size != 0 {
            raw.image_size = self.image_size;
        }
        if self.layer_norm_eps != 0.0 {
            raw.layer_norm_eps = self.layer_norm_eps;
        }
        if let Some((mean, std)) = self.normalization {
            (raw.mean, raw.std) = (mean, std);
        }
        let chosen = |choice: Option<i32>, member: &mut i32| *member = choice.unwrap_or(*member);
        chosen(self.products.map(Products::code), &mut raw.products);
        chosen(self.threads, &mut raw.threads);
        chosen(self.pool.map(Pool::code), &mut raw.pool);
        chosen(self.activation.map(Activation::code), &mut raw.activation);
        chosen(self.position_resampling.map(PositionResampling::code), &mut raw.position_resampling);
        chosen(self.resize.map(Resize::code), &mut raw.resize);
        chosen(self.interpolation.map(Interpolation::code), &mut raw.interpolation);
        if self.crop_fraction != 0.0 {
            raw.crop_fraction = self.crop_fraction;
        }
        raw.prefix = prefix.as_ref().map_or(ptr::null(), |prefix| prefix.as_ptr());
        raw.adapter = adapter.as_ref().map_or(ptr::null(), |adapter| adapter.as_ptr());
        Ok(call(&raw))
    }
}

/// Description of a loaded model.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct ModelInfo {
    /// Width of tokens and features.
    pub embed_dim: usize,
    /// Transformer blocks.
    pub depth: usize,
    /// Attention heads.
    pub num_heads: usize,
    /// Hidden width of the MLP.
    pub mlp_dim: usize,
    /// Pixels a side.
    pub patch_size: usize,
    /// Pixels a side.
    pub image_size: usize,
    /// Prefix tokens and patches.
    pub num_tokens: usize,
    /// Class, distillation and register tokens.
    pub num_prefix_tokens: usize,
    /// Of the backbone, without heads.
    pub num_parameters: usize,
    /// Normalisation of images.
    pub mean: [f32; 3],
    /// Normalisation of images.
    pub std: [f32; 3],
    /// Epsilon of the layer norms.
    pub layer_norm_eps: f32,
    /// Scheme of tensor names.
    pub naming: Naming,
    /// Identifies weights and geometry: hexadecimal.
    pub fingerprint: String,
    /// Implementation of products.
    pub products: Products,
    /// What makes the feature.
    pub pool: Pool,
    /// Activation of the MLP.
    pub activation: Activation,
    /// How position embeddings are resampled.
    pub position_resampling: PositionResampling,
    /// How images of bytes get the model's size.
    pub resize: Resize,
    /// Kernel of image resizing.
    pub interpolation: Interpolation,
    /// Fraction of the shorter side that [`Resize::Crop`] keeps.
    pub crop_fraction: f32,
}

/// One setting of a model: what shapes do not tell.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Setting {
    /// As the setter of [`ModelOptions`].
    pub name: String,
    /// A number, three with commas between them, or a word.
    pub value: String,
    /// File and key; else empty.
    pub place: String,
    /// Who said so.
    pub origin: Origin,
}

/// A frozen Vision Transformer. Clones share it; learners and sessions keep it alive.
///
/// ```
/// # fn main() -> duallora::Result<()> {
/// # let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../tests/data/tiny_timm_f32.safetensors");
/// use duallora::{Images, Model};
///
/// let model = Model::load(path)?;
/// let pixels = vec![128; 2 * 40 * 60 * 3];
/// let features = model.embed(&Images::rgb8(&pixels, 2, 40, 60)?)?;
/// assert_eq!((features.rows(), features.columns()), (2, model.info().embed_dim));
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct Model {
    shared: Arc<Shared>,
}

struct Shared {
    handle: Handle<sys::dlora_model>, // dropped first: it may point into the bytes
    info: ModelInfo,
    _bytes: Cow<'static, [u8]>,
}

impl Model {
    /// Loads a backbone from a copy of its file, or of the safetensors and JSON files of its folder. Whatever happens
    /// to the files afterwards, the model keeps its weights.
    pub fn load(path: impl AsRef<Path>) -> Result<Model> {
        Model::load_with(path, &ModelOptions::new())
    }

    /// As [`Model::load`], with options.
    pub fn load_with(path: impl AsRef<Path>, options: &ModelOptions) -> Result<Model> {
        let path = path.as_ref();
        if path.is_dir() {
            let copy = PrivateCopy::of(path).map_err(|error| unreadable(path, error))?;
            // SAFETY: nobody else knows the copy. Its mapping outlives its name.
            let loaded = unsafe { Model::load_mapped(&copy.folder, options) };
            return loaded.map_err(|error| error.with_path(&copy.folder, path));
        }
        let bytes = fs::read(path).map_err(|error| unreadable(path, error))?;
        Model::from_bytes(bytes, options).map_err(|error| error.of_file(path))
    }

    /// Loads a backbone from the bytes of its file, which the model keeps; those of `include_bytes!` are not copied.
    pub fn from_bytes(bytes: impl Into<Cow<'static, [u8]>>, options: &ModelOptions) -> Result<Model> {
        let bytes = bytes.into();
        let handle = options.lend(|options| {
            // SAFETY: the bytes stay where they are, and live as long as the handle.
            Handle::create(|out| unsafe {
                sys::dlora_model_load_memory(out, bytes.as_ptr() as *const c_void, bytes.len(), options)
            })
        })??;
        Model::of(handle, bytes)
    }

    /// Loads a backbone by mapping its file or the files of its folder into memory: weights are read when they are
    /// used, and shared with other processes.
    ///
    /// # Safety
    ///
    /// The files must not change while the model lives. Nothing prevents other programs from writing to a mapped file.
    /// The weights would then change under the library, which Rust does not allow of memory behind a shared reference.
    /// If a file became shorter, the process would end with SIGBUS. [`Model::load`] reads a copy instead.
    pub unsafe fn load_mapped(path: impl AsRef<Path>, options: &ModelOptions) -> Result<Model> {
        let path = c_path(path.as_ref())?;
        let handle =
            options.lend(|options| Handle::create(|out| sys::dlora_model_load(out, path.as_ptr(), options)))??;
        Model::of(handle, Cow::Borrowed(&[]))
    }

    fn of(handle: Handle<sys::dlora_model>, bytes: Cow<'static, [u8]>) -> Result<Model> {
        // SAFETY: all members are numbers.
        let mut raw: sys::dlora_model_info = unsafe { std::mem::zeroed() };
        unsafe {
            check(sys::dlora_model_info_init(&mut raw, std::mem::size_of_val(&raw)))?;
            check(sys::dlora_model_get_info(handle.get(), &mut raw))?;
        }
        // SAFETY: the fingerprint ends with NUL.
        let fingerprint = unsafe { CStr::from_ptr(raw.fingerprint.as_ptr()) };
        let info = ModelInfo {
            embed_dim: raw.embed_dim,
            depth: raw.depth,
            num_heads: raw.num_heads,
            mlp_dim: raw.mlp_dim,
            patch_size: raw.patch_size,
            image_size: raw.image_size,
            num_tokens: raw.num_tokens,
            num_prefix_tokens: raw.num_prefix_tokens,
            num_parameters: raw.num_parameters,
            mean: raw.mean,
            std: raw.std,
            layer_norm_eps: raw.layer_norm_eps,
            naming: Naming::of(raw.naming),
            fingerprint: fingerprint.to_string_lossy().into_owned(),
            products: Products::of(raw.products),
            pool: Pool::of(raw.pool),
            activation: Activation::of(raw.activation),
            position_resampling: PositionResampling::of(raw.position_resampling),
            resize: Resize::of(raw.resize),
            interpolation: Interpolation::of(raw.interpolation),
            crop_fraction: raw.crop_fraction,
        };
        Ok(Model { shared: Arc::new(Shared { handle, info, _bytes: bytes }) })
    }

    /// Geometry, normalisation and fingerprint.
    pub fn info(&self) -> &ModelInfo {
        &self.shared.info
    }

    /// Settings of the model and where each came from.
    pub fn settings(&self) -> Result<Vec<Setting>> {
        // SAFETY: a live model.
        (0..unsafe { sys::dlora_model_num_settings(self.raw()) }).map(|index| self.setting(index)).collect()
    }

    fn setting(&self, index: usize) -> Result<Setting> {
        // SAFETY: numbers and pointers; the texts live as long as the model.
        unsafe {
            let mut raw: sys::dlora_model_setting = std::mem::zeroed();
            check(sys::dlora_model_setting_init(&mut raw, std::mem::size_of_val(&raw)))?;
            check(sys::dlora_model_get_setting(self.raw(), index, &mut raw))?;
            let text = |text| text_of(text).unwrap_or_default().into_owned();
            Ok(Setting {
                name: text(raw.name),
                value: text(raw.value),
                place: text(raw.place),
                origin: Origin::of(raw.origin),
            })
        }
    }

    /// Computes the feature of each image: `[count, embed_dim]`. Many threads may do so at once.
    pub fn embed(&self, images: &Images<'_>) -> Result<Matrix> {
        let mut features = Matrix::zeros(images.len(), self.info().embed_dim)?;
        // SAFETY: the images and the features have the sizes that the library expects.
        check(unsafe { sys::dlora_model_embed(self.raw(), images.raw(), features.as_mut_ptr()) })?;
        Ok(features)
    }

    pub(crate) fn raw(&self) -> *const sys::dlora_model {
        self.shared.handle.get()
    }
}

impl fmt::Debug for Model {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Model").field(self.info()).finish()
    }
}

fn unreadable(path: &Path, error: io::Error) -> Error {
    Error::new(Status::Io, path.display().to_string()).caused_by(error.into())
}

/// Copies of a backbone's files in a folder of this process's own, which is removed when this is dropped.
struct PrivateCopy {
    folder: PathBuf,
}

impl PrivateCopy {
    fn of(folder: &Path) -> io::Result<PrivateCopy> {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let mut builder = fs::DirBuilder::new();
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        let copy = loop {
            let number = NUMBER.fetch_add(1, Ordering::Relaxed);
            let copy = env::temp_dir().join(format!("duallora-{}-{}", process::id(), number));
            match builder.create(&copy) {
                Ok(()) => break PrivateCopy { folder: copy },
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {} // of a process that was killed
                Err(error) => return Err(error),
            }
        };
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            let wanted = path.extension().map_or(false, |kind| kind == "safetensors" || kind == "json");
            if let (true, Some(name)) = (wanted && path.is_file(), path.file_name()) {
                fs::copy(&path, copy.folder.join(name))?;
            }
        }
        Ok(copy)
    }
}

impl Drop for PrivateCopy {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder); // what is left lies in the system's folder for temporary files
    }
}
