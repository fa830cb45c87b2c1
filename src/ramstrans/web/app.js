// The page: photographs come in, wait for their answers, and are shown.

import { showClasses, showContrast, showPhoto, thumbnail } from "./photo.js";
import { counted, furtherWords, headline, nameOf, percent, toCsv, unknownMeans, verdict } from "./words.js";

const COUNT = 5; // classes per answer
const SEVERAL = "A photograph may have several labels, or none: those whose probability reaches the threshold of each.";

const element = (id) => document.getElementById(id);

/** Photographs in order: {name, file, url, answer, error, state, card}; state: waiting, working or done. */
let items = [];
let shown = null;
let source = null; // of answers, once it is ready

function make(tag, className, text) {
  const node = document.createElement(tag);
  if (className) node.className = className;
  if (text !== undefined) node.textContent = text;
  return node;
}

/** An item's answer or error in a few words. */
function summary({ answer, error, state }) {
  if (error) return "cannot be read";
  if (!answer) return state === "working" ? "looking …" : "waiting";
  if (answer.present) return headline(answer);
  const words = `${nameOf(answer.labels[0])}, ${percent(answer.probabilities[0])}`;
  const { isSure, isUnknown } = verdict(answer);
  return isSure ? words : `${isUnknown ? "unknown, nearest" : "not sure"}: ${words}`;
}

function report(text) {
  element("status").textContent = text;
}

/** Say how far all photographs are. */
function reportProgress() {
  const done = items.filter((item) => item.state === "done");
  if (!items.length) return undefined;
  if (done.length < items.length) {
    const wait = source ? "" : " They wait for the model.";
    return report(`${done.length} of ${counted(items.length, "photograph")} done.${wait}`);
  }
  if (items.length === 1) return report(`${items[0].name}: ${summary(items[0])}.`);
  const failed = done.filter((item) => item.error).length;
  const verdicts = done.filter((item) => item.answer).map((item) => verdict(item.answer));
  const unknown = verdicts.filter(({ isUnknown }) => isUnknown).length;
  const unsure = verdicts.filter(({ isSure }) => !isSure).length - unknown;
  const notes = [
    unsure && `${unsure} not sure`, unknown && `${unknown} unknown`, failed && `${failed} could not be read`,
  ].filter(Boolean);
  return report(`${[counted(items.length, "photograph") + " done", ...notes].join(", ")}.`);
}

// ---- the gallery

function makeCard(item) {
  const card = make("li");
  const button = make("button");
  button.type = "button";
  button.append(make("span", "picture"), make("span", "label"));
  button.addEventListener("click", () => {
    show(item);
    element("detail").scrollIntoView({ block: "nearest", behavior: "smooth" });
  });
  card.append(button);
  return card;
}

function updateCard(item) {
  const button = item.card.firstChild;
  const label = button.querySelector(".label");
  label.replaceChildren(make("strong", "", summary(item)), make("span", "quiet", item.name));
  button.dataset.state = item.error ? "failed" : item.state;
  button.classList.toggle("unsure", Boolean(item.answer) && !verdict(item.answer).isSure);
  button.setAttribute("aria-current", String(item === shown));
}

function updateGallery() {
  element("gallery").hidden = items.length < 2;
  element("tools").hidden = items.length === 0;
  element("download").disabled = !items.some((item) => item.state === "done");
  document.body.classList.toggle("has-photographs", items.length > 0);
  element("detail").hidden = !shown;
  items.forEach(updateCard);
  reportProgress();
}

/** Move by some places in the gallery, as arrow keys do. */
function move(steps) {
  const index = items.indexOf(shown) + steps;
  if (!items[index]) return;
  show(items[index]);
  items[index].card.firstChild.focus();
  items[index].card.scrollIntoView({ block: "nearest", inline: "nearest" });
}

// ---- one photograph

function bar(label, probability) {
  const row = make("li");
  const name = make("span", "class", nameOf(label));
  name.title = label;
  const track = make("span", "track");
  const fill = make("span", "fill");
  fill.style.width = `${100 * probability}%`;
  track.append(fill);
  row.append(name, make("span", "share", percent(probability)), track);
  return row;
}

function show(item) {
  shown = item;
  updateGallery();
  if (!item) return;
  const { answer, error, name } = item;
  const judged = answer && verdict(answer);
  element("detail").classList.toggle("unsure", Boolean(judged) && !judged.isSure);
  element("badge").hidden = !judged || judged.isSure || Boolean(judged.isUnknown);
  element("name").textContent = name;
  element("answer").textContent = answer ? headline(answer) : error ? "No answer" : "Looking …";
  const further = answer ? furtherWords(answer, source.promises) : "";
  const words = judged && (further ? `${judged.words.replace(/\.?$/, ".")} ${further}` : judged.words);
  element("why").textContent = error ?? words ?? (source ? "" : "The model is still loading.");
  const rows = answer ? answer.labels.map((label, rank) => bar(label, answer.probabilities[rank])) : [];
  element("bars").replaceChildren(...rows);
  offerContrast(item);
  showPhoto(item);
}

/** Offer to say why the answer is not the second one, or show what was said. */
function offerContrast({ answer, contrast }) {
  const isPossible = Boolean(source?.contrast && !source.severalLabels && answer?.labels[1]);
  element("ask").hidden = !isPossible || Boolean(contrast);
  if (isPossible) element("why-not").textContent = `Why not ${nameOf(answer.labels[1])}?`;
  showContrast(contrast);
}

async function askContrast() {
  const item = shown;
  element("why-not").disabled = true;
  try {
    item.contrast = await source.contrast(item.file, item.answer.labels[1]);
  } catch (error) {
    report(error.message);
  }
  element("why-not").disabled = false;
  if (item === shown) offerContrast(item);
}

function remove(item) {
  const index = items.indexOf(item);
  items.splice(index, 1);
  URL.revokeObjectURL(item.url);
  if (item.contrast) URL.revokeObjectURL(item.contrast.url);
  item.card.remove();
  if (!items.length) report("");
  if (item === shown) show(items[Math.min(index, items.length - 1)] ?? null);
  else updateGallery();
}

// ---- answers

/** Work on the photographs that wait, as many at a time as the source of answers takes. */
function work() {
  const busy = items.filter((item) => item.state === "working").length;
  if (!source || busy >= source.atOnce) return;
  const item = items.find(({ state }) => state === "waiting");
  if (!item) return;
  item.state = "working";
  updateCard(item);
  predict(item).finally(work);
  work();
}

async function predict(item) {
  try {
    item.answer = await source.predict(item.file, COUNT);
  } catch (error) {
    item.error = error.message;
  }
  item.state = "done";
  if (!items.includes(item)) return;
  if (item === shown) show(item);
  else updateGallery();
}

async function drawThumbnail(item) {
  const picture = await thumbnail(item.file);
  if (picture) item.card.querySelector(".picture").replaceChildren(picture);
}

async function add(files) {
  const added = [...files].map((file) => {
    const item = { file, name: file.name || "photograph", url: URL.createObjectURL(file), state: "waiting" };
    item.card = makeCard(item);
    return item;
  });
  if (!added.length) return;
  items.push(...added);
  element("gallery").append(...added.map((item) => item.card));
  show(added[0]);
  work();
  for (const item of added) await drawThumbnail(item);
}

// ---- what people do

function addFrom(input) {
  input.addEventListener("change", () => {
    add(input.files);
    input.value = ""; // the same file may be chosen again
  });
}

/** Add what was dropped or pasted, or say why that is nothing to classify. */
function addTransfer(transfer) {
  const entries = [...transfer.items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
  const folder = entries.find((entry) => entry.isDirectory);
  if (folder) return report(`${folder.name} is a folder; open it and drop the photographs in it.`);
  if (transfer.files.length) return add(transfer.files);
  return report("That is not a file. Save the photograph first: this page fetches nothing from elsewhere.");
}

function download() {
  const blob = new Blob([toCsv(items.filter((item) => item.state === "done"), source)], { type: "text/csv" });
  const link = make("a");
  link.href = URL.createObjectURL(blob);
  link.download = "predictions.csv";
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

function listen() {
  addFrom(element("files"));
  addFrom(element("capture"));
  element("choose").addEventListener("click", () => element("files").click());
  element("camera").addEventListener("click", () => element("capture").click());
  element("download").addEventListener("click", download);
  element("why-not").addEventListener("click", askContrast);
  element("remove").addEventListener("click", () => {
    remove(shown);
    (shown?.card.firstChild.offsetParent ? shown.card.firstChild : element("choose")).focus();
  });
  element("clear").addEventListener("click", () => {
    [...items].forEach(remove);
    element("choose").focus();
  });
  for (const [box, node] of [["show-saliency", "saliency"], ["show-boxes", "boxes"]]) {
    element(box).addEventListener("change", ({ target }) => {
      element(node).classList.toggle("off", !target.checked);
    });
  }
  element("gallery").addEventListener("keydown", (event) => {
    const steps = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!steps) return;
    event.preventDefault();
    move(steps);
  });
  document.addEventListener("paste", (event) => {
    if (event.clipboardData.files.length) addTransfer(event.clipboardData);
  });
  let depth = 0; // a drag enters and leaves every element on its way
  const drag = (change) => {
    depth = Math.max(depth + change, 0);
    document.body.classList.toggle("dragging", depth > 0);
  };
  document.addEventListener("dragenter", () => drag(1));
  document.addEventListener("dragleave", () => drag(-1));
  document.addEventListener("dragover", (event) => event.preventDefault());
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    drag(-Infinity);
    addTransfer(event.dataTransfer);
  });
}

function reportLoading({ loaded, total }) {
  const megabytes = (bytes) => (bytes / 1e6).toFixed(0);
  element("loading").hidden = false;
  element("loaded").value = loaded / total;
  element("loaded-text").textContent = loaded < total
    ? `Loading the model: ${megabytes(loaded)} of ${megabytes(total)} MB`
    : "Starting the model";
}

/** Ask for the key of the server; gives what is entered. */
function askKey(isFirst) {
  const form = element("key-form");
  form.hidden = false;
  if (!isFirst) report("The server does not accept this key.");
  element("key").focus();
  return new Promise((resolve) => {
    form.onsubmit = (event) => {
      event.preventDefault();
      form.hidden = true;
      report("");
      resolve(element("key").value);
    };
  });
}

async function start() {
  element("unstarted").remove();
  listen();
  try {
    const { connect } = await import(`./${document.documentElement.dataset.answers}.js`);
    source = await connect(reportLoading, askKey);
  } catch (error) {
    element("failure").textContent = `The model cannot be started: ${error.message}. Reload the page to try again.`;
    element("failure").hidden = false;
    return;
  } finally {
    element("loading").hidden = true;
  }
  element("privacy").textContent = source.privacy;
  if (source.notice) {
    element("notice").textContent = source.notice;
    element("notice").hidden = false;
  }
  if (source.severalLabels) element("means").textContent = SEVERAL;
  else if (source.promises.reject) {
    element("always").replaceChildren(make("strong", "", "Unknown"), ` ${unknownMeans(source.promises.reject)}`);
  }
  if (!source.severalLabels) element("always").hidden = false; // not before the model is known
  if (source.classes) {
    const count = source.classes.length;
    const known = source.severalLabels ? counted(count, "label") : counted(count, "class", "classes");
    const does = source.severalLabels ? `looks for ${known}` : `tells ${known} apart`;
    element("lead").textContent = `This model ${does}, and says how sure it is.`;
    showClasses(source.classes, known);
  }
  show(shown);
  work();
}

start();
