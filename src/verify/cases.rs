//! One function a kind of case: the plan of that part of the graph, its inputs, its result against the right one.

use super::{Case, Difference, fault};
use crate::error::Result;
use crate::model::{Draws, HeadSettings, HeadTurn, Masked, MaskedInputs, RoundSettings, Sequences, Tail};
use crate::pipeline::{Device, Executor, Model, Outputs, Program, Settings, needed};
use crate::plan::{Builder, Plan, View};
use crate::weights::{DISCON_FILE, GuidanceSchedule, RAR_FILE, VAE_FILE, VQ_FILE};

/// Runs the case with the function of its kind.
pub(super) fn run(model: &Model, device: &Device, case: &Case) -> Result<Difference> {
    let run = match case.kind.as_str() {
        "rar_logits" => rar_logits,
        "rar_sample" => rar_sample,
        "discon_z" => discon_z,
        "head_sample" => head_sample,
        "discon_sample" => discon_sample,
        "vae_decode" => vae_decode,
        "vae_encode" => vae_encode,
        "vq_decode" => vq_decode,
        "vq_encode" => vq_encode,
        "pipeline" => pipeline,
        kind => return Err(fault(&case.file, "metadata `kind`", "a kind of case", kind)),
    };
    run(model, device, case)
}

/// A plan at work.
struct Run {
    plan: Plan,
    executor: Executor,
}

impl Run {
    fn new(b: Builder, model: &Model, device: &Device) -> Result<Self> {
        let plan = b.finish()?;
        Ok(Self { executor: Executor::alone(device, model.networks(), &plan)?, plan })
    }

    fn put<T: bytemuck::Pod>(&mut self, view: View, data: &[T]) -> Result<()> {
        self.executor.write(view, data)
    }

    fn run(&mut self) -> Result<()> {
        self.executor.run_whole(&self.plan)
    }

    fn get<T: bytemuck::Pod>(&self, view: View) -> Result<Vec<T>> {
        self.executor.read(view)
    }
}

/// `[B, C, P]` <-> `[B, P, C]`: cases hold images with channels first, the engine has them last.
fn transpose(data: &[f32], batch: usize, rows: usize, cols: usize) -> Vec<f32> {
    let at = |b: usize, r: usize, c: usize| data[(b * rows + r) * cols + c];
    let each = |b| (0..cols).flat_map(move |c| (0..rows).map(move |r| (b, r, c)));
    (0..batch).flat_map(each).map(|(b, r, c)| at(b, r, c)).collect()
}

/// The share of codes that differ.
fn equal(a: &[i32], b: &[i32]) -> Difference {
    let differ = a.iter().zip(b).filter(|(a, b)| a != b).count() as f64;
    let worst = a.iter().zip(b).map(|(a, b)| f64::from(a.abs_diff(*b))).fold(0.0, f64::max);
    Difference { relative: differ / a.len().max(1) as f64, worst }
}

fn rar_logits(model: &Model, device: &Device, case: &Case) -> Result<Difference> {
    let rar = needed(&model.networks().rar, RAR_FILE, "the case")?;
    let c = &rar.config;
    let batch = case.batch("in.classes")?;
    let classes = case.indices("in.classes", &[batch], c.num_classes + 1)?;
    let (shape, _) = case.file.i32s("in.ids")?;
    let known = shape.get(1).copied().unwrap_or(0);
    let ids = case.indices("in.ids", &[batch, known], c.codebook_size)?;
    let expected = case.f32s("out.logits", &[batch, known + 1, c.codebook_size])?;
    if known >= c.seq_len {
        return Err(fault(&case.file, "in.ids", &format!("fewer than {} codes", c.seq_len), &known.to_string()));
    }
    let mut b = Builder::new();
    let sequences = Sequences::new(&mut b, batch, 1, c.seq_len)?;
    let logits = b.kept(batch * (known + 1), c.codebook_size)?.grouped(batch);
    rar.plan(&mut b, &sequences, known + 1, Tail::Keep(logits))?;
    let mut run = Run::new(b, model, device)?;
    let row = |(i, &class): (usize, &i32)| {
        let mut row = sequences.start(rar.class_id(class as usize), 0);
        row[1..=known].copy_from_slice(&ids[i * known..(i + 1) * known]);
        row
    };
    run.put(sequences.ids, &classes.iter().enumerate().flat_map(row).collect::<Vec<_>>())?;
    run.run()?;
    Ok(Difference::of_f32(&run.get(logits)?, &expected))
}

fn rar_sample(model: &Model, device: &Device, case: &Case) -> Result<Difference> {
    let rar = needed(&model.networks().rar, RAR_FILE, "the case")?;
    let c = &rar.config;
    let batch = case.batch("in.classes")?;
    let classes = case.indices("in.classes", &[batch], c.num_classes + 1)?;
    let draws = case.f32s("in.uniforms", &[batch, c.seq_len])?;
    let expected = case.indices("out.codes", &[batch, c.seq_len], c.codebook_size)?;
    let guidance = case.number("guidance")?;
    let halves = if guidance == 0.0 || guidance == 1.0 { 1 } else { 2 };
    let mut b = Builder::new();
    let sequences = Sequences::new(&mut b, batch, halves, c.seq_len)?;
    let uniforms = b.kept(batch, c.seq_len)?;
    let (guidance_pow, temperature) = (case.number("guidance_pow")?, case.number("temperature")?);
    rar.plan(&mut b, &sequences, c.seq_len, Tail::Draw { uniforms, guidance, guidance_pow, temperature })?;
    let mut run = Run::new(b, model, device)?;
    run.put(uniforms, &draws)?;
    let none = rar.class_id(c.num_classes);
    let rows = classes.iter().flat_map(|&class| sequences.start(rar.class_id(class as usize), none));
    run.put(sequences.ids, &rows.collect::<Vec<_>>())?;
    run.run()?;
    Ok(equal(&run.get(sequences.codes())?, &expected))
}

/// Inputs of stage 2 in a plan of its own.
struct Stage2 {
    inputs: MaskedInputs,
    tokens: View,
}

impl Stage2 {
    fn new(b: &mut Builder, masked: &Masked, batch: usize, halves: usize) -> Result<Self> {
        let (places, c) = (masked.config.seq_len, masked.config.token_dim);
        let classes = b.kept(batch, 1)?.grouped(batch);
        let codes = b.kept(batch * places, 1)?.grouped(batch);
        let order = b.kept(halves * batch * places, 1)?.grouped(halves * batch);
        let inputs = MaskedInputs { batch, halves, classes, mix: None, codes, order };
        Ok(Self { inputs, tokens: b.kept(batch * places, c)?.grouped(batch) })
    }

    fn put(&self, run: &mut Run, masked: &Masked, case: &Case, order: &[i32]) -> Result<()> {
        let (batch, places) = (self.inputs.batch, masked.config.seq_len);
        run.put(self.inputs.classes, &case.indices("in.classes", &[batch], masked.config.num_classes + 1)?)?;
        if masked.config.discrete {
            run.put(self.inputs.codes, &case.indices("in.codes", &[batch, places], masked.config.codebook_size + 1)?)?;
        }
        run.put(self.inputs.order, &order.repeat(self.inputs.halves))?;
        Ok(())
    }
}

/// Rows `[B, L, C]` by slot from rows by place.
fn by_slot(rows: &[f32], order: &[i32], places: usize, c: usize) -> Vec<f32> {
    let start = |i: usize| (i / places * places + order[i] as usize) * c;
    (0..order.len()).flat_map(|i| rows[start(i)..start(i) + c].iter().copied()).collect()
}

fn discon_z(model: &Model, device: &Device, case: &Case) -> Result<Difference> {
    let masked = needed(&model.networks().masked, DISCON_FILE, "the case")?;
    let (places, c, d) = (masked.config.seq_len, masked.config.token_dim, masked.config.decoder_dim);
    let batch = case.batch("in.classes")?;
    let tokens = case.f32s("in.tokens", &[batch, places, c])?;
    let mask = case.indices("in.masked", &[batch, places], 2)?;
    let expected = case.f32s("out.z", &[batch, places, d])?;
    let mut order = Vec::new();
    for mask in mask.chunks(places) {
        order.extend((0..places as i32).filter(|&p| mask[p as usize] == 1));
        order.extend((0..places as i32).filter(|&p| mask[p as usize] == 0));
    }
    let left = mask[..places].iter().filter(|&&m| m == 1).count();
    if mask.chunks(places).any(|row| row.iter().filter(|&&m| m == 1).count() != left) {
        return Err(fault(&case.file, "in.masked", "as many masked places in each row", "different numbers"));
    }
    let mut b = Builder::new();
    let stage = Stage2::new(&mut b, masked, batch, 1)?;
    let z = b.kept(batch * places, d)?.grouped(batch);
    masked.plan_z(&mut b, &stage.inputs, stage.tokens, left, z)?;
    let mut run = Run::new(b, model, device)?;
    stage.put(&mut run, masked, case, &order)?;
    run.put(stage.tokens, &by_slot(&tokens, &order, places, c))?;
    run.run()?;
    Ok(Difference::of_f32(&run.get(z)?, &by_slot(&expected, &order, places, d)))
}

fn head_settings(case: &Case, masked: &Masked) -> Result<HeadSettings> {
    let clip_x0 = case.params.get("clip_x0").and_then(serde_json::Value::as_f64).map(|c| c as f32);
    let steps = case.count("diffusion_steps", masked.config.head.train_steps)?;
    let temperature = case.number("temperature")? as f32;
    Ok(HeadSettings { steps, temperature, clip_x0 })
}

fn head_sample(model: &Model, device: &Device, case: &Case) -> Result<Difference> {
    let masked = needed(&model.networks().masked, DISCON_FILE, "the case")?;
    let (c, d) = (masked.config.token_dim, masked.config.decoder_dim);
    let settings = head_settings(case, masked)?;
    let n = case.batch("in.z")?;
    let start = case.f32s("in.start", &[n, c])?;
    let noise = case.f32s("in.noise", &[settings.steps, n, c])?;
    let mut z = case.f32s("in.z", &[n, d])?;
    let expected = case.f32s("out.tokens", &[n, c])?;
    let guidance = case.number("guidance")?;
    if guidance != 1.0 {
        z.extend(case.f32s("in.z_null", &[n, d])?);
    }
    let mut b = Builder::new();
    let (z_view, start_view) = (b.kept(z.len() / d, d)?, b.kept(n, c)?);
    let (noise_view, out) = (b.kept(settings.steps * n, c)?, b.kept(n, c)?);
    let draws = Draws::Given { start: start_view, noise: noise_view.rows(0..n), step_words: n * c };
    b.scope(|b| {
        let diffusion = masked.head.plan_diffusion(b, settings)?;
        let turn = HeadTurn { round: 0, guidance: (guidance != 1.0).then_some(guidance as f32) };
        masked.head.plan(b, &diffusion, turn, z_view, &draws, out)
    })?;
    let mut run = Run::new(b, model, device)?;
    run.put(z_view, &z)?;
    run.put(start_view, &start)?;
    run.put(noise_view, &noise)?;
    run.run()?;
    Ok(Difference::of_f32(&run.get(out)?, &expected))
}

fn schedule(case: &Case) -> Result<GuidanceSchedule> {
    match case.params.get("guidance_schedule").and_then(serde_json::Value::as_str) {
        Some("linear") => Ok(GuidanceSchedule::Linear),
        Some("constant") => Ok(GuidanceSchedule::Constant),
        found => Err(fault(&case.file, "params `guidance_schedule`", "linear or constant", found.unwrap_or("none"))),
    }
}

/// Starts and noise of a case by slot: `[B, L, C]` and `[steps B, L, C]`.
fn given(
    case: &Case,
    order: &[i32],
    batch: usize,
    places: usize,
    c: usize,
    steps: usize,
) -> Result<(Vec<f32>, Vec<f32>)> {
    let start = case.f32s("in.start", &[batch, places, c])?;
    let noise = case.f32s("in.noise", &[steps, batch, places, c])?;
    let each = noise.chunks(batch * places * c).flat_map(|step| by_slot(step, order, places, c));
    Ok((by_slot(&start, order, places, c), each.collect()))
}

/// The order of a case: a permutation an image.
fn order(case: &Case, batch: usize, places: usize) -> Result<Vec<i32>> {
    let order = case.indices("in.order", &[batch, places], places)?;
    for row in order.chunks(places) {
        let mut sorted = row.to_vec();
        sorted.sort_unstable();
        sorted.dedup();
        if sorted.len() != places {
            return Err(fault(&case.file, "in.order", "a permutation in each row", "a place twice"));
        }
    }
    Ok(order)
}

fn discon_sample(model: &Model, device: &Device, case: &Case) -> Result<Difference> {
    let masked = needed(&model.networks().masked, DISCON_FILE, "the case")?;
    let (places, c) = (masked.config.seq_len, masked.config.token_dim);
    let batch = case.batch("in.classes")?;
    let head = head_settings(case, masked)?;
    let order = order(case, batch, places)?;
    let (start, noise) = given(case, &order, batch, places, c, head.steps)?;
    let expected = case.f32s("out.tokens", &[batch, places, c])?;
    let guidance = case.number("guidance")?;
    let halves = if guidance == 1.0 { 1 } else { 2 };
    let mut b = Builder::new();
    let stage = Stage2::new(&mut b, masked, batch, halves)?;
    let start_view = b.kept(batch * places, c)?.grouped(batch);
    let noise_view = b.kept(head.steps * batch * places, c)?;
    let first = noise_view.rows(0..batch * places).grouped(batch);
    let draws = Draws::Given { start: start_view, noise: first, step_words: batch * places * c };
    let rounds = case.count("ar_steps", places)?;
    let rounds = RoundSettings { rounds, known: 0, guidance, schedule: schedule(case)?, head };
    masked.plan(&mut b, &stage.inputs, &draws, &rounds, stage.tokens)?;
    let mut run = Run::new(b, model, device)?;
    stage.put(&mut run, masked, case, &order)?;
    run.put(start_view, &start)?;
    run.put(noise_view, &noise)?;
    run.run()?;
    Ok(Difference::of_f32(&run.get(stage.tokens)?, &by_slot(&expected, &order, places, c)))
}

fn vae_decode(model: &Model, device: &Device, case: &Case) -> Result<Difference> {
    let vae = needed(&model.networks().vae, VAE_FILE, "the case")?;
    let batch = case.batch("in.latent")?;
    let (size, c) = (model.image_size(), vae.config.z_channels);
    let side = size >> (vae.config.ch_mult.len() - 1);
    let latent = case.f32s("in.latent", &[batch, c, side, side])?;
    let expected = case.f32s("out.image", &[batch, 3, size, size])?;
    let mut b = Builder::new();
    let latents = b.kept(batch * side * side, c)?.grouped(batch);
    let image = b.kept(batch * size * size, 3)?.grouped(batch);
    vae.plan_decode(&mut b, latents, image)?;
    let mut run = Run::new(b, model, device)?;
    run.put(latents, &transpose(&latent, batch, c, side * side))?;
    run.run()?;
    Ok(Difference::of_f32(&transpose(&run.get(image)?, batch, size * size, 3), &expected))
}

fn vae_encode(model: &Model, device: &Device, case: &Case) -> Result<Difference> {
    let vae = needed(&model.networks().vae, VAE_FILE, "the case")?;
    let batch = case.batch("in.image")?;
    let (size, c) = (model.image_size(), vae.config.z_channels);
    let side = size >> (vae.config.ch_mult.len() - 1);
    let pixels = case.f32s("in.image", &[batch, 3, size, size])?;
    let mean_expected = case.f32s("out.mean", &[batch, c, side, side])?;
    let log_expected = case.f32s("out.logvar", &[batch, c, side, side])?;
    let mut b = Builder::new();
    let image = b.kept(batch * size * size, 3)?.grouped(batch);
    let mean = b.kept(batch * side * side, c)?.grouped(batch);
    let log = b.kept(batch * side * side, c)?.grouped(batch);
    vae.plan_encode(&mut b, image, mean, log)?;
    let mut run = Run::new(b, model, device)?;
    run.put(image, &transpose(&pixels, batch, 3, size * size))?;
    run.run()?;
    let result = |view| Ok::<_, crate::Error>(transpose(&run.get(view)?, batch, side * side, c));
    Ok(Difference::of_f32(&result(mean)?, &mean_expected).or(Difference::of_f32(&result(log)?, &log_expected)))
}

fn vq_decode(model: &Model, device: &Device, case: &Case) -> Result<Difference> {
    let vq = needed(&model.networks().vq, VQ_FILE, "the case")?;
    let batch = case.batch("in.codes")?;
    let size = model.image_size();
    let places = (size >> (vq.config.channel_mult.len() - 1)).pow(2);
    let given = case.indices("in.codes", &[batch, places], vq.config.codebook_size)?;
    let expected = case.f32s("out.image", &[batch, 3, size, size])?;
    let mut b = Builder::new();
    let codes = b.kept(batch * places, 1)?.grouped(batch);
    let image = b.kept(batch * size * size, 3)?.grouped(batch);
    vq.plan_decode(&mut b, codes, image)?;
    let mut run = Run::new(b, model, device)?;
    run.put(codes, &given)?;
    run.run()?;
    Ok(Difference::of_f32(&transpose(&run.get(image)?, batch, size * size, 3), &expected))
}

fn vq_encode(model: &Model, device: &Device, case: &Case) -> Result<Difference> {
    let vq = needed(&model.networks().vq, VQ_FILE, "the case")?;
    let batch = case.batch("in.image")?;
    let size = model.image_size();
    let places = (size >> (vq.config.channel_mult.len() - 1)).pow(2);
    let pixels = case.f32s("in.image", &[batch, 3, size, size])?;
    let expected = case.indices("out.codes", &[batch, places], vq.config.codebook_size)?;
    let mut b = Builder::new();
    let image = b.kept(batch * size * size, 3)?.grouped(batch);
    let codes = b.kept(batch * places, 1)?.grouped(batch);
    vq.plan_encode(&mut b, image, codes)?;
    let mut run = Run::new(b, model, device)?;
    run.put(image, &transpose(&pixels, batch, 3, size * size))?;
    run.run()?;
    Ok(equal(&run.get(codes)?, &expected))
}

fn pipeline(model: &Model, device: &Device, case: &Case) -> Result<Difference> {
    let nets = model.networks();
    let masked = needed(&nets.masked, DISCON_FILE, "the case")?;
    let (places, c) = (masked.config.seq_len, masked.config.token_dim);
    let batch = case.batch("in.classes")?;
    let head = head_settings(case, masked)?;
    let settings = Settings {
        discrete_guidance: case.number("guidance")?,
        discrete_guidance_pow: case.number("guidance_pow")?,
        discrete_temperature: case.number("rar_temperature")?,
        rounds: case.count("ar_steps", places)?,
        steps: head.steps,
        guidance: case.number("discon_guidance")?,
        guidance_schedule: schedule(case)?,
        temperature: head.temperature.into(),
        clip_x0: head.clip_x0,
    };
    let classes = case.indices("in.classes", &[batch], masked.config.num_classes + 1)?;
    let order = order(case, batch, places)?;
    let (start, noise) = given(case, &order, batch, places, c, head.steps)?;
    let size = model.image_size();
    let (shape, expected) = case.file.u8s("out.image")?;
    case.check("out.image", &[batch, 3, size, size], &shape)?;
    let program = Program::new(nets, batch, &settings, Outputs::IMAGE, true)?;
    let (Some(given_views), Some(image)) = (program.given, program.image) else {
        return Err(fault(&case.file, "the plan", "inputs and an image", "none"));
    };
    let mut executor = Executor::alone(device, nets, &program.plan)?;
    let classes: Vec<usize> = classes.into_iter().map(|c| c as usize).collect();
    program.fill_classes(&mut executor, nets, &classes)?;
    program.fill_uniforms(&mut executor, &case.f32s("in.uniforms", &[batch, places])?)?;
    program.fill_orders(&mut executor, &order)?;
    let mut run = Run { plan: program.plan, executor };
    run.put(given_views.start, &start)?;
    run.put(given_views.noise, &noise)?;
    run.run()?;
    let pictures = run.executor.pictures(image, (-1.0, 1.0))?;
    let found = pictures.iter().flat_map(|p| (0..3).flat_map(move |ch| p.rgb().iter().skip(ch).step_by(3)));
    let differences = found.zip(&expected).map(|(&a, &b)| (f64::from(a) - f64::from(b)).abs());
    let (sum, worst) = differences.fold((0.0, 0.0f64), |(sum, worst), d| (sum + d, worst.max(d)));
    Ok(Difference { relative: sum / expected.len() as f64 / 255.0, worst })
}
