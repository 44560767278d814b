// Lines between the two columns of tokens, on a canvas that shows the part of them that is in the window.
import { category } from "../colors";
import { prepared } from "../dom";
import type { Wires } from "./strongest";

/** Steps of opacity; lines of one head and step are drawn at once. */
const STEPS = 12;

export interface Place {
  width: number;
  height: number;
  /** The height of a row, and how far the rows are scrolled up. */
  row: number;
  scrolled: number;
}

/** Draws lines from the readers at the left to what they read at the right, each as opaque as it is strong. */
export function drawWires(canvas: HTMLCanvasElement, wires: Wires, heads: number, place: Place): void {
  const context = prepared(canvas, place.width, place.height);
  const { width, height, row, scrolled } = place;
  const paths = new Map<number, Path2D>();
  const bend = width * 0.42;
  // many faint lines together are not faint
  const faintest = Math.min(0.25, Math.max(0.02, 16 / wires.count));
  const apart = Math.min(1.4, (row - 10) / Math.max(1, heads));
  const [first, last] = [scrolled / row - 1, (scrolled + height) / row];
  for (let at = 0; at < wires.count; at++) {
    const [from, to] = [wires.from[at], wires.to[at]];
    // a line that only passes through says nothing here
    if ((from < first || from > last) && (to < first || to > last)) continue;
    const head = wires.head[at];
    const step = Math.min(STEPS - 1, Math.floor((wires.weight[at] / wires.most) ** 0.8 * STEPS));
    const key = step * 65536 + head;
    let path = paths.get(key);
    if (!path) paths.set(key, (path = new Path2D()));
    const shift = (head - (heads - 1) / 2) * apart - scrolled;
    const [y0, y1] = [(from + 0.5) * row + shift, (to + 0.5) * row + shift];
    path.moveTo(0, y0);
    path.bezierCurveTo(bend, y0, width - bend, y1, width, y1);
  }
  for (const key of [...paths.keys()].sort((one, two) => one - two)) {
    const path = paths.get(key);
    if (!path) continue;
    const step = Math.floor(key / 65536);
    context.strokeStyle = category(key % 65536);
    context.globalAlpha = faintest + (0.96 - faintest) * ((step + 0.5) / STEPS) ** 1.25;
    context.lineWidth = 0.8 + (1.6 * step) / STEPS;
    context.stroke(path);
  }
  context.globalAlpha = 1;
}
