// Answers from the server that the page came from. The other source of answers is browser.js.

const RETRIES = 4;
const LONGEST_WAIT = 10; // seconds between two tries
const KEY = "ramstrans-key"; // where this tab keeps the server's key

/** For answers that do not say why, such as a proxy's. */
const REASONS = {
  401: "The server wants a key; reload the page to give it.",
  413: "The file is larger than the server accepts.",
  415: "The server does not read files of this kind.",
  422: "The server cannot read it as a photograph.",
  429: "The server is busy; try again in a moment.",
  503: "The server is busy; try again in a moment.",
  504: "The server took too long; try again.",
};

const pause = (seconds) => new Promise((resolve) => setTimeout(resolve, 1000 * seconds));

const sentence = (text) => text.charAt(0).toUpperCase() + text.slice(1) + (/[.!?]$/.test(text) ? "" : ".");

function headers() {
  const key = sessionStorage.getItem(KEY);
  return { Accept: "application/json", ...(key && { Authorization: `Bearer ${key}` }) };
}

async function request(path, options) {
  try {
    return await fetch(path, { ...options, headers: headers() });
  } catch {
    throw new Error("The server cannot be reached; is it still running?");
  }
}

/** Why a request failed, in words. */
async function reason(response) {
  const said = await response.json().catch(() => null);
  const detail = said?.detail;
  if (typeof detail === "string" && detail) return sentence(detail);
  return REASONS[response.status] ?? `The server failed (${response.status}).`;
}

/** What the server says about its model; it is asked for a key until it accepts one. */
async function about(askKey) {
  for (let isFirst = true; ; isFirst = false) {
    const response = await request("./model");
    if (response.status !== 401) return response.ok ? response.json() : {};
    sessionStorage.setItem(KEY, await askKey(isFirst));
  }
}

/** Send a photograph; if the server is busy, wait as long as it asks for and try again. */
async function send(file, query) {
  for (let tried = 0; ; tried++) {
    const body = new FormData();
    body.append("files", file, file.name || "photograph");
    const response = await request(`./predict?${query}`, { method: "POST", body });
    if (response.ok) return response.json();
    if (![429, 503].includes(response.status) || tried === RETRIES) throw new Error(await reason(response));
    await pause(Math.min(Number(response.headers.get("Retry-After")) || 2 ** tried / 4, LONGEST_WAIT));
  }
}

/** As `connect` of browser.js; `askKey(isFirst)` gives what somebody enters as the key of the server. */
export async function connect(_, askKey) {
  const known = await about(askKey);
  const { classes = null, max_bytes: limit = Infinity, kind, multi_label: severalLabels, promises = {} } = known;
  const megabytes = (bytes) => `${(bytes / 1e6).toFixed(1)} MB`;
  return {
    classes,
    severalLabels,
    notice: null,
    promises,
    privacy: "Photographs are sent to the server that this page came from, and nowhere else.",
    atOnce: 4,
    async predict(file, count) {
      if (file.size > limit) {
        throw new Error(`It has ${megabytes(file.size)}; this server takes up to ${megabytes(limit)}.`);
      }
      const answer = (await send(file, `saliency=true&top_k=${count}`)).predictions?.[0];
      if (!answer) throw new Error("The server answered without a prediction; it may be of another version.");
      if (answer.error) throw new Error(sentence(`it cannot be read: ${answer.error}`));
      return answer;
    },
    /** Why the answer and not another class; an exported model cannot say. */
    contrast: kind === "run" && (async (file, against) => {
      const query = new URLSearchParams({ top_k: 1, against });
      return (await send(file, query)).predictions[0].against;
    }),
  };
}
