// Draws emoji as transparent PNG files, one class a set and group: DIR/noto-faces/grinning-face.png.
//
//   node render.mjs --out DIR [--size 72] [--classes noto-faces,fluent-nature]
//
// A stand-in for a studio's own folder of pictures. Skin tones are left out: they are the same drawing in another colour.
import { Resvg } from '@resvg/resvg-js';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { parseArgs } from 'node:util';

const SETS = { fluent: 'fluent-emoji-flat', noto: 'noto', twemoji: 'twemoji' };
// Not among them: flags and symbols, which are mostly letters and digits; activities and food, of which a set has too few pictures.
const GROUPS = { faces: 'Smileys & Emotion', nature: 'Animals & Nature', objects: 'Objects', people: 'People & Body', places: 'Travel & Places' };
const SKIN_TONE = /-(medium-)?(dark|light|medium)(-skin-tone)?(-|$)/;

// resvg 2.6.2 ends the process at these drawings.
const BROKEN = new Set(['noto package']);

const CLASSES = Object.keys(SETS).flatMap((set) => Object.keys(GROUPS).map((group) => `${set}-${group}`));

function fail(text) {
  console.error('render: ' + text);
  process.exit(2);
}

function parse() {
  const text = { type: 'string' };
  try {
    return parseArgs({ options: { out: text, size: { ...text, default: '72' }, classes: { ...text, default: CLASSES.join() } } }).values;
  } catch (e) {
    return fail(e.message);
  }
}

const read = (set, file) => JSON.parse(readFileSync(new URL(`node_modules/@iconify-json/${SETS[set]}/${file}.json`, import.meta.url)));

const args = parse(), size = Number(args.size);
if (!args.out) fail('--out DIR is needed');
if (!Number.isInteger(size) || size < 1) fail(`--size ${args.size}: not a count of pixels`);
for (const name of args.classes.split(',')) {
  if (!CLASSES.includes(name)) fail(`unknown class ${name}; known: ${CLASSES.join(' ')}`);
  const [set, group] = name.split('-'), { icons, width, height } = read(set, 'icons'), folder = join(args.out, name);
  const names = read(set, 'metadata').categories[GROUPS[group]].filter((n) =>
    icons[n] && !BROKEN.has(`${set} ${n}`) && !(group === 'people' && SKIN_TONE.test(n)));
  mkdirSync(folder, { recursive: true });
  for (const icon of names) {
    const w = icons[icon].width ?? width ?? 16, h = icons[icon].height ?? height ?? 16;
    const svg = `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${w} ${h}" width="${w}" height="${h}">${icons[icon].body}</svg>`;
    writeFileSync(join(folder, icon + '.png'), new Resvg(svg, { fitTo: { mode: 'width', value: size }, font: { loadSystemFonts: false } }).render().asPng());
  }
  console.log(`${name}: ${names.length} pictures`);
}
