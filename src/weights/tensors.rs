//! The name and shape of every tensor of a model, by its config: the one list that files are written and judged by.
//!
//! The names are those of the published checkpoints (RAR, MAR, KL autoencoders, MaskGIT VQGAN), and
//! `discrete_emb.weight` besides.

use super::config::{Config, MaskedConfig, RarConfig, VaeConfig, VqConfig};

/// Rows that RAR's position tables have beyond its places.
const RAR_POSITION_ROWS: usize = 1024;
/// Rows that RAR's step table has beyond its places.
const RAR_STEP_ROWS: usize = 100;
/// The width of the sinusoids that the head's time embedding starts from.
const TIME_WIDTH: usize = 256;
/// Channels of an image.
const RGB: usize = 3;

/// A tensor's name and shape.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct TensorSpec {
    /// The name in its file.
    pub name: String,
    /// The shape, outermost first.
    pub shape: Vec<usize>,
}

/// The tensors of each part that a config has a section for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TensorList {
    /// Stage 1.
    pub rar: Option<Vec<TensorSpec>>,
    /// Stage 2.
    pub masked: Option<Vec<TensorSpec>>,
    /// The autoencoder of the continuous tokens.
    pub vae: Option<Vec<TensorSpec>>,
    /// The autoencoder of the discrete tokens.
    pub vq: Option<Vec<TensorSpec>>,
}

/// Where a VAE has attention at its lowest resolution, beside that in the middle. Its config does not say: the
/// presence of the tensors does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VaeAttention {
    /// In the encoder.
    pub encoder: bool,
    /// In the decoder: VA-VAE has it, KL-16 has not.
    pub decoder: bool,
}

/// The tensors of every part that the config has a section for. The config has to be
/// [valid](Config::validate): its counts size the lists.
pub fn tensors(config: &Config, attention: VaeAttention) -> TensorList {
    TensorList {
        rar: config.rar.as_ref().map(rar),
        masked: config.discon.as_ref().map(masked),
        vae: config.vae.as_ref().map(|c| vae(c, attention)),
        vq: config.vq.as_ref().map(vq),
    }
}

/// A list that grows by whole layers.
#[derive(Default)]
struct List(Vec<TensorSpec>);

impl List {
    fn tensor(&mut self, name: String, shape: &[usize]) {
        self.0.push(TensorSpec { name, shape: shape.to_vec() });
    }

    fn norm(&mut self, name: &str, width: usize) {
        self.tensor(format!("{name}.weight"), &[width]);
        self.tensor(format!("{name}.bias"), &[width]);
    }

    fn linear(&mut self, name: &str, out: usize, width: usize) {
        self.tensor(format!("{name}.weight"), &[out, width]);
        self.tensor(format!("{name}.bias"), &[out]);
    }

    fn conv_without_bias(&mut self, name: &str, cout: usize, cin: usize, k: usize) {
        self.tensor(format!("{name}.weight"), &[cout, cin, k, k]);
    }

    fn conv(&mut self, name: &str, cout: usize, cin: usize, k: usize) {
        self.conv_without_bias(name, cout, cin, k);
        self.tensor(format!("{name}.bias"), &[cout]);
    }

    /// Attention and MLP with their norms: what RAR's blocks and stage 2's have in common.
    fn block(&mut self, name: &str, width: usize, mlp: usize) {
        self.norm(&format!("{name}.norm1"), width);
        self.linear(&format!("{name}.attn.qkv"), 3 * width, width);
        self.linear(&format!("{name}.attn.proj"), width, width);
        self.norm(&format!("{name}.norm2"), width);
        self.linear(&format!("{name}.mlp.fc1"), mlp, width);
        self.linear(&format!("{name}.mlp.fc2"), width, mlp);
    }

    fn kl_resnet(&mut self, name: &str, cin: usize, cout: usize) {
        self.norm(&format!("{name}.norm1"), cin);
        self.conv(&format!("{name}.conv1"), cout, cin, 3);
        self.norm(&format!("{name}.norm2"), cout);
        self.conv(&format!("{name}.conv2"), cout, cout, 3);
        if cin != cout {
            self.conv(&format!("{name}.nin_shortcut"), cout, cin, 1);
        }
    }

    fn kl_attention(&mut self, name: &str, channels: usize) {
        self.norm(&format!("{name}.norm"), channels);
        for matrix in ["q", "k", "v", "proj_out"] {
            self.conv(&format!("{name}.{matrix}"), channels, channels, 1);
        }
    }

    fn kl_mid(&mut self, name: &str, channels: usize) {
        self.kl_resnet(&format!("{name}.block_1"), channels, channels);
        self.kl_attention(&format!("{name}.attn_1"), channels);
        self.kl_resnet(&format!("{name}.block_2"), channels, channels);
    }

    /// A level of `blocks` blocks, the first of which changes the width.
    fn kl_level(&mut self, name: &str, cin: usize, cout: usize, blocks: usize, attention: bool) {
        for j in 0..blocks {
            self.kl_resnet(&format!("{name}.block.{j}"), if j == 0 { cin } else { cout }, cout);
            if attention {
                self.kl_attention(&format!("{name}.attn.{j}"), cout);
            }
        }
    }

    /// Unlike a KL autoencoder's: no biases, and the shortcut is taken of the block's own output.
    fn vq_resnet(&mut self, name: &str, cin: usize, cout: usize) {
        self.norm(&format!("{name}.norm1"), cin);
        self.conv_without_bias(&format!("{name}.conv1"), cout, cin, 3);
        self.norm(&format!("{name}.norm2"), cout);
        self.conv_without_bias(&format!("{name}.conv2"), cout, cout, 3);
        if cin != cout {
            self.conv_without_bias(&format!("{name}.nin_shortcut"), cout, cout, 1);
        }
    }
}

fn rar(c: &RarConfig) -> Vec<TensorSpec> {
    let mut list = List::default();
    let (width, head) = (c.hidden_size, c.hidden_size / c.heads);
    list.tensor("cls_token".to_owned(), &[1, 1, width]);
    // Codes, the mask token, classes, "no class".
    list.tensor("embeddings.weight".to_owned(), &[c.codebook_size + 1 + c.num_classes + 1, width]);
    list.tensor("pos_embed".to_owned(), &[1, c.seq_len + RAR_POSITION_ROWS, width]);
    list.tensor("target_aware_pos_embed".to_owned(), &[1, c.seq_len + RAR_POSITION_ROWS, width]);
    list.tensor("timesteps_embeddings".to_owned(), &[1, c.seq_len + RAR_STEP_ROWS, width]);
    for i in 0..c.depth {
        let name = format!("blocks.{i}");
        list.block(&name, width, c.mlp_size);
        list.norm(&format!("{name}.attn.q_norm"), head);
        list.norm(&format!("{name}.attn.k_norm"), head);
        list.linear(&format!("{name}.adaLN_modulation.1"), 6 * width, width);
    }
    list.linear("adaln_before_head.adaLN_modulation.1", 2 * width, width);
    list.linear("lm_head", c.codebook_size, width);
    list.0
}

fn masked(c: &MaskedConfig) -> Vec<TensorSpec> {
    let mut list = List::default();
    let (encoder, decoder, head) = (c.encoder_dim, c.decoder_dim, c.head.width);
    let places = c.prefix_len() + c.seq_len;
    list.tensor("class_emb.weight".to_owned(), &[c.num_classes, encoder]);
    list.tensor("fake_latent".to_owned(), &[1, encoder]);
    if c.discrete {
        // Codes, then "no code".
        list.tensor("discrete_emb.weight".to_owned(), &[c.codebook_size + 1, encoder]);
    }
    list.linear("z_proj", encoder, c.token_dim);
    list.norm("z_proj_ln", encoder);
    list.tensor("encoder_pos_embed_learned".to_owned(), &[1, places, encoder]);
    for i in 0..c.encoder_depth {
        list.block(&format!("encoder_blocks.{i}"), encoder, c.encoder_mlp);
    }
    list.norm("encoder_norm", encoder);
    list.linear("decoder_embed", decoder, encoder);
    list.tensor("mask_token".to_owned(), &[1, 1, decoder]);
    list.tensor("decoder_pos_embed_learned".to_owned(), &[1, places, decoder]);
    for i in 0..c.decoder_depth {
        list.block(&format!("decoder_blocks.{i}"), decoder, c.decoder_mlp);
    }
    list.norm("decoder_norm", decoder);
    list.tensor("diffusion_pos_embed_learned".to_owned(), &[1, c.seq_len, decoder]);

    let net = "diffloss.net";
    list.linear(&format!("{net}.time_embed.mlp.0"), head, TIME_WIDTH);
    list.linear(&format!("{net}.time_embed.mlp.2"), head, head);
    list.linear(&format!("{net}.cond_embed"), head, decoder);
    list.linear(&format!("{net}.input_proj"), head, c.token_dim);
    for i in 0..c.head.depth {
        let name = format!("{net}.res_blocks.{i}");
        list.norm(&format!("{name}.in_ln"), head);
        list.linear(&format!("{name}.mlp.0"), head, head);
        list.linear(&format!("{name}.mlp.2"), head, head);
        list.linear(&format!("{name}.adaLN_modulation.1"), 3 * head, head);
    }
    list.linear(&format!("{net}.final_layer.adaLN_modulation.1"), 2 * head, head);
    list.linear(&format!("{net}.final_layer.linear"), 2 * c.token_dim, head);
    list.0
}

fn vae(c: &VaeConfig, attention: VaeAttention) -> Vec<TensorSpec> {
    let mut list = List::default();
    let lowest = c.ch_mult.len().saturating_sub(1);
    let widths: Vec<usize> = c.ch_mult.iter().map(|m| c.ch * m).collect();
    let top = widths.last().copied().unwrap_or(c.ch);

    list.conv("encoder.conv_in", c.ch, RGB, 3);
    let mut width = c.ch;
    for (i, &next) in widths.iter().enumerate() {
        let name = format!("encoder.down.{i}");
        list.kl_level(&name, width, next, c.num_res_blocks, attention.encoder && i == lowest);
        if i != lowest {
            list.conv(&format!("{name}.downsample.conv"), next, next, 3);
        }
        width = next;
    }
    list.kl_mid("encoder.mid", top);
    list.norm("encoder.norm_out", top);
    list.conv("encoder.conv_out", 2 * c.z_channels, top, 3);
    list.conv("quant_conv", 2 * c.z_channels, 2 * c.z_channels, 1);

    list.conv("post_quant_conv", c.z_channels, c.z_channels, 1);
    list.conv("decoder.conv_in", top, c.z_channels, 3);
    list.kl_mid("decoder.mid", top);
    let mut width = top;
    for (i, &next) in widths.iter().enumerate().rev() {
        let name = format!("decoder.up.{i}");
        list.kl_level(&name, width, next, c.num_res_blocks + 1, attention.decoder && i == lowest);
        if i != 0 {
            list.conv(&format!("{name}.upsample.conv"), next, next, 3);
        }
        width = next;
    }
    list.norm("decoder.norm_out", width);
    list.conv("decoder.conv_out", RGB, width, 3);
    list.0
}

fn vq(c: &VqConfig) -> Vec<TensorSpec> {
    let mut list = List::default();
    let widths: Vec<usize> = c.channel_mult.iter().map(|m| c.hidden_channels * m).collect();
    let top = widths.last().copied().unwrap_or(c.hidden_channels);
    let level = |list: &mut List, name: &str, cin: usize, cout: usize| {
        for j in 0..c.num_res_blocks {
            list.vq_resnet(&format!("{name}.{j}"), if j == 0 { cin } else { cout }, cout);
        }
    };

    list.conv_without_bias("encoder.conv_in", c.hidden_channels, RGB, 3);
    let mut width = c.hidden_channels;
    for (i, &next) in widths.iter().enumerate() {
        level(&mut list, &format!("encoder.down.{i}.block"), width, next);
        width = next;
    }
    level(&mut list, "encoder.mid", top, top);
    list.norm("encoder.norm_out", top);
    list.conv("encoder.conv_out", c.z_channels, top, 1);

    list.tensor("quantize.embedding.weight".to_owned(), &[c.codebook_size, c.z_channels]);

    list.conv("decoder.conv_in", top, c.z_channels, 3);
    level(&mut list, "decoder.mid", top, top);
    let mut width = top;
    for (i, &next) in widths.iter().enumerate().rev() {
        level(&mut list, &format!("decoder.up.{i}.block"), width, next);
        if i != 0 {
            list.conv(&format!("decoder.up.{i}.upsample_conv"), next, next, 3);
        }
        width = next;
    }
    list.norm("decoder.norm_out", width);
    list.conv("decoder.conv_out", RGB, width, 3);
    list.0
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use crate::weights::{CONFIG_FILE, TensorFile};
    use std::path::Path;

    /// The fixtures were written by others: their headers judge this list.
    fn assert_lists(folder: &str, attention: VaeAttention) {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(folder);
        let config = Config::parse("f", &std::fs::read(dir.join(CONFIG_FILE)).unwrap()).unwrap();
        let list = tensors(&config, attention);
        for (part, list) in [("rar", list.rar), ("discon", list.masked), ("vae", list.vae), ("vq", list.vq)] {
            let file = TensorFile::open(&dir.join(format!("{part}.safetensors"))).unwrap();
            let stored: Vec<TensorSpec> = file
                .names()
                .map(|n| TensorSpec { name: n.to_owned(), shape: file.view(n).unwrap().shape.to_vec() })
                .collect();
            let mut list = list.unwrap();
            list.sort();
            assert_eq!(list, stored, "{folder} {part}");
        }
    }

    #[test]
    fn the_list_is_what_the_fixtures_hold() {
        assert_lists("tiny", VaeAttention { encoder: true, decoder: true });
        assert_lists("odd", VaeAttention { encoder: true, decoder: false });
    }
}
