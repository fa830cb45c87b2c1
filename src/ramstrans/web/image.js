// From a photograph to the pixels of the model, and from its answers to names and boxes.
// The arithmetic is that of ramstrans/export/standalone.py: a canvas' own smoothing differs between browsers.

import { calibratedFields, ranked } from "./calibrated.js";

const STRIP = 2 ** 20; // pixels that are decoded into a canvas at a time; phones limit its size

/** A photograph that cannot be classified; the message says why, in words. */
export class Unreadable extends Error {}

/**
 * Weights of a bilinear resize of one side with antialiasing, as Pillow has them.
 * Output i is the sum of weights[i * width + k] * input[first[i] + k].
 */
export function resizeWeights(length, newLength) {
  const step = length / newLength;
  const support = Math.max(step, 1);
  const width = Math.min(Math.ceil(2 * support) + 2, length);
  const first = new Int32Array(newLength);
  const weights = new Float64Array(newLength * width);
  for (let i = 0; i < newLength; i++) {
    const centre = (i + 0.5) * step;
    const start = Math.max(Math.floor(centre - support + 0.5), 0);
    const stop = Math.min(Math.floor(centre + support + 0.5), length);
    first[i] = Math.min(start, length - width);
    let sum = 0;
    for (let k = start; k < stop; k++) {
      const weight = Math.max(1 - Math.abs(k + 0.5 - centre) / support, 0);
      weights[i * width + k - first[i]] = weight;
      sum += weight;
    }
    for (let k = 0; k < width; k++) weights[i * width + k] /= sum;
  }
  return { first, weights, width };
}

/** Resize each row of RGBA pixels to RGB pixels of another width, rounded to grey levels. */
function resizeRows(rgba, width, height, newWidth, target, offset) {
  const { first, weights, width: count } = resizeWeights(width, newWidth);
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < newWidth; x++) {
      let red = 0, green = 0, blue = 0;
      let from = 4 * (y * width + first[x]);
      for (let k = x * count; k < (x + 1) * count; k++, from += 4) {
        const weight = weights[k];
        red += weight * rgba[from];
        green += weight * rgba[from + 1];
        blue += weight * rgba[from + 2];
      }
      target[offset++] = Math.floor(red + 0.5);
      target[offset++] = Math.floor(green + 0.5);
      target[offset++] = Math.floor(blue + 0.5);
    }
  }
}

/** Resize the columns of RGB pixels. */
function resizeColumns(rgb, width, height, newHeight) {
  if (height === newHeight) return rgb;
  const { first, weights, width: count } = resizeWeights(height, newHeight);
  const stride = 3 * width;
  const target = new Uint8Array(stride * newHeight);
  const sums = new Float64Array(stride);
  for (let y = 0; y < newHeight; y++) {
    sums.fill(0.5);
    for (let k = 0; k < count; k++) {
      const weight = weights[y * count + k];
      if (weight === 0) continue;
      const from = stride * (first[y] + k);
      for (let i = 0; i < stride; i++) sums[i] += weight * rgb[from + i];
    }
    for (let i = 0; i < stride; i++) target[stride * y + i] = Math.floor(sums[i]);
  }
  return target;
}

/** Round as Python does: halves to the even number. */
function round(value) {
  const near = Math.round(value);
  return Math.abs(value % 1) === 0.5 && near % 2 !== 0 ? near - 1 : near;
}

/** [height, width] after resizing to a shorter side, an exact size, or to fit into it. */
export function resizedSize([height, width], resize, fit) {
  if (Array.isArray(resize)) {
    if (fit !== "pad") return resize;
    const scale = Math.min(resize[0] / height, resize[1] / width);
    return [Math.max(round(height * scale), 1), Math.max(round(width * scale), 1)];
  }
  const longer = Math.floor((resize * Math.max(height, width)) / Math.min(height, width));
  return height <= width ? [resize, longer] : [longer, resize];
}

/** Decode a file, upright and in sRGB. */
async function decode(file) {
  if (file.size === 0) throw new Unreadable("The file is empty.");
  try {
    return await createImageBitmap(file, { imageOrientation: "from-image", colorSpaceConversion: "default" });
  } catch {
    throw new Unreadable("This browser cannot read it as a photograph: it is damaged, or of a kind such as HEIC " +
      "or TIFF that the browser does not know. Save it as JPEG or PNG and try again.");
  }
}

function checkShape(width, height, rules) {
  const size = `It has ${width} × ${height} pixels`;
  if (width * height > rules.max_pixels) {
    throw new Unreadable(`${size}; at most ${rules.max_pixels.toLocaleString("en")} are read.`);
  }
  if (Math.max(width, height) > rules.max_elongation * Math.min(width, height)) {
    throw new Unreadable(`${size}: one side is more than ${rules.max_elongation} times the other.`);
  }
}

/** RGB pixels of a decoded photograph, laid over white, at another size. */
export function resize(bitmap, newHeight, newWidth) {
  const { width, height } = bitmap;
  const rows = Math.max(Math.min(Math.floor(STRIP / width), height), 1);
  const context = new OffscreenCanvas(width, rows).getContext("2d", { willReadFrequently: true });
  context.imageSmoothingEnabled = false;
  const narrow = new Uint8Array(3 * newWidth * height);
  for (let top = 0; top < height; top += rows) {
    const count = Math.min(rows, height - top);
    context.fillStyle = "white";
    context.fillRect(0, 0, width, count);
    context.drawImage(bitmap, 0, top, width, count, 0, 0, width, count);
    const { data } = context.getImageData(0, 0, width, count);
    resizeRows(data, width, count, newWidth, narrow, 3 * newWidth * top);
  }
  return resizeColumns(narrow, newWidth, height, newHeight);
}

/** Cut RGB pixels to a size around their middle, or pad them to it; as three planes. */
function fitted(rgb, [height, width], [rows, columns], fill) {
  const top = Math.trunc((height - rows) / 2);
  const left = Math.trunc((width - columns) / 2);
  const planes = new Uint8Array(3 * rows * columns);
  for (let channel = 0; channel < 3; channel++) {
    for (let y = 0; y < rows; y++) {
      for (let x = 0; x < columns; x++) {
        const row = y + top, column = x + left;
        const inside = row >= 0 && row < height && column >= 0 && column < width;
        planes[(channel * rows + y) * columns + x] =
          inside ? rgb[3 * (row * width + column) + channel] : fill[channel];
      }
    }
  }
  return { planes, offset: [left, top] };
}

/**
 * Read a photograph as the model saw those of its training.
 * `rules`: preprocessing.json and page.json of the folder, in one object.
 * Gives the pixels (3, height, width), and where they lie: pixels = photograph * scale - offset.
 */
export async function readExample(file, rules) {
  const bitmap = await decode(file);
  try {
    const { width, height } = bitmap;
    checkShape(width, height, rules);
    const size = resizedSize([height, width], rules.resize, rules.fit);
    const { planes, offset } = fitted(
      resize(bitmap, ...size), size, [rules.height, rules.width], rules.fill,
    );
    return { pixels: planes, offset, scale: [size[1] / width, size[0] / height], width, height };
  } finally {
    bitmap.close();
  }
}

/** A box [x0, y0, x1, y1] of the pixels, in those of the photograph; it may reach out of it. */
export function toOriginal(box, example) {
  return Array.from(box, (side, i) => (side + example.offset[i % 2]) / example.scale[i % 2]);
}

/** A box inside the photograph; one outside becomes a line at its edge. */
function clipped(box, { width, height }) {
  const sides = [width, height, width, height];
  const low = [0, 1].map((i) => Math.min(Math.max(box[i], 0), sides[i] - 1));
  return [...low, ...[2, 3].map((i) => Math.min(Math.max(box[i], low[i - 2] + 1), sides[i]))];
}

/** Labels and probabilities of the best classes; equal ones in the order of the labels. */
function best(scores, names, count) {
  const taken = ranked(scores).slice(0, count);
  return {
    labels: taken.map((label) => names[label]),
    probabilities: taken.map((label) => Math.round(scores[label] * 1e6) / 1e6),
  };
}

/**
 * The answer for one photograph, as `ramstrans predict` writes it in a line of JSON, and what the page draws.
 * `rules`: those of `readExample`, with `calibration` and `thresholds`, the files of the folder or null.
 */
export function toAnswer(outputs, example, names, count, rules) {
  const { probabilities, scale_probabilities: byScale, boxes, found, saliency } = outputs;
  const numClasses = names.length;
  const numScales = byScale.data.length / numClasses;
  const scales = [];
  for (let i = 0; i < numScales; i++) {
    const scale = best(byScale.data.subarray(i * numClasses, (i + 1) * numClasses), names, count);
    const hasNext = boxes !== undefined && i < boxes.dims[0];
    const box = hasNext && clipped(toOriginal(boxes.data.subarray(4 * i, 4 * i + 4), example), example);
    scale.box = hasNext ? box.map((side) => Math.round(side * 100) / 100) : null;
    scale.has_region = hasNext ? Boolean(found.data[i]) : null;
    scales.push(scale);
  }
  const view = toOriginal([0, 0, rules.width, rules.height], example);
  const order = rules.thresholds && ranked(probabilities.data);
  return {
    error: null,
    ...(order && {
      present: order.filter((label) => probabilities.data[label] >= rules.thresholds[label]).map((label) => names[label]),
    }),
    ...best(probabilities.data, names, count),
    ...calibratedFields(rules.calibration, probabilities.data, outputs.unknown_score?.data[0], names),
    scales,
    view,
    saliency: saliency ? grid(saliency) : null,
  };
}

/** Rows of a saliency, as shares of its highest value. */
function grid({ data, dims }) {
  const highest = data.reduce((one, other) => Math.max(one, other), 0) || 1;
  const width = dims[2];
  return Array.from({ length: dims[1] }, (_, y) =>
    Array.from(data.subarray(y * width, (y + 1) * width), (value) => value / highest));
}

/** Whether pixels can be read as they are; some browsers change them, so that pages cannot know them again. */
export function readsPixels() {
  const context = new OffscreenCanvas(16, 16).getContext("2d", { willReadFrequently: true });
  const drawn = new ImageData(16, 16);
  drawn.data.forEach((_, i) => { drawn.data[i] = i % 4 === 3 ? 255 : (i * 37) % 256; });
  context.putImageData(drawn, 0, 0);
  const read = context.getImageData(0, 0, 16, 16).data;
  return drawn.data.every((value, i) => value === read[i]);
}
