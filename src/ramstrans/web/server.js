// Answers from the server that the page came from. The other source of answers is browser.js.

const RETRIES = 4;
const LONGEST_WAIT = 10; // seconds between two tries

const REASONS = {
  401: "The server wants a key.",
  403: "The server does not accept this key.",
  413: "The file is larger than the server accepts.",
  415: "The server does not read files of this kind.",
  422: "The server cannot read it as a photograph.",
  429: "The server is busy; try again in a moment.",
  503: "The server is busy; try again in a moment.",
  504: "The server took too long; try again.",
};

const pause = (seconds) => new Promise((resolve) => setTimeout(resolve, 1000 * seconds));

/** Why a request failed, in words. */
async function reason(response) {
  const words = REASONS[response.status] ?? `The server failed (${response.status}).`;
  const { detail, error } = await response.json().catch(() => ({}));
  const more = [detail, error].find((text) => typeof text === "string" && text);
  return more ? `${words} It says: ${more}` : words;
}

/** Send a request; if the server is busy, wait as long as it asks for and try again. */
async function send(path, options) {
  for (let tried = 0; ; tried++) {
    let response;
    try {
      response = await fetch(path, options());
    } catch {
      throw new Error("The server cannot be reached; is it still running?");
    }
    if (response.ok) return response.json();
    if (![429, 503].includes(response.status) || tried === RETRIES) throw new Error(await reason(response));
    await pause(Math.min(Number(response.headers.get("Retry-After")) || 2 ** tried / 4, LONGEST_WAIT));
  }
}

/** As `connect` of browser.js. */
export async function connect() {
  return {
    classes: null,
    notice: null,
    privacy: "Photographs are sent to the server that this page came from, and nowhere else.",
    atOnce: 4,
    async predict(file, count) {
      const answers = await send(`./predict?saliency=true&top_k=${count}`, () => {
        const body = new FormData();
        body.append("files", file, file.name || "photograph");
        return { method: "POST", body, headers: { Accept: "application/json" } };
      });
      const answer = answers.predictions?.[0];
      if (!answer) throw new Error("The server answered without a prediction; it may be of another version.");
      if (answer.error) throw new Error(`It cannot be read: ${answer.error}.`);
      return answer;
    },
  };
}
