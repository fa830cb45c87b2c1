// What the page says: names, percentages, whether an answer is sure, and the table to download.

const SURE = 0.5;
const AHEAD = 0.2;
const NAMED = 5; // classes of a set

/** A class name for people: "017.Black_footed_Albatross" -> "Black footed Albatross". */
export function nameOf(label) {
  return label.replace(/^\d+[._-]+(?=\D)/, "").replace(/_+/g, " ").trim() || label;
}

/** A probability in whole percent; what is not 0 or 1 does not look so. */
export function percent(probability) {
  const whole = Math.round(100 * probability);
  if (whole === 0 && probability > 0) return "<\u00a01\u00a0%";
  if (whole === 100 && probability < 1) return ">\u00a099\u00a0%";
  return `${whole}\u00a0%`;
}

/** A number with its noun. */
export function counted(number, one, several = `${one}s`) {
  return `${number} ${number === 1 ? one : several}`;
}

/** The answer in a few words, without how sure it is. */
export function headline(answer) {
  if (answer.present) return answer.present.map(nameOf).join(", ") || "None of its labels";
  return verdict(answer).isUnknown ? "Unknown" : nameOf(answer.labels[0]);
}

/** Whether an answer is sure, or of no class, and why or why not, in words. */
export function verdict({ labels, probabilities, present, unknown }) {
  const [first, second = 0] = probabilities;
  if (present) {
    const most = `The most probable is ${nameOf(labels[0])}, with ${percent(first)}.`;
    return { isSure: true, words: present.length ? "" : most };
  }
  if (unknown) {
    const nearest = `The nearest is ${nameOf(labels[0])}, with ${percent(first)}.`;
    return { isSure: false, isUnknown: true, words: `It is unlike all that the model knows. ${nearest}` };
  }
  if (first < SURE) return { isSure: false, words: `The best guess has only ${percent(first)}.` };
  if (first - second < AHEAD) {
    return { isSure: false, words: `${nameOf(labels[1])} is close behind, with ${percent(second)}.` };
  }
  return { isSure: true, words: `${percent(first)} sure` };
}

/** Several classes in words. */
function listed(labels) {
  const names = labels.slice(0, NAMED).map(nameOf).join(", ");
  return labels.length > NAMED ? `${names} and ${labels.length - NAMED} more` : names;
}

/** Possible classes and the answer at a rank, where these are not the class itself, and what priors changed. */
export function furtherWords({ labels, unknown, set, answer, priors }, { coverage }) {
  const words = [];
  if (set && !unknown && (set.length > 1 || set[0] !== labels[0])) {
    const share = coverage ? `, with ${percent(coverage)}` : "";
    words.push(`Possible${priors ? " without priors" : ""}${share}: ${listed(set)}.`);
  }
  if (answer && !unknown) {
    if (answer.name === null) words.push("No rank is certain.");
    else if (answer.name !== labels[0]) {
      words.push(`The ${answer.rank} ${nameOf(answer.name)} is certain, with ${percent(answer.probability)}.`);
    }
  }
  if (priors?.changed) {
    words.push(`Without priors: ${nameOf(priors.label_before)}, ${percent(priors.probability_before)}.`);
  }
  return words.join(" ");
}

/** What "unknown" means on a page whose model tells it. */
export function unknownMeans(reject) {
  const share = `${percent(reject)} of photographs of its own classes are called so, too`;
  return `means: the photograph is unlike all that the model was trained on; ${share}.`;
}

/** An ordinal for a look. */
export function nth(index) {
  return ["First", "Second", "Third", "Fourth", "Fifth"][index] ?? `${index + 1}th`;
}

function field(value) {
  if (value === null || value === undefined) return "";
  const text = value === true ? "True" : value === false ? "False" : String(value);
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

/** Labels in a cell, as a table to train on has them. */
function joined(labels) {
  return labels.map((label) => label.replace(/\\(?=\\|;|$)|;/g, "\\$&")).join(";");
}

/** Answers as the CSV of `ramstrans predict`: one line for each {name, answer, error}. */
export function toCsv(items, { severalLabels: several }) {
  const most = Math.max(...items.map(({ answer }) => answer?.labels.length ?? 0), 1);
  const ranks = Array.from({ length: most }, (_, i) => i + 1);
  const columns = [
    "path", "error", ...(several ? ["present"] : []),
    ...ranks.map((rank) => `label_${rank}`), ...ranks.map((rank) => `probability_${rank}`),
    "region_x0", "region_y0", "region_x1", "region_y1", "has_region", "unknown", "unknown_score", "set",
    "answer", "answer_rank", "answer_probability", "priors", "label_before", "probability_before", "changed",
  ];
  const rows = items.map(({ name, answer, error }) => {
    const { box = null, has_region: found = null } = answer?.scales[0] ?? {};
    return [
      name, error, ...(several ? [answer?.present && joined(answer.present)] : []),
      ...ranks.map((rank) => answer?.labels[rank - 1]),
      ...ranks.map((rank) => answer?.probabilities[rank - 1]), ...(box ?? [null, null, null, null]), found,
      answer?.unknown, answer?.unknown_score, answer?.set?.join(";"),
      answer?.answer?.name, answer?.answer?.rank, answer?.answer?.probability,
      answer?.priors?.matched, answer?.priors?.label_before, answer?.priors?.probability_before,
      answer?.priors?.changed,
    ];
  });
  return [columns, ...rows].map((row) => row.map(field).join(",") + "\n").join("");
}
