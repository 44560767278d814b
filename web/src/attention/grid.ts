// Who reads whom, between tokens or between words: the same questions for both.
import type { Attention } from "../types";
import type { Weights } from "./codes";

/** Weights of computed heads that are kept, in numbers. */
const KEPT = 16_000_000;

export interface Unit {
  text: string;
  /** 0 the first text, 1 the second, -1 special tokens. */
  source: number;
  /** The number of its first token. */
  start: number;
}

export interface Grid {
  units: readonly Unit[];
  /** (n, n) of one head; row: who reads. */
  matrix(layer: number, head: number): Float32Array;
  at(layer: number, head: number, row: number, column: number): number;
}

/** What was computed last, dropping what was asked for the longest time ago. */
function kept(size: number, make: (layer: number, head: number) => Float32Array): Grid["matrix"] {
  const held = new Map<string, Float32Array>();
  const most = Math.max(1, Math.floor(KEPT / Math.max(1, size)));
  return (layer, head) => {
    const key = `${layer} ${head}`;
    const found = held.get(key) ?? make(layer, head);
    held.delete(key);
    held.set(key, found);
    if (held.size > most) held.delete(held.keys().next().value ?? key);
    return found;
  };
}

/** Between tokens. */
export function byToken(panel: Attention, weights: Weights): Grid {
  const units = panel.tokens.map((text, start) => ({ text, source: panel.sources[start], start }));
  return { units, matrix: kept(units.length ** 2, weights.head), at: weights.at };
}

/** Between words: what is read of the pieces of a word is summed, what they read is averaged, so rows sum to 1. */
export function byWord(panel: Attention, weights: Weights): Grid {
  const length = panel.tokens.length;
  const of = new Int32Array(length);
  const starts: number[] = [];
  panel.words.forEach((word, at) => {
    if (!at || word < 0 || word !== panel.words[at - 1]) starts.push(at);
    of[at] = starts.length - 1;
  });
  const count = starts.length;
  const units = starts.map((start, at) => ({
    text: panel.spelled[at],
    source: panel.sources[start],
    start,
  }));
  const matrix = kept(count * count, (layer, head) => {
    const sums = new Float64Array(count * count);
    const pieced = weights.head(layer, head);
    for (let row = 0, at = 0; row < length; row++) {
      const from = of[row] * count;
      const pieces = (starts[of[row] + 1] ?? length) - starts[of[row]];
      for (let column = 0; column < length; column++) sums[from + of[column]] += pieced[at++] / pieces;
    }
    return Float32Array.from(sums);
  });
  return { units, matrix, at: (layer, head, row, column) => matrix(layer, head)[row * count + column] };
}
