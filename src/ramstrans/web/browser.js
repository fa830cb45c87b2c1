// Answers from the model in this browser. The other source of answers is server.js, with the same function.

/**
 * Load the model.
 * `report({loaded, total})` is called with the bytes so far.
 * Gives `classes`, whether a photograph may have `severalLabels`, a `notice` or null, `promises`, see calibrated.js,
 * `privacy` in words, `atOnce`, how many photographs it takes at a time, and `predict(file, count)`, which rejects
 * with an Error in words.
 */
export function connect(report) {
  const worker = new Worker(new URL("worker.js", import.meta.url), { type: "module" });
  const waiting = new Map();
  let last = 0;

  worker.onmessage = ({ data: { id, progress, result, error } }) => {
    const asked = waiting.get(id);
    if (!asked) return; // it failed, and parts of it still arrive
    if (progress) {
      report(progress);
      return;
    }
    waiting.delete(id);
    if (error === undefined) asked.resolve(result);
    else asked.reject(new Error(error));
  };
  worker.onerror = (event) => {
    event.preventDefault();
    for (const { reject } of waiting.values()) {
      reject(new Error(event.message || "This browser cannot run the model; a newer one can."));
    }
    waiting.clear();
  };

  function ask(task, values) {
    return new Promise((resolve, reject) => {
      const id = last++;
      waiting.set(id, { resolve, reject });
      worker.postMessage({ id, task, values });
    });
  }

  return ask("start").then((about) => ({
    ...about,
    privacy: "Photographs stay on this device: the model runs in this browser, and nothing is sent anywhere.",
    atOnce: 1,
    predict: (file, count) => ask("predict", { file, count }),
  }));
}
