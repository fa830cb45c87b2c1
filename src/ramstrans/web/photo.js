// The photograph with what the model looked at, and the regions that it enlarged.

import { nameOf, nth, percent } from "./words.js";

const FINE = 12; // drawn pixels per patch of a saliency, along each side
const COLOURS = [ // red, green, blue, opacity, from the lowest saliency to the highest
  [10, 20, 60, 0.5], [60, 30, 120, 0.36], [200, 60, 90, 0.34], [255, 150, 40, 0.45], [255, 225, 80, 0.55],
];
const CROP_SIDE = 480;

const element = (id) => document.getElementById(id);

/** Put an element where a box [x0, y0, x1, y1] lies in an image of some size. */
function place(node, [x0, y0, x1, y1], width, height) {
  node.style.left = `${(100 * x0) / width}%`;
  node.style.top = `${(100 * y0) / height}%`;
  node.style.width = `${(100 * (x1 - x0)) / width}%`;
  node.style.height = `${(100 * (y1 - y0)) / height}%`;
}

function mixed(share) {
  const at = share * (COLOURS.length - 1);
  const index = Math.min(Math.floor(at), COLOURS.length - 2);
  return COLOURS[index].map((value, i) => value + (at - index) * (COLOURS[index + 1][i] - value));
}

/** Draw rows of saliency, smoothly, from their lowest to their highest value. */
function drawSaliency(canvas, rows) {
  const height = rows.length, width = rows[0].length;
  const values = rows.flat();
  const low = Math.min(...values), range = Math.max(...values) - low || 1;
  [canvas.width, canvas.height] = [width * FINE, height * FINE];
  const context = canvas.getContext("2d");
  const image = context.createImageData(canvas.width, canvas.height);
  const along = (position, length) => {
    const centre = Math.min(Math.max((position + 0.5) / FINE - 0.5, 0), length - 1);
    const index = Math.min(Math.floor(centre), Math.max(length - 2, 0));
    return [index, Math.min(index + 1, length - 1), centre - index];
  };
  for (let y = 0; y < canvas.height; y++) {
    const [top, bottom, down] = along(y, height);
    for (let x = 0; x < canvas.width; x++) {
      const [left, right, across] = along(x, width);
      const above = rows[top][left] * (1 - across) + rows[top][right] * across;
      const below = rows[bottom][left] * (1 - across) + rows[bottom][right] * across;
      const colour = mixed((above * (1 - down) + below * down - low) / range);
      colour[3] *= 255;
      image.data.set(colour, 4 * (y * canvas.width + x));
    }
  }
  context.putImageData(image, 0, 0);
}

/** A look in the list below the photograph: what it saw, enlarged, and its answer; no picture without `image`. */
function look(index, scale, seen, box, image) {
  const item = document.createElement("li");
  const text = document.createElement("p");
  const what = document.createElement("span");
  what.className = "quiet";
  what.textContent = `${nth(index)} look: ${seen}`;
  const says = document.createElement("strong");
  says.textContent = `${nameOf(scale.labels[0])}, ${percent(scale.probabilities[0])}`;
  text.append(what, says);
  item.append(text);
  if (image) item.prepend(enlarged(image, box, index));
  return item;
}

/** A region of an image, enlarged. */
function enlarged(image, [x0, y0, x1, y1], index) {
  const canvas = document.createElement("canvas");
  const scale = CROP_SIDE / Math.max(x1 - x0, y1 - y0);
  canvas.width = Math.max(Math.round((x1 - x0) * scale), 1);
  canvas.height = Math.max(Math.round((y1 - y0) * scale), 1);
  const context = canvas.getContext("2d");
  context.imageSmoothingQuality = "high";
  context.drawImage(image, x0, y0, x1 - x0, y1 - y0, 0, 0, canvas.width, canvas.height);
  canvas.setAttribute("role", "img");
  const part = (from, to, side) => `${percent(from / side)} to ${percent(to / side)}`;
  canvas.setAttribute("aria-label", `What the ${nth(index).toLowerCase()} look saw: ` +
    `${part(x0, x1, image.naturalWidth)} from the left, ${part(y0, y1, image.naturalHeight)} from the top`);
  return canvas;
}

/** Load a photograph into the page; false if the browser cannot. */
async function load(image, url) {
  if (image.getAttribute("src") !== url) image.src = url;
  try {
    await image.decode();
    return true;
  } catch {
    return false;
  }
}

/** Clear what was drawn over the last photograph. */
function clear() {
  element("saliency").hidden = true;
  element("boxes").replaceChildren();
  element("looks").replaceChildren();
}

let turn = 0; // of what is shown: a photograph may take longer to load than the next one

/** Show the photograph of an item and, if it has an answer, what was looked at. */
export async function showPhoto({ url, name, answer }) {
  const mine = ++turn;
  const image = element("image");
  if (image.getAttribute("src") !== url) clear();
  const isShown = await load(image, url);
  if (mine !== turn) return;
  clear();
  element("stage").hidden = !isShown;
  element("unseen").hidden = isShown;
  image.alt = name;
  element("stage").style.setProperty("--ratio", image.naturalWidth / image.naturalHeight || 1);
  const looks = answer?.scales.length > 1 ? answer.scales : [];
  element("photo").querySelector(".switches").hidden = !(isShown && looks.length);
  if (isShown && answer?.saliency) {
    drawSaliency(element("saliency"), answer.saliency);
    place(element("saliency"), answer.view, image.naturalWidth, image.naturalHeight);
    element("saliency").hidden = false;
  }
  const { naturalWidth: width, naturalHeight: height } = image;
  const view = seenFirst(answer, width, height);
  for (const [index, scale] of looks.entries()) {
    const before = looks[index - 1];
    const seen = before ? (before.has_region ? "this region" : "all again: nothing stood out") : view.words;
    element("looks").append(look(index, scale, seen, before?.box ?? view.box, isShown ? image : null));
    if (!before?.has_region || !isShown) continue;
    const frame = document.createElement("div");
    place(frame, before.box, width, height);
    element("boxes").append(frame);
  }
}

/** The part of an image that the first look saw, without padding, and its name. */
function seenFirst(answer, width, height) {
  const [x0, y0, x1, y1] = answer?.view ?? [0, 0, width, height];
  const box = [Math.max(x0, 0), Math.max(y0, 0), Math.min(x1, width), Math.min(y1, height)];
  const isWhole = box[2] - box[0] > 0.99 * width && box[3] - box[1] > 0.99 * height;
  return { box, words: isWhole ? "the whole photograph" : "the middle of the photograph" };
}

/** Show what speaks for an answer and for another class, as the server has drawn it; nothing without it. */
export function showContrast(contrast) {
  const figure = element("contrast");
  const image = figure.querySelector("img");
  figure.hidden = !contrast;
  if (!contrast) return;
  contrast.url ??= URL.createObjectURL(
    new Blob([Uint8Array.from(atob(contrast.picture), (letter) => letter.charCodeAt(0))], { type: "image/png" }),
  );
  const [answer, other] = [contrast.answer, contrast.class].map(nameOf);
  image.src = contrast.url;
  image.alt = contrast.differences.length > 1 ? "What each look saw, coloured" : "What the look saw, coloured";
  figure.querySelector("figcaption").textContent = `Blue speaks for ${answer}, orange for ${other}.`;
}

/** A small picture of a file, or null. */
export async function thumbnail(file, side = 200) {
  try {
    const bitmap = await createImageBitmap(file, { imageOrientation: "from-image" });
    const scale = Math.max(side / bitmap.width, side / bitmap.height);
    const canvas = document.createElement("canvas");
    canvas.width = canvas.height = side;
    const context = canvas.getContext("2d");
    context.imageSmoothingQuality = "high";
    const [width, height] = [bitmap.width * scale, bitmap.height * scale];
    context.drawImage(bitmap, (side - width) / 2, (side - height) / 2, width, height);
    bitmap.close();
    return canvas;
  } catch {
    return null;
  }
}

/** What the model knows, as a list that can be opened; `counted` says how many they are. */
export function showClasses(classes, counted) {
  const known = element("known");
  known.hidden = false;
  known.querySelector("summary").textContent = `The ${counted} that it knows`;
  known.querySelector("ul").replaceChildren(...classes.map((label) => {
    const item = document.createElement("li");
    item.textContent = nameOf(label);
    return item;
  }));
}
