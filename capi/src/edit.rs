//! Pictures from one call: generated, edited, encoded, decoded.

use crate::device::DeviceHandle;
use crate::model::ModelHandle;
use crate::picture::{self, Image, Images};
use crate::request::{Request, model};
use crate::session::SessionHandle;
use crate::sized::{self, size_first};
use crate::status::{Failure, Result, Status, collected, get, give, guard, slice, slice_mut};
use discon::{Device, Error, Model, Outputs};
use std::ptr::null;

/// Pictures of a model on a device.
///
/// # Safety
/// All are as the header asks.
unsafe fn made(
    (handle, device): (*const ModelHandle, *const DeviceHandle),
    images: *mut *mut Images,
    make: impl FnOnce(&Model, &Device) -> Result<Vec<discon::Image>>,
) -> Status {
    // SAFETY: as the caller says.
    let make = || Ok(Images::from(unsafe { make(model(handle)?, &get(device, "device")?.0)? }));
    // SAFETY: as the caller says.
    guard(|| unsafe { give(images, "images", make) })
}

/// The mask of a picture of the model's size.
///
/// # Safety
/// It is null or valid for reads of `count` values.
unsafe fn read_mask(model: &Model, mask: *const u8, count: usize) -> Result<Vec<bool>> {
    let size = model.image_size();
    // SAFETY: as the caller says.
    let mask = unsafe { slice(mask, count, "mask")? };
    if Some(count) != size.checked_mul(size) {
        return Err(Error::input("mask", format!("{size} x {size} values"), count).into());
    }
    collected(mask.iter().map(|&m| Ok(m != 0)), "a mask")
}

/// Discrete tokens, one a place.
///
/// # Safety
/// They are null or valid for reads of `count` values while the result is used.
unsafe fn codes_of_places<'a>(model: &Model, codes: *const u32, count: usize) -> Result<&'a [u32]> {
    let places = model.places()?;
    // SAFETY: as the caller says.
    let codes = unsafe { slice(codes, count, "codes")? };
    if count == places { Ok(codes) } else { Err(Error::input("codes", format!("{places} of them"), count).into()) }
}

/// Generates the images of a request.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn discon_generate(
    model: *const ModelHandle,
    device: *const DeviceHandle,
    request: *const Request,
    images: *mut *mut Images,
) -> Status {
    // SAFETY: as the header asks.
    unsafe {
        made((model, device), images, |model, device| Ok(model.generate(device, &Request::read(request, model)?)?))
    }
}

/// Draws anew what `mask` covers of `image`: one picture for each class and seed of the request. `mask` has a byte a pixel, line by line
/// without gaps, other than 0 where the picture is to be new; elsewhere each pixel stays exactly as it was.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn discon_inpaint(
    model: *const ModelHandle,
    device: *const DeviceHandle,
    image: *const Image,
    mask: *const u8,
    mask_count: usize,
    request: *const Request,
    images: *mut *mut Images,
) -> Status {
    // SAFETY: as the header asks.
    unsafe {
        made((model, device), images, |model, device| {
            let (image, request) = (picture::read(image, model.image_size())?, Request::read(request, model)?);
            let mask = read_mask(model, mask, mask_count)?;
            Ok(model.inpaint(device, &image, &mask, &request)?)
        })
    }
}

/// Draws what lies around a smaller picture, whose left upper corner is to be at (`left`, `top`): one picture for each class and seed of
/// the request. Its pixels stay exactly as they are.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn discon_outpaint(
    model: *const ModelHandle,
    device: *const DeviceHandle,
    image: *const Image,
    left: usize,
    top: usize,
    request: *const Request,
    images: *mut *mut Images,
) -> Status {
    // SAFETY: as the header asks.
    unsafe {
        made((model, device), images, |model, device| {
            let (image, request) = (picture::read(image, model.image_size())?, Request::read(request, model)?);
            Ok(model.outpaint(device, &image, (left, top), &request)?)
        })
    }
}

/// Draws `share` (0 to 1) of a picture's places anew, chosen by each seed: one picture for each class and seed of the request. All of the
/// pixels come from the decoder.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn discon_redraw(
    model: *const ModelHandle,
    device: *const DeviceHandle,
    image: *const Image,
    share: f64,
    request: *const Request,
    images: *mut *mut Images,
) -> Status {
    // SAFETY: as the header asks.
    unsafe {
        made((model, device), images, |model, device| {
            let (image, request) = (picture::read(image, model.image_size())?, Request::read(request, model)?);
            Ok(model.redraw(device, &image, share, &request)?)
        })
    }
}

/// Pictures of the same discrete tokens, `count` of them (places), of which each keeps `share` (0 to 1), chosen by its seed; the rest, and
/// all continuous tokens, are drawn. One picture for each class and seed of the request.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn discon_variations(
    model: *const ModelHandle,
    device: *const DeviceHandle,
    codes: *const u32,
    count: usize,
    share: f64,
    request: *const Request,
    images: *mut *mut Images,
) -> Status {
    // SAFETY: as the header asks.
    unsafe {
        made((model, device), images, |model, device| {
            let (request, codes) = (Request::read(request, model)?, codes_of_places(model, codes, count)?);
            Ok(model.variations(device, codes, share, &request)?)
        })
    }
}

/// The ways to make a picture of a picture.
#[repr(u32)]
#[derive(Debug, Clone, Copy)]
pub enum EditKind {
    /// As `discon_inpaint`: `image` and `mask`.
    Inpaint = 0,
    /// As `discon_outpaint`: `image`, `left` and `top`.
    Outpaint = 1,
    /// As `discon_redraw`: `image` and `share`.
    Redraw = 2,
    /// As `discon_variations`: `codes` and `share`.
    Variations = 3,
}

/// A picture made of a picture, for `discon_session_edit`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Edit {
    /// Bytes of this struct: what `discon_edit_init` puts here.
    pub size: usize,
    /// A discon_edit_kind.
    pub kind: u32,
    /// Zero.
    pub reserved: u32,
    /// The picture.
    pub image: *const Image,
    /// A byte a pixel, other than 0 where the picture is to be new.
    pub mask: *const u8,
    /// How many.
    pub mask_count: usize,
    /// Where the left edge of a smaller picture is to be.
    pub left: usize,
    /// Where its upper edge is to be.
    pub top: usize,
    /// From 0 to 1.
    pub share: f64,
    /// Discrete tokens by place.
    pub codes: *const u32,
    /// How many.
    pub codes_count: usize,
}

size_first!(Edit, "edit", {
    kind: 0, reserved: 0, image: null(), mask: null(), mask_count: 0, left: 0, top: 0, share: 0.0, codes: null(), codes_count: 0,
});

impl Edit {
    /// # Safety
    /// As of [`sized::read`], and its pointers are null or valid for reads of what it says.
    unsafe fn read(from: *const Self, model: &Model) -> Result<discon::Edit> {
        // SAFETY: as the caller says.
        unsafe {
            let given = sized::read(from)?;
            sized::reserved(&given, given.reserved)?;
            let Self { share, left, top, .. } = given;
            Ok(match given.kind {
                0 => discon::Edit::Inpaint {
                    image: picture::read(given.image, model.image_size())?,
                    mask: read_mask(model, given.mask, given.mask_count)?,
                },
                1 => discon::Edit::Outpaint { image: picture::read(given.image, model.image_size())?, left, top },
                2 => discon::Edit::Redraw { image: picture::read(given.image, model.image_size())?, share },
                3 => {
                    let codes = codes_of_places(model, given.codes, given.codes_count)?;
                    discon::Edit::Variations { codes: collected(codes.iter().copied().map(Ok), "codes")?, share }
                }
                other => return Err(Error::input("kind", "a discon_edit_kind", other).into()),
            })
        }
    }
}

/// Makes an edit of `size` bytes (`sizeof`) of nothing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn discon_edit_init(edit: *mut Edit, size: usize) -> Status {
    // SAFETY: as the header asks.
    guard(|| unsafe { sized::init(edit, size, &sized::SizeFirst::DEFAULT) })
}

/// Makes a session for an edit, one picture for each class and seed of the request, and begins it: to be stepped, run or cancelled, then
/// asked for its images. It is for this one batch.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn discon_session_edit(
    model: *const ModelHandle,
    device: *const DeviceHandle,
    edit: *const Edit,
    request: *const Request,
    session: *mut *mut SessionHandle,
) -> Status {
    let make = || {
        // SAFETY: as the header asks.
        let (model, device, edit, request) = unsafe {
            let model = self::model(model)?;
            (model, &get(device, "device")?.0, Edit::read(edit, model)?, Request::read(request, model)?)
        };
        Ok(SessionHandle::new(model.edit(device, &edit, &request)?, model, Outputs::IMAGE, true))
    };
    // SAFETY: as the header asks.
    guard(|| unsafe { give(session, "session", make) })
}

/// The tokens of a picture of the model's size: continuous ones, `tokens_count` (places * channels) numbers by place, and discrete ones,
/// `codes_count` (places). `codes` may be null with a count of 0; a model without a discrete autoencoder has none.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn discon_encode(
    model: *const ModelHandle,
    device: *const DeviceHandle,
    image: *const Image,
    tokens: *mut f32,
    tokens_count: usize,
    codes: *mut u32,
    codes_count: usize,
) -> Status {
    guard(|| {
        // SAFETY: as the header asks.
        let (model, device, image, tokens, codes) = unsafe {
            let (model, device) = (self::model(model)?, &get(device, "device")?.0);
            let tokens = slice_mut(tokens, tokens_count, "tokens")?;
            (model, device, picture::read(image, model.image_size())?, tokens, slice_mut(codes, codes_count, "codes")?)
        };
        let made = model.encode(device, &image)?;
        let room = |what: &str, n: usize, room: usize| -> Result<()> {
            if n == room { Ok(()) } else { Err(Error::input(what, format!("room for {n} of them"), room).into()) }
        };
        room("tokens", made.continuous.len(), tokens.len())?;
        if !codes.is_empty() {
            let none =
                || Failure::Unsupported("codes: expected a model with a discrete autoencoder, found one without");
            let discrete = made.discrete.ok_or_else(none)?;
            room("codes", discrete.len(), codes.len())?;
            codes.copy_from_slice(&discrete);
        }
        tokens.copy_from_slice(&made.continuous);
        Ok(())
    })
}

/// The picture of continuous tokens, `count` (places * channels) numbers by place.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn discon_decode(
    model: *const ModelHandle,
    device: *const DeviceHandle,
    tokens: *const f32,
    count: usize,
    images: *mut *mut Images,
) -> Status {
    // SAFETY: as the header asks.
    unsafe {
        made((model, device), images, |model, device| Ok(vec![model.decode(device, slice(tokens, count, "tokens")?)?]))
    }
}
