// What a model that is calibrated answers beside probabilities: unknown or not, a set, a rank that is certain.
// The arithmetic is that of ramstrans/calibration/answers.py.

const PENALTY = 0.01; // of RAPS, for each rank after the free ones
const FREE_RANKS = 5;

const rounded = (value) => Math.round(value * 1e6) / 1e6;

/** Labels, most probable first; equal ones in their own order. */
export function ranked(scores) {
  return Array.from(scores.keys()).sort((one, other) => scores[other] - scores[one] || one - other);
}

/** The labels in the prediction set, most probable first; `rule` is that of calibration.json. */
function setOf(probabilities, rule) {
  const limits = rule[rule.method];
  const order = ranked(probabilities);
  let sum = 0;
  return order.filter((label, index) => {
    sum += probabilities[label];
    const more = rule.method === "raps" ? PENALTY * Math.max(0, index + 1 - FREE_RANKS) : 0;
    const score = rule.method === "lac" ? 1 - probabilities[label] : Math.min(sum, 1) + more;
    return index === 0 || score <= limits[limits.length > 1 ? label : 0];
  });
}

/** The answer at the finest rank whose most probable group is certain enough; null is the name of the root. */
function answerOf(probabilities, { ranks, groups, members, confidence }, names) {
  for (const [index, rank] of ranks.entries()) {
    const of = index === 0 ? probabilities : new Float64Array(groups[index - 1].length);
    if (index > 0) {
      members[index - 1].forEach((group, label) => {
        if (group >= 0) of[group] += probabilities[label];
      });
    }
    const best = ranked(of)[0];
    const probability = Math.min(of[best], 1);
    const name = index === 0 ? names[best] : groups[index - 1][best];
    if (probability >= confidence) return { name, rank, probability: rounded(probability) };
  }
  return { name: null, rank: "root", probability: 1 };
}

/**
 * The fields `unknown`, `unknown_score`, `set` and `answer` of a line of `ramstrans predict`.
 * `calibration`: calibration.json of the folder; null: none of them is known.
 * `score`: the graph's score of the unknown, if there is one.
 */
export function calibratedFields(calibration, probabilities, score, names) {
  const rule = calibration?.fused.at(-1);
  return {
    unknown: rule?.unknown ? score > rule.unknown.threshold : null,
    unknown_score: rule?.unknown && Number.isFinite(score) ? rounded(score) : null,
    set: rule?.sets ? setOf(probabilities, rule.sets).map((label) => names[label]) : null,
    answer: calibration?.taxonomy ? answerOf(probabilities, calibration.taxonomy, names) : null,
  };
}

/** What the calibration promises: the shares `coverage` of sets and `reject` of known photographs. */
export function promises(calibration) {
  const rule = calibration?.fused.at(-1);
  return { coverage: rule?.sets?.coverage ?? null, reject: rule?.unknown?.reject ?? null };
}
