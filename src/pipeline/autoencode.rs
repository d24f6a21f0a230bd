//! Images in: through the autoencoders and back.

use super::Image;
use super::device::Device;
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
            let places = self.latent_places(vae.config.ch_mult.len());
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
            let places = self.latent_places(vq.config.channel_mult.len());
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

    /// Places of a picture after `levels` levels of an autoencoder.
    pub(super) fn latent_places(&self, levels: usize) -> usize {
        (self.image_size() >> (levels - 1)).pow(2)
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
        let run = self.run(device, b.finish()?, |executor| executor.write(pixels, &image.to_pixels(range)?))?;
        run.picture(out, range)
    }
}
