// The model itself, beside the page, so that the page stays responsive.

import * as ort from "./runtime/ort.wasm.min.js";
import { promises } from "./calibrated.js";
import { readExample, readsPixels, toAnswer, Unreadable } from "./image.js";

const GRAPH = "model.onnx";
const PROGRAM = "runtime/ort-wasm-simd-threaded.wasm";

let session, names, rules;

async function fetched(path) {
  const response = await fetch(path);
  if (!response.ok) throw new Error(`${path} cannot be loaded (${response.status})`);
  return response;
}

/** The bytes of a file; each part that arrives is counted. */
async function download(path, size, arrived) {
  const reader = (await fetched(path)).body.getReader();
  const bytes = new Uint8Array(size);
  let filled = 0;
  for (let part = await reader.read(); !part.done; part = await reader.read()) {
    if (filled + part.value.length > size) throw new Error(`${path} is not the file of this page`);
    bytes.set(part.value, filled);
    filled += part.value.length;
    arrived(part.value.length);
  }
  if (filled !== size) throw new Error(`${path} is cut short`);
  return bytes;
}

async function start(report) {
  const parsed = async (path) => (await fetched(path)).json();
  const [labels, reading, page] = await Promise.all(
    ["labels.json", "preprocessing.json", "page.json"].map(parsed),
  );
  const calibration = page.is_calibrated ? await parsed("calibration.json") : null;
  const thresholds = page.has_thresholds ? await parsed("thresholds.json") : null;
  names = labels;
  rules = { ...reading, ...page, calibration, thresholds };
  const total = Object.values(page.bytes).reduce((sum, size) => sum + size);
  let done = 0;
  const arrived = (count) => report({ loaded: (done += count), total });
  const [graph, program] = await Promise.all(
    [GRAPH, PROGRAM].map((path) => download(path, page.bytes[path], arrived)),
  );
  ort.env.wasm.wasmPaths = { mjs: new URL("runtime/ort-wasm-simd-threaded.js", import.meta.url).href };
  ort.env.wasm.wasmBinary = program;
  ort.env.wasm.numThreads = self.crossOriginIsolated ? Math.min(navigator.hardwareConcurrency, 8) : 1;
  ort.env.logLevel = "error";
  session = await ort.InferenceSession.create(graph, { executionProviders: ["wasm"], logSeverityLevel: 3 });
  const notice = readsPixels() ? null
    : "This browser changes the pixels that pages read, to protect against recognition; answers may be wrong.";
  return { classes: names, notice, severalLabels: Boolean(thresholds), promises: promises(calibration) };
}

async function predict({ file, count }) {
  const example = await readExample(file, rules);
  const pixels = new ort.Tensor("uint8", example.pixels, [1, 3, rules.height, rules.width]);
  const outputs = await session.run({ pixels });
  return toAnswer(outputs, example, names, count, rules);
}

const TASKS = { start: (_, report) => start(report), predict };

self.onmessage = async ({ data: { id, task, values } }) => {
  try {
    const result = await TASKS[task](values, (progress) => self.postMessage({ id, progress }));
    self.postMessage({ id, result });
  } catch (error) {
    self.postMessage({ id, error: error.message || String(error), isPhotograph: error instanceof Unreadable });
  }
};
