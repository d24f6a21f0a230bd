//! Images in: through the autoencoders and back.

use super::Image;
use super::device::Device;
use super::executor::Executor;
use super::model::{Model, Networks, needed};
use crate::error::{Error, Result};
use crate::plan::{Builder, View};
use crate::weights::{VAE_FILE, VQ_FILE};

impl Model {
    /// Pixels a side of the model's images.
    pub fn image_size(&self) -> usize {
        self.config().image_size
    }

    /// What the continuous autoencoder makes of a picture: encoded to the mean of its latents, decoded again.
    pub fn reconstruct(&self, device: impl Into<Device>, image: &Image) -> Result<Image> {
        self.through(&device.into(), image, (-1.0, 1.0), |nets, b, pixels, out| {
            let vae = needed(&nets.vae, VAE_FILE, "the continuous reconstruction")?;
            let places = latent_places(pixels, vae.config.ch_mult.len());
            let mean = b.kept(places, vae.config.z_channels)?.grouped(1);
            let log_variance = b.kept(places, vae.config.z_channels)?.grouped(1);
            vae.plan_encode(b, pixels, mean, log_variance)?;
            vae.plan_decode(b, mean, out)
        })
    }

    /// What the discrete autoencoder makes of a picture: quantised to codes, decoded again.
    pub fn reconstruct_discrete(&self, device: impl Into<Device>, image: &Image) -> Result<Image> {
        self.through(&device.into(), image, (0.0, 1.0), |nets, b, pixels, out| {
            let vq = needed(&nets.vq, VQ_FILE, "the discrete reconstruction")?;
            let places = latent_places(pixels, vq.config.channel_mult.len());
            let codes = b.kept(places, 1)?.grouped(1);
            vq.plan_encode(b, pixels, codes)?;
            vq.plan_decode(b, codes, out)
        })
    }

    /// Refuses a picture of another size than the model's.
    pub(super) fn check_size(&self, image: &Image) -> Result<()> {
        let size = self.image_size();
        if (image.width(), image.height()) != (size, size) {
            let found = format!("{} x {}", image.width(), image.height());
            return Err(Error::input("image", format!("{size} x {size} pixels"), found));
        }
        Ok(())
    }

    fn through(
        &self,
        device: &Device,
        image: &Image,
        range: (f32, f32),
        plan: impl FnOnce(&Networks, &mut Builder, View, View) -> Result<()>,
    ) -> Result<Image> {
        let size = self.image_size();
        self.check_size(image)?;
        let mut b = Builder::new();
        let pixels = b.kept(size * size, 3)?.grouped(1);
        let out = b.kept(size * size, 3)?.grouped(1);
        plan(self.networks(), &mut b, pixels, out)?;
        let plan = b.finish();
        let mut executor = Executor::new(device, self.networks(), &plan)?;
        executor.write(pixels, &image.to_pixels(range)?)?;
        let mut cursor = executor.start(&plan)?;
        executor.run(&plan, &mut cursor, None, |_| false)?;
        executor.picture(out, range)
    }
}

/// Places of an image of `pixels` after `levels` levels.
fn latent_places(pixels: View, levels: usize) -> usize {
    pixels.count() >> (2 * (levels - 1))
}
