//! Where the system has no more memory to give, a request fails with an error; the process lives, and the next request works.

#![allow(clippy::unwrap_used)] // a test that cannot go on should say where

use discon::{Cpu, Edit, Error, Image, Known, Model, Outputs, Result, Session, Settings, Start};
use std::alloc::{GlobalAlloc, Layout, System};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// Bytes from which on a block counts: what grows with the picture and with the batch. Names, messages, and lists of a thing for an
/// image or for a place of one are smaller; a system that has no room for those has none for the process either.
const LARGE: usize = 1 << 10;
const BATCH: usize = 4;
const NEVER: usize = usize::MAX;

/// The system's allocator, which refuses one large block.
struct Refusing;

/// Which large block is refused, and how many were asked for since that was said.
static REFUSED: AtomicUsize = AtomicUsize::new(NEVER);
static ASKED: AtomicUsize = AtomicUsize::new(0);

fn refused(bytes: usize) -> bool {
    bytes >= LARGE && ASKED.fetch_add(1, Ordering::Relaxed) == REFUSED.load(Ordering::Relaxed)
}

// SAFETY: what is not refused goes to `System` as it came; a null pointer is how an allocator refuses.
unsafe impl GlobalAlloc for Refusing {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: by the caller's duty.
        if refused(layout.size()) { std::ptr::null_mut() } else { unsafe { System.alloc(layout) } }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: by the caller's duty.
        if refused(layout.size()) { std::ptr::null_mut() } else { unsafe { System.alloc_zeroed(layout) } }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: by the caller's duty.
        if refused(size) { std::ptr::null_mut() } else { unsafe { System.realloc(at, layout, size) } }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: by the caller's duty.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Refusing = Refusing;

/// Runs `f` with each of its large blocks refused once, then with none; returns what it made then. `f` must fail whenever
/// one is refused. A block that may not be refused would end the process.
fn each_refused<T>(what: &str, mut f: impl FnMut() -> Result<T>) -> T {
    for block in 0.. {
        ASKED.store(0, Ordering::Relaxed);
        REFUSED.store(block, Ordering::Relaxed);
        let made = f();
        REFUSED.store(NEVER, Ordering::Relaxed);
        let reached = ASKED.load(Ordering::Relaxed) > block;
        match made {
            Ok(made) if !reached => {
                println!("{what}: {block} large blocks");
                assert!(block > 0, "{what} takes no memory");
                return made;
            }
            Err(Error::Memory { .. }) if reached => {}
            made => panic!("{what}, block {block}: asked for {reached}, yet {:?}", made.map(drop)),
        }
    }
    unreachable!()
}

fn pictures(session: &mut Session) -> Vec<Image> {
    session.run(|_| ()).unwrap();
    session.images().unwrap()
}

/// Alone in its process: another test's allocations would be refused too.
#[test]
fn where_memory_ends_a_request_fails_and_the_next_one_works() {
    let model = Model::open(Path::new(env!("CARGO_MANIFEST_DIR")).join("weights/avatars-64")).unwrap();
    let (cpu, size, places) = (Cpu::new(2).unwrap(), model.image_size(), model.places().unwrap());
    let settings = Settings { rounds: 1, steps: 1, ..model.settings() };
    let (classes, seeds): (Vec<usize>, Vec<u64>) = (0..BATCH).map(|i| (i, i as u64)).unzip();

    let outputs = Outputs { partial_previews: true, ..Outputs::IMAGE_AND_PREVIEW };
    let mut session = model.session(&cpu, BATCH, &settings, outputs).unwrap();
    each_refused("begin", || session.begin(&classes, &seeds));
    let images = pictures(&mut session);
    assert!(images == each_refused("images", || session.images()));
    each_refused("previews", || session.previews());
    each_refused("begin_preview", || session.begin_preview());
    session.step_preview(Duration::MAX).unwrap();
    assert!(images == each_refused("partial_previews", || session.partial_previews()));
    let codes = each_refused("codes", || session.codes());
    let tokens = each_refused("tokens", || session.tokens());

    let given = codes.iter().map(|codes| codes.iter().map(|&code| Some(code)).collect()).collect();
    let start = Start { codes: given, ..Start::default() };
    each_refused("begin with some codes", || session.begin_with(&classes, &seeds, &start));
    assert!(pictures(&mut session) == images);

    let outputs = Outputs { given_codes: true, ..Outputs::IMAGE };
    let mut session = model.session(&cpu, BATCH, &settings, outputs).unwrap();
    each_refused("begin with codes", || session.begin_with_codes(&classes, &seeds, &codes));
    assert!(pictures(&mut session) == images);

    let known =
        |tokens: &Vec<f32>| Known { places: (0..places).map(|place| place > 0).collect(), tokens: tokens.clone() };
    let start = Start { known: tokens.iter().map(known).collect(), ..Start::default() };
    let outputs = Outputs { known_places: places - 1, ..Outputs::IMAGE };
    let mut session = model.session(&cpu, BATCH, &settings, outputs).unwrap();
    each_refused("begin with known tokens", || session.begin_with(&classes, &seeds, &start));
    pictures(&mut session);

    let image = images[3].clone();
    let mask: Vec<bool> = (0..size * size).map(|pixel| pixel < size * size / 2).collect();
    let (width, height) = (size / 2, size - 8);
    let lines = (0..height).flat_map(|y| image.rgb()[3 * y * size..][..3 * width].to_vec()).collect();
    let small = Image::new(width, height, lines).unwrap();
    for (what, edit) in [
        ("inpaint", Edit::Inpaint { image: image.clone(), mask: mask.clone() }),
        ("outpaint", Edit::Outpaint { image: small.clone(), left: 8, top: 8 }),
        ("redraw", Edit::Redraw { image: image.clone(), share: 0.5 }),
        ("variations", Edit::Variations { codes: codes[3].clone(), share: 0.5 }),
    ] {
        let start = Start::of(edit);
        let outputs = model.outputs_for(&start).unwrap();
        let mut session = model.session(&cpu, BATCH, &settings, outputs).unwrap();
        each_refused(what, || session.begin_with(&classes, &seeds, &start));
        let made = pictures(&mut session);
        assert!(made == each_refused(what, || session.images()));
    }
}
