// The weights as they travel: deflated codes in base64, taken apart once by the browser itself. inspect/rounding.py writes them.
import type { Attention } from "../types";

/** Weights of all heads: what a token reads of another. */
export interface Weights {
  /** Into (length, length) numbers, a row for each token that reads; rows sum to 1. */
  head(layer: number, head: number): Float32Array;
  at(layer: number, head: number, row: number, column: number): number;
}

export async function decode(panel: Attention): Promise<Weights> {
  const text = atob(panel.weights);
  const packed = new Uint8Array(text.length);
  for (let at = 0; at < text.length; at++) packed[at] = text.charCodeAt(at);
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
  const bytes = await new Response(stream).arrayBuffer();
  // two bytes a code, the lower first, is how every machine that runs a browser keeps them
  const codes = panel.bits === 8 ? new Uint8Array(bytes) : new Uint16Array(bytes);
  const [heads, length] = [panel.heads.length, panel.tokens.length];
  const size = length * length;
  const expected = panel.layers.length * heads * size;
  if (codes.length !== expected) throw new Error(`${codes.length} weights are here, ${expected} are expected`);
  const table = Float64Array.from({ length: 2 ** panel.bits }, (_, code) => (code ? 2 ** ((1 - code) / panel.octave) : 0));

  // what a row has left stands for each of its weights that are left out; where none is, the row is brought to 1
  const rest = new Float64Array(codes.length / (length || 1)).fill(-1);
  const scale = new Float64Array(rest.length).fill(1);
  const prepare = (row: number, start: number, gone: boolean): void => {
    let sum = 0;
    let out = 0;
    for (let at = start; at < start + length; at++) {
      sum += table[codes[at]];
      if (!codes[at]) out++;
    }
    rest[row] = gone || !out ? 0 : Math.max(0, 1 - sum) / out;
    if (!gone && (!out || sum > 1)) scale[row] = 1 / sum;
  };
  const row = (layer: number, head: number, row: number): [number, number, number] => {
    const which = (layer * heads + head) * length + row;
    if (rest[which] < 0) prepare(which, which * length, panel.gone[layer][head]);
    return [which * length, rest[which], scale[which]];
  };
  return {
    head: (layer, head) => {
      const found = new Float32Array(size);
      for (let at = 0, to = 0; at < length; at++) {
        const [start, left, times] = row(layer, head, at);
        for (let from = start; from < start + length; from++, to++) found[to] = codes[from] ? table[codes[from]] * times : left;
      }
      return found;
    },
    at: (layer, head, reader, column) => {
      const [start, left, times] = row(layer, head, reader);
      const code = codes[start + column];
      return code ? table[code] * times : left;
    },
  };
}
