// The strongest of many weights: a drawing of three million lines says nothing.
import type { Grid } from "./grid";
import { allowed, type State } from "./state";

export interface Wires {
  count: number;
  head: Uint16Array;
  from: Int32Array;
  to: Int32Array;
  weight: Float32Array;
  /** The largest weight among them, and how many there are at or above the threshold. */
  most: number;
  total: number;
}

/** Buckets of the square root of a weight, in which the strongest are found without sorting. */
const BUCKETS = 2048;

/** At most `limit` lines, the strongest; among equals, evenly spread. */
export function strongest(grid: Grid, state: State, limit: number): Wires {
  const units = grid.units;
  const size = units.length;
  const heads = [...state.heads].sort((one, two) => one - two);
  const low = Math.max(state.threshold, 1e-12);
  const counts = new Uint32Array(BUCKETS + 1);
  const open = state.segment === "all";
  const each = (act: (head: number, row: number, column: number, weight: number, bucket: number) => void): void => {
    for (const head of heads) {
      const matrix = grid.matrix(state.layer, head);
      for (let row = 0, at = 0; row < size; row++) {
        for (let column = 0; column < size; column++, at++) {
          const weight = matrix[at];
          if (weight < low) continue;
          if (!open && !allowed(state.segment, units[row].source, units[column].source)) continue;
          act(head, row, column, weight, Math.min(BUCKETS, Math.floor(Math.sqrt(weight) * BUCKETS)));
        }
      }
    }
  };
  let total = 0;
  each((_head, _row, _column, _weight, bucket) => {
    counts[bucket]++;
    total++;
  });
  let edge = BUCKETS;
  let above = 0;
  while (edge > 0 && above + counts[edge] <= limit) above += counts[edge--];
  const stride = Math.ceil(counts[edge] / Math.max(1, limit - above));
  const capacity = Math.min(total, limit);
  const wires: Wires = {
    count: 0,
    head: new Uint16Array(capacity),
    from: new Int32Array(capacity),
    to: new Int32Array(capacity),
    weight: new Float32Array(capacity),
    most: 0,
    total,
  };
  let among = 0;
  each((head, row, column, weight, bucket) => {
    if (bucket < edge || (bucket === edge && among++ % stride) || wires.count >= capacity) return;
    wires.head[wires.count] = head;
    wires.from[wires.count] = row;
    wires.to[wires.count] = column;
    wires.weight[wires.count++] = weight;
    if (weight > wires.most) wires.most = weight;
  });
  return wires;
}

/** The lines of one unit alone: what it reads, or who reads it. */
export function ofOne(grid: Grid, state: State, unit: number, reads: boolean, limit: number): Wires {
  const units = grid.units;
  const found: [number, number, number][] = [];
  for (const head of state.heads) {
    for (let other = 0; other < units.length; other++) {
      const [row, column] = reads ? [unit, other] : [other, unit];
      if (!allowed(state.segment, units[row].source, units[column].source)) continue;
      const weight = grid.at(state.layer, head, row, column);
      if (weight >= Math.max(state.threshold, 1e-12)) found.push([head, other, weight]);
    }
  }
  found.sort((one, two) => two[2] - one[2]);
  const best = found.slice(0, limit);
  return {
    count: best.length,
    head: Uint16Array.from(best, ([head]) => head),
    from: Int32Array.from(best, ([, other]) => (reads ? unit : other)),
    to: Int32Array.from(best, ([, other]) => (reads ? other : unit)),
    weight: Float32Array.from(best, ([, , weight]) => weight),
    most: best[0]?.[2] ?? 0,
    total: found.length,
  };
}
