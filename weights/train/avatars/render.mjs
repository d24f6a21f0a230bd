// Draws avatars with DiceBear, one class a style, and writes them as packed arrays or PNG files.
//
//   node render.mjs --out DIR [--train N] [--val N] [--test N] [--size 64] [--png] [--classes a,b] [--part I/N]
//
// Packed: DIR/SPLIT/CLASS.npy, uint8 [images, size, size, 3]. With --png: DIR/SPLIT/CLASS/NUMBER.png.
// The seed of image i is a hash of "SPLIT-CLASS-i", so the seeds of two splits never meet; it is hashed because DiceBear
// draws alike for seeds that differ in the last letter only.
// --part I/N draws every N-th class only, to share the work between N processes.
import { createAvatar } from '@dicebear/core';
import * as collection from '@dicebear/collection';
import { Resvg } from '@resvg/resvg-js';
import { createHash } from 'node:crypto';
import { mkdirSync, renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

export const STYLES = ['adventurer', 'bigEars', 'bigSmile', 'croodles', 'dylan', 'funEmoji', 'lorelei', 'micah',
  'miniavs', 'notionists', 'openPeeps', 'personas', 'pixelArt', 'shapes', 'thumbs', 'toonHead'];
// Styles that paint their own background; the others get one of BACKGROUNDS.
const OWN_BACKGROUND = new Set(['funEmoji', 'shapes', 'thumbs', 'dylan']);
const BACKGROUNDS = ['b6e3f4', 'ffdfbf', 'd1f0d3'];

export const kebab = (style) => style.replace(/[A-Z]/g, (c) => '-' + c.toLowerCase());
export const seedOf = (split, name, i) => createHash('sha256').update(`${split}-${name}-${i}`).digest('hex').slice(0, 24);

export function draw(style, seed, size) {
  const options = { seed, size };
  if (!OWN_BACKGROUND.has(style)) options.backgroundColor = BACKGROUNDS;
  const svg = createAvatar(collection[style], options).toString();
  return new Resvg(svg, { fitTo: { mode: 'width', value: size }, background: '#ffffff', font: { loadSystemFonts: false } }).render();
}

function npy(shape, data) {
  let header = `{'descr': '|u1', 'fortran_order': False, 'shape': (${shape.join(', ')}), }`;
  header += ' '.repeat(63 - ((10 + header.length) % 64)) + '\n';
  const head = Buffer.alloc(10);
  head.write('\x93NUMPY\x01\x00', 0, 'latin1');
  head.writeUInt16LE(header.length, 8);
  return Buffer.concat([head, Buffer.from(header, 'latin1'), data]);
}

function fail(text) {
  console.error('render: ' + text);
  process.exit(2);
}

function parse(argv) {
  const args = { train: 4000, val: 128, test: 128, size: 64, png: false, classes: STYLES.map(kebab), part: [0, 1] };
  for (let i = 0; i < argv.length; i++) {
    const key = argv[i].replace(/^--/, '');
    if (key === 'png') { args.png = true; continue; }
    const value = argv[++i];
    if (value === undefined) fail(`${argv[i - 1]} needs a value`);
    if (key === 'out') args.out = value;
    else if (['train', 'val', 'test', 'size'].includes(key)) {
      args[key] = Number(value);
      if (!Number.isInteger(args[key]) || args[key] < 0) fail(`--${key} ${value}: not a count`);
    } else if (key === 'classes') args.classes = value.split(',');
    else if (key === 'part') args.part = value.split('/').map(Number);
    else fail(`unknown option --${key}`);
  }
  if (!args.out) fail('--out DIR is needed');
  if (args.size < 1) fail('--size must be 1 or more');
  for (const c of args.classes) if (!STYLES.some((s) => kebab(s) === c)) fail(`unknown class ${c}; known: ${STYLES.map(kebab).join(' ')}`);
  return args;
}

function main() {
  const args = parse(process.argv.slice(2));
  const mine = STYLES.filter((s) => args.classes.includes(kebab(s))).filter((_, i) => i % args.part[1] === args.part[0]);
  for (const style of mine) {
    const name = kebab(style), started = Date.now();
    for (const split of ['train', 'val', 'test']) {
      const n = args[split], folder = join(args.out, split);
      if (n === 0) continue;
      mkdirSync(args.png ? join(folder, name) : folder, { recursive: true });
      const pack = Buffer.alloc(n * args.size * args.size * 3);
      for (let i = 0; i < n; i++) {
        const image = draw(style, seedOf(split, name, i), args.size);
        if (args.png) {
          writeFileSync(join(folder, name, String(i).padStart(6, '0') + '.png'), image.asPng());
          continue;
        }
        const rgba = image.pixels, places = args.size * args.size;
        if (rgba.length !== places * 4) fail(`${name}: the picture is not ${args.size} square`);
        for (let p = 0, o = i * places * 3; p < places; p++, o += 3) {
          pack[o] = rgba[4 * p]; pack[o + 1] = rgba[4 * p + 1]; pack[o + 2] = rgba[4 * p + 2];
        }
      }
      if (!args.png) {
        const path = join(folder, name + '.npy');
        writeFileSync(path + '.part', npy([n, args.size, args.size, 3], pack));
        renameSync(path + '.part', path);
      }
    }
    console.log(`${name}: ${args.train} train, ${args.val} val, ${args.test} test in ${((Date.now() - started) / 1000).toFixed(1)} s`);
  }
}

main();
