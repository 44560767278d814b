// The weights as they travel: deflated codes in base64, taken apart once by the browser itself.
import type { Attention } from "../types";

/** Weights of all heads: what `token` reads of `other` is at(layer, head, token, other). */
export interface Weights {
  layers: number;
  heads: number;
  length: number;
  levels: number;
  /** (layers, heads, length, length), one code each. */
  codes: Uint8Array | Uint16Array;
  /** The weight that a code stands for: (code / levels) squared. */
  table: Float64Array;
}

export async function decode(panel: Attention): Promise<Weights> {
  const text = atob(panel.weights);
  const packed = new Uint8Array(text.length);
  for (let at = 0; at < text.length; at++) packed[at] = text.charCodeAt(at);
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
  const bytes = await new Response(stream).arrayBuffer();
  // two bytes a code, the lower first, is how every machine that runs a browser keeps them
  const codes = panel.levels < 256 ? new Uint8Array(bytes) : new Uint16Array(bytes);
  const [layers, length] = [panel.layers.length, panel.tokens.length];
  const expected = layers * panel.heads * length * length;
  if (codes.length !== expected) throw new Error(`${codes.length} weights are here, ${expected} are expected`);
  const table = Float64Array.from({ length: panel.levels + 1 }, (_, code) => (code / panel.levels) ** 2);
  return { layers, heads: panel.heads, length, levels: panel.levels, codes, table };
}
